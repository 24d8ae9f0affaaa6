//! Leading: what moves the high watermark and what does not, and who is in the ISR (rules E1, I2 to I7, L13, A4).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::*;
use ottla_replica::{Durability, EpochRefusal, Event, IsrRefusal, NotEnoughReplicas, Outcome, Role};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};

/// Broker 1 leads, all are in sync and have fetched.
fn cluster(durability: Durability) -> Cluster {
    let mut cluster = Cluster::new(durability, 2);
    cluster.lead(1, &[1, 2, 3]);
    for id in [2, 3] {
        cluster.fetch(id);
    }
    cluster
}

fn members(proposal: &ottla_replica::IsrProposal) -> Vec<i32> {
    proposal.isr.iter().map(|(broker, _)| broker.0).collect()
}

#[test]
fn a_single_copy_acknowledges_what_it_holds_itself() {
    for durability in [Durability::Fsync, Durability::Replicated] {
        let mut cluster = Cluster::new(durability, 2);
        cluster.committed.replicas = ids(&[1]);
        cluster.lead(1, &[1]);
        assert_eq!(cluster.replica(1).role(), Role::Leader);
        assert_eq!(cluster.replica(2).role(), Role::Idle);
        cluster.append(1, &["a", "b"]);
        let before_sync = if durability == Durability::Fsync { 0 } else { 2 };
        assert_eq!(cluster.high_watermark(1), before_sync);
        cluster.sync(1);
        assert_eq!(cluster.high_watermark(1), 2);
        assert_eq!(cluster.replica(1).check_min_isr(), Ok(()), "more than one copy is not asked of one");
        cluster.pass(1000);
        assert!(cluster.effects.is_empty());
        // The checkpoint of an only copy speaks of its end, as nobody will ever cut it.
        let checkpoint = cluster.replica(1).log().checkpoint();
        assert_eq!(checkpoint.high_watermark, Offset(2));
    }
}

#[test]
fn e1_an_epoch_is_recorded_before_anything_is_served_even_if_nothing_is_written() {
    let mut cluster = cluster(Durability::Replicated);
    cluster.append(1, &["a"]);
    cluster.catch_up(2);
    cluster.lead(2, &[1, 2, 3]);
    let epochs = cluster.replica(2).log().epochs();
    let starts: Vec<_> = epochs.entries().iter().map(|entry| (entry.epoch.0, entry.start.0)).collect();
    assert_eq!(starts, [(1, 0), (2, 1)]);
    // Told the same again, nothing changes.
    cluster.tell(2);
    assert_eq!(cluster.replica(2).log().epochs(), epochs);
}

#[test]
fn e7_a_request_of_another_epoch_is_refused_by_which_side_is_behind() {
    let mut cluster = cluster(Durability::Fsync);
    cluster.lead(1, &[1, 2, 3]);
    for id in [1, 2] {
        let replica = cluster.replica(id);
        assert_eq!(replica.check_epoch(LeaderEpoch(1)), Err(EpochRefusal::Fenced));
        assert_eq!(replica.check_epoch(LeaderEpoch(2)), Ok(()));
        assert_eq!(replica.check_epoch(LeaderEpoch(3)), Err(EpochRefusal::Unknown));
        assert_eq!(replica.check_epoch(LeaderEpoch::NONE), Ok(()));
    }
}

#[test]
fn i5_the_high_watermark_is_the_least_that_the_isr_holds() {
    let mut cluster = cluster(Durability::Replicated);
    cluster.append(1, &["a"]);
    cluster.fetch(2);
    cluster.append(1, &["b"]);
    // Broker 2 has "a" and says so with its next fetch; 3 has nothing.
    cluster.fetch(2);
    assert_eq!(cluster.high_watermark(1), 0);
    cluster.fetch(3);
    cluster.fetch(3);
    assert_eq!(cluster.high_watermark(1), 1);
    cluster.fetch(2);
    assert_eq!(cluster.high_watermark(1), 2);
    // Followers learn of it with an answer.
    cluster.fetch(3);
    assert_eq!(cluster.high_watermark(3), 2);
}

#[test]
fn i5_a_member_that_the_controller_took_out_holds_nothing_back_however_fresh_it_was() {
    let mut cluster = cluster(Durability::Replicated);
    cluster.append(1, &["a"]);
    cluster.catch_up(2);
    // Broker 3 had all there was until now. It was killed, and the controller knows.
    cluster.commit_isr(&[1, 2]);
    cluster.tell(1);
    assert_eq!(cluster.high_watermark(1), 1);
    assert_eq!(cluster.proposal(), None, "nor is it let in again before it fetches");
}

