//! `ottla consume`: read partitions from a place on, to their end or following it.
//!
//! As a member of a group: `consume/member.rs`.

mod member;

use std::{
    collections::HashMap,
    io::{self, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use ottla_client::{Client, Consumer, ConsumerConfig, Error, Fetched, Position, Start, TopicPartition};
use ottla_types::{Offset, PartitionIndex, Timestamp};

use crate::{
    cluster::{self, ClusterArgs, partition},
    commands::format::Format,
    failure::{Failure, is},
};

pub(crate) const EXAMPLES: &str = "\
Examples:
  ottla consume orders                       everything there is, then stop
  ottla consume orders --from end            what comes from now on
  ottla consume orders --last 10
  ottla consume orders --since 1h --follow
  ottla consume orders --group billing       what the group has not read yet, then stop
  ottla consume orders --from 4711 -p 0 --max 1 --format json
  ottla consume orders --format '%p:%o %k=%v\\n'

Format strings: %v value, %k key, %h headers, %t topic, %p partition, %o offset, %T timestamp in ms,
  %d timestamp as a date, %V and %K sizes in bytes, %% a percent sign; \\n, \\t, \\0 and \\\\ as usual.
  A null key or value is empty.";

#[derive(Args)]
pub(crate) struct ConsumeArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The topic to read
    topic: String,
    /// Where to begin: start, end (follows), or an offset
    #[arg(long, value_name = "WHERE", default_value = "start", value_parser = start)]
    from: Start,
    /// Begin this many records before the end of each partition
    #[arg(long, value_name = "N", conflicts_with = "from")]
    last: Option<u64>,
    /// Begin at a time: 2026-01-31T12:00:00Z, milliseconds since 1970, or how long ago, such as 1h
    #[arg(long, value_name = "TIME", conflicts_with_all = ["from", "last"], value_parser = since)]
    since: Option<Timestamp>,
    /// Wait for more at the end
    #[arg(long, short)]
    follow: bool,
    /// Stop after this many records
    #[arg(long, short = 'n', value_name = "N")]
    max: Option<u64>,
    /// Read as a member of this group: go on where it is, and commit what was written out
    #[arg(long, short, value_name = "GROUP", conflicts_with_all = ["last", "since", "partition"])]
    group: Option<String>,
    /// Only these partitions
    #[arg(long, short, value_name = "N", value_delimiter = ',', value_parser = partition)]
    partition: Vec<PartitionIndex>,
    /// value, key-value, json, or a format string (below)
    #[arg(long, value_name = "FORMAT", default_value = "value")]
    format: Format,
    /// Read of a replica in this rack, if there is one (broker.rack)
    #[arg(long, value_name = "RACK")]
    rack: Option<String>,
    /// Leave out what belongs to open or aborted transactions
    #[arg(long)]
    read_committed: bool,
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "start" | "earliest" | "beginning" => Ok(Start::Earliest),
        "end" | "latest" => Ok(Start::Latest),
        number => match number.parse() {
            Ok(offset) if offset >= 0 => Ok(Start::Offset(Offset(offset))),
            _ => Err("it must be start, end, or an offset".to_owned()),
        },
    }
}

/// A time on a command line.
pub(crate) fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(millis) = text.parse() {
        return Ok(Timestamp(millis));
    }
    let time = match humantime::parse_duration(text) {
        Ok(ago) => SystemTime::now().checked_sub(ago),
        Err(_) => humantime::parse_rfc3339_weak(text).ok(),
    };
    let since_epoch = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let millis = since_epoch.and_then(|time: Duration| i64::try_from(time.as_millis()).ok());
    millis.map(Timestamp).ok_or_else(|| "it must be like 2026-01-31T12:00:00Z, or 1h for an hour ago".to_owned())
}

pub(crate) fn run(args: ConsumeArgs) -> Result<(), Failure> {
    cluster::run(async {
        if let Some(group) = &args.group {
            return member::consume(&args, group).await;
        }
        tokio::select! {
            done = consume(&args) => done,
            // Leaving a follow this way is how it is meant to end.
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}

impl ConsumeArgs {
    fn consumer_config(&self) -> ConsumerConfig {
        let (read_committed, rack) = (self.read_committed, self.rack.clone());
        ConsumerConfig { read_committed, rack, ..ConsumerConfig::default() }
    }
}

async fn consume(args: &ConsumeArgs) -> Result<(), Failure> {
    let client = args.cluster.connect().await?;
    let partitions = client.partitions_of(&args.topic, &args.partition).await?;
    let start = match (args.last, args.since) {
        (Some(count), _) => Start::Last(count),
        (None, Some(time)) => Start::Time(time),
        (None, None) => args.from,
    };
    let follow = args.follow || start == Start::Latest;
    let format = if args.cluster.json { Format::Json } else { args.format.clone() };
    let config = args.consumer_config();
    let assignment: Vec<_> = partitions.iter().map(|at| (at.clone(), start)).collect();
    let mut consumer = Consumer::new(&client, config, &assignment).await?;

    // Without --follow the end is where it was when the command began, or a busy topic would have none.
    let mut ends: HashMap<TopicPartition, Offset> = HashMap::new();
    if !follow {
        let wanted: Vec<_> = partitions.iter().map(|at| (at.clone(), Position::Latest)).collect();
        let found = client.list_offsets(&wanted).await?;
        ends.extend(partitions.into_iter().zip(found.into_iter().map(|found| found.offset.unwrap_or(Offset::ZERO))));
        let done: Vec<_> =
            consumer.positions().iter().filter(|(at, next)| ends.get(at) == Some(next)).cloned().collect();
        for (at, _) in done {
            consumer.remove(&at);
        }
    }

    let mut left = args.max.unwrap_or(u64::MAX);
    while left > 0 && !consumer.positions().is_empty() {
        let arrived = match consumer.poll().await {
            Ok(arrived) => arrived,
            Err(error) => return Err(explain(&client, &consumer, error).await),
        };
        for fetched in arrived {
            let end = ends.get(&fetched.at).copied();
            write(&format, &fetched, end, &mut left)?;
            if end.is_some_and(|end| fetched.next >= end) {
                consumer.remove(&fetched.at);
            }
        }
    }
    Ok(())
}

/// Writes out the records before `end`, as many as are `left`, and gives the offset behind them.
fn write(format: &Format, fetched: &Fetched, end: Option<Offset>, left: &mut u64) -> Result<Offset, Failure> {
    let mut text = Vec::new();
    let mut next = fetched.next;
    for record in &fetched.records {
        if *left == 0 || end.is_some_and(|end| record.offset >= end) {
            next = record.offset;
            break;
        }
        format.write(&mut text, &fetched.at, record);
        *left -= 1;
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(&text)?;
    stdout.flush()?;
    Ok(next)
}

/// An offset that is not there is told with the offsets that are.
async fn explain(client: &Client, consumer: &Consumer, error: Error) -> Failure {
    if !is(&error, "OFFSET_OUT_OF_RANGE") {
        return error.into();
    }
    for (at, next) in consumer.positions() {
        let wanted = [(at.clone(), Position::Earliest), (at.clone(), Position::Latest)];
        let Ok(found) = client.list_offsets(&wanted).await else { continue };
        if let [Some(first), Some(end)] = found.iter().map(|found| found.offset).collect::<Vec<_>>()[..]
            && !(first..=end).contains(next)
        {
            let (topic, partition) = (&at.topic, at.partition);
            return Failure::failed(format!(
                "offset {next} is not in partition {partition} of {topic}, which begins at {first} and ends \
                 before {end}"
            ));
        }
    }
    error.into()
}
