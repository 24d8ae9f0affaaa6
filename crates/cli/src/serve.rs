//! `ottla serve`: settings in, a running broker until a signal comes.
//!
//! Not here: what the settings are (`settings.rs`), what the broker does (`ottla_broker`, `ottla_node`).

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use ottla_broker::{Bound, Broker, Candidate, ListenerConfig, LogTransport, Options, join};
use ottla_log::{Disk, OsDisk};
use ottla_node::{DirectoryLock, Identity, Node, NodeConfig};
use ottla_types::Timestamp;
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    system::uname,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use uuid::Uuid;

use crate::{
    failure::Failure,
    logging, output,
    settings::{DEFAULT_PORT, Listener, ServeArgs, ServeSettings},
};

/// Ports that a node without a port of its own tries, from the default on.
const PORTS_TRIED: u16 = 100;

pub(crate) const EXAMPLES: &str = "\
Examples:
  ottla serve
  ottla serve --listen 0.0.0.0:9092 --advertise kafka.example.org:9092 --data /var/lib/ottla
  ottla serve -o num.partitions=3 -o log.retention.hours=24
  ottla serve --config server.properties
  ottla serve --data n2 --join localhost:9092

The last one joins the cluster that a node at localhost:9092 belongs to; without --join a node founds one of its own.

A flag beats the environment, the environment beats the file. Any Kafka broker config can be given in each of them:
-o num.partitions=3, OTTLA_NUM_PARTITIONS=3, num.partitions = 3. OTTLA_LOG sets what is logged, such as info.";

/// Starts a broker and serves until SIGTERM or SIGINT.
pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    logging::start()?;
    let environment =
        std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    let settings = ServeSettings::resolve(args, environment, has_ipv6())?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit();
    let workers = settings.workers;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(serve(settings))
}

async fn serve(mut settings: ServeSettings) -> Result<(), Failure> {
    let _lock = DirectoryLock::take(&settings.data).map_err(Failure::failed)?;
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
    let identity = Node::identity_of(&*disk, &settings.data).map_err(Failure::failed)?;
    // From here on whoever asks us to stop gets an orderly end.
    let mut stop = StopSignals::new()?;
    // Bound before the data is touched: a port in use must not cost a recovery.
    let (bound, port) = bind(&mut settings, identity.as_ref())?;
    let listeners = registered(&settings, &bound);
    let joined = match identity {
        None if !settings.join.is_empty() => {
            let candidate = Candidate {
                id: settings.node_id,
                rack: settings.rack.clone(),
                listeners: listeners.clone(),
                directory: Uuid::new_v4(),
                incarnation: Uuid::new_v4().into_bytes(),
                port,
                features: settings.configs.supported_features().map(Into::into).collect(),
            };
            tokio::select! {
                joined = join(&settings.join, &candidate) => Some(joined.map_err(Failure::failed)?),
                () = stop.asked() => return Ok(()),
            }
        }
        _ => None,
    };
    let transport = LogTransport::default();
    let node = Node::open(NodeConfig {
        disk,
        dir: settings.data.clone(),
        node_id: settings.node_id,
        rack: settings.rack.clone(),
        listeners,
        settings: settings.configs.clone(),
        clock: Arc::new(wall_clock),
        entropy: Box::new(|| Uuid::new_v4().into_bytes()),
        transport: transport.transport(),
        joined,
    })
    .map_err(Failure::failed)?;
    banner(&settings, &node, &bound.addresses())?;
    let broker = Broker::new(Arc::clone(&node), Options::of(&node.broker_config(), node.settings()), &transport);
    let serving = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move { broker.serve(bound).await }
    });
    stop.asked().await;
    tokio::select! {
        () = broker.leave() => {}
        // Whoever asks twice is in a hurry.
        () = stop.asked() => {}
    }
    broker.stop();
    serving.await.map_err(Failure::failed)?;
    node.shut_down().map_err(Failure::failed)
}

