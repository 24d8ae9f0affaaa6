//! What goes wrong, and what operators do: when, how badly, and to whom.
//!
//! A fault that could lose more copies at a time than the cluster promises to bear (rule A5) is left out, but for seeds
//! that are about that. What is not here: what a fault means to a broker (`life.rs`) or to messages (`network.rs`).

use ottla_metadata::{AlteredConfigs, Command, Election, IncrementalAlteration, NewTopic, TopicRef, config::Operation};
use ottla_records::BatchHeader;
use ottla_replica::Role;
use ottla_types::{BrokerId, Offset, PartitionIndex};

use crate::{
    Fault,
    broker::{State, directory_of, empty_disk},
    event::{Event, Place},
    world::World,
};

/// Ten years.
const CLOCK_STEP_MS: u64 = 10 * 365 * 24 * 3_600_000;

impl World {
    pub(crate) fn on_create_topics(&mut self) {
        let missing: Vec<_> =
            self.plan.topics.iter().filter(|topic| self.image().topic_named(&topic.name).is_none()).cloned().collect();
        let live = self.image().live_brokers().count();
        let mut waits = false;
        for topic in missing {
            let durability = if topic.replicated { "replicated" } else { "fsync" };
            let configs = [
                ("min.insync.replicas", topic.min_insync_replicas.to_string()),
                ("ottla.durability", durability.to_owned()),
            ];
            let new = NewTopic {
                name: topic.name,
                partitions: topic.partitions,
                replication_factor: topic.replication_factor,
                configs: configs.map(|(key, value)| (key.to_owned(), Some(value))).to_vec(),
                ..NewTopic::default()
            };
            let command = Command::CreateTopics { topics: vec![new], validate_only: false };
            // At first only once all are there, so that the copies are spread.
            let all_there = live == self.brokers.len() || !self.producers.is_empty();
            let count = usize::try_from(topic.replication_factor).unwrap_or(1);
            waits |= !(all_there && live >= count && self.operate(command));
        }
        if waits {
            self.after(200, None, Event::CreateTopics);
        } else if self.producers.is_empty() {
            self.add_clients();
        }
    }

    pub(crate) fn on_fault(&mut self) {
        if self.healed_at.is_some() {
            return;
        }
        let gap = self.dice.between(1, 2 * self.plan.fault_gap_ms);
        self.after(gap, None, Event::Fault);
        let faults = self.plan.faults.clone();
        let Some(fault) = self.dice.pick(&faults) else { return };
        let up: Vec<usize> = (0..self.brokers.len())
            .filter(|at| {
                let broker = &self.brokers[*at];
                broker.up && broker.leaving.is_none() && broker.paused_until <= self.now
            })
            .collect();
        let Some(at) = self.dice.pick(&up) else { return };
        if self.inflict(fault, at) {
            *self.tally.faults.entry(fault.name()).or_default() += 1;
            let id = self.brokers[at].id;
            self.note(format_args!("fault {} at {id}", fault.name()));
        }
    }

