//! Leaders and coordinators that are elsewhere by now.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ottla_client::{
    Acks, Client, Consumer, ConsumerConfig, NewRecord, Position, Producer, ProducerConfig, Start, TopicPartition,
};
use ottla_protocol::{
    ApiKey, ErrorCode, Records,
    messages::{
        DescribeLogDirsResponse, FetchResponse, FindCoordinatorRequest, FindCoordinatorResponse,
        InitProducerIdResponse, ListOffsetsResponse, OffsetFetchRequest, OffsetFetchResponse, ProduceResponse,
        fetch_response,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        produce_response::{self, PartitionProduceResponse, TopicProduceResponse},
    },
};
use ottla_records::{BatchBuilder, Compression};
use ottla_types::{BrokerId, Offset, PartitionIndex, Timestamp};

use crate::scripted::{Answer, Asked, Broker, Place, Told, place, topic_id};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.unwrap() });
}

fn at() -> TopicPartition {
    TopicPartition::new("t", PartitionIndex(0))
}

fn record() -> NewRecord {
    NewRecord { value: Some("v".into()), ..NewRecord::default() }
}

/// Two places, and a cluster in which the first is leader and controller.
fn two() -> (Place, Place, Told) {
    let (first, second) = (place(), place());
    let brokers = vec![(1, first.address), (2, second.address)];
    (first, second, Told { brokers, controller: 1, leader: 1, leader_epoch: 5 })
}

/// A refusal that names the second broker as leader of a later epoch (KIP-951), or a success.
fn produced(hint: Option<&Told>) -> ProduceResponse {
    let mut row = PartitionProduceResponse { base_offset: 7, ..Default::default() };
    let mut answer = ProduceResponse::default();
    if let Some(told) = hint {
        (row.error_code, row.base_offset) = (ErrorCode::NotLeaderOrFollower.code(), -1);
        row.current_leader = produce_response::LeaderIdAndEpoch { leader_id: 2, leader_epoch: 6 };
        let (node_id, address) = told.brokers[1];
        let (host, port) = (address.ip().to_string().into(), i32::from(address.port()));
        answer.node_endpoints = vec![produce_response::NodeEndpoint { node_id, host, port, rack: None }];
    }
    let topic = TopicProduceResponse { topic_id: topic_id(), partition_responses: vec![row], ..Default::default() };
    answer.responses = vec![topic];
    answer
}

/// As [`produced`], with one record at offset 0.
fn fetched(hint: bool) -> FetchResponse {
    let mut row = fetch_response::PartitionData { records: Some(Records::Bytes("".into())), ..Default::default() };
    if hint {
        row.error_code = ErrorCode::NotLeaderOrFollower.code();
        row.current_leader = fetch_response::LeaderIdAndEpoch { leader_id: 2, leader_epoch: 6 };
    } else {
        let mut batch = BatchBuilder::new(Compression::None, None);
        batch.push(Timestamp(1), None, Some(b"v"), &[]).unwrap();
        (row.records, row.high_watermark) = (Some(Records::Bytes(batch.build().unwrap())), 1);
    }
    let topic =
        fetch_response::FetchableTopicResponse { topic_id: topic_id(), partitions: vec![row], ..Default::default() };
    FetchResponse { responses: vec![topic], ..Default::default() }
}

#[test]
fn a_broker_that_hangs_up_is_passed_over_for_another_of_the_bootstrap() {
    let (first, second, told) = two();
    let bootstrap = vec![first.address.to_string(), second.address.to_string()];
    let first = Broker::serve(first, ApiKey::ALL, |_| Answer::HangUp);
    let _second = Broker::serve(second, ApiKey::ALL, move |asked| asked.with(&told.metadata()));
    run(async {
        let client = Client::connect(&bootstrap, "test").await.unwrap();
        assert_eq!(client.brokers().len(), 2);
    });
    assert!(first.seen(ApiKey::Metadata) >= 1);
}

