//! Following: where a follower goes on from, when it cuts and how far, and when it begins anew (rules E3 to E9, P3, the
//! bug classes B1 to B7 and B15).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use bytes::Bytes;
use common::*;
use ottla_replica::{Durability, FetchError, FetchOutcome, Fetched, IsrRefusal, Outcome, Role};
use ottla_types::{LeaderEpoch, Offset};

/// Broker 1 leads in epoch 1 and all have "a" and "b", committed and known to be.
fn cluster() -> Cluster {
    seeded(0)
}

fn seeded(seed: u64) -> Cluster {
    let mut cluster = Cluster::seeded(Durability::Fsync, 2, seed);
    cluster.lead(1, &[1, 2, 3]);
    cluster.append(1, &["a", "b"]);
    cluster.sync(1);
    for _ in 0..2 {
        cluster.catch_up(2);
        cluster.catch_up(3);
    }
    cluster
}

/// Broker 3 stops, and is out of the ISR.
fn leave_behind(cluster: &mut Cluster) {
    cluster.commit_isr(&[1, 2]);
    cluster.tell(1);
    cluster.pass(LAG_MAX + 1);
    // It holds what is committed so far, and would be back at once.
    cluster.proposal().unwrap();
    cluster.refuse(1, IsrRefusal::NotAttempted);
}

/// All brokers hold the same, byte for byte, and know the same of producers and epochs with batches.
fn assert_same(cluster: &mut Cluster) {
    let leader = batches(cluster.replica(1), Offset::ZERO);
    for id in [2, 3] {
        assert_eq!(batches(cluster.replica(id), Offset::ZERO), leader, "broker {id}");
    }
    let (one, others) = cluster.brokers.split_first().unwrap();
    for other in others {
        assert!(other.replica.log().producers().same_state(one.replica.log().producers()), "P3");
    }
}

#[test]
fn p3_followers_hold_what_the_leader_holds_and_know_its_producers() {
    let mut cluster = cluster();
    for sequence in 0..40 {
        let outcome = cluster.try_append(1, idempotent(i64::from(sequence % 3), sequence / 3, &["x"]));
        assert!(matches!(outcome, Outcome::Appended { .. }), "{outcome:?}");
        if sequence % 7 == 0 {
            cluster.fetch(2);
        }
    }
    cluster.sync(1);
    for id in [2, 3] {
        cluster.catch_up(id);
    }
    assert_same(&mut cluster);
    // The next leader knows a retry.
    cluster.lead(2, &[1, 2, 3]);
    let outcome = cluster.try_append(2, idempotent(0, 13, &["x"]));
    assert!(matches!(outcome, Outcome::Duplicate { .. }), "{outcome:?}");
}

#[test]
fn b1_a_follower_does_not_cut_at_its_high_watermark() {
    let mut cluster = cluster();
    cluster.append(1, &["c"]);
    cluster.sync(1);
    for id in [2, 3, 2, 3] {
        cluster.fetch(id);
        cluster.sync(id);
    }
    // "c" is acknowledged; broker 2 has it and does not know that it is committed.
    assert_eq!((cluster.high_watermark(1), cluster.high_watermark(2), cluster.end(2)), (3, 2, 3));
    // Broker 2 restarts, follows for a moment, and is elected.
    cluster.broker(2).store_checkpoint();
    cluster.crash(2);
    cluster.tell(2);
    assert_eq!((cluster.high_watermark(2), cluster.end(2)), (2, 3));
    cluster.lead(2, &[2, 3]);
    assert_eq!(cluster.values(2), ["a", "b", "c"]);
    cluster.catch_up(3);
    assert_eq!(cluster.high_watermark(2), 3);
}

#[test]
fn b2_e4_logs_that_differ_after_two_quick_elections_come_together() {
    let mut cluster = cluster();
    // Epoch 2: broker 2 writes what nobody gets. Epoch 3: so does broker 3.
    cluster.elect(2, &[1, 2, 3]);
    cluster.tell(2);
    cluster.append(2, &["lost 2a", "lost 2b"]);
    cluster.append(2, &["lost 2c"]);
    cluster.elect(3, &[1, 2, 3]);
    cluster.tell(3);
    cluster.append(3, &["lost 3"]);
    // Epoch 4: broker 1 knows neither of the two.
    cluster.lead(1, &[1, 2, 3]);
    cluster.append(1, &["c"]);
    cluster.append(1, &["d"]);
    cluster.sync(1);
    for id in [2, 3] {
        cluster.catch_up(id);
    }
    assert_eq!(cluster.values(1), ["a", "b", "c", "d"]);
    assert_same(&mut cluster);
}

