//! Decisions about configs: AlterConfigs replaces everything set on a resource, IncrementalAlterConfigs touches what it
//! names. Either way the state that would hold afterwards is checked as a whole, and only differences are recorded.
//!
//! What is not here: what each value must look like (`config`).

use std::collections::BTreeSet;

use ottla_types::{BrokerEpoch, BrokerId};

use super::{distinct, transition::Setting};
use crate::{
    AlteredConfigs, CHANGES_OF_DURABILITY, ConfigAlteration, ConfigResource, Image, IncrementalAlteration, Record,
    Refusal, Rows, Topic,
    config::{
        Change, ConfigError, Durability, Layers, Overrides, Scope, Settings, TopicConfig, check_group, check_groups,
        check_limits, check_together, is_swallowed,
    },
};

static NONE: Overrides = Overrides::new();

const DURABILITY: &str = "ottla.durability";
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// Longest id of a group, in bytes: what the records of `__consumer_offsets` can hold.
const MAX_GROUP_ID: usize = 32_767;

pub(super) fn replace(
    image: &Image,
    settings: &Settings,
    resources: Vec<ConfigAlteration>,
) -> (Vec<Record>, Rows<AlteredConfigs, ()>) {
    let mut records = Vec::new();
    let mut one = |alteration: ConfigAlteration| {
        let target = Target::find(image, &alteration.resource)?;
        check_keys(alteration.configs.iter().map(|(key, _)| key))?;
        let mut after = Overrides::new();
        for (key, value) in alteration.configs {
            let value = value.ok_or_else(|| null_value(&key))?;
            after.insert(key, value);
        }
        records.extend(target.change(image, settings, after)?);
        Ok(())
    };
    let rows = distinct(resources, |alteration| alteration.resource.clone())
        .into_iter()
        .map(|(resource, alteration)| (resource, alteration.ok_or_else(duplicate).and_then(&mut one)))
        .collect();
    (records, rows)
}

pub(super) fn increment(
    image: &Image,
    settings: &Settings,
    resources: Vec<IncrementalAlteration>,
) -> (Vec<Record>, Rows<AlteredConfigs, ()>) {
    let mut records = Vec::new();
    let mut one = |alteration: IncrementalAlteration| {
        let target = Target::find(image, &alteration.resource)?;
        check_keys(alteration.operations.iter().map(|(key, _)| key))?;
        let mut after = target.before.clone();
        for (key, operation) in alteration.operations {
            let operation = operation.ok_or_else(|| null_value(&key))?;
            check_limits(&key, "").map_err(|error| target.refuse(error))?;
            let current = target.before.get(&key).map(String::as_str);
            match operation.result(target.scope, &key, current).map_err(|error| target.refuse(error))? {
                Some(value) => after.insert(key, value),
                None => after.remove(&key),
            };
        }
        records.extend(target.change(image, settings, after)?);
        Ok(())
    };
    let rows = distinct(resources, |alteration| alteration.resource.clone())
        .into_iter()
        .map(|(resource, alteration)| (resource, alteration.ok_or_else(duplicate).and_then(&mut one)))
        .collect();
    (records, rows)
}

