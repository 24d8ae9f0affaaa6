//! A lock that tasks wait for: that of `futures-util`, under the library's name.

use futures_util::lock;
use openraft_rt::OptionalSend;

pub(crate) struct Mutex<T>(lock::Mutex<T>);

impl<T: OptionalSend + 'static> openraft_rt::Mutex<T> for Mutex<T> {
    type Guard<'a>
        = lock::MutexGuard<'a, T>
    where
        Self: 'a;

    fn new(value: T) -> Mutex<T> {
        Mutex(lock::Mutex::new(value))
    }

    async fn lock(&self) -> lock::MutexGuard<'_, T> {
        self.0.lock().await
    }
}
