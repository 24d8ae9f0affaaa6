//! ElectLeaders (key 43): preferred replicas are to lead again, or partitions without a leader to get one at any price
//! (KIP-460).

use std::collections::BTreeMap;

use ottla_metadata::{Command, Election, Refusal, Reply};
use ottla_protocol::{
    ErrorCode,
    messages::{
        ElectLeadersRequest, ElectLeadersResponse,
        elect_leaders_response::{PartitionResult, ReplicaElectionResult},
    },
};
use ottla_types::PartitionIndex;

use super::{Context, configs::Failure};

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(super) fn handle(context: &Context<'_>, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let kind = match request.election_type {
        PREFERRED => Election::Preferred,
        UNCLEAN => Election::Unclean,
        _ => return ElectLeadersResponse { error_code: ErrorCode::InvalidRequest.code(), ..Default::default() },
    };
    let asked_for_all = request.topic_partitions.is_none();
    let partitions = request.topic_partitions.map(|topics| {
        let named = |topic: ottla_protocol::messages::elect_leaders_request::TopicPartitions| {
            let name = topic.topic.to_string();
            topic.partitions.into_iter().map(move |index| (name.clone(), PartitionIndex(index)))
        };
        topics.into_iter().flat_map(named).collect()
    });
    let rows = match context.broker.node.submit(Command::ElectLeaders { kind, partitions }).map_err(Failure::from) {
        Ok(Reply::LeadersElected(rows)) => rows,
        Ok(_) => return refused(ErrorCode::UnknownServerError),
        Err(failure) => return refused(failure.code),
    };
    let mut topics: BTreeMap<String, Vec<PartitionResult>> = BTreeMap::new();
    for ((topic, index), row) in rows {
        // Who asks for all wants to hear of those that needed it.
        if asked_for_all && matches!(row, Err(Refusal::ElectionNotNeeded)) {
            continue;
        }
        let failure = row.err().map(Failure::from);
        topics.entry(topic).or_default().push(PartitionResult {
            partition_id: index.0,
            error_code: failure.as_ref().map_or(ErrorCode::None, |failure| failure.code).code(),
            error_message: failure.map(|failure| failure.message),
        });
    }
    let results = topics
        .into_iter()
        .map(|(topic, partition_result)| ReplicaElectionResult { topic: topic.into(), partition_result });
    ElectLeadersResponse { replica_election_results: results.collect(), ..Default::default() }
}

fn refused(code: ErrorCode) -> ElectLeadersResponse {
    ElectLeadersResponse { error_code: code.code(), ..Default::default() }
}