#[test]
fn e4_an_epoch_that_the_follower_does_not_know_ends_with_the_one_below_and_it_asks_again() {
    let mut cluster = cluster();
    // Broker 2 has epochs 1, 2 and 5; broker 1 gets 1, 3 and 6.
    cluster.elect(2, &[1, 2, 3]);
    cluster.tell(2);
    cluster.append(2, &["2"]);
    cluster.elect(1, &[1, 2, 3]);
    cluster.tell(1);
    cluster.append(1, &["3"]);
    cluster.append(1, &["3"]);
    cluster.committed.leader_epoch.0 += 1;
    cluster.elect(2, &[1, 2, 3]);
    cluster.tell(2);
    cluster.append(2, &["5"]);
    cluster.lead(1, &[1, 2, 3]);
    // The leader's largest epoch below 5 is 3, which ends at 4; at the follower the one below 3 is 2, which ends at 3.
    assert_eq!(cluster.fetch(2), FetchOutcome::Truncated(Offset(3)));
    assert_eq!(cluster.fetch(2), FetchOutcome::Truncated(Offset(2)));
    assert_eq!(cluster.fetch(2), FetchOutcome::Taken);
    cluster.catch_up(2);
    assert_eq!(cluster.values(2), ["a", "b", "3", "3"]);
}

/// A cluster whose leader has lost, with its power, what broker 2 has fetched of it.
fn lossy() -> Cluster {
    for seed in 0..100 {
        let mut cluster = seeded(seed);
        cluster.append(1, &["lost"]);
        cluster.fetch(2);
        cluster.broker(1).store_checkpoint();
        cluster.crash(1);
        if cluster.end(1) == 2 {
            return cluster;
        }
    }
    panic!("no power cut takes what was not synced")
}

#[test]
fn b3_e6_a_higher_epoch_of_the_same_leader_begins_anew() {
    let mut cluster = lossy();
    let before = cluster.replica(2).fetch_position().unwrap();
    cluster.lead(1, &[1, 2, 3]);
    let after = cluster.replica(2).fetch_position().unwrap();
    assert_eq!(before.leader, after.leader);
    assert!(after.leader_epoch > before.leader_epoch);
    cluster.append(1, &["c"]);
    cluster.append(1, &["d"]);
    assert_eq!(cluster.fetch(2), FetchOutcome::Truncated(Offset(2)));
    cluster.catch_up(2);
    cluster.catch_up(3);
    assert_eq!(cluster.values(2), ["a", "b", "c", "d"]);
    assert_same(&mut cluster);
}

#[test]
fn b4_e4_an_epoch_in_which_nothing_was_written_does_not_keep_a_follower_from_its_leader() {
    let mut cluster = cluster();
    // Broker 2 leads in epoch 2 and writes nothing; its log says that the epoch began at its end.
    cluster.elect(2, &[1, 2, 3]);
    cluster.tell(2);
    cluster.lead(1, &[1, 2, 3]);
    assert_eq!(cluster.replica(2).fetch_position().unwrap().last_epoch, LeaderEpoch(2));
    cluster.append(1, &["c"]);
    // Nothing is cut, and the epoch is gone.
    assert_eq!(cluster.fetch(2), FetchOutcome::Truncated(Offset(2)));
    assert_eq!(cluster.replica(2).fetch_position().unwrap().last_epoch, LeaderEpoch(1));
    cluster.catch_up(2);
    assert_eq!(cluster.values(2), ["a", "b", "c"]);
}

#[test]
fn b4_a_leader_that_says_the_same_for_ever_is_an_error() {
    let mut cluster = cluster();
    let position = cluster.replica(2).fetch_position().unwrap();
    let mut answer = cluster.answer(&position, 2, true).unwrap();
    answer.diverging = Some((LeaderEpoch(1), Offset(9)));
    let refused = cluster.replica(2).append_fetched(&answer, NOW);
    assert!(matches!(refused, Err(FetchError::NoDivergence { .. })), "{refused:?}");
    assert_eq!(cluster.end(2), 2);
}

