//! How long a message takes, and whether it arrives: for each direction between two brokers by itself.
//!
//! Clients are one place of their own, with a network that is never cut. What is not here: what messages say
//! (`event.rs`), and when the network is bad (`faults.rs`).

use std::collections::BTreeMap;

use crate::random::Dice;

/// One message in so many is lost while they get lost.
const LOST_ONE_IN: u64 = 8;
/// One message in so many is held, where any are.
const HELD_ONE_IN: u64 = 500;

#[derive(Debug, Default)]
pub(crate) struct Network {
    /// From, to, and until when nothing gets through.
    cuts: BTreeMap<(usize, usize), u64>,
    pub(crate) lossy_until: u64,
    pub(crate) slow_until: u64,
    holds: bool,
}

impl Network {
    /// A good one, but that it holds single messages if it `holds`.
    pub(crate) fn new(holds: bool) -> Network {
        Network { holds, ..Network::default() }
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize, until: u64) {
        self.cuts.insert((from, to), until);
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize, now: u64) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|until| *until > now)
    }

    /// How many milliseconds a message takes; none if it never arrives. `None` for a broker stands for the clients.
    pub(crate) fn delay(&self, from: Option<usize>, to: Option<usize>, now: u64, dice: &mut Dice) -> Option<u64> {
        let between = from.zip(to);
        if between.is_some_and(|(from, to)| from == to) {
            return Some(0);
        }
        if between.is_some_and(|(from, to)| self.is_cut(from, to, now)) {
            return None;
        }
        if self.lossy_until > now && dice.one_in(LOST_ONE_IN) {
            return None;
        }
        let mut delay = dice.between(1, 4);
        if self.slow_until > now {
            delay += dice.between(0, 200);
        }
        if self.holds && dice.one_in(HELD_ONE_IN) {
            delay += dice.between(500, 15_000);
        }
        Some(delay)
    }

    pub(crate) fn heal(&mut self) {
        *self = Network::default();
    }
}
