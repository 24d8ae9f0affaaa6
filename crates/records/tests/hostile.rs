//! Bytes from strangers: cut short, flipped, made up, or claiming to be huge. An error each time, and no panic.

// clippy.toml allows these in test functions; here the helpers between them need it too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use bytes::Bytes;
use ottla_records::{
    BatchBuilder, BatchError, BatchHeader, Compression, Decompress, ProduceRefusal, crc_matches, first_at_or_after,
    records, split, validate_produced,
};
use proptest::{collection::vec, prelude::*};
use support::{CODECS, LIMITS, NOW, all, patched, policy, sample, with_body};

/// Reads everything there is to read, for the sake of not panicking.
fn read_all_ways(bytes: &Bytes) -> Result<usize, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let _ = first_at_or_after(&header, bytes, NOW, LIMITS);
    let _ = split(bytes).count();
    let mut seen = 0;
    for record in records(&header, bytes, LIMITS)? {
        record?;
        seen += 1;
    }
    Ok(seen)
}

#[test]
fn l1_a_batch_cut_at_any_byte_is_refused() {
    for codec in CODECS {
        let batch = sample(codec).build().unwrap();
        for size in 0..batch.len() {
            let cut = batch.slice(..size);
            assert!(matches!(read_all_ways(&cut), Err(BatchError::Truncated { .. })), "{codec} {size}");
            let refusal = validate_produced(&cut, &policy()).unwrap_err();
            assert!(matches!(refusal, ProduceRefusal::InvalidRecord { .. }), "{codec} {size}: {refusal}");
        }
    }
}

#[test]
fn l1_records_cut_at_any_byte_are_never_read_wrong() {
    for codec in CODECS {
        let batch = sample(codec).build().unwrap();
        let whole = all(&batch);
        for size in 0..batch.len() - 61 {
            let cut = with_body(&batch, &batch[61..61 + size]);
            let header = BatchHeader::parse(&cut).unwrap();
            let read: Result<Vec<_>, _> =
                records(&header, &cut, LIMITS).and_then(|records| records.collect::<Result<_, _>>());
            // A frame that lacks nothing but its end mark may still give up all its records.
            assert!(read.as_ref().is_err() || read.as_ref() == Ok(&whole), "{codec} {size}: {read:?}");
            let inspected = validate_produced(&cut, &ottla_records::ProducePolicy { require_keys: true, ..policy() });
            assert!(inspected.is_err());
        }
    }
}

#[test]
fn l1_every_flipped_bit_under_the_crc_is_caught() {
    for codec in CODECS {
        let batch = sample(codec).build().unwrap();
        for bit in 17 * 8..batch.len() * 8 {
            let mut flipped = batch.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let flipped = Bytes::from(flipped);
            assert!(!crc_matches(&flipped), "{codec} bit {bit}");
            let _ = read_all_ways(&flipped);
            let refusal = validate_produced(&flipped, &policy()).unwrap_err();
            assert!(matches!(refusal, ProduceRefusal::CorruptMessage), "{codec} bit {bit}: {refusal}");
        }
    }
}

#[test]
fn l1_a_decompression_bomb_stops_at_the_limit() {
    let limits = Decompress { max_bytes: 100_000 };
    let zeros = vec![0; 16 << 20];
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut builder = BatchBuilder::new(codec, None);
        builder.push(NOW, None, Some(&zeros), &[]).unwrap();
        let bomb = builder.build().unwrap();
        assert!(bomb.len() < 1 << 20, "{codec} {}", bomb.len());
        let header = BatchHeader::parse(&bomb).unwrap();
        let refused = Err(BatchError::DecompressedTooLarge { max_bytes: 100_000 });
        assert_eq!(records(&header, &bomb, limits).map(|_| ()), refused, "{codec}");
        assert_eq!(first_at_or_after(&header, &bomb, NOW, limits).map(|_| ()), refused, "{codec}");

        let policy = ottla_records::ProducePolicy { require_keys: true, decompress: limits, ..policy() };
        let refusal = validate_produced(&bomb, &policy).unwrap_err();
        assert_eq!(refusal, ProduceRefusal::MessageTooLarge { size: 100_001, max: 100_000 }, "{codec}");
    }
}

#[test]
fn l1_a_snappy_block_cannot_claim_more_than_it_can_hold() {
    let head = sample(Compression::Snappy).build().unwrap();
    // A varint of 3 MiB, within the limit, and no data behind it.
    let batch = with_body(&head, &[0x80, 0x80, 0xc0, 0x01, 0x00]);
    let header = BatchHeader::parse(&batch).unwrap();
    let refused = records(&header, &batch, LIMITS).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("claims more"), "{refused}");
}