#[test]
fn b5_e3_an_answer_that_says_the_logs_differ_says_nothing_of_what_is_committed() {
    let mut cluster = cluster();
    cluster.elect(2, &[1, 2, 3]);
    cluster.tell(2);
    cluster.append(2, &["lost"]);
    cluster.append(2, &["lost too"]);
    cluster.lead(1, &[1, 3]);
    cluster.append(1, &["c"]);
    cluster.sync(1);
    cluster.catch_up(3);
    assert_eq!(cluster.high_watermark(1), 3);
    let position = cluster.replica(2).fetch_position().unwrap();
    let answer = cluster.answer(&position, 2, true).unwrap();
    assert_eq!((answer.diverging.is_some(), answer.high_watermark), (true, Offset(3)));
    assert!(answer.records.is_empty());
    cluster.replica(2).append_fetched(&answer, NOW).unwrap();
    assert_eq!((cluster.high_watermark(2), cluster.end(2)), (2, 2));
}

#[test]
fn e3_a_fetch_that_diverges_says_nothing_of_where_the_follower_is() {
    let mut cluster = cluster();
    cluster.elect(2, &[1, 2, 3]);
    cluster.tell(2);
    cluster.append(2, &["lost"]);
    cluster.sync(2);
    cluster.lead(1, &[1, 2]);
    cluster.append(1, &["c"]);
    cluster.sync(1);
    // Broker 2 ends where the leader does, with something else.
    assert_eq!((cluster.end(1), cluster.end(2)), (3, 3));
    let outcome = cluster.fetch(2);
    assert_eq!((outcome, cluster.high_watermark(1)), (FetchOutcome::Truncated(Offset(2)), 2));
    cluster.catch_up(2);
    assert_eq!(cluster.high_watermark(1), 3);
}

#[test]
fn b6_e5_an_answer_to_another_question_is_not_taken() {
    let mut cluster = cluster();
    cluster.append(1, &["c"]);
    let position = cluster.replica(2).fetch_position().unwrap();
    let answer = cluster.answer(&position, 2, true).unwrap();
    // The partition has another leader by now, then the old one again.
    cluster.lead(3, &[1, 2, 3]);
    assert_eq!(cluster.replica(2).append_fetched(&answer, NOW).unwrap(), FetchOutcome::Stale);
    cluster.lead(1, &[1, 2, 3]);
    assert_eq!(cluster.replica(2).append_fetched(&answer, NOW).unwrap(), FetchOutcome::Stale);
    // The log has moved on since.
    let position = cluster.replica(2).fetch_position().unwrap();
    let answer = cluster.answer(&position, 2, true).unwrap();
    assert_eq!(cluster.replica(2).append_fetched(&answer, NOW).unwrap(), FetchOutcome::Taken);
    assert_eq!(cluster.replica(2).append_fetched(&answer, NOW).unwrap(), FetchOutcome::Stale);
    // It leads itself, or has no part in it.
    let position = cluster.replica(2).fetch_position().unwrap();
    let answer = cluster.answer(&position, 2, true).unwrap();
    cluster.lead(2, &[1, 2, 3]);
    let answer = Fetched { leader_epoch: cluster.committed.leader_epoch, ..answer };
    assert_eq!(cluster.replica(2).append_fetched(&answer, NOW).unwrap(), FetchOutcome::Stale);
    cluster.committed.replicas = ids(&[1, 3]);
    cluster.lead(1, &[1, 3]);
    assert_eq!(cluster.replica(2).role(), Role::Idle);
    assert_eq!(cluster.replica(2).fetch_position(), None);
}

#[test]
fn b6_e5_an_answer_that_cuts_is_not_taken_twice() {
    let mut cluster = cluster();
    cluster.append(1, &["lost"]);
    cluster.fetch(2);
    cluster.elect(3, &[1, 2, 3]);
    cluster.tell(2);
    cluster.tell(3);
    cluster.append(3, &["c"]);
    // Two rounds of the follower ask the same, and what the first is told has it cut and grow back to where it was.
    let position = cluster.replica(2).fetch_position().unwrap();
    let answers = [(); 2].map(|()| cluster.answer(&position, 2, true).unwrap());
    let outcomes = answers.map(|answer| {
        let outcome = cluster.replica(2).append_fetched(&answer, NOW).unwrap();
        cluster.fetch(2);
        outcome
    });
    assert_eq!(outcomes, [FetchOutcome::Truncated(Offset(2)), FetchOutcome::Stale]);
    assert_eq!(cluster.values(2), ["a", "b", "c"]);
}

