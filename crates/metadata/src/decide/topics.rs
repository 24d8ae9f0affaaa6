//! Decisions about topics: create, delete, grow. Each row of a request stands or falls by itself.
//!
//! What is not here: who may ask, automatic creation, which is a CreateTopics of the broker's own, and which brokers
//! are chosen (`placement.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ottla_types::{BrokerId, PartitionIndex, Timestamp, TopicId};

use super::{
    cluster::draw_id,
    configs, distinct,
    placement::{Placement, check_assignments, place, takers_count},
};
use crate::{
    ConfigResource, CreatedTopic, DeletedTopic, Image, NewPartitions, NewTopic, OFFSETS_TOPIC, Partition, Record,
    Refusal, Rows, TopicRef,
    config::{BrokerConfig, ConfigError, GroupConfig, Overrides, Settings, TopicConfig},
    name::{METADATA_TOPIC, metric_name},
    validate_topic_name,
};

/// The most partitions one request may make, as in Kafka: each costs files and memory for as long as it lives.
const MAX_PARTITIONS_PER_REQUEST: usize = 10_000;

/// How many copies a topic gets if nobody says, as far as there are brokers.
const DEFAULT_COPIES: i16 = 3;

pub(super) fn create(
    image: &Image,
    settings: &Settings,
    now: Timestamp,
    entropy: &mut dyn FnMut() -> [u8; 16],
    topics: Vec<NewTopic>,
) -> (Vec<Record>, Rows<String, CreatedTopic>) {
    let mut created = Creation::new(image, settings, now);
    let rows = distinct(topics, |topic| topic.name.clone())
        .into_iter()
        .map(|(name, topic)| {
            let result = topic.ok_or_else(duplicate).and_then(|topic| created.topic(entropy, topic));
            (name, result)
        })
        .collect();
    (created.records, rows)
}

/// The topic of committed offsets. Its configs are not a client's wish, so what is refused to clients is no matter.
pub(super) fn create_offsets_topic(
    image: &Image,
    settings: &Settings,
    now: Timestamp,
    entropy: &mut dyn FnMut() -> [u8; 16],
) -> (Vec<Record>, Rows<String, CreatedTopic>) {
    let config = GroupConfig::resolve(&configs::deciding_layers(image, settings));
    let topic = NewTopic {
        name: OFFSETS_TOPIC.to_owned(),
        partitions: config.offsets_topic_partitions,
        replication_factor: as_far_as_there_are_brokers(image, config.offsets_topic_replication_factor),
        ..NewTopic::default()
    };
    let overrides = [
        ("cleanup.policy", "compact".to_owned()),
        // The coordinator compresses as it is told to; nobody shall undo that.
        ("compression.type", "producer".to_owned()),
        ("segment.bytes", config.offsets_topic_segment_bytes.to_string()),
    ];
    let overrides = overrides.map(|(key, value)| (key.to_owned(), value)).into();
    let mut created = Creation::new(image, settings, now);
    let result = created
        .check_name(&topic.name)
        .and_then(|()| created.place(entropy, &topic))
        .map(|placement| created.add(entropy, topic.name, &placement, overrides));
    (created.records, vec![(OFFSETS_TOPIC.to_owned(), result)])
}

/// One CreateTopics request under way: rows see the names and the partitions of the rows before them.
struct Creation<'a> {
    image: &'a Image,
    now: Timestamp,
    num_partitions: i32,
    replication_factor: i16,
    base: TopicConfig,
    budget: usize,
    /// Those of the rows before.
    metric_names: BTreeMap<String, Arc<str>>,
    records: Vec<Record>,
}

