//! Nodes that are killed, stopped and started again while the others go on.

use std::{fs, os::unix::fs::FileExt};

use rustix::process::Signal;

use crate::{
    broker::{failure, ottla},
    cluster::{Cluster, lines},
};

fn with_topic() -> Cluster {
    let cluster = Cluster::of(3);
    cluster.node(1).ok(&["topic", "create", "t", "-p", "1", "-r", "3", "-o", "min.insync.replicas=2"]);
    cluster.wait_in_sync("t", 3);
    cluster
}

#[test]
fn i5_what_was_acknowledged_is_there_after_its_leader_was_killed() {
    let mut cluster = with_topic();
    let (before, after) = (lines("a", 200), lines("b", 200));
    cluster.produce(cluster.some(), "t", &before);
    let leader = cluster.leader("t").unwrap();
    cluster.kill(leader);
    // The producer looks for the next leader by itself.
    cluster.produce(cluster.some(), "t", &after);
    assert_ne!(cluster.leader("t"), Some(leader));
    let all: Vec<String> = before.into_iter().chain(after).collect();
    assert_eq!(cluster.consume(cluster.some(), "t"), all);
    cluster.start(leader);
    cluster.wait_in_sync("t", 3);
    assert_eq!(cluster.consume(cluster.node(leader), "t"), all);
}

#[test]
fn m1_the_cluster_has_another_controller_after_its_own_was_killed() {
    let mut cluster = with_topic();
    let controller = cluster.controller().unwrap();
    cluster.kill(usize::try_from(controller).unwrap());
    cluster.wait_until("another controls", |cluster| cluster.controller().is_some_and(|id| id != controller));
    cluster.some().ok(&["topic", "create", "later", "-p", "2", "-r", "2"]);
    cluster.produce(cluster.some(), "later", &lines("c", 10));
    assert_eq!(cluster.consume(cluster.some(), "later"), lines("c", 10));
}

#[test]
fn i6_too_few_copies_refuse_what_wants_more() {
    let mut cluster = with_topic();
    cluster.produce(cluster.some(), "t", &lines("a", 10));
    let leader = cluster.leader("t").unwrap();
    let others: Vec<usize> = (1..=3).filter(|number| *number != leader).collect();
    // The metadata log has one voter left of three: what needs the controller waits, what is there can be read.
    for other in &others {
        cluster.kill(*other);
    }
    let refused = cluster.node(leader).run_with(&["produce", "t", "--timeout", "3s"], b"too late\n");
    let (code, said) = failure(&refused);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(cluster.consume(cluster.node(leader), "t"), lines("a", 10));
    for other in others {
        cluster.start(other);
    }
    cluster.wait_in_sync("t", 3);
    cluster.produce(cluster.some(), "t", &lines("b", 10));
}

#[test]
fn i6_nothing_is_written_of_what_too_few_copies_could_acknowledge() {
    let mut cluster = Cluster::of(3);
    cluster.some().ok(&["topic", "create", "t", "-p", "1", "-r", "2", "-o", "min.insync.replicas=2"]);
    cluster.wait_in_sync("t", 2);
    cluster.produce(cluster.some(), "t", &lines("a", 10));
    let leader = cluster.leader("t").unwrap();
    let replicas = cluster.partitions("t")[0]["replicas"].clone();
    let follower = replicas.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as usize).find(|id| *id != leader);
    let follower = follower.unwrap();
    cluster.kill(follower);
    cluster.wait_in_sync("t", 1);
    let refused = cluster.node(leader).run_with(&["produce", "t", "--timeout", "3s"], b"too late\n");
    let (code, said) = failure(&refused);
    assert_eq!(code, Some(1), "{said}");
    cluster.start(follower);
    cluster.wait_in_sync("t", 2);
    assert_eq!(cluster.consume(cluster.some(), "t"), lines("a", 10));
}

