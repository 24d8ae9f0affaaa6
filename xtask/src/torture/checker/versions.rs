//! What each partition holds, by offset, as all of a history shows it: and what is lost, twice, or nobody's.
//!
//! The version order of a partition is its values by offset, from every acknowledgement and every read. What is
//! acknowledged has to be in the final read, and so has to be what somebody has read: readers are only shown what is
//! committed.

use std::collections::{BTreeSet, HashMap};

use super::history::{History, Key, Op, Outcome, What, show};
use super::{Anomaly, Verdict};
use crate::history::Sent;

/// A value at an offset, and the first operation that says so.
#[derive(Clone, Copy, Debug)]
struct Version {
    value: Sent,
    by: u32,
}

/// What is known of a value.
#[derive(Clone, Copy, Debug)]
struct Fact {
    place: (Key, i64),
    by: u32,
    /// The first operation that polled it.
    polled: Option<u32>,
    in_final: bool,
}

/// How far the final read of a partition went, and whether anybody read how far before.
#[derive(Clone, Copy, Debug, Default)]
struct Reach {
    /// From, and to before.
    last: Option<(i64, i64)>,
    /// The highest offset that was read at all.
    highest: Option<i64>,
}

pub(super) struct Versions {
    /// Of each partition, the offsets that have a value, rising.
    orders: Vec<Vec<i64>>,
    facts: HashMap<Sent, Fact>,
    reaches: Vec<Reach>,
}

impl Versions {
    /// Gathers everything, and reports what contradicts itself.
    pub(super) fn of(history: &History, verdict: &mut Verdict) -> Versions {
        let mut gather = Gather {
            history,
            verdict,
            versions: history.keys.iter().map(|_| HashMap::new()).collect(),
            facts: HashMap::with_capacity(history.sent.len()),
            reaches: vec![Reach::default(); history.keys.len()],
            reported: BTreeSet::new(),
        };
        gather.everything();
        let Gather { versions, facts, reaches, .. } = gather;
        let orders = versions.into_iter().map(|of| {
            let mut offsets: Vec<i64> = of.into_keys().collect();
            offsets.sort_unstable();
            offsets
        });
        Versions { orders: orders.collect(), facts, reaches }
    }

    /// Where a value is, if anybody knows.
    pub(super) fn place(&self, value: Sent) -> Option<(Key, i64)> {
        self.facts.get(&value).map(|fact| fact.place)
    }

    /// The first offset between these two, without them, that has a value.
    pub(super) fn between(&self, key: Key, after: i64, before: i64) -> Option<i64> {
        let order = self.orders.get(key.index())?;
        let next = order.partition_point(|offset| *offset <= after);
        order.get(next).copied().filter(|offset| *offset < before)
    }

    /// Looks for what is gone, and for what came of sends that failed.
    pub(super) fn check(&self, history: &History, verdict: &mut Verdict) {
        verdict.numbers.operations = history.ops.len();
        for (_, op, send) in history.sends() {
            verdict.numbers.sent += 1;
            let fact = self.facts.get(&send.value).filter(|fact| fact.place.0 == send.key);
            let seen = fact.filter(|fact| fact.in_final || fact.polled.is_some());
            let name = history.name(send.key);
            let said =
                || format!("{} sent by process {} at {}", show(Some(send.value)), op.process, history.when(op.began));
            match (send.outcome, seen) {
                (Outcome::Fail, _) => verdict.numbers.failed += 1,
                (Outcome::Info, _) => verdict.numbers.unknown += 1,
                (Outcome::Ok { .. }, _) => verdict.numbers.acknowledged += 1,
            }
            match (send.outcome, seen) {
                (Outcome::Fail, Some(fact)) => verdict.report(Anomaly::FailedRead, || {
                    let reader = fact.polled.map_or_else(|| "the final read".to_owned(), |by| history.who(by));
                    format!("{name}@{}: {} failed for good, and was read by {reader}", fact.place.1, said())
                }),
                (Outcome::Ok { at, offset }, _) => {
                    let offset = offset.or(fact.map(|fact| fact.place.1));
                    let acknowledged = || format!("{}, acknowledged at {}", said(), history.when(at));
                    self.missing(send.key, offset, seen, name, &acknowledged, verdict);
                }
                (Outcome::Info, Some(fact)) => {
                    verdict.numbers.unknown_found += 1;
                    let place = Some(fact.place.1);
                    let read = || format!("{}, not acknowledged, but read by {}", said(), history.who(fact.by));
                    self.missing(send.key, place, seen, name, &read, verdict);
                }
                _ => {}
            }
        }
    }

