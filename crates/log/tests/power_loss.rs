//! Power cuts at random moments: what a completed sync covered is there afterwards, byte for byte, and what the log
//! says of itself agrees with what is in its files. The same runs with a sync taken out must fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::slice;

use bytes::Bytes;
use common::*;
use ottla_log::{Checkpoint, Disk, Log, SimDisk, StoredBatch, SyncPlan};
use ottla_records::{BatchHeader, crc_matches};
use ottla_types::{LeaderEpoch, Offset};
use proptest::prelude::*;

/// What was stored, as the test remembers it.
struct History {
    /// Base offset and the bytes behind the head, which the log owns.
    batches: Vec<(Offset, Bytes)>,
    end: Offset,
    acknowledged: Offset,
    start: Offset,
    sequences: [i32; 3],
    checkpoint: Option<Checkpoint>,
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Missing {
    Nothing,
    FileSyncs,
    DirSyncs,
}

impl History {
    fn append(&mut self, log: &mut Log, dice: &mut Dice, epoch: i32) {
        let mut group: Vec<StoredBatch> = Vec::new();
        let mut end = self.end;
        for _ in 0..=dice.roll(3) {
            let count = 1 + dice.roll(4) as usize;
            let mut batch = if dice.roll(2) == 0 {
                let id = dice.roll(3) as usize;
                let batch = idempotent(id as i64, 0, self.sequences[id], count);
                self.sequences[id] += count as i32;
                batch
            } else {
                batch_at(NOW.0 + dice.roll(10_000) as i64, count, dice.roll(1500) as usize)
            };
            batch.epoch = LeaderEpoch(epoch);
            self.batches.push((end, batch.bytes.slice(16..)));
            end = Offset(end.0 + count as i64);
            group.push(batch);
        }
        let appended = log.append(&group, NOW).unwrap();
        assert_eq!((appended.first, appended.end.offset), (self.end, end));
        self.end = end;
    }

    /// The history ends where the log does after a crash; the producers go on from there.
    fn cut(&mut self, end: Offset) {
        self.batches.retain(|(base, _)| *base < end);
        self.end = end;
        self.sequences = [0; 3];
        for (_, bytes) in &self.batches {
            let whole =
                [&[0, 0, 0, 0, 0, 0, 0, 0], &((bytes.len() + 4) as u32).to_be_bytes()[..], &[0; 4], bytes].concat();
            let header = BatchHeader::parse(&whole).unwrap();
            if let Some(sequence) = self.sequences.get_mut(header.producer_id.0 as usize) {
                *sequence = header.last_sequence() + 1;
            }
        }
    }

