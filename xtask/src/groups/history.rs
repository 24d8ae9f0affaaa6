//! What the members of a group said against the rules of a group: the judge of `cargo xtask groups`.
//!
//! Everything is told with the wall clock of the one machine, so that what caused something comes before it. What was
//! asked and answered has two times, and only what was answered before something else was asked is held to be earlier:
//! a member that was stopped may say "committed" long after others went on. The judge knows nothing of brokers or
//! processes; `spoil` breaks a history so that the judge can be judged.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;

/// Microseconds since the epoch.
pub(crate) type Time = u64;
/// Which process said something.
pub(crate) type Who = usize;

/// One line of a member's program, or its end.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    pub(crate) at: Time,
    #[serde(flatten)]
    pub(crate) what: What,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum What {
    Start {
        client: String,
    },
    Assigned {
        generation: i32,
        partitions: Vec<i32>,
    },
    #[serde(alias = "lost")]
    Revoked {
        partitions: Vec<i32>,
    },
    Handled {
        /// Partition, offset, and the number in the value.
        records: Vec<(i32, i64, i64)>,
    },
    Committed {
        began: Time,
        generation: i32,
        /// Partition, and the offset to go on from.
        offsets: Vec<(i32, i64)>,
    },
    Refused {
        error: String,
    },
    Error {
        error: String,
    },
    /// The process is gone. No program says this.
    #[serde(skip)]
    Ended,
}

/// What the broker said was committed, of every partition.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) began: Time,
    pub(crate) at: Time,
    pub(crate) offsets: BTreeMap<i32, i64>,
}

/// All that happened to one group.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The number of each acknowledged record, by partition and offset.
    pub(crate) produced: BTreeMap<(i32, i64), i64>,
    pub(crate) events: Vec<(Who, Event)>,
    pub(crate) readings: Vec<Reading>,
}

/// What can be wrong with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Anomaly {
    /// Acknowledged, and handled by nobody.
    Unhandled,
    /// Handled, and not what was acknowledged at that offset.
    Wrong,
    /// A new owner began behind records that nobody had handled.
    Skipped,
    /// An owner's position moved on other than by one.
    Jumped,
    /// A new owner began before what was known to be committed.
    Rewound,
    /// A committed offset became smaller.
    Regressed,
    /// Committed, and not handled up to there.
    Ahead,
    /// Two owned a partition in one generation, or one committed after it was another's.
    TwoOwners,
    /// Handled or committed by a member to which the partition was not assigned.
    Unowned,
}

impl Anomaly {
    pub(crate) const ALL: [Anomaly; 9] = [
        Anomaly::Unhandled,
        Anomaly::Wrong,
        Anomaly::Skipped,
        Anomaly::Jumped,
        Anomaly::Rewound,
        Anomaly::Regressed,
        Anomaly::Ahead,
        Anomaly::TwoOwners,
        Anomaly::Unowned,
    ];
}

const EXAMPLES: usize = 10;

/// How many of everything, and the first few in words.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    anomalies: BTreeMap<Anomaly, usize>,
    examples: Vec<String>,
}

impl Verdict {
    fn report(&mut self, anomaly: Anomaly, words: impl FnOnce() -> String) {
        *self.anomalies.entry(anomaly).or_default() += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{anomaly:?}: {}", words()));
        }
    }

    pub(crate) fn count(&self, anomaly: Anomaly) -> usize {
        self.anomalies.get(&anomaly).copied().unwrap_or(0)
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.anomalies.is_empty()
    }

    /// The first few anomalies, a line each.
    pub(crate) fn examples(&self) -> &[String] {
        &self.examples
    }
}

impl History {
    pub(crate) fn judge(&self) -> Verdict {
        let mut judge = Judge { history: self, partitions: HashMap::new(), verdict: Verdict::default() };
        for step in self.in_order() {
            match step {
                Step::Event(who, event) => judge.event(who, event),
                Step::Reading(reading) => judge.reading(reading),
            }
        }
        judge.finish()
    }