    /// Reports a value that has to be there and is not.
    fn missing(
        &self,
        key: Key,
        offset: Option<i64>,
        seen: Option<&Fact>,
        name: &str,
        words: &dyn Fn() -> String,
        verdict: &mut Verdict,
    ) {
        let reach = self.reaches.get(key.index()).copied().unwrap_or_default();
        let shown = offset.map_or_else(|| "?".to_owned(), |offset| offset.to_string());
        match (reach.last, seen) {
            (Some(_), Some(fact)) if fact.in_final => {}
            (Some((from, to)), _) => {
                let beyond = offset.is_some_and(|offset| offset >= to) && seen.is_none();
                let anomaly = if beyond { Anomaly::Unseen } else { Anomaly::LostWrite };
                verdict.report(anomaly, || {
                    format!("{name}@{shown}: {}, is not in the final read of {from} to before {to}", words())
                });
            }
            (None, Some(_)) => {}
            (None, None) => match (offset, reach.highest) {
                (Some(offset), Some(highest)) if offset < highest => verdict.report(Anomaly::LostWrite, || {
                    format!("{name}@{shown}: {}, was never read, and {highest} was", words())
                }),
                _ => verdict.report(Anomaly::Unseen, || format!("{name}@{shown}: {}, was never read", words())),
            },
        }
    }
}

/// What is gathered, and who said so.
struct Gather<'a> {
    history: &'a History,
    verdict: &'a mut Verdict,
    versions: Vec<HashMap<i64, Version>>,
    facts: HashMap<Sent, Fact>,
    reaches: Vec<Reach>,
    /// Each contradiction is told once, however many readers meet it.
    reported: BTreeSet<(Anomaly, Key, i64)>,
}

/// How somebody knows of a value at an offset.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Acknowledged,
    Polled,
    Final,
}

impl Gather<'_> {
    fn everything(&mut self) {
        let history = self.history;
        for (index, op) in history.all() {
            match &op.what {
                What::Records { sends, polls } => {
                    for send in sends {
                        if let Outcome::Ok { offset: Some(offset), .. } = send.outcome {
                            self.sighting(index, (send.key, offset), send.value, How::Acknowledged);
                        }
                    }
                    self.verdict.numbers.polled += polls.len();
                    for polled in polls {
                        self.read(index, op, (polled.key, polled.offset), polled.value, How::Polled);
                    }
                }
                What::Final { key, from, to, records } => {
                    self.verdict.numbers.final_read += records.len();
                    if let Some(reach) = self.reaches.get_mut(key.index()) {
                        let (first, end) = reach.last.unwrap_or((*from, *to));
                        reach.last = Some((first.min(*from), end.max(*to)));
                    }
                    for (offset, value) in records {
                        self.read(index, op, (*key, *offset), *value, How::Final);
                    }
                }
                _ => {}
            }
        }
    }

    fn read(&mut self, by: u32, op: &Op, place: (Key, i64), value: Option<Sent>, how: How) {
        if let Some(reach) = self.reaches.get_mut(place.0.index()) {
            reach.highest = reach.highest.max(Some(place.1));
        }
        let history = self.history;
        let sent = value.and_then(|value| history.send_of(value));
        let wrong = match (value, sent) {
            (None, _) => Some("a damaged value".to_owned()),
            (_, None) => Some(format!("{}, which nobody sent", show(value))),
            (_, Some((_, send))) if send.key != place.0 => {
                Some(format!("{}, which was sent to {}", show(value), history.name(send.key)))
            }
            (_, Some((sender, _))) if sender.began > op.ended => {
                Some(format!("{}, which was sent later, at {}", show(value), history.when(sender.began)))
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            self.report(Anomaly::Invented, place, || {
                format!("{}@{}: {} read {wrong}", history.name(place.0), place.1, history.who(by))
            });
        }
        if let Some(value) = value {
            self.sighting(by, place, value, how);
        }
    }

    fn sighting(&mut self, by: u32, place: (Key, i64), value: Sent, how: How) {
        let history = self.history;
        let (key, offset) = place;
        let Some(version) = self.versions.get_mut(key.index()) else { return };
        let version = *version.entry(offset).or_insert(Version { value, by });
        if version.value != value {
            self.report(Anomaly::InconsistentOffsets, place, || {
                let (one, other) = (show(Some(version.value)), show(Some(value)));
                let (first, second) = (history.who(version.by), history.who(by));
                format!("{}@{offset}: {one} says {first}, {other} says {second}", history.name(key))
            });
        }
        let fact = self.facts.entry(value).or_insert(Fact { place, by, polled: None, in_final: false });
        match how {
            How::Acknowledged => {}
            How::Polled => fact.polled = fact.polled.or(Some(by)),
            How::Final => fact.in_final = true,
        }
        let first = *fact;
        if first.place != place {
            self.report(Anomaly::Duplicate, place, || {
                format!(
                    "{} is at {}@{}, says {}, and at {}@{offset}, says {}",
                    show(Some(value)),
                    history.name(first.place.0),
                    first.place.1,
                    history.who(first.by),
                    history.name(key),
                    history.who(by)
                )
            });
        }
    }

    fn report(&mut self, anomaly: Anomaly, (key, offset): (Key, i64), words: impl FnOnce() -> String) {
        if self.reported.insert((anomaly, key, offset)) {
            self.verdict.report(anomaly, words);
        }
    }
}
