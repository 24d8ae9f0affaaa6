//! What a pass of compaction says of itself and of the log, what it leaves when it is stopped, and what becomes of its
//! work when the log is cut (rules L9, E8). That the right records stay is in `compaction.rs`.

use ottla_log::{CleanError, CleanSettings, Cleaned, Dirtiness, Disk, Log, LogConfig, SimDisk};
use ottla_records::{BatchBuilder, Compression};
use ottla_types::{Offset, Timestamp};
use parking_lot::Mutex;

use crate::common::*;

/// Segments of a few batches.
fn tiny() -> LogConfig {
    LogConfig { segment_bytes: 2 << 10, checkpoint_bytes: 1 << 10, ..small() }
}

/// Cleans all that is closed and durable, as long as `leave` lets it.
fn clean_while(log: &mut Log, leave: &mut dyn FnMut() -> bool) -> Result<Cleaned, CleanError> {
    let settings = CleanSettings { now: NOW, min_lag_ms: 0, delete_retention_ms: 1000, map_bytes: 1 << 20 };
    let plan = log.plan_clean(log.checkpoint().recovery_point.segment).unwrap();
    let log = Mutex::new(log);
    plan.run(&settings, &mut |_| leave(), &|work| {
        work(&mut log.lock());
        true
    })
}

fn clean(log: &mut Log) -> Cleaned {
    clean_while(log, &mut || true).unwrap()
}

/// One record at that many milliseconds after the start.
fn put(log: &mut Log, after_ms: i64, key: &str, value_bytes: usize) {
    let mut builder = BatchBuilder::new(Compression::None, None);
    let value = vec![b'v'; value_bytes];
    builder.push(Timestamp(NOW.0 + after_ms), Some(key.as_bytes()), Some(&value), &[]).unwrap();
    append(log, stored(builder));
}

fn close_segment(log: &mut Log) {
    log.roll(NOW).unwrap();
    sync(log);
}

/// Segments in which half of the bytes are superseded by the next, too large for all that stays to become one.
fn half_superseded(sim: &SimDisk) -> Log {
    filled(sim, tiny(), 8, 500)
}

fn filled(sim: &SimDisk, config: LogConfig, segments: i64, value_bytes: usize) -> Log {
    let (mut log, _) = open(sim, config, None);
    for number in 0..segments {
        put(&mut log, number, "again", value_bytes);
        put(&mut log, number, &format!("once {number}"), value_bytes);
        close_segment(&mut log);
    }
    log
}

/// The bytes of all segments there are.
fn segment_bytes(sim: &SimDisk) -> u64 {
    let names = sim.list(&dir()).unwrap();
    let files = names.iter().filter(|name| name.ends_with(".log"));
    files.map(|name| sim.read_file(&dir().join(name)).unwrap().len() as u64).sum()
}

fn offsets(log: &Log) -> Vec<i64> {
    let reader = log.reader();
    let batches = reader.batches(reader.start_offset(), reader.end()).map(|batch| batch.unwrap().0);
    batches.filter(|header| header.record_count > 0).map(|header| header.base_offset.0).collect()
}

#[test]
fn a_pass_says_what_there_was_and_what_is_left() {
    let sim = SimDisk::new(1);
    let mut log = half_superseded(&sim);
    let before = segment_bytes(&sim);
    let done = clean(&mut log);
    sync(&mut log);
    log.remove_deleted(Timestamp(NOW.0 + 5000));
    let names = sim.list(&dir()).unwrap();
    assert!(names.iter().filter(|name| name.ends_with(".log")).count() > 2, "several, and the active one: {names:?}");
    assert_eq!((done.before, done.after), (before, segment_bytes(&sim)));
    assert!(done.after < done.before * 3 / 4);
    assert_eq!((done.clean_to, log.reader().cleaned_to()), (Offset(16), Offset(16)));
}

#[test]
fn the_oldest_that_is_dirty_is_known_by_its_time_and_whether_it_may_be_cleaned() {
    let at = |after_ms: i64, closed: bool| Some((Timestamp(NOW.0 + after_ms), closed));
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, tiny(), None);
    assert_eq!(log.reader().dirty_since().unwrap(), None);
    put(&mut log, 3, "a", 10);
    put(&mut log, 7, "a", 10);
    assert_eq!(log.reader().dirty_since().unwrap(), at(3, false));
    close_segment(&mut log);
    assert_eq!(log.reader().dirty_since().unwrap(), at(3, true));
    clean(&mut log);
    assert_eq!(log.reader().dirty_since().unwrap(), None);
    put(&mut log, 9, "a", 10);
    assert_eq!(log.reader().dirty_since().unwrap(), at(9, false));
    close_segment(&mut log);
    put(&mut log, 11, "a", 10);
    assert_eq!(log.reader().dirty_since().unwrap(), at(9, true));
}

fn assert_nothing_is_left_behind(sim: &SimDisk) {
    let names = sim.list(&dir()).unwrap();
    assert!(!names.iter().any(|name| name.ends_with(".cleaned")), "{names:?}");
}

#[test]
fn l9_a_pass_that_is_stopped_anywhere_leaves_no_file_and_can_be_done_again() {
    let kept: Vec<i64> = (0..80).filter(|offset| offset % 2 == 1 || *offset == 78).collect();
    for asked in 0.. {
        let sim = SimDisk::new(1);
        let mut log = filled(&sim, small(), 40, 8 << 10);
        let mut left = asked;
        let done = clean_while(&mut log, &mut || {
            left -= 1;
            left >= 0
        });
        assert_nothing_is_left_behind(&sim);
        match done {
            Ok(_) => {
                assert_eq!(offsets(&log), kept);
                assert!(asked > 2, "it asks all along, not {asked} times");
                return;
            }
            Err(CleanError::Stopped) => {}
            Err(error) => panic!("{error}"),
        }
        clean(&mut log);
        assert_eq!(offsets(&log), kept, "asked {asked} times");
    }
}

