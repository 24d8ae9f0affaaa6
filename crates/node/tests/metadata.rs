//! What the cluster agreed on outlives the log it was written in: snapshots replace it, and a power cut at any of their
//! steps loses nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;

use common::{create, open, partition, produce, read_all};
use ottla_log::{Disk, SimDisk};
use ottla_node::Node;
use ottla_types::Offset;

const METADATA: &str = "/data/metadata";

fn names(disk: &SimDisk, ending: &str) -> Vec<String> {
    let mut names: Vec<_> =
        disk.list(Path::new(METADATA)).unwrap().into_iter().filter(|name| name.ends_with(ending)).collect();
    names.sort();
    names
}

/// Creates topics until there is another snapshot than `known`.
fn create_until_snapshot(disk: &SimDisk, node: &Node, prefix: &str, known: &[String]) {
    for number in 0.. {
        create(node, &format!("{prefix}-{number}"), 5000, &[]);
        if names(disk, ".snapshot") != known {
            return;
        }
        assert!(number < 100, "the log grows and no snapshot is taken");
    }
}

#[test]
fn m3_a_snapshot_replaces_the_log_and_the_snapshot_before_it() {
    let disk = SimDisk::new(1);
    let node = open(&disk);
    create(&node, "kept", 1, &[("retention.ms", "1234567")]);
    produce(&partition(&node, "kept", 0), "record");
    create_until_snapshot(&disk, &node, "first", &[]);
    let first = names(&disk, ".snapshot");
    assert_eq!(first.len(), 1);
    assert!(!names(&disk, ".log").contains(&format!("{:020}.log", 0)), "what the snapshot holds is gone from the log");
    create(&node, "after", 1, &[]);
    create_until_snapshot(&disk, &node, "second", &first);
    assert_eq!(names(&disk, ".snapshot").len(), 1, "the older snapshot goes when the newer has been read back");

    let before = node.image();
    let again = open(&disk.crash());
    let after = again.image();
    assert_eq!(after.topics().count(), before.topics().count());
    for topic in before.topics() {
        let found = after.topic(topic.id).unwrap();
        assert_eq!((&found.name, &found.overrides), (&topic.name, &topic.overrides));
        assert_eq!(found.partitions.len(), topic.partitions.len());
    }
    assert_eq!(after.next_producer_id(), before.next_producer_id());
    assert_eq!(read_all(&partition(&again, "kept", 0)), [(Offset(0), "record".into())]);
}

#[test]
fn m3_a_power_cut_around_a_snapshot_forgets_no_topic() {
    for seed in 0..4 {
        let disk = SimDisk::new(seed);
        let node = open(&disk);
        create_until_snapshot(&disk, &node, "t", &[]);
        create(&node, "last", 1, &[]);
        let known: Vec<_> = node.image().topics().map(|topic| topic.name.clone()).collect();
        // Twice, so that what the first start made of the disk is cut as well.
        let survivor = disk.crash();
        drop(open(&survivor));
        let again = open(&survivor.crash());
        let found: Vec<_> = again.image().topics().map(|topic| topic.name.clone()).collect();
        assert_eq!(found, known, "seed {seed}");
    }
}
