//! `ottla-bench replay`: load that costs its own side next to nothing, so that the broker is the limit.
//!
//! Requests are encoded once (`frame.rs`) and patched for every send; answers are looked at only as far as they must be
//! (`answer.rs`), and fetched records are dropped in the kernel. One thread does all (`engine.rs`). A real client on a
//! machine of a few cores is the limit itself; what real clients see is measured by `neutral.rs`.
//!
//! It runs unmodified against any broker that serves Produce 9 and Fetch 12. It trusts the topic to be its own.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use ottla_protocol::ApiKey;
use ottla_records::Compression;

use client::Client;
use consumer::{Consumer, Position};
use engine::{Engine, Plan};
use frame::{Batch, FetchFrame, FetchLimits, ProduceFrame, ProducedAt};
use producer::{Own, Producer};
use schedule::{Journal, Schedule};
use socket::Socket;
use tally::Tally;

mod answer;
pub(crate) mod client;
mod connections;
mod consumer;
mod engine;
pub(crate) mod frame;
mod producer;
mod schedule;
mod socket;
mod tally;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Send batches, closed loop or at a rate; latency is that of the acknowledgement
    Produce(Produce),
    /// Read a topic from its start to its end, again and again
    Fetch(Fetch),
    /// Send at a rate and read at the same time; latency is from the intended send to the arrival at each consumer
    Tail(Tail),
    /// Hold idle connections
    Connections(Connections),
    /// Create a topic
    Create(Create),
    /// Delete a topic
    Delete(Target),
}

#[derive(Debug, Args)]
struct Target {
    /// Where the broker listens; of a cluster all nodes, apart by commas: each next one leads each next partition
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    address: Vec<String>,
    #[arg(long)]
    topic: String,
}

impl Target {
    /// The node that one of several connections is to.
    fn node(&self, connection: usize) -> Result<&str> {
        let node = connection.checked_rem(self.address.len()).and_then(|node| self.address.get(node));
        node.map(String::as_str).context("there is no address")
    }
}

#[derive(Debug, Args)]
struct Window {
    /// Seconds before anything counts
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    /// Seconds that count
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// The process whose CPU time is reported; of a cluster all of them, apart by commas
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    broker_pid: Vec<u32>,
}

impl Window {
    fn plan(&self) -> Result<Plan> {
        let warmup = Duration::try_from_secs_f64(self.warmup)?;
        Ok(Plan { warmup, window: Duration::try_from_secs_f64(self.seconds)?, bytes: None })
    }
}

#[derive(Debug, Args)]
struct Produce {
    #[command(flatten)]
    target: Target,
    #[arg(long)]
    partitions: i32,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Batches in flight on each connection
    #[arg(long, default_value_t = 5)]
    depth: usize,
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    /// Size of a batch before compression
    #[arg(long, default_value_t = 16_384)]
    batch_bytes: usize,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none")]
    compression: Compression,
    /// all, 1 or 0
    #[arg(long, default_value = "all", value_parser = acks)]
    acks: i16,
    /// Number the batches; each partition then belongs to one connection
    #[arg(long)]
    idempotent: bool,
    /// Send at this rate, all connections together, and count latency from the moment a batch was meant to be sent
    #[arg(long, value_name = "BATCHES_PER_SECOND")]
    rate: Option<f64>,
    #[command(flatten)]
    window: Window,
}

#[derive(Debug, Args)]
struct Fetch {
    #[command(flatten)]
    target: Target,
    #[arg(long)]
    partitions: i32,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Most bytes of one answer
    #[arg(long, default_value_t = 52_428_800)]
    max_bytes: i32,
    /// Most bytes of one partition in an answer
    #[arg(long, default_value_t = 1_048_576)]
    partition_max_bytes: i32,
    /// Stop after so many bytes, without a warm-up
    #[arg(long, value_name = "TOTAL")]
    bytes: Option<u64>,
    #[command(flatten)]
    window: Window,
}

