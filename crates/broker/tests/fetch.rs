//! Fetch as clients rely on it: lines 41 to 52 of the client behaviours.
//!
//! Not here: line 51 (answers of nothing but control batches), because nobody writes any yet.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use bytes::Bytes;
use common::{
    Client, TestBroker, batch_at, code, fetch_partition, fetch_request, fetched_batches, fetched_bytes,
    fetched_records, only_fetched,
};
use ottla_protocol::{
    ErrorCode,
    messages::{
        DeleteRecordsRequest, DeleteTopicsRequest, FetchRequest, FetchResponse,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
    },
};
use ottla_records::Compression;
use ottla_types::TopicId;

const LONG: i32 = 30_000;

/// Topic, partition and code of every row of an answer, in its order.
fn rows(response: &FetchResponse) -> Vec<(String, i32, ErrorCode)> {
    let rows = response.responses.iter().flat_map(|topic| {
        let row = move |partition: &ottla_protocol::messages::fetch_response::PartitionData| {
            (topic.topic.to_string(), partition.partition_index, code(partition.error_code))
        };
        topic.partitions.iter().map(row)
    });
    rows.collect()
}

/// A fetch of these partitions of one topic within a session.
fn in_session(id: i32, epoch: i32, topic: &str, partitions: Vec<FetchPartition>) -> FetchRequest {
    let topics = vec![FetchTopic { topic: topic.into(), partitions, ..Default::default() }];
    let topics = if topics[0].partitions.is_empty() { Vec::new() } else { topics };
    FetchRequest { session_id: id, session_epoch: epoch, topics, ..fetch_request(topic, 0, 0) }
}

/// A fetch that waits until there is something to tell.
fn patient(request: FetchRequest) -> FetchRequest {
    FetchRequest { max_wait_ms: LONG, min_bytes: 1, ..request }
}

fn delete_records(client: &mut Client, topic: &str, offset: i64) {
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset }];
    let topics = vec![DeleteRecordsTopic { name: topic.into(), partitions }];
    let response = client.call(2, &DeleteRecordsRequest { topics, timeout_ms: 1000 });
    assert_eq!(code(response.topics[0].partitions[0].error_code), ErrorCode::None);
}

#[test]
fn every_version_gives_the_same_records() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let id = client.create_topic("all", 1, &[]).topic_id;
    client.write("all", 0, &["a", "b"]);
    client.write("all", 0, &["c"]);
    for version in 4..=18 {
        let mut request = fetch_request("all", 0, 0);
        request.topics[0].topic_id = id;
        let response = client.call(version, &request);
        assert_eq!(response.session_id, 0);
        let answer = only_fetched(response);
        assert_eq!(fetched_records(&answer).len(), 3, "version {version}");
        assert_eq!((answer.high_watermark, answer.last_stable_offset), (3, 3));
    }
}

#[test]
fn client_rule_41_a_fetch_inside_a_batch_returns_the_whole_batch() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    for codec in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let topic = format!("inside-{codec:?}");
        client.create_topic(&topic, 1, &[]);
        for _ in 0..3 {
            client.produce(&topic, 0, batch_at(codec, &[(1, "a"), (2, "b"), (3, "c"), (4, "d")]));
        }
        for offset in 0..12 {
            let answer = only_fetched(client.call(12, &fetch_request(&topic, 0, offset)));
            let batches = fetched_batches(&answer);
            assert_eq!(batches[0].0.base_offset.0, offset / 4 * 4, "{codec:?} from {offset}");
            assert_eq!(batches.last().unwrap().0.last_offset().0, 11);
        }
    }
}

