//! The latest value of something, and who waits for another.
//!
//! A borrow of the value must not be held over a send; the library holds none over an `await`. Next: `oneshot.rs`.

use std::{
    cell::{Cell, Ref, RefCell},
    future::poll_fn,
    mem,
    rc::Rc,
    task::{Poll, Waker},
};

use openraft_rt::{OptionalSend, OptionalSync, RecvError, Watch, WatchReceiver, WatchSender, watch::SendError};

/// Makes them.
pub(crate) struct Watches;

struct Watched<T> {
    value: RefCell<T>,
    version: Cell<u64>,
    senders: Cell<usize>,
    receivers: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

pub(crate) struct Sender<T>(Rc<Watched<T>>);

pub(crate) struct Receiver<T> {
    watched: Rc<Watched<T>>,
    /// The version it has seen.
    seen: u64,
}

impl Watch for Watches {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let watched = Watched {
            value: RefCell::new(init),
            version: Cell::new(0),
            senders: Cell::new(1),
            receivers: Cell::new(0),
            waiting: RefCell::default(),
        };
        let sender = Sender(Rc::new(watched));
        let receiver = Receiver::new(&sender.0);
        (sender, receiver)
    }
}

impl<T> Watched<T> {
    fn wake(&self) {
        let waiting = mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    fn changed(&self) {
        self.version.set(self.version.get() + 1);
        self.wake();
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<Watches, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.get() == 0 {
            return Err(SendError(value));
        }
        let before = self.0.value.replace(value);
        self.0.changed();
        drop(before);
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        let modified = modify(&mut self.0.value.borrow_mut());
        if modified {
            self.0.changed();
        }
        modified
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.0.value.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver::new(&self.0)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.0.senders.set(self.0.senders.get() + 1);
        Sender(Rc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.senders.set(self.0.senders.get() - 1);
        if self.0.senders.get() == 0 {
            self.0.wake();
        }
    }
}

impl<T> Receiver<T> {
    fn new(watched: &Rc<Watched<T>>) -> Receiver<T> {
        watched.receivers.set(watched.receivers.get() + 1);
        Receiver { watched: Rc::clone(watched), seen: watched.version.get() }
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<Watches, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        poll_fn(|context| {
            let watched = &self.watched;
            if self.seen != watched.version.get() {
                self.seen = watched.version.get();
                return Poll::Ready(Ok(()));
            }
            if watched.senders.get() == 0 {
                return Poll::Ready(Err(RecvError(())));
            }
            let mut waiting = watched.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.watched.value.borrow()
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        self.seen = self.watched.version.get();
        self.watched.value.borrow()
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        let mut receiver = Receiver::new(&self.watched);
        receiver.seen = self.seen;
        receiver
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.watched.receivers.set(self.watched.receivers.get() - 1);
    }
}
