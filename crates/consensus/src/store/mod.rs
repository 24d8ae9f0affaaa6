//! What a node keeps of the metadata log: the log itself, the state beside it, the snapshots.
//!
//! One Raft entry is one record, alone in its batch: its index is the record's offset, its term the batch's leader
//! epoch. An append is flushed once it was synced, several at a time ([`Store::flush`]); everything else is durable
//! when its call returns. Any error but a want of room ends the node, so nothing is undone here.
//!
//! Where a snapshot goes past the end of the log, the log begins anew, in a directory of its own that is named by its
//! first index. Next: `log_store.rs` for how the library asks, `machine.rs` for what is applied.

mod snapshots;
mod state;

use std::{
    io, mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use openraft::storage::IOFlushed;
use ottla_log::{Checkpoint, Disk, Log, LogConfig, LogPosition, StoredBatch};
use ottla_records::{BatchBuilder, BatchHeader, Compression, Decompress, crc_matches};
use ottla_types::{LeaderEpoch, Offset, Timestamp};

use crate::{
    entry,
    error::OpenError,
    snapshot,
    types::{Entry, LogId, Snapshot, SnapshotMeta, Types, Vote, next_index, term_of},
    wire,
};
use state::State;

/// A proposal larger than this is refused, so that its entry fits a batch with room to spare.
pub(crate) const PROPOSAL_BYTES_MAX: usize = 32 << 20;
const BATCH_BYTES_MAX: u64 = 64 << 20;
/// Taken from the disk when a segment begins, so that a full disk leaves room for tens of thousands of decisions, such
/// as to delete a topic (rule L11).
const SEGMENT_BYTES: u64 = 4 << 20;
/// What is left free of it, and of the disk, for entries that nobody proposed.
const SPARE_BYTES: u64 = 256 << 10;
/// Log bytes after which a snapshot is worth its writing.
const SNAPSHOT_AFTER_BYTES: u64 = 3 << 20;
const LOG_DIR: &str = "log-";
/// The ending of a file that was not finished.
const TEMPORARY: &str = ".tmp";
/// The log has no use for the time, and this crate no wall clock.
const NO_TIME: Timestamp = Timestamp(0);

const _: () = assert!(PROPOSAL_BYTES_MAX as u64 + SPARE_BYTES < BATCH_BYTES_MAX);

/// See the module.
pub(crate) struct Store {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    log: Log,
    /// As the file has it.
    state: State,
    /// The last entry, or the last that was purged.
    last: Option<LogId>,
    /// Invariant: at or below `last`, and it never goes back.
    committed: Option<LogId>,
    /// Index of the newest snapshot.
    snapshot: Option<u64>,
    /// Appends that wait for a sync.
    pending: Vec<IOFlushed<Types>>,
    /// Bytes appended since a snapshot was last thought of.
    grown: u64,
    /// A checkpoint that no truncation goes below: its recovery point is committed.
    mark: Checkpoint,
}

impl Store {
    /// Opens what is in `dir`, or begins there; `checkpoint` is what the node stored last. Also the newest snapshot.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        checkpoint: Option<Checkpoint>,
    ) -> Result<(Store, Option<Snapshot>), OpenError> {
        disk.create_dir_all(&dir)?;
        let state = State::load(&*disk, &dir)?;
        let voted = state.is_some();
        if !voted && let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // Until there is a state, nobody knows whether the directory's own name is durable (B12).
            disk.sync_dir(parent)?;
        }
        for unfinished in disk.list(&dir)?.iter().filter(|name| name.ends_with(TEMPORARY)) {
            disk.remove(&dir.join(unfinished))?;
        }
        let state = state.unwrap_or_default();
        let snapshot = snapshots::load(&*disk, &dir)?;
        let snapshot_end = next_index(snapshot.as_ref().and_then(|snapshot| snapshot.meta.last_log_id.as_ref()));
        let purged_end = next_index(state.purged.as_ref());
        if snapshot_end < purged_end {
            return Err(OpenError::Damaged(format!("the snapshot of entry {} is missing", purged_end - 1)));
        }
        let bases = log_dirs(&*disk, &dir)?;
        let base = bases.last().copied().unwrap_or(0);
        if base > purged_end {
            return Err(OpenError::Damaged(format!("entries {purged_end} to {base} are missing")));
        }
        let (log, mark) = open_log(&disk, &dir, base, checkpoint, &state)?;
        let mut store = Store {
            disk,
            dir,
            log,
            last: state.purged,
            committed: state.committed.max(state.purged),
            state,
            snapshot: snapshot_end.checked_sub(1),
            pending: Vec::new(),
            grown: 0,
            mark,
        };
        store.settle(purged_end)?;
        if !voted && store.last.is_some_and(|last| term_of(&last) > 0) {
            return Err(OpenError::Damaged("the file quorum-state is missing".to_owned()));
        }
        for older in bases.into_iter().filter(|older| *older < base) {
            store.remove_log(older);
        }
        store.grown = store.log.size_in_bytes();
        store.move_mark();
        Ok((store, snapshot))
    }

    /// Brings the log in line with what was purged, should the node have died on the way, and finds its last entry.
    fn settle(&mut self, purged_end: u64) -> Result<(), OpenError> {
        let damaged = |error: io::Error| OpenError::Damaged(error.to_string());
        // Forgets epochs of entries that a power cut took.
        self.log.truncate(self.log.end().offset).map_err(|error| OpenError::Damaged(error.to_string()))?;
        if self.end() < purged_end {
            return self.begin_anew(purged_end).map_err(damaged);
        }
        let start = to_index(self.log.start());
        if start > purged_end {
            return Err(OpenError::Damaged(format!("entries {purged_end} to {start} are missing")));
        }
        if start < purged_end {
            self.trim(purged_end).map_err(damaged)?;
        }
        if self.end() > purged_end {
            let (entry, committed) = self.last_entry().map_err(damaged)?;
            self.last = Some(entry);
            self.committed = self.committed.max(committed);
        }
        if self.committed > self.last {
            return Err(OpenError::Damaged("entries that were agreed on are missing at its end".to_owned()));
        }
        Ok(())
    }

    /// The last entry's id, and what was known to be committed when it was appended.
    fn last_entry(&self) -> io::Result<(LogId, Option<LogId>)> {
        let at = to_offset(self.end() - 1);
        let batch = self.log.reader().batches(at, self.log.end()).next();
        let (header, bytes) = batch.ok_or_else(|| invalid("its last entry is missing"))?.map_err(io::Error::other)?;
        let (entry, committed) = parse(&header, &bytes)?;
        Ok((entry.log_id, committed))
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.last
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.state.purged
    }

    pub(crate) fn vote(&self) -> Option<Vote> {
        self.state.vote
    }

    pub(crate) fn committed(&self) -> Option<LogId> {
        self.committed
    }

    /// Remembers what is committed. It becomes durable with the next entry; until then it may lag.
    pub(crate) fn set_committed(&mut self, committed: Option<LogId>) {
        self.committed = self.committed.max(committed);
    }

    /// Appends entries; `flushed` is told once they are synced.
    pub(crate) fn append(
        &mut self,
        entries: impl IntoIterator<Item = Entry>,
        flushed: IOFlushed<Types>,
    ) -> io::Result<()> {
        let mut batches = Vec::new();
        let (mut next, mut last, mut bytes) = (self.end(), self.last, 0);
        for entry in entries {
            if entry.log_id.index != next {
                return Err(invalid("an entry does not follow the one before"));
            }
            next += 1;
            last = Some(entry.log_id);
            let batch = self.batch(&entry)?;
            bytes += batch.bytes.len() as u64;
            batches.push(batch);
        }
        self.log.append(&batches, NO_TIME).map_err(io::Error::other)?;
        self.last = last;
        self.grown += bytes;
        self.pending.push(flushed);
        Ok(())
    }

    fn batch(&self, entry: &Entry) -> io::Result<StoredBatch> {
        // The term lies outside the batch's checksum; in the key it does not.
        let mut key = Vec::new();
        wire::put_log_id(&mut key, &entry.log_id);
        wire::put_maybe_log_id(&mut key, self.committed.as_ref());
        let value = entry::encode(&entry.payload);
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.push(NO_TIME, Some(&key), Some(&value), &[]).map_err(io::Error::other)?;
        let bytes = builder.build().map_err(io::Error::other)?;
        let header = BatchHeader::parse(&bytes).map_err(io::Error::other)?;
        Ok(StoredBatch { header, bytes, epoch: LeaderEpoch(term_of(&entry.log_id)) })
    }

    /// Syncs what was appended and tells who waits for it. Whether anybody did.
    pub(crate) fn flush(&mut self) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        let synced = self.sync();
        for flushed in mem::take(&mut self.pending) {
            flushed.io_completed(synced.as_ref().copied().map_err(|error| io::Error::other(error.to_string())));
        }
        true
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(plan) = self.log.begin_sync() {
            let result = plan.run();
            self.log.complete_sync(plan, result).map_err(io::Error::other)?;
        }
        // Without a file descriptor to sync with, nobody knows what of it is on the disk.
        if self.log.durable_end() != self.log.end() {
            return Err(io::Error::other("the metadata log could not be synced"));
        }
        self.move_mark();
        Ok(())
    }

    /// Syncs first, so that what is written next is written after it.
    fn settle_appends(&mut self) -> io::Result<()> {
        self.flush();
        if self.log.durable_end() == self.log.end() { Ok(()) } else { self.sync() }
    }

    /// The entries from `from` to before `to` that are there, or as many as have `bytes_max` bytes, but one at least.
    pub(crate) fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let from = from.max(to_index(self.log.start()));
        let to = to.min(self.end());
        let (mut entries, mut bytes) = (Vec::new(), 0);
        if from >= to {
            return Ok(entries);
        }
        for batch in self.log.reader().batches(to_offset(from), self.log.end()) {
            let (header, batch) = batch.map_err(io::Error::other)?;
            bytes += batch.len();
            entries.push(parse(&header, &batch)?.0);
            if to_index(header.next_offset()) >= to || bytes >= bytes_max {
                break;
            }
        }
        Ok(entries)
    }

    pub(crate) fn save_vote(&mut self, vote: Vote) -> io::Result<()> {
        self.settle_appends()?;
        self.state.vote = Some(vote);
        self.store_state()
    }

    fn store_state(&mut self) -> io::Result<()> {
        if next_index(self.committed.as_ref()) <= to_index(self.log.durable_end().offset) {
            self.state.committed = self.committed;
        }
        self.state.store(&*self.disk, &self.dir)
    }

    /// Cuts what comes after `last`. Never what was agreed on (E9).
    pub(crate) fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.settle_appends()?;
        if last < self.committed {
            return Err(invalid("entries that were agreed on were to be cut"));
        }
        let to = to_offset(next_index(last.as_ref()));
        self.log.truncate(to).map_err(io::Error::other)?;
        if self.log.end().offset != to {
            return Err(invalid("the log was not cut where it should be"));
        }
        self.last = last;
        self.sync()
    }

    /// Gives up the entries up to `upto`, which a snapshot holds.
    pub(crate) fn purge(&mut self, upto: LogId) -> io::Result<()> {
        if self.snapshot.is_none_or(|snapshot| snapshot < upto.index) {
            return Err(invalid("entries were to go without a snapshot of them"));
        }
        self.settle_appends()?;
        self.state.purged = self.state.purged.max(Some(upto));
        self.store_state()?;
        let end = next_index(Some(&upto));
        if self.end() < end {
            self.begin_anew(end)?;
        } else {
            // What is behind `upto` goes on in a file of its own, so that this one can go with the next snapshot.
            match self.log.roll(NO_TIME) {
                Ok(()) | Err(ottla_log::AppendError::NoSpace { .. } | ottla_log::AppendError::NoFiles) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
            self.trim(end)?;
        }
        self.last = self.last.max(self.state.purged);
        self.committed = self.committed.max(self.state.purged);
        Ok(())
    }

    fn trim(&mut self, start: u64) -> io::Result<()> {
        self.log.advance_start(to_offset(start)).map_err(io::Error::other)?;
        // Segments go once the new start is durable.
        self.sync()?;
        self.log.remove_deleted(NO_TIME);
        Ok(())
    }

    /// Begins the log anew at `base`, past its end. The state says already that all before is purged.
    fn begin_anew(&mut self, base: u64) -> io::Result<()> {
        let (log, mark) = open_log(&self.disk, &self.dir, base, None, &self.state).map_err(io::Error::other)?;
        self.disk.sync_dir(&self.dir)?;
        (self.log, self.mark, self.last) = (log, mark, self.state.purged);
        for older in log_dirs(&*self.disk, &self.dir)?.into_iter().filter(|older| *older < base) {
            self.remove_log(older);
        }
        Ok(())
    }

    /// One that stays is removed by the next start.
    fn remove_log(&self, base: u64) {
        let _ = self.disk.remove_dir_all(&log_dir(&self.dir, base));
    }

    /// Stores a snapshot: durable, and read back.
    pub(crate) fn write_snapshot(&mut self, meta: &SnapshotMeta, application: &[u8]) -> io::Result<()> {
        let index = meta.last_log_id.map(|last| last.index).ok_or_else(|| invalid("a snapshot of nothing"))?;
        snapshots::write(&*self.disk, &self.dir, index, &snapshot::encode(meta, application))?;
        self.snapshot = Some(index);
        Ok(())
    }

    /// The newest snapshot; an error if it is damaged.
    pub(crate) fn read_snapshot(&self) -> io::Result<Option<Snapshot>> {
        let Some(index) = self.snapshot else { return Ok(None) };
        let found = snapshots::read(&*self.disk, &self.dir, index)?;
        found.map(Some).ok_or_else(|| invalid("the snapshot is not whole"))
    }

    /// Whether the log has grown so much that a snapshot is due.
    pub(crate) fn wants_snapshot(&self) -> bool {
        self.grown >= SNAPSHOT_AFTER_BYTES
    }

    /// A snapshot was made, or could not be: the next is thought of when the log has grown as much again.
    pub(crate) fn snapshot_was_tried(&mut self) {
        self.grown = 0;
    }

    /// Whether entries of so many bytes find room. More is asked for than they take: what leaders write by themselves
    /// must not find the disk full, which would end the node.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let bytes = bytes as u64 + SPARE_BYTES;
        // Reserved when the segment began.
        let position = self.log.end().position;
        if position > 0 && position + bytes <= SEGMENT_BYTES {
            return true;
        }
        self.disk.space(&self.dir).is_ok_and(|space| space.available >= 2 * bytes + SEGMENT_BYTES)
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        self.mark.clone()
    }

    fn move_mark(&mut self) {
        let committed_end = to_offset(next_index(self.committed.as_ref()));
        let checkpoint = self.log.checkpoint();
        if checkpoint.recovery_point.offset <= committed_end {
            self.mark = checkpoint;
        }
        self.mark.high_watermark = committed_end.min(self.log.durable_end().offset);
        self.mark.log_start = self.log.start();
    }

    /// Syncs and closes, so that the next start reads no more than it must.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.settle_appends()?;
        if self.state != State::default() {
            self.store_state()?;
        }
        self.log.close_clean().map_err(io::Error::other)?;
        self.move_mark();
        Ok(())
    }

    fn end(&self) -> u64 {
        to_index(self.log.end().offset)
    }
}

