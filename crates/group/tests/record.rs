//! The bytes of records: written as Kafka 4.3.1 writes them, every older version read, and no bytes believed blindly.
//!
//! The hexadecimal is what Kafka's own `GroupCoordinatorRecordSerde` made of the same facts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use ottla_group::{
    ClassicGroupValue, ClassicMemberMetadata, ClassicMemberValue, Committed, ConsumerCurrentValue, ConsumerGroupValue,
    ConsumerMemberValue, ConsumerRegexValue, ConsumerTargetValue, HeldPartitions, MemberState, Record, TopicPartitions,
};
use ottla_types::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId};

const OFFSET_KEY: &str = "000100016700066f726465727300000003";
const AT: Timestamp = Timestamp(1_700_000_000_000);

#[test]
fn records_are_written_as_kafka_writes_them_and_read_back() {
    let offset = |committed| Record::OffsetCommit("g".into(), "orders".into(), PartitionIndex(3), committed);
    let cases = [
        (offset(None), OFFSET_KEY, None),
        (
            offset(Some(Committed { topic_id: topic(), ..committed() })),
            OFFSET_KEY,
            Some("0004000000000000002a00000007026d0000018bcfe568000100100123456789abcdeffedcba9876543210"),
        ),
        (
            offset(Some(Committed { leader_epoch: LeaderEpoch::NONE, metadata: "".into(), ..committed() })),
            OFFSET_KEY,
            Some("0004000000000000002affffffff010000018bcfe5680000"),
        ),
        (
            offset(Some(Committed {
                leader_epoch: LeaderEpoch::NONE,
                expires_at: Some(Timestamp(AT.0 + 60_000)),
                ..committed()
            })),
            OFFSET_KEY,
            Some("0001000000000000002a00016d0000018bcfe568000000018bcfe65260"),
        ),
        (
            Record::ClassicGroup("g".into(), Some(classic_group())),
            "0002000167",
            Some(
                "00030008636f6e73756d657200000005000572616e676500036d2d310000018bcfe568000000000100036d2d31000169\
                 00016300092f31302e302e302e31000493e00000afc800000002010200000003030405",
            ),
        ),
        (
            Record::ClassicGroup("g".into(), Some(empty_group())),
            "0002000167",
            Some("0003000000000000ffffffff0000018bcfe5680000000000"),
        ),
        (Record::ClassicGroup("g".into(), None), "0002000167", None),
        (consumer_group(0), "0003000167", Some("00000000000900")),
        (consumer_group(0x0102_0304_0506_0708), "0003000167", Some("0000000000090100080102030405060708")),
        (
            consumer_member(ConsumerMemberValue {
                rack: Some("r".into()),
                topics: vec!["a".into(), "b".into()],
                topics_regex: Some("x.*".into()),
                server_assignor: Some("uniform".into()),
                ..member()
            }),
            "000500016700036d2d31",
            Some("000000027202630a2f31302e302e302e31030261026204782e2a000493e008756e69666f726d00"),
        ),
        (
            consumer_member(ConsumerMemberValue {
                instance: Some("i".into()),
                classic: Some(ClassicMemberMetadata {
                    session_timeout_ms: 45_000,
                    protocols: vec![("range".into(), Bytes::from_static(&[1, 2]))],
                }),
                ..member()
            }),
            "000500016700036d2d31",
            Some("000002690002630a2f31302e302e302e310100000493e000010011010000afc8020672616e67650301020000"),
        ),
        (target(AT), "0006000167", Some("0000000000090100080000018bcfe56800")),
        (target(Timestamp(0)), "0006000167", Some("00000000000900")),
        (
            Record::ConsumerTargetMember("g".into(), "m-1".into(), Some(partitions(&[0, 1]))),
            "000700016700036d2d31",
            Some("0000020123456789abcdeffedcba98765432100300000000000000010000"),
        ),
        (
            Record::ConsumerCurrent("g".into(), "m-1".into(), Some(current())),
            "000800016700036d2d31",
            Some(
                "0000000000090000000800020123456789abcdeffedcba98765432100300000000000000020100090300000007\
                 000000080100",
            ),
        ),
        (
            Record::ConsumerRegex(
                "g".into(),
                "x.*".into(),
                Some(ConsumerRegexValue { topics: vec!["xa".into(), "xb".into()], version: 12, matched_at: AT }),
            ),
            "00100001670003782e2a",
            Some("000003037861037862000000000000000c0000018bcfe5680000"),
        ),
    ];
    for (record, key, value) in cases {
        let (key, value) = (unhex(key), value.map(unhex));
        assert_eq!(record.encode(), (key.clone(), value.clone()), "{record:?}");
        assert_eq!(Record::decode(key, value).unwrap(), Some(record));
    }
}

