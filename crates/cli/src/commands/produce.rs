//! `ottla produce`: one record a line, from standard input or a file.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};
use ottla_client::{Acks, Delivery, NewRecord, Producer, ProducerConfig};
use ottla_records::Compression;
use ottla_types::PartitionIndex;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    cluster::{self, ClusterArgs, key_value, partition},
    failure::Failure,
    output,
};

pub(crate) const EXAMPLES: &str = "\
Examples:
  echo 'hello' | ottla produce greetings
  ottla produce orders --file orders.txt --key-separator : --compression zstd
  printf 'k1\\tv1\\nk2\\tv2\\n' | ottla produce orders -k '\\t' --header source=shell
  ottla produce images --whole --key logo --file logo.png";

/// A line longer than this is taken for a mistake, such as a binary file without --whole.
const RECORD_MAX: u64 = 64 << 20;
/// Lines read ahead, and deliveries waited for, before reading stops.
const AHEAD: usize = 16 << 10;
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

#[derive(Args)]
pub(crate) struct ProduceArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The topic to write to
    topic: String,
    /// Read from this file instead of standard input
    #[arg(long, short)]
    file: Option<PathBuf>,
    /// What separates key and value in a line, such as : or \t; without it there is no key
    #[arg(long, short, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// The key of every record
    #[arg(long, conflicts_with = "key_separator")]
    key: Option<String>,
    /// A header of every record; may be repeated
    #[arg(long, short = 'H', value_name = "KEY=VALUE", value_parser = key_value)]
    header: Vec<(String, String)>,
    /// Write to this partition, whatever the key
    #[arg(long, short, value_parser = partition)]
    partition: Option<PartitionIndex>,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(long, short = 'z', value_name = "CODEC", default_value = "none", value_parser = compression)]
    compression: Compression,
    /// When a record counts as written
    #[arg(long, short, default_value = "all")]
    acks: AcksArg,
    /// The whole input is one record
    #[arg(long, conflicts_with = "key_separator")]
    whole: bool,
    /// An empty value is null: a tombstone in a compacted topic
    #[arg(long)]
    empty_is_null: bool,
}

/// Acks by word or by Kafka's number.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum AcksArg {
    /// When it is sent
    #[value(alias = "0")]
    None,
    /// When the leader has it
    #[value(alias = "1")]
    Leader,
    /// When every replica in sync has it
    #[value(alias = "-1")]
    All,
}

impl From<AcksArg> for Acks {
    fn from(acks: AcksArg) -> Acks {
        match acks {
            AcksArg::None => Acks::None,
            AcksArg::Leader => Acks::Leader,
            AcksArg::All => Acks::All,
        }
    }
}

pub(crate) fn compression(text: &str) -> Result<Compression, String> {
    text.parse().map_err(|error: ottla_records::UnknownCompressionName| error.to_string())
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    records: u64,
    bytes: u64,
}

pub(crate) fn run(args: ProduceArgs) -> Result<(), Failure> {
    cluster::run(async {
        let input: Box<dyn Read + Send> = match &args.file {
            Some(path) => Box::new(
                File::open(path).map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?,
            ),
            None => Box::new(io::stdin()),
        };
        let acks = Acks::from(args.acks);
        let client = args.cluster.connect().await?;
        let config = ProducerConfig {
            acks,
            compression: args.compression,
            idempotent: acks == Acks::All,
            delivery_timeout: args.cluster.timeout,
            ..ProducerConfig::default()
        };
        let producer = Producer::new(&client, config).await?;
        let started = Instant::now();
        let written = write_all(&args, &producer, input).await?;
        let seconds = started.elapsed().as_secs_f64();
        if args.cluster.json {
            let Written { records, bytes } = written;
            let topic = &args.topic;
            return output::print_json(
                &json!({ "topic": topic, "records": records, "bytes": bytes, "seconds": seconds }),
            );
        }
        let noun = if written.records == 1 { "record" } else { "records" };
        let size = output::bytes(written.bytes);
        output::print(&format!("Wrote {} {noun} ({size}) to {} in {seconds:.2} s.\n", written.records, args.topic))
    })
}

