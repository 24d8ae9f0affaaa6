//! The broker through a client that is not ours: rskafka, with its own codec, framing and idea of a Kafka broker.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::{collections::BTreeMap, ops::Add, time::Duration};

use common::TestBroker;
use rskafka::{
    client::{
        Client, ClientBuilder,
        partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling},
    },
    record::{Record, RecordAndOffset},
};

const CODECS: [Compression; 5] =
    [Compression::NoCompression, Compression::Gzip, Compression::Lz4, Compression::Snappy, Compression::Zstd];
const ALL_BYTES: std::ops::Range<i32> = 1..50_000_000;

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("within a minute");
    });
}

async fn client(broker: &TestBroker) -> Client {
    ClientBuilder::new(vec![broker.address.to_string()]).build().await.unwrap()
}

async fn partition(client: &Client, topic: &str, index: i32) -> PartitionClient {
    client.partition_client(topic, index, UnknownTopicHandling::Retry).await.unwrap()
}

/// A time of rskafka's, whose type is another crate's: its default is the epoch.
fn time<T: Default + Add<Duration, Output = T>>(millis: u64) -> T {
    T::default() + Duration::from_millis(millis)
}

fn record(key: Option<&str>, value: Option<&str>, millis: u64) -> Record {
    Record {
        key: key.map(|key| key.into()),
        value: value.map(|value| value.into()),
        headers: BTreeMap::from([("kind".to_owned(), b"test".to_vec()), ("empty".to_owned(), Vec::new())]),
        timestamp: time(millis),
    }
}

async fn read_all(partition: &PartitionClient, mut offset: i64) -> Vec<RecordAndOffset> {
    let end = partition.get_offset(OffsetAt::Latest).await.unwrap();
    let mut all = Vec::new();
    while offset < end {
        let (records, high_watermark) = partition.fetch_records(offset, ALL_BYTES, 10_000).await.unwrap();
        assert!(high_watermark >= end);
        offset = records.last().expect("records up to the high watermark").offset + 1;
        all.extend(records);
    }
    all
}

#[test]
fn rskafka_produces_and_consumes_with_every_codec() {
    let broker = TestBroker::start();
    run(async {
        let client = client(&broker).await;
        client.controller_client().unwrap().create_topic("codecs", 2, 1, 5000).await.unwrap();
        let partition = partition(&client, "codecs", 1).await;
        let mut expected = Vec::new();
        for codec in CODECS {
            let records = vec![
                record(Some("key"), Some(&"value ".repeat(200)), 1000),
                record(None, Some(""), 1001),
                record(Some(""), None, 1002),
            ];
            let offsets = partition.produce(records.clone(), codec).await.unwrap();
            let first = i64::try_from(expected.len()).unwrap();
            assert_eq!(offsets, [first, first + 1, first + 2], "{codec:?}");
            expected.extend((first..).zip(records).map(|(offset, record)| RecordAndOffset { record, offset }));
        }
        assert_eq!(read_all(&partition, 0).await, expected);
        // From the middle of a batch.
        assert_eq!(read_all(&partition, 7).await, expected[7..]);
    });
}

#[test]
fn rskafka_finds_offsets_by_place_and_time() {
    let broker = TestBroker::start();
    run(async {
        let client = client(&broker).await;
        client.controller_client().unwrap().create_topic("offsets", 1, 1, 5000).await.unwrap();
        let partition = partition(&client, "offsets", 0).await;
        for (index, codec) in (0u64..).zip(CODECS) {
            let records = (0..10).map(|i| record(None, Some("v"), 1000 * index + i)).collect();
            partition.produce(records, codec).await.unwrap();
        }
        assert_eq!(partition.get_offset(OffsetAt::Earliest).await.unwrap(), 0);
        assert_eq!(partition.get_offset(OffsetAt::Latest).await.unwrap(), 50);
        for (millis, expected) in [(0, 0), (7, 7), (10, 10), (2003, 23), (4009, 49), (4010, -1)] {
            let found = partition.get_offset(OffsetAt::Timestamp(time(millis))).await.unwrap();
            assert_eq!(found, expected, "at {millis} ms");
        }
        partition.delete_records(25, 5000).await.unwrap();
        assert_eq!(partition.get_offset(OffsetAt::Earliest).await.unwrap(), 25);
        assert_eq!(read_all(&partition, 25).await.len(), 25);
        assert!(partition.fetch_records(24, ALL_BYTES, 10).await.is_err());
    });
}

#[test]
fn rskafka_reads_everything_after_a_restart_and_a_kill() {
    let mut broker = TestBroker::start();
    let mut written = 0;
    for round in 0..3 {
        run(async {
            let client = client(&broker).await;
            if round == 0 {
                client.controller_client().unwrap().create_topic("kept", 1, 1, 5000).await.unwrap();
            }
            let partition = partition(&client, "kept", 0).await;
            for codec in CODECS {
                let value = written.to_string();
                let offsets = partition.produce(vec![record(None, Some(&value), 1)], codec).await.unwrap();
                assert_eq!(offsets, [written]);
                written += 1;
            }
            let values: Vec<_> = read_all(&partition, 0).await.into_iter().map(|read| read.record.value).collect();
            let expected: Vec<_> = (0..written).map(|i| Some(i.to_string().into_bytes())).collect();
            assert_eq!(values, expected);
        });
        broker = if round == 0 { broker.restart() } else { broker.killed() };
    }
}

#[test]
fn rskafka_creates_lists_and_deletes_topics() {
    let broker = TestBroker::start();
    run(async {
        let client = client(&broker).await;
        let admin = client.controller_client().unwrap();
        admin.create_topic("first", 3, 1, 5000).await.unwrap();
        admin.create_topic("second", 1, 1, 5000).await.unwrap();
        assert!(admin.create_topic("first", 3, 1, 5000).await.is_err(), "it exists");
        let topics = client.list_topics().await.unwrap();
        let names: Vec<_> = topics.iter().map(|topic| (&*topic.name, topic.partitions.len())).collect();
        assert_eq!(names, [("first", 3), ("second", 1)]);
        admin.delete_topic("first", 5000).await.unwrap();
        let names: Vec<_> = client.list_topics().await.unwrap().into_iter().map(|topic| topic.name).collect();
        assert_eq!(names, ["second"]);
    });
}

#[test]
fn rskafka_waits_for_what_is_produced_later() {
    let broker = TestBroker::start();
    run(async {
        let client = client(&broker).await;
        client.controller_client().unwrap().create_topic("later", 1, 1, 5000).await.unwrap();
        let reader = partition(&client, "later", 0).await;
        let writer = partition(&client, "later", 0).await;
        let read = reader.fetch_records(0, ALL_BYTES, 30_000);
        let write = writer.produce(vec![record(None, Some("now"), 1)], Compression::NoCompression);
        let (read, written) = tokio::join!(read, write);
        assert_eq!(written.unwrap(), [0]);
        assert_eq!(read.unwrap().0[0].record.value.as_deref(), Some(&b"now"[..]));
    });
}
