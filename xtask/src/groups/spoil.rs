//! Breaks a good history in one way, so that every run proves that its judge would have seen it.

use std::collections::HashMap;

use super::history::{Anomaly, Event, History, Time, What, Who};

/// Who never said anything in a real history.
const NOBODY: Who = Who::MAX;

/// Breaks the history so that this is wrong with it; `None` if there is nothing in it that could be broken so.
pub(crate) fn spoil(history: &History, anomaly: Anomaly, random: &mut fastrand::Rng) -> Option<History> {
    let mut history = history.clone();
    history.events.sort_by_key(|(_, event)| event.at);
    match anomaly {
        Anomaly::Unhandled => forget_a_record(&mut history, random),
        Anomaly::Wrong => change_a_number(&mut history, random),
        Anomaly::Skipped => begin_behind_the_first_record(&mut history, random),
        Anomaly::Jumped => handle_a_record_twice(&mut history, random),
        Anomaly::Rewound => begin_too_early(&mut history, random),
        Anomaly::Regressed => read_less_than_before(&mut history, random),
        Anomaly::Ahead => commit_too_much(&mut history, random),
        Anomaly::TwoOwners => give_to_a_second_owner(&mut history, random),
        Anomaly::Unowned => keep_an_assignment_secret(&mut history, random),
    }?;
    Some(history)
}

/// Removes records from what was handled.
fn unhandle(history: &mut History, which: impl Fn(i32, i64) -> bool) {
    for (_, event) in &mut history.events {
        if let What::Handled { records } = &mut event.what {
            records.retain(|(partition, offset, _)| !which(*partition, *offset));
        }
    }
}

fn forget_a_record(history: &mut History, random: &mut fastrand::Rng) -> Option<()> {
    let (partition, offset) = *random.choice(history.produced.keys())?;
    unhandle(history, |of, at| (of, at) == (partition, offset));
    Some(())
}

fn begin_behind_the_first_record(history: &mut History, random: &mut fastrand::Rng) -> Option<()> {
    // The record behind it must be there, for somebody to begin with.
    let firsts = history
        .produced
        .keys()
        .filter(|(partition, offset)| *offset == 0 && history.produced.contains_key(&(*partition, 1)));
    let (partition, _) = *random.choice(firsts.collect::<Vec<_>>())?;
    unhandle(history, |of, at| (of, at) == (partition, 0));
    Some(())
}

fn change_a_number(history: &mut History, random: &mut fastrand::Rng) -> Option<()> {
    let produced = history.produced.clone();
    let mut known: Vec<&mut (i32, i64, i64)> = history
        .events
        .iter_mut()
        .filter_map(|(_, event)| if let What::Handled { records } = &mut event.what { Some(records) } else { None })
        .flatten()
        .filter(|(partition, offset, _)| produced.contains_key(&(*partition, *offset)))
        .collect();
    let chosen = random.usize(0..known.len().max(1));
    known.get_mut(chosen)?.2 += 1;
    Some(())
}

fn handle_a_record_twice(history: &mut History, random: &mut fastrand::Rng) -> Option<()> {
    let event = one_of(history, random, |what| matches!(what, What::Handled { records } if !records.is_empty()))?;
    if let What::Handled { records } = &mut event.what {
        records.push(*records.last()?);
    }
    Some(())
}

fn begin_too_early(history: &mut History, random: &mut fastrand::Rng) -> Option<()> {
    let starts = starts_behind_a_commit(history);
    let (place, record) = *random.choice(&starts)?;
    if let What::Handled { records } = &mut history.events.get_mut(place)?.1.what {
        records.insert(0, record);
    }
    Some(())
}

/// Where an owner handles its first record of a partition of which something was committed before, and a record that
/// it must not begin with.
fn starts_behind_a_commit(history: &History) -> Vec<(usize, (i32, i64, i64))> {
    let mut committed: HashMap<i32, i64> = HashMap::new();
    let mut fresh: HashMap<(Who, i32), i64> = HashMap::new();
    let mut starts = Vec::new();
    for (place, (who, event)) in history.events.iter().enumerate() {
        match &event.what {
            What::Assigned { partitions, .. } => fresh.extend(
                partitions.iter().filter_map(|partition| Some(((*who, *partition), *committed.get(partition)?))),
            ),
            What::Committed { offsets, .. } => committed.extend(offsets.iter().copied()),
            What::Handled { records } => {
                for (partition, _, _) in records {
                    if let Some(before) = fresh.remove(&(*who, *partition)) {
                        starts.push((place, (*partition, before - 1, -1)));
                    }
                }
            }
            _ => {}
        }
    }
    starts.retain(|(_, record)| history.produced.contains_key(&(record.0, record.1)));
    starts
}

fn read_less_than_before(history: &mut History, random: &mut fastrand::Rng) -> Option<()> {
    let last = history.readings.len().checked_sub(1).filter(|last| *last > 0)?;
    let before = history.readings.get(last - 1)?.offsets.clone();
    let (partition, offset) =
        random.choice(before.into_iter().filter(|(_, offset)| *offset > 0).collect::<Vec<_>>())?;
    history.readings.get_mut(last)?.offsets.insert(partition, offset - 1);
    Some(())
}

fn commit_too_much(history: &mut History, random: &mut fastrand::Rng) -> Option<()> {
    let event = one_of(history, random, |what| matches!(what, What::Committed { offsets, .. } if !offsets.is_empty()))?;
    if let What::Committed { offsets, .. } = &mut event.what {
        offsets.first_mut()?.1 += 1_000_000;
    }
    Some(())
}

fn give_to_a_second_owner(history: &mut History, random: &mut fastrand::Rng) -> Option<()> {
    let event = one_of(history, random, |what| matches!(what, What::Committed { offsets, .. } if !offsets.is_empty()))?;
    let What::Committed { began, offsets, generation } = &event.what else { return None };
    let (at, generation, offsets): (Time, _, _) = (began - 1, generation + 1, vec![*offsets.first()?]);
    let partitions = offsets.iter().map(|(partition, _)| *partition).collect();
    let assigned = What::Assigned { generation, partitions };
    history.events.push((NOBODY, Event { at, what: assigned }));
    let committed = What::Committed { began: at, generation, offsets };
    history.events.push((NOBODY, Event { at, what: committed }));
    Some(())
}

/// The assignment in which a partition was that somebody then handled a record of.
fn keep_an_assignment_secret(history: &mut History, random: &mut fastrand::Rng) -> Option<()> {
    let mut given: HashMap<(Who, i32), usize> = HashMap::new();
    let mut used = Vec::new();
    for (place, (who, event)) in history.events.iter().enumerate() {
        match &event.what {
            What::Assigned { partitions, .. } => given.extend(partitions.iter().map(|it| ((*who, *it), place))),
            What::Handled { records } => {
                used.extend(records.iter().filter_map(|record| given.get(&(*who, record.0)).copied()));
            }
            _ => {}
        }
    }
    history.events.remove(*random.choice(&used)?);
    Some(())
}

fn one_of<'a>(
    history: &'a mut History,
    random: &mut fastrand::Rng,
    which: impl Fn(&What) -> bool,
) -> Option<&'a mut Event> {
    let mut found: Vec<&mut Event> =
        history.events.iter_mut().map(|(_, event)| event).filter(|event| which(&event.what)).collect();
    let chosen = random.usize(0..found.len().max(1));
    (chosen < found.len()).then(|| found.swap_remove(chosen))
}
