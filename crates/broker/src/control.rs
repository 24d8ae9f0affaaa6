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
/// How long a controller may take to answer once another node is: it can do nothing any more, and says so if it can
/// be reached at all.
const DEPOSED_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause before the next try.
const RETRY: Duration = Duration::from_millis(50);

/// Why the controller did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    #[error("nobody leads the metadata log now")]
    NoController,
    #[error("the controller has changed, and the one before does not answer")]
    Deposed,
    #[error(transparent)]
    Peer(#[from] PeerError),
}

impl Unreachable {
    /// Whether the request may have arrived.
    fn may_be_done(&self) -> bool {
        match self {
            Unreachable::NoController => false,
            Unreachable::Deposed => true,
            Unreachable::Peer(PeerError::Client(error)) => {
                matches!(error, ottla_client::Error::Timeout { .. } | ottla_client::Error::Disconnected { .. })
            }
            Unreachable::Peer(PeerError::Unknown(_)) => false,
        }
    }
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
        self.ask(to, &request).await
    }

    /// Asks `to`, for as long as it may be the controller. Whether it did what it was asked nobody knows without an
    /// answer.
    async fn ask<R: Request>(&self, to: BrokerId, request: &R) -> Result<R::Response, Unreachable> {
        tokio::select! {
            answer = self.peers.call(to, Purpose::Control, request, ANSWER_TIMEOUT) => Ok(answer?),
            () = self.deposed(to) => {
                // Whatever is asked over that connection waits for the same answer.
                self.peers.disconnect(to, Purpose::Control);
                Err(Unreachable::Deposed)
            }
        }
    }

    /// Waits until another node is the controller, and somewhat longer.
    async fn deposed(&self, before: BrokerId) {
        loop {
            let changed = self.changed.notified();
            if self.node.controller_id().is_some_and(|id| id != before) {
                break;
            }
            changed.await;
        }
        sleep(DEPOSED_TIMEOUT).await;
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
                match self.ask(to, &envelope).await {
                    Ok(answer) if answer.error_code == ErrorCode::None.code() => return answer.response_data,
                    // It leads no more, and has done nothing.
                    Ok(answer) if answer.error_code == ErrorCode::NotController.code() => {}
                    Ok(answer) => {
                        tracing::warn!(code = answer.error_code, "the controller refuses a forwarded request");
                        return None;
                    }
                    // Whether it was done nobody knows: the client, who may ask again, is the one to decide.
                    Err(error) if error.may_be_done() => {
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
