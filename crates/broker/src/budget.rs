//! One budget for the memory that clients make us hold: request frames, as far as their bytes have arrived.
//!
//! A connection charges the budget when its read buffer grows, in steps that follow the bytes received and never the
//! length a client claims. When nothing is left it waits, which stops it reading and so pushes back on the client.
//! Waiting cannot deadlock on half-received frames: one connection at a time may hold the overdraft and grow past the
//! limit until its frame is complete (`connection.rs` closes one that dawdles meanwhile).

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// The broker's budget. Invariant: what is charged beyond `limit` belongs to the holder of the overdraft.
pub(crate) struct MemoryBudget {
    limit: usize,
    used: AtomicUsize,
    freed: Notify,
    overdraft: Arc<Semaphore>,
}

/// What one connection has charged; given back when dropped.
pub(crate) struct Charge {
    budget: Arc<MemoryBudget>,
    bytes: usize,
    /// With the moment since when.
    overdraft: Option<(OwnedSemaphorePermit, Instant)>,
}

impl MemoryBudget {
    pub(crate) fn new(limit: usize) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget {
            limit,
            used: AtomicUsize::new(0),
            freed: Notify::new(),
            overdraft: Arc::new(Semaphore::new(1)),
        })
    }

    /// An empty charge on this budget.
    pub(crate) fn charge(self: &Arc<Self>) -> Charge {
        Charge { budget: Arc::clone(self), bytes: 0, overdraft: None }
    }

    fn try_take(&self, bytes: usize) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|&used| used <= self.limit)
            })
            .is_ok()
    }
}

impl Charge {
    /// Makes the charge `bytes` in total if there is room now.
    pub(crate) fn try_set(&mut self, bytes: usize) -> bool {
        match bytes.checked_sub(self.bytes) {
            None => {
                self.give_back(self.bytes - bytes);
                true
            }
            Some(0) => true,
            Some(more) if self.overdraft.is_some() => {
                self.budget.used.fetch_add(more, Ordering::AcqRel);
                self.bytes = bytes;
                true
            }
            Some(more) => {
                let taken = self.budget.try_take(more);
                if taken {
                    self.bytes = bytes;
                }
                taken
            }
        }
    }

    /// Makes the charge `bytes` in total for what is good to have: half of the budget stays for what must be had, or a
    /// thousand busy connections would leave nothing to the next.
    pub(crate) fn try_set_spare(&mut self, bytes: usize) -> bool {
        let used = self.budget.used.load(Ordering::Acquire).saturating_add(bytes.saturating_sub(self.bytes));
        self.overdraft.is_none() && used <= self.budget.limit / 2 && self.try_set(bytes)
    }

    /// Makes the charge `bytes` in total, waiting for room or for the overdraft.
    pub(crate) async fn set(&mut self, bytes: usize) {
        let budget = Arc::clone(&self.budget);
        loop {
            let mut freed = pin!(budget.freed.notified());
            // Armed before the look, so that room made in between is not missed.
            freed.as_mut().enable();
            if self.try_set(bytes) {
                return;
            }
            tokio::select! {
                () = freed => {}
                permit = Arc::clone(&budget.overdraft).acquire_owned() => {
                    // Whoever gave the overdraft back may have made room as well.
                    if self.try_set(bytes) {
                        return;
                    }
                    self.overdraft = permit.ok().map(|permit| (permit, Instant::now()));
                }
            }
        }
    }

    /// What it is now.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Since when the connection is past the limit, if it is: it must not take its time.
    pub(crate) fn overdrawn_since(&self) -> Option<Instant> {
        self.overdraft.as_ref().map(|(_, since)| *since)
    }

    fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        let used = self.budget.used.fetch_sub(bytes, Ordering::AcqRel) - bytes;
        if self.bytes == 0 || used <= self.budget.limit {
            self.overdraft = None;
        }
        self.budget.freed.notify_waiters();
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_good_to_have_leaves_half_of_the_budget() {
        let budget = MemoryBudget::new(100);
        let (mut first, mut second) = (budget.charge(), budget.charge());
        assert!(first.try_set_spare(40));
        assert!(!second.try_set_spare(11) && second.bytes() == 0);
        assert!(second.try_set_spare(10) && second.try_set(60), "what must be had may take the rest");
        assert!(!first.try_set_spare(41));
        assert!(second.try_set(0) && first.try_set_spare(50));
    }

    #[tokio::test]
    async fn a_full_budget_lets_exactly_one_connection_finish_its_frame() {
        let budget = MemoryBudget::new(100);
        let (mut first, mut second, mut third) = (budget.charge(), budget.charge(), budget.charge());
        assert!(first.try_set(60));
        assert!(second.try_set(40));
        assert!(!first.try_set(80), "the budget is spent");

        first.set(80).await;
        assert!(first.overdrawn_since().is_some());
        let mut waiting = Box::pin(second.set(80));
        let polled = tokio::select! { biased; () = &mut waiting => true, () = tokio::task::yield_now() => false };
        assert!(!polled, "one overdraft at a time");

        assert!(first.try_set(0), "the frame is done");
        waiting.await;
        assert!(
            second.overdrawn_since().is_none() || !third.try_set(1),
            "either there was room, or the budget is overdrawn"
        );
        drop(first);
        second.set(120).await;
        assert!(second.overdrawn_since().is_some());
        assert!(second.try_set(90) && second.overdrawn_since().is_none(), "what fits is overdrawn no more");
        drop(second);
        assert!(third.try_set(100), "everything was given back");
    }
}
