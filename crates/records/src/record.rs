//! The records inside a batch: reading them all, and finding one by its timestamp.
//!
//! Offsets and timestamps of records are deltas to the header; with `LogAppendTime` the header's maximum timestamp
//! stands for all of them. Not here: which records a client may send (`produce.rs`). Next: `varint.rs`.

use bytes::{Buf, Bytes};
use ottla_types::{Offset, Timestamp};

use crate::{
    BatchError, BatchHeader, Compression, Decompress, HEADER_SIZE, TimestampType, compression,
    varint::{Malformed, take, take_byte, take_i32, take_i64},
};

/// One record, with the place it has in its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The record's offset, counted from the base offset its batch has now.
    pub offset: Offset,
    /// When it was made or appended, as the batch's timestamp type says.
    pub timestamp: Timestamp,
    /// The key; `None` is null.
    pub key: Option<Bytes>,
    /// The value; `None` is null, a tombstone in a compacted topic.
    pub value: Option<Bytes>,
    /// The headers (KIP-82), in order; keys may repeat.
    pub headers: Vec<RecordHeader>,
}

/// One header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The key; UTF-8 by agreement, which nobody checks.
    pub key: Bytes,
    /// The value; `None` is null.
    pub value: Option<Bytes>,
}

/// The records of one batch, decompressed where needed.
///
/// `batch` is the whole batch that `header` was read from; neither CRC nor base offset are checked, and the iterator
/// ends at the first record that cannot be read. Uncompressed records share the memory of `batch`.
///
/// # Errors
/// `batch` is too short, its codec is unknown, or its data is damaged or larger than the limit when decompressed.
pub fn records(header: &BatchHeader, batch: &Bytes, limits: Decompress) -> Result<RecordIter, BatchError> {
    Ok(RecordIter { header: *header, index: 0, rest: body(header, batch, limits)? })
}

/// The records of a batch as they lie one behind the other, decompressed where needed.
pub(crate) fn body(header: &BatchHeader, batch: &Bytes, limits: Decompress) -> Result<Bytes, BatchError> {
    let size = header.size();
    if batch.len() < size {
        return Err(BatchError::Truncated { needed: size, available: batch.len() });
    }
    Ok(match header.compression()? {
        // A batch whose records were all compacted away may keep its codec bits and has nothing to decompress.
        _ if header.record_count == 0 => Bytes::new(),
        Compression::None => batch.slice(HEADER_SIZE..size),
        codec => compression::decompress(codec, &batch[HEADER_SIZE..size], limits)?.into(),
    })
}

/// Offset and timestamp of the first record whose timestamp is `target` or later, for ListOffsets (KIP-79).
///
/// # Errors
/// As [`records`], and a record on the way that cannot be read.
pub fn first_at_or_after(
    header: &BatchHeader,
    batch: &Bytes,
    target: Timestamp,
    limits: Decompress,
) -> Result<Option<(Offset, Timestamp)>, BatchError> {
    if header.max_timestamp < target {
        return Ok(None);
    }
    let records = records(header, batch, limits)?;
    let mut input = &records.rest[..];
    for index in 0..header.record_count {
        let malformed = |reason: Malformed| BatchError::Record { index, reason: reason.text() };
        let (offset, timestamp) =
            RawRecord::take(&mut input).and_then(|record| record.place(header)).map_err(malformed)?;
        if timestamp >= target {
            return Ok(Some((offset, timestamp)));
        }
    }
    Ok(None)
}

/// The iterator [`records`] returns; it ends at the first error.
#[derive(Clone, Debug)]
pub struct RecordIter {
    header: BatchHeader,
    index: i32,
    rest: Bytes,
}

