//! Which faults come when, on whom, and for how long: from a seed alone, so that a run can be repeated.
//!
//! Faults come every 5 to 10 seconds and overlap, on different nodes, within periods of 30 seconds; at the end of each
//! everything is healed. Who leads or coordinates is only known when a fault is done; that is in `inject`.

use std::time::Duration;

/// After so long everything is healed.
pub(crate) const PERIOD: Duration = Duration::from_secs(30);
const GAP_MS: (u64, u64) = (5_000, 10_000);
/// The last fault of a period begins so long before its end.
const LAST_MS: u64 = 3_000;
const HOUR: i64 = 3_600;
const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;

/// What can be chosen with `--faults`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// `kill -9`, and a start some seconds later
    Kill,
    /// SIGSTOP, and SIGCONT up to 25 seconds later
    Stop,
    /// A network that drops packets: all, those of one direction, of one peer, or of clients
    Cut,
    /// A disk without room
    DiskFull,
    /// A disk that hardly writes
    DiskSlow,
    /// A kill, bits flipped in the logs, and a start
    Flip,
    /// A wall clock that steps by an hour or ten years, either way
    Clock,
    /// One more node, and its decommission
    Member,
    /// A kill, and a start with an empty disk
    Wipe,
}

impl Kind {
    pub(crate) const ALL: [Kind; 9] = [
        Kind::Kill,
        Kind::Stop,
        Kind::Cut,
        Kind::DiskFull,
        Kind::DiskSlow,
        Kind::Flip,
        Kind::Clock,
        Kind::Member,
        Kind::Wipe,
    ];
    /// What needs nothing but processes and a network.
    pub(crate) const QUICK: [Kind; 3] = [Kind::Kill, Kind::Stop, Kind::Cut];

    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Stop => "stop",
            Kind::Cut => "cut",
            Kind::DiskFull => "disk-full",
            Kind::DiskSlow => "disk-slow",
            Kind::Flip => "flip",
            Kind::Clock => "clock",
            Kind::Member => "member",
            Kind::Wipe => "wipe",
        }
    }

    /// How often it comes, beside the others. What takes the longest comes the least.
    fn weight(self) -> u32 {
        match self {
            Kind::Kill | Kind::Stop | Kind::Cut => 8,
            Kind::DiskFull | Kind::DiskSlow | Kind::Clock => 3,
            Kind::Flip | Kind::Wipe => 2,
            Kind::Member => 1,
        }
    }
}

/// What gets through a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Full,
    Incoming,
    Outgoing,
    OnePeer,
    Clients,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill,
    Stop,
    Cut(Way),
    DiskFull,
    DiskSlow,
    Flip,
    /// Seconds from the true time.
    Clock(i64),
    Member,
    Wipe,
}

impl Fault {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Fault::Kill => Kind::Kill,
            Fault::Stop => Kind::Stop,
            Fault::Cut(_) => Kind::Cut,
            Fault::DiskFull => Kind::DiskFull,
            Fault::DiskSlow => Kind::DiskSlow,
            Fault::Flip => Kind::Flip,
            Fault::Clock(_) => Kind::Clock,
            Fault::Member => Kind::Member,
            Fault::Wipe => Kind::Wipe,
        }
    }

    /// Whether a copy is lost with it, or the cluster changes: then nothing else may be wrong at the same time, because
    /// more lost copies than `min.insync.replicas` allows for lose records by right (rule A5).
    pub(crate) fn comes_alone(self) -> bool {
        matches!(self, Fault::Flip | Fault::Member | Fault::Wipe)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Target {
    /// Of some partition.
    Leader,
    /// In sync, of some partition.
    Follower,
    /// The leader of the metadata log.
    Controller,
    /// Of the consumer group.
    Coordinator,
    Random,
    /// More than one, and not all.
    Several,
    All,
}

/// A fault, so long after the one before it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) gap: Duration,
    pub(crate) fault: Fault,
    pub(crate) target: Target,
    /// For what does not end by itself.
    pub(crate) lasts: Duration,
}

/// The faults of a run, without an end.
#[derive(Debug)]
pub(crate) struct Plan {
    random: fastrand::Rng,
    kinds: Vec<Kind>,
    /// Where the last fault began in its period.
    at_ms: u64,
}

impl Plan {
    /// There has to be at least one kind.
    pub(crate) fn new(seed: u64, kinds: &[Kind]) -> Plan {
        Plan { random: fastrand::Rng::with_seed(seed), kinds: kinds.to_vec(), at_ms: 0 }
    }

