//! What a follower does to its log beside appending: it copies what its leader has next, cuts what its leader does not
//! have, and begins anew where its leader has moved on.
//!
//! # Holes
//!
//! A leader's log has holes where compaction took records, and its followers' logs get the same ones. A start must tell
//! a hole from a lost write (rules L4, L5), by the offsets of the batches and the `cleaned` file alone. The file says
//! below which offset holes may be; compaction raises that mark before a segment with holes takes its place, and a copy
//! raises it in the sync that makes the batches behind a hole durable, after their bytes and before anything counts on
//! them. So there are two cases. The sync completed: then the mark covers every hole below the durable end, and a gap
//! above the mark is damage. It did not: then nothing counts on those batches yet, a gap above the mark ends the walk
//! as any torn write does, and the follower fetches them again. What is given up is what compaction gives up too: below
//! the mark a lost run of whole batches looks like a hole. Rot, a torn batch and a missing end are seen there as
//! anywhere.
//!
//! # Cuts
//!
//! A cut and the batches that follow it must not meet on the disk in part: of two generations of batches of one size,
//! a power cut could keep some of either, whole and in line, and no check would see it. So nothing is written behind a
//! cut before a sync has covered it.
//!
//! Which of these is due when is not decided here: `ottla-replica`. Next: `recover.rs`.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use ottla_records::{BatchError, BatchHeader, crc_matches, split};
use ottla_types::{LeaderEpoch, Offset, Timestamp};

use crate::{
    cleaned::CleanMark,
    disk::{is_out_of_files, is_out_of_room},
    error::{AppendError, ReadError, TruncateError},
    log::{Active, Appended, Log, LogPosition, Placing, StoredBatch},
    producers::Producers,
    recover::into_io,
    segment::{Segment, SegmentEnd},
    sync::{Checkpoint, PRODUCERS, RecoveryMark},
};

impl Log {
    /// Appends what a leader's log has next, all or none: the follower's way. `records` are whole batches as a Fetch
    /// brought them, perhaps with the beginning of one more, which is left to the next Fetch.
    ///
    /// They are stored byte for byte, with their offsets and epochs, holes between them included, and producers take
    /// them in unasked (P3). Refused are batches that are not whole, whose checksum is wrong, that begin before the log
    /// ends, or whose epoch is below the latest (L1).
    pub fn append_as_follower(&mut self, records: &Bytes, now: Timestamp) -> Result<Appended, AppendError> {
        let mut batches = Vec::new();
        let mut end = self.end().offset;
        let mut latest = self.latest_epoch.unwrap_or(LeaderEpoch::NONE);
        for batch in split(records) {
            let (header, bytes) = match batch {
                Err(BatchError::Truncated { .. }) if !batches.is_empty() => break,
                batch => batch.map_err(|error| AppendError::Foreign(error.to_string().into()))?,
            };
            if let Some(fault) = fault_of_copy(&header, &bytes, end, latest) {
                return Err(AppendError::Foreign(fault.into()));
            }
            (end, latest) = (header.next_offset(), header.leader_epoch);
            batches.push(StoredBatch { header, bytes, epoch: latest });
        }
        self.append_placed(&batches, Placing::Kept, now)
    }

    /// The place of an offset: where the first batch at or after it begins, at most the end. An offset inside a batch
    /// becomes the beginning of that batch. Looks at memory for the newest batches, and at the index for older ones.
    pub fn position_of(&self, offset: Offset) -> Result<LogPosition, ReadError> {
        let end = self.end();
        if offset >= end.offset {
            return Ok(end);
        }
        if offset == self.durable.offset && offset >= self.start() {
            return Ok(self.durable);
        }
        let segments = self.shared.segments.load();
        let after = segments.partition_point(|segment| segment.base <= offset);
        let Some(segment) = after.checked_sub(1).map(|at| &segments[at]) else {
            let first = segments.first().map_or(end.segment, |first| first.base);
            return Ok(LogPosition { offset, segment: first, position: 0 });
        };
        let place = |offset, position| LogPosition { offset, segment: segment.base, position };
        let limit = segment.end().position;
        if offset == segment.base {
            return Ok(place(offset, 0));
        }
        if let Some((position, _)) = segment.recent_batch(offset, limit) {
            return Ok(place(offset, position));
        }
        let found = segment.locate(&self.shared.files, offset, limit);
        Ok(match found.map_err(|error| ReadError::from_scan(segment.base, error))? {
            Some((position, header)) => place(offset.min(header.base_offset), position),
            None => place(offset, limit),
        })
    }

