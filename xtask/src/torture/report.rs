//! What a run comes to: faults, acknowledgements, anomalies, and how long writes were away after each kind of fault.
//!
//! Silence is the longest time without an acknowledgement in some partition, from the fault until the next one. Back
//! means that in every partition something that was sent after that moment is acknowledged. All of it is worked out
//! from the history, not measured on the way.

use std::collections::BTreeMap;

use serde::Serialize;

use super::checker::history::{History, Outcome, Process, Time};
use super::checker::{Harm, Numbers, Verdict};
use super::inject::Done;
use super::plan::{Kind, Target};

/// In milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Quantiles {
    pub(crate) fn of(mut micros: Vec<Time>) -> Quantiles {
        micros.sort_unstable();
        let at = |per_mille: usize| {
            let rank = (micros.len() * per_mille).div_ceil(1000).saturating_sub(1);
            micros.get(rank).map_or(0.0, |micros| *micros as f64 / 1e3)
        };
        Quantiles { count: micros.len(), p50: at(500), p99: at(990), p999: at(999), max: at(1000) }
    }

    fn words(&self) -> String {
        if self.count == 0 { "-".to_owned() } else { format!("{:.0} / {:.0} / {:.0}", self.p50, self.p99, self.max) }
    }
}

/// What one kind of fault did.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) faults: usize,
    pub(crate) silence_ms: Quantiles,
    /// From the end of the fault until writes were back.
    pub(crate) back_ms: Quantiles,
    /// After how many of them nothing more was seen of some partition: a run that ends, or one that is stuck.
    pub(crate) never_back: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) minutes: f64,
    pub(crate) clients: Vec<String>,
    pub(crate) faults: BTreeMap<&'static str, Figures>,
    /// A leader was killed: from the kill until writes to what it led were back.
    pub(crate) leader_killed_ms: Quantiles,
    /// A cut was healed.
    pub(crate) cut_healed_ms: Quantiles,
    /// All nodes were killed: from the start of them all.
    pub(crate) all_killed_ms: Quantiles,
    /// From when a record was due until it was acknowledged.
    pub(crate) latency_ms: Quantiles,
    pub(crate) numbers: Numbers,
    pub(crate) lost: usize,
    pub(crate) duplicated: usize,
    pub(crate) reordered: usize,
    pub(crate) invented: usize,
    pub(crate) other: usize,
    pub(crate) anomalies: BTreeMap<&'static str, Vec<String>>,
    /// What went wrong otherwise: brokers that ended, copies that did not come back in sync.
    pub(crate) failures: Vec<String>,
    /// Kinds of faults that this machine cannot do, and why.
    pub(crate) skipped: Vec<String>,
}

/// What is gathered for one kind of fault.
#[derive(Default)]
struct Times {
    faults: usize,
    silence: Vec<Time>,
    back: Vec<Time>,
    never_back: usize,
}

impl Times {
    fn figures(self) -> Figures {
        Figures {
            faults: self.faults,
            silence_ms: Quantiles::of(self.silence),
            back_ms: Quantiles::of(self.back),
            never_back: self.never_back,
        }
    }
}

/// What the history does not say.
pub(crate) struct Course {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) minutes: f64,
    pub(crate) done: Vec<Done>,
    pub(crate) failures: Vec<String>,
    pub(crate) skipped: Vec<String>,
}

