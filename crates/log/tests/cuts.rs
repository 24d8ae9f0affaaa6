//! Cutting a log and beginning it anew, with the power cut at any moment; and what a checkpoint says of what may be cut
//! (rules E4, E8, L4, L5).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use bytes::Bytes;
use common::*;
use ottla_log::{AppendError, Checkpoint, Disk, Log, LogConfig, SimDisk, StoredBatch, TruncateError};
use ottla_types::{LeaderEpoch, Offset};

fn tiny() -> LogConfig {
    LogConfig { segment_bytes: 2 << 10, checkpoint_bytes: 1 << 10, ..small() }
}

fn disk_with_data(seed: u64) -> SimDisk {
    let sim = SimDisk::new(seed);
    sim.create_dir_all("data".as_ref()).unwrap();
    sim.sync_dir("".as_ref()).unwrap();
    sim
}

/// A batch of one record and just 4096 bytes, so that a power cut keeps or loses it whole.
fn page(epoch: i32, letter: u8) -> StoredBatch {
    let sized = |size| batch(1, size).bytes.len();
    let size = (3900..4096).find(|size| sized(*size) == 4096).unwrap();
    let mut builder = ottla_records::BatchBuilder::new(ottla_records::Compression::None, None);
    builder.push(NOW, None, Some(&vec![letter; size]), &[]).unwrap();
    let batch = StoredBatch { epoch: LeaderEpoch(epoch), ..stored(builder) };
    assert_eq!(batch.bytes.len(), 4096);
    batch
}

#[test]
fn e4_old_and_new_batches_do_not_meet_after_a_cut() {
    let config = LogConfig { segment_bytes: 1 << 20, ..small() };
    let mut cut_short = 0;
    for seed in 0..100 {
        let sim = disk_with_data(seed);
        let (mut log, _) = open(&sim, config, None);
        for _ in 0..10 {
            append(&mut log, page(1, b'o'));
        }
        sync(&mut log);
        log.set_committed(Offset(4));
        let checkpoint = log.checkpoint();
        assert!(checkpoint.high_watermark <= Offset(4) && checkpoint.recovery_point.offset <= Offset(4));
        log.truncate(Offset(5)).unwrap();
        for _ in 0..5 {
            append(&mut log, page(2, b'n'));
        }
        let (log, recovered) = open(&sim.crash(), config, Some(checkpoint));
        assert_eq!(recovered.damaged, None, "seed {seed}");
        // The last byte of a record is its count of headers, the letter is before it.
        let letter = |bytes: &Bytes| char::from(bytes[bytes.len() - 2]);
        let letters: String = contents(&log).iter().map(|(_, bytes)| letter(bytes)).collect();
        assert!("ooooonnnnn".starts_with(&letters) && letters.len() >= 5, "seed {seed}: {letters}");
        cut_short += usize::from(letters.len() < 10);
    }
    assert!(cut_short > 10, "the power cuts took nothing");
}

#[test]
fn e8_a_log_that_begins_anew_is_the_old_or_the_new_one_after_a_power_cut_at_any_call() {
    let mut found = [0, 0];
    // Behind the end of the old log, and at it.
    for (seed, to) in [(0, 500), (1, 500), (2, 500), (3, 30), (4, 30)] {
        for calls in 0.. {
            let sim = disk_with_data(seed);
            let (mut log, _) = open(&sim, tiny(), None);
            for number in 0..30 {
                let batch = if number % 2 == 0 { idempotent(1, 0, number, 1) } else { batch(1, 100) };
                append(&mut log, StoredBatch { epoch: LeaderEpoch(number / 10), ..batch });
                if number % 7 == 6 {
                    sync(&mut log);
                }
            }
            let checkpoint = log.checkpoint();
            let old = contents(&log);
            sim.fail_after(calls);
            let (dead, new) = begin_anew(&mut log, Offset(to));
            let counted = log.durable_end().offset;
            drop(log);
            let (log, recovered) = open(&sim.crash(), tiny(), Some(checkpoint));
            assert_eq!(recovered.damaged, None, "seed {seed}, call {calls}");
            let (start, end, kept) = (log.start(), log.end().offset, raw(&log));
            assert!(end >= counted, "seed {seed}, call {calls}: {counted} was durable");
            if start >= Offset(to) {
                found[1] += 1;
                assert_eq!(start, Offset(to), "seed {seed}, call {calls}");
                assert_eq!(kept, new[..kept.len()], "seed {seed}, call {calls}");
                assert!(dead || log.producers().is_empty(), "seed {seed}: producers of the old log");
            } else {
                found[0] += 1;
                assert!(dead, "seed {seed}: a sync was completed and the old log came back");
                assert_eq!(kept, old[..kept.len()], "seed {seed}, call {calls}");
            }
            if !dead {
                assert_eq!((end, kept.len()), (Offset(to + 20), 20), "seed {seed}");
                break;
            }
        }
    }
    assert!(found.iter().all(|times| *times > 3), "{found:?}");
}

