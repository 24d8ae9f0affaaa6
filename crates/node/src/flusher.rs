//! Group commit: a few threads per data directory that sync what was written and publish how far it is durable.
//!
//! Appends only put their partition on a list. Each thread takes the partition that waits longest, syncs its files,
//! publishes its new high watermark and wakes who waits for it. Whatever is appended to a partition during its sync is
//! its next one, so the number of syncs follows the speed of the disk and not the number of requests. Several that wait
//! are synced at once by a sync of the file system, where that is as cheap as that of one file. What is only synced for
//! the next recovery's sake waits behind all others, and is synced so if it is much.
//!
//! What is not here: what a sync covers (`ottla_log::SyncPlan`) and what its failure means (`partition.rs`).

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ottla_log::{Disk, FileSystem, SyncError, SyncPlan, Synced};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::{partition::Partition, waiters::Wakes};

/// How long written data that nobody waits for may gather before its sync: `acks=1` becomes visible this late at most.
const LINGER: Duration = Duration::from_millis(5);
/// Syncs under way at a time, each of one partition. The disk takes the more of them in a second, the more it is asked
/// for together. These figures are from `docs/decisions/group-commit.md`.
const APART_MAX: usize = 12;
/// The same where the file system may be synced: what comes meanwhile is to gather.
const APART_MAX_BESIDE: usize = 2;
/// So many that wait are synced together, and no other sync but the regular round's begins until that is done.
const TOGETHER_MIN: usize = 3;
/// The most that are: their answers leave when the last is done.
const GROUP_MAX: usize = 256;
/// From so many on those that nobody waits for are synced together, whatever else is to be written.
const REGULAR_MIN: usize = 64;
/// The most of these that are: what each has to do is in memory until the sync is done.
const REGULAR_MAX: usize = 1024;
/// With more than this yet to be written, by whomever, a sync of the file system would wait for others.
const UNWRITTEN_MAX: u64 = 8 << 20;
/// How long a look at that is believed.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The list of partitions that want a sync, shared with the threads that do it. A partition is on it once at most, and
/// not while it is being synced.
pub(crate) struct Flusher {
    queue: Mutex<Queue>,
    /// For a thread with nothing to do: there is.
    wanted: Condvar,
    /// The one that all partitions lie on; and once more for the regular round, as each is told once what failed.
    file_system: Option<Arc<dyn FileSystem>>,
    beside: Option<Arc<dyn FileSystem>>,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Arc<Partition>>,
    /// Those that nobody waits for. They are ready when the first of them has been here for [`LINGER`], or when anyone
    /// wants anything sooner.
    gathering: Vec<Arc<Partition>>,
    due: Option<Instant>,
    /// Those of the regular round, where they are many, and whether a thread is at them.
    regular: Vec<Arc<Partition>>,
    at_regular: bool,
    /// Whether a thread waits for `due`.
    timed: bool,
    idle: usize,
    /// Threads in a sync, but for the one that is `at_regular`.
    busy: usize,
    /// Whether one of them syncs the file system.
    whole: bool,
    /// Whether the file system may be synced, and when that was last looked at.
    together: bool,
    looked: Option<Instant>,
    threads: Vec<JoinHandle<()>>,
    stopping: bool,
}

