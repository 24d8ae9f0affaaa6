//! Starting and stopping the broker: what it refuses, and what it keeps.

use std::{
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::broker::{Broker, failure, ottla};

#[test]
fn what_cannot_be_started_says_so_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let broker = Broker::start(&data, "127.0.0.1:0", &[]);
    let other = dir.path().join("other");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let [data, other, file] = [&data, &other, &file].map(|path| path.to_str().unwrap());
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--data", data, "--listen", "127.0.0.1:0"], 1, "in use by another process"),
        (&["--data", other, "--listen", &broker.address], 1, "cannot listen on"),
        (&["--data", file, "--listen", "127.0.0.1:0"], 1, "cannot write to the data directory"),
        (&["--data", other, "-o", "ottla.durabilty=fsync"], 2, "ottla.durability"),
        (&["--data", other, "-o", "num.partitions=0"], 2, "num.partitions"),
    ];
    for (args, code, expected) in cases {
        let (found, said) = failure(&ottla().arg("serve").args(args).output().unwrap());
        assert_eq!(found, Some(code), "{args:?}: {said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{args:?}: {said}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn as_many_threads_serve_as_were_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let one = Broker::start(&dir.path().join("one"), "127.0.0.1:0", &["-o", "ottla.worker.threads=1"]);
    let many = Broker::start(&dir.path().join("many"), "127.0.0.1:0", &["-o", "ottla.worker.threads=64"]);
    assert!(many.threads() >= 64, "{}", many.threads());
    assert!(one.threads() < 64, "{}", one.threads());
    many.ok_with(&["produce", "t"], b"a\n");
    assert_eq!(many.ok(&["consume", "t"]), "a\n");
}

#[test]
fn l6_sigterm_leaves_a_proof_and_everything_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), "127.0.0.1:0", &["-o", "num.partitions=2"]);
    broker.ok_with(&["produce", "t", "-k", ":"], b"a:1\nb:2\nc:3\n");
    let before = broker.ok(&["topic", "describe", "t", "--json"]);
    assert_eq!(broker.stop(), Some(0));
    assert!(dir.path().join("clean-shutdown").exists());
    let broker = Broker::start(dir.path(), "127.0.0.1:0", &[]);
    assert!(!dir.path().join("clean-shutdown").exists());
    assert_eq!(broker.ok(&["topic", "describe", "t", "--json"]), before);
    assert_eq!(broker.ok(&["consume", "t"]).lines().count(), 3);
}

#[test]
fn l6_a_sigterm_during_the_start_leaves_a_proof_too() {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut child = ottla().args(["serve", "--listen", &port.to_string(), "--data"]).arg(dir.path()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(port).is_err() {
        assert!(Instant::now() < deadline, "it does not listen");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(dir.path().join("clean-shutdown").exists());
}
