//! Produce as clients rely on it: lines 29 to 40 of the client behaviours.
//!
//! Not here: line 36 (hints to another leader), because there is none.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use bytes::{Bytes, BytesMut};
use common::{Client, TestBroker, batch, batch_at, code, only_partition, produce_request};
use ottla_protocol::{
    ErrorCode,
    messages::{
        DeleteTopicsRequest, InitProducerIdRequest, ProduceRequest,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::PartitionProduceResponse,
    },
};
use ottla_records::{BatchBuilder, Compression, TimestampType};
use ottla_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp, TopicId};

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// A batch of an idempotent producer: `count` records from `sequence` on.
fn sequenced(id: i64, epoch: i16, sequence: i32, count: usize) -> Bytes {
    let mut builder =
        BatchBuilder::new(Compression::None, None).producer(ProducerId(id), ProducerEpoch(epoch), sequence);
    for _ in 0..count {
        builder.push(Timestamp(1000), None, Some(b"x"), &[]).unwrap();
    }
    builder.build().unwrap()
}

fn producer_id(client: &mut Client) -> i64 {
    let request = InitProducerIdRequest { transactional_id: None, ..Default::default() };
    let response = client.call(5, &request);
    assert_eq!(code(response.error_code), ErrorCode::None);
    response.producer_id
}

fn outcome(answer: &PartitionProduceResponse) -> (ErrorCode, i64) {
    (code(answer.error_code), answer.base_offset)
}

#[test]
fn every_version_codec_and_acks_stores_what_was_sent() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let id = client.create_topic("all", 1, &[]).topic_id;
    let mut expected = Vec::new();
    for version in 3..=13 {
        for codec in CODECS {
            if codec == Compression::Zstd && version < 7 {
                continue;
            }
            for acks in [-1, 0, 1] {
                let value = format!("{version} {codec:?} {acks}");
                let records = batch_at(codec, &[(1000, &value), (1001, &value)]);
                let mut request = produce_request(acks, "all", 0, records);
                if version >= 13 {
                    request.topic_data[0].name = Default::default();
                    request.topic_data[0].topic_id = id;
                }
                let correlation = client.send(version, &request);
                if acks != 0 {
                    let answer = only_partition(client.receive::<ProduceRequest>(version, correlation));
                    let offset = i64::try_from(expected.len()).unwrap();
                    assert_eq!(outcome(&answer), (ErrorCode::None, offset), "{value}");
                }
                expected.extend([value.clone(), value]);
            }
        }
    }
    let stored = client.await_values("all", 0, expected.len());
    assert!(stored == expected, "{stored:?}");
}

#[test]
fn keys_values_and_headers_may_be_null_or_empty() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("nulls", 1, &[]);
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(Timestamp(1), None, None, &[]).unwrap();
    builder.push(Timestamp(2), Some(b""), Some(b""), &[(b"", None), (b"h", Some(b""))]).unwrap();
    builder.push(Timestamp(3), Some(b"k"), Some(b"v"), &[(b"h", Some(b"1")), (b"h", Some(b"2"))]).unwrap();
    assert_eq!(outcome(&client.produce("nulls", 0, builder.build().unwrap())), (ErrorCode::None, 0));
    let records = client.read_records("nulls", 0, 0);
    assert_eq!((records[0].key.clone(), records[0].value.clone()), (None, None));
    assert_eq!((records[1].key.clone(), records[1].value.clone()), (Some(Bytes::new()), Some(Bytes::new())));
    assert_eq!((records[1].headers[0].value.clone(), records[1].headers[1].value.clone()), (None, Some(Bytes::new())));
    assert_eq!(records[2].headers.len(), 2);
}

#[test]
fn client_rule_29_acks_0_is_never_answered_and_a_failure_closes_the_connection() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("quiet", 1, &[]);
    client.send(9, &produce_request(0, "quiet", 0, batch(&["a"])));
    // The next answer is that of the next request.
    assert_eq!(client.await_values("quiet", 0, 1), ["a"]);
    client.send(9, &produce_request(0, "nobody", 0, batch(&["b"])));
    assert_eq!(client.receive_frame(), None);
    assert_eq!(broker.connect().read("quiet", 0, 0), ["a"]);
}

