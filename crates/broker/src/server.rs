//! The listeners, and what all connections share.
//!
//! A [`Broker`] is one node with its sockets. Listeners are named as in Kafka (`listeners=PLAINTEXT://…`), each with
//! its own advertised address; a client is always told the addresses of the listener it came in on. What is not here:
//! what happens on a connection (`connection.rs`), and everything that needs no socket (`ottla_node`).

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ottla_metadata::config::{BrokerConfig, Settings};
use ottla_node::Node;
use ottla_types::BrokerId;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinSet,
};

use crate::{
    budget::MemoryBudget,
    connection::Connection,
    fetch_sessions::FetchSessions,
    outbox::ColdReads,
    peers::{LogTransport, Peers},
    producer_ids::ProducerIds,
};

/// Sessions may hold this part of what requests may.
const SESSIONS_SHARE: usize = 4;
/// How long clients get to take the answers they are owed when the broker stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pending connections the kernel may hold for us.
const BACKLOG: i32 = 1024;
/// Pause after an `accept` that failed for want of a file descriptor or of memory.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// In place of no idle timeout: longer than any process lives.
const IDLE_NEVER_MS: u64 = 1 << 40;

/// Where a listener binds and how clients are told to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// The listener's name, `PLAINTEXT` unless configured.
    pub name: String,
    /// The addresses it binds; port 0 takes a free port.
    pub addresses: Vec<SocketAddr>,
    /// Host and port told to clients. `None` tells each client the address it reached us by.
    pub advertised: Option<(String, u16)>,
}

