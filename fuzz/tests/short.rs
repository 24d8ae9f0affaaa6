//! Every target for a second or so, always with the same inputs: the corpus as it is, then spoilt.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use ottla_fuzz::{TARGETS, mutate};

/// Runs a target on its corpus and on inputs from a fixed seed.
fn check(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let corpus = (target.corpus)();
    assert!(!corpus.is_empty());
    let right = corpus.iter().filter(|input| (target.run)(input)).count();
    assert!(right * 3 > corpus.len(), "{right} of {} right inputs are taken", corpus.len());
    let mut random = mutate::Random::new(1);
    let taken = (0..target.short).filter(|_| (target.run)(&mutate::input(&corpus, &mut random))).count();
    assert!(taken > target.short / 50, "{taken} of {} inputs are taken", target.short);
}

#[test]
fn frames() {
    check("frame");
}

#[test]
fn requests() {
    check("request");
}

#[test]
fn messages() {
    check("message");
}

#[test]
fn batches() {
    check("batch");
}

#[test]
fn metadata_records() {
    check("metadata_record");
}

#[test]
fn l4_log_recovery() {
    check("log_recovery");
}

#[test]
fn l5_log_clean() {
    check("log_clean");
}

#[test]
fn p2_producer_snapshots() {
    check("producer_snapshot");
}

#[test]
fn e1_epochs() {
    check("epochs");
}

#[test]
fn l9_compaction() {
    check("compaction");
}

#[test]
fn group_records() {
    check("group_record");
}

#[test]
fn g3_groups() {
    check("group");
}

#[test]
fn l8_node() {
    check("node");
}

#[test]
fn no_target_is_left_out() {
    let here = include_str!("short.rs");
    for target in TARGETS {
        assert!(here.contains(&format!("check(\"{}\")", target.name)), "{} has no test", target.name);
    }
}