    fn in_order(&self) -> Vec<Step<'_>> {
        let mut steps: Vec<_> = self.events.iter().map(|(who, event)| Step::Event(*who, event)).collect();
        steps.extend(self.readings.iter().map(Step::Reading));
        // Stable: of one process everything stays in the order in which it was said.
        steps.sort_by_key(|step| match step {
            Step::Event(_, event) => event.at,
            Step::Reading(reading) => reading.at,
        });
        steps
    }
}

enum Step<'a> {
    Event(Who, &'a Event),
    Reading(&'a Reading),
}

/// A partition that a member was given, until it was taken away or the member died.
#[derive(Debug)]
struct Claim {
    who: Who,
    generation: i32,
    began: Time,
    ended: Option<Time>,
    /// When the last commit that was accepted was sent: up to here the coordinator took the claim to be good.
    last_commit: Option<Time>,
    /// Where the owner goes on, once it has handled anything.
    position: Option<i64>,
}

impl Claim {
    fn held_at(&self, time: Time) -> bool {
        self.ended.is_none_or(|ended| ended > time)
    }
}

/// What is known of one partition so far.
#[derive(Debug, Default)]
struct Partition {
    handled: Handled,
    /// When it was known for sure that so much was committed; both rise.
    committed: Vec<(Time, i64)>,
    claims: Vec<Claim>,
}

impl Partition {
    /// What was committed at that time, at least.
    fn committed_before(&self, time: Time) -> i64 {
        let known = self.committed.partition_point(|(at, _)| *at < time);
        known.checked_sub(1).and_then(|last| self.committed.get(last)).map_or(0, |(_, offset)| *offset)
    }

    fn is_committed(&mut self, at: Time, offset: i64) {
        if self.committed.last().is_none_or(|(_, last)| *last < offset) {
            self.committed.push((at, offset));
        }
    }

    fn claim_of(&mut self, who: Who) -> Option<&mut Claim> {
        self.claims.iter_mut().rev().find(|claim| claim.who == who && claim.ended.is_none())
    }
}

/// The offsets that somebody has handled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handled {
    /// Everything before this.
    end: i64,
    beyond: BTreeSet<i64>,
}

impl Handled {
    pub(crate) fn add(&mut self, offset: i64) {
        if offset >= self.end {
            self.beyond.insert(offset);
        }
        while self.beyond.remove(&self.end) {
            self.end += 1;
        }
    }

    /// Everything before this was handled, and this was not.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    fn contains(&self, offset: i64) -> bool {
        offset < self.end || self.beyond.contains(&offset)
    }
}

struct Judge<'a> {
    history: &'a History,
    partitions: HashMap<i32, Partition>,
    verdict: Verdict,
}

