//! JoinGroup: who may come, and what they are told.

use bytes::Bytes;
use ottla_group::{Command, GroupState, Join, JoinRefusal, Refusal, Reply};

use crate::world::{GROUP, SESSION_MS, World, again, join, subscription};

#[test]
fn a_member_id_is_required_only_of_those_who_know_how() {
    let mut world = World::new();
    let ticket = world.send(Command::Join(Join { requires_member_id: true, ..join("c") }));
    let Some(Reply::Join(Err(JoinRefusal { refusal: Refusal::MemberIdRequired, member }))) = world.reply(ticket) else {
        panic!("no id was given");
    };
    assert!(member.starts_with("c-"), "{member}");
    // Nobody is in the group for it.
    assert!(world.coordinator.describe_classic(GROUP).is_err());
    assert_eq!(world.coordinator.list(), []);

    let ticket = world.send(Command::Join(again("c", &member)));
    world.pass(3_000);
    assert_eq!(world.joined(ticket).member, member);

    // A client of old days has no way to come back with an id.
    let ticket = world.send(Command::Join(Join { group: "old".into(), ..join("kafka-go") }));
    world.pass(3_000);
    assert_eq!(world.joined(ticket).generation, 1);
}

#[test]
fn an_id_that_was_given_is_forgotten_after_a_session() {
    let mut world = World::new();
    let ticket = world.send(Command::Join(Join { requires_member_id: true, ..join("c") }));
    let Some(Reply::Join(Err(JoinRefusal { member, .. }))) = world.reply(ticket) else { panic!("no id was given") };
    world.pass(SESSION_MS as u64);
    let ticket = world.send(Command::Join(again("c", &member)));
    assert_eq!(world.join_refusal(ticket), Refusal::UnknownMemberId);
}

#[test]
fn a_rebalance_waits_for_ids_that_were_given() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a")]);
    let ticket = world.send(Command::Join(Join { requires_member_id: true, ..join("b") }));
    let Some(Reply::Join(Err(JoinRefusal { member, .. }))) = world.reply(ticket) else { panic!("no id was given") };
    let first = world.send(Command::Join(again("a", &members[0].member)));
    assert!(world.waits(first), "the second member is on its way");
    let second = world.send(Command::Join(again("b", &member)));
    assert_eq!(world.joined(first).generation, 2);
    assert_eq!(world.joined(second).generation, 2);
}

#[test]
fn the_first_generation_without_an_initial_delay_waits_for_nobody() {
    let mut world = World::new();
    world.config.classic_initial_rebalance_delay_ms = 0;
    world.send(Command::Join(Join { requires_member_id: true, ..join("gone") }));
    let ticket = world.send(Command::Join(Join { requires_member_id: true, ..join("c") }));
    let Some(Reply::Join(Err(JoinRefusal { member, .. }))) = world.reply(ticket) else { panic!("no id was given") };
    let ticket = world.send(Command::Join(again("c", &member)));
    assert_eq!(world.joined(ticket).generation, 1);
}

#[test]
fn a_rebalance_waits_no_longer_than_a_session_for_ids_that_were_given() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a")]);
    world.send(Command::Join(Join { requires_member_id: true, ..join("b") }));
    let ticket = world.send(Command::Join(again("a", &members[0].member)));
    world.pass(SESSION_MS as u64 - 1);
    assert!(world.waits(ticket));
    world.pass(1);
    assert_eq!(world.joined(ticket).generation, 2);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut world = World::new();
    let cases = [
        (Join { group: "".into(), ..join("c") }, Refusal::InvalidGroupId),
        (Join { session_timeout_ms: 5_999, ..join("c") }, Refusal::InvalidSessionTimeout),
        (Join { session_timeout_ms: 1_800_001, ..join("c") }, Refusal::InvalidSessionTimeout),
        (again("c", &"c-1".into()), Refusal::UnknownMemberId),
    ];
    for (join, refusal) in cases {
        let ticket = world.send(Command::Join(join));
        assert_eq!(world.join_refusal(ticket), refusal);
    }
    let cases = [Join { protocols: vec![], ..join("c") }, Join { protocol_type: "".into(), ..join("c") }];
    for join in cases {
        let ticket = world.send(Command::Join(join));
        assert!(matches!(world.join_refusal(ticket), Refusal::InconsistentGroupProtocol(_)));
    }
    let long = "x".repeat(40_000);
    let ticket = world.send(Command::Join(Join { instance: Some(long.into()), ..join("c") }));
    assert!(matches!(world.join_refusal(ticket), Refusal::InvalidRequest(_)));
    assert_eq!(world.coordinator.list(), []);
}

#[test]
fn members_without_a_protocol_in_common_stay_apart() {
    let mut world = World::new();
    world.stable_group(vec![join("a")]);
    let cases = [
        Join { protocols: vec![("sticky".into(), Bytes::new())], ..join("b") },
        Join { protocol_type: "connect".into(), ..join("b") },
    ];
    for join in cases {
        let ticket = world.send(Command::Join(join));
        assert!(matches!(world.join_refusal(ticket), Refusal::InconsistentGroupProtocol(_)));
    }
    assert_eq!(world.coordinator.describe_classic(GROUP).unwrap().state, GroupState::Stable);
}

