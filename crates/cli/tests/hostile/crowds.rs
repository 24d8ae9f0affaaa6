//! Too many connections, too many requests, and nobody who reads the answers.

use std::{
    io::{ErrorKind, Write},
    time::Duration,
};

use bytes::Bytes;
use ottla_protocol::messages::{ApiVersionsRequest, FetchRequest, fetch_request};
use ottla_records::{BatchBuilder, Compression};

use crate::victim::{NOW, TOPIC, attack, attack_with, frame, only_error, produce};

/// A socket that has taken nothing for this long is full.
const FULL: Duration = Duration::from_millis(300);

#[test]
fn connections_that_come_and_go_leave_nothing() {
    attack(|victim| {
        for _ in 0..5_000 {
            drop(victim.connect());
        }
    });
}

#[test]
fn idle_connections_are_cheap() {
    attack(|victim| {
        let peers: Vec<_> = (0..3_000).map(|_| victim.connect()).collect();
        drop(peers);
    });
}

/// Sends a request again and again without reading, until the broker takes no more: how often.
fn flood(victim: &crate::victim::Victim, bytes: &[u8], most: usize) -> usize {
    let mut peer = victim.connect();
    peer.socket().set_write_timeout(Some(FULL)).unwrap();
    for sent in 0..most {
        match peer.socket().write_all(bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return sent,
            Err(error) => panic!("the broker closed it: {error}"),
        }
    }
    most
}

#[test]
fn answers_that_nobody_reads_stop_the_one_who_asks() {
    attack(|victim| {
        let most = 1_000_000;
        let sent = flood(victim, &frame(&ApiVersionsRequest::default(), 0), most);
        assert!(sent < most, "{sent} requests were taken without a word");
    });
}

#[test]
fn records_that_nobody_reads_stop_the_one_who_asks() {
    attack(|victim| {
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.push(NOW, None, Some(&[7; 900_000]), &[]).unwrap();
        let batch: Bytes = builder.build().unwrap();
        let mut peer = victim.connect();
        for _ in 0..20 {
            let answer = peer.call(&produce(batch.clone()), 9).expect("an answer");
            assert_eq!(only_error(&answer), 0);
        }
        let partition = fetch_request::FetchPartition { partition_max_bytes: 50 << 20, ..Default::default() };
        let topic =
            fetch_request::FetchTopic { topic: TOPIC.into(), partitions: vec![partition], ..Default::default() };
        let fetch = FetchRequest { replica_id: -1, max_bytes: 50 << 20, topics: vec![topic], ..Default::default() };
        let most = 100_000;
        let sent = flood(victim, &frame(&fetch, 12), most);
        assert!(sent < most, "{sent} requests were taken without a word");
    });
}

#[test]
fn many_half_sent_frames_share_one_budget() {
    attack_with(&["-o", "ottla.memory.bytes=16777216"], |victim| {
        // Twenty clients with two megabytes each of a frame that never ends; most are not read to the end.
        let piece = [&(64_u32 << 20).to_be_bytes()[..], &vec![0; 2 << 20]].concat();
        let peers: Vec<_> = (0..20)
            .map(|_| {
                let mut peer = victim.connect();
                peer.socket().set_nonblocking(true).unwrap();
                // What fits into the socket, which is all that a client can do.
                let _ = peer.socket().write(&piece);
                peer
            })
            .collect();
        drop(peers);
    });
}
