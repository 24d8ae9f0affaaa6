//! InitProducerId (key 22): an id of its own for an idempotent producer (KIP-98).
//!
//! A producer that names an id and epoch it had (KIP-360, version 3 on) gets a fresh id too, as with Kafka: without a
//! transactional id nothing proves that the old one is its own, and a raised epoch would fence whoever owns it.
//! A transactional id is refused, see [`TRANSACTIONS_REFUSED`]. Next: `producer_ids.rs`.

use std::sync::Arc;

use ottla_protocol::{
    ErrorCode,
    messages::{InitProducerIdRequest, InitProducerIdResponse},
};
use ottla_types::{ProducerEpoch, ProducerId};

use super::Context;

/// Until there are transactions a transactional producer has to fail at once and for good. Every client takes a failed
/// authorisation as fatal; a retriable code, or one about the coordinator, would have it try for ever.
pub(super) const TRANSACTIONS_REFUSED: ErrorCode = ErrorCode::TransactionalIdAuthorizationFailed;

pub(super) fn handle(
    context: &Context<'_>,
    request: InitProducerIdRequest,
) -> impl Future<Output = InitProducerIdResponse> + use<> {
    let checked = check(&request);
    let broker = Arc::clone(context.broker);
    async move {
        let initialized = match checked {
            Ok(()) => broker.allocate_producer_id().await,
            Err(code) => Err(code),
        };
        match initialized {
            Ok(id) => InitProducerIdResponse { producer_id: id.0, producer_epoch: 0, ..Default::default() },
            Err(code) => InitProducerIdResponse {
                error_code: code.code(),
                producer_id: ProducerId::NONE.0,
                producer_epoch: ProducerEpoch::NONE.0,
                ..Default::default()
            },
        }
    }
}

fn check(request: &InitProducerIdRequest) -> Result<(), ErrorCode> {
    match request.transactional_id.as_deref() {
        None => {}
        Some("") => return Err(ErrorCode::InvalidRequest),
        Some(_) => return Err(TRANSACTIONS_REFUSED),
    }
    let known = (ProducerId(request.producer_id), ProducerEpoch(request.producer_epoch));
    if (known.0 == ProducerId::NONE) != (known.1 == ProducerEpoch::NONE) {
        return Err(ErrorCode::InvalidRequest);
    }
    Ok(())
}
