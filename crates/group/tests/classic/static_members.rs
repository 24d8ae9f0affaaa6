//! Static members (KIP-345): a process that comes back has its old place, and its predecessor has none.

use ottla_group::{Command, GroupState, Heartbeat, Join, MemberId, Refusal};

use crate::world::{GROUP, REBALANCE_MS, SESSION_MS, World, again, commit_as, join, static_join, subscription, sync};

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a"), static_join("i")]);
    let (leader, old) = (&members[0], &members[1]);
    let ticket = world.send(Command::Join(static_join("i")));
    let joined = world.joined(ticket);
    assert_eq!((joined.generation, joined.skip_assignment), (1, false));
    assert_ne!(joined.member, old.member);
    assert!(joined.member.starts_with("i-"), "{}", joined.member);
    assert_eq!(world.heartbeat(&leader.member, 1), Ok(()), "nobody else hears of it");

    // It has what its predecessor had,
    let ticket = world.send(Command::Sync(sync(&joined, &members)));
    assert_eq!(&*world.synced(ticket).unwrap().assignment, old.member.as_bytes());
    // which is fenced.
    assert_eq!(world.heartbeat_of(heartbeat("i", &old.member)), Err(Refusal::FencedInstanceId));
    let commit = commit_as(&old.member, 1, 1);
    let fenced = ottla_group::CommitOffsets { instance: Some("i".into()), ..commit };
    assert_eq!(world.commit(fenced), Err(Refusal::FencedInstanceId));
    let ticket = world.send(Command::Join(Join { instance: Some("i".into()), ..again("c", &old.member) }));
    assert_eq!(world.join_refusal(ticket), Refusal::FencedInstanceId);
    assert_eq!(world.heartbeat_of(heartbeat("i", &joined.member)), Ok(()));

    // And all that is durable.
    let group = world.replayed().describe_classic(GROUP).unwrap();
    assert!(group.members.iter().any(|member| member.member == joined.member));
    assert!(group.members.iter().all(|member| member.member != old.member));
}

#[test]
fn a_leader_that_comes_back_is_told_not_to_assign() {
    let mut world = World::new();
    let members = world.stable_group(vec![static_join("i"), join("b")]);
    let leader = &members[0];
    assert!(leader.member.starts_with("i-"));
    let ticket = world.send(Command::Join(static_join("i")));
    let joined = world.joined(ticket);
    assert_eq!((joined.skip_assignment, &joined.leader), (true, &joined.member));
    assert_eq!(joined.members.len(), 2, "it leads, and knows whom");

    // Who does not know of skipping must not think it leads.
    let ticket = world.send(Command::Join(Join { supports_skipping_assignment: false, ..static_join("i") }));
    let older = world.joined(ticket);
    assert_eq!((older.skip_assignment, older.members.len()), (false, 0));
    assert_eq!(older.leader, joined.member);
    assert_ne!(older.member, joined.member);
}

#[test]
fn a_static_member_that_comes_back_with_other_protocols_changes_the_vote() {
    let mut world = World::new();
    let both = |first: &'static str, second: &'static str| {
        vec![(first.into(), subscription(&["orders"])), (second.into(), subscription(&["orders"]))]
    };
    let member = |first, second| Join { protocols: both(first, second), ..static_join("i") };
    world.stable_group(vec![member("range", "sticky")]);
    let ticket = world.send(Command::Join(member("sticky", "range")));
    let joined = world.joined(ticket);
    assert_eq!((joined.generation, joined.protocol.as_deref()), (2, Some("sticky")));
}

#[test]
fn a_static_member_that_is_replaced_while_it_waits_is_fenced() {
    let mut world = World::new();
    let members = world.stable_group(vec![static_join("i"), join("b")]);
    let waiting = Join { instance: Some("i".into()), ..again("c", &members[0].member) };
    let waiting = world.send(Command::Join(waiting));
    let successor = world.send(Command::Join(static_join("i")));
    assert_eq!(world.join_refusal(waiting), Refusal::FencedInstanceId);
    assert!(world.waits(successor));
    let other = world.send(Command::Join(again("b", &members[1].member)));
    let (joined, other) = (world.joined(successor), world.joined(other));
    assert_eq!((joined.generation, other.generation), (2, 2));

    // In a generation without an assignment, a new rebalance: its leader knows the old id alone.
    let follower = world.send(Command::Sync(sync(&other, &[])));
    let successor = world.send(Command::Join(static_join("i")));
    assert!(world.waits(successor));
    assert_eq!(world.synced(follower), Err(Refusal::RebalanceInProgress));
}

