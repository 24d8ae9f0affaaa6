//! Several nodes: growing, shrinking, handing over, being cut off, catching up.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use ottla_consensus::{ChangeError, ProposeError};
use ottla_types::BrokerId;
use world::World;

fn ids(indexes: &[i32]) -> Vec<BrokerId> {
    indexes.iter().copied().map(BrokerId).collect()
}

#[test]
fn one_node_grows_to_three_voters_and_an_observer() {
    let mut world = World::new(4, 1);
    (0..4).for_each(|index| world.start(index));
    world.run_for(3000);
    assert_eq!(world.leader(), None, "nodes without a log wait to be asked");
    world.core(0).bootstrap();
    world.settle(0);
    world.agree(0, b"alone");
    for index in 1..4 {
        world.add(0, index).unwrap();
        assert_eq!(world.add(0, index), Ok(()), "twice is once");
    }
    world.set_voters(0, &[0, 1, 2]).unwrap();
    world.agree(0, b"together");
    let told = |world: &World| (0..4).all(|index| world.status(index).voters == ids(&[0, 1, 2]));
    assert!(world.run_until(2000, told));
    assert_eq!(world.status(3).observers, ids(&[3]));
    assert_eq!(world.status(3).leader, Some(BrokerId(0)));
    let caught_up = |world: &World| {
        let status = world.status(0);
        status.progress.len() == 4 && status.progress.iter().all(|progress| progress.last == status.last)
    };
    assert!(world.run_until(2000, caught_up));
    world.check_converged(&[0, 1, 2, 3]);
    // With one gone two go on, and with two gone the last one does not.
    world.crash(0);
    let leader = world.elect();
    world.agree(leader, b"without the first");
    world.crash(3 - leader);
    world.run_for(3000);
    assert_eq!(world.leader(), None);
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let mut world = World::formed(3, 2);
    assert_eq!(world.set_voters(0, &[]), Err(ChangeError::NoVoter));
    world.start_another();
    assert_eq!(world.set_voters(0, &[0, 3]), Err(ChangeError::NotMember { id: BrokerId(3) }));
    assert_eq!(world.transfer(0, 3), Err(ChangeError::NotMember { id: BrokerId(3) }));
    let leader = Some(BrokerId(0));
    assert!(world.run_until(1000, |world| world.status(1).leader == leader));
    assert_eq!(world.add(1, 3), Err(ChangeError::NotLeader { leader }));
    assert_eq!(world.remove(0, 3), Ok(()), "who is no member is removed");
    let refused = world.propose(1, b"not mine");
    assert_eq!(*refused.borrow(), Some(Err(ProposeError::NotLeader { leader })));
    world.check_converged(&[0, 1, 2]);
}

#[test]
fn voters_are_removed_and_the_leader_too() {
    let mut world = World::formed(3, 3);
    world.agree(0, b"three");
    world.remove(0, 2).unwrap();
    assert_eq!(world.status(0).voters, ids(&[0, 1]));
    world.agree(0, b"two");
    world.remove(0, 0).unwrap();
    assert!(world.run_until(5000, |world| world.leader() == Some(1)), "the last one takes over");
    world.agree(1, b"one");
    assert_eq!(world.status(1).voters, ids(&[1]));
    assert_eq!(world.remove(1, 1), Err(ChangeError::NoVoter));
    world.agree(1, b"still one");
}

#[test]
fn leadership_is_handed_over_without_a_timeout() {
    let mut world = World::formed(3, 4);
    world.agree(0, b"before");
    for to in [1, 2, 0, 2] {
        let from = world.leader().unwrap();
        let caught_up = |world: &World| {
            let status = world.status(from);
            status.progress.iter().filter(|each| each.heard.is_some() && each.last == status.last).count() == 2
        };
        assert!(world.run_until(1000, caught_up));
        let (asked, term) = (world.now, world.status(from).term);
        world.transfer(from, to).unwrap();
        assert!(world.run_until(1000, |world| world.leader() == Some(to)), "to {to}");
        assert!(world.now.0 - asked.0 < world::ELECTION_MS.start, "it waited for a timeout");
        assert!(world.status(to).term > term);
        world.agree(to, format!("by {to}").as_bytes());
    }
    world.check_converged(&[0, 1, 2]);
}

#[test]
fn b23_a_leader_that_hears_nobody_resigns_and_what_it_was_told_meanwhile_is_not_acknowledged() {
    let mut world = World::formed(3, 5);
    world.agree(0, b"before");
    world.isolate(0);
    let lost = world.propose(0, b"into the void");
    world.run_for(world::ELECTION_MS.end + world::HEARTBEAT_MS);
    assert!(!world.status(0).leading && world.status(0).leader.is_none(), "it still leads");
    assert!(!world.nodes[0].seen.borrow().statuses.last().unwrap().leading, "its application is not told");
    let refused = world.propose(0, b"too late");
    assert_eq!(*refused.borrow(), Some(Err(ProposeError::NotLeader { leader: None })));
    let leader = world.elect();
    world.agree(leader, b"by the others");
    assert_eq!(*lost.borrow(), None);
    world.heal();
    world.check_converged(&[0, 1, 2]);
    assert_eq!(*lost.borrow(), Some(Err(ProposeError::Unknown)));
    assert!(!world.agreed.iter().any(|each| each == "into the void"));
}