#[test]
fn l13_in_fsync_mode_only_what_is_synced_counts_on_either_side() {
    let mut cluster = cluster(Durability::Fsync);
    cluster.append(1, &["a"]);
    for id in [2, 3] {
        cluster.fetch(id);
        cluster.fetch(id);
    }
    assert_eq!(cluster.high_watermark(1), 0, "nobody has synced");
    cluster.sync(2);
    cluster.sync(3);
    for id in [2, 3] {
        cluster.fetch(id);
    }
    assert_eq!(cluster.high_watermark(1), 0, "the leader has not synced");
    cluster.sync(1);
    assert_eq!(cluster.high_watermark(1), 1);
    // And the other way around.
    cluster.append(1, &["b"]);
    cluster.sync(1);
    for id in [2, 3] {
        cluster.fetch(id);
        cluster.fetch(id);
    }
    assert_eq!(cluster.high_watermark(1), 1, "the followers have not synced");
    for id in [2, 3] {
        cluster.sync(id);
        cluster.fetch(id);
    }
    assert_eq!(cluster.high_watermark(1), 2);
}

#[test]
fn the_high_watermark_has_its_place_wherever_the_followers_are() {
    let mut cluster = cluster(Durability::Replicated);
    // Enough for several segments, and for more batches than are remembered in memory.
    let value = "v".repeat(100);
    for _ in 0..100 {
        cluster.append(1, &[&value, &value]);
    }
    let end = cluster.end(1);
    for _ in 0..100 {
        for id in [2, 3] {
            cluster.fetch(id);
        }
        let replica = cluster.replica(1);
        let high_watermark = replica.high_watermark();
        let read = replica.log().reader().batches(Offset::ZERO, high_watermark);
        let read_to = read.last().map_or(Offset::ZERO, |batch| batch.unwrap().0.next_offset());
        assert_eq!(read_to, high_watermark.offset, "its place is that of its offset");
    }
    assert_eq!((cluster.high_watermark(1), end), (200, 200));
}

#[test]
fn i5_below_min_isr_the_high_watermark_stands_still() {
    let mut cluster = cluster(Durability::Replicated);
    cluster.commit_isr(&[1]);
    cluster.tell(1);
    cluster.append(1, &["a"]);
    // A follower that is out of sync, and its fetches, do not help.
    cluster.pass(LAG_MAX + 1);
    assert_eq!(cluster.high_watermark(1), 0);
    cluster.commit_isr(&[1, 2]);
    cluster.tell(1);
    cluster.fetch(2);
    cluster.fetch(2);
    assert_eq!(cluster.high_watermark(1), 1);
}

#[test]
fn i6_too_small_an_isr_is_refused_before_anything_is_written_and_reported_when_it_changes() {
    let mut cluster = cluster(Durability::Replicated);
    assert_eq!(cluster.replica(1).check_min_isr(), Ok(()));
    cluster.commit_isr(&[1]);
    cluster.tell(1);
    let refused = cluster.replica(1).check_min_isr();
    assert_eq!(refused, Err(NotEnoughReplicas { in_sync: 1, required: 2 }));
    assert_eq!(cluster.minimum_reports(), [true]);
    cluster.commit_isr(&[1, 3]);
    cluster.tell(1);
    assert_eq!(cluster.replica(1).check_min_isr(), Ok(()));
    assert_eq!(cluster.minimum_reports(), [true, false]);
}

#[test]
fn i6_copies_that_are_only_being_added_are_not_asked_for_until_they_are_all_in_sync() {
    let mut cluster = Cluster::new(Durability::Replicated, 2);
    cluster.committed.adding = ids(&[2, 3]);
    cluster.lead(1, &[1]);
    assert_eq!(cluster.replica(1).check_min_isr(), Ok(()));
    cluster.append(1, &["a"]);
    cluster.pass(1);
    assert_eq!(cluster.high_watermark(1), 1);
    // The first of them is in sync, and the ISR suffices for the one copy there was.
    cluster.catch_up(2);
    let proposal = cluster.proposal().unwrap();
    cluster.grant(proposal);
    assert_eq!(cluster.replica(1).check_min_isr(), Ok(()));
    // With both the controller may have completed the reassignment, which the answer to the leader does not say.
    cluster.catch_up(3);
    let proposal = cluster.proposal().unwrap();
    cluster.grant(proposal);
    assert_eq!(cluster.replica(1).assignment().adding, ids(&[]));
    cluster.commit_isr(&[1]);
    cluster.committed.adding = ids(&[]);
    cluster.tell(1);
    assert_eq!(cluster.replica(1).check_min_isr(), Err(NotEnoughReplicas { in_sync: 1, required: 2 }));
}

