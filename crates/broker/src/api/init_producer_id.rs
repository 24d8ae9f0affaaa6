//! InitProducerId (key 22): an id of its own for an idempotent producer (KIP-98).
//!
//! A producer that names an id and epoch it had (KIP-360, version 3 on) gets a fresh id too, as with Kafka: without a
//! transactional id nothing proves that the old one is its own, and a raised epoch would fence whoever owns it.
//! A transactional id is refused, see [`TRANSACTIONS_REFUSED`].

use ottla_protocol::{
    ErrorCode,
    messages::{InitProducerIdRequest, InitProducerIdResponse},
};
use ottla_types::{ProducerEpoch, ProducerId};

use super::{Context, configs::Failure};

/// Until there are transactions a transactional producer has to fail at once and for good. Every client takes a failed
/// authorisation as fatal; a retriable code, or one about the coordinator, would have it try for ever.
pub(super) const TRANSACTIONS_REFUSED: ErrorCode = ErrorCode::TransactionalIdAuthorizationFailed;

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
    let known = (ProducerId(request.producer_id), ProducerEpoch(request.producer_epoch));
    if (known.0 == ProducerId::NONE) != (known.1 == ProducerEpoch::NONE) {
        return Err(ErrorCode::InvalidRequest);
    }
    let id = context.broker.node.allocate_producer_id().map_err(|error| Failure::from(error).code)?;
    Ok((id, ProducerEpoch(0)))
}
