//! A cluster of one: it begins at once, forgets nothing, and stops where its disk cannot be believed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use std::{cell::RefCell, path::Path, rc::Rc, sync::atomic::Ordering};

use ottla_consensus::ProposeError;
use ottla_log::{Disk, SimDisk};
use ottla_types::{LeaderEpoch, Tick};
use world::World;

fn alone(seed: u64) -> World {
    let mut world = World::new(1, seed);
    world.start(0);
    world.core(0).bootstrap();
    world.settle(0);
    world
}

fn files(disk: &SimDisk) -> Vec<String> {
    disk.list(Path::new("/metadata")).unwrap()
}

#[test]
fn it_leads_after_one_poll_and_answers_after_one_more() {
    let mut world = alone(1);
    assert!(world.status(0).leading);
    assert_eq!((world.status(0).term, world.now), (LeaderEpoch(1), Tick(0)));
    let outcome = world.propose(0, b"first");
    world.settle(0);
    assert_eq!(*outcome.borrow(), Some(Ok(())));
    assert_eq!(world.nodes[0].seen.borrow().applied, ["first"]);
    let told = world.nodes[0].seen.borrow().statuses.last().cloned().unwrap();
    assert!(told.leading && told.voters == [world.nodes[0].id]);
}

#[test]
fn alone_it_wants_no_poll_but_for_what_comes_in() {
    let mut world = alone(6);
    // What its clock had begun before it led ends with the next beat.
    let second = Tick(world.now.0 + 1_000);
    assert_eq!(world.core(0).poll(second), Some(Tick(u64::MAX)));
    assert!(world.status(0).leading);
}

#[test]
fn many_proposals_of_one_poll_take_one_sync() {
    let mut world = alone(2);
    let before = world.nodes[0].disk.stats().syncs;
    let outcomes: Vec<_> = (0..100).map(|number| world.propose(0, format!("{number}").as_bytes())).collect();
    world.settle(0);
    assert!(outcomes.iter().all(|outcome| *outcome.borrow() == Some(Ok(()))));
    let applied = world.nodes[0].seen.borrow().applied.clone();
    assert!((0..100).all(|number| applied[number] == format!("{number}")), "in the order of the calls");
    assert_eq!(world.nodes[0].disk.stats().syncs - before, 1);
}

#[test]
fn m1_nothing_acknowledged_is_lost_by_a_power_cut() {
    for seed in 0..30 {
        let mut world = alone(seed);
        let mut term = LeaderEpoch(0);
        for round in 0..8 {
            assert!(world.status(0).leading && world.status(0).term > term, "each start is a term of its own");
            term = world.status(0).term;
            for number in 0..=world.draw(4) {
                world.agree(0, format!("{round} {number}").as_bytes());
            }
            world.propose(0, format!("{round} in doubt").as_bytes());
            let acknowledged = world.acknowledged.borrow().len();
            if world.draw(2) == 0 {
                world.crash(0)
            } else {
                world.kill(0)
            }
            world.start(0);
            world.settle(0);
            let seen = world.nodes[0].seen.borrow();
            let kept = world.acknowledged.borrow().iter().filter(|each| seen.applied.contains(each)).count();
            assert_eq!(kept, acknowledged, "seed {seed}");
        }
    }
}

#[test]
fn a_clean_end_leaves_nothing_to_read_and_the_same_state() {
    let mut world = alone(3);
    for number in 0..50 {
        world.agree(0, format!("{number}").as_bytes());
    }
    let before = world.nodes[0].seen.borrow().applied.clone();
    assert!(world.core(0).shut_down());
    assert!(!world.core(0).shut_down());
    let now = world.now;
    assert_eq!(world.core(0).poll(now), None);
    world.nodes[0].checkpoint = Some(world.core(0).checkpoint());
    let refused = world.propose(0, b"late");
    assert_eq!(*refused.borrow(), Some(Err(ProposeError::Stopped)));
    world.crash(0);
    world.start(0);
    assert_eq!(world.nodes[0].seen.borrow().applied, before, "applied before it is polled");
    world.settle(0);
    world.agree(0, b"and on");
}

#[test]
fn a_start_applies_what_was_known_to_be_agreed_on_before_it_is_polled() {
    let mut world = alone(12);
    for number in 0..50 {
        world.agree(0, format!("{number}").as_bytes());
    }
    world.crash(0);
    world.start(0);
    assert!(world.nodes[0].seen.borrow().applied.len() >= 49, "each entry says what was committed before it");
}

#[test]
fn only_its_own_term_is_proposed_in() {
    let mut world = alone(4);
    let outcome = Rc::new(RefCell::new(None));
    let told = Rc::clone(&outcome);
    world.core(0).propose(LeaderEpoch(7), "from elsewhere".into(), move |result| *told.borrow_mut() = Some(result));
    let leader = Some(world.nodes[0].id);
    assert_eq!(*outcome.borrow(), Some(Err(ProposeError::NotLeader { leader })));
}

