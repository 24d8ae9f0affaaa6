//! What is due when: deadlines by key, the earliest first.
//!
//! Volatile; after a load the groups set their own anew. What is not here: a clock.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use ottla_types::Tick;

use crate::{GroupId, MemberId};

/// What a deadline is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A member was quiet for too long.
    Session(GroupId, MemberId),
    /// A classic group's rebalance: the members that have not come are dropped, or the initial delay is over.
    Rebalance(GroupId),
    /// A classic generation whose members have not all asked for their assignment.
    Sync(GroupId),
    /// A member id that was given and not come back with.
    PendingMember(GroupId, MemberId),
    /// A member of a consumer group has not given partitions up, or, if it is a classic one, not joined or synced.
    Revocation(GroupId, MemberId),
    /// Committed offsets are looked through for expired ones.
    Expiry,
}

/// Deadlines, each key at most once.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_time: BTreeSet<(Tick, Arc<Timer>)>,
    by_key: HashMap<Arc<Timer>, Tick>,
}

impl Timers {
    /// Sets a deadline, in place of an earlier one of the same key.
    pub(crate) fn set(&mut self, timer: Timer, at: Tick) {
        self.cancel(&timer);
        let timer = Arc::new(timer);
        self.by_time.insert((at, Arc::clone(&timer)));
        self.by_key.insert(timer, at);
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        if let Some((key, at)) = self.by_key.remove_entry(timer) {
            self.by_time.remove(&(at, key));
        }
    }

    /// When `timer` is due, if it is set.
    pub(crate) fn deadline(&self, timer: &Timer) -> Option<Tick> {
        self.by_key.get(timer).copied()
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Tick> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the earliest timer that is due at `now`.
    pub(crate) fn take_due(&mut self, now: Tick) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.by_time.pop_first()?;
        self.by_key.remove(&timer);
        Some(Timer::clone(&timer))
    }
}
