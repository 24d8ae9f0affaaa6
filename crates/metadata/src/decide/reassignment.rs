//! Decisions about where replicas lie, when an operator says where: AlterPartitionReassignments (KIP-455, KIP-860).
//!
//! A reassignment adds the new replicas first and takes the old ones away when all the new are in the ISR; that happens
//! in the same change that lets the last of them in (`transition.rs`). What is not here: choosing brokers
//! (`placement.rs`, `drain.rs`, `rebalance.rs`).

use ottla_types::{BrokerId, PartitionIndex};

use super::{
    distinct,
    election::{duplicate, find},
    placement::check_replicas,
    transition::{Setting, Transition},
};
use crate::{Image, Partition, Record, Refusal, Rows, config::Settings};

pub(super) fn alter(
    image: &Image,
    settings: &Settings,
    partitions: Vec<(String, PartitionIndex, Option<Vec<BrokerId>>)>,
    allow_factor_change: bool,
) -> (Vec<Record>, Rows<(String, PartitionIndex), ()>) {
    let setting = Setting::new(image, settings);
    let mut records = Vec::new();
    let mut one = |name: &str, index, target: Option<Vec<BrokerId>>| {
        let (topic, partition) = find(image, name, index)?;
        let mut transition = setting.transition(partition, &setting.config(topic));
        match target {
            Some(target) => {
                check_replicas(image, &target)?;
                let count = partition.target_replicas().count();
                if !allow_factor_change && count != target.len() {
                    return Err(Refusal::InvalidReplicationFactor(format!(
                        "The number of replicas of {name}-{index} would change from {count} to {}.",
                        target.len()
                    )));
                }
                aim(&mut transition, partition, target);
            }
            None => cancel(&mut transition, name, index, partition)?,
        }
        records.extend(transition.record(topic.id, index));
        Ok(())
    };
    let rows = distinct(partitions, |(name, index, _)| (name.clone(), *index))
        .into_iter()
        .map(|((name, index), row)| {
            let result = row.ok_or_else(duplicate).and_then(|(_, _, target)| one(&name, index, target));
            ((name, index), result)
        })
        .collect();
    (records, rows)
}

/// Has a partition move to these replicas, from wherever an earlier move has left it.
pub(super) fn aim(transition: &mut Transition<'_>, partition: &Partition, target: Vec<BrokerId>) {
    let settled = |replica: &BrokerId| partition.replicas.contains(replica) && !partition.adding.contains(replica);
    // What an earlier move was adding and has not filled yet is nothing to wait for.
    let filled = |replica: &BrokerId| partition.isr.contains(replica) || partition.elr.contains(replica);
    let goes = |replica: &BrokerId| !target.contains(replica) && (settled(replica) || filled(replica));
    transition.adding = target.iter().copied().filter(|replica| !settled(replica)).collect();
    transition.removing = partition.replicas.iter().copied().filter(goes).collect();
    transition.replicas = target;
    transition.replicas.extend(&transition.removing);
}

/// Takes back what was being added, and keeps what was to go.
fn cancel(
    transition: &mut Transition<'_>,
    name: &str,
    index: PartitionIndex,
    partition: &Partition,
) -> Result<(), Refusal> {
    if !partition.is_reassigning() {
        return Err(Refusal::NoReassignmentInProgress);
    }
    let stays = |replica: &BrokerId| !partition.adding.contains(replica);
    let keep = |brokers: &[BrokerId]| brokers.iter().copied().filter(stays).collect::<Vec<_>>();
    (transition.replicas, transition.isr) = (keep(&partition.replicas), keep(&partition.isr));
    if transition.replicas.is_empty() {
        return Err(Refusal::InvalidAssignment(format!("Nothing is left of {name}-{index} but what is being added.")));
    }
    transition.adding.clear();
    transition.removing.clear();
    // Those in sync now carry what was committed, and the new ones among them are about to go.
    let in_sync = transition.isr.len();
    let eligible = if in_sync < transition.needed() { keep(&partition.elr).len() } else { 0 };
    let before = partition.isr.len() + partition.elr.len();
    if in_sync + eligible < transition.needed().min(before) {
        return Err(Refusal::InvalidAssignment(format!(
            "The reassignment of {name}-{index} can't be cancelled: too few of the old replicas are in sync."
        )));
    }
    Ok(())
}
