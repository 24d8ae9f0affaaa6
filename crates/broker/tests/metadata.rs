//! Metadata and addresses as clients rely on them: lines 16 to 28 of the client behaviours.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::time::{Duration, Instant};

use common::{TestBroker, code, raw_header};
use ottla_protocol::{
    ErrorCode,
    messages::{
        DeleteTopicsRequest, DescribeClusterRequest, DescribeTopicPartitionsRequest, MetadataRequest, MetadataResponse,
        delete_topics_request::DeleteTopicState,
        describe_topic_partitions_request::{Cursor, TopicRequest},
        metadata_request::MetadataRequestTopic,
        metadata_response::MetadataResponseTopic,
    },
};
use ottla_types::TopicId;

fn named(names: &[&str]) -> MetadataRequest {
    let topics = names.iter().map(|&name| MetadataRequestTopic { name: Some(name.into()), ..Default::default() });
    MetadataRequest { topics: Some(topics.collect()), ..Default::default() }
}

fn with_id(id: TopicId) -> MetadataRequest {
    MetadataRequest { topics: Some(vec![MetadataRequestTopic { topic_id: id, name: None }]), ..Default::default() }
}

fn only(response: MetadataResponse) -> MetadataResponseTopic {
    assert_eq!(response.topics.len(), 1);
    response.topics.into_iter().next().unwrap()
}

/// Asks until the topic is there, as clients do.
fn wait_for_topic(client: &mut common::Client, name: &str) -> MetadataResponseTopic {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let topic = only(client.call(12, &named(&[name])));
        if code(topic.error_code) == ErrorCode::None {
            return topic;
        }
        assert_eq!(code(topic.error_code), ErrorCode::UnknownTopicOrPartition);
        assert!(Instant::now() < deadline, "{name} never appeared");
        std::thread::yield_now();
    }
}

#[test]
fn client_rule_16_every_answer_gives_the_endpoint_the_client_came_in_on() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let metadata = client.call(12, &MetadataRequest::default());
    let cluster = client.call(1, &DescribeClusterRequest::default());
    let (host, port) = (broker.address.ip().to_string(), i32::from(broker.address.port()));
    assert_eq!((&*metadata.brokers[0].host, metadata.brokers[0].port), (&*host, port));
    assert_eq!((&*cluster.brokers[0].host, cluster.brokers[0].port), (&*host, port));
    assert_eq!(metadata.brokers[0].rack.as_deref(), Some("shelf"));
    assert_eq!(cluster.brokers[0].rack.as_deref(), Some("shelf"));
    assert_eq!(metadata.brokers[0].node_id, cluster.brokers[0].broker_id);
}

#[test]
fn client_rule_17_the_host_is_bare() {
    let broker = TestBroker::start();
    let response = broker.connect().call(9, &MetadataRequest::default());
    assert!(response.brokers[0].host.parse::<std::net::IpAddr>().is_ok(), "no brackets, no port");
}

#[test]
fn client_rule_18_null_means_all_and_an_empty_list_none_except_in_version_0() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("b", 1, &[]);
    client.create_topic("a", 1, &[]);
    let names = |response: &MetadataResponse| -> Vec<String> {
        response.topics.iter().map(|topic| topic.name.as_deref().unwrap().to_owned()).collect()
    };
    for version in 0..=13 {
        let none = client.call(version, &MetadataRequest { topics: Some(Vec::new()), ..Default::default() });
        let expected: &[&str] = if version == 0 { &["a", "b"] } else { &[] };
        assert_eq!(names(&none), expected, "an empty list in version {version}");
        if version > 0 {
            let all = client.call(version, &MetadataRequest { topics: None, ..Default::default() });
            assert_eq!(names(&all), ["a", "b"], "null in version {version}");
        }
    }
}

