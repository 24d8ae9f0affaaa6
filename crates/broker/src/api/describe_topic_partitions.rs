//! DescribeTopicPartitions (key 75): topics and their partitions, sorted by name, a page at a time (KIP-966).
//!
//! Java's `describeTopics` asks this first. A page ends after so many partitions; the cursor says where the next one
//! begins.

use std::collections::BTreeSet;

use ottla_metadata::{Image, Topic, is_internal_topic, validate_topic_name};
use ottla_protocol::{
    ErrorCode,
    messages::{
        DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
        describe_topic_partitions_response::{
            Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
        },
    },
};
use ottla_types::BrokerId;

use super::{Context, metadata::TOPIC_OPERATIONS};

pub(super) fn handle(
    context: &Context<'_>,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let node = &context.broker.node;
    let image = node.image();
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0);
    let mut room = limit.min(node.broker_config().max_request_partitions as usize).max(1);
    let (first, start) = match &request.cursor {
        Some(cursor) => (&*cursor.topic_name, cursor.partition_index),
        None => ("", 0),
    };
    let all = request.topics.is_empty();
    let names: BTreeSet<&str> = if all {
        image.topics().map(|topic| &*topic.name).filter(|&name| name >= first).collect()
    } else {
        request.topics.iter().map(|topic| &*topic.name).filter(|&name| name >= first).collect()
    };
    let Ok(start) = usize::try_from(start) else { return refused(&request) };
    if request.cursor.is_some() && !all && !names.contains(first) {
        return refused(&request);
    }
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names {
        if room == 0 {
            response.next_cursor = Some(Cursor { topic_name: name.into(), partition_index: 0 });
            break;
        }
        let Some(topic) = image.topic_named(name) else {
            let known = validate_topic_name(name).is_ok();
            let code = if known { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopicException };
            response.topics.push(absent(name, code));
            continue;
        };
        let start = if name == first { start } else { 0 };
        let described = described(&image, topic, start, room);
        let end = start.saturating_add(described.partitions.len());
        room -= described.partitions.len();
        response.topics.push(described);
        if end < topic.partitions.len() {
            let partition_index = i32::try_from(end).unwrap_or(i32::MAX);
            response.next_cursor = Some(Cursor { topic_name: name.into(), partition_index });
            break;
        }
    }
    response
}

/// A cursor that points nowhere: at a topic that is not asked for, or before the first partition.
fn refused(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter().map(|topic| absent(&topic.name, ErrorCode::InvalidRequest));
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() }
}

fn absent(name: &str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: code.code(),
        name: Some(name.into()),
        is_internal: is_internal_topic(name),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Default::default()
    }
}

/// The topic with at most `room` partitions from `start` on.
fn described(image: &Image, topic: &Topic, start: usize, room: usize) -> DescribeTopicPartitionsResponseTopic {
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.0).collect();
    let partitions = (0..).zip(&topic.partitions).skip(start).take(room).map(|(index, partition)| {
        DescribeTopicPartitionsResponsePartition {
            partition_index: index,
            leader_id: partition.leader.map_or(-1, |leader| leader.0),
            leader_epoch: partition.leader_epoch.0,
            replica_nodes: ids(&partition.replicas),
            isr_nodes: ids(&partition.isr),
            error_code: if partition.leader.is_some() { ErrorCode::None } else { ErrorCode::LeaderNotAvailable }.code(),
            eligible_leader_replicas: Some(ids(&partition.elr)),
            last_known_elr: Some(partition.last_known_leader.iter().map(|leader| leader.0).collect()),
            offline_replicas: partition.replicas.iter().filter(|id| !image.is_live(**id)).map(|id| id.0).collect(),
        }
    });
    DescribeTopicPartitionsResponseTopic {
        name: Some((&*topic.name).into()),
        topic_id: topic.id,
        is_internal: is_internal_topic(&topic.name),
        partitions: partitions.collect(),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Default::default()
    }
}
