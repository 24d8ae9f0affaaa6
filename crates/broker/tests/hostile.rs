//! Requests that no honest client sends: each API in each version, with bytes changed, cut off or made up. Whatever
//! becomes of the connection, no handler panics and others are served (line 84 of the client behaviours).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use common::{TestBroker, batch, fetch_request, produce_request, raw_header};
use ottla_protocol::{
    ApiKey, Chunk, GatherOut, Request, RequestHeader,
    messages::{
        AllocateProducerIdsRequest, AlterConfigsRequest, AlterPartitionReassignmentsRequest, AlterPartitionRequest,
        ApiVersionsRequest, BrokerHeartbeatRequest, BrokerRegistrationRequest, ConsumerGroupDescribeRequest,
        ConsumerGroupHeartbeatRequest, CreateAclsRequest, CreatePartitionsRequest, CreateTopicsRequest,
        DecommissionRequest, DeleteAclsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        DescribeAclsRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest,
        DescribeLogDirsRequest, DescribeNodesRequest, DescribeProducersRequest, DescribeQuorumRequest,
        DescribeTopicPartitionsRequest, ElectLeadersRequest, EnvelopeRequest, FindCoordinatorRequest, HeartbeatRequest,
        IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest,
        ListConfigResourcesRequest, ListGroupsRequest, ListOffsetsRequest, ListPartitionReassignmentsRequest,
        MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest,
        RaftRequest, RebalanceRequest, ReportDamageRequest, SyncGroupRequest, UnregisterBrokerRequest,
        UpdateFeaturesRequest, alter_configs_request,
        alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
        alter_partition_request, create_partitions_request,
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        delete_topics_request::DeleteTopicState,
        describe_configs_request::DescribeConfigsResource,
        describe_log_dirs_request::DescribableLogDirTopic,
        describe_producers_request, describe_quorum_request, describe_topic_partitions_request, elect_leaders_request,
        incremental_alter_configs_request,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        list_partition_reassignments_request::ListPartitionReassignmentsTopics,
        metadata_request::MetadataRequestTopic,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
        report_damage_request,
        sync_group_request::SyncGroupRequestAssignment,
        update_features_request::FeatureUpdateKey,
    },
};
use ottla_types::TopicId;

/// Changed copies of each sample in each version.
const CHANGES: usize = 25;

/// Numbers that look random and are the same in every run (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 32).unwrap() % below
    }

    fn byte(&mut self) -> u8 {
        const TELLING: [u8; 6] = [0x00, 0xff, 0x7f, 0x80, 0x01, 0xfe];
        match self.next(2) {
            0 => TELLING[self.next(TELLING.len())],
            _ => u8::try_from(self.next(256)).unwrap(),
        }
    }

    /// Changes a few bytes, and now and then cuts the end off or adds to it.
    fn change(&mut self, frame: &mut Vec<u8>, from: usize) {
        for _ in 0..=self.next(4) {
            if frame.len() > from {
                let place = from + self.next(frame.len() - from);
                frame[place] = self.byte();
            }
        }
        match self.next(6) {
            0 => frame.truncate(from + self.next(frame.len() - from + 1)),
            1 => frame.extend((0..self.next(20)).map(|_| self.0.to_le_bytes()[0])),
            _ => {}
        }
    }
}

/// A request of each version that can carry it, and where its body begins.
fn frames<R: Request>(sample: &R) -> Vec<(i16, Vec<u8>)> {
    let frame = |version| {
        let header = RequestHeader { api_key: R::API, api_version: version, correlation_id: 1, client_id: None };
        let mut out = GatherOut::new();
        out.request(&header, sample).ok()?;
        let chunks = out.finish().into_iter().map(|chunk| match chunk {
            Chunk::Bytes(bytes) => bytes,
            Chunk::Region(region) => panic!("no {region:?} in a request"),
        });
        Some((version, chunks.collect::<Vec<_>>().concat().split_off(4)))
    };
    let frames: Vec<_> = R::API.versions().filter_map(frame).collect();
    assert!(!frames.is_empty(), "{:?}", R::API);
    frames
}

