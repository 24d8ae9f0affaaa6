//! The same batches through this crate and through `kafka-protocol`, an implementation by others, in both directions.

// clippy.toml allows these in test functions; here the helpers between them need it too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    protocol::StrBytes,
    records::{
        Compression as TheirCodec, Record as Theirs, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions,
        TimestampType as TheirTimestampType,
    },
};
use ottla_records::{BatchBuilder, BatchHeader, Compression, Record, crc_matches, split, validate_produced};
use ottla_types::{ProducerEpoch, ProducerId, Timestamp};
use proptest::{collection::vec, option, prelude::*};
use support::{CODECS, LIMITS, NOW, all, at, policy, sample};

/// Timestamp behind [`NOW`], key, value, headers with distinct keys.
type Plan = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<Option<Vec<u8>>>);

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let bytes = || option::of(vec(0u8..4, 0..200));
    vec((0i64..100_000, bytes(), bytes(), vec(bytes(), 0..4)), 1..60)
}

fn codec() -> impl Strategy<Value = Compression> {
    prop::sample::select(&CODECS[..])
}

fn their_codec(codec: Compression) -> TheirCodec {
    match codec {
        Compression::None => TheirCodec::None,
        Compression::Gzip => TheirCodec::Gzip,
        Compression::Snappy => TheirCodec::Snappy,
        Compression::Lz4 => TheirCodec::Lz4,
        Compression::Zstd => TheirCodec::Zstd,
    }
}

fn ours(plans: &[Plan], codec: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(codec, None).producer(ProducerId(9), ProducerEpoch(1), 40).transactional();
    for (age, key, value, headers) in plans {
        let names: Vec<String> = (0..headers.len()).map(|index| format!("h{index}")).collect();
        let pairs: Vec<(&[u8], Option<&[u8]>)> =
            names.iter().zip(headers).map(|(name, value)| (name.as_bytes(), value.as_deref())).collect();
        builder.push(at(-age), key.as_deref(), value.as_deref(), &pairs).unwrap();
    }
    builder.build().unwrap()
}

fn theirs(plans: &[Plan]) -> Vec<Theirs> {
    let record = |(index, (age, key, value, headers)): (usize, &Plan)| Theirs {
        transactional: true,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: 9,
        producer_epoch: 1,
        timestamp_type: TheirTimestampType::Creation,
        offset: index as i64,
        sequence: 40 + index as i32,
        timestamp: at(-age).0,
        key: key.clone().map(Bytes::from),
        value: value.clone().map(Bytes::from),
        headers: (0..)
            .zip(headers)
            .map(|(index, value)| (StrBytes::from(format!("h{index}")), value.clone().map(Bytes::from)))
            .collect(),
    };
    plans.iter().enumerate().map(record).collect()
}

fn same(ours: &Record, theirs: &Theirs) -> bool {
    let headers = ours.headers.iter().map(|header| (&header.key[..], header.value.as_deref()));
    ours.offset.0 == theirs.offset
        && ours.timestamp.0 == theirs.timestamp
        && ours.key == theirs.key
        && ours.value == theirs.value
        && headers.eq(theirs.headers.iter().map(|(key, value)| (key.as_bytes(), value.as_deref())))
}

