//! What a seed decides before anything happens: the cluster, its topics, its clients, and which kinds of faults it
//! meets.
//!
//! A random half of the kinds for three seeds of four, none for the fourth, so that faults which hide each other also
//! come alone. What is not here: when a fault comes and whom it hits (`faults.rs`).

use std::collections::BTreeSet;

use crate::random::Dice;

/// A kind of fault, or of something an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The power of a broker fails: what was not synced is lost, torn, or there.
    Power,
    /// The power of all brokers fails.
    PowerOfAll,
    /// A broker's process is killed; its disk keeps what was written.
    Kill,
    /// A broker leaves in good order and comes back.
    CleanRestart,
    /// A broker stands still for a while, and then goes on as if nothing had happened.
    Pause,
    /// Nothing gets from one broker to another, or to and from one.
    Cut,
    /// Messages get lost.
    Loss,
    /// Messages take their time.
    Slow,
    /// Single messages arrive seconds late.
    Hold,
    /// The controller moves to another broker, and forgets who was heard of.
    Controller,
    /// A broker hears late of what was agreed on.
    LateMetadata,
    /// Syncs take long.
    SlowSync,
    /// A disk has no room for a while.
    Full,
    /// A sync fails.
    SyncFailure,
    /// A bit turns over below what was durable.
    BitFlip,
    /// A broker comes back with an empty disk.
    Wipe,
    /// A wall clock jumps.
    Clock,
    /// An operator moves replicas.
    Reassign,
    /// An operator wants preferred leaders.
    Prefer,
    /// An operator changes `min.insync.replicas` or `ottla.durability`.
    Configure,
    /// A topic is deleted, and another of the same name created.
    Recreate,
    /// The beginning of a log is deleted.
    Trim,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Fault; 22] = [
        Fault::Power,
        Fault::PowerOfAll,
        Fault::Kill,
        Fault::CleanRestart,
        Fault::Pause,
        Fault::Cut,
        Fault::Loss,
        Fault::Slow,
        Fault::Hold,
        Fault::Controller,
        Fault::LateMetadata,
        Fault::SlowSync,
        Fault::Full,
        Fault::SyncFailure,
        Fault::BitFlip,
        Fault::Wipe,
        Fault::Clock,
        Fault::Reassign,
        Fault::Prefer,
        Fault::Configure,
        Fault::Recreate,
        Fault::Trim,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Power => "power",
            Fault::PowerOfAll => "power-of-all",
            Fault::Kill => "kill",
            Fault::CleanRestart => "clean-restart",
            Fault::Pause => "pause",
            Fault::Cut => "cut",
            Fault::Loss => "loss",
            Fault::Slow => "slow",
            Fault::Hold => "hold",
            Fault::Controller => "controller",
            Fault::LateMetadata => "late-metadata",
            Fault::SlowSync => "slow-sync",
            Fault::Full => "full",
            Fault::SyncFailure => "sync-failure",
            Fault::BitFlip => "bit-flip",
            Fault::Wipe => "wipe",
            Fault::Clock => "clock",
            Fault::Reassign => "reassign",
            Fault::Prefer => "prefer",
            Fault::Configure => "configure",
            Fault::Recreate => "recreate",
            Fault::Trim => "trim",
        }
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides everything that follows.
    pub seed: u64,
    /// How long faults come, in simulated milliseconds; healing comes on top.
    pub duration_ms: u64,
    /// Kinds that are left out, to find out which it takes.
    pub without: BTreeSet<Fault>,
    /// At most so many brokers.
    pub brokers_max: usize,
    /// Print every line as it comes.
    pub trace: bool,
}

impl Options {
    /// That seed, for that long, with all it brings.
    pub fn new(seed: u64, duration_ms: u64) -> Options {
        Options { seed, duration_ms, without: BTreeSet::new(), brokers_max: usize::MAX, trace: false }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct TopicPlan {
    pub(crate) name: String,
    pub(crate) partitions: i32,
    pub(crate) replication_factor: i16,
    pub(crate) min_insync_replicas: u32,
    pub(crate) replicated: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) brokers: usize,
    pub(crate) topics: Vec<TopicPlan>,
    pub(crate) faults: Vec<Fault>,
    /// Between two faults, on average, in milliseconds.
    pub(crate) fault_gap_ms: u64,
    /// Whether more copies may be lost at a time than the cluster promises to bear (rule A5).
    pub(crate) exceeds: bool,
    pub(crate) segment_bytes: u64,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) fetch_bytes: u64,
    /// Between two batches of a producer, on average, in milliseconds.
    pub(crate) produce_gap_ms: u64,
}

impl Plan {
    pub(crate) fn draw(options: &Options, dice: &mut Dice) -> Plan {
        let brokers = [3, 3, 3, 4, 5][dice.index(5)].min(options.brokers_max).max(1);
        let most = i16::try_from(brokers.min(3)).unwrap_or(1);
        let topics = (0..dice.between(2, 4))
            .map(|number| {
                let factor = [1, 2, 3, 3, 3, 3][dice.index(6)];
                TopicPlan {
                    name: format!("t{number}"),
                    partitions: i32::try_from(dice.between(1, 3)).unwrap_or(1),
                    replication_factor: most.min(factor),
                    min_insync_replicas: [1, 2, 2, 2][dice.index(4)],
                    // Without another copy it would promise nothing at all.
                    replicated: dice.one_in(3) && most.min(factor) > 1,
                }
            })
            .collect();
        let calm = dice.one_in(4);
        let chosen: Vec<Fault> = Fault::ALL.into_iter().filter(|_| dice.one_in(2)).collect();
        let faults = chosen.into_iter().filter(|fault| !calm && !options.without.contains(fault)).collect();
        Plan {
            brokers,
            topics,
            faults,
            fault_gap_ms: [400, 800, 1500, 3000][dice.index(4)],
            exceeds: dice.one_in(8),
            segment_bytes: [2 << 10, 8 << 10, 64 << 10][dice.index(3)],
            checkpoint_bytes: [1 << 10, 8 << 10][dice.index(2)],
            fetch_bytes: [300, 1000, 8 << 10][dice.index(3)],
            produce_gap_ms: [60, 150, 400][dice.index(3)],
        }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}
