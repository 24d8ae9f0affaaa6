//! `ottla serve`: settings in, a running broker until a signal comes.
//!
//! Not here: what the settings are (`settings.rs`), what the broker does (`ottla_broker`, `ottla_node`).

use std::{
    net::TcpListener,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use ottla_broker::{Bound, Broker, ListenerConfig, Options};
use ottla_log::OsDisk;
use ottla_node::{DirectoryLock, Node, NodeConfig};
use ottla_types::Timestamp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    failure::Failure,
    logging, output,
    settings::{Listener, ServeArgs, ServeSettings},
};

pub(crate) const EXAMPLES: &str = "\
Examples:
  ottla serve
  ottla serve --listen 0.0.0.0:9092 --advertise kafka.example.org:9092 --data /var/lib/ottla
  ottla serve -o num.partitions=3 -o log.retention.hours=24
  ottla serve --config server.properties

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
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: ServeSettings) -> Result<(), Failure> {
    let _lock = DirectoryLock::take(&settings.data).map_err(Failure::failed)?;
    let listeners: Vec<ListenerConfig> = settings
        .listeners
        .iter()
        .map(|listener| ListenerConfig {
            name: listener.name.clone(),
            addresses: listener.addresses.clone(),
            advertised: listener.advertised.clone(),
        })
        .collect();
    // From here on whoever asks us to stop gets an orderly end.
    let mut stop = StopSignals::new()?;
    // Bound before the data is touched: a port in use must not cost a recovery.
    let bound = Bound::bind(&listeners).map_err(Failure::failed)?;
    let node = Node::open(NodeConfig {
        disk: Arc::new(OsDisk::new()),
        dir: settings.data.clone(),
        node_id: settings.node_id,
        rack: settings.rack.clone(),
        listeners: registered(&settings),
        settings: settings.configs.clone(),
        clock: Arc::new(wall_clock),
        entropy: Box::new(|| uuid::Uuid::new_v4().into_bytes()),
    })
    .map_err(Failure::failed)?;
    banner(&settings, &bound.addresses())?;
    let broker = Broker::new(Arc::clone(&node), Options::of(&node.broker_config()));
    let serving = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move { broker.serve(bound).await }
    });
    stop.asked().await;
    broker.stop();
    serving.await.map_err(Failure::failed)?;
    node.shut_down().map_err(Failure::failed)
}

/// The listeners as the cluster knows them. One without an advertised address has as many as clients find it under; the
/// first it binds stands for all.
fn registered(settings: &ServeSettings) -> Vec<ottla_metadata::Listener> {
    const PLAINTEXT: i16 = 0;
    let endpoint = |listener: &Listener| {
        let bound = || listener.addresses.first().map(|address| (address.ip().to_string(), address.port()));
        let (host, port) = listener.advertised.clone().or_else(bound)?;
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
fn banner(settings: &ServeSettings, bound: &[std::net::SocketAddr]) -> Result<(), Failure> {
    let addresses: Vec<String> = bound.iter().map(ToString::to_string).collect();
    let data = std::fs::canonicalize(&settings.data).unwrap_or_else(|_| settings.data.clone());
    let topic = match bound.first() {
        Some(address) if address.port() != 9092 => format!("-b localhost:{} ", address.port()),
        _ => String::new(),
    };
    output::print(&format!(
        "Ottla {} listens on {}\nIts data is in {}\nTry: echo hello | ottla produce {topic}greetings\n     \
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