#[test]
fn client_rule_42_the_first_batch_comes_whole_whatever_the_limits() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("tight", 2, &[]);
    let text = "x".repeat(10_000);
    for partition in 0..2 {
        client.write("tight", partition, &[&text]);
        client.write("tight", partition, &[&text]);
    }
    for (max_bytes, partition_max_bytes) in [(1, 1 << 20), (1 << 20, 1), (1, 1), (0, 0), (-1, -1)] {
        let mut request = fetch_request("tight", 0, 0);
        request.max_bytes = max_bytes;
        let partition = |index| FetchPartition { partition_max_bytes, ..fetch_partition(index, 0) };
        request.topics[0].partitions = vec![partition(0), partition(1)];
        let response = client.call(12, &request);
        let answers = &response.responses[0].partitions;
        assert_eq!(fetched_records(&answers[0]).len(), 1, "{max_bytes} {partition_max_bytes}");
        assert!(fetched_batches(&answers[1]).is_empty(), "only the first may pass the limits");
    }
    // An empty partition in front does not use the exception up.
    client.create_topic("empty", 1, &[]);
    let mut request = fetch_request("empty", 0, 0);
    request.max_bytes = 1;
    request.topics.push(fetch_request("tight", 0, 0).topics.remove(0));
    let response = client.call(12, &request);
    assert_eq!(fetched_records(&response.responses[1].partitions[0]).len(), 1);
}

#[test]
fn ranges_that_are_copied_and_ranges_that_are_sent_from_their_files_arrive_in_their_places() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    // Small ones and large ones, and more of either than are copied for one answer.
    let text = |partition: i32| {
        let bytes = [100, 7_000, 40_000, 60_000][partition as usize % 4];
        format!("{partition}").repeat(bytes)
    };
    client.create_topic("mixed", 32, &[]);
    for partition in 0..32 {
        client.write("mixed", partition, &[&text(partition)]);
    }
    let mut request = fetch_request("mixed", 0, 0);
    request.topics[0].partitions = (0..32).map(|partition| fetch_partition(partition, 0)).collect();
    // Twice at once: the second answer begins behind the last range of the first.
    let asked = [client.send(12, &request), client.send(12, &request)];
    for correlation in asked {
        let response: FetchResponse = client.receive::<FetchRequest>(12, correlation);
        for answer in &response.responses[0].partitions {
            let records = fetched_records(answer);
            let values: Vec<_> = records.iter().map(|record| record.value.clone()).collect();
            assert_eq!(values, [Some(Bytes::from(text(answer.partition_index)))], "{}", answer.partition_index);
        }
        assert_eq!(response.responses[0].partitions.len(), 32);
    }
}

#[test]
fn client_rule_43_partitions_are_served_in_the_order_asked_for() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("order", 3, &[]);
    for partition in 0..3 {
        client.write("order", partition, &["a"]);
    }
    let mut request = fetch_request("order", 0, 0);
    request.max_bytes = 1;
    request.topics[0].partitions = [2, 0, 1].map(|index| fetch_partition(index, 0)).to_vec();
    let response = client.call(12, &request);
    let full: Vec<_> = response.responses[0]
        .partitions
        .iter()
        .map(|answer| (answer.partition_index, !fetched_bytes(answer).is_empty()))
        .collect();
    assert_eq!(full, [(2, true), (0, false), (1, false)]);
}

#[test]
fn client_rule_43_a_session_serves_everybody_in_turn() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("turns", 4, &[]);
    for partition in 0..4 {
        for _ in 0..3 {
            client.write("turns", partition, &["a"]);
        }
    }
    let tight = |request: FetchRequest| FetchRequest { max_bytes: 1, ..request };
    let all = (0..4).map(|index| fetch_partition(index, 0)).collect();
    let mut response = client.call(12, &tight(in_session(0, 0, "turns", all)));
    let session = response.session_id;
    assert_ne!(session, 0);
    let mut served = Vec::new();
    for epoch in 1.. {
        let answers: Vec<_> = response.responses.iter().flat_map(|topic| &topic.partitions).collect();
        let full: Vec<_> = answers.iter().filter(|answer| !fetched_bytes(answer).is_empty()).collect();
        assert_eq!(full.len(), 1, "one batch fits");
        let next = fetched_batches(full[0])[0].0.next_offset().0;
        served.push(full[0].partition_index);
        if served.len() == 8 {
            break;
        }
        let moved = vec![fetch_partition(full[0].partition_index, next)];
        response = client.call(12, &tight(in_session(session, epoch, "turns", moved)));
    }
    assert_eq!(served, [0, 1, 2, 3, 0, 1, 2, 3]);
}