impl Report {
    pub(crate) fn of(history: &History, verdict: &Verdict, course: Course) -> Report {
        let writes = Writes::of(history, |_| true);
        let mut kinds: BTreeMap<Kind, Times> = BTreeMap::new();
        let (mut leader_killed, mut cut_healed, mut all_killed) = (Vec::new(), Vec::new(), Vec::new());
        for (index, fault) in course.done.iter().enumerate() {
            let times = kinds.entry(fault.kind).or_default();
            times.faults += 1;
            let next = course.done.get(index + 1).map_or(Time::MAX, |next| next.began);
            times.silence.extend(writes.silence(fault.began, next));
            let was_back = fault.healed.map(|healed| writes.back(healed, |_| true));
            match was_back {
                Some(Some(time)) => times.back.push(time),
                _ => times.never_back += 1,
            }
            let was_back = was_back.flatten();
            if fault.kind == Kind::Kill && fault.nodes == 1 && !fault.led.is_empty() {
                leader_killed.extend(writes.back(fault.began, |key| fault.led.iter().any(|led| led == key)));
            }
            if fault.kind == Kind::Cut {
                cut_healed.extend(was_back);
            }
            if fault.kind == Kind::Kill && fault.target == Target::All {
                all_killed.extend(was_back);
            }
        }
        let mut clients: Vec<String> = history.versions.values().cloned().collect();
        clients.sort();
        clients.dedup();
        Report {
            seed: course.seed,
            nodes: course.nodes,
            minutes: course.minutes,
            clients,
            faults: kinds.into_iter().map(|(kind, of)| (kind.name(), of.figures())).collect(),
            leader_killed_ms: Quantiles::of(leader_killed),
            cut_healed_ms: Quantiles::of(cut_healed),
            all_killed_ms: Quantiles::of(all_killed),
            latency_ms: Quantiles::of(writes.latencies),
            numbers: verdict.numbers,
            lost: verdict.count(Harm::Lost),
            duplicated: verdict.count(Harm::Duplicated),
            reordered: verdict.count(Harm::Reordered),
            invented: verdict.count(Harm::Invented),
            other: verdict.count(Harm::Other),
            anomalies: examples(verdict),
            failures: course.failures,
            skipped: course.skipped,
        }
    }

    /// A run in which nothing was acknowledged proves nothing.
    pub(crate) fn is_good(&self) -> bool {
        self.anomalies.is_empty() && self.failures.is_empty() && self.numbers.acknowledged > 0
    }

    pub(crate) fn print(&self) {
        for (name, examples) in &self.anomalies {
            examples.iter().for_each(|example| println!("{name}: {example}"));
        }
        self.failures.iter().for_each(|failure| println!("failed: {failure}"));
        self.skipped.iter().for_each(|skipped| println!("left out: {skipped}"));
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header(["fault", "times", "silence ms p50 / p99 / max", "back after ms p50 / p99 / max", "not back"]);
        for (name, figures) in &self.faults {
            table.add_row([
                (*name).to_owned(),
                figures.faults.to_string(),
                figures.silence_ms.words(),
                figures.back_ms.words(),
                figures.never_back.to_string(),
            ]);
        }
        println!("{table}");
        for (name, quantiles) in [
            ("writes back after a leader is killed", &self.leader_killed_ms),
            ("writes back after a cut is healed", &self.cut_healed_ms),
            ("writes back after all are killed and started", &self.all_killed_ms),
            ("latency of a record that is due", &self.latency_ms),
        ] {
            println!("{name}, ms p50 / p99 / max of {}: {}", quantiles.count, quantiles.words());
        }
        let Numbers { sent, acknowledged, failed, unknown, unknown_found, polled, final_read, worst_lag, .. } =
            self.numbers;
        println!(
            "{acknowledged} of {sent} acknowledged, {failed} failed, {unknown} unknown ({unknown_found} of these \
             found), {polled} polled, {final_read} read at last, worst lag {:.1} s",
            worst_lag as f64 / 1e6
        );
        let faults: usize = self.faults.values().map(|figures| figures.faults).sum();
        println!(
            "{} nodes, {:.1} minutes, {faults} faults: {} lost, {} duplicated, {} reordered, {} invented, {} other",
            self.nodes, self.minutes, self.lost, self.duplicated, self.reordered, self.invented, self.other
        );
    }
}

/// The first few of each anomaly, and how many more there are.
pub(crate) fn examples(verdict: &Verdict) -> BTreeMap<&'static str, Vec<String>> {
    let words = |count: usize, examples: &[String]| {
        let mut words = examples.to_vec();
        if count > examples.len() {
            words.push(format!("and {} more", count - examples.len()));
        }
        words
    };
    verdict.anomalies().map(|(anomaly, count, examples)| (anomaly.name(), words(count, examples))).collect()
}

/// The acknowledgements of one partition.
#[derive(Debug, Default)]
struct Acknowledged {
    /// When they came, rising.
    at: Vec<Time>,
    /// When each record was sent, rising, and when the first of it and all later ones was acknowledged.
    sent: Vec<(Time, Time)>,
}

/// When what was acknowledged.
#[derive(Debug)]
pub(crate) struct Writes {
    by_key: BTreeMap<String, Acknowledged>,
    latencies: Vec<Time>,
}

