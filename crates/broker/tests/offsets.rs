//! Offsets by place, by time and by epoch as clients rely on them: lines 48 and 53 to 55 of the client behaviours.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use common::{Client, TestBroker, batch_at, code};
use ottla_protocol::{
    ErrorCode,
    messages::{
        ListOffsetsRequest, OffsetForLeaderEpochRequest,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        list_offsets_response::ListOffsetsPartitionResponse,
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
        offset_for_leader_epoch_response::EpochEndOffset,
    },
};
use ottla_records::Compression;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

fn request(topic: &str, partitions: Vec<ListOffsetsPartition>) -> ListOffsetsRequest {
    let topics = vec![ListOffsetsTopic { name: topic.into(), partitions }];
    ListOffsetsRequest { replica_id: -1, topics, ..Default::default() }
}

fn at(timestamp: i64) -> ListOffsetsPartition {
    ListOffsetsPartition { partition_index: 0, timestamp, ..Default::default() }
}

fn list(client: &mut Client, version: i16, topic: &str, timestamp: i64) -> ListOffsetsPartitionResponse {
    let mut response = client.call(version, &request(topic, vec![at(timestamp)]));
    response.topics.remove(0).partitions.remove(0)
}

fn found(answer: &ListOffsetsPartitionResponse) -> (ErrorCode, i64, i64) {
    (code(answer.error_code), answer.offset, answer.timestamp)
}

fn epoch_end(client: &mut Client, version: i16, topic: &str, current: i32, epoch: i32) -> EpochEndOffset {
    let partitions =
        vec![OffsetForLeaderPartition { partition: 0, current_leader_epoch: current, leader_epoch: epoch }];
    let topics = vec![OffsetForLeaderTopic { topic: topic.into(), partitions }];
    let mut response = client.call(version, &OffsetForLeaderEpochRequest { topics, ..Default::default() });
    response.topics.remove(0).partitions.remove(0)
}

fn leader_epoch(broker: &TestBroker, topic: &str) -> i32 {
    broker.node.image().topic_named(topic).unwrap().partitions[0].leader_epoch.0
}

#[test]
fn client_rule_53_places_have_their_offsets_in_every_version() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("places", 1, &[]);
    for version in 1..=11 {
        for timestamp in [LATEST, EARLIEST] {
            assert_eq!(found(&list(&mut client, version, "places", timestamp)), (ErrorCode::None, 0, -1), "empty");
        }
    }
    let times = [(1000, "a"), (3000, "b"), (2000, "c")];
    client.produce("places", 0, batch_at(Compression::None, &times));
    client.write("places", 0, &["d"]);
    for version in 1..=11 {
        let mut expect = |timestamp, since, offset, time| {
            let expected = if version >= since {
                (ErrorCode::None, offset, time)
            } else {
                (ErrorCode::UnsupportedVersion, -1, -1)
            };
            let answer = list(&mut client, version, "places", timestamp);
            assert_eq!(found(&answer), expected, "timestamp {timestamp} in version {version}");
            if version < 4 {
                assert_eq!(answer.leader_epoch, -1);
            }
        };
        expect(LATEST, 1, 4, -1);
        expect(EARLIEST, 1, 0, -1);
        expect(MAX_TIMESTAMP, 7, 1, 3000);
        expect(EARLIEST_LOCAL, 8, 0, -1);
        expect(LATEST_TIERED, 9, -1, -1);
        expect(EARLIEST_PENDING_UPLOAD, 11, -1, -1);
        expect(-7, i16::MAX, -1, -1);
        expect(i64::MIN, i16::MAX, -1, -1);
        expect(3001, 1, -1, -1);
    }
}

#[test]
fn client_rule_53_latest_is_the_same_at_either_isolation_level() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("iso", 1, &[]);
    client.write("iso", 0, &["a", "b"]);
    for isolation_level in [0, 1] {
        let request = ListOffsetsRequest { isolation_level, ..request("iso", vec![at(LATEST)]) };
        assert_eq!(found(&client.call(8, &request).topics[0].partitions[0]), (ErrorCode::None, 2, -1));
    }
}

#[test]
fn client_rule_53_what_cannot_be_listed_says_why() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("some", 1, &[]);
    assert_eq!(found(&list(&mut client, 8, "nobody", LATEST)), (ErrorCode::UnknownTopicOrPartition, -1, -1));
    let partition = |partition_index| ListOffsetsPartition { partition_index, ..at(LATEST) };
    let request = request("some", vec![partition(1), partition(-1), partition(0), partition(0)]);
    let response = client.call(8, &request);
    let codes: Vec<_> = response.topics[0].partitions.iter().map(|row| code(row.error_code)).collect();
    let (unknown, twice) = (ErrorCode::UnknownTopicOrPartition, ErrorCode::InvalidRequest);
    assert_eq!(codes, [unknown, unknown, twice, twice]);
}

