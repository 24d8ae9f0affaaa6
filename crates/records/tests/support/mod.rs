//! Batches for the tests of this crate, and a policy that allows everything Kafka's defaults allow.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use bytes::Bytes;
use ottla_records::{
    BatchBuilder, BatchHeader, Compression, Decompress, ProducePolicy, Record, TimestampType, TopicCompression, records,
};
use ottla_types::{ProducerEpoch, ProducerId, Timestamp};

pub(crate) const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);
pub(crate) const LIMITS: Decompress = Decompress { max_bytes: 4 << 20 };

pub(crate) fn policy() -> ProducePolicy {
    ProducePolicy {
        max_message_bytes: 1_048_588,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: 3_600_000,
        now: NOW,
        require_keys: false,
        compression: TopicCompression::Producer,
        zstd_allowed: true,
        decompress: LIMITS,
    }
}

/// Three records with every kind of key, value and header, the second being the youngest.
pub(crate) fn sample(codec: Compression) -> BatchBuilder {
    let mut builder = BatchBuilder::new(codec, None).producer(ProducerId(77), ProducerEpoch(3), i32::MAX - 1);
    let headers: [(&[u8], Option<&[u8]>); 3] = [(b"trace", Some(b"on")), (b"trace", None), (b"", Some(b""))];
    builder.push(at(0), Some(b"key"), Some(b"value"), &headers).unwrap();
    builder.push(at(20), None, Some(&[b'x'; 300]), &[]).unwrap();
    builder.push(at(10), Some(b""), None, &[]).unwrap();
    builder
}

/// `ms` milliseconds after [`NOW`].
pub(crate) fn at(ms: i64) -> Timestamp {
    Timestamp(NOW.0 + ms)
}

pub(crate) fn all(batch: &Bytes) -> Vec<Record> {
    let header = BatchHeader::parse(batch).unwrap();
    records(&header, batch, LIMITS).unwrap().collect::<Result<_, _>>().unwrap()
}

/// `batch` with the bytes at `position` replaced, and the CRC made right again.
pub(crate) fn patched(batch: &Bytes, position: usize, bytes: &[u8]) -> Bytes {
    let mut copy = batch.to_vec();
    copy[position..position + bytes.len()].copy_from_slice(bytes);
    with_crc(copy)
}

/// The header of `batch` before other records, with length and CRC made right again.
pub(crate) fn with_body(batch: &Bytes, body: &[u8]) -> Bytes {
    let mut copy = [&batch[..61], body].concat();
    let length = (copy.len() as u32 - 12).to_be_bytes();
    copy[8..12].copy_from_slice(&length);
    with_crc(copy)
}

fn with_crc(mut batch: Vec<u8>) -> Bytes {
    let crc = crc_fast::crc32_iscsi(&batch[21..]).to_be_bytes();
    batch[17..21].copy_from_slice(&crc);
    batch.into()
}
