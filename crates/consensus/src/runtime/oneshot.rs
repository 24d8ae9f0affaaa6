//! One value from one task to another: those of `futures-channel`, under the library's names.
//!
//! Next: `mutex.rs`.

use futures_channel::oneshot::{self, Canceled};
use openraft_rt::{Oneshot, OneshotSender, OptionalSend};

/// Makes them.
pub(crate) struct Oneshots;

pub(crate) struct Sender<T>(oneshot::Sender<T>);

impl Oneshot for Oneshots {
    type Sender<T: OptionalSend> = Sender<T>;
    type Receiver<T: OptionalSend> = oneshot::Receiver<T>;
    type ReceiverError = Canceled;

    fn channel<T>() -> (Sender<T>, oneshot::Receiver<T>)
    where
        T: OptionalSend,
    {
        let (sender, receiver) = oneshot::channel();
        (Sender(sender), receiver)
    }
}

impl<T: OptionalSend> OneshotSender<T> for Sender<T> {
    fn send(self, value: T) -> Result<(), T> {
        self.0.send(value)
    }
}
