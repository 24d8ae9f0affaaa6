//! Compaction: the last record of each key stays, tombstones go after a while, nothing else changes.
//!
//! A pass reads the dirty part once to learn the latest offset of each key, then writes every segment below anew
//! without the records that a later one supersedes, small neighbours together. It works on closed segments below a
//! bound that its owner names, holds no lock while it reads and writes, and asks its owner for leave all along. Kept
//! empty are the batches by which producers and epochs are known, and the last one, so that a reader comes to the end.
//!
//! `swap.rs` puts the new files in place; `key_map.rs` is the memory; what a batch becomes is `ottla_records`. Which
//! log is cleaned, and when, is the node's business. docs/decisions/compaction.md has the reasons.

use std::{
    collections::HashSet,
    io::{self, IoSlice},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use ottla_records::{BatchError, BatchHeader, Decompress, KeyedRecord, OpenBatch, Retained, crc_matches};
use ottla_types::{Offset, Timestamp};

use crate::{
    cleaned::CleanMark,
    config::LogConfig,
    disk::{Disk, DiskFile},
    error::{CleanError, Damage, ReadError, SyncError},
    index::{self, ENTRY_BYTES, IndexEntry},
    key_map::KeyMap,
    log::{Log, SEGMENT_BYTES_MAX, Shared},
    reader::LogReader,
    recover::Contents,
    scan::{ScanError, WholeBatches},
    segment::{CLEANED, INDEX, LOG, Segment, SegmentEnd},
    swap::{Replacement, discard},
};

/// The most bytes the records of a batch may have to be looked into. A batch that becomes more stays as it is.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;
/// Bytes gathered before they are written, and read before leave is asked for more.
const WRITE_BYTES: usize = 256 << 10;
/// Bytes written before they are synced: a sync of much more at once would be felt by everybody who waits for one.
const SYNC_BYTES: u64 = 4 << 20;
/// The most segments that become one, each of which has its files open meanwhile.
const MERGED_MAX: usize = 64;

/// How a pass is to be done.
#[derive(Clone, Copy, Debug)]
pub struct CleanSettings {
    /// The wall clock.
    pub now: Timestamp,
    /// `min.compaction.lag.ms`: a segment with a younger record stays as it is.
    pub min_lag_ms: i64,
    /// `delete.retention.ms`: how long tombstones stay after a pass has seen them.
    pub delete_retention_ms: i64,
    /// The most bytes the keys of the dirty part may take. If they do not fit, the pass ends early.
    pub map_bytes: u64,
}

/// How much there is to clean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dirtiness {
    /// Bytes of the segments that are clean.
    pub clean_bytes: u64,
    /// Bytes of the segments above that may be cleaned now.
    pub dirty_bytes: u64,
    /// From when on tombstones in the clean part may go.
    pub tombstones_due: Option<Timestamp>,
    /// When the first segment that is too young today will be old enough.
    pub ripe_at: Option<Timestamp>,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Bytes of the segments it went through.
    pub before: u64,
    /// Bytes they have now.
    pub after: u64,
    /// The log is clean below.
    pub clean_to: Offset,
}

/// A pass over one log, planned under its lock and run outside.
#[derive(Debug)]
pub struct CleanPlan {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cuts: u64,
    config: LogConfig,
    below: Offset,
    /// Base offsets of the batches that stay, if without records: those the producers are known by, and each epoch's
    /// first.
    needed: HashSet<Offset>,
}

/// Runs work on the log under its lock; false if the log is gone.
pub type Locked<'a> = &'a dyn Fn(&mut dyn FnMut(&mut Log)) -> bool;

/// Asked with a number of bytes that were read or written: whether to go on. May wait.
pub type Leave<'a> = &'a mut dyn FnMut(u64) -> bool;

impl Dirtiness {
    /// The dirty share of what may be cleaned.
    pub fn ratio(&self) -> f64 {
        let all = self.clean_bytes + self.dirty_bytes;
        if all == 0 { 0.0 } else { self.dirty_bytes as f64 / all as f64 }
    }
}

impl LogReader {
    /// How dirty the log is below `below`. Reads files only for what it does not remember.
    pub fn dirtiness(&self, below: Offset, now: Timestamp, min_lag_ms: i64) -> Result<Dirtiness, ReadError> {
        let clean_to = self.shared.cleaned.lock().clean_to.max(self.start_offset());
        let (segments, ripe_at) = self.shared.cleanable(below, clean_to, now, min_lag_ms)?;
        let bytes = |dirty: bool| {
            let side = segments.iter().filter(|segment| (segment.end().offset > clean_to) == dirty);
            side.map(|segment| segment.end().position).sum()
        };
        Ok(Dirtiness {
            clean_bytes: bytes(false),
            dirty_bytes: bytes(true),
            tombstones_due: self.shared.cleaned.lock().horizon,
            ripe_at,
        })
    }

