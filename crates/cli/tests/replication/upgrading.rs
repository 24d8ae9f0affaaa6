//! Nodes of two versions as one cluster: a rolling upgrade under load, back and forth, up to the point of no return.

use std::{
    collections::HashMap,
    io::Write,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::{
    broker::{failure, ottla},
    cluster::{Cluster, Version, lines},
};

const TOPIC: &str = "t";

/// Somebody who writes with acks=all all the time, whichever nodes are there.
struct Writer {
    stop: Arc<AtomicBool>,
    /// What was acknowledged, and how often that was refused.
    written: JoinHandle<(Vec<String>, usize)>,
}

impl Writer {
    fn start(bootstrap: String) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let written = thread::spawn(move || {
            let (mut acknowledged, mut refused) = (Vec::new(), 0);
            for round in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let more = lines(&format!("{round:06}"), 20);
                let command = ["produce", TOPIC, "--bootstrap", &bootstrap];
                let mut child = ottla().args(command).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
                child.stdin.take().unwrap().write_all((more.join("\n") + "\n").as_bytes()).unwrap();
                if child.wait().unwrap().success() {
                    acknowledged.extend(more);
                } else {
                    refused += 1;
                }
            }
            (acknowledged, refused)
        });
        Writer { stop, written }
    }

    fn stop(self) -> (Vec<String>, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.written.join().unwrap()
    }
}

fn level(cluster: &Cluster) -> Option<i64> {
    cluster.status()?["level"].as_i64()
}

/// Tries to raise the level until that is refused with these words: a broker says what it supports in a while.
fn wait_refused(cluster: &Cluster, words: &str) {
    cluster.wait_until("an old node is named as the reason", |cluster| {
        let (code, said) = failure(&cluster.node(1).run(&["cluster", "upgrade"]));
        assert_eq!(code, Some(1), "there are old nodes: {said}");
        said.contains(words)
    });
}

#[test]
fn a_rolling_upgrade_goes_back_until_it_is_finalised_and_loses_nothing() {
    use Version::{New, Old};
    let mut cluster = Cluster::of_version(Old, 3);
    cluster.some().ok(&["topic", "create", TOPIC, "-r", "3", "-o", "min.insync.replicas=2"]);
    cluster.wait_in_sync(TOPIC, 3);
    let writer = Writer::start(cluster.bootstrap());

    cluster.restart_as(1, New, TOPIC);
    wait_refused(&cluster, "only supports levels 1 to 1");
    cluster.restart_as(2, New, TOPIC);
    cluster.restart_as(3, New, TOPIC);
    assert_eq!(level(&cluster), Some(1), "nobody has raised it");
    cluster.restart_as(2, Old, TOPIC);
    wait_refused(&cluster, "only supports levels 1 to 1");
    cluster.restart_as(2, New, TOPIC);

    let said = cluster.some().ok(&["cluster", "upgrade", "--dry-run"]);
    assert!(said.starts_with("The cluster can go from level 1 to level 2"), "{said}");
    assert_eq!(level(&cluster), Some(1), "only asked");
    cluster.some().ok(&["cluster", "upgrade"]);
    cluster.wait_until("the level is raised", |cluster| level(cluster) == Some(2));

    cluster.stop(3);
    let said = cluster.refusal(3);
    assert!(said.contains("The cluster is at level 2 of ottla.version"), "{said}");
    let said = cluster.refusal(4);
    assert!(said.contains("The cluster is at level 2 of ottla.version"), "{said}");
    assert!(said.contains("start the node with a version that supports level 2"), "{said}");
    assert!(!cluster.status().unwrap()["nodes"].to_string().contains("\"node\":4"), "it has no number");
    cluster.start_as(3, New);
    cluster.wait_in_sync(TOPIC, 3);

    let (acknowledged, refused) = writer.stop();
    assert!(acknowledged.len() >= 100, "{} records", acknowledged.len());
    let found = cluster.consume(cluster.node(3), TOPIC);
    let mut times: HashMap<&str, usize> = HashMap::new();
    found.iter().for_each(|line| *times.entry(line).or_default() += 1);
    let lost: Vec<&String> = acknowledged.iter().filter(|line| times.get(line.as_str()) != Some(&1)).collect();
    assert!(lost.is_empty(), "lost, or there twice, of {}: {lost:?}", acknowledged.len());
    assert_eq!(refused, 0, "a planned restart refuses nobody");
}
