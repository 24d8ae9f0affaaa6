//! Segments on their way out: unlisted, renamed once it is safe, removed after a delay.
//!
//! A segment is renamed only when a later one is durable, and so is the start above it: otherwise a power cut could
//! take both, or leave an older one in front of a gap, and nobody could tell that from loss. What decides that a
//! segment must go is the node's retention.

use std::{io, path::PathBuf, sync::Arc};

use ottla_types::{Offset, Timestamp};

use crate::{
    disk::Disk,
    log::Log,
    segment::{INDEX, LOG, Segment},
};

/// Ending of a file that waits to be removed.
pub(crate) const DELETED: &str = ".deleted";

#[derive(Debug, Default)]
pub(crate) struct Retired {
    /// Not listed any more, under their own names still.
    pub(crate) dead: Vec<Arc<Segment>>,
    /// Renamed files, and since when; `None` until `remove_deleted` has seen them.
    pub(crate) files: Vec<(PathBuf, Option<Timestamp>)>,
    /// The log start that is on disk.
    pub(crate) durable_start: Offset,
    /// Offsets of the producer snapshots on disk, oldest first.
    pub(crate) snapshots: Vec<Offset>,
}

impl Log {
    /// Renames the files of dead segments that a durable one follows, below a durable start.
    pub(crate) fn retire_dead(&mut self) {
        if self.replacing {
            return;
        }
        let (segment, start) = (self.durable.segment, self.retired.durable_start);
        let safe = |dead: &Arc<Segment>| dead.base < segment && dead.end().offset <= start;
        let (safe, dead): (Vec<_>, _) = std::mem::take(&mut self.retired.dead).into_iter().partition(safe);
        self.retired.dead = dead;
        for segment in safe {
            self.retire(segment.base);
        }
    }

    /// Renames the files of a segment. One that cannot be renamed is left for the next start to find below the log
    /// start.
    pub(crate) fn retire(&mut self, base: Offset) {
        let files = &self.shared.files;
        for ending in [LOG, INDEX] {
            let path = files.path(base, ending);
            let mut deleted = path.clone().into_os_string();
            deleted.push(DELETED);
            if files.disk.rename(&path, deleted.as_ref()).is_ok() {
                self.retired.files.push((deleted.into(), None));
                self.unsynced.names = true;
            }
        }
    }

    /// Removes the files of segments that went `file_delete_delay_ms` ago or longer. Returns how many files went.
    pub fn remove_deleted(&mut self, now: Timestamp) -> usize {
        let mut deleted = self.take_deleted(now);
        let removed = deleted.remove();
        self.put_back(deleted);
        removed
    }

    /// The files of segments that went `file_delete_delay_ms` ago or longer, for the caller to remove.
    pub fn take_deleted(&mut self, now: Timestamp) -> DeletedFiles {
        let delay_ms = self.config.file_delete_delay_ms;
        let due = self.retired.files.extract_if(.., |(_, since)| {
            // A clock that went back starts the delay again.
            let since = since.get_or_insert(now);
            *since = now.min(*since);
            now.0.saturating_sub(since.0) >= delay_ms
        });
        let paths = due.map(|(path, _)| path).collect();
        DeletedFiles { disk: Arc::clone(&self.shared.files.disk), paths }
    }

    /// Takes back those that could not be removed, to be tried again.
    pub fn put_back(&mut self, deleted: DeletedFiles) {
        self.retired.files.extend(deleted.paths.into_iter().map(|path| (path, None)));
    }
}

/// Files that belong to nothing any more. Those that are there when the process ends go after the next start.
#[derive(Debug)]
#[must_use = "the files stay until the next start"]
pub struct DeletedFiles {
    disk: Arc<dyn Disk>,
    paths: Vec<PathBuf>,
}

impl DeletedFiles {
    /// Removes them, which takes long with large ones: not for a place where anybody waits. Returns how many went; the
    /// others are for [`Log::put_back`].
    pub fn remove(&mut self) -> usize {
        let before = self.paths.len();
        self.paths.retain(|path| self.disk.remove(path).is_err_and(|error| error.kind() != io::ErrorKind::NotFound));
        before - self.paths.len()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}
