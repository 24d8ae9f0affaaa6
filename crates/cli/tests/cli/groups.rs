//! Groups from the command line: reading as a member, and looking after groups.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::broker::{Broker, failure, ottla};

/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Members of these brokers report often, so that a test need not wait long for partitions to change hands.
const SOON: [&str; 6] = [
    "-o",
    "group.consumer.min.heartbeat.interval.ms=100",
    "-o",
    "group.consumer.heartbeat.interval.ms=100",
    "-o",
    "group.consumer.assignment.interval.ms=0",
];

fn broker() -> (tempfile::TempDir, Broker) {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), "127.0.0.1:0", &SOON);
    (dir, broker)
}

/// Writes records with these numbers as key and value.
fn produce(broker: &Broker, topic: &str, numbers: std::ops::Range<u32>) {
    let lines: String = numbers.map(|number| format!("{number}:{number}\n")).collect();
    broker.ok_with(&["produce", topic, "-k", ":"], lines.as_bytes());
}

fn numbers(text: &str) -> Vec<u32> {
    let mut numbers: Vec<_> = text.lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

fn describe(broker: &Broker, group: &str) -> Value {
    serde_json::from_str(&broker.ok(&["group", "describe", group, "--json"])).unwrap()
}

/// One number of each partition of a group, by partition.
fn column(broker: &Broker, group: &str, name: &str) -> Vec<i64> {
    let described = describe(broker, group);
    described["partitions"].as_array().unwrap().iter().map(|row| row[name].as_i64().unwrap()).collect()
}

/// A consumer that follows a topic as a member of a group; killed when it is dropped.
struct Member(Child);

impl Member {
    /// Starts it; the numbers that it reads go to `read`.
    fn start(broker: &Broker, topic: &str, group: &str, read: Sender<u32>) -> Member {
        let mut child = ottla()
            .args(["consume", topic, "--group", group, "--follow"])
            .env("OTTLA_BOOTSTRAP", &broker.address)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = read.send(line.parse().unwrap());
            }
        });
        Member(child)
    }

    /// Lets it commit and leave.
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for as many numbers as there are in `expected`, which must be those.
fn expect(read: &Receiver<u32>, expected: std::ops::Range<u32>) {
    let mut numbers: Vec<_> = expected.clone().map(|_| read.recv_timeout(DEADLINE).unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, expected.collect::<Vec<_>>());
}

/// Waits until a group has members with so many partitions each, in any order.
fn until_shared(broker: &Broker, group: &str, shares: &[usize]) {
    let started = Instant::now();
    loop {
        let output = broker.run(&["group", "describe", group, "--json"]);
        let described: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let count = |member: &Value| {
            let topics = member["partitions"].as_object().unwrap();
            topics.values().map(|partitions| partitions.as_array().unwrap().len()).sum::<usize>()
        };
        let mut found: Vec<_> = described["members"].as_array().into_iter().flatten().map(count).collect();
        found.sort_unstable();
        if found == shares {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "{shares:?} expected, found {found:?}");
    }
}

#[test]
fn g4_a_group_goes_on_where_it_was_even_after_the_broker_was_killed() {
    let (dir, broker) = broker();
    broker.ok(&["topic", "create", "t", "-p", "3"]);
    produce(&broker, "t", 0..50);
    assert_eq!(numbers(&broker.ok(&["consume", "t", "--group", "g"])), (0..50).collect::<Vec<_>>());
    produce(&broker, "t", 50..60);
    assert_eq!(column(&broker, "g", "lag").iter().sum::<i64>(), 10);
    let some = numbers(&broker.ok(&["consume", "t", "--group", "g", "--max", "4"]));
    let committed = column(&broker, "g", "committed");
    assert_eq!((some.len(), committed.iter().sum::<i64>()), (4, 54));
    broker.kill();

    let broker = Broker::start(&dir.path().join("data"), "127.0.0.1:0", &SOON);
    assert_eq!(column(&broker, "g", "committed"), committed);
    let rest = numbers(&broker.ok(&["consume", "t", "--group", "g"]));
    let mut all = [some, rest].concat();
    all.sort_unstable();
    assert_eq!(all, (50..60).collect::<Vec<_>>());
    assert_eq!(column(&broker, "g", "lag"), [0, 0, 0]);
}

#[test]
fn a_new_group_begins_at_the_end_if_it_is_told_and_stays_there() {
    let (_dir, broker) = broker();
    produce(&broker, "t", 0..5);
    assert_eq!(broker.ok(&["consume", "t", "--group", "g", "--from", "end"]), "");
    produce(&broker, "t", 5..7);
    assert_eq!(numbers(&broker.ok(&["consume", "t", "--group", "g"])), [5, 6]);
    let (code, said) = failure(&broker.run(&["consume", "t", "--group", "g", "--from", "3"]));
    assert!(code == Some(2) && said.contains("ottla group reset"), "{said}");
}