#[test]
fn client_rule_30_other_acks_are_21_and_append_nothing() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("acks", 1, &[]);
    for acks in [2, -2, i16::MAX, i16::MIN] {
        let answer = only_partition(client.call(9, &produce_request(acks, "acks", 0, batch(&["a"]))));
        assert_eq!(outcome(&answer), (ErrorCode::InvalidRequiredAcks, -1), "acks {acks}");
    }
    assert!(client.read("acks", 0, 0).is_empty());
}

#[test]
fn client_rule_31_anything_but_one_batch_of_magic_2_is_87() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("one", 1, &[]);
    let mut two = BytesMut::from(&batch(&["a"])[..]);
    two.extend_from_slice(&batch(&["b"]));
    let mut old = BytesMut::from(&batch(&["a"])[..]);
    old[16] = 1;
    let whole = batch(&["a"]);
    for (what, records) in [
        ("two batches", two.freeze()),
        ("magic 1", old.freeze()),
        ("nothing", Bytes::new()),
        ("half a batch", whole.slice(..whole.len() - 1)),
        ("half a header", whole.slice(..30)),
    ] {
        for version in [3, 9, 12] {
            let answer = client.produce_in(version, "one", 0, records.clone());
            let refused = matches!(code(answer.error_code), ErrorCode::InvalidRecord | ErrorCode::CorruptMessage);
            assert!(refused, "{what} in version {version}: {:?}", code(answer.error_code));
            assert_eq!(answer.base_offset, -1);
            if matches!(what, "two batches" | "magic 1" | "nothing") {
                assert_eq!(code(answer.error_code), ErrorCode::InvalidRecord, "{what}");
            }
        }
    }
    let mut request = produce_request(-1, "one", 0, Bytes::new());
    request.topic_data[0].partition_data[0].records = None;
    assert_eq!(outcome(&only_partition(client.call(9, &request))), (ErrorCode::InvalidRecord, -1), "null records");
    assert!(client.read("one", 0, 0).is_empty());
}

#[test]
fn client_rule_31_zstd_below_version_7_is_76() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("zstd", 1, &[]);
    let records = batch_at(Compression::Zstd, &[(1000, "a")]);
    for version in 3..=6 {
        let answer = client.produce_in(version, "zstd", 0, records.clone());
        assert_eq!(outcome(&answer), (ErrorCode::UnsupportedCompressionType, -1), "version {version}");
    }
    assert_eq!(outcome(&client.produce_in(7, "zstd", 0, records)), (ErrorCode::None, 0));
}

#[test]
fn client_rule_32_base_offset_and_leader_epoch_are_the_brokers_and_outside_the_crc() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("head", 1, &[]);
    client.write("head", 0, &["first", "second"]);
    let mut claims = BytesMut::from(&batch(&["third"])[..]);
    claims[12..16].copy_from_slice(&77i32.to_be_bytes());
    assert_eq!(outcome(&client.produce("head", 0, claims.freeze())), (ErrorCode::None, 2));
    let answer = common::only_fetched(client.call(12, &common::fetch_request("head", 0, 2)));
    let (header, _) = common::fetched_batches(&answer)[0].clone();
    assert_eq!(header.base_offset, Offset(2));
    let led = broker.node.image().topic_named("head").unwrap().partitions[0].leader_epoch;
    assert_eq!(header.leader_epoch, led);
    assert_ne!(header.leader_epoch, LeaderEpoch(77));
}

#[test]
fn client_rule_32_a_batch_whose_crc_is_wrong_is_corrupt_and_retriable() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("crc", 1, &[]);
    for codec in CODECS {
        let mut damaged = BytesMut::from(&batch_at(codec, &[(1000, "value value value")])[..]);
        *damaged.last_mut().unwrap() ^= 1;
        let answer = client.produce("crc", 0, damaged.freeze());
        assert_eq!(outcome(&answer), (ErrorCode::CorruptMessage, -1), "{codec:?}");
        assert!(code(answer.error_code).is_retriable());
    }
    assert!(client.read("crc", 0, 0).is_empty());
}

#[test]
fn client_rule_33_the_append_time_told_is_the_one_stored() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let mut told = Vec::new();
    broker.with_running_clock(|| {
        for _ in 0..20 {
            told.push(client.produce("stamped", 0, batch(&["a"])).log_append_time_ms);
        }
    });
    let fetched = common::only_fetched(client.call(12, &common::fetch_request("stamped", 0, 0)));
    let stored = common::fetched_batches(&fetched);
    assert_eq!(told, stored.iter().map(|(header, _)| header.max_timestamp.0).collect::<Vec<_>>());
}

