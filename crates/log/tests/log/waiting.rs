//! Waiting for the end of the log to move.

use std::{
    thread,
    time::{Duration, Instant},
};

use ottla_log::SimDisk;
use ottla_types::Offset;

use crate::common::*;

#[test]
fn the_end_is_past_what_is_in_the_log_and_past_nothing_else() {
    let (mut log, _) = open(&SimDisk::new(1), small(), None);
    append(&mut log, batch(3, 10));
    let reader = log.reader();
    for (offset, past) in [(0, true), (2, true), (3, false), (4, false), (100, false)] {
        assert_eq!(reader.wait_past(Offset(offset), Duration::ZERO), past, "{offset}");
        assert_eq!(reader.wait_past(Offset(offset), Duration::from_millis(1)), past, "{offset}");
    }
}

#[test]
fn who_waits_is_woken_by_the_append_that_it_waits_for() {
    const LONG: Duration = Duration::from_secs(60);
    let (mut log, _) = open(&SimDisk::new(1), small(), None);
    let reader = log.reader();
    let begun = Instant::now();
    let waiter = thread::spawn(move || reader.wait_past(Offset(1), LONG));
    while !waiter.is_finished() && begun.elapsed() < LONG {
        append(&mut log, batch(1, 10));
    }
    assert!(waiter.join().is_ok_and(|past| past), "it saw the end move");
    assert!(begun.elapsed() < LONG / 2);
    assert!(log.end().offset > Offset(1));
}