    /// The next fault of this period, or `None` once: the period is over.
    pub(crate) fn next(&mut self) -> Option<Planned> {
        let gap_ms = self.random.u64(GAP_MS.0..=GAP_MS.1);
        let period_ms = u64::try_from(PERIOD.as_millis()).unwrap_or(u64::MAX);
        self.at_ms += gap_ms;
        if self.at_ms + LAST_MS > period_ms {
            self.at_ms = 0;
            return None;
        }
        let fault = self.fault();
        let target = self.target(fault);
        let most_ms = match fault {
            // A killed broker is down for a moment, or as long as a machine takes to start.
            Fault::Kill => 8_000,
            _ => u64::MAX,
        };
        let lasts_ms = self.random.u64(1_000..=(period_ms - self.at_ms).min(most_ms).max(1_000));
        Some(Planned { gap: Duration::from_millis(gap_ms), fault, target, lasts: Duration::from_millis(lasts_ms) })
    }

    fn fault(&mut self) -> Fault {
        match self.kind() {
            Kind::Kill => Fault::Kill,
            Kind::Stop => Fault::Stop,
            Kind::Cut => {
                let ways = [Way::Full, Way::Incoming, Way::Outgoing, Way::OnePeer, Way::Clients];
                Fault::Cut(self.random.choice(ways).unwrap_or(Way::Full))
            }
            Kind::DiskFull => Fault::DiskFull,
            Kind::DiskSlow => Fault::DiskSlow,
            Kind::Flip => Fault::Flip,
            Kind::Clock => Fault::Clock(self.random.choice([HOUR, -HOUR, TEN_YEARS, -TEN_YEARS]).unwrap_or(HOUR)),
            Kind::Member => Fault::Member,
            Kind::Wipe => Fault::Wipe,
        }
    }

    fn kind(&mut self) -> Kind {
        let all: u32 = self.kinds.iter().map(|kind| kind.weight()).sum();
        let mut left = self.random.u32(..all.max(1));
        for kind in &self.kinds {
            match left.checked_sub(kind.weight()) {
                Some(rest) => left = rest,
                None => return *kind,
            }
        }
        Kind::Kill
    }

    fn target(&mut self, fault: Fault) -> Target {
        let one = [Target::Leader, Target::Follower, Target::Controller, Target::Coordinator, Target::Random];
        let several = matches!(fault, Fault::Kill | Fault::Stop | Fault::Cut(_)) && self.random.u8(..6) == 0;
        match several {
            true => self.random.choice([Target::Several, Target::All]),
            false => self.random.choice(one),
        }
        .unwrap_or(Target::Random)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plan(seed: u64, kinds: &[Kind], count: usize) -> Vec<Option<Planned>> {
        let mut plan = Plan::new(seed, kinds);
        (0..count).map(|_| plan.next()).collect()
    }

    #[test]
    fn a_seed_gives_one_plan() {
        assert_eq!(plan(7, &Kind::ALL, 200), plan(7, &Kind::ALL, 200));
        assert_ne!(plan(7, &Kind::ALL, 200), plan(8, &Kind::ALL, 200));
    }

    #[test]
    fn all_faults_come_and_all_targets_are_met() {
        let all: Vec<Planned> = plan(1, &Kind::ALL, 4_000).into_iter().flatten().collect();
        let kinds: BTreeSet<Kind> = all.iter().map(|it| it.fault.kind()).collect();
        assert_eq!(kinds.len(), Kind::ALL.len());
        let targets: BTreeSet<String> = all.iter().map(|it| format!("{:?}", it.target)).collect();
        assert_eq!(targets.len(), 7, "{targets:?}");
        let quick: BTreeSet<Kind> = plan(1, &Kind::QUICK, 500).iter().flatten().map(|it| it.fault.kind()).collect();
        assert_eq!(quick, BTreeSet::from(Kind::QUICK));
    }

    #[test]
    fn everything_is_over_by_the_end_of_a_period_and_there_are_300_in_an_hour() {
        let (mut at, mut faults, mut periods) = (Duration::ZERO, 0_u32, 0_u32);
        for planned in plan(3, &Kind::ALL, 10_000) {
            let Some(planned) = planned else {
                (at, periods) = (Duration::ZERO, periods + 1);
                continue;
            };
            at += planned.gap;
            faults += 1;
            assert!((5..=10).contains(&planned.gap.as_secs()), "{planned:?}");
            assert!(at + planned.lasts <= PERIOD, "{planned:?} at {at:?}");
            let alone = planned.fault.comes_alone() || matches!(planned.fault, Fault::Clock(_));
            assert!(!alone || !matches!(planned.target, Target::Several | Target::All), "{planned:?}");
        }
        assert!(faults * 3_600 / (periods * 30) >= 300, "{faults} in {periods} periods");
    }
}
