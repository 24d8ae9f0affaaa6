//! ListPartitionReassignments (key 46): the partitions whose replicas are on their way (KIP-455). As in Kafka,
//! partitions that are not, or are not known, are left out of the list.

use std::collections::HashMap;

use bytestring::ByteString;
use ottla_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    list_partition_reassignments_response::{OngoingPartitionReassignment, OngoingTopicReassignment},
};
use ottla_types::BrokerId;

use super::Context;

pub(super) fn handle(
    context: &Context<'_>,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let image = context.broker.node.image();
    let wanted: Option<HashMap<ByteString, Vec<i32>>> =
        request.topics.map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect());
    let is_wanted = |topic: &str, index: i32| {
        wanted.as_ref().is_none_or(|wanted| wanted.get(topic).is_some_and(|indexes| indexes.contains(&index)))
    };
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.0).collect();
    let topics = image.topics().filter_map(|topic| {
        let ongoing =
            topic.numbered().filter(|(index, partition)| partition.is_reassigning() && is_wanted(&topic.name, index.0));
        let partitions: Vec<_> = ongoing
            .map(|(index, partition)| OngoingPartitionReassignment {
                partition_index: index.0,
                replicas: ids(&partition.replicas),
                adding_replicas: ids(&partition.adding),
                removing_replicas: ids(&partition.removing),
            })
            .collect();
        (!partitions.is_empty()).then(|| OngoingTopicReassignment { name: (&*topic.name).into(), partitions })
    });
    ListPartitionReassignmentsResponse { error_message: None, topics: topics.collect(), ..Default::default() }
}
