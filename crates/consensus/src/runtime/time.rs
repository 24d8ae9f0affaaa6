//! Time as the executor was told it: instants, sleeping, timeouts.
//!
//! What is not here: a clock. Next: `mpsc.rs`.

use std::{
    fmt,
    future::Future,
    ops::{Add, AddAssign, Sub, SubAssign},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use ottla_types::Tick;

use super::executor::{self, Shared};

/// Nanoseconds on the node's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(u64);

const NANOS_PER_TICK: u64 = 1_000_000;

impl Instant {
    pub(crate) fn from_tick(tick: Tick) -> Instant {
        Instant(tick.0.saturating_mul(NANOS_PER_TICK))
    }

    /// The first tick at or after it.
    pub(crate) fn to_tick(self) -> Tick {
        Tick(self.0.div_ceil(NANOS_PER_TICK))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(nanos(duration)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl openraft_rt::Instant for Instant {
    fn now() -> Instant {
        now()
    }
}

/// The time of this thread's executor.
pub(super) fn now() -> Instant {
    executor::current().now.get()
}

/// Ready once its time has come.
pub(crate) struct Sleep {
    shared: Rc<Shared>,
    deadline: Instant,
    /// Its place among the timers, once it was polled.
    key: Option<(Instant, u64)>,
}

impl Sleep {
    pub(super) fn until(deadline: Instant) -> Sleep {
        Sleep { shared: executor::current(), deadline, key: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.shared.now.get() >= self.deadline {
            return Poll::Ready(());
        }
        let made = &self.shared.timers_made;
        let key = self.key.unwrap_or_else(|| {
            made.set(made.get() + 1);
            (self.deadline, made.get())
        });
        self.shared.timers.borrow_mut().insert(key, context.waker().clone());
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.shared.timers.borrow_mut().remove(&key);
        }
    }
}

/// It took too long.
#[derive(Debug)]
pub(crate) struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time is over")
    }
}

/// A future that is given up when its time is over.
pub(crate) struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F> Timeout<F> {
    pub(super) fn at(deadline: Instant, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Sleep::until(deadline) }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(value) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        Pin::new(&mut self.sleep).poll(context).map(|()| Err(Elapsed))
    }
}
