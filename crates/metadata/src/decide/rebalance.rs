//! The decision to even things out: replicas apart in racks, then equally many on each broker, then preferred leaders.
//!
//! A plan first, over replicas as they will be when what is under way is done; then a move for each partition whose
//! replicas changed in it, so many at a time. Asked again when they are done, it goes on, until nothing moves. What is
//! not here: why a broker takes no replicas (`broker.rs`), and making preferred replicas lead (`election.rs`).

use std::collections::{BTreeMap, BTreeSet};

use ottla_types::{BrokerId, PartitionIndex};

use super::{
    drain::{MOVING_MAX, moved},
    placement::{Loads, shared_rack},
    transition::Setting,
};
use crate::{Image, Move, Partition, Record, Topic, config::Settings};

pub(super) fn rebalance(image: &Image, settings: &Settings) -> (Vec<Record>, Vec<Move>) {
    let mut plan = Plan::new(image);
    plan.part_racks();
    plan.even_replicas();
    plan.even_leaders();
    let setting = Setting::new(image, settings);
    let (mut records, mut moves) = (Vec::new(), Vec::new());
    for slot in plan.slots.into_iter().filter(|slot| slot.to != *slot.partition.replicas) {
        moves.push(Move {
            topic: slot.topic.name.clone(),
            index: slot.index,
            from: slot.partition.replicas.clone(),
            to: slot.to.as_slice().into(),
        });
        records.extend(moved(&setting, slot.topic, slot.index, slot.partition, slot.to));
    }
    (records, moves)
}

struct Plan<'a> {
    image: &'a Image,
    /// The partitions that may be moved.
    slots: Vec<Slot<'a>>,
    /// How many replicas each broker has.
    replicas: BTreeMap<BrokerId, usize>,
    /// How many partitions prefer each broker.
    leaders: BTreeMap<BrokerId, usize>,
    /// How many more partitions may be touched.
    budget: usize,
}

struct Slot<'a> {
    topic: &'a Topic,
    index: PartitionIndex,
    partition: &'a Partition,
    /// What its replicas will be.
    to: Vec<BrokerId>,
    touched: bool,
}

impl<'a> Plan<'a> {
    fn new(image: &'a Image) -> Plan<'a> {
        let replicas = Loads::new(image).replicas;
        let mut leaders: BTreeMap<BrokerId, usize> = replicas.keys().map(|&id| (id, 0)).collect();
        let (mut slots, mut moving) = (Vec::new(), 0);
        for (topic, index, partition) in image.partitions() {
            let preferred = partition.target_replicas().next();
            if let Some(count) = preferred.and_then(|preferred| leaders.get_mut(&preferred)) {
                *count += 1;
            }
            if partition.is_reassigning() {
                moving += 1;
            } else {
                slots.push(Slot { topic, index, partition, to: partition.replicas.to_vec(), touched: false });
            }
        }
        Plan { image, slots, replicas, leaders, budget: MOVING_MAX.saturating_sub(moving) }
    }

    /// Where two replicas share a rack and another rack has fewer, one of them goes there.
    fn part_racks(&mut self) {
        for at in 0..self.slots.len() {
            while let Some((position, to)) = self.to_another_rack(&self.slots[at].to) {
                if !self.replace(at, position, to) {
                    break;
                }
            }
        }
    }

    fn to_another_rack(&self, replicas: &[BrokerId]) -> Option<(usize, BrokerId)> {
        let crowd = |position: &usize| shared_rack(self.image, replicas[*position], replicas);
        // The last of the crowded, so that the preferred leader stays if it can.
        let position = (0..replicas.len()).max_by_key(crowd).filter(|position| crowd(position) > 1)?;
        let takers = self.replicas.iter().filter(|(id, _)| !replicas.contains(id));
        let better = takers.map(|(&id, &count)| (shared_rack(self.image, id, replicas), count, id)).min()?;
        (better.0 + 1 < crowd(&position)).then_some((position, better.2))
    }

    fn even_replicas(&mut self) {
        let mut stuck = BTreeSet::new();
        while let Some((from, to)) = uneven(&self.replicas, &stuck) {
            if !self.move_one(from, to) {
                stuck.insert((from, to));
            }
        }
    }

    /// Moves a replica between two brokers: of a partition that the first only follows, if there is one, and whose
    /// racks that does not crowd.
    fn move_one(&mut self, from: BrokerId, to: BrokerId) -> bool {
        let movable = |slot: &Slot<'_>, follows: bool| {
            let position = slot.to.iter().position(|&replica| replica == from)?;
            let others: Vec<BrokerId> = slot.to.iter().copied().filter(|&replica| replica != from).collect();
            let crowds = shared_rack(self.image, to, &others) > shared_rack(self.image, from, &others);
            let fits = !others.contains(&to) && !crowds && (position > 0) == follows;
            (fits && (slot.touched || self.budget > 0)).then_some(position)
        };
        let find = |follows| (0..).zip(&self.slots).find_map(|(at, slot)| Some((at, movable(slot, follows)?)));
        let found: Option<(usize, usize)> = find(true).or_else(|| find(false));
        found.is_some_and(|(at, position)| self.replace(at, position, to))
    }

