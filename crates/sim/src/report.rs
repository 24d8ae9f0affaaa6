//! What a simulation came to: counts, marks of rare paths, and what was wrong.

use std::collections::BTreeMap;

/// Rare paths that a good many seeds should come along, each with what it is.
pub const MARKS: [&str; 17] = [
    "elected from the ELR",
    "elected the last known leader",
    "elected uncleanly",
    "isr shrunk",
    "isr grown",
    "isr refused",
    "truncated",
    "truncated to a lower epoch",
    "begun anew",
    "high watermark lost",
    "damage found",
    "damaged copy made anew",
    "duplicate answered",
    "out of order",
    "not enough replicas",
    "latest not yet known",
    "excused",
];

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule, as `reference/correctness` names it, or `liveness`.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

/// Counts over one simulation or many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that were gone through.
    pub events: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Rare paths by name.
    pub marks: BTreeMap<&'static str, u64>,
    /// Brokers that lost their power or were killed.
    pub crashes: u64,
    /// New leaders.
    pub leader_changes: u64,
    /// Batches acknowledged under `acks=all`.
    pub acknowledged: u64,
    /// Batches that consumers read.
    pub read: u64,
    /// Acknowledged batches that are lost where more copies were than the cluster promises to bear.
    pub lost_excused: u64,
}

impl Tally {
    pub(crate) fn mark(&mut self, mark: &'static str) {
        *self.marks.entry(mark).or_default() += 1;
    }

    /// Adds the counts of another simulation.
    pub fn add(&mut self, other: &Tally) {
        self.events += other.events;
        self.crashes += other.crashes;
        self.leader_changes += other.leader_changes;
        self.acknowledged += other.acknowledged;
        self.read += other.read;
        self.lost_excused += other.lost_excused;
        for (name, count) in &other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        for (name, count) in &other.marks {
            *self.marks.entry(name).or_default() += count;
        }
    }
}

/// What a seed came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Stands for everything that happened: two runs of a seed have the same.
    pub hash: u64,
    /// How long it lasted, in simulated milliseconds.
    pub virtual_ms: u64,
    /// Counts.
    pub tally: Tally,
    /// What was wrong, if anything was.
    pub violation: Option<Violation>,
    /// The last lines of what happened.
    pub lines: Vec<String>,
}