    fn inflict(&mut self, fault: Fault, at: usize) -> bool {
        let short = self.now + self.dice.between(200, 6000);
        match fault {
            Fault::Power | Fault::Kill => self.bears_or_exceeds(at, false) && self.fell(at, fault == Fault::Power),
            Fault::PowerOfAll => self.fell_all(),
            Fault::CleanRestart => {
                self.brokers[at].leaving = Some(self.now + 3000);
                self.brokers[at].heartbeat_at = self.now;
                true
            }
            Fault::Pause => {
                let long = self.dice.one_in(8);
                self.brokers[at].paused_until = if long { short + 10_000 } else { short };
                true
            }
            Fault::Cut => {
                self.cut_network(at, short);
                true
            }
            Fault::Loss => {
                self.network.lossy_until = short;
                true
            }
            Fault::Slow => {
                self.network.slow_until = short;
                true
            }
            // The network holds some all the time.
            Fault::Hold => false,
            Fault::Controller => {
                self.move_controller(at);
                true
            }
            Fault::LateMetadata => {
                self.brokers[at].metadata_late_until = short;
                true
            }
            Fault::SlowSync => {
                self.brokers[at].syncs_slow_until = short;
                true
            }
            Fault::Full => {
                let room = self.dice.below(8000);
                let broker = &mut self.brokers[at];
                broker.full_until = short;
                broker.disk.set_capacity(Some(broker.disk.used() + room));
                true
            }
            Fault::SyncFailure => {
                let bears = self.bears_or_exceeds(at, false);
                if bears {
                    self.brokers[at].disk.fail_syncs(true);
                }
                bears
            }
            Fault::BitFlip => self.flip_bit(at),
            Fault::Wipe => self.bears_or_exceeds(at, true) && self.wipe(at),
            Fault::Clock => {
                let step = i64::try_from(self.dice.below(2 * CLOCK_STEP_MS)).unwrap_or(0);
                let small = i64::try_from(self.dice.below(7_200_000)).unwrap_or(0);
                let step = if self.dice.one_in(2) { step - CLOCK_STEP_MS.cast_signed() } else { small - 3_600_000 };
                self.brokers[at].clock_ms = step;
                true
            }
            Fault::Reassign => self.reassign(),
            Fault::Prefer => self.operate(Command::ElectLeaders { kind: Election::Preferred, partitions: None }),
            Fault::Configure => self.configure(),
            Fault::Recreate => self.recreate(),
            Fault::Trim => self.trim(at),
        }
    }

    fn bears_or_exceeds(&self, at: usize, all: bool) -> bool {
        self.plan.exceeds || self.bears(at, all)
    }

    fn comes_back(&mut self, at: usize) {
        let away = if self.dice.one_in(3) { self.dice.between(10, 500) } else { self.dice.between(500, 8000) };
        self.after(away, None, Event::Start(at));
    }

    fn fell(&mut self, at: usize, power: bool) -> bool {
        self.crash(at, power);
        self.comes_back(at);
        true
    }

    fn fell_all(&mut self) -> bool {
        let memory = self.image().topics().any(|topic| self.is_replicated(topic));
        if memory && !self.plan.exceeds {
            return false;
        }
        for at in 0..self.brokers.len() {
            if self.brokers[at].up {
                self.fell(at, true);
            }
        }
        true
    }

    fn cut_network(&mut self, at: usize, until: u64) {
        let others: Vec<usize> = (0..self.brokers.len()).filter(|other| *other != at).collect();
        let other = self.dice.pick(&others).unwrap_or(at);
        match self.dice.index(4) {
            0 => self.network.cut(at, other, until),
            1 => {
                self.network.cut(at, other, until);
                self.network.cut(other, at, until);
            }
            2 => others.into_iter().for_each(|other| self.network.cut(at, other, until)),
            _ => {
                for other in others {
                    self.network.cut(at, other, until);
                    self.network.cut(other, at, until);
                }
            }
        }
    }

    /// A bit of a batch turns over that the next start reads and that was durable and committed.
    fn flip_bit(&mut self, at: usize) -> bool {
        if !self.bears_or_exceeds(at, false) {
            return false;
        }
        let broker = &self.brokers[at];
        let mut candidates: Vec<(Place, Offset, u64, u64)> = Vec::new();
        for (place, known) in &broker.stored {
            let copied = broker.copies.get(place).is_some_and(|copy| copy.replica().is_some());
            if !copied || !self.bears_copy(at, *place) {
                continue;
            }
            let point = known.log.recovery_point;
            let path = directory_of(*place).join(format!("{:020}.log", point.segment.0));
            let Some(bytes) = broker.disk.read_file(&path) else { continue };
            let mut position = usize::try_from(point.position).unwrap_or(usize::MAX);
            while let Some(Ok(header)) = bytes.get(position..).map(BatchHeader::parse) {
                let next = position.saturating_add(header.size());
                if header.next_offset() > known.log.high_watermark || next > bytes.len() {
                    break;
                }
                candidates.push((*place, point.segment, position as u64, header.size() as u64));
                position = next;
            }
        }
        let Some((place, segment, position, size)) = self.dice.pick(&candidates) else { return false };
        // Under the checksum; what lies outside of it nobody can tell.
        let (byte, bit) = (position + self.dice.between(21, size - 1), self.dice.index(8));
        self.crash(at, true);
        let path = directory_of(place).join(format!("{:020}.log", segment.0));
        let flipped = self.brokers[at].disk.flip_bit(&path, byte, u8::try_from(bit).unwrap_or(0));
        if flipped {
            self.count_lossy_copy(at, place);
        }
        self.comes_back(at);
        flipped
    }