#[test]
fn client_rule_33_log_append_time_is_stamped_and_told() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]);
    client.create_topic("own", 1, &[]);
    for codec in CODECS {
        let answer = client.produce("stamped", 0, batch_at(codec, &[(5, "a"), (6, "b")]));
        assert_eq!(code(answer.error_code), ErrorCode::None, "{codec:?}: {:?}", answer.error_message);
        assert_eq!(answer.log_append_time_ms, broker.now().0);
        let fetched = common::only_fetched(client.call(12, &common::fetch_request("stamped", 0, answer.base_offset)));
        let (header, _) = common::fetched_batches(&fetched)[0].clone();
        assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(header.max_timestamp, broker.now());
        assert!(common::fetched_records(&fetched).iter().all(|record| record.timestamp == broker.now()));
    }
    assert_eq!(client.produce("own", 0, batch(&["a"])).log_append_time_ms, -1);
    assert_eq!(client.read_records("own", 0, 0)[0].timestamp, Timestamp(1000));
}

#[test]
fn client_rule_33_a_timestamp_far_ahead_of_the_clock_is_32() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("clock", 1, &[]);
    let hour = 3_600_000;
    let at = |timestamp| batch_at(Compression::None, &[(timestamp, "a")]);
    let ahead = client.produce("clock", 0, at(broker.now().0 + hour + 1));
    assert_eq!(outcome(&ahead), (ErrorCode::InvalidTimestamp, -1));
    assert_eq!(ahead.record_errors[0].batch_index, 0);
    assert_eq!(outcome(&client.produce("clock", 0, at(broker.now().0 + hour))), (ErrorCode::None, 0));
    assert_eq!(outcome(&client.produce("clock", 0, at(0))), (ErrorCode::None, 1));
}

#[test]
fn client_rule_34_keyless_records_of_a_compacted_topic_are_87_and_told_one_by_one() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("compacted", 1, &[("cleanup.policy", "compact")]);
    for codec in CODECS {
        let mut builder = BatchBuilder::new(codec, None);
        for key in [Some(&b"k"[..]), None, Some(b""), None] {
            builder.push(Timestamp(1000), key, Some(b"v"), &[]).unwrap();
        }
        let request = produce_request(-1, "compacted", 0, builder.build().unwrap());
        for version in [if codec == Compression::Zstd { 7 } else { 3 }, 7, 8, 9, 12] {
            let answer = only_partition(client.call(version, &request));
            assert_eq!(outcome(&answer), (ErrorCode::InvalidRecord, -1), "{codec}, v{version}");
            let told: Vec<i32> = answer.record_errors.iter().map(|error| error.batch_index).collect();
            assert_eq!(told, if version < 8 { vec![] } else { vec![1, 3] }, "{codec}, v{version}");
        }
    }
    let mut builder = BatchBuilder::new(Compression::Zstd, None);
    builder.push(Timestamp(1000), Some(b"k"), None, &[]).unwrap();
    let request = produce_request(-1, "compacted", 0, builder.build().unwrap());
    assert_eq!(outcome(&only_partition(client.call(9, &request))), (ErrorCode::None, 0));
}

#[test]
fn client_rule_35_max_message_bytes_is_about_the_batch_as_compressed() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("limit", 1, &[("max.message.bytes", "1000")]);
    let text = "x".repeat(5000);
    let plain = client.produce("limit", 0, batch(&[&text]));
    assert_eq!(outcome(&plain), (ErrorCode::MessageTooLarge, -1));
    let compressed = batch_at(Compression::Gzip, &[(1000, &text)]);
    assert!(compressed.len() < 1000);
    assert_eq!(outcome(&client.produce("limit", 0, compressed)), (ErrorCode::None, 0));
}

#[test]
fn a_record_of_a_megabyte_passes_whole() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("big", 1, &[]);
    let text = "m".repeat((1 << 20) - 100);
    assert_eq!(client.write("big", 0, &[&text]), 0);
    assert_eq!(client.read("big", 0, 0), [text]);
}

