//! Group commit: one thread per data directory that syncs what was written and publishes how far it is durable.
//!
//! Appends only put their partition on a list. The flusher takes the whole list, syncs every file on it, and then
//! publishes all the new high watermarks and wakes every waiting connection once; whatever was appended meanwhile is
//! the next round. So the number of syncs follows the speed of the disk and not the number of requests.
//!
//! What is not here: the threads that sync side by side (`sync_pool.rs`), what a sync covers (`ottla_log::SyncPlan`)
//! and what its failure means (`partition.rs`).

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::{partition::Partition, sync_pool::SyncPool, waiters::Wakes};

/// How long written data that nobody waits for may gather before its sync: `acks=1` becomes visible this late at most.
const LINGER: Duration = Duration::from_millis(5);

/// The list of partitions that want a sync, shared with the thread that does it.
pub(crate) struct Flusher {
    queue: Mutex<Queue>,
    wanted: Condvar,
}

#[derive(Default)]
struct Queue {
    partitions: Vec<Arc<Partition>>,
    urgent: bool,
    stopping: bool,
}

impl Flusher {
    /// Starts the thread. It ends after [`Flusher::stop`], when everything on the list has been synced.
    pub(crate) fn start() -> std::io::Result<(Arc<Flusher>, JoinHandle<()>)> {
        let flusher = Arc::new(Flusher { queue: Mutex::default(), wanted: Condvar::new() });
        let handle = thread::Builder::new().name("flusher".into()).spawn({
            let flusher = Arc::clone(&flusher);
            move || flusher.run()
        })?;
        Ok((flusher, handle))
    }

    /// Puts `partition` on the list, unless the caller knows it is there already, and starts the next round at once
    /// if it is urgent: somebody waits for it. Otherwise the round may wait [`LINGER`] for more.
    pub(crate) fn request(&self, partition: Option<Arc<Partition>>, urgent: bool) {
        let mut queue = self.queue.lock();
        queue.partitions.extend(partition);
        let wake = queue.partitions.len() == 1 || (urgent && !queue.urgent);
        queue.urgent |= urgent;
        if wake {
            self.wanted.notify_one();
        }
    }

    /// Lets the thread end after its list.
    pub(crate) fn stop(&self) {
        self.queue.lock().stopping = true;
        self.wanted.notify_one();
    }

    fn run(&self) {
        let mut pool = SyncPool::default();
        loop {
            let round = {
                let mut queue = self.queue.lock();
                while queue.partitions.is_empty() && !queue.stopping {
                    self.wanted.wait(&mut queue);
                }
                if !queue.urgent && !queue.stopping {
                    self.wanted.wait_for(&mut queue, LINGER);
                }
                if queue.partitions.is_empty() {
                    return;
                }
                queue.urgent = false;
                std::mem::take(&mut queue.partitions)
            };
            sync_all(round, &mut pool);
        }
    }
}

/// Syncs each partition and publishes the outcome of all at once.
fn sync_all(round: Vec<Arc<Partition>>, pool: &mut SyncPool) {
    let jobs = round.into_iter().filter_map(|partition| partition.begin_sync().map(|plan| (partition, plan)));
    let mut wakes = Wakes::default();
    for ((partition, plan), outcome) in pool.run(jobs.collect()) {
        partition.complete_sync(plan, outcome, &mut wakes);
    }
    wakes.wake();
}