    /// The log is compacted below.
    pub fn cleaned_to(&self) -> Offset {
        self.shared.cleaned.lock().clean_to
    }

    /// The largest timestamp of the first batch that is not compacted, and whether its segment is closed.
    pub fn dirty_since(&self) -> Result<Option<(Timestamp, bool)>, ReadError> {
        let from = self.cleaned_to().max(self.start_offset());
        for segment in self.shared.segments.load().iter().filter(|segment| segment.end().offset > from) {
            let found = segment.locate(&self.shared.files, from, segment.end().position);
            if let Some((_, header)) = found.map_err(|error| ReadError::from_scan(segment.base, error))? {
                return Ok(Some((header.max_timestamp, segment.is_sealed())));
            }
        }
        Ok(None)
    }
}

/// What [`LogReader::dirtiness`] would say of a log that nobody has open, as far as the names in its directory tell:
/// the recovery point and ages are not looked at.
pub fn peek_dirtiness(disk: &dyn Disk, dir: &Path) -> io::Result<Dirtiness> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Dirtiness::default()),
        names => names?,
    };
    let mark = CleanMark::peek(disk, dir, &names)?;
    let bases = Contents::read(names).segments;
    let mut seen = Dirtiness { tombstones_due: mark.horizon, ..Dirtiness::default() };
    for pair in bases.windows(2) {
        let [base, next] = *pair else { continue };
        let bytes = disk.file_len(&dir.join(format!("{:020}{LOG}", base.0)))?;
        *(if next <= mark.clean_to { &mut seen.clean_bytes } else { &mut seen.dirty_bytes }) += bytes;
    }
    Ok(seen)
}

impl Shared {
    /// The closed segments that end at or below `below`, up to the first that is both dirty and too young, and when
    /// that one will be old enough.
    fn cleanable(
        &self,
        below: Offset,
        clean_to: Offset,
        now: Timestamp,
        min_lag_ms: i64,
    ) -> Result<(Vec<Arc<Segment>>, Option<Timestamp>), ReadError> {
        let mut cleanable = Vec::new();
        for segment in self.segments.load().iter().take_while(|segment| segment.end().offset <= below) {
            if !segment.is_sealed() {
                break;
            }
            if min_lag_ms > 0 && segment.end().offset > clean_to {
                let largest = segment.largest_timestamp(&self.files);
                let largest = largest.map_err(|error| ReadError::from_scan(segment.base, error))?;
                let ripe_at = Timestamp(largest.0.saturating_add(min_lag_ms));
                if ripe_at > now {
                    return Ok((cleanable, Some(ripe_at)));
                }
            }
            cleanable.push(Arc::clone(segment));
        }
        Ok((cleanable, None))
    }
}

impl Log {
    /// Plans a pass over the closed segments that end at or below `below`, which must not be above the high watermark,
    /// nor above the segment of the recovery point that is stored. `None` if the log is out of service.
    pub fn plan_clean(&self, below: Offset) -> Option<CleanPlan> {
        if self.failed.is_some() || self.replacing {
            return None;
        }
        let epochs = self.shared.epochs.load();
        let starts = epochs.entries().iter().map(|entry| entry.start);
        let needed = self.producers.batch_offsets().chain(starts).filter(|offset| *offset < below).collect();
        Some(CleanPlan { shared: Arc::clone(&self.shared), cuts: self.cuts, config: self.config, below, needed })
    }
}