#[derive(Debug, Args)]
struct Tail {
    #[command(flatten)]
    target: Target,
    #[arg(long)]
    partitions: i32,
    #[arg(long, value_name = "RECORDS_PER_SECOND")]
    rate: f64,
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    #[arg(long, default_value_t = 1)]
    batch_records: usize,
    /// Consumers that read every partition
    #[arg(long, default_value_t = 1)]
    consumers: usize,
    /// Connections that send
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Batches in flight on each of them
    #[arg(long, default_value_t = 5)]
    depth: usize,
    /// all, 1 or 0
    #[arg(long, default_value = "all", value_parser = acks)]
    acks: i16,
    #[command(flatten)]
    window: Window,
}

#[derive(Debug, Args)]
struct Connections {
    /// Where the broker listens
    #[arg(long, value_name = "HOST:PORT")]
    address: String,
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    /// How long to hold them once all are there
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

#[derive(Debug, Args)]
struct Create {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    config: Vec<(String, String)>,
}

fn acks(text: &str) -> Result<i16> {
    match text {
        "all" | "-1" => Ok(-1),
        "1" => Ok(1),
        "0" => Ok(0),
        _ => anyhow::bail!("one of all, 1, 0"),
    }
}

fn key_value(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').context("KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let engine = match &arguments.mode {
        Mode::Produce(it) => it.engine()?,
        Mode::Fetch(it) => it.engine()?,
        Mode::Tail(it) => it.engine()?,
        Mode::Connections(it) => {
            connections::hold(&it.address, it.count, Duration::try_from_secs_f64(it.seconds)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Mode::Create(it) => {
            let nodes = i32::try_from(it.target.address.len())?;
            Client::open(it.target.node(0)?)?.create_topic(&it.target.topic, it.partitions, nodes, &it.config)?;
            return Ok(ExitCode::SUCCESS);
        }
        Mode::Delete(it) => {
            Client::open(it.node(0)?)?.delete_topic(&it.topic)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    println!("{}", serde_json::to_string(&engine.run()?)?);
    Ok(ExitCode::SUCCESS)
}

impl Produce {
    fn engine(&self) -> Result<Engine> {
        let batch = Batch::of_bytes(self.record_bytes, self.batch_bytes, self.compression)?;
        let senders = Senders {
            target: &self.target,
            partitions: self.partitions,
            connections: self.connections,
            depth: self.depth,
            acks: self.acks,
            idempotent: self.idempotent,
            exclusive: self.idempotent,
            batch,
        };
        Ok(Engine {
            producers: senders.open()?,
            consumers: Vec::new(),
            schedule: self.rate.map(|rate| schedule(rate, self.connections)).transpose()?,
            journal: None,
            plan: self.window.plan()?,
            tally: Tally::new(&self.window.broker_pid, true)?,
        })
    }
}

impl Fetch {
    fn engine(&self) -> Result<Engine> {
        ensure!(self.partitions > 0 && self.connections > 0, "at least one partition and one connection");
        let limits =
            FetchLimits { max_wait_ms: 500, max_bytes: self.max_bytes, partition_max_bytes: self.partition_max_bytes };
        let consumer = |index| {
            let own = share(self.partitions, self.connections, index);
            let positions = own.into_iter().map(|partition| Position { partition, offset: 0 }).collect();
            consumer(&self.target, positions, limits, true)
        };
        let mut plan = self.window.plan()?;
        if self.bytes.is_some() {
            plan = Plan { warmup: Duration::ZERO, window: Duration::from_secs(3600), bytes: self.bytes };
        }
        Ok(Engine {
            producers: Vec::new(),
            consumers: (0..self.connections).map(consumer).collect::<Result<_>>()?,
            schedule: None,
            journal: None,
            plan,
            tally: Tally::new(&self.window.broker_pid, false)?,
        })
    }
}

impl Tail {
    fn engine(&self) -> Result<Engine> {
        let batch = Batch::of_records(self.record_bytes, self.batch_records, Compression::None)?;
        ensure!(batch.records > 0 && self.consumers > 0, "at least one record in a batch and one consumer");
        let ends = Client::open(self.target.node(0)?)?.ends(&self.target.topic, self.partitions)?;
        let limits = FetchLimits { max_wait_ms: 500, max_bytes: 52_428_800, partition_max_bytes: 1_048_576 };
        let positions = |()| (0..).zip(&ends).map(|(partition, end)| Position { partition, offset: *end }).collect();
        let consumers = (0..self.consumers).map(|_| consumer(&self.target, positions(()), limits, false));
        let consumers = consumers.collect::<Result<_>>()?;
        let journal = Journal::new(&ends, batch.records.into());
        let senders = Senders {
            target: &self.target,
            partitions: self.partitions,
            connections: self.connections,
            depth: self.depth,
            acks: self.acks,
            idempotent: false,
            exclusive: true,
            batch,
        };
        Ok(Engine {
            producers: senders.open()?,
            consumers,
            schedule: Some(schedule(self.rate / self.batch_records as f64, self.connections)?),
            journal: Some(journal),
            plan: self.window.plan()?,
            tally: Tally::new(&self.window.broker_pid, false)?,
        })
    }
}

/// What the producers of a replay have in common.
struct Senders<'a> {
    target: &'a Target,
    partitions: i32,
    connections: usize,
    depth: usize,
    acks: i16,
    idempotent: bool,
    /// Whether each partition belongs to one connection, so that its batches stay in order.
    exclusive: bool,
    batch: Batch,
}

impl Senders<'_> {
    fn open(&self) -> Result<Vec<Producer>> {
        ensure!(self.partitions > 0 && self.connections > 0, "at least one partition and one connection");
        ensure!(self.depth > 0, "at least one batch in flight");
        let enough = usize::try_from(self.partitions)? >= self.connections;
        ensure!(!self.exclusive || enough, "each connection needs a partition of its own");
        // So that each has only partitions of the node it is to.
        let even = self.connections.checked_rem(self.target.address.len()) == Some(0);
        ensure!(even && (enough || self.target.address.len() == 1), "as many connections to each node, and partitions");
        (0..self.connections).map(|index| self.producer(index)).collect()
    }

    fn producer(&self, index: usize) -> Result<Producer> {
        let mut client = Client::open(self.target.node(index)?)?;
        let version = client.version(ApiKey::Produce, 9, 12)?;
        let id = if self.idempotent { Some(client.producer()?) } else { None };
        let frame = ProduceFrame::new(version, &self.target.topic, self.acks, &self.batch.bytes)?;
        let own = share(self.partitions, self.connections, index);
        Ok(Producer {
            socket: Socket::new(client)?,
            index: index as u64,
            partitions: own.into_iter().map(|partition| Own { partition, sequence: 0 }).collect(),
            id,
            answered_by_broker: self.acks != 0,
            batch: self.batch.clone(),
            produced_at: ProducedAt::new(&self.target.topic)?,
            frames: vec![frame; self.depth],
            progress: Default::default(),
            partial: Vec::new(),
        })
    }
}

fn consumer(target: &Target, positions: Vec<Position>, limits: FetchLimits, again: bool) -> Result<Consumer> {
    let client = Client::open(target.node(0)?)?;
    client.version(ApiKey::Fetch, FetchFrame::VERSION, FetchFrame::VERSION)?;
    Ok(Consumer {
        socket: Socket::new(client)?,
        frame: FetchFrame::new(&target.topic, positions.len(), limits)?,
        positions,
        again,
        answer: answer::Answer::new(),
        correlation: 0,
        sent: 0,
        sent_at: 0,
        batch: None,
    })
}

/// The partitions of one of several connections. Where there are more connections than partitions they share.
fn share(partitions: i32, connections: usize, index: usize) -> Vec<i32> {
    let count = partitions.unsigned_abs() as usize;
    if count < connections {
        return (0..partitions).skip(index % count).take(1).collect();
    }
    (0..partitions).skip(index).step_by(connections).collect()
}

fn schedule(rate: f64, connections: usize) -> Result<Schedule> {
    ensure!(rate > 0.0 && rate.is_finite(), "a rate is above zero");
    Ok(Schedule { period: 1e9 / rate, producers: connections as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_a_connection_and_every_connection_a_partition() {
        assert_eq!([share(5, 2, 0), share(5, 2, 1)], [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!([share(2, 3, 0), share(2, 3, 1), share(2, 3, 2)], [vec![0], vec![1], vec![0]]);
    }
}
