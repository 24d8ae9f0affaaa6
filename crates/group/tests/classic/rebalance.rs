//! Rebalances: how long they wait for whom.

use ottla_group::{Command, GroupState, Join, JoinRefusal, Refusal, Reply};

use crate::world::{GROUP, REBALANCE_MS, SESSION_MS, World, again, join, sync};

const FIVE_MINUTES: u64 = 300_000;

#[test]
fn the_first_rebalance_waits_for_more_members_but_no_longer_than_a_rebalance_may_take() {
    let mut world = World::new();
    let first = world.send(Command::Join(join("a")));
    world.pass(2_999);
    assert!(world.waits(first));
    world.pass(1);
    assert_eq!(world.joined(first).members.len(), 1, "nobody else came");

    // Somebody comes every two seconds: it goes on for the rebalance timeout and not longer.
    let mut world = World::new();
    let short = |client: &str| Join { rebalance_timeout_ms: 10_000, ..join(client) };
    let first = world.send(Command::Join(short("0")));
    for client in ["1", "2", "3", "4"] {
        world.pass(2_000);
        assert!(world.waits(first));
        world.send(Command::Join(short(client)));
    }
    world.pass(1_999);
    assert!(world.waits(first));
    world.pass(1);
    assert_eq!(world.joined(first).members.len(), 5);
}

#[test]
fn without_an_initial_delay_the_first_member_is_at_once_in() {
    let mut world = World::new();
    world.config.classic_initial_rebalance_delay_ms = 0;
    let ticket = world.send(Command::Join(join("a")));
    assert_eq!(world.joined(ticket).generation, 1);
}

#[test]
fn members_that_do_not_come_to_a_rebalance_are_dropped() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a"), join("b")]);
    let ticket = world.send(Command::Join(again("a", &members[0].member)));
    // The other one lives, but does not come.
    for _ in 0..(REBALANCE_MS / 5_000 - 1) {
        world.pass(5_000);
        assert_eq!(world.heartbeat(&members[1].member, 1), Err(Refusal::RebalanceInProgress));
        assert!(world.waits(ticket));
    }
    world.pass(5_000);
    assert_eq!(world.joined(ticket).members.len(), 1);
    assert_eq!(world.heartbeat(&members[1].member, 1), Err(Refusal::UnknownMemberId));
}

#[test]
fn the_longest_rebalance_timeout_counts() {
    let mut world = World::new();
    let slow = Join { rebalance_timeout_ms: 2 * REBALANCE_MS, session_timeout_ms: 3 * REBALANCE_MS, ..join("b") };
    let members = world.stable_group(vec![join("a"), slow]);
    let ticket = world.send(Command::Join(again("a", &members[0].member)));
    world.pass(2 * REBALANCE_MS as u64 - 1);
    assert!(world.waits(ticket), "and who waits is alive, whatever its session timeout is");
    world.pass(1);
    assert_eq!(world.joined(ticket).members.len(), 1);
}

#[test]
fn a_member_whose_session_ends_or_who_leaves_makes_the_others_rebalance() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a"), join("b"), join("c")]);
    let [a, b, c] = &members[..] else { panic!("three members") };
    world.pass(SESSION_MS as u64 - 1);
    for alive in [a, b] {
        assert_eq!(world.heartbeat(&alive.member, 1), Ok(()));
    }
    world.pass(1);
    assert_eq!(world.heartbeat(&a.member, 1), Err(Refusal::RebalanceInProgress));
    assert_eq!(world.heartbeat(&c.member, 1), Err(Refusal::UnknownMemberId));

    let ticket = world.send(Command::Join(again("a", &a.member)));
    assert!(world.waits(ticket));
    let rows = world.leave(&[(&b.member, None), ("nobody", None)]);
    let results: Vec<_> = rows.into_iter().map(|row| row.result).collect();
    assert_eq!(results, [Ok(()), Err(Refusal::UnknownMemberId)]);
    assert_eq!(world.joined(ticket).members.len(), 1, "there is nobody left to wait for");
}

#[test]
fn the_last_one_to_leave_leaves_an_empty_group() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a")]);
    world.leave(&[(&members[0].member, None)]);
    let group = world.coordinator.describe_classic(GROUP).unwrap();
    assert_eq!((group.state, &*group.protocol_type, group.members), (GroupState::Empty, "consumer", vec![]));
    assert_eq!(world.replayed().describe_classic(GROUP).unwrap().state, GroupState::Empty);
}

#[test]
fn a_rebalance_that_may_take_no_time_does_not_go_round_in_circles() {
    let mut world = World::new();
    // Nobody has come when its time is over, but the static member's session lasts.
    let hasty = Join { instance: Some("i".into()), rebalance_timeout_ms: -1, ..join("h") };
    let members = world.stable_group(vec![hasty]);
    let ticket = world.send(Command::Join(Join { requires_member_id: true, ..join("b") }));
    let Some(Reply::Join(Err(JoinRefusal { member, .. }))) = world.reply(ticket) else { panic!("no id was given") };
    world.leave(&[(&member, None)]);
    world.pass(0);
    assert_eq!(world.heartbeat(&members[0].member, 1), Err(Refusal::RebalanceInProgress));
    let ticket = world.send(Command::Join(again("h", &members[0].member)));
    assert_eq!(world.joined(ticket).generation, 2);
}

