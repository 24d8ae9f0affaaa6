//! One broker's copy of one partition, over its log: who leads, what is acknowledged, what may be read.
//!
//! A [`Replica`] adds to the log what replication means: the leader epoch it serves in, the high watermark, the
//! durability its topic asked for, and the idempotence check before an append. It is plain synchronous code under the
//! partition's lock; it knows nothing of sockets, topics or other partitions.
//!
//! Next: `ottla_log` for the bytes below, `partition.rs` of `ottla_node` for the lock above.

pub use ottla_log::SequenceRefusal;
use ottla_log::{AppendError, Log, LogPosition, StoredBatch, SyncError, SyncPlan, Synced, Verdict};
use ottla_records::ProducedBatch;
use ottla_types::{LeaderEpoch, Offset, Timestamp};

/// When a record counts as held by a replica (`ottla.durability`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it is synced to disk (the default; rule L13).
    Fsync,
    /// Once it is in the page cache, as with Kafka.
    Replicated,
}

/// What became of one produced batch.
#[derive(Debug)]
pub enum Outcome {
    /// Appended at `base_offset`; held by every in-sync replica once the high watermark reaches `required`.
    Appended {
        /// The offset of the batch's first record.
        base_offset: Offset,
        /// The high watermark that acknowledges it under `acks=all`.
        required: Offset,
    },
    /// A retry of one of the producer's last five batches (rule P1): nothing was appended.
    Duplicate {
        /// The offset of the original's first record.
        base_offset: Offset,
        /// The original's largest timestamp: when it was appended, where the topic stamps its batches.
        append_time: Timestamp,
        /// The high watermark that acknowledges the original; a duplicate waits for it alike.
        required: Offset,
    },
    /// The sequence or epoch does not follow from what the producer wrote before (rule P2).
    Refused(SequenceRefusal),
    /// Nothing was appended, and the batch may be tried again when storage allows it.
    Failed(AppendError),
}

/// Why a request's leader epoch does not fit (KIP-320, rule E7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochRefusal {
    /// The client knows an older leadership.
    #[error("the leader epoch of the request is older than this leadership")]
    Fenced,
    /// The client knows a leadership that this broker has not heard of yet.
    #[error("the leader epoch of the request is newer than this leadership")]
    Unknown,
}

/// The leader's copy of a partition.
///
/// Invariant: `high_watermark <= log end`; with [`Durability::Fsync`] it never passes what was synced. It never goes
/// back.
#[derive(Debug)]
pub struct Replica {
    log: Log,
    leader_epoch: LeaderEpoch,
    durability: Durability,
    high_watermark: LogPosition,
}

impl Replica {
    /// Leads the partition in `leader_epoch` over a log that was just opened, and whose end is durable.
    ///
    /// The epoch and the end it began at are recorded before anything is served, even if nothing is ever written in
    /// it (rule E1).
    pub fn lead(mut log: Log, leader_epoch: LeaderEpoch, durability: Durability) -> Result<Replica, AppendError> {
        if log.epochs().latest().is_none_or(|latest| latest < leader_epoch) {
            log.assign_epoch(leader_epoch)?;
        }
        let high_watermark = log.end();
        Ok(Replica { log, leader_epoch, durability, high_watermark })
    }

    /// The log below, for everything that does not depend on replication.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The log below, for retention and its like.
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// The end of what is acknowledged and may be read, with its place in the log.
    pub fn high_watermark(&self) -> LogPosition {
        self.high_watermark
    }

    /// The epoch of the present leadership.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// Takes the topic's new setting; what is already acknowledged stays so.
    pub fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
        if durability == Durability::Replicated {
            self.high_watermark = self.log.end();
        }
    }

    /// Appends validated batches in order, as one append of the log, and says for each what became of it: `outcomes`
    /// gains exactly one entry per batch. Each is checked as if those before it were in, so that a producer's pipeline
    /// of batches costs one write.
    pub fn append(&mut self, batches: &[ProducedBatch], now: Timestamp, outcomes: &mut Vec<Outcome>) {
        let start = self.log.end().offset;
        let mut next = start;
        let mut stored = Vec::with_capacity(batches.len());
        let before = outcomes.len();
        let mut admission = self.log.producers().admission(start);
        let limit = self.log.batch_bytes_max();
        for batch in batches {
            let size = batch.header.size() as u64;
            if size > limit {
                // It fails for itself: the append is all or nothing, and the others are not to blame.
                outcomes.push(Outcome::Failed(AppendError::TooLarge { size, limit }));
                continue;
            }
            outcomes.push(match admission.check(&batch.header) {
                Verdict::Append => {
                    let base_offset = next;
                    next = Offset(next.0 + i64::from(batch.header.last_offset_delta) + 1);
                    let bytes = batch.bytes.clone();
                    stored.push(StoredBatch { header: batch.header, bytes, epoch: self.leader_epoch });
                    Outcome::Appended { base_offset, required: next }
                }
                Verdict::Duplicate { base_offset, append_time, end } => {
                    Outcome::Duplicate { base_offset, append_time, required: end }
                }
                Verdict::Refuse(refusal) => Outcome::Refused(refusal),
            });
        }
        if stored.is_empty() {
            return;
        }
        if let Err(error) = self.log.append(&stored, now) {
            // What rests on this append fails with it: the batches, and the duplicates of batches of this same call.
            for outcome in &mut outcomes[before..] {
                match outcome {
                    Outcome::Appended { .. } => *outcome = Outcome::Failed(error.clone()),
                    Outcome::Duplicate { base_offset, .. } if *base_offset >= start => {
                        *outcome = Outcome::Failed(error.clone());
                    }
                    Outcome::Duplicate { .. } | Outcome::Refused(_) | Outcome::Failed(_) => {}
                }
            }
        }
        if self.durability == Durability::Replicated {
            self.high_watermark = self.log.end();
        }
    }

    /// What a sync would make durable now; `None` when nothing is unsynced.
    pub fn begin_sync(&mut self) -> Option<SyncPlan> {
        self.log.begin_sync()
    }

    /// Takes the outcome of a sync. With [`Durability::Fsync`] the high watermark follows what is synced.
    pub fn complete_sync(&mut self, plan: SyncPlan, result: Result<Synced, SyncError>) -> Result<(), SyncError> {
        self.log.complete_sync(plan, result)?;
        let synced = self.log.durable_end();
        // The log may have been truncated, or the watermark moved on, while the sync ran.
        if synced.offset > self.high_watermark.offset && synced.offset <= self.log.end().offset {
            self.high_watermark = synced;
        }
        Ok(())
    }

    /// Whether a request that names `current` may be served by this leadership; -1 skips the check.
    pub fn check_epoch(&self, current: LeaderEpoch) -> Result<(), EpochRefusal> {
        match current {
            LeaderEpoch::NONE => Ok(()),
            epoch if epoch < self.leader_epoch => Err(EpochRefusal::Fenced),
            epoch if epoch > self.leader_epoch => Err(EpochRefusal::Unknown),
            _ => Ok(()),
        }
    }
}
