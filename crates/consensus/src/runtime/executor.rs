//! Tasks that are run until none can go on, on the thread that asks for it.
//!
//! Tasks run in the order in which they were spawned or woken, so the same inputs give the same run. Wakers may be
//! used from any thread; they set the [`Signal`] on which the owner's thread may wait. Next: `time.rs`.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::{Condvar, Mutex};

use super::time::Instant;

type Task = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    /// The executor that runs on this thread now. There is always one, if only one that nobody runs.
    static CURRENT: RefCell<Rc<Shared>> = RefCell::default();
}

/// Runs tasks; see the module.
#[derive(Default)]
pub(crate) struct Executor {
    shared: Rc<Shared>,
    tasks: FuturesUnordered<Task>,
    signal: Arc<Signal>,
}

/// What tasks reach of the executor that runs them.
#[derive(Default)]
pub(crate) struct Shared {
    pub(super) now: Cell<Instant>,
    /// Who waits for a time: in its order, and in the order of asking for it.
    pub(super) timers: RefCell<BTreeMap<(Instant, u64), Waker>>,
    pub(super) timers_made: Cell<u64>,
    spawned: RefCell<Vec<Task>>,
    random: Cell<u64>,
}

/// Set when there may be something to do.
#[derive(Default)]
pub(crate) struct Signal {
    set: Mutex<bool>,
    raised: Condvar,
}

/// Makes an executor that of this thread for as long as it lives.
pub(crate) struct Entered {
    before: Rc<Shared>,
}

impl Executor {
    /// An executor whose chance is drawn from `seed`.
    pub(crate) fn new(seed: u64) -> Executor {
        let executor = Executor::default();
        executor.shared.random.set(seed);
        executor
    }

    /// What wakes this executor's thread.
    pub(crate) fn signal(&self) -> Arc<Signal> {
        Arc::clone(&self.signal)
    }

    /// Until the guard is dropped, `spawn`, `now` and `sleep` on this thread mean this executor.
    pub(crate) fn enter(&self) -> Entered {
        Entered { before: replace_current(Rc::clone(&self.shared)) }
    }

    /// Moves the clock, never back, and wakes whose time has come.
    pub(crate) fn advance(&mut self, now: Instant) {
        let now = self.shared.now.get().max(now);
        self.shared.now.set(now);
        loop {
            let mut timers = self.shared.timers.borrow_mut();
            let Some(entry) = timers.first_entry().filter(|entry| entry.key().0 <= now) else { return };
            let waker = entry.remove();
            drop(timers);
            waker.wake();
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.shared.now.get()
    }

    /// Whether there is nothing to run.
    pub(crate) fn is_idle(&self) -> bool {
        !self.signal.is_set() && self.shared.spawned.borrow().is_empty()
    }

    /// Runs every task as far as it gets.
    pub(crate) fn run(&mut self) {
        let _entered = self.enter();
        let waker = Waker::from(Arc::clone(&self.signal));
        let mut context = Context::from_waker(&waker);
        loop {
            self.tasks.extend(self.shared.spawned.take());
            self.signal.take();
            let polled = self.tasks.poll_next_unpin(&mut context);
            if !matches!(polled, Poll::Ready(Some(()))) && self.is_idle() {
                return;
            }
        }
    }

    /// When the next timer is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.shared.timers.borrow().first_key_value().map(|((at, _), _)| *at)
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // Tasks that are dropped may look at the clock, and spawn what nobody will run.
        let _entered = self.enter();
        self.tasks.clear();
        drop(self.shared.spawned.take());
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        replace_current(Rc::clone(&self.before));
    }
}

impl Signal {
    pub(crate) fn set(&self) {
        *self.set.lock() = true;
        self.raised.notify_one();
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.set.lock()
    }

    /// Whether it was set; it is not any more.
    pub(crate) fn take(&self) -> bool {
        std::mem::take(&mut *self.set.lock())
    }

    /// Waits until it is set, at most this long.
    pub(crate) fn wait(&self, timeout: Option<Duration>) {
        let mut set = self.set.lock();
        match timeout {
            Some(timeout) => {
                self.raised.wait_while_for(&mut set, |set| !*set, timeout);
            }
            None => self.raised.wait_while(&mut set, |set| !*set),
        }
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.set();
    }
}

/// Adds a task to this thread's executor.
pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    current().spawned.borrow_mut().push(Box::pin(task));
}

/// The executor of this thread.
pub(super) fn current() -> Rc<Shared> {
    // It fails only while the thread ends, when there is nothing left to run.
    CURRENT.try_with(|current| Rc::clone(&current.borrow())).unwrap_or_default()
}

/// The next number of this executor's chance (SplitMix64).
pub(super) fn random() -> u64 {
    let shared = current();
    let state = shared.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    shared.random.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn replace_current(with: Rc<Shared>) -> Rc<Shared> {
    CURRENT.try_with(|current| current.replace(with)).unwrap_or_default()
}
