//! Opening a log: what is on the disk, how much of it is believed, and what is dropped.
//!
//! After a clean close nothing is read but names and small files. Otherwise the batches from the recovery point on are
//! checked one by one, and indexes, epochs and producers follow in the same pass (L4). The first batch that does not
//! check ends the log: above what was known durable it is a torn write and is cut off with all that follows; below, it
//! is damage, and the log is left as it is and out of service (L5). Next: `log.rs`.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize},
    },
};

use arc_swap::ArcSwap;
use ottla_records::{BatchHeader, crc_matches};
use ottla_types::{Offset, Timestamp};
use parking_lot::{Condvar, Mutex};

use crate::{
    checked_file::TEMPORARY,
    cleaned::CleanMark,
    config::LogConfig,
    disk::Disk,
    epochs::EpochHistory,
    error::{Damage, OpenError, TruncateError},
    index,
    log::{Active, Log, LogPosition, Shared},
    producers::Producers,
    retire::{DELETED, Retired},
    scan::{Headers, ScanError, WholeBatches},
    segment::{CLEANED, Files, INDEX, LOG, Segment, SegmentEnd},
    snapshot,
    sync::{Checkpoint, EPOCHS_FILE, PRODUCERS, RecoveryMark, Unsynced},
};

/// What opening a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Bytes of batches that were read and checked.
    pub scanned_bytes: u64,
    /// Bytes of a torn, never acknowledged end that were cut off.
    pub truncated_bytes: u64,
    /// Data below what was durable is missing or bad. The log ends before it and is out of service; nothing was cut.
    pub damaged: Option<Damage>,
}

/// The names in a log's directory, sorted.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) segments: Vec<Offset>,
    snapshots: Vec<Offset>,
    epochs: bool,
    deleted: Vec<String>,
    temporary: Vec<String>,
}

/// Where the walk over the batches stopped.
struct Walked {
    end: LogPosition,
    scanned: u64,
    /// Why, if not at the end of the last file.
    fault: Option<String>,
}

impl Contents {
    pub(crate) fn read(names: Vec<String>) -> Contents {
        let mut contents = Contents::default();
        for name in names {
            if name.ends_with(TEMPORARY) || name.ends_with(CLEANED) {
                contents.temporary.push(name);
            } else if name.ends_with(DELETED) {
                contents.deleted.push(name);
            } else if name == EPOCHS_FILE {
                contents.epochs = true;
            } else if let Some((digits, _)) = name.split_once('.')
                && digits.len() == 20
                && let Ok(offset) = digits.parse::<i64>()
                && offset >= 0
            {
                match &name[digits.len()..] {
                    LOG => contents.segments.push(Offset(offset)),
                    PRODUCERS => contents.snapshots.push(Offset(offset)),
                    _ => {}
                }
            }
        }
        contents.segments.sort_unstable();
        contents.snapshots.sort_unstable();
        contents
    }
}