#[test]
fn b7_e8_a_follower_behind_the_leaders_start_begins_anew_there_with_its_high_watermark() {
    let mut cluster = cluster();
    let value = "v".repeat(300);
    for _ in 0..20 {
        cluster.append(1, &[&value]);
    }
    cluster.sync(1);
    leave_behind(&mut cluster);
    cluster.catch_up(2);
    assert_eq!(cluster.high_watermark(1), 22);
    cluster.replica(1).log_mut().advance_start(Offset(22)).unwrap();
    // Everything is gone: broker 3 ends at 2, the leader's log begins and ends at 22.
    assert_eq!(cluster.fetch(3), FetchOutcome::Reset(Offset(22)));
    let log = cluster.replica(3).log();
    assert_eq!((log.start(), log.end().offset), (Offset(22), Offset(22)));
    assert_eq!(cluster.high_watermark(3), 22);
    cluster.sync(3);
    cluster.lead(3, &[1, 2, 3]);
    cluster.append(3, &["c"]);
    for id in [1, 2] {
        cluster.catch_up(id);
    }
    cluster.sync(3);
    assert_eq!(cluster.high_watermark(3), 23);
    assert_eq!(cluster.values(3), ["c"]);
}

#[test]
fn a_leader_whose_log_starts_inside_a_batch_is_followed_from_that_batch_on() {
    let mut cluster = cluster();
    cluster.append(1, &["c", "d", "e", "f"]);
    cluster.append(1, &["g"]);
    cluster.sync(1);
    leave_behind(&mut cluster);
    cluster.catch_up(2);
    cluster.replica(1).log_mut().advance_start(Offset(4)).unwrap();
    assert_eq!(cluster.fetch(3), FetchOutcome::Reset(Offset(4)));
    assert_eq!(cluster.fetch(3), FetchOutcome::Taken);
    let log = cluster.replica(3).log();
    assert_eq!((log.start(), log.end().offset), (Offset(4), Offset(7)));
    cluster.sync(3);
    cluster.broker(3).store_checkpoint();
    cluster.crash(3);
    let log = cluster.replica(3).log();
    assert_eq!((log.start(), log.end().offset), (Offset(4), Offset(7)));
}

#[test]
fn i7_a_start_inside_a_batch_that_finds_no_room_moves_nothing() {
    let mut cluster = cluster();
    let value = "v".repeat(1000);
    cluster.append(1, &["c", "d", &value, "f"]);
    cluster.append(1, &["g"]);
    cluster.sync(1);
    leave_behind(&mut cluster);
    cluster.catch_up(2);
    cluster.replica(1).log_mut().advance_start(Offset(4)).unwrap();
    assert_eq!(cluster.fetch(3), FetchOutcome::Reset(Offset(4)));
    let sim = cluster.broker(3).sim.clone();
    sim.set_capacity(Some(sim.used() + 500));
    let position = cluster.replica(3).fetch_position().unwrap();
    let answer = cluster.answer(&position, 3, true).unwrap();
    assert!(matches!(cluster.replica(3).append_fetched(&answer, NOW), Err(FetchError::Append(_))));
    let log = cluster.replica(3).log();
    assert_eq!((log.start(), log.end().offset), (Offset(4), Offset(4)));
    assert_eq!(cluster.high_watermark(3), 4);
    sim.set_capacity(None);
    cluster.catch_up(3);
    let log = cluster.replica(3).log();
    assert_eq!((log.start(), log.end().offset), (Offset(4), Offset(7)));
}

