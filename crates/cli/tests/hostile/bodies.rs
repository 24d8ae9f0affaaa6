//! Bodies that lie or ask for too much: lengths, counts, names, numbers.

use ottla_protocol::{
    ApiKey, Message, each_message, messages,
    messages::{
        CreatePartitionsRequest, CreateTopicsRequest, FetchRequest, MetadataRequest,
        create_partitions_request::CreatePartitionsTopic, create_topics_request::CreatableTopic, fetch_request,
        metadata_request::MetadataRequestTopic,
    },
};

use crate::victim::{TOPIC, attack, frame, request};

const METADATA: i16 = ApiKey::Metadata as i16;

#[test]
fn impossible_lengths_in_a_body_end_the_connection() {
    attack(|victim| {
        let plain: [&[u8]; 5] = [
            &[0xff, 0xff, 0xff, 0xfe],
            &[0x7f, 0xff, 0xff, 0xff],
            &[0, 0, 0, 2, 0, 1, b'a'],
            &[0, 0, 0, 1, 0x7f, 0xff, b'a'],
            &[0, 0, 0, 1, 0xff, 0xfe, b'a'],
        ];
        for body in plain {
            assert!(victim.connect().hangs_up_on(&request(METADATA, 1, false, body)), "{body:?}");
        }
        let compact: [&[u8]; 4] = [
            &[0xff, 0xff, 0xff, 0xff, 0x07],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
            &[2, 0xff, 0xff, 0x7f, b'a'],
        ];
        for body in compact {
            assert!(victim.connect().hangs_up_on(&request(METADATA, 9, true, body)), "{body:?}");
        }
    });
}

#[test]
fn every_request_with_nothing_in_it_is_answered_or_ends_the_connection() {
    attack(|victim| {
        fn try_all<M: Message>(victim: &crate::victim::Victim, name: &str, sent: &mut usize) {
            if !name.ends_with("Request") {
                return;
            }
            for version in M::API.versions() {
                let mut body = Vec::new();
                if M::default().encode(&mut body, version).is_err() {
                    continue;
                }
                let mut peer = victim.connect();
                peer.send(&request(M::API as i16, version, M::API.is_flexible(version), &body));
                // Produce with acks=0, its default here, has no answer: the one behind it shows that all is well.
                peer.send(&request(ApiKey::ApiVersions as i16, 0, false, &[]));
                peer.answer();
                *sent += 1;
            }
        }
        let mut sent = 0;
        macro_rules! row {
            ($name:ident) => {
                try_all::<messages::$name>(victim, stringify!($name), &mut sent)
            };
        }
        each_message!(row);
        assert!(sent > 100, "{sent}");
    });
}

#[test]
fn names_that_are_none_are_refused() {
    attack(|victim| {
        let long = "n".repeat(32_000);
        let mut peer = victim.connect();
        for name in ["", ".", "..", "a\0b", "a/b", "../../etc", "a b", "\u{202e}", &long] {
            let topic =
                CreatableTopic { name: name.into(), num_partitions: 1, replication_factor: 1, ..Default::default() };
            let create = CreateTopicsRequest { topics: vec![topic], timeout_ms: 1_000, ..Default::default() };
            let answer = peer.call(&create, 5).expect("an answer");
            assert_ne!(answer.topics[0].error_code, 0, "{name:?}");
            let topics = Some(vec![MetadataRequestTopic { name: Some(name.into()), ..Default::default() }]);
            let metadata = MetadataRequest { topics, allow_auto_topic_creation: true, ..Default::default() };
            let answer = peer.call(&metadata, 9).expect("an answer");
            assert_ne!(answer.topics[0].error_code, 0, "{name:?}");
        }
        // Not UTF-8.
        let body = [0, 0, 0, 1, 0, 2, 0xc3, 0x28];
        assert!(victim.connect().hangs_up_on(&request(METADATA, 1, false, &body)));
    });
}

