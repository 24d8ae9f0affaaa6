//! DescribeProducers (key 61): the idempotent producers that a partition remembers, to find hanging transactions
//! (KIP-664).

use std::{collections::HashSet, sync::Arc};

use ottla_log::ProducerDescription;
use ottla_node::Topic;
use ottla_protocol::{
    ErrorCode,
    messages::{
        DescribeProducersRequest, DescribeProducersResponse,
        describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
    },
};
use ottla_types::PartitionIndex;

use super::{Context, held, unavailable_code};

/// The epoch of a coordinator that never wrote a transaction marker here.
const NO_COORDINATOR: i32 = -1;

pub(super) fn handle(context: &Context<'_>, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let topics = context.broker.node.topics();
    // An answer may be far larger than what asks for it, so each partition is described once.
    let mut seen = HashSet::new();
    let answers = request.topics.iter().map(|wanted| {
        let topic = topics.named(&wanted.name);
        let partitions = wanted.partition_indexes.iter().map(|&index| {
            let mut response = PartitionResponse { partition_index: index, ..Default::default() };
            let producers = if seen.insert((&*wanted.name, index)) {
                producers(topic, PartitionIndex(index))
            } else {
                Err((ErrorCode::InvalidRequest, "Each partition must appear at most once.".to_owned()))
            };
            match producers {
                Ok(producers) => response.active_producers = producers.iter().map(described).collect(),
                Err((code, message)) => {
                    response.error_code = code.code();
                    response.error_message = Some(message.into());
                }
            }
            response
        });
        TopicResponse { name: wanted.name.clone(), partitions: partitions.collect() }
    });
    DescribeProducersResponse { topics: answers.collect(), ..Default::default() }
}

fn producers(
    topic: Option<&Arc<Topic>>,
    index: PartitionIndex,
) -> Result<Vec<ProducerDescription>, (ErrorCode, String)> {
    let partition = held(topic, index).map_err(|code| (code, code.message().to_owned()))?;
    partition.producers().map_err(|unavailable| (unavailable_code(&unavailable), unavailable.to_string()))
}

fn described(producer: &ProducerDescription) -> ProducerState {
    ProducerState {
        producer_id: producer.id.0,
        producer_epoch: i32::from(producer.epoch.0),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp.0,
        coordinator_epoch: NO_COORDINATOR,
        current_txn_start_offset: producer.transaction_start.map_or(-1, |offset| offset.0),
    }
}
