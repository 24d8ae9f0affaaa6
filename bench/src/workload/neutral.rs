//! N1: the load generators that Kafka and librdkafka ship. Clients are most of what is measured here; the ratios must
//! agree in direction with those of the replayer's workloads.

use anyhow::Result;

use super::P2;
use crate::contest::Contest;
use crate::load::{Outcome, Side};
use crate::neutral::{
    Found, Sending, consumer_performance, end_to_end_latency, producer_performance, rdkafka_consume, rdkafka_produce,
};
use crate::peer::{Profile, Running};
use crate::report::Figure;

const PARTITIONS: u32 = 16;
const RECORD_BYTES: u64 = 1024;
/// What these clients manage in a second, about; records of a turn are counted from it.
const RATE: u64 = 100_000;
const PRODUCER: &[&str] = &["acks=all", "linger.ms=5", "enable.idempotence=true"];

pub(super) fn n1(contest: &mut Contest) -> Result<()> {
    contest.start(Profile::Default)?;
    let records = RATE * contest.pace.seconds;
    contest.warm_up(PARTITIONS, P2);
    let rounds = contest.pace.rounds;
    let settings = PRODUCER.join(" ");
    contest.cell(rounds, "Kafka's performance tools", &settings, figures(), |side| {
        both(side, records, producer_performance, consumer_performance)
    });
    contest.cell(rounds, "rdkafka_performance", &settings, figures(), |side| {
        both(side, records, rdkafka_produce, rdkafka_consume)
    });
    let (mean, cpu) = ("mean", "CPU per record");
    let figures = vec![Figure::lower(mean, "µs"), Figure::lower(cpu, "µs")];
    let records = 500 * contest.pace.seconds;
    contest.cell(rounds, "EndToEndLatency", "100 B, acks=all, one at a time", figures, |side| {
        let topic = side.create(1)?;
        let found = end_to_end_latency(&side.broker, &topic, records, 100)?;
        side.delete(&topic)?;
        let latency = found.latency_us.map_or(f64::NAN, |latency| latency.mean);
        let outcome = Outcome { raw: serde_json::to_value(&found)?, ..Outcome::default() };
        Ok(outcome.with(mean, latency).with(cpu, found.usage.broker_cpu_s * 1e6 / found.records as f64))
    });
    Ok(())
}

fn figures() -> Vec<Figure> {
    vec![
        Figure::higher("produce", "MB/s"),
        Figure::higher("produce per CPU", "GB/cpu-s"),
        Figure::lower("p99", "µs"),
        Figure::higher("consume", "MB/s"),
        Figure::higher("consume per CPU", "GB/cpu-s"),
    ]
}

/// Fills a topic and reads it.
fn both(
    side: &mut Side,
    records: u64,
    produce: fn(&Running, &Sending<'_>) -> Result<Found>,
    consume: fn(&Running, &str, u64) -> Result<Found>,
) -> Result<Outcome> {
    let topic = side.create(PARTITIONS)?;
    let sending = Sending { topic: &topic, records, record_bytes: RECORD_BYTES, settings: PRODUCER };
    let produced = produce(&side.broker, &sending)?;
    let consumed = consume(&side.broker, &topic, records)?;
    side.delete(&topic)?;
    let outcome = Outcome { raw: serde_json::to_value([&produced, &consumed])?, ..Outcome::default() };
    Ok(outcome
        .with("produce", speed(&produced))
        .with("produce per CPU", thrift(&produced))
        .with("p99", produced.latency_us.map_or(f64::NAN, |latency| latency.p99))
        .with("consume", speed(&consumed))
        .with("consume per CPU", thrift(&consumed)))
}

fn speed(found: &Found) -> f64 {
    found.bytes as f64 / 1e6 / found.seconds
}

fn thrift(found: &Found) -> f64 {
    found.bytes as f64 / 1e9 / found.usage.broker_cpu_s
}
