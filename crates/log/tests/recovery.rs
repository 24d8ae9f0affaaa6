//! What a start finds after something went wrong, and what the log does when its disk fails it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::*;
use ottla_log::{AppendError, Checkpoint, Disk, LogConfig, ScrubCursor, SimDisk};
use ottla_types::{LeaderEpoch, Offset, Timestamp};

fn without_checkpoints() -> LogConfig {
    LogConfig { checkpoint_bytes: u64::MAX, ..small() }
}

#[test]
fn l5_damage_among_what_was_deleted_does_not_end_the_log_before_what_was_not() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    for _ in 0..4 {
        append(&mut log, batch(1, 1000));
    }
    log.set_committed(Offset(3));
    log.advance_start(Offset(3)).unwrap();
    sync(&mut log);
    let checkpoint = log.checkpoint();
    assert_eq!((checkpoint.high_watermark, checkpoint.log_start), (Offset(3), Offset(3)));
    append(&mut log, batch(1, 1000));
    sync(&mut log);
    drop(log);
    assert!(sim.flip_bit(&segment_path(0, ".log"), 1500, 0));
    let (_, recovered) = open(&sim, small(), Some(checkpoint));
    assert_eq!(recovered.damaged.map(|damage| damage.from), Some(Offset(1)));
}

#[test]
fn l4_recovery_cuts_at_the_first_invalid_batch_and_drops_later_segments() {
    let sim = SimDisk::new(3);
    let (mut log, _) = open(&sim, small(), None);
    for _ in 0..60 {
        append(&mut log, batch(1, 1000));
    }
    let segments = log.segments();
    assert!(segments.len() >= 4);
    drop(log);
    assert!(sim.flip_bit(&segment_path(segments[1].base.0, ".log"), 5000, 3));
    let (log, recovered) = open(&sim, small(), None);
    let end = log.end();
    assert_eq!(end.segment, segments[1].base);
    assert!(end.position <= 5000 && end.position > 3500, "{end:?}");
    assert_eq!(recovered.damaged, None);
    assert_eq!(log.segments().len(), 2);
    assert!(!sim.exists(&segment_path(segments[2].base.0, ".log")).unwrap());
    assert_eq!(sim.file_len(&segment_path(end.segment.0, ".log")).unwrap(), end.position);
    check_indexes(&log);
}

#[test]
fn l4_recovery_reads_no_more_than_was_written_since_the_checkpoint() {
    let sim = SimDisk::new(3);
    let config = LogConfig { segment_bytes: 1 << 20, checkpoint_bytes: 64 << 10, ..small() };
    let (mut log, _) = open(&sim, config, None);
    for sequence in 0..500 {
        append(&mut log, idempotent(7, 0, sequence, 1));
        append(&mut log, batch(1, 1000));
    }
    sync(&mut log);
    let checkpoint = log.checkpoint();
    assert_eq!(checkpoint.recovery_point, log.end());
    for sequence in 500..510 {
        append(&mut log, idempotent(7, 0, sequence, 1));
    }
    let since = log.end().position - checkpoint.recovery_point.position;
    let before = log.producers().clone();
    drop(log);
    let read_before = sim.stats().bytes_read;
    let (log, recovered) = open(&sim, config, Some(checkpoint));
    assert_eq!((recovered.scanned_bytes, recovered.truncated_bytes), (since, 0));
    // Beside the batches: index, snapshot and epochs.
    let index = sim.file_len(&segment_path(0, ".index")).unwrap();
    let read = sim.stats().bytes_read - read_before;
    assert!(read < since + index + 1000, "read {read} for {since} of batches and {index} of index");
    assert!(log.producers().same_state(&before));
}

