//! Committed offsets: who may commit and fetch, and how they go.

use ottla_group::{
    Command, CommitOffset, CommitOffsets, DeleteOffsets, FetchOffsets, GroupId, GroupState, Join, Refusal, Reply,
};
use ottla_types::{LeaderEpoch, Offset, PartitionIndex, TopicId};

use crate::world::{GROUP, World, commit, commit_as, commit_offset, fetch_all, join, subscription};

#[test]
fn g4_what_was_committed_comes_back_until_somebody_commits_again() {
    let mut world = World::new();
    assert_eq!(world.commit(commit(42)), Ok(vec![Ok(())]));
    let [fetched] = &world.fetch_all(GROUP)[..] else { panic!("one offset") };
    let committed = fetched.committed.as_ref().unwrap();
    assert_eq!((&*fetched.topic, fetched.partition), ("orders", PartitionIndex(0)));
    assert_eq!((committed.offset, committed.leader_epoch, &*committed.metadata), (Offset(42), LeaderEpoch(5), "m"));
    assert_eq!((committed.committed_at, committed.expires_at), (world.wall(), None));

    // Backwards too, if the client says so: a reset.
    assert_eq!(world.commit(commit(7)), Ok(vec![Ok(())]));
    assert_eq!(world.fetch_all(GROUP)[0].committed.as_ref().unwrap().offset, Offset(7));
}

#[test]
fn offsets_that_nobody_committed_are_none_and_no_error() {
    let mut world = World::new();
    let fetch = |group: &str| FetchOffsets {
        partitions: Some(vec![("orders".into(), PartitionIndex(0)), ("orders".into(), PartitionIndex(9))]),
        ..fetch_all(group)
    };
    world.commit(commit(1)).unwrap();
    for (group, known) in [(GROUP, [true, false]), ("none", [false, false])] {
        let fetched = world.with_context(|coordinator, ctx| coordinator.fetch_offsets(ctx, &fetch(group))).unwrap();
        let found: Vec<_> = fetched.iter().map(|row| row.committed.is_some()).collect();
        assert_eq!(found, known, "{group}");
    }
    assert_eq!(world.fetch_all("none"), []);
}

#[test]
fn who_is_no_member_commits_to_an_empty_group_alone() {
    let mut world = World::new();
    // A generation that nobody gave.
    let member = || commit_as(&"m".into(), 3, 1);
    assert!(matches!(world.commit(member()), Err(Refusal::GroupIdNotFound(_))));
    let older = CommitOffsets { knows_member_epochs: false, ..member() };
    assert_eq!(world.commit(older), Err(Refusal::IllegalGeneration));

    // A group of offsets alone,
    world.commit(commit(1)).unwrap();
    let group = world.coordinator.describe_classic(GROUP).unwrap();
    assert_eq!((group.state, &*group.protocol_type), (GroupState::Empty, ""));
    assert_eq!(world.commit(member()), Err(Refusal::UnknownMemberId));
    // which members can come to,
    world.stable_group(vec![join("a")]);
    // and then it is theirs.
    assert_eq!(world.commit(commit(2)), Err(Refusal::UnknownMemberId));
    assert_eq!(world.fetch_all(GROUP)[0].committed.as_ref().unwrap().offset, Offset(1));
}

#[test]
fn metadata_has_a_limit_and_the_other_offsets_are_written() {
    let mut world = World::new();
    let with = |topic: &str, metadata: String| CommitOffset { metadata: metadata.into(), ..commit_offset(topic, 1) };
    let offsets = vec![
        with("a", "x".repeat(4_096)),
        with("b", "x".repeat(4_097)),
        // Kafka counts characters.
        with("c", "ä".repeat(4_096)),
    ];
    let rows = world.commit(CommitOffsets { offsets, ..commit(0) });
    assert_eq!(rows, Ok(vec![Ok(()), Err(Refusal::OffsetMetadataTooLarge), Ok(())]));
    let topics: Vec<_> = world.fetch_all(GROUP).into_iter().map(|row| row.topic).collect();
    assert_eq!(topics, ["a".into(), "c".into()]);
}

