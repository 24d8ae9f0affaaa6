//! `ottla cluster` and `ottla topic replicas`, as far as one node goes: help, wrong usage, and nothing to do.

use std::net::TcpListener;

use serde_json::Value;

use crate::broker::{Broker, failure, ottla};

fn help(args: &[&str]) -> String {
    let output = ottla().args(args).arg("--help").output().unwrap();
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_teaches_every_command_with_examples() {
    let all = help(&["cluster"]);
    for command in ["status", "nodes", "decommission", "rebalance", "upgrade", "elect", "reassign"] {
        assert!(all.lines().any(|line| line.trim_start().starts_with(command)), "{command}: {all}");
    }
    for command in ["status", "decommission", "rebalance", "upgrade", "elect", "reassign"] {
        let shown = help(&["cluster", command]);
        assert!(shown.contains(&format!("Examples:\n  ottla cluster {command}")), "{shown}");
    }
    assert!(help(&["topic", "replicas"]).contains("Examples:\n  ottla topic replicas"));
}

#[test]
fn wrong_usage_is_told_apart_and_says_what_would_be_right() {
    let cases: [(&[&str], &str); 8] = [
        (&["cluster", "reassign", "t:0"], "--to"),
        (&["cluster", "reassign", "--to", "1"], "TOPIC"),
        (&["cluster", "reassign", "t:0", "--to", "1,1"], "one copy"),
        (&["cluster", "reassign", "t:x", "--to", "1"], "whole number"),
        (&["cluster", "decommission", "one"], "whole number"),
        (&["cluster", "upgrade", "--level", "0"], "0 is not in 1.."),
        (&["cluster", "elect", "preferred", "--accept-data-loss"], "loses nothing"),
        (&["topic", "replicas", "t", "--replication-factor", "0"], "0"),
    ];
    for (args, what) in cases {
        // Nobody is asked for that, so nobody need be there.
        let (code, said) = failure(&ottla().args(args).output().unwrap());
        assert!(code == Some(2) && said.contains(what), "{args:?}: {code:?} {said}");
    }
}

#[test]
fn no_broker_is_an_exit_code_of_its_own() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for args in [&["cluster", "status"][..], &["cluster", "elect", "preferred"], &["cluster", "reassign"]] {
        let output = ottla().args(args).args(["--timeout", "2s", "-b", &free]).output().unwrap();
        let (code, said) = failure(&output);
        assert!(code == Some(3) && said.contains("cannot connect"), "{args:?}: {code:?} {said}");
    }
}

#[test]
fn one_node_has_nothing_to_move_and_nobody_to_give_copies_to() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), "127.0.0.1:0", &[]);
    broker.ok(&["topic", "create", "t", "-p", "2"]);
    assert_eq!(broker.ok(&["cluster", "reassign"]), "Nothing is on its way.\n");
    assert_eq!(broker.ok(&["cluster", "reassign", "--cancel"]), "Nothing was on its way.\n");
    assert_eq!(broker.ok(&["cluster", "elect", "unclean", "t"]), "Each of them has a leader.\n");
    assert_eq!(
        broker.ok(&["topic", "replicas", "t", "--replication-factor", "1"]),
        "Every partition has 1 copy already.\n"
    );
    assert_eq!(broker.ok(&["cluster", "upgrade"]), "The cluster is at level 2; there is nothing to raise.\n");
    let said: Value = serde_json::from_str(&broker.ok(&["cluster", "upgrade", "--dry-run", "--json"])).unwrap();
    assert_eq!(said, serde_json::json!({ "from": 2, "level": 2, "raised": false }));
    for (level, why) in [("3", "only supports levels 1 to 2"), ("1", "only a safe or an unsafe downgrade lowers it")] {
        let (code, said) = failure(&broker.run(&["cluster", "upgrade", "--level", level]));
        assert!(code == Some(1) && said.contains(why), "{level}: {said}");
    }
    let (code, said) = failure(&broker.run(&["topic", "replicas", "t", "--replication-factor", "3"]));
    assert!(code == Some(1) && said.contains("there is 1 node to hold copies of t-0, and 3 are wanted"), "{said}");
    let (code, said) = failure(&broker.run(&["cluster", "elect", "preferred", "t:7"]));
    assert!(code == Some(1) && said.contains("its partitions are 0 to 1"), "{said}");
    let described: Value = serde_json::from_str(&broker.ok(&["topic", "describe", "t", "--json"])).unwrap();
    assert_eq!((&described["partitions"][1]["start"], &described["partitions"][1]["end"]), (&0.into(), &0.into()));
}
