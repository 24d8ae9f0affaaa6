//! What the log knows of idempotent producers and of leader epochs, as rules P1 to P4, E1 and E2 want it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::*;
use ottla_log::{EpochHistory, LogConfig, SequenceRefusal, SimDisk, Verdict};
use ottla_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

fn duplicate_of(base: i64, count: i64) -> Verdict {
    Verdict::Duplicate {
        base_offset: Offset(base),
        end: Offset(base + count),
        append_time: Timestamp(NOW.0 + count - 1),
    }
}

#[test]
fn p1_b27_a_retry_of_any_of_the_last_five_batches_is_known_also_after_a_restart() {
    for clean in [true, false] {
        let sim = SimDisk::new(1);
        let (mut log, _) = open(&sim, small(), None);
        for number in 0..6 {
            append(&mut log, idempotent(9, 0, number * 2, 2));
        }
        if clean {
            log.close_clean().unwrap();
        } else {
            sync(&mut log);
        }
        let checkpoint = log.checkpoint();
        drop(log);
        let (log, _) = open(&sim, small(), Some(checkpoint));
        for number in 1..6i32 {
            let verdict = log.producers().check(&idempotent(9, 0, number * 2, 2).header);
            assert_eq!(verdict, duplicate_of(i64::from(number) * 2, 2), "clean {clean}");
        }
        let sixth = log.producers().check(&idempotent(9, 0, 0, 2).header);
        assert!(matches!(sixth, Verdict::Refuse(SequenceRefusal::OutOfOrder { expected: 12, got: 0, .. })));
        assert_eq!(log.producers().check(&idempotent(9, 0, 12, 2).header), Verdict::Append);
    }
}

#[test]
fn p2_gaps_old_epochs_and_wrapping_sequences() {
    let (mut log, _) = open(&SimDisk::new(1), small(), None);
    // Nothing is known of the producer: any sequence will do.
    assert_eq!(log.producers().check(&idempotent(1, 3, 77, 1).header), Verdict::Append);
    append(&mut log, idempotent(1, 3, i32::MAX - 1, 2));
    let check = |epoch, sequence| log.producers().check(&idempotent(1, epoch, sequence, 1).header);
    assert_eq!(check(3, 0), Verdict::Append);
    assert!(matches!(check(3, 1), Verdict::Refuse(SequenceRefusal::OutOfOrder { expected: 0, got: 1, .. })));
    let current = ProducerEpoch(3);
    let stale = SequenceRefusal::StaleEpoch { producer: ProducerId(1), current, got: ProducerEpoch(2) };
    assert_eq!(check(2, 0), Verdict::Refuse(stale));
    assert_eq!(check(4, 0), Verdict::Append);
    assert!(matches!(check(4, 1), Verdict::Refuse(SequenceRefusal::OutOfOrder { expected: 0, .. })));
    // A new epoch begins at 0, whatever was sent in the last, and repeats nothing of it.
    append(&mut log, idempotent(2, 0, 0, 3));
    let check = |epoch, sequence| log.producers().check(&idempotent(2, epoch, sequence, 3).header);
    assert_eq!((check(0, 3), check(1, 0)), (Verdict::Append, Verdict::Append));
    assert_eq!(check(0, 0), duplicate_of(2, 3));
    assert!(matches!(check(1, 3), Verdict::Refuse(SequenceRefusal::OutOfOrder { expected: 0, got: 3, .. })));
}

#[test]
fn p1_batches_of_one_call_are_checked_against_each_other() {
    let (log, _) = open(&SimDisk::new(1), small(), None);
    let mut admission = log.producers().admission(Offset(100));
    assert_eq!(admission.check(&batch(3, 1).header), Verdict::Append);
    assert_eq!(admission.check(&idempotent(1, 0, 0, 2).header), Verdict::Append);
    assert_eq!(admission.check(&idempotent(1, 0, 2, 2).header), Verdict::Append);
    assert_eq!(admission.check(&idempotent(1, 0, 0, 2).header), duplicate_of(103, 2));
    assert!(matches!(admission.check(&idempotent(1, 0, 9, 2).header), Verdict::Refuse(_)));
}

#[test]
fn b25_a_refused_append_leaves_the_producer_as_it_was() {
    let (mut log, _) = open(&SimDisk::new(1), LogConfig { segment_bytes: 400, ..small() }, None);
    append(&mut log, idempotent(1, 0, 0, 1));
    assert!(log.append(&[idempotent(1, 0, 1, 1), batch(1, 1000)], NOW).is_err());
    assert_eq!(log.producers().check(&idempotent(1, 0, 1, 1).header), Verdict::Append);
}

