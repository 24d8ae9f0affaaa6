//! CreatePartitions (key 37): more partitions for topics that exist, one row of the answer for each topic (KIP-195).

use ottla_metadata::{Command, NewPartitions, Reply};
use ottla_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, create_partitions_request::CreatePartitionsTopic,
    create_partitions_response::CreatePartitionsTopicResult,
};
use ottla_types::BrokerId;

use super::{Context, configs::rows};

pub(super) fn handle(context: &Context<'_>, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let topics: Vec<NewPartitions> = request.topics.into_iter().map(new_partitions).collect();
    let asked = topics.iter().map(|topic| topic.name.clone()).collect();
    let pick = |reply| match reply {
        Reply::PartitionsCreated(rows) => Some(rows),
        _ => None,
    };
    let command = Command::CreatePartitions { topics, validate_only: request.validate_only };
    let results = rows(context.broker.node.submit(command), asked, pick).into_iter().map(|(name, row)| {
        let mut result = CreatePartitionsTopicResult { name: name.into(), ..Default::default() };
        if let Err(failure) = row {
            result.error_code = failure.code.code();
            result.error_message = Some(failure.message);
        }
        result
    });
    CreatePartitionsResponse { results: results.collect(), ..Default::default() }
}

fn new_partitions(topic: CreatePartitionsTopic) -> NewPartitions {
    let assignments = topic.assignments.map(|assignments| {
        assignments.into_iter().map(|assignment| assignment.broker_ids.into_iter().map(BrokerId).collect()).collect()
    });
    NewPartitions { name: topic.name.to_string(), count: topic.count, assignments }
}
