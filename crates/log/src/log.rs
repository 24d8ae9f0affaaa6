//! The writer of one partition's log: append, roll, trim.
//!
//! [`Log`] is the only one that changes the files and is owned under the partition's lock; no call here waits for a
//! sync, but in two rare places where the next write must not reach the disk before the last: behind a cut, and when a
//! log rolls that was never synced. What a follower does beside (copy, cut, begin anew) is in `follower.rs`, what makes
//! data durable in `sync.rs`, what a start finds is read by `recover.rs`, readers are in `reader.rs`. Invariant of it
//! all: `recovery point <= durable end <= end`, and readers never see past end.

use std::{
    io::{self, IoSlice},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering, fence},
    },
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use ottla_records::{BatchHeader, stored_head};
use ottla_types::{LeaderEpoch, Offset, Timestamp};
use parking_lot::{Condvar, Mutex};
use smallvec::SmallVec;

use crate::{
    cleaned::CleanMark,
    config::LogConfig,
    disk::{DiskFile, is_out_of_files, is_out_of_room, read_exact_at},
    epochs::EpochHistory,
    error::AppendError,
    index::{self, ENTRY_BYTES, IndexEntry},
    producers::Producers,
    reader::LogReader,
    retire::Retired,
    segment::{Files, LOG, Segment, SegmentEnd},
    sync::{RecoveryMark, Unsynced},
};

/// Index entries that wait in memory until they are written together.
const PENDING_ENTRIES_MAX: usize = 24;
const RESERVE_BYTES_MIN: u64 = 64 << 10;
const DOUBLED_MAX: u64 = 1 << 20;
const RESERVE_BYTES_MAX: u64 = 16 << 20;
/// The largest file Kafka can read, and what fits a [`SegmentEnd`].
pub(crate) const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// An offset with its place, so that nobody has to look it up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// The offset.
    pub offset: Offset,
    /// Base offset of the segment that holds it, or will.
    pub segment: Offset,
    /// Bytes from the start of that segment's file.
    pub position: u64,
}

/// A validated batch to be stored: the bytes are written as they are, but for the head that the log owns.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    /// The header of `bytes`.
    pub header: BatchHeader,
    /// The whole batch as it came.
    pub bytes: Bytes,
    /// The leader epoch to store it with.
    pub epoch: LeaderEpoch,
}

/// Where an append went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the first record.
    pub first: Offset,
    /// The end of the log after it.
    pub end: LogPosition,
}

/// What readers share with the writer.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) files: Files,
    /// Oldest first, never empty; the last is the active one.
    pub(crate) segments: ArcSwap<Vec<Arc<Segment>>>,
    pub(crate) start: AtomicI64,
    pub(crate) epochs: ArcSwap<EpochHistory>,
    /// As the file has it.
    pub(crate) cleaned: Mutex<CleanMark>,
    /// How many threads wait for the end to move; the writer looks before it takes the lock.
    pub(crate) waiting: AtomicUsize,
    pub(crate) moved: (Mutex<()>, Condvar),
}

impl Shared {
    pub(crate) fn end(&self) -> LogPosition {
        let segments = self.segments.load();
        // The list is never empty; without a segment there would be nothing to read.
        segments.last().map_or_else(LogPosition::default, |active| {
            let end = active.end();
            let again = if cfg!(zoo = "B16") {
                std::thread::yield_now();
                active.end()
            } else {
                end
            };
            LogPosition { offset: end.offset, segment: active.base, position: again.position }
        })
    }
}

/// One partition's log; see the module.
#[derive(Debug)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
    /// Of the epochs in `shared`, at hand for each append.
    pub(crate) latest_epoch: Option<LeaderEpoch>,
    pub(crate) config: LogConfig,
    pub(crate) active: Active,
    pub(crate) producers: Producers,
    pub(crate) durable: LogPosition,
    pub(crate) recovery: RecoveryMark,
    /// What a stored checkpoint may say: the latest recovery point at or below `committed`.
    pub(crate) stable: RecoveryMark,
    /// Where the start began to read, until it is known what is committed.
    pub(crate) opened: RecoveryMark,
    /// Nothing below is ever cut; see [`Log::set_committed`].
    pub(crate) committed: Offset,
    pub(crate) unsynced: Unsynced,
    pub(crate) syncing: bool,
    /// The log was cut, and no sync has covered that.
    pub(crate) cutting: bool,
    /// The name of the first segment is durable.
    pub(crate) named: bool,
    pub(crate) failed: Option<Arc<str>>,
    pub(crate) retired: Retired,
    /// Compaction is replacing files: whatever else would rename or cut some has to wait.
    pub(crate) replacing: bool,
    /// How often the log was cut: what compaction read before is not to be put back.
    pub(crate) cuts: u64,
}

