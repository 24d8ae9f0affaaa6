//! Raft (key 20000, Ottla's own): a message of another member of the metadata log. Not here: what it says
//! (`ottla_consensus`).

use ottla_protocol::{
    ErrorCode,
    messages::{RaftRequest, RaftResponse},
};
use tokio::sync::oneshot;

use super::Context;

pub(super) fn handle(context: &Context<'_>, request: RaftRequest) -> impl Future<Output = RaftResponse> + use<> {
    let (done, answer) = oneshot::channel();
    if let Some(consensus) = context.broker.node.consensus() {
        consensus.handle(request.body, move |result| {
            // The peer may have given up.
            let _ = done.send(result);
        });
    }
    async move {
        match answer.await {
            Ok(Ok(body)) => RaftResponse { body, ..Default::default() },
            Ok(Err(error)) => {
                tracing::debug!(%error, "a message of the metadata log is refused");
                RaftResponse { error_code: ErrorCode::InvalidRequest.code(), ..Default::default() }
            }
            // The log is being closed.
            Err(_) => RaftResponse { error_code: ErrorCode::BrokerNotAvailable.code(), ..Default::default() },
        }
    }
}
