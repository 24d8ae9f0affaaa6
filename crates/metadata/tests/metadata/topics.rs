//! CreateTopics, DeleteTopics and CreatePartitions: what is made, and what is refused with which reason.

use ottla_metadata::{Command, NewPartitions, NewTopic, Refusal, Reply, TopicRef};
use ottla_types::{BrokerId, TopicId};

use crate::cluster::{ALL_BROKERS, Cluster, by_hand, set, sized, topic};

fn grow(cluster: &mut Cluster, name: &str, count: i32, assignments: Option<Vec<Vec<i32>>>) -> Result<(), Refusal> {
    let assignments =
        assignments.map(|all| all.into_iter().map(|replicas| replicas.into_iter().map(BrokerId).collect()).collect());
    let topics = vec![NewPartitions { name: name.to_owned(), count, assignments }];
    match cluster.run(Command::CreatePartitions { topics, validate_only: false }) {
        Ok(Reply::PartitionsCreated(rows)) => rows.into_iter().next().unwrap().1,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_topic_gets_the_defaults_of_the_broker() {
    let mut cluster = Cluster::with(1, &[("num.partitions", "4")]);
    let created = cluster.create_one(topic("orders")).unwrap();
    assert_eq!((created.partitions, created.replication_factor), (4, 1));
    let found = cluster.topic("orders");
    assert_eq!(found.id, created.id);
    assert_eq!(found.partitions.len(), 4);
    assert!(found.partitions.iter().all(|p| p.leader == Some(BrokerId(1)) && *p.isr == [BrokerId(1)]));
}

#[test]
fn names_that_cannot_be_are_refused() {
    let mut cluster = Cluster::of(1);
    let long = "a".repeat(250);
    for name in ["", ".", "..", "a b", "a/b", "é", "a\0", &long] {
        assert!(matches!(cluster.create_one(topic(name)), Err(Refusal::InvalidTopic(_))), "{name:?}");
    }
    let longest = "a".repeat(249);
    for name in ["...", "A-Z_a.9", &longest] {
        assert!(cluster.create_one(topic(name)).is_ok(), "{name:?}");
    }
    let kafkas = cluster.create_one(topic("__cluster_metadata"));
    assert!(matches!(kafkas, Err(Refusal::InvalidRequest(_))));
}

#[test]
fn names_that_metrics_would_mix_up_are_refused() {
    let mut cluster = Cluster::of(1);
    cluster.create_one(topic("a.b")).unwrap();
    assert!(matches!(cluster.create_one(topic("a_b")), Err(Refusal::InvalidTopic(_))));
    assert!(cluster.create_one(topic("a-b")).is_ok());
    let rows = cluster.create(vec![topic("c_d"), topic("c.d")], false);
    assert!(rows[0].is_ok());
    assert!(matches!(&rows[1], Err(Refusal::InvalidTopic(_))), "within one request too");
    cluster.run(Command::DeleteTopics { topics: vec![TopicRef::Name("a.b".to_owned())] }).unwrap();
    assert!(cluster.create_one(topic("a_b")).is_ok(), "the name is free again");
    assert!(matches!(cluster.create_one(topic("a.b")), Err(Refusal::InvalidTopic(_))));
}

#[test]
fn each_row_of_a_request_stands_by_itself() {
    let mut cluster = Cluster::of(1);
    cluster.create_one(topic("here")).unwrap();
    let topics = vec![topic("twice"), topic("here"), topic("new"), topic("twice")];
    let Ok(Reply::TopicsCreated(rows)) = cluster.run(Command::CreateTopics { topics, validate_only: false }) else {
        panic!("answered with something else");
    };
    let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["twice", "here", "new"]);
    assert!(matches!(rows[0].1, Err(Refusal::InvalidRequest(_))));
    assert_eq!(rows[1].1, Err(Refusal::TopicExists("here".to_owned())));
    assert!(rows[2].1.is_ok());
    assert!(cluster.image.topic_named("twice").is_none());
}

#[test]
fn validate_only_makes_nothing() {
    let mut cluster = Cluster::of(1);
    let before = cluster.image.clone();
    let rows = cluster.create(vec![sized("orders", 3, 1), sized("bad", 0, 1)], true);
    let created = rows[0].as_ref().unwrap();
    assert_eq!((created.id, created.partitions), (TopicId::ZERO, 3));
    assert!(rows[1].is_err());
    assert_eq!(cluster.image, before);
}

#[test]
fn counts_that_cannot_be_are_refused() {
    let mut cluster = Cluster::of(2);
    for count in [0, -2, i32::MIN] {
        assert!(matches!(cluster.create_one(sized("t", count, 1)), Err(Refusal::InvalidPartitions(_))), "{count}");
    }
    for factor in [0, -2, 3, i16::MAX] {
        let refused = cluster.create_one(sized("t", 1, factor));
        assert!(matches!(refused, Err(Refusal::InvalidReplicationFactor(_))), "{factor}");
    }
    assert!(matches!(cluster.create_one(sized("t", 10_001, 1)), Err(Refusal::TooMuch(_))));
    assert!(matches!(cluster.create_one(sized("t", i32::MAX, 1)), Err(Refusal::TooMuch(_))));
    let together = cluster.create(vec![sized("t", 6_000, 1), sized("u", 6_000, 1), sized("v", 4_000, 1)], false);
    assert!(matches!(together[..], [Ok(_), Err(Refusal::TooMuch(_)), Ok(_)]));
}

#[test]
fn replicas_are_spread_evenly_and_never_twice_on_a_broker() {
    let mut cluster = Cluster::of(3);
    cluster.create_one(sized("t", 9, 2)).unwrap();
    let partitions = &cluster.topic("t").partitions;
    for id in [1, 2, 3].map(BrokerId) {
        assert_eq!(partitions.iter().filter(|p| p.leader == Some(id)).count(), 3);
        assert_eq!(partitions.iter().filter(|p| p.replicas.contains(&id)).count(), 6);
    }
    assert!(partitions.iter().all(|p| p.replicas.len() == 2 && p.replicas[0] != p.replicas[1]));
}

#[test]
fn assignments_by_hand_are_taken_or_refused_whole() {
    let mut cluster = Cluster::of(3);
    let created = cluster.create_one(by_hand("t", &[(1, &[3, 1]), (0, &[2, 3])])).unwrap();
    assert_eq!((created.partitions, created.replication_factor), (2, 2));
    assert_eq!(*cluster.topic("t").partitions[0].replicas, [BrokerId(2), BrokerId(3)]);
    assert_eq!(cluster.topic("t").partitions[1].leader, Some(BrokerId(3)));

    let wrong: [&[(i32, &[i32])]; 6] =
        [&[(1, &[1])], &[(0, &[1]), (2, &[1])], &[(0, &[1]), (0, &[2])], &[(0, &[])], &[(0, &[1, 1])], &[(0, &[9])]];
    for assignments in wrong {
        let refused = cluster.create_one(by_hand("u", assignments));
        assert!(matches!(refused, Err(Refusal::InvalidAssignment(_))), "{assignments:?}: {refused:?}");
    }
    let uneven = cluster.create_one(by_hand("u", &[(0, &[1]), (1, &[1, 2])]));
    assert!(matches!(uneven, Err(Refusal::InvalidAssignment(_))));
    let both = cluster.create_one(NewTopic { partitions: 1, ..by_hand("u", &[(0, &[1])]) });
    assert!(matches!(both, Err(Refusal::InvalidRequest(_))));
}

#[test]
fn topics_are_deleted_by_name_or_by_id() {
    let mut cluster = Cluster::of(1);
    let a = cluster.create_one(topic("a")).unwrap().id;
    cluster.create_one(topic("b")).unwrap();
    let none = TopicId::from_bytes([9; 16]);
    let name = |name: &str| TopicRef::Name(name.to_owned());
    let topics = vec![TopicRef::Id(a), name("a"), name("x"), TopicRef::Id(none), name("b"), name("b")];
    let Ok(Reply::TopicsDeleted(rows)) = cluster.run(Command::DeleteTopics { topics }) else {
        panic!("answered with something else");
    };
    let results: Vec<_> = rows.into_iter().map(|(_, result)| result.map(|deleted| deleted.id)).collect();
    assert_eq!(results.len(), 5);
    assert_eq!(results[..2], [Ok(a), Ok(a)]);
    assert_eq!(results[2], Err(Refusal::UnknownTopic("x".to_owned())));
    assert_eq!(results[3], Err(Refusal::UnknownTopicId(none)));
    assert!(matches!(results[4], Err(Refusal::InvalidRequest(_))));
    let left: Vec<&str> = cluster.image.topics().map(|topic| &*topic.name).collect();
    assert_eq!(left, ["b"]);
}

#[test]
fn deletion_can_be_switched_off() {
    let mut cluster = Cluster::with(1, &[("delete.topic.enable", "false")]);
    cluster.create_one(topic("a")).unwrap();
    let topics = vec![TopicRef::Name("a".to_owned())];
    let Ok(Reply::TopicsDeleted(rows)) = cluster.run(Command::DeleteTopics { topics }) else {
        panic!("answered with something else");
    };
    assert_eq!(rows[0].1, Err(Refusal::DeletionDisabled));
    assert!(cluster.image.topic_named("a").is_some());
}

#[test]
fn a_topic_only_grows() {
    let mut cluster = Cluster::of(2);
    cluster.create_one(sized("t", 2, 2)).unwrap();
    for count in [2, 1, 0, -1] {
        assert!(matches!(grow(&mut cluster, "t", count, None), Err(Refusal::InvalidPartitions(_))), "{count}");
    }
    assert_eq!(grow(&mut cluster, "x", 3, None), Err(Refusal::UnknownTopic("x".to_owned())));
    assert!(matches!(grow(&mut cluster, "t", 20_000, None), Err(Refusal::TooMuch(_))));
    let short = grow(&mut cluster, "t", 4, Some(vec![vec![1, 2]]));
    assert!(matches!(short, Err(Refusal::InvalidAssignment(_))));
    let thin = grow(&mut cluster, "t", 3, Some(vec![vec![1]]));
    assert!(matches!(thin, Err(Refusal::InvalidAssignment(_))));
    assert_eq!(cluster.topic("t").partitions.len(), 2);

    grow(&mut cluster, "t", 4, None).unwrap();
    grow(&mut cluster, "t", 5, Some(vec![vec![2, 1]])).unwrap();
    let partitions = &cluster.topic("t").partitions;
    assert_eq!(partitions.len(), 5);
    assert!(partitions.iter().all(|partition| partition.replicas.len() == 2));
    assert_eq!(partitions[4].leader, Some(BrokerId(2)));
}

#[test]
fn growing_can_be_tried_first_and_a_name_comes_once() {
    let mut cluster = Cluster::of(1);
    cluster.create_one(topic("t")).unwrap();
    let more = |name: &str| NewPartitions { name: name.to_owned(), count: 3, assignments: None };
    let validate = Command::CreatePartitions { topics: vec![more("t")], validate_only: true };
    assert_eq!(cluster.run(validate), Ok(Reply::PartitionsCreated(vec![("t".to_owned(), Ok(()))])));
    assert_eq!(cluster.topic("t").partitions.len(), 1);
    cluster.create(vec![topic("u"), topic("v")], false);
    let large = |name: &str| NewPartitions { name: name.to_owned(), count: 6_000, assignments: None };
    let both = Command::CreatePartitions { topics: vec![large("u"), large("v")], validate_only: true };
    let Ok(Reply::PartitionsCreated(rows)) = cluster.run(both) else { panic!("answered with something else") };
    assert!(matches!(rows[..], [(_, Ok(())), (_, Err(Refusal::TooMuch(_)))]), "the limit is on the request");
    let within = Command::CreatePartitions { topics: vec![large("u"), more("v")], validate_only: true };
    let Ok(Reply::PartitionsCreated(rows)) = cluster.run(within) else { panic!("answered with something else") };
    assert!(matches!(rows[..], [(_, Ok(())), (_, Ok(()))]), "{rows:?}");
    let twice = Command::CreatePartitions { topics: vec![more("t"), more("t")], validate_only: false };
    let Ok(Reply::PartitionsCreated(rows)) = cluster.run(twice) else { panic!("answered with something else") };
    assert!(matches!(rows[..], [(_, Err(Refusal::InvalidRequest(_)))]));
}

#[test]
fn a_topic_is_created_with_its_configs_or_not_at_all() {
    let mut cluster = Cluster::of(1);
    let with = |name: &str, key: &str, value: Option<&str>| NewTopic {
        configs: vec![(key.to_owned(), value.map(str::to_owned))],
        ..topic(name)
    };
    cluster.create_one(with("a", "retention.ms", Some("1000"))).unwrap();
    assert_eq!(cluster.topic_config("a").retention_ms, Some(1000));
    for (key, value) in [("retention.ms", "-2"), ("cleanup.policy", "shrink"), ("no.such", "1")] {
        let refused = cluster.create_one(with("b", key, Some(value)));
        assert!(matches!(refused, Err(Refusal::InvalidTopicConfig(_))), "{key}");
    }
    assert!(matches!(cluster.create_one(with("b", "retention.ms", None)), Err(Refusal::InvalidTopicConfig(_))));
    assert!(cluster.image.topic_named("b").is_none());

    // What older tools send, without effect.
    let created = cluster.create_one(with("c", "message.format.version", Some("2.8-IV1"))).unwrap();
    assert!(created.overrides.is_empty());
    cluster.alter(ALL_BROKERS, &[("log.retention.ms", set("77"))]).unwrap();
    assert_eq!(cluster.topic_config("c").retention_ms, Some(77));
}