#[test]
fn offsets_of_topics_that_the_group_reads_are_not_deleted() {
    let mut world = World::new();
    let offsets = vec![commit_offset("orders", 1), commit_offset("payments", 1)];
    world.commit(CommitOffsets { offsets, ..commit(0) }).unwrap();
    world.stable_group(vec![join("a")]);
    let delete = |topics: &[&str]| DeleteOffsets {
        group: GROUP.into(),
        partitions: topics.iter().map(|topic| ((*topic).into(), PartitionIndex(0))).collect(),
    };
    let rows = delete_offsets(&mut world, delete(&["orders", "payments", "none"]));
    assert_eq!(rows, Ok(vec![Err(Refusal::GroupSubscribedToTopic), Ok(()), Ok(())]));
    assert_eq!(world.fetch_all(GROUP).len(), 1);

    // Of members that are no consumers nobody knows what they read.
    world.send(Command::Join(Join { group: "w".into(), protocol_type: "connect".into(), ..join("w") }));
    let rows = delete_offsets(&mut world, DeleteOffsets { group: "w".into(), ..delete(&["orders"]) });
    assert_eq!(rows, Err(Refusal::NonEmptyGroup));
    let rows = delete_offsets(&mut world, DeleteOffsets { group: "none".into(), ..delete(&["orders"]) });
    assert!(matches!(rows, Err(Refusal::GroupIdNotFound(_))));
}

#[test]
fn consumers_whose_metadata_can_not_be_read_may_read_everything() {
    let mut world = World::new();
    world.commit(commit(1)).unwrap();
    let mut damaged = subscription(&["payments"]).to_vec();
    damaged.truncate(9);
    world.stable_group(vec![Join { protocols: vec![("range".into(), damaged.into())], ..join("a") }]);
    let delete = DeleteOffsets { group: GROUP.into(), partitions: vec![("orders".into(), PartitionIndex(0))] };
    assert_eq!(delete_offsets(&mut world, delete), Ok(vec![Err(Refusal::GroupSubscribedToTopic)]));
}

#[test]
fn a_topic_that_is_deleted_takes_its_offsets_along() {
    let mut world = World::new();
    let newer = CommitOffset {
        topic_id: TopicId::from_bytes([8; 16]),
        partition: PartitionIndex(1),
        ..commit_offset("orders", 2)
    };
    let unnamed = CommitOffset { topic_id: TopicId::ZERO, partition: PartitionIndex(2), ..commit_offset("orders", 3) };
    let offsets = vec![commit_offset("orders", 1), newer, unnamed, commit_offset("payments", 4)];
    world.commit(CommitOffsets { offsets, ..commit(0) }).unwrap();
    let ticket = world.send(Command::TopicsDeleted(vec![(TopicId::from_bytes([7; 16]), "orders".into())]));
    assert!(world.waits(ticket), "nobody is owed an answer");
    let left: Vec<_> = world.fetch_all(GROUP).into_iter().map(|row| (row.topic, row.partition.0)).collect();
    // Those of the topic that has the name now stay.
    assert_eq!(left, [("orders".into(), 1), ("payments".into(), 0)]);
}

#[test]
fn a_group_that_nobody_is_in_can_be_deleted() {
    let mut world = World::new();
    let delete = |world: &mut World| {
        let ticket = world.send(Command::DeleteGroup(GroupId::from(GROUP)));
        match world.reply(ticket) {
            Some(Reply::DeleteGroup(result)) => result,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(delete(&mut world), Err(Refusal::GroupIdNotFound(_))));
    let members = world.stable_group(vec![join("a")]);
    world.commit(commit_as(&members[0].member, 1, 1)).unwrap();
    assert_eq!(delete(&mut world), Err(Refusal::NonEmptyGroup));
    world.leave(&[(&members[0].member, None)]);
    assert_eq!(delete(&mut world), Ok(()));
    for coordinator in [&world.coordinator, &world.replayed()] {
        assert_eq!(coordinator.list(), []);
        assert!(matches!(coordinator.describe_classic(GROUP), Err(Refusal::GroupIdNotFound(_))));
    }
    assert_eq!(world.fetch_all(GROUP), []);
}

fn delete_offsets(world: &mut World, delete: DeleteOffsets) -> Result<Vec<Result<(), Refusal>>, Refusal> {
    let ticket = world.send(Command::DeleteOffsets(delete));
    match world.reply(ticket) {
        Some(Reply::DeleteOffsets(result)) => result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_commit_whose_names_fit_no_record_is_refused_whole() {
    let mut world = World::new();
    let (longest, too_long) = ("t".repeat(32_767), "t".repeat(32_768));
    let of = |topic: &str| {
        let offsets = vec![commit_offset("short", 1), commit_offset(topic, 1)];
        CommitOffsets { offsets, ..commit(1) }
    };
    let written = world.log.len();
    assert!(matches!(world.commit(of(&too_long)), Err(Refusal::InvalidRequest(_))));
    let group = CommitOffsets { group: too_long.as_str().into(), ..commit(1) };
    assert!(matches!(world.commit(group), Err(Refusal::InvalidRequest(_))));
    assert_eq!(world.log.len(), written);
    assert_eq!(world.commit(of(&longest)), Ok(vec![Ok(()), Ok(())]));
    assert_eq!(world.log.len(), written + 2);
}