impl Judge<'_> {
    fn event(&mut self, who: Who, event: &Event) {
        let at = event.at;
        match &event.what {
            What::Start { .. } | What::Refused { .. } | What::Error { .. } => {}
            What::Assigned { generation, partitions } => {
                for partition in partitions {
                    self.release(who, *partition, at);
                    let generation = *generation;
                    let claim = Claim { who, generation, began: at, ended: None, last_commit: None, position: None };
                    self.partitions.entry(*partition).or_default().claims.push(claim);
                }
            }
            What::Revoked { partitions } => partitions.iter().for_each(|partition| self.release(who, *partition, at)),
            What::Handled { records } => records.iter().for_each(|record| self.handled(who, *record)),
            What::Committed { began, offsets, .. } => {
                offsets.iter().for_each(|(partition, offset)| self.committed(who, *partition, *offset, *began, at));
            }
            What::Ended => {
                let all: Vec<i32> = self.partitions.keys().copied().collect();
                all.into_iter().for_each(|partition| self.release(who, partition, at));
            }
        }
    }

    fn release(&mut self, who: Who, partition: i32, at: Time) {
        if let Some(claim) = self.partitions.entry(partition).or_default().claim_of(who) {
            claim.ended = Some(at);
        }
    }

    fn handled(&mut self, who: Who, (index, offset, number): (i32, i64, i64)) {
        let verdict = &mut self.verdict;
        let partition = self.partitions.entry(index).or_default();
        let words = |what: &str| format!("partition {index}, offset {offset}, process {who}: {what}");
        if let Some(sent) = self.history.produced.get(&(index, offset))
            && *sent != number
        {
            verdict.report(Anomaly::Wrong, || words(&format!("handled {number}, and {sent} was acknowledged")));
        }
        let end = partition.handled.end();
        match partition.claim_of(who).map(|claim| (claim.position.replace(offset + 1), claim.began)) {
            None => verdict.report(Anomaly::Unowned, || words("handled")),
            Some((Some(position), _)) => {
                if position != offset {
                    verdict.report(Anomaly::Jumped, || words(&format!("the position was {position}")));
                }
            }
            Some((None, began)) => {
                let committed = partition.committed_before(began);
                if offset < committed {
                    verdict.report(Anomaly::Rewound, || words(&format!("{committed} was committed")));
                }
                if offset > end {
                    verdict.report(Anomaly::Skipped, || words(&format!("nobody has handled {end}")));
                }
            }
        }
        partition.handled.add(offset);
    }

    fn committed(&mut self, who: Who, index: i32, offset: i64, began: Time, at: Time) {
        match self.partitions.entry(index).or_default().claim_of(who) {
            Some(claim) => claim.last_commit = Some(began),
            None => self
                .verdict
                .report(Anomaly::Unowned, || format!("partition {index}, process {who}: {offset} was committed")),
        }
        self.known(index, offset, began, at, &format!("committed by process {who}"));
    }

    fn reading(&mut self, reading: &Reading) {
        for (index, offset) in &reading.offsets {
            self.known(*index, *offset, reading.began, reading.at, "read from the broker");
        }
        for (index, partition) in &self.partitions {
            let committed = partition.committed_before(reading.began);
            if committed > 0 && !reading.offsets.contains_key(index) {
                let words = || format!("partition {index}: nothing read, after {committed}");
                self.verdict.report(Anomaly::Regressed, words);
            }
        }
    }

    /// An offset was committed at some moment between the two times.
    fn known(&mut self, index: i32, offset: i64, began: Time, at: Time, how: &str) {
        let partition = self.partitions.entry(index).or_default();
        let (committed, end) = (partition.committed_before(began), partition.handled.end());
        if offset < committed {
            let words = || format!("partition {index}: {offset} {how}, after {committed}");
            self.verdict.report(Anomaly::Regressed, words);
        }
        if offset > end {
            let words = || format!("partition {index}: {offset} {how}, and {end} was not handled");
            self.verdict.report(Anomaly::Ahead, words);
        }
        partition.is_committed(at, offset);
    }

    fn finish(mut self) -> Verdict {
        for (index, partition) in &self.partitions {
            two_owners(*index, &partition.claims, &mut self.verdict);
        }
        for ((index, offset), number) in &self.history.produced {
            if !self.partitions.get(index).is_some_and(|it| it.handled.contains(*offset)) {
                let words = || format!("partition {index}, offset {offset}: number {number}");
                self.verdict.report(Anomaly::Unhandled, words);
            }
        }
        self.verdict
    }
}

