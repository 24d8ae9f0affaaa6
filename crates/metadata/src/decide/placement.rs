//! Which brokers hold a partition: chosen evenly and apart, or checked if somebody chose by hand.
//!
//! Only brokers that are live and not being drained get replicas. Replicas of one partition stand in as many racks as
//! there are; brokers without a rack share one. What is not here: moving what was placed before (`drain.rs`,
//! `rebalance.rs`, `reassignment.rs`).

use std::{collections::BTreeMap, sync::Arc};

use ottla_types::BrokerId;

use crate::{Image, Refusal};

pub(super) type Placement = Vec<Arc<[BrokerId]>>;

/// A rack, or none.
type Rack<'a> = Option<&'a str>;

/// The brokers that take replicas, one rack after the other, so that neighbours stand apart.
fn takers(image: &Image) -> Vec<(BrokerId, Rack<'_>)> {
    let mut racks: BTreeMap<Rack<'_>, usize> = BTreeMap::new();
    let mut turns: Vec<(usize, Rack<'_>, BrokerId)> = image
        .brokers()
        .filter(|broker| broker.takes_replicas())
        .map(|broker| {
            let rack = broker.rack.as_deref();
            let turn = racks.entry(rack).or_default();
            *turn += 1;
            (*turn, rack, broker.id)
        })
        .collect();
    turns.sort_unstable();
    turns.into_iter().map(|(_, rack, id)| (id, rack)).collect()
}

/// How many brokers take replicas.
pub(super) fn takers_count(image: &Image) -> usize {
    image.brokers().filter(|broker| broker.takes_replicas()).count()
}

/// Replicas for `count` partitions from number `first` on: leaders take turns, and the followers of each stand in other
/// racks where there are some, on the brokers that have got the fewest.
pub(super) fn place(
    image: &Image,
    entropy: &mut dyn FnMut() -> [u8; 16],
    first: usize,
    count: usize,
    factor: i16,
) -> Result<Placement, Refusal> {
    let brokers = takers(image);
    let factor = usize::try_from(factor).ok().filter(|&factor| factor > 0).ok_or_else(|| {
        Refusal::InvalidReplicationFactor(format!("{factor} is not a replication factor; 1 or more is"))
    })?;
    if factor > brokers.len() {
        return Err(Refusal::InvalidReplicationFactor(format!(
            "Unable to replicate the partition {factor} time(s): only {} broker(s) can take replicas now.",
            brokers.len()
        )));
    }
    // Topics begin at different brokers, or the first would lead partition 0 of all.
    let [start, ..] = entropy();
    let all = brokers.len();
    let mut placed = vec![0usize; all];
    let replicas = |partition: usize| {
        let turn = first + partition + usize::from(start) % all;
        let (round, leader) = (turn / all, turn % all);
        let mut chosen = vec![leader];
        while chosen.len() < factor {
            // In each round others come first, so that not always the same ones follow the same leader.
            let distance = |at: usize| ((at + all - leader - 1) % all + round) % (all - 1);
            let shared = |at: usize| chosen.iter().filter(|&&other| brokers[other].1 == brokers[at].1).count();
            let free = (0..all).filter(|at| !chosen.contains(at));
            match free.min_by_key(|&at| (shared(at), placed[at], distance(at))) {
                Some(at) => chosen.push(at),
                None => break,
            }
        }
        chosen.iter().for_each(|&at| placed[at] += 1);
        chosen.into_iter().map(|at| brokers[at].0).collect()
    };
    Ok((0..count).map(replicas).collect())
}

/// How many replicas each broker that takes some has, with what is under way counted as done.
pub(super) struct Loads<'a> {
    image: &'a Image,
    pub(super) replicas: BTreeMap<BrokerId, usize>,
}

impl<'a> Loads<'a> {
    pub(super) fn new(image: &'a Image) -> Loads<'a> {
        let mut replicas: BTreeMap<BrokerId, usize> = takers(image).into_iter().map(|(id, _)| (id, 0)).collect();
        for (.., partition) in image.partitions() {
            for replica in partition.target_replicas() {
                if let Some(count) = replicas.get_mut(&replica) {
                    *count += 1;
                }
            }
        }
        Loads { image, replicas }
    }

    /// The broker to put one more replica on, beside these: in another rack than they, if there is one, and with the
    /// fewest replicas. `None` if no broker is left.
    pub(super) fn take(&mut self, beside: &[BrokerId]) -> Option<BrokerId> {
        let image = self.image;
        let (id, count) = self
            .replicas
            .iter_mut()
            .filter(|(id, _)| !beside.contains(id))
            .min_by_key(|(id, count)| (shared_rack(image, **id, beside), **count, **id))?;
        *count += 1;
        Some(*id)
    }
}

/// How many of these brokers stand in a broker's rack.
pub(super) fn shared_rack(image: &Image, id: BrokerId, others: &[BrokerId]) -> usize {
    let rack = |id: BrokerId| image.broker(id).and_then(|broker| broker.rack.as_deref());
    others.iter().filter(|&&other| rack(other) == rack(id)).count()
}

/// Assignments by hand: as many brokers for each partition (and as many as `factor` says), and each assignment right.
pub(super) fn check_assignments<'a>(
    image: &Image,
    assignments: impl Iterator<Item = &'a Vec<BrokerId>>,
    mut factor: Option<usize>,
) -> Result<Placement, Refusal> {
    let refuse = |why: String| Err(Refusal::InvalidAssignment(why));
    let mut placement = Placement::new();
    for replicas in assignments {
        let factor = *factor.get_or_insert(replicas.len());
        check_replicas(image, replicas)?;
        if replicas.len() != factor {
            let given = replicas.len();
            return refuse(format!("A partition is assigned to {given} broker(s) where {factor} are expected."));
        }
        if !replicas.iter().any(|&replica| image.is_live(replica)) {
            return refuse(format!("All brokers of the assignment {} are fenced or shutting down.", listed(replicas)));
        }
        placement.push(replicas.as_slice().into());
    }
    Ok(placement)
}

/// An assignment by hand: brokers that are registered, none twice, at least one.
pub(super) fn check_replicas(image: &Image, replicas: &[BrokerId]) -> Result<(), Refusal> {
    let refuse = |why: String| Err(Refusal::InvalidAssignment(why));
    if replicas.is_empty() {
        return refuse("A partition must be assigned to at least one broker.".to_owned());
    }
    for (index, broker) in replicas.iter().enumerate() {
        if image.broker(*broker).is_none() {
            return refuse(format!("Broker {broker} is assigned a partition and is not registered."));
        }
        if replicas.iter().take(index).any(|before| before == broker) {
            return refuse(format!("Broker {broker} is assigned the same partition twice."));
        }
    }
    Ok(())
}

fn listed(brokers: &[BrokerId]) -> String {
    brokers.iter().map(BrokerId::to_string).collect::<Vec<_>>().join(",")
}