#[test]
fn l5_damage_below_what_was_durable_is_reported_and_nothing_is_cut() {
    let sim = SimDisk::new(3);
    let (mut log, _) = open(&sim, without_checkpoints(), None);
    for _ in 0..10 {
        append(&mut log, batch(1, 1000));
    }
    sync(&mut log);
    let checkpoint = log.checkpoint();
    assert_eq!((checkpoint.recovery_point.offset, checkpoint.high_watermark), (Offset(0), Offset(10)));
    drop(log);
    let path = segment_path(0, ".log");
    assert!(sim.flip_bit(&path, 3000, 0));
    let len = sim.file_len(&path).unwrap();
    let (mut log, recovered) = open(&sim, small(), Some(checkpoint));
    assert_eq!(recovered.damaged.map(|damage| damage.from), Some(Offset(2)));
    assert_eq!(sim.file_len(&path).unwrap(), len);
    assert!(matches!(try_append(&mut log, batch(1, 1)), Err(AppendError::Failed(_))));
}

#[test]
fn l5_files_that_are_gone_or_short_are_damage_and_no_empty_log() {
    let sim = SimDisk::new(3);
    let (mut log, _) = open(&sim, small(), None);
    append(&mut log, batch(5, 1000));
    log.close_clean().unwrap();
    let checkpoint = log.checkpoint();
    drop(log);
    let short = sim.fork();
    short.open(&segment_path(0, ".log")).unwrap().truncate(100).unwrap();
    let gone = sim.fork();
    gone.remove(&segment_path(0, ".log")).unwrap();
    let no_dir = sim.fork();
    no_dir.remove_dir_all(&dir()).unwrap();
    for broken in [short, gone, no_dir] {
        let (_, recovered) = open(&broken, small(), Some(checkpoint.clone()));
        assert!(recovered.damaged.is_some());
    }
}

#[test]
fn l7_b19_small_files_that_are_torn_are_rebuilt_and_never_believed() {
    let sim = SimDisk::new(3);
    let (mut log, _) = open(&sim, small(), None);
    for sequence in 0..100 {
        let mut batch = idempotent(1, 0, sequence, 1);
        batch.epoch = LeaderEpoch(sequence / 30);
        append(&mut log, batch);
    }
    log.close_clean().unwrap();
    let (producers, epochs) = (log.producers().clone(), log.epochs());
    let checkpoint = log.checkpoint();
    drop(log);
    for name in sim.list(&dir()).unwrap() {
        if name.ends_with(".producers") || name == "epochs" || name.ends_with(".index") {
            let torn = sim.fork();
            torn.flip_bit(&dir().join(&name), 25, 1);
            for checkpoint in [Some(checkpoint.clone()), None] {
                let (log, recovered) = open(&torn.fork(), small(), checkpoint);
                assert_eq!(recovered.damaged, None);
                assert!(log.producers().same_state(&producers), "{name}");
                assert_eq!(log.epochs(), epochs, "{name}");
                check_indexes(&log);
            }
        }
    }
}

#[test]
fn a_damaged_index_of_a_closed_segment_is_built_again() {
    let sim = SimDisk::new(3);
    let (mut log, _) = open(&sim, small(), None);
    for number in 0..60 {
        append(&mut log, batch_at(number, 1, 1000));
    }
    log.close_clean().unwrap();
    let checkpoint = log.checkpoint();
    drop(log);
    let path = segment_path(0, ".index");
    let good = sim.read_file(&path).unwrap();
    assert!(sim.flip_bit(&path, good.len() as u64 - 5, 0));
    let (log, _) = open(&sim, small(), Some(checkpoint));
    check_indexes(&log);
    assert_ne!(sim.read_file(&path).unwrap().len(), 0);
}

#[test]
fn l10_after_a_failed_sync_nothing_is_taken_or_counted() {
    let sim = SimDisk::new(3);
    let (mut log, _) = open(&sim, small(), None);
    append(&mut log, batch(1, 10));
    sync(&mut log);
    let durable = log.durable_end();
    append(&mut log, batch(1, 10));
    sim.fail_syncs(true);
    let plan = log.begin_sync().unwrap();
    let result = plan.run();
    assert!(log.complete_sync(plan, result).is_err());
    sim.fail_syncs(false);
    assert!(log.begin_sync().is_none());
    assert_eq!(log.durable_end(), durable);
    assert!(matches!(try_append(&mut log, batch(1, 10)), Err(AppendError::Failed(_))));
    assert!(log.close_clean().is_err());
}

