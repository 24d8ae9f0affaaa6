//! What a batch costs before a log sees it: the CRC, and all of [`validate_produced`].
//!
//! `cargo bench -p ottla-records`. 200 Mitem/s are 5 ns for a record.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use bytes::Bytes;
use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use ottla_records::{
    BatchBuilder, BatchHeader, Compression, Decompress, ProducePolicy, TimestampType, TopicCompression, crc_matches,
    validate_produced,
};
use ottla_types::Timestamp;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn main() {
    divan::main();
}

/// Records in the batch, and bytes of a value.
#[divan::bench(args = [(1, 100), (1000, 100), (16, 1024), (1000, 1024)])]
fn uncompressed(bencher: Bencher, (records, value_bytes): (usize, usize)) {
    validate(bencher, Compression::None, records, value_bytes);
}

#[divan::bench(args = [Compression::Lz4, Compression::Zstd])]
fn compressed_passes_through(bencher: Bencher, codec: Compression) {
    validate(bencher, codec, 100, 1024);
}

#[divan::bench(args = [1 << 10, 16 << 10, 1 << 20])]
fn crc(bencher: Bencher, value_bytes: usize) {
    let batch = batch(Compression::None, 1, value_bytes);
    bencher.counter(BytesCount::new(batch.len())).bench(|| crc_matches(black_box(&batch)));
}

#[divan::bench]
fn header(bencher: Bencher) {
    let batch = batch(Compression::None, 1, 100);
    bencher.bench(|| BatchHeader::parse(black_box(&batch)));
}

fn validate(bencher: Bencher, codec: Compression, records: usize, value_bytes: usize) {
    let batch = batch(codec, records, value_bytes);
    let policy = ProducePolicy {
        max_message_bytes: 2 << 20,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: 3_600_000,
        now: NOW,
        require_keys: false,
        compression: TopicCompression::Producer,
        zstd_allowed: true,
        decompress: Decompress { max_bytes: 4 << 20 },
    };
    bencher
        .counter(ItemsCount::new(records))
        .counter(BytesCount::new(batch.len()))
        .bench(|| validate_produced(black_box(&batch), &policy).unwrap());
}

fn batch(codec: Compression, records: usize, value_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(codec, None);
    let value = vec![b'x'; value_bytes];
    for number in 0..records {
        builder.push(Timestamp(NOW.0 + number as i64 / 10), Some(b"some key"), Some(&value), &[]).unwrap();
    }
    builder.build().unwrap()
}
