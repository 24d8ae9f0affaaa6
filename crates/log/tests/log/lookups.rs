//! What it costs to find an offset or a time: the index is there, wherever a log comes from, and it is used.
//!
//! That what is found is right is shown by `check_indexes` all over these tests; it would be without any index.

use ottla_log::{CleanSettings, Disk, Log, LogConfig, SimDisk};
use ottla_records::{BatchBuilder, Compression};
use ottla_types::{Offset, Timestamp};
use parking_lot::Mutex;

use crate::common::*;

const BATCHES: i64 = 4200;
/// Some entries of the index, and the headers between two of them.
const LOOKUP_BYTES_MAX: u64 = 24 << 10;

/// Two segments of more than a thousand entries each, and one that is written to.
fn config() -> LogConfig {
    LogConfig { segment_bytes: 512 << 10, index_interval_bytes: 256, ..small() }
}

/// Batches of two records, 10 ms apart.
fn fill(log: &mut Log, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let mut builder = BatchBuilder::new(Compression::None, None);
        for half in 0..2 {
            let key = format!("key {number} {half}");
            let timestamp = Timestamp(NOW.0 + number * 10 + half);
            builder.push(timestamp, Some(key.as_bytes()), Some(&[b'v'; 80]), &[]).unwrap();
        }
        append(log, stored(builder));
    }
}

fn filled(sim: &SimDisk) -> Log {
    let (mut log, _) = open(sim, config(), None);
    fill(&mut log, 0..BATCHES);
    assert!((2 << 19..3 << 19).contains(&log.size_in_bytes()), "{}", log.size_in_bytes());
    log
}

/// Every offset and every time is found, and after the first time that costs little.
fn assert_lookups_are_cheap(sim: &SimDisk, log: &Log, what: &str) {
    let (reader, upto) = (log.reader(), log.reader().end());
    let find = |number: i64| {
        let offset = Offset(number * 2 + 1);
        let before = sim.stats().bytes_read;
        let plan = reader.read(offset, upto, 1, true).unwrap();
        assert_eq!(plan.first_batch_offset, Offset(number * 2), "{what}");
        let by_offset = sim.stats().bytes_read - before;
        let time = Timestamp(NOW.0 + number * 10 + 1);
        let found = reader.find_by_timestamp(time, upto).unwrap();
        assert_eq!(found.map(|(offset, at, _)| (offset, at)), Some((offset, time)), "{what}");
        (by_offset, sim.stats().bytes_read - before - by_offset)
    };
    let last = log.end().offset.0 / 2 - 1;
    let numbers = || (0..=last).step_by(131).chain([0, 1, last - 1, last]);
    numbers().for_each(|number| {
        find(number);
    });
    for number in numbers() {
        let (by_offset, by_time) = find(number);
        assert!(by_offset <= LOOKUP_BYTES_MAX, "{what}: {by_offset} bytes for offset {}", number * 2);
        assert!(by_time <= LOOKUP_BYTES_MAX, "{what}: {by_time} bytes for the time of offset {}", number * 2);
    }
}

