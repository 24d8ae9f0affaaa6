//! The checker against hand-made histories: for every anomaly one that has it, and one that nearly has it.

use super::history::History;
use super::{Anomaly, Limits, Verdict, check};

mod model;

const LIMITS: Limits = Limits { lag: 1_000, lso: 1_000 };

fn judge(lines: &str) -> Verdict {
    let lines: Vec<&str> = lines.lines().map(str::trim).collect();
    check(&History::read(lines.join("\n").as_bytes()).unwrap(), LIMITS)
}

fn names(verdict: &Verdict) -> Vec<Anomaly> {
    verdict.anomalies().map(|(anomaly, ..)| anomaly).collect()
}

/// This history has that anomaly, once, and no other.
#[track_caller]
fn only(anomaly: Anomaly, lines: &str) {
    let verdict = judge(lines);
    assert_eq!(names(&verdict), [anomaly], "{verdict:#?}");
    assert_eq!(verdict.count(anomaly.harm()), 1, "{verdict:#?}");
}

/// This one has none.
#[track_caller]
fn clean(lines: &str) {
    let verdict = judge(lines);
    assert!(verdict.is_clean(), "{verdict:#?}");
}

/// Values 1.0, 1.1 and 1.2, acknowledged at offsets 0, 1 and 2.
const THREE: &str = "1 send 10 10 t-0=1.0
    1 send 11 11 t-0=1.1
    1 send 12 12 t-0=1.2
    1 ack 20 t-0@0=1.0 t-0@1=1.1 t-0@2=1.2";

fn after_three(lines: &str) -> String {
    format!("{THREE}\n{lines}")
}

#[test]
fn lost_write() {
    only(Anomaly::LostWrite, &after_three("2 poll 30 31 t-0@0=1.0\n3 poll 30 31 t-0@2=1.2"));
    only(Anomaly::LostWrite, &after_three("9 final 40 41 t-0 0 3 0=1.0 2=1.2"));
    clean(&after_three("2 poll 30 31 t-0@0=1.0 t-0@1=1.1\n3 poll 30 31 t-0@1=1.1 t-0@2=1.2"));
    clean(&after_three("9 final 40 41 t-0 0 3 0=1.0 1=1.1 2=1.2"));
}

#[test]
fn lost_write_of_what_was_read_and_is_gone() {
    let unknown = "1 send 10 10 t-0=1.0\n1 fail 20 REQUEST_TIMED_OUT t-0=1.0\n";
    only(Anomaly::LostWrite, &format!("{unknown}2 poll 30 31 t-0@0=1.0\n9 final 40 41 t-0 0 0"));
    clean(&format!("{unknown}2 poll 30 31 t-0@0=1.0\n9 final 40 41 t-0 0 1 0=1.0"));
    clean(&format!("{unknown}9 final 40 41 t-0 0 0"));
}

#[test]
fn lost_write_whose_offset_nobody_knows() {
    let sent = "1 send 10 10 t-0=1.0\n1 ack 20 t-0@-1=1.0\n";
    only(Anomaly::LostWrite, &format!("{sent}9 final 40 41 t-0 0 0"));
    clean(&format!("{sent}9 final 40 41 t-0 0 1 0=1.0"));
}

#[test]
fn unseen() {
    only(Anomaly::Unseen, &after_three("2 poll 30 31 t-0@0=1.0 t-0@1=1.1"));
    only(Anomaly::Unseen, &after_three("9 final 40 41 t-0 0 2 0=1.0 1=1.1"));
    let unknown = after_three("1 send 21 21 t-0=1.3\n9 final 40 41 t-0 0 3 0=1.0 1=1.1 2=1.2");
    clean(&unknown);
}

#[test]
fn duplicate() {
    only(Anomaly::Duplicate, &after_three("9 final 40 41 t-0 0 4 0=1.0 1=1.1 2=1.2 3=1.1"));
    let elsewhere = "1 send 10 10 t-0=1.0\n1 ack 20 t-0@0=1.0\n9 final 40 41 t-0 0 6 5=1.0";
    only(Anomaly::Duplicate, elsewhere);
    let twice_read = "2 poll 30 31 t-0@0=1.0 t-0@1=1.1 t-0@2=1.2\n9 final 40 41 t-0 0 3 0=1.0 1=1.1 2=1.2";
    clean(&after_three(twice_read));
}

