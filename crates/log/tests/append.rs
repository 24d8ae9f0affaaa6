//! Appending, rolling, reading, trimming: what the log does while nothing goes wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use common::*;
use ottla_log::{AppendError, Log, LogConfig, OsDisk, ReadError, SimDisk};
use ottla_records::{BatchBuilder, BatchHeader, Compression};
use ottla_types::{LeaderEpoch, Offset, Timestamp};

#[test]
fn batches_take_consecutive_offsets_and_keep_their_bytes() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    let batches = [batch(3, 10), batch(1, 500), batch(5, 0)];
    let appended = log.append(&batches, NOW).unwrap();
    assert_eq!((appended.first, appended.end.offset), (Offset(0), Offset(9)));
    let found = contents(&log);
    assert_eq!(found.iter().map(|(offset, _)| offset.0).collect::<Vec<_>>(), [0, 3, 4]);
    for ((_, stored), produced) in found.iter().zip(&batches) {
        assert_eq!(stored[16..], produced.bytes[16..]);
        assert_eq!(BatchHeader::parse(stored).unwrap().leader_epoch, LeaderEpoch(0));
    }
    assert_eq!(sim.stats().writes, 1, "all batches of a call go out in one write");
    check_indexes(&log);
}

#[test]
fn segments_roll_by_size_and_every_offset_is_found() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    for number in 0..300 {
        append(&mut log, batch_at(NOW.0 + number * 10, 1 + number as usize % 4, 100));
    }
    assert!(log.segments().len() > 3);
    assert!(log.segments().iter().all(|segment| segment.size <= 16 << 10));
    check_indexes(&log);
    sync(&mut log);
    let checkpoint = log.checkpoint();
    drop(log);
    let (log, _) = open(&sim, small(), Some(checkpoint));
    check_indexes(&log);
}

#[test]
fn one_call_may_fill_several_segments() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    let batches: Vec<_> = (0..20).map(|_| batch(1, 3000)).collect();
    log.append(&batches, NOW).unwrap();
    assert_eq!(log.segments().len(), 4);
    assert_eq!(contents(&log).len(), 20);
}

#[test]
fn a_batch_larger_than_a_segment_is_refused() {
    let (mut log, _) = open(&SimDisk::new(1), small(), None);
    assert!(matches!(try_append(&mut log, batch(1, 20_000)), Err(AppendError::TooLarge { .. })));
    assert_eq!(log.end().offset, Offset(0));
}

#[test]
fn l1_a_header_that_is_not_of_its_bytes_is_refused_before_anything_changes() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    let mut wrong = batch(1, 10);
    wrong.header = batch(1, 11).header;
    assert!(matches!(log.append(&[batch(1, 1), wrong], NOW), Err(AppendError::Impossible(_))));
    assert_eq!((log.end().offset, sim.stats().writes), (Offset(0), 0));
    append(&mut log, batch(1, 10));
}

#[test]
fn segments_roll_by_time() {
    let config = LogConfig { segment_ms: 1000, segment_jitter_ms: 100, ..small() };
    let (mut log, _) = open(&SimDisk::new(1), config, None);
    for timestamp in [0, 900, 901, 1801, 1802] {
        append(&mut log, batch_at(timestamp, 1, 1));
    }
    let bases: Vec<_> = log.segments().iter().map(|segment| segment.base.0).collect();
    assert_eq!(bases, [0, 2, 4]);
}

#[test]
fn a_roll_by_time_remembers_the_first_timestamp_over_a_restart() {
    let config = LogConfig { segment_ms: 1000, ..small() };
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, config, None);
    append(&mut log, batch_at(0, 1, 1));
    log.close_clean().unwrap();
    let (mut log, _) = open(&sim, config, Some(log.checkpoint()));
    append(&mut log, batch_at(1001, 1, 1));
    assert_eq!(log.segments().len(), 2);
}

