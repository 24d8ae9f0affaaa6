//! All nodes of a run, and what they say of themselves: who leads, who is the controller, whether all copies are there.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::admin::{self, View};
use super::disks::Disk;
use super::network::Network;
use super::node::{Node, Program};
use crate::broker::{Process, until};

/// How long a cluster may take to form, and a node to join it.
const FORM_PATIENCE: Duration = Duration::from_secs(90);
/// How long one of our commands may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(180);

pub(crate) struct Cluster {
    // Before the network, whose namespaces they are in.
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) program: Program,
    place: PathBuf,
    /// Whether each node has a file system of its own.
    own_disks: bool,
}

impl Cluster {
    /// Starts the first node and has the others join it.
    pub(crate) fn start(
        network: Network,
        count: usize,
        program: Program,
        place: &Path,
        own_disks: bool,
    ) -> Result<Cluster> {
        let mut cluster = Cluster { nodes: Vec::new(), network, program, place: place.to_owned(), own_disks };
        for index in 0..count {
            cluster.add_node()?;
            cluster.start_node(index)?;
            // Kafka's controllers know each other beforehand, and none is one alone.
            if index == 0 && !cluster.program.is_kafka {
                cluster.await_brokers(1)?;
            }
        }
        cluster.await_brokers(count)?;
        Ok(cluster)
    }

    /// One more machine. Its broker joins the first node once it is started.
    pub(crate) fn add_node(&mut self) -> Result<usize> {
        let index = self.network.add()?;
        let place = self.place.join(format!("node-{index}"));
        fs::create_dir_all(&place)?;
        let disk = if self.own_disks { Disk::new_loop(&place)? } else { Disk::Directory(place.clone()) };
        let join = (index > 0).then(|| self.network.address(0));
        self.nodes.push(Node::new(index, &place, disk, join)?);
        Ok(index)
    }

    pub(crate) fn node(&mut self, index: usize) -> Result<&mut Node> {
        self.nodes.get_mut(index).with_context(|| format!("there is no node {index}"))
    }

    pub(crate) fn start_node(&mut self, index: usize) -> Result<()> {
        let node = self.nodes.get_mut(index).with_context(|| format!("there is no node {index}"))?;
        node.start(&self.network, &self.program)
    }

    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes.get(*index).is_some_and(Node::is_running)).collect()
    }

    /// Asks one running node after the other until one answers.
    pub(crate) fn ask<T>(&self, ask: impl Fn(SocketAddr) -> Result<T>) -> Result<T> {
        let mut failure = anyhow!("no node runs");
        for index in self.running() {
            match ask(self.network.address(index)) {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = error.context(format!("asking node {index}")),
            }
        }
        Err(failure)
    }

    pub(crate) fn view(&self) -> Result<View> {
        self.ask(admin::view)
    }

    /// The node that listens there.
    pub(crate) fn at(&self, address: SocketAddr) -> Option<usize> {
        (0..self.nodes.len()).find(|index| self.network.address(*index) == address)
    }

    /// The node that has this number in the cluster.
    pub(crate) fn node_of(&self, view: &View, broker: i32) -> Option<usize> {
        self.at(*view.brokers.get(&broker)?)
    }

    /// The number a node has in the cluster.
    pub(crate) fn id_of(&self, view: &View, node: usize) -> Option<i32> {
        let address = self.network.address(node);
        view.brokers.iter().find(|(_, at)| **at == address).map(|(id, _)| *id)
    }

    /// The leader of the metadata log.
    pub(crate) fn controller(&self) -> Result<usize> {
        let id = self.ask(admin::controller)?;
        self.node_of(&self.view()?, id).with_context(|| format!("the controller is {id}, which is no node"))
    }

    /// Runs a command of ours against a node that answers; its output.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<String> {
        let bootstrap = self.ask(|address| admin::view(address).map(|_| address))?.to_string();
        let mut command = crate::libraries::command(&self.program.binary.to_string_lossy(), arguments);
        command.args(["-b", &bootstrap]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process(command.spawn()?);
        let (output, errors) = (process.0.stdout.take(), process.0.stderr.take());
        let output = std::thread::spawn(move || read(output));
        let errors = std::thread::spawn(move || read(errors));
        let ended = until(COMMAND_PATIENCE, || Ok(process.0.try_wait()?.is_some()))?;
        if !ended {
            bail!("ottla {}: no end after {COMMAND_PATIENCE:?}", arguments.join(" "));
        }
        let status = process.0.wait()?;
        let (output, errors) = (output.join().unwrap_or_default(), errors.join().unwrap_or_default());
        if !status.success() {
            bail!("ottla {}: {status}: {}", arguments.join(" "), errors.trim());
        }
        Ok(output)
    }

    /// Waits until so many brokers are there and not fenced.
    pub(crate) fn await_brokers(&self, count: usize) -> Result<()> {
        let mut last = String::new();
        let formed = until(FORM_PATIENCE, || {
            let found = self.view().map(|view| view.brokers.len());
            last = found.as_ref().map_or_else(|error| format!("{error:#}"), |found| format!("{found} are"));
            Ok(found.is_ok_and(|found| found >= count))
        })?;
        if !formed {
            bail!("{count} brokers are not there within {FORM_PATIENCE:?}: {last}; see {}", self.place.display());
        }
        Ok(())
    }

    /// Waits until every partition has a leader and all its copies in sync; says how long that took.
    pub(crate) fn await_whole(&self, patience: Duration) -> Result<Duration> {
        let began = Instant::now();
        let mut last = String::new();
        let is_whole = until(patience, || {
            match self.view() {
                Err(error) => last = format!("{error:#}"),
                Ok(view) => match view.partitions.iter().find(|partition| !partition.is_whole()) {
                    None => return Ok(true),
                    Some(part) => {
                        let (name, leader) = (part.name(), part.leader);
                        last = format!("{name}: leader {leader:?}, in sync {:?} of {:?}", part.isr, part.replicas);
                    }
                },
            }
            // A question costs both of us something.
            std::thread::sleep(Duration::from_millis(100));
            Ok(false)
        })?;
        if !is_whole {
            bail!("not all copies are in sync within {patience:?}: {last}");
        }
        Ok(began.elapsed())
    }

    /// Where each partition of these topics is led, and ends for readers, by its name.
    pub(crate) fn ends(&self, topics: &[&str]) -> Result<BTreeMap<String, (SocketAddr, i64)>> {
        let view = self.view()?;
        let mut ends = BTreeMap::new();
        for partition in view.partitions.iter().filter(|it| topics.contains(&it.topic.as_str())) {
            let name = partition.name();
            let leader = partition.leader.and_then(|id| view.brokers.get(&id)).copied();
            let leader = leader.with_context(|| format!("{name} has no leader"))?;
            let (_, end) = admin::ends(leader, &partition.topic, partition.index)?;
            ends.insert(name, (leader, end));
        }
        Ok(ends)
    }
}

fn read(output: Option<impl std::io::Read>) -> String {
    let mut said = Vec::new();
    if let Some(mut output) = output {
        // What could be read is all there is.
        let _ = output.read_to_end(&mut said);
    }
    String::from_utf8_lossy(&said).into_owned()
}