#[test]
fn client_rule_19_versions_before_4_imply_creation_and_later_ones_say_so() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    for version in 0..=3 {
        let name = format!("implied-{version}");
        only(client.call(version, &named(&[&name])));
        wait_for_topic(&mut client, &name);
    }
    let forbidden = MetadataRequest { allow_auto_topic_creation: false, ..named(&["forbidden"]) };
    assert_eq!(code(only(client.call(4, &forbidden)).error_code), ErrorCode::UnknownTopicOrPartition);
    // Requests are obeyed in order, and so are creations: once a later one is there, an earlier one would be.
    only(client.call(4, &named(&["allowed"])));
    wait_for_topic(&mut client, "allowed");
    assert_eq!(code(only(client.call(4, &forbidden)).error_code), ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn client_rule_19_nothing_is_created_where_the_broker_forbids_it() {
    let broker = TestBroker::start_with(&[("auto.create.topics.enable", "false")]);
    let mut client = broker.connect();
    for _ in 0..3 {
        let topic = only(client.call(12, &named(&["never"])));
        assert_eq!(code(topic.error_code), ErrorCode::UnknownTopicOrPartition);
    }
    client.create_topic("by-hand", 1, &[]);
    let all = client.call(12, &MetadataRequest { topics: None, ..Default::default() });
    assert_eq!(only(all).name.as_deref(), Some("by-hand"));
}

#[test]
fn client_rule_20_first_metadata_of_an_auto_created_topic_is_unknown_and_then_it_is_there() {
    let broker = TestBroker::start_with(&[("num.partitions", "3")]);
    let mut client = broker.connect();
    let first = only(client.call(12, &named(&["wanted"])));
    assert_eq!(code(first.error_code), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(first.name.as_deref(), Some("wanted"));
    let created = wait_for_topic(&mut client, "wanted");
    assert_eq!(created.partitions.len(), 3);
    assert_eq!(client.write("wanted", 2, &["at once"]), 0);
}

#[test]
fn client_rule_20_names_that_cannot_be_are_17_and_nothing_comes_of_them() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let long = "x".repeat(250);
    for version in [0, 4, 9, 13] {
        let response = client.call(version, &named(&["", ".", "..", "a/b", "ä", &long, "good"]));
        for topic in &response.topics {
            let expected = match topic.name.as_deref() {
                Some("good") => continue,
                _ => ErrorCode::InvalidTopicException,
            };
            assert_eq!(code(topic.error_code), expected, "{:?} in version {version}", topic.name);
        }
    }
    wait_for_topic(&mut client, "good");
    let all = client.call(12, &MetadataRequest { topics: None, ..Default::default() });
    assert_eq!(only(all).name.as_deref(), Some("good"));
}

#[test]
fn client_rule_21_leader_epochs_never_go_down() {
    let broker = TestBroker::start();
    broker.connect().create_topic("epochs", 1, &[]);
    let epoch = |broker: &TestBroker| only(broker.connect().call(12, &named(&["epochs"]))).partitions[0].leader_epoch;
    let first = epoch(&broker);
    assert!(first >= 0);
    let broker = broker.restart();
    let restarted = epoch(&broker);
    assert!(restarted >= first, "{restarted} after {first}");
    let killed = broker.killed();
    assert!(epoch(&killed) > restarted, "a leader that restarts without proof begins a new epoch (rule E1)");
    let killed_twice = killed.killed();
    assert!(epoch(&killed_twice) > epoch(&killed));
}

#[test]
fn client_rule_22_a_topic_created_again_has_another_id() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let first = client.create_topic("phoenix", 1, &[]).topic_id;
    assert_eq!(only(client.call(12, &named(&["phoenix"]))).topic_id, first);
    client.write("phoenix", 0, &["old"]);
    let delete = DeleteTopicsRequest {
        topics: vec![DeleteTopicState { name: Some("phoenix".into()), topic_id: TopicId::ZERO }],
        ..Default::default()
    };
    assert_eq!(code(client.call(6, &delete).responses[0].error_code), ErrorCode::None);
    let second = client.create_topic("phoenix", 1, &[]).topic_id;
    assert_ne!(first, second);
    assert!(client.read("phoenix", 0, 0).is_empty(), "nothing of the old topic is in the new");
    assert_eq!(code(only(client.call(12, &with_id(first))).error_code), ErrorCode::UnknownTopicId);
}

