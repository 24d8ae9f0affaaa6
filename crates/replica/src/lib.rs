//! One broker's copy of one partition, over its log: who leads, what is acknowledged, what may be read.
//!
//! A [`Replica`] adds to the log what replication means. As leader it appends, learns from each Fetch of a follower how
//! far that one has come, moves the high watermark, and asks the controller for other in-sync replicas. As follower it
//! takes what its leader's answers bring, and cuts what the leader does not have. It is plain synchronous code under
//! the partition's lock: appends and syncs are methods, what peers and time bring is an [`Event`] for
//! [`Replica::step`], what it wants of others is an [`Effect`].
//!
//! Not here: sockets, topics, other partitions, who may be elected (`ottla-metadata`), when to sync (`ottla-node`).
//!
//! Reading order: `assignment`, `replica`, `append`, `leader`, `isr`, `follower`. Next: `ottla_log` for the bytes
//! below,
//! `partition.rs` of `ottla_node` for the lock above.
#![forbid(unsafe_code)]

mod append;
mod assignment;
mod follower;
mod isr;
mod leader;
mod replica;

pub use append::Outcome;
pub use assignment::{Assignment, Durability, Settings};
pub use follower::{FetchError, FetchOutcome, FetchPosition, Fetched};
pub use isr::{CommittedIsr, IsrProposal, IsrRefusal};
pub use ottla_log::SequenceRefusal;
pub use replica::{Effect, EpochRefusal, Event, NotEnoughReplicas, Replica, Role};
