//! Handshake and framing as clients rely on them: lines 1 to 11 of the client behaviours.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::io::Write;

use bytes::Bytes;
use common::{TestBroker, code, raw_header};
use ottla_protocol::{
    ApiKey, ErrorCode, Reader, ResponseHeader,
    messages::{
        ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse, api_versions_response::ApiVersion,
        metadata_request::MetadataRequestTopic,
    },
};

fn software(name: &str, version: &str) -> ApiVersionsRequest {
    ApiVersionsRequest { client_software_name: name.into(), client_software_version: version.into() }
}

fn range(keys: &[ApiVersion], key: ApiKey) -> (i16, i16) {
    let row = keys.iter().find(|row| row.api_key == key as i16).unwrap_or_else(|| panic!("{key:?} is advertised"));
    (row.min_version, row.max_version)
}

#[test]
fn client_rule_1_a_newer_api_versions_is_answered_with_35_in_version_0() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    for version in [5, 6, i16::MAX] {
        // Header version 2: a tag section behind the client id. The body is of a future nobody here can read.
        let mut frame = raw_header(ApiKey::ApiVersions as i16, version, 7);
        frame.extend([0, 0xde, 0xad]);
        client.send_frame(&frame);
        let mut reader = Reader::new(client.receive_frame().expect("an answer, and the connection stays open"));
        let header = ResponseHeader::decode(&mut reader, ApiKey::ApiVersions, 0).unwrap();
        assert_eq!(header.correlation_id, 7);
        let response = ApiVersionsResponse::decode(&mut reader, 0).unwrap();
        assert_eq!(code(response.error_code), ErrorCode::UnsupportedVersion);
        assert_eq!(range(&response.api_keys, ApiKey::ApiVersions), (0, 4));
        // The next attempt of the client, on the same connection.
        let (min, max) = range(&client.call(4, &software("test", "1")).api_keys, ApiKey::ApiVersions);
        assert_eq!((min, max), (0, 4));
    }
}

#[test]
fn client_rule_2_the_answer_to_api_versions_has_a_header_without_tags() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let correlation = client.send(4, &software("test", "1"));
    let frame = client.receive_frame().unwrap();
    // Correlation id, then at once the error code and the compact array of keys.
    assert_eq!(frame[..4], correlation.to_be_bytes());
    assert_eq!(frame[4..6], [0, 0]);
    assert!(frame[6] > 1, "the array's length, one more than the number of keys");
    assert_eq!(frame[7..9], (ApiKey::Produce as i16).to_be_bytes());
}

#[test]
fn client_rule_3_a_flexible_header_keeps_its_client_id_as_an_old_string() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let mut frame = Vec::new();
    frame.extend((ApiKey::Metadata as i16).to_be_bytes());
    frame.extend(12i16.to_be_bytes());
    frame.extend(99i32.to_be_bytes());
    frame.extend(3i16.to_be_bytes());
    frame.extend(b"abc");
    frame.push(0); // no tags in the header
    frame.push(1); // an empty list of topics
    frame.extend([0, 0, 0]); // no creation, no operations, no tags
    client.send_frame(&frame);
    let mut reader = Reader::new(client.receive_frame().unwrap());
    assert_eq!(ResponseHeader::decode(&mut reader, ApiKey::Metadata, 12).unwrap().correlation_id, 99);
    assert!(MetadataResponse::decode(&mut reader, 12).unwrap().topics.is_empty());
}

#[test]
fn client_rule_4_a_client_that_names_itself_wrongly_gets_42() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    for (name, version) in [("", "1"), ("a b", "1"), ("-a", "1"), ("test", ""), ("test", "1.0-"), ("té", "1")] {
        let response = client.call(3, &software(name, version));
        assert_eq!(code(response.error_code), ErrorCode::InvalidRequest, "{name:?} {version:?}");
    }
    assert_eq!(code(client.call(3, &software("apache-kafka-java", "4.3.0")).error_code), ErrorCode::None);
    // Versions before 3 do not name anybody.
    assert_eq!(code(client.call(0, &ApiVersionsRequest::default()).error_code), ErrorCode::None);
}

#[test]
fn client_rule_5_features_come_with_version_3_and_none_of_them_begins_at_0() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    for version in 0..=4 {
        let response = client.call(version, &software("test", "1"));
        if version < 3 {
            assert!(response.supported_features.is_empty());
            continue;
        }
        assert!(version == 4 || response.supported_features.iter().all(|feature| feature.min_version > 0));
        let finalised = &response.finalized_features;
        let level = |name: &str| finalised.iter().find(|feature| feature.name == name).unwrap().max_version_level;
        assert!(level("metadata.version") > 0);
        assert_eq!(level("group.version"), 1);
        let group = response.supported_features.iter().find(|feature| feature.name == "group.version");
        assert_eq!(group.map(|feature| (feature.min_version, feature.max_version)), (version == 4).then_some((0, 1)));
        assert!(response.finalized_features_epoch >= 0);
    }
}