#[test]
fn client_rule_44_a_fetch_waits_for_data_and_wakes_when_there_is_some() {
    let broker = TestBroker::start();
    let mut waiting = broker.connect();
    let mut writer = broker.connect();
    writer.create_topic("wait", 2, &[]);
    let mut request = patient(fetch_request("wait", 0, 0));
    request.topics[0].partitions.push(fetch_partition(1, 0));
    let correlation = waiting.send(12, &request);
    writer.write("wait", 1, &["here"]);
    let response = waiting.receive::<FetchRequest>(12, correlation);
    assert_eq!(fetched_records(&response.responses[0].partitions[1]).len(), 1);
}

#[test]
fn client_rule_44_min_bytes_are_waited_for() {
    let broker = TestBroker::start();
    let mut waiting = broker.connect();
    let mut writer = broker.connect();
    writer.create_topic("bytes", 1, &[]);
    let mut request = patient(fetch_request("bytes", 0, 0));
    request.min_bytes = 150;
    let correlation = waiting.send(12, &request);
    writer.write("bytes", 0, &["a"]);
    writer.write("bytes", 0, &["b"]);
    writer.write("bytes", 0, &["c"]);
    let answer = only_fetched(waiting.receive::<FetchRequest>(12, correlation));
    assert!(fetched_bytes(&answer).len() >= 150);
}

#[test]
fn client_rule_44_max_wait_ends_the_waiting() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("nothing", 1, &[]);
    let mut request = patient(fetch_request("nothing", 0, 0));
    request.max_wait_ms = 50;
    let before = std::time::Instant::now();
    let answer = only_fetched(client.call(12, &request));
    assert!(before.elapsed().as_millis() >= 50);
    assert!(fetched_bytes(&answer).is_empty());
}

#[test]
fn client_rule_44_errors_are_answered_at_once() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("fine", 1, &[]);
    let mut request = patient(fetch_request("fine", 0, 0));
    request.topics.push(fetch_request("nobody", 0, 0).topics.remove(0));
    let response = client.call(12, &request);
    let expected =
        [("fine".to_owned(), 0, ErrorCode::None), ("nobody".to_owned(), 0, ErrorCode::UnknownTopicOrPartition)];
    assert_eq!(rows(&response), expected);
    // Nothing asked for is nothing to wait for.
    let nothing = patient(FetchRequest { topics: Vec::new(), ..fetch_request("fine", 0, 0) });
    assert!(client.call(12, &nothing).responses.is_empty());
}

#[test]
fn client_rule_44_a_deleted_topic_wakes_who_waits_for_it() {
    let broker = TestBroker::start();
    let mut waiting = broker.connect();
    let mut admin = broker.connect();
    let id = admin.create_topic("doomed", 1, &[]).topic_id;
    let mut by_id = patient(fetch_request("", 0, 0));
    by_id.topics[0].topic_id = id;
    let mut also = broker.connect();
    let (first, second) = (waiting.send(12, &patient(fetch_request("doomed", 0, 0))), also.send(13, &by_id));
    admin.call(5, &DeleteTopicsRequest { topic_names: vec!["doomed".into()], ..Default::default() });
    let answer = only_fetched(waiting.receive::<FetchRequest>(12, first));
    assert_eq!(code(answer.error_code), ErrorCode::UnknownTopicOrPartition);
    let answer = only_fetched(also.receive::<FetchRequest>(13, second));
    let gone = [ErrorCode::UnknownTopicId, ErrorCode::UnknownTopicOrPartition];
    assert!(gone.contains(&code(answer.error_code)));
}

