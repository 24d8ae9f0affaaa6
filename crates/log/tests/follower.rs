//! A follower's log: what a leader's log holds, byte for byte, or nothing (rules L1, P3, E4).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use bytes::{Bytes, BytesMut};
use common::*;
use ottla_log::{AppendError, Disk, Log, SimDisk};
use ottla_records::BatchHeader;
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
        log.append(&[ottla_log::StoredBatch { epoch, ..batch }], NOW).unwrap();
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
    former.append(&[ottla_log::StoredBatch { epoch: LeaderEpoch(9), ..batch(2, 20) }], NOW).unwrap();
    let refused = former.append_as_follower(&fetched(&leader, Offset::ZERO, 1), NOW);
    assert!(matches!(refused, Err(AppendError::Foreign(_))));
    former.truncate(Offset(leader.end().offset.0 - 100)).unwrap();
    follow(&leader, &mut former, 5000);
    assert_eq!(contents(&former), contents(&leader));
    assert_eq!(former.epochs(), leader.epochs());
    assert!(former.producers().same_state(leader.producers()));
}
