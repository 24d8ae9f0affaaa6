//! Making it durable: what a sync covers, and how far recovery may trust the disk.
//!
//! A sync has three parts so that none of it happens under the partition's lock: `begin_sync` says what is to be
//! done, [`SyncPlan::run`] does it on a thread that may wait, or [`SyncPlan::run_together`] for several logs, and
//! `complete_sync` takes the result. A failure is final (L10). Every so often a sync is a checkpoint: it also covers
//! the index and a producer snapshot, and only then the recovery point moves (L8). Next: `recover.rs` for who relies
//! on that.

use std::{io, mem, path::PathBuf, sync::Arc};

use ottla_types::{Offset, Timestamp};

use crate::{
    checked_file,
    cleaned::CleanMark,
    disk::{Disk, FileSystem, is_out_of_files, is_out_of_room},
    error::SyncError,
    log::{Log, LogPosition, Shared},
    segment::Segment,
    snapshot,
};

/// File name of the leader-epoch history.
pub(crate) const EPOCHS_FILE: &str = "epochs";
/// Ending of a producer snapshot.
pub(crate) const PRODUCERS: &str = ".producers";

/// From here on a sync is preceded by the writing of all but the last of it. While the system writes a page it makes
/// those wait who append to it.
const BULK_BYTES: u64 = 1 << 20;
/// What is left to the sync then: more than one page, of whatever size, that an append may still grow.
const TAIL_BYTES: u64 = 128 << 10;

/// What the node stores for a log, and hands in when it opens it: how far it may be trusted without reading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything below is durable, index and producer state included: recovery begins here. After a clean close it
    /// is the end.
    pub recovery_point: LogPosition,
    /// Everything below was durable and committed when this was made; damage below is loss, not a torn write (L5).
    pub high_watermark: Offset,
    /// The first offset served.
    pub log_start: Offset,
    /// The snapshot that holds the producers as they were at the recovery point; none if there were none.
    pub producers: Option<Offset>,
    /// The largest timestamp of the recovery point's segment below it.
    pub largest_timestamp: Timestamp,
}

/// The recovery point and what was known there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecoveryMark {
    pub(crate) point: LogPosition,
    pub(crate) producers: Option<Offset>,
    pub(crate) largest_timestamp: Timestamp,
}

impl RecoveryMark {
    /// Everything is to be read.
    pub(crate) const START: RecoveryMark = RecoveryMark {
        point: LogPosition { offset: Offset::ZERO, segment: Offset::ZERO, position: 0 },
        producers: None,
        largest_timestamp: Timestamp::NONE,
    };

    pub(crate) fn of(checkpoint: &Checkpoint) -> RecoveryMark {
        let Checkpoint { recovery_point: point, producers, largest_timestamp, .. } = *checkpoint;
        RecoveryMark { point, producers, largest_timestamp }
    }
}

/// What the next sync has to cover.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    /// Bytes appended since the last sync began.
    pub(crate) bytes: u64,
    /// Bytes appended since the last checkpoint began.
    pub(crate) since_checkpoint: u64,
    /// Segments closed since then.
    pub(crate) sealed: Vec<Arc<Segment>>,
    /// Files were created, renamed or removed in the directory.
    pub(crate) names: bool,
    /// The directory itself was created.
    pub(crate) parent: bool,
    /// The epoch history or the log start changed.
    pub(crate) epochs: bool,
    /// Producers changed since the last snapshot.
    pub(crate) producers: bool,
    /// The file of the active segment was cut.
    pub(crate) cut: bool,
    /// Batches were copied that have holes before them; this is where the last of these begins.
    pub(crate) holes_below: Offset,
    /// The next sync is to be a checkpoint.
    pub(crate) checkpoint: bool,
}

impl Unsynced {
    pub(crate) fn is_dirty(&self) -> bool {
        self.bytes > 0
            || !self.sealed.is_empty()
            || self.names
            || self.parent
            || self.epochs
            || self.cut
            || self.checkpoint
    }

    /// All that was there is forgotten; the directory itself may still be new.
    pub(crate) fn begin_anew(&mut self) {
        let parent = self.parent;
        *self =
            Unsynced { names: true, parent, epochs: true, producers: true, checkpoint: true, ..Unsynced::default() };
    }

