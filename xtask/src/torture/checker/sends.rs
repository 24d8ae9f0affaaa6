//! The order in which values get their offsets: a producer's own, and that of real time.
//!
//! All producers are idempotent, so that one producer's values of one partition stand in the order in which they were
//! sent. Between producers, what is sent after something was acknowledged or read has a higher offset: with that a
//! partition is one register that only grows, and every acknowledgement and every read lies between its begin and its
//! end. Also the high watermark that readers are told has to be past all that is known, and never goes back.

use std::collections::HashMap;

use super::history::{History, Key, Outcome, Process, Send, What, show};
use super::rising::Rising;
use super::versions::Versions;
use super::{Anomaly, Verdict};

pub(super) fn check(history: &History, versions: &Versions, verdict: &mut Verdict) {
    own_order(history, versions, verdict);
    let known = known(history);
    real_time(history, versions, &known, verdict);
    ends(history, &known, verdict);
}

/// The offset that a value has, by its acknowledgement or else by whoever read it.
fn offset_of(versions: &Versions, send: &Send) -> Option<i64> {
    match send.outcome {
        Outcome::Ok { offset: Some(offset), .. } => Some(offset),
        _ => versions.place(send.value).filter(|(key, _)| *key == send.key).map(|(_, offset)| offset),
    }
}

fn own_order(history: &History, versions: &Versions, verdict: &mut Verdict) {
    let mut last: HashMap<(Process, Key), (i64, u32, &Send)> = HashMap::new();
    for (index, op, send) in history.sends() {
        let Some(offset) = offset_of(versions, send) else { continue };
        let before = last.insert((op.process, send.key), (offset, index, send));
        if let Some((highest, by, earlier)) = before
            && offset <= highest
        {
            let anomaly = if by == index { Anomaly::IntNonmonotonicSend } else { Anomaly::NonmonotonicSend };
            verdict.report(anomaly, || {
                let (value, earlier) = (show(Some(send.value)), show(Some(earlier.value)));
                let (name, process) = (history.name(send.key), op.process);
                format!("{name}@{offset}: {value} of process {process}, whose earlier {earlier} is at {highest}")
            });
        }
    }
}

/// Of each partition, the offsets that somebody knows to be there, and since when.
fn known(history: &History) -> Vec<Rising> {
    let mut known: Vec<Rising> = history.keys.iter().map(|_| Rising::default()).collect();
    let mut push = |key: Key, at, offset, index| {
        if let Some(known) = known.get_mut(key.index()) {
            known.push(at, offset, index);
        }
    };
    for (index, op) in history.all() {
        let What::Records { sends, polls } = &op.what else { continue };
        for send in sends {
            if let Outcome::Ok { at, offset: Some(offset) } = send.outcome {
                push(send.key, at, offset, index);
            }
        }
        let mut polls = polls.iter().peekable();
        while let Some(polled) = polls.next() {
            // Of a run of records the last says it all, if offsets rise; and if they do not, that is told elsewhere.
            if polls.peek().is_none_or(|next| next.key != polled.key) {
                push(polled.key, op.ended, polled.offset, index);
            }
        }
    }
    known.iter_mut().for_each(Rising::seal);
    known
}

fn real_time(history: &History, versions: &Versions, known: &[Rising], verdict: &mut Verdict) {
    for (_, op, send) in history.sends() {
        let Some(offset) = offset_of(versions, send) else { continue };
        let before = known.get(send.key.index()).and_then(|known| known.before(op.began));
        if let Some((highest, by)) = before
            && offset <= highest
        {
            verdict.report(Anomaly::RealTimeOrder, || {
                let (name, value) = (history.name(send.key), show(Some(send.value)));
                let (began, knew) = (history.when(op.began), history.who(by));
                format!("{name}@{offset}: {value} was sent at {began}, when {highest} was known: {knew}")
            });
        }
    }
}

fn ends(history: &History, known: &[Rising], verdict: &mut Verdict) {
    let mut shown: Vec<Rising> = history.keys.iter().map(|_| Rising::default()).collect();
    let all = || {
        history.all().filter_map(|(index, op)| match &op.what {
            What::Ends { ends } => Some((index, op, ends)),
            _ => None,
        })
    };
    for (index, op, ends) in all() {
        for end in ends {
            if let Some(shown) = shown.get_mut(end.key.index()) {
                shown.push(op.ended, end.high_watermark, index);
            }
        }
    }
    shown.iter_mut().for_each(Rising::seal);
    for (index, op, ends) in all() {
        for end in ends {
            let past = known.get(end.key.index()).and_then(|known| known.before(op.began));
            let past = past.map(|(offset, by)| (offset.saturating_add(1), by));
            let before = shown.get(end.key.index()).and_then(|shown| shown.before(op.began));
            let Some((least, by)) = past.max(before).filter(|(least, _)| end.high_watermark < *least) else { continue };
            verdict.report(Anomaly::EndWentBack, || {
                let (name, who, knew) = (history.name(end.key), history.who(index), history.who(by));
                format!("{name}: {who} was told {}, and {least} was known before: {knew}", end.high_watermark)
            });
        }
    }
}
