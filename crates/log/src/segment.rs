//! One segment: a `.log` file that is byte for byte Kafka's (docs/formats/segment.md) and its index, as writer and
//! readers share them.
//!
//! Files are opened by the first call that needs them and closed when idle. Who may write is not decided here: only
//! the `Log` that owns the segment publishes a new end. Next: `log.rs` writes, `reader.rs` reads.

use std::{
    io::{self, IoSlice},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use ottla_records::BatchHeader;
use ottla_types::{Offset, Timestamp};
use parking_lot::Mutex;

use crate::{
    checked_file::TEMPORARY,
    disk::{Disk, DiskFile},
    index::{self, IndexEntry, IndexFault, RecentPlaces},
    scan::{Headers, ScanError},
};

/// Ending of a segment's data file.
pub(crate) const LOG: &str = ".log";
/// Ending of a segment's index file.
pub(crate) const INDEX: &str = ".index";
/// Appended to either name while compaction writes the file that is to replace it.
pub(crate) const CLEANED: &str = ".cleaned";
/// Bytes between entries of an index that is built again: Kafka's default, whatever the log's was.
const REBUILD_INTERVAL: u64 = 4096;
const UNKNOWN_TIMESTAMP: i64 = i64::MIN;
const UNKNOWN_COUNT: u32 = u32::MAX;

/// Where a log's files are.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
}

impl Files {
    pub(crate) fn path(&self, base: Offset, ending: &str) -> PathBuf {
        self.dir.join(format!("{:020}{ending}", base.0))
    }
}

/// Where a segment ends: both halves are one word, so that a reader never sees them apart (B16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentEnd {
    /// The offset after its last record.
    pub(crate) offset: Offset,
    /// Its size in bytes.
    pub(crate) position: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: Offset,
    /// End offset less base above, position below.
    end: AtomicU64,
    largest_timestamp: AtomicI64,
    /// Entries of the index file that are written.
    index_entries: AtomicU32,
    sealed: AtomicBool,
    used: AtomicBool,
    recent: OnceLock<Box<Recent>>,
    log: ArcSwapOption<OpenFile>,
    index: ArcSwapOption<OpenFile>,
    /// Held while the index is built again.
    rebuilding: Mutex<()>,
    /// Whether the files of its names are its own: not while compaction replaces it, nor afterwards. Held while a file
    /// is opened or closed.
    named: Mutex<bool>,
    /// How often compaction has rewritten it in this process. Positions from before mean nothing in it.
    pub(crate) generation: u32,
}

/// What a segment remembers of the batches that were written last.
#[derive(Debug, Default)]
struct Recent {
    /// Those that have an entry in the index, which may not be in its file yet.
    entries: RecentPlaces,
    batches: RecentPlaces,
}

#[derive(Debug)]
struct OpenFile(Arc<dyn DiskFile>);

impl Segment {
    /// A segment known to end here. `None` for a timestamp that is to be found out when it is wanted.
    pub(crate) fn new(base: Offset, end: SegmentEnd, largest_timestamp: Option<Timestamp>, sealed: bool) -> Segment {
        let segment = Segment {
            base,
            end: AtomicU64::new(0),
            largest_timestamp: AtomicI64::new(largest_timestamp.map_or(UNKNOWN_TIMESTAMP, |timestamp| timestamp.0)),
            index_entries: AtomicU32::new(UNKNOWN_COUNT),
            sealed: AtomicBool::new(sealed),
            used: AtomicBool::new(false),
            recent: OnceLock::new(),
            log: ArcSwapOption::empty(),
            index: ArcSwapOption::empty(),
            rebuilding: Mutex::new(()),
            named: Mutex::new(true),
            generation: 0,
        };
        segment.publish_end(end);
        segment
    }