impl RecordIter {
    fn read(&mut self) -> Result<Record, Malformed> {
        let mut input = &self.rest[..];
        let raw = RawRecord::take(&mut input)?;
        let (offset, timestamp) = raw.place(&self.header)?;
        let share = |bytes: &[u8]| self.rest.slice_ref(bytes);
        let mut headers = Vec::with_capacity(raw.header_count);
        let mut pairs = raw.headers;
        for _ in 0..raw.header_count {
            let (key, value) = take_header(&mut pairs)?;
            headers.push(RecordHeader { key: share(key), value: value.map(share) });
        }
        let record = Record { offset, timestamp, key: raw.key.map(share), value: raw.value.map(share), headers };
        let consumed = self.rest.len() - input.len();
        self.rest.advance(consumed);
        Ok(record)
    }
}

impl Iterator for RecordIter {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.header.record_count {
            let left = std::mem::take(&mut self.rest).len();
            return (left > 0).then_some(Err(BatchError::TrailingBytes(left)));
        }
        let index = self.index;
        match self.read() {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(malformed) => {
                self.rest.clear();
                self.index = self.header.record_count;
                Some(Err(BatchError::Record { index, reason: malformed.text() }))
            }
        }
    }
}

/// A record as it lies in its batch, all lengths checked.
pub(crate) struct RawRecord<'a> {
    timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    header_count: usize,
    headers: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// Takes one record off the front of `input`.
    #[inline]
    pub(crate) fn take(input: &mut &'a [u8]) -> Result<RawRecord<'a>, Malformed> {
        let size = usize::try_from(take_i32(input)?).map_err(|_| Malformed::NegativeSize)?;
        let mut fields = take(input, size)?;
        let _attributes = take_byte(&mut fields)?;
        let timestamp_delta = take_i64(&mut fields)?;
        let offset_delta = take_i32(&mut fields)?;
        let key = take_nullable(&mut fields)?;
        let value = take_nullable(&mut fields)?;
        let header_count = usize::try_from(take_i32(&mut fields)?).map_err(|_| Malformed::NegativeHeaderCount)?;
        let headers = fields;
        // The smallest header has two bytes.
        if header_count > headers.len() / 2 {
            return Err(Malformed::HeaderCountTooLarge);
        }
        for _ in 0..header_count {
            take_header(&mut fields)?;
        }
        if !fields.is_empty() {
            return Err(Malformed::SizeTooLarge);
        }
        Ok(RawRecord { timestamp_delta, offset_delta, key, value, header_count, headers })
    }

    /// Offset and timestamp, from the deltas.
    pub(crate) fn place(&self, header: &BatchHeader) -> Result<(Offset, Timestamp), Malformed> {
        if !(0..=header.last_offset_delta).contains(&self.offset_delta) {
            return Err(Malformed::OffsetOutOfRange);
        }
        let offset = header.base_offset.checked_add(i64::from(self.offset_delta));
        let offset = offset.ok_or(Malformed::OffsetOutOfRange)?;
        Ok((offset, self.timestamp(header)?))
    }

    /// The record's timestamp.
    #[inline]
    pub(crate) fn timestamp(&self, header: &BatchHeader) -> Result<Timestamp, Malformed> {
        match header.timestamp_type() {
            TimestampType::LogAppendTime => Ok(header.max_timestamp),
            TimestampType::CreateTime => {
                let sum = header.base_timestamp.0.checked_add(self.timestamp_delta);
                sum.map(Timestamp).ok_or(Malformed::TimestampOverflows)
            }
        }
    }
}

fn take_header<'a>(input: &mut &'a [u8]) -> Result<(&'a [u8], Option<&'a [u8]>), Malformed> {
    let key = take_nullable(input)?.ok_or(Malformed::NullHeaderKey)?;
    Ok((key, take_nullable(input)?))
}

/// Bytes behind their length, where -1 is null.
#[inline]
fn take_nullable<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    match take_i32(input)? {
        -1 => Ok(None),
        size => take(input, usize::try_from(size).map_err(|_| Malformed::NegativeLength)?).map(Some),
    }
}