proptest! {
    #[test]
    fn what_we_build_others_read(plans in plans(), codec in codec()) {
        let batch = ours(&plans, codec);
        prop_assert!(crc_matches(&batch));
        let read = RecordBatchDecoder::decode(&mut batch.clone()).unwrap();
        prop_assert_eq!(read.compression, their_codec(codec));
        prop_assert_eq!(read.records, theirs(&plans));
    }

    #[test]
    fn l1_what_others_build_we_accept_and_read(plans in plans(), codec in codec()) {
        let records = theirs(&plans);
        let mut encoded = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: their_codec(codec) };
        RecordBatchEncoder::encode(&mut encoded, &records, &options).unwrap();
        let batch = encoded.freeze();
        let produced = validate_produced(&batch, &policy()).unwrap();
        prop_assert_eq!(&produced.bytes, &batch);
        prop_assert_eq!((produced.header.producer_id, produced.header.base_sequence), (ProducerId(9), 40));
        prop_assert!(produced.header.is_transactional() && produced.header.is_idempotent());
        let read = all(&batch);
        prop_assert_eq!(read.len(), records.len());
        for (ours, theirs) in read.iter().zip(&records) {
            prop_assert!(same(ours, theirs), "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn a_lookup_by_time_finds_what_a_scan_finds(plans in plans(), codec in codec(), age in -10i64..100_010) {
        let batch = ours(&plans, codec);
        let header = BatchHeader::parse(&batch).unwrap();
        let found = ottla_records::first_at_or_after(&header, &batch, at(-age), LIMITS).unwrap();
        let scanned = all(&batch).into_iter().find(|record| record.timestamp >= at(-age));
        prop_assert_eq!(found, scanned.map(|record| (record.offset, record.timestamp)));
    }

    #[test]
    fn batches_behind_one_another_are_split_without_a_copy(many in vec((plans(), codec()), 0..5), cut in 0usize..100) {
        let batches: Vec<Bytes> = many.iter().map(|(plans, codec)| ours(plans, *codec)).collect();
        let joined = Bytes::from(batches.concat());
        let apart: Vec<Bytes> = split(&joined).map(|batch| batch.unwrap().1).collect();
        prop_assert_eq!(&apart, &batches);
        prop_assert!(apart.iter().all(|batch| joined.as_ptr_range().contains(&batch.as_ptr())));

        // Somewhere into the last batch, or not at all.
        let cut = batches.last().map_or(0, |last| cut % last.len());
        let short = joined.slice(..joined.len() - cut);
        let whole = split(&short).filter(Result::is_ok).count();
        prop_assert_eq!(whole, batches.len() - usize::from(cut > 0));
    }
}

#[test]
fn p2_the_header_says_what_the_builder_was_told() {
    for codec in CODECS {
        let batch = sample(codec).build().unwrap();
        let header = BatchHeader::parse(&batch).unwrap();
        assert_eq!(header.size(), batch.len());
        assert_eq!(header.compression(), Ok(codec));
        assert_eq!((header.base_timestamp, header.max_timestamp), (NOW, at(20)));
        assert_eq!((header.last_offset().0, header.next_offset().0, header.record_count), (2, 3, 3));
        // The sequence numbers are 2^31 - 2, 2^31 - 1, 0: they wrap (P2).
        assert_eq!((header.base_sequence, header.last_sequence()), (i32::MAX - 1, 0));
        assert!(!header.is_transactional() && !header.is_control());
        assert!(BatchHeader::parse(&sample(codec).control().build().unwrap()).unwrap().is_control());
    }
}

#[test]
fn every_level_of_every_codec_is_read_back() {
    for codec in CODECS {
        for level in [-200_000, -1, 0, 1, 9, 22, 1000] {
            let mut builder = BatchBuilder::new(codec, Some(level));
            builder.push(NOW, None, Some(&[7; 100_000]), &[]).unwrap();
            let batch = builder.build().unwrap();
            assert_eq!(all(&batch)[0].value.as_deref(), Some(&[7; 100_000][..]), "{codec} {level}");
        }
        assert_eq!(codec.to_string().parse(), Ok(codec));
    }
    assert!("GZIP".parse::<Compression>().is_err());
}

#[test]
fn snappy_without_the_java_framing_is_read() {
    let plain = sample(Compression::None).build().unwrap();
    let raw = snap::raw::Encoder::new().compress_vec(&plain[61..]).unwrap();
    let head = sample(Compression::Snappy).build().unwrap();
    let batch = support::with_body(&head, &raw);
    assert_eq!(all(&batch), all(&plain));
}

#[test]
fn a_batch_as_stored_keeps_its_crc() {
    let batch = sample(Compression::Zstd).build().unwrap();
    let header = BatchHeader::parse(&batch).unwrap();
    let head = ottla_records::stored_head(&header, 5_000_000_000.into(), 12.into());
    let stored = Bytes::from([&head[..], &batch[16..]].concat());
    assert!(crc_matches(&stored));
    let header = BatchHeader::parse(&stored).unwrap();
    assert_eq!((header.base_offset.0, header.leader_epoch.0), (5_000_000_000, 12));
    assert_eq!(all(&stored).iter().map(|record| record.offset.0 - 5_000_000_000).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn timestamps_before_1970_and_far_apart_survive() {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(Timestamp(-5_000), None, None, &[]).unwrap();
    builder.push(Timestamp(i64::MAX - 5_000), None, None, &[]).unwrap();
    assert_eq!(builder.push(Timestamp(i64::MAX), None, None, &[]), Err(ottla_records::BatchError::Full));
    let times: Vec<_> = all(&builder.build().unwrap()).iter().map(|record| record.timestamp.0).collect();
    assert_eq!(times, [-5_000, i64::MAX - 5_000]);
}
