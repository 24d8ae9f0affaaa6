//! Groups over the wire: what each API says in its versions, and that a group lives through a restart of the broker.
//! Lines 56 to 71 of the client behaviours; the rules of groups themselves are tested in `ottla-group`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Client, TestBroker, code, topic_id};
use ottla_protocol::{
    ErrorCode, Request,
    messages::{
        ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
        DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest,
        JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
        OffsetFetchRequest, SyncGroupRequest,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
        sync_group_request::SyncGroupRequestAssignment,
    },
};

const DEADLINE: Duration = Duration::from_secs(30);

/// Asks again until the answer is there.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

fn start() -> TestBroker {
    TestBroker::start_with(&[("group.initial.rebalance.delay.ms", "0")])
}

/// Waits until the broker coordinates the group, as every client does.
fn find_coordinator(client: &mut Client, group: &str) {
    let request = FindCoordinatorRequest { key: group.into(), ..Default::default() };
    until("a coordinator", || (client.call(3, &request).error_code == 0).then_some(()));
}

fn join(group: &str, member: &str, metadata: &'static [u8]) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member.into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::from_static(metadata) }],
        ..Default::default()
    }
}

/// Joins with an id that the coordinator gives, in a version where it does; the answer is still owed.
fn begin_join(client: &mut Client, group: &str, metadata: &'static [u8]) -> (i32, String) {
    let refused = client.call(9, &join(group, "", metadata));
    assert_eq!(code(refused.error_code), ErrorCode::MemberIdRequired);
    let member = refused.member_id.to_string();
    (client.send(9, &join(group, &member, metadata)), member)
}

/// The only member of a group, with its assignment.
fn settle(client: &mut Client, group: &str) -> JoinGroupResponse {
    let (correlation, _) = begin_join(client, group, b"subscription");
    let joined = client.receive::<JoinGroupRequest>(9, correlation);
    assert_eq!(code(joined.error_code), ErrorCode::None);
    let synced = client.call(5, &sync(group, &joined, &[(&joined.member_id, b"assignment")]));
    assert_eq!((code(synced.error_code), &synced.assignment[..]), (ErrorCode::None, &b"assignment"[..]));
    joined
}

fn sync(group: &str, joined: &JoinGroupResponse, assignments: &[(&str, &'static [u8])]) -> SyncGroupRequest {
    let one = |(member, bytes): &(&str, &'static [u8])| SyncGroupRequestAssignment {
        member_id: (*member).into(),
        assignment: Bytes::from_static(bytes),
    };
    SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: joined.protocol_type.clone(),
        protocol_name: joined.protocol_name.clone(),
        assignments: assignments.iter().map(one).collect(),
        ..Default::default()
    }
}

fn heartbeat(client: &mut Client, group: &str, generation: i32, member: &str) -> ErrorCode {
    let request = HeartbeatRequest {
        group_id: group.into(),
        generation_id: generation,
        member_id: member.into(),
        ..Default::default()
    };
    code(client.call(4, &request).error_code)
}

fn commit(client: &mut Client, version: i16, group: &str, topic: &str, offset: i64) -> ErrorCode {
    let id = if version >= 10 { topic_id(client, topic) } else { Default::default() };
    let request = OffsetCommitRequest {
        group_id: group.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: if version >= 10 { "".into() } else { topic.into() },
            topic_id: id,
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: offset,
                committed_leader_epoch: if version >= 6 { 0 } else { -1 },
                committed_metadata: Some(format!("v{version}").into()),
            }],
        }],
        ..Default::default()
    };
    let response = client.call(version, &request);
    code(response.topics[0].partitions[0].error_code)
}

/// What is committed for partition 0: offset, leader epoch, metadata, error.
fn fetch(client: &mut Client, version: i16, group: &str, topic: &str) -> (i64, i32, String, ErrorCode) {
    if version < 8 {
        let topics = vec![OffsetFetchRequestTopic { name: topic.into(), partition_indexes: vec![0] }];
        let request = OffsetFetchRequest { group_id: group.into(), topics: Some(topics), ..Default::default() };
        let response = client.call(version, &request);
        let row = response.topics[0].partitions[0].clone();
        let metadata = row.metadata.unwrap().to_string();
        return (row.committed_offset, row.committed_leader_epoch, metadata, code(row.error_code));
    }
    let id = if version >= 10 { topic_id(client, topic) } else { Default::default() };
    let name = if version >= 10 { "" } else { topic };
    let topics = vec![OffsetFetchRequestTopics { name: name.into(), topic_id: id, partition_indexes: vec![0] }];
    let groups = vec![OffsetFetchRequestGroup { group_id: group.into(), topics: Some(topics), ..Default::default() }];
    let response = client.call(version, &OffsetFetchRequest { groups, ..Default::default() });
    assert_eq!(code(response.groups[0].error_code), ErrorCode::None);
    let row = response.groups[0].topics[0].partitions[0].clone();
    (row.committed_offset, row.committed_leader_epoch, row.metadata.unwrap().to_string(), code(row.error_code))
}