impl Flusher {
    /// Starts the first thread; others come when there is more to do than it can.
    pub(crate) fn start(disk: &dyn Disk, dir: &Path) -> io::Result<Arc<Flusher>> {
        let (file_system, beside) = (disk.file_system(dir), disk.file_system(dir));
        let flusher = Arc::new(Flusher { queue: Mutex::default(), wanted: Condvar::new(), file_system, beside });
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

    /// Puts partitions on the list for syncs that nobody waits for, those that are not on it.
    pub(crate) fn request_regular(&self, mut partitions: Vec<Arc<Partition>>) {
        let mut queue = self.queue.lock();
        partitions.retain(|partition| partition.enlist());
        if self.beside.is_some() && partitions.len() >= REGULAR_MIN {
            queue.regular.extend(partitions.extract_if(.., |partition| !partition.is_read_when_synced()));
        }
        partitions.into_iter().for_each(|partition| queue.push(Some(partition)));
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
        while let Some(Group { partitions, regular }) = self.next(&mut queue) {
            let whole = partitions.len() > 1 && !regular;
            if regular {
                queue.at_regular = true;
            } else {
                queue.busy += 1;
                queue.whole |= whole;
            }
            // Beside the regular round there is always one to wait for what comes.
            if (queue.has_work() || regular) && queue.idle == 0 && queue.threads.len() <= APART_MAX {
                // Where no thread can be had the others do all the work.
                let _ = self.add_thread(&mut queue);
            }
            self.call_for_help(&queue);
            let again = MutexGuard::unlocked(&mut queue, || self.sync(partitions, regular));
            if regular {
                queue.at_regular = false;
            } else {
                queue.busy -= 1;
                queue.whole &= !whole;
            }
            again.into_iter().for_each(|partition| queue.push(Some(partition)));
        }
        // One may wait for another to be through.
        self.wanted.notify_all();
    }

    /// The partitions to sync next, as soon as there are any. `None`: the thread is to end.
    fn next(&self, queue: &mut MutexGuard<'_, Queue>) -> Option<Group> {
        loop {
            if queue.stopping || queue.due.is_some_and(|due| due <= Instant::now()) {
                queue.end_gathering();
            }
            if queue.ready.len() >= TOGETHER_MIN {
                self.look(queue);
            }
            if queue.has_more() {
                let most = if queue.together && queue.ready.len() >= TOGETHER_MIN { GROUP_MAX } else { 1 };
                let most = most.min(queue.ready.len());
                return Some(Group { partitions: queue.ready.drain(..most).collect(), regular: false });
            }
            if queue.has_regular() {
                let most = REGULAR_MAX.min(queue.regular.len());
                return Some(Group { partitions: queue.regular.drain(..most).collect(), regular: true });
            }
            if queue.stopping && queue.ready.is_empty() && queue.regular.is_empty() {
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

    /// Finds out whether to sync the file system, if that has not been done just now.
    fn look(&self, queue: &mut Queue) {
        let Some(file_system) = &self.file_system else { return };
        let now = Instant::now();
        if queue.looked.is_none_or(|looked| now - looked >= LOOK_EVERY) {
            queue.looked = Some(now);
            queue.together = file_system.unwritten().is_ok_and(|bytes| bytes <= UNWRITTEN_MAX);
        }
    }

    /// Wakes an idle thread if there is something to do or to wait for.
    fn call_for_help(&self, queue: &Queue) {
        if queue.idle > 0 && (queue.has_work() || (queue.due.is_some() && !queue.timed)) {
            self.wanted.notify_one();
        }
    }

    /// Syncs partitions, publishes the outcomes and returns those that want it again.
    fn sync(&self, mut group: Vec<Arc<Partition>>, regular: bool) -> Vec<Arc<Partition>> {
        let mut planned = Vec::with_capacity(group.len());
        let mut plans = Vec::with_capacity(group.len());
        for partition in &group {
            if let Some(plan) = partition.begin_sync() {
                planned.push(partition);
                plans.push(plan);
            }
        }
        let file_system = if regular { &self.beside } else { &self.file_system };
        let outcomes = match file_system.as_deref().filter(|_| plans.len() > 1) {
            Some(file_system) => guarded(&plans, || SyncPlan::run_together(&plans, file_system)),
            None => guarded(&plans, || plans.iter().map(SyncPlan::run).collect()),
        };
        let mut wakes = Wakes::default();
        for ((partition, plan), outcome) in planned.into_iter().zip(plans).zip(outcomes) {
            partition.complete_sync(plan, outcome, &mut wakes);
        }
        wakes.wake();
        group.retain(|partition| partition.end_sync());
        group
    }
}

type Outcome = Result<Synced, SyncError>;

/// What one thread syncs at a time.
struct Group {
    partitions: Vec<Arc<Partition>>,
    /// They are of the regular round: others may be synced meanwhile.
    regular: bool,
}

impl Queue {
    /// Whether another thread may begin with a sync, and has one to begin.
    fn has_more(&self) -> bool {
        let busy_max = if self.together { APART_MAX_BESIDE } else { APART_MAX };
        !self.ready.is_empty() && !self.whole && self.busy < busy_max
    }

    /// Whether one may begin with those of the regular round.
    fn has_regular(&self) -> bool {
        !self.regular.is_empty() && !self.at_regular
    }

    fn has_work(&self) -> bool {
        self.has_more() || self.has_regular()
    }

    fn push(&mut self, partition: Option<Arc<Partition>>) {
        // Looked at here, under the lock: who begins to wait while another puts the partition on the list comes either
        // before, and is seen, or after, and finds it there.
        let urgent = partition.as_ref().is_none_or(|partition| partition.is_sync_awaited());
        if partition.is_none() {
            // Whose topic has just become one with `ottla.durability=fsync`.
            self.ready.extend(self.regular.extract_if(.., |partition| partition.is_sync_awaited()));
        }
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

/// Outcomes of syncs. One that panicked told us nothing, which is the same as if it had failed.
fn guarded(plans: &[SyncPlan], sync: impl FnOnce() -> Vec<Outcome>) -> Vec<Outcome> {
    catch_unwind(AssertUnwindSafe(sync)).unwrap_or_else(|_| vec![Err(SyncError::lost()); plans.len()])
}
