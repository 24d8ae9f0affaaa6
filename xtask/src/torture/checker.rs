//! The judge of a torture run: what clients did against what Kafka promises. A port in spirit of Jepsen's workload.
//!
//! It takes a history of operations with their times (`history`) and names the anomalies in it, each with evidence
//! that can be followed by hand: the values, offsets, processes and times stand in the stored history as they stand
//! here. It knows nothing of brokers, processes or files. Time is the wall clock of one machine, so that what is
//! answered before something else is asked really came before it.
//!
//! One check is one file: `versions` (lost, duplicate, invented, inconsistent), `polls` (skips and steps back), `sends`
//! (order of a producer, real-time order of a partition, and the ends that are shown), `groups` (commits and owners),
//! `cycles` (G1c), `delays` (lag, and a last stable offset that stands still). Not here, because nothing sends
//! transactions yet: G1a of aborted transactions, precommitted reads, torn transactions.

use std::collections::BTreeMap;

use self::history::{History, Time};
use self::versions::Versions;

mod cycles;
mod delays;
mod errors;
mod groups;
pub(crate) mod history;
mod polls;
mod rising;
mod sends;
#[cfg(test)]
mod tests;
mod versions;

/// How many of each kind are told in words.
const EXAMPLES: usize = 5;

/// What can be wrong with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Anomaly {
    /// Acknowledged or read before, and gone, although what came after it is there.
    LostWrite,
    /// Acknowledged at the end of a partition, and never read.
    Unseen,
    /// One value at two offsets.
    Duplicate,
    /// One offset with two values.
    InconsistentOffsets,
    /// Read and never sent, sent elsewhere or only later, or damaged.
    Invented,
    /// Read, and its send had failed for good (G1a outside of transactions).
    FailedRead,
    /// A poll went on behind values that exist, without a rebalance.
    PollSkip,
    /// A poll went back, or stayed, without a rebalance.
    NonmonotonicPoll,
    /// A skip within one poll.
    IntPollSkip,
    /// A step back within one poll.
    IntNonmonotonicPoll,
    /// A producer's later send has a lower offset than its earlier one.
    NonmonotonicSend,
    /// The same within one call.
    IntNonmonotonicSend,
    /// A send began after a higher offset was acknowledged or read (Redpanda's online check).
    RealTimeOrder,
    /// The end that a broker shows went back, or lies before what is acknowledged or read. Kafka does that, after a
    /// pause: a leader tells its old end until it hears of its successor.
    EndWentBack,
    /// Steps that read what each other wrote, in a circle.
    G1c,
    /// A committed offset became smaller.
    OffsetRegression,
    /// Two members owned a partition in one generation, or one committed after it was another's.
    TwoOwners,
    /// A reader came to an acknowledged value too late.
    Lag,
    /// The last stable offset stood still below the high watermark for too long.
    StuckLso,
}

/// The words of a report: what is anomalous for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Harm {
    Lost,
    Duplicated,
    Reordered,
    Invented,
    /// Of ends, of groups and of delays.
    Other,
}

impl Anomaly {
    /// As Jepsen has them, where it has them.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Anomaly::LostWrite => "lost-write",
            Anomaly::Unseen => "unseen",
            Anomaly::Duplicate => "duplicate",
            Anomaly::InconsistentOffsets => "inconsistent-offsets",
            Anomaly::Invented => "invented",
            Anomaly::FailedRead => "failed-read",
            Anomaly::PollSkip => "poll-skip",
            Anomaly::NonmonotonicPoll => "nonmonotonic-poll",
            Anomaly::IntPollSkip => "int-poll-skip",
            Anomaly::IntNonmonotonicPoll => "int-nonmonotonic-poll",
            Anomaly::NonmonotonicSend => "nonmonotonic-send",
            Anomaly::IntNonmonotonicSend => "int-nonmonotonic-send",
            Anomaly::RealTimeOrder => "real-time-order",
            Anomaly::EndWentBack => "end-went-back",
            Anomaly::G1c => "G1c",
            Anomaly::OffsetRegression => "offset-regression",
            Anomaly::TwoOwners => "two-owners",
            Anomaly::Lag => "lag",
            Anomaly::StuckLso => "stuck-lso",
        }
    }

    pub(crate) fn harm(self) -> Harm {
        match self {
            Anomaly::LostWrite | Anomaly::Unseen | Anomaly::PollSkip | Anomaly::IntPollSkip => Harm::Lost,
            Anomaly::Duplicate => Harm::Duplicated,
            Anomaly::InconsistentOffsets | Anomaly::Invented | Anomaly::FailedRead => Harm::Invented,
            Anomaly::NonmonotonicPoll
            | Anomaly::IntNonmonotonicPoll
            | Anomaly::NonmonotonicSend
            | Anomaly::IntNonmonotonicSend
            | Anomaly::RealTimeOrder
            | Anomaly::G1c => Harm::Reordered,
            Anomaly::EndWentBack
            | Anomaly::OffsetRegression
            | Anomaly::TwoOwners
            | Anomaly::Lag
            | Anomaly::StuckLso => Harm::Other,
        }
    }
}

/// From where on slowness is an anomaly, in microseconds; longer than any fault lasts, with its recovery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From the acknowledgement of a value until every reader that is assigned its partition by hand has it.
    pub(crate) lag: Time,
    /// How long a last stable offset below the high watermark may stay where it is.
    pub(crate) lso: Time,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { lag: 120_000_000, lso: 120_000_000 }
    }
}

/// How much a history has of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Numbers {
    pub(crate) operations: usize,
    pub(crate) sent: usize,
    pub(crate) acknowledged: usize,
    /// Failed for good.
    pub(crate) failed: usize,
    /// Neither: these may have happened.
    pub(crate) unknown: usize,
    /// Of the unknown, those that were read.
    pub(crate) unknown_found: usize,
    /// Records polled, all readers together.
    pub(crate) polled: usize,
    /// Records of the final read.
    pub(crate) final_read: usize,
    /// The worst lag of a reader that is assigned by hand, in microseconds.
    pub(crate) worst_lag: Time,
}

/// What is wrong: how many of each kind, and the first few in words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    found: BTreeMap<Anomaly, (usize, Vec<String>)>,
    pub(crate) numbers: Numbers,
}

impl Verdict {
    fn report(&mut self, anomaly: Anomaly, words: impl FnOnce() -> String) {
        let (count, examples) = self.found.entry(anomaly).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(words());
        }
    }

    /// Nothing wrong at all.
    pub(crate) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// The anomalies there are, with their number and the first few in words.
    pub(crate) fn anomalies(&self) -> impl Iterator<Item = (Anomaly, usize, &[String])> {
        self.found.iter().map(|(anomaly, (count, examples))| (*anomaly, *count, examples.as_slice()))
    }

    /// How many do harm of this kind.
    pub(crate) fn count(&self, harm: Harm) -> usize {
        self.anomalies().filter(|(anomaly, ..)| anomaly.harm() == harm).map(|(_, count, _)| count).sum()
    }
}

/// Judges a history.
pub(crate) fn check(history: &History, limits: Limits) -> Verdict {
    let mut verdict = Verdict::default();
    let versions = Versions::of(history, &mut verdict);
    versions.check(history, &mut verdict);
    polls::check(history, &versions, &mut verdict);
    sends::check(history, &versions, &mut verdict);
    groups::check(history, &mut verdict);
    cycles::check(history, &mut verdict);
    delays::check(history, limits, &mut verdict);
    verdict
}
