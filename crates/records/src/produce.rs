//! What Produce allows into a log (rule L1), and the few rewrites a topic's configuration asks for.
//!
//! An uncompressed batch gets one strict pass over its records. A compressed one passes by header and CRC, unless
//! somebody must see its records: the topic demands keys or another codec, or the header's timestamps are out of
//! bounds or cannot be right. Not here: sequence numbers and epochs, which need the log's state. Next: `record.rs`.

use bytes::Bytes;
use ottla_types::Timestamp;

use crate::{
    BatchError, BatchHeader, Compression, Decompress, HEADER_SIZE, TimestampType, compression, crc_matches,
    record::RawRecord, survey::survey, varint::Malformed,
};

/// A refusal names no more records than this, so that a large batch does not make a larger answer.
const RECORD_ERRORS_MAX: usize = 10_000;
const NO_KEY: &str = "a compacted topic takes no record without a key";
const TIMESTAMP_OUT_OF_BOUNDS: &str = "the timestamp is outside the bounds of the topic";

/// A topic's `compression.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopicCompression {
    /// `producer`: batches stay as their producers compressed them.
    #[default]
    Producer,
    /// This codec, `uncompressed` being [`Compression::None`], at this level of the codec's own scale.
    Codec(Compression, Option<i32>),
}

/// What a topic's configuration and the request's version say about a batch.
#[derive(Clone, Copy, Debug)]
pub struct ProducePolicy {
    /// `max.message.bytes`: the largest batch, as compressed.
    pub max_message_bytes: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far behind `now` a `CreateTime` may lie.
    pub before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far ahead of `now` a `CreateTime` may lie.
    pub after_max_ms: i64,
    /// The wall clock at the append.
    pub now: Timestamp,
    /// Whether the topic is compacted, so that every record needs a key.
    pub require_keys: bool,
    /// `compression.type`.
    pub compression: TopicCompression,
    /// Whether the request may carry zstd: Produce from version 7 on (KIP-110).
    pub zstd_allowed: bool,
    /// The bound where compressed records must be looked into.
    pub decompress: Decompress,
}

/// A batch that may be appended.
#[derive(Clone, Debug)]
pub struct ProducedBatch {
    /// The header of `bytes`.
    pub header: BatchHeader,
    /// The producer's own bytes where nothing had to change, and else new ones: the time of the append, a corrected
    /// maximum timestamp, another codec.
    pub bytes: Bytes,
}

/// Why a batch is not taken; each variant is one of Kafka's error codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceRefusal {
    /// `CORRUPT_MESSAGE` (2), which clients retry: the CRC does not match.
    #[error("the CRC of the batch does not match its bytes")]
    CorruptMessage,
    /// `INVALID_RECORD` (87).
    #[error("{message}")]
    InvalidRecord {
        /// What is wrong, for the answer's `error_message`.
        message: String,
        /// The records at fault, empty where it is the batch (KIP-467).
        records: Vec<RecordError>,
    },
    /// `INVALID_TIMESTAMP` (32).
    #[error("{message}")]
    InvalidTimestamp {
        /// What is wrong, for the answer's `error_message`.
        message: String,
        /// The records at fault, empty where it is the batch (KIP-467).
        records: Vec<RecordError>,
    },
    /// `MESSAGE_TOO_LARGE` (10), on which the Java client splits the batch.
    #[error("the batch has {size} bytes and the topic takes {max}")]
    MessageTooLarge {
        /// Bytes of the batch; where decompression was stopped, one more than the limit.
        size: usize,
        /// The limit it is over.
        max: usize,
    },
    /// `UNSUPPORTED_COMPRESSION_TYPE` (76).
    #[error("{message}")]
    UnsupportedCompression {
        /// What is wrong, for the answer's `error_message`.
        message: String,
    },
}

/// One record at fault, as the answer to a Produce from version 8 on tells it (KIP-467).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Position of the record in its batch, from 0.
    pub batch_index: i32,
    /// What is wrong with it.
    pub message: &'static str,
}