impl Log {
    /// Opens the log in `dir`, or begins one there. `checkpoint` is what the node stored last. There is no flag for a
    /// clean shutdown: a log that has nothing after its recovery point needs no recovery, however it was closed.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        config: LogConfig,
        checkpoint: Option<Checkpoint>,
        now: Timestamp,
    ) -> Result<(Log, Recovered), OpenError> {
        let failed = |error| OpenError::Io { path: dir.clone(), error };
        let mut unsynced = Unsynced::default();
        let names = match disk.list(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                disk.create_dir_all(&dir).map_err(failed)?;
                Vec::new()
            }
            listed => listed.map_err(failed)?,
        };
        // Until a sync is known to have covered them, the directory and what is in it may have been made by a process
        // that was killed before its first.
        let synced = checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.high_watermark > Offset::ZERO);
        (unsynced.parent, unsynced.names) = (!synced, !synced);
        let files = Files { disk, dir: dir.clone() };
        let (cleaned, names) = CleanMark::load(&files, names).map_err(failed)?;
        let contents = Contents::read(names);
        for name in &contents.temporary {
            files.disk.remove(&dir.join(name)).map_err(failed)?;
        }
        let deleted = contents.deleted.iter().map(|name| (dir.join(name), None)).collect();
        let stored = if contents.epochs { read_epochs(&files).map_err(failed)? } else { None };
        let durable_start = stored.as_ref().map_or(Offset::ZERO, |(_, start)| *start);
        let mut retired =
            Retired { dead: Vec::new(), files: deleted, durable_start, snapshots: contents.snapshots.clone() };
        let mut segments = list_segments(&files, &contents.segments).map_err(failed)?;
        // Their removal was under way: some may be gone already, and a gap among them means nothing.
        let below = segments.partition_point(|segment| segment.is_sealed() && segment.end().offset <= durable_start);
        retired.dead.extend(segments.drain(..below));
        let (segments, new) = match segments {
            segments if segments.is_empty() => {
                let base = checkpoint.as_ref().map_or(Offset::ZERO, |checkpoint| checkpoint.log_start);
                let base = base.max(durable_start);
                (vec![Arc::new(Segment::empty(base))], true)
            }
            segments => (segments, false),
        };
        let (first, last) = (Arc::clone(&segments[0]), Arc::clone(&segments[segments.len() - 1]));
        let start = checkpoint.as_ref().map_or(first.base, |checkpoint| checkpoint.log_start.max(first.base));
        let start = start.max(durable_start);
        let point = LogPosition { offset: first.base, segment: first.base, position: 0 };
        let mark = RecoveryMark { point, producers: None, largest_timestamp: Timestamp::NONE };
        let shared = Shared {
            files,
            segments: ArcSwap::from_pointee(segments),
            start: AtomicI64::new(start.0),
            epochs: ArcSwap::from_pointee(EpochHistory::default()),
            cleaned: Mutex::new(cleaned),
            waiting: AtomicUsize::new(0),
            moved: (Mutex::new(()), Condvar::new()),
        };
        let active = if new { Active::empty(last, false) } else { Active::new(last, true) };
        let mut log = Log {
            shared: Arc::new(shared),
            latest_epoch: None,
            config,
            active,
            producers: Producers::default(),
            durable: point,
            recovery: mark,
            stable: mark,
            opened: RecoveryMark::START,
            committed: Offset(i64::MAX),
            unsynced,
            syncing: false,
            cutting: false,
            named: synced,
            failed: None,
            retired,
            replacing: false,
            cuts: 0,
        };
        log.producers.observe(now);
        let mut recovered = log.recover(stored.map(|(epochs, _)| epochs), checkpoint, new)?;
        if recovered.damaged.is_none() && log.end().offset < start {
            // It was to begin anew there, and nothing of that is left but the file that says so; or what was deleted
            // had never been synced. Offsets below are used.
            recovered.truncated_bytes += log.size_in_bytes();
            log.reset_to(start).map_err(|error| match error {
                TruncateError::Append(error) => OpenError::Append(error),
                busy @ TruncateError::Busy => failed(io::Error::other(busy)),
            })?;
            log.sync_recovered()?;
        }
        let mut cleaned = log.shared.cleaned.lock();
        *cleaned = cleaned.cut(log.end().offset);
        drop(cleaned);
        Ok((log, recovered))
    }

    fn recover(
        &mut self,
        epochs: Option<EpochHistory>,
        checkpoint: Option<Checkpoint>,
        new: bool,
    ) -> Result<Recovered, OpenError> {
        let had_checkpoint = checkpoint.is_some();
        let checkpoint = checkpoint.unwrap_or_default();
        let segments = self.shared.segments.load_full();
        let mut from = checkpoint.recovery_point;
        let first = LogPosition { offset: segments[0].base, segment: segments[0].base, position: 0 };
        if from.segment < first.segment || !had_checkpoint {
            // Retention has moved on since, or nothing is known: begin with what is there.
            from = first;
        }
        // Nothing below the log's start can be lost any more.
        let high_watermark = match checkpoint.high_watermark {
            below if below <= self.retired.durable_start => Offset::ZERO,
            above => above,
        };
        let found = |at: &usize| segments[*at].end().position >= from.position;
        let at = match segments.binary_search_by_key(&from.segment, |segment| segment.base).ok().filter(found) {
            Some(at) => at,
            None if high_watermark == Offset::ZERO => {
                from = first;
                0
            }
            None => return Ok(self.damaged(from, from.segment, 0, "what was synced is missing")),
        };
        let len = segments[at].end().position;
        self.load_epochs(epochs, &segments, from).map_err(|error| self.io(error))?;
        let usable = if had_checkpoint && from == checkpoint.recovery_point { Some(&checkpoint) } else { None };
        let producers_known = self.load_producers_at(from, usable).map_err(|error| self.io(error))?;
        let last = segments.len() - 1;
        if usable.is_some() && at == last && len == from.position {
            // Nothing was written after the recovery point: as good as a clean close.
            let end = SegmentEnd { offset: from.offset, position: from.position };
            segments[at].publish_end(end);
            segments[at].raise_timestamp(checkpoint.largest_timestamp);
            self.active.largest_timestamp = checkpoint.largest_timestamp;
            self.durable = from;
            if !producers_known {
                self.replay_producers(from.offset).map_err(|error| self.io(error))?;
            }
            self.forget_epochs_after(from.offset);
            self.recovery = RecoveryMark::of(&checkpoint);
            self.stable = self.recovery;
            return match high_watermark > from.offset {
                true => Ok(self.damaged(from, from.segment, len, "the file ends before what was synced")),
                false => Ok(Recovered::default()),
            };
        }
        if new {
            self.forget_epochs_after(from.offset);
            return match from.offset > self.start() || high_watermark > from.offset {
                true => Ok(self.damaged(from, from.segment, 0, "the files are gone")),
                false => Ok(Recovered::default()),
            };
        }
        self.opened = usable.map_or(RecoveryMark::START, RecoveryMark::of);
        let walked = self.walk(&segments, at, from, &checkpoint).map_err(|error| self.io(error))?;
        let lost = walked.end.offset < high_watermark
            || walked.fault.is_some() && self.goes_on(&segments, walked.end).map_err(|error| self.io(error))?;
        if lost && !cfg!(zoo = "B17") {
            let reason = walked.fault.unwrap_or_else(|| "the log ends before what was synced".into());
            let mut recovered = self.damaged(walked.end, walked.end.segment, walked.end.position, &reason);
            recovered.scanned_bytes = walked.scanned;
            return Ok(recovered);
        }
        let truncated_bytes = self.drop_after(&segments, walked.end).map_err(|error| self.io(error))?;
        if !producers_known {
            self.replay_producers(walked.end.offset).map_err(|error| self.io(error))?;
        }
        self.drop_snapshots_after(walked.end.offset).map_err(|error| self.io(error))?;
        self.forget_epochs_after(walked.end.offset);
        let start = self.start().min(walked.end.offset);
        self.shared.start.store(start.0, std::sync::atomic::Ordering::Release);
        // What was read may never have been synced.
        self.unsynced.cut = true;
        self.unsynced.names = true;
        self.unsynced.checkpoint = true;
        self.unsynced.producers = true;
        self.sync_recovered()?;
        Ok(Recovered { scanned_bytes: walked.scanned, truncated_bytes, damaged: None })
    }

    /// Whether what ends the log lies among what was deleted, and what was not goes on behind it. A sync takes all that
    /// is before with it, and what is deleted was acknowledged: that is damage, and no torn write.
    fn goes_on(&self, segments: &[Arc<Segment>], fault: LogPosition) -> io::Result<bool> {
        let start = self.retired.durable_start;
        if fault.offset >= start {
            return Ok(false);
        }
        for segment in segments.iter().filter(|segment| segment.base >= fault.segment) {
            let file = segment.log_file(&self.shared.files)?;
            let (from, len) = (if segment.base == fault.segment { fault.position } else { 0 }, file.len()?);
            let mut batches = WholeBatches::new(file, from, len);
            while let Ok(Some((header, batch))) = batches.next() {
                if header.next_offset() > start && crc_matches(&batch) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn sync_recovered(&mut self) -> Result<(), OpenError> {
        if let Some(plan) = self.begin_sync() {
            let result = plan.run();
            self.complete_sync(plan, result)?;
            if self.durable != self.end() {
                return Err(self.io(io::Error::other("no file descriptor to sync what was recovered with")));
            }
        }
        Ok(())
    }

    /// Checks every batch from a position on and takes it in. Leaves the last segment with a good batch active.
    fn walk(
        &mut self,
        segments: &[Arc<Segment>],
        at: usize,
        from: LogPosition,
        checkpoint: &Checkpoint,
    ) -> io::Result<Walked> {
        let lens: Vec<u64> = segments[at..].iter().map(|segment| segment.end().position).collect();
        let holes_below = self.shared.cleaned.lock().holes_below;
        self.begin_walk(&segments[at], from, checkpoint)?;
        let mut end = from;
        let mut scanned = 0;
        for (number, (segment, len)) in segments[at..].iter().zip(lens).enumerate() {
            if segment.base != end.offset && segment.base != from.segment {
                let fault = format!("the log goes on at {}, not at {}", segment.base, end.offset);
                return Ok(Walked { end, scanned, fault: Some(fault) });
            }
            if segment.base != from.segment {
                self.walk_into(segment)?;
                end = LogPosition { offset: segment.base, segment: segment.base, position: 0 };
            }
            let file = segment.log_file(&self.shared.files)?;
            let mut batches = WholeBatches::new(file, end.position, len);
            let fault = loop {
                let (header, batch) = match batches.next() {
                    Ok(Some(next)) => next,
                    Ok(None) => break None,
                    Err(ScanError::Invalid { error, .. }) => break Some(error.to_string()),
                    Err(ScanError::Io(error)) => return Err(error),
                };
                if let Some(fault) = fault_of(&header, &batch, end.offset, holes_below) {
                    break Some(fault);
                }
                self.believe_epoch(&header);
                self.take_in(&header, header.leader_epoch, header.base_offset, end.position);
                scanned += batch.len() as u64;
                end.offset = header.next_offset();
                end.position = batches.position();
            };
            let next = segments.get(at + number + 1).map(|next| next.base);
            if let Some(next) = next.filter(|next| fault.is_none() && *next > end.offset && *next <= holes_below) {
                // Compaction took the last records of the segment.
                end.offset = next;
            }
            segment.publish_end(SegmentEnd { offset: end.offset, position: end.position });
            if fault.is_some() {
                return Ok(Walked { end, scanned, fault });
            }
        }
        Ok(Walked { end, scanned, fault: None })
    }

    /// A file of epochs may have outlived the batches it speaks of. One that begins at the end may be true (E1).
    fn forget_epochs_after(&mut self, end: Offset) {
        self.change_epochs(|epochs| epochs.truncate(Offset(end.0.saturating_add(1))));
    }

    /// A file of epochs may be older than the batches, from before a cut. Where a batch says otherwise, what it says of
    /// later ones is no better.
    fn believe_epoch(&mut self, header: &BatchHeader) {
        let (epoch, base, last) = (header.leader_epoch, header.base_offset, header.last_offset());
        let start = self.start();
        // Of what lies below the start nothing is known any more, and nothing needs to be.
        if last >= start && self.shared.epochs.load().epoch_at(last) != Some(epoch) {
            self.change_epochs(|epochs| epochs.assign(epoch, base.max(start)));
        }
    }

    /// Prepares the segment of the recovery point to take in more: its index is kept as far as it is durable.
    pub(crate) fn begin_walk(
        &mut self,
        segment: &Arc<Segment>,
        from: LogPosition,
        checkpoint: &Checkpoint,
    ) -> io::Result<()> {
        let files = &self.shared.files;
        let mut entries = Vec::new();
        if let Ok(file) = segment.index_file(files)
            && let Ok(count) = index::count_entries(file.as_ref(), segment.base)
        {
            // Beyond the recovery point pages may be missing; each entry says for itself whether it is whole.
            entries = index::read_whole_entries(file.as_ref(), segment.base, count)?;
            entries.retain(|entry| u64::from(entry.position) < from.position);
            entries.sort_by_key(|entry| entry.position);
            entries.dedup_by_key(|entry| entry.position);
        }
        segment.set_sealed(false);
        segment.publish_end(SegmentEnd { offset: from.offset, position: from.position });
        segment.replace_index(files, &entries)?;
        let largest = match from == checkpoint.recovery_point {
            true => checkpoint.largest_timestamp,
            false => Timestamp::NONE,
        };
        segment.raise_timestamp(largest);
        self.active = Active {
            written_entries: Some(entries.len() as u32),
            largest_timestamp: largest,
            ..Active::new(Arc::clone(segment), true)
        };
        Ok(())
    }

    /// The walk goes on in the next file: seals the one before.
    fn walk_into(&mut self, segment: &Arc<Segment>) -> io::Result<()> {
        let mut list = Vec::clone(&self.shared.segments.load());
        list.retain(|listed| listed.base < segment.base);
        self.shared.segments.store(Arc::new(list));
        segment.set_sealed(false);
        segment.publish_end(SegmentEnd { offset: segment.base, position: 0 });
        segment.replace_index(&self.shared.files, &[])?;
        self.activate(Arc::clone(segment));
        Ok(())
    }

    /// Cuts the files behind the end of the walk and removes the segments after it. Returns how many bytes went.
    fn drop_after(&mut self, found: &[Arc<Segment>], end: LogPosition) -> io::Result<u64> {
        let files = &self.shared.files;
        let file = self.active.segment.log_file(files)?;
        let mut dropped = file.len()?.saturating_sub(end.position);
        if dropped > 0 {
            file.truncate(end.position)?;
        }
        for segment in found.iter().filter(|segment| segment.base > end.segment) {
            dropped += segment.end().position;
            files.disk.remove(&files.path(segment.base, LOG))?;
            match files.disk.remove(&files.path(segment.base, INDEX)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let mut list = Vec::clone(&self.shared.segments.load());
        list.retain(|segment| segment.base <= end.segment);
        self.shared.segments.store(Arc::new(list));
        Ok(dropped)
    }

    /// The epoch history as the file has it, or from the batches below the recovery point if it is not whole.
    fn load_epochs(
        &mut self,
        stored: Option<EpochHistory>,
        segments: &[Arc<Segment>],
        to: LogPosition,
    ) -> io::Result<()> {
        if let Some(history) = stored {
            self.set_epochs(history);
            return Ok(());
        }
        let files = &self.shared.files;
        let mut history = EpochHistory::default();
        for segment in segments.iter().filter(|segment| segment.base <= to.segment) {
            let limit = if segment.base == to.segment { to.position } else { segment.end().position };
            if limit == 0 {
                continue;
            }
            let mut headers = Headers::new(segment.log_file(files)?, 0, limit);
            // What does not read ends the walk here and is reported by who reads it.
            while let Ok(Some((_, header))) = headers.next() {
                if history.latest().is_none_or(|latest| latest < header.leader_epoch) {
                    history.assign(header.leader_epoch, header.base_offset);
                }
            }
        }
        self.unsynced.epochs = true;
        self.set_epochs(history);
        Ok(())
    }

    /// Takes the producers as they were at the recovery point. False if they must be found by reading batches.
    fn load_producers_at(&mut self, from: LogPosition, checkpoint: Option<&Checkpoint>) -> io::Result<bool> {
        let Some(checkpoint) = checkpoint else {
            return Ok(from.offset == self.start() && self.retired.snapshots.is_empty());
        };
        let Some(offset) = checkpoint.producers else { return Ok(true) };
        self.load_snapshot(offset)
    }

    fn load_snapshot(&mut self, offset: Offset) -> io::Result<bool> {
        let files = &self.shared.files;
        let bytes = match files.disk.read(&files.path(offset, PRODUCERS)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let Some(producers) = snapshot::decode(&bytes, offset) else { return Ok(false) };
        self.producers = producers;
        Ok(true)
    }

    /// Builds the producers from the newest whole snapshot at or below `end` and the batches after it.
    pub(crate) fn replay_producers(&mut self, end: Offset) -> io::Result<()> {
        self.producers = Producers::default();
        let mut from = Offset::ZERO;
        for offset in self.retired.snapshots.clone().into_iter().rev().filter(|offset| *offset <= end) {
            if self.load_snapshot(offset)? {
                from = offset;
                break;
            }
        }
        for segment in self.shared.segments.load_full().iter().filter(|segment| segment.end().offset > from) {
            let limit = segment.end().position;
            if limit == 0 {
                continue;
            }
            let files = &self.shared.files;
            let position = match segment.locate(files, from, limit) {
                Ok(Some((position, _))) => position,
                Ok(None) => continue,
                Err(ScanError::Io(error)) => return Err(error),
                // Below the recovery point: the scrub and the readers report it.
                Err(ScanError::Invalid { .. }) => continue,
            };
            let mut headers = Headers::new(segment.log_file(files)?, position, limit);
            while let Ok(Some((_, header))) = headers.next() {
                if header.base_offset >= from && header.base_offset < end && header.is_idempotent() {
                    self.producers.apply(&header, header.base_offset);
                }
            }
        }
        self.unsynced.producers = true;
        Ok(())
    }

    fn damaged(&mut self, end: LogPosition, segment: Offset, position: u64, reason: &str) -> Recovered {
        let damage = Damage { from: end.offset, segment, position, reason: reason.into() };
        self.fail(format!("damaged at {damage}"));
        Recovered { damaged: Some(damage), ..Recovered::default() }
    }

    fn io(&self, error: io::Error) -> OpenError {
        OpenError::Io { path: self.shared.files.dir.clone(), error }
    }
}

/// What is wrong with the next batch of a walk that has come to `expected`.
fn fault_of(header: &BatchHeader, batch: &[u8], expected: Offset, holes_below: Offset) -> Option<String> {
    let base = header.base_offset;
    if base != expected && !(expected < base && base <= holes_below) {
        return Some(format!("a batch has offset {base}, not {expected}"));
    }
    if !crc_matches(batch) {
        return Some(format!("the checksum of the batch at offset {base} is wrong"));
    }
    None
}

/// The epoch history and log start as the file has them; none if it is not whole.
fn read_epochs(files: &Files) -> io::Result<Option<(EpochHistory, Offset)>> {
    Ok(EpochHistory::decode(&files.disk.read(&files.dir.join(EPOCHS_FILE))?))
}

pub(crate) fn into_io(error: ScanError) -> io::Error {
    match error {
        ScanError::Io(error) => error,
        invalid => io::Error::new(io::ErrorKind::InvalidData, invalid),
    }
}

/// The segments as their files are: each ends where the next begins, and the last is to be found out.
fn list_segments(files: &Files, bases: &[Offset]) -> io::Result<Vec<Arc<Segment>>> {
    let mut segments = Vec::with_capacity(bases.len());
    for (number, &base) in bases.iter().enumerate() {
        let position = files.disk.file_len(&files.path(base, LOG))?;
        let next = bases.get(number + 1).copied();
        // A file larger than any that was ever written is read as far as positions go.
        let position = position.min(u64::from(u32::MAX));
        let offset = next.unwrap_or(base).min(Offset(base.0.saturating_add(i64::from(u32::MAX))));
        let timestamp = if next.is_none() { Some(Timestamp::NONE) } else { None };
        segments.push(Arc::new(Segment::new(base, SegmentEnd { offset, position }, timestamp, next.is_some())));
    }
    Ok(segments)
}
