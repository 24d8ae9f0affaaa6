//! `cargo xtask failover`: how long writes are away when a leader is killed, and when each node is restarted in order.
//!
//! Three real nodes on addresses of the loopback, so that no root is needed; a topic with three copies of which two
//! must be in sync; and clients that write to every partition every 20 ms with `acks=all` and retries: Ottla's own
//! (`failover/writer.rs`) and those people use (`compat/torture`). Round by round a node that leads partitions, every
//! other time one that is the controller as well, is killed, and started again once all clients write. Then the nodes
//! are stopped and started in turn. In the end all is read, and judged as after a torture. The figures are worked out
//! from what the clients said (`failover/figures.rs`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;

use self::figures::{Kill, Report, Restart, Victim};
use self::writer::Writer;
use crate::broker::{Subject, until};
use crate::torture::admin;
use crate::torture::checker::history::Process;
use crate::torture::checker::{self, Limits};
use crate::torture::clients::{Client, LIBRARIES, Load, Role, Story, now};
use crate::torture::cluster::Cluster;
use crate::torture::network::Network;
use crate::torture::node::Program;
use crate::torture::{self, run::finish, run::read, run::read_everything};

mod figures;
mod writer;

const NODES: usize = 3;
const TOPIC: &str = "failover";
/// How long writes may take to be back, and copies to be in sync.
const PATIENCE: Duration = Duration::from_secs(120);
/// Each client has had so many acknowledgements in each partition before the next thing happens: half a second, and
/// more than what could be under way.
const STEADY: u64 = 25;
/// The moment of a kill is somewhere in this, so that it meets every phase of what comes in intervals.
const SPREAD_MS: u64 = 500;
/// The name of our own client.
const OWN: &str = "ottla";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often a leader is killed
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// How often each node is restarted in order
    #[arg(long, default_value_t = 10)]
    restarts: u32,
    /// Partitions of the topic
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    partitions: u32,
    /// Who writes: ottla, go (franz-go), python (librdkafka), java
    #[arg(long, value_name = "CLIENT", value_delimiter = ',', default_values = [OWN, "go", "python", "java"])]
    clients: Vec<String>,
    /// Start of everything random; by default taken from the clock, and printed
    #[arg(long)]
    seed: Option<u64>,
    /// The broker: `PATH serve --data DIR --listen IP:PORT [--join IP:PORT]`
    #[arg(long, value_name = "PATH", default_value = "target/release/ottla")]
    binary: PathBuf,
    /// Three nodes of Apache Kafka instead, to compare with
    #[arg(long, conflicts_with = "binary")]
    kafka: bool,
    /// A setting of every broker
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    option: Vec<String>,
    /// Where the history and what everybody said is kept; by default in a temporary directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let binary = if arguments.kafka { Path::new(torture::KAFKA) } else { &arguments.binary };
    Subject::of(binary).check()?;
    ensure!(arguments.rounds > 0 || arguments.restarts > 0, "no rounds and no restarts measure nothing");
    fs::create_dir_all(torture::CACHE)?;
    let cache = fs::canonicalize(torture::CACHE)?;
    let (libraries, left_out) = libraries(arguments, &cache)?;
    let temporary = std::env::temp_dir().join(format!("ottla-failover-{}", std::process::id()));
    let place = arguments.out.clone().unwrap_or(temporary);
    fs::create_dir_all(&place)?;
    let place = fs::canonicalize(place)?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{} kills and {} restarts of each node, --seed {seed}", arguments.rounds, arguments.restarts);

    let program = Program {
        binary: fs::canonicalize(binary)?,
        is_kafka: arguments.kafka,
        settings: arguments.option.clone(),
        faketime: None,
    };
    let cluster = Cluster::start(Network::loopback()?, NODES, program, &place, false)?;
    let story = Arc::new(Mutex::new(Story::create(&place.join("history"))?));
    let mut course = Course {
        arguments,
        cluster,
        story,
        random: fastrand::Rng::with_seed(seed),
        own: None,
        clients: Vec::new(),
        names: Vec::new(),
    };
    course.begin(&cache, &place, &libraries)?;
    let kills = course.kill_leaders()?;
    let restarts = course.restart_nodes()?;
    let names = course.names.clone();
    course.end()?;

    let history = read(&place.join("history"))?;
    let verdict = checker::check(&history, Limits::default());
    let broker = if arguments.kafka { "Apache Kafka" } else { "Ottla" }.to_owned();
    let report = Report::of(&history, &verdict, &names, &kills, &restarts);
    let report = Report { seed, broker, left_out, ..report };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    if !report.is_good() {
        eprintln!("FAILED, --seed {seed}; what everybody said is in {}", place.display());
        return Ok(ExitCode::FAILURE);
    }
    if arguments.out.is_none() {
        fs::remove_dir_all(&place)?;
    }
    Ok(if report.left_out.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// The places of the libraries that are asked for and are there, and why the others are not.
fn libraries(arguments: &Arguments, cache: &Path) -> Result<(Vec<usize>, Vec<String>)> {
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    for name in arguments.clients.iter().filter(|name| *name != OWN) {
        let at = LIBRARIES.iter().position(|library| library.name == name);
        let at = at.with_context(|| format!("there is no client {name}"))?;
        match LIBRARIES[at].prepare(cache) {
            Ok(()) => found.push(at),
            Err(error) => left_out.push(format!("{name}: {error:#}")),
        }
    }
    left_out.iter().for_each(|left_out| eprintln!("left out: {left_out}"));
    Ok((found, left_out))
}

/// A cluster that is written to.
struct Course<'a> {
    arguments: &'a Arguments,
    cluster: Cluster,
    story: Arc<Mutex<Story>>,
    random: fastrand::Rng,
    own: Option<Writer>,
    clients: Vec<Client>,
    /// Of all clients, by their numbers in the history.
    names: Vec<(Process, &'static str)>,
}

impl Course<'_> {
    /// The topic, and clients that write to all of it.
    fn begin(&mut self, cache: &Path, place: &Path, libraries: &[usize]) -> Result<()> {
        let partitions = i32::try_from(self.arguments.partitions)?;
        let copies = i16::try_from(NODES)?;
        let configs = [("min.insync.replicas", "2"), ("retention.ms", "-1")];
        self.cluster.ask(|at| admin::create_topic(at, TOPIC, (partitions, copies), &configs))?;
        self.cluster.await_whole(PATIENCE)?;
        let addresses: Vec<_> = (0..NODES).map(|node| self.cluster.network.address(node).to_string()).collect();
        let load = Load {
            cache,
            place,
            bootstrap: addresses.join(","),
            topics: TOPIC.to_owned(),
            partitions,
            group: "",
            story: Arc::clone(&self.story),
        };
        for library in libraries {
            self.clients.push(Client::start(&load, *library, Role::Produce)?);
            self.names.push((Process::try_from(*library)?, LIBRARIES[*library].name));
        }
        if self.arguments.clients.iter().any(|name| name == OWN) {
            let process = Process::try_from(LIBRARIES.len())?;
            self.names.insert(0, (process, OWN));
            self.own = Some(Writer::start(writer::Load {
                bootstrap: addresses,
                topic: TOPIC,
                partitions: self.arguments.partitions,
                process,
                // Apart from those of the libraries, which begin at hundreds.
                first: process * 1000,
                story: Arc::clone(&self.story),
            }));
        }
        ensure!(!self.names.is_empty(), "there is nobody who writes");
        Ok(())
    }

    fn kill_leaders(&mut self) -> Result<Vec<Kill>> {
        let mut kills = Vec::new();
        for round in 1..=self.arguments.rounds {
            self.settle().with_context(|| format!("before kill {round}"))?;
            thread::sleep(Duration::from_millis(self.random.u64(..SPREAD_MS)));
            let (node, mut kill) = self.choose(round.is_multiple_of(2))?;
            kill.began = now();
            self.cluster.node(node)?.kill()?;
            kill.gone = now();
            let writes = self.await_writes().with_context(|| format!("kill {round}, of node {node}"))?;
            self.cluster.start_node(node)?;
            let (victim, led) = (kill.victim, kill.led.len());
            self.tell(&format!("kill {round}: node {node}, {victim:?} of {led}; all wrote {writes:.1?} later"))?;
            kills.push(kill);
        }
        Ok(kills)
    }

    /// A node that leads, if there is one of the two kinds.
    fn choose(&mut self, controller: bool) -> Result<(usize, Kill)> {
        let (view, at) = (self.cluster.view()?, self.cluster.controller()?);
        let mut led: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for partition in view.partitions.iter().filter(|partition| partition.topic == TOPIC) {
            let leader = partition.leader.and_then(|leader| self.cluster.node_of(&view, leader));
            led.entry(leader.context("a partition has no leader")?).or_default().push(partition.name());
        }
        let wanted: Vec<usize> = led.keys().copied().filter(|node| (*node == at) == controller).collect();
        let all: Vec<usize> = led.keys().copied().collect();
        let from = if wanted.is_empty() { &all } else { &wanted };
        let node = *self.random.choice(from).context("nobody leads")?;
        let victim = if node == at { Victim::LeaderAndController } else { Victim::Leader };
        Ok((node, Kill { victim, began: 0, gone: 0, led: led.remove(&node).unwrap_or_default() }))
    }

    fn restart_nodes(&mut self) -> Result<Vec<Restart>> {
        let mut restarts = Vec::new();
        for round in 1..=self.arguments.restarts {
            for node in 0..NODES {
                self.settle().with_context(|| format!("before restart {round} of node {node}"))?;
                let began = now();
                self.cluster.node(node)?.terminate()?;
                self.cluster.start_node(node)?;
                self.settle().with_context(|| format!("restart {round} of node {node}"))?;
                let restart = Restart { began, ended: now() };
                let seconds = Duration::from_micros(restart.ended - began);
                self.tell(&format!("restart {round} of node {node}: all in sync and written to {seconds:.1?} later"))?;
                restarts.push(restart);
            }
        }
        Ok(restarts)
    }

    /// Waits until all nodes are there, all copies in sync, and all clients write.
    fn settle(&mut self) -> Result<()> {
        self.cluster.await_brokers(NODES)?;
        self.cluster.await_whole(PATIENCE)?;
        self.await_writes()?;
        Ok(())
    }

    /// Waits until every client has written to every partition for a while; says how long that took.
    fn await_writes(&mut self) -> Result<Duration> {
        let (began, before) = (Instant::now(), self.story.lock().acknowledged_to());
        let mut missing = String::new();
        let are_back = until(PATIENCE, || {
            for client in &mut self.clients {
                if let Some(ended) = client.ended_by_itself()? {
                    bail!("{ended}");
                }
            }
            if self.own.as_ref().is_some_and(Writer::has_ended) {
                return Ok(true);
            }
            for node in &mut self.cluster.nodes {
                if let Some(ended) = node.ended_by_itself()? {
                    bail!("{ended}");
                }
            }
            let after = self.story.lock().acknowledged_to();
            let partitions = (0..self.arguments.partitions).map(|partition| format!("{TOPIC}-{partition}"));
            let all = partitions.flat_map(|key| self.names.iter().map(move |(process, _)| (*process, key.clone())));
            missing = all
                .filter(|key| after.get(key).unwrap_or(&0) < &(before.get(key).unwrap_or(&0) + STEADY))
                .map(|(process, key)| format!("{process} in {key}"))
                .collect::<Vec<_>>()
                .join(", ");
            Ok(missing.is_empty())
        })?;
        if self.own.as_ref().is_some_and(Writer::has_ended) {
            let own = self.own.take().context("there is no client")?;
            own.finish()?;
            bail!("{OWN} ended by itself");
        }
        ensure!(are_back, "after {PATIENCE:?} these do not write: {missing}");
        Ok(began.elapsed())
    }

    /// Has everybody finish, and reads everything.
    fn end(mut self) -> Result<()> {
        self.settle()?;
        let mut failures = Vec::new();
        finish(std::mem::take(&mut self.clients), &mut failures);
        ensure!(failures.is_empty(), "{}", failures.join("; "));
        self.own.take().map(Writer::finish).transpose()?;
        let mut story = self.story.lock();
        read_everything(&self.cluster, &[TOPIC], &mut story)?;
        story.flush()
    }

    fn tell(&self, words: &str) -> Result<()> {
        eprintln!("{words}");
        self.story.lock().note(&format!("{} {words}", now()))
    }
}
