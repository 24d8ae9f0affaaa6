//! What was counted in the window, and the JSON that comes of it.
//!
//! Not here: when the window opens and closes (`engine.rs`).

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::frame::Batch;
use crate::process;

/// Latencies up to this are told apart, in nanoseconds.
const LATENCY_MAX: u64 = 3_600_000_000_000;

/// CPU times at one moment, in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    broker: Option<f64>,
    own: f64,
    system: f64,
}

impl Sample {
    fn take(broker: &[u32]) -> Result<Sample> {
        let cpu = process::cpu_of(broker)?.as_secs_f64();
        Ok(Sample {
            broker: (!broker.is_empty()).then_some(cpu),
            own: process::cpu(std::process::id())?.as_secs_f64(),
            system: process::system_busy()?.as_secs_f64(),
        })
    }
}

/// Counts between two moments. Times are nanoseconds of the engine's clock.
#[derive(Debug)]
pub(super) struct Tally {
    /// The processes that are the broker.
    broker: Vec<u32>,
    /// Whether acknowledged batches count, or only what is delivered.
    acks: bool,
    from: Option<u64>,
    to: Option<u64>,
    before: Sample,
    after: Sample,
    latencies: Histogram<u64>,
    requests: u64,
    records: u64,
    bytes: u64,
    uncompressed: u64,
    errors: u64,
    error: Option<String>,
}

impl Tally {
    pub(super) fn new(broker: &[u32], acks: bool) -> Result<Tally> {
        Ok(Tally {
            broker: broker.to_vec(),
            acks,
            from: None,
            to: None,
            before: Sample::default(),
            after: Sample::default(),
            latencies: Histogram::new_with_bounds(1, LATENCY_MAX, 3)?,
            requests: 0,
            records: 0,
            bytes: 0,
            uncompressed: 0,
            errors: 0,
            error: None,
        })
    }

    pub(super) fn open(&mut self, now: u64) -> Result<()> {
        self.before = Sample::take(&self.broker)?;
        self.from = Some(now);
        Ok(())
    }

    pub(super) fn close(&mut self, now: u64) -> Result<()> {
        self.after = Sample::take(&self.broker)?;
        self.to = Some(now);
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        self.from.is_some() && self.to.is_none()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.to.is_some()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Something came about now. What is over after the window does not count as throughput.
    pub(super) fn count(&mut self, requests: u64, records: u64, bytes: u64, uncompressed: u64) {
        if self.is_open() {
            self.requests += requests;
            self.records += records;
            self.bytes += bytes;
            self.uncompressed += uncompressed;
        }
    }

    /// `count` things were meant for `intended` and came about at `now`. What was meant for the window counts, however
    /// late it comes: otherwise the worst latencies would be left out.
    pub(super) fn latency(&mut self, intended: u64, now: u64, count: u64) {
        if self.from.is_some_and(|from| intended >= from) && self.to.is_none_or(|to| intended < to) {
            self.latencies.saturating_record_n(now.saturating_sub(intended), count);
        }
    }

    /// A batch was acknowledged.
    pub(super) fn produced(&mut self, intended: u64, now: u64, batch: &Batch) {
        if self.acks {
            self.count(1, batch.records.into(), batch.bytes.len() as u64, batch.uncompressed as u64);
            self.latency(intended, now, 1);
        }
    }

    pub(super) fn failed(&mut self, what: impl FnOnce() -> String) {
        self.errors += 1;
        self.error.get_or_insert_with(what);
    }

    pub(super) fn outcome(self) -> Result<Outcome> {
        let seconds = match (self.from, self.to) {
            (Some(from), Some(to)) => (to - from) as f64 / 1e9,
            _ => 0.0,
        };
        let mut coarse: Histogram<u64> = Histogram::new_with_bounds(1, LATENCY_MAX, 2)?;
        coarse.add(&self.latencies)?;
        let buckets = coarse.iter_recorded().map(|it| (micros(it.value_iterated_to()), it.count_at_value()));
        Ok(Outcome {
            seconds,
            requests: self.requests,
            records: self.records,
            bytes: self.bytes,
            uncompressed_bytes: self.uncompressed,
            errors: self.errors,
            error: self.error,
            latency_us: (!self.latencies.is_empty()).then(|| Latency::of(&self.latencies)),
            histogram: buckets.collect(),
            broker_cpu_s: self.after.broker.zip(self.before.broker).map(|(after, before)| after - before),
            own_cpu_s: self.after.own - self.before.own,
            system_busy_s: self.after.system - self.before.system,
        })
    }
}

/// What a replay prints.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) seconds: f64,
    pub(super) requests: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) uncompressed_bytes: u64,
    pub(super) errors: u64,
    pub(super) error: Option<String>,
    pub(super) latency_us: Option<Latency>,
    /// Upper ends in microseconds, and how many lie below and above the one before.
    pub(super) histogram: Vec<(f64, u64)>,
    pub(super) broker_cpu_s: Option<f64>,
    pub(super) own_cpu_s: f64,
    pub(super) system_busy_s: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    p9999: f64,
    max: f64,
    mean: f64,
    count: u64,
}

impl Latency {
    fn of(latencies: &Histogram<u64>) -> Latency {
        let at = |quantile| micros(latencies.value_at_quantile(quantile));
        Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: micros(latencies.max()),
            mean: latencies.mean() / 1e3,
            count: latencies.len(),
        }
    }
}

fn micros(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_counts_by_intention_and_throughput_by_completion() {
        let mut tally = Tally::new(&[], true).unwrap();
        tally.count(1, 1, 1, 1);
        tally.latency(5, 9, 1);
        tally.open(10).unwrap();
        tally.count(1, 2, 3, 4);
        tally.latency(5, 12, 1); // meant for before the window
        tally.close(20).unwrap();
        tally.count(1, 2, 3, 4);
        tally.latency(15, 1_000_015, 1); // meant for the window, and late
        tally.latency(20, 21, 1); // meant for after it
        let outcome = tally.outcome().unwrap();
        assert_eq!((outcome.requests, outcome.records, outcome.bytes, outcome.uncompressed_bytes), (1, 2, 3, 4));
        let latency = outcome.latency_us.unwrap();
        assert_eq!(latency.count, 1);
        assert!((999.0..1001.0).contains(&latency.max), "{latency:?}");
        assert_eq!(outcome.histogram.len(), 1);
    }
}