#[test]
fn client_rule_54_a_time_finds_the_first_record_at_or_after_it_also_inside_compressed_batches() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let codecs = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for codec in codecs {
        let topic = format!("times-{codec:?}");
        client.create_topic(&topic, 1, &[]);
        // Timestamps need not rise, neither within a batch nor between batches.
        let batches: [&[(i64, &str)]; 3] =
            [&[(100, "a"), (105, "b"), (103, "c")], &[(50, "d"), (60, "e")], &[(110, "f"), (200, "g")]];
        for records in batches {
            let answer = client.produce(&topic, 0, batch_at(codec, records));
            assert_eq!(code(answer.error_code), ErrorCode::None, "{codec:?}");
        }
        let flat: Vec<i64> = batches.iter().flat_map(|records| records.iter().map(|&(time, _)| time)).collect();
        for target in 0..=201 {
            let first = (0i64..).zip(&flat).find(|&(_, &time)| time >= target);
            let expected = first.map_or((ErrorCode::None, -1, -1), |(offset, &time)| (ErrorCode::None, offset, time));
            assert_eq!(found(&list(&mut client, 5, &topic, target)), expected, "{codec:?} at {target}");
        }
    }
}

#[test]
fn client_rule_54_a_time_before_what_was_deleted_finds_what_is_left() {
    use ottla_protocol::messages::{
        DeleteRecordsRequest,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    };
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("left", 1, &[]);
    client.produce("left", 0, batch_at(Compression::None, &[(10, "a"), (20, "b"), (30, "c")]));
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: 2 }];
    let topics = vec![DeleteRecordsTopic { name: "left".into(), partitions }];
    client.call(2, &DeleteRecordsRequest { topics, timeout_ms: 1000 });
    assert_eq!(found(&list(&mut client, 5, "left", EARLIEST)), (ErrorCode::None, 2, -1));
    assert_eq!(found(&list(&mut client, 5, "left", 0)), (ErrorCode::None, 2, 30));
}

#[test]
fn client_rule_48_epochs_of_requests_are_fenced_unknown_or_not_looked_at() {
    let broker = TestBroker::start();
    broker.connect().create_topic("fence", 1, &[]);
    let broker = broker.killed();
    let epoch = leader_epoch(&broker, "fence");
    assert!(epoch > 0);
    let mut client = broker.connect();
    client.write("fence", 0, &["a"]);
    let topic_id = common::topic_id(&mut client, "fence");
    for (current, expected) in [
        (-1, ErrorCode::None),
        (epoch, ErrorCode::None),
        (epoch - 1, ErrorCode::FencedLeaderEpoch),
        (epoch + 1, ErrorCode::UnknownLeaderEpoch),
    ] {
        let partition = ListOffsetsPartition { current_leader_epoch: current, ..at(LATEST) };
        let answer = client.call(8, &request("fence", vec![partition])).topics.remove(0).partitions.remove(0);
        assert_eq!(code(answer.error_code), expected, "ListOffsets with epoch {current}");
        if expected == ErrorCode::None {
            assert_eq!(answer.leader_epoch, epoch);
        }
        let answer = epoch_end(&mut client, 4, "fence", current, epoch);
        assert_eq!(code(answer.error_code), expected, "OffsetForLeaderEpoch with epoch {current}");
        for version in 9..=18 {
            let mut fetch = common::fetch_request("fence", 0, 0);
            fetch.topics[0].topic_id = topic_id;
            fetch.topics[0].partitions[0].current_leader_epoch = current;
            let response = client.call(version, &fetch);
            let hints = response.node_endpoints.len();
            let answer = common::only_fetched(response);
            assert_eq!(code(answer.error_code), expected, "Fetch with epoch {current} in version {version}");
            // KIP-951: who is fenced hears from version 16 on who leads, and where.
            let hinted = version >= 16 && expected == ErrorCode::FencedLeaderEpoch;
            assert_eq!((hints, answer.current_leader.leader_epoch), if hinted { (1, epoch) } else { (0, -1) });
        }
    }
}

#[test]
fn client_rule_55_epochs_end_where_the_next_begins_and_unknown_ones_are_no_error() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("ends", 1, &[]);
    client.write("ends", 0, &["a", "b", "c"]);
    let first = leader_epoch(&broker, "ends");
    let broker = broker.killed();
    let mut client = broker.connect();
    let second = leader_epoch(&broker, "ends");
    assert!(second > first);
    client.write("ends", 0, &["d"]);
    for version in 2..=4 {
        let mut expect = |epoch, expected: (ErrorCode, i32, i64)| {
            let answer = epoch_end(&mut client, version, "ends", -1, epoch);
            let got = (code(answer.error_code), answer.leader_epoch, answer.end_offset);
            assert_eq!(got, expected, "epoch {epoch} in version {version}");
        };
        expect(first, (ErrorCode::None, first, 3));
        expect(second, (ErrorCode::None, second, 4));
        expect(second + 1, (ErrorCode::None, -1, -1));
        expect(-1, (ErrorCode::None, -1, -1));
        let answer = epoch_end(&mut client, version, "nobody", -1, 0);
        assert_eq!(code(answer.error_code), ErrorCode::UnknownTopicOrPartition);
        assert_eq!((answer.leader_epoch, answer.end_offset), (-1, -1));
    }
}
