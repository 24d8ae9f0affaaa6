//! The leader's append: each batch is checked against its producer, and those to append go in as one write.
//!
//! Not here: whether the ISR suffices for `acks=all`, which is asked before ([`Replica::check_min_isr`]), and what the
//! bytes of a batch may be (`ottla_records`). Next: `ottla_log::Log::append`.

use ottla_log::{AppendError, SequenceRefusal, StoredBatch, Verdict};
use ottla_records::ProducedBatch;
use ottla_types::{Offset, Timestamp};
use smallvec::SmallVec;

use crate::{Durability, Replica, Role};

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

impl Replica {
    /// Appends validated batches in order, as one append of the log, and says for each what became of it: `outcomes`
    /// gains exactly one entry per batch. Each is checked as if those before it were in, so that a producer's pipeline
    /// of batches costs one write. To be called while [`Replica::role`] says leader; otherwise all of them fail.
    pub fn append(&mut self, batches: &[ProducedBatch], now: Timestamp, outcomes: &mut Vec<Outcome>) {
        if self.role() != Role::Leader {
            let failed = || Outcome::Failed(AppendError::Impossible("this replica does not lead"));
            outcomes.extend(batches.iter().map(|_| failed()));
            return;
        }
        let epoch = self.leader_epoch();
        let start = self.log.end().offset;
        let mut next = start;
        let mut stored: SmallVec<[StoredBatch; 1]> = SmallVec::with_capacity(batches.len());
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
                    stored.push(StoredBatch { header: batch.header, bytes, epoch });
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
        if self.settings.durability == Durability::Replicated {
            self.advance_high_watermark();
        }
    }
}
