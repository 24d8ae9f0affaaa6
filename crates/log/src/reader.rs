//! The read half of a log: at an offset, by time, batch by batch, following the end, or as ranges of files.
//!
//! Never takes the writer's lock. Every read is bounded by a position that the caller took once (the high watermark,
//! L3), so that what is planned and what is reported agree. CRCs are not checked on the way to a client: the client
//! does. Next: `scrub.rs` for the slow check of what nobody reads.

use std::{
    io,
    sync::{Arc, atomic::Ordering, atomic::fence},
    time::Duration,
};

use bytes::Bytes;
use ottla_records::{BatchError, BatchHeader, Decompress, RecordIter, records};
use ottla_types::{LeaderEpoch, Offset, Timestamp};

use crate::{
    disk::{DiskFile, read_exact_at},
    error::ReadError,
    index::IndexEntry,
    log::{LogPosition, Shared},
    scan::{Headers, ScanError, WholeBatches},
    segment::Segment,
};

/// The most bytes the records of one batch may have when they are looked through for a timestamp. A batch that becomes
/// more is known by its header alone: a consumer that begins there reads earlier than it asked, and misses nothing.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// Reads a log while it is written. Cheap to clone, and every clone sees the same.
#[derive(Clone, Debug)]
pub struct LogReader {
    pub(crate) shared: Arc<Shared>,
}

/// Bytes of a file, to be sent or read.
#[derive(Clone, Debug)]
pub struct FileRegion {
    /// The file; open for as long as this lives, even if its segment is removed.
    pub file: Arc<dyn DiskFile>,
    /// Bytes from its start.
    pub position: u64,
    /// How many bytes.
    pub len: u64,
}

/// Where the bytes of a read are. Empty when there is nothing to read.
#[derive(Clone, Debug, Default)]
pub struct ReadPlan {
    /// The ranges, one behind the other.
    pub regions: Vec<FileRegion>,
    /// The base offset of the first batch: at or below the offset asked for.
    pub first_batch_offset: Offset,
}

impl FileRegion {
    /// Whether sending it is known not to wait for the disk.
    pub fn is_resident(&self) -> bool {
        self.file.is_resident(self.position..self.position + self.len)
    }

    /// Asks for it to be read into memory.
    pub fn prefetch(&self) {
        self.file.prefetch(self.position..self.position + self.len);
    }

    /// Copies it out.
    pub fn read(&self) -> io::Result<Bytes> {
        let mut bytes = vec![0; usize::try_from(self.len).map_err(|_| io::ErrorKind::FileTooLarge)?];
        read_exact_at(self.file.as_ref(), &mut bytes, self.position)?;
        Ok(bytes.into())
    }
}

impl ReadPlan {
    /// Bytes of all regions.
    pub fn len(&self) -> u64 {
        self.regions.iter().map(|region| region.len).sum()
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Copies it out.
    pub fn read(&self) -> io::Result<Bytes> {
        match self.regions.as_slice() {
            [] => Ok(Bytes::new()),
            [region] => region.read(),
            regions => {
                let parts = regions.iter().map(FileRegion::read).collect::<io::Result<Vec<_>>>()?;
                Ok(parts.concat().into())
            }
        }
    }
}

impl LogReader {
    /// The first offset that is served.
    pub fn start_offset(&self) -> Offset {
        Offset(self.shared.start.load(Ordering::Acquire))
    }

    /// The offset of the next record to be written.
    pub fn end_offset(&self) -> Offset {
        self.end().offset
    }

    /// The end of the log, with its place.
    pub fn end(&self) -> LogPosition {
        self.shared.end()
    }

    /// Where an epoch ends (E2); see [`crate::EpochHistory::end_offset_for`].
    pub fn epoch_end(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let end = self.end_offset();
        self.shared.epochs.load().end_offset_for(epoch, self.start_offset()..end)
    }

    /// The place of up to `max_bytes` from the batch that holds `from` on, below `upto` and from one segment. The
    /// range may end inside a batch, except that with `at_least_one` the first batch is whole, whatever its size;
    /// without it, a first batch larger than `max_bytes` makes the plan empty.
    pub fn read(
        &self,
        from: Offset,
        upto: LogPosition,
        max_bytes: u64,
        at_least_one: bool,
    ) -> Result<ReadPlan, ReadError> {
        let start = self.start_offset();
        if from < start || from > upto.offset {
            return Err(ReadError::OutOfRange { offset: from, start, end: upto.offset });
        }
        if from == upto.offset {
            return Ok(ReadPlan::default());
        }
        let segments = self.shared.segments.load();
        let after = segments.partition_point(|segment| segment.base <= from);
        for segment in &segments[after.saturating_sub(1)..] {
            let limit = limit_of(segment, upto);
            let Some((position, size, first_batch_offset)) = self.first_batch(segment, from, limit)? else { continue };
            if size > max_bytes && !at_least_one {
                return Ok(ReadPlan::default());
            }
            let len = max_bytes.max(size).min(limit - position);
            let file = segment.log_file(&self.shared.files)?;
            let regions = vec![FileRegion { file, position, len }];
            return Ok(ReadPlan { regions, first_batch_offset });
        }
        Ok(ReadPlan::default())
    }

