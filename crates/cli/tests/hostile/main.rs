//! Hostile clients against the real binary: whatever they send, the broker stays, its memory is bounded, and somebody
//! else is served meanwhile.
//!
//! What is sent by nobody here: anything after authentication, which does not exist yet. Each attack runs against a
//! broker of its own (`victim.rs`); the attacks are in `frames.rs`, `bodies.rs`, `batches.rs`, `groups.rs` and
//! `crowds.rs`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails there")]

mod batches;
mod bodies;
mod crowds;
mod frames;
mod groups;
mod victim;