#[test]
fn partitions_without_end_are_refused() {
    attack(|victim| {
        let mut peer = victim.connect();
        for count in [i32::MAX, 10_000_000] {
            let topic = CreatableTopic {
                name: "large".into(),
                num_partitions: count,
                replication_factor: 1,
                ..Default::default()
            };
            let create = CreateTopicsRequest { topics: vec![topic], timeout_ms: 1_000, ..Default::default() };
            assert_ne!(peer.call(&create, 5).expect("an answer").topics[0].error_code, 0, "{count}");
            let topic = CreatePartitionsTopic { name: TOPIC.into(), count, ..Default::default() };
            let create = CreatePartitionsRequest { topics: vec![topic], timeout_ms: 1_000, ..Default::default() };
            assert_ne!(peer.call(&create, 3).expect("an answer").results[0].error_code, 0, "{count}");
        }
    });
}

#[test]
fn topics_nobody_has_are_bounded() {
    attack(|victim| {
        let topic = |number| MetadataRequestTopic { name: Some(format!("{number:08}").into()), ..Default::default() };
        let metadata = MetadataRequest { topics: Some((0..50_000).map(topic).collect()), ..Default::default() };
        let mut peer = victim.connect();
        peer.send(&frame(&metadata, 9));
        peer.answer();
    });
}

#[test]
fn partitions_nobody_has_are_bounded() {
    attack(|victim| {
        let partition = |partition| fetch_request::FetchPartition { partition, ..Default::default() };
        let partitions = (0..50_000).map(partition).collect();
        let topic = fetch_request::FetchTopic { topic: TOPIC.into(), partitions, ..Default::default() };
        let fetch = FetchRequest { topics: vec![topic], replica_id: -1, ..Default::default() };
        let mut peer = victim.connect();
        peer.send(&frame(&fetch, 12));
        peer.answer();
    });
}

/// Elements of a few bytes on the wire, each of which is a struct in memory: the decoder's budget.
#[test]
fn tiny_elements_are_bounded() {
    attack(|victim| {
        let mut body = vec![0x81, 0x80, 0x80, 0x01];
        body.resize(2 << 20, 1);
        let mut peer = victim.connect();
        peer.send(&request(METADATA, 9, true, &body));
        peer.answer();
    });
}

#[test]
fn a_client_that_says_it_is_a_replica_moves_nothing() {
    attack(|victim| {
        let fetch = |replica_id, fetch_offset| {
            let partition =
                fetch_request::FetchPartition { fetch_offset, partition_max_bytes: 1 << 20, ..Default::default() };
            let topic =
                fetch_request::FetchTopic { topic: TOPIC.into(), partitions: vec![partition], ..Default::default() };
            FetchRequest { replica_id, max_bytes: 1 << 20, topics: vec![topic], ..Default::default() }
        };
        for replica_id in [0, 1, 2, i32::MAX, i32::MIN] {
            for offset in [0, i64::MAX, i64::MIN] {
                let mut peer = victim.connect();
                peer.send(&frame(&fetch(replica_id, offset), 12));
                peer.answer();
            }
        }
        let answer = victim.connect().call(&fetch(-1, 0), 12).expect("a consumer is served");
        assert_eq!(answer.responses[0].partitions[0].error_code, 0);
    });
}

/// A wait that would never end is parked, not held by a thread, and goes with its connection.
#[test]
fn waits_without_end_go_with_their_connection() {
    attack(|victim| {
        let partition = fetch_request::FetchPartition { fetch_offset: 1 << 40, ..Default::default() };
        let topic =
            fetch_request::FetchTopic { topic: TOPIC.into(), partitions: vec![partition], ..Default::default() };
        let fetch = FetchRequest {
            replica_id: -1,
            max_wait_ms: i32::MAX,
            min_bytes: i32::MAX,
            max_bytes: i32::MAX,
            topics: vec![topic],
            ..Default::default()
        };
        let bytes = frame(&fetch, 12);
        let peers: Vec<_> = (0..500)
            .map(|_| {
                let mut peer = victim.connect();
                assert!(peer.send(&bytes));
                peer
            })
            .collect();
        drop(peers);
    });
}
