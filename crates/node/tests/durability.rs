//! What a node promises of its disk: nothing acknowledged is lost, a failed sync is final, a full disk is not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use common::{
    DEADLINE, NOW, append, append_unawaited, batch, create, eventually, open, open_with, partition, produce, read_all,
    sequenced, wait_acknowledged,
};
use ottla_log::{Disk, SimDisk};
use ottla_metadata::{CleanEnd, Command, TopicRef};
use ottla_node::{Identity, Joined, Node, NodeConfig, Partition, Unavailable, Wakes};
use ottla_replica::Outcome;
use ottla_types::{BrokerId, Offset};
use uuid::Uuid;

/// Acknowledges records over several partitions, cuts the power with more in flight, and says what is missing.
fn lost_after_power_cut(seed: u64, lie: bool) -> Vec<String> {
    let disk = SimDisk::new(seed);
    let node = open(&disk);
    create(&node, "t", 3, &[]);
    disk.lie_about_syncs(lie);
    let mut acknowledged = Vec::new();
    for number in 0..30 {
        let index = number % 3;
        let value = format!("{number}");
        let offset = produce(&partition(&node, "t", index), &value);
        acknowledged.push((index, offset, value));
    }
    for index in 0..3 {
        append(&partition(&node, "t", index), &batch("in flight")).unwrap();
    }
    let after = open(&disk.crash());
    let mut missing = Vec::new();
    for (index, offset, value) in acknowledged {
        if !read_all(&partition(&after, "t", index)).contains(&(offset, value.clone())) {
            missing.push(value);
        }
    }
    missing
}

