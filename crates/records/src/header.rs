//! The header of a batch, the CRC over it, and how batches follow one another.
//!
//! The base offset, the length and the leader epoch lie outside the CRC, so that a broker can set them without
//! touching the rest. Not here: what a client may send (`produce.rs`) and what the records say (`record.rs`).

use bytes::{Buf, Bytes};
use ottla_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::{BatchError, Compression};

/// Bytes from the base offset through the record count: where the records begin.
pub const HEADER_SIZE: usize = 61;
/// Bytes of the base offset and the length field, which the length does not count.
pub const LENGTH_PREFIX: usize = 12;

const LENGTH_MIN: i32 = (HEADER_SIZE - LENGTH_PREFIX) as i32;
const MAGIC: i8 = 2;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
/// Where the bytes under the CRC begin.
const ATTRIBUTES_AT: usize = 21;

/// Who set the timestamps of a batch: `message.timestamp.type` (KIP-32).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// Each record has the time its producer gave it.
    #[default]
    CreateTime,
    /// All records have the time of the append, which is the header's maximum timestamp.
    LogAppendTime,
}

/// The attribute bits of a batch. Bits nobody has defined are kept as they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub u16);

impl Attributes {
    const COMPRESSION: u16 = 0x07;
    const LOG_APPEND_TIME: u16 = 1 << 3;
    const TRANSACTIONAL: u16 = 1 << 4;
    const CONTROL: u16 = 1 << 5;
    const DELETE_HORIZON: u16 = 1 << 6;

    pub(crate) fn with_compression(self, compression: Compression) -> Attributes {
        Attributes(self.0 & !Self::COMPRESSION | u16::from(compression.id()))
    }

    pub(crate) fn with_log_append_time(self) -> Attributes {
        Attributes(self.0 | Self::LOG_APPEND_TIME)
    }

    pub(crate) fn with_transactional(self) -> Attributes {
        Attributes(self.0 | Self::TRANSACTIONAL)
    }

    pub(crate) fn with_control(self) -> Attributes {
        Attributes(self.0 | Self::CONTROL)
    }

    pub(crate) fn with_delete_horizon(self) -> Attributes {
        Attributes(self.0 | Self::DELETE_HORIZON)
    }

    pub(crate) fn without_delete_horizon(self) -> Attributes {
        Attributes(self.0 & !Self::DELETE_HORIZON)
    }
}

