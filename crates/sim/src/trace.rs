//! What happened, as lines for people and as one number that two runs of a seed must agree on.
//!
//! Every event goes into the number; what is worth reading is also a line, the last few hundred of which are kept.

use std::{collections::VecDeque, fmt, fmt::Write};

/// Lines that are kept for whoever looks into a failure.
const LINES_KEPT: usize = 250;

#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: VecDeque<String>,
    print: bool,
}

impl Trace {
    pub(crate) fn new(print: bool) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, lines: VecDeque::new(), print }
    }

    /// Lets a number count.
    pub(crate) fn fold(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    pub(crate) fn line(&mut self, now: u64, what: fmt::Arguments<'_>) {
        let mut line = if self.lines.len() < LINES_KEPT { None } else { self.lines.pop_front() }.unwrap_or_default();
        line.clear();
        // Writing to a string does not fail.
        let _ = write!(line, "{:>6}.{:03} {what}", now / 1000, now % 1000);
        for chunk in line.as_bytes().chunks(8) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(bytes));
        }
        if self.print {
            println!("{line}");
        }
        self.lines.push_back(line);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