/// The log that begins at `base`, and a checkpoint of it that no truncation goes below.
fn open_log(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    base: u64,
    checkpoint: Option<Checkpoint>,
    state: &State,
) -> Result<(Log, Checkpoint), OpenError> {
    let config = LogConfig {
        segment_bytes: BATCH_BYTES_MAX,
        roll_bytes: SEGMENT_BYTES,
        segment_ms: i64::MAX,
        preallocate: true,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    };
    let start = to_offset(base);
    let known = to_offset(next_index(state.committed.as_ref())).max(start);
    // Of the log before, if this one began anew since it was stored.
    let stored = checkpoint.filter(|checkpoint| checkpoint.recovery_point.segment >= start);
    let mut checkpoint = stored.unwrap_or(Checkpoint {
        recovery_point: LogPosition { offset: start, segment: start, position: 0 },
        high_watermark: start,
        log_start: start,
        producers: None,
        largest_timestamp: Timestamp::NONE,
    });
    checkpoint.high_watermark = checkpoint.high_watermark.max(known);
    let (log, recovered) = Log::open(Arc::clone(disk), log_dir(dir, base), config, Some(checkpoint.clone()), NO_TIME)?;
    match recovered.damaged {
        Some(damage) => Err(OpenError::Damaged(damage.to_string())),
        None => Ok((log, checkpoint)),
    }
}