#[test]
fn e3_i4_a_follower_below_a_start_whose_epochs_are_forgotten_begins_anew_before_it_counts() {
    let mut cluster = cluster();
    // Broker 3 has a "c" that nobody else has, and goes.
    cluster.append(1, &["c"]);
    cluster.fetch(3);
    cluster.sync(3);
    leave_behind(&mut cluster);
    cluster.lead(2, &[1, 2]);
    cluster.append(2, &["d"]);
    cluster.sync(2);
    cluster.catch_up(1);
    cluster.lead(2, &[1, 2]);
    cluster.append(2, &["e"]);
    cluster.sync(2);
    cluster.catch_up(1);
    cluster.replica(2).log_mut().advance_start(Offset(3)).unwrap();
    // They end alike, and of the epoch in which the third record was another nothing is left.
    cluster.lead(2, &[1, 2]);
    let position = cluster.replica(3).fetch_position().unwrap();
    assert_eq!((position.offset, position.last_epoch, position.log_start), (Offset(3), LeaderEpoch(1), Offset(0)));
    let answer = cluster.answer(&position, 3, true).unwrap();
    assert_eq!(cluster.proposal(), None, "it may not join with what may be another's");
    let outcome = cluster.replica(3).append_fetched(&answer, NOW).unwrap();
    assert_eq!(outcome, FetchOutcome::Reset(Offset(3)));
    cluster.catch_up(3);
    let (_, proposal) = cluster.proposal().unwrap();
    assert!(proposal.isr.iter().any(|(broker, _)| broker.0 == 3));
    assert_eq!(cluster.values(3), ["e"]);
}

#[test]
fn e2_p2_a_follower_keeps_the_producers_of_a_log_that_is_deleted_up_to_where_an_epoch_begins() {
    for deleted_before in [false, true] {
        let mut cluster = cluster();
        cluster.try_append(1, idempotent(7, 0, &["c"]));
        cluster.sync(1);
        for _ in 0..2 {
            cluster.catch_up(2);
            cluster.catch_up(3);
        }
        // Another leads, in whose epoch nothing is written before or after all there is is deleted.
        let delete = |cluster: &mut Cluster| cluster.replica(2).log_mut().advance_start(Offset(3)).unwrap();
        if deleted_before {
            delete(&mut cluster);
        }
        cluster.lead(2, &[1, 2, 3]);
        assert_eq!(cluster.high_watermark(2), 3);
        if !deleted_before {
            delete(&mut cluster);
        }
        for id in [1, 3] {
            assert_eq!(cluster.fetch(id), FetchOutcome::Taken);
            assert_eq!(cluster.replica(id).log().start(), Offset(3));
        }
        cluster.lead(3, &[1, 2, 3]);
        let early = cluster.try_append(3, idempotent(7, 2, &["e"]));
        assert!(matches!(early, Outcome::Refused(_)), "what comes before has not come yet: {early:?}");
        let next = cluster.try_append(3, idempotent(7, 1, &["d"]));
        assert!(matches!(next, Outcome::Appended { .. }), "{next:?}");
    }
}

#[test]
fn a_follower_moves_its_start_with_its_leader_and_not_past_what_it_knows_to_be_committed() {
    let mut cluster = cluster();
    let value = "v".repeat(300);
    for _ in 0..20 {
        cluster.append(1, &[&value]);
    }
    cluster.sync(1);
    for _ in 0..2 {
        cluster.catch_up(2);
        cluster.catch_up(3);
    }
    let segments = cluster.replica(2).log().segments().len();
    cluster.replica(1).log_mut().advance_start(Offset(15)).unwrap();
    cluster.fetch(2);
    let log = cluster.replica(2).log();
    assert_eq!(log.start(), Offset(15));
    assert!(log.segments().len() < segments);
    // An answer may name a start that is not known to be committed here.
    cluster.append(1, &["c"]);
    cluster.fetch(2);
    let position = cluster.replica(2).fetch_position().unwrap();
    let mut answer = cluster.answer(&position, 2, true).unwrap();
    (answer.log_start, answer.high_watermark) = (position.offset, Offset(22));
    cluster.replica(2).append_fetched(&answer, NOW).unwrap();
    assert_eq!((cluster.replica(2).log().start(), position.offset), (Offset(22), Offset(23)));
}