#[test]
fn client_rule_57_a_member_id_is_required_from_version_4_on_and_never_before() {
    let broker = start();
    let mut client = broker.connect();
    for version in 0..=9 {
        let group = format!("g{version}");
        find_coordinator(&mut client, &group);
        let mut request = join(&group, "", b"m");
        if version == 0 {
            request.rebalance_timeout_ms = -1;
        }
        let joined = client.call(version, &request);
        let expected = if version >= 4 { ErrorCode::MemberIdRequired } else { ErrorCode::None };
        assert_eq!(code(joined.error_code), expected, "version {version}");
        assert!(!joined.member_id.is_empty());
        if version < 4 {
            assert_eq!((&joined.leader, joined.generation_id, joined.members.len()), (&joined.member_id, 1, 1));
        }
    }
}

#[test]
fn client_rules_60_and_61_members_join_together_and_the_leader_alone_sees_everybody() {
    let broker = start();
    let (mut one, mut two) = (broker.connect(), broker.connect());
    find_coordinator(&mut one, "g");
    let first = settle(&mut one, "g");

    let (owed, _) = begin_join(&mut two, "g", b"other");
    let rebalances = || (heartbeat(&mut one, "g", 1, &first.member_id) == ErrorCode::RebalanceInProgress).then_some(());
    until("the rebalance", rebalances);
    let again = one.call(9, &join("g", &first.member_id, b"subscription"));
    let other = two.receive::<JoinGroupRequest>(9, owed);
    assert_eq!((again.generation_id, other.generation_id), (2, 2));
    assert_eq!((&again.leader, &other.leader), (&first.member_id, &first.member_id));
    assert_eq!(again.protocol_name.as_deref(), Some("range"));
    let mut seen: Vec<_> =
        again.members.iter().map(|member| (member.member_id.clone(), member.metadata.clone())).collect();
    seen.sort();
    let mut expected = vec![
        (first.member_id.clone(), Bytes::from_static(b"subscription")),
        (other.member_id.clone(), Bytes::from_static(b"other")),
    ];
    expected.sort();
    assert_eq!(seen, expected);
    assert_eq!(other.members, Vec::new());

    // The follower waits for its assignment until the leader brings it.
    let owed = two.send(5, &sync("g", &other, &[]));
    let mine = one.call(5, &sync("g", &again, &[(&again.member_id, b"a"), (&other.member_id, b"b")]));
    let theirs = two.receive::<SyncGroupRequest>(5, owed);
    assert_eq!((&mine.assignment[..], &theirs.assignment[..]), (&b"a"[..], &b"b"[..]));
    assert_eq!(heartbeat(&mut one, "g", 1, &first.member_id), ErrorCode::IllegalGeneration);
    assert_eq!(heartbeat(&mut one, "g", 2, &first.member_id), ErrorCode::None);
    assert_eq!(heartbeat(&mut one, "g", 2, "somebody"), ErrorCode::UnknownMemberId);
}

#[test]
fn client_rules_67_and_68_offsets_come_back_in_every_version_and_after_a_restart() {
    let broker = start();
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    find_coordinator(&mut client, "g");
    for version in 1..=10 {
        let none = (-1, -1, String::new(), ErrorCode::None);
        assert_eq!(fetch(&mut client, version, "nobody", "t"), none, "version {version}");
    }
    for version in 2..=10 {
        assert_eq!(commit(&mut client, version, "g", "t", 100 + i64::from(version)), ErrorCode::None);
        for read in 1..=10 {
            let epoch = if version >= 6 && read >= 5 { 0 } else { -1 };
            let expected = (100 + i64::from(version), epoch, format!("v{version}"), ErrorCode::None);
            assert_eq!(fetch(&mut client, read, "g", "t"), expected, "written in {version}, read in {read}");
        }
    }
    assert_eq!(commit(&mut client, 9, "g", "nowhere", 1), ErrorCode::UnknownTopicOrPartition);
    drop(client);
    let broker = broker.restart();
    let mut client = broker.connect();
    find_coordinator(&mut client, "g");
    let expected = (110, 0, "v10".to_owned(), ErrorCode::None);
    let all = until("the offsets are loaded", || {
        let groups = vec![OffsetFetchRequestGroup { group_id: "g".into(), topics: None, ..Default::default() }];
        let all = client.call(8, &OffsetFetchRequest { groups, ..Default::default() });
        match code(all.groups[0].error_code) {
            ErrorCode::CoordinatorLoadInProgress => None,
            loaded => Some((loaded, all.groups[0].topics.len())),
        }
    });
    assert_eq!(all, (ErrorCode::None, 1));
    assert_eq!(fetch(&mut client, 9, "g", "t"), expected);
}

