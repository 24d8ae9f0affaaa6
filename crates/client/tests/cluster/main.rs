//! The client and a cluster whose leaders, coordinators and controllers move, and whose brokers go away.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod leaders;
mod nodes;
mod scripted;
