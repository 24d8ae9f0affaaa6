//! InitProducerId (key 22): an id and an epoch for an idempotent producer (KIP-98), or the next epoch for one that
//! lost track of its sequence (KIP-360).
//!
//! A transactional id is refused, see [`TRANSACTIONS_REFUSED`].

use ottla_protocol::{
    ErrorCode,
    messages::{InitProducerIdRequest, InitProducerIdResponse},
};
use ottla_types::{ProducerEpoch, ProducerId};

use super::{Context, configs::Failure};

/// Until there are transactions a transactional producer has to fail at once and for good. Every client takes a failed
/// authorisation as fatal; a retriable code, or one about the coordinator, would have it try for ever.
const TRANSACTIONS_REFUSED: ErrorCode = ErrorCode::TransactionalIdAuthorizationFailed;
/// From this epoch on there is none to go to: the largest is kept for fencing, as in Kafka.
const EXHAUSTED_EPOCH: i16 = i16::MAX - 1;

pub(super) fn handle(context: &Context<'_>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    match initialized(context, &request) {
        Ok((id, epoch)) => InitProducerIdResponse { producer_id: id.0, producer_epoch: epoch.0, ..Default::default() },
        Err(code) => InitProducerIdResponse {
            error_code: code.code(),
            producer_id: ProducerId::NONE.0,
            producer_epoch: ProducerEpoch::NONE.0,
            ..Default::default()
        },
    }
}

fn initialized(
    context: &Context<'_>,
    request: &InitProducerIdRequest,
) -> Result<(ProducerId, ProducerEpoch), ErrorCode> {
    match request.transactional_id.as_deref() {
        None => {}
        Some("") => return Err(ErrorCode::InvalidRequest),
        Some(_) => return Err(TRANSACTIONS_REFUSED),
    }
    let node = &context.broker.node;
    let fresh = || {
        let id = node.allocate_producer_id().map_err(|error| Failure::from(error).code)?;
        Ok((id, ProducerEpoch(0)))
    };
    match (ProducerId(request.producer_id), ProducerEpoch(request.producer_epoch)) {
        (ProducerId::NONE, ProducerEpoch::NONE) => fresh(),
        (ProducerId::NONE, _) | (_, ProducerEpoch::NONE) => Err(ErrorCode::InvalidRequest),
        // An id that was never given to anybody will be given to somebody else.
        (id, _) if id < ProducerId(0) || id >= node.image().next_producer_id() => fresh(),
        (_, epoch) if !(0..EXHAUSTED_EPOCH).contains(&epoch.0) => fresh(),
        (id, epoch) => Ok((id, ProducerEpoch(epoch.0 + 1))),
    }
}