#[test]
fn client_rule_66_a_stranger_commits_for_an_empty_group_alone() {
    let broker = start();
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    find_coordinator(&mut client, "g");
    assert_eq!(commit(&mut client, 8, "g", "t", 5), ErrorCode::None);
    let joined = settle(&mut client, "g");
    assert_eq!(commit(&mut client, 8, "g", "t", 6), ErrorCode::UnknownMemberId);
    let leave = LeaveGroupRequest {
        group_id: "g".into(),
        members: vec![MemberIdentity { member_id: joined.member_id, ..Default::default() }],
        ..Default::default()
    };
    let left = client.call(5, &leave);
    assert_eq!((code(left.error_code), code(left.members[0].error_code)), (ErrorCode::None, ErrorCode::None));
    assert_eq!(commit(&mut client, 8, "g", "t", 6), ErrorCode::None);
}

#[test]
fn client_rule_70_an_unknown_group_is_dead_and_from_version_6_on_not_found() {
    let broker = start();
    let mut client = broker.connect();
    find_coordinator(&mut client, "g");
    let request = DescribeGroupsRequest { groups: vec!["g".into()], ..Default::default() };
    for version in 0..=6 {
        let group = client.call(version, &request).groups.remove(0);
        let expected = if version >= 6 { ErrorCode::GroupIdNotFound } else { ErrorCode::None };
        assert_eq!((code(group.error_code), &*group.group_state), (expected, "Dead"), "version {version}");
    }
}

#[test]
fn groups_are_listed_described_and_deleted() {
    let broker = start();
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    find_coordinator(&mut client, "live");
    settle(&mut client, "live");
    assert_eq!(commit(&mut client, 8, "offsets", "t", 1), ErrorCode::None);
    let list = |client: &mut Client, states: &[&str]| {
        let states_filter = states.iter().map(|state| (*state).into()).collect();
        let response = client.call(5, &ListGroupsRequest { states_filter, ..Default::default() });
        assert_eq!(code(response.error_code), ErrorCode::None);
        let mut rows: Vec<_> =
            response.groups.iter().map(|g| format!("{} {} {}", g.group_id, g.group_state, g.group_type)).collect();
        rows.sort();
        rows
    };
    assert_eq!(list(&mut client, &[]), ["live Stable classic", "offsets Empty classic"]);
    assert_eq!(list(&mut client, &["stable"]), ["live Stable classic"]);
    let described = client.call(5, &DescribeGroupsRequest { groups: vec!["live".into()], ..Default::default() });
    let group = &described.groups[0];
    assert_eq!((&*group.group_state, &*group.protocol_type, &*group.protocol_data), ("Stable", "consumer", "range"));
    assert_eq!(&group.members[0].member_assignment[..], b"assignment");
    assert!(group.members[0].client_host.starts_with('/'), "{}", group.members[0].client_host);

    let delete = DeleteGroupsRequest { groups_names: vec!["live".into(), "offsets".into(), "no".into()] };
    let rows = client.call(2, &delete).results;
    let codes: Vec<_> = rows.iter().map(|row| code(row.error_code)).collect();
    assert_eq!(codes, [ErrorCode::NonEmptyGroup, ErrorCode::None, ErrorCode::GroupIdNotFound]);
    assert_eq!(fetch(&mut client, 8, "offsets", "t").0, -1);
}

#[test]
fn an_offset_is_deleted_alone() {
    let broker = start();
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    client.create_topic("u", 1, &[]);
    find_coordinator(&mut client, "g");
    assert_eq!(commit(&mut client, 8, "g", "t", 1), ErrorCode::None);
    assert_eq!(commit(&mut client, 8, "g", "u", 2), ErrorCode::None);
    let request = OffsetDeleteRequest {
        group_id: "g".into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: "t".into(),
            partitions: vec![
                OffsetDeleteRequestPartition { partition_index: 0 },
                OffsetDeleteRequestPartition { partition_index: 9 },
            ],
        }],
    };
    let response = client.call(0, &request);
    let codes: Vec<_> = response.topics[0].partitions.iter().map(|row| code(row.error_code)).collect();
    assert_eq!(
        (code(response.error_code), codes),
        (ErrorCode::None, vec![ErrorCode::None, ErrorCode::UnknownTopicOrPartition])
    );
    assert_eq!(fetch(&mut client, 8, "g", "t").0, -1);
    assert_eq!(fetch(&mut client, 8, "g", "u").0, 2);
}