    /// A segment that compaction wrote, known by its open files until it is [`Segment::attach`]ed.
    pub(crate) fn rewritten(
        base: Offset,
        end: SegmentEnd,
        largest_timestamp: Timestamp,
        generation: u32,
        log: Arc<dyn DiskFile>,
        (index, entries): (Arc<dyn DiskFile>, u32),
    ) -> Segment {
        let segment = Segment::new(base, end, Some(largest_timestamp), true);
        segment.log.store(Some(Arc::new(OpenFile(log))));
        segment.index.store(Some(Arc::new(OpenFile(index))));
        segment.publish_index_entries(entries);
        Segment { generation, named: Mutex::new(false), ..segment }
    }

    /// A segment with nothing in it, whose files do not exist yet.
    pub(crate) fn empty(base: Offset) -> Segment {
        Segment::new(base, SegmentEnd { offset: base, position: 0 }, Some(Timestamp::NONE), false)
    }

    pub(crate) fn end(&self) -> SegmentEnd {
        let word = self.end.load(Ordering::Acquire);
        SegmentEnd { offset: Offset(self.base.0 + (word >> 32) as i64), position: word & u64::from(u32::MAX) }
    }

    /// Lets readers see up to here. The writer keeps both halves in range: it rolls before either would not fit.
    pub(crate) fn publish_end(&self, end: SegmentEnd) {
        debug_assert!(end.position <= u64::from(u32::MAX) && end.offset.0 - self.base.0 <= i64::from(u32::MAX));
        let word = ((end.offset.0 - self.base.0) as u64) << 32 | end.position;
        self.end.store(word, Ordering::Release);
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    pub(crate) fn set_sealed(&self, sealed: bool) {
        self.sealed.store(sealed, Ordering::Release);
    }

    /// The data file, opened if it is not.
    pub(crate) fn log_file(&self, files: &Files) -> io::Result<Arc<dyn DiskFile>> {
        self.file(&self.log, files, LOG)
    }

    /// Creates the data file, empty.
    pub(crate) fn create_log_file(&self, files: &Files) -> io::Result<Arc<dyn DiskFile>> {
        let file = files.disk.create(&files.path(self.base, LOG))?;
        self.log.store(Some(Arc::new(OpenFile(Arc::clone(&file)))));
        Ok(file)
    }

    pub(crate) fn index_file(&self, files: &Files) -> io::Result<Arc<dyn DiskFile>> {
        self.file(&self.index, files, INDEX)
    }

    fn file(&self, slot: &ArcSwapOption<OpenFile>, files: &Files, ending: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.used.store(true, Ordering::Relaxed);
        if let Some(open) = &*slot.load() {
            return Ok(Arc::clone(&open.0));
        }
        let named = self.named.lock();
        self.open(slot, files, ending, *named)
    }

    fn open(
        &self,
        slot: &ArcSwapOption<OpenFile>,
        files: &Files,
        ending: &str,
        named: bool,
    ) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(open) = &*slot.load() {
            return Ok(Arc::clone(&open.0));
        }
        if !named {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = files.disk.open(&files.path(self.base, ending))?;
        slot.store(Some(Arc::new(OpenFile(Arc::clone(&file)))));
        Ok(file)
    }

    /// Closes the files if nothing used them since the last call.
    pub(crate) fn close_if_idle(&self) {
        if !self.used.swap(false, Ordering::Relaxed) {
            let named = self.named.lock();
            if *named {
                // To store is to look at every thread that may be reading: thousands of idle partitions would show.
                for slot in [&self.log, &self.index] {
                    if slot.load().is_some() {
                        slot.store(None);
                    }
                }
            }
        }
    }

    /// From here on another segment may take its names: the files stay open for as long as somebody reads here.
    pub(crate) fn detach(&self, files: &Files) -> io::Result<()> {
        let mut named = self.named.lock();
        self.open(&self.log, files, LOG, *named)?;
        match self.open(&self.index, files, INDEX, *named) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => *named = false,
        }
        Ok(())
    }

    /// The files of its names are its own.
    pub(crate) fn attach(&self) {
        *self.named.lock() = true;
    }