#[test]
fn l9_l11_a_pass_that_finds_no_room_leaves_no_file_and_can_be_done_again() {
    let kept = [1, 3, 5, 7, 9, 11, 13, 14, 15];
    let mut without_room = 0;
    for room in (0..).step_by(200) {
        let sim = SimDisk::new(1);
        let mut log = half_superseded(&sim);
        sim.set_capacity(Some(sim.used() + room));
        let done = clean_while(&mut log, &mut || true);
        assert_nothing_is_left_behind(&sim);
        sim.set_capacity(None);
        if done.is_ok() {
            assert_eq!(offsets(&log), kept);
            break;
        }
        without_room += 1;
        clean(&mut log);
        assert_eq!(offsets(&log), kept, "room for {room} bytes");
    }
    assert!(without_room > 3, "{without_room}");
}

#[test]
fn e8_l9_what_is_written_where_the_log_was_cut_is_dirty() {
    let sim = SimDisk::new(1);
    let mut log = half_superseded(&sim);
    assert_eq!(clean(&mut log).clean_to, Offset(16));
    // A leader was elected uncleanly, and this copy has to give up what it had compacted.
    log.truncate(Offset(5)).unwrap();
    sync(&mut log);
    assert_eq!(log.reader().cleaned_to(), log.end().offset);
    for reopened in [false, true] {
        let (mut log, recovered) = open(&sim.fork(), tiny(), reopened.then(|| log.checkpoint()));
        let end = log.end().offset;
        assert_eq!((recovered.damaged, log.reader().cleaned_to()), (None, end));
        for number in 0..4 {
            put(&mut log, number, "again", 100);
        }
        close_segment(&mut log);
        clean(&mut log);
        let again = offsets(&log).into_iter().filter(|offset| *offset >= end.0).count();
        assert_eq!(again, 1, "of one key one record stays");
    }
}

#[test]
fn l10_l11_a_mark_of_holes_that_cannot_be_written_for_want_of_room_is_tried_again_and_otherwise_ends_the_log() {
    let sim = SimDisk::new(1);
    let mut leader = half_superseded(&sim);
    clean(&mut leader);
    for full in [true, false] {
        let sim = SimDisk::new(2);
        let (mut log, _) = open(&sim, tiny(), None);
        let plan = leader.reader().read(Offset(0), leader.end(), 1400, true).unwrap();
        log.append_as_follower(&plan.read().unwrap(), NOW).unwrap();
        assert!(offsets(&log)[0] > 0, "a hole at the beginning");
        let plan = log.begin_sync().unwrap();
        if full {
            sim.set_capacity(Some(sim.used()));
        } else {
            sim.fail_writes(true);
        }
        let result = plan.run();
        assert_eq!(result.is_ok(), full);
        assert_eq!(log.complete_sync(plan, result).is_ok(), full);
        assert_eq!(log.durable_end().offset, Offset(0), "what is behind the hole does not count");
        sim.set_capacity(None);
        sim.fail_writes(false);
        sync(&mut log);
        assert_eq!(log.durable_end() == log.end(), full);
        assert_eq!(try_append(&mut log, batch(1, 1)).is_ok(), full);
    }
}

#[test]
fn l5_a_batch_that_is_not_where_its_offset_belongs_ends_the_pass() {
    // Base offsets lie outside of the checksum. The second batch of the first segment has 1, and says 0, 3 or 257.
    for (byte, bit) in [(7, 0), (7, 1), (6, 0)] {
        let sim = SimDisk::new(1);
        let mut log = half_superseded(&sim);
        let second = (sim.read_file(&segment_path(0, ".log")).unwrap().len() / 2) as u64;
        assert!(sim.flip_bit(&segment_path(0, ".log"), second + byte, bit));
        let before = segment_bytes(&sim);
        let done = clean_while(&mut log, &mut || true);
        assert!(matches!(done, Err(CleanError::Damaged(_))), "{done:?}");
        assert_eq!(segment_bytes(&sim), before);
        assert_nothing_is_left_behind(&sim);
    }
}

#[test]
fn the_dirty_share_is_that_of_what_may_be_cleaned() {
    let of = |clean_bytes, dirty_bytes| Dirtiness { clean_bytes, dirty_bytes, ..Dirtiness::default() }.ratio();
    assert_eq!([of(0, 0), of(10, 0), of(0, 10), of(75, 25)], [0.0, 0.0, 1.0, 0.25]);
}

#[test]
fn a_pass_asks_for_leave_now_and_then_and_goes_on_with_it() {
    let sim = SimDisk::new(1);
    let config = LogConfig { segment_bytes: 1 << 20, ..small() };
    let mut log = filled(&sim, config, 8, 50_000);
    let asked = std::cell::Cell::new(0);
    let ask = |log: &mut Log| {
        asked.set(0);
        clean_while(log, &mut || {
            asked.set(asked.get() + 1);
            true
        })
    };
    let done = ask(&mut log).unwrap();
    assert!((1..8).contains(&asked.get()), "{} times for 800 KB", asked.get());
    assert_eq!(offsets(&log).len(), 9, "each key once");
    // What is deleted needs no cleaning.
    log.advance_start(done.clean_to).unwrap();
    sync(&mut log);
    let again = ask(&mut log).unwrap();
    assert_eq!((again.clean_to, asked.get()), (Offset(16), 0));
    assert_eq!(done.clean_to, Offset(16));
}
