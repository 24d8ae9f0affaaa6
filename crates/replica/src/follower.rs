//! The follower: where it goes on from, and what it does with its leader's answer.
//!
//! A Fetch names the end of the follower's log and the epoch of its last batch. The leader answers with what comes next
//! or, where the two logs differ, with the place up to which they may agree (KIP-595); the follower cuts there and asks
//! again. So no follower ever cuts at its high watermark, which is what lost data before KIP-101 (B1, B2).
//!
//! Not here: the requests, and the leader's side of it (`replica.rs`: [`Replica::divergence`]).

use bytes::Bytes;
use ottla_log::{AppendError, LogPosition, ReadError, TruncateError};
use ottla_records::BatchHeader;
use ottla_types::{BrokerId, LeaderEpoch, Offset, Timestamp};

use crate::{Replica, replica::State};

/// What a follower's next Fetch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPosition {
    /// Whom to ask.
    pub leader: BrokerId,
    /// The leadership as it is known here; it goes with the request and comes back with [`Fetched`].
    pub leader_epoch: LeaderEpoch,
    /// The end of the log.
    pub offset: Offset,
    /// The latest epoch of the log, [`LeaderEpoch::NONE`] if there is none.
    pub last_epoch: LeaderEpoch,
    /// The end of what is on the disk, at most `offset` (L13).
    pub durable: Offset,
    /// The first offset there is.
    pub log_start: Offset,
}

/// A leader's answer. `leader_epoch`, `from` and `last_epoch` are those of the request it answers.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The leadership that was asked.
    pub leader_epoch: LeaderEpoch,
    /// The offset that was asked for.
    pub from: Offset,
    /// The latest epoch of the log that asked: one that was cut since may have grown back to the same offset.
    pub last_epoch: LeaderEpoch,
    /// Batches from there on, perhaps with the beginning of one more; empty if there is nothing new.
    pub records: Bytes,
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// The leader's first offset. Also known of an answer OFFSET_OUT_OF_RANGE, or to be asked for then: one above the
    /// follower's end makes it begin anew there.
    pub log_start: Offset,
    /// The logs differ: what [`Replica::divergence`] said. Nothing else counts then (E3, B5).
    pub diverging: Option<(LeaderEpoch, Offset)>,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchOutcome {
    /// It was taken in: records, high watermark, log start, as far as there were any.
    Taken,
    /// It answers a request of another role, leadership or offset; nothing was done (E5, B6).
    Stale,
    /// The log was cut and ends here now. A sync should follow at once.
    Truncated(Offset),
    /// The leader has nothing older: everything was dropped, and the log begins and ends here. A sync should follow.
    Reset(Offset),
    /// The log can't be cut while a sync or compaction of it is under way. Fetch again afterwards.
    Busy,
    /// The leader lacks what was committed: it was elected uncleanly. The high watermark was taken back, and so was
    /// what the log's checkpoint says; nothing was cut. To be reported; the checkpoint is to be stored before the
    /// next Fetch, whose answer cuts.
    HighWatermarkLost {
        /// Where it was.
        from: Offset,
        /// Where it is now.
        to: Offset,
    },
}

/// Why a leader's answer was not taken in. The log is as it was, and the same Fetch may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The batches do not continue the log, or can't be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The place to cut could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Cutting where the leader says would change nothing, for ever.
    #[error("the leader says that the logs differ after {end} in epoch {epoch}, and they don't")]
    NoDivergence {
        /// The epoch it named.
        epoch: LeaderEpoch,
        /// The end it named.
        end: Offset,
    },
}

impl Replica {
    /// What to ask the leader for next; `None` for whoever does not follow.
    pub fn fetch_position(&self) -> Option<FetchPosition> {
        let State::Following { leader } = self.state else { return None };
        let offset = self.log.end().offset;
        Some(FetchPosition {
            leader,
            leader_epoch: self.leader_epoch(),
            offset,
            last_epoch: self.log.epochs().latest().unwrap_or(LeaderEpoch::NONE),
            durable: self.log.durable_end().offset.min(offset),
            log_start: self.log.start(),
        })
    }

    /// Takes in what the leader answered, if it answers what would be asked now (E5, B6): appends, learns what is
    /// committed, moves the log start to the leader's; or cuts, or begins anew.
    pub fn append_fetched(&mut self, fetched: &Fetched, now: Timestamp) -> Result<FetchOutcome, FetchError> {
        let end = self.log.end().offset;
        let following = matches!(self.state, State::Following { .. });
        let position = (self.leader_epoch(), end, self.log.epochs().latest().unwrap_or(LeaderEpoch::NONE));
        let mut asked = (fetched.leader_epoch, fetched.from, fetched.last_epoch) == position;
        asked |= cfg!(zoo = "B6") && fetched.diverging.is_some();
        if !following || !asked {
            return Ok(FetchOutcome::Stale);
        }
        if let Some((epoch, leader_end)) = fetched.diverging {
            if cfg!(zoo = "B5") {
                self.raise_high_watermark(self.log.position_of(fetched.high_watermark)?);
            }
            return self.truncate_to_leader(epoch, leader_end);
        }
        if fetched.log_start > end {
            return self.begin_anew(fetched.log_start);
        }
        if let Some(first) = overlapping(&fetched.records, end) {
            if !self.log.is_empty() {
                // What is here from that batch's beginning on is of another history, which no epoch told.
                return self.cut(first);
            }
            return self.append_shared(fetched, first, now);
        }
        if !fetched.records.is_empty() {
            self.log.append_as_follower(&fetched.records, now)?;
        }
        self.learn(fetched)
    }