    /// Takes in the timestamp of a batch that was appended. Called by the writer alone.
    pub(crate) fn raise_timestamp(&self, timestamp: Timestamp) {
        self.largest_timestamp.fetch_max(timestamp.0, Ordering::AcqRel);
    }

    /// The largest timestamp in the segment, from memory, else from the index and the batches after its last entry.
    pub(crate) fn largest_timestamp(&self, files: &Files) -> Result<Timestamp, ScanError> {
        let known = self.largest_timestamp.load(Ordering::Acquire);
        if known != UNKNOWN_TIMESTAMP {
            return Ok(Timestamp(known));
        }
        let found = self.largest_timestamp_below(files, self.end().position)?;
        self.largest_timestamp.fetch_max(found.0, Ordering::AcqRel);
        Ok(found)
    }

    /// The largest timestamp of the batches below a position.
    pub(crate) fn largest_timestamp_below(&self, files: &Files, limit: u64) -> Result<Timestamp, ScanError> {
        let entry = self.index_floor(files, |entry| u64::from(entry.position) <= limit)?;
        let mut largest = entry.map_or(Timestamp::NONE, |entry| entry.largest_before);
        let from = entry.map_or(0, |entry| u64::from(entry.position));
        if from < limit {
            let mut headers = Headers::new(self.log_file(files)?, from, limit);
            while let Some((_, header)) = headers.next()? {
                largest = largest.max(header.largest_timestamp());
            }
        }
        Ok(largest)
    }

    /// The batch that holds `offset`, or the first after it, below `limit`: its position and header.
    pub(crate) fn locate(
        &self,
        files: &Files,
        offset: Offset,
        limit: u64,
    ) -> Result<Option<(u64, BatchHeader)>, ScanError> {
        let delta = u32::try_from(offset.0.saturating_sub(self.base.0).max(0)).unwrap_or(u32::MAX);
        let from = match self.recent.get().and_then(|recent| recent.entries.floor(delta)) {
            _ if delta == 0 => 0,
            Some(position) => u64::from(position),
            None => {
                let entry = self.index_floor(files, |entry| entry.delta <= delta)?;
                entry.map_or(0, |entry| u64::from(entry.position))
            }
        };
        // An entry at or past the limit belongs to batches the caller may not see yet.
        let from = if from < limit { from } else { 0 };
        let mut headers = Headers::new(self.log_file(files)?, from, limit);
        while let Some((position, header)) = headers.next()? {
            if header.last_offset() >= offset {
                return Ok(Some((position, header)));
            }
        }
        Ok(None)
    }

