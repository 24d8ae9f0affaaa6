//! A cluster of processes on one machine, and what its tests ask it.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::broker::Broker;

/// How long anything here may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Nodes by number; one that was killed leaves its place empty, and its data.
pub(crate) struct Cluster {
    dir: TempDir,
    nodes: Vec<Option<Broker>>,
    addresses: Vec<String>,
}

impl Cluster {
    /// A cluster of one node.
    pub(crate) fn found() -> Cluster {
        let mut cluster = Cluster { dir: tempfile::tempdir().unwrap(), nodes: Vec::new(), addresses: Vec::new() };
        cluster.add("127.0.0.1:0", &[]);
        cluster
    }

    /// A cluster of `count` nodes, all of them at work.
    pub(crate) fn of(count: usize) -> Cluster {
        let mut cluster = Cluster::found();
        for _ in 1..count {
            cluster.join();
        }
        // Before that the loss of the first node is the loss of the metadata log.
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
        let seed = self.some().address.clone();
        let number = self.add("127.0.0.1:0", &["--join", &seed]);
        self.wait_until(&format!("node {number} is in"), |cluster| cluster.live().contains(&(number as i64)));
        number
    }

    fn add(&mut self, listen: &str, more: &[&str]) -> usize {
        let number = self.nodes.len() + 1;
        let node = Broker::start(&self.data(number), listen, more);
        self.addresses.push(node.address.clone());
        self.nodes.push(Some(node));
        number
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
        let node = Broker::start(&self.data(number), &self.addresses[number - 1], &[]);
        self.nodes[number - 1] = Some(node);
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