/// Limits of the connection layer.
#[derive(Clone, Debug)]
pub struct Options {
    /// `socket.request.max.bytes`: the largest request, in bytes.
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`.
    pub idle_timeout: Duration,
    /// `ottla.memory.bytes`: what all requests together may hold.
    pub memory_bytes: usize,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_sessions_max: usize,
    /// `fetch.max.bytes`: the most record bytes in one Fetch response.
    pub fetch_bytes_max: u64,
    /// `replica.selector.class`: whether consumers are sent to followers in their rack.
    pub rack_aware_reads: bool,
    /// `inter.broker.listener.name`: the listener that other brokers come in on. Without it they come in on any, and
    /// find each other by the first.
    pub broker_listener: Option<String>,
}

impl Options {
    /// The limits that the broker's configs ask for.
    pub fn of(config: &BrokerConfig, settings: &Settings) -> Options {
        Options {
            broker_listener: settings.get("inter.broker.listener.name").filter(|name| !name.is_empty()).map(Into::into),
            request_bytes_max: config.socket_request_max_bytes as usize,
            idle_timeout: Duration::from_millis(config.connections_max_idle_ms.unwrap_or(IDLE_NEVER_MS)),
            memory_bytes: usize::try_from(config.memory_bytes).unwrap_or(usize::MAX),
            fetch_sessions_max: config.max_fetch_sessions as usize,
            fetch_bytes_max: u64::from(config.fetch_max_bytes),
            rack_aware_reads: config.rack_aware_reads,
        }
    }
}

/// A bound listener.
pub(crate) struct Listener {
    pub(crate) name: String,
    /// Whether other brokers may come in on it.
    pub(crate) serves_brokers: bool,
    advertised: Option<(String, u16)>,
}

impl Listener {
    /// Host and port to tell a client that reached us at `local`. A bare host, without brackets for IPv6.
    pub(crate) fn endpoint(&self, local: SocketAddr) -> (String, u16) {
        match &self.advertised {
            Some(advertised) => advertised.clone(),
            None => (local.ip().to_canonical().to_string(), local.port()),
        }
    }
}

/// One node with its sockets.
pub struct Broker {
    pub(crate) node: Arc<Node>,
    pub(crate) options: Options,
    pub(crate) memory: Arc<MemoryBudget>,
    pub(crate) cold_reads: ColdReads,
    pub(crate) sessions: FetchSessions,
    pub(crate) stopping: watch::Sender<bool>,
    /// The same for those who look at each request: what `stopping` has inside is written by all who look.
    pub(crate) is_stopping: AtomicBool,
    pub(crate) peers: Arc<Peers>,
    /// The metadata, or who leads its log, has changed.
    pub(crate) changed: Arc<Notify>,
    /// The controller that took the last heartbeat.
    pub(crate) reported_to: Mutex<Option<BrokerId>>,
    /// Counts, so that each try goes to another broker.
    pub(crate) tries: AtomicUsize,
    /// Topics that clients had created by asking for them.
    pub(crate) wanted_topics: Mutex<BTreeSet<String>>,
    pub(crate) producer_ids: ProducerIds,
    started: Instant,
    connections: Mutex<Connections>,
}

/// Who is connected, for the limits of `max.connections` and its like.
#[derive(Default)]
struct Connections {
    open: usize,
    by_ip: HashMap<IpAddr, usize>,
    /// The second in which the last connection was taken, and how many were in it.
    second: u64,
    in_second: u32,
}

/// A listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", explain(source))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; stop it, or choose another with --listen".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address; choose another with --listen".to_owned(),
        _ => error.to_string(),
    }
}

/// Listeners that are bound but not served yet.
pub struct Bound {
    sockets: Vec<(TcpListener, Arc<Listener>)>,
}

impl Bound {
    /// Binds every address of every listener; `broker_listener` is the one for other brokers, if it is one alone. Must
    /// be called within a tokio runtime.
    pub fn bind(listeners: &[ListenerConfig], broker_listener: Option<&str>) -> Result<Bound, BindError> {
        let mut sockets = Vec::new();
        for config in listeners {
            let listener = Arc::new(Listener {
                name: config.name.clone(),
                serves_brokers: broker_listener.is_none_or(|name| name == config.name),
                advertised: config.advertised.clone(),
            });
            for &address in &config.addresses {
                let socket = bind(address).map_err(|source| BindError { address, source })?;
                sockets.push((socket, Arc::clone(&listener)));
            }
        }
        Ok(Bound { sockets })
    }

    /// The first address that a listener was bound to, with the port the system chose.
    pub fn address_of(&self, listener: &str) -> Option<SocketAddr> {
        let (socket, _) = self.sockets.iter().find(|(_, bound)| bound.name == listener)?;
        socket.local_addr().ok()
    }

    /// The addresses that were bound, with the ports the system chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|(socket, _)| socket.local_addr().ok()).collect()
    }
}

impl Broker {
    /// A broker over `node` that serves nobody yet. `transport` is the one that the node was opened with. Must be
    /// called within a tokio runtime.
    pub fn new(node: Arc<Node>, options: Options, transport: &LogTransport) -> Arc<Broker> {
        let peers = Peers::new(Arc::clone(&node), options.broker_listener.clone());
        transport.connect(Handle::current(), Arc::clone(&peers));
        let changed = Arc::new(Notify::new());
        let bell = Arc::clone(&changed);
        node.on_change(move || bell.notify_waiters());
        Arc::new(Broker {
            peers,
            changed,
            reported_to: Mutex::default(),
            tries: AtomicUsize::new(0),
            wanted_topics: Mutex::default(),
            producer_ids: ProducerIds::default(),
            memory: MemoryBudget::new(options.memory_bytes),
            cold_reads: ColdReads::new(),
            sessions: FetchSessions::new(options.fetch_sessions_max, options.memory_bytes / SESSIONS_SHARE),
            stopping: watch::Sender::new(false),
            is_stopping: AtomicBool::new(false),
            started: Instant::now(),
            connections: Mutex::default(),
            node,
            options,
        })
    }

    /// Serves clients until [`Broker::stop`], then lets each connection send the answers it owes.
    pub async fn serve(self: &Arc<Self>, bound: Bound) {
        let mut duties = JoinSet::new();
        duties.spawn(Arc::clone(self).keep_membership());
        duties.spawn(Arc::clone(self).follow_leaders());
        duties.spawn(Arc::clone(self).propose_isrs());
        duties.spawn(Arc::clone(self).report_damage());
        duties.spawn(Arc::clone(self).create_topics());
        let mut acceptors = JoinSet::new();
        for (socket, listener) in bound.sockets {
            acceptors.spawn(Arc::clone(self).accept(socket, listener));
        }
        acceptors.join_all().await;
    }

    /// Stops accepting, and ends every connection once it has been answered.
    pub fn stop(&self) {
        // Before the connections look: whoever waits for others in a group has to hear that it is in vain.
        self.node.groups().stop();
        self.is_stopping.store(true, Ordering::Release);
        self.stopping.send_replace(true);
    }

    async fn accept(self: Arc<Self>, socket: TcpListener, listener: Arc<Listener>) {
        let mut stopping = self.stopping.subscribe();
        let mut connections = JoinSet::new();
        while !*stopping.borrow() {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                _ = stopping.changed() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Err(error) = self.admit(&mut connections, &listener, stream, peer) {
                        tracing::debug!(%peer, %error, "connection not taken");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
        drop(socket);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            tracing::warn!("some clients did not take their last answers; their connections are cut");
            connections.shutdown().await;
        }
    }

    fn admit(
        self: &Arc<Self>,
        connections: &mut JoinSet<()>,
        listener: &Arc<Listener>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> io::Result<()> {
        let open = Open::count(self, peer.ip()).map_err(io::Error::other)?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new())?;
        let local = stream.local_addr()?;
        let mut connection = Connection::new(Arc::clone(self), Arc::clone(listener), stream, local, peer);
        connections.spawn(async move {
            let _open = open;
            connection.run().await;
        });
        Ok(())
    }
}

/// Counts a connection for as long as it lives.
struct Open {
    broker: Arc<Broker>,
    ip: IpAddr,
}

impl Open {
    /// Counts a connection, or names the limit that it would pass. The limits may change at run time.
    fn count(broker: &Arc<Broker>, ip: IpAddr) -> Result<Open, &'static str> {
        let limits = broker.node.broker_config();
        let second = broker.started.elapsed().as_secs();
        let mut connections = broker.connections.lock();
        if connections.second != second {
            (connections.second, connections.in_second) = (second, 0);
        }
        if connections.open >= limits.max_connections as usize {
            return Err("max.connections is reached");
        }
        if connections.by_ip.get(&ip).is_some_and(|&open| open >= limits.max_connections_per_ip as usize) {
            return Err("max.connections.per.ip is reached");
        }
        if connections.in_second >= limits.max_connection_creation_rate {
            return Err("max.connection.creation.rate is reached");
        }
        connections.open += 1;
        connections.in_second += 1;
        *connections.by_ip.entry(ip).or_default() += 1;
        Ok(Open { broker: Arc::clone(broker), ip })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut connections = self.broker.connections.lock();
        connections.open -= 1;
        if let Some(open) = connections.by_ip.get_mut(&self.ip) {
            *open -= 1;
            if *open == 0 {
                connections.by_ip.remove(&self.ip);
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let IpAddr::V6(ip) = address.ip() {
        // The wildcard takes both families; a specific address is itself alone.
        socket.set_only_v6(!ip.is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
