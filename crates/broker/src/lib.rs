//! The sockets of one broker and one file per Kafka API, over an `ottla_node`.
//!
//! This is the only crate of the broker that knows tokio and Kafka's requests; what a request means for the data is
//! the node's and its partitions'. In reading order: [`server`] accepts, `connection.rs` serves one client, `api/`
//! holds a file for each request, `fetch_sessions.rs` and `budget.rs` what connections share, `outbox.rs` the way out.

mod api;
mod budget;
mod connection;
mod fetch_sessions;
mod outbox;
pub mod server;

pub use server::{BindError, Bound, Broker, ListenerConfig, Options};
