//! Who waits for a partition to move: parked produce requests and long polls, indexed by the offset they need.
//!
//! A waiter is a [`Waker`], so this crate knows nothing of sockets or runtimes. A connection registers once per
//! partition it waits on and is woken once per turn, however many of its partitions moved (design §4, "wakes are
//! budgeted"). What is not here: deadlines; each connection keeps its own. Next: `partition.rs`.

use std::task::Waker;

use ottla_types::Offset;
use parking_lot::Mutex;

/// The waiters of one partition. Invariant: at most one entry per waker.
#[derive(Default)]
pub(crate) struct Waiters {
    entries: Mutex<Vec<Waiter>>,
}

struct Waiter {
    waker: Waker,
    /// Woken once the high watermark is at or past this.
    target: Offset,
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
    }

    /// Drops the entry of `waker`, whose request has been answered some other way.
    pub(crate) fn forget(&self, waker: &Waker) {
        self.entries.lock().retain(|w| !w.waker.will_wake(waker));
    }

    /// Moves everyone whose target is reached into `woken`, which the caller wakes once it holds no lock.
    pub(crate) fn take_reached(&self, high_watermark: Offset, woken: &mut Wakes) {
        self.entries.lock().retain(|waiter| {
            let reached = waiter.target <= high_watermark;
            if reached {
                woken.add(&waiter.waker);
            }
            !reached
        });
    }

    /// Moves everyone into `woken`: the partition went away or changed in a way that only a new look can tell.
    pub(crate) fn take_all(&self, woken: &mut Wakes) {
        for waiter in self.entries.lock().drain(..) {
            woken.add(&waiter.waker);
        }
    }
}

/// Wakers collected over many partitions, each kept once.
#[derive(Default)]
pub struct Wakes {
    wakers: Vec<Waker>,
}

impl Wakes {
    pub(crate) fn add(&mut self, waker: &Waker) {
        if !self.wakers.iter().any(|w| w.will_wake(waker)) {
            self.wakers.push(waker.clone());
        }
    }

    /// Wakes everyone collected. Call it with no partition lock held.
    pub fn wake(self) {
        self.wakers.into_iter().for_each(Waker::wake);
    }
}