async fn write_all(args: &ProduceArgs, producer: &Producer, input: Box<dyn Read + Send>) -> Result<Written, Failure> {
    let (lines, mut records) = mpsc::channel(AHEAD);
    let whole = args.whole;
    // Standard input cannot be read without blocking, and this thread may stay behind when the command fails.
    std::thread::spawn(move || read(input, whole, &lines));
    let (deliveries, waiting) = mpsc::channel(AHEAD);
    let mut confirmed = tokio::spawn(confirm(waiting));
    let separator = args.key_separator.as_deref().map(unescape);
    let mut progress = Progress::new();
    let mut written = Written::default();
    loop {
        let line: Bytes = tokio::select! {
            line = records.recv() => match line {
                Some(line) => line?,
                None => break,
            },
            // It ends early only if a record was refused.
            result = &mut confirmed => return finish(result).and(Ok(written)),
        };
        written.records += 1;
        written.bytes += line.len() as u64;
        let number = written.records;
        let delivery = producer.send(&args.topic, record(args, separator.as_deref(), line, number)?).await?;
        if deliveries.send(delivery).await.is_err() {
            break;
        }
        progress.tick(written);
    }
    producer.flush().await;
    drop(deliveries);
    progress.clear();
    finish(confirmed.await)?;
    Ok(written)
}

fn finish(result: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
    result.unwrap_or_else(|error| Err(Failure::failed(error)))
}

/// Waits for every delivery; ends at the first that failed.
async fn confirm(mut waiting: mpsc::Receiver<Delivery>) -> Result<(), Failure> {
    while let Some(delivery) = waiting.recv().await {
        delivery.done().await?;
    }
    Ok(())
}

fn record(args: &ProduceArgs, separator: Option<&[u8]>, line: Bytes, number: u64) -> Result<NewRecord, Failure> {
    let (key, value) = match separator {
        Some(separator) => {
            let at = line.windows(separator.len()).position(|window| window == separator);
            let at = at.ok_or_else(|| {
                Failure::failed(format!("line {number} has no key separator; nothing of it or behind it was written"))
            })?;
            (Some(line.slice(..at)), line.slice(at + separator.len()..))
        }
        None => (args.key.clone().map(Bytes::from), line),
    };
    let value = if args.empty_is_null && value.is_empty() { None } else { Some(value) };
    let header = |(key, value): &(String, String)| (Bytes::from(key.clone()), Some(Bytes::from(value.clone())));
    Ok(NewRecord {
        key,
        value,
        headers: args.header.iter().map(header).collect(),
        timestamp: None,
        partition: args.partition,
    })
}

/// Reads records on a thread of its own until the input ends or nobody wants more.
fn read(input: Box<dyn Read + Send>, whole: bool, lines: &mpsc::Sender<Result<Bytes, Failure>>) {
    let mut input = BufReader::with_capacity(256 << 10, input);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut input).take(RECORD_MAX + 1);
        let read = if whole { bounded.read_to_end(&mut line) } else { bounded.read_until(b'\n', &mut line) };
        let record = match read {
            Ok(0) if !whole => return,
            Ok(_) if line.len() as u64 > RECORD_MAX => {
                Err(Failure::failed(format!("a record is larger than {}", output::bytes(RECORD_MAX))))
            }
            Ok(_) => {
                if !whole && line.last() == Some(&b'\n') {
                    line.pop();
                    if line.last() == Some(&b'\r') {
                        line.pop();
                    }
                }
                Ok(Bytes::from(line))
            }
            Err(error) => Err(Failure::failed(format!("cannot read the input: {error}"))),
        };
        let last = whole || record.is_err();
        if lines.blocking_send(record).is_err() || last {
            return;
        }
    }
}

/// `\t`, `\n` and `\\` in a separator.
fn unescape(text: &str) -> Vec<u8> {
    text.replace("\\t", "\t").replace("\\n", "\n").replace("\\\\", "\\").into_bytes()
}

/// A line on the terminal that tells how far a long input is.
struct Progress {
    shown: bool,
    started: Instant,
    last: Instant,
    enabled: bool,
}

impl Progress {
    fn new() -> Progress {
        let now = Instant::now();
        // Where a person types the records, they are in the way.
        let enabled = io::stderr().is_terminal() && !io::stdin().is_terminal();
        Progress { shown: false, started: now, last: now, enabled }
    }

    fn tick(&mut self, written: Written) {
        if !self.enabled || self.last.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.last = Instant::now();
        self.shown = true;
        let rate = written.records as f64 / self.started.elapsed().as_secs_f64();
        let size = output::bytes(written.bytes);
        let _ = write!(io::stderr(), "\r\x1b[K{} records, {size}, {rate:.0} a second", written.records);
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