/// Binds the listeners. A node that joins others on one machine, and was not told where to listen, takes the next port
/// that is free, and the same one from then on.
fn bind(settings: &mut ServeSettings, identity: Option<&Identity>) -> Result<(Bound, Option<u16>), Failure> {
    let broker_listener = settings.configs.get("inter.broker.listener.name").filter(|name| !name.is_empty());
    let broker_listener = broker_listener.map(str::to_owned);
    let chosen = identity.and_then(|identity| identity.port).filter(|_| settings.listens_anywhere);
    let may_choose = settings.listens_anywhere && identity.is_none() && !settings.join.is_empty();
    let mut port = chosen;
    loop {
        if let Some(port) = port {
            settings.listeners.iter_mut().flat_map(|each| &mut each.addresses).for_each(|each| each.set_port(port));
        }
        let configs: Vec<ListenerConfig> = settings
            .listeners
            .iter()
            .map(|listener| ListenerConfig {
                name: listener.name.clone(),
                addresses: listener.addresses.clone(),
                advertised: listener.advertised.clone(),
            })
            .collect();
        match Bound::bind(&configs, broker_listener.as_deref()) {
            Ok(bound) => return Ok((bound, port)),
            Err(error) if may_choose && error.source.kind() == ErrorKind::AddrInUse => {
                let next =
                    port.unwrap_or(DEFAULT_PORT).checked_add(1).filter(|next| *next < DEFAULT_PORT + PORTS_TRIED);
                port = Some(next.ok_or_else(|| Failure::failed(&error))?);
            }
            Err(error) => return Err(Failure::failed(error)),
        }
    }
}

/// The listeners as the cluster knows them. One without an advertised address has as many as clients find it under; the
/// first it binds stands for all, and the machine's name for all its addresses.
fn registered(settings: &ServeSettings, bound: &Bound) -> Vec<ottla_metadata::Listener> {
    const PLAINTEXT: i16 = 0;
    let endpoint = |listener: &Listener| {
        let host = |ip: IpAddr| match ip.is_unspecified() {
            true => uname().nodename().to_string_lossy().into_owned(),
            false => ip.to_string(),
        };
        let found = || bound.address_of(&listener.name).map(|address| (host(address.ip()), address.port()));
        let (host, port) = listener.advertised.clone().or_else(found)?;
        Some(ottla_metadata::Listener { name: listener.name.clone(), host, port, security_protocol: PLAINTEXT })
    };
    settings.listeners.iter().filter_map(endpoint).collect()
}

/// Milliseconds since the Unix epoch.
fn wall_clock() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

/// The lines a person sees when the broker is ready.
fn banner(settings: &ServeSettings, node: &Node, bound: &[SocketAddr]) -> Result<(), Failure> {
    let addresses: Vec<String> = bound.iter().map(ToString::to_string).collect();
    let data = std::fs::canonicalize(&settings.data).unwrap_or_else(|_| settings.data.clone());
    let topic = match bound.first() {
        Some(address) if address.port() != 9092 => format!("-b localhost:{} ", address.port()),
        _ => String::new(),
    };
    let place = match settings.join.is_empty() {
        true => String::new(),
        false => format!("It is node {} of cluster {}\n", node.id(), node.cluster_id()),
    };
    output::print(&format!(
        "Ottla {} listens on {}\n{place}Its data is in {}\nTry: echo hello | ottla produce {topic}greetings\n     \
         ottla consume {topic}greetings\n",
        env!("CARGO_PKG_VERSION"),
        addresses.join(" and "),
        data.display(),
    ))
}

/// SIGTERM and SIGINT, remembered from the moment this exists.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> Result<StopSignals, Failure> {
        Ok(StopSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Ends when the process is asked to stop.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

/// Each connection and each open segment is a file descriptor; the soft limit of 1024 is for programs that use select.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files from {:?}", limit.current);
    }
}