/// Metadata never gets better here, so that only the hint leads on; it must not be forgotten over it either.
#[test]
fn a_producer_follows_the_hint_of_the_old_leader_and_believes_no_older_metadata() {
    let (first, second, told) = two();
    let bootstrap = vec![first.address.to_string()];
    let script = |leads: bool| {
        let told = told.clone();
        move |asked: &Asked| match asked.api() {
            ApiKey::Metadata => asked.with(&told.metadata()),
            ApiKey::InitProducerId => asked.with(&InitProducerIdResponse { producer_id: 1, ..Default::default() }),
            ApiKey::Produce => asked.with(&produced((!leads).then_some(&told))),
            other => panic!("{other:?}"),
        }
    };
    let (first, second) =
        (Broker::serve(first, ApiKey::ALL, script(false)), Broker::serve(second, ApiKey::ALL, script(true)));
    run(async {
        let client = Client::connect(&bootstrap, "test").await.unwrap();
        let producer = Producer::new(&client, ProducerConfig::default()).await.unwrap();
        for _ in 0..3 {
            let delivered = producer.send("t", record()).await.unwrap().done().await.unwrap();
            assert_eq!(delivered.offset, Some(Offset(7)));
            // What the first broker still says is older than what it said.
            let (_, topic) = client.topics(Some(&["t"])).await.unwrap().remove(0);
            assert_eq!(topic.unwrap().partitions[0].leader, Some(BrokerId(2)));
        }
    });
    assert_eq!((first.seen(ApiKey::Produce), second.seen(ApiKey::Produce)), (1, 3));
}

#[test]
fn a_consumer_follows_the_hint_of_the_old_leader() {
    let (first, second, told) = two();
    let bootstrap = vec![first.address.to_string()];
    let script = |leads: bool| {
        let told = told.clone();
        move |asked: &Asked| match asked.api() {
            ApiKey::Metadata => asked.with(&told.metadata()),
            ApiKey::Fetch => asked.with(&fetched(!leads)),
            other => panic!("{other:?}"),
        }
    };
    let (first, second) =
        (Broker::serve(first, ApiKey::ALL, script(false)), Broker::serve(second, ApiKey::ALL, script(true)));
    run(async {
        let client = Client::connect(&bootstrap, "test").await.unwrap();
        let start = [(at(), Start::Offset(Offset::ZERO))];
        let mut consumer = Consumer::new(&client, ConsumerConfig::default(), &start).await.unwrap();
        let fetched = consumer.poll().await.unwrap();
        assert_eq!(fetched[0].records[0].value.as_deref(), Some(&b"v"[..]));
    });
    assert_eq!(first.seen(ApiKey::Fetch), 1);
    assert!(second.seen(ApiKey::Fetch) >= 1);
}

/// A leader and a follower, the client of both, and what kills the leader, whereupon the other one leads.
fn killed(test: impl AsyncFnOnce(Client, &dyn Fn(), &Broker)) {
    let (first, second, told) = two();
    let bootstrap = vec![first.address.to_string(), second.address.to_string()];
    let told = Arc::new(Mutex::new(told));
    let script = || {
        let told = Arc::clone(&told);
        move |asked: &Asked| match asked.api() {
            ApiKey::Metadata => asked.with(&told.lock().unwrap().metadata()),
            ApiKey::ListOffsets => {
                let row = ListOffsetsPartitionResponse { offset: 42, ..Default::default() };
                let topic = ListOffsetsTopicResponse { name: "t".into(), partitions: vec![row] };
                asked.with(&ListOffsetsResponse { topics: vec![topic], ..Default::default() })
            }
            ApiKey::Fetch => asked.with(&fetched(false)),
            other => panic!("{other:?}"),
        }
    };
    let (first, second) = (Broker::serve(first, ApiKey::ALL, script()), Broker::serve(second, ApiKey::ALL, script()));
    let kill = || {
        let mut told = told.lock().unwrap();
        (told.leader, told.leader_epoch) = (2, 6);
        first.stop();
    };
    run(async { test(Client::connect(&bootstrap, "test").await.unwrap(), &kill, &second).await });
}

#[test]
fn offsets_are_asked_of_the_next_leader_when_the_old_one_is_gone() {
    killed(async |client, kill, second| {
        let latest = [(at(), Position::Latest)];
        assert_eq!(client.list_offsets(&latest).await.unwrap()[0].offset, Some(Offset(42)));
        assert_eq!(second.seen(ApiKey::ListOffsets), 0);
        kill();
        assert_eq!(client.list_offsets(&latest).await.unwrap()[0].offset, Some(Offset(42)));
        assert_eq!(second.seen(ApiKey::ListOffsets), 1);
    });
}

#[test]
fn a_consumer_reads_on_at_the_next_leader_when_the_old_one_is_gone() {
    killed(async |client, kill, second| {
        let start = [(at(), Start::Offset(Offset::ZERO))];
        let mut consumer = Consumer::new(&client, ConsumerConfig::default(), &start).await.unwrap();
        consumer.poll().await.unwrap();
        assert_eq!(second.seen(ApiKey::Fetch), 0);
        kill();
        while second.seen(ApiKey::Fetch) == 0 {
            consumer.poll().await.unwrap();
        }
    });
}