#[test]
fn client_rule_45_sessions_open_continue_and_end() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("session", 1, &[]);
    let opened = client.call(12, &in_session(0, 0, "session", vec![fetch_partition(0, 0)]));
    let id = opened.session_id;
    assert_ne!(id, 0);
    let refused = |client: &mut Client, id, epoch| {
        let response = client.call(12, &in_session(id, epoch, "session", Vec::new()));
        assert!(response.responses.is_empty());
        code(response.error_code)
    };
    assert_eq!(refused(&mut client, id, 7), ErrorCode::InvalidFetchSessionEpoch);
    assert_eq!(refused(&mut client, id + 1000, 1), ErrorCode::FetchSessionIdNotFound);
    // The session is still at its first epoch.
    let next = client.call(12, &in_session(id, 1, "session", Vec::new()));
    assert_eq!((code(next.error_code), next.session_id), (ErrorCode::None, id));
    assert_eq!(refused(&mut client, id, 1), ErrorCode::InvalidFetchSessionEpoch, "a repeat");
    // Ending it: a full answer without a session.
    let last = client.call(12, &in_session(id, -1, "session", vec![fetch_partition(0, 0)]));
    assert_eq!((code(last.error_code), last.session_id), (ErrorCode::None, 0));
    assert_eq!(last.responses.len(), 1);
    assert_eq!(refused(&mut client, id, 2), ErrorCode::FetchSessionIdNotFound);
}

#[test]
fn client_rule_45_a_session_that_mixes_ids_and_names_is_106() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("mixed", 1, &[]);
    let session = client.call(12, &in_session(0, 0, "mixed", vec![fetch_partition(0, 0)])).session_id;
    let response = client.call(13, &in_session(session, 1, "mixed", Vec::new()));
    assert_eq!(code(response.error_code), ErrorCode::FetchSessionTopicIdError);
}

#[test]
fn client_rule_45_forgotten_partitions_are_not_answered_any_more() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("forget", 2, &[]);
    let both = vec![fetch_partition(0, 0), fetch_partition(1, 0)];
    let session = client.call(12, &in_session(0, 0, "forget", both)).session_id;
    let mut request = in_session(session, 1, "forget", Vec::new());
    request.forgotten_topics_data =
        vec![ForgottenTopic { topic: "forget".into(), partitions: vec![0], ..Default::default() }];
    assert!(client.call(12, &request).responses.is_empty());
    for partition in 0..2 {
        client.write("forget", partition, &["a"]);
    }
    let response = client.call(12, &in_session(session, 2, "forget", Vec::new()));
    assert_eq!(rows(&response), [("forget".to_owned(), 1, ErrorCode::None)]);
}

#[test]
fn client_rule_46_without_room_for_a_session_the_answer_is_whole_and_has_none() {
    let broker = TestBroker::start_with(&[("max.incremental.fetch.session.cache.slots", "0")]);
    let mut client = broker.connect();
    client.create_topic("slots", 1, &[]);
    client.write("slots", 0, &["a"]);
    for _ in 0..2 {
        let response = client.call(12, &in_session(0, 0, "slots", vec![fetch_partition(0, 0)]));
        assert_eq!((code(response.error_code), response.session_id), (ErrorCode::None, 0));
        assert_eq!(fetched_records(&only_fetched(response)).len(), 1);
    }
}

#[test]
fn client_rule_47_incremental_answers_hold_what_changed_and_nothing_else() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("news", 2, &[]);
    client.write("news", 0, &["a", "b"]);
    let both = vec![fetch_partition(0, 2), fetch_partition(1, 0)];
    let opened = client.call(12, &in_session(0, 0, "news", both));
    assert_eq!(rows(&opened).len(), 2, "the first answer is full");
    let session = opened.session_id;
    let mut epoch = 0;
    let mut next = |client: &mut Client| {
        epoch += 1;
        client.call(12, &in_session(session, epoch, "news", Vec::new()))
    };
    assert!(rows(&next(&mut client)).is_empty(), "nothing changed");

    client.write("news", 1, &["x"]);
    let response = next(&mut client);
    assert_eq!(rows(&response), [("news".to_owned(), 1, ErrorCode::None)], "records, and a new high watermark");

    delete_records(&mut client, "news", 1);
    let response = next(&mut client);
    let start = response.responses.iter().flat_map(|topic| &topic.partitions).find(|row| row.partition_index == 0);
    assert_eq!(start.expect("the log start changed").log_start_offset, 1);
}

