//! What must hold, looked at after every event that could break it.
//!
//! Of the image: rules A1 to A4, I3, M4 to M6. Of each copy that changed: it agrees with the truth below its high
//! watermark, which never goes back; who begins to lead holds all that is committed. Of what clients are told: what is
//! acknowledged is committed, what is read is too, and where the log ends is not before what was acknowledged. What is
//! not here: whether all comes right in the end (`ending.rs`).

use std::collections::BTreeSet;

use ottla_metadata::{Image, Partition, Topic};
use ottla_records::crc_matches;
use ottla_replica::{Replica, Role};
use ottla_types::{BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicId};

use crate::{
    broker::{Seen, State},
    event::Place,
    truth::{Committed, Truth},
    world::World,
};

/// A rule and what was seen.
type Found = Result<(), (&'static str, String)>;

impl World {
    /// Looks at the image after a decision, and keeps the books that follow it.
    pub(crate) fn check_image(&mut self, before: &Image) {
        let after = self.image().clone();
        for (topic, index, partition) in after.partitions() {
            let earlier = before.topic(topic.id).and_then(|topic| topic.partition(index));
            let place = (topic.id, index);
            let min_isr = partition.effective_min_isr(self.config_of(topic).min_insync_replicas);
            let truth = self.truths.entry(place).or_default();
            truth.least_min_isr = Some(truth.least_min_isr.map_or(min_isr, |least| least.min(min_isr)));
            if earlier == Some(partition) && before.brokers().eq(after.brokers()) {
                continue;
            }
            if let Err((rule, what)) = check_partition(&after, earlier, partition) {
                self.fail(rule, format!("{}-{index}: {what}: {partition:?}, which was {earlier:?}", topic.id));
            }
            match earlier {
                Some(earlier) => self.keep_books(place, earlier, partition),
                None => self.count_absent(topic, index, partition),
            }
            self.maybe_excuse(place);
        }
        let gone: Vec<Place> = self.truths.keys().copied().filter(|place| after.topic(place.0).is_none()).collect();
        for place in gone {
            self.truths.remove(&place);
        }
    }

    /// A new partition may lie on brokers that are down already: their registrations will not be proven to end well, or
    /// their disks are others by now.
    fn count_absent(&mut self, topic: &Topic, index: PartitionIndex, partition: &Partition) {
        let replicated = self.is_replicated(topic);
        let counts = |at: &usize| {
            let broker = &self.brokers[*at];
            let known = self.image().broker(broker.id);
            replicated || known.is_some_and(|known| known.directory != broker.directory)
        };
        let replicas = partition.replicas.iter().filter_map(|id| self.index_of(*id));
        let absent: Vec<usize> = replicas.filter(|at| self.is_absent(*at) && counts(at)).collect();
        self.truths.entry((topic.id, index)).or_default().lossy.extend(absent);
    }

    /// Whether the registration that the cluster has of a broker is of a run that has ended.
    fn is_absent(&self, at: usize) -> bool {
        let broker = &self.brokers[at];
        let known = self.image().broker(broker.id);
        !broker.up || known.is_none_or(|known| known.incarnation != broker.incarnation)
    }

    fn keep_books(&mut self, place: Place, before: &Partition, after: &Partition) {
        let gone: Vec<usize> = before
            .replicas
            .iter()
            .filter(|replica| !after.replicas.contains(replica))
            .filter_map(|replica| self.index_of(*replica))
            .collect();
        if let Some(truth) = self.truths.get_mut(&place) {
            truth.lossy.retain(|at| !gone.contains(at));
        }
        if let (Some(leader), true) = (after.leader, after.leader_epoch > before.leader_epoch) {
            self.tally.leader_changes += 1;
            if before.leader.is_none() && before.elr.contains(&leader) {
                self.tally.mark("elected from the ELR");
            }
            if after.recovering && !before.recovering {
                let last = before.leader.or(before.last_known_leader) == Some(leader);
                self.tally.mark(if last { "elected the last known leader" } else { "elected uncleanly" });
            }
        }
        if before.isr.iter().any(|member| !after.isr.contains(member)) {
            self.tally.mark("isr shrunk");
        }
        let joined: Vec<BrokerId> = after.isr.iter().copied().filter(|member| !before.isr.contains(member)).collect();
        if joined.is_empty() {
            return;
        }
        self.tally.mark("isr grown");
        for member in joined {
            let Some(at) = self.index_of(member) else { continue };
            // Elected from the ELR it joins by that, whatever its copy is worth; and a run that has ended proves
            // nothing.
            if !self.is_absent(at)
                && after.leader != Some(member)
                && let Some(truth) = self.truths.get_mut(&place)
            {
                truth.lossy.remove(&at);
            }
            self.check_joined(at, place);
        }
    }

    /// Who joins an ISR holds all that is committed (I4, B9).
    fn check_joined(&mut self, at: usize, place: Place) {
        let broker = &self.brokers[at];
        let Some(copy) = broker.copies.get(&place).filter(|_| broker.serves()) else { return };
        let (Some(replica), Some(truth)) = (copy.replica(), self.truths.get(&place)) else { return };
        let held = if copy.is_fsync() { replica.log().durable_end() } else { replica.log().end() };
        if held.offset < truth.end() && !truth.excused {
            let what = format!("{} holds {} of {}", broker.id, held.offset, truth.end());
            self.fail("I4", what);
        }
    }

    /// Looks at an open copy: what it calls committed, and what it leads with.
    pub(crate) fn check_copy(&mut self, at: usize, place: Place) {
        let broker = &mut self.brokers[at];
        let id = broker.id;
        let Some(copy) = broker.copies.get_mut(&place) else { return };
        let State::Open(replica) = &copy.state else { return };
        // What the cluster has forgotten has no truth any more.
        let topic = self.images[self.images.len() - 1].topic(place.0);
        let Some(agreed) = topic.and_then(|topic| topic.partition(place.1)) else { return };
        // Whoever hears late that it leads, when others have led since, need not hold what they committed.
        let current = agreed.leader_epoch == replica.leader_epoch();
        let truth = self.truths.entry(place).or_default();
        let found = check_replica(id, replica, current, &mut copy.seen, truth);
        if let Err((rule, what)) = found {
            self.fail(rule, format!("{id}, {}-{}: {what}", place.0, place.1));
        }
    }

    /// A broker is about to acknowledge a batch under `acks=all`.
    pub(crate) fn check_acknowledged(&mut self, at: usize, place: Place, base: Offset, end: Offset) {
        let Some(truth) = self.truths.get_mut(&place) else { return };
        let committed = truth.at(base).is_some_and(|batch| batch.next == end);
        let excused = truth.excused;
        truth.acknowledged = truth.acknowledged.max(end);
        if !committed && !excused {
            let id = self.brokers[at].id;
            self.fail("I6", format!("{id} acknowledges {base} to {end} of {}-{}", place.0, place.1));
        }
    }

    /// A producer hears that its batch is committed there.
    pub(crate) fn check_answered(&mut self, place: Place, base: Offset, crc: u32, producer: (ProducerId, i32)) {
        let Some(truth) = self.truths.get(&place).filter(|truth| !truth.excused) else { return };
        let found = truth.at(base).copied();
        if !found.is_some_and(|batch| batch.crc == crc && batch.producer == producer) {
            let what = format!("{producer:?} was told of {base} in {}-{}, where {found:?} is", place.0, place.1);
            self.fail("P1", what);
        }
    }

    /// A producer whose batches before were all acknowledged, the one before at `before`, hears that its sequence does
    /// not follow.
    pub(crate) fn check_out_of_order(
        &mut self,
        place: Place,
        broker: usize,
        epoch: LeaderEpoch,
        before: Offset,
        (producer, sequence): (ProducerId, i32),
    ) {
        // What is known of a producer may go with the beginning of the log. Any sequence is taken then, also one that
        // overtook this.
        let excused = self
            .truths
            .get(&place)
            .is_none_or(|truth| truth.excused || truth.start > before || truth.is_deleted(producer, sequence));
        if !excused && self.leads(broker, place, epoch) {
            self.fail("P2", format!("producer {producer} is out of order in {}-{}", place.0, place.1));
        }
    }

    /// Whether a broker leads as far as the cluster has agreed.
    fn leads(&self, at: usize, place: Place, epoch: LeaderEpoch) -> bool {
        let partition = self.image().topic(place.0).and_then(|topic| topic.partition(place.1));
        partition
            .is_some_and(|partition| partition.leader == Some(self.brokers[at].id) && partition.leader_epoch == epoch)
    }

    /// A leader says where the log ends (I7, B14).
    pub(crate) fn check_latest(
        &mut self,
        at: usize,
        place: Place,
        latest: Offset,
        acknowledged: Option<(TopicId, Offset)>,
    ) {
        let broker = &self.brokers[at];
        let epoch = broker.copies.get(&place).map_or(LeaderEpoch::NONE, |copy| copy.leadership(broker.id).0);
        let excused = self.truths.get(&place).is_none_or(|truth| truth.excused);
        let Some((_, acknowledged)) = acknowledged.filter(|(topic, _)| *topic == place.0) else { return };
        if latest < acknowledged && !excused && self.leads(at, place, epoch) {
            let what = format!("{}-{} is said to end at {latest}, before {acknowledged}", place.0, place.1);
            self.fail("I7", what);
        }
    }

    /// A consumer has read a batch (I7, B15, B42).
    pub(crate) fn check_read(&mut self, place: Place, batch: &Committed, bytes: &[u8]) {
        let Some(truth) = self.truths.get(&place).filter(|truth| !truth.excused) else { return };
        let found = truth.at(batch.base).copied();
        if found != Some(*batch) || !crc_matches(bytes) {
            let what = format!("{batch:?} was read in {}-{}, where {found:?} is committed", place.0, place.1);
            self.fail("I7", what);
        }
    }
}

fn check_partition(image: &Image, before: Option<&Partition>, after: &Partition) -> Found {
    let Partition { replicas, isr, elr, adding, removing, .. } = after;
    let unfenced = |id: &BrokerId| image.broker(*id).is_some_and(|broker| !broker.fenced);
    let holds = |rule: &'static str, what: &str, holds: bool| if holds { Ok(()) } else { Err((rule, what.to_owned())) };
    match after.leader {
        Some(leader) => holds("A4", "the leader is not in the ISR", isr.contains(&leader))?,
        None => holds("A4", "an ISR without a leader", isr.is_empty())?,
    }
    for list in [replicas, isr, elr, adding, removing] {
        let distinct: BTreeSet<BrokerId> = list.iter().copied().collect();
        holds("I1", "a member twice", distinct.len() == list.len())?;
        holds("I1", "a member that is no replica", list.iter().all(|member| replicas.contains(member)))?;
    }
    holds("A1", "a fenced broker is in the ISR", isr.iter().all(unfenced))?;
    holds("A3", "a broker is in the ISR and in the ELR", !isr.iter().any(|member| elr.contains(member)))?;
    let Some(before) = before else { return Ok(()) };
    let same = Partition { partition_epoch: before.partition_epoch, ..after.clone() } == *before;
    // It may rise by itself, so that a leader has to hear of something else first.
    holds("I3", "the partition epoch does not tell", same || after.partition_epoch > before.partition_epoch)?;
    holds("I3", "the partition epoch falls", after.partition_epoch >= before.partition_epoch)?;
    holds("E6", "the leader epoch falls", after.leader_epoch >= before.leader_epoch)?;
    let changed = after.leader != before.leader;
    holds("E6", "another leader in the same epoch", !changed || after.leader_epoch > before.leader_epoch)
}

fn check_replica(id: BrokerId, replica: &Replica, current: bool, seen: &mut Seen, truth: &mut Truth) -> Found {
    let log = replica.log();
    let (start, end, high_watermark) = (log.start(), log.end(), replica.high_watermark());
    let leads = replica.role() == Role::Leader;
    let epoch = replica.leader_epoch();
    // An empty copy that could not take in the batch around its beginning begins with that batch.
    let empty = start == end.offset;
    if high_watermark.offset < seen.high_watermark && !truth.excused && !empty {
        return Err(("I7", format!("the high watermark goes from {} to {high_watermark:?}", seen.high_watermark)));
    }
    seen.high_watermark = high_watermark.offset;
    if start > end.offset || high_watermark.offset > end.offset {
        return Err(("E8", format!("it begins at {start} and ends at {}, {high_watermark:?}", end.offset)));
    }
    truth.start = truth.start.max(start);
    if leads && seen.led != epoch {
        seen.led = epoch;
        if let Some(other) = truth.leaders.insert(epoch, id).filter(|other| *other != id) {
            return Err(("A4", format!("it leads in epoch {epoch}, and {other} did")));
        }
        if log.epochs().latest() != Some(epoch) {
            return Err(("E1", format!("it leads in epoch {epoch}, and its log knows {:?}", log.epochs())));
        }
        if replica.assignment().recovering && !truth.excused {
            return Err(("A5", format!("it was elected uncleanly in epoch {epoch}")));
        }
        let whole = current && !truth.excused;
        if whole && end.offset < truth.end() {
            let what = format!("it leads in epoch {epoch} and ends at {}, {} is committed", end.offset, truth.end());
            return Err(("A5", what));
        }
        if whole {
            compare(replica, seen.verified.max(start), truth.end(), truth)?;
        }
    }
    let from = seen.verified.max(start);
    if high_watermark.offset <= from {
        return Ok(());
    }
    // What was committed before has to be there, what was not is from now on, if a leader says so.
    let known = truth.end().min(high_watermark.offset);
    if !truth.excused {
        compare(replica, from, known, truth)?;
    }
    if high_watermark.offset > truth.end() {
        if !leads && !truth.excused {
            let what = format!("it takes {} for committed, {} is", high_watermark.offset, truth.end());
            return Err(("B5", what));
        }
        for batch in log.reader().batches(truth.end().max(start), high_watermark) {
            let (header, _) = batch.map_err(|error| ("L5", error.to_string()))?;
            let committed = Committed::of(&header);
            if committed.base >= truth.end() {
                truth.commit(committed).map_err(|what| ("B42", what))?;
            }
        }
    }
    seen.verified = high_watermark.offset;
    Ok(())
}

/// Whether a copy has from `from` to `to` what is committed there.
fn compare(replica: &Replica, from: Offset, to: Offset, truth: &Truth) -> Found {
    if from >= to {
        return Ok(());
    }
    let log = replica.log();
    let mut expected = from;
    for batch in log.reader().batches(from, log.end()) {
        if expected >= to {
            break;
        }
        let (header, _) = batch.map_err(|error| ("L5", error.to_string()))?;
        let found = Committed::of(&header);
        if truth.at(found.base) != Some(&found) {
            return Err(("A5", format!("it has {found:?} where {:?} is committed", truth.at(found.base))));
        }
        expected = header.next_offset();
    }
    if expected >= to { Ok(()) } else { Err(("A5", format!("it ends at {expected}, {to} is committed"))) }
}
