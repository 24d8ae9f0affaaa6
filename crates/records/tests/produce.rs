//! What Produce lets into a log, what it refuses with which error, and what it rewrites (rule L1).

// clippy.toml allows these in test functions; here the helpers between them need it too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use bytes::Bytes;
use ottla_records::{
    BatchBuilder, BatchHeader, Compression, ProducePolicy, ProduceRefusal, TimestampType, TopicCompression,
    crc_matches, validate_produced,
};
use ottla_types::{LeaderEpoch, ProducerEpoch, ProducerId, Timestamp};
use proptest::prelude::*;
use support::{CODECS, NOW, all, at, patched, policy, sample};

const LAST_OFFSET_DELTA_AT: usize = 23;
const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_ID_AT: usize = 43;
const PRODUCER_EPOCH_AT: usize = 51;
const BASE_SEQUENCE_AT: usize = 53;
const ATTRIBUTES_LOW_AT: usize = 22;

fn refusal(batch: &Bytes, policy: &ProducePolicy) -> ProduceRefusal {
    validate_produced(batch, policy).unwrap_err()
}

/// The message of an `InvalidRecord` and the positions it names.
fn invalid(batch: &Bytes, policy: &ProducePolicy) -> (String, Vec<i32>) {
    match refusal(batch, policy) {
        ProduceRefusal::InvalidRecord { message, records } => {
            (message, records.iter().map(|record| record.batch_index).collect())
        }
        other => panic!("{other:?}"),
    }
}

/// The positions an `InvalidTimestamp` names.
fn invalid_times(batch: &Bytes, policy: &ProducePolicy) -> Vec<i32> {
    match refusal(batch, policy) {
        ProduceRefusal::InvalidTimestamp { records, .. } => records.iter().map(|record| record.batch_index).collect(),
        other => panic!("{other:?}"),
    }
}

fn batch_of(codec: Compression, timestamps: &[i64]) -> Bytes {
    let mut builder = BatchBuilder::new(codec, None);
    for &timestamp in timestamps {
        builder.push(Timestamp(timestamp), Some(b"k"), Some(b"v"), &[]).unwrap();
    }
    builder.build().unwrap()
}

#[test]
fn l1_a_sound_batch_passes_without_a_copy() {
    for codec in CODECS {
        let batch = sample(codec).build().unwrap();
        let produced = validate_produced(&batch, &policy()).unwrap();
        assert_eq!(produced.bytes.as_ptr(), batch.as_ptr(), "{codec}");
        assert_eq!(produced.header, BatchHeader::parse(&batch).unwrap());
    }
}

#[test]
fn l1_exactly_one_batch() {
    let batch = sample(Compression::None).build().unwrap();
    let two = Bytes::from([&batch[..], &batch[..]].concat());
    assert!(invalid(&two, &policy()).0.contains("exactly one batch"));
    let more = Bytes::from([&batch[..], b"x"].concat());
    assert!(invalid(&more, &policy()).0.contains("exactly one batch"));
    assert!(invalid(&Bytes::new(), &policy()).0.contains("needs 61 bytes"));
    let old = patched(&batch, 16, &[1]);
    assert!(invalid(&old, &policy()).0.contains("magic 1"));
}

#[test]
fn l1_what_only_brokers_set_is_refused() {
    let batch = sample(Compression::None).build().unwrap();
    assert!(invalid(&patched(&batch, 0, &7i64.to_be_bytes()), &policy()).0.contains("base offset"));
    let control = sample(Compression::None).control().build().unwrap();
    assert!(invalid(&control, &policy()).0.contains("control"));
    let stamped = patched(&batch, ATTRIBUTES_LOW_AT, &[1 << 3]);
    assert_eq!(invalid_times(&stamped, &policy()), []);
    // A leader epoch means nothing from a client and is overwritten when stored.
    assert!(validate_produced(&patched(&batch, 12, &5i32.to_be_bytes()), &policy()).is_ok());
}

#[test]
fn l1_counts_and_offsets_agree() {
    let batch = sample(Compression::Lz4).build().unwrap();
    let gap = patched(&batch, LAST_OFFSET_DELTA_AT, &9i32.to_be_bytes());
    assert!(invalid(&gap, &policy()).0.contains("3 records do not fit the last offset delta 9"));
    let none = patched(&batch, 57, &0i32.to_be_bytes());
    assert!(invalid(&none, &policy()).0.contains("at least one record"));

    // The second record of two says it is the first; and a header that counts one record too few.
    let two = batch_of(Compression::None, &[NOW.0, NOW.0]);
    let second_offset = 61 + 9 + 3;
    assert_eq!(two[second_offset], 2);
    let (message, records) = invalid(&patched(&two, second_offset, &[0]), &policy());
    assert!(message.contains("record 1") && message.contains("offset delta"), "{message}");
    assert_eq!(records, [1]);
    let fewer = patched(&patched(&two, LAST_OFFSET_DELTA_AT, &0i32.to_be_bytes()), 57, &1i32.to_be_bytes());
    assert!(invalid(&fewer, &policy()).0.contains("follow the last record"));
}

