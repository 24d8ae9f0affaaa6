//! AlterPartitionReassignments (key 45): replicas are to move, or stay after all (KIP-455; KIP-860 for their number).

use std::collections::BTreeMap;

use ottla_metadata::{Command, Reply};
use ottla_protocol::{
    ErrorCode,
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
        alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse},
    },
};
use ottla_types::{BrokerId, PartitionIndex};

use super::{Context, configs::rows};

pub(super) fn handle(
    context: &Context<'_>,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let mut partitions = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let replicas = partition.replicas.as_ref().map(|replicas| replicas.iter().copied().map(BrokerId).collect());
            partitions.push((topic.name.to_string(), PartitionIndex(partition.partition_index), replicas));
        }
    }
    let asked = partitions.iter().map(|(topic, index, _)| (topic.clone(), *index)).collect();
    let command =
        Command::AlterReassignments { partitions, allow_factor_change: request.allow_replication_factor_change };
    let pick = |reply| match reply {
        Reply::ReassignmentsAltered(rows) => Some(rows),
        _ => None,
    };
    let mut topics: BTreeMap<String, Vec<ReassignablePartitionResponse>> = BTreeMap::new();
    for ((topic, index), row) in rows(context.broker.node.submit(command), asked, pick) {
        let failure = row.err();
        topics.entry(topic).or_default().push(ReassignablePartitionResponse {
            partition_index: index.0,
            error_code: failure.as_ref().map_or(ErrorCode::None, |failure| failure.code).code(),
            error_message: failure.map(|failure| failure.message),
        });
    }
    let responses =
        topics.into_iter().map(|(name, partitions)| ReassignableTopicResponse { name: name.into(), partitions });
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        error_message: None,
        responses: responses.collect(),
        ..Default::default()
    }
}
