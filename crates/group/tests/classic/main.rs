//! Groups in the classic protocol and what they commit, through the coordinator's public surface.
//!
//! `world.rs` is a coordinator with a clock and a log, driven as the node drives it; `model.rs` lets random histories
//! loose on it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod expiry;
mod generations;
mod join;
mod model;
mod offsets;
mod rebalance;
mod reload;
mod static_members;
mod world;