impl Writes {
    /// Of all processes, or of those that `whose` lets through.
    pub(crate) fn of(history: &History, whose: impl Fn(Process) -> bool) -> Writes {
        let mut by_key: BTreeMap<String, Acknowledged> = BTreeMap::new();
        let mut latencies = Vec::new();
        for (_, op, send) in history.sends().filter(|(_, op, _)| whose(op.process)) {
            let Outcome::Ok { at, .. } = send.outcome else { continue };
            latencies.push(at.saturating_sub(send.intended));
            let name = history.name(send.key);
            if !by_key.contains_key(name) {
                by_key.insert(name.to_owned(), Acknowledged::default());
            }
            if let Some(of) = by_key.get_mut(name) {
                of.at.push(at);
                of.sent.push((op.began, at));
            }
        }
        for of in by_key.values_mut() {
            of.at.sort_unstable();
            of.sent.sort_unstable();
            let mut first = Time::MAX;
            for (_, at) in of.sent.iter_mut().rev() {
                first = first.min(*at);
                *at = first;
            }
        }
        Writes { by_key, latencies }
    }

    /// The longest time without an acknowledgement in some partition that began between these moments.
    pub(crate) fn silence(&self, from: Time, to: Time) -> Option<Time> {
        self.silences(from, to).max()
    }

    /// The same of each partition.
    pub(crate) fn silences(&self, from: Time, to: Time) -> impl Iterator<Item = Time> {
        self.by_key.values().filter_map(move |of| of.silence(from, to))
    }

    /// How long after a moment something sent since was acknowledged in each of these partitions.
    pub(crate) fn back(&self, from: Time, of: impl Fn(&str) -> bool) -> Option<Time> {
        let mut longest = None;
        for (_, acknowledged) in self.by_key.iter().filter(|(key, _)| of(key)) {
            let next = acknowledged.sent.partition_point(|(sent, _)| *sent < from);
            let (_, at) = acknowledged.sent.get(next)?;
            longest = longest.max(Some(at.saturating_sub(from)));
        }
        longest
    }
}

impl Acknowledged {
    fn silence(&self, from: Time, to: Time) -> Option<Time> {
        let mut longest = None;
        let mut last = from;
        let first = self.at.partition_point(|at| *at < from);
        for at in self.at.get(first..)? {
            if last >= to {
                break;
            }
            longest = longest.max(Some(at.saturating_sub(last)));
            last = *at;
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_are_there() {
        let quantiles = Quantiles::of((1..=200).rev().map(|it| it * 1_000).collect());
        assert_eq!(quantiles, Quantiles { count: 200, p50: 100.0, p99: 198.0, p999: 200.0, max: 200.0 });
        assert_eq!(Quantiles::of(vec![7_000]), Quantiles { count: 1, p50: 7.0, p99: 7.0, p999: 7.0, max: 7.0 });
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
    }

    #[test]
    fn silence_and_return_are_read_off_the_history() {
        let lines = "1 send 9 10 a-0=1.0\n1 ack 11 a-0@0=1.0\n1 send 19 20 a-0=1.1\n1 ack 60 a-0@1=1.1\n\
            1 send 40 40 a-0=1.2\n1 send 41 41 a-0=1.3\n1 ack 62 a-0@3=1.3\n1 ack 65 a-0@2=1.2\n\
            2 send 5 5 b-0=2.0\n2 ack 31 b-0@0=2.0\n\
            2 send 32 32 b-0=2.1\n2 ack 90 b-0@1=2.1";
        let writes = Writes::of(&History::read(lines.as_bytes()).unwrap(), |_| true);
        // a-0 has nothing from 12 to 60, b-0 from 31 to 90.
        assert_eq!(writes.silence(12, 30), Some(48));
        assert_eq!(writes.silence(12, 40), Some(59));
        assert_eq!(writes.silence(91, 99), None);
        // What was sent before does not count, though it is acknowledged later.
        assert_eq!(writes.back(30, |key| key == "a-0"), Some(32));
        assert_eq!(writes.back(30, |_| true), Some(60));
        assert_eq!(writes.back(41, |_| true), None);
        assert_eq!(writes.latencies, [2, 41, 25, 21, 26, 58]);
    }
}
