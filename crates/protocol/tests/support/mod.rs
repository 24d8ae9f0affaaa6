//! For the tests: a table of all messages to decode bytes with. The bytes come from `sample.rs`.

// Each test binary uses a part; clippy knows #[test] functions as tests, but not their helpers.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

mod sample;
#[path = "../../build/schema.rs"]
pub(crate) mod schema;

use bytes::Bytes;
use ottla_protocol::{DecodeError, Message, Reader, each_message, messages};
#[allow(unused_imports, reason = "each test binary uses its own part")]
pub(crate) use sample::{Fill, Random, sample};
use schema::Api;

/// A message type: its name, and decoding followed by encoding in the same version.
pub(crate) struct Codec {
    pub(crate) name: &'static str,
    pub(crate) recode: fn(Bytes, i16) -> Result<Vec<u8>, DecodeError>,
    /// The default value in this version, or why it has none.
    pub(crate) default: fn(i16) -> Result<Vec<u8>, ottla_protocol::EncodeError>,
}

fn recode<M: Message>(bytes: Bytes, version: i16) -> Result<Vec<u8>, DecodeError> {
    let message = M::decode(&mut Reader::new(bytes), version)?;
    let mut out = Vec::new();
    message.encode(&mut out, version).expect("what was decoded in a version can be encoded in it");
    Ok(out)
}

fn default<M: Message>(version: i16) -> Result<Vec<u8>, ottla_protocol::EncodeError> {
    let mut out = Vec::new();
    M::default().encode(&mut out, version).map(|()| out)
}

/// The codec of the message with that name.
pub(crate) fn codec(name: &str) -> Codec {
    let mut codecs = Vec::new();
    macro_rules! row {
        ($name:ident) => {
            codecs.push(Codec {
                name: stringify!($name),
                recode: recode::<messages::$name>,
                default: default::<messages::$name>,
            })
        };
    }
    each_message!(row);
    codecs.into_iter().find(|codec| codec.name == name).expect("every message of the schema is generated")
}

/// Every message in every version.
pub(crate) fn each_version(mut check: impl FnMut(&Api, &schema::Message, i16, &Codec)) {
    let apis = schema::load(concat!(env!("CARGO_MANIFEST_DIR"), "/schema")).unwrap();
    assert!(apis.len() >= 49);
    for api in &apis {
        for message in [&api.request, &api.response] {
            let codec = codec(&message.structs[0].name);
            for version in api.versions.min..=api.versions.max {
                check(api, message, version, &codec);
            }
        }
    }
}
