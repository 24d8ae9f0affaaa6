//! The way to the controller: what only it may do is done here if this node leads the metadata log, and asked of
//! whoever does otherwise.
//!
//! Clients may send their admin requests to any broker: those of a broker that is not the controller travel in an
//! Envelope (KIP-590). A broker's own requests go as they are. Where nobody knows the controller any broker is asked,
//! which passes it on. What is not here: the requests (`api/`).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use ottla_node::Node;
use ottla_protocol::{ErrorCode, Request, messages::EnvelopeRequest};
use ottla_types::BrokerId;
use tokio::time::{Instant, sleep};

use crate::{
    peers::{PeerError, Purpose},
    server::Broker,
};

/// How long an answer of the controller is waited for: somewhat longer than it waits for its cluster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client's request waits for a controller to be found.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause before the next try.
const RETRY: Duration = Duration::from_millis(50);

/// Why the controller did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    #[error("nobody leads the metadata log now")]
    NoController,
    #[error(transparent)]
    Peer(#[from] PeerError),
}

impl Broker {
    /// Asks the controller; `here` is what it does.
    pub(crate) async fn ask_controller<R: Request>(
        &self,
        request: R,
        here: fn(&Node, R) -> R::Response,
    ) -> Result<R::Response, Unreachable> {
        if self.node.is_controller() {
            return Ok(tokio::task::block_in_place(|| here(&self.node, request)));
        }
        let controller = self.node.controller_id().filter(|id| *id != self.node.id());
        let to = controller.or_else(|| self.any_other()).ok_or(Unreachable::NoController)?;
        Ok(self.peers.call(to, Purpose::Control, &request, ANSWER_TIMEOUT).await?)
    }

    /// Another broker than this, a different one each time.
    fn any_other(&self) -> Option<BrokerId> {
        let image = self.node.image();
        let others: Vec<BrokerId> =
            image.brokers().map(|broker| broker.id).filter(|id| *id != self.node.id()).collect();
        others.get(self.tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % others.len().max(1)).copied()
    }

    /// Has the controller answer a client's request: the whole answer, header included. `None` if there is none in
    /// time.
    pub(crate) async fn forward(self: Arc<Self>, request_data: Bytes, client_host_address: Bytes) -> Option<Bytes> {
        let deadline = Instant::now() + FORWARD_TIMEOUT;
        let envelope = EnvelopeRequest { request_data, request_principal: None, client_host_address };
        while Instant::now() < deadline {
            if self.node.is_controller() {
                // It has come to be this one since, which is not another. Whoever asks again is answered here.
                return None;
            }
            if let Some(to) = self.node.controller_id().filter(|id| *id != self.node.id()) {
                let answer = self.peers.call(to, Purpose::Control, &envelope, ANSWER_TIMEOUT).await;
                match answer {
                    Ok(answer) if answer.error_code == ErrorCode::None.code() => return answer.response_data,
                    // It leads no more, and has done nothing.
                    Ok(answer) if answer.error_code == ErrorCode::NotController.code() => {}
                    Ok(answer) => {
                        tracing::warn!(code = answer.error_code, "the controller refuses a forwarded request");
                        return None;
                    }
                    // Whether it was done nobody knows: the client, who may ask again, is the one to decide.
                    Err(PeerError::Client(
                        error @ (ottla_client::Error::Timeout { .. } | ottla_client::Error::Disconnected { .. }),
                    )) => {
                        tracing::warn!(%error, "the controller did not answer a forwarded request");
                        return None;
                    }
                    Err(error) => tracing::debug!(%error, "the controller can't be reached"),
                }
            }
            sleep(RETRY).await;
        }
        None
    }
}
