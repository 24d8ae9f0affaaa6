//! The largest offset that was known by a moment: what every rule about real time asks for.

use super::history::Time;

/// Offsets that became known, each at a time and through an operation.
#[derive(Debug, Default)]
pub(super) struct Rising {
    /// Invariant after `seal`: times rise, and offsets too.
    known: Vec<(Time, i64, u32)>,
}

impl Rising {
    /// From that moment on the offset is known; in any order.
    pub(super) fn push(&mut self, at: Time, offset: i64, op: u32) {
        self.known.push((at, offset, op));
    }

    /// Makes it ready to be asked.
    pub(super) fn seal(&mut self) {
        self.known.sort_unstable();
        let mut highest = i64::MIN;
        self.known.retain(|(_, offset, _)| {
            let rises = *offset > highest;
            highest = highest.max(*offset);
            rises
        });
    }

    /// The largest offset that was known before `time`, and the operation through which.
    pub(super) fn before(&self, time: Time) -> Option<(i64, u32)> {
        let count = self.known.partition_point(|(at, ..)| *at < time);
        let (_, offset, op) = self.known.get(count.checked_sub(1)?)?;
        Some((*offset, *op))
    }
}
