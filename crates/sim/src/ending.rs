//! The end: everything is mended, and within a simulated minute all must be as it should be.
//!
//! Every partition is led, all its replicas are in sync and hold the same, all that is written is committed, producers
//! get their answers. What more than the cluster promises to bear has lost is settled by an operator, as it would be.

use ottla_metadata::{Command, Election};
use ottla_types::{BrokerId, Offset, PartitionIndex};

use crate::{
    event::{Event, Place},
    truth::Committed,
    world::World,
};

const LOOK_MS: u64 = 500;
/// How long it may take until everything is right.
const PATIENCE_MS: u64 = 60_000;
/// When an operator accepts that records are lost.
const OPERATOR_MS: u64 = 10_000;

impl World {
    pub(crate) fn on_heal(&mut self) {
        self.healed_at = Some(self.now);
        self.note(format_args!("healed"));
        self.network.heal();
        for at in 0..self.brokers.len() {
            self.mend_disk(at);
            let broker = &mut self.brokers[at];
            broker.full_until = 0;
            broker.metadata_late_until = 0;
            broker.syncs_slow_until = 0;
            let soon = self.dice.between(0, 1000);
            self.after(soon, None, Event::Start(at));
        }
        self.after(LOOK_MS, None, Event::CreateTopics);
        self.after(LOOK_MS, None, Event::Look);
    }

    pub(crate) fn on_look(&mut self) {
        let since = self.now - self.healed_at.unwrap_or(self.now);
        let missing = match self.whole() {
            Ok(()) => {
                self.check_everything();
                self.done = true;
                return;
            }
            Err(missing) => missing,
        };
        if since > PATIENCE_MS {
            self.fail("liveness", missing);
            return;
        }
        if since > OPERATOR_MS {
            self.accept_losses();
        }
        self.after(LOOK_MS, None, Event::Look);
    }

    fn is_excused(&self, place: Place) -> bool {
        self.truths.get(&place).is_some_and(|truth| truth.excused)
    }

    fn accept_losses(&mut self) {
        let lost = self
            .image()
            .partitions()
            .filter(|(topic, index, partition)| partition.leader.is_none() && self.is_excused((topic.id, *index)));
        let lost: Vec<(String, PartitionIndex)> =
            lost.map(|(topic, index, _)| (topic.name.to_string(), index)).collect();
        // A copy that can't be read may have been elected all the same.
        for at in 0..self.brokers.len() {
            let broker = &self.brokers[at];
            let led =
                broker.copies.iter().filter(|(_, copy)| copy.leadership_given(broker.id)).map(|(place, _)| *place);
            let given_up: Vec<Place> = led.filter(|place| self.is_excused(*place)).collect();
            given_up.into_iter().for_each(|place| self.brokers[at].give_up_damaged(place));
        }
        if !lost.is_empty() {
            self.operate(Command::ElectLeaders { kind: Election::Unclean, partitions: Some(lost) });
        }
    }

    /// Whether everything is as it should be, or what is not.
    fn whole(&self) -> Result<(), String> {
        for broker in &self.brokers {
            if !broker.serves() || broker.applied < self.decisions.len() {
                return Err(format!("{} is not there", broker.id));
            }
        }
        if self.producers.is_empty() {
            return Err("there is no topic yet".to_owned());
        }
        for topic in &self.plan.topics {
            if self.image().topic_named(&topic.name).is_none() {
                return Err(format!("{} is not there", topic.name));
            }
        }
        for (topic, index, partition) in self.image().partitions() {
            let at = || {
                let copies = self.describe_copies((topic.id, index), &partition.replicas);
                format!("{}-{index} is {partition:?}; {copies}", topic.id)
            };
            if partition.leader.is_none()
                || partition.isr.len() != partition.replicas.len()
                || partition.is_reassigning()
                || partition.recovering
            {
                return Err(at());
            }
            let mut ends = Vec::new();
            for id in partition.replicas.iter() {
                let place = (topic.id, index);
                let copy = self.index_of(*id).and_then(|at| self.brokers[at].copies.get(&place));
                let Some(replica) = copy.and_then(|copy| copy.replica()) else {
                    // Nobody has asked for it, so nobody has written to it.
                    return Err(format!("{id} has not opened it; {}", at()));
                };
                ends.push((replica.high_watermark().offset, replica.log().end().offset));
            }
            // Where they start may differ: who leads now may not have heard how far another had trimmed.
            let same = ends.iter().all(|(high, end)| high == end && *end == ends[0].1);
            if !same {
                return Err(format!("high watermarks and ends are {ends:?}; {}", at()));
            }
        }
        if !self.producers_are_content() {
            return Err("a producer has no answer".to_owned());
        }
        Ok(())
    }

    fn describe_copies(&self, place: Place, replicas: &[BrokerId]) -> String {
        let describe = |id: &BrokerId| {
            let copy = self.index_of(*id).and_then(|at| self.brokers[at].copies.get(&place));
            copy.map_or_else(|| format!("{id} has none"), |copy| format!("{id}: {}", copy.describe()))
        };
        replicas.iter().map(describe).collect::<Vec<_>>().join(", ")
    }

    /// All copies are the same, and are what is true.
    fn check_everything(&mut self) {
        let image = self.image().clone();
        for (topic, index, partition) in image.partitions() {
            let place = (topic.id, index);
            let mut first: Option<Vec<Committed>> = None;
            for id in partition.replicas.iter() {
                let Some(at) = self.index_of(*id) else { continue };
                let start = self.truths.get(&place).map_or(Offset::ZERO, |truth| truth.start);
                let batches = match self.batches_of(at, place) {
                    Ok(batches) => batches.into_iter().filter(|batch| batch.next > start).collect::<Vec<_>>(),
                    Err(what) => {
                        self.fail("L5", what);
                        return;
                    }
                };
                if first.get_or_insert_with(|| batches.clone()) != &batches {
                    self.fail("A5", format!("in the end {id} has other batches in {}-{index}", topic.id));
                    return;
                }
            }
            let found = first.unwrap_or_default();
            let Some(truth) = self.truths.get(&place) else { continue };
            let lost = truth.batches().iter().filter(|batch| batch.next > truth.start && !found.contains(batch));
            let lost: Vec<Committed> = lost.copied().collect();
            if truth.excused {
                self.tally.lost_excused += lost.len() as u64;
            } else if let Some(batch) = lost.first() {
                self.fail("A5", format!("in the end {batch:?} is lost from {}-{index}", topic.id));
                return;
            }
        }
    }

    fn batches_of(&self, at: usize, place: Place) -> Result<Vec<Committed>, String> {
        let replica = self.brokers[at].copies.get(&place).and_then(|copy| copy.replica());
        let Some(replica) = replica else { return Ok(Vec::new()) };
        let log = replica.log();
        let start = log.start().max(Offset::ZERO);
        let batches = log.reader().batches(start, log.end());
        let committed = batches.map(|batch| batch.map(|(header, _)| Committed::of(&header)));
        committed.map(|batch| batch.map_err(|error| error.to_string())).collect()
    }
}