#[test]
fn reads_are_bounded_by_bytes_and_by_position() {
    let (mut log, _) = open(&SimDisk::new(1), small(), None);
    let first = append(&mut log, batch(2, 100));
    let second = append(&mut log, batch(2, 100));
    let reader = log.reader();
    let size = first.end.position;
    let read = |from, upto, max, whole| reader.read(Offset(from), upto, max, whole).unwrap();
    assert_eq!(read(0, second.end, u64::MAX, false).len(), 2 * size);
    assert_eq!(read(1, first.end, u64::MAX, false).len(), size);
    assert_eq!(read(0, second.end, size + 5, false).len(), size + 5);
    assert_eq!(read(0, second.end, 10, true).len(), size);
    assert!(read(0, second.end, 10, false).is_empty());
    assert!(read(4, second.end, 10, true).is_empty());
    assert!(matches!(reader.read(Offset(5), second.end, 1, true), Err(ReadError::OutOfRange { .. })));
    assert!(matches!(reader.read(Offset(3), first.end, 1, true), Err(ReadError::OutOfRange { .. })));
}

#[test]
fn b16_the_place_of_every_batch_is_right_also_from_memory() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    let mut placed = Vec::new();
    // Over several segments, by one and by several at a time.
    for round in 0..60 {
        let batches: Vec<_> = (0..1 + round % 3).map(|more| batch(1 + round % 4, 50 + 31 * round + more)).collect();
        let mut from = log.append(&batches, NOW).unwrap().first;
        for batch in &batches {
            placed.push((from, batch.header.size() as u64));
            from = Offset(from.0 + i64::from(batch.header.last_offset_delta) + 1);
        }
    }
    assert!(log.segments().len() > 3);
    let (reader, end) = (log.reader(), log.end());
    for (from, size) in placed {
        let plan = reader.read(from, end, 1, true).unwrap();
        assert_eq!((plan.first_batch_offset, plan.len()), (from, size));
        assert!(reader.read(from, end, size - 1, false).unwrap().is_empty());
        assert_eq!(BatchHeader::parse(&plan.read().unwrap()).unwrap().size() as u64, size);
    }
}

#[test]
fn reads_at_the_end_are_planned_without_the_file() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, LogConfig { segment_bytes: 1 << 20, ..small() }, None);
    let ends: Vec<_> = (0..40).map(|_| append(&mut log, batch(2, 100)).end).collect();
    let reader = log.reader();
    let before = sim.stats().bytes_read;
    for tail in ends.windows(2).skip(10) {
        let plan = reader.read(tail[0].offset, tail[1], u64::MAX, false).unwrap();
        assert_eq!(plan.len(), tail[1].position - tail[0].position);
        assert_eq!(plan.first_batch_offset, tail[0].offset);
    }
    assert_eq!(sim.stats().bytes_read, before);
}

#[test]
fn b16_readers_at_the_end_race_with_the_writer() {
    let (mut log, _) = open(&SimDisk::new(1), LogConfig { segment_bytes: 64 << 10, ..small() }, None);
    let reader = log.reader();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let (start, end) = (reader.start_offset().0, reader.end());
                for back in 1..=40.min(end.offset.0 - start) {
                    let from = Offset(end.offset.0 - back);
                    let plan = reader.read(from, end, 1, true).unwrap();
                    let header = BatchHeader::parse(&plan.read().unwrap()).unwrap();
                    assert_eq!((plan.first_batch_offset, header.base_offset), (from, from));
                    assert_eq!(plan.len(), header.size() as u64);
                }
            }
        });
        for round in 0..20_000 {
            append(&mut log, batch(1, round % 97));
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn timestamps_are_found_inside_compressed_batches() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let (mut log, _) = open(&SimDisk::new(1), small(), None);
        for start in [1000, 2000, 3000] {
            append(&mut log, stored(builder(codec, start, 50, 40)));
        }
        let found = log.reader().find_by_timestamp(Timestamp(2017), log.end()).unwrap();
        assert_eq!(found, Some((Offset(67), Timestamp(2017), LeaderEpoch(0))), "{codec}");
        check_indexes(&log);
    }
}

