//! One partition's log: segment files that are byte for byte Kafka's, and what makes them safe and quick to use.
//!
//! A library of its own: synchronous, without a runtime, without a network. [`Log`] is the single writer, [`LogReader`]
//! the read half that any number of threads share without a lock. Four ways to read: at an offset
//! ([`LogReader::read`], which names ranges of files for `sendfile`), by scanning ([`LogReader::batches`]), by
//! following the end ([`LogReader::follow`]), by time ([`LogReader::find_by_timestamp`]). `examples/follow.rs` shows
//! them.
//!
//! Durability in three steps, none of which waits under a lock: [`Log::begin_sync`], [`SyncPlan::run`] or for several
//! logs [`SyncPlan::run_together`] on a thread that may wait, [`Log::complete_sync`]. Compaction likewise:
//! [`Log::plan_clean`], [`CleanPlan::run`]. What the owner keeps for the next [`Log::open`] is a [`Checkpoint`].
//!
//! Not here: who leads, what is acknowledged, which segments are too old (`ottla-replica`, `ottla-node`), and what the
//! bytes of a batch mean (`ottla-records`).
//!
//! Reading order: `disk`, `segment`, `log`, `follower`, `sync`, `recover`, `reader`, `compact`; beside them `index`,
//! `epochs`, `producers`.

pub mod checked_file;
mod cleaned;
mod compact;
mod config;
mod disk;
mod epochs;
mod error;
mod follower;
mod index;
mod info;
mod key_map;
mod log;
mod producers;
mod reader;
mod recover;
mod retire;
mod scan;
mod scrub;
mod segment;
pub mod sim_disk;
mod sim_inode;
mod snapshot;
mod swap;
mod sync;
mod sys;

pub use checked_file::write_atomically;
pub use compact::{CleanPlan, CleanSettings, Cleaned, Dirtiness, Leave, Locked, peek_dirtiness};
pub use config::LogConfig;
pub use disk::{Disk, DiskFile, FileSystem, OsDisk, READ_BYTES_MAX, Space};
pub use epochs::{EpochHistory, EpochStart};
pub use error::{AppendError, CleanError, Damage, OpenError, ReadError, SyncError, TruncateError};
pub use info::SegmentInfo;
pub use log::{Appended, Log, LogPosition, StoredBatch};
pub use producers::{Admission, ProducerDescription, Producers, SequenceRefusal, Verdict};
pub use reader::{Batches, FileRegion, Follow, LogReader, ReadPlan};
pub use recover::Recovered;
pub use retire::DeletedFiles;
pub use scrub::{ScrubCursor, ScrubStep};
pub use sim_disk::SimDisk;
pub use sync::{Checkpoint, SyncPlan, Synced};