#[test]
fn b12_a_power_cut_loses_nothing_acknowledged() {
    for seed in 0..10 {
        assert_eq!(lost_after_power_cut(seed, false), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn b12_a_disk_that_only_says_it_synced_is_caught() {
    let lost = (0..10).filter(|&seed| !lost_after_power_cut(seed, true).is_empty()).count();
    assert!(lost > 0, "without syncs a power cut must lose something, or the test above proves nothing");
}

/// One record for each of eight partitions. Those that nobody waits for gather, and the last calls for all of them.
fn append_to_all(node: &Node, value: &str) -> Vec<(Arc<Partition>, Offset)> {
    let partitions = (0..8).map(|index| partition(node, "t", index));
    let append_one = |(number, partition): (usize, Arc<Partition>)| {
        let appended = if number < 7 { append_unawaited } else { append }(&partition, &batch(value));
        let Ok(Outcome::Appended { required, .. }) = appended else { panic!("not appended: {appended:?}") };
        (partition, required)
    };
    partitions.enumerate().map(append_one).collect()
}

/// Each partition has the number of each round as a record.
fn check_rounds(node: &Node, partitions: i32, rounds: i64) {
    let all: Vec<_> = (0..rounds).map(|round| (Offset(round), format!("{round}"))).collect();
    for index in 0..partitions {
        assert_eq!(read_all(&partition(node, "t", index)), all, "partition {index}");
    }
}

#[test]
fn b12_l8_what_one_sync_of_the_file_system_covered_survives_a_power_cut() {
    for seed in 0..10 {
        let disk = SimDisk::new(seed);
        let node = open(&disk);
        create(&node, "t", 8, &[]);
        let mut rounds = 0;
        eventually("a sync of the file system", || {
            for (partition, required) in append_to_all(&node, &format!("{rounds}")) {
                assert!(wait_acknowledged(&partition, required));
            }
            rounds += 1;
            disk.stats().whole_syncs > 0
        });
        check_rounds(&open(&disk.crash()), 8, rounds);
    }
}

#[test]
fn l10_a_failed_sync_of_the_file_system_fails_all_that_it_was_for() {
    let mut seed = 0;
    eventually("a failed sync of the file system", || {
        seed += 1;
        let disk = SimDisk::new(seed);
        let node = open(&disk);
        create(&node, "t", 8, &[]);
        for (partition, required) in append_to_all(&node, "safe") {
            assert!(wait_acknowledged(&partition, required));
        }
        let before = disk.stats().whole_syncs;
        disk.fail_syncs(true);
        for (partition, required) in append_to_all(&node, "never acknowledged") {
            assert!(!wait_acknowledged(&partition, required));
            assert!(matches!(partition.unavailable(), Some(Unavailable::Offline(_))));
        }
        disk.stats().whole_syncs > before
    });
}

#[test]
fn a_file_system_with_much_else_to_write_is_not_waited_for() {
    let disk = SimDisk::new(5);
    disk.set_unwritten(1 << 30);
    let node = open(&disk);
    create(&node, "t", 8, &[]);
    for round in 0..20 {
        for (partition, required) in append_to_all(&node, &format!("{round}")) {
            assert!(wait_acknowledged(&partition, required));
        }
    }
    assert_eq!(disk.stats().whole_syncs, 0);
}

/// Appends to very many partitions of which nobody waits for a sync, until there was one of the file system for what
/// was appended last. How many were appended to each.
fn append_until_synced_together(disk: &SimDisk, node: &Node) -> i64 {
    // Far too much for those that somebody waits for to be synced so.
    disk.set_unwritten(1 << 30);
    create(node, "t", 100, &[("ottla.durability", "replicated"), ("flush.ms", "1000")]);
    let (mut rounds, mut appended) = (0, None);
    eventually("a sync of the file system", || {
        // A regular round that came amid the last ones has left too few for another.
        if appended.is_none_or(|(at, _)| Instant::now() - at > Duration::from_secs(3)) {
            for index in 0..100 {
                append_unawaited(&partition(node, "t", index), &batch(&format!("{rounds}"))).unwrap();
            }
            rounds += 1;
            appended = Some((Instant::now(), disk.stats().whole_syncs));
        }
        appended.is_some_and(|(_, before)| disk.stats().whole_syncs > before)
    });
    rounds
}

#[test]
fn b12_l8_very_many_that_nobody_waits_for_are_synced_together_and_survive_a_power_cut() {
    for seed in 0..3 {
        let disk = SimDisk::new(seed);
        let rounds = append_until_synced_together(&disk, &open(&disk));
        check_rounds(&open(&disk.crash()), 100, rounds);
    }
}

#[test]
fn who_waits_for_a_sync_does_not_wait_for_one_of_very_many() {
    struct LetGo(SimDisk);
    impl Drop for LetGo {
        fn drop(&mut self) {
            self.0.hold_whole_syncs(false);
        }
    }
    let disk = SimDisk::new(7);
    let node = open(&disk);
    create(&node, "durable", 1, &[]);
    let _let_go = LetGo(disk.clone());
    disk.hold_whole_syncs(true);
    append_until_synced_together(&disk, &node);
    for offset in 0..3 {
        assert_eq!(produce(&partition(&node, "durable", 0), "a"), Offset(offset));
    }
}

#[test]
fn l10_a_failed_sync_of_very_many_takes_the_directory_offline() {
    let mut seed = 6;
    eventually("a failed sync of the file system", || {
        seed += 1;
        let disk = SimDisk::new(seed);
        let node = open(&disk);
        append_until_synced_together(&disk, &node);
        let before = disk.stats().whole_syncs;
        disk.fail_syncs(true);
        for index in 0..100 {
            let appended = append_unawaited(&partition(&node, "t", index), &batch("lost"));
            assert!(appended.is_ok() || node.has_failed());
        }
        eventually("the failed sync", || node.has_failed());
        disk.stats().whole_syncs > before
    });
}

#[test]
fn l6_only_a_clean_end_keeps_the_leader_epoch() {
    let disk = SimDisk::new(1);
    let node = open(&disk);
    create(&node, "t", 1, &[]);
    produce(&partition(&node, "t", 0), "a");
    let first = partition(&node, "t", 0).leader_epoch();
    node.shut_down().unwrap();

    let node = open(&disk);
    assert_eq!(partition(&node, "t", 0).leader_epoch(), first, "a clean end proves that nothing is missing");
    drop(node);

    // The proof was used up by that start, which did not end cleanly.
    let node = open(&disk.crash());
    assert!(partition(&node, "t", 0).leader_epoch() > first);
    assert_eq!(read_all(&partition(&node, "t", 0)), [(Offset(0), "a".into())]);
}

#[test]
fn a2_l6_a_run_that_hears_nothing_of_its_registration_leaves_its_name() {
    let disk = SimDisk::new(3);
    let identity = Identity {
        cluster_id: "ASNFZ4mrze_-3LqYdlQyEA".into(),
        node_id: BrokerId(2),
        directory_id: Uuid::from_u128(9),
        port: None,
        joining: true,
    };
    let joined = Some(Joined { identity, incarnation: [51; 16] });
    // Nobody else is there, so that it hears nothing.
    let config = NodeConfig { joined, ..common::config(Arc::new(disk.clone()), 52, &[]) };
    let node = Node::open(config).unwrap();
    assert_eq!(node.registration().ended, CleanEnd::default());
    node.shut_down().unwrap();
    let mut runs = vec![[51; 16]];
    for drawn in 53..55 {
        let node = Node::open(common::config(Arc::new(disk.clone()), drawn, &[])).unwrap();
        let registration = node.registration();
        assert_eq!(registration.ended, CleanEnd { epoch: None, unheard: runs.clone() });
        runs.push(registration.incarnation);
        node.shut_down().unwrap();
    }
    // The last of them does not end well, and neither does what it began with count any more.
    drop(Node::open(common::config(Arc::new(disk.clone()), 55, &[])).unwrap());
    let node = Node::open(common::config(Arc::new(disk), 56, &[])).unwrap();
    assert_eq!(node.registration().ended, CleanEnd::default());
}

#[test]
fn l10_a_failed_sync_takes_the_directory_offline_for_good() {
    let disk = SimDisk::new(2);
    let node = open(&disk);
    create(&node, "t", 2, &[]);
    produce(&partition(&node, "t", 0), "safe");

    disk.fail_syncs(true);
    let failing = partition(&node, "t", 0);
    let Ok(Outcome::Appended { required, .. }) = append(&failing, &batch("never acknowledged")) else {
        panic!("not appended");
    };
    assert!(!wait_acknowledged(&failing, required), "what could not be synced must not be acknowledged");

    disk.fail_syncs(false);
    let other = partition(&node, "t", 1);
    assert!(matches!(append(&other, &batch("x")), Err(Unavailable::Offline(_))), "nor anything after it");
    assert!(node.has_failed());
    assert!(node.shut_down().is_err(), "and it does not end cleanly");

    let node = open(&disk.crash());
    assert!(read_all(&partition(&node, "t", 0)).contains(&(Offset(0), "safe".into())));
}

#[test]
fn l10_nothing_that_failed_to_sync_is_acknowledged_later() {
    let disk = SimDisk::new(21);
    let node = open(&disk);
    create(&node, "t", 6, &[]);
    (0..6).for_each(|index| assert_eq!(produce(&partition(&node, "t", index), "safe"), Offset(0)));

    disk.fail_syncs(true);
    let (mut outcomes, mut wakes) = (Vec::new(), Wakes::default());
    for index in 0..6 {
        let partition = partition(&node, "t", index);
        // Nobody is said to wait, so that all are synced together.
        let appended = partition.append(&[batch("lost")], false, NOW, &mut outcomes, &mut wakes);
        assert!(appended.is_ok() || node.has_failed());
    }
    wakes.wake();
    for index in 0..6 {
        assert!(!wait_acknowledged(&partition(&node, "t", index), Offset(2)));
    }
    disk.fail_syncs(false);
    for index in 0..6 {
        assert!(!wait_acknowledged(&partition(&node, "t", index), Offset(2)), "the disk is not asked again");
    }
    drop(node);
    let after = open(&disk.crash());
    (0..6).for_each(|index| assert!(read_all(&partition(&after, "t", index)).contains(&(Offset(0), "safe".into()))));
}

#[test]
fn what_is_appended_during_a_sync_is_synced_right_after_it() {
    let node = open(&SimDisk::new(22));
    create(&node, "t", 1, &[]);
    let partition = &partition(&node, "t", 0);
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..4 {
            let in_time = |_: &i32| started.elapsed() < DEADLINE;
            scope.spawn(move || {
                for _ in (0..500).take_while(in_time) {
                    produce(partition, "x");
                }
            });
        }
    });
    // One that was forgotten is synced, too, when the housekeeper looks after seconds; too late for all to be in time.
    assert_eq!(partition.high_watermark(), Offset(2000));
}

#[test]
fn l11_a_full_disk_refuses_writes_until_there_is_room() {
    let disk = SimDisk::new(3);
    disk.set_capacity(Some(8 << 20));
    let node = open_with(&disk, &[("ottla.disk.reserve.bytes", "1048576")]);
    create(&node, "t", 1, &[]);
    create(&node, "filler", 1, &[]);
    let filler = partition(&node, "filler", 0);
    let kept = partition(&node, "t", 0);
    produce(&kept, "before");
    let large = "x".repeat(100_000);
    let refused = loop {
        match append(&filler, &batch(&large)) {
            Ok(Outcome::Appended { .. }) => {}
            other => break other,
        }
    };
    assert!(matches!(refused, Err(Unavailable::NoSpace(_)) | Ok(Outcome::Failed(_))), "{refused:?}");
    assert_eq!(read_all(&kept), [(Offset(0), "before".into())], "reads go on");

    // The reserve is for this: metadata can still change.
    node.submit(Command::DeleteTopics { topics: vec![TopicRef::Name("filler".into())] }).unwrap();
    eventually("writes resume without a restart", || {
        matches!(append(&kept, &batch("after")), Ok(Outcome::Appended { .. }))
    });
    let last = kept.extent().unwrap().log_end;
    assert!(wait_acknowledged(&kept, last));
    assert_eq!(read_all(&kept).last().unwrap().1, "after");
}

#[test]
fn l11_metadata_can_change_on_a_disk_without_a_free_byte() {
    let disk = SimDisk::new(31);
    disk.set_capacity(Some(8 << 20));
    // Even a person who keeps nothing in reserve must be able to delete a topic.
    let node = open_with(&disk, &[("ottla.disk.reserve.bytes", "0")]);
    create(&node, "t", 4, &[]);
    let large = "x".repeat(20_000);
    for index in 0..4 {
        let filled = partition(&node, "t", index);
        while matches!(append(&filled, &batch(&large)), Ok(Outcome::Appended { .. })) {}
    }
    disk.set_capacity(Some(disk.used()));
    for number in 0..1000 {
        create(&node, &format!("without-room-{number}"), 1, &[]);
    }
    node.submit(Command::DeleteTopics { topics: vec![TopicRef::Name("t".into())] }).unwrap();
    create(&node, "next", 1, &[]);
    eventually("the room of the deleted topic", || {
        matches!(append(&partition(&node, "next", 0), &batch(&large)), Ok(Outcome::Appended { .. }))
    });
}

#[test]
fn p1_a_retry_is_recognised_after_a_restart_and_after_a_crash() {
    let disk = SimDisk::new(4);
    let node = open(&disk);
    create(&node, "t", 1, &[]);
    let written = partition(&node, "t", 0);
    for sequence in 0..7 {
        let Ok(Outcome::Appended { required, .. }) = append(&written, &sequenced(5, sequence, "v")) else {
            panic!("not appended");
        };
        assert!(wait_acknowledged(&written, required));
    }
    node.shut_down().unwrap();
    let retry = |disk: &SimDisk| {
        let node = open(disk);
        let partition = partition(&node, "t", 0);
        for sequence in 2..7 {
            let outcome = append(&partition, &sequenced(5, sequence, "v"));
            let expected = Offset(i64::from(sequence));
            assert!(
                matches!(outcome, Ok(Outcome::Duplicate { base_offset, .. }) if base_offset == expected),
                "sequence {sequence}: {outcome:?}"
            );
        }
        let outcome = append(&partition, &sequenced(5, 8, "gap"));
        assert!(matches!(outcome, Ok(Outcome::Refused(_))), "{outcome:?}");
    };
    retry(&disk);
    retry(&disk.crash());
}

#[test]
fn m6_a_topic_created_again_has_nothing_of_the_old_one() {
    let disk = SimDisk::new(5);
    let node = open(&disk);
    create(&node, "t", 1, &[]);
    let old = partition(&node, "t", 0);
    produce(&old, "old");
    node.submit(Command::DeleteTopics { topics: vec![TopicRef::Name("t".into())] }).unwrap();
    assert_eq!(append(&old, &batch("late")).unwrap_err(), Unavailable::Deleted);
    create(&node, "t", 1, &[]);
    let new = partition(&node, "t", 0);
    assert_ne!(new.topic(), old.topic());
    assert_eq!(read_all(&new), []);
    produce(&new, "new");
    let after = open(&disk.crash());
    assert_eq!(read_all(&partition(&after, "t", 0)), [(Offset(0), "new".into())]);
}

#[test]
fn l12_files_that_no_topic_owns_are_set_aside_and_not_removed_at_once() {
    let disk = SimDisk::new(6);
    drop(open(&disk));
    let stray = Path::new("/data/topics/AAAAAAAAAAAAAAAAAAAAAA-0");
    disk.create_dir_all(stray).unwrap();
    disk.create(&stray.join("00000000000000000000.log")).unwrap();
    drop(open(&disk));
    let aside = Path::new("/data/topics/AAAAAAAAAAAAAAAAAAAAAA-0.deleted/00000000000000000000.log");
    assert!(disk.exists(aside).unwrap());
    assert!(!disk.exists(stray).unwrap());
}

#[test]
fn l7_a_damaged_checkpoint_costs_time_and_no_data() {
    let disk = SimDisk::new(7);
    let node = open(&disk);
    create(&node, "t", 1, &[]);
    produce(&partition(&node, "t", 0), "a");
    node.shut_down().unwrap();
    assert!(disk.flip_bit(Path::new("/data/checkpoint"), 20, 3));
    let node = open(&disk);
    assert_eq!(read_all(&partition(&node, "t", 0)), [(Offset(0), "a".into())]);
}

#[test]
fn l5_damage_below_what_was_durable_is_reported_and_not_cut() {
    let disk = SimDisk::new(8);
    let node = open(&disk);
    create(&node, "t", 1, &[]);
    let topic = partition(&node, "t", 0).topic();
    for value in ["a", "b", "c"] {
        produce(&partition(&node, "t", 0), value);
    }
    // Housekeeping writes down how far the log is durable.
    let checkpoint = Path::new("/data/checkpoint");
    let written = disk.read_file(checkpoint);
    partition(&node, "t", 0).delete_records(Some(Offset(0))).unwrap();
    eventually("a checkpoint", || disk.read_file(checkpoint) != written);
    drop(node);

    let disk = disk.fork();
    let file = format!("/data/topics/{topic}-0/00000000000000000000.log");
    let before = disk.read_file(Path::new(&file)).unwrap();
    assert!(disk.flip_bit(Path::new(&file), 65, 0), "inside the first batch");
    let node = open(&disk);
    let damaged = partition(&node, "t", 0);
    assert!(matches!(append(&damaged, &batch("d")), Err(Unavailable::Offline(_))));
    let after = disk.read_file(Path::new(&file)).unwrap();
    assert_eq!(after.len(), before.len(), "with the only copy damaged nothing is cut: an operator decides");
    create(&node, "other", 1, &[]);
    produce(&partition(&node, "other", 0), "other partitions go on");
}