#[test]
fn a_batch_too_large_to_look_into_is_found_by_its_first_record() {
    let config = LogConfig { segment_bytes: 1 << 30, ..small() };
    let (mut log, _) = open(&SimDisk::new(1), config, None);
    append(&mut log, batch_at(1000, 1, 10));
    let mut bomb = BatchBuilder::new(Compression::Zstd, None);
    bomb.push(Timestamp(2000), None, Some(&vec![0; 80 << 20]), &[]).unwrap();
    bomb.push(Timestamp(3000), None, Some(b"last"), &[]).unwrap();
    append(&mut log, stored(bomb));
    let found = log.reader().find_by_timestamp(Timestamp(2500), log.end()).unwrap();
    assert_eq!(found, Some((Offset(1), Timestamp(2000), LeaderEpoch(0))), "earlier than asked for, and never later");
}

#[test]
fn a_trimmed_log_forgets_whole_segments_and_removes_their_files_later() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    for _ in 0..100 {
        append(&mut log, batch(1, 1000));
    }
    sync(&mut log);
    let segments = log.segments();
    let to = Offset(segments[2].base.0 + 3);
    log.advance_start(to).unwrap();
    assert_eq!((log.start(), log.segments().len()), (to, segments.len() - 2));
    assert!(matches!(log.reader().read(Offset(0), log.end(), 1, true), Err(ReadError::OutOfRange { .. })));
    let names = |ending: &str| {
        ottla_log::Disk::list(&sim, &dir()).unwrap().iter().filter(|name| name.ends_with(ending)).count()
    };
    assert_eq!(names(".log.deleted"), 0, "not before the start is durable");
    assert!(log.needs_sync());
    sync(&mut log);
    assert_eq!(names(".log.deleted"), 2);
    log.remove_deleted(NOW);
    log.remove_deleted(Timestamp(NOW.0 + 999));
    assert_eq!(names(".deleted"), 4);
    log.remove_deleted(Timestamp(NOW.0 + 1000));
    assert_eq!(names(".deleted"), 0);
    check_indexes(&log);
    // The start survives, also within a segment.
    sync(&mut log);
    let (log, _) = open(&sim, small(), Some(log.checkpoint()));
    assert_eq!(log.start(), to);
}

#[test]
fn everything_can_be_rolled_and_trimmed_away_and_offsets_go_on() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    append(&mut log, batch(7, 10));
    log.roll(NOW).unwrap();
    log.advance_start(Offset(7)).unwrap();
    assert_eq!((log.size_in_bytes(), log.segments().len()), (0, 1));
    sync(&mut log);
    for checkpoint in [Some(log.checkpoint()), None] {
        let (log, recovered) = open(&sim, small(), checkpoint);
        assert_eq!((log.end().offset, recovered.damaged), (Offset(7), None));
    }
    assert_eq!(append(&mut log, batch(1, 1)).first, Offset(7));
}

#[test]
fn a_real_directory_with_and_without_linux_calls() {
    for disk in [OsDisk::new(), OsDisk::portable()] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("topic-0");
        let (mut log, _) = Log::open(std::sync::Arc::new(disk), path.clone(), small(), None, NOW).unwrap();
        for _ in 0..100 {
            append(&mut log, batch(1, 700));
        }
        check_indexes(&log);
        log.close_clean().unwrap();
        let before = contents(&log);
        let checkpoint = log.checkpoint();
        drop(log);
        let (mut log, recovered) = Log::open(std::sync::Arc::new(disk), path, small(), Some(checkpoint), NOW).unwrap();
        assert_eq!((contents(&log), recovered.scanned_bytes), (before, 0));
        append(&mut log, batch(1, 700));
        check_indexes(&log);
    }
}
