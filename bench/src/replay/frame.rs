//! Requests as whole frames, encoded once and patched for every send.
//!
//! A patch touches what differs between two sends of the same frame (correlation id, partition, offset, and for an
//! idempotent producer its numbers and the CRC) and nothing else. Not here: sending (`socket.rs`).

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use bytes::Bytes;
use ottla_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_protocol::messages::{FetchRequest, ProduceRequest};
use ottla_protocol::{Message, RequestHeader};
use ottla_records::{BatchBuilder, Compression};
use ottla_types::Timestamp;

/// What every frame begins with: its length, key, version, and then the correlation id.
const CORRELATION_AT: usize = 8;
/// How long the broker may take, in milliseconds, where a request says so.
pub(crate) const BROKER_TIMEOUT_MS: i32 = 30_000;
/// Longest topic name whose length takes one byte in compact form, so that places in answers are known.
const TOPIC_MAX: usize = 126;

// Places in a batch.
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const PRODUCER_AT: usize = 43;

/// A request with its header and length.
pub(crate) fn request<M: Message>(version: i16, correlation: i32, body: &M) -> Result<Vec<u8>> {
    let header = RequestHeader {
        api_key: M::API,
        api_version: version,
        correlation_id: correlation,
        client_id: Some("ottla-bench".into()),
    };
    let mut frame = vec![0; 4];
    header.encode(&mut frame)?;
    body.encode(&mut frame, version)?;
    let length = i32::try_from(frame.len() - 4)?;
    put(&mut frame, 0, length.to_be_bytes());
    Ok(frame)
}

/// A batch as a producer sends it.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) bytes: Bytes,
    pub(crate) records: u32,
    pub(crate) uncompressed: usize,
}

impl Batch {
    /// As many records of `record_bytes` as fit into `batch_bytes` before compression, at least one.
    pub(crate) fn of_bytes(record_bytes: usize, batch_bytes: usize, compression: Compression) -> Result<Batch> {
        // Two records show what one of them adds.
        let size = |records| Batch::building(record_bytes, records, compression).map(|batch| batch.size());
        let (one, two) = (size(1)?, size(2)?);
        let more = batch_bytes.saturating_sub(one) / (two - one + 2);
        Batch::of_records(record_bytes, more + 1, compression)
    }

    pub(crate) fn of_records(record_bytes: usize, records: usize, compression: Compression) -> Result<Batch> {
        let builder = Batch::building(record_bytes, records, compression)?;
        let uncompressed = builder.size();
        Ok(Batch { bytes: builder.build()?, records: u32::try_from(records)?, uncompressed })
    }

    fn building(record_bytes: usize, records: usize, compression: Compression) -> Result<BatchBuilder> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let now = Timestamp(i64::try_from(now)?);
        let mut random = fastrand::Rng::with_seed(4);
        let mut builder = BatchBuilder::new(compression, None);
        let mut value = vec![b'.'; record_bytes];
        for _ in 0..records {
            // Half noise and half sameness, so that codecs come to about 2:1.
            random.fill(&mut value[..record_bytes / 2]);
            builder.push(now, None, Some(&value), &[])?;
        }
        Ok(builder)
    }
}

/// One batch for one partition.
#[derive(Clone, Debug)]
pub(crate) struct ProduceFrame {
    bytes: Vec<u8>,
    partition_at: usize,
    batch_at: usize,
    batch_end: usize,
}

impl ProduceFrame {
    pub(crate) fn new(version: i16, topic: &str, acks: i16, batch: &Bytes) -> Result<ProduceFrame> {
        ensure!((9..=12).contains(&version), "Produce version {version} has its fields elsewhere");
        let partition = PartitionProduceData { index: 0, records: Some(batch.clone()) };
        let topic = TopicProduceData { name: topic.into(), partition_data: vec![partition], ..Default::default() };
        let body =
            ProduceRequest { transactional_id: None, acks, timeout_ms: BROKER_TIMEOUT_MS, topic_data: vec![topic] };
        let bytes = request(version, 0, &body)?;
        // Behind the records end the partition, the topic and the request, each with an empty tag section.
        let batch_end = bytes.len() - 3;
        let batch_at = batch_end - batch.len();
        let length_bytes = (usize::BITS - (batch.len() + 1).leading_zeros()).div_ceil(7) as usize;
        Ok(ProduceFrame { bytes, partition_at: batch_at - length_bytes - 4, batch_at, batch_end })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn address(&mut self, correlation: i32, partition: i32) {
        put(&mut self.bytes, CORRELATION_AT, correlation.to_be_bytes());
        put(&mut self.bytes, self.partition_at, partition.to_be_bytes());
    }

    /// Numbers the batch, which changes its CRC.
    pub(crate) fn number(&mut self, producer: (i64, i16), sequence: i32) {
        let at = self.batch_at + PRODUCER_AT;
        put(&mut self.bytes, at, producer.0.to_be_bytes());
        put(&mut self.bytes, at + 8, producer.1.to_be_bytes());
        put(&mut self.bytes, at + 10, sequence.to_be_bytes());
        let crc = crc_fast::crc32_iscsi(&self.bytes[self.batch_at + ATTRIBUTES_AT..self.batch_end]);
        put(&mut self.bytes, self.batch_at + CRC_AT, crc.to_be_bytes());
    }
}

/// What the answer to a [`ProduceFrame`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Produced {
    pub(crate) correlation: i32,
    pub(crate) error: i16,
}

/// Where the fields of that answer are; for one topic and partition they are always in the same places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProducedAt {
    error_at: usize,
}

