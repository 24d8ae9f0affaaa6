//! What one append to a log costs, and one look for where to read.
//!
//! `cargo bench -p ottla-log`; data goes to the directory for temporary files.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use std::{slice, sync::Arc};

use divan::{Bencher, counter::BytesCount};
use ottla_log::{Log, LogConfig, OsDisk, StoredBatch};
use ottla_records::{BatchBuilder, BatchHeader, Compression};
use ottla_types::{LeaderEpoch, Offset, Timestamp};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const READ_BYTES: u64 = 1 << 20;

fn main() {
    divan::main();
}

// Few enough that what is written stays in memory.
#[divan::bench(args = [100, 16 << 10, 1 << 20], max_time = 0.5)]
fn append(bencher: Bencher, value_bytes: usize) {
    let batch = batch(value_bytes);
    let (_dir, mut log) = log();
    bencher
        .counter(BytesCount::new(batch.bytes.len()))
        .bench_local(|| log.append(slice::from_ref(&batch), NOW).unwrap());
}

#[divan::bench]
fn plan_at_the_tail(bencher: Bencher) {
    let (_dir, log) = filled();
    let last = Offset(log.end().offset.0 - 1);
    let reader = log.reader();
    bencher.bench_local(|| reader.read(last, reader.end(), READ_BYTES, true).unwrap());
}

#[divan::bench]
fn plan_by_offset(bencher: Bencher) {
    let (_dir, log) = filled();
    let reader = log.reader();
    let end = log.end();
    let mut at = 0;
    bencher.bench_local(|| {
        // Steps that share no factor with the length visit everything, and nothing twice in a row.
        at = (at + 7_919) % end.offset.0;
        reader.read(Offset(at), end, READ_BYTES, true).unwrap()
    });
}

/// Ten thousand batches of 1 KB.
fn filled() -> (TempDir, Log) {
    let (dir, mut log) = log();
    let batch = batch(1024);
    for _ in 0..10_000 {
        log.append(slice::from_ref(&batch), NOW).unwrap();
    }
    (dir, log)
}

fn log() -> (TempDir, Log) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (log, _) = Log::open(Arc::new(OsDisk::new()), path, LogConfig::default(), None, NOW).unwrap();
    (dir, log)
}

/// A batch of one record.
fn batch(value_bytes: usize) -> StoredBatch {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(NOW, None, Some(&vec![b'x'; value_bytes]), &[]).unwrap();
    let bytes = builder.build().unwrap();
    StoredBatch { header: BatchHeader::parse(&bytes).unwrap(), bytes, epoch: LeaderEpoch(0) }
}
