//! What the log knows of idempotent producers: the last five batches of each (KIP-98, rules P1 to P4).
//!
//! A pure function of the batches in the log: `apply` is the only mutator, called when the bytes are in (L2). Ids are
//! given out elsewhere, transactions are decided elsewhere; here an open one only keeps its producer from expiring.
//! The snapshot file is in `snapshot.rs`.

use std::collections::BTreeMap;

use ottla_records::BatchHeader;
use ottla_types::{Offset, ProducerEpoch, ProducerId, Timestamp};

/// Batches remembered per producer: as many as a client may have in flight.
pub(crate) const BATCHES_MAX: usize = 5;
/// The most that one look at the clock may age a producer: a clock that jumps forward years expires nobody (C1).
const CLOCK_STEP_MS_MAX: u64 = 60 * 60 * 1000;

/// The producers of one log.
#[derive(Clone, Debug, Default)]
pub struct Producers {
    pub(crate) entries: BTreeMap<ProducerId, Entry>,
    /// Milliseconds this log has watched the clock run forward: what ages producers, whatever the wall clock does.
    pub(crate) watched_ms: u64,
    clock: Option<Timestamp>,
}

/// One producer's state.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) epoch: ProducerEpoch,
    /// Oldest first; the first `len` are in use.
    pub(crate) batches: [Written; BATCHES_MAX],
    pub(crate) len: usize,
    pub(crate) last_timestamp: Timestamp,
    pub(crate) transaction_start: Option<Offset>,
    pub(crate) active_at_ms: u64,
}

/// One batch that is in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) base_offset: Offset,
    pub(crate) base_sequence: i32,
    /// Records less one, in sequences and in offsets alike; 0 or more.
    pub(crate) last_delta: i32,
    pub(crate) timestamp: Timestamp,
}

/// What to do with a batch that a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is next in its producer's sequence, or not idempotent.
    Append,
    /// It is in the log already: answer as the first time, once the high watermark reaches `end` (P1).
    Duplicate {
        /// Where its first record is.
        base_offset: Offset,
        /// The offset after its last record.
        end: Offset,
        /// Its largest timestamp: the time of the append where the topic stamps batches.
        append_time: Timestamp,
    },
    /// It may not be appended.
    Refuse(SequenceRefusal),
}

/// Why a batch of an idempotent producer is refused (P2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceRefusal {
    /// Batches before it are missing, or it is older than the five remembered: OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("producer {producer} sent sequence {got}, the log expects {expected}")]
    OutOfOrder {
        /// The producer.
        producer: ProducerId,
        /// The sequence that would be right.
        expected: i32,
        /// The sequence it has.
        got: i32,
    },
    /// A later incarnation has written: INVALID_PRODUCER_EPOCH.
    #[error("producer {producer} has epoch {got}, the log has seen {current}")]
    StaleEpoch {
        /// The producer.
        producer: ProducerId,
        /// The latest epoch.
        current: ProducerEpoch,
        /// The epoch it has.
        got: ProducerEpoch,
    },
}

/// One producer as DescribeProducers shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerDescription {
    /// The producer.
    pub id: ProducerId,
    /// Its latest epoch.
    pub epoch: ProducerEpoch,
    /// The sequence of its last record, -1 if none is known.
    pub last_sequence: i32,
    /// The largest timestamp of its last batch.
    pub last_timestamp: Timestamp,
    /// Where its open transaction began.
    pub transaction_start: Option<Offset>,
}

impl Producers {
    /// What to do with one batch. For several that go into one append use [`Producers::admission`].
    pub fn check(&self, header: &BatchHeader) -> Verdict {
        match self.entries.get(&header.producer_id) {
            Some(entry) if is_sequenced(header) => entry.check(header),
            _ => Verdict::Append,
        }
    }

    /// Checks batches that will go into one append at `end`, each as if those before it were in.
    pub fn admission(&self, end: Offset) -> Admission<'_> {
        Admission { producers: self, end, admitted: Vec::new() }
    }

    /// The producers, by id.
    pub fn describe(&self) -> Vec<ProducerDescription> {
        let describe = |(&id, entry): (&ProducerId, &Entry)| ProducerDescription {
            id,
            epoch: entry.epoch,
            last_sequence: entry.written().last().map_or(-1, Written::last_sequence),
            last_timestamp: entry.last_timestamp,
            transaction_start: entry.transaction_start,
        };
        self.entries.iter().map(describe).collect()
    }

    /// Where the batches begin that it remembers, of all producers.
    pub(crate) fn batch_offsets(&self) -> impl Iterator<Item = Offset> {
        self.entries.values().flat_map(|entry| entry.written().iter().map(|batch| batch.base_offset))
    }

    /// How many producers are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets producers that wrote nothing, transaction markers included, for longer than `expiration_ms`, unless a
    /// transaction is open (P4). To be called at least hourly: that is the most a call believes of the clock.
    pub(crate) fn expire(&mut self, now: Timestamp, expiration_ms: u64) -> usize {
        self.observe(now);
        let (before, watched_ms) = (self.entries.len(), self.watched_ms);
        self.entries.retain(|_, entry| {
            entry.transaction_start.is_some() || watched_ms.saturating_sub(entry.active_at_ms) <= expiration_ms
        });
        before - self.entries.len()
    }

    /// Lets the time that passed since the last look count.
    pub(crate) fn observe(&mut self, now: Timestamp) {
        if let Some(before) = self.clock.replace(now) {
            let passed = u64::try_from(now.0.saturating_sub(before.0)).unwrap_or(0);
            let most = if cfg!(zoo = "B26") { u64::MAX } else { CLOCK_STEP_MS_MAX };
            self.watched_ms = self.watched_ms.saturating_add(passed.min(most));
        }
    }

    /// Takes in a batch that is in the log at `base`: never refuses (P3).
    pub(crate) fn apply(&mut self, header: &BatchHeader, base: Offset) {
        if header.producer_id.0 < 0 {
            return;
        }
        let watched_ms = self.watched_ms;
        let entry = self.entries.entry(header.producer_id).or_insert_with(|| Entry::new(header.producer_epoch));
        entry.apply(header, base);
        entry.active_at_ms = watched_ms;
    }

    /// Whether both know the same of every producer, apart from how long ago it was active.
    pub fn same_state(&self, other: &Producers) -> bool {
        self.entries.len() == other.entries.len()
            && self.entries.iter().zip(&other.entries).all(|((id, entry), (other_id, other))| {
                id == other_id
                    && entry.epoch == other.epoch
                    && entry.written() == other.written()
                    && entry.last_timestamp == other.last_timestamp
                    && entry.transaction_start == other.transaction_start
            })
    }
}

