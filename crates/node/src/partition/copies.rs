//! From where to where the copies of followers go, as they tell their leader: so that a consumer can be sent to one of
//! them (KIP-392).
//!
//! Told by each Fetch, and of one leadership only: an earlier one's followers may be cut since. What is not here: the
//! rules of replication (`ottla_replica`), and who is near to a consumer (`ottla-broker`).

use ottla_types::{BrokerId, LeaderEpoch, Offset};
use parking_lot::Mutex;

/// What a follower's Fetch says of its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerCopy {
    /// How far it is on its disk.
    pub durable: Offset,
    /// Its first offset.
    pub log_start: Offset,
    /// Where its broker's retention budgets want it to begin; [`Offset::ZERO`] where they want nothing.
    pub start_wanted: Offset,
}

/// The copies of all followers, as far as they have told.
#[derive(Default)]
pub(super) struct Copies(Mutex<Told>);

#[derive(Default)]
struct Told {
    epoch: LeaderEpoch,
    copies: Vec<Copy>,
}

struct Copy {
    broker: BrokerId,
    start: Offset,
    end: Offset,
}

impl Copies {
    /// A follower has fetched under the leadership of `epoch`, and holds what is from `start` to `end`.
    pub(super) fn told(&self, epoch: LeaderEpoch, broker: BrokerId, start: Offset, end: Offset) {
        let mut known = self.0.lock();
        if known.epoch != epoch {
            *known = Told { epoch, copies: Vec::new() };
        }
        let copy = Copy { broker, start, end };
        match known.copies.iter_mut().find(|known| known.broker == broker) {
            Some(known) => *known = copy,
            None => known.copies.push(copy),
        }
    }

    /// Of `candidates` the broker whose copy holds what comes at `from`, and goes furthest.
    pub(super) fn furthest(
        &self,
        epoch: LeaderEpoch,
        from: Offset,
        candidates: impl Fn(BrokerId) -> bool,
    ) -> Option<BrokerId> {
        let known = self.0.lock();
        if known.epoch != epoch {
            return None;
        }
        let holds = |copy: &&Copy| candidates(copy.broker) && (copy.start..=copy.end).contains(&from);
        known.copies.iter().filter(holds).max_by_key(|copy| (copy.end, copy.broker)).map(|copy| copy.broker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kip_392_the_copy_that_goes_furthest_of_those_that_hold_the_offset_is_read() {
        let copies = Copies::default();
        let epoch = LeaderEpoch(3);
        let furthest = |from: i64, of: &[i32]| copies.furthest(epoch, Offset(from), |broker| of.contains(&broker.0));
        assert_eq!(furthest(0, &[1, 2, 3]), None, "nobody has told");
        for (broker, start, end) in [(1, 0, 50), (2, 10, 90), (3, 10, 100)] {
            copies.told(epoch, BrokerId(broker), Offset(start), Offset(end));
        }
        assert_eq!(furthest(20, &[1, 2, 3]), Some(BrokerId(3)));
        assert_eq!(furthest(20, &[1, 2]), Some(BrokerId(2)));
        assert_eq!(furthest(9, &[1, 2, 3]), Some(BrokerId(1)), "the others begin behind it");
        assert_eq!((furthest(100, &[1, 2, 3]), furthest(101, &[1, 2, 3])), (Some(BrokerId(3)), None));
        copies.told(epoch, BrokerId(2), Offset(10), Offset(120));
        assert_eq!(furthest(20, &[1, 2, 3]), Some(BrokerId(2)), "the latest counts");
        assert_eq!(copies.furthest(LeaderEpoch(4), Offset(20), |_| true), None, "another leadership has not heard");
        copies.told(LeaderEpoch(4), BrokerId(1), Offset(0), Offset(20));
        assert_eq!(copies.furthest(LeaderEpoch(4), Offset(20), |_| true), Some(BrokerId(1)));
    }
}
