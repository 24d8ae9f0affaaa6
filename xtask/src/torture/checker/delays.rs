//! How long things take that have to happen at last: a reader comes to what is acknowledged, the last stable offset
//! comes to the high watermark.
//!
//! The lag of a reader is counted in time: from the acknowledgement of a value to the poll that reaches it.

use std::collections::BTreeMap;

use super::history::{History, Key, Outcome, Process, Time, What};
use super::{Anomaly, Limits, Verdict};

pub(super) fn check(history: &History, limits: Limits, verdict: &mut Verdict) {
    lag(history, limits.lag, verdict);
    last_stable(history, limits.lso, verdict);
}

/// Where a reader is among the acknowledged offsets, and the worst it has seen.
#[derive(Default)]
struct Reader {
    next: usize,
    /// Lag, offset, and the operation that came to it at last.
    worst: Option<(Time, i64, u32)>,
}

fn lag(history: &History, limit: Time, verdict: &mut Verdict) {
    let acknowledged = acknowledged(history);
    let mut readers: BTreeMap<(Process, Key), Reader> = BTreeMap::new();
    let mut last_ops: BTreeMap<Process, u32> = BTreeMap::new();
    for (index, op) in history.all() {
        last_ops.insert(op.process, index);
        match &op.what {
            What::Assign { from } => {
                for (key, offset) in from {
                    let next = acknowledged
                        .get(key.index())
                        .map_or(0, |acknowledged| acknowledged.partition_point(|(of, _)| of < offset));
                    readers.insert((op.process, *key), Reader { next, worst: None });
                }
            }
            What::Records { polls, .. } => {
                for polled in polls {
                    let Some(reader) = readers.get_mut(&(op.process, polled.key)) else { continue };
                    let Some(acknowledged) = acknowledged.get(polled.key.index()) else { continue };
                    reader.advance(acknowledged, polled.offset, op.ended, index);
                }
            }
            _ => {}
        }
    }
    for ((process, key), mut reader) in readers {
        // What it had not come to when it was heard of for the last time.
        if let (Some(index), Some(acknowledged)) = (last_ops.get(&process), acknowledged.get(key.index()))
            && let Some(op) = history.op(*index)
        {
            reader.advance(acknowledged, i64::MAX, op.ended, *index);
        }
        let Some((worst, offset, by)) = reader.worst else { continue };
        verdict.numbers.worst_lag = verdict.numbers.worst_lag.max(worst);
        if worst > limit {
            verdict.report(Anomaly::Lag, || {
                let (name, who, seconds) = (history.name(key), history.who(by), worst / 1_000_000);
                format!("{name}@{offset}: {who} was {seconds} s behind its acknowledgement")
            });
        }
    }
}

impl Reader {
    fn advance(&mut self, acknowledged: &[(i64, Time)], to: i64, now: Time, op: u32) {
        while let Some((offset, at)) = acknowledged.get(self.next).filter(|(offset, _)| *offset <= to) {
            self.next += 1;
            let lag = now.saturating_sub(*at);
            if self.worst.is_none_or(|(worst, ..)| lag > worst) {
                self.worst = Some((lag, *offset, op));
            }
        }
    }
}

/// Of each partition, the acknowledged offsets and when, by offset.
fn acknowledged(history: &History) -> Vec<Vec<(i64, Time)>> {
    let mut acknowledged: Vec<Vec<(i64, Time)>> = history.keys.iter().map(|_| Vec::new()).collect();
    for (_, _, send) in history.sends() {
        if let Outcome::Ok { at, offset: Some(offset) } = send.outcome
            && let Some(of) = acknowledged.get_mut(send.key.index())
        {
            of.push((offset, at));
        }
    }
    acknowledged.iter_mut().for_each(|of| of.sort_unstable());
    acknowledged
}

/// Since when a last stable offset is where it is, below the high watermark.
struct Still {
    offset: i64,
    since: Time,
    told: bool,
}

fn last_stable(history: &History, limit: Time, verdict: &mut Verdict) {
    let mut still: BTreeMap<Key, Still> = BTreeMap::new();
    for (index, op) in history.all() {
        let What::Ends { ends } = &op.what else { continue };
        for end in ends {
            if end.last_stable >= end.high_watermark {
                still.remove(&end.key);
                continue;
            }
            let fresh = Still { offset: end.last_stable, since: op.ended, told: false };
            let still = still.entry(end.key).or_insert(fresh);
            if still.offset != end.last_stable {
                *still = Still { offset: end.last_stable, since: op.ended, told: false };
            } else if !still.told && op.began.saturating_sub(still.since) > limit {
                still.told = true;
                let (since, high_watermark) = (still.since, end.high_watermark);
                verdict.report(Anomaly::StuckLso, || {
                    let (name, who, since) = (history.name(end.key), history.who(index), history.when(since));
                    format!("{name}: {} since {since}, below {high_watermark}, says {who}", end.last_stable)
                });
            }
        }
    }
}