#[test]
fn a_static_member_that_is_replaced_while_it_waits_for_its_assignment_is_fenced() {
    let mut world = World::new();
    let tickets = [join("a"), static_join("i")].map(|join| world.send(Command::Join(join)));
    world.pass(6_000);
    let members = tickets.map(|ticket| world.joined(ticket));
    let waiting = world.send(Command::Sync(sync(&members[1], &members)));
    world.send(Command::Join(static_join("i")));
    assert_eq!(world.synced(waiting), Err(Refusal::FencedInstanceId));
}

#[test]
fn a_static_member_that_is_away_stays_until_its_session_ends() {
    let mut world = World::new();
    let away = Join { session_timeout_ms: 20 * SESSION_MS, ..static_join("i") };
    let members = world.stable_group(vec![join("a"), away]);
    let [a, i] = &members[..] else { panic!("two members") };
    // A rebalance that it does not come to keeps its place,
    let first = world.send(Command::Join(again("a", &a.member)));
    world.pass(60_000);
    let joined = world.joined(first);
    assert_eq!((joined.generation, joined.members.len()), (2, 2));
    world.send(Command::Sync(sync(&joined, &[joined.clone(), i.clone()])));
    assert_eq!(world.coordinator.describe_classic(GROUP).unwrap().state, GroupState::Stable);
    // but not for ever: the assignment is not fetched.
    for _ in 0..11 {
        world.pass(6_000);
        let _ = world.heartbeat(&a.member, 2);
    }
    assert_eq!(world.heartbeat(&a.member, 2), Err(Refusal::RebalanceInProgress));
}

#[test]
fn a_static_member_that_is_away_holds_nobody_up_longer_than_a_rebalance() {
    let mut world = World::new();
    let away = Join { session_timeout_ms: 1_800_000, ..static_join("i") };
    let members = world.stable_group(vec![join("a"), away]);
    world.leave(&[(&members[0].member, None)]);
    // There is nobody to make a generation of,
    world.pass(REBALANCE_MS as u64);
    let group = world.coordinator.describe_classic(GROUP).unwrap();
    assert_eq!((group.state, group.members.len()), (GroupState::PreparingRebalance, 1));
    // until somebody comes.
    let ticket = world.send(Command::Join(join("b")));
    world.pass(REBALANCE_MS as u64);
    let joined = world.joined(ticket);
    assert_eq!((&joined.leader, joined.members.len()), (&joined.member, 2));
}

#[test]
fn an_admin_removes_static_members_by_their_instance() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a"), static_join("i"), static_join("k")]);
    let k = members.iter().find(|joined| joined.member.starts_with("k-")).unwrap();
    let rows = world.leave(&[("", Some("i")), ("", Some("none")), ("", None), ("wrong", Some("k"))]);
    let results: Vec<_> = rows.iter().map(|row| row.result.clone()).collect();
    let unknown = Err(Refusal::UnknownMemberId);
    assert_eq!(results, [Ok(()), unknown.clone(), unknown, Err(Refusal::FencedInstanceId)]);
    assert_eq!(rows[0].instance.as_deref(), Some("i"));
    assert_eq!(world.heartbeat(&k.member, 1), Err(Refusal::RebalanceInProgress));
}

#[test]
fn a_static_member_needs_no_id_to_join() {
    let mut world = World::new();
    let ticket = world.send(Command::Join(Join { requires_member_id: true, ..static_join("i") }));
    world.pass(3_000);
    assert_eq!(world.joined(ticket).generation, 1);
}

fn heartbeat(instance: &str, member: &MemberId) -> Heartbeat {
    Heartbeat { group: GROUP.into(), member: member.clone(), instance: Some(instance.into()), generation: 1 }
}