#[test]
fn l1_producer_fields_are_consistent() {
    let plain = batch_of(Compression::None, &[NOW.0]);
    let idempotent = sample(Compression::None).build().unwrap();
    for (batch, position, bytes, expected) in [
        (&idempotent, BASE_SEQUENCE_AT, &(-1i32).to_be_bytes()[..], "sequence -1"),
        (&idempotent, PRODUCER_EPOCH_AT, &(-1i16).to_be_bytes(), "epoch -1"),
        (&idempotent, PRODUCER_ID_AT, &(-2i64).to_be_bytes(), "producer id -2"),
        (&plain, ATTRIBUTES_LOW_AT, &[1 << 4], "needs a producer id"),
    ] {
        let (message, records) = invalid(&patched(batch, position, bytes), &policy());
        assert!(message.contains(expected), "{message}");
        assert_eq!(records, []);
    }
    // Without a producer id some clients leave epoch and sequence at 0.
    let zeros = patched(&plain, PRODUCER_EPOCH_AT, &[0; 6]);
    assert!(!validate_produced(&zeros, &policy()).unwrap().header.is_idempotent());
}

#[test]
fn max_message_bytes_counts_the_batch_as_compressed() {
    for codec in CODECS {
        let batch = sample(codec).build().unwrap();
        let max_message_bytes = batch.len();
        assert!(validate_produced(&batch, &ProducePolicy { max_message_bytes, ..policy() }).is_ok());
        let policy = ProducePolicy { max_message_bytes: max_message_bytes - 1, ..policy() };
        let expected = ProduceRefusal::MessageTooLarge { size: batch.len(), max: batch.len() - 1 };
        assert_eq!(refusal(&batch, &policy), expected);
    }
    // It holds for what is stored as well: uncompressed, this one is too large.
    let mut builder = BatchBuilder::new(Compression::Gzip, None);
    builder.push(NOW, None, Some(&[0; 10_000]), &[]).unwrap();
    let compression = TopicCompression::Codec(Compression::None, None);
    let policy = ProducePolicy { max_message_bytes: 5_000, compression, ..policy() };
    let refusal = refusal(&builder.build().unwrap(), &policy);
    assert!(matches!(refusal, ProduceRefusal::MessageTooLarge { size: 10_001.., max: 5_000 }), "{refusal:?}");
}

#[test]
fn codecs_the_request_cannot_carry_are_refused() {
    let old = ProducePolicy { zstd_allowed: false, ..policy() };
    for codec in CODECS {
        let batch = sample(codec).build().unwrap();
        match validate_produced(&batch, &old) {
            Ok(_) => assert_ne!(codec, Compression::Zstd),
            Err(refusal) => {
                assert_eq!(codec, Compression::Zstd);
                assert!(matches!(refusal, ProduceRefusal::UnsupportedCompression { .. }), "{refusal:?}");
            }
        }
    }
    let unknown = patched(&sample(Compression::None).build().unwrap(), ATTRIBUTES_LOW_AT, &[5]);
    assert!(matches!(refusal(&unknown, &policy()), ProduceRefusal::UnsupportedCompression { .. }));
}

#[test]
fn timestamps_out_of_bounds_are_named_record_by_record() {
    let bounds = ProducePolicy { before_max_ms: 1_000, after_max_ms: 100, ..policy() };
    for codec in CODECS {
        // -1 is no timestamp at all, and always allowed.
        let fine = batch_of(codec, &[NOW.0 - 1_000, NOW.0 + 100, -1]);
        assert!(validate_produced(&fine, &bounds).is_ok(), "{codec}");
        let late = batch_of(codec, &[NOW.0, NOW.0 + 101, NOW.0, i64::MAX]);
        assert_eq!(invalid_times(&late, &bounds), [1, 3], "{codec}");
        let early = batch_of(codec, &[NOW.0 - 1_001, NOW.0]);
        assert_eq!(invalid_times(&early, &bounds), [0], "{codec}");
        // Where the append sets the time, the producer's does not matter.
        let append = ProducePolicy { timestamp_type: TimestampType::LogAppendTime, ..bounds };
        assert!(validate_produced(&early, &append).is_ok(), "{codec}");
    }
}

