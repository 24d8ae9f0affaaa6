//! G1c: steps that read what each other wrote, in a circle, so that each would have to come before the other.
//!
//! Only a step that both polls and sends can be part of one. Edges go from who sent a value to who polled it; that
//! offsets follow each other is no edge, because Kafka lets the writes of several overlap.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{History, What};
use super::{Anomaly, Verdict};

pub(super) fn check(history: &History, verdict: &mut Verdict) {
    let mut writers = writers(history);
    loop {
        prune(&mut writers);
        let Some(circle) = circle(&writers) else { return };
        verdict.report(Anomaly::G1c, || {
            let steps: Vec<String> = circle.iter().map(|op| history.who(*op)).collect();
            format!("each read what the next one sent, and the last what the first one sent: {}", steps.join("; "))
        });
        circle.iter().for_each(|op| drop(writers.remove(op)));
    }
}

/// Of each step, the others whose values it polled.
fn writers(history: &History) -> BTreeMap<u32, BTreeSet<u32>> {
    let mut writers = BTreeMap::new();
    for (index, op) in history.all() {
        let What::Records { sends, polls } = &op.what else { continue };
        if sends.is_empty() || polls.is_empty() {
            continue;
        }
        let of = polls.iter().filter_map(|polled| Some(history.sent.get(&polled.value?)?.0));
        writers.insert(index, of.filter(|writer| *writer != index).collect());
    }
    writers
}

/// Takes away whoever can't be in a circle: who read nothing of those that are left.
fn prune(writers: &mut BTreeMap<u32, BTreeSet<u32>>) {
    loop {
        let left: BTreeSet<u32> = writers.keys().copied().collect();
        let before = left.len();
        writers.retain(|_, of| {
            of.retain(|writer| left.contains(writer));
            !of.is_empty()
        });
        if writers.len() == before {
            return;
        }
    }
}

/// Everybody left has a writer that is left, so that going from one to the next comes round.
fn circle(writers: &BTreeMap<u32, BTreeSet<u32>>) -> Option<Vec<u32>> {
    let mut at = *writers.keys().next()?;
    let mut path = Vec::new();
    let mut places = BTreeMap::new();
    while !places.contains_key(&at) {
        places.insert(at, path.len());
        path.push(at);
        at = *writers.get(&at)?.first()?;
    }
    Some(path.split_off(*places.get(&at)?))
}