fn log_dir(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{LOG_DIR}{base:020}"))
}

/// The first indexes of the logs that are there, the newest last.
fn log_dirs(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<u64>> {
    let names = disk.list(dir)?;
    if names.iter().any(|name| name.ends_with(".log")) {
        return Err(invalid("the directory is of a version that had no quorum"));
    }
    let mut bases: Vec<u64> = names.iter().filter_map(|name| name.strip_prefix(LOG_DIR)?.parse().ok()).collect();
    bases.sort_unstable();
    Ok(bases)
}

/// The entry in a batch, and what was known to be committed when it was appended.
fn parse(header: &BatchHeader, batch: &Bytes) -> io::Result<(Entry, Option<LogId>)> {
    let place = |what: &str| invalid(&format!("entry {}: {what}", header.base_offset));
    if !crc_matches(batch) {
        return Err(place("its checksum is wrong"));
    }
    let mut records = ottla_records::records(header, batch, Decompress { max_bytes: usize::MAX })
        .map_err(|error| place(&error.to_string()))?;
    let record = match (records.next(), records.next()) {
        (Some(Ok(record)), None) => record,
        _ => return Err(place("its batch does not hold one record")),
    };
    let mut key = record.key.unwrap_or_default();
    let log_id = wire::take_log_id(&mut key).map_err(|error| place(error.0))?;
    let committed = wire::take_maybe_log_id(&mut key).map_err(|error| place(error.0))?;
    if (term_of(&log_id), log_id.index) != (header.leader_epoch.0, to_index(record.offset)) {
        return Err(place("it does not lie where it was written"));
    }
    let payload = entry::decode(record.value.unwrap_or_default()).map_err(|error| place(error.0))?;
    Ok((Entry { log_id, payload }, committed))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn to_offset(index: u64) -> Offset {
    Offset(i64::try_from(index).unwrap_or(i64::MAX))
}

/// Offsets of a log are never negative.
fn to_index(offset: Offset) -> u64 {
    u64::try_from(offset.0).unwrap_or(0)
}
