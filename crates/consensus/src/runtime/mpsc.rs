//! Bounded channels from many tasks to one, all on one thread.
//!
//! What is waiting is dropped with the receiver, outside of any borrow: a message may hold the other end of something.
//! Next: `watch.rs`.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    mem,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
};

use openraft_rt::{Mpsc, MpscReceiver, MpscSender, MpscWeakSender, OptionalSend, SendError, TryRecvError};

/// Makes them.
pub(crate) struct Channels;

struct Channel<T> {
    queue: VecDeque<T>,
    capacity: usize,
    senders: usize,
    /// The receiver is there.
    open: bool,
    receiver: Option<Waker>,
    blocked: Vec<Waker>,
}

pub(crate) struct Sender<T>(Rc<RefCell<Channel<T>>>);

pub(crate) struct WeakSender<T>(Weak<RefCell<Channel<T>>>);

pub(crate) struct Receiver<T>(Rc<RefCell<Channel<T>>>);

impl Mpsc for Channels {
    type Sender<T: OptionalSend> = Sender<T>;
    type Receiver<T: OptionalSend> = Receiver<T>;
    type WeakSender<T: OptionalSend> = WeakSender<T>;

    fn channel<T: OptionalSend>(buffer: usize) -> (Sender<T>, Receiver<T>) {
        let channel = Channel {
            queue: VecDeque::new(),
            capacity: buffer.max(1),
            senders: 1,
            open: true,
            receiver: None,
            blocked: Vec::new(),
        };
        let channel = Rc::new(RefCell::new(channel));
        (Sender(Rc::clone(&channel)), Receiver(channel))
    }
}

impl<T> Channel<T> {
    /// Takes the oldest message; room for another wakes who waits for it.
    fn take(&mut self) -> Option<T> {
        let message = self.queue.pop_front()?;
        self.blocked.drain(..).for_each(Waker::wake);
        Some(message)
    }

    /// Puts a message in, or gives it back where there is no room.
    fn put(&mut self, message: T, context: &mut Context<'_>) -> Result<(), T> {
        if !self.open {
            return Err(message);
        }
        if self.queue.len() >= self.capacity {
            if !self.blocked.iter().any(|waker| waker.will_wake(context.waker())) {
                self.blocked.push(context.waker().clone());
            }
            return Err(message);
        }
        self.queue.push_back(message);
        if let Some(receiver) = self.receiver.take() {
            receiver.wake();
        }
        Ok(())
    }
}

impl<T: OptionalSend> MpscSender<Channels, T> for Sender<T> {
    async fn send(&self, message: T) -> Result<(), SendError<T>> {
        let mut waiting = Some(message);
        poll_fn(|context| {
            let Some(message) = waiting.take() else { return Poll::Pending };
            let mut channel = self.0.borrow_mut();
            match channel.put(message, context) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(message) if channel.open => {
                    waiting = Some(message);
                    Poll::Pending
                }
                Err(message) => Poll::Ready(Err(SendError(message))),
            }
        })
        .await
    }

    fn downgrade(&self) -> WeakSender<T> {
        WeakSender(Rc::downgrade(&self.0))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.0.borrow_mut().senders += 1;
        Sender(Rc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut channel = self.0.borrow_mut();
        channel.senders -= 1;
        if channel.senders == 0
            && let Some(receiver) = channel.receiver.take()
        {
            receiver.wake();
        }
    }
}

impl<T: OptionalSend> MpscWeakSender<Channels, T> for WeakSender<T> {
    fn upgrade(&self) -> Option<Sender<T>> {
        let channel = self.0.upgrade()?;
        if channel.borrow().senders == 0 {
            return None;
        }
        channel.borrow_mut().senders += 1;
        Some(Sender(channel))
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> WeakSender<T> {
        WeakSender(Weak::clone(&self.0))
    }
}

impl<T: OptionalSend> MpscReceiver<T> for Receiver<T> {
    async fn recv(&mut self) -> Option<T> {
        poll_fn(|context| {
            let mut channel = self.0.borrow_mut();
            match channel.take() {
                Some(message) => Poll::Ready(Some(message)),
                None if channel.senders == 0 => Poll::Ready(None),
                None => {
                    channel.receiver = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let mut channel = self.0.borrow_mut();
        match channel.take() {
            Some(message) => Ok(message),
            None if channel.senders == 0 => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut channel = self.0.borrow_mut();
        channel.open = false;
        channel.blocked.drain(..).for_each(Waker::wake);
        let queue = mem::take(&mut channel.queue);
        drop(channel);
        drop(queue);
    }
}