#[test]
fn older_versions_are_read() {
    let no_epoch = Committed { leader_epoch: LeaderEpoch::NONE, ..committed() };
    let cases = [
        ("0000000000000000002a00016d0000018bcfe56800", no_epoch.clone()),
        ("0002000000000000002a00016d0000018bcfe56800", no_epoch.clone()),
        ("0003000000000000002a0000000700016d0000018bcfe56800", committed()),
        ("0001000000000000002a00016d0000018bcfe56800ffffffffffffffff", no_epoch),
    ];
    for (value, expected) in cases {
        // Key version 0 is of the same days as value version 0.
        for key in [OFFSET_KEY, "000000016700066f726465727300000003"] {
            let expected = Record::OffsetCommit("g".into(), "orders".into(), PartitionIndex(3), Some(expected.clone()));
            assert_eq!(decode(key, value), Some(expected), "{value}");
        }
    }
    let group = |state_since, rebalance_timeout_ms, instance: Option<&str>| {
        let mut group = ClassicGroupValue { state_since, ..classic_group() };
        group.members[0].rebalance_timeout_ms = rebalance_timeout_ms;
        group.members[0].instance = instance.map(Into::into);
        Some(Record::ClassicGroup("g".into(), Some(group)))
    };
    let cases = [
        (
            "00000008636f6e73756d657200000005000572616e676500036d2d310000000100036d2d3100016300092f31302e302e302e310000\
             afc800000002010200000003030405",
            group(Timestamp::NONE, 45_000, None),
        ),
        (
            "00010008636f6e73756d657200000005000572616e676500036d2d310000000100036d2d3100016300092f31302e302e302e310004\
             93e00000afc800000002010200000003030405",
            group(Timestamp::NONE, 300_000, None),
        ),
        (
            "00020008636f6e73756d657200000005000572616e676500036d2d310000018bcfe568000000000100036d2d3100016300092f3130\
             2e302e302e31000493e00000afc800000002010200000003030405",
            group(AT, 300_000, None),
        ),
        (
            "000409636f6e73756d6572000000050672616e6765046d2d310000018bcfe5680002046d2d31026902630a2f31302e302e302e3100\
             0493e00000afc8030102040304050000",
            group(AT, 300_000, Some("i")),
        ),
    ];
    for (value, expected) in cases {
        assert_eq!(decode("0002000167", value), expected, "{value}");
    }
    // Before KIP-1251 the member's epoch was that of all it has.
    let assigned = "0000000000090000000801020123456789abcdeffedcba98765432100200000000000201234567\
                    89abcdeffedcba987654321002000000010000";
    let expected = ConsumerCurrentValue {
        state: MemberState::UnrevokedPartitions,
        assigned: held(&[(0, 9)]),
        pending_revocation: held(&[(1, 9)]),
        ..current()
    };
    let expected = Record::ConsumerCurrent("g".into(), "m-1".into(), Some(expected));
    assert_eq!(decode("000800016700036d2d31", assigned), Some(expected));
}

#[test]
fn what_newer_versions_add_is_passed_over() {
    // A kind of record nobody here knows, a version of a value, and a tag.
    assert_eq!(decode("0004000167", "0000"), None);
    assert_eq!(decode("7fff", "0000"), None);
    assert_eq!(decode(OFFSET_KEY, "0005000000000000002a"), None);
    assert_eq!(decode("0003000167", "00000000000901050101"), Some(consumer_group(0)));
}

