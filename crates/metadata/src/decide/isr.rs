//! Decisions about the ISRs that leaders ask for: AlterPartition, rule I1 to the letter.
//!
//! What is not here: when a leader asks (`ottla-replica`), and ISRs that change because a broker does (`brokers.rs`).

use std::collections::BTreeSet;

use ottla_types::{BrokerEpoch, BrokerId};

use super::{brokers::registered, transition::Setting};
use crate::{Image, IsrChange, Partition, Record, Refusal, Reply, Topic, config::Settings};

pub(super) fn alter(
    image: &Image,
    settings: &Settings,
    broker: BrokerId,
    epoch: BrokerEpoch,
    changes: Vec<IsrChange>,
) -> Result<(Vec<Record>, Reply), Refusal> {
    registered(image, broker, epoch)?;
    let setting = Setting::new(image, settings);
    let mut records = Vec::new();
    let mut altered = BTreeSet::new();
    let mut one = |change: &IsrChange| -> Result<Partition, Refusal> {
        let (topic, partition) = check(image, broker, change)?;
        if !altered.insert((change.topic, change.index)) {
            return Err(Refusal::InvalidUpdateVersion);
        }
        let mut transition = setting.transition(partition, &setting.config(topic));
        transition.isr = change.isr.iter().map(|(member, _)| *member).collect();
        transition.recovering = change.recovering;
        let Some(after) = transition.finish() else { return Ok(partition.clone()) };
        let leads = after.leader == Some(broker);
        let (topic, index) = (change.topic, change.index);
        records.push(Record::PartitionChanged { topic, index, partition: after.clone() });
        if leads { Ok(after) } else { Err(Refusal::NewLeaderElected) }
    };
    let rows = changes.iter().map(|change| ((change.topic, change.index), one(change))).collect();
    Ok((records, Reply::PartitionsAltered(rows)))
}

/// The partition, if its leader may change its ISR so.
fn check<'a>(image: &'a Image, broker: BrokerId, change: &IsrChange) -> Result<(&'a Topic, &'a Partition), Refusal> {
    let topic: &Topic = image.topic(change.topic).ok_or(Refusal::UnknownTopicId(change.topic))?;
    let unknown = || Refusal::UnknownPartition(topic.name.to_string(), change.index);
    let partition = topic.partition(change.index).ok_or_else(unknown)?;
    // It knows more than we do, so another controller has told it.
    if change.leader_epoch > partition.leader_epoch || change.partition_epoch > partition.partition_epoch {
        return Err(Refusal::NotController);
    }
    if change.leader_epoch < partition.leader_epoch && !cfg!(zoo = "B43") {
        return Err(Refusal::FencedLeaderEpoch);
    }
    let invalid = |why: &str| Err(Refusal::InvalidRequest(why.to_owned()));
    if partition.leader != Some(broker) {
        return invalid("Only the leader of a partition may change its ISR.");
    }
    if change.partition_epoch < partition.partition_epoch && !cfg!(zoo = "B43") {
        return Err(Refusal::InvalidUpdateVersion);
    }
    let members: BTreeSet<BrokerId> = change.isr.iter().map(|(member, _)| *member).collect();
    if members.len() != change.isr.len() || !members.iter().all(|member| partition.replicas.contains(member)) {
        return invalid("An ISR holds replicas of the partition, each once.");
    }
    if !members.contains(&broker) {
        return invalid("The leader is always in the ISR.");
    }
    if change.recovering && members.len() > 1 {
        return invalid("The leader is alone in the ISR until it has recovered.");
    }
    if change.recovering && !partition.recovering {
        return invalid("A leader that has recovered does not recover again.");
    }
    for &(member, epoch) in &change.isr {
        if let Some(why) = ineligible(image, member, epoch, member == broker) {
            return Err(Refusal::IneligibleReplica(member, why));
        }
    }
    Ok((topic, partition))
}

/// Why a broker may not be in an ISR. A leader that shuts down is in it because it is the only one, and must be able to
/// let others in, to hand over to them.
fn ineligible(image: &Image, id: BrokerId, epoch: BrokerEpoch, leads: bool) -> Option<&'static str> {
    let Some(broker) = image.broker(id) else { return Some("it is not registered") };
    if broker.epoch != epoch {
        Some("it has registered again since the leader saw it")
    } else if broker.fenced {
        Some("it is fenced")
    } else if broker.shutting_down && !leads {
        Some("it is shutting down")
    } else {
        None
    }
}