#[test]
fn l11_a_full_disk_refuses_whole_appends_and_takes_them_again_later() {
    for reserves in [true, false] {
        let sim = SimDisk::new(3);
        sim.set_reserves(reserves);
        sim.set_capacity(Some(200_000));
        let config = LogConfig { segment_bytes: 100_000, ..small() };
        let (mut log, _) = open(&sim, config, None);
        let refused = loop {
            if let Err(error) = log.append(&[batch(1, 3000), batch(1, 3000), batch(1, 3000)], NOW) {
                break error;
            }
        };
        assert!(matches!(refused, AppendError::NoSpace { .. }), "{refused}");
        let before = contents(&log);
        assert!(before.len() > 40, "{}", before.len());
        let end = log.end();
        assert_eq!(sim.file_len(&segment_path(end.segment.0, ".log")).unwrap_or(0), end.position);
        sync(&mut log);
        sim.set_capacity(None);
        let appended = append(&mut log, batch(1, 3000));
        assert_eq!(appended.first, end.offset);
        assert_eq!(contents(&log)[..before.len()], before);
        check_indexes(&log);
    }
}

#[test]
fn l2_a_write_that_fails_changes_nothing_that_readers_or_producers_see() {
    let sim = SimDisk::new(3);
    let (mut log, _) = open(&sim, small(), None);
    append(&mut log, idempotent(1, 0, 0, 2));
    let (end, producers) = (log.end(), log.producers().clone());
    sim.fail_writes(true);
    assert!(matches!(try_append(&mut log, idempotent(1, 0, 2, 2)), Err(AppendError::Failed(_))));
    assert_eq!((log.end(), log.reader().end()), (end, end));
    assert!(log.producers().same_state(&producers));
}

#[test]
fn b16_a_readers_end_is_one_place_however_it_races_with_the_writer() {
    let sim = SimDisk::new(3);
    let (mut log, _) = open(&sim, small(), None);
    let reader = log.reader();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let end = reader.end();
                // 20 records to a batch: a torn pair of offset and position would not divide.
                assert_eq!((end.offset.0 - end.segment.0) % 20, 0);
                let batches = (end.offset.0 - end.segment.0) / 20;
                assert_eq!(end.position, batches as u64 * batch(20, 5).bytes.len() as u64);
                let from = Offset((end.offset.0 - 20).max(0));
                let plan = reader.read(from, end, 1, true).unwrap();
                assert!(end.offset.0 == 0 || plan.first_batch_offset == from);
                seen += 1;
            }
            seen
        });
        for _ in 0..3000 {
            append(&mut log, batch(20, 5));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(watcher.join().unwrap() > 10);
    });
}

#[test]
fn the_scrub_finds_rot_below_the_recovery_point() {
    let sim = SimDisk::new(3);
    let (mut log, _) = open(&sim, small(), None);
    for _ in 0..60 {
        append(&mut log, batch(1, 1000));
    }
    sync(&mut log);
    let reader = log.reader();
    let scrub = || {
        let (mut cursor, mut found, mut bytes) = (ScrubCursor::default(), Vec::new(), 0);
        loop {
            let step = reader.scrub_step(cursor, log.durable_end(), 3000).unwrap();
            bytes += step.bytes;
            found.extend(step.found);
            cursor = step.next;
            if step.finished {
                return (found, bytes);
            }
        }
    };
    assert_eq!(scrub(), (Vec::new(), log.size_in_bytes()));
    let second = log.segments()[1].base;
    sim.flip_bit(&segment_path(second.0, ".log"), 4000, 2);
    let (found, _) = scrub();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].segment, second);
}

