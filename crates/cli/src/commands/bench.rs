//! `ottla bench`: how fast a cluster takes records and gives them back, and how long one takes.
//!
//! A start: one producer and one consumer in this process. Not here: comparing systems with each other.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use ottla_client::{
    Acks, Client, Consumer, ConsumerConfig, Delivery, NewRecord, NewTopic, Producer, ProducerConfig, Start,
};
use ottla_records::Compression;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    cluster::{self, ClusterArgs},
    commands::produce::{AcksArg, compression},
    failure::Failure,
    output,
};

pub(crate) const EXAMPLES: &str = "\
Examples:
  ottla bench
  ottla bench --records 5000000 --size 100 --partitions 12 --compression lz4
  ottla bench --rate 10000 --records 100000 --json
  ottla bench --topic orders --only consume";

/// Deliveries waited for before sending stops.
const AHEAD: usize = 64 << 10;

#[derive(Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How many records
    #[arg(long, short = 'n', default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Bytes of each value
    #[arg(long, short, default_value_t = 1024)]
    size: usize,
    /// Use this topic and keep it; without it one is created and deleted again
    #[arg(long, short)]
    topic: Option<String>,
    /// Partitions of the topic that is created
    #[arg(long, short, default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// When a record counts as written
    #[arg(long, short, default_value = "all")]
    acks: AcksArg,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(long, short = 'z', value_name = "CODEC", default_value = "none", value_parser = compression)]
    compression: Compression,
    /// Bytes of a batch
    #[arg(long, default_value_t = 64 << 10)]
    batch_bytes: usize,
    /// How long a batch may wait for more
    #[arg(long, default_value = "5ms", value_parser = humantime::parse_duration)]
    linger: Duration,
    /// Records a second; without it as many as possible
    #[arg(long)]
    rate: Option<u32>,
    /// Only one half
    #[arg(long)]
    only: Option<Half>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Half {
    /// Write, and read nothing
    Produce,
    /// Read what is in the topic
    Consume,
}

pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    if args.only == Some(Half::Consume) && args.topic.is_none() {
        return Err(Failure::usage("--only consume needs a topic with records, give --topic"));
    }
    cluster::run(async {
        let client = args.cluster.connect().await?;
        let topic = match &args.topic {
            Some(name) => name.clone(),
            None => {
                let name = format!("ottla-bench-{}", std::process::id());
                let partitions = Some(args.partitions);
                client.create_topic(&NewTopic { name: name.clone(), partitions, ..NewTopic::default() }, false).await?;
                name
            }
        };
        let measured = measure(args, &client, &topic).await;
        if args.topic.is_none() {
            client.delete_topic(&topic).await?;
        }
        measured
    })
}

async fn measure(args: &BenchArgs, client: &Client, topic: &str) -> Result<(), Failure> {
    if args.only != Some(Half::Consume) {
        report(args, "produce", &produce(args, client, topic).await?)?;
    }
    if args.only != Some(Half::Produce) {
        report(args, "consume", &consume(args, client, topic).await?)?;
    }
    Ok(())
}

/// What one half measured.
struct Measured {
    records: u64,
    bytes: u64,
    elapsed: Duration,
    /// From sending to acknowledgement, in microseconds, ascending.
    latencies: Vec<u32>,
}

