//! Rule G5: who is not in the generation can do nothing in it.

use ottla_group::{Command, Heartbeat, Refusal, Sync};

use crate::world::{GROUP, World, again, commit_as, join, sync};

#[test]
fn g5_an_old_generation_neither_commits_nor_syncs_nor_lives_on() {
    let mut world = World::new();
    let old = world.stable_group(vec![join("a"), join("b")]);
    let tickets: Vec<_> = old.iter().map(|each| world.send(Command::Join(again("c", &each.member)))).collect();
    let new: Vec<_> = tickets.into_iter().map(|ticket| world.joined(ticket)).collect();
    assert!(new.iter().all(|joined| joined.generation == 2));

    let ticket = world.send(Command::Sync(sync(&old[0], &old)));
    assert_eq!(world.synced(ticket), Err(Refusal::IllegalGeneration));
    assert_eq!(world.heartbeat(&old[0].member, 1), Err(Refusal::IllegalGeneration));
    assert_eq!(world.commit(commit_as(&old[0].member, 1, 42)), Err(Refusal::IllegalGeneration));
    // Nor does a generation of the future.
    assert_eq!(world.commit(commit_as(&old[0].member, 3, 42)), Err(Refusal::IllegalGeneration));
    assert_eq!(world.fetch_all(GROUP), []);
}

#[test]
fn g5_commits_count_until_everybody_has_come_and_again_when_all_is_assigned() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a"), join("b")]);
    let [a, b] = &members[..] else { panic!("two members") };
    // PreparingRebalance: what it has read is still its own.
    let first = world.send(Command::Join(again("a", &a.member)));
    assert_eq!(world.commit(commit_as(&b.member, 1, 1)), Ok(vec![Ok(())]));
    let second = world.send(Command::Join(again("b", &b.member)));
    let members = [world.joined(first), world.joined(second)];
    // CompletingRebalance: nobody has anything.
    assert_eq!(world.commit(commit_as(&b.member, 2, 2)), Err(Refusal::RebalanceInProgress));
    for joined in &members {
        world.send(Command::Sync(sync(joined, &members)));
    }
    assert_eq!(world.commit(commit_as(&b.member, 2, 3)), Ok(vec![Ok(())]));
}

#[test]
fn g5_strangers_are_refused() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a")]);
    let stranger = "stranger".into();
    assert_eq!(world.heartbeat(&stranger, 1), Err(Refusal::UnknownMemberId));
    assert_eq!(world.commit(commit_as(&stranger, 1, 1)), Err(Refusal::UnknownMemberId));
    let ticket = world.send(Command::Sync(Sync { member: stranger, ..sync(&members[0], &members) }));
    assert_eq!(world.synced(ticket), Err(Refusal::UnknownMemberId));
    // The same in a group that does not exist.
    let heartbeat = Heartbeat { group: "none".into(), member: "m".into(), instance: None, generation: 1 };
    assert_eq!(world.heartbeat_of(heartbeat), Err(Refusal::UnknownMemberId));
}

#[test]
fn a_sync_that_believes_in_another_protocol_is_refused() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a")]);
    let sync = sync(&members[0], &members);
    let others = [
        Sync { protocol: Some("sticky".into()), ..sync.clone() },
        Sync { protocol_type: Some("connect".into()), ..sync.clone() },
    ];
    for other in others {
        let ticket = world.send(Command::Sync(other));
        assert!(matches!(world.synced(ticket), Err(Refusal::InconsistentGroupProtocol(_))));
    }
    // Before version 5 nothing is said of it.
    let ticket = world.send(Command::Sync(Sync { protocol: None, protocol_type: None, ..sync }));
    assert!(world.synced(ticket).is_ok());
}
