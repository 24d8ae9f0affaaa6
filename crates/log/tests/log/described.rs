//! Producers as they are described and compared, and what it costs a log when they expire (rules P3, P4).

use ottla_log::{Log, ProducerDescription, SimDisk, StoredBatch};
use ottla_records::Compression;
use ottla_types::{Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::common::*;

fn log_of(batches: Vec<StoredBatch>) -> Log {
    let (mut log, _) = open(&SimDisk::new(1), small(), None);
    batches.into_iter().for_each(|batch| {
        append(&mut log, batch);
    });
    log
}

/// A batch of one record of producer 1 in a transaction, or the marker that ends it.
fn transactional(at: i64, sequence: i32, ends: bool) -> StoredBatch {
    let builder = builder(Compression::None, at, 1, 1).producer(ProducerId(1), ProducerEpoch(4), sequence);
    let builder = builder.transactional();
    stored(if ends { builder.control() } else { builder })
}

#[test]
fn p3_logs_know_the_same_only_if_they_know_the_same_of_every_producer() {
    let same = || vec![idempotent(1, 0, 0, 2), idempotent(1, 0, 2, 1), idempotent(2, 0, 0, 1)];
    let producers = |batches: Vec<StoredBatch>| log_of(batches).producers().clone();
    assert!(producers(same()).same_state(&producers(same())));
    let others = [
        ("fewer", same()[..2].to_vec()),
        ("more", [same(), vec![idempotent(3, 0, 0, 1)]].concat()),
        ("another", [&same()[..2], &[idempotent(3, 0, 0, 1)]].concat()),
        ("another epoch", [&same()[..2], &[idempotent(2, 1, 0, 1)]].concat()),
        ("another sequence", [&same()[..2], &[idempotent(2, 0, 5, 1)]].concat()),
        ("another batch", [&same()[..2], &[idempotent(2, 0, 0, 3)]].concat()),
        ("one batch more", [same(), vec![idempotent(2, 0, 1, 1)]].concat()),
        ("another place", [vec![batch(1, 1)], same()].concat()),
    ];
    for (what, other) in others {
        let (one, other) = (producers(same()), producers(other));
        assert!(!one.same_state(&other) && !other.same_state(&one), "{what}");
    }
    // Of a producer whose transaction has ended the time of the marker is left, or the transaction is open.
    let marked = |at| producers(vec![transactional(NOW.0, 0, false), transactional(at, -1, true)]);
    assert!(marked(NOW.0).same_state(&marked(NOW.0)));
    assert!(!marked(NOW.0).same_state(&marked(NOW.0 + 1)));
    assert!(!marked(NOW.0).same_state(&producers(vec![transactional(NOW.0, 0, false)])));
}

#[test]
fn producers_are_described_as_far_as_they_are_known() {
    let describe = |batches| log_of(batches).producers().describe();
    let known = ProducerDescription {
        id: ProducerId(1),
        epoch: ProducerEpoch(4),
        last_sequence: 8,
        last_timestamp: Timestamp(NOW.0 + 5),
        transaction_start: Some(Offset(0)),
    };
    let batches = |ends| {
        let last = transactional(NOW.0 + 5, if ends { -1 } else { 8 }, ends);
        vec![transactional(NOW.0, if ends { 8 } else { 7 }, false), last]
    };
    assert_eq!(describe(batches(false)), [known]);
    assert_eq!(describe(batches(true)), [ProducerDescription { transaction_start: None, ..known }]);
    // Of a producer that is known by a marker alone no sequence is.
    let marker = transactional(NOW.0 + 5, -1, true);
    let unknown = ProducerDescription { transaction_start: None, last_sequence: -1, ..known };
    assert_eq!(describe(vec![marker]), [unknown]);
    let log = log_of(vec![idempotent(1, 0, 0, 1), idempotent(5, 0, 0, 1), batch(1, 1)]);
    assert_eq!((log.producers().len(), log.producers().is_empty()), (2, false));
    assert!(log_of(vec![batch(1, 1)]).producers().is_empty());
}

#[test]
fn p4_a_look_that_expires_nobody_leaves_nothing_to_sync() {
    let mut log = log_of(vec![idempotent(1, 0, 0, 1)]);
    log.close_clean().unwrap();
    assert!(log.begin_sync().is_none());
    log.expire_producers(Timestamp(NOW.0 + 1000), 1000);
    assert!(log.begin_sync().is_none(), "an idle log costs the disk nothing");
    let snapshot = log.checkpoint().producers;
    append(&mut log, batch(1, 1));
    log.close_clean().unwrap();
    assert_eq!(log.checkpoint().producers, snapshot, "nor does the next checkpoint write them again");
    assert_eq!(log.producers().len(), 1);
    log.expire_producers(Timestamp(NOW.0 + 1001), 1000);
    assert_eq!(log.producers().len(), 0);
}

#[test]
fn p4_how_long_a_producer_was_silent_is_known_after_a_start() {
    const MINUTE: i64 = 60_000;
    let at = |minutes: i64| Timestamp(NOW.0 + minutes * MINUTE);
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    append(&mut log, idempotent(1, 0, 0, 1));
    log.expire_producers(at(50), 120 * MINUTE);
    log.append(&[idempotent(2, 0, 0, 1)], at(90)).unwrap();
    log.close_clean().unwrap();
    let (mut log, _) = open(&sim, small(), Some(log.checkpoint()));
    let known = |log: &Log| log.producers().describe().iter().map(|known| known.id.0).collect::<Vec<_>>();
    log.expire_producers(at(0), 120 * MINUTE);
    log.expire_producers(at(30), 120 * MINUTE);
    assert_eq!(known(&log), [1, 2]);
    log.expire_producers(at(31), 120 * MINUTE);
    assert_eq!(known(&log), [2], "it was silent for ninety minutes, and thirty-one since");
}
