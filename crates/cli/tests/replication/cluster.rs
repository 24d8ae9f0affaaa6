//! A cluster of processes on one machine, and what its tests ask it.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::broker::{Broker, failure, serve};

/// How long anything here may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Makes a broker serve no feature level above its value.
const LEVEL_LIMIT: &str = "OTTLA_MAX_FEATURE_LEVEL";

/// Nodes by number; one that was killed leaves its place empty, and its data.
pub(crate) struct Cluster {
    dir: TempDir,
    nodes: Vec<Option<Broker>>,
    addresses: Vec<String>,
    /// What each was told besides where it is.
    settings: Vec<Vec<String>>,
    /// What nodes are started as from now on.
    version: Version,
}

/// A version of the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// One that serves the first feature level alone.
    Old,
    /// The one that was built.
    New,
}

impl Cluster {
    /// A cluster of one node.
    pub(crate) fn found() -> Cluster {
        Cluster::found_by(Version::New, &[])
    }

    fn found_by(version: Version, settings: &[&str]) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Cluster { dir, nodes: Vec::new(), addresses: Vec::new(), settings: Vec::new(), version };
        cluster.add(None, settings);
        cluster
    }

    /// A cluster of `count` nodes, all of them at work.
    pub(crate) fn of(count: usize) -> Cluster {
        Cluster::with(&vec![&[][..]; count])
    }

    /// The same, of that version.
    pub(crate) fn of_version(version: Version, count: usize) -> Cluster {
        Cluster::of_nodes(version, &vec![&[][..]; count])
    }

    /// A cluster of nodes with settings of their own, `KEY=VALUE` each.
    pub(crate) fn with(settings: &[&[&str]]) -> Cluster {
        Cluster::of_nodes(Version::New, settings)
    }

    fn of_nodes(version: Version, settings: &[&[&str]]) -> Cluster {
        let mut cluster = Cluster::found_by(version, settings[0]);
        for settings in &settings[1..] {
            cluster.join_with(settings);
        }
        // Before that the loss of the first node is the loss of the metadata log.
        let count = if settings.len() == 2 { 1 } else { settings.len() };
        cluster.wait_until("all vote on the metadata log", |cluster| cluster.voters() == count);
        cluster
    }

    /// How many nodes vote on the metadata log.
    pub(crate) fn voters(&self) -> usize {
        let status = self.status().unwrap_or_default();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().filter(|node| node["voter"] == true).count()
    }

    /// One more node, which has joined when this returns. Its number.
    pub(crate) fn join(&mut self) -> usize {
        self.join_with(&[])
    }

    fn join_with(&mut self, settings: &[&str]) -> usize {
        let seed = self.some().address.clone();
        let number = self.add(Some(&seed), settings);
        self.wait_until(&format!("node {number} is in"), |cluster| cluster.live().contains(&(number as i64)));
        number
    }

    fn add(&mut self, seed: Option<&str>, settings: &[&str]) -> usize {
        let number = self.nodes.len() + 1;
        self.settings.push(settings.iter().flat_map(|pair| ["-o".to_owned(), (*pair).to_owned()]).collect());
        let join = seed.into_iter().flat_map(|seed| ["--join", seed]);
        let node = Broker::spawn(self.command(number, "127.0.0.1:0").args(join));
        self.addresses.push(node.address.clone());
        self.nodes.push(Some(node));
        number
    }

    /// Every address that a node of the cluster has or had.
    pub(crate) fn bootstrap(&self) -> String {
        self.addresses.join(",")
    }

    /// Stops a node, and starts it as that version. All are in sync again when this returns.
    pub(crate) fn restart_as(&mut self, number: usize, version: Version, topic: &str) {
        self.stop(number);
        self.start_as(number, version);
        self.wait_until("it is in again", |cluster| cluster.live().len() == cluster.nodes.len());
        self.wait_in_sync(topic, self.nodes.len());
    }

    /// What an old version says that must not come up: a node that was there, on its data, or a new one that joins.
    pub(crate) fn refusal(&mut self, number: usize) -> String {
        self.version = Version::Old;
        let mut command = self.command(number, "127.0.0.1:0");
        if number > self.nodes.len() {
            command.args(["--join", &self.some().address]);
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + DEADLINE;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
            }
            thread::park_timeout(LOOK_EVERY);
        }
        let output = child.wait_with_output().unwrap();
        let (code, said) = failure(&output);
        assert_eq!(code, Some(1), "{said}");
        said
    }

    fn command(&self, number: usize, listen: &str) -> Command {
        let mut command = serve(&self.data(number), listen);
        command.args(self.settings.get(number - 1).into_iter().flatten());
        if self.version == Version::Old {
            command.env(LEVEL_LIMIT, "1");
        }
        command
    }

    fn data(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("n{number}"))
    }

    /// A node that runs.
    pub(crate) fn some(&self) -> &Broker {
        self.nodes.iter().flatten().next().unwrap()
    }

    /// The node of that number, which runs.
    pub(crate) fn node(&self, number: usize) -> &Broker {
        self.nodes[number - 1].as_ref().unwrap()
    }

    /// The first segment of partition 0 of a topic on a node.
    pub(crate) fn log_of(&self, number: usize, topic: &str) -> PathBuf {
        let described = self.ask(&["topic", "describe", topic, "--json"]).unwrap();
        let id = described["id"].as_str().unwrap();
        self.data(number).join("topics").join(format!("{id}-0")).join("00000000000000000000.log")
    }

    /// Ends a node without a word.
    pub(crate) fn kill(&mut self, number: usize) {
        self.nodes[number - 1].take().unwrap().kill();
    }

    /// Asks a node to stop; it must end well.
    pub(crate) fn stop(&mut self, number: usize) {
        assert_eq!(self.nodes[number - 1].take().unwrap().stop(), Some(0), "node {number}");
    }

    /// Starts a node again that was killed or stopped, where it was.
    pub(crate) fn start(&mut self, number: usize) {
        let node = Broker::spawn(&mut self.command(number, &self.addresses[number - 1]));
        self.nodes[number - 1] = Some(node);
    }

    /// The same, as that version.
    pub(crate) fn start_as(&mut self, number: usize, version: Version) {
        self.version = version;
        self.start(number);
    }

    /// What a command says, as JSON; nothing if it failed.
    fn ask(&self, args: &[&str]) -> Option<Value> {
        let output = self.some().run(args);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// What `ottla cluster status` says.
    pub(crate) fn status(&self) -> Option<Value> {
        self.ask(&["cluster", "status", "--json"])
    }

    /// The numbers of the nodes that are not fenced.
    pub(crate) fn live(&self) -> Vec<i64> {
        let status = self.status().unwrap_or_default();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().filter(|node| node["fenced"] == false).filter_map(|node| node["node"].as_i64()).collect()
    }

    /// The node that leads the metadata log.
    pub(crate) fn controller(&self) -> Option<i64> {
        self.status()?["controller"].as_i64().filter(|id| *id > 0)
    }

    /// The partitions of a topic.
    pub(crate) fn partitions(&self, topic: &str) -> Vec<Value> {
        let described = self.ask(&["topic", "describe", topic, "--json"]).unwrap_or_default();
        described["partitions"].as_array().cloned().unwrap_or_default()
    }

    /// The node that leads partition 0 of a topic.
    pub(crate) fn leader(&self, topic: &str) -> Option<usize> {
        let partitions = self.partitions(topic);
        usize::try_from(partitions.first()?["leader"].as_i64()?).ok()
    }

    /// Waits until every partition of the topic has `count` replicas in sync.
    pub(crate) fn wait_in_sync(&self, topic: &str, count: usize) {
        self.wait_until(&format!("{count} replicas of {topic} are in sync"), |cluster| {
            let partitions = cluster.partitions(topic);
            let in_sync = |partition: &Value| partition["isr"].as_array().is_some_and(|isr| isr.len() == count);
            !partitions.is_empty() && partitions.iter().all(in_sync)
        });
    }

    /// Waits for a condition; a test fails that waits too long.
    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn(&Cluster) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "not in time: {what}; {:?}", self.status());
            // Each look is a process of its own, which takes time from the nodes.
            thread::park_timeout(LOOK_EVERY);
        }
    }

    /// Writes lines to a topic with acks=all, through a node.
    pub(crate) fn produce(&self, node: &Broker, topic: &str, lines: &[String]) {
        node.ok_with(&["produce", topic], (lines.join("\n") + "\n").as_bytes());
    }

    /// All that a topic holds, sorted, through a node.
    pub(crate) fn consume(&self, node: &Broker, topic: &str) -> Vec<String> {
        let mut lines: Vec<String> = node.ok(&["consume", topic]).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

/// `count` lines that are told apart, and sort as they count.
pub(crate) fn lines(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number:06}")).collect()
}