/// Checks the records of one partition in a Produce request and makes them ready to append.
///
/// # Errors
/// A [`ProduceRefusal`]; nothing of the batch may be appended then.
pub fn validate_produced(bytes: &Bytes, policy: &ProducePolicy) -> Result<ProducedBatch, ProduceRefusal> {
    let header = sole_batch(bytes, policy)?;
    let codec = check_header(&header, policy)?;
    let target = match policy.compression {
        TopicCompression::Producer => codec,
        TopicCompression::Codec(target, _) => target,
    };
    let inspect = codec == Compression::None
        || target != codec
        || policy.require_keys
        || !policy.timestamps_hold(header.base_timestamp, header.max_timestamp);
    let body = &bytes[HEADER_SIZE..];
    if !inspect {
        return stamp(header, bytes, header.max_timestamp, policy);
    }

    let decompressed;
    let records = if codec == Compression::None {
        body
    } else {
        decompressed = compression::decompress(codec, body, policy.decompress)?;
        &decompressed
    };
    let max_timestamp = inspect_records(&header, records, policy)?;
    if target == codec {
        return stamp(header, bytes, max_timestamp, policy);
    }
    recompress(header, records, target, max_timestamp, policy)
}

impl ProducePolicy {
    /// Whether a `CreateTime` is allowed; none at all always is.
    fn allows(&self, timestamp: Timestamp) -> bool {
        timestamp == Timestamp::NONE
            || self.now.0.saturating_sub(timestamp.0) <= self.before_max_ms
                && timestamp.0.saturating_sub(self.now.0) <= self.after_max_ms
    }

    /// Whether the timestamps of a header can be taken for those of its records.
    fn timestamps_hold(&self, base: Timestamp, max: Timestamp) -> bool {
        self.timestamp_type == TimestampType::LogAppendTime || base <= max && self.allows(base) && self.allows(max)
    }
}

/// The header of the one whole batch `bytes` must be.
fn sole_batch(bytes: &Bytes, policy: &ProducePolicy) -> Result<BatchHeader, ProduceRefusal> {
    let header = match BatchHeader::parse(bytes) {
        Ok(header) => header,
        // A header that makes no sense is likelier damaged than meant; what the CRC vouches for was meant.
        Err(BatchError::Length(_) | BatchError::Offsets { .. } | BatchError::RecordCount { .. })
            if !crc_matches(bytes) =>
        {
            return Err(ProduceRefusal::CorruptMessage);
        }
        Err(error) => return Err(error.into()),
    };
    let (needed, available) = (header.size(), bytes.len());
    if needed > available {
        return Err(BatchError::Truncated { needed, available }.into());
    }
    if needed < available {
        return Err(invalid("a produce request holds exactly one batch for each partition"));
    }
    if needed > policy.max_message_bytes {
        return Err(ProduceRefusal::MessageTooLarge { size: needed, max: policy.max_message_bytes });
    }
    if !crc_matches(bytes) {
        return Err(ProduceRefusal::CorruptMessage);
    }
    Ok(header)
}

/// Checks what the header alone can tell.
fn check_header(header: &BatchHeader, policy: &ProducePolicy) -> Result<Compression, ProduceRefusal> {
    if header.base_offset.0 != 0 {
        return Err(invalid(format!("the base offset of a produced batch is 0, not {}", header.base_offset)));
    }
    if header.record_count == 0 {
        return Err(invalid("a produced batch needs at least one record"));
    }
    if header.record_count - 1 != header.last_offset_delta {
        let (count, delta) = (header.record_count, header.last_offset_delta);
        return Err(invalid(format!("{count} records do not fit the last offset delta {delta}")));
    }
    if header.is_control() {
        return Err(invalid("clients may not write control records"));
    }
    // Without a producer id, epoch and sequence mean nothing, and clients send 0 as well as -1.
    if header.producer_id.0 < -1 {
        return Err(invalid(format!("the producer id {} is impossible", header.producer_id)));
    }
    if header.is_idempotent() && (header.base_sequence < 0 || header.producer_epoch.0 < 0) {
        let (sequence, epoch) = (header.base_sequence, header.producer_epoch);
        return Err(invalid(format!("producer {}: impossible sequence {sequence}, epoch {epoch}", header.producer_id)));
    }
    if header.is_transactional() && !header.is_idempotent() {
        return Err(invalid("a transactional batch needs a producer id"));
    }
    let codec = header.compression()?;
    if codec == Compression::Zstd && !policy.zstd_allowed {
        let message = "zstd needs Produce version 7 or later".to_owned();
        return Err(ProduceRefusal::UnsupportedCompression { message });
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        let message = "producers may not set the timestamp type LogAppendTime".to_owned();
        return Err(ProduceRefusal::InvalidTimestamp { message, records: Vec::new() });
    }
    Ok(codec)
}

