//! A peer on a socket that says what the test tells it: how the client begins, and what it makes of nonsense.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use ottla_client::{Client, Error};

/// A request as it arrived: key, version, correlation id.
fn request(socket: &mut TcpStream) -> (i16, i16, [u8; 4]) {
    let mut length = [0; 4];
    socket.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    socket.read_exact(&mut frame).unwrap();
    let short = |at: usize| i16::from_be_bytes([frame[at], frame[at + 1]]);
    (short(0), short(2), frame[4..8].try_into().unwrap())
}

fn answer(socket: &mut TcpStream, correlation_id: [u8; 4], body: &[u8]) {
    let length = u32::try_from(body.len() + 4).unwrap();
    socket.write_all(&[&length.to_be_bytes()[..], &correlation_id, body].concat()).unwrap();
}

/// Runs `peer` on the first connection, and connects to it.
fn connect(peer: impl FnOnce(&mut TcpStream) + Send + 'static) -> Result<Client, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let peer = thread::spawn(move || peer(&mut listener.accept().unwrap().0));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let connected = runtime.block_on(Client::connect(&[address], "test"));
    peer.join().unwrap();
    connected
}

/// Ranges of ApiVersions (0 to 2) and Metadata (0 to 4) in the form of versions 0 to 2, without what comes behind.
fn ranges(code: i16) -> Vec<u8> {
    let rows: [i16; 6] = [18, 0, 2, 3, 0, 4];
    let rows = rows.iter().flat_map(|number| number.to_be_bytes());
    code.to_be_bytes().into_iter().chain(2_i32.to_be_bytes()).chain(rows).collect()
}

#[test]
fn a_broker_that_refuses_our_apiversions_is_asked_in_its_own_version() {
    let connected = connect(|socket| {
        let (key, version, id) = request(socket);
        assert!(key == 18 && version > 2, "{key} v{version}");
        answer(socket, id, &ranges(35));
        let (key, version, id) = request(socket);
        assert_eq!((key, version), (18, 2));
        answer(socket, id, &[ranges(0), vec![0; 4]].concat());
        let (key, version, id) = request(socket);
        assert_eq!((key, version), (3, 4), "the newest Metadata both know");
        // No throttle; one broker, number 5, at h:9, no rack; no cluster id; it is the controller; no topics.
        let broker: [u8; 17] = [0, 0, 0, 1, 0, 0, 0, 5, 0, 1, b'h', 0, 0, 0, 9, 0xff, 0xff];
        let body = [&[0; 4][..], &broker, &[0xff, 0xff], &[0, 0, 0, 5], &[0; 4]];
        answer(socket, id, &body.concat());
    });
    let brokers = connected.unwrap().brokers();
    assert_eq!((brokers[0].id.0, brokers[0].host.as_str(), brokers[0].port), (5, "h", 9));
}

#[test]
fn answers_that_break_the_protocol_end_the_connection_with_an_error() {
    let claims: [(&str, &[u8]); 3] = [
        ("a negative length", &[0xff, 0xff, 0xff, 0xff]),
        ("more than we take", &[0x7f, 0xff, 0xff, 0xff]),
        ("another request's answer", &[0, 0, 0, 6, 0, 0, 0, 77, 0, 0]),
    ];
    for (what, bytes) in claims {
        let connected = connect(move |socket| {
            request(socket);
            socket.write_all(bytes).unwrap();
        });
        assert!(matches!(connected, Err(Error::Malformed { .. })), "{what}: {connected:?}");
    }
}

#[test]
fn a_broker_that_offers_nothing_in_common_is_told_apart() {
    let connected = connect(|socket| {
        let (_, _, id) = request(socket);
        // Version 4: no error, no APIs, no throttle, no tags.
        answer(socket, id, &[0, 0, 1, 0, 0, 0, 0, 0]);
    });
    assert!(matches!(connected, Err(Error::Unsupported { .. })), "{connected:?}");
}
