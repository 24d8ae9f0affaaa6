//! The metadata machine through its public surface: decide, apply, snapshot, bytes and configs.

#![allow(clippy::unwrap_used, clippy::panic)]

mod brokers;
mod cluster;
mod configs;
mod describe;
mod elections;
mod features;
mod groups;
mod image;
mod invariants;
mod isr;
mod placement;
mod random;
mod reassignment;
mod records;
mod topics;