#[test]
fn inconsistent_offsets() {
    let two = "1 send 10 10 t-0=1.0\n2 send 10 10 t-0=2.0\n";
    let read = "9 final 40 41 t-0 0 1 0=1.0\n";
    let bad = judge(&format!("{two}1 ack 20 t-0@0=1.0\n2 ack 20 t-0@0=2.0\n{read}"));
    assert_eq!(names(&bad), [Anomaly::LostWrite, Anomaly::InconsistentOffsets], "{bad:#?}");
    clean(&format!("{two}1 ack 20 t-0@0=1.0\n2 fail 20 NOT_LEADER_OR_FOLLOWER t-0=2.0\n{read}"));
}

#[test]
fn invented() {
    let polled = |value: &str| after_three(&format!("2 poll 30 31 t-0@0=1.0 t-0@1=1.1 t-0@2=1.2 t-0@3={value}"));
    only(Anomaly::Invented, &polled("1.3"));
    only(Anomaly::Invented, &polled("?"));
    let later = judge(&format!("{}\n1 send 32 32 t-0=1.3", polled("1.3")));
    assert_eq!(names(&later), [Anomaly::Invented, Anomaly::RealTimeOrder], "{later:#?}");
    let other = "1 send 21 21 t-1=1.3\n2 poll 30 31 t-0@3=1.3\n9 final 40 41 t-0 0 4 0=1.0 1=1.1 2=1.2 3=1.3";
    only(Anomaly::Invented, &after_three(other));
    clean(&format!("{}\n1 send 29 29 t-0=1.3", polled("1.3")));
}

#[test]
fn failed_read() {
    let failed = |error: &str| format!("1 send 10 10 t-0=1.0\n1 fail 20 {error} t-0=1.0\n2 poll 30 31 t-0@0=1.0");
    only(Anomaly::FailedRead, &failed("OUT_OF_ORDER_SEQUENCE_NUMBER"));
    only(Anomaly::FailedRead, &failed("TOPIC_AUTHORIZATION_FAILED"));
    for unknown in ["NOT_LEADER_OR_FOLLOWER", "REQUEST_TIMED_OUT", "NETWORK_EXCEPTION", "UNKNOWN_SERVER_ERROR"] {
        clean(&failed(unknown));
    }
}

#[test]
fn poll_skip() {
    let all = "9 final 40 41 t-0 0 3 0=1.0 1=1.1 2=1.2\n";
    let skip = "2 poll 30 31 t-0@0=1.0\n2 poll 32 33 t-0@2=1.2\n";
    only(Anomaly::PollSkip, &after_three(&format!("{skip}{all}")));
    only(Anomaly::PollSkip, &after_three(&format!("2 assign 25 t-0@0\n2 poll 32 33 t-0@1=1.1 t-0@2=1.2\n{all}")));
    let rebalanced = "2 poll 30 31 t-0@0=1.0\n2 revoked 31 t-0\n2 assigned 31 2 t-0\n2 poll 32 33 t-0@2=1.2\n";
    clean(&after_three(&format!("{rebalanced}{all}")));
    // Nothing has offset 1: a marker, or what was compacted.
    clean("1 send 10 10 t-0=1.0 t-0=1.1\n1 ack 20 t-0@0=1.0 t-0@2=1.1\n2 poll 30 31 t-0@0=1.0\n2 poll 32 33 t-0@2=1.1");
}

