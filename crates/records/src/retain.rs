//! Compaction's view of one batch: the keys of its records, and the batch without some of them.
//!
//! What stays keeps its bytes: offset, timestamp, key, value, headers. The batch keeps its place, its producer and its
//! codec; count, largest timestamp and checksum follow what is left. A batch with tombstones carries the time from
//! which they may go, its delete horizon, where its base timestamp was (KIP-534), so their timestamps are counted anew
//! from there. Which records stay is not decided here: `ottla_log`. Next: `record.rs`.

use bytes::Bytes;
use ottla_types::{Offset, Timestamp};

use crate::{
    BatchError, BatchHeader, Compression, Decompress, HEADER_SIZE, TimestampType, compression,
    record::RawRecord,
    varint::{self, Malformed},
};

/// A batch whose records can be looked at, decompressed where needed.
#[derive(Clone, Debug)]
pub struct OpenBatch {
    header: BatchHeader,
    records: Bytes,
}

/// A record as compaction sees it.
#[derive(Clone, Copy, Debug)]
pub struct KeyedRecord<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Its key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Whether its value is null: the key is deleted.
    pub is_tombstone: bool,
}

/// What [`OpenBatch::retain`] leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retained {
    /// The batch as it is.
    Unchanged,
    /// This batch in its place.
    Rewritten(Bytes),
    /// No record; see [`BatchHeader::emptied`] for a batch that has to stay all the same.
    Nothing,
}

impl OpenBatch {
    /// Opens the whole batch that `header` was read from; the CRC is not checked.
    ///
    /// # Errors
    /// As [`crate::records`].
    pub fn open(header: &BatchHeader, batch: &Bytes, limits: Decompress) -> Result<OpenBatch, BatchError> {
        Ok(OpenBatch { header: *header, records: crate::record::body(header, batch, limits)? })
    }

    /// Shows every record to `visit`, in order, until it answers false.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn visit(&self, mut visit: impl FnMut(KeyedRecord<'_>) -> bool) -> Result<(), BatchError> {
        let mut input = &self.records[..];
        for index in 0..self.header.record_count {
            let (_, record) = self.take(&mut input).map_err(|reason| malformed(index, reason))?;
            if !visit(record) {
                return Ok(());
            }
        }
        self.at_end(input)
    }

    /// The batch with those records for which `keep` holds. If one of them is a tombstone and the batch has no delete
    /// horizon yet, `horizon` becomes it.
    ///
    /// # Errors
    /// A record cannot be read, or what is left cannot be compressed.
    pub fn retain(
        &self,
        horizon: Option<Timestamp>,
        mut keep: impl FnMut(KeyedRecord<'_>) -> bool,
    ) -> Result<Retained, BatchError> {
        let mut header = BatchHeader { record_count: 0, max_timestamp: Timestamp::NONE, ..self.header };
        let mut kept = Vec::new();
        let mut has_tombstone = false;
        let mut input = &self.records[..];
        for index in 0..self.header.record_count {
            let before = input;
            let (timestamp, record) = self.take(&mut input).map_err(|reason| malformed(index, reason))?;
            if keep(record) {
                kept.extend_from_slice(&before[..before.len() - input.len()]);
                has_tombstone |= record.is_tombstone;
                header.max_timestamp = header.max_timestamp.max(timestamp);
                header.record_count += 1;
            }
        }
        self.at_end(input)?;
        if header.record_count == 0 {
            return Ok(Retained::Nothing);
        }
        if header.timestamp_type() == TimestampType::LogAppendTime {
            header.max_timestamp = self.header.max_timestamp;
        }
        let horizon = horizon.filter(|_| has_tombstone && self.header.delete_horizon().is_none());
        let moved = horizon.and_then(|horizon| Some((horizon, self.count_from(horizon, &kept)?)));
        if moved.is_none() && header.record_count == self.header.record_count {
            return Ok(Retained::Unchanged);
        }
        if let Some((horizon, records)) = moved {
            header.attributes = header.attributes.with_delete_horizon();
            header.base_timestamp = horizon;
            kept = records;
        }
        let mut batch = vec![0; HEADER_SIZE];
        match header.compression()? {
            Compression::None => batch.append(&mut kept),
            codec => compression::compress(codec, None, &kept, &mut batch)?,
        }
        header.seal(batch).map(Retained::Rewritten)
    }

    fn take<'a>(&self, input: &mut &'a [u8]) -> Result<(Timestamp, KeyedRecord<'a>), Malformed> {
        let raw = RawRecord::take(input)?;
        let (offset, timestamp) = raw.place(&self.header)?;
        Ok((timestamp, KeyedRecord { offset, key: raw.key, is_tombstone: raw.value.is_none() }))
    }

    fn at_end(&self, rest: &[u8]) -> Result<(), BatchError> {
        if rest.is_empty() { Ok(()) } else { Err(BatchError::TrailingBytes(rest.len())) }
    }

    /// `records` with timestamps counted from another base; `None` if one would be too far from it.
    fn count_from(&self, base: Timestamp, records: &[u8]) -> Option<Vec<u8>> {
        let shift = self.header.base_timestamp.0.checked_sub(base.0)?;
        let mut input = records;
        let mut out = Vec::with_capacity(records.len() + records.len() / 8);
        while !input.is_empty() {
            let size = usize::try_from(varint::take_i32(&mut input).ok()?).ok()?;
            let mut fields = varint::take(&mut input, size).ok()?;
            let attributes = varint::take_byte(&mut fields).ok()?;
            let delta = varint::take_i64(&mut fields).ok()?.checked_add(shift)?;
            varint::put(&mut out, (1 + varint::size(delta) + fields.len()) as i64);
            out.push(attributes);
            varint::put(&mut out, delta);
            out.extend_from_slice(fields);
        }
        Some(out)
    }
}

impl BatchHeader {
    /// The batch of this header without any record: what its producer and its epoch are known by.
    ///
    /// # Errors
    /// None in practice; a header without records always fits.
    pub fn emptied(&self) -> Result<Bytes, BatchError> {
        let attributes = self.attributes.with_compression(Compression::None).without_delete_horizon();
        let mut header = BatchHeader { record_count: 0, attributes, base_timestamp: Timestamp::NONE, ..*self };
        header.seal(vec![0; HEADER_SIZE])
    }

    /// The largest timestamp of the records that are left; none where compaction took them all.
    pub fn largest_timestamp(&self) -> Timestamp {
        if self.record_count == 0 { Timestamp::NONE } else { self.max_timestamp }
    }
}

fn malformed(index: i32, reason: Malformed) -> BatchError {
    BatchError::Record { index, reason: reason.text() }
}