#[test]
fn the_protocol_of_most_votes_is_chosen_and_the_leader_alone_gets_its_metadata() {
    let mut world = World::new();
    let offers = |names: &[&'static str]| -> Vec<_> {
        names.iter().map(|name| ((*name).into(), Bytes::from(name.to_uppercase()))).collect()
    };
    let joins = [
        Join { protocols: offers(&["x", "a", "b"]), ..join("1") },
        Join { protocols: offers(&["b", "a"]), ..join("2") },
        Join { protocols: offers(&["b", "a", "x"]), ..join("3") },
    ];
    let tickets = joins.map(|join| world.send(Command::Join(join)));
    world.pass(6_000);
    let joined = tickets.map(|ticket| world.joined(ticket));
    for each in &joined {
        // `x` is not common to all, so the first votes for `a`.
        assert_eq!(each.protocol.as_deref(), Some("b"));
        assert_eq!(each.leader, joined[0].member, "the first to come leads");
        assert_eq!((each.generation, each.skip_assignment), (1, false));
        assert_eq!(each.members.len(), if each.member == each.leader { 3 } else { 0 });
    }
    assert!(joined[0].members.iter().all(|member| member.metadata == "B"));
}

#[test]
fn a_group_of_connect_workers_is_like_any_other() {
    let mut world = World::new();
    let worker = |client: &str| Join {
        protocol_type: "connect".into(),
        protocols: vec![("sessioned".into(), Bytes::from_static(b"\xff\x00opaque"))],
        ..join(client)
    };
    let members = world.stable_group(vec![worker("a"), worker("b")]);
    assert!(members[0].members.iter().all(|member| *member.metadata == *b"\xff\x00opaque"));
    assert_eq!(&*world.coordinator.describe_classic(GROUP).unwrap().protocol_type, "connect");
}

#[test]
fn a_full_group_takes_nobody_more() {
    let mut world = World::new();
    world.config.classic_max_size = 2;
    let members = world.stable_group(vec![join("a"), join("b")]);
    let ticket = world.send(Command::Join(join("c")));
    assert_eq!(world.join_refusal(ticket), Refusal::GroupMaxSizeReached);
    assert_eq!(world.coordinator.describe_classic(GROUP).unwrap().state, GroupState::Stable);

    // With a lower limit the last to come to the next rebalance has to go.
    world.config.classic_max_size = 1;
    let first = world.send(Command::Join(again("a", &members[0].member)));
    let second = world.send(Command::Join(again("b", &members[1].member)));
    assert_eq!(world.join_refusal(second), Refusal::GroupMaxSizeReached);
    assert_eq!(world.joined(first).members.len(), 1);
}

#[test]
fn a_member_that_joins_again_while_the_group_is_stable() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a"), join("b")]);
    let (leader, follower) = (&members[0], &members[1]);

    // A follower that wants the same hears what it has heard before.
    let ticket = world.send(Command::Join(again("b", &follower.member)));
    assert_eq!(world.joined(ticket), *follower);
    // One that wants something else begins a rebalance,
    let other = Join {
        protocols: vec![("range".into(), subscription(&["orders", "payments"]))],
        ..again("b", &follower.member)
    };
    let ticket = world.send(Command::Join(other));
    assert!(world.waits(ticket));
    assert_eq!(world.heartbeat(&leader.member, 1), Err(Refusal::RebalanceInProgress));
    let second = world.send(Command::Join(again("a", &leader.member)));
    let members = [world.joined(ticket), world.joined(second)];
    assert!(members.iter().all(|joined| joined.generation == 2));

    // and in a generation that is not assigned yet, who missed its answer gets it again.
    let ticket = world.send(Command::Join(again("a", &leader.member)));
    let repeated = world.joined(ticket);
    assert_eq!((repeated.generation, repeated.members.len()), (2, 2));

    // The leader joins because it wants to assign anew.
    for joined in [&members[1], &members[0]] {
        world.send(Command::Sync(crate::world::sync(joined, &members)));
    }
    assert_eq!(world.coordinator.describe_classic(GROUP).unwrap().state, GroupState::Stable);
    let ticket = world.send(Command::Join(again("a", &leader.member)));
    assert!(world.waits(ticket));
}

#[test]
fn a_join_that_is_repeated_takes_the_place_of_the_one_that_waits() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a"), join("b")]);
    let first = world.send(Command::Join(again("a", &members[0].member)));
    let second = world.send(Command::Join(again("a", &members[0].member)));
    assert_eq!(world.join_refusal(first), Refusal::RebalanceInProgress);
    assert!(world.waits(second));
    world.send(Command::Join(again("b", &members[1].member)));
    assert_eq!(world.joined(second).generation, 2);
}