    /// The last entry of the index file for which `before` holds. A file that is damaged or gone is built again, and
    /// one that can't be is treated as empty.
    pub(crate) fn index_floor(
        &self,
        files: &Files,
        before: impl Fn(&IndexEntry) -> bool,
    ) -> Result<Option<IndexEntry>, ScanError> {
        let end = self.end();
        // Below the first possible entry there is nothing to look up, and perhaps no file.
        if end.position <= 1 || self.index_entries.load(Ordering::Acquire) == 0 {
            return Ok(None);
        }
        let search = || {
            let file = self.index_file(files).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => IndexFault::Damaged,
                _ => IndexFault::Io(error),
            })?;
            let count = match self.index_entries.load(Ordering::Acquire) {
                UNKNOWN_COUNT => {
                    let count = index::count_entries(file.as_ref(), self.base)?;
                    self.index_entries.store(count, Ordering::Release);
                    count
                }
                count => count,
            };
            index::last_where(file.as_ref(), self.base, count, &before)
        };
        match search() {
            Ok(found) => Ok(found.filter(|entry| u64::from(entry.position) <= end.position)),
            // The writer mends its own index; readers walk meanwhile.
            Err(IndexFault::Damaged) if !self.is_sealed() => Ok(None),
            Err(IndexFault::Damaged) => {
                self.rebuild_index(files)?;
                Ok(search().unwrap_or(None))
            }
            Err(IndexFault::Io(error)) => Err(error.into()),
        }
    }

    /// Builds the index of a sealed segment again from its batches.
    fn rebuild_index(&self, files: &Files) -> Result<(), ScanError> {
        let _one_at_a_time = self.rebuilding.lock();
        if !*self.named.lock() {
            return Ok(());
        }
        let end = self.end();
        let mut bytes = index::header(self.base).to_vec();
        let (mut largest, mut since, mut count) = (Timestamp::NONE, 0, 0);
        let mut add = |offset: Offset, position: u64, largest_before| {
            let delta = u32::try_from(offset.0 - self.base.0).unwrap_or(u32::MAX);
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&IndexEntry { delta, position, largest_before }.encode(self.base));
            count += 1;
        };
        let mut headers = Headers::new(self.log_file(files)?, 0, end.position);
        while let Some((position, header)) = headers.next()? {
            if since >= REBUILD_INTERVAL {
                add(header.base_offset, position, largest);
                since = 0;
            }
            since += header.size() as u64;
            largest = largest.max(header.largest_timestamp());
        }
        add(end.offset, end.position, largest);
        let named = self.named.lock();
        if !*named {
            return Ok(());
        }
        let path = files.path(self.base, INDEX);
        let mut temporary = path.clone().into_os_string();
        temporary.push(TEMPORARY);
        let file = files.disk.create(temporary.as_ref())?;
        file.write_vectored_at(&[IoSlice::new(&bytes)], 0)?;
        files.disk.rename(temporary.as_ref(), &path)?;
        self.index_entries.store(count, Ordering::Release);
        self.index.store(Some(Arc::new(OpenFile(file))));
        Ok(())
    }

    /// The position and size of the batch that begins with `offset`, if it is one of the last and below `limit`, which
    /// is where some batch ends. From memory alone: who reads at the end needs no header from the file.
    pub(crate) fn recent_batch(&self, offset: Offset, limit: u64) -> Option<(u64, u64)> {
        let delta = u32::try_from(offset.0 - self.base.0).ok()?;
        let (position, next) = self.recent.get()?.batches.exact(delta)?;
        let (position, next) = (u64::from(position), next.map_or(limit, u64::from));
        (position < limit).then(|| (position, next.min(limit) - position))
    }

    /// Shows readers where a batch begins. Called by the writer alone, before they see its end.
    pub(crate) fn push_recent_batch(&self, delta: u32, position: u32) {
        self.recent.get_or_init(Box::default).batches.push(delta, position);
    }

    /// Shows readers a new index entry, before it is in the file. Called by the writer alone.
    pub(crate) fn push_recent_entry(&self, entry: &IndexEntry) {
        self.recent.get_or_init(Box::default).entries.push(entry.delta, entry.position);
    }

    /// How many entries the file has, counted once; the writer starts from here after an open.
    pub(crate) fn count_index_entries(&self, files: &Files) -> Result<u32, IndexFault> {
        match self.index_entries.load(Ordering::Acquire) {
            UNKNOWN_COUNT => index::count_entries(self.index_file(files).map_err(IndexFault::Io)?.as_ref(), self.base),
            count => Ok(count),
        }
    }

    pub(crate) fn publish_index_entries(&self, count: u32) {
        self.index_entries.store(count, Ordering::Release);
    }

    /// Writes an index file anew, with these entries. Called by the writer alone.
    pub(crate) fn replace_index(&self, files: &Files, entries: &[IndexEntry]) -> io::Result<()> {
        let mut bytes = index::header(self.base).to_vec();
        for entry in entries {
            bytes.extend_from_slice(&entry.encode(self.base));
        }
        let file = files.disk.create(&files.path(self.base, INDEX))?;
        file.write_vectored_at(&[IoSlice::new(&bytes)], 0)?;
        self.index.store(Some(Arc::new(OpenFile(file))));
        self.index_entries.store(entries.len() as u32, Ordering::Release);
        Ok(())
    }
}
