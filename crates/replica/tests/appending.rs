//! What became of an append, batch by batch, and how a follower that asks and gets nowhere is told from one that keeps
//! up (rules P1, L2, I2, I5, B9, B11).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::*;
use ottla_log::AppendError;
use ottla_records::ProducedBatch;
use ottla_replica::{Durability, Event, IsrRefusal, Outcome};
use ottla_types::{BrokerEpoch, BrokerId, Offset};

/// Broker 1 leads, all are in sync and have fetched.
fn cluster(durability: Durability) -> Cluster {
    let mut cluster = Cluster::new(durability, 2);
    cluster.lead(1, &[1, 2, 3]);
    for id in [2, 3] {
        cluster.fetch(id);
    }
    cluster
}

/// What becomes of the batches of one append at broker 1.
fn append_all(cluster: &mut Cluster, batches: &[ProducedBatch]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    cluster.replica(1).append(batches, NOW, &mut outcomes);
    outcomes
}

/// The base offset and what is required, of what was appended.
fn places(outcomes: &[Outcome]) -> Vec<(i64, i64)> {
    let place = |outcome: &Outcome| match outcome {
        Outcome::Appended { base_offset, required } => Some((base_offset.0, required.0)),
        _ => None,
    };
    outcomes.iter().filter_map(place).collect()
}

#[test]
fn i5_each_batch_of_an_append_is_acknowledged_where_it_ends() {
    let mut cluster = cluster(Durability::Replicated);
    cluster.append(1, &["a", "b"]);
    let outcomes = append_all(&mut cluster, &[batch(&["c"]), batch(&["d", "e", "f"]), batch(&["g", "h"])]);
    assert_eq!(places(&outcomes), [(2, 3), (3, 6), (6, 8)]);
    assert_eq!(cluster.end(1), 8);
    for id in [2, 3] {
        cluster.catch_up(id);
    }
    assert_eq!(cluster.high_watermark(1), 8);
}

#[test]
fn a_batch_larger_than_a_segment_fails_for_itself_alone() {
    let mut cluster = cluster(Durability::Replicated);
    let limit = cluster.replica(1).log().batch_bytes_max();
    let around = batch(&["v".repeat(1500).as_str()]).header.size() - 1500;
    let of_size = |size: usize| batch(&["v".repeat(size - around).as_str()]);
    let limit = usize::try_from(limit).unwrap();
    let outcomes = append_all(&mut cluster, &[batch(&["a"]), of_size(limit + 1), of_size(limit), of_size(limit - 1)]);
    assert_eq!(places(&outcomes), [(0, 1), (1, 2), (2, 3)]);
    let Outcome::Failed(AppendError::TooLarge { size, limit: named }) = &outcomes[1] else {
        unreachable!("{outcomes:?}")
    };
    assert_eq!((*size, *named), (limit as u64 + 1, limit as u64));
}

#[test]
fn p1_what_rests_on_a_write_that_failed_fails_with_it_and_an_older_duplicate_does_not() {
    let mut cluster = cluster(Durability::Replicated);
    let (first, second) = (idempotent(7, 0, &["a"]), idempotent(7, 1, &["b"]));
    append_all(&mut cluster, std::slice::from_ref(&first));
    let sequence_gone = idempotent(7, 9, &["c"]);
    cluster.broker(1).sim.fail_writes(true);
    let outcomes = append_all(&mut cluster, &[first, second.clone(), second, sequence_gone]);
    assert!(matches!(outcomes[0], Outcome::Duplicate { base_offset: Offset(0), required: Offset(1), .. }));
    assert!(matches!(outcomes[1], Outcome::Failed(_)), "{outcomes:?}");
    assert!(matches!(outcomes[2], Outcome::Failed(_)), "a duplicate of what is not there: {outcomes:?}");
    assert!(matches!(outcomes[3], Outcome::Refused(_)), "{outcomes:?}");
    assert_eq!((outcomes.len(), cluster.end(1)), (4, 1));
}

#[test]
fn another_durability_counts_at_once() {
    let mut cluster = cluster(Durability::Fsync);
    cluster.append(1, &["a"]);
    for _ in 0..2 {
        cluster.fetch(2);
        cluster.fetch(3);
    }
    assert_eq!(cluster.high_watermark(1), 0, "nobody has synced");
    cluster.replica(1).set_durability(Durability::Replicated);
    assert_eq!(cluster.high_watermark(1), 1);
    // What is acknowledged stays so.
    cluster.replica(1).set_durability(Durability::Fsync);
    assert_eq!(cluster.high_watermark(1), 1);
}

/// Broker 3 asks for `fetch`, in the given run of its process.
fn ask(cluster: &mut Cluster, fetch: i64, run: i64) {
    let (broker, broker_epoch) = (BrokerId(3), BrokerEpoch(run));
    let (fetch, durable) = (Offset(fetch), Offset(fetch));
    cluster.step(1, Event::FollowerFetched { broker, broker_epoch, fetch, durable, eligible: true });
}

