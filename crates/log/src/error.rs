//! What can go wrong, one narrow type per operation.
//!
//! Four kinds never mix: a refusal changes nothing, no space is retriable, an I/O failure takes the log out of service
//! (L10), damage is told with its place (L5).

use std::{fmt, io, path::PathBuf, sync::Arc};

use ottla_types::Offset;

use crate::{
    disk::{is_out_of_files, is_out_of_room},
    scan::ScanError,
};

/// Why nothing was appended. The log ends where it did, and nothing of the batches is visible (L11).
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk is full; the same call may succeed once there is room.
    #[error("no space on the disk for {bytes} bytes")]
    NoSpace {
        /// Bytes of the batches.
        bytes: u64,
    },
    /// The process or the system has no file descriptor left; the same call may succeed once it has.
    #[error("no file descriptor left to store the batches with")]
    NoFiles,
    /// A batch does not fit a segment: RECORD_LIST_TOO_LARGE.
    #[error("a batch of {size} bytes is larger than a segment, {limit} bytes")]
    TooLarge {
        /// Bytes of the batch.
        size: u64,
        /// Bytes of a segment.
        limit: u64,
    },
    /// The header is not that of the bytes, or offsets would pass the largest: a bug of the caller.
    #[error("the batch cannot be stored: {0}")]
    Impossible(&'static str),
    /// What a leader sent cannot follow in its follower's log (L1).
    #[error("it does not continue the leader's log: {0}")]
    Foreign(Arc<str>),
    /// An earlier failure made the log's state unknown; it takes nothing more until it is opened again.
    #[error("the log is out of service: {0}")]
    Failed(Arc<str>),
}

/// A sync failed. Final for the log, and by rule L10 for its directory: what was not synced before is not to be
/// believed, whatever a later sync says.
#[derive(Clone, Debug)]
pub struct SyncError(Arc<str>);

impl SyncError {
    /// A sync whose outcome is not known, such as that of a thread that ended early.
    pub fn lost() -> SyncError {
        SyncError("nobody knows how it ended".into())
    }

    pub(crate) fn new(what: &str, error: &io::Error) -> SyncError {
        SyncError(format!("{what}: {error}").into())
    }
}

impl fmt::Display for SyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sync failed: {}", self.0)
    }
}

impl std::error::Error for SyncError {}

/// Why a log could not be opened at all. Nothing was changed that another attempt would need.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory could not be read or prepared.
    #[error("{}: {error}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// What recovery found could not be made durable.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// What recovery found could not be brought into order, such as on a full disk.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why a read got nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is not in the log.
    #[error("offset {offset} is outside of {start} to {end}")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// The first offset of the log.
        start: Offset,
        /// The end of what may be read.
        end: Offset,
    },
    /// A file could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What lies where a batch should be is none.
    #[error("segment {segment}, byte {position}: {reason}")]
    Damaged {
        /// Base offset of the segment.
        segment: Offset,
        /// Position in its file.
        position: u64,
        /// What is wrong.
        reason: String,
    },
}

impl ReadError {
    pub(crate) fn from_scan(segment: Offset, error: ScanError) -> ReadError {
        match error {
            ScanError::Io(error) => ReadError::Io(error),
            ScanError::Invalid { position, error } => {
                ReadError::Damaged { segment, position, reason: error.to_string() }
            }
        }
    }
}

/// Why a pass of compaction ended before its end. The log serves on, cleaned up to some segment.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// Its owner stopped it, or the log was cut or went away meanwhile.
    #[error("stopped")]
    Stopped,
    /// There was no room, or no file descriptor: another pass may find some.
    #[error("cannot clean for now: {0}")]
    Later(io::Error),
    /// What is to be cleaned is damaged; it is left as it is.
    #[error("damaged: {0}")]
    Damaged(Damage),
    /// A file could not be read, written or renamed.
    #[error(transparent)]
    Io(io::Error),
    /// A sync failed, which is final for the directory (L10).
    #[error(transparent)]
    Sync(#[from] SyncError),
}

impl From<io::Error> for CleanError {
    fn from(error: io::Error) -> CleanError {
        if is_out_of_room(&error) || is_out_of_files(&error) { CleanError::Later(error) } else { CleanError::Io(error) }
    }
}

impl From<ReadError> for CleanError {
    fn from(error: ReadError) -> CleanError {
        match error {
            // Trimmed away.
            ReadError::OutOfRange { .. } => CleanError::Stopped,
            ReadError::Io(error) => error.into(),
            ReadError::Damaged { segment, position, reason } => {
                CleanError::Damaged(Damage { from: segment, segment, position, reason })
            }
        }
    }
}

/// Why a truncation was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TruncateError {
    /// A sync is under way, to be completed first, or compaction is replacing files.
    #[error("a sync or a compaction of the log is under way")]
    Busy,
    /// A file could not be changed; the log is out of service.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Data below what was durable is missing or does not check: not a torn write but loss, to be told apart (L5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Nothing from here on can be served.
    pub from: Offset,
    /// Base offset of the segment it is in.
    pub segment: Offset,
    /// Position in its file.
    pub position: u64,
    /// What was found.
    pub reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}, segment {}, byte {}: {}", self.from, self.segment, self.position, self.reason)
    }
}