/// The strict pass: every record well formed, in sequence, allowed. Returns the largest timestamp.
fn inspect_records(header: &BatchHeader, records: &[u8], policy: &ProducePolicy) -> Result<Timestamp, ProduceRefusal> {
    match vouch_for_records(header, records, policy) {
        Some(max_timestamp) => Ok(max_timestamp),
        None => inspect_each_record(header, records, policy),
    }
}

/// The strict pass over records that have nothing unusual about them; `None` says nothing.
fn vouch_for_records(header: &BatchHeader, records: &[u8], policy: &ProducePolicy) -> Option<Timestamp> {
    let survey = survey(records, header.record_count)?;
    let min = Timestamp(header.base_timestamp.0.checked_add(survey.min_timestamp_delta)?);
    let max = Timestamp(header.base_timestamp.0.checked_add(survey.max_timestamp_delta)?);
    // Where the first and the last are within bounds, so are all between; having no timestamp is no bound.
    let bounded = min > Timestamp::NONE || min == max && max == Timestamp::NONE;
    let keyed = survey.all_have_keys || !policy.require_keys;
    (bounded && keyed && policy.timestamps_hold(min, max)).then_some(max)
}

/// The same for any records, one by one: the answer names those at fault.
fn inspect_each_record(
    header: &BatchHeader,
    mut records: &[u8],
    policy: &ProducePolicy,
) -> Result<Timestamp, ProduceRefusal> {
    let check_time = policy.timestamp_type == TimestampType::CreateTime;
    let mut max_timestamp = Timestamp::NONE;
    let mut errors = Vec::new();
    let mut bad_time = false;
    for batch_index in 0..header.record_count {
        let malformed = |fault: Malformed| ProduceRefusal::InvalidRecord {
            message: BatchError::Record { index: batch_index, reason: fault.text() }.to_string(),
            records: vec![RecordError { batch_index, message: fault.text() }],
        };
        let record = RawRecord::take(&mut records).map_err(malformed)?;
        if record.offset_delta != batch_index {
            return Err(malformed(Malformed::OffsetNotPosition));
        }
        let timestamp = record.timestamp(header).map_err(malformed)?;
        max_timestamp = max_timestamp.max(timestamp);
        let message = if policy.require_keys && record.key.is_none() {
            NO_KEY
        } else if check_time && !policy.allows(timestamp) {
            bad_time = true;
            TIMESTAMP_OUT_OF_BOUNDS
        } else {
            continue;
        };
        if errors.len() < RECORD_ERRORS_MAX {
            errors.push(RecordError { batch_index, message });
        }
    }
    if !records.is_empty() {
        return Err(BatchError::TrailingBytes(records.len()).into());
    }
    // Kafka answers a batch that has both faults with the timestamp's code.
    if bad_time {
        let from = policy.now.0.saturating_sub(policy.before_max_ms);
        let to = policy.now.0.saturating_add(policy.after_max_ms);
        let message = format!("the topic takes timestamps from {from} to {to}");
        return Err(ProduceRefusal::InvalidTimestamp { message, records: errors });
    }
    if !errors.is_empty() {
        return Err(ProduceRefusal::InvalidRecord { message: NO_KEY.to_owned(), records: errors });
    }
    Ok(max_timestamp)
}

/// The batch with the timestamps it is to be stored with; the same bytes where they are right already.
fn stamp(
    mut header: BatchHeader,
    bytes: &Bytes,
    max_timestamp: Timestamp,
    policy: &ProducePolicy,
) -> Result<ProducedBatch, ProduceRefusal> {
    let before = header;
    set_timestamps(&mut header, max_timestamp, policy);
    if header == before {
        return Ok(ProducedBatch { header, bytes: bytes.clone() });
    }
    let bytes = header.seal(bytes.to_vec())?;
    Ok(ProducedBatch { header, bytes })
}

/// The batch with its records under another codec. The records themselves stay as they are: their deltas still hold.
fn recompress(
    mut header: BatchHeader,
    records: &[u8],
    target: Compression,
    max_timestamp: Timestamp,
    policy: &ProducePolicy,
) -> Result<ProducedBatch, ProduceRefusal> {
    let level = match policy.compression {
        TopicCompression::Producer => None,
        TopicCompression::Codec(_, level) => level,
    };
    let mut batch = vec![0; HEADER_SIZE];
    compression::compress(target, level, records, &mut batch)?;
    if batch.len() > policy.max_message_bytes {
        return Err(ProduceRefusal::MessageTooLarge { size: batch.len(), max: policy.max_message_bytes });
    }
    header.attributes = header.attributes.with_compression(target);
    set_timestamps(&mut header, max_timestamp, policy);
    let bytes = header.seal(batch)?;
    Ok(ProducedBatch { header, bytes })
}