#[test]
fn nonmonotonic_poll() {
    let all = "9 final 40 41 t-0 0 3 0=1.0 1=1.1 2=1.2\n";
    let back = "2 assign 25 t-0@0\n2 poll 30 31 t-0@0=1.0 t-0@1=1.1\n2 poll 32 33 t-0@1=1.1 t-0@2=1.2\n";
    only(Anomaly::NonmonotonicPoll, &after_three(&format!("{back}{all}")));
    only(Anomaly::NonmonotonicPoll, &after_three(&format!("2 assign 25 t-0@1\n2 poll 32 33 t-0@0=1.0\n{all}")));
    let by_choice = "2 assign 25 t-0@0\n2 poll 30 31 t-0@0=1.0 t-0@1=1.1\n2 assign 32 t-0@1\n2 poll 32 33 t-0@1=1.1\n";
    let other_reader = "2 poll 30 31 t-0@0=1.0 t-0@1=1.1\n3 poll 32 33 t-0@1=1.1 t-0@2=1.2\n";
    clean(&after_three(&format!("{by_choice}2 poll 34 35 t-0@2=1.2\n{all}")));
    clean(&after_three(&format!("{other_reader}{all}")));
}

#[test]
fn int_poll_skip() {
    let all = "9 final 40 41 t-0 0 3 0=1.0 1=1.1 2=1.2\n";
    only(Anomaly::IntPollSkip, &after_three(&format!("2 poll 30 31 t-0@0=1.0 t-0@2=1.2\n{all}")));
    clean(&after_three(&format!("2 poll 30 31 t-0@0=1.0 t-0@1=1.1 t-0@2=1.2\n{all}")));
}

#[test]
fn int_nonmonotonic_poll() {
    let all = "9 final 40 41 t-0 0 3 0=1.0 1=1.1 2=1.2\n";
    only(Anomaly::IntNonmonotonicPoll, &after_three(&format!("2 poll 30 31 t-0@1=1.1 t-0@0=1.0\n{all}")));
    only(Anomaly::IntNonmonotonicPoll, &after_three(&format!("2 poll 30 31 t-0@1=1.1 t-0@1=1.1\n{all}")));
    clean(&after_three(&format!("2 poll 30 31 t-0@0=1.0 t-0@1=1.1\n{all}")));
    // Two partitions are in no order.
    clean("1 send 10 10 t-0=1.0 t-1=1.1\n1 ack 20 t-0@7=1.0 t-1@3=1.1\n2 poll 30 31 t-0@7=1.0 t-1@3=1.1");
}

#[test]
fn nonmonotonic_send() {
    // Both were sent before anything was known, so that only the producer's own order is broken.
    let sent = "1 send 10 10 t-0=1.0\n1 send 11 11 t-0=1.1\n";
    let read = "9 final 40 41 t-0 0 2";
    only(Anomaly::NonmonotonicSend, &format!("{sent}1 ack 20 t-0@1=1.0 t-0@0=1.1\n{read} 0=1.1 1=1.0"));
    let unknown = "1 fail 20 REQUEST_TIMED_OUT t-0=1.0 t-0=1.1\n";
    only(Anomaly::NonmonotonicSend, &format!("{sent}{unknown}{read} 0=1.1 1=1.0"));
    clean(&format!("{sent}1 ack 20 t-0@0=1.0 t-0@1=1.1\n{read} 0=1.0 1=1.1"));
    let two = "1 send 10 10 t-0=1.0\n2 send 11 11 t-0=2.0\n1 ack 20 t-0@1=1.0\n2 ack 20 t-0@0=2.0\n";
    clean(&format!("{two}{read} 0=2.0 1=1.0"));
}

#[test]
fn int_nonmonotonic_send() {
    let read = "9 final 40 41 t-0 0 2";
    only(
        Anomaly::IntNonmonotonicSend,
        &format!("1 send 10 10 t-0=1.0 t-0=1.1\n1 ack 20 t-0@1=1.0 t-0@0=1.1\n{read} 0=1.1 1=1.0"),
    );
    clean(&format!("1 send 10 10 t-0=1.0 t-0=1.1\n1 ack 20 t-0@0=1.0 t-0@1=1.1\n{read} 0=1.0 1=1.1"));
}

