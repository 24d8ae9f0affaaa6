//! Decisions about leaders that were asked for: by an operator, or because leadership is uneven.
//!
//! What is not here: elections because a leader is gone (`brokers.rs`), and who may be elected (`transition.rs`).

use std::collections::BTreeMap;

use ottla_types::{BrokerId, PartitionIndex};

use super::{distinct, transition::Setting};
use crate::{Election, Image, Partition, Record, Refusal, Rows, Topic, config::Settings};

/// How many leaders one round of balancing moves at most, as in Kafka.
const BALANCED_MAX: usize = 1000;

pub(super) fn elect(
    image: &Image,
    settings: &Settings,
    kind: Election,
    partitions: Option<Vec<(String, PartitionIndex)>>,
) -> (Vec<Record>, Rows<(String, PartitionIndex), ()>) {
    let setting = Setting::new(image, settings);
    let mut records = Vec::new();
    let mut one = |topic: &Topic, index: PartitionIndex, partition: &Partition| -> Result<(), Refusal> {
        records.push(elect_one(&setting, kind, topic, index, partition)?);
        Ok(())
    };
    let rows = match partitions {
        Some(wanted) => distinct(wanted, Clone::clone)
            .into_iter()
            .map(|((name, index), once)| {
                let result = once.ok_or_else(duplicate).and_then(|_| find(image, &name, index));
                ((name, index), result.and_then(|(topic, partition)| one(topic, index, partition)))
            })
            .collect(),
        None => image
            .partitions()
            .map(|(topic, index, partition)| ((topic.name.to_string(), index), one(topic, index, partition)))
            .filter(|(_, result)| *result != Err(Refusal::ElectionNotNeeded))
            .collect(),
    };
    (records, rows)
}

fn elect_one(
    setting: &Setting<'_>,
    kind: Election,
    topic: &Topic,
    index: PartitionIndex,
    partition: &Partition,
) -> Result<Record, Refusal> {
    let image = setting.image;
    match kind {
        Election::Preferred => {
            let preferred = partition.preferred_leader().ok_or(Refusal::PreferredLeaderNotAvailable)?;
            if partition.leader == Some(preferred) {
                return Err(Refusal::ElectionNotNeeded);
            }
            if !can_lead(image, partition, preferred) {
                return Err(Refusal::PreferredLeaderNotAvailable);
            }
        }
        Election::Unclean if partition.leader.is_some() => return Err(Refusal::ElectionNotNeeded),
        Election::Unclean => {}
    }
    let mut transition = setting.transition(partition, &setting.config(topic));
    transition.to_preferred = kind == Election::Preferred;
    transition.may_lose_records |= kind == Election::Unclean;
    let elected = transition.finish().filter(|after| after.leader.is_some());
    let partition = elected.ok_or(Refusal::EligibleLeadersNotAvailable)?;
    Ok(Record::PartitionChanged { topic: topic.id, index, partition })
}

/// Kafka's rule of imbalance: of the partitions that prefer a broker, the share that others lead.
pub(super) fn balance(image: &Image, settings: &Settings, threshold_percent: u32) -> Vec<Record> {
    let mut preferring: BTreeMap<BrokerId, (usize, usize)> = BTreeMap::new();
    for (.., partition) in image.partitions() {
        if let Some(preferred) = partition.preferred_leader() {
            let (all, elsewhere) = preferring.entry(preferred).or_default();
            *all += 1;
            *elsewhere += usize::from(partition.leader != Some(preferred));
        }
    }
    let threshold = usize::try_from(threshold_percent).unwrap_or(usize::MAX);
    preferring.retain(|_, (all, elsewhere)| elsewhere.saturating_mul(100) > all.saturating_mul(threshold));
    let setting = Setting::new(image, settings);
    let uneven = |partition: &Partition| {
        let preferred = partition.preferred_leader().filter(|&preferred| partition.leader != Some(preferred));
        preferred.is_some_and(|id| {
            preferring.contains_key(&id) && can_lead(image, partition, id) && !partition.is_reassigning()
        })
    };
    let mut records = setting.sweep(uneven, |_, _, transition| transition.to_preferred = true);
    records.truncate(BALANCED_MAX);
    records
}

fn can_lead(image: &Image, partition: &Partition, id: BrokerId) -> bool {
    image.is_live(id) && partition.isr.contains(&id)
}

/// The partition of that name and number.
pub(super) fn find<'a>(
    image: &'a Image,
    name: &str,
    index: PartitionIndex,
) -> Result<(&'a Topic, &'a Partition), Refusal> {
    let topic: &Topic = image.topic_named(name).ok_or_else(|| Refusal::UnknownTopic(name.to_owned()))?;
    let partition = topic.partition(index).ok_or_else(|| Refusal::UnknownPartition(name.to_owned(), index))?;
    Ok((topic, partition))
}

pub(super) fn duplicate() -> Refusal {
    Refusal::InvalidRequest("Each partition must appear at most once.".to_owned())
}
