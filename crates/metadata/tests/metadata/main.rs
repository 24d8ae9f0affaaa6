//! The metadata machine through its public surface: decide, apply, snapshot, bytes and configs.

#![allow(clippy::unwrap_used, clippy::panic)]

mod brokers;
mod cluster;
mod configs;
mod describe;
mod groups;
mod image;
mod records;
mod topics;
