//! The leader-epoch history of a log: where each epoch began (KIP-101, rules E1 and E2).
//!
//! Rebuilt from the batches for what recovery scans; the file (docs/formats/epochs.md) holds the rest. Which epoch is
//! whose turn is not decided here. Next: `producers.rs`.

use std::ops::Range;

use ottla_types::{LeaderEpoch, Offset};

use crate::checked_file;

const MAGIC: [u8; 4] = *b"OTEH";
const VERSION: u16 = 1;
const ENTRY_BYTES: usize = 12;

/// One epoch of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The log's end when it began; no batch below it is of this epoch.
    pub start: Offset,
}

/// The epochs of a log, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochHistory {
    /// Invariant: epoch strictly rises from entry to entry, and so does start.
    entries: Vec<EpochStart>,
}

impl EpochHistory {
    /// Records that an epoch begins at `start`. Entries that contradict it (same start, or a later epoch or start) go
    /// (E1). An epoch that is there already at this start or before, or a negative one, changes nothing.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        if epoch.0 < 0 || start.0 < 0 {
            return false;
        }
        if self.entries.last().is_some_and(|last| last.epoch == epoch && last.start <= start) {
            return false;
        }
        self.entries.retain(|entry| entry.epoch < epoch && entry.start < start);
        self.entries.push(EpochStart { epoch, start });
        true
    }

    /// The end of an epoch, for a replica that asks where it may have left the common path (E2): the latest ends where
    /// the `log` does; a lower one where the next begins, named by the highest known epoch not above it; one below the
    /// first where the log begins. `None`: above the latest, or nothing is known.
    pub fn end_offset_for(&self, epoch: LeaderEpoch, log: Range<Offset>) -> Option<(LeaderEpoch, Offset)> {
        let latest = self.entries.last()?;
        if epoch == latest.epoch {
            return Some((epoch, log.end));
        }
        if epoch > latest.epoch {
            return None;
        }
        let next = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let floor = next.checked_sub(1).map_or(epoch, |index| self.entries[index].epoch);
        Some((floor, self.entries[next].start.max(log.start)))
    }

    /// The latest epoch.
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The epoch of the batch that holds `offset`.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start <= offset);
        after.checked_sub(1).map(|index| self.entries[index].epoch)
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// Forgets epochs that began at or after `end`.
    pub(crate) fn truncate(&mut self, end: Offset) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.start < end);
        self.entries.len() != before
    }

    /// Forgets epochs below that of the last offset below `start`. That one stays, as if it had begun there, even if it
    /// ended there too: a follower that has everything up to `start` names it.
    pub(crate) fn advance_start(&mut self, start: Offset) -> bool {
        let Some(oldest) = self.entries.partition_point(|entry| entry.start < start).checked_sub(1) else {
            return false;
        };
        let last_gone = Offset(start.0 - 1);
        if oldest == 0 && self.entries[0].start == last_gone {
            return false;
        }
        self.entries.drain(..oldest);
        self.entries[0].start = last_gone;
        true
    }

    /// The file's bytes; it also says where the log starts, which must be durable before segments below it go.
    pub(crate) fn encode(&self, log_start: Offset) -> Vec<u8> {
        let mut body = Vec::with_capacity(8 + self.entries.len() * ENTRY_BYTES);
        body.extend_from_slice(&log_start.0.to_be_bytes());
        for entry in &self.entries {
            body.extend_from_slice(&entry.epoch.0.to_be_bytes());
            body.extend_from_slice(&entry.start.0.to_be_bytes());
        }
        checked_file::encode(MAGIC, VERSION, &body)
    }

    /// `None` if the file is not whole or its entries do not rise.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(EpochHistory, Offset)> {
        let body = checked_file::decode(MAGIC, VERSION, bytes)?;
        let (log_start, body) = body.split_first_chunk::<8>()?;
        let log_start = Offset(i64::from_be_bytes(*log_start));
        let (entries, rest) = body.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        let mut history = EpochHistory::default();
        for entry in entries {
            let (epoch, start) = entry.split_first_chunk::<4>()?;
            let epoch = LeaderEpoch(i32::from_be_bytes(*epoch));
            let start = Offset(i64::from_be_bytes(*start.first_chunk()?));
            let rises = history.entries.last().is_none_or(|last| last.epoch < epoch && last.start < start);
            if !rises || !history.assign(epoch, start) {
                return None;
            }
        }
        (log_start.0 >= 0).then_some((history, log_start))
    }
}