#[test]
fn a_lookup_reads_little_wherever_the_log_comes_from() {
    let sim = SimDisk::new(1);
    let mut log = filled(&sim);
    assert_lookups_are_cheap(&sim, &log, "as it was written");
    let mut follower_sim = SimDisk::new(2);
    let (mut follower, _) = open(&follower_sim, config(), None);
    while follower.end().offset < log.end().offset {
        let plan = log.reader().read(follower.end().offset, log.end(), 20_000, true).unwrap();
        follower.append_as_follower(&plan.read().unwrap(), NOW).unwrap();
    }
    assert_lookups_are_cheap(&follower_sim, &follower, "as it was copied");
    sync(&mut follower);
    follower.truncate(Offset(BATCHES)).unwrap();
    assert_lookups_are_cheap(&follower_sim, &follower, "as it was cut");
    sync(&mut follower);
    follower_sim = follower_sim.crash();
    let (follower, recovered) = open(&follower_sim, config(), None);
    assert_eq!(recovered.damaged, None);
    assert_lookups_are_cheap(&follower_sim, &follower, "as it was recovered");

    log.close_clean().unwrap();
    let checkpoint = Some(log.checkpoint());
    drop(log);
    let (log, _) = open(&sim, config(), checkpoint.clone());
    assert_lookups_are_cheap(&sim, &log, "as it was closed");
    drop(log);
    // The index of the first segment is gone and that of the second spoilt: they are built again, once.
    let second = sim.list(&dir()).unwrap().into_iter().filter(|name| name.ends_with(".index")).nth(1).unwrap();
    sim.remove(&segment_path(0, ".index")).unwrap();
    assert!(sim.flip_bit(&dir().join(second), 70, 2));
    let (log, _) = open(&sim, config(), checkpoint);
    assert_lookups_are_cheap(&sim, &log, "as its indexes were built again");
}

#[test]
fn a_lookup_reads_little_in_a_log_that_goes_on_after_a_start() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, config(), None);
    fill(&mut log, 0..1500);
    log.close_clean().unwrap();
    let checkpoint = Some(log.checkpoint());
    let (mut log, _) = open(&sim, config(), checkpoint.clone());
    fill(&mut log, 1500..1600);
    assert_lookups_are_cheap(&sim, &log, "as it goes on after a clean end");
    drop(log);
    let (mut log, recovered) = open(&sim, config(), checkpoint);
    assert!((1..100 << 10).contains(&recovered.scanned_bytes), "{recovered:?}");
    assert_lookups_are_cheap(&sim, &log, "as it was recovered from its checkpoint on");
    fill(&mut log, 1600..1650);
    assert_lookups_are_cheap(&sim, &log, "as it goes on after that");
}

#[test]
fn a_lookup_reads_little_in_what_compaction_wrote() {
    let sim = SimDisk::new(1);
    let mut log = filled(&sim);
    // Something to do in the first segment.
    let mut again = BatchBuilder::new(Compression::None, None);
    for (half, key) in [(0, "key 100 1"), (1, "another")] {
        let timestamp = Timestamp(NOW.0 + BATCHES * 10 + half);
        again.push(timestamp, Some(key.as_bytes()), Some(b"v"), &[]).unwrap();
    }
    append(&mut log, stored(again));
    log.roll(NOW).unwrap();
    sync(&mut log);
    let settings = CleanSettings { now: NOW, min_lag_ms: 0, delete_retention_ms: 1000, map_bytes: 1 << 20 };
    let plan = log.plan_clean(log.checkpoint().recovery_point.segment).unwrap();
    let shared = Mutex::new(&mut log);
    let done = plan.run(&settings, &mut |_| true, &|work| {
        work(&mut shared.lock());
        true
    });
    let done = done.unwrap();
    assert!(done.after < done.before);
    assert_lookups_are_cheap(&sim, &log, "as it was cleaned");
}

#[test]
fn an_index_has_about_an_entry_for_each_interval() {
    let sim = SimDisk::new(1);
    let mut log = filled(&sim);
    log.close_clean().unwrap();
    let sizes = |ending: &str| {
        let names = sim.list(&dir()).unwrap().into_iter().filter(|name| name.ends_with(ending));
        names.map(|name| sim.read_file(&dir().join(name)).unwrap().len()).collect::<Vec<_>>()
    };
    // An entry comes with the first batch after 256 bytes, and one at the end of a segment. A batch has some 240.
    for (bytes, index_bytes) in sizes(".log").into_iter().zip(sizes(".index")).take(2) {
        let entries = (index_bytes - 20) / 20;
        assert!((bytes / 600..=bytes / 256 + 2).contains(&entries), "{entries} entries for {bytes} bytes");
    }
}
