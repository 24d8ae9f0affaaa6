//! Bytes that nobody honest sends: they may be an error, never a panic, and what decodes can be written again.

mod support;

use bytes::Bytes;
use ottla_protocol::{ApiKey, DecodeError, Reader, RequestHeader};
use proptest::prelude::*;
use support::{Codec, Fill, Random, each_version, sample};

/// Every message and version with a valid sample of each.
fn samples() -> Vec<(Codec, i16, Vec<u8>)> {
    let mut samples = Vec::new();
    each_version(|api, message, version, _| {
        let codec = support::codec(&message.structs[0].name);
        samples.push((codec, version, sample(api, message, version, Fill::UnknownTags, version as u64)));
    });
    samples
}

/// Decodes, and if that succeeds, decodes again what was encoded.
fn survive(codec: &Codec, version: i16, bytes: Vec<u8>) -> Result<(), TestCaseError> {
    if let Ok(again) = (codec.recode)(Bytes::from(bytes), version) {
        prop_assert_eq!((codec.recode)(Bytes::from(again.clone()), version), Ok(again), "{} v{}", codec.name, version);
    }
    Ok(())
}

#[test]
fn mutated_messages_are_read_or_refused() {
    let samples = samples();
    let strategy = (any::<prop::sample::Index>(), any::<u64>(), 1usize..6);
    let config = ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |((which, seed, edits) in strategy)| {
        let (codec, version, bytes) = which.get(&samples);
        let mut bytes = bytes.clone();
        let mut random = Random(seed);
        for _ in 0..edits {
            if bytes.is_empty() {
                break;
            }
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(5) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => bytes.truncate(at),
                3 => bytes[at..].iter_mut().take(4).for_each(|byte| *byte = 0xff),
                _ => bytes[at..].iter_mut().take(4).zip([0x7f, 0xff, 0xff, 0xff]).for_each(|(byte, new)| *byte = new),
            }
        }
        survive(codec, *version, bytes)?;
    });
}

#[test]
fn noise_is_read_or_refused() {
    let samples = samples();
    let strategy = (
        any::<prop::sample::Index>(),
        prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()], 0..300),
    );
    let config = ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |((which, bytes) in strategy)| {
        let (codec, version, _) = which.get(&samples);
        let _ = RequestHeader::decode(&mut Reader::new(Bytes::from(bytes.clone())));
        survive(codec, *version, bytes)?;
    });
}

#[test]
fn unknown_versions_are_refused() {
    each_version(|api, _, _, codec| {
        for version in [api.versions.min - 1, api.versions.max + 1, i16::MIN, i16::MAX] {
            let key = ApiKey::try_from(api.key).unwrap();
            let refused = (codec.recode)(Bytes::from_static(&[0; 100]), version);
            assert_eq!(refused, Err(DecodeError::UnsupportedVersion { api: key, version }), "{}", codec.name);
            assert!((codec.default)(version).is_err(), "{} v{version}", codec.name);
        }
    });
}

#[test]
fn an_array_longer_than_the_frame_is_refused_before_anything_is_allocated() {
    let mut reader = Reader::new(Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0, 0]));
    let read = reader.array(false, |r| r.i8());
    assert_eq!(read, Err(DecodeError::UnexpectedEnd { needed: i32::MAX as usize, left: 2 }));
}

#[test]
fn arrays_of_large_elements_have_a_budget_of_sixteen_times_the_frame() {
    const ELEMENTS: usize = 100_000;
    let frame = |elements: usize| {
        let mut frame = (elements as u32).to_be_bytes().to_vec();
        frame.resize(4 + ELEMENTS, 0);
        Bytes::from(frame)
    };
    let element = |r: &mut Reader| r.i8().map(|_| [0u64; 4]);
    let fits = 16 * (4 + ELEMENTS) / 32;
    assert_eq!(Reader::new(frame(fits)).array(false, element).map(|read| read.len()), Ok(fits));
    let refused = Reader::new(frame(fits + 1)).array(false, element);
    assert!(matches!(refused, Err(DecodeError::OverBudget { .. })), "{refused:?}");
}

#[test]
fn the_budget_is_one_for_all_arrays_of_a_frame() {
    // Each of these arrays alone is within the least budget of 64 KiB; together they are not.
    let mut frame = Vec::new();
    for _ in 0..3 {
        frame.extend_from_slice(&1_000u32.to_be_bytes());
        frame.extend_from_slice(&[0; 1_000]);
    }
    let mut reader = Reader::new(Bytes::from(frame));
    let element = |r: &mut Reader| r.i8().map(|_| [0u64; 4]);
    assert!(reader.array(false, element).is_ok());
    assert!(reader.array(false, element).is_ok());
    assert!(matches!(reader.array(false, element), Err(DecodeError::OverBudget { .. })));
}

#[test]
fn a_varint_has_at_most_five_bytes_and_32_bits() {
    let read = |bytes: &'static [u8]| Reader::new(Bytes::from_static(bytes)).varint();
    assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
    assert_eq!(read(&[0x80, 0x80, 0x00]), Ok(0));
    assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(DecodeError::OverlongVarint));
    assert_eq!(read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), Err(DecodeError::OverlongVarint));
    assert_eq!(read(&[0x80]), Err(DecodeError::UnexpectedEnd { needed: 1, left: 0 }));
}

#[test]
fn lengths_below_minus_one_and_strings_above_32767_are_refused() {
    let reader = |bytes: &[u8]| Reader::new(Bytes::copy_from_slice(bytes));
    assert_eq!(reader(&[0xff, 0xfe]).nullable_string(false), Err(DecodeError::InvalidLength(-2)));
    assert_eq!(reader(&[0xff, 0xff, 0xff, 0xfe]).nullable_bytes(false), Err(DecodeError::InvalidLength(-2)));
    let mut long = vec![0x81, 0x80, 0x02];
    long.resize(3 + 32_768, b'a');
    assert_eq!(reader(&long).string(true), Err(DecodeError::InvalidLength(32_768)));
    long[0] = 0x80;
    assert_eq!(reader(&long).string(true).map(|text| text.len()), Ok(32_767));
    assert_eq!(reader(&[0xff, 0xff]).string(false), Err(DecodeError::UnexpectedNull));
    assert_eq!(reader(&[0, 1, 0xff]).string(false), Err(DecodeError::InvalidUtf8));
}

#[test]
fn a_known_tagged_field_fills_its_size_and_cannot_read_past_it() {
    let read = |bytes: &'static [u8]| {
        let mut reader = Reader::new(Bytes::from_static(bytes));
        let mut value = None;
        reader.tagged_fields(|r, tag| {
            if tag == 0 {
                value = Some(r.i16()?);
            }
            Ok(tag == 0)
        })?;
        reader.finish().map(|()| value)
    };
    assert_eq!(read(&[1, 0, 2, 0, 5]), Ok(Some(5)));
    assert_eq!(read(&[1, 0, 3, 0, 5, 0]), Err(DecodeError::TrailingBytes(1)));
    assert_eq!(read(&[1, 0, 1, 0, 5]), Err(DecodeError::UnexpectedEnd { needed: 2, left: 1 }));
    assert_eq!(read(&[1, 0, 3, 0, 5]), Err(DecodeError::UnexpectedEnd { needed: 3, left: 2 }));
    // Unordered and repeated tags are read as Kafka reads them.
    assert_eq!(read(&[3, 9, 0, 0, 2, 0, 5, 0, 2, 0, 6]), Ok(Some(6)));
    assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(DecodeError::UnexpectedEnd { needed: 1, left: 0 }));
}