impl ProducedAt {
    pub(crate) fn new(topic: &str) -> Result<ProducedAt> {
        ensure!(topic.len() <= TOPIC_MAX, "a topic name of at most {TOPIC_MAX} bytes, please");
        // Correlation, tags, one topic, its name, one partition, its index.
        Ok(ProducedAt { error_at: 4 + 1 + 1 + (1 + topic.len()) + 1 + 4 })
    }

    /// Reads an answer without its length; `None` if it is too short to be one.
    pub(crate) fn read(self, answer: &[u8]) -> Option<Produced> {
        Some(Produced {
            correlation: i32::from_be_bytes(take(answer, 0)?),
            error: i16::from_be_bytes(take(answer, self.error_at)?),
        })
    }
}

/// How much and how long one fetch asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchLimits {
    pub(crate) max_wait_ms: i32,
    pub(crate) max_bytes: i32,
    pub(crate) partition_max_bytes: i32,
}

/// A Fetch of version 12 without a session, for some partitions of one topic.
#[derive(Clone, Debug)]
pub(crate) struct FetchFrame {
    bytes: Vec<u8>,
    first_at: usize,
}

impl FetchFrame {
    pub(crate) const VERSION: i16 = 12;
    /// Bytes of one partition.
    const SLOT: usize = 33;

    pub(crate) fn new(topic: &str, partitions: usize, limits: FetchLimits) -> Result<FetchFrame> {
        let partition = FetchPartition {
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: limits.partition_max_bytes,
            ..Default::default()
        };
        let topic = FetchTopic { topic: topic.into(), partitions: vec![partition; partitions], ..Default::default() };
        let body = FetchRequest {
            max_wait_ms: limits.max_wait_ms,
            min_bytes: 1,
            max_bytes: limits.max_bytes,
            topics: vec![topic],
            ..Default::default()
        };
        let bytes = request(FetchFrame::VERSION, 0, &body)?;
        // Behind the partitions: the topic's tags, no forgotten topics, no rack, the request's tags.
        let first_at = bytes.len() - 4 - partitions * FetchFrame::SLOT;
        Ok(FetchFrame { bytes, first_at })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn set_correlation(&mut self, correlation: i32) {
        put(&mut self.bytes, CORRELATION_AT, correlation.to_be_bytes());
    }

    pub(crate) fn set_slot(&mut self, slot: usize, partition: i32, offset: i64) {
        let at = self.first_at + slot * FetchFrame::SLOT;
        put(&mut self.bytes, at, partition.to_be_bytes());
        put(&mut self.bytes, at + 8, offset.to_be_bytes());
    }
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use ottla_protocol::{ApiKey, Reader};
    use ottla_records::{BatchHeader, crc_matches};

    use super::*;

    fn decode(frame: &[u8]) -> (RequestHeader, Reader) {
        assert_eq!(frame[..4], u32::try_from(frame.len() - 4).unwrap().to_be_bytes());
        let mut reader = Reader::new(Bytes::copy_from_slice(&frame[4..]));
        (RequestHeader::decode(&mut reader).unwrap(), reader)
    }

    #[test]
    fn a_patched_produce_is_the_one_that_was_meant() {
        for batch_bytes in [100, 1024, 16_384, 1 << 20] {
            let batch = Batch::of_bytes(100, batch_bytes, Compression::None).unwrap();
            let mut frame = ProduceFrame::new(9, "topic", -1, &batch.bytes).unwrap();
            frame.address(77, 5);
            frame.number((8, 2), 40);
            let (header, mut reader) = decode(frame.bytes());
            assert_eq!((header.api_key, header.correlation_id), (ApiKey::Produce, 77));
            let mut body = ProduceRequest::decode(&mut reader, 9).unwrap();
            reader.finish().unwrap();
            let partition = body.topic_data.remove(0).partition_data.remove(0);
            assert_eq!(partition.index, 5);
            let records = partition.records.unwrap();
            assert!(crc_matches(&records));
            let header = BatchHeader::parse(&records).unwrap();
            assert_eq!((header.producer_id.0, header.producer_epoch.0, header.base_sequence), (8, 2, 40));
            assert_eq!(header.size(), records.len());
        }
    }

    #[test]
    fn a_patched_fetch_is_the_one_that_was_meant() {
        let limits = FetchLimits { max_wait_ms: 500, max_bytes: 1 << 20, partition_max_bytes: 1 << 10 };
        let mut frame = FetchFrame::new("topic", 3, limits).unwrap();
        frame.set_correlation(9);
        frame.set_slot(1, 4, 1234);
        let (header, mut reader) = decode(frame.bytes());
        assert_eq!((header.api_key, header.correlation_id), (ApiKey::Fetch, 9));
        let body = FetchRequest::decode(&mut reader, FetchFrame::VERSION).unwrap();
        reader.finish().unwrap();
        let slots: Vec<_> = body.topics[0].partitions.iter().map(|it| (it.partition, it.fetch_offset)).collect();
        assert_eq!(slots, [(0, 0), (4, 1234), (0, 0)]);
        assert_eq!((body.session_epoch, body.topics[0].partitions[2].partition_max_bytes), (-1, 1 << 10));
    }

    #[test]
    fn a_batch_is_filled_but_not_over_and_half_of_it_compresses() {
        let batch = Batch::of_bytes(1024, 16_384, Compression::None).unwrap();
        assert_eq!(batch.records, 15);
        assert!(batch.uncompressed <= 16_384 && batch.bytes.len() == batch.uncompressed);
        for codec in [Compression::Lz4, Compression::Zstd, Compression::Gzip, Compression::Snappy] {
            let batch = Batch::of_bytes(1024, 102_400, codec).unwrap();
            let ratio = batch.uncompressed as f64 / batch.bytes.len() as f64;
            assert!((1.5..2.5).contains(&ratio), "{codec}: {ratio}");
        }
    }
}
