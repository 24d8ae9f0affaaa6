//! Groups with members of both protocols, and groups that change their kind under way.

use std::collections::BTreeSet;

use ottla_group::*;
use ottla_metadata::config::MigrationPolicy;

use crate::world::*;

/// A classic consumer as the tests drive it: where it is, and what it has.
struct Classic {
    id: String,
    generation: i32,
    owned: BTreeSet<Named>,
}

fn places(topic: &str, partitions: &[i32]) -> BTreeSet<Named> {
    partitions.iter().map(|partition| (topic.to_owned(), *partition)).collect()
}

fn joined(replies: Vec<(Ticket, Reply)>) -> Vec<Joined> {
    let joined = |(_, reply)| match reply {
        Reply::Join(result) => result.unwrap(),
        other => panic!("{other:?}"),
    };
    replies.into_iter().map(joined).collect()
}

fn heartbeat(world: &mut World, member: &Classic) -> Result<(), Refusal> {
    match world.ask(Command::Heartbeat(classic_alive(&member.id, member.generation))) {
        Reply::Heartbeat(result) => result,
        other => panic!("{other:?}"),
    }
}

fn sync(world: &mut World, sync: Sync) -> Result<BTreeSet<Named>, Refusal> {
    match world.ask(Command::Sync(sync)) {
        Reply::Sync(result) => result.map(|synced| assigned(&synced.assignment)),
        other => panic!("{other:?}"),
    }
}

/// A member joins a consumer group, or comes back, and hears what it may have. What it may not, it gives up, and joins
/// again to say so.
fn join_and_sync(world: &mut World, member: &mut Classic) {
    loop {
        let join = classic_join(&member.id, &["t"], &member.owned);
        let joined = joined(world.decide(Command::Join(join))).remove(0);
        (member.id, member.generation) = (joined.member.to_string(), joined.generation);
        let assigned = sync(world, classic_sync(&member.id, member.generation)).unwrap();
        let has_given_up = member.owned.is_subset(&assigned);
        member.owned = assigned;
        if has_given_up {
            return;
        }
    }
}

/// A stable classic group: `a` leads and has 0 and 1 of topic `t`, `b` has 2 and 3.
fn classic_group(protocol_type: &str) -> (World, Classic, Classic) {
    let mut world = World::new(&[("t", 4)]);
    world.config.classic_initial_rebalance_delay_ms = 0;
    let join = |member: &str| {
        let join = classic_join(member, &["t"], &BTreeSet::new());
        Command::Join(Join { protocol_type: protocol_type.into(), ..join })
    };
    let a = joined(world.decide(join(""))).remove(0).member;
    assert!(world.decide(join("")).is_empty());
    let generation = joined(world.decide(join(&a)));
    let leads = generation.iter().find(|joined| joined.member == a).unwrap();
    let b = generation.iter().find(|joined| joined.member != a).unwrap();
    assert_eq!(leads.members.len(), 2);
    let (owned_a, owned_b) = (places("t", &[0, 1]), places("t", &[2, 3]));
    let assignments = vec![(a.clone(), assignment(&owned_a)), (b.member.clone(), assignment(&owned_b))];
    let protocol_type = Some(protocol_type.into());
    let of_leader = Sync { assignments, protocol_type, ..classic_sync(&a, leads.generation) };
    assert_eq!(sync(&mut world, of_leader).unwrap(), owned_a);
    let member = |id: &str, owned| Classic { id: id.to_owned(), generation: leads.generation, owned };
    let (a, b) = (member(&a, owned_a), member(&b.member, owned_b));
    (world, a, b)
}

#[test]
fn g5_a_classic_group_becomes_a_consumer_group_and_nobody_loses_anything_unasked() {
    let (mut world, mut a, mut b) = classic_group("consumer");
    let reply = world.heartbeat(joining("c", &["t"])).unwrap();
    assert_eq!(reply.assignment, Some(Vec::new()));
    let group = world.describe();
    assert_eq!(group.members.iter().filter(|member| member.classic).count(), 2);
    assert_eq!(world.named(&world.member(&a.id).assignment), a.owned);
    assert_eq!(world.named(&world.member(&b.id).assignment), b.owned);
    assert_eq!(world.find_replayed(), Some(group));
    assert!(!world.compacted().iter().any(|record| matches!(record, Record::ClassicGroup(..))));
    assert_eq!(world.commit(&a.id, a.generation, "t", 0), Ok(()));

    for member in [&mut a, &mut b] {
        assert_eq!(heartbeat(&mut world, member), Err(Refusal::RebalanceInProgress));
        join_and_sync(&mut world, member);
        assert_eq!(heartbeat(&mut world, member), Ok(()));
        assert_eq!(member.generation, reply.member_epoch);
    }
    let given = world.heartbeat(alive("c", reply.member_epoch)).unwrap().assignment.unwrap();
    let given = world.named(&given);
    assert_eq!(world.describe().state, GroupState::Stable);
    assert_eq!(given.len(), 1);
    let mut all = given;
    all.extend(a.owned.into_iter().chain(b.owned));
    assert_eq!(all.len(), 4);
}

