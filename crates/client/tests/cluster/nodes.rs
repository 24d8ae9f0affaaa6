//! Looking after nodes: the controller is found, answers are read, refusals are told apart.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use ottla_client::{Client, Election, Error, LEVEL, TopicPartition};
use ottla_protocol::{
    ApiKey, ErrorCode,
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, DecommissionRequest,
        DecommissionResponse, DescribeNodesResponse, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
        ElectLeadersRequest, ElectLeadersResponse, ListPartitionReassignmentsResponse, RebalanceRequest,
        RebalanceResponse, UnregisterBrokerRequest, UnregisterBrokerResponse, UpdateFeaturesRequest,
        UpdateFeaturesResponse,
        alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse},
        describe_nodes_response::{Listener, Node},
        describe_topic_partitions_response::{
            Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
        },
        elect_leaders_response::{PartitionResult, ReplicaElectionResult},
        list_partition_reassignments_response::{OngoingPartitionReassignment, OngoingTopicReassignment},
        rebalance_response::Move,
    },
};
use ottla_types::{BrokerId, PartitionIndex};

use crate::scripted::{Answer, Asked, Broker, Told, place};

fn connect(broker: &SocketAddr, test: impl AsyncFnOnce(Client)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&[broker.to_string()], "test").await.unwrap();
        test(client).await;
    });
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("t", PartitionIndex(partition))
}

/// A cluster of one broker, number 1, that says what `script` says of everything but Metadata.
fn one(apis: &'static [ApiKey], script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (SocketAddr, Broker) {
    let place = place();
    let address = place.address;
    let told = Told { brokers: vec![(1, address)], controller: 1, leader: 1, leader_epoch: 0 };
    let broker = Broker::serve(place, apis, move |asked| match asked.api() {
        ApiKey::Metadata => asked.with(&told.metadata()),
        _ => script(asked),
    });
    (address, broker)
}

#[test]
fn nodes_are_described_by_whoever_is_controller_now() {
    let (first, second) = (place(), place());
    let address = first.address;
    let brokers = vec![(1, first.address), (2, second.address)];
    let asked_once = AtomicBool::new(false);
    let first = Broker::serve(first, ApiKey::ALL, move |asked| match asked.api() {
        ApiKey::Metadata => {
            let controller = if asked_once.load(Ordering::Relaxed) { 2 } else { 1 };
            asked.with(&Told { brokers: brokers.clone(), controller, leader: 1, leader_epoch: 0 }.metadata())
        }
        _ => {
            asked_once.store(true, Ordering::Relaxed);
            let error_code = ErrorCode::NotController.code();
            asked.with(&DescribeNodesResponse { error_code, ..Default::default() })
        }
    });
    let second = Broker::serve(second, ApiKey::ALL, |asked| {
        let listener = Listener { name: "CLIENTS".into(), host: "h".into(), port: 65_535, ..Default::default() };
        let node = Node {
            node_id: 2,
            directory: [9; 16],
            rack: Some("r".into()),
            fenced: true,
            voter: true,
            leader_of_log: true,
            listeners: vec![listener],
            replicas: 3,
            disk_free: 5,
            version: "1.2".into(),
            min_level: 1,
            max_level: 3,
            ..Default::default()
        };
        asked.with(&DescribeNodesResponse {
            cluster_id: "c".into(),
            controller_id: 2,
            level: 2,
            nodes: vec![node, Node { node_id: 1, ..Default::default() }],
            under_replicated: 4,
            single_copy_topics: vec!["b".into(), "a".into()],
            ..Default::default()
        })
    });
    connect(&address, async |client| {
        let nodes = client.describe_nodes().await.unwrap();
        assert_eq!((nodes.cluster_id.as_str(), nodes.controller, nodes.under_replicated), ("c", Some(BrokerId(2)), 4));
        assert_eq!(nodes.single_copy_topics, ["a", "b"]);
        assert_eq!(nodes.nodes.iter().map(|node| node.id.0).collect::<Vec<_>>(), [1, 2]);
        let node = &nodes.nodes[1];
        assert_eq!((node.directory.as_bytes(), node.rack.as_deref()), (&[9; 16], Some("r")));
        assert_eq!((node.fenced, node.voter, node.controller, node.draining), (true, true, true, false));
        assert_eq!((nodes.level, node.levels, nodes.nodes[0].levels), (Some(2), Some((1, 3)), None));
        assert_eq!((node.disk_free, node.disk_total, node.version.as_str()), (Some(5), None, "1.2"));
        assert_eq!((node.listeners[0].name.as_str(), node.listeners[0].port), ("CLIENTS", 65_535));
    });
    // The first was asked as the controller it had been, and of itself; the second told of itself as controller.
    assert_eq!((first.seen(ApiKey::DescribeNodes), second.seen(ApiKey::DescribeNodes)), (2, 1));
}

