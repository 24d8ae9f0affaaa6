//! What the Raft library runs on: an executor of our own behind its `AsyncRuntime`.
//!
//! The library calls static functions (`spawn`, `sleep`, `now`); they reach the executor that runs on this thread
//! through a thread-local, so that one thread may run the executors of many nodes in turn, as the simulator does. One
//! thread, no I/O, no clock: time is what [`Executor::advance`] was told. What is simulated is what ships.
//!
//! Not here: anything of Raft. Reading order: `executor`, `time`, then the channels `mpsc`, `watch`, `oneshot`,
//! `mutex`.

mod executor;
mod mpsc;
mod mutex;
mod oneshot;
mod time;
mod watch;

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use openraft_rt::{AsyncRuntime, OptionalSend};
use rand::{SeedableRng, rngs::SmallRng};

pub(crate) use executor::{Executor, Signal, spawn};
pub(crate) use time::Instant;

use time::{Elapsed, Sleep, Timeout};

/// The runtime the library is compiled for. Its functions are static; a value of it exists only to run one future to
/// its end ([`AsyncRuntime::block_on`]), with time that jumps to the next deadline.
#[derive(Default)]
pub(crate) struct Runtime(Executor);

/// The task's outcome is not to be had: its executor was dropped. A task that panics takes its thread with it.
#[derive(Debug)]
pub(crate) struct TaskGone;

/// The outcome of a task, once it is there. Dropping it does not end the task.
pub(crate) struct JoinHandle<T>(futures_channel::oneshot::Receiver<T>);

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}

impl fmt::Display for TaskGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task's executor is gone")
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, TaskGone>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(|_| TaskGone)
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = TaskGone;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Instant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = mpsc::Channels;
    type Watch = watch::Watches;
    type Oneshot = oneshot::Oneshots;
    type Mutex<T: OptionalSend + 'static> = mutex::Mutex<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let (sender, receiver) = futures_channel::oneshot::channel();
        spawn(async move {
            // Nobody may be waiting for it.
            let _ = sender.send(future.await);
        });
        JoinHandle(receiver)
    }

    fn sleep(duration: Duration) -> Sleep {
        Sleep::until(time::now() + duration)
    }

    fn sleep_until(deadline: Instant) -> Sleep {
        Sleep::until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Timeout<F> {
        Timeout::at(time::now() + duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Instant, future: F) -> Timeout<F> {
        Timeout::at(deadline, future)
    }

    fn is_panic(_: &TaskGone) -> bool {
        false
    }

    fn thread_rng() -> SmallRng {
        SmallRng::seed_from_u64(executor::random())
    }

    fn new(_threads: usize) -> Runtime {
        Runtime::default()
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        let mut future = pin!(future);
        let signal = Arc::new(Signal::default());
        let waker = Waker::from(Arc::clone(&signal));
        signal.set();
        loop {
            if signal.take() {
                let _entered = self.0.enter();
                if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return value;
                }
            }
            self.0.run();
            if signal.is_set() {
                continue;
            }
            match self.0.deadline() {
                Some(deadline) => self.0.advance(deadline),
                None => signal.wait(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft_rt::testing::Suite;

    use super::Runtime;

    #[test]
    fn the_librarys_own_tests_of_a_runtime_pass() {
        Suite::<Runtime>::test_all();
    }
}
