//! What a sync covers, says and costs, and what is left to the next where one could not be done (rules L8, L10, L11);
//! and what a scrub reads.

use std::path::PathBuf;

use ottla_log::{Disk, Log, ScrubCursor, SimDisk, SyncError, SyncPlan, Synced};
use ottla_types::{LeaderEpoch, Offset, Timestamp};

use crate::common::*;

fn files(sim: &SimDisk, ending: &str) -> Vec<String> {
    sim.list(&dir()).unwrap().into_iter().filter(|name| name.ends_with(ending)).collect()
}

/// Bytes of the batch, which is appended.
fn put(log: &mut Log, size: usize) -> u64 {
    let next = batch(1, size);
    let bytes = next.bytes.len() as u64;
    append(log, next);
    bytes
}

#[test]
fn a_sync_says_what_it_covers_and_what_comes_meanwhile_is_the_next_ones() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    sync(&mut log);
    assert!(!log.needs_sync() && log.begin_sync().is_none());
    let first = put(&mut log, 100) + put(&mut log, 200);
    assert_eq!((log.unsynced_bytes(), log.needs_sync()), (first, true));
    let plan = log.begin_sync().unwrap();
    assert_eq!((plan.bytes(), plan.to()), (first, log.end()));
    let later = put(&mut log, 300);
    assert!(log.begin_sync().is_none(), "one at a time");
    assert_eq!((log.unsynced_bytes(), log.durable_end().offset), (later, Offset(0)));
    let (to, result) = (plan.to(), plan.run());
    log.complete_sync(plan, result).unwrap();
    assert_eq!((log.durable_end(), log.unsynced_bytes()), (to, later));
    sync(&mut log);
    assert_eq!((log.durable_end(), log.unsynced_bytes(), log.needs_sync()), (log.end(), 0, false));
}

#[test]
fn a_sync_costs_one_call_unless_there_is_more_to_make_durable() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    put(&mut log, 100);
    sync(&mut log);
    let cost = |log: &mut Log| {
        let before = sim.stats();
        sync(log);
        let after = sim.stats();
        (after.syncs - before.syncs, after.dir_syncs - before.dir_syncs)
    };
    put(&mut log, 100);
    assert_eq!(cost(&mut log), (1, 0));
    assert_eq!(cost(&mut log), (0, 0));
    log.assign_epoch(LeaderEpoch(9)).unwrap();
    assert_eq!(cost(&mut log), (1, 1), "the file of epochs, and its name");
}

#[test]
fn l11_what_a_sync_without_descriptors_left_undone_is_done_by_the_next() {
    let sim = SimDisk::new(1);
    sim.create_dir_all("data".as_ref()).unwrap();
    sim.sync_dir("".as_ref()).unwrap();
    let (mut log, _) = open(&sim, small(), None);
    let first = put(&mut log, 100);
    append(&mut log, idempotent(1, 0, 0, 1));
    log.roll(NOW).unwrap();
    let unsynced = log.unsynced_bytes();
    let plan = log.begin_sync().unwrap();
    let later = put(&mut log, 300);
    sim.fail_opens(true);
    let result = plan.run();
    assert!(matches!(result, Ok(Synced::Nothing)), "{result:?}");
    log.complete_sync(plan, result).unwrap();
    assert!(unsynced > first);
    assert_eq!((log.unsynced_bytes(), log.durable_end().offset), (unsynced + later, Offset(0)));
    sim.fail_opens(false);
    sync(&mut log);
    assert_eq!((log.unsynced_bytes(), log.durable_end()), (0, log.end()));
    let (again, recovered) = open(&sim.crash(), small(), Some(log.checkpoint()));
    assert_eq!((recovered.damaged, recovered.truncated_bytes), (None, 0));
    assert_eq!(contents(&again), contents(&log));
    assert!(again.producers().same_state(log.producers()));
}

#[test]
fn l10_l11_what_lies_beside_the_batches_waits_for_room_and_any_other_failure_ends_the_log() {
    for full in [true, false] {
        let sim = SimDisk::new(1);
        let (mut log, _) = open(&sim, small(), None);
        append(&mut log, idempotent(1, 0, 0, 1));
        log.request_checkpoint();
        let plan = log.begin_sync().unwrap();
        if full {
            sim.set_capacity(Some(sim.used()));
        } else {
            sim.fail_writes(true);
        }
        let result = plan.run();
        assert!(matches!((full, &result), (true, Ok(Synced::Batches)) | (false, Err(_))), "{result:?}");
        assert_eq!(log.complete_sync(plan, result).is_ok(), full);
        sim.set_capacity(None);
        sim.fail_writes(false);
        assert_eq!(log.durable_end() == log.end(), full);
        assert_eq!(log.begin_sync().is_some(), full, "it is still to be done");
    }
}