/// The claims of one partition are in the order in which they began.
///
/// A library whose program has stalled tells it of an assignment when that is long over, and may know no generation by
/// then (-1): a claim counts against commits of others only once a commit of its own was accepted.
fn two_owners(partition: i32, claims: &[Claim], verdict: &mut Verdict) {
    for (place, claim) in claims.iter().enumerate() {
        for later in claims.iter().skip(place + 1).filter(|later| later.who != claim.who) {
            let words = |what: &str| {
                format!(
                    "partition {partition}: process {} of generation {} {what} process {} of generation {}",
                    claim.who, claim.generation, later.who, later.generation
                )
            };
            let same_generation = claim.generation == later.generation && claim.generation >= 0;
            if later.last_commit.is_some() && claim.last_commit.is_some_and(|commit| commit > later.began) {
                verdict.report(Anomaly::TwoOwners, || words("committed when it belonged to"));
            } else if same_generation && claim.held_at(later.began) {
                verdict.report(Anomaly::TwoOwners, || words("still had it when it was given to"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two members in turn, one record at a time, each said to be handled and then committed.
    fn good() -> History {
        let mut history = History::default();
        for number in 0..8 {
            history.produced.insert((0, number), 100 + number);
        }
        let mut at = 0;
        for (who, generation, offsets) in [(1, 1, 0..4), (2, 2, 4..8)] {
            let mut say = |what| {
                at += 10;
                history.events.push((who, Event { at, what }));
                at
            };
            say(What::Assigned { generation, partitions: vec![0] });
            for offset in offsets {
                let began = say(What::Handled { records: vec![(0, offset, 100 + offset)] }) + 1;
                let at = say(What::Committed { began, generation, offsets: vec![(0, offset + 1)] });
                let reading = Reading { began: at + 1, at: at + 2, offsets: BTreeMap::from([(0, offset + 1)]) };
                history.readings.push(reading);
            }
            say(What::Revoked { partitions: vec![0] });
        }
        history
    }

    #[test]
    fn a_good_history_is_clean() {
        let verdict = good().judge();
        assert!(verdict.is_clean(), "{verdict:?}");
    }

    #[test]
    fn every_anomaly_that_is_put_into_a_good_history_is_seen() {
        for seed in 0..50 {
            for anomaly in Anomaly::ALL {
                let mut random = fastrand::Rng::with_seed(seed);
                let spoilt = super::super::spoil::spoil(&good(), anomaly, &mut random).expect("something to spoil");
                let verdict = spoilt.judge();
                assert!(verdict.count(anomaly) > 0, "{anomaly:?}, seed {seed}: {verdict:?}");
            }
        }
    }

    #[test]
    fn a_member_that_was_stopped_may_say_committed_long_after_others_went_on() {
        let mut history = good();
        let (_, last_of_first) = &mut history.events[8];
        let What::Committed { began, .. } = &last_of_first.what else { panic!("{last_of_first:?}") };
        assert!(*began < last_of_first.at);
        last_of_first.at = 1_000;
        history.events[9].1.at = 1_001;
        let verdict = history.judge();
        assert!(verdict.is_clean(), "{verdict:?}");
    }

    #[test]
    fn records_may_be_handled_again_from_the_committed_offset_on() {
        let mut history = good();
        // The first member's last commit was not accepted, and the second begins where the one before it ended.
        history.events.remove(8);
        history.readings.remove(3);
        let (_, first_of_second) = &mut history.events[10];
        let What::Handled { records } = &mut first_of_second.what else { panic!("{first_of_second:?}") };
        records.insert(0, (0, 3, 103));
        let verdict = history.judge();
        assert!(verdict.is_clean(), "{verdict:?}");
    }

    #[test]
    fn two_owners_in_one_generation_are_seen_without_a_commit() {
        let assigned = |at| Event { at, what: What::Assigned { generation: 3, partitions: vec![0] } };
        let mut history = History { events: vec![(1, assigned(1)), (2, assigned(2))], ..History::default() };
        assert_eq!(history.judge().count(Anomaly::TwoOwners), 1);
        // A static member that was started again gets what it had, in the same generation.
        history.events.insert(1, (1, Event { at: 1, what: What::Ended }));
        assert!(history.judge().is_clean());
    }

    #[test]
    fn a_commit_that_a_reading_no_longer_has_is_lost() {
        let mut history = good();
        history.readings.last_mut().expect("readings").offsets.clear();
        assert_eq!(history.judge().count(Anomaly::Regressed), 1);
    }

    #[test]
    fn the_lines_of_a_member_become_events() {
        for line in [
            r#"{"at":1,"event":"start","client":"some client 1.0"}"#,
            r#"{"at":1,"event":"assigned","member":"m","generation":5,"partitions":[1,2]}"#,
            r#"{"at":1,"event":"lost","partitions":[1]}"#,
            r#"{"at":1,"event":"handled","records":[[1,2,3]]}"#,
            r#"{"at":2,"began":1,"event":"committed","generation":5,"offsets":[[1,3]]}"#,
            r#"{"at":1,"event":"refused","error":"no"}"#,
        ] {
            assert!(serde_json::from_str::<Event>(line).is_ok(), "{line}");
        }
        assert!(serde_json::from_str::<Event>(r#"{"at":1,"event":"nonsense"}"#).is_err());
    }
}
