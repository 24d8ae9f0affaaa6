//! A peer on a socket that says what the test tells it: how the client begins, and what it makes of nonsense.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use ottla_client::{Client, Connection, Error};
use ottla_protocol::{ApiKey, messages::MetadataRequest};

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

/// As [`connect`], for a connection by itself, once it is negotiated; and the test's part of the conversation.
fn open(peer: impl FnOnce(&mut TcpStream) + Send + 'static, test: impl AsyncFnOnce(Connection)) {
    const LIMIT: Duration = Duration::from_secs(30);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let peer = thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        let (_, _, id) = request(&mut socket);
        answer(&mut socket, id, &ranges(35));
        let (_, _, id) = request(&mut socket);
        answer(&mut socket, id, &[ranges(0), vec![0; 4]].concat());
        peer(&mut socket);
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let connection = Connection::open(&address, "test", LIMIT).await.unwrap();
        test(connection).await;
    });
    peer.join().unwrap();
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

#[test]
fn calls_go_out_without_waiting_for_each_other_and_get_their_own_answers() {
    const LIMIT: Duration = Duration::from_secs(30);
    // An answer to Metadata in version 4: no throttle, brokers, cluster id; a controller; no topics.
    let body = |controller: i32| [&[0; 4][..], &[0; 4], &[0xff, 0xff], &controller.to_be_bytes(), &[0; 4]].concat();
    open(
        move |socket| {
            let asked: Vec<_> = (0..3).map(|_| request(socket)).collect();
            for (number, (key, version, id)) in asked.into_iter().enumerate() {
                assert_eq!((key, version), (3, 4), "the newest Metadata both know");
                answer(socket, id, &body(i32::try_from(number).unwrap()));
            }
        },
        async |connection| {
            let metadata = MetadataRequest::default();
            let mut encoded = Vec::new();
            metadata.encode(&mut encoded, 4).unwrap();
            let (first, second, third) = tokio::join!(
                connection.call(&metadata, LIMIT),
                connection.call(&metadata, LIMIT),
                connection.call_raw(ApiKey::Metadata, 4, encoded.into(), LIMIT),
            );
            assert_eq!((first.unwrap().controller_id, second.unwrap().controller_id), (0, 1));
            assert_eq!(third.unwrap(), body(2));
            let unknown = connection.version(ApiKey::Raft, i16::MAX);
            assert!(matches!(unknown, Err(Error::Unsupported { api: ApiKey::Raft, .. })), "{unknown:?}");
        },
    );
}

#[test]
fn a_call_ends_in_time_and_a_connection_that_ends_says_so() {
    open(
        |socket| {
            request(socket);
            // The second request comes when the first was given up; then this peer goes.
            request(socket);
        },
        async |connection| {
            let limit = Duration::from_millis(20);
            let late = connection.call(&MetadataRequest::default(), limit).await;
            assert!(matches!(late, Err(Error::Timeout { api: ApiKey::Metadata, .. })), "{late:?}");
            let gone = connection.call(&MetadataRequest::default(), Duration::from_secs(30)).await;
            assert!(matches!(gone, Err(Error::Disconnected { .. })), "{gone:?}");
            assert!(connection.is_broken());
        },
    );
}