fn proposed(cluster: &mut Cluster) -> Option<Vec<i32>> {
    cluster.proposal().map(|(_, proposal)| proposal.isr.iter().map(|(broker, _)| broker.0).collect())
}

#[test]
fn who_asks_again_and_again_and_gets_nowhere_leaves_the_isr() {
    let mut cluster = cluster(Durability::Replicated);
    for _ in 0..12 {
        cluster.append(1, &["a"]);
        cluster.catch_up(2);
        ask(&mut cluster, 0, 1);
        cluster.pass(LAG_MAX / 10);
    }
    assert_eq!(proposed(&mut cluster), Some(vec![1, 2]));
}

#[test]
fn who_is_always_a_little_behind_is_as_late_as_the_end_it_has_reached() {
    let mut cluster = cluster(Durability::Replicated);
    cluster.append(1, &["a"]);
    cluster.catch_up(2);
    ask(&mut cluster, 0, 1);
    // It reaches what was the end at its last Fetch, just before its time is over: it was caught up then.
    cluster.now.0 += LAG_MAX;
    cluster.append(1, &["b"]);
    cluster.catch_up(2);
    ask(&mut cluster, 1, 1);
    cluster.pass(0);
    assert_eq!(proposed(&mut cluster), None);
    // From that Fetch on it gets nowhere. What it reached was the end of LAG_MAX ago.
    cluster.pass(1);
    assert_eq!(proposed(&mut cluster), Some(vec![1, 2]));
}

#[test]
fn b9_who_started_anew_with_less_than_it_had_is_in_sync_no_longer() {
    for (run, stays) in [(1, true), (2, false)] {
        let mut cluster = cluster(Durability::Replicated);
        cluster.append(1, &["a"]);
        cluster.catch_up(2);
        cluster.catch_up(3);
        cluster.append(1, &["b"]);
        cluster.catch_up(2);
        // In the same run it is a little late. In another it may have lost what it had.
        ask(&mut cluster, 0, run);
        cluster.pass(1);
        assert_eq!(proposed(&mut cluster), (!stays).then(|| vec![1, 2]), "run {run}");
    }
}

#[test]
fn l13_a_clean_end_syncs_what_was_appended_and_counts_it() {
    let mut cluster = Cluster::new(Durability::Fsync, 1);
    cluster.committed.replicas = ids(&[1]);
    cluster.lead(1, &[1]);
    cluster.append(1, &["a", "b"]);
    assert_eq!(cluster.high_watermark(1), 0);
    cluster.replica(1).close_clean().unwrap();
    assert_eq!(cluster.high_watermark(1), 2);
    cluster.broker(1).store_checkpoint();
    cluster.crash(1);
    assert_eq!((cluster.end(1), cluster.high_watermark(1)), (2, 2), "and it is on the disk");
}

#[test]
fn i2_b11_no_answer_to_a_proposal_is_no_refusal() {
    for (refusal, high_watermark) in
        [(IsrRefusal::Unanswered, 1), (IsrRefusal::Superseded, 1), (IsrRefusal::NotAttempted, 2)]
    {
        let mut cluster = Cluster::new(Durability::Replicated, 2);
        cluster.lead(1, &[1, 2]);
        cluster.append(1, &["a"]);
        cluster.catch_up(2);
        cluster.catch_up(3);
        assert_eq!(proposed(&mut cluster), Some(vec![1, 2, 3]));
        // Broker 3 stops before there is an answer, and lacks what comes then. It may be in the ISR all the same.
        cluster.append(1, &["b"]);
        cluster.now.0 += LAG_MAX + 1;
        cluster.catch_up(2);
        cluster.step(1, Event::Tick);
        assert_eq!(cluster.high_watermark(1), 1);
        cluster.refuse(1, refusal);
        assert_eq!(cluster.high_watermark(1), high_watermark, "{refusal:?}");
    }
}

#[test]
fn i5_who_is_in_neither_isr_holds_nothing_back_while_one_is_proposed() {
    let mut cluster = Cluster::new(Durability::Replicated, 2);
    cluster.lead(1, &[1, 2]);
    // Broker 3 is in no good standing, and has nothing.
    let (broker, broker_epoch, nothing) = (BrokerId(3), BrokerEpoch(1), Offset(0));
    let fetched = Event::FollowerFetched { broker, broker_epoch, fetch: nothing, durable: nothing, eligible: false };
    cluster.step(1, fetched);
    cluster.append(1, &["a"]);
    cluster.pass(LAG_MAX + 1);
    assert_eq!(proposed(&mut cluster), Some(vec![1]), "broker 2 lags");
    // It comes before the controller has answered.
    cluster.catch_up(2);
    assert_eq!(cluster.high_watermark(1), 1);
}
