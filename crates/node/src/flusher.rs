//! Group commit: a few threads per data directory that sync what was written and publish how far it is durable.
//!
//! Appends only put their partition on a list. Each thread takes the partition that waits longest, syncs its files,
//! publishes its new high watermark and wakes who waits for it. Whatever is appended to a partition during its sync is
//! its next one, so the number of syncs follows the speed of the disk and not the number of requests.
//!
//! What is not here: what a sync covers (`ottla_log::SyncPlan`) and what its failure means (`partition.rs`).

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ottla_log::SyncError;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::{partition::Partition, waiters::Wakes};

/// How long written data that nobody waits for may gather before its sync: `acks=1` becomes visible this late at most.
const LINGER: Duration = Duration::from_millis(5);
/// Syncs under way at a time. The disk takes the more of them in a second, the more it is asked for together
/// (`docs/decisions/group-commit.md`).
const THREADS_MAX: usize = 12;

/// The list of partitions that want a sync, shared with the threads that do it. A partition is on it once at most, and
/// not while it is being synced.
pub(crate) struct Flusher {
    queue: Mutex<Queue>,
    /// For a thread with nothing to do: there is.
    wanted: Condvar,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Arc<Partition>>,
    /// Those that nobody waits for. They are ready when the first of them has been here for [`LINGER`], or when anyone
    /// wants anything sooner.
    gathering: Vec<Arc<Partition>>,
    due: Option<Instant>,
    /// Whether a thread waits for `due`.
    timed: bool,
    idle: usize,
    threads: Vec<JoinHandle<()>>,
    stopping: bool,
}

impl Flusher {
    /// Starts the first thread; others come when there is more to do than it can.
    pub(crate) fn start() -> io::Result<Arc<Flusher>> {
        let flusher = Arc::new(Flusher { queue: Mutex::default(), wanted: Condvar::new() });
        flusher.add_thread(&mut flusher.queue.lock())?;
        Ok(flusher)
    }

    fn add_thread(self: &Arc<Self>, queue: &mut Queue) -> io::Result<()> {
        let flusher = Arc::clone(self);
        queue.threads.push(thread::Builder::new().name("flusher".into()).spawn(move || flusher.run())?);
        Ok(())
    }

    /// Puts `partition` on the list. Unless somebody waits for its sync it may wait for more, [`LINGER`] at most. None
    /// if it is on the list already, and somebody has just begun to wait.
    pub(crate) fn request(&self, partition: Option<Arc<Partition>>) {
        let mut queue = self.queue.lock();
        queue.push(partition);
        self.call_for_help(&queue);
    }

    /// Ends the threads once the list is empty, and waits for them. `false` if one ended by a bug.
    pub(crate) fn stop(&self) -> bool {
        self.queue.lock().stopping = true;
        self.wanted.notify_all();
        let mut sound = true;
        loop {
            // Popped one by one: whoever still runs may add another.
            let Some(thread) = self.queue.lock().threads.pop() else { return sound };
            sound &= thread.join().is_ok();
        }
    }

    fn run(self: Arc<Self>) {
        let mut queue = self.queue.lock();
        while let Some(partition) = self.next(&mut queue) {
            if !queue.ready.is_empty() && queue.idle == 0 && queue.threads.len() < THREADS_MAX {
                // Where no thread can be had the others do all the work.
                let _ = self.add_thread(&mut queue);
            }
            self.call_for_help(&queue);
            if MutexGuard::unlocked(&mut queue, || sync(&partition)) {
                queue.push(Some(partition));
            }
        }
    }

    /// The partition to sync next, as soon as there is one. `None`: the thread is to end.
    fn next(&self, queue: &mut MutexGuard<'_, Queue>) -> Option<Arc<Partition>> {
        loop {
            if queue.stopping || queue.due.is_some_and(|due| due <= Instant::now()) {
                queue.end_gathering();
            }
            if let Some(partition) = queue.ready.pop_front() {
                return Some(partition);
            }
            if queue.stopping {
                return None;
            }
            queue.idle += 1;
            match queue.due {
                Some(due) if !queue.timed => {
                    queue.timed = true;
                    self.wanted.wait_until(queue, due);
                    queue.timed = false;
                }
                _ => self.wanted.wait(queue),
            }
            queue.idle -= 1;
        }
    }

    /// Wakes an idle thread if there is something to do or to wait for.
    fn call_for_help(&self, queue: &Queue) {
        if queue.idle > 0 && (!queue.ready.is_empty() || (queue.due.is_some() && !queue.timed)) {
            self.wanted.notify_one();
        }
    }
}

impl Queue {
    fn push(&mut self, partition: Option<Arc<Partition>>) {
        // Looked at here, under the lock: who begins to wait while another puts the partition on the list comes either
        // before, and is seen, or after, and finds it there.
        let urgent = partition.as_ref().is_none_or(|partition| partition.is_sync_awaited());
        self.gathering.extend(partition);
        if urgent {
            self.end_gathering();
        } else {
            self.due.get_or_insert_with(|| Instant::now() + LINGER);
        }
    }

    fn end_gathering(&mut self) {
        self.due = None;
        self.ready.extend(self.gathering.drain(..));
    }
}

/// Syncs a partition, publishes the outcome and says whether to do it again.
fn sync(partition: &Partition) -> bool {
    if let Some(plan) = partition.begin_sync() {
        // A sync that panicked told us nothing, which is the same as a sync that failed.
        let outcome = catch_unwind(AssertUnwindSafe(|| plan.run())).unwrap_or_else(|_| Err(SyncError::lost()));
        let mut wakes = Wakes::default();
        partition.complete_sync(plan, outcome, &mut wakes);
        wakes.wake();
    }
    partition.end_sync()
}
