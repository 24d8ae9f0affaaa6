//! UnregisterBroker (key 64): a broker is gone for good (KIP-631).

use ottla_metadata::Command;
use ottla_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use ottla_types::BrokerId;

use super::{Context, configs::Failure};

pub(super) fn handle(context: &Context<'_>, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse {
    let outcome = context.broker.node.submit(Command::UnregisterBroker { id: BrokerId(request.broker_id) });
    match outcome.map_err(Failure::from) {
        Ok(_) => UnregisterBrokerResponse { error_message: None, ..Default::default() },
        Err(failure) => UnregisterBrokerResponse {
            error_code: failure.code.code(),
            error_message: Some(failure.message),
            ..Default::default()
        },
    }
}
