//! What the tests of the log share: batches to store, a log on a simulated or real disk, and a full check of what is
//! there against what should be.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use ottla_log::{
    AppendError, Appended, Checkpoint, Disk, Log, LogConfig, LogPosition, OpenError, Recovered, SimDisk, StoredBatch,
};
use ottla_records::{BatchBuilder, BatchHeader, Compression, crc_matches, records};
use ottla_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

pub(crate) const DIR: &str = "data/partition";
pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);

pub(crate) fn dir() -> PathBuf {
    PathBuf::from(DIR)
}

/// Segments of 16 KiB and an index entry every 256 bytes: everything happens soon.
pub(crate) fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 16 << 10,
        index_interval_bytes: 256,
        checkpoint_bytes: 8 << 10,
        file_delete_delay_ms: 1000,
        ..LogConfig::default()
    }
}

pub(crate) fn disk(sim: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(sim.clone())
}

pub(crate) fn try_open(
    sim: &SimDisk,
    config: LogConfig,
    checkpoint: Option<Checkpoint>,
) -> Result<(Log, Recovered), OpenError> {
    Log::open(disk(sim), dir(), config, checkpoint, NOW)
}

pub(crate) fn open(sim: &SimDisk, config: LogConfig, checkpoint: Option<Checkpoint>) -> (Log, Recovered) {
    try_open(sim, config, checkpoint).unwrap()
}

/// A batch of `count` records with values of `size` bytes, all at `timestamp` and the milliseconds after.
pub(crate) fn batch_at(timestamp: i64, count: usize, size: usize) -> StoredBatch {
    stored(builder(Compression::None, timestamp, count, size))
}

pub(crate) fn batch(count: usize, size: usize) -> StoredBatch {
    batch_at(NOW.0, count, size)
}

pub(crate) fn idempotent(id: i64, epoch: i16, sequence: i32, count: usize) -> StoredBatch {
    let builder = builder(Compression::None, NOW.0, count, 20);
    stored(builder.producer(ProducerId(id), ProducerEpoch(epoch), sequence))
}

pub(crate) fn builder(compression: Compression, timestamp: i64, count: usize, size: usize) -> BatchBuilder {
    let mut builder = BatchBuilder::new(compression, None);
    for number in 0..count {
        let value = vec![b'a' + (number % 26) as u8; size];
        builder.push(Timestamp(timestamp + number as i64), None, Some(value.as_slice()), &[]).unwrap();
    }
    builder
}

pub(crate) fn stored(builder: BatchBuilder) -> StoredBatch {
    let bytes = builder.build().unwrap();
    StoredBatch { header: BatchHeader::parse(&bytes).unwrap(), bytes, epoch: LeaderEpoch(0) }
}

pub(crate) fn append(log: &mut Log, batch: StoredBatch) -> Appended {
    log.append(&[batch], NOW).unwrap()
}

pub(crate) fn try_append(log: &mut Log, batch: StoredBatch) -> Result<Appended, AppendError> {
    log.append(&[batch], NOW)
}

/// Runs a whole sync, if there is anything to do.
pub(crate) fn sync(log: &mut Log) {
    if let Some(plan) = log.begin_sync() {
        let result = plan.run();
        log.complete_sync(plan, result).unwrap();
    }
}

pub(crate) fn segment_path(base: i64, ending: &str) -> PathBuf {
    dir().join(format!("{base:020}{ending}"))
}

/// Every batch of the log from its start, each checked to be whole and to follow the one before.
pub(crate) fn contents(log: &Log) -> Vec<(Offset, Bytes)> {
    let mut found = Vec::new();
    let reader = log.reader();
    let mut expected = None;
    for batch in reader.batches(reader.start_offset(), reader.end()) {
        let (header, bytes) = batch.unwrap();
        assert!(crc_matches(&bytes), "batch at {} has a wrong checksum", header.base_offset);
        assert!(expected.is_none_or(|expected| expected == header.base_offset), "a gap before {}", header.base_offset);
        expected = Some(header.next_offset());
        found.push((header.base_offset, bytes));
    }
    assert!(expected.is_none_or(|expected| expected == reader.end_offset()));
    found
}

/// The index answers every offset and every timestamp as a full scan does.
pub(crate) fn check_indexes(log: &Log) {
    let reader = log.reader();
    let upto = reader.end();
    let mut first_at: Vec<(Timestamp, Offset)> = Vec::new();
    let mut largest = Timestamp(i64::MIN);
    for (base, bytes) in contents(log) {
        let header = BatchHeader::parse(&bytes).unwrap();
        for offset in base.0.max(reader.start_offset().0)..header.next_offset().0 {
            let plan = reader.read(Offset(offset), upto, 1, true).unwrap();
            assert_eq!(plan.first_batch_offset, base, "offset {offset}");
            assert_eq!(plan.read().unwrap(), bytes, "offset {offset}");
        }
        let limits = ottla_records::Decompress { max_bytes: 1 << 20 };
        for record in records(&header, &bytes, limits).unwrap() {
            let record = record.unwrap();
            if record.timestamp > largest && record.offset >= reader.start_offset() {
                largest = record.timestamp;
                first_at.push((record.timestamp, record.offset));
            }
        }
    }
    let mut before = i64::MIN / 2;
    for (timestamp, offset) in &first_at {
        for target in [before + 1, timestamp.0] {
            let found = reader.find_by_timestamp(Timestamp(target), upto).unwrap();
            assert_eq!(found.map(|(offset, at, _)| (at, offset)), Some((*timestamp, *offset)), "target {target}");
        }
        before = timestamp.0;
    }
    assert_eq!(reader.find_by_timestamp(Timestamp(before.saturating_add(1)), upto).unwrap(), None);
    let max = reader.max_timestamp(upto).unwrap().map(|(offset, at, _)| (at, offset));
    assert_eq!(max, first_at.last().copied());
}

pub(crate) fn position(offset: i64, segment: i64, position: u64) -> LogPosition {
    LogPosition { offset: Offset(offset), segment: Offset(segment), position }
}