/// Three logs on one disk, each with a batch, a closed segment, an epoch and a producer to make durable.
fn three(sim: &SimDisk) -> Vec<Log> {
    let one = |number: i64| {
        let dir = format!("data/{number}").into();
        let (mut log, _) = Log::open(disk(sim), dir, small(), None, NOW).unwrap();
        log.assign_epoch(LeaderEpoch(7)).unwrap();
        append(&mut log, idempotent(number, 0, 0, 1));
        log.roll(NOW).unwrap();
        put(&mut log, 100);
        log
    };
    (0..3).map(one).collect()
}

/// What became of each.
fn sync_together(sim: &SimDisk, logs: &mut [Log], meanwhile: impl FnOnce()) -> Vec<Result<Synced, SyncError>> {
    let plans: Vec<_> = logs.iter_mut().map(|log| log.begin_sync().unwrap()).collect();
    meanwhile();
    let outcomes = SyncPlan::run_together(&plans, &*sim.file_system("".as_ref()).unwrap());
    for ((log, plan), outcome) in logs.iter_mut().zip(plans).zip(&outcomes) {
        assert_eq!(log.complete_sync(plan, outcome.clone()).is_ok(), outcome.is_ok());
    }
    outcomes
}

/// All of one of the three is there after a crash.
fn check_durable(sim: &SimDisk, number: usize, log: &Log) {
    let dir: PathBuf = format!("data/{number}").into();
    assert!(sim.list(&dir).unwrap().iter().any(|name| name.ends_with(".producers")), "a snapshot");
    let (again, recovered) = Log::open(disk(sim), dir, small(), Some(log.checkpoint()), NOW).unwrap();
    assert_eq!((recovered.damaged, recovered.truncated_bytes), (None, 0));
    assert_eq!((again.end(), again.epochs()), (log.end(), log.epochs()));
    assert_eq!(contents(&again), contents(log));
    assert!(again.producers().same_state(log.producers()));
}

#[test]
fn l8_logs_synced_together_are_durable_with_all_that_speaks_about_them() {
    let sim = SimDisk::new(1);
    let mut logs = three(&sim);
    let (before, used) = (sim.stats(), sim.used());
    let outcomes = sync_together(&sim, &mut logs, || {});
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Synced::Whole))), "{outcomes:?}");
    let after = sim.stats();
    assert!(sim.used() < used, "closed segments give back what was reserved for them");
    assert_eq!(after.whole_syncs - before.whole_syncs, 2, "the batches, and the names of the files beside them");
    assert_eq!((after.syncs, after.dir_syncs), (before.syncs, before.dir_syncs), "and nothing one by one");
    let sim = sim.crash();
    logs.iter().enumerate().for_each(|(number, log)| check_durable(&sim, number, log));
    for log in &mut logs {
        put(log, 100);
    }
    let before = sim.stats().whole_syncs;
    sync_together(&sim, &mut logs, || {});
    assert_eq!(sim.stats().whole_syncs - before, 1, "where there is nothing beside");
}

#[test]
fn l11_logs_synced_together_wait_for_room() {
    // For the files beside, although closed segments give back some; or for their names.
    for fill in [|sim: &SimDisk| sim.set_capacity(Some(1)), |sim: &SimDisk| sim.fill_dirs(true)] {
        let sim = SimDisk::new(1);
        let mut logs = three(&sim);
        let outcomes = sync_together(&sim, &mut logs, || fill(&sim));
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Synced::Batches))), "{outcomes:?}");
        assert!(logs.iter().all(|log| log.durable_end() == log.end() && log.needs_sync()));
        sim.set_capacity(None);
        sim.fill_dirs(false);
        let outcomes = sync_together(&sim, &mut logs, || {});
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Synced::Whole))), "{outcomes:?}");
    }
}