fn samples() -> Vec<(i16, Vec<u8>)> {
    let alterable = |name: &str| (name.into(), Some("1000".into()));
    let (name, value) = alterable("retention.ms");
    let altered = alter_configs_request::AlterConfigsResource {
        resource_type: 2,
        resource_name: "t".into(),
        configs: vec![alter_configs_request::AlterableConfig { name, value }],
    };
    let (name, value) = alterable("retention.ms");
    let incremental = incremental_alter_configs_request::AlterConfigsResource {
        resource_type: 2,
        resource_name: "t".into(),
        configs: vec![incremental_alter_configs_request::AlterableConfig { name, config_operation: 0, value }],
    };
    let assignment = CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![1] };
    let creatable = CreatableTopic {
        name: "u".into(),
        num_partitions: 1,
        replication_factor: 1,
        assignments: vec![assignment],
        configs: vec![CreatableTopicConfig { name: "retention.ms".into(), value: Some("1".into()) }],
    };
    let partitions = create_partitions_request::CreatePartitionsTopic {
        name: "t".into(),
        count: 3,
        assignments: Some(vec![create_partitions_request::CreatePartitionsAssignment { broker_ids: vec![1] }]),
    };
    let offsets = ListOffsetsPartition { timestamp: 1000, ..Default::default() };
    let named = |name: &str| MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    let mut all = Vec::new();
    all.extend(frames(&produce_request(1, "t", 0, batch(&["a", "b"]))));
    all.extend(frames(&fetch_request("t", 0, 0)));
    all.extend(frames(&ListOffsetsRequest {
        topics: vec![ListOffsetsTopic { name: "t".into(), partitions: vec![offsets] }],
        ..Default::default()
    }));
    all.extend(frames(&MetadataRequest { topics: Some(vec![named("t"), named("v")]), ..Default::default() }));
    all.extend(frames(&ApiVersionsRequest {
        client_software_name: "test".into(),
        client_software_version: "1".into(),
    }));
    all.extend(frames(&CreateTopicsRequest { topics: vec![creatable], validate_only: true, ..Default::default() }));
    all.extend(frames(&DeleteTopicsRequest { topic_names: vec!["gone".into()], ..Default::default() }));
    all.extend(frames(&DeleteTopicsRequest {
        topics: vec![DeleteTopicState { name: Some("gone".into()), ..Default::default() }],
        ..Default::default()
    }));
    all.extend(frames(&DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: "t".into(),
            partitions: vec![DeleteRecordsPartition { partition_index: 0, offset: 0 }],
        }],
        timeout_ms: 1,
    }));
    all.extend(frames(&InitProducerIdRequest { transactional_id: None, ..Default::default() }));
    all.extend(frames(&OffsetForLeaderEpochRequest {
        topics: vec![OffsetForLeaderTopic { topic: "t".into(), partitions: vec![OffsetForLeaderPartition::default()] }],
        ..Default::default()
    }));
    all.extend(frames(&DescribeAclsRequest::default()));
    all.extend(frames(&CreateAclsRequest { creations: vec![Default::default()] }));
    all.extend(frames(&DeleteAclsRequest { filters: vec![Default::default()] }));
    all.extend(frames(&DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 2,
            resource_name: "t".into(),
            configuration_keys: Some(vec!["retention.ms".into()]),
        }],
        ..Default::default()
    }));
    all.extend(frames(&AlterConfigsRequest { resources: vec![altered], validate_only: true }));
    all.extend(frames(&DescribeLogDirsRequest {
        topics: Some(vec![DescribableLogDirTopic { topic: "t".into(), partitions: vec![0] }]),
    }));
    all.extend(frames(&CreatePartitionsRequest {
        topics: vec![partitions],
        validate_only: true,
        ..Default::default()
    }));
    all.extend(frames(&IncrementalAlterConfigsRequest { resources: vec![incremental], validate_only: true }));
    all.extend(frames(&ListPartitionReassignmentsRequest {
        topics: Some(vec![ListPartitionReassignmentsTopics { name: "t".into(), partition_indexes: vec![0] }]),
        ..Default::default()
    }));
    all.extend(frames(&DescribeClusterRequest::default()));
    all.extend(frames(&DescribeProducersRequest {
        topics: vec![describe_producers_request::TopicRequest { name: "t".into(), partition_indexes: vec![0] }],
    }));
    all.extend(frames(&DescribeTopicPartitionsRequest {
        topics: vec![describe_topic_partitions_request::TopicRequest { name: "t".into() }],
        cursor: Some(describe_topic_partitions_request::Cursor { topic_name: "t".into(), partition_index: 0 }),
        ..Default::default()
    }));
    all.extend(frames(&ListConfigResourcesRequest::default()));
    all.extend(group_samples());
    all
}

