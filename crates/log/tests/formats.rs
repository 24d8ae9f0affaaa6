//! The worked examples of docs/formats are what the code writes and reads.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::*;
use ottla_log::{Disk, SimDisk};
use ottla_types::LeaderEpoch;

fn example(page: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(format!("{}/../../docs/formats/{page}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let rows = text.lines().filter(|line| line.len() > 6 && line.is_char_boundary(6) && &line[4..6] == "  ");
    let rows = rows.filter(|line| line[..4].chars().all(|digit| digit.is_ascii_hexdigit()));
    let digits = rows.flat_map(|line| line[6..].split_whitespace());
    digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}

#[test]
fn the_epochs_example_is_read_and_written() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    for (epoch, count) in [(1, 5), (2, 5)] {
        log.assign_epoch(LeaderEpoch(epoch)).unwrap();
        let mut batch = batch(count, 1);
        batch.epoch = LeaderEpoch(epoch);
        append(&mut log, batch);
    }
    log.assign_epoch(LeaderEpoch(4)).unwrap();
    log.advance_start(ottla_types::Offset(10)).unwrap();
    sync(&mut log);
    assert_eq!(sim.read_file(&dir().join("epochs")).unwrap(), example("epochs.md"));
}

#[test]
fn the_snapshot_example_is_read_and_written_but_for_its_age() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    append(&mut log, batch(10, 1));
    append(&mut log, idempotent(9, 0, 10, 2));
    log.expire_producers(ottla_types::Timestamp(NOW.0 + 250), 1_000_000);
    log.close_clean().unwrap();
    assert_eq!(sim.read_file(&segment_path(12, ".producers")).unwrap(), example("producer-snapshot.md"));
    let names = sim.list(&dir()).unwrap();
    assert!(names.contains(&"00000000000000000012.producers".to_owned()));
}
