//! S1: from the start of the process to the first produce that it accepted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ottla_protocol::ApiKey;
use ottla_protocol::messages::ProduceRequest;
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_records::Compression;

use crate::contest::Contest;
use crate::load::Outcome;
use crate::peer::Profile;
use crate::replay::client::{Client, check};
use crate::replay::frame::{BROKER_TIMEOUT_MS, Batch};
use crate::report::{Figure, Goal};

const FIGURE: &str = "start to first accepted produce";
/// How long a broker that answers may take until it also accepts.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn s1(contest: &mut Contest) -> Result<()> {
    contest.start(Profile::Default)?;
    let rounds = contest.pace.rounds;
    let partitions = contest.pace.partitions;
    let figure = Figure::lower(FIGURE, "ms");
    let cells = [
        ("empty".to_owned(), 1, rounds, figure.clone().goal(Goal::Times(20.0), Goal::AtMost(15.0))),
        (format!("{partitions} partitions"), partitions, rounds.min(3), figure.times(5.0, 20.0)),
    ];
    for (name, partitions, rounds, figure) in cells {
        let mut topics = Vec::new();
        contest.prepare(|side| {
            topics.push((side.name.clone(), side.create_many(partitions)?));
            Ok(())
        });
        contest.cell(rounds, &name, "SIGTERM, start again, produce until accepted", vec![figure], |side| {
            let topic = topics.iter().find(|(name, _)| *name == side.name).map_or("", |(_, topic)| topic);
            let ready = side.broker.restart()?;
            let accepted = first_produce(&side.broker.address().to_string(), topic)?;
            Ok(Outcome::default().with(FIGURE, (ready + accepted).as_secs_f64() * 1e3))
        });
    }
    Ok(())
}

/// Produces to partition 0 until it is accepted: how long that took.
fn first_produce(address: &str, topic: &str) -> Result<Duration> {
    let began = Instant::now();
    let mut client = Client::open(address)?;
    let version = client.version(ApiKey::Produce, 9, 12)?;
    let batch = Batch::of_records(100, 1, Compression::None)?;
    let partition = PartitionProduceData { records: Some(batch.bytes), ..Default::default() };
    let data = TopicProduceData { name: topic.into(), partition_data: vec![partition], ..Default::default() };
    let request =
        ProduceRequest { acks: -1, timeout_ms: BROKER_TIMEOUT_MS, topic_data: vec![data], ..Default::default() };
    loop {
        let answer = client.call(version, &request)?;
        let topic = answer.responses.first().context("no answer for the topic")?;
        let partition = topic.partition_responses.first().context("no answer for the partition")?;
        match check(partition.error_code) {
            Ok(()) => return Ok(began.elapsed()),
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_micros(500)),
        }
    }
}