/// The requests of groups, each as somebody unknown to the group would ask: all are answered at once.
fn group_samples() -> Vec<(i16, Vec<u8>)> {
    let mut all = frames(&FindCoordinatorRequest { key: "g".into(), ..Default::default() });
    all.extend(frames(&FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() }));
    let partitions = vec![OffsetCommitRequestPartition { committed_metadata: Some("m".into()), ..Default::default() }];
    let topics = vec![OffsetCommitRequestTopic { name: "nowhere".into(), partitions, ..Default::default() }];
    all.extend(frames(&OffsetCommitRequest { group_id: "g".into(), topics, ..Default::default() }));
    let topics = vec![OffsetFetchRequestTopic { name: "t".into(), partition_indexes: vec![0] }];
    all.extend(frames(&OffsetFetchRequest { group_id: "g".into(), topics: Some(topics), ..Default::default() }));
    let topics = vec![OffsetFetchRequestTopics { name: "t".into(), partition_indexes: vec![0], ..Default::default() }];
    let group = OffsetFetchRequestGroup { group_id: "g".into(), topics: Some(topics), ..Default::default() };
    all.extend(frames(&OffsetFetchRequest { groups: vec![group], ..Default::default() }));
    all.extend(frames(&JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        member_id: "m".into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: vec![0; 8].into() }],
        ..Default::default()
    }));
    all.extend(frames(&SyncGroupRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        assignments: vec![SyncGroupRequestAssignment { member_id: "m".into(), assignment: vec![0; 8].into() }],
        ..Default::default()
    }));
    all.extend(frames(&HeartbeatRequest { group_id: "g".into(), member_id: "m".into(), ..Default::default() }));
    all.extend(frames(&LeaveGroupRequest { group_id: "g".into(), member_id: "m".into(), ..Default::default() }));
    let members = vec![MemberIdentity { member_id: "m".into(), ..Default::default() }];
    all.extend(frames(&LeaveGroupRequest { group_id: "g".into(), members, ..Default::default() }));
    all.extend(frames(&DescribeGroupsRequest { groups: vec!["g".into()], ..Default::default() }));
    all.extend(frames(&ListGroupsRequest::default()));
    all.extend(frames(&DeleteGroupsRequest { groups_names: vec!["g".into()] }));
    let partitions = vec![OffsetDeleteRequestPartition { partition_index: 0 }];
    let topics = vec![OffsetDeleteRequestTopic { name: "t".into(), partitions }];
    all.extend(frames(&OffsetDeleteRequest { group_id: "g".into(), topics }));
    all.extend(frames(&ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        member_epoch: 5,
        subscribed_topic_names: Some(vec!["t".into()]),
        ..Default::default()
    }));
    all.extend(frames(&ConsumerGroupDescribeRequest { group_ids: vec!["g".into()], ..Default::default() }));
    all.extend(among_brokers());
    all
}

