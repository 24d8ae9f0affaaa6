//! The other brokers of the cluster, as this one reaches them: one connection for each purpose, made when it is needed.
//!
//! A connection serves its requests in order, so what must not wait for each other goes over connections of its own. A
//! broker that refuses or drops a connection is reported to the controller's watch, which need not wait for its session
//! to end. What is not here: what is said (`membership.rs`, `following.rs`, `ottla_consensus`).

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use ottla_client::{Connection, Error};
use ottla_consensus::Reply;
use ottla_node::{Node, Transport};
use ottla_protocol::{ErrorCode, Request, messages::RaftRequest};
use ottla_types::BrokerId;
use parking_lot::Mutex;
use tokio::runtime::Handle;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer of the metadata log's other members is waited for. They answer at once, or after a sync.
const LOG_TIMEOUT: Duration = Duration::from_secs(5);
/// The name this broker gives itself to others.
const CLIENT_ID: &str = "ottla-node";

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// The metadata log.
    Log,
    /// What only the controller may do.
    Control,
}

/// Why another broker did not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("the cluster has no broker {0}, or none with a listener for brokers")]
    Unknown(BrokerId),
    #[error(transparent)]
    Client(#[from] Error),
}

/// Connections to the other brokers.
pub(crate) struct Peers {
    node: Arc<Node>,
    /// `inter.broker.listener.name`; without it the first listener of each.
    listener: Option<String>,
    connections: Mutex<HashMap<(BrokerId, Purpose), Arc<Connection>>>,
}

impl Peers {
    pub(crate) fn new(node: Arc<Node>, listener: Option<String>) -> Arc<Peers> {
        Arc::new(Peers { node, listener, connections: Mutex::default() })
    }

    /// Where the brokers of the cluster find `broker`.
    pub(crate) fn address(&self, broker: BrokerId) -> Result<String, PeerError> {
        let image = self.node.image();
        let listeners = image.broker(broker).map(|broker| &broker.listeners[..]).unwrap_or_default();
        let named = listeners.iter().find(|listener| Some(&listener.name) == self.listener.as_ref());
        let listener = named.or(listeners.first()).ok_or(PeerError::Unknown(broker))?;
        Ok(address(&listener.host, listener.port))
    }

    /// A new connection to `broker`, for whoever wants one to itself.
    pub(crate) async fn connect(&self, broker: BrokerId) -> Result<Connection, PeerError> {
        let connected = connect(&self.address(broker)?).await;
        if connected.is_err() {
            self.node.suspect(broker);
        }
        Ok(connected?)
    }

    /// Gives up the connection to `broker`; whoever waits for an answer over it goes on waiting.
    pub(crate) fn disconnect(&self, broker: BrokerId, purpose: Purpose) {
        self.connections.lock().remove(&(broker, purpose));
    }

    /// Asks `broker` and waits for its answer.
    pub(crate) async fn call<R: Request>(
        &self,
        broker: BrokerId,
        purpose: Purpose,
        request: &R,
        limit: Duration,
    ) -> Result<R::Response, PeerError> {
        let place = (broker, purpose);
        let known = self.connections.lock().get(&place).filter(|known| !known.is_broken()).cloned();
        let connection = match known {
            Some(known) => known,
            None => {
                let new = Arc::new(self.connect(broker).await?);
                self.connections.lock().insert(place, Arc::clone(&new));
                new
            }
        };
        let answer = connection.call(request, limit).await;
        if let Err(error) = &answer {
            // Where an answer is missing the next one would be taken for it; and the broker may have another address.
            self.connections.lock().retain(|_, known| !Arc::ptr_eq(known, &connection));
            if matches!(error, Error::Disconnected { .. }) {
                self.node.suspect(broker);
            }
        }
        Ok(answer?)
    }
}

/// Connects to a broker that may be none of the cluster yet.
pub(crate) async fn connect(address: &str) -> Result<Connection, Error> {
    Connection::open(address, CLIENT_ID, CONNECT_TIMEOUT).await
}

/// Host and port as one, with brackets around an IPv6 address.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The way of the metadata log's messages to the other nodes. It leads nowhere until there is a [`crate::Broker`].
#[derive(Clone, Default)]
pub struct LogTransport {
    peers: Arc<OnceLock<(Handle, Arc<Peers>)>>,
}

impl LogTransport {
    /// What a node is opened with.
    pub fn transport(&self) -> Transport {
        let peers = Arc::clone(&self.peers);
        Box::new(move |to, request, reply| match peers.get() {
            Some((runtime, peers)) => {
                runtime.spawn(send(Arc::clone(peers), to, request, reply));
            }
            None => reply(None),
        })
    }

    pub(crate) fn connect(&self, runtime: Handle, peers: Arc<Peers>) {
        // A node has one broker in its life.
        let _ = self.peers.set((runtime, peers));
    }
}

async fn send(peers: Arc<Peers>, to: BrokerId, body: Bytes, reply: Reply) {
    let request = RaftRequest { body };
    let answer = peers.call(to, Purpose::Log, &request, LOG_TIMEOUT).await;
    match answer {
        Ok(answer) if answer.error_code == ErrorCode::None.code() => reply(Some(answer.body)),
        Ok(answer) => {
            tracing::debug!(broker = %to, code = answer.error_code, "the metadata log's message was refused");
            reply(None);
        }
        Err(error) => {
            tracing::debug!(broker = %to, %error, "the metadata log's message was not answered");
            reply(None);
        }
    }
}
