//! Agreement on the metadata log: Raft, by a proven library that only this crate knows, over our log and our disk.
//!
//! A node proposes bytes, and every node's [`Application`] gets the same ones in the same order. Who leads decides
//! what is proposed; the leader's term is the leader epoch. What is agreed on survives any minority of the voters.
//! Rules: M1 to M3, B23 (`docs/non-obvious.md`); formats: `docs/formats/metadata-log.md`; why this library and how it
//! is run: `docs/decisions/consensus.md`.
//!
//! Two ways to run it, the same code beneath: [`Consensus`] is a handle on a thread of its own; [`Core`] is polled by
//! hand, with the time as an argument, many of them on one thread. Neither opens a connection: requests go out through
//! a [`Transport`], and come in through `handle`.
//!
//! Not here: what is agreed on, who should be a voter, sockets, a wall clock, tokio.
//!
//! Reading order: `status`, `node`, `consensus`; then inward `machine`, `log_store`, `network`, `store`; the bytes are
//! in `message`, `entry`, `snapshot`, `wire`; `runtime` is what it all runs on.

mod config;
mod consensus;
mod entry;
mod error;
mod log_store;
mod machine;
mod message;
mod network;
mod node;
mod runtime;
mod snapshot;
mod status;
mod store;
mod types;
mod wire;

pub use config::{Application, Config, Reply, Transport};
pub use consensus::Consensus;
pub use error::{ChangeError, OpenError, ProposeError, RequestError};
pub use node::Core;
pub use status::{Progress, Status};
pub use types::Directory;