    /// Takes back what a plan covered and did not do.
    fn put_back(&mut self, plan: Unsynced, synced: Synced) {
        let Unsynced { bytes, since_checkpoint, mut sealed, names, parent, .. } = plan;
        let Unsynced { epochs, producers, cut, holes_below, checkpoint, .. } = plan;
        if synced == Synced::Nothing {
            self.holes_below = self.holes_below.max(holes_below);
            self.bytes += bytes;
            sealed.append(&mut self.sealed);
            self.sealed = sealed;
            self.names |= names;
            self.parent |= parent;
            self.cut |= cut;
        }
        self.since_checkpoint += since_checkpoint;
        self.epochs |= epochs;
        self.producers |= producers;
        self.checkpoint |= checkpoint;
    }
}

/// How much of a plan was done. What was not is left to the next sync: nothing failed that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synced {
    /// All of it.
    Whole,
    /// The batches are durable. There was no room for the files beside them: epochs, a producer snapshot (L11).
    Batches,
    /// There was no file descriptor to do it with.
    Nothing,
}

/// One sync, to be run where waiting is allowed and handed back to [`Log::complete_sync`] whatever comes of it: the
/// log begins no other until then.
#[derive(Debug)]
pub struct SyncPlan {
    shared: Arc<Shared>,
    to: LogPosition,
    /// What it covers, to be put back if it is not done.
    dirty: Unsynced,
    active: Option<Arc<Segment>>,
    /// It makes the first segment's name durable.
    names_first: bool,
    index: Option<Arc<Segment>>,
    epochs: Option<Vec<u8>>,
    /// The log start that the epochs file holds.
    start: Offset,
    snapshot: Option<(Offset, Vec<u8>)>,
    obsolete: Vec<Offset>,
    mark: Option<RecoveryMark>,
}

impl SyncPlan {
    /// Everything below is durable once it has run.
    pub fn to(&self) -> LogPosition {
        self.to
    }

    /// Bytes of batches it covers.
    pub fn bytes(&self) -> u64 {
        self.dirty.bytes
    }

    /// Does it: blocks until the disk answers. Data first, then what speaks about it, names last.
    pub fn run(&self) -> Result<Synced, SyncError> {
        let files = &self.shared.files;
        let disk = files.disk.as_ref();
        match self.sync_batches() {
            Err((_, error)) if is_out_of_files(&error) => return Ok(Synced::Nothing),
            Err((what, error)) => return Err(SyncError::new(&what, &error)),
            Ok(()) => {}
        }
        // The batches behind a hole count only with the file that says so.
        match self.raise_holes() {
            Err(error) if is_out_of_room(&error) || is_out_of_files(&error) => return Ok(Synced::Nothing),
            Err(error) => return Err(SyncError::new("the file `cleaned`", &error)),
            Ok(()) => {}
        }
        let synced = match self.write_beside(disk) {
            Err((_, error)) if is_out_of_room(&error) || is_out_of_files(&error) => Synced::Batches,
            Err((what, error)) => return Err(SyncError::new(what, &error)),
            Ok(()) => Synced::Whole,
        };
        match self.sync_names(disk) {
            Err(error) if is_out_of_files(&error) => return Ok(Synced::Nothing),
            Err(error) => return Err(SyncError::new(&files.dir.display().to_string(), &error)),
            Ok(()) => {}
        }
        if synced == Synced::Whole {
            self.remove_obsolete();
        }
        Ok(synced)
    }

    /// Does several at once: what each syncs file by file is synced for all of them by a sync of the file system that
    /// their logs lie on, and once more if files were put in place. The outcomes are in the order of the plans.
    pub fn run_together(plans: &[SyncPlan], file_system: &dyn FileSystem) -> Vec<Result<Synced, SyncError>> {
        let mut outcomes: Vec<_> = plans.iter().map(SyncPlan::write_aside).collect();
        if let Err(error) = file_system.sync() {
            // It does not say whose bytes were lost.
            return vec![Err(error); plans.len()];
        }
        for (plan, outcome) in plans.iter().zip(&mut outcomes) {
            if let Ok(synced) = *outcome {
                *outcome = plan.put_in_place(synced);
            }
        }
        if plans.iter().any(SyncPlan::names_files)
            && let Err(error) = file_system.sync()
        {
            return vec![Err(error); plans.len()];
        }
        for (plan, _) in plans.iter().zip(&outcomes).filter(|(_, outcome)| matches!(outcome, Ok(Synced::Whole))) {
            plan.remove_obsolete();
        }
        outcomes
    }