#[test]
fn e9_an_unclean_election_is_told_before_anything_committed_is_cut() {
    let mut cluster = cluster();
    cluster.append(1, &["c", "d"]);
    cluster.append(1, &["e"]);
    cluster.sync(1);
    leave_behind(&mut cluster);
    cluster.catch_up(2);
    cluster.catch_up(2);
    assert_eq!(cluster.high_watermark(2), 5);
    cluster.sync(2);
    cluster.broker(2).store_checkpoint();
    // Broker 3 has "a" and "b" and nothing else, and is made leader all the same.
    cluster.committed.recovering = true;
    cluster.lead(3, &[3]);
    let lost = FetchOutcome::HighWatermarkLost { from: Offset(5), to: Offset(2) };
    assert_eq!(cluster.fetch(2), lost);
    assert_eq!((cluster.end(2), cluster.high_watermark(2)), (5, 2));
    let checkpoint = cluster.replica(2).log().checkpoint();
    assert!(checkpoint.high_watermark <= Offset(2) && checkpoint.recovery_point.offset <= Offset(2));
    cluster.broker(2).store_checkpoint();
    assert_eq!(cluster.fetch(2), FetchOutcome::Truncated(Offset(2)));
    // A power cut right now is no damage.
    cluster.crash(2);
    cluster.tell(2);
    cluster.append(3, &["x"]);
    cluster.catch_up(2);
    assert_eq!(cluster.values(2), ["a", "b", "x"]);
}

#[test]
fn a_cut_above_the_high_watermark_leaves_every_stored_checkpoint_true() {
    for seed in 0..40 {
        let mut cluster = seeded(seed);
        // Broker 2 leads, syncs, and stores a checkpoint of what nobody else will have.
        cluster.elect(2, &[1, 2, 3]);
        cluster.tell(2);
        let value = "v".repeat(200);
        for _ in 0..20 {
            cluster.append(2, &[&value, &value]);
            cluster.sync(2);
        }
        cluster.broker(2).store_checkpoint();
        cluster.lead(1, &[1, 2, 3]);
        cluster.append(1, &["c"]);
        assert_eq!(cluster.fetch(2), FetchOutcome::Truncated(Offset(2)));
        if seed % 2 == 0 {
            cluster.fetch(2);
        }
        if seed % 4 == 0 {
            cluster.sync(2);
        }
        // A start that reports damage fails the test.
        cluster.crash(2);
        cluster.tell(2);
        cluster.catch_up(2);
        assert_eq!(cluster.values(2), ["a", "b", "c"], "seed {seed}");
    }
}

#[test]
fn b15_what_is_not_committed_is_above_the_high_watermark_of_leader_and_follower() {
    let mut cluster = cluster();
    cluster.append(1, &["dirty"]);
    cluster.fetch(2);
    assert_eq!((cluster.end(1), cluster.end(2)), (3, 3));
    for id in [1, 2] {
        let replica = cluster.replica(id);
        assert_eq!(values_below(replica, replica.high_watermark().offset), ["a", "b"]);
    }
    // Also after a restart, where the log is longer than what was stored as committed.
    cluster.sync(2);
    cluster.broker(2).store_checkpoint();
    cluster.crash(2);
    assert_eq!((cluster.end(2), cluster.high_watermark(2)), (3, 2));
}

#[test]
fn a_cut_waits_for_a_sync_that_is_under_way() {
    let mut cluster = cluster();
    cluster.elect(2, &[1, 2, 3]);
    cluster.tell(2);
    cluster.append(2, &["lost"]);
    let plan = cluster.replica(2).begin_sync().unwrap();
    cluster.lead(1, &[1, 2, 3]);
    assert_eq!(cluster.fetch(2), FetchOutcome::Busy);
    assert_eq!(cluster.end(2), 3);
    let result = plan.run();
    cluster.replica(2).complete_sync(plan, result).unwrap();
    assert_eq!(cluster.fetch(2), FetchOutcome::Truncated(Offset(2)));
}

#[test]
fn l1_what_does_not_continue_the_log_is_refused() {
    let mut cluster = cluster();
    cluster.append(1, &["c"]);
    let position = cluster.replica(2).fetch_position().unwrap();
    let mut answer = cluster.answer(&position, 2, true).unwrap();
    answer.records = Bytes::from_static(b"no batch at all");
    assert!(matches!(cluster.replica(2).append_fetched(&answer, NOW), Err(FetchError::Append(_))));
    assert_eq!((cluster.end(2), cluster.high_watermark(2)), (2, 2));
}