#[test]
fn members_that_wait_in_a_classic_group_are_told_to_join_again() {
    let (mut world, a, _) = classic_group("consumer");
    // The leader may always ask for a rebalance, and waits for the other.
    assert!(world.decide(Command::Join(classic_join(&a.id, &["t"], &a.owned))).is_empty());
    let replies = world.decide(Command::ConsumerHeartbeat(joining("c", &["t"])));
    let told = replies.iter().filter_map(|(_, reply)| match reply {
        Reply::Join(Err(refused)) => Some((&*refused.member, &refused.refusal)),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [(&*a.id, &Refusal::RebalanceInProgress)]);
}

#[test]
fn g5_a_partition_that_a_classic_leader_gave_to_two_is_ones() {
    let (mut world, a, b) = classic_group("consumer");
    let mut generation = Vec::new();
    for member in [&a, &b] {
        generation = joined(world.decide(Command::Join(classic_join(&member.id, &["t"], &member.owned))));
    }
    let leader = generation[0].leader.clone();
    let twice = assignment(&places("t", &[1, 2]));
    let assignments = vec![(a.id.as_str().into(), twice.clone()), (b.id.as_str().into(), twice)];
    sync(&mut world, Sync { assignments, ..classic_sync(&leader, generation[0].generation) }).unwrap();
    world.heartbeat(joining("c", &["t"])).unwrap();
    let assigned = |member: &str| {
        let current = world.log.iter().rev().find_map(|record| match record {
            Record::ConsumerCurrent(_, of, Some(current)) if **of == *member => Some(current),
            _ => None,
        });
        current.unwrap().assigned.iter().map(|held| held.partitions.len()).sum::<usize>()
    };
    assert_eq!(assigned(&a.id) + assigned(&b.id), 2);
}

#[test]
fn what_a_custom_assignor_says_to_itself_is_not_lost() {
    let (mut world, a, b) = classic_group("consumer");
    world.decide(Command::Join(classic_join(&a.id, &["t"], &a.owned)));
    let generation = joined(world.decide(Command::Join(classic_join(&b.id, &["t"], &b.owned))));
    let mut bytes = assignment(&a.owned).to_vec();
    let user_data = bytes.len() - 4;
    bytes.splice(user_data.., [0, 0, 0, 1, 7]);
    let assignments = vec![(a.id.as_str().into(), bytes.into())];
    let leader = generation[0].leader.clone();
    world.decide(Command::Sync(Sync { assignments, ..classic_sync(&leader, generation[0].generation) }));
    match world.heartbeat(joining("c", &["t"])) {
        Err(Refusal::GroupIdNotFound(why)) => assert!(why.contains("user data"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_groups_of_consumers_become_consumer_groups_and_only_if_they_may() {
    let (mut world, ..) = classic_group("connect");
    assert!(matches!(world.heartbeat(joining("c", &["t"])), Err(Refusal::GroupIdNotFound(_))));
    assert!(world.coordinator.describe_classic(GROUP).is_ok());
    let (mut world, ..) = classic_group("consumer");
    world.config.consumer_migration_policy = MigrationPolicy::Downgrade;
    assert!(matches!(world.heartbeat(joining("c", &["t"])), Err(Refusal::GroupIdNotFound(_))));
    world.config.consumer_migration_policy = MigrationPolicy::Bidirectional;
    world.config.consumer_max_size = 1;
    assert!(matches!(world.heartbeat(joining("c", &["t"])), Err(Refusal::GroupIdNotFound(_))));
}

#[test]
fn the_group_goes_back_when_the_last_of_the_new_protocol_has_left() {
    let (mut world, mut a, mut b) = classic_group("consumer");
    let epoch = world.heartbeat(joining("c", &["t"])).unwrap().member_epoch;
    join_and_sync(&mut world, &mut a);
    join_and_sync(&mut world, &mut b);
    world.heartbeat(alive("c", epoch)).unwrap();
    world.heartbeat(alive("c", -1)).unwrap();
    assert!(world.find().is_none() && world.find_replayed().is_none());
    assert!(world.compacted().iter().all(|record| matches!(record, Record::ClassicGroup(..))), "and nothing else");
    world.pass(0);
    let group = world.coordinator.describe_classic(GROUP).unwrap();
    assert_eq!((group.state, group.members.len()), (GroupState::PreparingRebalance, 2));
    for member in [&a, &b] {
        assert_eq!(heartbeat(&mut world, member), Err(Refusal::RebalanceInProgress));
    }
    assert_eq!(world.commit(&a.id, a.generation, "t", 0), Ok(()), "what it has it may commit until it joins");
    world.decide(Command::Join(classic_join(&a.id, &["t"], &a.owned)));
    let generation = joined(world.decide(Command::Join(classic_join(&b.id, &["t"], &b.owned))));
    assert_eq!(generation.len(), 2);
    assert_eq!(generation[0].generation, epoch + 1);
}

#[test]
fn the_group_does_not_go_back_where_it_may_not() {
    let (mut world, mut a, mut b) = classic_group("consumer");
    world.config.consumer_migration_policy = MigrationPolicy::Upgrade;
    let epoch = world.heartbeat(joining("c", &["t"])).unwrap().member_epoch;
    join_and_sync(&mut world, &mut a);
    join_and_sync(&mut world, &mut b);
    world.heartbeat(alive("c", epoch)).unwrap();
    world.heartbeat(alive("c", -1)).unwrap();
    for member in [&mut a, &mut b] {
        join_and_sync(&mut world, member);
    }
    while heartbeat(&mut world, &a).is_err() || heartbeat(&mut world, &b).is_err() {
        join_and_sync(&mut world, &mut a);
        join_and_sync(&mut world, &mut b);
    }
    assert_eq!((a.owned.len(), b.owned.len()), (2, 2));
    assert_eq!(world.describe().state, GroupState::Stable);
}

#[test]
fn a_classic_member_has_its_rebalance_timeout_to_join_again() {
    let (mut world, a, b) = classic_group("consumer");
    world.heartbeat(joining("c", &["t"])).unwrap();
    let epoch = world.describe().group_epoch;
    for _ in 0..6 {
        assert_eq!(heartbeat(&mut world, &a), Err(Refusal::RebalanceInProgress));
        assert_eq!(heartbeat(&mut world, &b), Err(Refusal::RebalanceInProgress));
        world.heartbeat(alive("c", epoch)).unwrap();
        world.pass(10_000);
    }
    assert_eq!(heartbeat(&mut world, &a), Err(Refusal::UnknownMemberId));
    assert_eq!(world.describe().members.len(), 1);
}

#[test]
fn a_classic_member_that_joins_and_does_not_sync_is_gone() {
    let mut world = World::new(&[("t", 2)]);
    world.heartbeat(joining("c", &["t"])).unwrap();
    let join = Join { rebalance_timeout_ms: 10_000, ..classic_join("", &["t"], &BTreeSet::new()) };
    let member = joined(world.decide(Command::Join(join))).remove(0);
    let member = Classic { id: member.member.to_string(), generation: member.generation, owned: BTreeSet::new() };
    world.pass(9_999);
    assert_eq!(heartbeat(&mut world, &member), Ok(()));
    world.pass(1);
    assert_eq!(heartbeat(&mut world, &member), Err(Refusal::UnknownMemberId));
}

#[test]
fn a_classic_member_that_joined_and_synced_stays() {
    let mut world = World::new(&[("t", 2), ("u", 1)]);
    world.heartbeat(joining("c", &["u"])).unwrap();
    let mut member = Classic { id: String::new(), generation: 0, owned: BTreeSet::new() };
    join_and_sync(&mut world, &mut member);
    let mut epoch = 1;
    for _ in 0..10 {
        world.pass(10_000);
        epoch = world.heartbeat(alive("c", epoch)).unwrap().member_epoch;
        assert_eq!(heartbeat(&mut world, &member), Ok(()));
        if world.now == 30_000 {
            // A new coordinator gives it as long again, and asks nothing of it.
            world.reload();
        }
    }
}

#[test]
fn g5_a_classic_member_whose_session_ended_does_not_come_back_with_its_partitions() {
    let (mut world, a, _) = classic_group("consumer");
    let epoch = world.heartbeat(joining("c", &["t"])).unwrap().member_epoch;
    world.pass(30_000);
    let given = world.heartbeat(alive("c", epoch)).unwrap().assignment.unwrap();
    assert!(world.named(&given).is_superset(&a.owned));
    match world.ask(Command::Join(classic_join(&a.id, &["t"], &a.owned))) {
        Reply::Join(Err(refused)) => assert_eq!(refused.refusal, Refusal::UnknownMemberId),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_may_not_join_a_consumer_group_in_the_classic_protocol() {
    let mut world = World::new(&[("t", 2)]);
    world.heartbeat(joining("c", &["t"])).unwrap();
    let refused = |world: &mut World, join: Join| match world.ask(Command::Join(join)) {
        Reply::Join(Err(refused)) => refused.refusal,
        other => panic!("{other:?}"),
    };
    let good = || classic_join("", &["t"], &BTreeSet::new());
    let of_connect = Join { protocol_type: "connect".into(), ..good() };
    let unreadable = Join { protocols: vec![("range".into(), "?".into())], ..good() };
    let without = Join { protocols: Vec::new(), ..good() };
    for join in [of_connect, unreadable, without] {
        let refusal = refused(&mut world, join);
        assert!(matches!(refusal, Refusal::InconsistentGroupProtocol(_)), "{refusal:?}");
    }
    let first = Join { requires_member_id: true, ..good() };
    assert_eq!(refused(&mut world, first), Refusal::MemberIdRequired);
    let unknown = Join { instance: Some("i".into()), member: "x".into(), ..good() };
    assert_eq!(refused(&mut world, unknown), Refusal::UnknownMemberId);
    world.config.consumer_max_size = 1;
    assert_eq!(refused(&mut world, good()), Refusal::GroupMaxSizeReached);
    world.config.consumer_migration_policy = MigrationPolicy::Disabled;
    assert!(matches!(refused(&mut world, good()), Refusal::InconsistentGroupProtocol(_)));
    assert_eq!(world.describe().members.len(), 1);
}

#[test]
fn an_empty_group_is_of_the_kind_of_who_comes_next() {
    let mut world = World::new(&[("t", 2)]);
    world.config.classic_initial_rebalance_delay_ms = 0;
    world.heartbeat(joining("c", &["t"])).unwrap();
    world.heartbeat(alive("c", -1)).unwrap();
    let join = classic_join("", &["t"], &BTreeSet::new());
    let member = joined(world.decide(Command::Join(join))).remove(0).member;
    assert!(world.find().is_none() && world.coordinator.describe_classic(GROUP).is_ok());
    let members = vec![LeavingMember { member, instance: None, reason: None }];
    world.ask(Command::Leave(Leave { group: GROUP.into(), members }));
    assert_eq!(world.heartbeat(joining("c", &["t"])).unwrap().member_epoch, 1);
    assert_eq!(world.find_replayed(), world.find());
}

#[test]
fn a_static_member_changes_its_protocol_and_keeps_its_partitions() {
    let mut world = World::new(&[("t", 4)]);
    world.heartbeat(joining("c", &["t"])).unwrap();
    let join = Join { instance: Some("i".into()), ..classic_join("", &["t"], &BTreeSet::new()) };
    let old = joined(world.decide(Command::Join(join))).remove(0);
    let kept = world.heartbeat(alive("c", 1)).unwrap().assignment;
    world.heartbeat(ConsumerHeartbeat { owned: kept, ..alive("c", 1) }).unwrap();
    let old_id = old.member.to_string();
    let mut member = Classic { id: old_id.clone(), generation: old.generation, owned: BTreeSet::new() };
    let refused = sync(&mut world, Sync { instance: Some("j".into()), ..classic_sync(&old_id, old.generation) });
    assert_eq!(refused, Err(Refusal::UnknownMemberId));
    join_and_sync(&mut world, &mut member);
    assert_eq!(member.owned.len(), 2);

    let come_back = ConsumerHeartbeat { instance: Some("i".into()), ..joining("new", &["t"]) };
    let reply = world.heartbeat(come_back).unwrap();
    assert_eq!(world.named(&reply.assignment.unwrap()), member.owned);
    assert_eq!(heartbeat(&mut world, &member), Err(Refusal::UnknownMemberId));
    assert!(!world.member("new").classic);
}

#[test]
fn the_group_goes_back_with_a_classic_process_in_the_place_of_the_last_other() {
    let mut world = World::new(&[("t", 2)]);
    let new = ConsumerHeartbeat { instance: Some("i".into()), ..joining("new", &["t"]) };
    world.heartbeat(new).unwrap();
    let join = || Join { instance: Some("i".into()), ..classic_join("", &["t"], &BTreeSet::new()) };
    let member = joined(world.decide(Command::Join(join()))).remove(0);
    assert!(world.find().is_none() && world.find_replayed().is_none());
    world.pass(0);
    let again = Sync { instance: Some("i".into()), ..classic_sync(&member.member, member.generation) };
    assert_eq!(sync(&mut world, again), Err(Refusal::RebalanceInProgress));
    let group = world.coordinator.describe_classic(GROUP).unwrap();
    assert_eq!(group.members.iter().map(|each| &each.member).collect::<Vec<_>>(), [&member.member]);
    let back = Join { member: member.member.clone(), ..join() };
    assert_eq!(joined(world.decide(Command::Join(back)))[0].leader, member.member);
}
