//! A follower's log: what a leader's log holds, byte for byte and hole for hole, or nothing (rules L1, L4, L5, P3, E4).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use bytes::{Bytes, BytesMut};
use common::*;
use ottla_log::{AppendError, Checkpoint, CleanSettings, Disk, Log, LogConfig, LogPosition, SimDisk, StoredBatch};
use ottla_records::{BatchBuilder, BatchHeader, Compression};
use ottla_types::{LeaderEpoch, Offset};

/// What a Fetch from `from` on brings, at most so many bytes.
fn fetched(leader: &Log, from: Offset, max_bytes: u64) -> Bytes {
    let reader = leader.reader();
    reader.read(from, reader.end(), max_bytes, true).unwrap().read().unwrap()
}

/// Copies until both end alike.
fn follow(leader: &Log, follower: &mut Log, max_bytes: u64) {
    while follower.end().offset < leader.end().offset {
        let before = follower.end().offset;
        follower.append_as_follower(&fetched(leader, before, max_bytes), NOW).unwrap();
        assert!(follower.end().offset > before, "nothing was copied");
    }
}

fn leader() -> Log {
    let (mut log, _) = open(&SimDisk::new(1), small(), None);
    for number in 0..200i32 {
        let epoch = LeaderEpoch(number / 50);
        let batch = if number % 3 == 0 { idempotent(i64::from(number % 7), 0, number, 2) } else { batch(3, 200) };
        log.append(&[StoredBatch { epoch, ..batch }], NOW).unwrap();
    }
    log
}

#[test]
fn l1_a_follower_holds_what_its_leader_holds_byte_for_byte() {
    let leader = leader();
    for max_bytes in [1, 1000, 100_000] {
        let (mut follower, _) = open(&SimDisk::new(2), small(), None);
        follow(&leader, &mut follower, max_bytes);
        assert_eq!(contents(&follower), contents(&leader));
        check_indexes(&follower);
        assert_eq!(follower.epochs(), leader.epochs());
        assert!(follower.producers().same_state(leader.producers()), "P3");
    }
}

#[test]
fn l1_a_copy_survives_a_restart() {
    let leader = leader();
    let sim = SimDisk::new(3);
    sim.create_dir_all("data".as_ref()).unwrap();
    sim.sync_dir("".as_ref()).unwrap();
    let (mut follower, _) = open(&sim, small(), None);
    follow(&leader, &mut follower, 5000);
    sync(&mut follower);
    let checkpoint = follower.checkpoint();
    drop(follower);
    let (follower, recovered) = open(&sim.crash(), small(), Some(checkpoint));
    assert_eq!(recovered.damaged, None);
    assert_eq!(contents(&follower), contents(&leader));
    assert_eq!(follower.epochs(), leader.epochs());
    assert!(follower.producers().same_state(leader.producers()));
}

#[test]
fn l1_what_does_not_continue_the_log_is_refused_whole() {
    let leader = leader();
    let (mut follower, _) = open(&SimDisk::new(4), small(), None);
    let first = fetched(&leader, Offset::ZERO, 3000);
    follower.append_as_follower(&first, NOW).unwrap();
    let before = (follower.end(), contents(&follower));

    let next = fetched(&leader, follower.end().offset, 3000);
    let mut flipped = BytesMut::from(&next[..]);
    // In the records of the first batch.
    flipped[100] ^= 1;
    let mut aged = BytesMut::from(&next[..]);
    // The leader epoch lies outside of the checksum.
    aged[12..16].copy_from_slice(&(-1i32).to_be_bytes());
    for (what, records) in [("again", first), ("a wrong checksum", flipped.freeze()), ("an older epoch", aged.freeze())]
    {
        let refused = follower.append_as_follower(&records, NOW);
        assert!(matches!(refused, Err(AppendError::Foreign(_))), "{what}: {refused:?}");
        assert_eq!((follower.end(), contents(&follower)), before, "{what}");
    }
    follower.append_as_follower(&next, NOW).unwrap();
}

