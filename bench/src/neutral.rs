//! The load generators that others publish, against a broker: Kafka's own three, and librdkafka's.
//!
//! On a machine of a few cores they are slower than a good broker, so what they find is how much of the machine is left
//! to clients. They are neutral: nobody who wrote them knew this broker. What a broker can do at most: `replay`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::peer::{Peer, Running};
use crate::process::{Usage, Window};

mod java;
mod librdkafka;

pub(crate) use java::{consumer_performance, end_to_end_latency, producer_performance};
pub(crate) use librdkafka::{rdkafka_consume, rdkafka_produce};

/// Builds what is not there yet; from outside of the namespace, because it comes from outside.
pub(crate) fn fetch() -> Result<()> {
    Peer::named("kafka")?.fetch()?;
    librdkafka::fetch().map(drop)
}

/// What a producer is told to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending<'a> {
    pub(crate) topic: &'a str,
    pub(crate) records: u64,
    pub(crate) record_bytes: u64,
    /// The client's own settings, as `name=value`.
    pub(crate) settings: &'a [&'a str],
}

/// What a load generator said, and what the broker did meanwhile.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Found {
    /// By the clock of the generator, without its own start.
    pub(crate) seconds: f64,
    pub(crate) records: u64,
    /// Of values; these tools count nothing else.
    pub(crate) bytes: u64,
    pub(crate) latency_us: Option<Latency>,
    /// From its start to its end.
    pub(crate) usage: Usage,
}

/// What the generators have in common.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

/// What a generator printed, understood.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Said {
    seconds: f64,
    records: u64,
    bytes: u64,
    latency_us: Option<Latency>,
}

/// Runs a generator to its end; `read` understands what it prints.
fn run(broker: &Running, mut command: Command, read: impl FnOnce(&str) -> Result<Said>) -> Result<Found> {
    let window = Window::open(broker.pid()?)?;
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?} does not start"))?;
    let usage = window.close()?;
    let (text, complaints) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}: {complaints}", output.status);
    let said = read(&text).with_context(|| format!("{command:?} printed {text}{complaints}"))?;
    let Said { seconds, records, bytes, latency_us } = said;
    Ok(Found { seconds, records, bytes, latency_us, usage })
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The number that stands before `unit` in a line like `20000 records sent, 3526.1 records/sec (0.34 MB/sec)`.
fn before(line: &str, unit: &str) -> Result<f64> {
    let (front, _) = line.split_once(unit).with_context(|| format!("no {unit}"))?;
    let word = front.split([' ', '(', ',']).rfind(|word| !word.is_empty()).context("no number")?;
    word.parse().with_context(|| format!("{word} is no number"))
}
