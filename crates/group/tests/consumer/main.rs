//! Consumer groups (KIP-848) through the coordinator's own surface: every record a decision makes goes through its
//! bytes before it is applied, and the whole log can be read again at any time.
//!
//! `world.rs` is the coordinator with its surroundings; the rules are in the other files, `model.rs` plays them all at
//! random.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod commits;
mod membership;
mod migration;
mod model;
mod rebalance;
mod scale;
mod topics;
mod world;
