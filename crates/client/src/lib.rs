//! A Kafka client for Ottla's own command line, tests and benchmarks. It works against any Kafka-compatible broker.
//!
//! Small on purpose: it produces, reads given partitions or as a member of a group, and manages topics, configs, groups
//! and nodes. What is not here: the classic group protocol, transactions, security. Where to go next: `client.rs`
//! (finding brokers and trying again), `connection.rs` (one socket), `producer.rs` with `batches.rs`, `consumer.rs`,
//! `group_consumer.rs`, `offsets.rs`, `admin.rs`, `replicas.rs` and `nodes.rs`, `groups.rs` with `committed.rs`.
//!
//! ```no_run
//! use ottla_client::{Client, Consumer, ConsumerConfig, NewRecord, Producer, ProducerConfig, Start};
//!
//! # async fn example() -> Result<(), ottla_client::Error> {
//! let client = Client::connect(&["localhost:9092".to_owned()], "example").await?;
//!
//! let producer = Producer::new(&client, ProducerConfig::default()).await?;
//! let record = NewRecord { value: Some("first".into()), ..NewRecord::default() };
//! let delivered = producer.send("greetings", record).await?.done().await?;
//! println!("partition {}, offset {:?}", delivered.partition, delivered.offset);
//!
//! let partitions = client.partitions_of("greetings", &[]).await?;
//! let from_start: Vec<_> = partitions.into_iter().map(|at| (at, Start::Earliest)).collect();
//! let mut consumer = Consumer::new(&client, ConsumerConfig::default(), &from_start).await?;
//! for fetched in consumer.poll().await? {
//!     println!("{} has {} records", fetched.at, fetched.records.len());
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod admin;
mod batches;
mod client;
mod committed;
mod connection;
mod consumer;
mod error;
mod group_consumer;
mod groups;
mod metadata;
mod nearest;
mod nodes;
mod offsets;
mod partitioner;
mod producer;
mod replicas;

pub use admin::{
    ClusterInfo, ConfigChange, ConfigEntry, ConfigResource, ConfigSource, CreatedTopic, LogDir, NewTopic, ProducerState,
};
pub use client::{Client, Target, Timeouts};
pub use connection::Connection;
pub use consumer::{Consumer, ConsumerConfig, Fetched, Start};
pub use error::Error;
pub use group_consumer::GroupConsumer;
pub use groups::{GroupInfo, GroupKind, GroupMember, ListedGroup};
pub use metadata::{BrokerInfo, PartitionInfo, TopicInfo, TopicPartition};
pub use nodes::{LEVEL, Move, Node, NodeListener, Nodes};
pub use offsets::{Found, Position};
pub use producer::{Acks, Delivered, Delivery, NewRecord, Producer, ProducerConfig};
pub use replicas::{Election, PartitionResult, Reassignment};