    fn even_leaders(&mut self) {
        let mut stuck = BTreeSet::new();
        while let Some((from, to)) = uneven(&self.leaders, &stuck) {
            let swaps = |slot: &Slot<'_>| {
                slot.to.first() == Some(&from) && slot.to.contains(&to) && (slot.touched || self.budget > 0)
            };
            match self.slots.iter().position(swaps) {
                Some(at) => self.prefer(at, to),
                None => {
                    stuck.insert((from, to));
                }
            }
        }
    }

    fn replace(&mut self, at: usize, position: usize, to: BrokerId) -> bool {
        if !self.touch(at) {
            return false;
        }
        let from = std::mem::replace(&mut self.slots[at].to[position], to);
        shift(&mut self.replicas, from, to);
        if position == 0 {
            shift(&mut self.leaders, from, to);
        }
        true
    }

    fn prefer(&mut self, at: usize, to: BrokerId) {
        if !self.touch(at) {
            return;
        }
        let replicas = &mut self.slots[at].to;
        if let (Some(position), Some(&from)) = (replicas.iter().position(|&replica| replica == to), replicas.first()) {
            replicas.swap(0, position);
            shift(&mut self.leaders, from, to);
        }
    }

    fn touch(&mut self, at: usize) -> bool {
        let slot = &mut self.slots[at];
        if !slot.touched {
            let Some(budget) = self.budget.checked_sub(1) else { return false };
            (self.budget, slot.touched) = (budget, true);
        }
        true
    }
}

/// The fullest and the emptiest broker between which one more would even things out and is not known to be impossible.
/// Each step makes the sum of the squares smaller, so steps come to an end.
fn uneven(counts: &BTreeMap<BrokerId, usize>, stuck: &BTreeSet<(BrokerId, BrokerId)>) -> Option<(BrokerId, BrokerId)> {
    let mut order: Vec<(usize, BrokerId)> = counts.iter().map(|(&id, &count)| (count, id)).collect();
    order.sort_unstable();
    let pairs = order.iter().rev().flat_map(|from| order.iter().map(move |to| (from, to)));
    let mut worth = pairs.filter(|(from, to)| from.0 > to.0 + 1 && !stuck.contains(&(from.1, to.1)));
    worth.next().map(|(from, to)| (from.1, to.1))
}

fn shift(counts: &mut BTreeMap<BrokerId, usize>, from: BrokerId, to: BrokerId) {
    if let Some(count) = counts.get_mut(&from) {
        *count = count.saturating_sub(1);
    }
    if let Some(count) = counts.get_mut(&to) {
        *count += 1;
    }
}