/// What some changes of configs mean for partitions: an ELR goes where the ISR suffices now, because from now on
/// records are committed without its members; and where any replica may lead now, one does. Where more must be in sync
/// than before, the partition's epoch rises: a leader that goes by the old minimum could have its ISR shrunk, commit
/// alone, and lose that to one whom the shrinking made eligible (rule A3). Where only what is synced counts from
/// now on, what was acknowledged before may be in memory alone for as long as brokers run that did so (rule A2).
pub(super) fn follow_up(image: &Image, settings: &Settings, changes: &[Record]) -> Vec<Record> {
    let matters = |record: &Record| match record {
        Record::ConfigSet { key, .. } | Record::ConfigRemoved { key, .. } => {
            key == MIN_INSYNC_REPLICAS || key == "unclean.leader.election.enable" || key == DURABILITY
        }
        _ => false,
    };
    if !changes.iter().any(matters) {
        return Vec::new();
    }
    let mut after = image.clone();
    changes.iter().for_each(|change| after.apply(change));
    let (before, after) = (Setting::new(image, settings), Setting::new(&after, settings));
    let mut records = Vec::new();
    if image.level() >= CHANGES_OF_DURABILITY {
        let counted_memory = |topic: &Topic| before.config(topic).durability == Durability::Replicated;
        let now_synced = after.image.topics().filter(|topic| after.config(topic).durability == Durability::Fsync);
        let changed = now_synced.filter(|topic| image.topic(topic.id).is_some_and(|topic| counted_memory(topic)));
        // Epochs are offsets of this log, and no registration that is there already comes up to this one.
        let since = BrokerEpoch(after.image.offset().0.max(image.last_broker_epoch().0.saturating_add(1)));
        records.extend(changed.map(|topic| Record::TopicSynced { id: topic.id, since }));
    }
    records.extend(after.sweep(
        |_| true,
        |topic, _, transition| {
            let minimum = image.topic(topic).map(|topic| before.config(topic).min_insync_replicas);
            transition.renewed = minimum.is_some_and(|minimum| transition.needed_of(minimum) < transition.needed());
        },
    ));
    records
}

/// Checks what would be set on a topic over `base`, and leaves out the names of older tools that are taken without
/// effect.
pub(super) fn check_topic(base: TopicConfig, after: &mut Overrides) -> Result<(), Refusal> {
    after.retain(|key, _| !is_swallowed(Scope::Topic, key));
    let invalid = Refusal::InvalidTopicConfig;
    for (key, value) in after.iter() {
        Scope::Topic.validate(key, value).map_err(invalid)?;
    }
    check_together(base.with_overrides(after)).map_err(invalid)
}

/// The layers a decision for the whole cluster is taken by: no single broker's dynamic configs.
pub(super) fn deciding_layers<'a>(image: &'a Image, settings: &'a Settings) -> Layers<'a> {
    Layers { broker: &NONE, cluster: image.cluster_configs(), settings }
}

/// A resource that exists, with what is set on it.
struct Target<'a> {
    resource: ConfigResource,
    scope: Scope,
    before: &'a Overrides,
}

