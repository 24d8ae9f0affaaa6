//! Decisions to move replicas because the set of brokers changes: off one that is decommissioned, and more copies of
//! the internal topics once there are brokers for them.
//!
//! What is not here: evenness (`rebalance.rs`), and what an operator assigns by hand (`reassignment.rs`).

use ottla_types::{BrokerId, PartitionIndex};

use super::{
    brokers::{changed, with},
    configs::deciding_layers,
    placement::Loads,
    reassignment::aim,
    topics::as_far_as_there_are_brokers,
    transition::Setting,
};
use crate::{
    Image, OFFSETS_TOPIC, Partition, Record, Refusal, Reply, Topic,
    config::{GroupConfig, Settings},
    is_internal_topic,
};

/// How many partitions are on the move at a time for one cause, so that moving does not crowd out everything else.
pub(super) const MOVING_MAX: usize = 100;

/// How many copies internal topics get, where no config says, as far as there are brokers.
const INTERNAL_COPIES: i16 = 3;

pub(super) fn drain(
    image: &Image,
    settings: &Settings,
    id: BrokerId,
    drain: bool,
) -> Result<(Vec<Record>, Reply), Refusal> {
    let broker = image.broker(id).ok_or(Refusal::BrokerNotRegistered(id))?;
    let mut records = Vec::new();
    let changed = changed(broker, |broker| broker.draining = drain);
    let after = with(image, &changed);
    if broker.draining != drain {
        records.push(changed);
    }
    if !drain {
        return Ok((records, Reply::Draining { left: 0 }));
    }
    let setting = Setting::new(&after, settings);
    let mut loads = Loads::new(&after);
    let mut left = after.partitions_of(id).count();
    let mut moving = after.partitions_of(id).filter(|(.., partition)| partition.removing.contains(&id)).count();
    for (topic, index, partition) in after.partitions_of(id).filter(|(.., partition)| !partition.is_reassigning()) {
        if moving >= MOVING_MAX {
            break;
        }
        let target = without(&mut loads, topic, index, partition, id)?;
        if let Some(record) = moved(&setting, topic, index, partition, target) {
            match &record {
                Record::PartitionChanged { partition, .. } if !partition.replicas.contains(&id) => left -= 1,
                _ => moving += 1,
            }
            records.push(record);
        }
    }
    Ok((records, Reply::Draining { left }))
}

/// The replicas of a partition once a broker has been replaced by another. An internal topic, which has as many copies
/// as there are brokers, has one fewer if there is no other.
fn without(
    loads: &mut Loads<'_>,
    topic: &Topic,
    index: PartitionIndex,
    partition: &Partition,
    id: BrokerId,
) -> Result<Vec<BrokerId>, Refusal> {
    let others: Vec<BrokerId> = partition.replicas.iter().copied().filter(|&other| other != id).collect();
    match loads.take(&others) {
        Some(substitute) => {
            let replicas = partition.replicas.iter().copied();
            Ok(replicas.map(|replica| if replica == id { substitute } else { replica }).collect())
        }
        None if is_internal_topic(&topic.name) && !others.is_empty() => Ok(others),
        None => Err(Refusal::InvalidReplicationFactor(format!(
            "Broker {id} can't be drained: no other broker can take its replica of {}-{index}, which has {}; add a \
             broker, or give the topic fewer replicas.",
            topic.name,
            partition.replicas.len()
        ))),
    }
}

pub(super) fn raise_internal_topics(image: &Image, settings: &Settings) -> Vec<Record> {
    let layers = deciding_layers(image, settings);
    let setting = Setting::new(image, settings);
    let mut loads = Loads::new(image);
    let mut records = Vec::new();
    for topic in image.topics().filter(|topic| is_internal_topic(&topic.name)) {
        let configured = match &*topic.name {
            OFFSETS_TOPIC => GroupConfig::resolve(&layers).offsets_topic_replication_factor,
            _ => INTERNAL_COPIES,
        };
        let copies = usize::try_from(as_far_as_there_are_brokers(image, configured)).unwrap_or(1);
        for (index, partition) in topic.numbered().filter(|(_, partition)| !partition.is_reassigning()) {
            let mut target = partition.replicas.to_vec();
            while target.len() < copies
                && let Some(another) = loads.take(&target)
            {
                target.push(another);
            }
            if target.len() > partition.replicas.len() {
                records.extend(moved(&setting, topic, index, partition, target));
            }
        }
    }
    records
}

/// The record that begins a move.
pub(super) fn moved(
    setting: &Setting<'_>,
    topic: &Topic,
    index: PartitionIndex,
    partition: &Partition,
    target: Vec<BrokerId>,
) -> Option<Record> {
    let mut transition = setting.transition(partition, &setting.config(topic));
    aim(&mut transition, partition, target);
    // Where only the order changes, it changes for the sake of the leader.
    transition.to_preferred = transition.adding.is_empty();
    transition.record(topic.id, index)
}