#[test]
fn l1_impossible_header_fields_are_named() {
    let batch = sample(Compression::None).build().unwrap();
    let parse = |position, bytes: &[u8]| BatchHeader::parse(&patched(&batch, position, bytes)).unwrap_err();
    assert_eq!(parse(16, &[1]), BatchError::Magic(1));
    assert_eq!(parse(8, &48i32.to_be_bytes()), BatchError::Length(48));
    assert_eq!(parse(8, &(-1i32).to_be_bytes()), BatchError::Length(-1));
    assert_eq!(parse(0, &(-1i64).to_be_bytes()), BatchError::Offsets { base_offset: -1, last_offset_delta: 2 });
    let end = i64::MAX - 2;
    assert_eq!(parse(0, &end.to_be_bytes()), BatchError::Offsets { base_offset: end, last_offset_delta: 2 });
    assert_eq!(parse(23, &(-1i32).to_be_bytes()), BatchError::Offsets { base_offset: 0, last_offset_delta: -1 });
    assert_eq!(parse(57, &4i32.to_be_bytes()), BatchError::RecordCount { count: 4, last_offset_delta: 2 });
    assert_eq!(parse(57, &(-1i32).to_be_bytes()), BatchError::RecordCount { count: -1, last_offset_delta: 2 });
    assert_eq!(BatchHeader::parse(&[0; 16]), Err(BatchError::Truncated { needed: 61, available: 16 }));
}

#[test]
fn l1_impossible_records_are_named() {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(NOW, None, None, &[]).unwrap();
    let head = builder.build().unwrap();
    // Zigzag: 01 is -1, 03 is -2. The fields: length, attributes, timestamp, offset, key, value, header count.
    let cases: [(&[u8], &str); 13] = [
        (&[], "ends early"),
        (&[0x03], "length is negative"),
        (&[0x7e, 0], "larger than the bytes that are left"),
        (&[0xff, 0xff, 0xff, 0xff, 0x7f], "overflows 32 bits"),
        (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], "too long"),
        (&[0x0c, 0, 0, 0, 0x03, 1, 0], "a length is negative"),
        (&[0x0c, 0, 0, 0, 0x04, 1, 0], "ends early"),
        (&[0x0c, 0, 0, 0, 1, 1, 1], "header count is negative"),
        (&[0x0c, 0, 0, 0, 1, 1, 2], "header count is larger"),
        (&[0x10, 0, 0, 0, 1, 1, 2, 1, 1], "header key is null"),
        (&[0x0e, 0, 0, 0, 1, 1, 0, 0], "length is larger than its fields"),
        (&[0x0c, 0, 0, 2, 1, 1, 0], "outside the range"),
        (&[0x0c, 0, 0, 0, 1, 1, 0, 9], "bytes follow"),
    ];
    for (body, reason) in cases {
        let batch = with_body(&head, body);
        let error = read_all_ways(&batch).unwrap_err();
        assert!(error.to_string().contains(reason), "{body:02x?}: {error}");
        let refusal = validate_produced(&batch, &policy()).unwrap_err();
        assert!(matches!(refusal, ProduceRefusal::InvalidRecord { .. }), "{body:02x?}: {refusal}");
    }
}

#[test]
fn l1_a_timestamp_that_overflows_is_refused() {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(NOW, None, None, &[]).unwrap();
    let largest = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let body = [&[0x1e, 0][..], &largest, &[0, 1, 1, 0]].concat();
    let error = read_all_ways(&with_body(&builder.build().unwrap(), &body)).unwrap_err();
    assert!(error.to_string().contains("timestamp overflows"), "{error}");
}

#[test]
fn a_batch_emptied_by_compaction_has_no_records() {
    for codec in CODECS {
        let batch = patched(&with_body(&sample(codec).build().unwrap(), &[]), 57, &0i32.to_be_bytes());
        assert_eq!(read_all_ways(&batch), Ok(0), "{codec}");
    }
}

proptest! {
    #[test]
    fn l1_made_up_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..200)) {
        let _ = read_all_ways(&Bytes::from(bytes.clone()));
        let _ = validate_produced(&Bytes::from(bytes), &policy());
    }

    #[test]
    fn l1_made_up_records_do_no_harm(body in vec(any::<u8>(), 0..300), codec in prop::sample::select(&CODECS[..])) {
        let batch = with_body(&sample(codec).build().unwrap(), &body);
        let _ = read_all_ways(&batch);
        let _ = validate_produced(&batch, &ottla_records::ProducePolicy { require_keys: true, ..policy() });
    }

    #[test]
    fn l1_damage_with_a_right_crc_does_no_harm(
        codec in prop::sample::select(&CODECS[..]),
        damage in vec((21usize..150, any::<u8>()), 1..8),
    ) {
        let mut batch = sample(codec).build().unwrap();
        for (position, byte) in damage {
            batch = patched(&batch, position.min(batch.len() - 1), &[byte]);
        }
        let _ = read_all_ways(&batch);
        let _ = validate_produced(&batch, &ottla_records::ProducePolicy { require_keys: true, ..policy() });
    }
}
