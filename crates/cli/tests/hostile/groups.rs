//! Groups of members that lie, come in thousands, or never come back.

use std::time::{Duration, Instant};

use ottla_protocol::{
    ApiKey,
    messages::{
        ConsumerGroupHeartbeatRequest, DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest,
        HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
        OffsetFetchRequest, SyncGroupRequest,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        sync_group_request::SyncGroupRequestAssignment,
    },
};

use crate::victim::{Peer, TOPIC, Victim, attack, attack_with, frame, request};

const UNKNOWN_SERVER_ERROR: i16 = -1;
const OFFSET_METADATA_TOO_LARGE: i16 = 12;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const INVALID_SESSION_TIMEOUT: i16 = 26;
const INVALID_REQUEST: i16 = 42;
const MEMBER_ID_REQUIRED: i16 = 79;
const UNSUPPORTED_ASSIGNOR: i16 = 112;
const INVALID_REGULAR_EXPRESSION: i16 = 128;
/// Enough for a generation to begin at once.
const NO_DELAY: [&str; 2] = ["-o", "group.initial.rebalance.delay.ms=0"];

/// A connection, and a topic for the offsets of groups.
fn connect(victim: &Victim) -> Peer {
    let mut peer = victim.connect();
    let find = FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
    loop {
        let found = peer.call(&find, 4).expect("an answer");
        match found.coordinators[0].error_code {
            0 => return peer,
            COORDINATOR_NOT_AVAILABLE => std::thread::yield_now(),
            other => panic!("error {other}"),
        }
    }
}

fn join(group: &str, member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol { name: "range".into(), metadata: vec![0, 0, 0, 0, 0, 0].into() };
    JoinGroupRequest {
        group_id: group.into(),
        member_id: member.into(),
        session_timeout_ms: 1_800_000,
        rebalance_timeout_ms: 1_800_000,
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        ..Default::default()
    }
}

/// Joins as clients did before they were given ids first, and is the only member.
fn join_alone(peer: &mut Peer, request: &JoinGroupRequest) -> JoinGroupResponse {
    peer.call(request, 3).expect("an answer")
}

fn commit(group: &str, partition: i32, offset: i64, metadata: &str) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition {
        partition_index: partition,
        committed_offset: offset,
        committed_metadata: Some(metadata.into()),
        ..Default::default()
    };
    let topic = OffsetCommitRequestTopic { name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    }
}

fn committed(peer: &mut Peer, request: &OffsetCommitRequest) -> i16 {
    peer.call(request, 8).expect("an answer").topics[0].partitions[0].error_code
}

#[test]
fn a_group_named_ten_thousand_times_is_told_of_once() {
    attack(|victim| {
        let name = "a group that is named again and again";
        let mut peer = connect(victim);
        assert_eq!(committed(&mut peer, &commit(name, 0, 5, &"m".repeat(4_000))), 0);
        let topic =
            OffsetFetchRequestTopics { name: TOPIC.into(), partition_indexes: vec![0; 100_000], ..Default::default() };
        let group = OffsetFetchRequestGroup { group_id: name.into(), topics: Some(vec![topic]), ..Default::default() };
        let fetch = OffsetFetchRequest { groups: vec![group.clone(); 10], ..Default::default() };
        let fetched = peer.call(&fetch, 8).expect("an answer");
        assert_eq!((fetched.groups.len(), fetched.groups[0].topics[0].partitions.len()), (1, 1));
        let all = OffsetFetchRequestGroup { topics: None, ..group };
        let fetch = OffsetFetchRequest { groups: vec![all; 10_000], ..Default::default() };
        assert_eq!(peer.call(&fetch, 8).expect("an answer").groups.len(), 1);
        let describe = DescribeGroupsRequest { groups: vec![name.into(); 10_000], ..Default::default() };
        assert_eq!(peer.call(&describe, 5).expect("an answer").groups.len(), 1);
    });
}