    fn check(&self, log: &Log) -> Result<(), String> {
        let end = log.end().offset;
        if end < self.acknowledged {
            return Err(format!("{} was acknowledged, the log ends at {end}", self.acknowledged));
        }
        let reader = log.reader();
        let mut found = Vec::new();
        for batch in reader.batches(log.start(), reader.end()) {
            let (header, bytes) = batch.map_err(|error| error.to_string())?;
            if !crc_matches(&bytes) {
                return Err(format!("a bad checksum at {}", header.base_offset));
            }
            found.push((header.base_offset, bytes.slice(16..)));
        }
        let first = found.first().map_or(end, |(base, _)| *base);
        let expected: Vec<_> = self.batches.iter().filter(|(base, _)| *base >= first && *base < end).cloned().collect();
        if first > self.start.max(log.start()) {
            return Err(format!("the log begins at {first}, not {}", self.start));
        }
        if expected != found {
            let difference = expected.iter().zip(&found).find(|(a, b)| a != b).map(|(a, b)| (a.0, b.0));
            return Err(format!(
                "{} batches, not the {} that were appended; first difference: {difference:?}",
                found.len(),
                expected.len()
            ));
        }
        Ok(())
    }
}

/// One life of a log with several power cuts.
fn live(seed: u64, missing: Missing) -> Result<(), String> {
    let mut dice = Dice(seed);
    let mut sim = SimDisk::new(seed);
    let mut history = History {
        batches: Vec::new(),
        end: Offset(0),
        acknowledged: Offset(0),
        start: Offset(0),
        sequences: [0; 3],
        checkpoint: None,
    };
    // The directory above is the node's, and durable.
    sim.create_dir_all("data".as_ref()).unwrap();
    sim.sync_dir("".as_ref()).unwrap();
    for epoch in 0..4 {
        sim.lie_about_syncs(missing == Missing::FileSyncs);
        sim.lie_about_dir_syncs(missing == Missing::DirSyncs);
        let (mut log, recovered) =
            try_open(&sim, small(), history.checkpoint.clone()).map_err(|error| error.to_string())?;
        if let Some(damage) = recovered.damaged {
            return Err(format!("damage reported: {damage}"));
        }
        history.check(&log)?;
        history.cut(log.end().offset);
        history.acknowledged = log.durable_end().offset;
        check_indexes(&log);
        check_producers(&sim, &log);
        log.assign_epoch(LeaderEpoch(epoch)).unwrap();
        for _ in 0..dice.roll(60) {
            match dice.roll(12) {
                0..=5 => history.append(&mut log, &mut dice, epoch),
                6 => log.roll(NOW).unwrap(),
                7 => {
                    sync(&mut log);
                    history.acknowledged = log.durable_end().offset;
                }
                8 => {
                    if let Some(plan) = log.begin_sync() {
                        let file_system = sim.file_system("".as_ref()).unwrap();
                        let result = SyncPlan::run_together(slice::from_ref(&plan), &*file_system).remove(0);
                        log.complete_sync(plan, result).unwrap();
                        history.acknowledged = log.durable_end().offset;
                    }
                }
                9 => {
                    if let Some(plan) = log.begin_sync() {
                        history.append(&mut log, &mut dice, epoch);
                        let result = plan.run();
                        let to = plan.to().offset;
                        log.complete_sync(plan, result).unwrap();
                        assert_eq!(log.durable_end().offset, to);
                        history.acknowledged = to;
                    }
                }
                10 => history.checkpoint = Some(log.checkpoint()),
                _ => {
                    let to = Offset(history.acknowledged.0 * 2 / 3);
                    log.advance_start(to).unwrap();
                    history.start = history.start.max(to);
                    log.remove_deleted(NOW);
                }
            }
        }
        // Half of the cuts come in the middle of a sync.
        if dice.roll(2) == 0
            && let Some(plan) = log.begin_sync()
        {
            sim.fail_after(dice.roll(8));
            let file_system = sim.file_system("".as_ref()).unwrap();
            let result = match dice.roll(2) {
                0 => plan.run(),
                _ => SyncPlan::run_together(slice::from_ref(&plan), &*file_system).remove(0),
            };
            if result.is_ok() {
                history.acknowledged = plan.to().offset;
            }
        }
        sim = sim.crash();
    }
    Ok(())
}

/// P3: the producers are what a replay of the whole log makes of it.
fn check_producers(sim: &SimDisk, log: &Log) {
    if log.start() > Offset(0) {
        return;
    }
    let copy = sim.fork();
    for name in copy.list(&dir()).unwrap() {
        if name.ends_with(".producers") {
            copy.remove(&dir().join(name)).unwrap();
        }
    }
    let (replayed, recovered) = open(&copy, small(), None);
    assert_eq!(recovered.damaged, None);
    assert_eq!(replayed.end().offset, log.end().offset, "{:?} {:?}", sim.list(&dir()), log.segments());
    assert!(replayed.producers().same_state(log.producers()), "the producers differ from a replay");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn l4_l8_p3_what_a_sync_covered_survives_a_power_cut(seed: u64) {
        prop_assert_eq!(live(seed, Missing::Nothing), Ok(()));
    }
}

#[test]
fn l8_with_the_file_syncs_missing_the_checker_sees_it() {
    assert!(
        (0..20).any(|seed| std::panic::catch_unwind(|| live(seed, Missing::FileSyncs)).map_or(true, |r| r.is_err()))
    );
}

#[test]
fn l7_with_the_directory_syncs_missing_the_checker_sees_it() {
    assert!(
        (0..20).any(|seed| std::panic::catch_unwind(|| live(seed, Missing::DirSyncs)).map_or(true, |r| r.is_err()))
    );
}

#[test]
fn l7_names_made_before_a_kill_survive_the_power_cut_after_it() {
    for seed in 0..20 {
        let sim = SimDisk::new(seed);
        sim.create_dir_all("data".as_ref()).unwrap();
        sim.sync_dir("".as_ref()).unwrap();
        let (log, _) = open(&sim, small(), None);
        // The node may store this before anything is synced.
        let checkpoint = (seed % 2 == 0).then(|| log.checkpoint());
        if seed % 4 > 1 {
            sim.create(&segment_path(0, ".log")).unwrap();
        }
        drop(log);
        let (mut log, _) = open(&sim, small(), checkpoint);
        append(&mut log, batch(1, 10));
        sync(&mut log);
        let checkpoint = log.checkpoint();
        let (log, recovered) = open(&sim.crash(), small(), Some(checkpoint));
        assert_eq!((log.end().offset, recovered.damaged), (Offset(1), None), "seed {seed}");
    }
}

#[test]
fn l4_index_entries_of_lost_batches_do_not_come_back() {
    // A cut took the batches after the recovery point and left their index entries.
    assert_eq!(live(10_139_946_480_708_996_353, Missing::Nothing), Ok(()));
}