#[test]
fn i4_a_node_that_was_away_is_in_sync_again_also_where_nobody_writes() {
    let quick = ["broker.session.timeout.ms=1500", "broker.heartbeat.interval.ms=200"];
    let cluster = Cluster::with(&[&quick, &quick, &quick]);
    cluster.some().ok(&["topic", "create", "t", "--partitions", "3", "-o", "min.insync.replicas=2"]);
    cluster.wait_in_sync("t", 3);
    // It does not start anew, so its connections and sessions are those of before. The second time it leads nothing,
    // and goes on with what it was told.
    for _ in 0..2 {
        cluster.node(2).signal(Signal::STOP);
        cluster.wait_in_sync("t", 2);
        cluster.node(2).signal(Signal::CONT);
        cluster.wait_in_sync("t", 3);
    }
}

#[test]
fn l5_b17_a_leader_whose_copy_rots_hands_over_and_has_it_made_anew() {
    let mut cluster = with_topic();
    let written = lines("a", 200);
    cluster.produce(cluster.some(), "t", &written);
    let leader = cluster.leader("t").unwrap();
    let log = cluster.log_of(leader, "t");
    let mut bytes = fs::read(&log).unwrap();
    bytes[150] ^= 4;
    fs::File::options().write(true).open(&log).unwrap().write_all_at(&bytes[150..151], 150).unwrap();
    cluster.wait_until("another node leads", |cluster| cluster.leader("t").is_some_and(|now| now != leader));
    cluster.wait_in_sync("t", 3);
    let other = cluster.leader("t").unwrap();
    assert_eq!(fs::read(&log).unwrap(), fs::read(cluster.log_of(other, "t")).unwrap());
    cluster.kill(other);
    cluster.wait_until("somebody leads", |cluster| cluster.leader("t").is_some_and(|now| now != other));
    assert_eq!(cluster.consume(cluster.some(), "t"), written);
}

#[test]
fn s1_each_node_restarts_in_turn_and_no_write_is_lost() {
    let mut cluster = with_topic();
    let mut written = Vec::new();
    for number in 1..=3 {
        for (round, stops) in [(0, true), (1, false)] {
            if stops {
                cluster.stop(number);
            } else {
                cluster.start(number);
            }
            let more = lines(&format!("{number}-{round}"), 50);
            cluster.produce(cluster.some(), "t", &more);
            written.extend(more);
        }
        cluster.wait_in_sync("t", 3);
    }
    assert_eq!(cluster.consume(cluster.some(), "t"), written);
}

#[test]
fn m2_a_node_whose_disk_was_replaced_is_not_taken_for_the_voter_it_was() {
    let mut cluster = with_topic();
    let written = lines("a", 50);
    cluster.produce(cluster.some(), "t", &written);
    cluster.kill(1);
    let seed = cluster.node(2).address.clone();
    cluster.wait_until("the others go on", |cluster| !cluster.live().contains(&1));
    let empty = tempfile::tempdir().unwrap();
    let as_before = |more: &[&str]| {
        let command = ["serve", "--listen", "127.0.0.1:0", "--join", &seed, "--data"];
        ottla().args(command).arg(empty.path()).args(more).output().unwrap()
    };
    let (code, said) = failure(&as_before(&["-o", "node.id=1"]));
    assert!(code == Some(1) && said.contains("leave node.id out"), "{code:?} {said}");
    assert_eq!(cluster.join(), 4, "as another node it is welcome");
    assert_eq!(cluster.consume(cluster.some(), "t"), written);
}

#[test]
fn b12_all_nodes_killed_at_once_lose_nothing_that_was_acknowledged() {
    let mut cluster = with_topic();
    let written = lines("a", 500);
    cluster.produce(cluster.some(), "t", &written);
    for number in 1..=3 {
        cluster.kill(number);
    }
    for number in 1..=3 {
        cluster.start(number);
    }
    cluster.wait_in_sync("t", 3);
    assert_eq!(cluster.consume(cluster.some(), "t"), written);
}
