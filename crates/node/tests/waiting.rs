//! Who waits for a partition is woken, once, and never left waiting.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    thread,
};

use bytes::Bytes;
use common::{NOW, append, batch, create, open, partition, produce, wait_acknowledged};
use ottla_log::SimDisk;
use ottla_node::Wakes;
use ottla_replica::Fetched;
use ottla_types::{LeaderEpoch, Offset};

/// A connection that counts how often it is woken.
#[derive(Default)]
struct Connection {
    woken: AtomicUsize,
}

impl Wake for Connection {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_connection_is_woken_once_however_many_of_its_partitions_moved() {
    let node = open(&SimDisk::new(1));
    create(&node, "t", 8, &[("ottla.durability", "replicated")]);
    let connections: Vec<_> = (0..3).map(|_| Arc::new(Connection::default())).collect();
    for index in 0..8 {
        for connection in &connections {
            assert!(partition(&node, "t", index).wait_for(Offset(1), &Waker::from(Arc::clone(connection))));
        }
    }
    let (mut outcomes, mut wakes) = (Vec::new(), Wakes::default());
    for index in 0..8 {
        partition(&node, "t", index).append(&[batch("a")], true, NOW, &mut outcomes, &mut wakes).unwrap();
    }
    wakes.wake();
    let woken: Vec<_> = connections.iter().map(|connection| connection.woken.load(Ordering::Relaxed)).collect();
    assert_eq!(woken, [1, 1, 1]);
}

#[test]
fn one_target_of_several_is_reached_and_the_others_wait_on() {
    let node = open(&SimDisk::new(2));
    create(&node, "t", 1, &[("ottla.durability", "replicated")]);
    let partition = partition(&node, "t", 0);
    let [near, far] = [2, 3].map(|target| {
        let connection = Arc::new(Connection::default());
        assert!(partition.wait_for(Offset(target), &Waker::from(Arc::clone(&connection))));
        connection
    });
    let woken = || [&near, &far].map(|connection| connection.woken.load(Ordering::Relaxed));
    let seen = [(); 3].map(|()| {
        append(&partition, &batch("a")).unwrap();
        woken()
    });
    assert_eq!(seen, [[0, 0], [1, 0], [1, 1]]);
}

#[test]
fn nobody_is_forgotten_who_begins_to_wait_while_a_record_arrives() {
    const RECORDS: i64 = 20_000;
    let node = open(&SimDisk::new(3));
    create(&node, "t", 1, &[("ottla.durability", "replicated")]);
    let partition = partition(&node, "t", 0);
    thread::scope(|scope| {
        // Each waits for every record in turn, so that it is always about to wait when the next arrives.
        for _ in 0..2 {
            scope.spawn(|| (1..=RECORDS).for_each(|end| assert!(wait_acknowledged(&partition, Offset(end)))));
        }
        for _ in 0..RECORDS {
            append(&partition, &batch("a")).unwrap();
        }
    });
}

#[test]
fn many_partitions_are_synced_side_by_side_again_and_again() {
    let node = open(&SimDisk::new(4));
    create(&node, "t", 16, &[]);
    for round in 0..20 {
        thread::scope(|scope| {
            for index in 0..16 {
                let partition = partition(&node, "t", index);
                scope.spawn(move || assert_eq!(produce(&partition, "a"), Offset(round)));
            }
        });
    }
    node.shut_down().unwrap();
}

#[test]
fn e5_an_answer_to_an_older_question_has_the_leader_told_where_the_copy_stands() {
    let node = open(&SimDisk::new(9));
    create(&node, "t", 1, &[("ottla.durability", "replicated")]);
    let partition = partition(&node, "t", 0);
    let stale = Fetched {
        leader_epoch: partition.leader_epoch(),
        from: Offset(7),
        last_epoch: LeaderEpoch::NONE,
        records: Bytes::new(),
        high_watermark: Offset::ZERO,
        log_start: Offset::ZERO,
        diverging: None,
    };
    assert!(partition.append_fetched(&stale).unwrap(), "the leader would send the same for ever");
}
