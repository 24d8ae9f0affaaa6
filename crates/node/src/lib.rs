//! One broker's brain: its partitions, its metadata, its disk. No sockets, no Kafka requests, no async runtime.
//!
//! A [`Node`] opens a data directory, replays what the cluster agreed on, and hands out partitions that append, read
//! and wait. Changes to the cluster go through [`Node::submit`], which decides, stores and applies them. Regular work
//! (retention, checkpoints, expiry, scrubbing) runs on one thread, syncs on another.
//!
//! In reading order: `node.rs` puts it together; `partition.rs`, `waiters.rs` and `flusher.rs` are the hot path;
//! `controller.rs` and `metadata_log.rs` are the control path; `groups.rs` and `pending.rs` coordinate groups;
//! `retention.rs`, `cleaner.rs` and `housekeeping.rs` the regular work; `storage.rs`, `identity.rs`, `checkpoint.rs`
//! and `files.rs` what is on the disk besides the logs.

#![forbid(unsafe_code)]

mod checkpoint;
mod cleaner;
mod controller;
mod files;
mod flusher;
mod groups;
mod housekeeping;
mod identity;
mod metadata_log;
mod node;
mod partition;
mod pending;
mod retention;
mod scrub;
mod storage;
mod topic_log_config;
mod topics;
mod waiters;

pub use controller::{Entropy, SubmitError};
pub use groups::{Groups, NoCoordinator, group_partition};
pub use identity::{Identity, LoadIdentityError};
pub use metadata_log::LoadMetadataError;
pub use node::{DirectoryLock, LockError, Node, NodeConfig, OpenNodeError};
pub use partition::{Extent, Fetched, FoundOffset, OffsetSpec, Partition, ReadRefusal, ReadRequest, Unavailable};
pub use pending::Pending;
pub use storage::WallClock;
pub use topics::{Topic, Topics};
pub use waiters::Wakes;
