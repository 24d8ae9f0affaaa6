//! From one target to the next: who gives up, who waits, who gets.

use std::collections::BTreeSet;

use ottla_group::*;

use crate::world::*;

fn owning(heartbeat: ConsumerHeartbeat, owned: Vec<TopicPartitions>) -> ConsumerHeartbeat {
    ConsumerHeartbeat { owned: Some(owned), ..heartbeat }
}

/// `a` has all four partitions; `b` has just come.
fn two_members() -> World {
    let mut world = World::new(&[("t", 4)]);
    world.heartbeat(joining("a", &["t"])).unwrap();
    let reply = world.heartbeat(joining("b", &["t"])).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (2, Some(Vec::new())), "nothing is free yet");
    world
}

#[test]
fn g5_a_partition_is_given_only_after_it_was_given_up() {
    let mut world = two_members();
    assert_eq!(world.describe().state, GroupState::Reconciling);
    assert_eq!(world.heartbeat(alive("b", 2)).unwrap().assignment, None);

    let told = world.heartbeat(alive("a", 1)).unwrap();
    assert_eq!(told.member_epoch, 1, "it stays in its epoch until it has given up");
    let kept = told.assignment.unwrap();
    assert_eq!(world.named(&kept).len(), 2);
    assert_eq!(world.named(&world.member("a").assignment).len(), 4, "what it has to give up is shown as its own");
    assert_eq!(world.heartbeat(alive("b", 2)).unwrap().assignment, None, "a was told, but has not said that it did");
    let all = world.partitions("t", &[0, 1, 2, 3]);
    assert_eq!(world.heartbeat(owning(alive("a", 1), all)).unwrap().member_epoch, 1);
    assert_eq!(world.heartbeat(alive("b", 2)).unwrap().assignment, None);

    assert_eq!(world.heartbeat(owning(alive("a", 1), kept.clone())).unwrap().member_epoch, 2);
    let given = world.heartbeat(alive("b", 2)).unwrap().assignment.unwrap();
    assert!(world.named(&given).is_disjoint(&world.named(&kept)));
    assert_eq!(world.named(&given).len(), 2);
    assert_eq!(world.describe().state, GroupState::Stable);
}

#[test]
fn g5_who_does_not_give_up_in_time_is_gone_and_its_partitions_are_free() {
    let mut world = two_members();
    let brief = ConsumerHeartbeat { rebalance_timeout_ms: Some(20_000), ..alive("a", 1) };
    world.heartbeat(brief).unwrap();
    for _ in 0..3 {
        world.pass(5_000);
        world.heartbeat(alive("a", 1)).unwrap();
        world.heartbeat(alive("b", 2)).unwrap();
    }
    world.pass(5_000);
    assert_eq!(world.heartbeat(alive("a", 1)).unwrap_err(), Refusal::UnknownMemberId);
    let given = world.heartbeat(alive("b", 2)).unwrap().assignment.unwrap();
    assert_eq!(world.named(&given).len(), 4);
}

#[test]
fn the_rebalance_timeout_runs_again_after_a_reload() {
    let mut world = two_members();
    world.heartbeat(alive("a", 1)).unwrap();
    world.reload();
    for epoch in [1; 5] {
        world.pass(10_000);
        world.heartbeat(alive("a", epoch)).unwrap();
    }
    world.pass(10_000);
    assert_eq!(world.heartbeat(alive("a", 1)).unwrap_err(), Refusal::UnknownMemberId);
}

#[test]
fn targets_wait_for_the_assignment_interval() {
    let mut world = World::new(&[("t", 4)]);
    world.config.consumer_assignment_interval_ms = 1_000;
    world.heartbeat(joining("a", &["t"])).unwrap();
    world.pass(999);
    let reply = world.heartbeat(joining("b", &["t"])).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (1, Some(Vec::new())));
    assert_eq!(world.describe().state, GroupState::Assigning);
    world.reload();
    assert_eq!(world.heartbeat(alive("a", 1)).unwrap().assignment, None, "the interval outlives the coordinator");
    world.pass(1);
    assert!(world.heartbeat(alive("a", 1)).unwrap().assignment.is_some());
    assert_eq!(world.describe().state, GroupState::Reconciling);
}

#[test]
fn the_assignor_is_what_most_members_ask_for() {
    let mut world = World::new(&[("t", 4), ("u", 4)]);
    let asking = |member: &str, assignor: &str| ConsumerHeartbeat {
        server_assignor: Some(assignor.into()),
        ..joining(member, &["t", "u"])
    };
    world.heartbeat(joining("a", &["t", "u"])).unwrap();
    assert_eq!(&*world.describe().assignor, "uniform");
    world.heartbeat(asking("b", "range")).unwrap();
    assert_eq!(&*world.describe().assignor, "range");
    world.heartbeat(asking("c", "uniform")).unwrap();
    world.heartbeat(asking("d", "uniform")).unwrap();
    assert_eq!(&*world.describe().assignor, "uniform");
}

#[test]
fn range_lines_topics_up() {
    let mut world = World::new(&[("t", 4), ("u", 4)]);
    let asking =
        |member: &str| ConsumerHeartbeat { server_assignor: Some("range".into()), ..joining(member, &["t", "u"]) };
    world.heartbeat(asking("a")).unwrap();
    world.heartbeat(asking("b")).unwrap();
    for member in ["a", "b"] {
        let target = world.named(&world.member(member).target);
        let of = |topic: &str| -> BTreeSet<i32> {
            target.iter().filter(|(name, _)| name == topic).map(|(_, partition)| *partition).collect()
        };
        assert_eq!(of("t").len(), 2);
        assert_eq!(of("t"), of("u"));
    }
}

#[test]
fn members_that_want_different_topics_get_what_they_want() {
    let mut world = World::new(&[("t", 4), ("u", 4)]);
    world.heartbeat(joining("a", &["t"])).unwrap();
    world.heartbeat(joining("b", &["t", "u"])).unwrap();
    let target = |world: &World, member: &str| world.named(&world.member(member).target);
    assert_eq!(target(&world, "a"), (0..4).map(|partition| ("t".to_owned(), partition)).collect());
    assert_eq!(target(&world, "b"), (0..4).map(|partition| ("u".to_owned(), partition)).collect());
}

#[test]
fn a_topic_that_is_not_wanted_any_more_is_given_up_at_once() {
    let mut world = World::new(&[("t", 2), ("u", 2)]);
    world.config.consumer_assignment_interval_ms = 60_000;
    world.config.consumer_max_assignment_interval_ms = 60_000;
    world.heartbeat(joining("a", &["t", "u"])).unwrap();
    let fewer = ConsumerHeartbeat { topics: Some(vec!["u".into()]), ..alive("a", 1) };
    let reply = world.heartbeat(fewer).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (1, Some(world.partitions("u", &[0, 1]))));
    assert_eq!(world.describe().state, GroupState::Assigning);
}