/// Every batch from the start on.
fn raw(log: &Log) -> Vec<(Offset, Bytes)> {
    let reader = log.reader();
    let found = reader.batches(reader.start_offset(), reader.end()).map(Result::unwrap);
    found.map(|(header, bytes)| (header.base_offset, bytes)).collect()
}

/// Begins anew and appends 20 batches with a sync in between and at the end, until the disk dies. Whether it
/// did, and what was to be there.
fn begin_anew(log: &mut Log, to: Offset) -> (bool, Vec<(Offset, Bytes)>) {
    let mut new = Vec::new();
    if log.reset_to(to).is_err() {
        return (true, new);
    }
    assert_eq!((log.start(), log.end().offset, log.producers().is_empty()), (to, to, true));
    assert!(log.epochs().entries().is_empty());
    for number in 0..20 {
        let batch = StoredBatch { epoch: LeaderEpoch(7), ..batch(1, 150) };
        if log.append(&[batch], NOW).is_err() {
            return (true, raw(log));
        }
        if number == 9 || number == 19 {
            let Some(plan) = log.begin_sync() else { return (true, raw(log)) };
            let result = plan.run();
            if log.complete_sync(plan, result).is_err() {
                return (true, raw(log));
            }
        }
        new = raw(log);
    }
    (false, new)
}

#[test]
fn a_log_begins_anew_from_its_end_on_and_not_while_it_is_synced() {
    let (mut log, _) = open(&SimDisk::new(1), tiny(), None);
    for _ in 0..10 {
        append(&mut log, batch(1, 100));
    }
    for to in [-1, 5, 9] {
        let refused = log.reset_to(Offset(to));
        assert!(matches!(refused, Err(TruncateError::Append(AppendError::Impossible(_)))), "{to}: {refused:?}");
    }
    let plan = log.begin_sync().unwrap();
    assert!(matches!(log.reset_to(Offset(20)), Err(TruncateError::Busy)));
    let result = plan.run();
    log.complete_sync(plan, result).unwrap();
    log.reset_to(Offset(20)).unwrap();
    append(&mut log, idempotent(1, 0, 0, 1));
    log.reset_to(Offset(21)).unwrap();
    assert_eq!((log.start(), log.end().offset, log.is_empty()), (Offset(21), Offset(21), true));
    assert!(log.epochs().entries().is_empty() && log.producers().is_empty());
    // Empty, it may begin anywhere.
    log.reset_to(Offset(15)).unwrap();
    append(&mut log, batch(3, 100));
    sync(&mut log);
    assert_eq!((log.start(), log.end(), log.durable_end().offset), (Offset(15), log.durable_end(), Offset(18)));
    assert_eq!(contents(&log).len(), 1);
    check_indexes(&log);
}

#[test]
fn readers_of_the_old_log_come_to_the_new_one() {
    let (mut log, _) = open(&SimDisk::new(2), tiny(), None);
    for _ in 0..30 {
        append(&mut log, batch(1, 100));
    }
    let reader = log.reader();
    log.reset_to(Offset(100)).unwrap();
    append(&mut log, batch(2, 100));
    assert_eq!((reader.start_offset(), reader.end_offset()), (Offset(100), Offset(102)));
    assert_eq!(reader.batches(Offset(100), reader.end()).count(), 1);
    assert!(reader.read(Offset(3), reader.end(), 100, true).is_err());
}