#[test]
fn p4_silent_producers_expire_and_open_transactions_and_clock_jumps_do_not() {
    const HOUR: i64 = 3_600_000;
    let (mut log, _) = open(&SimDisk::new(1), small(), None);
    append(&mut log, idempotent(1, 0, 0, 1));
    let open_transaction =
        builder(ottla_records::Compression::None, 0, 1, 1).producer(ProducerId(2), ProducerEpoch(0), 0).transactional();
    append(&mut log, stored(open_transaction));
    let known = |log: &ottla_log::Log| log.producers().describe().iter().map(|known| known.id.0).collect::<Vec<_>>();
    // Ten years forward and back again count for an hour at most.
    log.expire_producers(Timestamp(NOW.0 + 87_600 * HOUR), 2 * HOUR);
    log.expire_producers(NOW, 2 * HOUR);
    assert_eq!(known(&log), [1, 2]);
    log.expire_producers(Timestamp(NOW.0 + HOUR), 2 * HOUR);
    log.expire_producers(Timestamp(NOW.0 + HOUR + 1), 2 * HOUR);
    assert_eq!(known(&log), [2]);
    // The marker that ends the transaction is activity too.
    let marker = builder(ottla_records::Compression::None, 0, 1, 1)
        .producer(ProducerId(2), ProducerEpoch(0), -1)
        .transactional()
        .control();
    log.append(&[stored(marker)], Timestamp(NOW.0 + HOUR + 2)).unwrap();
    log.expire_producers(Timestamp(NOW.0 + 2 * HOUR), 2 * HOUR);
    assert_eq!(known(&log), [2]);
    log.expire_producers(Timestamp(NOW.0 + 3 * HOUR), 2 * HOUR);
    log.expire_producers(Timestamp(NOW.0 + 4 * HOUR), 2 * HOUR);
    assert_eq!(known(&log), [] as [i64; 0]);
}

#[test]
fn e1_an_epoch_without_a_batch_is_recorded_and_kept() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    let mut first = batch(5, 1);
    first.epoch = LeaderEpoch(2);
    append(&mut log, first);
    log.assign_epoch(LeaderEpoch(7)).unwrap();
    sync(&mut log);
    let (log, _) = open(&sim, small(), Some(log.checkpoint()));
    assert_eq!(log.epochs().latest(), Some(LeaderEpoch(7)));
    assert_eq!(log.epoch_end(LeaderEpoch(2)), Some((LeaderEpoch(2), Offset(5))));
    for epoch in [1, 2, 7, 8].map(LeaderEpoch) {
        assert_eq!(log.reader().epoch_end(epoch), log.epoch_end(epoch), "whoever reads is told the same");
    }
}

#[test]
fn e1_conflicting_epochs_at_the_tail_go() {
    let mut history = EpochHistory::default();
    assert!(history.assign(LeaderEpoch(1), Offset(0)));
    assert!(history.assign(LeaderEpoch(2), Offset(10)));
    assert!(!history.assign(LeaderEpoch(2), Offset(20)));
    assert!(history.assign(LeaderEpoch(3), Offset(10)));
    let entries: Vec<_> = history.entries().iter().map(|entry| (entry.epoch.0, entry.start.0)).collect();
    assert_eq!(entries, [(1, 0), (3, 10)]);
}

#[test]
fn e2_the_end_of_an_epoch() {
    let mut history = EpochHistory::default();
    assert_eq!(history.end_offset_for(LeaderEpoch(1), Offset(0)..Offset(30)), None);
    for (epoch, start) in [(2, 5), (4, 10), (6, 20)] {
        history.assign(LeaderEpoch(epoch), Offset(start));
    }
    let end =
        |epoch| history.end_offset_for(LeaderEpoch(epoch), Offset(5)..Offset(30)).map(|(epoch, end)| (epoch.0, end.0));
    assert_eq!(end(6), Some((6, 30)));
    assert_eq!(end(7), None);
    assert_eq!(end(5), Some((4, 20)));
    assert_eq!(end(4), Some((4, 20)));
    assert_eq!(end(3), Some((2, 10)));
    assert_eq!(end(1), Some((1, 5)));
}
