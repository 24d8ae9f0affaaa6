//! Histograms of `u64` values: what openraft needs of the published `base2histogram`, and no more.
//!
//! The published crate makes tables for every precision that it has when the first histogram is made, 25 MB and 15 ms
//! of a broker's start, for statistics that Ottla does not read. This one has one precision and no table.
//! `docs/decisions/histograms-without-tables.md` says when it can go. Not for use elsewhere in the workspace.

use std::fmt;
use std::marker::PhantomData;

/// Buckets of a power of two.
const STEPS: u64 = 4;

/// Buckets of every `u64`: 0 to 3 each have their own, and from 4 on each power of two has [`STEPS`].
const BUCKETS: usize = (STEPS * (u64::BITS as u64 - 1)) as usize;

/// How often values were recorded, exactly, and how large they were, to within 25 %.
///
/// `T` is what the published crate lets a user attach to a period of time. There is one period here, with nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// Values in each bucket; empty until the first is recorded.
    counts: Vec<u64>,
    total: u64,
    period: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// A histogram without values, which takes no memory.
    pub fn new() -> Self {
        Self { counts: Vec::new(), total: 0, period: PhantomData }
    }

    /// Counts `value` once.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts `value` `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        self.counts.resize(BUCKETS, 0);
        self.counts[bucket(value)] += count;
        self.total += count;
    }

    /// How many values were recorded.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The smallest value of the bucket below or in which `share` (0 to 1) of all values lie; 0 if there are none.
    pub fn percentile(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return least_of(bucket);
            }
        }
        0
    }

    /// The percentiles that openraft reports.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.10),
            p50: self.percentile(0.50),
            p90: self.percentile(0.90),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Histogram<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Histogram{}", self.percentile_stats())
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = u64::from(value.ilog2() - STEPS.ilog2());
    (STEPS * shift + (value >> shift)) as usize
}

fn least_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * STEPS { bucket } else { (STEPS + bucket % STEPS) << (bucket / STEPS - 1) }
}

/// How many values a [`Histogram`] has, and how large they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each name is the percentile
pub struct PercentileStats {
    /// How many values were recorded.
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "[samples: {}, P50: {}, P90: {}, P99: {}, P99.9: {}]",
            self.samples, self.p50, self.p90, self.p99, self.p99_9
        )
    }
}

/// Several histograms by name, a line each.
#[derive(Debug)]
pub struct AsciiChart<T = ()> {
    series: Vec<(String, Histogram<T>)>,
}

impl<T> AsciiChart<T> {
    /// A chart of nothing.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { series: Vec::new() }
    }

    /// The same chart with one line more.
    pub fn add(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.series.push((name.to_owned(), histogram));
        self
    }

    /// What to print.
    pub fn detailed(&self) -> &Self {
        self
    }
}

impl<T> fmt::Display for AsciiChart<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.series.iter().try_for_each(|(name, histogram)| writeln!(f, "{name}: {}", histogram.percentile_stats()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_begins_with_its_least_value_and_ends_before_the_next_ones() {
        for at in 0..BUCKETS {
            assert_eq!(bucket(least_of(at)), at);
            if at > 0 {
                assert_eq!(bucket(least_of(at) - 1), at - 1);
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_within_a_quarter_of_the_value() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p99, 0);
        (1..=1000).for_each(|value| histogram.record(value));
        histogram.record_n(1_000_000, 9000);
        let stats = histogram.percentile_stats();
        assert_eq!(stats.samples, 10_000);
        for (found, value) in [(stats.p1, 100), (stats.p5, 500), (stats.p50, 1_000_000), (stats.p99_9, 1_000_000)] {
            assert!(found <= value && value - found < value / 4 + 1, "{found} for {value}");
        }
    }
}