#[test]
fn the_beginning_of_one_more_batch_is_left_to_the_next_fetch() {
    let leader = leader();
    let (mut follower, _) = open(&SimDisk::new(5), small(), None);
    let whole = fetched(&leader, Offset::ZERO, 1);
    let size = BatchHeader::parse(&whole).unwrap().size();
    let more = fetched(&leader, Offset::ZERO, 3000);
    follower.append_as_follower(&more.slice(..size + 70), NOW).unwrap();
    assert_eq!(follower.end().offset, BatchHeader::parse(&whole).unwrap().next_offset());
    // Alone it is an error: nobody would ever get on.
    let cut = fetched(&leader, follower.end().offset, 1).slice(..70);
    assert!(matches!(follower.append_as_follower(&cut, NOW), Err(AppendError::Foreign(_))));
}

#[test]
fn e4_after_a_truncation_a_former_leader_follows() {
    let leader = leader();
    let (mut former, _) = open(&SimDisk::new(6), small(), None);
    follow(&leader, &mut former, 5000);
    // What it appended in its own epoch, and nobody else has.
    former.assign_epoch(LeaderEpoch(9)).unwrap();
    former.append(&[StoredBatch { epoch: LeaderEpoch(9), ..batch(2, 20) }], NOW).unwrap();
    let refused = former.append_as_follower(&fetched(&leader, Offset::ZERO, 1), NOW);
    assert!(matches!(refused, Err(AppendError::Foreign(_))));
    former.truncate(Offset(leader.end().offset.0 - 100)).unwrap();
    follow(&leader, &mut former, 5000);
    assert_eq!(contents(&former), contents(&leader));
    assert_eq!(former.epochs(), leader.epochs());
    assert!(former.producers().same_state(leader.producers()));
}

#[test]
fn a_batch_that_the_leader_has_taken_is_taken_whatever_the_settings_are_by_now() {
    let (mut leader, _) = open(&SimDisk::new(11), small(), None);
    append(&mut leader, batch(1, 100));
    append(&mut leader, batch(1, 8000));
    append(&mut leader, batch(1, 100));
    let (mut follower, _) = open(&SimDisk::new(12), tiny(), None);
    follow(&leader, &mut follower, 1000);
    assert_eq!(contents(&follower), contents(&leader));
    assert_eq!(follower.segments().len(), 3);
}

/// A compacted leader: most of its records are gone, and with some batches and ends of segments the offsets.
fn compacted() -> Log {
    let (mut log, _) = open(&SimDisk::new(7), tiny(), None);
    for number in 0..300i32 {
        // Few keys early on, so that runs of batches go, and some that stay.
        let key = if number % 23 == 0 { format!("stays {number}") } else { format!("{}", number % 3) };
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.push(NOW, Some(key.as_bytes()), Some(&[b'v'; 60]), &[]).unwrap();
        append(&mut log, StoredBatch { epoch: LeaderEpoch(number / 100), ..stored(builder) });
    }
    log.roll(NOW).unwrap();
    sync(&mut log);
    let settings = CleanSettings { now: NOW, min_lag_ms: 0, delete_retention_ms: 1000, map_bytes: 1 << 20 };
    let plan = log.plan_clean(log.end().offset).unwrap();
    let locked = parking_lot::Mutex::new(log);
    plan.run(&settings, &mut |_| true, &|work| {
        work(&mut locked.lock());
        true
    })
    .unwrap();
    let mut log = locked.into_inner();
    // And some that is not compacted.
    for _ in 0..5 {
        append(&mut log, StoredBatch { epoch: LeaderEpoch(4), ..batch(2, 50) });
    }
    assert!(raw(&log).windows(2).any(|pair| pair[0].1 < pair[1].0), "no holes to copy");
    log
}

fn tiny() -> LogConfig {
    LogConfig { segment_bytes: 2 << 10, checkpoint_bytes: 1 << 10, ..small() }
}

/// Every batch: its first offset, the offset behind it, its bytes. Holes are nothing to complain about.
fn raw(log: &Log) -> Vec<(Offset, Offset, Bytes)> {
    let reader = log.reader();
    let found = reader.batches(reader.start_offset(), reader.end()).map(Result::unwrap);
    found.map(|(header, bytes)| (header.base_offset, header.next_offset(), bytes)).collect()
}