impl<'a> Creation<'a> {
    fn new(image: &'a Image, settings: &Settings, now: Timestamp) -> Creation<'a> {
        let defaults = broker_config(image, settings);
        let replication_factor = match settings.get("default.replication.factor") {
            Some(_) => defaults.default_replication_factor,
            None => as_far_as_there_are_brokers(image, DEFAULT_COPIES),
        };
        Creation {
            image,
            now,
            num_partitions: defaults.num_partitions,
            replication_factor,
            base: TopicConfig::resolve(&configs::deciding_layers(image, settings)),
            budget: MAX_PARTITIONS_PER_REQUEST,
            metric_names: BTreeMap::new(),
            records: Vec::new(),
        }
    }

    fn topic(&mut self, entropy: &mut dyn FnMut() -> [u8; 16], topic: NewTopic) -> Result<CreatedTopic, Refusal> {
        self.check_name(&topic.name)?;
        let overrides = self.check_configs(&topic.configs)?;
        let placement = if topic.assignments.is_empty() { self.place(entropy, &topic)? } else { self.by_hand(&topic)? };
        self.budget -= placement.len();
        Ok(self.add(entropy, topic.name, &placement, overrides))
    }

    fn add(
        &mut self,
        entropy: &mut dyn FnMut() -> [u8; 16],
        name: String,
        placement: &Placement,
        overrides: Overrides,
    ) -> CreatedTopic {
        let id = draw_id(entropy);
        let name: Arc<str> = name.into();
        let replication_factor = placement.first().map_or(0, |replicas| replicas.len());
        self.records.push(Record::TopicCreated { id, name: name.clone(), created: self.now });
        self.records.extend(partition_records(self.image, id, 0, placement));
        self.records.extend(overrides.iter().map(|(key, value)| Record::ConfigSet {
            resource: ConfigResource::Topic(id),
            key: key.clone(),
            value: value.clone(),
        }));
        if let Some(metric_name) = metric_name(&name) {
            self.metric_names.insert(metric_name, name);
        }
        CreatedTopic {
            id,
            partitions: i32::try_from(placement.len()).unwrap_or(i32::MAX),
            replication_factor: i16::try_from(replication_factor).unwrap_or(i16::MAX),
            overrides,
        }
    }

    fn check_name(&self, name: &str) -> Result<(), Refusal> {
        validate_topic_name(name).map_err(Refusal::InvalidTopic)?;
        if name == METADATA_TOPIC {
            return Err(Refusal::InvalidRequest(format!("Creation of internal topic {METADATA_TOPIC} is prohibited.")));
        }
        if self.image.topic_named(name).is_some() {
            return Err(Refusal::TopicExists(name.to_owned()));
        }
        if let Some(metric_name) = metric_name(name) {
            let existing = self.image.topic_with_metric_name(&metric_name);
            if let Some(other) = existing.or_else(|| self.metric_names.get(&metric_name)) {
                return Err(Refusal::InvalidTopic(format!(
                    "Topic '{name}' collides with existing topic '{other}': they differ only in '.' and '_'"
                )));
            }
        }
        Ok(())
    }

    fn check_configs(&self, given: &[(String, Option<String>)]) -> Result<Overrides, Refusal> {
        let mut overrides = Overrides::new();
        for (key, value) in given {
            let value = value
                .as_ref()
                .ok_or_else(|| Refusal::InvalidTopicConfig(ConfigError::NullValue { key: key.clone() }))?;
            overrides.insert(key.clone(), value.clone());
        }
        configs::check_topic(self.base, &mut overrides)?;
        Ok(overrides)
    }

    fn place(&self, entropy: &mut dyn FnMut() -> [u8; 16], topic: &NewTopic) -> Result<Placement, Refusal> {
        let partitions = match topic.partitions {
            -1 => self.num_partitions,
            count => count,
        };
        let factor = match topic.replication_factor {
            -1 => self.replication_factor,
            factor => factor,
        };
        let partitions = usize::try_from(partitions).ok().filter(|&count| count > 0).ok_or_else(|| {
            Refusal::InvalidPartitions(format!("{partitions} is not a number of partitions; 1 or more is"))
        })?;
        self.check_budget(partitions)?;
        place(self.image, entropy, 0, partitions, factor)
    }

    fn by_hand(&self, topic: &NewTopic) -> Result<Placement, Refusal> {
        if topic.partitions != -1 || topic.replication_factor != -1 {
            return Err(Refusal::InvalidRequest(
                "With replicas assigned by hand, the number of partitions and the replication factor must be -1."
                    .to_owned(),
            ));
        }
        self.check_budget(topic.assignments.len())?;
        let by_index: BTreeMap<PartitionIndex, &Vec<BrokerId>> =
            topic.assignments.iter().map(|(index, replicas)| (*index, replicas)).collect();
        let consecutive = by_index.len() == topic.assignments.len()
            && (0..).zip(by_index.keys()).all(|(expected, index)| index.0 == expected);
        if !consecutive {
            return Err(Refusal::InvalidAssignment(
                "Partitions must be assigned once each, from 0 on and without a gap.".to_owned(),
            ));
        }
        check_assignments(self.image, by_index.into_values(), None)
    }

    fn check_budget(&self, partitions: usize) -> Result<(), Refusal> {
        if partitions > self.budget { Err(too_many()) } else { Ok(()) }
    }
}

/// A topic that was only validated has no id.
pub(super) fn hide_ids(validate_only: bool, mut rows: Rows<String, CreatedTopic>) -> Rows<String, CreatedTopic> {
    for created in rows.iter_mut().filter_map(|(_, result)| result.as_mut().ok()).filter(|_| validate_only) {
        created.id = TopicId::ZERO;
    }
    rows
}

pub(super) fn delete(
    image: &Image,
    settings: &Settings,
    topics: Vec<TopicRef>,
) -> (Vec<Record>, Rows<TopicRef, DeletedTopic>) {
    let allowed = broker_config(image, settings).delete_topic;
    let mut deleted = BTreeSet::new();
    let rows = distinct(topics, TopicRef::clone)
        .into_iter()
        .map(|(topic, once)| {
            let found = match &topic {
                _ if !allowed => Err(Refusal::DeletionDisabled),
                _ if once.is_none() => Err(duplicate()),
                TopicRef::Name(name) => image.topic_named(name).ok_or_else(|| Refusal::UnknownTopic(name.clone())),
                TopicRef::Id(id) => image.topic(*id).ok_or(Refusal::UnknownTopicId(*id)),
            };
            let result = found.map(|found| {
                // The same topic once by name and once by id: deleted once, answered twice.
                deleted.insert(found.id);
                DeletedTopic { name: found.name.clone(), id: found.id }
            });
            (topic, result)
        })
        .collect();
    (deleted.into_iter().map(|id| Record::TopicDeleted { id }).collect(), rows)
}

pub(super) fn grow(
    image: &Image,
    entropy: &mut dyn FnMut() -> [u8; 16],
    topics: Vec<NewPartitions>,
) -> (Vec<Record>, Rows<String, ()>) {
    let mut records = Vec::new();
    let mut budget = MAX_PARTITIONS_PER_REQUEST;
    let mut one = |wanted: NewPartitions| {
        let topic = image.topic_named(&wanted.name).ok_or_else(|| Refusal::UnknownTopic(wanted.name.clone()))?;
        if wanted.name == OFFSETS_TOPIC {
            // A group is at home in the partition that its name and their number say, and its offsets stay behind.
            return Err(Refusal::InvalidPartitions(format!(
                "The number of partitions of {OFFSETS_TOPIC} can't change: groups would lose what they have committed."
            )));
        }
        let current = topic.partitions.len();
        let more = usize::try_from(wanted.count).unwrap_or(0).checked_sub(current).filter(|&more| more > 0);
        let more = more.ok_or_else(|| {
            Refusal::InvalidPartitions(format!(
                "The topic {} currently has {current} partition(s); {} would not be an increase.",
                wanted.name, wanted.count
            ))
        })?;
        if more > budget {
            return Err(too_many());
        }
        let factor = topic.partitions.first().map_or(1, |partition| partition.target_replicas().count());
        let placement = match wanted.assignments {
            None => place(image, entropy, current, more, i16::try_from(factor).unwrap_or(i16::MAX))?,
            Some(assignments) if assignments.len() != more => {
                let given = assignments.len();
                return Err(Refusal::InvalidAssignment(format!(
                    "Attempted to add {more} partition(s), but {given} assignment(s) were given."
                )));
            }
            Some(assignments) => check_assignments(image, assignments.iter(), Some(factor))?,
        };
        budget -= more;
        records.extend(partition_records(image, topic.id, current, &placement));
        Ok(())
    };
    let rows = distinct(topics, |topic| topic.name.clone())
        .into_iter()
        .map(|(name, wanted)| (name, wanted.ok_or_else(duplicate).and_then(&mut one)))
        .collect();
    (records, rows)
}

fn partition_records<'a>(
    image: &'a Image,
    topic: TopicId,
    first: usize,
    placement: &'a [Arc<[BrokerId]>],
) -> impl Iterator<Item = Record> {
    let first = i32::try_from(first).unwrap_or(i32::MAX);
    (first..).map(PartitionIndex).zip(placement).map(move |(index, replicas)| {
        let mut partition = Partition::on(replicas.clone());
        // By hand a partition can be put on brokers that are down: they are to catch up.
        if !replicas.iter().all(|&replica| image.is_live(replica)) {
            partition.isr = replicas.iter().copied().filter(|&replica| image.is_live(replica)).collect();
            partition.leader = partition.isr.first().copied();
        }
        Record::PartitionCreated { topic, index, partition }
    })
}

/// So many replicas, or as many as there are brokers to take them; at least one, which is then refused.
pub(super) fn as_far_as_there_are_brokers(image: &Image, factor: i16) -> i16 {
    factor.min(i16::try_from(takers_count(image)).unwrap_or(i16::MAX)).max(1)
}

/// The broker-level configs that decide for the whole cluster: this broker's static ones, and what is set for all.
fn broker_config(image: &Image, settings: &Settings) -> BrokerConfig {
    BrokerConfig::resolve(&configs::deciding_layers(image, settings))
}

fn duplicate() -> Refusal {
    Refusal::InvalidRequest("Duplicate topic name.".to_owned())
}

fn too_many() -> Refusal {
    Refusal::TooMuch(format!(
        "Excessively large number of partitions per request: at most {MAX_PARTITIONS_PER_REQUEST} are allowed."
    ))
}
