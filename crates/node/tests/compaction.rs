//! Compaction as the node drives it: which logs are cleaned without anybody's asking, and which are left alone.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::{path::PathBuf, sync::Arc};

use common::*;
use ottla_log::{Disk, SimDisk};
use ottla_node::Partition;
use ottla_records::{BatchBuilder, BatchHeader, Compression, ProducedBatch};
use ottla_types::{Offset, Timestamp};

const NOW_MS: i64 = 1_700_000_000_000;
const QUICK: (&str, &str) = ("log.cleaner.backoff.ms", "20");
/// Every batch closes the segment of the one before.
const CLOSING: [(&str, &str); 3] =
    [("cleanup.policy", "compact"), ("segment.ms", "1"), ("min.cleanable.dirty.ratio", "0.01")];

fn keyed(timestamp: i64, key: &str, value: &str) -> ProducedBatch {
    let mut builder = BatchBuilder::new(Compression::Zstd, None);
    builder.push(Timestamp(timestamp), Some(key.as_bytes()), Some(value.as_bytes()), &[]).unwrap();
    let bytes = builder.build().unwrap();
    ProducedBatch { header: BatchHeader::parse(&bytes).unwrap(), bytes }
}

/// Twenty records of two keys, an hour old, in a segment each but for the last.
fn fill(partition: &Arc<Partition>) {
    for number in 0..20 {
        let timestamp = NOW_MS - 3_600_000 + number * 10;
        append(partition, &keyed(timestamp, &format!("{}", number % 2), &number.to_string())).unwrap();
    }
    assert!(wait_acknowledged(partition, Offset(20)));
}

fn values(partition: &Partition) -> Vec<String> {
    read_all(partition).into_iter().map(|(_, value)| value).collect()
}

#[test]
fn a_dirty_log_is_cleaned_up_to_its_active_segment() {
    let node = open_with(&SimDisk::new(1), &[QUICK]);
    create(&node, "t", 1, &CLOSING);
    let partition = partition(&node, "t", 0);
    fill(&partition);
    eventually("cleaned", || values(&partition) == ["17", "18", "19"]);
    assert_eq!(partition.extent().unwrap().log_end, Offset(20));
    node.shut_down().unwrap();
}

#[test]
fn a_log_that_is_not_compacted_or_below_its_ratio_keeps_everything() {
    let node = open_with(&SimDisk::new(1), &[QUICK]);
    create(&node, "cleaned", 1, &CLOSING);
    create(&node, "deleted", 1, &[("segment.ms", "1"), ("retention.ms", "-1")]);
    create(&node, "kept", 1, &[("cleanup.policy", ""), ("segment.ms", "1"), ("retention.ms", "1")]);
    create(&node, "patient", 1, &[CLOSING[0], CLOSING[1], ("min.compaction.lag.ms", "7200000")]);
    create(&node, "tolerant", 1, &[CLOSING[0], CLOSING[1], ("min.cleanable.dirty.ratio", "1")]);
    let others = ["deleted", "kept", "patient", "tolerant"].map(|name| partition(&node, name, 0));
    others.iter().for_each(fill);
    let cleaned = partition(&node, "cleaned", 0);
    fill(&cleaned);
    eventually("cleaned", || values(&cleaned) == ["17", "18", "19"]);
    assert!(others.iter().all(|partition| values(partition).len() == 20));
    node.shut_down().unwrap();
}

#[test]
fn a_record_does_not_wait_longer_than_its_lag_for_a_segment_to_fill() {
    let node = open_with(&SimDisk::new(1), &[QUICK]);
    let lag = [CLOSING[0], ("max.compaction.lag.ms", "600000"), ("min.cleanable.dirty.ratio", "1")];
    create(&node, "t", 1, &lag);
    let partition = partition(&node, "t", 0);
    fill(&partition);
    eventually("rolled and cleaned", || values(&partition) == ["18", "19"]);
    node.shut_down().unwrap();
}

#[test]
fn a_dirty_log_that_nobody_opens_is_cleaned_after_a_restart() {
    let disk = SimDisk::new(1);
    let node = open_with(&disk, &[("log.cleaner.enable", "false")]);
    create(&node, "t", 1, &CLOSING);
    create(&node, "empty", 1, &CLOSING);
    let filled = partition(&node, "t", 0);
    fill(&filled);
    assert_eq!(values(&filled).len(), 20);
    let dirs = [&filled, &partition(&node, "empty", 0)]
        .map(|partition| PathBuf::from("/data/topics").join(format!("{}-0", partition.topic())));
    node.shut_down().unwrap();
    drop((node, filled));
    let node = open_with(&disk, &[QUICK]);
    eventually("cleaned", || disk.exists(&dirs[0].join("cleaned")).unwrap());
    assert!(!disk.exists(&dirs[1]).unwrap(), "a log that was never written to is not made for it");
    let cleaned = partition(&node, "t", 0);
    eventually("cleaned", || values(&cleaned) == ["17", "18", "19"]);
    node.shut_down().unwrap();
    // And stays so.
    let node = open_with(&disk.fork(), &[("log.cleaner.enable", "false")]);
    assert_eq!(values(&partition(&node, "t", 0)), ["17", "18", "19"]);
    node.shut_down().unwrap();
}

#[test]
fn l5_a_log_that_cannot_be_cleaned_serves_on_and_keeps_no_other_from_it() {
    let disk = SimDisk::new(1);
    let node = open_with(&disk, &[("log.cleaner.enable", "false")]);
    for name in ["rotten", "sound"] {
        create(&node, name, 1, &CLOSING);
        fill(&partition(&node, name, 0));
    }
    let dir = PathBuf::from("/data/topics").join(format!("{}-0", partition(&node, "rotten", 0).topic()));
    node.shut_down().unwrap();
    drop(node);
    assert!(disk.flip_bit(&dir.join("00000000000000000000.log"), 65, 0));
    let node = open_with(&disk, &[QUICK]);
    let sound = partition(&node, "sound", 0);
    eventually("cleaned", || values(&sound) == ["17", "18", "19"]);
    let rotten = partition(&node, "rotten", 0);
    assert!(append(&rotten, &keyed(NOW_MS, "a", "b")).is_ok());
    assert!(wait_acknowledged(&rotten, Offset(21)));
    assert!(!disk.list(&dir).unwrap().iter().any(|name| name.starts_with("cleaned") || name.ends_with(".cleaned")));
    node.shut_down().unwrap();
}