#[test]
fn records_without_a_key_are_named_where_the_topic_is_compacted() {
    let compacted = ProducePolicy { require_keys: true, ..policy() };
    for codec in CODECS {
        let (message, records) = invalid(&sample(codec).build().unwrap(), &compacted);
        assert!(message.contains("key"), "{message}");
        assert_eq!(records, [1], "an empty key is a key, {codec}");
        assert!(validate_produced(&batch_of(codec, &[NOW.0]), &compacted).is_ok());
    }
    let both = ProducePolicy { after_max_ms: 15, ..compacted };
    assert_eq!(invalid_times(&batch_of(Compression::None, &[NOW.0 + 20]), &both), [0]);
}

#[test]
fn a_refusal_names_a_bounded_number_of_records() {
    let mut builder = BatchBuilder::new(Compression::Zstd, None);
    for _ in 0..20_000 {
        builder.push(NOW, None, None, &[]).unwrap();
    }
    let compacted = ProducePolicy { require_keys: true, ..policy() };
    assert_eq!(invalid(&builder.build().unwrap(), &compacted).1.len(), 10_000);
}

#[test]
fn log_append_time_is_stamped_under_a_new_crc() {
    let append = ProducePolicy { timestamp_type: TimestampType::LogAppendTime, now: at(5_000), ..policy() };
    for codec in CODECS {
        let batch = sample(codec).build().unwrap();
        let produced = validate_produced(&batch, &append).unwrap();
        assert!(crc_matches(&produced.bytes));
        assert_eq!(BatchHeader::parse(&produced.bytes), Ok(produced.header));
        assert_eq!(produced.header.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!((produced.header.base_timestamp, produced.header.max_timestamp), (NOW, at(5_000)));
        assert_eq!(produced.bytes[61..], batch[61..]);
        assert!(all(&produced.bytes).iter().all(|record| record.timestamp == at(5_000)));
    }
}

#[test]
fn a_wrong_maximum_timestamp_is_corrected() {
    for codec in CODECS {
        let batch = sample(codec).build().unwrap();
        // No timestamp, and one far beyond the bound: neither is what the records say.
        for wrong in [-1, NOW.0 + 10_000_000] {
            let produced = validate_produced(&patched(&batch, MAX_TIMESTAMP_AT, &wrong.to_be_bytes()), &policy());
            assert_eq!(produced.unwrap().bytes, batch, "{codec}");
        }
    }
}

#[test]
fn damaged_compressed_records_are_found_where_they_are_looked_into() {
    let compacted = ProducePolicy { require_keys: true, ..policy() };
    for codec in CODECS.into_iter().filter(|codec| *codec != Compression::None) {
        let batch = batch_of(codec, &[NOW.0]);
        let damaged = support::with_body(&batch, b"this is no compressed data");
        assert!(validate_produced(&damaged, &policy()).is_ok(), "{codec}");
        assert!(matches!(refusal(&damaged, &compacted), ProduceRefusal::InvalidRecord { .. }), "{codec}");
    }
}

proptest! {
    #[test]
    fn a_topics_own_codec_keeps_every_record(
        source in prop::sample::select(&CODECS[..]),
        target in prop::sample::select(&CODECS[..]),
        append_time: bool,
        values in prop::collection::vec((0i64..1_000, prop::collection::vec(any::<u8>(), 0..50)), 1..50),
    ) {
        let mut builder = BatchBuilder::new(source, None)
            .producer(ProducerId(5), ProducerEpoch(6), 7)
            .transactional();
        for (age, value) in &values {
            builder.push(at(-age), Some(b"k"), Some(value), &[(b"h", None)]).unwrap();
        }
        let batch = builder.build().unwrap();
        let timestamp_type = if append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime };
        let compression = TopicCompression::Codec(target, Some(1));
        let produced = validate_produced(&batch, &ProducePolicy { compression, timestamp_type, ..policy() }).unwrap();

        prop_assert!(crc_matches(&produced.bytes));
        prop_assert_eq!(BatchHeader::parse(&produced.bytes), Ok(produced.header));
        prop_assert_eq!(produced.header.compression(), Ok(target));
        prop_assert!(produced.header.is_transactional());
        prop_assert_eq!(produced.header.leader_epoch, LeaderEpoch::NONE);
        prop_assert_eq!((produced.header.producer_id, produced.header.base_sequence), (ProducerId(5), 7));
        let mut before = all(&batch);
        if append_time {
            before.iter_mut().for_each(|record| record.timestamp = NOW);
        }
        prop_assert_eq!(all(&produced.bytes), before);
    }
}
