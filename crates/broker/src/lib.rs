//! The sockets of one broker and one file per Kafka API, over an `ottla_node`.
//!
//! This is the only crate of the broker that knows tokio and Kafka's requests; what a request means for the data is
//! the node's and its partitions'. In reading order: [`server`] accepts, `connection.rs` serves one client, `api/`
//! holds a file for each request, `fetch_sessions.rs` and `budget.rs` what connections share, `outbox.rs` the way out.
//!
//! With other brokers: [`membership`] joins, registers and reports, `following.rs` fetches from leaders, `isr.rs`,
//! `damage.rs`, `auto_creation.rs` and `producer_ids.rs` take to the controller what partitions and clients want of it,
//! by the ways of `control.rs` and `peers.rs`.

mod api;
mod auto_creation;
mod budget;
mod connection;
mod control;
mod damage;
mod fetch_sessions;
mod following;
mod isr;
pub mod membership;
mod outbox;
mod peers;
mod producer_ids;
pub mod server;

pub use membership::{Candidate, JoinError, join};
pub use peers::LogTransport;

pub use server::{BindError, Bound, Broker, ListenerConfig, Options};