    /// What is committed, and where the log starts.
    fn learn(&mut self, fetched: &Fetched) -> Result<FetchOutcome, FetchError> {
        let committed = fetched.high_watermark.min(self.log.end().offset);
        // If its place can't be read it stays where it is, and whoever reads there reports why.
        if committed > self.high_watermark.offset
            && let Ok(place) = self.log.position_of(committed)
        {
            self.raise_high_watermark(place);
        }
        // Nothing goes that is not known to be committed.
        self.log.advance_start(fetched.log_start.min(self.high_watermark.offset))?;
        Ok(FetchOutcome::Taken)
    }

    /// The leader's log starts inside a batch, which begins below this empty log: it has to begin with it.
    fn append_shared(&mut self, fetched: &Fetched, first: Offset, now: Timestamp) -> Result<FetchOutcome, FetchError> {
        let before = self.high_watermark.offset;
        if self.begin_anew(first)? == FetchOutcome::Busy {
            return Ok(FetchOutcome::Busy);
        }
        if let Err(error) = self.log.append_as_follower(&fetched.records, now) {
            // Without its batch the log may as well begin where it did: neither its start nor what is committed has
            // gone back (I7).
            self.begin_anew(before)?;
            return Err(error.into());
        }
        // It stays inside the batch, of which nothing is to be read yet.
        self.set_high_watermark(LogPosition { offset: before, segment: first, position: 0 });
        self.learn(fetched)
    }

    /// Cuts the log where the leader's may leave it (E4): at the end of the epoch that the leader named, there or here,
    /// whichever is less. An epoch that is not known here ends with the highest below it, and the next answer goes on
    /// from there.
    fn truncate_to_leader(&mut self, epoch: LeaderEpoch, leader_end: Offset) -> Result<FetchOutcome, FetchError> {
        let (end, latest) = (self.log.end().offset, self.log.epochs().latest());
        if epoch == LeaderEpoch::NONE && leader_end == end {
            return self.begin_anew(end);
        }
        let own_end = self.log.epoch_end(epoch).filter(|_| !cfg!(zoo = "B2")).map_or(end, |(_, end)| end);
        let outcome = self.cut(leader_end.min(own_end).min(end).max(Offset::ZERO))?;
        if outcome == FetchOutcome::Truncated(end) && self.log.epochs().latest() == latest {
            return Err(FetchError::NoDivergence { epoch, end: leader_end });
        }
        Ok(outcome)
    }

    fn cut(&mut self, to: Offset) -> Result<FetchOutcome, FetchError> {
        if to < self.high_watermark.offset {
            return self.take_back_high_watermark(to);
        }
        match self.log.truncate(to) {
            Ok(()) => {}
            Err(TruncateError::Busy) => return Ok(FetchOutcome::Busy),
            Err(TruncateError::Append(error)) => return Err(error.into()),
        }
        let end = self.log.end();
        // The place of what is left may be another.
        if self.high_watermark.offset >= end.offset {
            self.set_high_watermark(end);
        }
        Ok(FetchOutcome::Truncated(end.offset))
    }

    /// A clean election never asks for it (E9). It is done in two steps so that no checkpoint ever speaks of batches
    /// that were cut: a start would take their loss for damage.
    fn take_back_high_watermark(&mut self, to: Offset) -> Result<FetchOutcome, FetchError> {
        let from = self.high_watermark.offset;
        let place = self.log.position_of(to)?;
        self.set_high_watermark(place);
        Ok(FetchOutcome::HighWatermarkLost { from, to: place.offset })
    }

    /// The high watermark goes with it, or this replica would later lead with one outside of its log (E8, B7).
    fn begin_anew(&mut self, to: Offset) -> Result<FetchOutcome, FetchError> {
        match self.log.reset_to(to) {
            Ok(()) => {}
            Err(TruncateError::Busy) => return Ok(FetchOutcome::Busy),
            Err(TruncateError::Append(error)) => return Err(error.into()),
        }
        self.set_high_watermark(self.log.end());
        Ok(FetchOutcome::Reset(to))
    }

    fn set_high_watermark(&mut self, to: LogPosition) {
        self.high_watermark = to;
        self.log.set_committed(to.offset);
    }
}

/// Where the first batch begins, if that is below `end`, which lies inside it.
fn overlapping(records: &Bytes, end: Offset) -> Option<Offset> {
    let first = BatchHeader::parse(records).ok()?;
    (first.base_offset < end && end <= first.last_offset()).then_some(first.base_offset)
}