async fn produce(args: &BenchArgs, client: &Client, topic: &str) -> Result<Measured, Failure> {
    let acks = Acks::from(args.acks);
    let config = ProducerConfig {
        acks,
        compression: args.compression,
        idempotent: acks == Acks::All,
        batch_bytes: args.batch_bytes,
        linger: args.linger,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(client, config).await?;
    let values: Vec<Bytes> = (1..=64).map(|seed| value(args.size, seed)).collect();
    let mut lanes: Vec<Lane> = Vec::new();
    let started = Instant::now();
    let pause = args.rate.map(|rate| Duration::from_secs(1) / rate.max(1));
    for (number, value) in (0..args.records).zip(values.iter().cycle()) {
        // A schedule that does not wait for slow answers, so that they are counted against every record they delay.
        let mut due = Instant::now();
        if let Some(pause) = pause {
            let scheduled = started + pause.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
            if scheduled > due {
                tokio::time::sleep_until(scheduled.into()).await;
            }
            due = scheduled;
        }
        let record = NewRecord { value: Some(value.clone()), ..NewRecord::default() };
        let delivery = producer.send(topic, record).await?;
        // Within a partition answers come in order, between them they need not.
        let lane = usize::try_from(delivery.partition().0).unwrap_or(0);
        while lanes.len() <= lane {
            lanes.push(Lane::new());
        }
        if lanes[lane].deliveries.send((due, delivery)).await.is_err() {
            break;
        }
    }
    producer.flush().await;
    let elapsed = started.elapsed();
    let mut latencies = Vec::new();
    for lane in lanes {
        drop(lane.deliveries);
        latencies.extend(lane.latencies.await.map_err(Failure::failed)??);
    }
    latencies.sort_unstable();
    let bytes = args.records * args.size as u64;
    Ok(Measured { records: args.records, bytes, elapsed, latencies })
}

/// Waits for the deliveries of one partition.
struct Lane {
    deliveries: mpsc::Sender<(Instant, Delivery)>,
    latencies: tokio::task::JoinHandle<Result<Vec<u32>, Failure>>,
}

impl Lane {
    fn new() -> Lane {
        let (deliveries, mut waiting) = mpsc::channel::<(Instant, Delivery)>(AHEAD);
        let latencies = tokio::spawn(async move {
            let mut latencies = Vec::new();
            while let Some((due, delivery)) = waiting.recv().await {
                delivery.done().await?;
                latencies.push(u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Ok(latencies)
        });
        Lane { deliveries, latencies }
    }
}

async fn consume(args: &BenchArgs, client: &Client, topic: &str) -> Result<Measured, Failure> {
    let partitions = client.partitions_of(topic, &[]).await?;
    let wanted: Vec<_> = partitions
        .iter()
        .flat_map(|at| [(at.clone(), ottla_client::Position::Earliest), (at.clone(), ottla_client::Position::Latest)])
        .collect();
    let offsets: Vec<i64> =
        client.list_offsets(&wanted).await?.iter().map(|found| found.offset.map_or(0, |offset| offset.0)).collect();
    let there: i64 = offsets.chunks(2).map(|pair| pair.last().unwrap_or(&0) - pair.first().unwrap_or(&0)).sum();
    let target = u64::try_from(there).unwrap_or(0).min(args.records);
    let assignment: Vec<_> = partitions.into_iter().map(|at| (at, Start::Earliest)).collect();
    let mut consumer = Consumer::new(client, ConsumerConfig::default(), &assignment).await?;
    let started = Instant::now();
    let (mut records, mut bytes) = (0, 0);
    while records < target {
        for fetched in consumer.poll().await? {
            records += fetched.records.len() as u64;
            let size = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
            bytes += fetched.records.iter().map(|record| size(&record.key) + size(&record.value)).sum::<usize>() as u64;
        }
    }
    Ok(Measured { records, bytes, elapsed: started.elapsed(), latencies: Vec::new() })
}

fn report(args: &BenchArgs, half: &str, measured: &Measured) -> Result<(), Failure> {
    let seconds = measured.elapsed.as_secs_f64().max(1e-9);
    let (records, bytes) = (measured.records as f64 / seconds, measured.bytes as f64 / seconds);
    let quantile = |part: f64| {
        let last = measured.latencies.len().saturating_sub(1);
        let micros = measured.latencies.get((last as f64 * part).round() as usize).copied().unwrap_or(0);
        f64::from(micros) / 1000.0
    };
    let names = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
    if args.cluster.json {
        let latencies: serde_json::Map<String, Value> =
            names.iter().map(|(name, part)| ((*name).to_owned(), json!(quantile(*part)))).collect();
        return output::print_json(&json!({
            "half": half,
            "records": measured.records,
            "bytes": measured.bytes,
            "seconds": seconds,
            "records_per_second": records,
            "bytes_per_second": bytes,
            "latency_ms": if measured.latencies.is_empty() { Value::Null } else { Value::Object(latencies) },
        }));
    }
    let rate = output::bytes(bytes as u64);
    let mut text = format!("{half}: {} records in {seconds:.2} s: {records:.0} a second, {rate}/s", measured.records);
    if !measured.latencies.is_empty() {
        let shown: Vec<_> = names.iter().map(|(name, part)| format!("{name} {:.1}", quantile(*part))).collect();
        text += &format!("; latency in ms: {}", shown.join(", "));
    }
    output::print(&format!("{text}\n"))
}

/// Text that compresses about as well as real text: words of random letters, drawn from a seed (xorshift64).
fn value(size: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..size).map(|_| b"etaoin shrdlucmf"[(draw() >> 60) as usize]).collect::<Vec<u8>>().into()
}
