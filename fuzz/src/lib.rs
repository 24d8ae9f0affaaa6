//! What is fuzzed: one function per reader of foreign bytes, and the valid inputs to begin with.
//!
//! A target takes any bytes and panics when the code under it breaks a promise: it panics itself, allocates more than
//! it may, or passes on what it should have refused. The same functions run three ways: briefly under `cargo test`
//! (`tests/short.rs`), for as long as wanted on a stable toolchain (`main.rs`), and led by coverage under libFuzzer
//! (`engine/`, which is outside the workspace because it needs a nightly toolchain). `cargo xtask fuzz` picks.
//!
//! In reading order: `wire.rs`, `batch.rs`, `log.rs`, `compaction.rs`, `group.rs`, `node.rs`; `mutate.rs` makes inputs.

// This crate is a test; a panic is how it reports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod batch;
mod compaction;
mod edit;
mod group;
mod log;
pub mod mutate;
mod node;
mod wire;

/// One reader of foreign bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Reads the bytes; panics if a promise is broken. Says whether they were taken, so that a run can tell that it is
    /// not all refusals.
    pub run: fn(&[u8]) -> bool,
    /// Inputs that are right, to be spoilt.
    pub corpus: fn() -> Vec<Vec<u8>>,
    /// How many inputs `cargo test` tries beyond the corpus: a second or so.
    pub short: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", run: wire::frame, corpus: wire::frames, short: 20_000 },
    Target { name: "request", run: wire::request, corpus: wire::requests, short: 20_000 },
    Target { name: "message", run: wire::message, corpus: wire::messages, short: 40_000 },
    Target { name: "batch", run: batch::batch, corpus: batch::batches, short: 10_000 },
    Target { name: "metadata_record", run: wire::metadata_record, corpus: wire::metadata_records, short: 20_000 },
    Target { name: "log_recovery", run: log::recovery, corpus: edit::none, short: 400 },
    Target { name: "log_clean", run: log::clean, corpus: edit::none, short: 400 },
    Target { name: "producer_snapshot", run: log::producer_snapshot, corpus: log::producer_snapshots, short: 800 },
    Target { name: "epochs", run: log::epochs, corpus: log::epoch_files, short: 800 },
    Target { name: "compaction", run: compaction::compaction, corpus: compaction::choices, short: 100 },
    Target { name: "group_record", run: group::record, corpus: group::records, short: 20_000 },
    Target { name: "group", run: group::coordinator, corpus: group::choices, short: 2_000 },
    Target { name: "node", run: node::node, corpus: edit::none, short: 100 },
];