#[test]
fn client_rule_47_an_error_is_told_again_until_it_is_gone() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let session = client.call(12, &in_session(0, 0, "later", vec![fetch_partition(0, 0)])).session_id;
    assert_ne!(session, 0);
    let unknown = [("later".to_owned(), 0, ErrorCode::UnknownTopicOrPartition)];
    for epoch in 1..=3 {
        assert_eq!(rows(&client.call(12, &in_session(session, epoch, "later", Vec::new()))), unknown);
    }
    client.create_topic("later", 1, &[]);
    client.write("later", 0, &["a"]);
    let response = client.call(12, &in_session(session, 4, "later", Vec::new()));
    assert_eq!(fetched_records(&only_fetched(response)).len(), 1);
}

#[test]
fn client_rule_47_news_ends_the_waiting_of_an_incremental_fetch() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let mut writer = broker.connect();
    client.create_topic("wake", 1, &[]);
    let session = client.call(12, &in_session(0, 0, "wake", vec![fetch_partition(0, 0)])).session_id;
    let correlation = client.send(12, &patient(in_session(session, 1, "wake", Vec::new())));
    writer.write("wake", 0, &["a"]);
    let response = client.receive::<FetchRequest>(12, correlation);
    assert_eq!(fetched_records(&only_fetched(response)).len(), 1);
}

#[test]
fn f2_what_moves_between_two_requests_is_told_by_the_next_in_the_order_of_service() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let mut writer = broker.connect();
    client.create_topic("between", 6, &[]);
    let all = (0..6).map(|index| fetch_partition(index, 0)).collect();
    let session = client.call(12, &in_session(0, 0, "between", all)).session_id;
    let mut epoch = 0;
    // Waits for so many bytes: an answer that has some does not wait for more.
    let one = i32::try_from(batch_at(Compression::None, &[(0, "a")]).len()).unwrap();
    let mut next = |batches: i32, moved: Vec<FetchPartition>| {
        epoch += 1;
        let request = in_session(session, epoch, "between", moved);
        let max_wait_ms = if batches > 0 { LONG } else { 0 };
        let response = client.call(12, &FetchRequest { min_bytes: batches * one, max_wait_ms, ..request });
        rows(&response).into_iter().map(|(_, index, _)| index).collect::<Vec<_>>()
    };
    assert!(next(0, Vec::new()).is_empty());
    for partition in [4, 1, 4] {
        writer.write("between", partition, &["a"]);
    }
    assert_eq!(next(3, Vec::new()), [1, 4]);
    writer.write("between", 2, &["a"]);
    assert_eq!(next(1, vec![fetch_partition(1, 1), fetch_partition(4, 2)]), [2], "it has told of the others");
    writer.write("between", 1, &["b"]);
    writer.write("between", 5, &["a"]);
    assert_eq!(next(2, vec![fetch_partition(2, 1)]), [5, 1], "what was served lately comes behind");
    assert_eq!(next(2, Vec::new()), [5, 1], "a client that does not move on is served again");
    assert!(next(0, vec![fetch_partition(1, 2), fetch_partition(5, 1)]).is_empty());
}

#[test]
fn f2_what_is_acknowledged_is_told_by_a_request_that_does_not_wait() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("heard", 2, &[]);
    let all = (0..2).map(|index| fetch_partition(index, 0)).collect();
    let session = client.call(12, &in_session(0, 0, "heard", all)).session_id;
    assert!(rows(&client.call(12, &in_session(session, 1, "heard", Vec::new()))).is_empty());
    let mut moved = Vec::new();
    for round in 0..100 {
        let next = client.write("heard", 1, &["a"]) + 1;
        let response = client.call(12, &in_session(session, 2 + round, "heard", moved));
        assert_eq!(fetched_records(&only_fetched(response)).len(), 1, "in round {round}");
        moved = vec![fetch_partition(1, next)];
    }
}

