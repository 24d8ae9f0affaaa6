//! Messages written by Kafka's own client library, version 4.3.1 (`golden/kafka-4.3.1.txt`): the newest version of
//! each, and several of each version that `other_codec.rs` cannot check. No schema file of ours stands between these
//! bytes and the codec.

mod support;

use bytes::Bytes;
use ottla_protocol::ApiKey;

#[test]
fn messages_written_by_kafka_are_read_and_written_the_same() {
    let golden = include_str!("golden/kafka-4.3.1.txt");
    let mut seen = Vec::new();
    for line in golden.lines().filter(|line| !line.starts_with('#')) {
        let [name, version, hex] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let version: i16 = version.parse().unwrap();
        let bytes: Bytes =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let again = (support::codec(name).recode)(bytes.clone(), version);
        assert_eq!(again.as_deref(), Ok(&bytes[..]), "{name} v{version}");
        seen.push((name, version));
    }
    for api in ApiKey::ALL.iter().filter(|api| api.is_kafkas()) {
        for half in ["Request", "Response"] {
            let newest = (format!("{}{half}", api.name()), *api.versions().end());
            assert!(seen.contains(&(newest.0.as_str(), newest.1)), "{newest:?}");
        }
    }
}