/// Checks a group of batches against the producers and against each other; see [`Producers::admission`].
#[derive(Debug)]
pub struct Admission<'a> {
    producers: &'a Producers,
    end: Offset,
    admitted: Vec<(ProducerId, Entry)>,
}

impl Admission<'_> {
    /// What to do with the next batch of the group; after [`Verdict::Append`] it counts as appended.
    pub fn check(&mut self, header: &BatchHeader) -> Verdict {
        let id = header.producer_id;
        let admitted = self.admitted.iter().position(|(other, _)| *other == id);
        let verdict = match admitted {
            Some(index) if is_sequenced(header) => self.admitted[index].1.check(header),
            _ => self.producers.check(header),
        };
        if verdict != Verdict::Append {
            return verdict;
        }
        if is_sequenced(header) {
            let index = admitted.unwrap_or_else(|| {
                let known = self.producers.entries.get(&id).cloned();
                self.admitted.push((id, known.unwrap_or_else(|| Entry::new(header.producer_epoch))));
                self.admitted.len() - 1
            });
            self.admitted[index].1.apply(header, self.end);
        }
        self.end = Offset(self.end.0.saturating_add(i64::from(header.last_offset_delta)).saturating_add(1));
        verdict
    }
}

fn is_sequenced(header: &BatchHeader) -> bool {
    header.producer_id.0 >= 0 && !header.is_control()
}

impl Entry {
    pub(crate) fn new(epoch: ProducerEpoch) -> Entry {
        Entry {
            epoch,
            batches: [Written::default(); BATCHES_MAX],
            len: 0,
            last_timestamp: Timestamp::NONE,
            transaction_start: None,
            active_at_ms: 0,
        }
    }

    pub(crate) fn written(&self) -> &[Written] {
        &self.batches[..self.len]
    }

    fn check(&self, header: &BatchHeader) -> Verdict {
        let (producer, got) = (header.producer_id, header.base_sequence);
        if header.producer_epoch < self.epoch {
            let (current, got) = (self.epoch, header.producer_epoch);
            return Verdict::Refuse(SequenceRefusal::StaleEpoch { producer, current, got });
        }
        let expected = if header.producer_epoch > self.epoch {
            0
        } else {
            let same = |batch: &&Written| batch.base_sequence == got && batch.last_delta == header.last_offset_delta;
            if cfg!(zoo = "B24") {
                return Verdict::Append;
            }
            if let Some(batch) = self.written().iter().rev().find(same) {
                let (base_offset, end, append_time) = (batch.base_offset, batch.end(), batch.timestamp);
                return Verdict::Duplicate { base_offset, end, append_time };
            }
            self.written().last().map_or(0, |last| sequence_after(last.last_sequence()))
        };
        if got == expected {
            Verdict::Append
        } else {
            Verdict::Refuse(SequenceRefusal::OutOfOrder { producer, expected, got })
        }
    }

    fn apply(&mut self, header: &BatchHeader, base: Offset) {
        if header.producer_epoch != self.epoch {
            self.epoch = header.producer_epoch;
            self.len = 0;
        }
        self.last_timestamp = header.max_timestamp;
        if header.is_control() {
            self.transaction_start = None;
            return;
        }
        if header.is_transactional() {
            self.transaction_start.get_or_insert(base);
        }
        self.push(Written {
            base_offset: base,
            base_sequence: header.base_sequence,
            last_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
    }

    pub(crate) fn push(&mut self, batch: Written) {
        if self.len == BATCHES_MAX {
            self.batches.rotate_left(1);
            self.len -= 1;
        }
        self.batches[self.len] = batch;
        self.len += 1;
    }
}

impl Written {
    fn last_sequence(&self) -> i32 {
        let sum = i64::from(self.base_sequence) + i64::from(self.last_delta);
        // Sequences are 31 bits: after 2^31 - 1 comes 0.
        (sum & i64::from(i32::MAX)) as i32
    }

    fn end(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(i64::from(self.last_delta)).saturating_add(1))
    }
}

fn sequence_after(sequence: i32) -> i32 {
    sequence.checked_add(1).unwrap_or(0)
}
