//! An answer of a group coordinator on its way: ready once it is decided, and everything it rests on is committed.
//!
//! A future without a runtime: whoever polls it is woken like any waiter of a partition. Next: `groups.rs`.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use ottla_group::Reply;
use ottla_types::{LeaderEpoch, Offset};
use parking_lot::Mutex;

use crate::{groups::NoCoordinator, partition::Partition, waiters::Wakes};

/// An answer on its way; see the module.
pub struct Pending<T> {
    source: Source<T>,
    /// Registered with the partition, to be taken back.
    waker: Option<(Arc<Partition>, Waker)>,
}

enum Source<T> {
    Waiting(Arc<Slot>, fn(Reply) -> Option<T>),
    Decided(Decided, Option<T>),
    Failed(NoCoordinator),
}

/// What an answer rests on: everything below `end`, written as leader in `epoch`.
#[derive(Clone)]
pub(crate) struct Decided {
    pub(crate) partition: Arc<Partition>,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) end: Offset,
}

/// Where a reply arrives.
#[derive(Default)]
pub(crate) struct Slot {
    content: Mutex<Content>,
}

#[derive(Default)]
struct Content {
    reply: Option<Result<(Decided, Reply), NoCoordinator>>,
    waker: Option<Waker>,
}

impl Slot {
    /// Brings the reply; who waits for it is left in `wakes`.
    pub(crate) fn fill(&self, reply: Result<(Decided, Reply), NoCoordinator>, wakes: &mut Wakes) {
        let mut content = self.content.lock();
        content.reply = Some(reply);
        if let Some(waker) = content.waker.take() {
            wakes.add(&waker);
        }
    }

    fn take(&self, waker: &Waker) -> Option<Result<(Decided, Reply), NoCoordinator>> {
        let mut content = self.content.lock();
        let reply = content.reply.take();
        if reply.is_none() {
            content.waker = Some(waker.clone());
        }
        reply
    }
}

impl<T> Pending<T> {
    pub(crate) fn waiting(slot: Arc<Slot>, convert: fn(Reply) -> Option<T>) -> Pending<T> {
        Pending { source: Source::Waiting(slot, convert), waker: None }
    }

    pub(crate) fn decided(decided: Decided, value: T) -> Pending<T> {
        Pending { source: Source::Decided(decided, Some(value)), waker: None }
    }

    pub(crate) fn failed(why: NoCoordinator) -> Pending<T> {
        Pending { source: Source::Failed(why), waker: None }
    }
}

impl<T: Unpin> Future for Pending<T> {
    type Output = Result<T, NoCoordinator>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Source::Waiting(slot, convert) = &this.source {
            let convert = *convert;
            this.source = match slot.take(context.waker()) {
                None => return Poll::Pending,
                Some(Ok((decided, reply))) => Source::Decided(decided, convert(reply)),
                Some(Err(why)) => Source::Failed(why),
            };
        }
        match &mut this.source {
            Source::Decided(Decided { partition, epoch, end }, value) => {
                loop {
                    // Under another leader the same offsets may hold something else.
                    if !partition.leads_in(*epoch) || partition.unavailable().is_some() {
                        return Poll::Ready(Err(NoCoordinator::NotHere));
                    }
                    if partition.high_watermark() >= *end {
                        break;
                    }
                    // False if it was reached since the look above.
                    if partition.wait_for(*end, context.waker()) {
                        this.waker = Some((Arc::clone(partition), context.waker().clone()));
                        return Poll::Pending;
                    }
                }
                Poll::Ready(value.take().ok_or(NoCoordinator::NotHere))
            }
            Source::Failed(why) => Poll::Ready(Err(*why)),
            // Replaced above.
            Source::Waiting(..) => Poll::Pending,
        }
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        if let Some((partition, waker)) = &self.waker {
            partition.forget(waker);
        }
    }
}