#[test]
fn client_rule_6_produce_is_advertised_from_version_0_and_served_from_version_3() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let response = client.call(4, &software("test", "1"));
    assert_eq!(range(&response.api_keys, ApiKey::Produce), (0, 13));
    for version in 0..3 {
        let mut client = broker.connect();
        client.send_frame(&raw_header(ApiKey::Produce as i16, version, 1));
        assert_eq!(client.receive_frame(), None, "Produce version {version}");
    }
}

#[test]
fn client_rule_7_the_ranges_are_those_librdkafka_derives_its_features_from() {
    let broker = TestBroker::start();
    let keys = broker.connect().call(4, &software("test", "1")).api_keys;
    let expected = [
        (ApiKey::Produce, (0, 13)),
        (ApiKey::Fetch, (4, 18)),
        (ApiKey::ListOffsets, (1, 11)),
        (ApiKey::Metadata, (0, 13)),
        (ApiKey::OffsetCommit, (2, 10)),
        (ApiKey::OffsetFetch, (1, 10)),
        (ApiKey::FindCoordinator, (0, 6)),
        (ApiKey::JoinGroup, (0, 9)),
        (ApiKey::Heartbeat, (0, 4)),
        (ApiKey::LeaveGroup, (0, 5)),
        (ApiKey::SyncGroup, (0, 5)),
        (ApiKey::DescribeGroups, (0, 6)),
        (ApiKey::ListGroups, (0, 5)),
        (ApiKey::ApiVersions, (0, 4)),
        (ApiKey::CreateTopics, (2, 7)),
        (ApiKey::DeleteTopics, (1, 6)),
        (ApiKey::DeleteRecords, (0, 2)),
        (ApiKey::InitProducerId, (0, 5)),
        (ApiKey::OffsetForLeaderEpoch, (2, 4)),
        (ApiKey::DescribeAcls, (1, 3)),
        (ApiKey::CreateAcls, (1, 3)),
        (ApiKey::DeleteAcls, (1, 3)),
        (ApiKey::DescribeConfigs, (1, 4)),
        (ApiKey::AlterConfigs, (0, 2)),
        (ApiKey::DescribeLogDirs, (1, 5)),
        (ApiKey::CreatePartitions, (0, 3)),
        (ApiKey::DeleteGroups, (0, 2)),
        (ApiKey::ElectLeaders, (0, 2)),
        (ApiKey::IncrementalAlterConfigs, (0, 1)),
        (ApiKey::AlterPartitionReassignments, (0, 1)),
        (ApiKey::ListPartitionReassignments, (0, 0)),
        (ApiKey::OffsetDelete, (0, 0)),
        (ApiKey::DescribeQuorum, (0, 2)),
        (ApiKey::UpdateFeatures, (0, 2)),
        (ApiKey::UnregisterBroker, (0, 0)),
        (ApiKey::DescribeCluster, (0, 2)),
        (ApiKey::DescribeProducers, (0, 0)),
        (ApiKey::ConsumerGroupHeartbeat, (0, 1)),
        (ApiKey::ConsumerGroupDescribe, (0, 1)),
        (ApiKey::ListConfigResources, (0, 1)),
        (ApiKey::DescribeTopicPartitions, (0, 0)),
    ];
    for (key, versions) in expected {
        assert_eq!(range(&keys, key), versions, "{key:?}");
    }
    assert_eq!(keys.len(), expected.len(), "nothing else is advertised");
    let told = |name: &str| broker.connect().call(4, &software(name, "1")).api_keys.len();
    assert!(told("ottla") > expected.len(), "Ottla's own nodes hear of what they say to each other");
}

#[test]
fn client_rule_8_what_is_not_served_closes_the_connection() {
    let broker = TestBroker::start();
    let mut unreadable = raw_header(ApiKey::Metadata as i16, 1, 1);
    unreadable.extend([0x7f, 0xff, 0xff, 0xff]); // a list of two billion topics, and no more bytes
    let frames = [
        ("an API from the ZooKeeper days", raw_header(4, 0, 1)),
        ("a negative API", raw_header(-1, 0, 1)),
        ("an API of the future", raw_header(9999, 0, 1)),
        ("a version above ours", raw_header(ApiKey::Metadata as i16, 14, 1)),
        ("a version below ours", raw_header(ApiKey::Fetch as i16, 3, 1)),
        ("an unreadable body", unreadable),
        ("half a header", vec![0, 3]),
        ("an empty frame", Vec::new()),
    ];
    for (what, frame) in frames {
        let mut client = broker.connect();
        client.send_frame(&frame);
        assert_eq!(client.receive_frame(), None, "{what}");
    }
    assert_eq!(code(broker.connect().call(12, &MetadataRequest::default()).error_code), ErrorCode::None);
}

#[test]
fn bytes_behind_a_request_are_no_error_because_librdkafka_sends_some() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let mut request = raw_header(ApiKey::Metadata as i16, 0, 1);
    request.extend([0, 0, 0, 0, 42, 42, 42]);
    client.send_frame(&request);
    assert!(client.receive_frame().is_some());
}

