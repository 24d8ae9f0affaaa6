//! Where groups are coordinated, and the topic behind it: line 56 of the client behaviours.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::time::{Duration, Instant};

use common::{Client, TestBroker, batch, code, only_partition, produce_request};
use ottla_protocol::{
    ErrorCode,
    messages::{
        DeleteTopicsRequest, DescribeConfigsRequest, FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest,
        delete_topics_request::DeleteTopicState, describe_configs_request::DescribeConfigsResource,
        metadata_request::MetadataRequestTopic, metadata_response::MetadataResponseTopic,
    },
};

const OFFSETS: &str = "__consumer_offsets";

fn one(key_type: i8, key: &str) -> FindCoordinatorRequest {
    FindCoordinatorRequest { key: key.into(), key_type, ..Default::default() }
}

fn many(key_type: i8, keys: &[&str]) -> FindCoordinatorRequest {
    let coordinator_keys = keys.iter().map(|&key| key.into()).collect();
    FindCoordinatorRequest { key_type, coordinator_keys, ..Default::default() }
}

/// Asks until the coordinator is there, as clients do.
fn await_coordinator(client: &mut Client) -> FindCoordinatorResponse {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let response = client.call(3, &one(0, "g"));
        if code(response.error_code) == ErrorCode::None {
            return response;
        }
        assert_eq!(code(response.error_code), ErrorCode::CoordinatorNotAvailable);
        assert!(Instant::now() < deadline, "the coordinator never appeared");
        std::thread::yield_now();
    }
}

fn described(client: &mut Client, name: &str) -> MetadataResponseTopic {
    let topics = Some(vec![MetadataRequestTopic { name: Some(name.into()), ..Default::default() }]);
    client.call(12, &MetadataRequest { topics, allow_auto_topic_creation: true, ..Default::default() }).topics.remove(0)
}

#[test]
fn client_rule_56_the_coordinator_is_not_available_until_the_internal_topic_is_there() {
    let broker = TestBroker::start_with(&[("offsets.topic.num.partitions", "5")]);
    let mut client = broker.connect();
    let first = client.call(6, &many(0, &["g"])).coordinators.remove(0);
    assert_eq!(code(first.error_code), ErrorCode::CoordinatorNotAvailable);
    assert_eq!((first.node_id, &*first.host, first.port), (-1, "", -1));

    let found = await_coordinator(&mut client);
    let (host, port) = (broker.address.ip().to_string(), i32::from(broker.address.port()));
    assert_eq!((found.node_id, &*found.host, found.port), (broker.node.id().0, &*host, port));
    let topic = described(&mut client, OFFSETS);
    assert!(topic.is_internal);
    assert_eq!(topic.partitions.len(), 5);
    let resource = DescribeConfigsResource { resource_type: 2, resource_name: OFFSETS.into(), ..Default::default() };
    let configs = client.call(4, &DescribeConfigsRequest { resources: vec![resource], ..Default::default() });
    let configs = common::by_name(configs.results.into_iter().next().unwrap().configs, |config| &config.name);
    assert_eq!(configs["segment.bytes"].value.as_deref(), Some("104857600"));

    let broker = broker.restart();
    let mut client = broker.connect();
    assert_eq!(code(client.call(0, &one(0, "g")).error_code), ErrorCode::None, "known at once after a restart");
}

#[test]
fn client_rule_56_each_key_is_answered_in_its_place_whatever_it_is() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    await_coordinator(&mut client);
    for version in 0..4 {
        // Kafka's coordinator is found for an empty id too; the coordinator then refuses it.
        for key in ["g", ""] {
            let found = client.call(version, &one(0, key));
            assert_eq!((code(found.error_code), found.node_id), (ErrorCode::None, 1), "version {version}");
        }
    }
    for version in 4..=6 {
        let found = client.call(version, &many(0, &["a", "b", "", "a"]));
        let keys: Vec<&str> = found.coordinators.iter().map(|coordinator| &*coordinator.key).collect();
        assert_eq!(keys, ["a", "b", "", "a"]);
        let port = i32::from(broker.address.port());
        assert!(found.coordinators.iter().all(|coordinator| (coordinator.error_code, coordinator.port) == (0, port)));
        assert!(client.call(version, &many(0, &[])).coordinators.is_empty());
    }
}

