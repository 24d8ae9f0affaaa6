//! What one client can make the broker hold, as the kernel counts it. Alone in its binary, because the count is the
//! process's.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{fs, sync::Mutex};

use bytes::Bytes;
use common::{TestBroker, produce_request, raw_header};
use ottla_protocol::{Chunk, GatherOut, RequestHeader, messages::ProduceRequest};

const MIB: u64 = 1 << 20;
/// One test at a time: they count the same process.
static ALONE: Mutex<()> = Mutex::new(());

fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn requests_sent_in_one_go_are_not_all_answered_into_memory() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("wide", 4000, &[]);
    // All topics (Metadata version 1): 18 bytes that ask for a hundred thousand.
    let mut request = raw_header(3, 1, 7);
    request.extend((-1i32).to_be_bytes());
    let mut many = Vec::new();
    for _ in 0..10_000 {
        many.extend(i32::try_from(request.len()).unwrap().to_be_bytes());
        many.extend(&request);
    }
    let before = status("VmRSS:");
    // Makes the high-water mark what is resident now (proc(5)).
    fs::write("/proc/self/clear_refs", "5").unwrap();
    // Behind a request whose buffer has room for many.
    let large = client.send(9, &produce_request(1, "nowhere", 0, Bytes::from(vec![0; 600 << 10])));
    client.send_bytes(&many);
    client.receive::<ProduceRequest>(9, large);
    for _ in 0..100 {
        assert!(client.receive_frame().unwrap().len() > 100_000);
    }
    let cost = status("VmHWM:").saturating_sub(before);
    assert!(cost < 48 * MIB, "the answers cost {} MiB", cost / MIB);
}

#[test]
fn a_large_request_is_not_held_by_what_came_behind_it() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let broker = TestBroker::start();
    let header =
        RequestHeader { api_key: ottla_protocol::ApiKey::Produce, api_version: 9, correlation_id: 1, client_id: None };
    let mut out = GatherOut::new();
    out.request(&header, &produce_request(1, "nowhere", 0, Bytes::from(vec![0; 40 << 20]))).unwrap();
    let mut bytes = Vec::new();
    for chunk in out.finish() {
        let Chunk::Bytes(part) = chunk else { unreachable!("no regions in a request") };
        bytes.extend_from_slice(&part);
    }
    // The start of another request.
    bytes.extend([0, 0, 1, 0, 0]);
    let before = status("VmRSS:");
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = broker.connect();
        client.send_bytes(&bytes);
        client.receive::<ProduceRequest>(9, 1);
        clients.push(client);
    }
    let cost = status("VmRSS:").saturating_sub(before);
    assert!(cost < 100 * MIB, "eight answered requests still cost {} MiB", cost / MIB);
}