impl CleanPlan {
    /// Does it. Whatever ends it early leaves the log as it was, or cleaned up to some segment.
    pub fn run(&self, settings: &CleanSettings, leave: Leave<'_>, locked: Locked<'_>) -> Result<Cleaned, CleanError> {
        let start = LogReader { shared: Arc::clone(&self.shared) }.start_offset();
        let clean_to = self.shared.cleaned.lock().clean_to.max(start);
        let (segments, _) = self.shared.cleanable(self.below, clean_to, settings.now, settings.min_lag_ms)?;
        let Some(last) = segments.last() else { return Ok(Cleaned { clean_to, ..Cleaned::default() }) };
        let end = last.end().offset.max(clean_to);
        let keys = u64::try_from(end.0 - clean_to.0).unwrap_or(0);
        let map = KeyMap::new(keys, settings.map_bytes);
        let mut pass =
            Pass { plan: self, settings, map, end, horizon: None, moved: 0, leave, done: Cleaned::default() };
        pass.read_keys(&segments, clean_to)?;
        let segments: Vec<_> = segments.into_iter().filter(|segment| segment.base < pass.end).collect();
        let mut rest = segments.as_slice();
        while !rest.is_empty() {
            let (output, merged) = pass.write_group(rest)?;
            let (group, next) = rest.split_at(merged);
            rest = next;
            pass.done.before += group.iter().map(|segment| segment.end().position).sum::<u64>();
            pass.done.after += output.len();
            if output.is_worth_it(group) {
                self.replace(&output.finish(group)?, locked)?;
            }
        }
        let (done, horizon) = (Cleaned { clean_to: pass.end, ..pass.done }, pass.horizon);
        drop(pass);
        self.store_mark(done.clean_to, horizon, locked)?;
        Ok(done)
    }
}

/// A pass under way.
struct Pass<'a> {
    plan: &'a CleanPlan,
    settings: &'a CleanSettings,
    map: KeyMap,
    /// The map knows all keys from the clean part up to here; further up nothing changes.
    end: Offset,
    /// The earliest time at which a tombstone that stays may go.
    horizon: Option<Timestamp>,
    moved: u64,
    leave: Leave<'a>,
    done: Cleaned,
}