#[test]
fn real_time_order() {
    let first = "1 send 10 10 t-0=1.0\n1 ack 20 t-0@1=1.0\n";
    let read = "9 final 40 41 t-0 0 2 0=2.0 1=1.0";
    only(Anomaly::RealTimeOrder, &format!("{first}2 send 21 21 t-0=2.0\n2 ack 30 t-0@0=2.0\n{read}"));
    // Nobody was told where the second one went, and the final read shows it.
    only(Anomaly::RealTimeOrder, &format!("{first}2 send 21 21 t-0=2.0\n{read}"));
    // Known by a poll, before it was acknowledged.
    let polled = "1 send 10 10 t-0=1.0\n3 poll 11 12 t-0@1=1.0\n2 send 13 13 t-0=2.0\n1 ack 20 t-0@1=1.0\n";
    only(Anomaly::RealTimeOrder, &format!("{polled}{read}"));
    // Sent before the acknowledgement.
    clean(&format!("{first}2 send 20 20 t-0=2.0\n2 ack 30 t-0@0=2.0\n{read}"));
}

#[test]
fn end_went_back() {
    let all = "9 final 90 91 t-0 0 3 0=1.0 1=1.1 2=1.2\n";
    only(Anomaly::EndWentBack, &after_three(&format!("8 ends 30 31 t-0@2/2\n{all}")));
    only(Anomaly::EndWentBack, &after_three(&format!("8 ends 13 14 t-0@3/3\n8 ends 15 16 t-0@2/2\n{all}")));
    // Asked before the acknowledgement, or while the other was asked.
    clean(&after_three(&format!("8 ends 20 31 t-0@2/2\n{all}")));
    clean(&after_three(&format!("8 ends 13 15 t-0@3/3\n7 ends 14 16 t-0@2/2\n{all}")));
    clean(&after_three(&format!("8 ends 30 31 t-0@3/3\n{all}")));
}

#[test]
fn g1c() {
    let read = "9 final 40 41 t-0 0 2 0=1.0 1=2.0\n9 final 40 41 t-1 0 2 0=1.1 1=2.1\n";
    let circle = "1 step 10 20 t-0@1=2.0 > t-0@0=1.0\n2 step 10 20 t-0@0=1.0 > t-0@1=2.0\n";
    only(Anomaly::G1c, &format!("{circle}{}", "9 final 40 41 t-0 0 2 0=1.0 1=2.0\n"));
    let chain = "1 step 10 20 > t-0@0=1.0 t-1@0=1.1\n2 step 10 20 t-0@0=1.0 > t-0@1=2.0 t-1@1=2.1\n";
    clean(&format!("{chain}{read}"));
    // A step may read what it wrote itself.
    clean("1 step 10 20 t-0@0=1.0 > t-0@0=1.0\n9 final 40 41 t-0 0 1 0=1.0");
}

#[test]
fn offset_regression() {
    only(Anomaly::OffsetRegression, "2 commit 10 20 t-0@5\n8 committed 21 22 t-0@4");
    only(Anomaly::OffsetRegression, "2 commit 10 20 t-0@5\n8 committed 21 22 t-0@-1");
    only(Anomaly::OffsetRegression, "2 commit 10 20 t-0@5\n3 commit 21 22 t-0@3");
    only(Anomaly::OffsetRegression, "8 committed 10 20 t-0@5\n7 committed 21 22 t-0@4");
    // A commit of a former member that was refused for good explains nothing.
    let fenced = "3 refused 5 6 ILLEGAL_GENERATION t-0@4\n2 commit 10 20 t-0@5\n8 committed 21 22 t-0@4";
    only(Anomaly::OffsetRegression, fenced);
    clean("2 commit 10 20 t-0@5\n8 committed 20 22 t-0@4\n8 committed 23 24 t-0@5");
    clean("2 refused 5 9 REQUEST_TIMED_OUT t-0@4\n2 commit 10 20 t-0@5\n8 committed 21 22 t-0@4");
}