#[test]
fn l1_a_follower_copies_the_holes_of_a_compacted_log() {
    let leader = compacted();
    for max_bytes in [1, 300, 1000, 100_000] {
        let (mut follower, _) = open(&SimDisk::new(8), tiny(), None);
        follow(&leader, &mut follower, max_bytes);
        assert_eq!(raw(&follower), raw(&leader));
        let epochs = |log: &Log| log.epochs().entries().iter().map(|entry| entry.epoch).collect::<Vec<_>>();
        assert_eq!(epochs(&follower), epochs(&leader));
        let reader = follower.reader();
        for offset in 0..reader.end_offset().0 {
            let plan = reader.read(Offset(offset), reader.end(), 1, true).unwrap();
            let expected = raw(&leader).into_iter().find(|(_, next, _)| next.0 > offset);
            assert_eq!(plan.read().unwrap(), expected.unwrap().2, "offset {offset}");
        }
    }
}

#[test]
fn l4_l5_a_start_tells_a_copied_hole_from_a_lost_write() {
    let leader = compacted();
    for seed in 0..60 {
        let sim = SimDisk::new(seed);
        sim.create_dir_all("data".as_ref()).unwrap();
        sim.sync_dir("".as_ref()).unwrap();
        let (mut follower, _) = open(&sim, tiny(), None);
        let mut checkpoint = None;
        // Up to some point everything is synced, and a checkpoint stored now and then; behind it nothing is.
        let synced_to = Offset(seed as i64 * 5);
        while follower.end().offset < leader.end().offset {
            let end = follower.end().offset;
            follower.append_as_follower(&fetched(&leader, end, 150 + 40 * (seed % 7)), NOW).unwrap();
            if follower.end().offset < synced_to {
                sync(&mut follower);
                if seed % 3 == 0 {
                    checkpoint = Some(follower.checkpoint());
                }
            }
        }
        let durable = follower.durable_end().offset;
        drop(follower);
        let (mut follower, recovered) = open(&sim.crash(), tiny(), checkpoint);
        assert_eq!(recovered.damaged, None, "seed {seed}");
        assert!(follower.end().offset >= durable, "seed {seed}: {durable} was durable");
        let kept = raw(&follower);
        assert_eq!(kept, raw(&leader)[..kept.len()], "seed {seed}");
        follow(&leader, &mut follower, 1000);
        assert_eq!(raw(&follower), raw(&leader), "seed {seed}");
    }
}

#[test]
fn l5_a_gap_that_nobody_copied_is_damage() {
    let leader = compacted();
    let sim = SimDisk::new(9);
    let (mut follower, _) = open(&sim, tiny(), None);
    follow(&leader, &mut follower, 1000);
    sync(&mut follower);
    let checkpoint = Checkpoint { recovery_point: LogPosition::default(), ..follower.checkpoint() };
    drop(follower);
    let cleaned = dir().join("cleaned");
    let (follower, recovered) = open(&sim.fork(), tiny(), Some(checkpoint.clone()));
    assert_eq!((recovered.damaged, raw(&follower)), (None, raw(&leader)));
    // Without the file that says so, the holes are what they would be anywhere.
    sim.remove(&cleaned).unwrap();
    let (_, recovered) = open(&sim, tiny(), Some(checkpoint));
    assert!(recovered.damaged.is_some());
}

#[test]
fn l11_without_room_for_the_mark_of_a_hole_the_batches_behind_it_do_not_count() {
    let leader = compacted();
    let sim = SimDisk::new(10);
    sim.set_reserves(false);
    let (mut follower, _) = open(&sim, tiny(), None);
    sync(&mut follower);
    let first_hole = raw(&leader).windows(2).find(|pair| pair[0].1 < pair[1].0).unwrap()[1].0;
    while follower.end().offset <= first_hole {
        follower.append_as_follower(&fetched(&leader, follower.end().offset, 1), NOW).unwrap();
    }
    let durable = follower.durable_end();
    sim.set_capacity(Some(sim.used()));
    let plan = follower.begin_sync().unwrap();
    let result = plan.run();
    follower.complete_sync(plan, result).unwrap();
    assert_eq!(follower.durable_end(), durable);
    sim.set_capacity(None);
    sync(&mut follower);
    assert_eq!(follower.durable_end(), follower.end());
}
