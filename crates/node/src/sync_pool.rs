//! The threads that sync the files of one round side by side: the flusher itself and, for several files, its helpers.
//!
//! Helpers are started when a round first has work for them, and are parked from then on. What is not here: which
//! partitions a round has and what becomes of the outcome (`flusher.rs`).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
};

use ottla_log::{SyncError, SyncPlan, Synced};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::partition::Partition;

/// Threads that sync, the flusher included. More do not help one disk, and one would serialise the latencies of many
/// small files (`docs/decisions/group-commit.md`).
const THREADS_MAX: usize = 4;

/// A partition and what is to be synced of it.
pub(crate) type Job = (Arc<Partition>, SyncPlan);
/// A job that ran, and its outcome.
pub(crate) type Done = (Job, Result<Synced, SyncError>);

/// Dropping it ends the helpers.
#[derive(Default)]
pub(crate) struct SyncPool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    round: Mutex<Round>,
    begun: Condvar,
    finished: Condvar,
}

#[derive(Default)]
struct Round {
    waiting: Vec<Job>,
    running: usize,
    done: Vec<Done>,
    stopping: bool,
}

impl SyncPool {
    /// Runs every job, and returns when the last has ended.
    pub(crate) fn run(&mut self, jobs: Vec<Job>) -> Vec<Done> {
        // The second file is as good as written by the time the first is synced; each beyond is worth a wake.
        let helpers = jobs.len().saturating_sub(2).min(THREADS_MAX - 1);
        self.start_helpers(helpers);
        let (waiting, failed) = start_all(jobs);
        let mut round = self.shared.round.lock();
        round.waiting = waiting;
        round.done = failed;
        for _ in 0..helpers {
            self.shared.begun.notify_one();
        }
        round = self.shared.work(round);
        while round.running > 0 {
            self.shared.finished.wait(&mut round);
        }
        std::mem::take(&mut round.done)
    }

    fn start_helpers(&mut self, wanted: usize) {
        while self.helpers.len() < wanted {
            let shared = Arc::clone(&self.shared);
            match thread::Builder::new().name("sync".into()).spawn(move || shared.help()) {
                Ok(helper) => self.helpers.push(helper),
                // Where no thread can be had the others do all the work.
                Err(_) => return,
            }
        }
    }
}

/// Lets the disk work on all files at once, where there are several. Those that can't even be begun have failed.
fn start_all(jobs: Vec<Job>) -> (Vec<Job>, Vec<Done>) {
    let (mut started, mut failed) = (Vec::with_capacity(jobs.len()), Vec::new());
    let several = jobs.len() > 1;
    for job in jobs {
        let begun = if several { job.1.start() } else { Ok(()) };
        match begun {
            Ok(()) => started.push(job),
            Err(error) => failed.push((job, Err(error))),
        }
    }
    (started, failed)
}

impl Drop for SyncPool {
    fn drop(&mut self) {
        self.shared.round.lock().stopping = true;
        self.shared.begun.notify_all();
        for helper in self.helpers.drain(..) {
            // It catches what panics in it.
            let _ = helper.join();
        }
    }
}

impl Shared {
    fn help(&self) {
        let mut round = self.round.lock();
        loop {
            round = self.work(round);
            if round.stopping {
                return;
            }
            if round.running == 0 {
                self.finished.notify_one();
            }
            self.begun.wait(&mut round);
        }
    }

    /// Runs jobs until none waits.
    fn work<'r>(&self, mut round: MutexGuard<'r, Round>) -> MutexGuard<'r, Round> {
        while let Some(job) = round.waiting.pop() {
            round.running += 1;
            let outcome = MutexGuard::unlocked(&mut round, || {
                // A sync that panicked told us nothing, which is the same as a sync that failed.
                catch_unwind(AssertUnwindSafe(|| job.1.run())).unwrap_or_else(|_| Err(SyncError::lost()))
            });
            round.running -= 1;
            round.done.push((job, outcome));
        }
        round
    }
}