#[test]
fn a_checkpoint_says_nothing_of_what_is_not_committed_and_its_producers_are_kept() {
    let sim = disk_with_data(3);
    let (mut log, _) = open(&sim, tiny(), None);
    let write = |log: &mut Log, numbers: std::ops::Range<i32>| {
        for number in numbers {
            append(log, idempotent(i64::from(number % 5), 0, number / 5, 1));
            log.request_checkpoint();
            sync(log);
        }
    };
    write(&mut log, 0..10);
    log.set_committed(Offset(12));
    write(&mut log, 10..60);
    let checkpoint = log.checkpoint();
    assert_eq!((checkpoint.high_watermark, checkpoint.recovery_point.offset), (Offset(12), Offset(12)));
    assert_eq!(log.recovery_point(), Offset(12));
    // It holds, whether the rest is there or was cut.
    let copy = sim.fork();
    let (same, recovered) = open(&copy, tiny(), Some(checkpoint.clone()));
    assert_eq!((recovered.damaged, contents(&same)), (None, contents(&log)));
    assert!(same.producers().same_state(log.producers()));
    log.truncate(Offset(12)).unwrap();
    sync(&mut log);
    let producers = log.producers().clone();
    drop(log);
    let (mut log, recovered) = open(&sim.crash(), tiny(), Some(checkpoint));
    assert_eq!((recovered.damaged, log.end().offset), (None, Offset(12)));
    assert!(log.producers().same_state(&producers));
    // Once more is committed, it says more.
    write(&mut log, 12..20);
    log.set_committed(Offset(20));
    assert_eq!(log.checkpoint().recovery_point.offset, Offset(20));
    // What an unclean election takes back it does not say any more.
    log.set_committed(Offset(15));
    assert!(log.checkpoint().recovery_point.offset <= Offset(15));
}

#[test]
fn every_offset_has_its_place() {
    let sim = disk_with_data(4);
    let (mut log, _) = open(&sim, tiny(), None);
    for number in 0..80 {
        append(&mut log, batch(1 + number % 3, 40));
        if number == 40 {
            sync(&mut log);
        }
    }
    let starts: Vec<Offset> = contents(&log).iter().map(|(base, _)| *base).collect();
    for offset in 0..=log.end().offset.0 {
        let place = log.position_of(Offset(offset)).unwrap();
        let batch = starts.iter().rev().find(|base| base.0 <= offset).copied();
        let expected = if offset == log.end().offset.0 { Some(log.end().offset) } else { batch };
        assert_eq!(Some(place.offset), expected, "offset {offset}");
        // What is read up to there ends there.
        let read_to = log.reader().batches(Offset::ZERO, place).last();
        let read_to = read_to.map_or(Offset::ZERO, |last| last.unwrap().0.next_offset());
        assert_eq!(read_to, place.offset, "offset {offset}");
    }
    assert_eq!(log.position_of(Offset(10_000)).unwrap(), log.end());
}

#[test]
fn epochs_that_a_file_from_before_a_cut_tells_do_not_outlive_the_batches() {
    let sim = disk_with_data(5);
    let (mut log, _) = open(&sim, small(), None);
    append(&mut log, StoredBatch { epoch: LeaderEpoch(1), ..batch(5, 10) });
    sync(&mut log);
    log.set_committed(Offset(5));
    let checkpoint = log.checkpoint();
    // What it wrote in epochs 4 and 6 is cut: its leader goes on with epochs 2 and 3.
    for epoch in [4, 6] {
        append(&mut log, StoredBatch { epoch: LeaderEpoch(epoch), ..batch(5, 10) });
    }
    sync(&mut log);
    let stale = sim.read_file(&dir().join("epochs")).unwrap();
    log.truncate(Offset(5)).unwrap();
    for (epoch, count) in [(2, 2), (2, 2), (3, 5), (3, 5)] {
        append(&mut log, StoredBatch { epoch: LeaderEpoch(epoch), ..batch(count, 10) });
    }
    sync(&mut log);
    let epochs = log.epochs();
    drop(log);
    let file = sim.create(&dir().join("epochs")).unwrap();
    file.write_vectored_at(&[std::io::IoSlice::new(&stale)], 0).unwrap();
    let (log, _) = open(&sim, small(), Some(checkpoint));
    assert_eq!(log.epochs(), epochs);
}

#[test]
fn a_log_that_rolled_before_its_first_sync_starts_where_it_began() {
    let mut kept_some = 0;
    for seed in 0..100 {
        let sim = disk_with_data(seed);
        let (mut log, _) = open(&sim, tiny(), None);
        for _ in 0..30 {
            append(&mut log, batch(1, 150));
        }
        assert!(log.segments().len() > 2);
        let (log, recovered) = open(&sim.crash(), tiny(), None);
        assert_eq!((recovered.damaged, log.start()), (None, Offset(0)), "seed {seed}");
        kept_some += usize::from(log.end().offset > Offset(0));
    }
    assert!(kept_some > 10);
}

