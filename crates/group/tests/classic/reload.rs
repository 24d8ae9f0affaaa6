//! What is left of groups when all that is left is the log (rules G3, G4; bug classes B36, B38).

use ottla_group::{Command, ConsumerGroupValue, GroupState, GroupType, Join, Record, Refusal};
use ottla_types::{LeaderEpoch, Offset, TopicId};

use crate::world::{GROUP, SESSION_MS, World, again, commit, commit_as, join, static_join, sync};

#[test]
fn g3_b36_a_loaded_group_is_stable_and_everybody_has_a_whole_session() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a"), join("b")]);
    let before = world.coordinator.describe_classic(GROUP).unwrap();
    assert_eq!(before.state, GroupState::Stable);
    world.pass(SESSION_MS as u64 - 1);
    world.reload();
    assert_eq!(world.coordinator.describe_classic(GROUP).unwrap(), before);
    world.pass(SESSION_MS as u64 - 1);
    // They go on as if nothing had happened.
    let (leader, follower) = (&members[0], &members[1]);
    assert_eq!(world.heartbeat(&leader.member, 1), Ok(()));
    let ticket = world.send(Command::Sync(sync(follower, &members)));
    assert_eq!(&*world.synced(ticket).unwrap().assignment, follower.member.as_bytes());
    let ticket = world.send(Command::Join(again("b", &follower.member)));
    assert_eq!(world.joined(ticket), *follower);
}

#[test]
fn g3_members_that_do_not_come_back_after_a_load_are_dropped() {
    let mut world = World::new();
    world.stable_group(vec![join("a")]);
    world.reload();
    world.pass(SESSION_MS as u64);
    assert_eq!(world.coordinator.describe_classic(GROUP).unwrap().state, GroupState::Empty);
}

#[test]
fn g1_a_generation_that_was_not_assigned_is_lost_with_the_coordinator() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a")]);
    let ticket = world.send(Command::Join(again("a", &members[0].member)));
    assert_eq!(world.joined(ticket).generation, 2);
    world.reload();
    // It is told, and joins again.
    assert_eq!(world.heartbeat(&members[0].member, 2), Err(Refusal::IllegalGeneration));
    assert_eq!(world.commit(commit_as(&members[0].member, 2, 1)), Err(Refusal::IllegalGeneration));
    let ticket = world.send(Command::Join(again("a", &members[0].member)));
    assert_eq!(world.joined(ticket).generation, 2);
}

#[test]
fn a_loaded_group_whose_record_names_a_leader_that_is_no_member_is_led_by_a_member() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a")]);
    let (key, value) = world.log.last().cloned().unwrap();
    let Some(Record::ClassicGroup(group, Some(mut stored))) = Record::decode(key, value).unwrap() else {
        panic!("the last record is not that of the group")
    };
    stored.leader = Some("gone".into());
    world.write(&[Record::ClassicGroup(group, Some(stored))]);
    world.reload();
    // Where a leader joins again there is something to assign anew.
    let ticket = world.send(Command::Join(again("a", &members[0].member)));
    let joined = world.joined(ticket);
    assert_eq!((joined.generation, joined.leader), (2, members[0].member.clone()));
}

#[test]
fn b38_leader_epoch_metadata_and_topic_id_of_offsets_survive() {
    let mut world = World::new();
    world.commit(commit(42)).unwrap();
    let before = world.fetch_all(GROUP);
    world.reload();
    assert_eq!(world.fetch_all(GROUP), before);
    let committed = before[0].committed.clone().unwrap();
    assert_eq!((committed.leader_epoch, &*committed.metadata), (LeaderEpoch(5), "m"));
    assert_eq!(committed.topic_id, TopicId::from_bytes([7; 16]));
}

#[test]
fn a_static_member_comes_back_to_a_loaded_group() {
    let mut world = World::new();
    let members = world.stable_group(vec![static_join("i")]);
    world.reload();
    let ticket = world.send(Command::Join(static_join("i")));
    let joined = world.joined(ticket);
    assert_eq!((joined.generation, joined.skip_assignment), (1, true));
    let ticket = world.send(Command::Sync(sync(&joined, &[])));
    assert_eq!(&*world.synced(ticket).unwrap().assignment, members[0].member.as_bytes());
}

#[test]
fn a_loaded_group_votes_again_once_its_members_have_said_what_they_know() {
    let mut world = World::new();
    let known = || vec![("range".into(), "r".into()), ("sticky".into(), "s".into())];
    let members = world.stable_group(vec![Join { protocols: known(), ..join("a") }]);
    world.reload();
    let other = Join { protocols: known().into_iter().rev().collect(), ..again("a", &members[0].member) };
    let ticket = world.send(Command::Join(other));
    assert_eq!(world.joined(ticket).protocol.as_deref(), Some("sticky"));
}

#[test]
fn g4_offsets_outlive_the_group_they_were_committed_to_in_another_protocol() {
    let mut world = World::new();
    world.commit(commit(42)).unwrap();
    let consumer = ConsumerGroupValue { epoch: 1, metadata_hash: 0 };
    world.write(&[Record::ConsumerGroup(GROUP.into(), Some(consumer))]);
    assert_eq!(world.coordinator.list()[0].kind, GroupType::Consumer);
    // A classic member comes to the empty group,
    let ticket = world.send(Command::Join(join("a")));
    assert!(world.waits(ticket));
    // and is lost with the coordinator.
    world.reload();
    let listing = &world.coordinator.list()[0];
    assert_eq!((listing.kind, listing.state), (GroupType::Classic, GroupState::Empty));
    assert_eq!(world.fetch_all(GROUP)[0].committed.as_ref().unwrap().offset, Offset(42));
    assert_eq!(world.commit(commit(43)), Ok(vec![Ok(())]));
}