    /// What can be done before the batches are durable.
    fn write_aside(&self) -> Result<Synced, SyncError> {
        let files = &self.shared.files;
        match self.write_out() {
            Err((_, error)) if is_out_of_files(&error) => return Ok(Synced::Nothing),
            Err((what, error)) => return Err(SyncError::new(&what, &error)),
            Ok(()) => {}
        }
        for segment in &self.dirty.sealed {
            match segment.log_file(files).and_then(|file| file.truncate(segment.end().position)) {
                Err(error) if is_out_of_files(&error) => return Ok(Synced::Nothing),
                Err(error) => return Err(SyncError::new(&format!("segment {}", segment.base), &error)),
                Ok(()) => {}
            }
        }
        for (what, path, bytes) in self.beside() {
            match checked_file::write_aside(files.disk.as_ref(), &path, bytes) {
                Err(error) if is_out_of_room(&error) || is_out_of_files(&error) => return Ok(Synced::Batches),
                Err(error) => return Err(SyncError::new(what, &error)),
                Ok(_) => {}
            }
        }
        Ok(Synced::Whole)
    }

    /// What can be done once they are, after the first half. Whatever it did gets a name that is yet to be synced.
    fn put_in_place(&self, synced: Synced) -> Result<Synced, SyncError> {
        let files = &self.shared.files;
        if synced == Synced::Nothing {
            return Ok(synced);
        }
        match self.raise_holes() {
            Err(error) if is_out_of_room(&error) || is_out_of_files(&error) => return Ok(Synced::Nothing),
            Err(error) => return Err(SyncError::new("the file `cleaned`", &error)),
            Ok(()) => {}
        }
        if synced == Synced::Batches {
            return Ok(synced);
        }
        for (what, path, _) in self.beside() {
            match checked_file::put_in_place(files.disk.as_ref(), &path) {
                Err(error) if is_out_of_room(&error) || is_out_of_files(&error) => return Ok(Synced::Batches),
                Err(error) => return Err(SyncError::new(what, &error)),
                Ok(()) => {}
            }
        }
        Ok(synced)
    }

    /// Whether it gives files their names, or another content.
    fn names_files(&self) -> bool {
        self.dirty.holes_below > Offset::ZERO || self.epochs.is_some() || self.snapshot.is_some()
    }

    /// The small files that speak about the batches.
    fn beside(&self) -> impl Iterator<Item = (&'static str, PathBuf, &[u8])> {
        let files = &self.shared.files;
        let epochs = self.epochs.as_ref().map(|bytes| ("epochs", files.dir.join(EPOCHS_FILE), &bytes[..]));
        let snapshot = self.snapshot.as_ref();
        let snapshot =
            snapshot.map(|(offset, bytes)| ("producer snapshot", files.path(*offset, PRODUCERS), &bytes[..]));
        epochs.into_iter().chain(snapshot)
    }

    fn remove_obsolete(&self) {
        let files = &self.shared.files;
        for offset in &self.obsolete {
            // One that stays is tried again after the next start.
            let _ = files.disk.remove(&files.path(*offset, PRODUCERS));
        }
    }

    /// Leaves so little to the sync that an append hardly ever waits for it.
    fn write_out(&self) -> Result<(), (String, io::Error)> {
        match self.active.as_ref().filter(|_| self.dirty.bytes >= BULK_BYTES) {
            Some(segment) => {
                write_out(segment, &self.shared).map_err(|error| (format!("segment {}", segment.base), error))
            }
            None => Ok(()),
        }
    }

    fn sync_batches(&self) -> Result<(), (String, io::Error)> {
        self.write_out()?;
        let sealed = self.dirty.sealed.iter().map(|segment| (segment, true));
        for (segment, sealed) in sealed.chain(self.active.iter().map(|segment| (segment, false))) {
            sync_segment(segment, &self.shared, sealed)
                .map_err(|error| (format!("segment {}", segment.base), error))?;
        }
        match &self.index {
            Some(segment) => {
                sync_index(segment, &self.shared).map_err(|error| (format!("index {}", segment.base), error))
            }
            None => Ok(()),
        }
    }

