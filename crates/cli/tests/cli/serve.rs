//! Starting and stopping the broker: what it refuses, and what it keeps.

use std::time::Duration;

use crate::broker::{Broker, failure, ottla};
use ottla_client::{Client, Consumer, ConsumerConfig, NewRecord, Producer, ProducerConfig, Start};

#[test]
fn what_cannot_be_started_says_so_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let broker = Broker::start(&data, "127.0.0.1:0", &[]);
    let other = dir.path().join("other");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let [data, other, file] = [&data, &other, &file].map(|path| path.to_str().unwrap());
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--data", data, "--listen", "127.0.0.1:0"], 1, "in use by another process"),
        (&["--data", other, "--listen", &broker.address], 1, "cannot listen on"),
        (&["--data", file, "--listen", "127.0.0.1:0"], 1, "cannot write to the data directory"),
        (&["--data", other, "-o", "ottla.durabilty=fsync"], 2, "ottla.durability"),
        (&["--data", other, "-o", "num.partitions=0"], 2, "num.partitions"),
    ];
    for (args, code, expected) in cases {
        let (found, said) = failure(&ottla().arg("serve").args(args).output().unwrap());
        assert_eq!(found, Some(code), "{args:?}: {said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{args:?}: {said}");
    }
}

#[test]
fn l6_sigterm_leaves_a_proof_and_everything_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "127.0.0.1:0", &["-o", "num.partitions=2"]);
    broker.ok_with(&["produce", "t", "-k", ":"], b"a:1\nb:2\nc:3\n");
    let before = broker.ok(&["topic", "describe", "t", "--json"]);
    assert_eq!(broker.stop(), Some(0));
    assert!(dir.path().join("clean-shutdown").exists());
    let broker = Broker::start(dir.path(), "127.0.0.1:0", &[]);
    assert!(!dir.path().join("clean-shutdown").exists());
    assert_eq!(broker.ok(&["topic", "describe", "t", "--json"]), before);
    assert_eq!(broker.ok(&["consume", "t"]).lines().count(), 3);
}

/// An idempotent producer whose broker is killed under it, again and again, writes each record once and in order.
#[test]
fn p1_a_producer_outlives_kills_of_the_broker_without_loss_or_duplicate() {
    const RECORDS: usize = 20_000;
    const KILL_EVERY: usize = 5_000;
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), "127.0.0.1:0", &[]);
    let address = broker.address.clone();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(std::slice::from_ref(&address), "test").await.unwrap();
        let config = ProducerConfig { linger: Duration::ZERO, batch_bytes: 2048, ..ProducerConfig::default() };
        let producer = Producer::new(&client, config).await.unwrap();
        let mut deliveries = Vec::new();
        for number in 0..RECORDS {
            let record = NewRecord { value: Some(number.to_string().into()), ..NewRecord::default() };
            deliveries.push(producer.send("t", record).await.unwrap());
            if number % KILL_EVERY == KILL_EVERY - 1 {
                broker.kill();
                broker = Broker::start(dir.path(), &address, &[]);
            }
        }
        for (number, delivery) in deliveries.into_iter().enumerate() {
            assert_eq!(delivery.done().await.unwrap().offset.unwrap().0, number as i64);
        }
        let partitions = client.partitions_of("t", &[]).await.unwrap();
        let assignment: Vec<_> = partitions.into_iter().map(|at| (at, Start::Earliest)).collect();
        let mut consumer = Consumer::new(&client, ConsumerConfig::default(), &assignment).await.unwrap();
        let mut next = 0;
        while next < RECORDS {
            for record in consumer.poll().await.unwrap().into_iter().flat_map(|fetched| fetched.records) {
                assert_eq!(record.value.unwrap(), next.to_string());
                next += 1;
            }
        }
    });
}