/// What brokers and operators of a cluster say.
fn among_brokers() -> Vec<(i16, Vec<u8>)> {
    let mut all = Vec::new();
    let topic_partitions =
        Some(vec![elect_leaders_request::TopicPartitions { topic: "t".into(), partitions: vec![0] }]);
    all.extend(frames(&ElectLeadersRequest { topic_partitions, ..Default::default() }));
    let partitions = vec![ReassignablePartition { partition_index: 0, replicas: Some(vec![1, 99]) }];
    let topics = vec![ReassignableTopic { name: "t".into(), partitions }];
    all.extend(frames(&AlterPartitionReassignmentsRequest { topics, ..Default::default() }));
    let partitions = vec![describe_quorum_request::PartitionData { partition_index: 0 }];
    let topics = vec![describe_quorum_request::TopicData { topic_name: "__cluster_metadata".into(), partitions }];
    all.extend(frames(&DescribeQuorumRequest { topics }));
    all.extend(frames(&UnregisterBrokerRequest { broker_id: 99 }));
    // Nobody knows it.
    let feature_updates = vec![FeatureUpdateKey { feature: "f".into(), max_version_level: 1, ..Default::default() }];
    all.extend(frames(&UpdateFeaturesRequest { feature_updates, ..Default::default() }));
    let partitions = vec![alter_partition_request::PartitionData { partition_index: 0, ..Default::default() }];
    let topics = vec![alter_partition_request::TopicData { topic_id: TopicId::from_bytes([7; 16]), partitions }];
    all.extend(frames(&AlterPartitionRequest { broker_id: 1, broker_epoch: 0x0777_7777_7777, topics }));
    all.extend(frames(&BrokerHeartbeatRequest { broker_id: 1, broker_epoch: 0x0777_7777_7777, ..Default::default() }));
    all.extend(frames(&AllocateProducerIdsRequest { broker_id: 1, broker_epoch: 0x0777_7777_7777 }));
    // Of another cluster, so that it is no new broker.
    all.extend(frames(&BrokerRegistrationRequest {
        broker_id: 99,
        cluster_id: "elsewhere".into(),
        log_dirs: Vec::new(),
        previous_broker_epoch: -1,
        ..Default::default()
    }));
    all.extend(frames(&EnvelopeRequest {
        request_data: raw_header(ApiKey::CreateTopics as i16, 7, 1).into(),
        request_principal: None,
        client_host_address: vec![127, 0, 0, 1].into(),
    }));
    all.extend(frames(&RaftRequest { body: vec![0; 40].into() }));
    all.extend(frames(&DescribeNodesRequest::default()));
    all.extend(frames(&DecommissionRequest { node_id: 99, cancel: true }));
    all.extend(frames(&RebalanceRequest { dry_run: true }));
    let topics = vec![report_damage_request::Topic {
        topic_id: TopicId::from_bytes([7; 16]),
        partitions: vec![0],
        partition_epochs: vec![],
    }];
    all.extend(frames(&ReportDamageRequest { broker_id: 1, broker_epoch: 0x0777_7777_7777, topics }));
    all
}

/// Sends one frame and reads whatever comes until the broker, which is told that nothing follows, closes. Returns how
/// many bytes came.
fn send(broker: &TestBroker, frame: &[u8]) -> usize {
    let mut stream = TcpStream::connect(broker.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&i32::try_from(frame.len()).unwrap().to_be_bytes()).unwrap();
    // The broker may close before it has read everything.
    let _ = stream.write_all(frame).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut sink = [0; 64 << 10];
    let mut answered = 0;
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return answered,
            Ok(read) => answered += read,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return answered,
            Err(error) => panic!("neither an answer nor an end: {error}"),
        }
    }
}

#[test]
fn client_rule_84_no_request_makes_a_handler_panic() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        report(info);
    }));
    let broker = TestBroker::start();
    let mut bystander = broker.connect();
    bystander.create_topic("t", 1, &[]);
    bystander.write("t", 0, &["a", "b"]);
    let samples = samples();
    let served: Vec<i16> = samples.iter().map(|(_, frame)| i16::from_be_bytes([frame[0], frame[1]])).collect();
    let ottla = ApiVersionsRequest { client_software_name: "ottla".into(), client_software_version: "1".into() };
    for row in bystander.call(3, &ottla).api_keys {
        assert!(served.contains(&row.api_key), "API {} has no sample", row.api_key);
    }
    let mut noise = Noise(0x0dd_ba11);
    for (version, sample) in samples {
        let body = raw_header(0, 0, 0).len();
        // What another thread answers may come after the broker has seen that nobody waits.
        let others = [ApiKey::Raft as i16, ApiKey::InitProducerId as i16];
        let later = others.iter().any(|key| sample.starts_with(&key.to_be_bytes()));
        assert!(send(&broker, &sample) > 0 || later, "version {version} unchanged: {sample:02x?}");
        for _ in 0..CHANGES {
            let mut frame = sample.clone();
            noise.change(&mut frame, body);
            send(&broker, &frame);
            let key = i16::from_be_bytes([frame[0], frame[1]]);
            let key = ApiKey::try_from(key).map(ApiKey::name);
            assert_eq!(PANICS.load(Ordering::Relaxed), 0, "{key:?} version {version}: {frame:02x?}");
        }
    }
    for _ in 0..500 {
        let frame: Vec<u8> = (0..noise.next(64)).map(|_| noise.byte()).collect();
        send(&broker, &frame);
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "{frame:02x?}");
    }
    bystander.create_topic("after", 1, &[]);
    bystander.write("after", 0, &["c"]);
    assert_eq!(bystander.read("after", 0, 0), ["c"]);
}