fn set_timestamps(header: &mut BatchHeader, max_timestamp: Timestamp, policy: &ProducePolicy) {
    match policy.timestamp_type {
        TimestampType::CreateTime => header.max_timestamp = max_timestamp,
        TimestampType::LogAppendTime => {
            header.max_timestamp = policy.now;
            header.attributes = header.attributes.with_log_append_time();
        }
    }
}

fn invalid(message: impl Into<String>) -> ProduceRefusal {
    ProduceRefusal::InvalidRecord { message: message.into(), records: Vec::new() }
}

impl From<BatchError> for ProduceRefusal {
    fn from(error: BatchError) -> ProduceRefusal {
        match error {
            BatchError::UnknownCompression(_) => ProduceRefusal::UnsupportedCompression { message: error.to_string() },
            BatchError::DecompressedTooLarge { max_bytes } => {
                ProduceRefusal::MessageTooLarge { size: max_bytes.saturating_add(1), max: max_bytes }
            }
            error => invalid(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::BatchBuilder;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn policy(timestamp_type: TimestampType, require_keys: bool, before_max_ms: i64) -> ProducePolicy {
        ProducePolicy {
            max_message_bytes: 1 << 20,
            timestamp_type,
            before_max_ms,
            after_max_ms: 3_600_000,
            now: NOW,
            require_keys,
            compression: TopicCompression::Producer,
            zstd_allowed: true,
            decompress: Decompress { max_bytes: 1 << 20 },
        }
    }

    fn timestamps() -> impl Strategy<Value = i64> {
        prop_oneof![8 => NOW.0 - 100..NOW.0 + 100, 1 => Just(-1), 1 => -3..3i64, 1 => NOW.0..NOW.0 + 4_000_000]
    }

    prop_compose! {
        fn batch()(
            records in prop::collection::vec((timestamps(), any::<Option<[u8; 2]>>(), 0..300usize, 0..3usize), 1..100),
        ) -> Bytes {
            let mut builder = BatchBuilder::new(Compression::None, None);
            for (timestamp, key, size, headers) in records {
                let key = key.as_ref().map(|key| &key[..]);
                let value = vec![7; size];
                let pairs = [(&b"h"[..], None), (b"", Some(&b"x"[..]))];
                builder.push(Timestamp(timestamp), key, (size > 0).then_some(&value), &pairs[..headers]).unwrap();
            }
            builder.build().unwrap()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// What the quick way says is what the thorough one says, whatever was done to the records.
        #[test]
        fn l1_the_quick_pass_never_differs(
            batch in batch(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            log_append_time: bool,
            require_keys: bool,
            before_max_ms in prop_oneof![Just(i64::MAX), Just(50), Just(0)],
            base in prop_oneof![4 => Just(None), 1 => any::<i64>().prop_map(Some), 1 => Just(Some(i64::MAX))],
        ) {
            let mut header = BatchHeader::parse(&batch).unwrap();
            header.base_timestamp = base.map_or(header.base_timestamp, Timestamp);
            let mut records = batch[HEADER_SIZE..].to_vec();
            for (index, byte) in damage {
                let at = index.index(records.len());
                records[at] = byte;
            }
            let timestamp_type =
                if log_append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime };
            let policy = policy(timestamp_type, require_keys, before_max_ms);
            if let Some(max) = vouch_for_records(&header, &records, &policy) {
                prop_assert_eq!(inspect_each_record(&header, &records, &policy), Ok(max));
            }
        }
    }

    #[test]
    fn common_batches_take_the_quick_pass() {
        let policy = policy(TimestampType::CreateTime, false, i64::MAX);
        for (base, step) in [(NOW.0, 0), (NOW.0, 7), (NOW.0 - 600_000, 100), (-1, 0)] {
            let mut builder = BatchBuilder::new(Compression::None, None);
            for number in 0..1000 {
                let value = vec![7; number * 11];
                let timestamp = Timestamp(base + step * number as i64);
                builder.push(timestamp, Some(b"key"), Some(&value), &[(b"trace", Some(b"on"))]).unwrap();
            }
            let batch = builder.build().unwrap();
            let header = BatchHeader::parse(&batch).unwrap();
            let vouched = vouch_for_records(&header, &batch[HEADER_SIZE..], &policy);
            assert_eq!(vouched, Some(Timestamp(base + step * 999)));
        }
    }
}