#[test]
fn l10_a_failed_sync_ends_the_node_and_acknowledges_nothing() {
    let mut world = alone(5);
    world.agree(0, b"before");
    world.nodes[0].disk.fail_syncs(true);
    let outcome = world.propose(0, b"never");
    world.settle(0);
    assert!(world.nodes[0].halted.load(Ordering::SeqCst));
    assert_eq!(*outcome.borrow(), Some(Err(ProposeError::Stopped)));
    assert_eq!(world.nodes[0].seen.borrow().applied, ["before"]);
    assert!(!world.status(0).leading);
    assert!(!world.nodes[0].seen.borrow().statuses.last().unwrap().leading);
    assert!(!world.core(0).shut_down());
}

#[test]
fn l11_a_full_disk_refuses_proposals_and_takes_them_again_later() {
    let mut world = alone(6);
    let payload = vec![7; 100_000];
    world.nodes[0].disk.set_capacity(Some(6 << 20));
    let mut taken = 0;
    let refused = loop {
        let outcome = world.propose(0, &payload);
        world.settle(0);
        let outcome = outcome.borrow_mut().take().unwrap();
        if outcome.is_err() {
            break outcome;
        }
        taken += 1;
    };
    assert_eq!(refused, Err(ProposeError::NoSpace));
    assert!(taken > 20 && !world.nodes[0].halted.load(Ordering::SeqCst));
    world.agree(0, b"a small one finds what was reserved");
    world.nodes[0].disk.set_capacity(None);
    world.agree(0, &payload);
}

#[test]
fn m3_a_snapshot_replaces_the_log_and_nothing_is_lost() {
    let mut world = alone(7);
    let mut purged = 0;
    for number in 0..1500_u64 {
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(8000, number as u8);
        world.agree(0, &payload);
        let names = files(&world.nodes[0].disk);
        let snapshots = names.iter().filter(|name| name.ends_with(".snapshot")).count();
        assert!(snapshots <= 1, "{names:?}");
        purged += usize::from(snapshots == 1);
    }
    assert!(purged > 0, "no snapshot was made");
    let used = world.nodes[0].disk.used();
    assert!(used < 12 << 20 << 1, "the log is not trimmed: {used} bytes");
    for _ in 0..4 {
        world.crash(0);
        world.start(0);
        world.settle(0);
        assert_eq!(world.nodes[0].seen.borrow().applied.len(), 1500);
    }
}

#[test]
fn m3_a_damaged_snapshot_is_refused() {
    let mut world = alone(8);
    for number in 0..600_u64 {
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(8000, 1);
        world.agree(0, &payload);
    }
    let name = files(&world.nodes[0].disk).into_iter().find(|name| name.ends_with(".snapshot")).unwrap();
    world.kill(0);
    let path = Path::new("/metadata").join(name);
    assert!(world.nodes[0].disk.flip_bit(&path, 5000, 3));
    let refusal = world.try_start(0).unwrap_err();
    assert!(refusal.contains("not whole"), "{refusal}");
    assert!(world.nodes[0].disk.flip_bit(&path, 5000, 3));
    world.start(0);
    world.nodes[0].disk.remove(&path).unwrap();
    world.kill(0);
    let refusal = world.try_start(0).unwrap_err();
    assert!(refusal.contains("missing"), "{refusal}");
}

#[test]
fn m1_a_damaged_or_missing_vote_is_refused() {
    let mut world = alone(9);
    world.agree(0, b"something");
    world.kill(0);
    let path = Path::new("/metadata/quorum-state");
    let len = world.nodes[0].disk.read_file(path).unwrap().len() as u64;
    for position in 0..len {
        assert!(world.nodes[0].disk.flip_bit(path, position, 0));
        assert!(world.try_start(0).is_err(), "a flip at {position} is not seen");
        world.nodes[0].core = None;
        assert!(world.nodes[0].disk.flip_bit(path, position, 0));
    }
    world.nodes[0].disk.remove(path).unwrap();
    let refusal = world.try_start(0).unwrap_err();
    assert!(refusal.contains("quorum-state"), "{refusal}");
}

#[test]
fn l5_damage_below_what_was_agreed_on_is_refused_and_nothing_is_cut() {
    let mut world = alone(10);
    for number in 0..20 {
        world.agree(0, format!("number {number}").as_bytes());
    }
    assert!(world.core(0).shut_down());
    let checkpoint = world.core(0).checkpoint();
    world.kill(0);
    let path = Path::new("/metadata/log-00000000000000000000/00000000000000000000.log");
    let before = world.nodes[0].disk.read_file(path).unwrap();
    for checkpoint in [None, Some(checkpoint)] {
        world.nodes[0].checkpoint = checkpoint;
        assert!(world.nodes[0].disk.flip_bit(path, 900, 2));
        assert!(world.try_start(0).is_err());
        world.nodes[0].core = None;
        assert!(world.nodes[0].disk.flip_bit(path, 900, 2));
    }
    assert_eq!(world.nodes[0].disk.read_file(path).unwrap(), before);
    world.start(0);
    world.settle(0);
    assert_eq!(world.nodes[0].seen.borrow().applied.len(), 20);
}

#[test]
fn m2_another_disk_does_not_open_anothers_log() {
    let mut world = alone(11);
    world.agree(0, b"mine");
    world.kill(0);
    world.nodes[0].directory[15] ^= 1;
    let refusal = world.try_start(0).unwrap_err();
    assert!(refusal.contains("another directory"), "{refusal}");
}