#[test]
fn ten_thousand_groups_nobody_has_are_answered() {
    attack(|victim| {
        let mut peer = connect(victim);
        let names = || (0..10_000).map(|number| format!("{number:0>200}").into());
        let describe = DescribeGroupsRequest { groups: names().collect(), ..Default::default() };
        assert_eq!(peer.call(&describe, 5).expect("an answer").groups.len(), 10_000);
        let delete = DeleteGroupsRequest { groups_names: names().collect() };
        assert_eq!(peer.call(&delete, 2).expect("an answer").results.len(), 10_000);
        let group = |group_id| OffsetFetchRequestGroup { group_id, topics: None, ..Default::default() };
        let fetch = OffsetFetchRequest { groups: names().map(group).collect(), ..Default::default() };
        assert_eq!(peer.call(&fetch, 8).expect("an answer").groups.len(), 10_000);
    });
}

#[test]
fn a_hundred_thousand_members_leave_at_once() {
    attack(|victim| {
        let mut peer = connect(victim);
        let members = (0..100_000).map(|n| MemberIdentity { member_id: n.to_string().into(), ..Default::default() });
        let leave = LeaveGroupRequest { group_id: "g".into(), members: members.collect(), ..Default::default() };
        assert_eq!(peer.call(&leave, 4).expect("an answer").members.len(), 100_000);
    });
}

#[test]
fn names_as_long_as_the_wire_allows_are_kept_or_refused() {
    attack_with(&NO_DELAY, |victim| {
        let mut peer = connect(victim);
        let long = "n".repeat(32_767);
        assert_eq!(committed(&mut peer, &commit(&long, 0, 7, "m")), 0);
        assert_eq!(committed(&mut peer, &commit("g", 0, 7, &long)), OFFSET_METADATA_TOO_LARGE);
        assert_eq!(join_alone(&mut peer, &join(&long, &long)).error_code, 25, "no such member");
        // The instance becomes part of an id, for which there is no room.
        let fixed = JoinGroupRequest { group_instance_id: Some(long.as_str().into()), ..join("h", "") };
        assert_eq!(peer.call(&fixed, 9).expect("an answer").error_code, INVALID_REQUEST);
        let heartbeat = ConsumerGroupHeartbeatRequest {
            group_id: long.as_str().into(),
            member_id: long.as_str().into(),
            rebalance_timeout_ms: 1,
            subscribed_topic_names: Some(vec![long.as_str().into()]),
            topic_partitions: Some(Vec::new()),
            rack_id: Some(long.as_str().into()),
            ..Default::default()
        };
        let choosy = ConsumerGroupHeartbeatRequest { server_assignor: Some(long.as_str().into()), ..heartbeat.clone() };
        let refused = peer.call(&choosy, 1).expect("an answer");
        assert!(refused.error_code == UNSUPPORTED_ASSIGNOR && refused.error_message.unwrap().len() < 2_000);
        // The group is there, of offsets alone, and becomes a consumer group.
        assert_eq!(peer.call(&heartbeat, 1).expect("an answer").error_code, 0);
    });
}

