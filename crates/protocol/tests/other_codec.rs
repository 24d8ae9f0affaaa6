//! The same bytes through another implementation, the crate `kafka-protocol`: what one writes the other reads, and
//! writes back byte by byte the same.

mod support;

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages,
    protocol::{Decodable, Encodable, Message},
};
use ottla_protocol::each_kafka_message;
use support::{Fill, each_version, sample};

/// Versions of Kafka 4.3 that `kafka-protocol` 0.18 lacks; `golden.rs` holds them against Kafka itself.
const THEY_LACK: &[(&str, i16)] =
    &[("ListOffsets", 11), ("OffsetCommit", 10), ("OffsetFetch", 10), ("DescribeLogDirs", 5), ("BrokerHeartbeat", 2)];

struct Other {
    name: &'static str,
    versions: std::ops::RangeInclusive<i16>,
    recode: fn(Bytes, i16) -> Bytes,
}

fn recode<M: Decodable + Encodable>(mut bytes: Bytes, version: i16) -> Bytes {
    let message = M::decode(&mut bytes, version).unwrap_or_else(|error| unreachable!("v{version}: {error:#}"));
    assert!(bytes.is_empty(), "v{version}: {} bytes left", bytes.len());
    let mut out = BytesMut::new();
    message.encode(&mut out, version).unwrap_or_else(|error| unreachable!("v{version}: {error:#}"));
    out.freeze()
}

#[test]
fn kafka_protocol_reads_and_writes_the_same_bytes() {
    let mut others = Vec::new();
    macro_rules! row {
        ($name:ident) => {
            others.push(Other {
                name: stringify!($name),
                versions: messages::$name::VERSIONS.min..=messages::$name::VERSIONS.max,
                recode: recode::<messages::$name>,
            })
        };
    }
    each_kafka_message!(row);
    let mut lacking = Vec::new();
    each_version(|api, message, version, codec| {
        if !api.is_kafkas() {
            return;
        }
        let other = others.iter().find(|other| other.name == codec.name).unwrap();
        if !other.versions.contains(&version) {
            lacking.push((api.name.clone(), version));
            return;
        }
        for seed in 0..40 {
            let fill = if seed == 0 { Fill::Empty } else { Fill::Random };
            let bytes = Bytes::from(sample(api, message, version, fill, seed));
            let ours = (codec.recode)(bytes.clone(), version).unwrap();
            assert_eq!((other.recode)(Bytes::from(ours), version), bytes, "{} v{version} seed {seed}", codec.name);
        }
    });
    lacking.dedup();
    let lacking: Vec<(&str, i16)> = lacking.iter().map(|(name, version)| (name.as_str(), *version)).collect();
    assert_eq!(lacking, THEY_LACK);
}