/// What only the writer knows of the segment it writes to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    /// Whether the data file exists: that of a new log is created by the first append.
    pub(crate) created: bool,
    /// Space is reserved up to here.
    pub(crate) reserved: u64,
    pub(crate) reserves: bool,
    /// The timestamp that `segment.ms` counts from; read from the first batch when it is not known.
    pub(crate) first_timestamp: Option<Timestamp>,
    pub(crate) largest_timestamp: Timestamp,
    pub(crate) since_entry: u64,
    /// Entries that are not in the file yet.
    pub(crate) pending: Vec<IndexEntry>,
    /// Entries that are; `None` until the file has been looked at.
    pub(crate) written_entries: Option<u32>,
}

/// Batches that an append has room for without asking for memory: most have one.
const FEW: usize = 4;

/// Where the batches of an append go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placing {
    /// One behind the other: a leader gives them their offsets.
    Next,
    /// Where their headers say, at or after the end: a follower keeps the offsets, and the holes between them.
    Kept,
}

impl Placing {
    fn base(self, header: &BatchHeader, end: Offset) -> Offset {
        match self {
            Placing::Next => end,
            Placing::Kept => header.base_offset,
        }
    }
}

/// Batches of one append that go into one segment.
struct Run {
    /// The segment to open for them; `None` is the active one.
    segment: Option<Arc<Segment>>,
    batches: std::ops::Range<usize>,
    first: Offset,
    at: u64,
    end: SegmentEnd,
}

impl Active {
    pub(crate) fn new(segment: Arc<Segment>, created: bool) -> Active {
        Active {
            segment,
            created,
            reserved: 0,
            reserves: true,
            first_timestamp: None,
            largest_timestamp: Timestamp::NONE,
            since_entry: 0,
            pending: Vec::new(),
            written_entries: None,
        }
    }

    pub(crate) fn empty(segment: Arc<Segment>, created: bool) -> Active {
        segment.publish_index_entries(0);
        Active { written_entries: Some(0), ..Active::new(segment, created) }
    }