#[test]
fn i2_b8_while_an_isr_is_proposed_the_high_watermark_waits_for_both() {
    let mut cluster = Cluster::new(Durability::Replicated, 2);
    cluster.lead(1, &[1, 2]);
    cluster.append(1, &["a"]);
    cluster.catch_up(2);
    cluster.catch_up(3);
    let proposal = cluster.proposal().unwrap();
    assert_eq!(members(&proposal.1), [1, 2, 3]);
    assert_eq!(cluster.high_watermark(1), 1);
    // The answer does not come. Broker 3 may be in the ISR already, and may be elected.
    cluster.append(1, &["b"]);
    cluster.now.0 += LAG_MAX + 1;
    cluster.catch_up(2);
    cluster.step(1, Event::Tick);
    assert_eq!(cluster.high_watermark(1), 1, "broker 3 does not hold it");
    assert_eq!(cluster.proposal(), None, "one at a time");
    cluster.catch_up(3);
    assert_eq!(cluster.high_watermark(1), 2);
}

#[test]
fn i2_only_a_proposal_that_was_not_attempted_is_forgotten() {
    for (refusal, forgotten) in
        [(IsrRefusal::NotAttempted, true), (IsrRefusal::Superseded, false), (IsrRefusal::Unanswered, false)]
    {
        let mut cluster = Cluster::new(Durability::Replicated, 2);
        cluster.lead(1, &[1, 2]);
        cluster.append(1, &["a"]);
        cluster.catch_up(2);
        cluster.catch_up(3);
        let (_, first) = cluster.proposal().unwrap();
        cluster.refuse(1, refusal);
        cluster.append(1, &["b"]);
        // Broker 3 stops; whether it was in sync a moment ago does not count any more.
        cluster.now.0 += LAG_MAX + 1;
        cluster.catch_up(2);
        cluster.step(1, Event::Tick);
        let high_watermark = if forgotten { 2 } else { 1 };
        assert_eq!(cluster.high_watermark(1), high_watermark, "{refusal:?}");
        let again = cluster.proposal().map(|(_, proposal)| proposal);
        match refusal {
            IsrRefusal::Unanswered => assert_eq!(again, Some(first), "sent again at a tick"),
            IsrRefusal::NotAttempted | IsrRefusal::Superseded => assert_eq!(again, None, "{refusal:?}"),
        }
        // Metadata decides.
        cluster.commit_isr(&[1, 2]);
        cluster.tell(1);
        assert_eq!(cluster.high_watermark(1), 2, "{refusal:?}");
    }
}

#[test]
fn i2_after_metadata_has_decided_nothing_is_proposed_until_the_old_answer_came() {
    let mut cluster = Cluster::new(Durability::Replicated, 2);
    cluster.lead(1, &[1, 2]);
    cluster.catch_up(2);
    cluster.catch_up(3);
    let (_, first) = cluster.proposal().unwrap();
    // The controller commits something else first.
    cluster.commit_isr(&[2, 1]);
    cluster.tell(1);
    cluster.catch_up(3);
    assert_eq!(cluster.proposal(), None, "its refusal could be taken for that of the next");
    cluster.refuse(1, IsrRefusal::NotAttempted);
    cluster.pass(1);
    cluster.catch_up(3);
    let (_, second) = cluster.proposal().unwrap();
    assert!(second.partition_epoch > first.partition_epoch);
}

#[test]
fn i3_what_is_not_newer_is_not_taken() {
    let mut cluster = Cluster::new(Durability::Replicated, 2);
    cluster.lead(1, &[1, 2]);
    cluster.catch_up(2);
    cluster.catch_up(3);
    let proposal = cluster.proposal().unwrap();
    let (before, earlier) = (cluster.committed.clone(), cluster.committed_isr());
    cluster.grant(proposal);
    assert_eq!(cluster.replica(1).assignment().isr, ids(&[1, 2, 3]));
    // Metadata lags behind the answer.
    let (now, mut effects) = (cluster.now, Vec::new());
    cluster.replica(1).assign(now, &before, &mut effects).unwrap();
    assert_eq!(cluster.replica(1).assignment().isr, ids(&[1, 2, 3]));
    // And an answer behind the metadata, or of another leadership.
    cluster.commit_isr(&[1, 3]);
    cluster.tell(1);
    let mut other = cluster.committed_isr();
    other.partition_epoch += 1;
    other.leader_epoch.0 += 1;
    for stale in [earlier, other] {
        cluster.step(1, Event::IsrAnswered(Ok(stale)));
        assert_eq!(cluster.replica(1).assignment().isr, ids(&[1, 3]));
    }
}

