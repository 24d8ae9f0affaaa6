//! The simulation as every change has to pass it: some seeds with all that can go wrong, and seeds that do the same
//! twice. The long form is `cargo xtask sim`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use ottla_sim::{Options, run};

fn check(seeds: std::ops::Range<u64>, duration_ms: u64) {
    for seed in seeds {
        let report = run(&Options::new(seed, duration_ms));
        if let Some(violation) = report.violation {
            let lines = report.lines.join("\n");
            panic!("{lines}\nseed {seed} breaks {}: {}", violation.rule, violation.what);
        }
        assert!(report.tally.acknowledged > 0, "seed {seed}: nothing was written");
        assert!(report.tally.read > 0, "seed {seed}: nothing was read");
    }
}

#[test]
fn nothing_is_lost_and_all_comes_right() {
    check(1..16, 60_000);
}

#[test]
fn nothing_is_lost_and_all_comes_right_in_others() {
    check(16..31, 60_000);
}

#[test]
fn a_seed_does_the_same_twice() {
    for seed in 1000..1020 {
        let options = Options::new(seed, 10_000);
        let (first, second) = (run(&options), run(&options));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.lines, second.lines, "seed {seed}");
        assert_eq!(first.tally, second.tally, "seed {seed}");
    }
}

#[test]
fn faults_are_as_frequent_as_they_are_to_be() {
    let (mut hours, mut faults, mut crashes, mut leader_changes) = (0.0, 0, 0, 0);
    for seed in 2000..2020 {
        let report = run(&Options::new(seed, 20_000));
        hours += report.virtual_ms as f64 / 3_600_000.0;
        faults += report.tally.faults.values().sum::<u64>();
        crashes += report.tally.crashes;
        leader_changes += report.tally.leader_changes;
    }
    let each_hour = |count: u64| count as f64 / hours;
    assert!(each_hour(faults) >= 360.0, "{} faults an hour", each_hour(faults));
    assert!(each_hour(crashes) >= 60.0, "{} crashes an hour", each_hour(crashes));
    assert!(each_hour(leader_changes) >= 60.0, "{} leader changes an hour", each_hour(leader_changes));
}