    fn wipe(&mut self, at: usize) -> bool {
        self.crash(at, true);
        let (seed, directory) = (self.dice.draw(), self.dice.bytes());
        let broker = &mut self.brokers[at];
        broker.disk = empty_disk(seed);
        broker.directory = directory;
        broker.stored.clear();
        broker.applied = 0;
        self.count_lossy(at, true);
        self.comes_back(at);
        true
    }

    fn any_partition(&mut self) -> Option<(String, PartitionIndex)> {
        let all: Vec<Place> = self.image().partitions().map(|(topic, index, _)| (topic.id, index)).collect();
        let (topic, index) = self.dice.pick(&all)?;
        Some((self.image().topic(topic)?.name.to_string(), index))
    }

    fn reassign(&mut self) -> bool {
        let Some((name, index)) = self.any_partition() else { return false };
        let mut brokers: Vec<BrokerId> = self.brokers.iter().map(|broker| broker.id).collect();
        for last in (1..brokers.len()).rev() {
            let other = self.dice.index(last + 1);
            brokers.swap(last, other);
        }
        let now = self.image().topic_named(&name).and_then(|topic| topic.partition(index));
        let count = now.map_or(1, |partition| partition.target_replicas().count());
        let count = if self.dice.one_in(3) { 1 + self.dice.index(brokers.len().min(3)) } else { count };
        brokers.truncate(count);
        let target = if self.dice.one_in(5) { None } else { Some(brokers) };
        let partitions = vec![(name, index, target)];
        self.operate(Command::AlterReassignments { partitions, allow_factor_change: true })
    }

    fn configure(&mut self) -> bool {
        let Some((name, _)) = self.any_partition() else { return false };
        let value = self.dice.between(1, 3).to_string();
        let operations = vec![("min.insync.replicas".to_owned(), Some(Operation::Set(value)))];
        let resources = vec![IncrementalAlteration { resource: AlteredConfigs::Topic(name), operations }];
        self.operate(Command::IncrementalAlterConfigs { resources, validate_only: false })
    }

    fn recreate(&mut self) -> bool {
        let Some((name, _)) = self.any_partition() else { return false };
        let deleted = self.operate(Command::DeleteTopics { topics: vec![TopicRef::Name(name)] });
        if deleted {
            let later = self.dice.between(1, 1500);
            self.after(later, None, Event::CreateTopics);
        }
        deleted
    }

    /// Deletes the beginning of a log that a broker leads.
    fn trim(&mut self, at: usize) -> bool {
        let leads = |copy: &crate::broker::Copy| copy.replica().is_some_and(|replica| replica.role() == Role::Leader);
        let broker = &self.brokers[at];
        let led: Vec<Place> = broker.copies.iter().filter(|(_, copy)| leads(copy)).map(|(place, _)| *place).collect();
        let Some(place) = self.dice.pick(&led) else { return false };
        let below = self.dice.draw();
        let Some(copy) = self.brokers[at].copies.get_mut(&place) else { return false };
        let State::Open(replica) = &mut copy.state else { return false };
        let (start, high_watermark) = (replica.log().start().0, replica.high_watermark().offset.0);
        let span = u64::try_from(high_watermark - start).unwrap_or(0);
        let to = start + i64::try_from(below % (span + 1)).unwrap_or(0);
        let trimmed = replica.log_mut().advance_start(Offset(to)).is_ok();
        self.touch(at, place);
        self.request_sync(at, place);
        trimmed
    }

    /// The disk of a broker is as it should be.
    pub(crate) fn mend_disk(&mut self, at: usize) {
        let broker = &mut self.brokers[at];
        broker.disk.set_capacity(None);
        if !broker.failed {
            broker.disk.fail_syncs(false);
        }
    }
}