#[test]
fn i4_b9_who_joins_has_fetched_all_that_is_committed_in_this_leadership() {
    let mut cluster = Cluster::new(Durability::Replicated, 2);
    cluster.lead(1, &[1, 2]);
    cluster.append(1, &["a"]);
    cluster.catch_up(2);
    // All that is committed, but of an earlier leadership.
    cluster.catch_up(3);
    assert!(cluster.proposal().is_some());
    cluster.lead(1, &[1, 2]);
    cluster.refuse(1, IsrRefusal::Superseded);
    cluster.pass(1);
    assert_eq!(cluster.proposal(), None, "what it held in the last epoch is forgotten");
    cluster.append(1, &["b"]);
    cluster.lead(1, &[1, 2]);
    // All that is committed, and less than the leader began with.
    assert_eq!(cluster.high_watermark(1), 1);
    cluster.fetch(3);
    assert_eq!(cluster.proposal(), None, "it lacks what the leader began with");
    cluster.fetch(3);
    assert_eq!(cluster.proposal().map(|(_, proposal)| members(&proposal)), Some(vec![1, 2, 3]));
}

#[test]
fn i4_b9_a_replica_that_was_removed_and_came_back_begins_with_nothing() {
    let mut cluster = Cluster::new(Durability::Replicated, 2);
    cluster.lead(1, &[1, 2]);
    cluster.append(1, &["a"]);
    cluster.catch_up(2);
    cluster.catch_up(3);
    cluster.proposal().unwrap();
    cluster.refuse(1, IsrRefusal::Superseded);
    cluster.committed.replicas = ids(&[1, 2]);
    cluster.commit_isr(&[1, 2]);
    cluster.tell(1);
    cluster.committed.replicas = ids(&[1, 2, 3]);
    cluster.commit_isr(&[1, 2]);
    cluster.tell(1);
    cluster.pass(1);
    assert_eq!(cluster.proposal(), None);
}

#[test]
fn i4_b9_b10_the_broker_has_to_be_in_good_standing_and_itself() {
    let mut cluster = Cluster::new(Durability::Replicated, 2);
    cluster.lead(1, &[1, 2]);
    let fetched = |epoch, eligible| Event::FollowerFetched {
        broker: BrokerId(3),
        broker_epoch: BrokerEpoch(epoch),
        fetch: Offset(0),
        durable: Offset(0),
        eligible,
    };
    cluster.step(1, fetched(7, false));
    assert_eq!(cluster.proposal(), None, "fenced, or shutting down");
    cluster.step(1, fetched(6, true));
    assert_eq!(cluster.proposal(), None, "of an incarnation that is gone");
    cluster.step(1, fetched(7, true));
    let (_, proposal) = cluster.proposal().unwrap();
    assert_eq!(proposal.isr.last(), Some(&(BrokerId(3), BrokerEpoch(7))));
    // It does not hold up the others while it may not join.
    cluster.refuse(1, IsrRefusal::NotAttempted);
    cluster.step(1, fetched(7, false));
    cluster.append(1, &["a"]);
    cluster.catch_up(2);
    assert_eq!(cluster.high_watermark(1), 1);
}

#[test]
fn a_stranger_or_one_that_claims_more_than_there_is_does_not_count() {
    let mut cluster = cluster(Durability::Replicated);
    cluster.append(1, &["a"]);
    cluster.catch_up(2);
    for (broker, fetch) in [(9, 1), (3, 2)] {
        let (fetch, durable) = (Offset(fetch), Offset(fetch));
        let broker = BrokerId(broker);
        let broker_epoch = BrokerEpoch(1);
        cluster.step(1, Event::FollowerFetched { broker, broker_epoch, fetch, durable, eligible: true });
        assert_eq!(cluster.high_watermark(1), 0);
    }
}