#[test]
fn epochs_do_not_outlive_the_files_of_their_batches() {
    let sim = disk_with_data(6);
    let (mut log, _) = open(&sim, small(), None);
    append(&mut log, batch(5, 10));
    log.assign_epoch(LeaderEpoch(3)).unwrap();
    sync(&mut log);
    drop(log);
    sim.remove(&segment_path(0, ".log")).unwrap();
    for checkpoint in [None, Some(Checkpoint::default())] {
        let (log, recovered) = open(&sim.fork(), small(), checkpoint);
        assert_eq!((recovered.damaged, log.end().offset), (None, Offset(0)));
        assert_eq!(log.epochs().latest(), Some(LeaderEpoch(0)));
    }
}

#[test]
fn e8_a_start_that_finds_only_the_file_that_says_where_the_log_starts_begins_there() {
    let sim = disk_with_data(7);
    let (mut log, _) = open(&sim, tiny(), None);
    for _ in 0..30 {
        append(&mut log, batch(1, 100));
    }
    sync(&mut log);
    let checkpoint = log.checkpoint();
    let old = sim.fork();
    log.reset_to(Offset(500)).unwrap();
    sync(&mut log);
    let epochs = sim.read_file(&dir().join("epochs")).unwrap();
    old.create(&dir().join("epochs")).unwrap().write_vectored_at(&[std::io::IoSlice::new(&epochs)], 0).unwrap();
    let (mut log, recovered) = open(&old, tiny(), Some(checkpoint));
    assert_eq!((recovered.damaged, log.start(), log.end().offset), (None, Offset(500), Offset(500)));
    assert_eq!(log.durable_end(), log.end());
    append(&mut log, batch(1, 100));
    assert_eq!(contents(&log).len(), 1);
}

#[test]
fn e8_what_was_deleted_and_never_synced_leaves_a_log_that_begins_where_it_was_to() {
    for seed in 0..20 {
        let sim = disk_with_data(seed);
        let (mut log, _) = open(&sim, small(), None);
        for _ in 0..5 {
            append(&mut log, batch(1, 100));
        }
        log.request_checkpoint();
        sync(&mut log);
        for _ in 5..12 {
            append(&mut log, batch(1, 100));
        }
        log.advance_start(Offset(12)).unwrap();
        let checkpoint = log.checkpoint();
        drop(log);
        let (mut log, recovered) = open(&sim.crash(), small(), Some(checkpoint));
        assert_eq!((recovered.damaged, log.start(), log.end().offset), (None, Offset(12), Offset(12)));
        append(&mut log, batch(1, 100));
        assert_eq!(contents(&log).len(), 1);
    }
}

#[test]
fn p3_a_checkpoint_from_just_after_a_cut_does_not_take_later_producers_for_its_own() {
    let sim = disk_with_data(8);
    let (mut log, _) = open(&sim, small(), None);
    let write = |log: &mut Log, from: i32| {
        for number in from..20 {
            append(log, idempotent(i64::from(number % 4), 0, number / 4, 1));
        }
        log.request_checkpoint();
        sync(log);
    };
    write(&mut log, 0);
    log.truncate(Offset(12)).unwrap();
    let checkpoint = log.checkpoint();
    write(&mut log, 12);
    let producers = log.producers().clone();
    drop(log);
    let (log, recovered) = open(&sim.crash(), small(), Some(checkpoint));
    assert_eq!((recovered.damaged, log.end().offset), (None, Offset(20)));
    assert!(log.producers().same_state(&producers));
}

#[test]
fn a_log_that_begins_anew_twice_claims_nothing_in_between() {
    for seed in 0..60 {
        let sim = disk_with_data(seed);
        let (mut log, _) = open(&sim, tiny(), None);
        for _ in 0..10 {
            append(&mut log, batch(1, 100));
        }
        sync(&mut log);
        log.reset_to(Offset(20)).unwrap();
        sync(&mut log);
        let checkpoint = log.checkpoint();
        // Down to the batch that the leader's log starts in, or on to where its start has moved by now.
        let to = if seed % 2 == 0 { 18 } else { 30 };
        log.reset_to(Offset(to)).unwrap();
        append(&mut log, batch(5, 100));
        if seed % 3 == 0 {
            sync(&mut log);
        }
        let checkpoint = if seed % 4 < 2 { checkpoint } else { log.checkpoint() };
        let (log, recovered) = open(&sim.crash(), tiny(), Some(checkpoint));
        assert_eq!(recovered.damaged, None, "seed {seed}");
        assert!(log.end().offset >= Offset(18), "seed {seed}: offsets below were used, it ends at {:?}", log.end());
    }
}