#[test]
fn a_feature_is_raised_or_the_reason_is_told() {
    let (address, _broker) = one(ApiKey::ALL, |asked| {
        let UpdateFeaturesRequest { feature_updates, validate_only, .. } = asked.body();
        let [update] = &feature_updates[..] else { panic!("{feature_updates:?}") };
        assert_eq!((&*update.feature, update.upgrade_type, validate_only), (LEVEL, 1, true));
        let refused = UpdateFeaturesResponse {
            error_code: ErrorCode::InvalidUpdateVersion.code(),
            error_message: Some("broker 2 is old".into()),
            ..Default::default()
        };
        asked.with(&if update.max_version_level == 2 { UpdateFeaturesResponse::default() } else { refused })
    });
    connect(&address, async |client| {
        client.raise_feature(LEVEL, 2, true).await.unwrap();
        let error = client.raise_feature(LEVEL, 3, true).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::InvalidUpdateVersion));
        assert!(error.to_string().contains("broker 2 is old"), "{error}");
    });
}

#[test]
fn nodes_are_emptied_evened_out_and_taken_out() {
    let (address, _broker) = one(ApiKey::ALL, |asked| match asked.api() {
        ApiKey::Decommission => {
            let DecommissionRequest { node_id, cancel } = asked.body();
            match node_id {
                3 => asked.with(&DecommissionResponse { remaining: if cancel { 0 } else { 12 }, ..Default::default() }),
                _ => asked.with(&DecommissionResponse {
                    error_code: ErrorCode::BrokerIdNotRegistered.code(),
                    error_message: Some("node 9 is none of ours".into()),
                    ..Default::default()
                }),
            }
        }
        ApiKey::Rebalance => {
            let RebalanceRequest { dry_run } = asked.body();
            let to = if dry_run { vec![2] } else { vec![2, 3] };
            let moves = vec![Move { topic: "t".into(), partition: 1, from: vec![1], to }];
            asked.with(&RebalanceResponse { moves, ..Default::default() })
        }
        ApiKey::UnregisterBroker => {
            let UnregisterBrokerRequest { broker_id } = asked.body();
            assert_eq!(broker_id, 3);
            asked.with(&UnregisterBrokerResponse::default())
        }
        other => panic!("{other:?}"),
    });
    connect(&address, async |client| {
        assert_eq!(client.decommission(BrokerId(3), false).await.unwrap(), 12);
        assert_eq!(client.decommission(BrokerId(3), true).await.unwrap(), 0);
        let refused = client.decommission(BrokerId(9), false).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::BrokerIdNotRegistered));
        assert!(refused.to_string().contains("node 9 is none of ours"), "{refused}");
        let moves = client.rebalance(true).await.unwrap();
        assert_eq!(
            (&moves[0].at, &moves[0].from[..], &moves[0].to[..]),
            (&at(1), &[BrokerId(1)][..], &[BrokerId(2)][..])
        );
        assert_eq!(client.rebalance(false).await.unwrap()[0].to.len(), 2);
        client.unregister_broker(BrokerId(3)).await.unwrap();
    });
}

#[test]
fn eligible_leaders_come_in_pages() {
    let (address, broker) = one(ApiKey::ALL, |asked| {
        let request: DescribeTopicPartitionsRequest = asked.body();
        let page = request.cursor.map_or(0, |cursor| cursor.partition_index);
        let row = |index: i32| DescribeTopicPartitionsResponsePartition {
            partition_index: index,
            eligible_leader_replicas: if index == 0 { None } else { Some(vec![index]) },
            ..Default::default()
        };
        let topic = DescribeTopicPartitionsResponseTopic {
            name: Some("t".into()),
            partitions: vec![row(page), row(page + 1)],
            ..Default::default()
        };
        // The second page says that it goes on where it began, which ends it.
        let next_cursor = Some(Cursor { topic_name: "t".into(), partition_index: 2 });
        asked.with(&DescribeTopicPartitionsResponse { topics: vec![topic], next_cursor, ..Default::default() })
    });
    connect(&address, async |client| {
        let eligible = client.eligible_leaders("t").await.unwrap();
        let expected =
            (0..4).map(|index| (PartitionIndex(index), if index == 0 { Vec::new() } else { vec![BrokerId(index)] }));
        assert_eq!(eligible, expected.collect());
    });
    assert_eq!(broker.seen(ApiKey::DescribeTopicPartitions), 2);
}