#[test]
fn e8_truncation_cuts_batches_producers_epochs_and_snapshots() {
    let sim = SimDisk::new(3);
    let (mut log, _) = open(&sim, small(), None);
    let mut at_fifty = None;
    for sequence in 0..200 {
        if sequence == 50 {
            at_fifty = Some(log.producers().clone());
        }
        let mut batch = idempotent(1, 0, sequence, 1);
        batch.epoch = LeaderEpoch(sequence / 40);
        append(&mut log, batch);
        if sequence % 30 == 0 {
            sync(&mut log);
        }
    }
    let before = contents(&log);
    log.truncate(Offset(50)).unwrap();
    assert_eq!(log.end().offset, Offset(50));
    assert_eq!(contents(&log), before[..50]);
    assert!(log.producers().same_state(&at_fifty.unwrap()));
    assert_eq!(log.epochs().latest(), Some(LeaderEpoch(1)));
    assert!(log.durable_end().offset <= Offset(50));
    check_indexes(&log);
    append(&mut log, idempotent(1, 0, 50, 1));
    sync(&mut log);
    let (mut log, recovered) = open(&sim, small(), Some(log.checkpoint()));
    assert_eq!((log.end().offset, recovered.damaged), (Offset(51), None));
    check_indexes(&log);
    // All of it: the log begins anew.
    log.truncate(Offset(0)).unwrap();
    assert_eq!((log.start(), log.end().offset, log.producers().len()), (Offset(0), Offset(0), 0));
    append(&mut log, batch(1, 1));
}

#[test]
fn e9_truncation_waits_for_a_sync_that_is_under_way() {
    let sim = SimDisk::new(3);
    let (mut log, _) = open(&sim, small(), None);
    append(&mut log, batch(4, 1));
    let plan = log.begin_sync().unwrap();
    assert!(log.truncate(Offset(0)).is_err());
    let result = plan.run();
    log.complete_sync(plan, result).unwrap();
    log.truncate(Offset(0)).unwrap();
}

#[test]
fn l6_after_a_clean_close_the_next_open_reads_no_batch() {
    let sim = SimDisk::new(3);
    sim.create_dir_all("data".as_ref()).unwrap();
    sim.sync_dir("".as_ref()).unwrap();
    let (mut log, _) = open(&sim, small(), None);
    for _ in 0..40 {
        append(&mut log, batch_at(NOW.0 + 5, 1, 1000));
    }
    log.close_clean().unwrap();
    let checkpoint = log.checkpoint();
    drop(log);
    let after = sim.crash();
    let (log, recovered) = open(&after, small(), Some(checkpoint));
    assert_eq!((recovered.scanned_bytes, recovered.damaged), (0, None));
    assert_eq!((after.stats().writes, after.stats().syncs), (0, 0));
    assert_eq!(log.segments().last().unwrap().largest_timestamp, Timestamp(NOW.0 + 5));
    check_indexes(&log);
}

#[test]
fn an_idle_log_holds_no_file() {
    let sim = SimDisk::new(3);
    let (mut log, _) = open(&sim, small(), None);
    append(&mut log, batch(1, 1));
    sync(&mut log);
    let opens = sim.stats().opens;
    log.close_idle_files();
    append(&mut log, batch(1, 1));
    assert_eq!(sim.stats().opens, opens, "used since the last call");
    sync(&mut log);
    log.close_idle_files();
    log.close_idle_files();
    append(&mut log, batch(1, 1));
    assert_eq!(sim.stats().opens, opens + 1);
}

#[test]
fn a_checkpoint_of_nothing_is_that_of_a_new_log() {
    let sim = SimDisk::new(3);
    let (log, recovered) = open(&sim, small(), Some(Checkpoint::default()));
    assert_eq!((log.end().offset, recovered.damaged), (Offset(0), None));
}

#[test]
fn a_scan_of_offsets_that_point_back_ends() {
    let sim = SimDisk::new(3);
    let (mut log, _) = open(&sim, small(), None);
    for _ in 0..5 {
        append(&mut log, batch(2, 100));
    }
    log.close_clean().unwrap();
    let checkpoint = log.checkpoint();
    let size = contents(&log)[0].1.len() as u64;
    drop(log);
    // The base offset lies outside the CRC: the fourth batch says it is the second.
    let file = sim.open(&segment_path(0, ".log")).unwrap();
    file.write_vectored_at(&[std::io::IoSlice::new(&2i64.to_be_bytes())], 3 * size).unwrap();
    let (log, _) = open(&sim, small(), Some(checkpoint));
    let reader = log.reader();
    let read: Vec<_> = reader.batches(Offset(0), reader.end()).take(20).collect();
    assert_eq!(read.len(), 4);
    assert!(matches!(read[3], Err(ottla_log::ReadError::Damaged { .. })), "{:?}", read[3]);
}