    /// Makes sure that writes up to `end` find room.
    fn reserve(&mut self, file: &dyn DiskFile, end: u64, config: &LogConfig) -> io::Result<()> {
        if end <= self.reserved || !self.reserves {
            return Ok(());
        }
        let from = self.reserved.max(self.segment.end().position);
        let whole = config.segment_bytes.min(config.roll_bytes);
        // A small file at least doubles: each call costs as much as the write of a batch.
        let step = if config.preallocate { whole } else { (end / 4).max(end.clamp(RESERVE_BYTES_MIN, DOUBLED_MAX)) };
        let step = step.min(RESERVE_BYTES_MAX.max(if config.preallocate { whole } else { 0 }));
        let generous = (from + step).min(whole.max(end)).max(end);
        let reserved = file.reserve(from, generous - from).map(|()| generous).or_else(|error| match error.kind() {
            // Near the end of the disk take what is needed, no more.
            io::ErrorKind::StorageFull if generous > end => file.reserve(from, end - from).map(|()| end),
            _ => Err(error),
        });
        match reserved {
            Ok(reserved) => self.reserved = reserved,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.reserves = false,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn first_timestamp(&mut self, files: &Files) -> io::Result<Option<Timestamp>> {
        if self.first_timestamp.is_none() && self.segment.end().position > 0 {
            let mut head = [0; ottla_records::HEADER_SIZE];
            read_exact_at(self.segment.log_file(files)?.as_ref(), &mut head, 0)?;
            self.first_timestamp = BatchHeader::parse(&head).ok().map(|header| header.max_timestamp);
        }
        Ok(self.first_timestamp)
    }
}

impl Log {
    /// Appends batches at the end, in order, all or none: the leader's way. They take consecutive offsets.
    ///
    /// One write per segment, and one segment but for a roll. State changes only once the bytes are in (L2).
    pub fn append(&mut self, batches: &[StoredBatch], now: Timestamp) -> Result<Appended, AppendError> {
        self.append_placed(batches, Placing::Next, now)
    }

    pub(crate) fn append_placed(
        &mut self,
        batches: &[StoredBatch],
        placing: Placing,
        now: Timestamp,
    ) -> Result<Appended, AppendError> {
        self.check_in_service()?;
        self.settle_cut()?;
        self.producers.observe(now);
        let first = self.end().offset;
        self.settle_index();
        let runs = self.plan(batches, placing)?;
        for done in 0..runs.len() {
            if let Err(error) = self.write_run(&runs[done], batches, placing) {
                if cfg!(zoo = "B25") {
                    let mut offset = first;
                    for batch in batches {
                        let base = placing.base(&batch.header, offset);
                        self.producers.apply(&batch.header, base);
                        offset = Offset(base.0 + i64::from(batch.header.last_offset_delta) + 1);
                    }
                }
                let bytes = batches.iter().map(|batch| batch.bytes.len() as u64).sum();
                return Err(self.undo(&runs[..=done], bytes, &error));
            }
        }
        for run in runs {
            if let Some(segment) = run.segment {
                self.activate(segment);
            }
            let (mut offset, mut position) = (run.first, run.at);
            for batch in &batches[run.batches] {
                let base = placing.base(&batch.header, offset);
                if base > offset {
                    self.unsynced.holes_below = base;
                }
                self.take_in(&batch.header, batch.epoch, base, position);
                offset = Offset(base.0 + i64::from(batch.header.last_offset_delta) + 1);
                position += batch.bytes.len() as u64;
            }
            self.unsynced.bytes += run.end.position - run.at;
            self.unsynced.since_checkpoint += run.end.position - run.at;
            self.active.segment.publish_end(run.end);
        }
        self.wake();
        Ok(Appended { first, end: self.end() })
    }

    /// Which batches go where. Changes nothing.
    fn plan(&mut self, batches: &[StoredBatch], placing: Placing) -> Result<SmallVec<[Run; 1]>, AppendError> {
        let mut end = self.active.segment.end();
        let mut runs = SmallVec::new();
        let mut run = Run { segment: None, batches: 0..0, first: end.offset, at: end.position, end };
        let mut base = self.active.segment.base;
        let mut first_timestamp = match self.active.first_timestamp(&self.shared.files) {
            Ok(timestamp) => timestamp,
            Err(error) if is_out_of_files(&error) => return Err(AppendError::NoFiles),
            Err(error) => return Err(self.fail(format!("reading the first batch of the segment: {error}"))),
        };
        let full = self.batch_bytes_max().min(self.config.roll_bytes);
        // What a leader has taken its followers take, whatever their settings are by now.
        let largest = match placing {
            Placing::Next => self.batch_bytes_max(),
            Placing::Kept => SEGMENT_BYTES_MAX,
        };
        let entries = self.active.pending.len() as u64 + u64::from(self.active.written_entries.unwrap_or(0));
        let mut index_full = (entries + 1) * ENTRY_BYTES as u64 > u64::from(self.config.segment_index_bytes);
        for (number, batch) in batches.iter().enumerate() {
            let size = batch.bytes.len() as u64;
            if size != batch.header.size() as u64 || batch.header.last_offset_delta < 0 {
                return Err(AppendError::Impossible("its header does not belong to its bytes"));
            }
            if size > largest {
                return Err(AppendError::TooLarge { size, limit: largest });
            }
            let at = placing.base(&batch.header, end.offset);
            let next = at.checked_add(i64::from(batch.header.last_offset_delta) + 1);
            let next = next.ok_or(AppendError::Impossible("its offsets would pass the largest"))?;
            let age = first_timestamp.map_or(0, |first| batch.header.max_timestamp.0.saturating_sub(first.0));
            let rolls = end.position > 0
                && (end.position + size > full
                    || age > self.config.segment_ms.saturating_sub(self.config.segment_jitter_ms)
                    || index_full
                    || next.0 - base.0 > i64::from(i32::MAX));
            if rolls {
                // The file's name is the offset of its first batch. What is missing before it is missing at the end of
                // the segment before, as where compaction took the last records of one.
                let segment = Some(Arc::new(Segment::empty(at)));
                end.position = 0;
                let next_run = Run { segment, batches: number..number, first: end.offset, at: 0, end };
                runs.push(std::mem::replace(&mut run, next_run));
                (base, first_timestamp, index_full) = (at, None, false);
            }
            if next.0 - base.0 > i64::from(u32::MAX) {
                return Err(AppendError::Impossible("it lies too far behind the beginning of its segment"));
            }
            first_timestamp.get_or_insert(batch.header.max_timestamp);
            end = SegmentEnd { offset: next, position: end.position + size };
            run.batches.end = number + 1;
            run.end = end;
        }
        runs.push(run);
        Ok(runs)
    }

    /// Writes the bytes of one run, in one call.
    fn write_run(&mut self, run: &Run, batches: &[StoredBatch], placing: Placing) -> io::Result<()> {
        if run.batches.is_empty() {
            return Ok(());
        }
        let file = match &run.segment {
            Some(segment) => {
                self.name_first()?;
                let file = segment.create_log_file(&self.shared.files)?;
                if let Err(error) = file.reserve(0, run.end.position)
                    && error.kind() != io::ErrorKind::Unsupported
                {
                    return Err(error);
                }
                file
            }
            None if self.active.created => {
                let file = self.active.segment.log_file(&self.shared.files)?;
                self.active.reserve(file.as_ref(), run.end.position, &self.config)?;
                file
            }
            None => {
                let file = self.active.segment.create_log_file(&self.shared.files)?;
                self.active.created = true;
                self.unsynced.names = true;
                self.named = false;
                self.active.reserve(file.as_ref(), run.end.position, &self.config)?;
                file
            }
        };
        let mut heads: SmallVec<[_; FEW]> = SmallVec::with_capacity(run.batches.len());
        let mut offset = run.first;
        for batch in &batches[run.batches.clone()] {
            let base = placing.base(&batch.header, offset);
            heads.push(stored_head(&batch.header, base, batch.epoch));
            offset = Offset(base.0 + i64::from(batch.header.last_offset_delta) + 1);
        }
        let mut slices: SmallVec<[_; 2 * FEW]> = SmallVec::with_capacity(heads.len() * 2);
        for (head, batch) in heads.iter().zip(&batches[run.batches.clone()]) {
            slices.push(IoSlice::new(head));
            slices.push(IoSlice::new(&batch.bytes[head.len()..]));
        }
        file.write_vectored_at(&slices, run.at)
    }

    /// A power cut that took the first segment's name and left the second's would leave a log that seems to start
    /// there; of any later one the gap tells. Waits for the disk if a log rolls before its first sync.
    fn name_first(&mut self) -> io::Result<()> {
        if !self.named {
            self.shared.files.disk.sync_dir(&self.shared.files.dir)?;
            self.named = true;
        }
        Ok(())
    }

    /// Takes back what a failed append left: files it created, bytes past the end.
    fn undo(&mut self, runs: &[Run], bytes: u64, error: &io::Error) -> AppendError {
        let files = &self.shared.files;
        let mut undone = Ok(());
        for segment in runs.iter().filter_map(|run| run.segment.as_ref()) {
            let path = files.path(segment.base, LOG);
            if files.disk.exists(&path).unwrap_or(true) {
                undone = undone.and(files.disk.remove(&path));
            }
            self.unsynced.names = true;
        }
        if self.active.created {
            let end = self.active.segment.end().position;
            undone = undone.and(self.active.segment.log_file(files).and_then(|file| file.truncate(end)));
            self.active.reserved = end;
        }
        match (error, undone) {
            (error, Ok(())) if is_out_of_room(error) => AppendError::NoSpace { bytes },
            (error, Ok(())) if is_out_of_files(error) => AppendError::NoFiles,
            (_, Ok(())) => self.fail(format!("writing failed: {error}")),
            (_, Err(undo)) => self.fail(format!("writing failed: {error}; restoring the end failed: {undo}")),
        }
    }

    /// Makes what the log knows follow from one more batch that is in the file.
    pub(crate) fn take_in(&mut self, header: &BatchHeader, epoch: LeaderEpoch, base: Offset, position: u64) {
        let active = &mut self.active;
        let delta = u32::try_from(base.0 - active.segment.base.0).unwrap_or(u32::MAX);
        let place = u32::try_from(position).unwrap_or(u32::MAX);
        active.segment.push_recent_batch(delta, place);
        if active.since_entry >= u64::from(self.config.index_interval_bytes) && position > 0 {
            let entry = IndexEntry { delta, position: place, largest_before: active.largest_timestamp };
            active.segment.push_recent_entry(&entry);
            active.pending.push(entry);
            active.since_entry = 0;
        }
        active.since_entry += header.size() as u64;
        active.largest_timestamp = active.largest_timestamp.max(header.largest_timestamp());
        active.segment.raise_timestamp(header.largest_timestamp());
        active.first_timestamp.get_or_insert(header.max_timestamp);
        if active.pending.len() >= PENDING_ENTRIES_MAX {
            self.write_index();
        }
        if header.is_idempotent() {
            self.producers.apply(header, base);
            self.unsynced.producers = true;
        }
        if self.latest_epoch.is_none_or(|latest| latest < epoch) {
            self.change_epochs(|epochs| epochs.assign(epoch, base));
        }
    }

    pub(crate) fn change_epochs(&mut self, change: impl FnOnce(&mut EpochHistory) -> bool) {
        let mut epochs = EpochHistory::clone(&self.shared.epochs.load());
        if change(&mut epochs) {
            self.set_epochs(epochs);
            self.unsynced.epochs = true;
        }
    }

    pub(crate) fn set_epochs(&mut self, epochs: EpochHistory) {
        self.latest_epoch = epochs.latest();
        self.shared.epochs.store(Arc::new(epochs));
    }

    /// Writes the waiting index entries. If that fails they are left out: the index only gets sparser.
    pub(crate) fn write_index(&mut self) {
        let entries = std::mem::take(&mut self.active.pending);
        if entries.is_empty() {
            return;
        }
        if let Some(count) = self.append_to_index(&entries) {
            self.active.written_entries = Some(count);
            self.active.segment.publish_index_entries(count);
        }
        self.active.pending = entries;
        self.active.pending.clear();
    }

    /// Before the first change after an open: entries past the end, of batches that a power cut took, would come to
    /// point into the new ones.
    pub(crate) fn settle_index(&mut self) {
        if self.active.written_entries.is_some() {
            return;
        }
        let (segment, files) = (&self.active.segment, &self.shared.files);
        let end = segment.end().position;
        let whole = || -> Option<(u32, Vec<IndexEntry>)> {
            let count = segment.count_index_entries(files).ok()?;
            let file = segment.index_file(files).ok()?;
            Some((count, index::read_whole_entries(file.as_ref(), segment.base, count).ok()?))
        };
        let (count, mut entries) = whole().unwrap_or((0, Vec::new()));
        entries.retain(|entry| u64::from(entry.position) <= end);
        let settled = count > 0 && entries.len() == count as usize;
        // Without a file to write to, the segment goes without further entries.
        if settled || segment.replace_index(files, &entries).is_ok() {
            self.unsynced.names |= !settled;
            self.active.written_entries = Some(entries.len() as u32);
            segment.publish_index_entries(entries.len() as u32);
        } else {
            segment.publish_index_entries(0);
        }
    }

    fn append_to_index(&mut self, entries: &[IndexEntry]) -> Option<u32> {
        let (segment, files) = (&self.active.segment, &self.shared.files);
        let written = match self.active.written_entries {
            Some(0) => {
                self.unsynced.names = true;
                segment.replace_index(files, &[]).ok()?;
                0
            }
            Some(count) => count,
            None => return None,
        };
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.encode(segment.base)).collect();
        let file = segment.index_file(files).ok()?;
        file.write_vectored_at(&[IoSlice::new(&bytes)], index::entry_position(written)).ok()?;
        Some(written + entries.len() as u32)
    }

    /// Closes the active segment and opens an empty one, unless it is empty already.
    pub fn roll(&mut self, _now: Timestamp) -> Result<(), AppendError> {
        self.check_in_service()?;
        let end = self.active.segment.end();
        if end.position == 0 {
            return Ok(());
        }
        self.settle_index();
        let segment = Arc::new(Segment::empty(end.offset));
        match self.name_first().and_then(|()| segment.create_log_file(&self.shared.files)) {
            Ok(_) => self.activate(segment),
            Err(error) if is_out_of_room(&error) => return Err(AppendError::NoSpace { bytes: 0 }),
            Err(error) if is_out_of_files(&error) => return Err(AppendError::NoFiles),
            Err(error) => return Err(self.fail(format!("creating a segment failed: {error}"))),
        }
        Ok(())
    }

    /// Seals the active segment; `segment`, whose file exists, is the active one from here on.
    pub(crate) fn activate(&mut self, segment: Arc<Segment>) {
        let old = Arc::clone(&self.active.segment);
        let end = old.end();
        // The last entry says where the segment ends and its largest timestamp, for whoever opens it later.
        if let (Ok(delta), Ok(position)) = (u32::try_from(end.offset.0 - old.base.0), u32::try_from(end.position)) {
            self.active.pending.push(IndexEntry { delta, position, largest_before: self.active.largest_timestamp });
        }
        self.write_index();
        self.unsynced.sealed.push(Arc::clone(&old));
        self.unsynced.names = true;
        self.unsynced.checkpoint = true;
        old.set_sealed(true);
        let reserves = self.active.reserves;
        self.active = Active { reserves, ..Active::empty(Arc::clone(&segment), true) };
        let mut segments = Vec::clone(&self.shared.segments.load());
        segments.push(segment);
        self.shared.segments.store(Arc::new(segments));
    }

    /// Lets an epoch begin at the end of the log, before anything is served in it (E1).
    pub fn assign_epoch(&mut self, epoch: LeaderEpoch) -> Result<(), AppendError> {
        self.check_in_service()?;
        let end = self.end().offset;
        self.change_epochs(|epochs| epochs.assign(epoch, end));
        Ok(())
    }

    /// Moves the start to `to`, at most the end: below it nothing is served, and whole segments go. They go from the
    /// disk once the start and what follows them are durable, so after the next sync, and `file_delete_delay_ms` more.
    pub fn advance_start(&mut self, to: Offset) -> Result<(), AppendError> {
        self.check_in_service()?;
        let to = to.min(self.end().offset);
        if to <= self.start() {
            return Ok(());
        }
        self.shared.start.store(to.0, Ordering::Release);
        self.change_epochs(|epochs| epochs.advance_start(to));
        self.unsynced.epochs = true;
        let segments = self.shared.segments.load_full();
        let keeps = |segment: &&Arc<Segment>| !segment.is_sealed() || segment.end().offset > to;
        let kept: Vec<_> = segments.iter().filter(keeps).cloned().collect();
        if kept.len() < segments.len() {
            let gone = segments.iter().filter(|segment| !keeps(segment)).cloned();
            self.retired.dead.extend(gone);
            self.shared.segments.store(Arc::new(kept));
            self.retire_dead();
        }
        Ok(())
    }

    /// The largest batch that an append takes, in bytes: what fits a segment.
    pub fn batch_bytes_max(&self) -> u64 {
        self.config.segment_bytes.min(SEGMENT_BYTES_MAX)
    }

    /// The end of the log: the offset of the next record, and its place.
    pub fn end(&self) -> LogPosition {
        let end = self.active.segment.end();
        LogPosition { offset: end.offset, segment: self.active.segment.base, position: end.position }
    }

    /// The first offset that is served.
    pub fn start(&self) -> Offset {
        Offset(self.shared.start.load(Ordering::Acquire))
    }

    /// A reader; cheap, and readers of it are cheap to clone.
    pub fn reader(&self) -> LogReader {
        LogReader { shared: Arc::clone(&self.shared) }
    }

    /// What is known of idempotent producers.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Forgets producers that were silent for longer than this (P4). To be called at least hourly.
    pub fn expire_producers(&mut self, now: Timestamp, expiration_ms: i64) {
        let expired = self.producers.expire(now, u64::try_from(expiration_ms).unwrap_or(0));
        self.unsynced.producers |= expired > 0;
    }

    /// The leader epochs of the log.
    pub fn epochs(&self) -> Arc<EpochHistory> {
        self.shared.epochs.load_full()
    }

    /// Where an epoch ends (E2); see [`EpochHistory::end_offset_for`].
    pub fn epoch_end(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.shared.epochs.load().end_offset_for(epoch, self.start()..self.end().offset)
    }

    /// Takes new settings, from the next append on.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// Closes the files of segments that nothing used since the last call, so that an idle log holds none.
    pub fn close_idle_files(&mut self) {
        // A descriptor that saw the writes must live to see their sync fail.
        if self.syncing || self.unsynced.is_dirty() {
            return;
        }
        for segment in self.shared.segments.load().iter() {
            segment.close_if_idle();
        }
    }

    pub(crate) fn check_in_service(&self) -> Result<(), AppendError> {
        match &self.failed {
            None => Ok(()),
            Some(why) => Err(AppendError::Failed(Arc::clone(why))),
        }
    }

    pub(crate) fn fail(&mut self, why: String) -> AppendError {
        let why: Arc<str> = why.into();
        self.failed.get_or_insert_with(|| Arc::clone(&why));
        AppendError::Failed(why)
    }

    /// Wakes followers that wait for the end to move.
    fn wake(&self) {
        // Pairs with the fence in `LogReader::wait_past`: either the waiter sees the new end or we see the waiter.
        fence(Ordering::SeqCst);
        if self.shared.waiting.load(Ordering::Relaxed) > 0 {
            drop(self.shared.moved.0.lock());
            self.shared.moved.1.notify_all();
        }
    }
}
