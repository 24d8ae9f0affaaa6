//! Frames and headers that lie, other protocols, and bytes that come one at a time.

use std::{io::Write, net::Shutdown};

use ottla_fuzz::{TARGETS, mutate};
use ottla_protocol::{ApiKey, Reader, messages::ApiVersionsRequest, messages::ApiVersionsResponse};

use crate::victim::{attack, frame, framed, request};

const UNSUPPORTED_VERSION: i16 = 35;

fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[test]
fn impossible_frame_lengths_end_the_connection() {
    attack(|victim| {
        for length in [0, -1, i32::MIN, i32::MAX, 104_857_601] {
            let bytes = [&length.to_be_bytes()[..], &[0; 64]].concat();
            assert!(victim.connect().hangs_up_on(&bytes), "{length}");
        }
    });
}

#[test]
fn a_claim_of_100_mib_and_silence_cost_nothing() {
    attack(|victim| {
        let mut peers = Vec::new();
        for _ in 0..300 {
            let mut peer = victim.connect();
            assert!(peer.send(&[&104_857_600_u32.to_be_bytes()[..], &[0, 3, 0, 9, 0, 0]].concat()));
            peers.push(peer);
        }
    });
}

#[test]
fn a_request_that_comes_byte_by_byte_is_answered() {
    attack(|victim| {
        let mut peer = victim.connect();
        for byte in frame(&ApiVersionsRequest::default(), 0) {
            assert!(peer.send(&[byte]));
        }
        assert!(peer.answer().is_some());
    });
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_frame_is_let_go() {
    attack(|victim| {
        let whole = frame(&ApiVersionsRequest::default(), 0);
        for end in 0..whole.len() {
            let mut peer = victim.connect();
            peer.socket().write_all(&whole[..end]).unwrap();
            peer.socket().shutdown(Shutdown::Write).unwrap();
            assert!(peer.answer().is_none());
        }
    });
}

#[test]
fn other_protocols_are_hung_up_on() {
    attack(|victim| {
        let others: [&[u8]; 4] = [
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl\r\nAccept: */*\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client hello goes on like this, for 512 bytes",
            b"\x00\x00\x00\x00 four zero bytes and text",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ];
        for bytes in others {
            assert!(victim.connect().hangs_up_on(bytes), "{}", String::from_utf8_lossy(bytes));
        }
    });
}

#[test]
fn unknown_apis_and_versions_end_the_connection() {
    attack(|victim| {
        for (api, version) in
            [(999, 0), (-1, 0), (i16::MAX, 0), (i16::MIN, 0), (3, -1), (3, 99), (0, -5), (1, i16::MAX)]
        {
            assert!(victim.connect().hangs_up_on(&request(api, version, false, &[0; 8])), "{api} {version}");
        }
    });
}

#[test]
fn api_versions_of_any_version_are_answered_in_version_0() {
    attack(|victim| {
        for version in [99, i16::MAX] {
            let mut peer = victim.connect();
            peer.send(&request(ApiKey::ApiVersions as i16, version, true, &[0]));
            let mut reader = Reader::new(peer.answer().expect("an answer"));
            assert_eq!(reader.i32(), Ok(1));
            let answer = ApiVersionsResponse::decode(&mut reader, 0).unwrap();
            assert_eq!(answer.error_code, UNSUPPORTED_VERSION);
            // Kafka's clients go on with a version that is named there.
            let again = peer.call(&ApiVersionsRequest::default(), 0).expect("the same connection");
            assert_eq!(again.error_code, 0);
        }
    });
}

#[test]
fn tags_without_end_in_a_header_are_bounded() {
    attack(|victim| {
        // ApiVersions version 3 has the flexible header: five million tags without content in 10 MB.
        let count = 5_000_000;
        let mut header = vec![0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff];
        header.extend(varint(count));
        header.resize(header.len() + 2 * count as usize, 0);
        header.extend([1, 1, 0]);
        let mut peer = victim.connect();
        peer.send(&framed(&header));
        peer.answer();
        // Claimed and not sent.
        for claim in [count, u32::MAX] {
            let header = [&[0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff][..], &varint(claim)].concat();
            assert!(victim.connect().hangs_up_on(&framed(&header)), "{claim}");
        }
        // A tag that claims a gigabyte, and a varint that does not end.
        for tags in [[1, 9, 0xff, 0xff, 0xff, 0xff, 3], [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0]] {
            let header = [&[0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff][..], &tags].concat();
            assert!(victim.connect().hangs_up_on(&framed(&header)), "{tags:?}");
        }
    });
}

#[test]
fn tags_twice_or_in_disorder_do_no_harm() {
    attack(|victim| {
        let mut peer = victim.connect();
        for tags in [&[2, 7, 1, 0, 7, 1, 0][..], &[2, 9, 0, 3, 0]] {
            let header = [&[0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff][..], tags, b"\x02a\x021\0"].concat();
            peer.send(&framed(&header));
            assert!(peer.answer().is_some());
        }
    });
}

#[test]
fn spoilt_requests_of_every_kind_are_answered_or_end_the_connection() {
    let target = TARGETS.iter().find(|target| target.name == "request").unwrap();
    let corpus = (target.corpus)();
    attack(|victim| {
        let mut random = mutate::Random::new(11);
        let mut peer = victim.connect();
        for _ in 0..3_000 {
            // An answer may be long in coming when a wait is asked for, so none is waited for.
            if !peer.send(&framed(&mutate::input(&corpus, &mut random))) {
                peer = victim.connect();
            }
        }
    });
}