#[test]
fn client_rule_37_an_exact_repeat_of_the_last_five_batches_is_answered_with_the_first_offset() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("dup", 1, &[]);
    let id = producer_id(&mut client);
    for i in 0..6 {
        let answer = client.produce("dup", 0, sequenced(id, 0, 2 * i, 2));
        assert_eq!(outcome(&answer), (ErrorCode::None, i64::from(2 * i)));
    }
    for i in (1..6).rev() {
        let answer = client.produce("dup", 0, sequenced(id, 0, 2 * i, 2));
        assert_eq!(outcome(&answer), (ErrorCode::None, i64::from(2 * i)), "batch {i} again");
    }
    let forgotten = client.produce("dup", 0, sequenced(id, 0, 0, 2));
    assert_eq!(outcome(&forgotten), (ErrorCode::OutOfOrderSequenceNumber, -1));
    assert_eq!(client.read("dup", 0, 0).len(), 12, "nothing was appended twice");
}

#[test]
fn client_rule_37_a_gap_is_45_and_never_46() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("gap", 1, &[]);
    let id = producer_id(&mut client);
    assert_eq!(outcome(&client.produce("gap", 0, sequenced(id, 0, 0, 3))), (ErrorCode::None, 0));
    for sequence in [4, 1, 2, 100, i32::MAX] {
        let answer = client.produce("gap", 0, sequenced(id, 0, sequence, 1));
        assert_eq!(outcome(&answer), (ErrorCode::OutOfOrderSequenceNumber, -1), "sequence {sequence}");
    }
    assert_eq!(outcome(&client.produce("gap", 0, sequenced(id, 0, 3, 1))), (ErrorCode::None, 3));
}

#[test]
fn client_rule_37_a_pipeline_of_one_producer_and_its_repeats_takes_each_batch_once() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("pipe", 1, &[]);
    let id = producer_id(&mut client);
    // All in one turn of the connection: the last two repeat what is only being appended.
    let sequences = [0, 1, 2, 1, 2];
    let requests: Vec<i32> = sequences
        .iter()
        .map(|&sequence| client.send(9, &produce_request(-1, "pipe", 0, sequenced(id, 0, sequence, 1))))
        .collect();
    for (correlation, sequence) in requests.into_iter().zip(sequences) {
        let answer = only_partition(client.receive::<ProduceRequest>(9, correlation));
        assert_eq!(outcome(&answer), (ErrorCode::None, i64::from(sequence)));
    }
    assert_eq!(client.read("pipe", 0, 0).len(), 3);
}

#[test]
fn client_rule_38_sequences_wrap_from_the_largest_to_0() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("wrap", 1, &[]);
    let id = producer_id(&mut client);
    assert_eq!(outcome(&client.produce("wrap", 0, sequenced(id, 0, i32::MAX - 1, 2))), (ErrorCode::None, 0));
    assert_eq!(outcome(&client.produce("wrap", 0, sequenced(id, 0, 0, 2))), (ErrorCode::None, 2));
    assert_eq!(outcome(&client.produce("wrap", 0, sequenced(id, 0, i32::MAX - 1, 2))), (ErrorCode::None, 0));

    client.create_topic("across", 1, &[]);
    assert_eq!(outcome(&client.produce("across", 0, sequenced(id, 0, i32::MAX, 3))), (ErrorCode::None, 0));
    assert_eq!(outcome(&client.produce("across", 0, sequenced(id, 0, 2, 1))), (ErrorCode::None, 3));
}

#[test]
fn client_rule_39_a_new_epoch_begins_at_0_and_fences_the_old() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("fence", 1, &[]);
    let id = producer_id(&mut client);
    // With no state of the producer any sequence is taken.
    assert_eq!(outcome(&client.produce("fence", 0, sequenced(id, 0, 500, 1))), (ErrorCode::None, 0));
    let late = client.produce("fence", 0, sequenced(id, 1, 501, 1));
    assert_eq!(outcome(&late), (ErrorCode::OutOfOrderSequenceNumber, -1));
    assert_eq!(outcome(&client.produce("fence", 0, sequenced(id, 1, 0, 1))), (ErrorCode::None, 1));
    let old = client.produce("fence", 0, sequenced(id, 0, 501, 1));
    assert_eq!(outcome(&old), (ErrorCode::InvalidProducerEpoch, -1));
}

