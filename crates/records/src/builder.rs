//! Building a batch: for our own client, the tests, and the logs brokers write for themselves.
//!
//! Not here: when a batch is full or old enough to send; the caller asks [`BatchBuilder::size`]. Next: `header.rs`.

use bytes::Bytes;
use ottla_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::{Attributes, BatchError, BatchHeader, Compression, HEADER_SIZE, LENGTH_PREFIX, compression, varint};

/// Most bytes of records in one batch, so that the length field can hold them.
const RECORDS_MAX: usize = i32::MAX as usize - (HEADER_SIZE - LENGTH_PREFIX);

/// Collects records into one batch. It comes out as a producer sends it: base offset 0, no leader epoch.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    compression: Compression,
    level: Option<i32>,
    header: BatchHeader,
    /// Room for the header, then the records, uncompressed.
    batch: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch. `level` is the codec's own scale (gzip 1 to 9, zstd -131072 to 22), `None` its default.
    pub fn new(compression: Compression, level: Option<i32>) -> BatchBuilder {
        let header = BatchHeader {
            base_offset: Offset::ZERO,
            length: 0,
            leader_epoch: LeaderEpoch::NONE,
            crc: 0,
            attributes: Attributes::default().with_compression(compression),
            last_offset_delta: -1,
            base_timestamp: Timestamp::NONE,
            max_timestamp: Timestamp::NONE,
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch::NONE,
            base_sequence: -1,
            record_count: 0,
        };
        BatchBuilder { compression, level, header, batch: vec![0; HEADER_SIZE] }
    }

    /// Makes the batch idempotent: the producer's id and epoch, and the sequence number of its first record.
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) -> BatchBuilder {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Makes the batch part of its producer's transaction.
    pub fn transactional(mut self) -> BatchBuilder {
        self.header.attributes = self.header.attributes.with_transactional();
        self
    }

    /// Makes the records control records, which only brokers may write.
    pub fn control(mut self) -> BatchBuilder {
        self.header.attributes = self.header.attributes.with_control();
        self
    }

    /// Adds a record; `headers` are pairs of key and value.
    ///
    /// # Errors
    /// [`BatchError::Full`], and the batch is as before.
    pub fn push(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> Result<(), BatchError> {
        let base = if self.is_empty() { timestamp } else { self.header.base_timestamp };
        let timestamp_delta = timestamp.0.checked_sub(base.0).ok_or(BatchError::Full)?;
        let offset_delta = self.header.record_count;
        let record_count = offset_delta.checked_add(1).ok_or(BatchError::Full)?;

        let pairs: usize = headers.iter().map(|(key, value)| size_of_field(Some(key)) + size_of_field(*value)).sum();
        let size = 1
            + varint::size(timestamp_delta)
            + varint::size(i64::from(offset_delta))
            + size_of_field(key)
            + size_of_field(value)
            + varint::size(headers.len() as i64)
            + pairs;
        if self.batch.len() - HEADER_SIZE + varint::size(size as i64) + size > RECORDS_MAX {
            return Err(BatchError::Full);
        }

        let out = &mut self.batch;
        varint::put(out, size as i64);
        out.push(0); // attributes, of which there are none
        varint::put(out, timestamp_delta);
        varint::put(out, i64::from(offset_delta));
        put_field(out, key);
        put_field(out, value);
        varint::put(out, headers.len() as i64);
        for (key, value) in headers {
            put_field(out, Some(key));
            put_field(out, *value);
        }

        self.header.base_timestamp = base;
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        self.header.last_offset_delta = offset_delta;
        self.header.record_count = record_count;
        Ok(())
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.header.record_count.unsigned_abs() as usize
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }

    /// Bytes of the batch before compression, header included.
    pub fn size(&self) -> usize {
        self.batch.len()
    }

    /// The finished batch, compressed and with its CRC.
    ///
    /// # Errors
    /// There is no record, or compression made the batch larger than a batch can be.
    pub fn build(mut self) -> Result<Bytes, BatchError> {
        if self.is_empty() {
            return Err(BatchError::Empty);
        }
        if self.compression == Compression::None {
            return self.header.seal(self.batch);
        }
        let mut batch = vec![0; HEADER_SIZE];
        compression::compress(self.compression, self.level, &self.batch[HEADER_SIZE..], &mut batch)?;
        self.header.seal(batch)
    }
}

fn size_of_field(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::size(bytes.len() as i64) + bytes.len())
}

fn put_field(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    varint::put(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}