#[test]
fn g5_members_share_partitions_and_take_over_those_of_one_that_leaves() {
    let (_dir, broker) = broker();
    let (sender, read) = mpsc::channel();
    broker.ok(&["topic", "create", "t", "-p", "3"]);
    produce(&broker, "t", 0..50);
    let first = Member::start(&broker, "t", "g", sender.clone());
    until_shared(&broker, "g", &[3]);
    expect(&read, 0..50);
    let second = Member::start(&broker, "t", "g", sender);
    until_shared(&broker, "g", &[1, 2]);
    produce(&broker, "t", 50..100);
    expect(&read, 50..100);

    for command in [&["delete", "g"][..], &["delete", "g", "--topic", "t"], &["reset", "g", "--to-latest", "--execute"]]
    {
        let (code, said) = failure(&broker.run(&[&["group"], command].concat()));
        assert!(code == Some(1) && said.contains("stop them first"), "{said}");
    }
    let listed: Value = serde_json::from_str(&broker.ok(&["group", "list", "--json"])).unwrap();
    assert_eq!((&listed["group"], &listed["type"], &listed["members"]), (&"g".into(), &"consumer".into(), &2.into()));

    first.stop();
    until_shared(&broker, "g", &[3]);
    produce(&broker, "t", 100..120);
    expect(&read, 100..120);
    second.stop();
    assert_eq!(read.iter().count(), 0, "no record was read twice");
    assert_eq!(column(&broker, "g", "lag"), [0, 0, 0]);
}

#[test]
fn a_reset_shows_its_plan_and_stays_inside_the_log() {
    let (_dir, broker) = broker();
    broker.ok_with(&["produce", "t"], &b"x\n".repeat(20));
    broker.ok(&["consume", "t", "--group", "g"]);
    let reset = |args: &[&str]| {
        let plan = broker.ok(&[&["group", "reset", "g", "--json"], args].concat());
        let plan: Value = serde_json::from_str(&plan).unwrap();
        ["old", "wanted", "new"].map(|name| plan[name].as_i64().unwrap())
    };
    assert_eq!(reset(&["--to-earliest"]), [20, 0, 0]);
    assert_eq!(column(&broker, "g", "committed"), [20], "nothing was executed");
    assert_eq!(reset(&["--to-offset", "7", "--execute"]), [20, 7, 7]);
    assert_eq!(reset(&["--shift-by", "-3", "--execute"]), [7, 4, 4]);
    assert_eq!(reset(&["--shift-by", "-9"]), [4, -5, 0]);
    assert_eq!(reset(&["--to-offset", "21"]), [4, 21, 20]);
    assert_eq!(reset(&["--to-latest"]), [4, 20, 20]);
    assert_eq!(reset(&["--by-duration", "1h"]), [4, 0, 0]);
    assert_eq!(reset(&["--to-datetime", "2999-01-01T00:00:00Z"]), [4, 20, 20]);
    assert_eq!(column(&broker, "g", "committed"), [4]);
    let said = broker.ok(&["group", "reset", "g", "--topic", "t:0", "--to-offset", "99"]);
    assert!(said.contains("99 is beyond the end") && said.contains("--execute"), "{said}");
    assert_eq!(broker.ok(&["consume", "t", "--group", "g"]).lines().count(), 16);
}

#[test]
fn a_reset_that_cannot_be_says_what_can() {
    let (_dir, broker) = broker();
    broker.ok_with(&["produce", "t"], b"x\n");
    let cases: [(&[&str], i32, &str); 5] = [
        (&["fresh", "--to-latest"], 1, "--topic"),
        (&["fresh", "--topic", "t", "--shift-by", "1"], 1, "--to-earliest"),
        (&["fresh", "--topic", "t:7", "--to-latest"], 1, "its partitions are 0 to 0"),
        (&["fresh", "--topic", "nope", "--to-latest"], 1, "UNKNOWN_TOPIC_OR_PARTITION"),
        (&["fresh", "--topic", "t"], 2, "--to-earliest"),
    ];
    for (args, code, expected) in cases {
        let (found, said) = failure(&broker.run(&[&["group", "reset"], args].concat()));
        assert!(found == Some(code) && said.contains(expected), "{args:?}: {said}");
    }
    // A group comes to be with its first offset.
    broker.ok(&["group", "reset", "fresh", "--topic", "t", "--to-latest", "--execute"]);
    assert_eq!(describe(&broker, "fresh")["state"], "Empty");
}

#[test]
fn groups_and_their_offsets_are_deleted() {
    let (_dir, broker) = broker();
    for topic in ["a", "b"] {
        broker.ok_with(&["produce", topic], b"x\n");
        broker.ok(&["group", "reset", "g", "--topic", topic, "--to-latest", "--execute"]);
    }
    let said = broker.ok(&["group", "delete", "g", "--topic", "a"]);
    assert!(said.contains("Deleted offset 1 of group g in a-0"), "{said}");
    assert_eq!(describe(&broker, "g")["partitions"][0]["topic"], "b");
    let (code, said) = failure(&broker.run(&["group", "delete", "g", "--topic", "a"]));
    assert!(code == Some(1) && said.contains("has committed nothing there"), "{said}");
    let said = broker.ok(&["group", "delete", "g"]);
    assert!(said.contains("had committed 1 partition"), "{said}");
    assert_eq!(broker.ok(&["group", "list", "--json"]), "");
    for command in ["describe", "delete"] {
        let (code, said) = failure(&broker.run(&["group", command, "g"]));
        assert!(code == Some(1) && said.contains("`ottla group list`"), "{said}");
    }
}

#[test]
fn a_group_has_configs_of_its_own() {
    let (_dir, broker) = broker();
    let key = "consumer.session.timeout.ms";
    let one = || -> Value {
        let described = broker.ok(&["config", "describe", "--group", "g", key, "--json"]);
        serde_json::from_str(&described).unwrap()
    };
    assert_eq!(one()["value"], "45000");
    broker.ok(&["config", "set", "--group", "g", &format!("{key}=50000")]);
    assert_eq!((&one()["value"], &one()["source"]), (&"50000".into(), &"DYNAMIC_GROUP_CONFIG".into()));
    broker.ok(&["config", "unset", "--group", "g", key]);
    assert_eq!(one()["value"], "45000");
}