#[test]
fn client_rule_40_producer_state_survives_a_restart_and_a_kill() {
    let mut broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("kept", 1, &[]);
    let id = producer_id(&mut client);
    for sequence in 0..3 {
        client.produce("kept", 0, sequenced(id, 0, sequence, 1));
    }
    for round in 0..2 {
        broker = if round == 0 { broker.restart() } else { broker.killed() };
        let mut client = broker.connect();
        for sequence in 0..3 {
            let answer = client.produce("kept", 0, sequenced(id, 0, sequence, 1));
            assert_eq!(outcome(&answer), (ErrorCode::None, i64::from(sequence)), "a repeat of {sequence}");
        }
        assert_eq!(client.read("kept", 0, 0).len(), 3);
        let gap = client.produce("kept", 0, sequenced(id, 0, 4, 1));
        assert_eq!(outcome(&gap), (ErrorCode::OutOfOrderSequenceNumber, -1));
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("safe", 3, &[]);
    for i in 0..30 {
        client.write("safe", i % 3, &[&i.to_string()]);
    }
    let killed = broker.killed();
    let mut client = killed.connect();
    for partition in 0..3 {
        let expected: Vec<String> = (0..10).map(|i| (3 * i + partition).to_string()).collect();
        assert_eq!(client.read("safe", partition, 0), expected);
        assert_eq!(client.write("safe", partition, &["next"]), 10);
    }
}

#[test]
fn unknown_topics_partitions_and_ids_have_their_codes() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("known", 1, &[]);
    let unknown = ErrorCode::UnknownTopicOrPartition;
    for (topic, partition) in [("nobody", 0), ("known", 1), ("known", -1), ("known", i32::MAX)] {
        let answer = client.produce(topic, partition, batch(&["a"]));
        assert_eq!(outcome(&answer), (unknown, -1), "{topic} {partition}");
    }
    let mut request = produce_request(-1, "", 0, batch(&["a"]));
    request.topic_data[0].topic_id = TopicId::from_bytes([9; 16]);
    let answer = only_partition(client.call(13, &request));
    assert_eq!(outcome(&answer), (ErrorCode::UnknownTopicId, -1));
}

#[test]
fn partitions_of_one_request_stand_or_fall_by_themselves() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("a", 2, &[]);
    client.create_topic("b", 1, &[]);
    let data = |index, records: &Bytes| PartitionProduceData { index, records: Some(records.clone()) };
    let good = batch(&["good"]);
    let bad = Bytes::from_static(b"nonsense");
    let topic =
        |name: &str, partition_data| TopicProduceData { name: name.into(), partition_data, ..Default::default() };
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![
            topic("a", vec![data(1, &good), data(0, &bad)]),
            topic("nobody", vec![data(0, &good)]),
            topic("b", vec![data(0, &good)]),
        ],
        ..Default::default()
    };
    let response = client.call(9, &request);
    let rows: Vec<_> = response
        .responses
        .iter()
        .flat_map(|topic| topic.partition_responses.iter().map(|row| (&*topic.name, row.index, row.base_offset)))
        .collect();
    assert_eq!(rows, [("a", 1, 0), ("a", 0, -1), ("nobody", 0, -1), ("b", 0, 0)]);
}

#[test]
fn the_same_partition_twice_in_one_request_is_appended_in_order() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("twice", 1, &[]);
    let mut request = produce_request(-1, "twice", 0, batch(&["first"]));
    request.topic_data[0].partition_data.push(PartitionProduceData { index: 0, records: Some(batch(&["second"])) });
    let response = client.call(9, &request);
    let offsets: Vec<i64> = response.responses[0].partition_responses.iter().map(|row| row.base_offset).collect();
    assert_eq!(offsets, [0, 1]);
    assert_eq!(client.read("twice", 0, 0), ["first", "second"]);
}

#[test]
fn a_transactional_producer_is_refused_for_good() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("tx", 1, &[]);
    let mut request = produce_request(-1, "tx", 0, batch(&["a"]));
    request.transactional_id = Some("tx".into());
    let answer = only_partition(client.call(9, &request));
    assert_eq!(outcome(&answer), (ErrorCode::TransactionalIdAuthorizationFailed, -1));
    assert!(client.read("tx", 0, 0).is_empty());
}

#[test]
fn a_deleted_topic_takes_nothing_more() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("gone", 1, &[]);
    client.write("gone", 0, &["a"]);
    let delete = DeleteTopicsRequest { topic_names: vec!["gone".into()], ..Default::default() };
    assert_eq!(code(client.call(5, &delete).responses[0].error_code), ErrorCode::None);
    let answer = client.produce("gone", 0, batch(&["b"]));
    assert_eq!(outcome(&answer), (ErrorCode::UnknownTopicOrPartition, -1));
}