/// With acks=0 nobody says no: the old leader closes the connection, and that is all there is to go by.
#[test]
fn a_producer_without_acknowledgements_finds_the_new_leader_too() {
    let (first, second, told) = two();
    let bootstrap = vec![first.address.to_string()];
    let told = Arc::new(Mutex::new(told));
    let script = |leads: bool| {
        let told = Arc::clone(&told);
        move |asked: &Asked| match asked.api() {
            ApiKey::Metadata => asked.with(&told.lock().unwrap().metadata()),
            ApiKey::Produce if leads => Answer::Bytes(Vec::new()),
            ApiKey::Produce => {
                let mut told = told.lock().unwrap();
                (told.leader, told.leader_epoch) = (2, 6);
                Answer::HangUp
            }
            other => panic!("{other:?}"),
        }
    };
    let (first, second) =
        (Broker::serve(first, ApiKey::ALL, script(false)), Broker::serve(second, ApiKey::ALL, script(true)));
    run(async {
        let client = Client::connect(&bootstrap, "test").await.unwrap();
        let config =
            ProducerConfig { acks: Acks::None, idempotent: false, linger: Duration::ZERO, ..ProducerConfig::default() };
        let producer = Producer::new(&client, config).await.unwrap();
        let begun = Instant::now();
        while second.seen(ApiKey::Produce) == 0 {
            assert!(begun.elapsed() < PATIENCE);
            let _ = producer.send("t", record()).await.unwrap().done().await;
        }
    });
    assert!(first.seen(ApiKey::Produce) >= 1);
}

#[test]
fn a_broker_that_came_back_at_another_address_is_found_there() {
    let (first, second, told) = two();
    let bootstrap = vec![first.address.to_string()];
    // Nothing serves where broker 2 was.
    drop(second);
    let elsewhere = place();
    let later = elsewhere.address;
    let asked_so_far = AtomicUsize::new(0);
    let first = Broker::serve(first, ApiKey::ALL, move |asked| match asked.api() {
        ApiKey::Metadata => {
            let mut told = told.clone();
            if asked_so_far.fetch_add(1, Ordering::Relaxed) > 0 {
                told.brokers[1].1 = later;
            }
            asked.with(&told.metadata())
        }
        other => panic!("{other:?}"),
    });
    let second = Broker::serve(elsewhere, ApiKey::ALL, |asked| asked.with(&DescribeLogDirsResponse::default()));
    run(async {
        let client = Client::connect(&bootstrap, "test").await.unwrap();
        assert_eq!(client.describe_log_dirs(BrokerId(2)).await.unwrap(), []);
    });
    assert_eq!((first.seen(ApiKey::DescribeLogDirs), second.seen(ApiKey::DescribeLogDirs)), (0, 1));
}

#[test]
fn the_coordinator_is_asked_for_again_when_it_has_moved() {
    let (first, second, told) = two();
    let bootstrap = vec![first.address.to_string()];
    let finds = Arc::new(AtomicUsize::new(0));
    let script = |coordinates: bool| {
        let (told, finds) = (told.clone(), Arc::clone(&finds));
        move |asked: &Asked| match asked.api() {
            ApiKey::Metadata => asked.with(&told.metadata()),
            ApiKey::FindCoordinator => {
                assert_eq!(asked.body::<FindCoordinatorRequest>().key, "g");
                let node_id = if finds.fetch_add(1, Ordering::Relaxed) == 0 { 1 } else { 2 };
                asked.with(&FindCoordinatorResponse { node_id, ..Default::default() })
            }
            ApiKey::OffsetFetch => {
                assert_eq!(asked.body::<OffsetFetchRequest>().group_id, "g");
                let code = if coordinates { ErrorCode::None } else { ErrorCode::NotCoordinator };
                asked.with(&OffsetFetchResponse { error_code: code.code(), ..Default::default() })
            }
            other => panic!("{other:?}"),
        }
    };
    let (first, second) =
        (Broker::serve(first, ApiKey::ALL, script(false)), Broker::serve(second, ApiKey::ALL, script(true)));
    run(async {
        let client = Client::connect(&bootstrap, "test").await.unwrap();
        assert_eq!(client.committed("g").await.unwrap(), []);
    });
    assert_eq!((first.seen(ApiKey::OffsetFetch), second.seen(ApiKey::OffsetFetch)), (1, 1));
}