#[test]
fn bytes_cut_anywhere_or_with_impossible_lengths_are_refused() {
    let records = [
        Record::OffsetCommit("g".into(), "orders".into(), PartitionIndex(3), Some(committed())),
        Record::ClassicGroup("g".into(), Some(classic_group())),
        consumer_member(ConsumerMemberValue { topics: vec!["a".into()], ..member() }),
        Record::ConsumerTargetMember("g".into(), "m-1".into(), Some(partitions(&[0, 1]))),
        Record::ConsumerCurrent("g".into(), "m-1".into(), Some(current())),
        Record::ConsumerRegex(
            "g".into(),
            "x.*".into(),
            Some(ConsumerRegexValue { topics: vec!["xa".into()], version: 12, matched_at: AT }),
        ),
    ];
    for record in records {
        let (key, value) = record.encode();
        let value = value.unwrap();
        for end in 0..key.len() {
            assert!(Record::decode(key.slice(..end), Some(value.clone())).is_err(), "key to {end} of {record:?}");
        }
        for end in 0..value.len() {
            assert!(Record::decode(key.clone(), Some(value.slice(..end))).is_err(), "value to {end} of {record:?}");
        }
        for at in 0..value.len() {
            for byte in [0x00, 0x7f, 0x80, 0xff] {
                let mut changed = value.to_vec();
                changed[at] = byte;
                // Whatever it says: it must not panic, nor reserve what it claims.
                let _ = Record::decode(key.clone(), Some(changed.into()));
            }
        }
    }
    assert!(Record::decode(unhex(OFFSET_KEY), Some(unhex("ffff"))).is_err(), "a negative version");
}

fn topic() -> TopicId {
    "ASNFZ4mrze_-3LqYdlQyEA".parse().unwrap()
}

fn committed() -> Committed {
    Committed {
        offset: Offset(42),
        leader_epoch: LeaderEpoch(7),
        metadata: "m".into(),
        committed_at: AT,
        expires_at: None,
        topic_id: TopicId::ZERO,
    }
}

fn classic_group() -> ClassicGroupValue {
    ClassicGroupValue {
        protocol_type: "consumer".into(),
        generation: 5,
        protocol: Some("range".into()),
        leader: Some("m-1".into()),
        state_since: AT,
        members: vec![ClassicMemberValue {
            member: "m-1".into(),
            instance: Some("i".into()),
            client_id: "c".into(),
            client_host: "/10.0.0.1".into(),
            rebalance_timeout_ms: 300_000,
            session_timeout_ms: 45_000,
            subscription: Bytes::from_static(&[1, 2]),
            assignment: Bytes::from_static(&[3, 4, 5]),
        }],
    }
}

fn empty_group() -> ClassicGroupValue {
    ClassicGroupValue {
        protocol_type: "".into(),
        generation: 0,
        protocol: None,
        leader: None,
        state_since: AT,
        members: vec![],
    }
}

fn consumer_group(metadata_hash: i64) -> Record {
    Record::ConsumerGroup("g".into(), Some(ConsumerGroupValue { epoch: 9, metadata_hash }))
}

fn member() -> ConsumerMemberValue {
    ConsumerMemberValue {
        client_id: "c".into(),
        client_host: "/10.0.0.1".into(),
        rebalance_timeout_ms: 300_000,
        ..Default::default()
    }
}

fn consumer_member(value: ConsumerMemberValue) -> Record {
    Record::ConsumerMember("g".into(), "m-1".into(), Some(value))
}

fn target(computed_at: Timestamp) -> Record {
    Record::ConsumerTarget("g".into(), Some(ConsumerTargetValue { assignment_epoch: 9, computed_at }))
}

fn partitions(numbers: &[i32]) -> Vec<TopicPartitions> {
    vec![TopicPartitions { topic: topic(), partitions: numbers.iter().copied().map(PartitionIndex).collect() }]
}

fn current() -> ConsumerCurrentValue {
    ConsumerCurrentValue {
        member_epoch: 9,
        previous_member_epoch: 8,
        state: MemberState::Stable,
        assigned: held(&[(0, 7), (2, 8)]),
        pending_revocation: vec![],
    }
}

fn held(partitions: &[(i32, i32)]) -> Vec<HeldPartitions> {
    let partitions = partitions.iter().map(|&(partition, epoch)| (PartitionIndex(partition), epoch)).collect();
    vec![HeldPartitions { topic: topic(), partitions }]
}

fn decode(key: &str, value: &str) -> Option<Record> {
    Record::decode(unhex(key), Some(unhex(value))).unwrap()
}

fn unhex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().map(|digit| (digit as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