#[test]
fn two_owners() {
    only(Anomaly::TwoOwners, "2 assigned 10 7 t-0 t-1\n3 assigned 11 7 t-1");
    clean("2 assigned 10 7 t-0\n3 assigned 11 7 t-1\n2 revoked 20 t-0\n3 assigned 21 8 t-0");
    let given = "2 assigned 10 7 t-0\n3 assigned 21 8 t-0\n";
    only(Anomaly::TwoOwners, &format!("{given}2 commit 22 30 t-0@5"));
    // Sent before the other had it, answered after.
    clean(&format!("{given}2 commit 21 30 t-0@5"));
    clean(&format!("{given}2 refused 22 30 ILLEGAL_GENERATION t-0@5"));
    clean(&format!("{given}2 assigned 40 9 t-0\n2 commit 41 42 t-0@5"));
}

#[test]
fn lag() {
    let polled = |at: u64| after_three(&format!("2 assign 15 t-0@0\n2 poll 30 {at} t-0@0=1.0 t-0@1=1.1 t-0@2=1.2"));
    only(Anomaly::Lag, &polled(1_021));
    clean(&polled(1_020));
    assert_eq!(judge(&polled(1_020)).numbers.worst_lag, 1_000);
    // Never polled at all, and still there.
    let all = "9 final 40 41 t-0 0 3 0=1.0 1=1.1 2=1.2";
    only(Anomaly::Lag, &after_three(&format!("2 assign 15 t-0@0\n2 poll 2000 2001\n{all}")));
    clean(&after_three(&format!("2 assign 15 t-0@0\n2 ended 30\n3 poll 2000 2001\n{all}")));
}

#[test]
fn stuck_lso() {
    let still = "8 ends 10 11 t-0@4/6\n8 ends 500 501 t-0@4/7\n8 ends 1012 1013 t-0@4/8\n8 ends 3000 3001 t-0@4/8";
    only(Anomaly::StuckLso, still);
    clean("8 ends 10 11 t-0@4/6\n8 ends 500 501 t-0@5/7\n8 ends 1012 1013 t-0@5/8");
    clean("8 ends 10 11 t-0@4/6\n8 ends 500 501 t-0@6/6\n8 ends 2000 2001 t-0@6/8");
    clean("8 ends 10 11 t-0@4/6\n8 ends 1011 1012 t-0@4/8");
}

#[test]
fn the_evidence_can_be_followed() {
    let verdict = judge(&after_three("2 poll 30 31 t-0@0=1.0\n3 poll 30 31 t-0@2=1.2"));
    let words: Vec<_> = verdict.anomalies().flat_map(|(_, _, words)| words).collect();
    assert_eq!(
        words,
        ["t-0@1: 1.1 sent by process 1 at 0.000001 s (11), acknowledged at 0.000010 s (20), was never read, and 2 was"]
    );
    let numbers = verdict.numbers;
    assert_eq!((numbers.sent, numbers.acknowledged, numbers.polled, numbers.operations), (3, 3, 2, 5));
}

#[test]
fn a_line_that_makes_no_sense_is_named() {
    let bad = [
        "x send 1 1 t-0=1.0",
        "1 send 1 1 t-0",
        "1 send 1 1 t-0=1",
        "1 send 1 1 t-0=?",
        "1 send 1",
        "1 sing 1 1 t-0=1.0",
        "1",
        "1 poll 1 1 t-0=1.0",
        "1 poll 1 99999999999999999999 t-0@1=1.0",
        "1 ack 1 t-0@0=1.0",
        "1 send 1 1 t-0=1.0 t-0=1.0",
        "1 send 1 1 t-0=1.0\n1 ack 2 t-1@0=1.0",
        "1 send 1 1 t-0=1.0\n1 ack 2 t-0@0=1.0\n1 ack 3 t-0@0=1.0",
        "1 assigned 1 t-0",
        "1 ends 1 1 t-0@4",
        "9 final 1 1 t-0 0 1 0",
    ];
    for lines in bad {
        let error = History::read(lines.as_bytes()).unwrap_err();
        let last = lines.lines().count();
        assert!(format!("{error:#}").starts_with(&format!("line {last}: ")), "{lines:?}: {error:#}");
    }
    let good = "# for people\n\n1 version a client 1.0\n1 error 5 what it says\n1 send 6 7 t-0=1.0";
    assert_eq!(History::read(good.as_bytes()).unwrap().ops.len(), 1);
}
