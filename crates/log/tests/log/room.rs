//! The room that is reserved ahead of appends (rule L11): generously while there is room, exactly near the end of it.

use ottla_log::{AppendError, LogConfig, SimDisk};

use crate::common::*;

fn large() -> LogConfig {
    LogConfig { segment_bytes: 4 << 20, ..small() }
}

#[test]
fn l11_near_the_end_of_the_disk_an_append_takes_what_it_needs_and_no_more() {
    for short in [1, 0] {
        let sim = SimDisk::new(1);
        let (mut log, _) = open(&sim, large(), None);
        append(&mut log, batch(60, 1000));
        let (written, used) = (log.end().position, sim.used());
        assert!(used > written, "it reserves ahead");
        let next = batch(10, 1000);
        let end = written + next.bytes.len() as u64;
        assert!(end > used, "the next does not fit in what is reserved");
        sim.set_capacity(Some(end - short));
        match try_append(&mut log, next) {
            Ok(_) => assert_eq!((short, log.end().position, sim.used()), (0, end, end)),
            Err(AppendError::NoSpace { .. }) => assert_eq!((short, log.end().position), (1, written)),
            Err(error) => unreachable!("{error}"),
        }
    }
}

#[test]
fn l11_what_is_reserved_ahead_grows_with_the_log_up_to_its_segment() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, large(), None);
    let mut reservations = 1;
    let mut reserved = 0;
    while log.end().position < 3 << 20 {
        append(&mut log, batch(10, 1000));
        let used = sim.used();
        assert!((log.end().position..=4 << 20).contains(&used), "{used}");
        reservations += u32::from(used != reserved);
        reserved = used;
    }
    assert!(reservations < 40, "{reservations} times for 3 MiB");
}