    fn raise_holes(&self) -> io::Result<()> {
        match self.dirty.holes_below {
            Offset::ZERO => Ok(()),
            to => self.shared.change_cleaned(|mark| CleanMark { holes_below: mark.holes_below.max(to), ..mark }),
        }
    }

    fn write_beside(&self, disk: &dyn Disk) -> Result<(), (&'static str, io::Error)> {
        for (what, path, bytes) in self.beside() {
            checked_file::write(disk, &path, bytes).map_err(|error| (what, error))?;
        }
        Ok(())
    }

    fn sync_names(&self, disk: &dyn Disk) -> io::Result<()> {
        let dir = &self.shared.files.dir;
        if self.dirty.names || self.names_files() {
            disk.sync_dir(dir)?;
        }
        match dir.parent() {
            Some(parent) if self.dirty.parent && !parent.as_os_str().is_empty() => disk.sync_dir(parent),
            _ => Ok(()),
        }
    }
}

fn write_out(segment: &Segment, shared: &Shared) -> io::Result<()> {
    let file = segment.log_file(&shared.files)?;
    // Once more for what was appended meanwhile, which is much less.
    for _ in 0..2 {
        file.write_out(segment.end().position.saturating_sub(TAIL_BYTES))?;
    }
    Ok(())
}

fn sync_segment(segment: &Segment, shared: &Shared, sealed: bool) -> io::Result<()> {
    let file = segment.log_file(&shared.files)?;
    if sealed {
        // Gives back the space that was reserved past the end.
        file.truncate(segment.end().position)?;
    }
    file.sync_data()?;
    if sealed { sync_index(segment, shared) } else { Ok(()) }
}

