//! Committed offsets and owners of partitions, of the one group there is.
//!
//! What is committed is never smaller than what was known to be committed before: by a commit that was answered, or by
//! a reading. A commit that nobody knows the fate of may come late, and explains what is smaller from there on.
//! Nobody commits a partition after another member of a later generation was given it (G5).

use super::history::{History, Key, Op, Outcome, Process, Time, What};
use super::rising::Rising;
use super::{Anomaly, Verdict};

pub(super) fn check(history: &History, verdict: &mut Verdict) {
    offsets(history, verdict);
    owners(history, verdict);
}

fn offsets(history: &History, verdict: &mut Verdict) {
    let mut known: Vec<Rising> = history.keys.iter().map(|_| Rising::default()).collect();
    // Of commits that may have happened the smallest offsets: what rises is the negated offset.
    let mut unknown: Vec<Rising> = history.keys.iter().map(|_| Rising::default()).collect();
    for (index, op) in history.all() {
        for (key, offset) in committed(op) {
            if let Some(known) = known.get_mut(key.index()) {
                known.push(op.ended, *offset, index);
            }
        }
        if let What::Commit { outcome: Outcome::Info, offsets } = &op.what {
            for (key, offset) in offsets {
                if let Some(unknown) = unknown.get_mut(key.index()) {
                    unknown.push(op.began, offset.saturating_neg(), index);
                }
            }
        }
    }
    known.iter_mut().chain(&mut unknown).for_each(Rising::seal);
    for (index, op) in history.all() {
        for (key, offset) in committed(op) {
            let before = known.get(key.index()).and_then(|known| known.before(op.began));
            let Some((highest, by)) = before.filter(|(highest, _)| offset < highest) else { continue };
            let late = unknown.get(key.index()).and_then(|unknown| unknown.before(op.ended));
            if late.is_some_and(|(least, _)| least.saturating_neg() <= *offset) {
                continue;
            }
            verdict.report(Anomaly::OffsetRegression, || {
                let (name, who, knew) = (history.name(*key), history.who(index), history.who(by));
                format!("{name}: {offset} is committed, says {who}, and {highest} was before, says {knew}")
            });
        }
    }
}

/// What this operation shows to be committed.
fn committed(op: &Op) -> &[(Key, i64)] {
    match &op.what {
        What::Commit { outcome: Outcome::Ok { .. }, offsets } | What::Committed { offsets } => offsets,
        _ => &[],
    }
}

/// A partition that a member was given.
struct Claim {
    process: Process,
    generation: i32,
    at: Time,
    op: u32,
}

fn owners(history: &History, verdict: &mut Verdict) {
    let mut claims: Vec<Vec<Claim>> = history.keys.iter().map(|_| Vec::new()).collect();
    for (op, given) in history.all() {
        let What::Assigned { generation, keys } = &given.what else { continue };
        for key in keys {
            let Some(of) = claims.get_mut(key.index()) else { continue };
            let same = |claim: &&Claim| claim.generation == *generation && claim.process != given.process;
            if let Some(other) = of.iter().rev().find(same) {
                verdict.report(Anomaly::TwoOwners, || {
                    let (name, one, two) = (history.name(*key), history.who(other.op), history.who(op));
                    format!("{name}: generation {generation} gave it to {one} and to {two}")
                });
            }
            of.push(Claim { process: given.process, generation: *generation, at: given.ended, op });
        }
    }
    // By time: what several processes say is not in order.
    claims.iter_mut().for_each(|of| of.sort_by_key(|claim| claim.at));
    for (index, op) in history.all() {
        let What::Commit { outcome: Outcome::Ok { .. }, offsets } = &op.what else { continue };
        for (key, offset) in offsets {
            let Some(of) = claims.get(key.index()) else { continue };
            let by_then = of.get(..of.partition_point(|claim| claim.at < op.began)).unwrap_or_default();
            let Some(newest) = by_then.iter().max_by_key(|claim| claim.generation) else { continue };
            let own = by_then.iter().rev().find(|claim| claim.process == op.process);
            if newest.process != op.process && own.is_none_or(|own| own.generation < newest.generation) {
                verdict.report(Anomaly::TwoOwners, || {
                    let (name, who, owner) = (history.name(*key), history.who(index), history.who(newest.op));
                    format!("{name}: {who} committed {offset}, and it had been given to {owner}")
                });
            }
        }
    }
}