#[test]
fn client_rule_23_topics_are_found_by_id_from_version_12_on() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let id = client.create_topic("known", 1, &[]).topic_id;
    assert!(!id.is_zero());
    for version in [12, 13] {
        let topic = only(client.call(version, &with_id(id)));
        assert_eq!((code(topic.error_code), topic.name.as_deref()), (ErrorCode::None, Some("known")));
        let unknown = only(client.call(version, &with_id(TopicId::from_bytes([9; 16]))));
        assert_eq!((code(unknown.error_code), unknown.name), (ErrorCode::UnknownTopicId, None));
    }
    for version in [10, 11] {
        let topic = only(client.call(version, &with_id(id)));
        assert_eq!(code(topic.error_code), ErrorCode::InvalidRequest, "version {version}");
        assert_eq!(only(client.call(version, &named(&["known"]))).topic_id, id, "version {version}");
    }
}

#[test]
fn client_rule_24_the_controller_is_a_live_broker() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    for version in 1..=13 {
        let response = client.call(version, &MetadataRequest::default());
        assert!(response.brokers.iter().any(|broker| broker.node_id == response.controller_id), "version {version}");
    }
}

#[test]
fn client_rule_25_the_cluster_id_is_there_from_version_2_on_and_survives_a_restart() {
    let mut broker = TestBroker::start();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut client = broker.connect();
        for version in 2..=13 {
            ids.push(client.call(version, &MetadataRequest::default()).cluster_id.expect("not null"));
        }
        ids.push(client.call(0, &DescribeClusterRequest::default()).cluster_id);
        broker = broker.restart();
    }
    assert_eq!(ids[0].len(), 22, "16 bytes of base64");
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[test]
fn client_rule_26_authorized_operations_are_int32_min_unless_asked_for() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("ops", 1, &[]);
    for version in 8..=13 {
        let topic = only(client.call(version, &named(&["ops"])));
        assert_eq!(topic.topic_authorized_operations, i32::MIN, "version {version}");
        let asked = MetadataRequest { include_topic_authorized_operations: true, ..named(&["ops"]) };
        assert_eq!(only(client.call(version, &asked)).topic_authorized_operations, 3576, "version {version}");
    }
    for version in 8..=10 {
        let asked = MetadataRequest { include_cluster_authorized_operations: true, ..Default::default() };
        assert_eq!(client.call(version, &asked).cluster_authorized_operations, 8096);
        let silent = client.call(version, &MetadataRequest::default());
        assert_eq!(silent.cluster_authorized_operations, i32::MIN);
    }
    let cluster = client.call(0, &DescribeClusterRequest::default());
    assert_eq!(cluster.cluster_authorized_operations, i32::MIN);
}

#[test]
fn client_rule_27_describe_topic_partitions_pages_through_everything_once_and_in_order() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    for (name, partitions) in [("c", 1), ("a", 3), ("b", 4)] {
        client.create_topic(name, partitions, &[]);
    }
    for limit in 1..=9 {
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let request =
                DescribeTopicPartitionsRequest { response_partition_limit: limit, cursor, ..Default::default() };
            let response = client.call(0, &request);
            let count: usize = response.topics.iter().map(|topic| topic.partitions.len()).sum();
            assert!(count <= usize::try_from(limit).unwrap());
            for topic in response.topics {
                assert_eq!(code(topic.error_code), ErrorCode::None);
                let partitions = topic.partitions.iter().map(|partition| partition.partition_index);
                seen.extend(partitions.map(|index| (topic.name.as_deref().unwrap().to_owned(), index)));
            }
            let Some(next) = response.next_cursor else { break };
            cursor = Some(Cursor { topic_name: next.topic_name, partition_index: next.partition_index });
        }
        let all = [("a", 3), ("b", 4), ("c", 1)];
        let expected: Vec<_> =
            all.iter().flat_map(|&(name, count)| (0..count).map(move |index| (name.to_owned(), index))).collect();
        assert_eq!(seen, expected, "{limit} partitions a page");
    }
}