fn consume(client: &mut Client, request: &ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
    let response = client.call(1, request);
    assert_eq!(code(response.error_code), ErrorCode::None, "{:?}", response.error_message);
    response
}

#[test]
fn client_rule_71_a_consumer_joins_is_assigned_commits_and_leaves() {
    let broker = start();
    let mut client = broker.connect();
    client.create_topic("t", 3, &[]);
    find_coordinator(&mut client, "g");
    let joining = ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: "m-1".into(),
        rebalance_timeout_ms: 10_000,
        subscribed_topic_names: Some(vec!["t".into()]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    };
    let mut answer = consume(&mut client, &joining);
    assert_eq!((answer.member_id.as_deref(), answer.heartbeat_interval_ms), (Some("m-1"), 5000));
    let assignment = until("an assignment", || {
        let assignment = answer.assignment.take().filter(|assignment| !assignment.topic_partitions.is_empty());
        if assignment.is_none() {
            let again = ConsumerGroupHeartbeatRequest { member_epoch: answer.member_epoch, ..joining.clone() };
            answer = consume(&mut client, &again);
        }
        assignment
    });
    assert_eq!(assignment.topic_partitions[0].topic_id, topic_id(&mut client, "t"));
    assert_eq!(assignment.topic_partitions[0].partitions, [0, 1, 2]);

    let described = client.call(1, &ConsumerGroupDescribeRequest { group_ids: vec!["g".into()], ..Default::default() });
    let group = &described.groups[0];
    assert_eq!((code(group.error_code), &*group.assignor_name), (ErrorCode::None, "uniform"));
    assert_eq!(group.members[0].target_assignment.topic_partitions[0].topic_name, "t");
    assert_eq!(commit(&mut client, 9, "g", "t", 3), ErrorCode::UnknownMemberId, "a stranger");

    let leaving = ConsumerGroupHeartbeatRequest { member_epoch: -1, ..joining.clone() };
    assert_eq!(consume(&mut client, &leaving).member_epoch, -1);
    let list = client.call(5, &ListGroupsRequest::default()).groups;
    assert_eq!((&*list[0].group_state, &*list[0].group_type), ("Empty", "consumer"));
}

#[test]
fn whoever_waits_for_others_is_told_when_the_broker_stops() {
    let broker = start();
    let (mut one, mut two) = (broker.connect(), broker.connect());
    find_coordinator(&mut one, "g");
    let first = settle(&mut one, "g");
    let (owed, _) = begin_join(&mut two, "g", b"other");
    // A request that the broker has not read yet is owed nothing.
    let rebalances = || (heartbeat(&mut one, "g", 1, &first.member_id) == ErrorCode::RebalanceInProgress).then_some(());
    until("the rebalance", rebalances);
    let stopping = std::thread::spawn(move || broker.restart());
    assert_eq!(code(two.receive::<JoinGroupRequest>(9, owed).error_code), ErrorCode::NotCoordinator);
    stopping.join().unwrap();
}

/// An empty group id is refused where a group is needed.
fn refused_without_a_group<R: Request>(
    client: &mut Client,
    version: i16,
    request: &R,
    error: impl Fn(&R::Response) -> i16,
) {
    let answer = client.call(version, request);
    assert_eq!(code(error(&answer)), ErrorCode::InvalidGroupId, "{:?}", R::API);
}

#[test]
fn a_group_needs_a_name() {
    let broker = start();
    let mut client = broker.connect();
    find_coordinator(&mut client, "g");
    // Up to version 6 an answer has a protocol name even so.
    refused_without_a_group(&mut client, 6, &join("", "", b""), |answer| answer.error_code);
    refused_without_a_group(&mut client, 9, &join("", "", b""), |answer| answer.error_code);
    refused_without_a_group(&mut client, 4, &HeartbeatRequest::default(), |answer| answer.error_code);
    refused_without_a_group(&mut client, 5, &LeaveGroupRequest::default(), |answer| answer.error_code);
    refused_without_a_group(&mut client, 0, &OffsetDeleteRequest::default(), |answer| answer.error_code);
    refused_without_a_group(&mut client, 4, &SyncGroupRequest::default(), |answer| answer.error_code);
}