#[test]
fn i5_the_high_watermark_waits_for_who_is_about_to_join() {
    let mut cluster = Cluster::new(Durability::Replicated, 2);
    cluster.lead(1, &[1, 2]);
    cluster.catch_up(2);
    cluster.catch_up(3);
    // The controller said no for now; broker 3 keeps up all the same, and will be proposed again.
    cluster.proposal().unwrap();
    cluster.refuse(1, IsrRefusal::NotAttempted);
    cluster.append(1, &["a"]);
    cluster.catch_up(2);
    assert_eq!(cluster.high_watermark(1), 0);
    // Not for ever.
    cluster.pass(LAG_MAX + 1);
    assert_eq!(cluster.high_watermark(1), 1);
}

#[test]
fn who_lags_for_too_long_leaves_the_isr_and_who_keeps_up_under_load_does_not() {
    let mut cluster = cluster(Durability::Fsync);
    // Broker 2 is never at the end when it asks, as more is appended all the time; 3 stopped.
    for _ in 0..20 {
        cluster.append(1, &["a"]);
        cluster.fetch(2);
        cluster.sync(2);
        cluster.pass(LAG_MAX / 10);
    }
    let proposal = cluster.proposal().unwrap();
    assert_eq!(members(&proposal.1), [1, 2]);
    assert_eq!(cluster.high_watermark(1), 0, "broker 3 counts until the controller has committed that it left");
    cluster.sync(1);
    cluster.grant(proposal);
    assert!(cluster.high_watermark(1) > 0);
}

#[test]
fn who_has_everything_stays_in_the_isr_however_long_it_is_silent() {
    let mut cluster = cluster(Durability::Fsync);
    cluster.pass(LAG_MAX * 10);
    assert_eq!(cluster.proposal(), None);
}

#[test]
fn i7_b14_a_new_leader_does_not_say_where_the_log_ends_before_it_knows() {
    let mut cluster = cluster(Durability::Replicated);
    cluster.append(1, &["a"]);
    cluster.fetch(2);
    cluster.fetch(3);
    cluster.fetch(2);
    cluster.fetch(3);
    assert_eq!((cluster.high_watermark(1), cluster.high_watermark(2)), (1, 0));
    assert!(cluster.replica(1).latest_known());
    assert!(!cluster.replica(2).latest_known());
    // Broker 2 has all that was acknowledged, and has not heard that it was.
    cluster.lead(2, &[1, 2, 3]);
    assert!(!cluster.replica(2).latest_known());
    cluster.fetch(1);
    cluster.fetch(3);
    assert_eq!(cluster.high_watermark(2), 1);
    assert!(cluster.replica(2).latest_known());
}

#[test]
fn a4_who_was_elected_uncleanly_takes_over_before_anybody_joins() {
    let mut cluster = Cluster::new(Durability::Replicated, 2);
    cluster.committed.recovering = true;
    cluster.lead(3, &[3]);
    assert_eq!(cluster.proposal(), None, "nothing comes of an assignment");
    cluster.catch_up(1);
    let proposal = cluster.proposal().unwrap();
    assert_eq!((members(&proposal.1), proposal.1.recovering), (vec![3], false));
    cluster.catch_up(2);
    assert_eq!(cluster.proposal(), None);
    cluster.grant(proposal);
    cluster.catch_up(1);
    let proposal = cluster.proposal().unwrap();
    assert_eq!(members(&proposal.1), [3, 1, 2]);
}

#[test]
fn who_does_not_lead_appends_nothing() {
    let mut cluster = cluster(Durability::Replicated);
    let outcome = cluster.try_append(2, batch(&["a"]));
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    assert_eq!(cluster.end(2), 0);
}

#[test]
fn b43_a_leader_that_does_not_know_yet_that_it_is_none_acknowledges_nothing() {
    let mut cluster = cluster(Durability::Replicated);
    cluster.elect(2, &[1, 2, 3]);
    cluster.tell(2);
    cluster.tell(3);
    cluster.append(1, &["zombie"]);
    let position = cluster.replica(3).fetch_position().unwrap();
    assert_eq!(position.leader, BrokerId(2));
    cluster.pass(LAG_MAX / 2);
    assert_eq!(cluster.high_watermark(1), 0);
    cluster.append(2, &["a"]);
    cluster.fetch(3);
    cluster.tell(1);
    cluster.catch_up(1);
    cluster.catch_up(3);
    assert_eq!(cluster.values(1), ["a"]);
    assert_eq!(cluster.high_watermark(2), 1);
}