#[test]
fn client_rule_8_answers_owed_are_sent_before_the_connection_closes() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let correlation = client.send(12, &MetadataRequest::default());
    client.send_frame(&raw_header(9999, 0, 1));
    assert!(!client.receive::<MetadataRequest>(12, correlation).brokers.is_empty());
    assert_eq!(client.receive_frame(), None);
}

#[test]
fn client_rule_9_unknown_tagged_fields_are_skipped_everywhere() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("tagged", 1, &[]);
    let mut frame = raw_header(ApiKey::Metadata as i16, 12, 5);
    let tags = [2, 200, 1, 3, b'x', b'y', b'z', 201, 1, 0]; // two fields: 200 with three bytes, 201 with none
    frame.extend(tags);
    frame.push(2); // one topic
    frame.extend([0; 16]);
    frame.push(7);
    frame.extend(b"tagged");
    frame.extend(tags);
    frame.extend([0, 0]);
    frame.extend(tags);
    client.send_frame(&frame);
    let mut reader = Reader::new(client.receive_frame().expect("an answer"));
    ResponseHeader::decode(&mut reader, ApiKey::Metadata, 12).unwrap();
    let response = MetadataResponse::decode(&mut reader, 12).unwrap();
    assert_eq!(response.topics[0].name.as_deref(), Some("tagged"));
    assert_eq!(code(response.topics[0].error_code), ErrorCode::None);
}

#[test]
fn client_rule_10_answers_leave_in_the_order_of_requests_also_behind_a_long_poll() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("ordered", 1, &[]);
    let mut poll = common::fetch_request("ordered", 0, 0);
    poll.max_wait_ms = 30_000;
    poll.min_bytes = 1;
    let fetch = client.send(12, &poll);
    let metadata = client.send(12, &MetadataRequest::default());
    let versions = client.send(4, &software("test", "1"));
    // Only this lets the poll end.
    broker.connect().write("ordered", 0, &["go"]);
    let fetched = client.receive::<ottla_protocol::messages::FetchRequest>(12, fetch);
    assert_eq!(common::fetched_records(&common::only_fetched(fetched)).len(), 1);
    client.receive::<MetadataRequest>(12, metadata);
    client.receive::<ApiVersionsRequest>(4, versions);
}

#[test]
fn client_rule_10_pipelined_produce_requests_are_answered_in_order() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("pipeline", 1, &[]);
    let requests: Vec<_> = (0..50)
        .map(|i| client.send(9, &common::produce_request(-1, "pipeline", 0, common::batch(&[&i.to_string()]))))
        .collect();
    for (offset, correlation) in (0..).zip(requests) {
        let response = client.receive::<ottla_protocol::messages::ProduceRequest>(9, correlation);
        assert_eq!(common::only_partition(response).base_offset, offset);
    }
}

#[test]
fn client_rule_11_a_frame_that_is_negative_or_too_long_closes_the_connection() {
    let broker = TestBroker::start();
    for length in [-1, i32::MIN, i32::MAX, (100 << 20) + 1] {
        let mut client = broker.connect();
        client.send_bytes(&length.to_be_bytes());
        assert_eq!(client.receive_frame(), None, "length {length}");
    }
    // One that says 100 MiB and sends nothing holds nobody up.
    let mut claims = broker.connect();
    claims.send_bytes(&(100i32 << 20).to_be_bytes());
    assert_eq!(code(broker.connect().call(12, &MetadataRequest::default()).error_code), ErrorCode::None);
}

#[test]
fn a_request_that_arrives_byte_by_byte_is_served() {
    let broker = TestBroker::start();
    let mut frame = raw_header(ApiKey::Metadata as i16, 1, 3);
    frame.extend((-1i32).to_be_bytes());
    let mut stream = std::net::TcpStream::connect(broker.address).unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in i32::try_from(frame.len()).unwrap().to_be_bytes().iter().chain(&frame) {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut length = [0; 4];
    std::io::Read::read_exact(&mut stream, &mut length).unwrap();
    let mut body = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
    std::io::Read::read_exact(&mut stream, &mut body).unwrap();
    let mut reader = Reader::new(Bytes::from(body));
    ResponseHeader::decode(&mut reader, ApiKey::Metadata, 1).unwrap();
    assert_eq!(MetadataResponse::decode(&mut reader, 1).unwrap().brokers.len(), 1);
}

#[test]
fn every_version_of_metadata_is_served() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("all", 2, &[]);
    for version in 0..=13 {
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic { name: Some("all".into()), ..Default::default() }]),
            ..Default::default()
        };
        let response = client.call(version, &request);
        assert_eq!(response.topics[0].partitions.len(), 2, "version {version}");
        assert_eq!(response.topics[0].partitions[1].leader_id, broker.node.id().0, "version {version}");
    }
}