#[test]
fn members_too_large_to_be_written_down_are_told_and_the_group_goes_on() {
    attack_with(&NO_DELAY, |victim| {
        let mut peer = connect(victim);
        let with = |protocols| JoinGroupRequest { protocols, ..join("g", "") };
        let named =
            |number: usize| JoinGroupRequestProtocol { name: number.to_string().into(), metadata: Default::default() };
        let many = join_alone(&mut peer, &with((0..10_000).map(named).collect()));
        assert_eq!(many.error_code, INVALID_REQUEST);
        let wide = |size| vec![JoinGroupRequestProtocol { name: "range".into(), metadata: vec![0; size].into() }];
        assert_eq!(join_alone(&mut peer, &with(wide(5 << 20))).error_code, INVALID_REQUEST);
        // As in Kafka it may come, but what it was assigned can't be kept.
        let joined = join_alone(&mut peer, &with(wide(2 << 20)));
        assert_eq!(joined.error_code, 0);
        let sync = SyncGroupRequest {
            group_id: "g".into(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            ..Default::default()
        };
        assert_eq!(peer.call(&sync, 3).expect("an answer").error_code, UNKNOWN_SERVER_ERROR);
        let leave = LeaveGroupRequest { group_id: "g".into(), member_id: joined.member_id, ..Default::default() };
        assert_eq!(peer.call(&leave, 2).expect("an answer").error_code, 0);
        let joined = join_alone(&mut peer, &join("g", ""));
        assert_eq!(joined.error_code, 0);
        // Nor an assignment of that size, from a member that is small.
        let wide =
            SyncGroupRequestAssignment { member_id: joined.member_id.clone(), assignment: vec![0; 2 << 20].into() };
        let sync = SyncGroupRequest {
            group_id: "g".into(),
            generation_id: joined.generation_id,
            member_id: joined.member_id,
            assignments: vec![wide],
            ..Default::default()
        };
        assert_eq!(peer.call(&sync, 3).expect("an answer").error_code, UNKNOWN_SERVER_ERROR);
        let sync = SyncGroupRequest { assignments: Vec::new(), ..sync };
        assert_eq!(peer.call(&sync, 3).expect("an answer").error_code, 0);
    });
}

#[test]
fn numbers_at_their_ends_are_refused_or_served() {
    attack_with(&NO_DELAY, |victim| {
        let mut peer = connect(victim);
        for session_timeout_ms in [i32::MIN, -1, 0, 1, i32::MAX] {
            let join = JoinGroupRequest { session_timeout_ms, ..join("s", "") };
            assert_eq!(join_alone(&mut peer, &join).error_code, INVALID_SESSION_TIMEOUT, "{session_timeout_ms}");
        }
        for (number, rebalance_timeout_ms) in [i32::MIN, -1, 0, i32::MAX].into_iter().enumerate() {
            let join = JoinGroupRequest { rebalance_timeout_ms, ..join(&format!("r{number}"), "") };
            assert_eq!(join_alone(&mut peer, &join).error_code, 0, "{rebalance_timeout_ms}");
        }
        // Kafka takes any offset; a client that commits what can't be reads from where its reset policy says.
        for offset in [i64::MIN, -2, -1, i64::MAX] {
            assert_eq!(committed(&mut peer, &commit("o", 0, offset, "")), 0, "{offset}");
        }
        for partition in [i32::MIN, -1, 1, i32::MAX] {
            assert_eq!(committed(&mut peer, &commit("o", partition, 0, "")), UNKNOWN_TOPIC_OR_PARTITION);
        }
        for epoch in [i32::MIN, -3, -2, 1, i32::MAX] {
            let mut request = commit("o", 0, 1, "");
            request.topics[0].partitions[0].committed_leader_epoch = epoch;
            assert_eq!(committed(&mut peer, &request), 0);
            let heartbeat = HeartbeatRequest { group_id: "r0".into(), generation_id: epoch, ..Default::default() };
            assert_ne!(peer.call(&heartbeat, 4).expect("an answer").error_code, 0);
            let heartbeat = ConsumerGroupHeartbeatRequest {
                group_id: "c".into(),
                member_id: "m".into(),
                member_epoch: epoch,
                rebalance_timeout_ms: epoch,
                ..Default::default()
            };
            assert_ne!(peer.call(&heartbeat, 1).expect("an answer").error_code, 0, "{epoch}");
        }
    });
}

#[test]
fn patterns_that_explode_are_refused() {
    attack(|victim| {
        let mut peer = connect(victim);
        let mut ask = |pattern: &str| {
            let heartbeat = ConsumerGroupHeartbeatRequest {
                group_id: "g".into(),
                member_id: "m".into(),
                rebalance_timeout_ms: 1_000,
                subscribed_topic_regex: Some(pattern.into()),
                topic_partitions: Some(Vec::new()),
                ..Default::default()
            };
            peer.call(&heartbeat, 1).expect("an answer").error_code
        };
        let nested = format!("{}a{}", "(".repeat(10_000), ")".repeat(10_000));
        let stars = format!("{}a{}", "(".repeat(200), ")*".repeat(200));
        let wide: String = (0..4_000).map(|number| format!("a{number}|")).collect();
        for pattern in
            ["(a{1000}){1000}", "((((a{100}){100}){100}){100})", "(", "a)|(b", &nested, "\\", "[", "a{99999}"]
        {
            assert_eq!(ask(pattern), INVALID_REGULAR_EXPRESSION, "{:.40}", pattern);
        }
        for pattern in ["(a*)*b", "(a|a)*b", "(.*)(.*)(.*)(.*)(.*)x", &stars, &wide, &".*".repeat(10_000)] {
            assert!([0, INVALID_REGULAR_EXPRESSION].contains(&ask(pattern)), "{:.40}", pattern);
        }
        assert_eq!(ask("t.*"), 0);
    });
}

#[test]
fn lengths_that_lie_end_the_connection() {
    attack(|victim| {
        let group = [0, 1, b'g'];
        let lie = i32::MAX.to_be_bytes();
        let zero = [0; 4];
        let bodies: [(ApiKey, i16, Vec<u8>); 6] = [
            (ApiKey::JoinGroup, 0, [&group[..], &zero, &[0, 0], &[0, 1, b'c'], &lie].concat()),
            (ApiKey::SyncGroup, 0, [&group[..], &zero, &[0, 0], &lie].concat()),
            (ApiKey::LeaveGroup, 3, [&group[..], &lie].concat()),
            (ApiKey::DescribeGroups, 0, lie.to_vec()),
            (ApiKey::OffsetFetch, 1, [&group[..], &lie].concat()),
            // Not UTF-8.
            (ApiKey::Heartbeat, 0, [&[0, 2, 0xc3, 0x28][..], &zero, &[0, 0]].concat()),
        ];
        for (api, version, body) in bodies {
            assert!(victim.connect().hangs_up_on(&request(api as i16, version, false, &body)), "{api:?}");
        }
    });
}

/// Sends the same again and again and reads the answers meanwhile.
fn storm(peer: &mut Peer, bytes: &[u8], times: usize) {
    const AT_ONCE: usize = 100;
    for _ in 0..times / AT_ONCE {
        assert!(peer.send(&bytes.repeat(AT_ONCE)));
        (0..AT_ONCE).for_each(|_| drop(peer.answer().expect("an answer")));
    }
}

#[test]
fn ids_that_nobody_comes_back_with_are_bounded_by_their_session() {
    attack(|victim| {
        let mut peer = connect(victim);
        assert_eq!(peer.call(&join("g", ""), 9).expect("an answer").error_code, MEMBER_ID_REQUIRED);
        storm(&mut peer, &frame(&join("g", ""), 9), 100_000);
    });
}

#[test]
fn a_storm_of_heartbeats_is_weathered() {
    attack_with(&NO_DELAY, |victim| {
        let mut peer = connect(victim);
        let JoinGroupResponse { generation_id, member_id, .. } = join_alone(&mut peer, &join("g", ""));
        let heartbeat = HeartbeatRequest { group_id: "g".into(), generation_id, member_id, ..Default::default() };
        storm(&mut peer, &frame(&heartbeat, 4), 100_000);
    });
}

#[test]
fn members_that_wait_on_thousands_of_connections_are_cheap() {
    attack_with(&["-o", "group.initial.rebalance.delay.ms=60000"], |victim| {
        drop(connect(victim));
        let bytes = frame(&join("g", ""), 3);
        let peers: Vec<_> = (0..3_000)
            .map(|_| {
                let mut peer = victim.connect();
                assert!(peer.send(&bytes));
                peer
            })
            .collect();
        let describe = DescribeGroupsRequest { groups: vec!["g".into()], ..Default::default() };
        let mut witness = victim.connect();
        let deadline = Instant::now() + Duration::from_secs(60);
        while witness.call(&describe, 5).expect("an answer").groups[0].members.len() < peers.len() {
            assert!(Instant::now() < deadline, "some were not let in");
        }
    });
}

#[test]
fn members_that_join_and_hang_up_are_cheap() {
    attack(|victim| {
        drop(connect(victim));
        let bytes = frame(&join("g", ""), 3);
        for _ in 0..5_000 {
            assert!(victim.connect().send(&bytes));
        }
    });
}