#[test]
fn a_broker_without_these_requests_is_told_apart() {
    const KAFKAS: &[ApiKey] = &[ApiKey::ApiVersions, ApiKey::Metadata];
    let (address, _broker) = one(KAFKAS, |asked| panic!("{:?}", asked.api()));
    connect(&address, async |client| {
        let refused = client.describe_nodes().await.unwrap_err();
        assert!(matches!(refused, Error::Unsupported { api: ApiKey::DescribeNodes, .. }), "{refused}");
    });
}

#[test]
fn elections_and_moves_tell_what_became_of_each_partition() {
    let (address, _broker) = one(ApiKey::ALL, |asked| match asked.api() {
        ApiKey::ElectLeaders => {
            let request: ElectLeadersRequest = asked.body();
            assert_eq!(request.election_type, 1);
            let topics = request.topic_partitions.unwrap();
            let rows = topics[0].partitions.iter().map(|partition| PartitionResult {
                partition_id: *partition,
                error_code: if *partition == 0 { 0 } else { ErrorCode::ElectionNotNeeded.code() },
                error_message: None,
            });
            let topic = ReplicaElectionResult { topic: topics[0].topic.clone(), partition_result: rows.collect() };
            asked.with(&ElectLeadersResponse { replica_election_results: vec![topic], ..Default::default() })
        }
        ApiKey::AlterPartitionReassignments => {
            let request: AlterPartitionReassignmentsRequest = asked.body();
            assert!(request.allow_replication_factor_change);
            let rows = request.topics[0].partitions.iter().map(|row| ReassignablePartitionResponse {
                partition_index: row.partition_index,
                error_code: match &row.replicas {
                    Some(replicas) if replicas == &[2, 3] => 0,
                    Some(_) => ErrorCode::InvalidReplicaAssignment.code(),
                    None => ErrorCode::NoReassignmentInProgress.code(),
                },
                error_message: None,
            });
            let topic = ReassignableTopicResponse { name: "t".into(), partitions: rows.collect() };
            asked.with(&AlterPartitionReassignmentsResponse { responses: vec![topic], ..Default::default() })
        }
        ApiKey::ListPartitionReassignments => {
            let row = OngoingPartitionReassignment {
                partition_index: 1,
                replicas: vec![1, 2, 3],
                adding_replicas: vec![2, 3],
                removing_replicas: vec![1],
            };
            let topic = OngoingTopicReassignment { name: "t".into(), partitions: vec![row] };
            asked.with(&ListPartitionReassignmentsResponse { topics: vec![topic], ..Default::default() })
        }
        other => panic!("{other:?}"),
    });
    connect(&address, async |client| {
        let codes = |results: Vec<(TopicPartition, Result<(), Error>)>| {
            let code = |(at, result): (TopicPartition, Result<(), Error>)| {
                (at.partition.0, result.err().and_then(|error| error.code()))
            };
            results.into_iter().map(code).collect::<Vec<_>>()
        };
        let elected = client.elect_leaders(Election::Unclean, Some(&[at(3), at(0)])).await.unwrap();
        assert_eq!(codes(elected), [(0, None), (3, Some(ErrorCode::ElectionNotNeeded))]);
        let to = |ids: &[i32]| Some(ids.iter().copied().map(BrokerId).collect());
        let changes = [(at(2), None), (at(1), to(&[2, 3])), (at(0), to(&[7]))];
        let expected =
            [(0, Some(ErrorCode::InvalidReplicaAssignment)), (1, None), (2, Some(ErrorCode::NoReassignmentInProgress))];
        assert_eq!(codes(client.reassign(&changes).await.unwrap()), expected);
        let moving = client.reassignments().await.unwrap();
        assert_eq!((&moving[0].at, moving[0].replicas.len()), (&at(1), 3));
        assert_eq!(
            (&moving[0].adding[..], &moving[0].removing[..]),
            (&[BrokerId(2), BrokerId(3)][..], &[BrokerId(1)][..])
        );
    });
}
