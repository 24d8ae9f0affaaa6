//! DescribeQuorum (key 55): who votes on the metadata log, who hears it, and how far each is (KIP-836, KIP-853 for
//! directories and nodes).
//!
//! Ottla's metadata log is no partition that could be fetched; it answers to the name of Kafka's. Only the controller
//! knows how far the others are.

use ottla_metadata::Image;
use ottla_protocol::{
    ErrorCode,
    messages::{
        DescribeQuorumRequest, DescribeQuorumResponse,
        describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData},
    },
};
use ottla_types::BrokerId;

use super::Context;

const METADATA_TOPIC: &str = "__cluster_metadata";
/// First version that tells where the nodes are (KIP-853).
const NODES_VERSION: i16 = 2;

pub(super) fn handle(context: &Context<'_>, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let node = &context.broker.node;
    let image = node.image();
    let topics = request.topics.into_iter().map(|topic| {
        let known = *topic.topic_name == *METADATA_TOPIC;
        let partitions = topic.partitions.into_iter().map(|partition| {
            if known && partition.partition_index == 0 {
                return quorum(context, &image);
            }
            PartitionData {
                partition_index: partition.partition_index,
                error_code: ErrorCode::UnknownTopicOrPartition.code(),
                error_message: None,
                leader_id: -1,
                leader_epoch: -1,
                high_watermark: -1,
                ..Default::default()
            }
        });
        TopicData { topic_name: topic.topic_name, partitions: partitions.collect() }
    });
    // Earlier versions have no place for them.
    let known = image.brokers().filter(|_| context.version() >= NODES_VERSION);
    let nodes = known.map(|broker| Node {
        node_id: broker.id.0,
        listeners: broker
            .listeners
            .iter()
            .map(|listener| Listener {
                name: listener.name.as_str().into(),
                host: listener.host.as_str().into(),
                port: listener.port,
            })
            .collect(),
    });
    DescribeQuorumResponse {
        error_message: None,
        topics: topics.collect(),
        nodes: nodes.collect(),
        ..Default::default()
    }
}

fn quorum(context: &Context<'_>, image: &Image) -> PartitionData {
    let node = &context.broker.node;
    let log = node.log_status();
    if !node.is_controller() {
        return PartitionData {
            error_code: ErrorCode::NotLeaderOrFollower.code(),
            error_message: None,
            leader_id: log.leader.map_or(-1, |leader| leader.0),
            leader_epoch: log.term.0,
            high_watermark: -1,
            ..Default::default()
        };
    }
    let offset = |index: u64| i64::try_from(index).unwrap_or(i64::MAX);
    let directory = |id| match image.broker(id) {
        Some(broker) if context.version() >= NODES_VERSION => broker.directory,
        _ => [0; 16],
    };
    let state = |id: &BrokerId| {
        let known = log.progress.iter().find(|member| member.id == *id).map_or(0, |member| member.last);
        ReplicaState {
            replica_id: id.0,
            replica_directory_id: directory(*id),
            log_end_offset: offset(if *id == node.id() { log.last } else { known }),
            ..Default::default()
        }
    };
    PartitionData {
        error_message: None,
        leader_id: node.id().0,
        leader_epoch: log.term.0,
        high_watermark: offset(log.committed),
        current_voters: log.voters.iter().map(state).collect(),
        observers: log.observers.iter().map(state).collect(),
        ..Default::default()
    }
}