#[test]
fn l8_l10_wherever_a_sync_of_several_logs_is_stopped_only_what_is_durable_was_reported() {
    for calls in 0.. {
        let sim = SimDisk::new(calls);
        let mut logs = three(&sim);
        let outcomes = sync_together(&sim, &mut logs, || sim.fail_after(calls));
        let sim = sim.crash();
        for (number, (log, outcome)) in logs.iter_mut().zip(&outcomes).enumerate() {
            match outcome {
                Ok(synced) => {
                    assert!(matches!(synced, Synced::Whole), "{synced:?} after {calls} calls");
                    check_durable(&sim, number, log);
                }
                Err(_) => assert!(log.begin_sync().is_none() && log.durable_end() < log.end(), "it is over"),
            }
        }
        if outcomes.iter().all(Result::is_ok) {
            assert!(calls > 15, "files aside and in place, and two syncs");
            break;
        }
    }
}

#[test]
fn l11_logs_synced_together_without_descriptors_leave_it_to_the_next_sync() {
    let sim = SimDisk::new(1);
    let mut logs = three(&sim);
    let outcomes = sync_together(&sim, &mut logs, || sim.fail_opens(true));
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Synced::Batches))), "{outcomes:?}");
    sim.fail_opens(false);
    let outcomes = sync_together(&sim, &mut logs, || {});
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Synced::Whole))), "{outcomes:?}");
    assert!(logs.iter().all(|log| !log.needs_sync() && log.recovery_point() == log.end().offset));
}

#[test]
fn the_recovery_point_moves_when_so_many_bytes_were_written_or_a_segment_was_closed() {
    let (mut log, _) = open(&SimDisk::new(1), small(), None);
    let (mut point, mut since) = (Offset(0), 0);
    for number in 0..40 {
        let segments = log.segments().len();
        since += put(&mut log, 990);
        sync(&mut log);
        if since >= small().checkpoint_bytes || log.segments().len() > segments {
            (point, since) = (log.end().offset, 0);
        }
        assert_eq!(log.recovery_point(), point, "after batch {number}");
    }
    assert!(point > Offset(30));
    put(&mut log, 10);
    log.request_checkpoint();
    sync(&mut log);
    assert_eq!(log.recovery_point(), log.end().offset, "or when it is asked for");
}

#[test]
fn p3_l8_few_snapshots_of_producers_are_kept_and_the_one_that_the_checkpoint_names_is_among_them() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    for sequence in 0..12 {
        append(&mut log, idempotent(1, 0, sequence, 1));
        log.request_checkpoint();
        sync(&mut log);
        let kept = files(&sim, ".producers");
        let named = log.checkpoint().producers.unwrap();
        assert_eq!(named, log.end().offset);
        assert!(kept.iter().any(|name| name.starts_with(&format!("{:020}", named.0))), "{kept:?}");
        assert!(kept.len() <= 3, "{kept:?}");
        assert_eq!(kept.len() > 1, sequence > 0, "the one before stays, should this one rot");
    }
    // Nothing changed: no other snapshot.
    put(&mut log, 10);
    let before = log.checkpoint().producers;
    log.request_checkpoint();
    sync(&mut log);
    assert_eq!(log.checkpoint().producers, before);
    assert_eq!(log.recovery_point(), log.end().offset);
}

#[test]
fn a_closed_segment_gives_back_what_was_reserved_for_it() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    let bytes = put(&mut log, 1000);
    let reserved = sim.used();
    log.roll(NOW).unwrap();
    sync(&mut log);
    let all = sim.list(&dir()).unwrap();
    let used: usize = all.iter().map(|name| sim.read_file(&dir().join(name)).unwrap().len()).sum();
    assert_eq!(sim.used(), used as u64);
    assert!(reserved > sim.used() && sim.used() >= bytes);
    // So does the one that is written to, at a clean end.
    put(&mut log, 1000);
    let reserved = sim.used();
    log.close_clean().unwrap();
    let all = sim.list(&dir()).unwrap();
    let used: usize = all.iter().map(|name| sim.read_file(&dir().join(name)).unwrap().len()).sum();
    assert_eq!(sim.used(), used as u64);
    assert!(reserved > sim.used() + 1000);
}

#[test]
fn segments_are_listed_as_they_are() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    assert!(log.is_empty());
    let first = batch_at(NOW.0, 3, 10);
    let second = batch_at(NOW.0 - 500, 2, 10);
    let bytes = (first.bytes.len() as u64, second.bytes.len() as u64);
    append(&mut log, first);
    log.roll(NOW).unwrap();
    append(&mut log, second);
    sync(&mut log);
    let (again, _) = open(&sim.fork(), small(), None);
    for log in [&log, &again] {
        let listed = log.segments();
        let of = |at: usize| {
            let segment = &listed[at];
            (segment.base.0, segment.end.0, segment.size, segment.largest_timestamp.0 - NOW.0, segment.sealed)
        };
        assert_eq!((of(0), of(1)), ((0, 3, bytes.0, 2, true), (3, 5, bytes.1, -499, false)));
        assert_eq!((listed.len(), log.size_in_bytes(), log.is_empty()), (2, bytes.0 + bytes.1, false));
    }
}

