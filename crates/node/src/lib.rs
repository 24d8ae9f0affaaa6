//! One broker's brain: its partitions, its metadata, its disk. No sockets, no Kafka requests, no async runtime.
//!
//! A [`Node`] opens a data directory, replays what the cluster agreed on, and hands out partitions that append, read,
//! follow and wait. Changes to the cluster go through [`Node::submit`] of the node that leads the metadata log, which
//! decides and has the others agree; every node applies them. Regular work (retention, checkpoints, expiry, scrubbing)
//! runs on one thread, syncs on others.
//!
//! In reading order: `node.rs` puts it together; `partition.rs`, `waiters.rs` and `flusher.rs` are the hot path, with
//! `partition/replication.rs` and `outbox.rs` where there are several brokers; `controller.rs`, `metadata_machine.rs`
//! and
//! `caretaker.rs` are the control path; `groups.rs` and `pending.rs` coordinate groups; `retention.rs`, `cleaner.rs`
//! and
//! `housekeeping.rs` the regular work; `storage.rs`, `identity.rs`, `checkpoint.rs` and `files.rs` what is on the disk
//! besides the logs.

#![forbid(unsafe_code)]

mod caretaker;
mod checkpoint;
mod cleaner;
mod controller;
mod files;
mod flusher;
mod groups;
mod housekeeping;
mod identity;
mod metadata_machine;
mod node;
mod outbox;
mod partition;
mod pending;
mod retention;
mod scrub;
mod storage;
mod topic_log_config;
mod topics;
mod waiters;

pub use caretaker::HeartbeatReply;
pub use controller::{Entropy, SubmitError};
pub use groups::{Groups, NoCoordinator, group_partition};
pub use identity::{Identity, LoadIdentityError};
pub use node::{DirectoryLock, Heartbeat, Joined, LockError, Node, NodeConfig, OpenNodeError, Transport};
pub use outbox::{IsrChange, Outbox};
pub use partition::{
    Extent, Fetched, FollowError, Follower, FollowerCopy, FoundOffset, OffsetSpec, Partition, ReadRefusal, ReadRequest,
    Unavailable,
};
pub use pending::Pending;
pub use storage::WallClock;
pub use topics::{Topic, Topics};
pub use waiters::Wakes;
