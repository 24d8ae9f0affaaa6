//! What this broker wants of the controller, until somebody takes it there.
//!
//! Many partitions want the same at once, when a broker goes or comes: what gathers leaves together. What is not here:
//! what is wanted (`ottla_replica` for ISRs, `partition.rs` for damage), and the way (`ottla-broker`).

use std::sync::{Arc, OnceLock};

use ottla_replica::IsrProposal;
use parking_lot::Mutex;

use crate::partition::Partition;

/// Things of one kind that are waiting, and a bell for who takes them.
pub struct Outbox<T> {
    waiting: Mutex<Vec<T>>,
    bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// An ISR that a partition led here wants committed (KIP-497). It is owed an answer: [`Partition::isr_answered`].
pub struct IsrChange {
    /// The partition.
    pub partition: Arc<Partition>,
    /// What it proposes.
    pub proposal: IsrProposal,
}

impl<T> Default for Outbox<T> {
    fn default() -> Outbox<T> {
        Outbox { waiting: Mutex::default(), bell: OnceLock::new() }
    }
}

impl<T> Outbox<T> {
    pub(crate) fn push(&self, wanted: T) {
        self.waiting.lock().push(wanted);
        if let Some(bell) = self.bell.get() {
            bell();
        }
    }

    /// Takes all there is.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// Has `bell` called whenever there is something to take; once only. It must not wait for anything.
    pub fn on_change(&self, bell: impl Fn() + Send + Sync + 'static) {
        // The first is the one that takes them.
        let _ = self.bell.set(Box::new(bell));
    }
}