#[test]
fn a_rebalance_shows_what_members_had() {
    let mut world = World::new();
    let members = world.stable_group(vec![join("a")]);
    world.send(Command::Join(join("b")));
    let group = world.coordinator.describe_classic(GROUP).unwrap();
    assert_eq!(group.state, GroupState::PreparingRebalance);
    let of_a = group.members.iter().find(|member| member.member == members[0].member).unwrap();
    assert_eq!(of_a.assignment, members[0].member.as_bytes());
}

#[test]
fn a_new_member_that_never_hears_of_the_group_is_given_up() {
    let mut world = World::new();
    // A static member that is gone holds the rebalance up for as long as its session lasts, and it may be long.
    let long = 1_800_000;
    let quiet = Join { instance: Some("i".into()), session_timeout_ms: long, rebalance_timeout_ms: long, ..join("q") };
    world.stable_group(vec![quiet]);
    let ticket = world.send(Command::Join(join("new")));
    world.pass(FIVE_MINUTES - 1);
    assert!(world.waits(ticket));
    world.pass(1);
    assert_eq!(world.join_refusal(ticket), Refusal::UnknownMemberId);
}

#[test]
fn followers_wait_for_the_leader_and_those_who_never_sync_are_dropped() {
    let mut world = World::new();
    let tickets = ["a", "b", "c"].map(|client| world.send(Command::Join(join(client))));
    world.pass(6_000);
    let members = tickets.map(|ticket| world.joined(ticket));
    let follower = world.send(Command::Sync(sync(&members[1], &members)));
    assert!(world.waits(follower));
    let leader = world.send(Command::Sync(sync(&members[0], &members)));
    assert_eq!(&*world.synced(leader).unwrap().assignment, members[0].member.as_bytes());
    assert_eq!(&*world.synced(follower).unwrap().assignment, members[1].member.as_bytes());

    // The third one's heartbeats don't save it.
    let mut world_time = 0;
    while world_time < REBALANCE_MS {
        for each in &members {
            let alive = world.heartbeat(&each.member, 1);
            assert_eq!(alive, Ok(()), "{world_time} {}", each.member);
        }
        world.pass(5_000);
        world_time += 5_000;
    }
    assert_eq!(world.heartbeat(&members[2].member, 1), Err(Refusal::UnknownMemberId));
    assert_eq!(world.heartbeat(&members[0].member, 1), Err(Refusal::RebalanceInProgress));
}

#[test]
fn a_leader_that_dies_before_it_assigns_is_replaced() {
    let mut world = World::new();
    let tickets = ["a", "b"].map(|client| world.send(Command::Join(join(client))));
    world.pass(6_000);
    let members = tickets.map(|ticket| world.joined(ticket));
    let follower = world.send(Command::Sync(sync(&members[1], &members)));
    world.pass(SESSION_MS as u64);
    assert_eq!(world.synced(follower), Err(Refusal::RebalanceInProgress));
    let ticket = world.send(Command::Join(again("b", &members[1].member)));
    let joined = world.joined(ticket);
    assert_eq!((joined.generation, &joined.leader), (2, &members[1].member));
}

#[test]
fn a_leader_that_leaves_out_a_member_gives_it_nothing() {
    let mut world = World::new();
    let tickets = ["a", "b"].map(|client| world.send(Command::Join(join(client))));
    world.pass(6_000);
    let members = tickets.map(|ticket| world.joined(ticket));
    world.send(Command::Sync(sync(&members[0], &members[..1])));
    let follower = world.send(Command::Sync(sync(&members[1], &members)));
    assert_eq!(world.synced(follower).unwrap().assignment, "");
}

#[test]
fn g1_a_generation_that_can_not_be_written_down_is_not_assigned() {
    let mut world = World::new();
    let ticket = world.send(Command::Join(join("a")));
    world.pass(3_000);
    let members = [world.joined(ticket)];
    world.is_full = true;
    let ticket = world.send(Command::Sync(sync(&members[0], &members)));
    assert!(world.failed(ticket), "the driver answers it with an error");
    let group = world.coordinator.describe_classic(GROUP).unwrap();
    assert_eq!(group.state, GroupState::CompletingRebalance);

    world.is_full = false;
    let ticket = world.send(Command::Sync(sync(&members[0], &members)));
    assert!(world.synced(ticket).is_ok());
    assert_eq!(world.coordinator.describe_classic(GROUP).unwrap().state, GroupState::Stable);
}

#[test]
fn g1_a_generation_that_stays_unwritten_ends() {
    let mut world = World::new();
    let ticket = world.send(Command::Join(join("a")));
    world.pass(3_000);
    let members = [world.joined(ticket)];
    world.is_full = true;
    world.send(Command::Sync(sync(&members[0], &members)));
    // It lives, and thinks that it has synced.
    for _ in 0..(REBALANCE_MS / 5_000) {
        world.pass(5_000);
        let _ = world.heartbeat(&members[0].member, 1);
    }
    assert_eq!(world.heartbeat(&members[0].member, 1), Err(Refusal::RebalanceInProgress));
}