impl Pass<'_> {
    /// Fills the map from the dirty part, as far as it fits.
    fn read_keys(&mut self, segments: &[Arc<Segment>], from: Offset) -> Result<(), CleanError> {
        for segment in segments.iter().filter(|segment| segment.end().offset > from) {
            let mut batches = self.batches(segment)?;
            while let Some((header, batch)) = self.next(segment, &mut batches)? {
                let Some(open) = open(&header, &batch, segment)? else { continue };
                let (map, mut full) = (&mut self.map, None);
                let visited = open.visit(|record| match record.key {
                    Some(key) if record.offset >= from && !map.put(key, record.offset) => {
                        full = Some(record.offset);
                        false
                    }
                    _ => true,
                });
                visited.map_err(|error| damaged(segment, &header, &error.to_string()))?;
                if let Some(end) = full {
                    self.end = end;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Writes the first of `segments`, and as many of the next as fit with it, without what is superseded. Returns how
    /// many went in.
    fn write_group(&mut self, segments: &[Arc<Segment>]) -> Result<(Output, usize), CleanError> {
        let base = segments.first().map_or(Offset::ZERO, |segment| segment.base);
        let mut output = Output::create(&self.plan.shared, base, &self.plan.config)?;
        let mut merged = 0;
        for segment in segments {
            if merged > 0 && (merged == MERGED_MAX || !output.has_room_for(segment)) {
                break;
            }
            self.write_segment(segment, &mut output)?;
            merged += 1;
        }
        // A reader that is behind the last record finds the end, and a segment has a batch that says when it was.
        if let Some(header) = output.dropped.take()
            && (merged == segments.len() || output.len() == 0)
        {
            output.push(&header.emptied().map_err(codec)?)?;
        }
        Ok((output, merged))
    }

    fn write_segment(&mut self, segment: &Segment, output: &mut Output) -> Result<(), CleanError> {
        let end = segment.end().position;
        let mut batches = self.batches(segment)?;
        while let Some((header, batch)) = self.next(segment, &mut batches)? {
            let mut left = self.clean(segment, &header, &batch)?;
            if let Retained::Rewritten(new) = &left
                && new.len() > batch.len()
                && output.len() + new.len() as u64 + (end - batches.position()) > SEGMENT_BYTES_MAX
            {
                // Times counted anew take more bytes. With no room for them the tombstones wait for another pass.
                left = Retained::Unchanged;
            }
            let written = match left {
                Retained::Unchanged => batch,
                Retained::Nothing if !self.plan.needed.contains(&header.base_offset) => {
                    output.leave_out(header);
                    continue;
                }
                Retained::Nothing if header.record_count == 0 => batch,
                Retained::Nothing => output.changed(header.emptied().map_err(codec)?),
                Retained::Rewritten(new) => output.changed(new),
            };
            self.moved += written.len() as u64;
            let header = output.push(&written)?;
            // One that is past is of tombstones that went.
            if let Some(horizon) = header.delete_horizon().filter(|horizon| *horizon > self.settings.now) {
                self.horizon = Some(self.horizon.map_or(horizon, |earliest| earliest.min(horizon)));
            }
        }
        Ok(())
    }

    /// What stays of a batch.
    fn clean(&self, segment: &Segment, header: &BatchHeader, batch: &Bytes) -> Result<Retained, CleanError> {
        if header.record_count == 0 && !header.is_control() {
            return Ok(Retained::Nothing);
        }
        let Some(open) = open(header, batch, segment)? else { return Ok(Retained::Unchanged) };
        let now = self.settings.now;
        let due = header.delete_horizon().is_some_and(|horizon| horizon <= now);
        let known = header.last_offset() < self.end;
        let horizon = known.then(|| Timestamp(now.0.saturating_add(self.settings.delete_retention_ms)));
        let keep = |record: KeyedRecord<'_>| {
            record.offset >= self.end
                || record.key.is_some_and(|key| self.map.latest(key).is_none_or(|latest| latest <= record.offset))
                    && !(due && record.is_tombstone)
        };
        open.retain(horizon, keep).map_err(|error| damaged(segment, header, &error.to_string()))
    }

    fn batches(&self, segment: &Segment) -> Result<Checked, CleanError> {
        let file = segment.log_file(&self.plan.shared.files).map_err(|error| match error.kind() {
            // It was trimmed away.
            io::ErrorKind::NotFound => CleanError::Stopped,
            _ => error.into(),
        })?;
        let end = segment.end();
        Ok(Checked { batches: WholeBatches::new(file, 0, end.position), expected: segment.base, end: end.offset })
    }

    /// The next batch of a segment, checked, with the owner's leave.
    fn next(&mut self, segment: &Segment, batches: &mut Checked) -> Result<Option<(BatchHeader, Bytes)>, CleanError> {
        if self.moved >= WRITE_BYTES as u64 && !(self.leave)(std::mem::take(&mut self.moved)) {
            return Err(CleanError::Stopped);
        }
        let next = batches.next(segment)?;
        self.moved += next.as_ref().map_or(0, |(header, _)| header.size() as u64);
        Ok(next)
    }
}

/// The batches of a segment, each held against its checksum and its place: rot is not to be made to look whole.
struct Checked {
    batches: WholeBatches,
    expected: Offset,
    end: Offset,
}

impl Checked {
    fn next(&mut self, segment: &Segment) -> Result<Option<(BatchHeader, Bytes)>, CleanError> {
        let (header, batch) = match self.batches.next() {
            Ok(Some(next)) => next,
            Ok(None) => return Ok(None),
            Err(ScanError::Io(error)) => return Err(error.into()),
            Err(ScanError::Invalid { position, error }) => {
                let reason = error.to_string();
                return Err(CleanError::Damaged(Damage {
                    from: self.expected,
                    segment: segment.base,
                    position,
                    reason,
                }));
            }
        };
        if !crc_matches(&batch) {
            return Err(damaged(segment, &header, "the checksum of the batch is wrong"));
        }
        if header.base_offset < self.expected || header.next_offset() > self.end {
            return Err(damaged(segment, &header, "the batch is not where its offset belongs"));
        }
        self.expected = header.next_offset();
        Ok(Some((header, batch)))
    }

    fn position(&self) -> u64 {
        self.batches.position()
    }
}

/// The batch, if its records may be looked at: not those of transactions and their markers, whose fate is not known
/// here, and not what would fill the memory.
fn open(header: &BatchHeader, batch: &Bytes, segment: &Segment) -> Result<Option<OpenBatch>, CleanError> {
    if header.is_control() || header.is_transactional() {
        return Ok(None);
    }
    match OpenBatch::open(header, batch, Decompress { max_bytes: DECOMPRESSED_BYTES_MAX }) {
        Ok(open) => Ok(Some(open)),
        Err(BatchError::DecompressedTooLarge { .. }) => Ok(None),
        Err(error) => Err(damaged(segment, header, &error.to_string())),
    }
}

fn damaged(segment: &Segment, header: &BatchHeader, reason: &str) -> CleanError {
    let from = header.base_offset;
    CleanError::Damaged(Damage { from, segment: segment.base, position: 0, reason: reason.to_owned() })
}

fn codec(error: BatchError) -> CleanError {
    CleanError::Io(io::Error::other(error))
}

/// A segment that is being written, beside those it will replace.
struct Output {
    shared: Arc<Shared>,
    base: Offset,
    file: Arc<dyn DiskFile>,
    /// Bytes in the file; those in `buffer` come next.
    position: u64,
    buffer: Vec<u8>,
    unsynced: u64,
    entries: Vec<IndexEntry>,
    since_entry: u64,
    largest: Timestamp,
    changed: bool,
    /// The last batch, if it was left out.
    dropped: Option<BatchHeader>,
    config: LogConfig,
    finished: bool,
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.finished {
            discard(&self.shared.files, self.base);
        }
    }
}

impl Output {
    fn create(shared: &Arc<Shared>, base: Offset, config: &LogConfig) -> io::Result<Output> {
        let files = &shared.files;
        Ok(Output {
            shared: Arc::clone(shared),
            base,
            file: files.disk.create(&files.path(base, &format!("{LOG}{CLEANED}")))?,
            position: 0,
            buffer: Vec::with_capacity(WRITE_BYTES),
            unsynced: 0,
            entries: Vec::new(),
            since_entry: 0,
            largest: Timestamp::NONE,
            changed: false,
            dropped: None,
            config: *config,
            finished: false,
        })
    }

    fn len(&self) -> u64 {
        self.position + self.buffer.len() as u64
    }

    /// Whether all of `segment` may follow, were nothing of it to go.
    fn has_room_for(&self, segment: &Segment) -> bool {
        let (end, config) = (segment.end(), &self.config);
        let entries = end.position / u64::from(config.index_interval_bytes.max(1)) + self.entries.len() as u64 + 1;
        self.len() + end.position <= config.segment_bytes.min(config.roll_bytes).min(SEGMENT_BYTES_MAX)
            && entries * ENTRY_BYTES as u64 <= u64::from(config.segment_index_bytes)
            && end.offset.0 - self.base.0 <= i64::from(i32::MAX)
    }

    fn changed(&mut self, batch: Bytes) -> Bytes {
        self.changed = true;
        batch
    }

    fn leave_out(&mut self, header: BatchHeader) {
        self.changed = true;
        self.dropped = Some(header);
    }

    fn push(&mut self, batch: &[u8]) -> Result<BatchHeader, CleanError> {
        let header = BatchHeader::parse(batch).map_err(codec)?;
        let position = self.len();
        if self.since_entry >= u64::from(self.config.index_interval_bytes) && position > 0 {
            self.push_entry(header.base_offset, position);
            self.since_entry = 0;
        }
        self.since_entry += batch.len() as u64;
        self.largest = self.largest.max(header.largest_timestamp());
        self.dropped = None;
        self.buffer.extend_from_slice(batch);
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(header)
    }

    fn push_entry(&mut self, offset: Offset, position: u64) {
        if let (Ok(delta), Ok(position)) = (u32::try_from(offset.0 - self.base.0), u32::try_from(position)) {
            self.entries.push(IndexEntry { delta, position, largest_before: self.largest });
        }
    }

    fn flush(&mut self) -> Result<(), CleanError> {
        self.file.write_vectored_at(&[IoSlice::new(&self.buffer)], self.position)?;
        self.position += self.buffer.len() as u64;
        self.unsynced += self.buffer.len() as u64;
        self.buffer.clear();
        if self.unsynced >= SYNC_BYTES { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), CleanError> {
        self.unsynced = 0;
        self.file.sync_data().map_err(|error| SyncError::new("a cleaned segment", &error).into())
    }

    /// Whether it differs from what it would replace.
    fn is_worth_it(&self, group: &[Arc<Segment>]) -> bool {
        self.changed || group.len() > 1
    }

    /// Makes it durable under its own name, with an index, ready to take the place of `group`.
    fn finish(mut self, group: &[Arc<Segment>]) -> Result<Replacement, CleanError> {
        self.flush()?;
        self.sync()?;
        let end = SegmentEnd { offset: group.last().map_or(self.base, |last| last.end().offset), position: self.len() };
        // The last entry says where the segment ends, as `Log::activate` has it.
        self.push_entry(end.offset, end.position);
        let files = &self.shared.files;
        let index = files.disk.create(&files.path(self.base, &format!("{INDEX}{CLEANED}")))?;
        let mut bytes = index::header(self.base).to_vec();
        bytes.extend(self.entries.iter().flat_map(|entry| entry.encode(self.base)));
        index.write_vectored_at(&[IoSlice::new(&bytes)], 0)?;
        index.sync_data().map_err(|error| SyncError::new("a cleaned index", &error))?;
        let generation = group.iter().map(|segment| segment.generation).max().unwrap_or(0).wrapping_add(1);
        let index = (index, self.entries.len() as u32);
        let file = Arc::clone(&self.file);
        let segment = Segment::rewritten(self.base, end, self.largest, generation.max(1), file, index);
        self.finished = true;
        Ok(Replacement { segment: Arc::new(segment), sources: group.to_vec() })
    }
}