impl<'a> Target<'a> {
    fn find(image: &'a Image, resource: &AlteredConfigs) -> Result<Target<'a>, Refusal> {
        match resource {
            AlteredConfigs::Topic(name) => {
                let topic = image.topic_named(name).ok_or_else(|| Refusal::UnknownTopic(name.clone()))?;
                let resource = ConfigResource::Topic(topic.id);
                Ok(Target { resource, scope: Scope::Topic, before: &topic.overrides })
            }
            AlteredConfigs::Broker(Some(id)) => {
                if image.broker(*id).is_none() {
                    return Err(unknown_broker(*id));
                }
                let resource = ConfigResource::Broker(*id);
                Ok(Target { resource, scope: Scope::Broker, before: image.broker_configs(*id) })
            }
            AlteredConfigs::Broker(None) => {
                let resource = ConfigResource::DefaultBroker;
                Ok(Target { resource, scope: Scope::Broker, before: image.cluster_configs() })
            }
            // A group need not exist: it may be configured before its first member comes.
            AlteredConfigs::Group(name) => {
                if name.is_empty() {
                    return Err(Refusal::InvalidRequest("Default group resources are not allowed.".to_owned()));
                }
                if name.len() > MAX_GROUP_ID {
                    return Err(Refusal::InvalidRequest(format!("A group's id has at most {MAX_GROUP_ID} bytes.")));
                }
                let resource = ConfigResource::Group(name.as_str().into());
                Ok(Target { resource, scope: Scope::Group, before: image.group_configs(name) })
            }
        }
    }

    /// The records that turn what is set into `after`.
    fn change(&self, image: &Image, settings: &Settings, mut after: Overrides) -> Result<Vec<Record>, Refusal> {
        let keys: BTreeSet<&String> = self.before.keys().chain(after.keys()).collect();
        let changed: BTreeSet<String> =
            keys.into_iter().filter(|&key| self.before.get(key) != after.get(key)).cloned().collect();
        match self.scope {
            Scope::Topic => check_topic(TopicConfig::resolve(&deciding_layers(image, settings)), &mut after)?,
            Scope::Broker => self.check_broker(image, settings, &changed, &after)?,
            Scope::Group => self.check_group(&deciding_layers(image, settings), &changed, &after)?,
        }
        let record = |key: String| match after.get(&key) {
            Some(value) => Some(Record::ConfigSet { resource: self.resource.clone(), value: value.clone(), key }),
            // Swallowed names are neither before nor after.
            None => {
                let was_set = self.before.contains_key(&key);
                was_set.then(|| Record::ConfigRemoved { resource: self.resource.clone(), key })
            }
        };
        Ok(changed.into_iter().filter_map(record).collect())
    }

    fn check_broker(
        &self,
        image: &Image,
        settings: &Settings,
        changed: &BTreeSet<String>,
        after: &Overrides,
    ) -> Result<(), Refusal> {
        let fixed =
            |key: &&String| Scope::Broker.find(key).is_some_and(|definition| definition.change == Change::ReadOnly);
        let fixed: Vec<&str> = changed.iter().filter(fixed).map(String::as_str).collect();
        if !fixed.is_empty() {
            return Err(self.refuse(ConfigError::NotDynamic { keys: fixed.join(", ") }));
        }
        // The controller reckons with one value for all leaders when it says who is eligible (KIP-966).
        if matches!(self.resource, ConfigResource::Broker(_)) && changed.contains(MIN_INSYNC_REPLICAS) {
            return Err(Refusal::InvalidRequest(format!(
                "{MIN_INSYNC_REPLICAS} can be set on a topic or for all brokers, not for a single one."
            )));
        }
        for key in changed {
            if let Some(value) = after.get(key) {
                Scope::Broker.validate(key, value).map_err(|error| self.refuse(error))?;
            }
        }
        let layers = match self.resource {
            ConfigResource::Broker(_) => Layers { broker: after, cluster: image.cluster_configs(), settings },
            _ => Layers { broker: &NONE, cluster: after, settings },
        };
        check_together(TopicConfig::resolve(&layers)).map_err(|error| self.refuse(error))?;
        check_groups(&layers).map_err(|error| self.refuse(error))
    }

    fn check_group(&self, layers: &Layers<'_>, changed: &BTreeSet<String>, after: &Overrides) -> Result<(), Refusal> {
        for (key, value) in after.iter().filter(|(key, _)| changed.contains(*key)) {
            Scope::Group.validate(key, value).map_err(Refusal::InvalidGroupConfig)?;
        }
        check_group(layers, after).map_err(Refusal::InvalidGroupConfig)
    }

    fn refuse(&self, error: ConfigError) -> Refusal {
        match self.scope {
            Scope::Group => Refusal::InvalidGroupConfig(error),
            Scope::Topic => Refusal::InvalidTopicConfig(error),
            Scope::Broker => Refusal::InvalidBrokerConfig(error),
        }
    }
}

fn check_keys<'a>(keys: impl Iterator<Item = &'a String>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for key in keys {
        if !seen.insert(key) {
            return Err(Refusal::InvalidRequest(format!("The config {key} is named twice for one resource.")));
        }
    }
    Ok(())
}

fn unknown_broker(id: BrokerId) -> Refusal {
    Refusal::InvalidRequest(format!("Broker {id} is not registered."))
}

fn null_value(key: &str) -> Refusal {
    Refusal::InvalidRequest(format!("Null value not supported for {key}."))
}

fn duplicate() -> Refusal {
    Refusal::InvalidRequest("Each resource must appear at most once.".to_owned())
}
