//! Group coordination: who consumes what, and how far they are.
//!
//! A [`Coordinator`] holds the groups of one partition of `__consumer_offsets`. It is a machine whose state is that
//! partition's log, replayed: [`Coordinator::decide`] turns a [`Command`] into [`Record`]s and replies, and
//! [`Coordinator::apply`] alone changes what is durable. Beside it lives what Kafka keeps in memory only and loses with
//! the coordinator: who is connected and waiting, and until when. A reply is owed to the client only when every record
//! appended so far is committed (rule G1).
//!
//! What is not here: files, sockets, clocks and randomness (the node appends the records, passes `now` and draws the
//! bits), Kafka's requests (`ottla-broker` turns them into commands, and a [`Refusal`] into an error code), and more of
//! a classic consumer's metadata than the topics and partitions in it.
//!
//! Where to go next: `command.rs` for what can be asked, `record.rs` for what is written down, `coordinator.rs` for how
//! one becomes the other, `classic.rs` and `consumer.rs` for the two kinds of group, `offsets.rs` for what they commit.

#![forbid(unsafe_code)]

mod classic;
mod command;
mod consumer;
mod coordinator;
mod offsets;
mod record;
mod refusal;
mod timers;
mod wire;

pub use command::*;
pub use coordinator::{Context, Coordinator, Decision, Ticket};
pub use ottla_metadata::config::GroupConfig;
pub use record::*;
pub use refusal::Refusal;