/// A log whose first segment is gone and whose files wait for their delay.
fn with_deleted_files(sim: &SimDisk) -> Log {
    let (mut log, _) = open(sim, small(), None);
    put(&mut log, 100);
    log.roll(NOW).unwrap();
    put(&mut log, 100);
    log.advance_start(Offset(1)).unwrap();
    sync(&mut log);
    log
}

#[test]
fn deleted_files_go_after_their_delay_and_are_counted() {
    let sim = SimDisk::new(1);
    let mut log = with_deleted_files(&sim);
    assert_eq!(files(&sim, ".deleted").len(), 2);
    let delay_ms = small().file_delete_delay_ms;
    let mut go = |after_ms: i64| log.remove_deleted(Timestamp(NOW.0 + after_ms));
    assert_eq!((go(0), go(delay_ms - 1)), (0, 0));
    // A clock that went back starts the delay again.
    assert_eq!((go(-500), go(delay_ms - 501)), (0, 0));
    assert_eq!((go(delay_ms - 500), go(10 * delay_ms)), (2, 0));
    assert_eq!(files(&sim, ".deleted"), [] as [String; 0]);
}

#[test]
fn a_file_that_cannot_be_removed_is_tried_again() {
    let sim = SimDisk::new(1);
    let mut log = with_deleted_files(&sim);
    let at = |times: i64| Timestamp(NOW.0 + times * small().file_delete_delay_ms);
    log.remove_deleted(NOW);
    sim.fail_after(0);
    assert_eq!(log.remove_deleted(at(1)), 0);
    sim.restart();
    assert_eq!(files(&sim, ".deleted").len(), 2);
    log.remove_deleted(at(2));
    assert_eq!(log.remove_deleted(at(3)), 2);
    assert_eq!(files(&sim, ".deleted"), [] as [String; 0]);
}

#[test]
fn a_scrub_reads_what_it_is_to_check_and_nothing_behind() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, ottla_log::LogConfig { segment_bytes: 1 << 20, ..small() }, None);
    let durable: u64 = (0..20).map(|_| put(&mut log, 1000)).sum();
    sync(&mut log);
    for _ in 0..100 {
        put(&mut log, 1000);
    }
    let before = sim.stats().bytes_read;
    let step = log.reader().scrub_step(ScrubCursor::default(), log.durable_end(), u64::MAX).unwrap();
    assert_eq!((step.bytes, step.found, step.finished), (durable, None, true));
    assert_eq!(sim.stats().bytes_read - before, durable);
    // As many bytes at a time as it is told, in whole batches, and one batch at least.
    for (max_bytes, batches) in [(0, 1), (1, 1), (durable / 20, 1), (durable / 20 + 1, 2), (durable / 4, 5)] {
        let step = log.reader().scrub_step(ScrubCursor::default(), log.durable_end(), max_bytes).unwrap();
        assert_eq!((step.bytes, step.finished), (durable / 20 * batches, false), "{max_bytes}");
        let before = sim.stats().bytes_read;
        let rest = log.reader().scrub_step(step.next, log.durable_end(), u64::MAX).unwrap();
        assert_eq!((step.bytes + rest.bytes, rest.finished), (durable, true), "{max_bytes}");
        assert_eq!(sim.stats().bytes_read - before, rest.bytes);
    }
}

#[test]
fn p3_a_start_takes_the_producers_from_their_snapshot_and_reads_no_batch_for_them() {
    for written in 1..8 {
        let sim = SimDisk::new(1);
        let (mut log, _) = open(&sim, small(), None);
        for sequence in 0..written {
            append(&mut log, idempotent(1, 0, sequence, 1));
        }
        let bytes: u64 = (0..10).map(|_| put(&mut log, 1000)).sum();
        log.close_clean().unwrap();
        let before = sim.stats().bytes_read;
        let (again, recovered) = open(&sim, small(), Some(log.checkpoint()));
        let read = sim.stats().bytes_read - before;
        assert!(read < 1000 && bytes > 10_000, "{read} bytes with {written} batches of the producer");
        assert_eq!(recovered.scanned_bytes, 0);
        assert!(again.producers().same_state(log.producers()));
    }
}
