//! What strangers may ask of a coordinator, and what it costs: nothing grows beyond what was asked, and nobody is
//! stuck with what can't be written down.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use ottla_group::{
    Command, ConsumerHeartbeat, Context, Coordinator, Decision, GroupConfig, GroupType, Join, JoinRefusal, Leave,
    LeavingMember, Record, Refusal, Reply, Ticket,
};
use ottla_metadata::Image;
use ottla_types::{Tick, Timestamp};

fn decide(coordinator: &mut Coordinator, command: Command) -> Decision {
    let (image, config) = (Image::default(), GroupConfig::default());
    let ctx = Context { now: Tick(0), wall: Timestamp(1_700_000_000_000), image: &image, config: &config };
    let decision = coordinator.decide(&ctx, Ticket(1), command);
    decision.records.iter().for_each(|record| coordinator.apply(record));
    decision
}

fn coordinator() -> Coordinator {
    let mut drawn = 0;
    Coordinator::new(Box::new(move || {
        drawn += 1;
        [drawn; 16]
    }))
}

fn join(protocols: Vec<(String, usize)>) -> Command {
    Command::Join(Join {
        group: "g".into(),
        member: "".into(),
        instance: None,
        client_id: "c".into(),
        client_host: "/h".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: protocols.into_iter().map(|(name, size)| (name.into(), vec![0; size].into())).collect(),
        requires_member_id: false,
        supports_skipping_assignment: true,
        reason: None,
    })
}

fn entering(member: &str) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group: "g".into(),
        member: member.into(),
        member_epoch: 0,
        instance: None,
        rack: None,
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout_ms: Some(10_000),
        topics: Some(Vec::new()),
        topics_regex: None,
        server_assignor: None,
        owned: Some(Vec::new()),
        client_makes_ids: true,
    }
}

#[test]
fn protocols_without_end_are_refused_before_they_are_compared_or_kept() {
    let is_refused = |command| {
        let replies = decide(&mut coordinator(), command).replies;
        matches!(&replies[..], [(_, Reply::Join(Err(JoinRefusal { refusal: Refusal::InvalidRequest(_), .. })))])
    };
    let many = |count: usize| (0..count).map(|number| (number.to_string(), 0)).collect();
    assert!(is_refused(join(many(10_000))));
    assert!(!is_refused(join(many(100))));
    assert!(is_refused(join(vec![("range".into(), 5 << 20)])));
    assert!(!is_refused(join(vec![("range".into(), 1 << 20), ("cooperative-sticky".into(), 1 << 20)])));
}

#[test]
fn a_member_that_leaves_a_thousand_times_is_written_down_once() {
    let mut coordinator = coordinator();
    decide(&mut coordinator, Command::ConsumerHeartbeat(entering("m")));
    let leaving = LeavingMember { member: "m".into(), instance: None, reason: None };
    let left = decide(&mut coordinator, Command::Leave(Leave { group: "g".into(), members: vec![leaving; 1_000] }));
    assert!(left.records.len() < 10, "{} records", left.records.len());
    let [(_, Reply::Leave(Ok(rows)))] = &left.replies[..] else { panic!("{:?}", left.replies) };
    assert!(rows.len() == 1_000 && rows.iter().all(|row| row.result == Ok(())));
}

/// As one record, with everybody's metadata, it could not be written down: nobody could ever leave.
#[test]
fn a_group_too_large_for_one_record_stays_a_consumer_group() {
    for (size, kind) in [(400 << 10, GroupType::Classic), (600 << 10, GroupType::Consumer)] {
        let mut coordinator = coordinator();
        decide(&mut coordinator, Command::ConsumerHeartbeat(entering("m")));
        for instance in ["i", "j"] {
            // A subscription to nothing, with user data.
            let metadata = [&[0, 0, 0, 0, 0, 0][..], &(size as u32).to_be_bytes(), &vec![7; size]].concat();
            let Command::Join(mut join) = join(vec![("range".into(), 0)]) else { panic!("another command") };
            (join.instance, join.protocols[0].1) = (Some(instance.into()), metadata.into());
            let joined = decide(&mut coordinator, Command::Join(join)).replies;
            assert!(matches!(joined[..], [(_, Reply::Join(Ok(_)))]), "{joined:?}");
        }
        let leaving = LeavingMember { member: "m".into(), instance: None, reason: None };
        let left = decide(&mut coordinator, Command::Leave(Leave { group: "g".into(), members: vec![leaving] }));
        assert!(left.records.iter().all(|record| record.encode().1.is_none_or(|value| value.len() < 1 << 20)));
        assert_eq!(coordinator.list()[0].kind, kind);
    }
}

/// The newest version of the value has room for more than the one that is written, here and by Kafka 4.3.
#[test]
fn text_that_kafka_could_not_have_written_is_not_read() {
    let key = Bytes::from_static(&[0, 2, 0, 1, b'g']);
    let value = |len: usize| {
        let varint = [(len + 1) as u8 | 0x80, ((len + 1) >> 7) as u8 | 0x80, ((len + 1) >> 14) as u8];
        // Version 4: protocol type, generation, no protocol, no leader, since when, no members, no tags.
        let rest = [&[0, 0, 0, 1, 0, 0][..], &[0; 8], &[1, 0]].concat();
        Some(Bytes::from([&[0, 4][..], &varint, &vec![b'p'; len], &rest].concat()))
    };
    let read = Record::decode(key.clone(), value(32_767)).unwrap().unwrap();
    let (again, written) = read.encode();
    assert_eq!(Record::decode(again, written), Ok(Some(read)));
    assert!(Record::decode(key, value(32_768)).is_err());
}