/// The fixed fields of a batch, in wire order (magic is always 2).
///
/// From [`BatchHeader::parse`] these hold: `length >= 49`, `base_offset` and `last_offset_delta` are not negative and
/// [`BatchHeader::next_offset`] is in range, `0 <= record_count <= last_offset_delta + 1` (compaction leaves gaps).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record the batch had when it was written.
    pub base_offset: Offset,
    /// Bytes that follow the length field.
    pub length: u32,
    /// Epoch of the leader that appended the batch; -1 from producers.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec, timestamp type and kind of batch.
    pub attributes: Attributes,
    /// Last offset minus base offset.
    pub last_offset_delta: i32,
    /// Timestamp of the first record, which the records' deltas count from.
    pub base_timestamp: Timestamp,
    /// Largest timestamp of the batch, or the time of the append.
    pub max_timestamp: Timestamp,
    /// Id of an idempotent producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// Epoch of that id.
    pub producer_epoch: ProducerEpoch,
    /// Sequence number of the first record; later ones count up from it.
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`; the records behind it need not be there, and the CRC is not checked.
    ///
    /// # Errors
    /// Fewer than [`HEADER_SIZE`] bytes, a magic other than 2, or fields that contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        // Older formats have their magic in the same place and may be shorter than this header.
        if let Some(&magic) = bytes.get(MAGIC_AT)
            && magic.cast_signed() != MAGIC
        {
            return Err(BatchError::Magic(magic.cast_signed()));
        }
        let Some(mut fields) = bytes.get(..HEADER_SIZE) else {
            return Err(BatchError::Truncated { needed: HEADER_SIZE, available: bytes.len() });
        };
        let base_offset = fields.get_i64();
        let length = fields.get_i32();
        let leader_epoch = LeaderEpoch(fields.get_i32());
        let _magic = fields.get_i8();
        let crc = fields.get_u32();
        let attributes = Attributes(fields.get_u16());
        let last_offset_delta = fields.get_i32();
        let header = BatchHeader {
            base_offset: Offset(base_offset),
            length: match u32::try_from(length) {
                Ok(positive) if length >= LENGTH_MIN => positive,
                _ => return Err(BatchError::Length(length)),
            },
            leader_epoch,
            crc,
            attributes,
            last_offset_delta,
            base_timestamp: Timestamp(fields.get_i64()),
            max_timestamp: Timestamp(fields.get_i64()),
            producer_id: ProducerId(fields.get_i64()),
            producer_epoch: ProducerEpoch(fields.get_i16()),
            base_sequence: fields.get_i32(),
            record_count: fields.get_i32(),
        };
        let span = i64::from(last_offset_delta) + 1;
        if base_offset < 0 || last_offset_delta < 0 || base_offset.checked_add(span).is_none() {
            return Err(BatchError::Offsets { base_offset, last_offset_delta });
        }
        if header.record_count < 0 || i64::from(header.record_count) > span {
            return Err(BatchError::RecordCount { count: header.record_count, last_offset_delta });
        }
        Ok(header)
    }

    /// Bytes of the whole batch, header and length prefix included.
    pub fn size(&self) -> usize {
        LENGTH_PREFIX + self.length as usize
    }

    /// The offset of the last record the batch had when it was written.
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(i64::from(self.last_offset_delta)))
    }

    /// The offset behind the batch: the base offset of the next one.
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0.saturating_add(1))
    }

    /// The sequence number of the last record, which wraps from 2^31 - 1 to 0; -1 where the batch has none.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        let sum = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (sum & i64::from(i32::MAX)) as i32
    }

    /// Whether the batch has a producer id, so that its sequence numbers count (KIP-98).
    pub fn is_idempotent(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes.0 & Attributes::TRANSACTIONAL != 0
    }

    /// Whether the batch holds markers for brokers and clients instead of a user's records.
    pub fn is_control(&self) -> bool {
        self.attributes.0 & Attributes::CONTROL != 0
    }

    /// The codec of the records.
    ///
    /// # Errors
    /// The attribute bits name none.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let id = (self.attributes.0 & Attributes::COMPRESSION) as u8;
        Compression::from_id(id).ok_or(BatchError::UnknownCompression(id))
    }

    /// From when on compaction may drop the tombstones of the batch; it is where the base timestamp was (KIP-534).
    pub fn delete_horizon(&self) -> Option<Timestamp> {
        (self.attributes.0 & Attributes::DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// Who set the timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes.0 & Attributes::LOG_APPEND_TIME {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }

    /// Finishes a batch: `batch` holds [`HEADER_SIZE`] bytes of anything and then the records as they will lie there.
    /// Length and CRC are set here, in the bytes and in `self`.
    pub(crate) fn seal(&mut self, mut batch: Vec<u8>) -> Result<Bytes, BatchError> {
        let length = batch.len().checked_sub(LENGTH_PREFIX).and_then(|length| i32::try_from(length).ok());
        self.length = length.ok_or(BatchError::Full)?.cast_unsigned();
        let Some(fields) = batch.first_chunk_mut::<HEADER_SIZE>() else {
            return Err(BatchError::Truncated { needed: HEADER_SIZE, available: batch.len() });
        };
        fields[..MAGIC_AT].copy_from_slice(&stored_head(self, self.base_offset, self.leader_epoch));
        fields[MAGIC_AT] = MAGIC.cast_unsigned();
        fields[21..23].copy_from_slice(&self.attributes.0.to_be_bytes());
        fields[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        fields[27..35].copy_from_slice(&self.base_timestamp.0.to_be_bytes());
        fields[35..43].copy_from_slice(&self.max_timestamp.0.to_be_bytes());
        fields[43..51].copy_from_slice(&self.producer_id.0.to_be_bytes());
        fields[51..53].copy_from_slice(&self.producer_epoch.0.to_be_bytes());
        fields[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        fields[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        self.crc = crc_fast::crc32_iscsi(&batch[ATTRIBUTES_AT..]);
        batch[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&self.crc.to_be_bytes());
        Ok(batch.into())
    }
}

/// Whether the bytes of one whole batch have the CRC-32C its header states; false for fewer bytes than a header.
pub fn crc_matches(batch: &[u8]) -> bool {
    if batch.len() < HEADER_SIZE {
        return false;
    }
    let (head, covered) = batch.split_at(ATTRIBUTES_AT);
    head[CRC_AT..] == crc_fast::crc32_iscsi(covered).to_be_bytes()
}

/// The first 16 bytes of a batch as a log stores it: base offset, length, leader epoch. All of them lie outside the
/// CRC, so the rest of the batch goes to disk as it is.
pub fn stored_head(header: &BatchHeader, base: Offset, epoch: LeaderEpoch) -> [u8; 16] {
    let mut head = [0; 16];
    head[..8].copy_from_slice(&base.0.to_be_bytes());
    head[8..12].copy_from_slice(&header.length.to_be_bytes());
    head[12..].copy_from_slice(&epoch.0.to_be_bytes());
    head
}

/// The batches that lie one behind the other in `bytes`, without copying; CRCs are not checked.
///
/// The iterator ends at the first error. [`BatchError::Truncated`] is what a fetch sees whose byte limit cut the last
/// batch, and no fault there.
pub fn split(bytes: &Bytes) -> Batches {
    Batches { rest: bytes.clone() }
}

/// The iterator [`split`] returns.
#[derive(Clone, Debug)]
pub struct Batches {
    rest: Bytes,
}

impl Iterator for Batches {
    type Item = Result<(BatchHeader, Bytes), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let available = self.rest.len();
        let next = BatchHeader::parse(&self.rest).and_then(|header| match header.size() {
            needed if needed > available => Err(BatchError::Truncated { needed, available }),
            size => Ok((header, self.rest.split_to(size))),
        });
        if next.is_err() {
            self.rest.clear();
        }
        Some(next)
    }
}