    /// Cuts the log so that it ends at `to` or, where a batch spans it, before that batch (E8). Producers and epochs
    /// are rebuilt to the new end; below the start, the log starts there too. Never below the high watermark (E9): that
    /// is the caller's rule, which [`Log::set_committed`] tells the log. Above it no stored checkpoint has to be
    /// replaced.
    ///
    /// While a sync or compaction is under way it is refused and nothing has changed: the caller completes the sync, or
    /// waits, and tries again. A sync should follow at once. The first append that comes before it waits for the disk.
    pub fn truncate(&mut self, to: Offset) -> Result<(), TruncateError> {
        self.check_changeable()?;
        // Cleans the history even where nothing is cut (E4).
        self.change_epochs(|epochs| epochs.truncate(to));
        if to >= self.end().offset {
            return Ok(());
        }
        match self.cut(to) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fail(format!("truncating failed: {error}")).into()),
        }
    }

    /// Drops everything and begins anew at `to`: the leader's log starts at the end of this one or behind it, or in the
    /// middle of a batch. `to` lies below the end only if the log is empty.
    ///
    /// A power cut before the next sync completes leaves the old log or the new one. The new segment has a name of its
    /// own; the old ones keep theirs until it is durable, and so is the file that says where the log starts. A start
    /// that finds the segment alone meets a gap, which ends the old log where it did; one that finds that file alone
    /// begins anew where it says. Where the name may be taken already, at the end and below, the disk is waited for.
    ///
    /// Refused like [`Log::truncate`] while a sync or compaction is under way.
    pub fn reset_to(&mut self, to: Offset) -> Result<(), TruncateError> {
        self.check_changeable()?;
        let (old, end) = (self.shared.segments.load_full(), self.end());
        if to < Offset::ZERO || (to < end.offset && !self.is_empty()) {
            return Err(AppendError::Impossible("a log begins anew at its end or behind it").into());
        }
        if to == end.offset && self.is_empty() {
            return Ok(());
        }
        // Or what was cut could come back, and lie above the new start.
        self.settle_cut()?;
        if to <= end.offset {
            self.settle_start(end.offset)?;
            // Names of what was before may be wanted again, so they go at once, and nothing is known to be durable.
            let dead = std::mem::take(&mut self.retired.dead);
            dead.iter().chain(old.iter()).for_each(|segment| self.retire(segment.base));
            self.durable = LogPosition::default();
        }
        let segment = Arc::new(Segment::empty(to));
        match segment.create_log_file(&self.shared.files) {
            Ok(_) => {}
            Err(error) if to > end.offset && is_out_of_room(&error) => {
                return Err(AppendError::NoSpace { bytes: 0 }.into());
            }
            Err(error) if to > end.offset && is_out_of_files(&error) => return Err(AppendError::NoFiles.into()),
            Err(error) => return Err(self.fail(format!("creating a segment failed: {error}")).into()),
        }
        self.cuts += 1;
        for segment in old.iter() {
            segment.set_sealed(true);
        }
        if to > end.offset {
            self.retired.dead.extend(old.iter().cloned());
        }
        let reserves = self.active.reserves;
        self.active = Active { reserves, ..Active::empty(Arc::clone(&segment), true) };
        self.shared.segments.store(Arc::new(vec![segment]));
        self.shared.start.store(to.0, Ordering::Release);
        self.change_epochs(|epochs| epochs.truncate(Offset::ZERO));
        self.producers = Producers::default();
        if let Err(error) = self.drop_snapshots_after(Offset(-1)) {
            return Err(self.fail(format!("removing a producer snapshot failed: {error}")).into());
        }
        (self.recovery, self.stable, self.opened) = (RecoveryMark::START, RecoveryMark::START, RecoveryMark::START);
        (self.cutting, self.named) = (false, false);
        self.unsynced.begin_anew();
        Ok(())
    }

    /// Waits until the disk knows that the log starts at `start`: what was before is about to go, and nothing else
    /// would tell.
    fn settle_start(&mut self, start: Offset) -> Result<(), AppendError> {
        let before = self.shared.start.swap(start.0, Ordering::AcqRel);
        let settled = self.sync_start(start);
        if settled.is_err() {
            self.shared.start.store(before, Ordering::Release);
        }
        settled
    }

    fn sync_start(&mut self, start: Offset) -> Result<(), AppendError> {
        self.unsynced.epochs |= self.retired.durable_start < start;
        if let Some(plan) = self.begin_sync() {
            let result = plan.run();
            self.complete_sync(plan, result).map_err(|error| AppendError::Failed(error.to_string().into()))?;
        }
        if self.retired.durable_start < start { Err(AppendError::NoSpace { bytes: 0 }) } else { Ok(()) }
    }

    fn check_changeable(&self) -> Result<(), TruncateError> {
        self.check_in_service()?;
        if self.syncing || self.replacing { Err(TruncateError::Busy) } else { Ok(()) }
    }

    /// Waits for the disk if the log was cut and no sync has covered that yet.
    pub(crate) fn settle_cut(&mut self) -> Result<(), AppendError> {
        if !self.cutting {
            return Ok(());
        }
        let files = &self.shared.files;
        let file = match self.active.segment.log_file(files) {
            Err(error) if is_out_of_files(&error) => return Err(AppendError::NoFiles),
            file => file,
        };
        match file.and_then(|file| file.sync_data()).and_then(|()| files.disk.sync_dir(&files.dir)) {
            Ok(()) => {
                self.cutting = false;
                Ok(())
            }
            Err(error) => Err(self.fail(format!("a cut could not be synced: {error}"))),
        }
    }

    /// Ends the log at `to` with new files as of now; the caller checked that it may.
    fn cut(&mut self, to: Offset) -> io::Result<()> {
        self.cuts += 1;
        self.uncleaned_from(to)?;
        self.settle_index();
        if self.active.written_entries == Some(0) {
            // A file of that name may be left from what a power cut took.
            self.active.segment.replace_index(&self.shared.files, &[])?;
        }
        let segments = self.shared.segments.load_full();
        let after = segments.partition_point(|segment| segment.base <= to);
        let Some(at) = after.checked_sub(1) else { return self.cut_all(&segments, to) };
        let segment = &segments[at];
        let end = segment.end();
        let found = segment.locate(&self.shared.files, to, end.position).map_err(into_io)?;
        let (offset, position) =
            found.map_or((to, end.position), |(position, header)| (header.base_offset.min(to), position));
        let end = LogPosition { offset, segment: segment.base, position };
        for later in &segments[at + 1..] {
            self.retire(later.base);
        }
        let largest = segment.largest_timestamp_below(&self.shared.files, position).map_err(into_io)?;
        // A new one in place of the old: readers that hold the old keep their own idea of its end.
        let end_of = SegmentEnd { offset, position };
        let shorter = Arc::new(Segment::new(segment.base, end_of, Some(largest), false));
        let checkpoint = Checkpoint { recovery_point: end, largest_timestamp: largest, ..Checkpoint::default() };
        self.begin_walk(&shorter, end, &checkpoint)?;
        self.active.segment.log_file(&self.shared.files)?.truncate(position)?;
        let kept = segments[..at].iter().cloned().chain([shorter]).collect();
        self.finish_cut(kept, end)
    }

    /// What compaction has done above `to` is not to be taken for done to what comes there next.
    fn uncleaned_from(&mut self, to: Offset) -> io::Result<()> {
        self.unsynced.holes_below = self.unsynced.holes_below.min(to);
        self.shared.change_cleaned(|mark| match mark.cut(to) {
            cut if cut != mark => CleanMark { replacing: None, ..cut },
            _ => mark,
        })
    }

    /// Nothing is left: the log begins anew at `to`, below all there is. The newest go first, each before the next: a
    /// power cut must not leave the end of a log without what is before it, which would look as if it started there.
    fn cut_all(&mut self, segments: &[Arc<Segment>], to: Offset) -> io::Result<()> {
        let (first, later) = segments.split_first().ok_or(io::ErrorKind::NotFound)?;
        for segment in later.iter().rev() {
            self.retire(segment.base);
            self.shared.files.disk.sync_dir(&self.shared.files.dir)?;
        }
        let segment = Arc::new(Segment::empty(to));
        segment.create_log_file(&self.shared.files)?;
        self.retire(first.base);
        self.active = Active::empty(Arc::clone(&segment), true);
        self.named = false;
        self.finish_cut(vec![segment], LogPosition { offset: to, segment: to, position: 0 })
    }

    fn finish_cut(&mut self, kept: Vec<Arc<Segment>>, end: LogPosition) -> io::Result<()> {
        self.unsynced.sealed.retain(|segment| kept.iter().any(|kept| Arc::ptr_eq(kept, segment)));
        self.shared.segments.store(Arc::new(kept));
        self.drop_snapshots_after(end.offset)?;
        self.replay_producers(end.offset)?;
        self.durable = self.durable.min(end);
        // What was known at a point that is gone is true of no other.
        for mark in [&mut self.recovery, &mut self.stable] {
            if mark.point.offset > end.offset {
                *mark = RecoveryMark::START;
            }
        }
        if self.start() > end.offset {
            self.shared.start.store(end.offset.0, Ordering::Release);
            self.unsynced.epochs = true;
        }
        self.cutting = true;
        self.unsynced.cut = true;
        self.unsynced.names = true;
        self.unsynced.checkpoint = true;
        Ok(())
    }

    /// Removes the producer snapshots above `end`.
    pub(crate) fn drop_snapshots_after(&mut self, end: Offset) -> io::Result<()> {
        let files = &self.shared.files;
        for offset in self.retired.snapshots.iter().filter(|offset| **offset > end) {
            files.disk.remove(&files.path(*offset, PRODUCERS))?;
        }
        self.retired.snapshots.retain(|offset| *offset <= end);
        Ok(())
    }
}

/// Why a batch cannot follow in a copy that ends at `end` and whose latest epoch is `latest`.
fn fault_of_copy(header: &BatchHeader, batch: &[u8], end: Offset, latest: LeaderEpoch) -> Option<String> {
    let (base, epoch) = (header.base_offset, header.leader_epoch);
    if base < end {
        return Some(format!("a batch begins at {base}, and the log ends at {end}"));
    }
    if epoch < latest {
        return Some(format!("the batch at {base} is of epoch {epoch}, the log's latest is {latest}"));
    }
    (!crc_matches(batch)).then(|| format!("the checksum of the batch at offset {base} is wrong"))
}
