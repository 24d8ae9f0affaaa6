//! The client's producer against our own broker: what it promises when things go wrong.

use std::time::Duration;

use ottla_client::{Client, Consumer, ConsumerConfig, NewRecord, NewTopic, Producer, ProducerConfig, Start};

use crate::broker::Broker;

/// Small batches, sent at once, so that several are under way.
fn config() -> ProducerConfig {
    ProducerConfig { linger: Duration::ZERO, batch_bytes: 2048, ..ProducerConfig::default() }
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
        let producer = Producer::new(&client, config()).await.unwrap();
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

/// A refused batch leaves a gap in the sequence; the batches behind it are stored nevertheless, once and in order.
#[test]
fn p2_records_behind_a_refused_one_are_stored_in_order() {
    const RECORDS: usize = 2000;
    let refused = |number: usize| number % 500 == 250;
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "127.0.0.1:0", &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(std::slice::from_ref(&broker.address), "test").await.unwrap();
        let configs = vec![("max.message.bytes".to_owned(), "5000".to_owned())];
        let topic = NewTopic { name: "t".to_owned(), partitions: Some(1), configs, ..NewTopic::default() };
        client.create_topic(&topic, false).await.unwrap();
        let producer = Producer::new(&client, config()).await.unwrap();
        let mut deliveries = Vec::new();
        for number in 0..RECORDS {
            let size = if refused(number) { 6000 } else { 100 };
            let record = NewRecord { value: Some(format!("{number:0size$}").into()), ..NewRecord::default() };
            deliveries.push(producer.send("t", record).await.unwrap());
        }
        let mut next = 0;
        for (number, delivery) in deliveries.into_iter().enumerate() {
            match delivery.done().await {
                Ok(delivered) => {
                    assert!(!refused(number));
                    assert_eq!(delivered.offset.unwrap().0, next, "record {number}");
                    next += 1;
                }
                Err(error) => {
                    assert!(refused(number), "record {number}: {error}");
                    assert_eq!(error.code().unwrap().name(), "MESSAGE_TOO_LARGE");
                }
            }
        }
        assert_eq!(next, 1996);
    });
}