    /// Position, size and first offset of the batch of a segment to begin with.
    fn first_batch(
        &self,
        segment: &Segment,
        from: Offset,
        limit: u64,
    ) -> Result<Option<(u64, u64, Offset)>, ReadError> {
        if let Some((position, size)) = segment.recent_batch(from, limit) {
            return Ok(Some((position, size, from)));
        }
        let located = self.in_segment(segment, segment.locate(&self.shared.files, from, limit))?;
        Ok(located.map(|(position, header)| (position, header.size() as u64, header.base_offset)))
    }

    /// The first record at or after `target` by timestamp, inside compressed batches too: its offset, timestamp and
    /// leader epoch.
    pub fn find_by_timestamp(
        &self,
        target: Timestamp,
        upto: LogPosition,
    ) -> Result<Option<(Offset, Timestamp, LeaderEpoch)>, ReadError> {
        let start = self.start_offset();
        let files = &self.shared.files;
        for segment in self.shared.segments.load().iter() {
            let limit = limit_of(segment, upto);
            if limit == 0 || self.in_segment(segment, segment.largest_timestamp(files))? < target {
                continue;
            }
            let before = |entry: &IndexEntry| entry.largest_before < target && u64::from(entry.position) < limit;
            let entry = self.in_segment(segment, segment.index_floor(files, before))?;
            let from = entry.map_or(0, |entry| u64::from(entry.position));
            let found = self.first_record(segment, from, limit, |header, record_offset, timestamp| {
                header.max_timestamp >= target && timestamp.is_none_or(|at| at >= target && record_offset >= start)
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The record with the largest timestamp, the first of several (KIP-734): its offset, timestamp and leader epoch.
    pub fn max_timestamp(&self, upto: LogPosition) -> Result<Option<(Offset, Timestamp, LeaderEpoch)>, ReadError> {
        let start = self.start_offset();
        let mut best: Option<(Timestamp, Arc<Segment>)> = None;
        for segment in self.shared.segments.load().iter() {
            let limit = limit_of(segment, upto);
            if limit == 0 {
                continue;
            }
            let largest = self.largest_timestamp(segment, start, limit)?;
            if best.as_ref().is_none_or(|(best, _)| largest > *best) {
                best = Some((largest, Arc::clone(segment)));
            }
        }
        let Some((largest, segment)) = best else { return Ok(None) };
        self.first_record(&segment, 0, limit_of(&segment, upto), |header, offset, timestamp| {
            header.max_timestamp >= largest && timestamp.is_none_or(|at| at >= largest && offset >= start)
        })
    }

    /// The largest timestamp of the records of a segment from `start` on.
    fn largest_timestamp(&self, segment: &Segment, start: Offset, limit: u64) -> Result<Timestamp, ReadError> {
        let files = &self.shared.files;
        if segment.base >= start {
            return self.in_segment(
                segment,
                match limit == segment.end().position {
                    true => segment.largest_timestamp(files),
                    false => segment.largest_timestamp_below(files, limit),
                },
            );
        }
        // The start lies within: what is below it does not count, even in its own batch.
        let mut largest = Timestamp(i64::MIN);
        let Some((from, _)) = self.in_segment(segment, segment.locate(files, start, limit))? else {
            return Ok(largest);
        };
        let mut headers = Headers::new(segment.log_file(files)?, from, limit);
        while let Some((position, header)) = self.in_segment(segment, headers.next())? {
            if header.base_offset >= start {
                largest = largest.max(header.largest_timestamp());
                continue;
            }
            let Some(records) = self.records(segment, position, &header)? else {
                largest = largest.max(header.largest_timestamp());
                continue;
            };
            for record in records {
                let record = record.map_err(|error| damaged(segment, position, &error))?;
                if record.offset >= start {
                    largest = largest.max(record.timestamp);
                }
            }
        }
        Ok(largest)
    }

    /// The first record that passes. `wanted` is asked with a header alone first, then with each record of the batch.
    fn first_record(
        &self,
        segment: &Segment,
        from: u64,
        limit: u64,
        wanted: impl Fn(&BatchHeader, Offset, Option<Timestamp>) -> bool,
    ) -> Result<Option<(Offset, Timestamp, LeaderEpoch)>, ReadError> {
        let mut headers = Headers::new(segment.log_file(&self.shared.files)?, from, limit);
        while let Some((position, header)) = self.in_segment(segment, headers.next())? {
            if !wanted(&header, header.base_offset, None) {
                continue;
            }
            let Some(records) = self.records(segment, position, &header)? else {
                let offset = header.base_offset.max(self.start_offset());
                return Ok(Some((offset, header.base_timestamp, header.leader_epoch)));
            };
            for record in records {
                let record = record.map_err(|error| damaged(segment, position, &error))?;
                if wanted(&header, record.offset, Some(record.timestamp)) {
                    return Ok(Some((record.offset, record.timestamp, header.leader_epoch)));
                }
            }
        }
        Ok(None)
    }

    /// The records of a batch; `None` if they are too large to look into.
    fn records(&self, segment: &Segment, position: u64, header: &BatchHeader) -> Result<Option<RecordIter>, ReadError> {
        let file = segment.log_file(&self.shared.files)?;
        let batch = FileRegion { file, position, len: header.size() as u64 }.read()?;
        let limits = Decompress { max_bytes: DECOMPRESSED_BYTES_MAX };
        match records(header, &batch, limits) {
            Ok(records) => Ok(Some(records)),
            Err(BatchError::DecompressedTooLarge { .. }) => Ok(None),
            Err(error) => Err(damaged(segment, position, &error)),
        }
    }

    /// Whole batches from the one that holds `from` on, up to `upto`.
    pub fn batches(&self, from: Offset, upto: LogPosition) -> Batches {
        Batches { reader: self.clone(), next: from, upto, walk: None }
    }

    /// Batches from `from` on as they are appended, waiting for more.
    pub fn follow(&self, from: Offset) -> Follow {
        Follow { batches: self.batches(from, LogPosition::default()) }
    }

    /// Waits until the end is past `offset`, at most this long. Returns whether it is.
    pub fn wait_past(&self, offset: Offset, timeout: Duration) -> bool {
        if self.end_offset() > offset {
            return true;
        }
        let (lock, moved) = &self.shared.moved;
        let mut guard = lock.lock();
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `Log::wake`.
        fence(Ordering::SeqCst);
        moved.wait_while_for(&mut guard, |()| self.end_offset() <= offset, timeout);
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        self.end_offset() > offset
    }

    /// Gives an error its segment. A file that is gone because the start moved past it is out of range.
    fn in_segment<T>(&self, segment: &Segment, result: Result<T, ScanError>) -> Result<T, ReadError> {
        result.map_err(|error| match error {
            ScanError::Io(error)
                if error.kind() == io::ErrorKind::NotFound && segment.end().offset <= self.start_offset() =>
            {
                ReadError::OutOfRange { offset: segment.base, start: self.start_offset(), end: self.end_offset() }
            }
            error => ReadError::from_scan(segment.base, error),
        })
    }
}

fn damaged(segment: &Segment, position: u64, error: &BatchError) -> ReadError {
    ReadError::Damaged { segment: segment.base, position, reason: error.to_string() }
}

/// How far into a segment a read bounded by `upto` may go. All of one that was compacted since `upto` was taken: that
/// happens below the high watermark alone.
pub(crate) fn limit_of(segment: &Segment, upto: LogPosition) -> u64 {
    let end = segment.end().position;
    match segment.base.cmp(&upto.segment) {
        std::cmp::Ordering::Less => end,
        std::cmp::Ordering::Equal if segment.generation > 0 => end,
        std::cmp::Ordering::Equal => end.min(upto.position),
        std::cmp::Ordering::Greater => 0,
    }
}

/// The iterator of [`LogReader::batches`]. After an error it ends.
pub struct Batches {
    reader: LogReader,
    next: Offset,
    upto: LogPosition,
    walk: Option<(Arc<Segment>, WholeBatches)>,
}

impl Batches {
    /// The offset it has come to.
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    fn advance(&mut self) -> Result<Option<(BatchHeader, Bytes)>, ReadError> {
        while self.next < self.upto.offset {
            if let Some((segment, walk)) = &mut self.walk {
                let position = walk.position();
                let next = walk.next();
                if let Some((header, batch)) = self.reader.in_segment(segment, next)? {
                    // Rotten offsets may point back, and a walk that follows them never ends.
                    if header.next_offset() <= self.next {
                        let reason = format!("its offsets end at {}, before {}", header.last_offset(), self.next);
                        return Err(ReadError::Damaged { segment: segment.base, position, reason });
                    }
                    self.next = header.next_offset();
                    return Ok(Some((header, batch)));
                }
            }
            let plan = self.reader.read(self.next, self.upto, u64::MAX, true)?;
            let Some(region) = plan.regions.into_iter().next() else { return Ok(None) };
            let segments = self.reader.shared.segments.load();
            let after = segments.partition_point(|segment| segment.base <= plan.first_batch_offset);
            let Some(segment) = after.checked_sub(1).and_then(|at| segments.get(at)) else { return Ok(None) };
            let walk = WholeBatches::new(region.file, region.position, region.position + region.len);
            self.walk = Some((Arc::clone(segment), walk));
        }
        Ok(None)
    }
}

impl Iterator for Batches {
    type Item = Result<(BatchHeader, Bytes), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.next = self.upto.offset;
        }
        next.transpose()
    }
}

/// Follows the end of a log; see [`LogReader::follow`].
pub struct Follow {
    batches: Batches,
}

impl Follow {
    /// The next batch, waiting at most this long for it to be appended; `None` if it was not.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<(BatchHeader, Bytes)>, ReadError> {
        if self.batches.next >= self.batches.upto.offset {
            if !self.batches.reader.wait_past(self.batches.next, timeout) {
                return Ok(None);
            }
            self.batches.upto = self.batches.reader.end();
            self.batches.walk = None;
        }
        self.batches.advance()
    }

    /// The offset it has come to.
    pub fn next_offset(&self) -> Offset {
        self.batches.next
    }
}
