//! Decommission (key 20002, Ottla's own): everything moves off a node, so that it can leave. Who asks again learns how
//! much is left.

use ottla_metadata::{Command, Reply};
use ottla_protocol::{
    ErrorCode,
    messages::{DecommissionRequest, DecommissionResponse},
};
use ottla_types::BrokerId;

use super::{Context, configs::Failure};

pub(super) fn handle(context: &Context<'_>, request: DecommissionRequest) -> DecommissionResponse {
    let command = Command::DrainBroker { id: BrokerId(request.node_id), drain: !request.cancel };
    let refused = |code: ErrorCode, message| DecommissionResponse {
        error_code: code.code(),
        error_message: Some(message),
        ..Default::default()
    };
    match context.broker.node.submit(command).map_err(Failure::from) {
        Ok(Reply::Draining { left }) => {
            DecommissionResponse { remaining: i32::try_from(left).unwrap_or(i32::MAX), ..Default::default() }
        }
        Ok(_) => refused(ErrorCode::UnknownServerError, "the controller answered another command".into()),
        Err(failure) => refused(failure.code, failure.message),
    }
}
