//! Puts a compacted segment in the place of those it was made from, so that a power cut at any moment leaves either the
//! old ones or the new one (rule L9).
//!
//! The order is all there is to it. The new files are durable under names of their own, then the `cleaned` file says
//! what they replace: that is the moment it holds. Then readers get the new segment, then the files get their names,
//! and what a power cut interrupts the next start finishes. Readers that are on an old segment keep its files open.
//! Next: `cleaned.rs` for the file.

use std::sync::Arc;

use ottla_types::{Offset, Timestamp};

use crate::{
    cleaned::{CleanMark, finish_replacing},
    compact::{CleanPlan, Locked},
    error::{CleanError, SyncError},
    log::Log,
    segment::{CLEANED, Files, INDEX, LOG, Segment},
};

/// A durable segment and those it is to replace.
#[derive(Debug)]
pub(crate) struct Replacement {
    pub(crate) segment: Arc<Segment>,
    pub(crate) sources: Vec<Arc<Segment>>,
}

impl CleanPlan {
    /// Does it. After an error the log is as it was or, if the files can't get their names, goes on with the new
    /// segment and lets the next start finish.
    pub(crate) fn replace(&self, replacement: &Replacement, locked: Locked<'_>) -> Result<(), CleanError> {
        let files = &self.shared.files;
        let (from, to) = (replacement.segment.base, replacement.segment.end().offset);
        if let Err(stopped) = self.begin(locked) {
            discard(files, from);
            return Err(stopped);
        }
        if let Err(error) = self.prepare(replacement) {
            if !matches!(error, CleanError::Sync(_)) {
                discard(files, from);
                replacement.sources.iter().for_each(|source| source.attach());
                self.end(locked);
            }
            return Err(error);
        }
        sync_names(files)?;
        locked(&mut |log| log.install(replacement));
        finish_replacing(files, from, to)?;
        replacement.segment.attach();
        sync_names(files)?;
        self.end(locked);
        Ok(())
    }

    /// Everything up to the file that makes it hold. After an error it does not.
    fn prepare(&self, replacement: &Replacement) -> Result<(), CleanError> {
        let files = &self.shared.files;
        let (from, to) = (replacement.segment.base, replacement.segment.end().offset);
        for source in &replacement.sources {
            source.detach(files)?;
        }
        // The new names before the file that counts on them.
        sync_names(files)?;
        self.write(|mark| CleanMark { holes_below: mark.holes_below.max(to), replacing: Some((from, to)), ..mark })
    }

    /// Stores how far the log is clean, and from when on tombstones below may go.
    pub(crate) fn store_mark(
        &self,
        clean_to: Offset,
        horizon: Option<Timestamp>,
        locked: Locked<'_>,
    ) -> Result<(), CleanError> {
        self.begin(locked)?;
        let stored = self.write(|mark| CleanMark { clean_to, horizon, replacing: None, ..mark });
        let stored = stored.and_then(|()| sync_names(&self.shared.files));
        self.end(locked);
        stored
    }

    /// Without room the older file still holds; any other failure leaves nobody knowing.
    fn write(&self, change: impl FnOnce(CleanMark) -> CleanMark) -> Result<(), CleanError> {
        self.shared.change_cleaned(change).map_err(|error| match error.into() {
            CleanError::Io(error) => SyncError::new("the file `cleaned`", &error).into(),
            later => later,
        })
    }

    /// From here to `end` nobody cuts the log or renames files of it.
    fn begin(&self, locked: Locked<'_>) -> Result<(), CleanError> {
        let mut begun = false;
        locked(&mut |log| {
            begun = !log.replacing && log.cuts == self.cuts && log.failed.is_none();
            log.replacing |= begun;
        });
        if begun { Ok(()) } else { Err(CleanError::Stopped) }
    }

    fn end(&self, locked: Locked<'_>) {
        locked(&mut |log| {
            log.replacing = false;
            log.retire_dead();
        });
    }
}

impl Log {
    /// Shows readers the new segment. Sources that were trimmed away meanwhile have gone from the list, and with all of
    /// them goes the new one.
    fn install(&mut self, replacement: &Replacement) {
        let segment = &replacement.segment;
        let end = segment.end().offset;
        let stays = |listed: &Arc<Segment>| listed.base < segment.base || listed.base >= end;
        self.retired.dead.retain(stays);
        let mut list: Vec<_> = self.shared.segments.load().iter().filter(|listed| stays(listed)).cloned().collect();
        if end > self.start() {
            let at = list.partition_point(|listed| listed.base < segment.base);
            list.insert(at, Arc::clone(segment));
            self.shared.segments.store(Arc::new(list));
        } else {
            self.retired.dead.push(Arc::clone(segment));
        }
    }
}

/// Removes what was written of a segment that will not be.
pub(crate) fn discard(files: &Files, base: Offset) {
    for ending in [LOG, INDEX] {
        // One that stays is removed by the next start.
        let _ = files.disk.remove(&files.path(base, &format!("{ending}{CLEANED}")));
    }
}

fn sync_names(files: &Files) -> Result<(), CleanError> {
    let synced = files.disk.sync_dir(&files.dir);
    synced.map_err(|error| SyncError::new(&files.dir.display().to_string(), &error).into())
}
