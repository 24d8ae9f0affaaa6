//! The log through its public surface, and what it costs: one program, as each costs a build.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "../common/mod.rs"]
mod common;

mod cleaning;
mod crashes;
mod described;
mod disks;
mod epochs;
mod lookups;
mod room;
mod syncs;
mod waiting;