#[test]
fn e9_a_checkpoint_outlives_the_entries_that_were_cut_after_it_was_stored() {
    let mut world = World::formed(3, 11);
    world.agree(0, b"before");
    world.isolate(0);
    for number in 0..60 {
        world.propose(0, &vec![number; 100_000]);
    }
    world.settle(0);
    assert!(world.status(0).last > 60 && world.status(0).committed < 60);
    // More than a segment, so the log's own recovery point is past what is agreed on.
    world.nodes[0].checkpoint = Some(world.core(0).checkpoint());
    world.run_for(1000);
    world.heal();
    world.check_converged(&[0, 1, 2]);
    assert!(world.status(0).last < 60, "its entries were not cut");
    for _ in 0..3 {
        world.crash(0);
        world.start(0);
        world.check_converged(&[0, 1, 2]);
    }
}

#[test]
fn b23_a_leader_that_is_heard_but_hears_nothing_is_replaced() {
    let mut world = World::formed(3, 6);
    world.cut(1, 0);
    world.cut(2, 0);
    let replaced = |world: &World| world.leader().is_some_and(|leader| leader != 0);
    assert!(world.run_until(10_000, replaced), "its heartbeats keep the others from electing");
    let leader = world.elect();
    world.agree(leader, b"by the others");
    world.heal();
    world.check_converged(&[0, 1, 2]);
}

#[test]
fn m1_who_comes_back_after_a_cut_does_not_disturb() {
    let mut world = World::formed(3, 7);
    let term = world.status(0).term;
    world.isolate(2);
    world.run_for(5000);
    world.heal();
    world.run_for(3000);
    assert_eq!((world.leader(), world.status(0).term), (Some(0), term), "pre-vote did not hold");
    world.check_converged(&[0, 1, 2]);
}

#[test]
fn m2_a_wiped_voter_does_not_vote() {
    let mut world = World::formed(3, 8);
    world.agree(0, b"held by two");
    world.crash(1);
    world.wipe(1);
    world.start(1);
    world.run_for(1000);
    assert!(world.nodes[1].refused.iter().any(|refusal| refusal.contains("another directory")));
    assert_eq!(world.status(1).last, 0, "it took entries meant for the disk it had");
    world.crash(0);
    world.run_for(10_000);
    assert_eq!(world.leader(), None, "a wiped voter made a majority");
    world.start(0);
    let leader = world.elect();
    // Only once it is removed may it come back, as another.
    assert_eq!(world.add(leader, 1), Err(ChangeError::OtherDirectory { id: BrokerId(1) }));
    world.remove(leader, 1).unwrap();
    let leader = world.elect();
    world.add(leader, 1).unwrap();
    world.set_voters(leader, &[0, 1, 2]).unwrap();
    world.check_converged(&[0, 1, 2]);
}

#[test]
fn m3_a_fresh_observer_and_a_voter_far_behind_get_the_snapshot() {
    let mut world = World::formed(3, 9);
    world.crash(2);
    let mut large = 0_u64;
    for _ in 0..900 {
        large += 1;
        let mut payload = large.to_be_bytes().to_vec();
        payload.resize(8000, 9);
        let leader = world.elect();
        world.agree(leader, &payload);
    }
    world.start(2);
    world.start_another();
    let leader = world.elect();
    world.add(leader, 3).unwrap();
    world.check_converged(&[0, 1, 2, 3]);
    for index in 0..4 {
        world.crash(index);
    }
    (0..4).for_each(|index| world.start(index));
    world.check_converged(&[0, 1, 2, 3]);
    assert!(world.agreed.len() > 900);
}

#[test]
fn a_change_that_lost_its_leader_half_way_comes_to_an_end() {
    for cut_after_ms in (0..30).step_by(2) {
        let mut world = World::formed(3, 10);
        world.start_another();
        world.add(0, 3).unwrap();
        let (old, new) = (ids(&[0, 1, 2]), ids(&[1, 2, 3]));
        world.core(0).set_voters(&new, |_| {});
        world.touch(0);
        world.run_for(cut_after_ms);
        world.crash(0);
        let ended =
            |world: &World| world.leader().is_some_and(|leader| [&old, &new].contains(&&world.status(leader).voters));
        assert!(world.run_until(10_000, ended), "cut after {cut_after_ms} ms: still both sets of voters");
        world.start(0);
        world.check_converged(&[1, 2, 3]);
    }
}
