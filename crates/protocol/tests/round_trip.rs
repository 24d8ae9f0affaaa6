//! Every message in every version against bytes that were written from the schema without the generated code.

mod support;

use bytes::Bytes;
use support::{Fill, each_version, sample};

#[test]
fn every_message_and_version_round_trips() {
    let mut checked = 0;
    each_version(|api, message, version, codec| {
        for seed in 0..50 {
            let bytes = sample(api, message, version, if seed == 0 { Fill::Empty } else { Fill::Random }, seed);
            let again = (codec.recode)(Bytes::from(bytes.clone()), version)
                .unwrap_or_else(|error| panic!("{} v{version} seed {seed}: {error}", codec.name));
            assert_eq!(again, bytes, "{} v{version} seed {seed}", codec.name);
            checked += 1;
        }
    });
    assert!(checked > 100 * 50, "{checked}");
}

#[test]
fn every_default_round_trips() {
    each_version(|_, _, version, codec| {
        let bytes = (codec.default)(version).unwrap_or_else(|error| panic!("{} v{version}: {error}", codec.name));
        let again = (codec.recode)(Bytes::from(bytes.clone()), version)
            .unwrap_or_else(|error| panic!("{} v{version}: {error}", codec.name));
        assert_eq!(again, bytes, "{} v{version}", codec.name);
    });
}

#[test]
fn unknown_tagged_fields_are_skipped_everywhere() {
    each_version(|api, message, version, codec| {
        for seed in 0..20 {
            let plain = sample(api, message, version, Fill::Random, seed);
            let extended = sample(api, message, version, Fill::UnknownTags, seed);
            assert_eq!(extended.len() > plain.len(), api.is_flexible(version), "{} v{version}", codec.name);
            let again = (codec.recode)(Bytes::from(extended), version)
                .unwrap_or_else(|error| panic!("{} v{version} seed {seed}: {error}", codec.name));
            assert_eq!(again, plain, "{} v{version} seed {seed}", codec.name);
        }
    });
}

#[test]
fn every_message_may_have_bytes_behind_it() {
    each_version(|api, message, version, codec| {
        let plain = sample(api, message, version, Fill::Random, 1);
        let followed = [plain.as_slice(), &[0, 42, 0]].concat();
        assert_eq!((codec.recode)(Bytes::from(followed), version), Ok(plain), "{} v{version}", codec.name);
    });
}

#[test]
fn every_message_refuses_to_end_early() {
    each_version(|api, message, version, codec| {
        let bytes = Bytes::from(sample(api, message, version, Fill::Random, 2));
        for end in 0..bytes.len() {
            let read = (codec.recode)(bytes.slice(..end), version);
            assert!(read.is_err(), "{} v{version} cut at {end} of {}", codec.name, bytes.len());
        }
    });
}