/// The index may be missing: it is only ever as good as the disk let it be.
fn sync_index(segment: &Segment, shared: &Shared) -> io::Result<()> {
    match segment.index_file(&shared.files) {
        Ok(file) => file.sync_data(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

impl Log {
    /// What a sync has to do now to make everything up to the end durable. `None`: nothing, one is under way, or the
    /// log is out of service.
    pub fn begin_sync(&mut self) -> Option<SyncPlan> {
        if self.syncing || self.failed.is_some() || !self.unsynced.is_dirty() {
            return None;
        }
        let to = self.end();
        let checkpoint = self.unsynced.checkpoint || self.unsynced.since_checkpoint >= self.config.checkpoint_bytes;
        let (mut mark, mut index, mut snapshot, mut obsolete) = (None, None, None, Vec::new());
        if checkpoint {
            self.write_index();
            index = self.active.created.then(|| Arc::clone(&self.active.segment));
            let mut last = self.retired.snapshots.last().copied();
            if self.unsynced.producers && !self.producers.is_empty() {
                snapshot = Some((to.offset, snapshot::encode(&self.producers, to.offset)));
                // The one before stays, should this one rot, and that of what a stored checkpoint may say.
                let older = self.retired.snapshots.iter().rev().skip(1).copied();
                obsolete = older.filter(|offset| Some(*offset) != self.stable.producers).collect();
                last = Some(to.offset);
            }
            let producers = if self.producers.is_empty() { None } else { last };
            mark = Some(RecoveryMark { point: to, producers, largest_timestamp: self.active.largest_timestamp });
        }
        let mut dirty = mem::take(&mut self.unsynced);
        dirty.checkpoint = checkpoint;
        if !checkpoint {
            self.unsynced.producers = mem::take(&mut dirty.producers);
            self.unsynced.since_checkpoint = mem::take(&mut dirty.since_checkpoint);
        }
        self.syncing = true;
        let writes = dirty.bytes > 0 || dirty.cut;
        Some(SyncPlan {
            shared: Arc::clone(&self.shared),
            to,
            active: (writes && self.active.created).then(|| Arc::clone(&self.active.segment)),
            names_first: dirty.names && self.active.created,
            index,
            epochs: dirty.epochs.then(|| self.shared.epochs.load().encode(self.start())),
            start: self.start(),
            snapshot,
            obsolete,
            mark,
            dirty,
        })
    }

    /// Takes the result of a plan that ran. After an error the log takes nothing more (L10).
    pub fn complete_sync(&mut self, plan: SyncPlan, result: Result<Synced, SyncError>) -> Result<(), SyncError> {
        self.syncing = false;
        let synced = match result {
            Ok(synced) => synced,
            Err(error) => {
                self.fail(error.to_string());
                return Err(error);
            }
        };
        if synced != Synced::Nothing {
            self.durable = plan.to;
            self.cutting &= !plan.dirty.cut;
            self.named |= plan.names_first;
        }
        if synced != Synced::Whole {
            self.unsynced.put_back(plan.dirty, synced);
            return Ok(());
        }
        if let Some((offset, _)) = plan.snapshot {
            self.retired.snapshots.retain(|before| *before != offset && !plan.obsolete.contains(before));
            self.retired.snapshots.push(offset);
        }
        if plan.epochs.is_some() {
            self.retired.durable_start = plan.start;
        }
        if let Some(mark) = plan.mark {
            self.recovery = mark;
            self.choose_stable(RecoveryMark::START);
        }
        self.retire_dead();
        Ok(())
    }

    /// Tells the log what is never cut: everything below `committed`, the high watermark. A checkpoint says nothing
    /// about what is above, so that a cut there leaves every stored one true. Unless it is told, all is committed.
    ///
    /// To lower it is to give up what was committed (an unclean election): a checkpoint that is made now must be stored
    /// before the log is cut below what an earlier one says.
    pub fn set_committed(&mut self, committed: Offset) {
        self.committed = committed;
        let opened = mem::replace(&mut self.opened, RecoveryMark::START);
        self.choose_stable(opened);
    }

    fn choose_stable(&mut self, otherwise: RecoveryMark) {
        let holds = |mark: &RecoveryMark| mark.point.offset <= self.committed;
        let marks = [self.recovery, self.stable, otherwise];
        self.stable = marks.into_iter().find(holds).unwrap_or(RecoveryMark::START);
    }

    /// Makes the next sync a checkpoint, so that the recovery point moves to the end.
    pub fn request_checkpoint(&mut self) {
        self.unsynced.checkpoint |= self.recovery.point != self.end();
    }

    /// Everything below is durable.
    pub fn durable_end(&self) -> LogPosition {
        self.durable
    }

    /// Where recovery would begin; at or below [`Log::durable_end`] and what is committed.
    pub fn recovery_point(&self) -> Offset {
        self.stable.point.offset
    }

    /// Bytes of batches that the next sync would make durable.
    pub fn unsynced_bytes(&self) -> u64 {
        self.unsynced.bytes
    }

    /// Whether a sync has anything to do: also a start that moved, whose segments go only after it.
    pub fn needs_sync(&self) -> bool {
        self.unsynced.is_dirty()
    }

    /// What the node is to store, for [`Log::open`].
    pub fn checkpoint(&self) -> Checkpoint {
        // An empty log has nothing to lose but its start, and may yet begin a little before (`Log::reset_to`).
        let empty = self.is_empty();
        let mark = if empty { RecoveryMark::START } else { self.stable };
        let RecoveryMark { point: recovery_point, producers, largest_timestamp } = mark;
        let high_watermark = if empty { Offset::ZERO } else { self.durable.offset.min(self.committed) };
        Checkpoint { recovery_point, high_watermark, log_start: self.start(), producers, largest_timestamp }
    }

    /// Syncs everything, so that the checkpoint is the end, if that is committed, and the next open reads no batch.
    /// Waits for the disk.
    pub fn close_clean(&mut self) -> Result<(), SyncError> {
        if self.syncing {
            return Err(SyncError::lost());
        }
        if let Some(why) = &self.failed {
            return Err(SyncError::new("the log is out of service", &io::Error::other(why.to_string())));
        }
        self.request_checkpoint();
        self.unsynced.checkpoint |= self.unsynced.producers;
        let end = self.end().position;
        if self.active.reserved > end {
            let released = self.active.segment.log_file(&self.shared.files).and_then(|file| file.truncate(end));
            released.map_err(|error| SyncError::new("the active segment", &error))?;
            self.active.reserved = 0;
        }
        let Some(plan) = self.begin_sync() else { return Ok(()) };
        let result = plan.run();
        let whole = matches!(result, Ok(Synced::Whole));
        self.complete_sync(plan, result)?;
        let missing = || SyncError::new("the files beside the log", &io::ErrorKind::StorageFull.into());
        if whole { Ok(()) } else { Err(missing()) }
    }
}