#[test]
fn f2_a_full_answer_leaves_the_rest_for_the_next() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("room", 3, &[]);
    let all = (0..3).map(|index| fetch_partition(index, 0)).collect();
    let session = client.call(12, &in_session(0, 0, "room", all)).session_id;
    (0..3).for_each(|partition| assert_eq!(client.write("room", partition, &["a"]), 0));
    let mut served = Vec::new();
    let mut moved = Vec::new();
    for epoch in 1..=3 {
        let request = FetchRequest { max_bytes: 1, ..patient(in_session(session, epoch, "room", moved)) };
        let response = client.call(12, &request);
        let answers = response.responses.iter().flat_map(|topic| &topic.partitions);
        let full: Vec<i32> =
            answers.filter(|answer| !fetched_bytes(answer).is_empty()).map(|answer| answer.partition_index).collect();
        moved = full.iter().map(|&index| fetch_partition(index, 1)).collect();
        served.extend(full);
    }
    assert_eq!(served, [0, 1, 2], "those of which there was only a high watermark to tell still have records");
}

#[test]
fn client_rule_44_a_session_waits_for_min_bytes_over_all_its_partitions() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let mut writer = broker.connect();
    client.create_topic("sum", 3, &[]);
    let all = (0..3).map(|index| fetch_partition(index, 0)).collect();
    let session = client.call(12, &in_session(0, 0, "sum", all)).session_id;
    let one = batch_at(Compression::None, &[(0, "a")]).len();
    let min_bytes = i32::try_from(3 * one).unwrap();
    let request = FetchRequest { min_bytes, ..patient(in_session(session, 1, "sum", Vec::new())) };
    let correlation = client.send(12, &request);
    for partition in [2, 0, 2] {
        writer.write("sum", partition, &["a"]);
    }
    let response = client.receive::<FetchRequest>(12, correlation);
    let found: Vec<_> = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|answer| (answer.partition_index, fetched_records(answer).len()))
        .collect();
    assert_eq!(found, [(0, 1), (2, 2)]);
}

#[test]
fn f2_partitions_that_stay_after_others_are_forgotten_still_wake_the_session() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let mut writer = broker.connect();
    client.create_topic("stay", 3, &[]);
    let all = (0..3).map(|index| fetch_partition(index, 0)).collect();
    let session = client.call(12, &in_session(0, 0, "stay", all)).session_id;
    assert!(rows(&client.call(12, &in_session(session, 1, "stay", Vec::new()))).is_empty());
    let forgotten = vec![ForgottenTopic { topic: "stay".into(), partitions: vec![0], ..Default::default() }];
    let request =
        FetchRequest { forgotten_topics_data: forgotten, ..patient(in_session(session, 2, "stay", Vec::new())) };
    let correlation = client.send(12, &request);
    writer.write("stay", 0, &["a"]);
    writer.write("stay", 2, &["a"]);
    let response = client.receive::<FetchRequest>(12, correlation);
    assert_eq!(rows(&response), [("stay".to_owned(), 2, ErrorCode::None)]);
}

#[test]
fn f2_a_topic_made_again_under_its_name_wakes_the_session() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let mut writer = broker.connect();
    client.create_topic("again", 1, &[]);
    let session = client.call(12, &in_session(0, 0, "again", vec![fetch_partition(0, 0)])).session_id;
    assert!(rows(&client.call(12, &in_session(session, 1, "again", Vec::new()))).is_empty());
    writer.call(5, &DeleteTopicsRequest { topic_names: vec!["again".into()], timeout_ms: LONG, ..Default::default() });
    let response = client.call(12, &patient(in_session(session, 2, "again", Vec::new())));
    assert_eq!(rows(&response), [("again".to_owned(), 0, ErrorCode::UnknownTopicOrPartition)]);
    writer.create_topic("again", 1, &[]);
    let response = client.call(12, &in_session(session, 3, "again", Vec::new()));
    assert_eq!(rows(&response), [("again".to_owned(), 0, ErrorCode::None)]);
    let correlation = client.send(12, &patient(in_session(session, 4, "again", Vec::new())));
    writer.write("again", 0, &["a"]);
    let response = client.receive::<FetchRequest>(12, correlation);
    assert_eq!(fetched_records(&only_fetched(response)).len(), 1);
}