#[test]
fn client_rule_56_what_has_no_coordinator_here_is_refused_for_good() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let refused = client.call(3, &one(1, "transactions"));
    assert_eq!(code(refused.error_code), ErrorCode::TransactionalIdAuthorizationFailed);
    let refused = client.call(6, &many(1, &["transactions"])).coordinators.remove(0);
    assert_eq!(code(refused.error_code), ErrorCode::TransactionalIdAuthorizationFailed);
    for version in 4..=6 {
        let refused = client.call(version, &many(2, &["g:AAAAAAAAAAAAAAAAAAAAAQ:0"])).coordinators.remove(0);
        assert_eq!(code(refused.error_code), ErrorCode::InvalidRequest);
    }
    assert_eq!(code(client.call(1, &one(9, "g")).error_code), ErrorCode::InvalidRequest);
    assert_eq!(code(described_without_creation(&mut client).error_code), ErrorCode::UnknownTopicOrPartition);
}

fn described_without_creation(client: &mut Client) -> MetadataResponseTopic {
    let topics = Some(vec![MetadataRequestTopic { name: Some(OFFSETS.into()), ..Default::default() }]);
    client.call(12, &MetadataRequest { topics, ..Default::default() }).topics.remove(0)
}

#[test]
fn asking_for_the_internal_topic_makes_it_as_the_coordinator_needs_it() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let deadline = Instant::now() + Duration::from_secs(30);
    while code(described(&mut client, OFFSETS).error_code) != ErrorCode::None {
        assert!(Instant::now() < deadline, "it never appeared");
        std::thread::yield_now();
    }
    assert_eq!(described(&mut client, OFFSETS).partitions.len(), 50);
    // Nobody knows yet how these are to be: made now, they would be wrong for ever.
    for name in ["__transaction_state", "__share_group_state"] {
        described(&mut client, name);
    }
    client.create_topic("later", 1, &[]);
    for name in ["__transaction_state", "__share_group_state"] {
        let topic = described(&mut client, name);
        assert_eq!((code(topic.error_code), topic.is_internal), (ErrorCode::UnknownTopicOrPartition, true));
    }
}

#[test]
fn only_who_says_it_is_an_admin_tool_writes_to_an_internal_topic() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    // A client may make it by hand, as with Kafka.
    client.create_topic(OFFSETS, 2, &[]);
    client.create_topic("plain", 1, &[]);
    let refused = client.produce(OFFSETS, 0, batch(&["x"]));
    assert_eq!(code(refused.error_code), ErrorCode::InvalidTopicException);
    assert_eq!(code(client.produce("plain", 0, batch(&["x"])).error_code), ErrorCode::None);
    let request = produce_request(-1, OFFSETS, 0, batch(&["x"]));
    let correlation = client.send_as("__admin_client", 9, &request);
    let taken = only_partition(client.receive::<ottla_protocol::messages::ProduceRequest>(9, correlation));
    assert_eq!((code(taken.error_code), taken.base_offset), (ErrorCode::None, 0));

    // And may delete it: the next who looks for a coordinator has a new one made.
    let topics = vec![DeleteTopicState { name: Some(OFFSETS.into()), ..Default::default() }];
    let deleted = client.call(6, &DeleteTopicsRequest { topics, ..Default::default() });
    assert_eq!(code(deleted.responses[0].error_code), ErrorCode::None);
    await_coordinator(&mut client);
    assert_eq!(described(&mut client, OFFSETS).partitions.len(), 50);
}
