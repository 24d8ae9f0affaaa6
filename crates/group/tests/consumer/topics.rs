//! Topics that come, grow and go, and subscriptions by regular expression.

use ottla_group::*;

use crate::world::*;

fn matching(member: &str, pattern: &str) -> ConsumerHeartbeat {
    ConsumerHeartbeat { topics: None, topics_regex: Some(pattern.into()), ..joining(member, &[]) }
}

#[test]
fn a_topic_may_come_later_grow_and_go() {
    let mut world = World::new(&[]);
    let reply = world.heartbeat(joining("a", &["t"])).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (1, Some(Vec::new())));
    world.create_topic("t", 2);
    let reply = world.heartbeat(alive("a", 1)).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (2, Some(world.partitions("t", &[0, 1]))));
    world.grow("t", 3);
    let reply = world.heartbeat(alive("a", 2)).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (3, Some(world.partitions("t", &[0, 1, 2]))));
    world.delete_topic("t");
    assert_eq!(world.heartbeat(alive("a", 3)).unwrap().assignment, Some(Vec::new()));
    let gone = ConsumerHeartbeat { owned: Some(Vec::new()), ..alive("a", 3) };
    assert_eq!(world.heartbeat(gone).unwrap().member_epoch, 4);
    assert_eq!(world.describe().state, GroupState::Stable);
}

#[test]
fn m6_a_topic_created_again_is_another() {
    let mut world = World::new(&[("t", 2)]);
    world.heartbeat(joining("a", &["t"])).unwrap();
    world.delete_topic("t");
    world.create_topic("t", 2);
    assert_eq!(world.heartbeat(alive("a", 1)).unwrap().assignment, Some(Vec::new()));
    let gone = ConsumerHeartbeat { owned: Some(Vec::new()), ..alive("a", 1) };
    let reply = world.heartbeat(gone).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (2, Some(world.partitions("t", &[0, 1]))));
}

#[test]
fn topics_of_others_change_nothing() {
    let mut world = World::new(&[("t", 2)]);
    world.heartbeat(joining("a", &["t"])).unwrap();
    let written = world.log.len();
    world.create_topic("u", 2);
    world.heartbeat(alive("a", 1)).unwrap();
    assert_eq!(world.log.len(), written);
    world.reload();
    world.heartbeat(alive("a", 1)).unwrap();
    assert_eq!(world.log.len(), written, "a new coordinator finds everything as it was");
}

#[test]
fn a_pattern_follows_the_topics_it_matches() {
    let mut world = World::new(&[("orders-1", 1), ("orders", 1), ("__consumer_offsets", 1), ("border", 1)]);
    let reply = world.heartbeat(matching("a", "orders.*|__.*")).unwrap();
    let given = reply.assignment.unwrap();
    let named = world.named(&given);
    assert_eq!(named, [("orders".to_owned(), 0), ("orders-1".to_owned(), 0)].into(), "whole names, no internal ones");
    world.create_topic("orders-2", 1);
    world.create_topic("other", 1);
    let reply = world.heartbeat(alive("a", 1)).unwrap();
    assert_eq!((reply.member_epoch, world.named(&reply.assignment.unwrap()).len()), (2, 3));
    assert_eq!(world.member("a").topics_regex.as_deref(), Some("orders.*|__.*"));
}

#[test]
fn patterns_are_read_as_re2_reads_them_and_match_whole_names() {
    let mut world = World::new(&[("a-1", 1), ("B_22", 1), ("c.x", 1), ("cxx", 1)]);
    let cases: [(&str, &[&str]); 14] = [
        (r"\w-\d", &["a-1"]),
        (r"\w+", &["B_22", "cxx"]),
        (r"c\.x", &["c.x"]),
        ("c.x", &["c.x", "cxx"]),
        ("(?i)b_[0-9]{2}", &["B_22"]),
        ("^a-1$", &["a-1"]),
        ("a|a-1|B", &["a-1"]),
        ("[^a-z].*", &["B_22"]),
        ("[[:upper:]].*", &["B_22"]),
        (r".*\D\.\S", &["c.x"]),
        ("a.+?|.*x{2}", &["a-1", "cxx"]),
        (r"\Qc.x\E", &["c.x"]),
        (r"a\Q-\E\d|\QB_22", &["B_22", "a-1"]),
        (r"c\\?.x\\*", &["c.x", "cxx"]),
    ];
    for (number, (pattern, names)) in cases.into_iter().enumerate() {
        let before = world.log.len();
        let joined = world.heartbeat(matching(&format!("m{number}"), pattern));
        let matched = world.log[before..].iter().find_map(|record| match record {
            Record::ConsumerRegex(_, _, Some(value)) => Some(value.topics.clone()),
            _ => None,
        });
        let matched: Option<Vec<&str>> = matched.as_ref().map(|topics| topics.iter().map(|topic| &**topic).collect());
        assert!(joined.is_ok() && matched.as_deref() == Some(names), "{pattern}: {joined:?}, {matched:?}");
    }
    for pattern in ["(", r"\pL+", "[é]", r"a\", "a{1000}{1000}", "a)|(b"] {
        let refused = world.heartbeat(matching("n", pattern));
        assert!(matches!(refused, Err(Refusal::InvalidRegularExpression(_))), "{pattern}: {refused:?}");
    }
    let many: Vec<String> = (0..300).map(|number| format!("some.department.topic-number-{number}")).collect();
    assert!(world.heartbeat(matching("n", &many.join("|"))).is_ok());
}

#[test]
fn names_and_a_pattern_add_up() {
    let mut world = World::new(&[("t", 1), ("u", 1), ("v", 1)]);
    let both = ConsumerHeartbeat { topics_regex: Some("u".into()), ..joining("a", &["t"]) };
    let reply = world.heartbeat(both).unwrap();
    assert_eq!(world.named(&reply.assignment.unwrap()).len(), 2);
    let only_names = ConsumerHeartbeat { topics_regex: Some("".into()), ..alive("a", 1) };
    let reply = world.heartbeat(only_names).unwrap();
    assert_eq!(reply.assignment, Some(world.partitions("t", &[0])));
}

#[test]
fn a_pattern_is_forgotten_with_the_last_that_has_it() {
    let mut world = World::new(&[("t", 1)]);
    world.heartbeat(matching("a", "t")).unwrap();
    world.heartbeat(matching("b", "t")).unwrap();
    let written = |world: &World| {
        world.log.iter().rev().find_map(|record| match record {
            Record::ConsumerRegex(_, _, value) => Some(value.is_some()),
            _ => None,
        })
    };
    world.heartbeat(alive("a", -1)).unwrap();
    assert_eq!(written(&world), Some(true));
    world.heartbeat(alive("b", -1)).unwrap();
    assert_eq!(written(&world), Some(false));
}
