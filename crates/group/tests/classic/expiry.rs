//! Expiry of offsets (KIP-211): only of what nobody reads, and only after a whole retention (rule G4, bug class B37).

use ottla_group::{Command, CommitOffsets, Join, MemberId};
use ottla_types::Offset;

use crate::world::{GROUP, World, commit, commit_as, commit_offset, join};

const DAY: u64 = 24 * 3_600_000;
const WEEK: u64 = 7 * DAY;
/// How late the check may come.
const CHECK: u64 = 600_000;
const LONG_SESSION_MS: u64 = 1_200_000;

#[test]
fn g4_offsets_of_a_group_of_offsets_alone_expire_a_retention_after_their_commit() {
    let mut world = World::new();
    world.commit(commit(1)).unwrap();
    world.pass(DAY);
    world.commit(CommitOffsets { offsets: vec![commit_offset("payments", 1)], ..commit(0) }).unwrap();
    world.pass(WEEK - DAY - 1);
    assert_eq!(world.fetch_all(GROUP).len(), 2);
    world.pass(CHECK);
    assert_eq!(world.fetch_all(GROUP).len(), 1, "each by itself");
    world.pass(DAY);
    assert_eq!(world.fetch_all(GROUP), []);
    // And with the last one the group.
    assert_eq!(world.coordinator.list(), []);
    assert_eq!(world.replayed().list(), []);
}

#[test]
fn g4_offsets_of_an_empty_group_expire_a_retention_after_its_last_member() {
    let mut world = World::new();
    let member = live_for(&mut world, DAY);
    world.leave(&[(&member, None)]);
    world.pass(WEEK - 1);
    assert_eq!(world.fetch_all(GROUP).len(), 1, "since it became empty, not since the commit");
    // A reset gives it a retention more.
    world.commit(commit(7)).unwrap();
    world.pass(WEEK - 1);
    assert_eq!(world.fetch_all(GROUP)[0].committed.as_ref().unwrap().offset, Offset(7));
    world.pass(CHECK);
    assert_eq!(world.fetch_all(GROUP), []);
    assert_eq!(world.coordinator.list(), []);
}

#[test]
fn b37_a_reload_brings_expiry_no_nearer() {
    let mut world = World::new();
    let member = live_for(&mut world, DAY);
    world.leave(&[(&member, None)]);
    for _ in 0..6 {
        world.pass(DAY);
        world.reload();
        assert_eq!(world.fetch_all(GROUP).len(), 1);
    }
    world.pass(DAY + CHECK);
    assert_eq!(world.fetch_all(GROUP), []);
}

#[test]
fn g4_offsets_of_a_stable_group_expire_where_nobody_reads() {
    let mut world = World::new();
    let members = world.stable_group(vec![patient("a")]);
    let offsets = vec![commit_offset("orders", 1), commit_offset("payments", 1)];
    world.commit(CommitOffsets { offsets, ..commit_as(&members[0].member, 1, 0) }).unwrap();
    stay(&mut world, &members[0].member, WEEK + CHECK);
    let left: Vec<_> = world.fetch_all(GROUP).into_iter().map(|row| row.topic).collect();
    assert_eq!(left, ["orders".into()], "the one it subscribes to stays, however old");
}

#[test]
fn b37_nothing_expires_while_the_group_rebalances() {
    let mut world = World::new();
    let slow = |client: &str| Join { rebalance_timeout_ms: i32::MAX, ..patient(client) };
    let members = world.stable_group(vec![slow("a"), slow("b")]);
    let offsets = vec![commit_offset("payments", 1)];
    world.commit(CommitOffsets { offsets, ..commit_as(&members[0].member, 1, 0) }).unwrap();
    world.send(Command::Join(Join { member: members[0].member.clone(), ..slow("a") }));
    for _ in 0..(WEEK / 600_000 + 2) {
        world.pass(600_000);
        let _ = world.heartbeat(&members[1].member, 1);
    }
    assert_eq!(world.fetch_all(GROUP).len(), 1);
}

#[test]
fn g4_members_that_are_no_consumers_keep_all_their_offsets() {
    let mut world = World::new();
    let members = world.stable_group(vec![Join { protocol_type: "connect".into(), ..patient("a") }]);
    world.commit(commit_as(&members[0].member, 1, 1)).unwrap();
    stay(&mut world, &members[0].member, WEEK + CHECK);
    assert_eq!(world.fetch_all(GROUP).len(), 1);
}

#[test]
fn a_commit_that_says_when_it_expires_does() {
    let mut world = World::new();
    world.commit(CommitOffsets { retention_ms: Some(3_600_000), ..commit(1) }).unwrap();
    world.reload();
    world.pass(3_600_000 - 1);
    assert_eq!(world.fetch_all(GROUP).len(), 1);
    world.pass(CHECK);
    assert_eq!(world.fetch_all(GROUP), []);
}

#[test]
fn a_group_that_nobody_needs_is_forgotten() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a")]);
    world.leave(&[(&members[0].member, None)]);
    assert_eq!(world.coordinator.list().len(), 1);
    world.pass(CHECK);
    assert_eq!(world.coordinator.list(), [], "it has no offsets that would have to stay");
    assert_eq!(world.replayed().list(), []);
}

#[test]
fn many_offsets_expire_in_several_batches() {
    let mut world = World::new();
    for group in 0..15 {
        let offsets = (0..100).map(|topic| commit_offset(&format!("t{topic}"), 1)).collect();
        let group = format!("g{group}");
        world.commit(CommitOffsets { group: group.as_str().into(), offsets, ..commit(0) }).unwrap();
    }
    world.pass(WEEK);
    let before = world.log.len();
    while world.log.len() == before {
        world.pass(50);
    }
    assert!(world.log.len() - before < 1_200, "{}", world.log.len() - before);
    world.pass(CHECK);
    assert_eq!(world.coordinator.list(), []);
}

/// A member that commits once and then lives for a while.
fn live_for(world: &mut World, milliseconds: u64) -> MemberId {
    let members = world.stable_group(vec![patient("a")]);
    let member = members[0].member.clone();
    world.commit(commit_as(&member, 1, 1)).unwrap();
    stay(world, &member, milliseconds);
    member
}

fn stay(world: &mut World, member: &MemberId, milliseconds: u64) {
    let step = LONG_SESSION_MS / 2;
    for _ in 0..milliseconds / step {
        world.pass(step);
        world.heartbeat(member, 1).unwrap();
    }
}

/// A consumer that need not be heard of often.
fn patient(client: &str) -> Join {
    Join { session_timeout_ms: i32::try_from(LONG_SESSION_MS).unwrap(), ..join(client) }
}