#[test]
fn client_rule_49_the_end_waits_and_beyond_it_is_out_of_range() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("range", 1, &[]);
    client.write("range", 0, &["a", "b", "c"]);
    delete_records(&mut client, "range", 1);
    for (offset, expected) in [
        (0, ErrorCode::OffsetOutOfRange),
        (1, ErrorCode::None),
        (3, ErrorCode::None),
        (4, ErrorCode::OffsetOutOfRange),
        (i64::MAX, ErrorCode::OffsetOutOfRange),
        (-1, ErrorCode::OffsetOutOfRange),
        (i64::MIN, ErrorCode::OffsetOutOfRange),
    ] {
        let answer = only_fetched(client.call(12, &fetch_request("range", 0, offset)));
        assert_eq!(code(answer.error_code), expected, "offset {offset}");
    }
    let correlation = client.send(12, &patient(fetch_request("range", 0, 3)));
    broker.connect().write("range", 0, &["d"]);
    let answer = only_fetched(client.receive::<FetchRequest>(12, correlation));
    assert_eq!(fetched_records(&answer)[0].offset.0, 3);
}

#[test]
fn client_rule_50_without_transactions_both_isolation_levels_read_the_same() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("iso", 1, &[]);
    client.write("iso", 0, &["a", "b"]);
    for (isolation_level, aborted) in [(0, None), (1, Some(Vec::new()))] {
        let request = FetchRequest { isolation_level, ..fetch_request("iso", 0, 0) };
        let answer = only_fetched(client.call(12, &request));
        assert_eq!(answer.aborted_transactions, aborted, "isolation {isolation_level}");
        assert_eq!(answer.last_stable_offset, 2);
        assert_eq!(fetched_records(&answer).len(), 2);
    }
}

#[test]
fn client_rule_52_records_that_are_not_there_have_zero_length() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("empty", 1, &[]);
    for version in 4..=12 {
        for (topic, offset) in [("empty", 0), ("empty", 5), ("nobody", 0)] {
            let answer = only_fetched(client.call(version, &fetch_request(topic, 0, offset)));
            // Panics on null.
            assert_eq!(fetched_bytes(&answer), Bytes::new(), "{topic} {offset} in version {version}");
        }
    }
}

#[test]
fn unknown_topics_partitions_and_ids_have_their_codes() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let id = client.create_topic("known", 1, &[]).topic_id;
    let mut by_id = |id, partition| {
        let mut request = fetch_request("", partition, 0);
        request.topics[0].topic_id = id;
        code(only_fetched(client.call(13, &request)).error_code)
    };
    assert_eq!(by_id(TopicId::from_bytes([9; 16]), 0), ErrorCode::UnknownTopicId);
    assert_eq!(by_id(id, 1), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(by_id(id, -1), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(by_id(id, 0), ErrorCode::None);
}

#[test]
fn a_reader_whose_epoch_ended_earlier_hears_where_it_diverged() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("diverge", 1, &[]);
    client.write("diverge", 0, &["a", "b"]);
    let epoch = |broker: &TestBroker| broker.node.image().topic_named("diverge").unwrap().partitions[0].leader_epoch.0;
    let first = epoch(&broker);
    let broker = broker.killed();
    let mut client = broker.connect();
    client.write("diverge", 0, &["c", "d"]);
    let mut request = fetch_request("diverge", 0, 4);
    request.topics[0].partitions[0].last_fetched_epoch = first;
    let answer = only_fetched(client.call(12, &request));
    assert_eq!(code(answer.error_code), ErrorCode::None);
    assert_eq!((answer.diverging_epoch.epoch, answer.diverging_epoch.end_offset), (first, 2));
    request.topics[0].partitions[0].last_fetched_epoch = epoch(&broker);
    let answer = only_fetched(client.call(12, &request));
    assert_eq!(answer.diverging_epoch.end_offset, -1);
}