#[test]
fn client_rule_27_describe_topic_partitions_keeps_to_the_brokers_limit_and_tells_what_is_unknown() {
    let broker = TestBroker::start_with(&[("max.request.partition.size.limit", "2")]);
    let mut client = broker.connect();
    let id = client.create_topic("wide", 5, &[]).topic_id;
    let response = client.call(0, &DescribeTopicPartitionsRequest::default());
    assert_eq!(response.topics[0].partitions.len(), 2);
    assert_eq!(response.topics[0].topic_id, id);
    let partition = &response.topics[0].partitions[0];
    let us = broker.node.id().0;
    assert_eq!((partition.leader_id, &*partition.replica_nodes, &*partition.isr_nodes), (us, &[us][..], &[us][..]));
    assert_eq!(partition.eligible_leader_replicas.as_deref(), Some(&[][..]));
    let next = response.next_cursor.unwrap();
    assert_eq!((&*next.topic_name, next.partition_index), ("wide", 2));

    let ask = |names: &[&str], cursor: Option<(&str, i32)>| DescribeTopicPartitionsRequest {
        topics: names.iter().map(|&name| TopicRequest { name: name.into() }).collect(),
        cursor: cursor.map(|(name, index)| Cursor { topic_name: name.into(), partition_index: index }),
        ..Default::default()
    };
    let response = client.call(0, &ask(&["nobody", "a/b"], None));
    let codes: Vec<_> = response.topics.iter().map(|topic| code(topic.error_code)).collect();
    assert_eq!(codes, [ErrorCode::InvalidTopicException, ErrorCode::UnknownTopicOrPartition]);
    for cursor in [("elsewhere", 0), ("wide", -1)] {
        let response = client.call(0, &ask(&["wide"], Some(cursor)));
        assert_eq!(code(response.topics[0].error_code), ErrorCode::InvalidRequest, "{cursor:?}");
    }
    // A cursor behind the last partition is a page with nothing on it.
    let response = client.call(0, &ask(&["wide"], Some(("wide", i32::MAX))));
    assert!(response.topics[0].partitions.is_empty() && response.next_cursor.is_none());
}

#[test]
fn client_rule_28_nothing_is_wrong_at_the_top_of_version_13() {
    let broker = TestBroker::start();
    let response = broker.connect().call(13, &MetadataRequest::default());
    assert_eq!(code(response.error_code), ErrorCode::None);
}

#[test]
fn a_topic_asked_for_twice_is_described_once() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("twice", 1, &[]);
    assert_eq!(client.call(12, &named(&["twice", "twice", "twice"])).topics.len(), 1);
}

#[test]
fn describe_cluster_answers_for_brokers_and_says_so_to_whoever_wants_controllers() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let ask = |endpoint_type| DescribeClusterRequest { endpoint_type, ..Default::default() };
    assert_eq!(code(client.call(1, &ask(2)).error_code), ErrorCode::MismatchedEndpointType);
    assert_eq!(code(client.call(1, &ask(77)).error_code), ErrorCode::UnsupportedEndpointType);
    for version in 0..=2 {
        let response = client.call(version, &ask(1));
        assert_eq!(code(response.error_code), ErrorCode::None);
        assert_eq!(response.controller_id, broker.node.id().0);
        assert!(!response.brokers[0].is_fenced);
    }
}

#[test]
fn metadata_with_a_null_name_in_an_old_version_closes_the_connection() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let mut frame = raw_header(3, 1, 1);
    frame.extend(1i32.to_be_bytes());
    frame.extend((-1i16).to_be_bytes());
    client.send_frame(&frame);
    assert_eq!(client.receive_frame(), None);
}
