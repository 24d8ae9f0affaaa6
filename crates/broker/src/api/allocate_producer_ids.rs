//! AllocateProducerIds (key 67): a broker needs ids to hand out to idempotent producers (KIP-730).

use ottla_node::Node;
use ottla_protocol::messages::{AllocateProducerIdsRequest, AllocateProducerIdsResponse};
use ottla_types::{BrokerEpoch, BrokerId};

use super::{Context, configs::Failure};

pub(super) fn handle(context: &Context<'_>, request: AllocateProducerIdsRequest) -> AllocateProducerIdsResponse {
    serve(&context.broker.node, request)
}

/// What the controller does.
pub(crate) fn serve(node: &Node, request: AllocateProducerIdsRequest) -> AllocateProducerIdsResponse {
    match node.allocate_producer_ids(BrokerId(request.broker_id), BrokerEpoch(request.broker_epoch)) {
        Ok((first, count)) => AllocateProducerIdsResponse {
            producer_id_start: first.0,
            producer_id_len: i32::try_from(count).unwrap_or(i32::MAX),
            ..Default::default()
        },
        Err(error) => {
            AllocateProducerIdsResponse { error_code: Failure::from(error).code.code(), ..Default::default() }
        }
    }
}
