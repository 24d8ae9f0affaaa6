//! Who waits for a partition to move: parked produce requests and long polls, indexed by the offset they need.
//!
//! A waiter is a [`Waker`], so this crate knows nothing of sockets or runtimes. A connection registers once per
//! partition it waits on and is woken once per turn, however many of its partitions moved (design §4, "wakes are
//! budgeted"). What is not here: deadlines; each connection keeps its own. Next: `partition.rs`.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    task::Waker,
};

use ottla_types::Offset;
use parking_lot::Mutex;

/// What [`Waiters::earliest`] holds when nobody waits.
const NOBODY: i64 = i64::MAX;

/// The waiters of one partition. Invariant: at most one entry per waker.
pub(crate) struct Waiters {
    entries: Mutex<Vec<Waiter>>,
    /// The smallest target, so that an append for which nobody waits takes no lock. Written under the lock.
    ///
    /// It and the published high watermark are `SeqCst` on both sides: who registers stores a target and then looks at
    /// the watermark, who publishes stores the watermark and then looks here, so one of the two sees the other.
    earliest: AtomicI64,
}

struct Waiter {
    waker: Waker,
    /// Woken once the high watermark is at or past this.
    target: Offset,
}

impl Default for Waiters {
    fn default() -> Waiters {
        Waiters { entries: Mutex::default(), earliest: AtomicI64::new(NOBODY) }
    }
}

impl Waiters {
    /// Wakes `waker` when the high watermark reaches `target`. The caller re-checks the condition after registering:
    /// only that closes the race with a high watermark that moved in between.
    pub(crate) fn register(&self, waker: &Waker, target: Offset) {
        let mut entries = self.entries.lock();
        match entries.iter_mut().find(|w| w.waker.will_wake(waker)) {
            Some(waiter) => waiter.target = waiter.target.min(target),
            None => entries.push(Waiter { waker: waker.clone(), target }),
        }
        self.earliest.fetch_min(target.0, Ordering::SeqCst);
    }

    /// Drops the entry of `waker`, whose request has been answered some other way.
    pub(crate) fn forget(&self, waker: &Waker) {
        let mut entries = self.entries.lock();
        entries.retain(|w| !w.waker.will_wake(waker));
        self.settle(&entries);
    }

    /// Moves everyone whose target is reached into `woken`, which the caller wakes once it holds no lock.
    pub(crate) fn take_reached(&self, high_watermark: Offset, woken: &mut Wakes) {
        if self.earliest.load(Ordering::SeqCst) > high_watermark.0 {
            return;
        }
        let mut entries = self.entries.lock();
        woken.wakers.extend(entries.extract_if(.., |w| w.target <= high_watermark).map(|w| w.waker));
        self.settle(&entries);
    }

    /// Moves everyone into `woken`: the partition went away or changed in a way that only a new look can tell.
    pub(crate) fn take_all(&self, woken: &mut Wakes) {
        let mut entries = self.entries.lock();
        woken.wakers.extend(entries.drain(..).map(|w| w.waker));
        self.settle(&entries);
    }

    fn settle(&self, entries: &[Waiter]) {
        let earliest = entries.iter().map(|waiter| waiter.target.0).min();
        self.earliest.store(earliest.unwrap_or(NOBODY), Ordering::SeqCst);
    }
}

/// Wakers collected over many partitions, each woken once.
#[derive(Default)]
pub struct Wakes {
    wakers: Vec<Waker>,
}

impl Wakes {
    pub(crate) fn add(&mut self, waker: &Waker) {
        self.wakers.push(waker.clone());
    }

    /// Wakes everyone collected. Call it with no partition lock held.
    pub fn wake(mut self) {
        // Equal ones come to lie side by side.
        self.wakers.sort_unstable_by_key(|waker| waker.data().addr());
        self.wakers.dedup_by(|a, b| a.will_wake(b));
        self.wakers.into_iter().for_each(Waker::wake);
    }
}
