//! Compaction of this broker's logs: which one is next, and how fast it may go.
//!
//! One thread looks every `log.cleaner.backoff.ms`, cleans what is worth it, the dirtiest log first, and looks again
//! until nothing is; others help it where `log.cleaner.threads` says so. A partition is looked at only if something has
//! changed since the last time, or a lag has elapsed, so that ten thousand idle ones cost nothing. A pass that fails
//! leaves its partition alone until the next start. How a log is cleaned: `ottla_log::CleanPlan`.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ottla_log::{Checkpoint, CleanError, CleanSettings, Cleaned, Dirtiness, peek_dirtiness};
use ottla_metadata::config::{BrokerConfig, TopicConfig};
use ottla_types::{Offset, Timestamp};
use parking_lot::{Condvar, Mutex};

use crate::{
    controller::Controller,
    partition::{Partition, ReadRefusal},
    storage::Storage,
    topics::Topic,
};

/// Above every ratio: what `max.compaction.lag.ms` wants cleaned goes first.
const OVERDUE: f64 = 2.0;
const NEVER: i64 = i64::MAX;
/// When a partition that cannot be looked at is tried again, in milliseconds.
const RETRY_MS: i64 = 60_000;

/// What the cleaner remembers of a partition.
#[derive(Debug)]
pub(crate) struct Cleaning {
    /// Base offset of the segment of the recovery point that is stored: a start reads no file below.
    stored: AtomicI64,
    /// When to look again, in milliseconds. Earlier nothing changes but by a new `stored` or new settings.
    look_at: AtomicI64,
    /// A pass failed.
    uncleanable: AtomicBool,
}

impl Cleaning {
    pub(crate) fn new(stored: Option<&Checkpoint>) -> Cleaning {
        Cleaning {
            stored: AtomicI64::new(stored.map_or(0, |checkpoint| checkpoint.recovery_point.segment.0)),
            look_at: AtomicI64::new(0),
            uncleanable: AtomicBool::new(false),
        }
    }

    /// The recovery point is on the disk.
    pub(crate) fn set_stored(&self, segment: Offset) {
        if self.stored.swap(segment.0, Ordering::AcqRel) != segment.0 {
            self.look_again(Timestamp(0));
        }
    }

    /// The base offset of the segment where a start would begin to read.
    pub(crate) fn stored(&self) -> Offset {
        Offset(self.stored.load(Ordering::Acquire))
    }

    /// Has the partition looked at from `at` on.
    pub(crate) fn look_again(&self, at: Timestamp) {
        self.look_at.fetch_min(at.0, Ordering::AcqRel);
    }

    /// Whether to look now. What changes from here on will be looked at again.
    fn take_due(&self, now: Timestamp) -> bool {
        self.look_at.load(Ordering::Acquire) <= now.0 && self.look_at.swap(NEVER, Ordering::AcqRel) <= now.0
    }
}

/// The threads that compact.
pub(crate) struct Cleaner {
    shared: Arc<Shared>,
}

struct Shared {
    storage: Arc<Storage>,
    controller: Arc<Controller>,
    stopping: Mutex<bool>,
    stop: Condvar,
    /// When what was read and written so far is paid for.
    paid: Mutex<Instant>,
}

impl Cleaner {
    pub(crate) fn new(storage: Arc<Storage>, controller: Arc<Controller>) -> Cleaner {
        let (stopping, stop, paid) = (Mutex::new(false), Condvar::new(), Mutex::new(Instant::now()));
        Cleaner { shared: Arc::new(Shared { storage, controller, stopping, stop, paid }) }
    }

    pub(crate) fn start(&self) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        thread::Builder::new().name("cleaner".into()).spawn(move || shared.run())
    }

    /// Ends the thread, in the middle of a pass if need be.
    pub(crate) fn stop(&self) {
        *self.shared.stopping.lock() = true;
        self.shared.stop.notify_all();
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let config = self.controller.broker_config();
            let enabled = config.log_cleaner_enable && config.log_cleaner_threads > 0;
            let worth = if enabled { self.worth_cleaning() } else { Vec::new() };
            let nothing = worth.is_empty();
            self.clean_all(worth, &config);
            let pause_ms = if nothing { config.log_cleaner_backoff_ms.max(1) } else { 0 };
            if self.rest(Instant::now() + Duration::from_millis(pause_ms)) {
                return;
            }
        }
    }

    /// Waits until then, or until it is to stop, and says whether it is.
    fn rest(&self, until: Instant) -> bool {
        let mut stopping = self.stopping.lock();
        while !*stopping && !self.stop.wait_until(&mut stopping, until).timed_out() {}
        *stopping
    }

    /// The partitions that are worth cleaning, the dirtiest first.
    fn worth_cleaning(&self) -> Vec<Arc<Partition>> {
        let now = self.storage.now();
        let topics = self.controller.topics();
        let compacted = |topic: &&Arc<Topic>| {
            topic.partitions.first().is_some_and(|partition| partition.config().cleanup_policy.compact)
        };
        let mut worth: Vec<(f64, &Arc<Partition>)> = Vec::new();
        for topic in topics.iter().filter(compacted) {
            worth.extend(topic.partitions.iter().filter_map(|partition| Some((urgency(partition, now)?, partition))));
        }
        worth.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        worth.into_iter().map(|(_, partition)| Arc::clone(partition)).collect()
    }

    fn clean_all(&self, partitions: Vec<Arc<Partition>>, config: &BrokerConfig) {
        let threads = partitions.len().min(config.log_cleaner_threads as usize);
        let queue = Mutex::new(partitions.into_iter());
        let work = || {
            while !*self.stopping.lock() {
                let Some(partition) = queue.lock().next() else { return };
                self.clean(&partition, config);
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                // Where no thread can be had this one does all the work.
                let _ = thread::Builder::new().name("cleaner".into()).spawn_scoped(scope, work);
            }
            work();
        });
    }

    fn clean(&self, partition: &Arc<Partition>, config: &BrokerConfig) {
        let (topic, index) = (partition.topic_name(), partition.index());
        let before = partition.cleaned_to();
        let done = catch_unwind(AssertUnwindSafe(|| self.pass(partition, config)));
        let later = Timestamp(self.storage.now().0.saturating_add(config.log_cleaner_backoff_ms.cast_signed().max(1)));
        let failure = match done {
            Ok(Ok(Cleaned { before: bytes, after, clean_to })) => {
                tracing::debug!(%topic, partition = %index, bytes, after, %clean_to, "compacted");
                // A pass without progress would be followed by the next at once.
                partition.cleaning().look_again(if Some(clean_to) > before { Timestamp(0) } else { later });
                return;
            }
            Ok(Err(CleanError::Stopped)) => return partition.cleaning().look_again(later),
            // Whatever failed: its directory has gone.
            Ok(Err(_)) if partition.unavailable().is_some() => return,
            Ok(Err(CleanError::Later(error))) => {
                tracing::warn!(%topic, partition = %index, %error, "compaction has to wait");
                return partition.cleaning().look_again(later);
            }
            Ok(Err(CleanError::Sync(error))) => {
                // Linux forgets which pages failed (rule L10).
                self.storage.fail(&error);
                error.to_string()
            }
            Ok(Err(error @ (CleanError::Damaged(_) | CleanError::Io(_)))) => error.to_string(),
            Err(_) => "a bug stopped it".to_owned(),
        };
        tracing::error!(%topic, partition = %index, %failure, "compaction failed; the partition serves on uncompacted");
        partition.cleaning().uncleanable.store(true, Ordering::Release);
    }

    fn pass(&self, partition: &Partition, config: &BrokerConfig) -> Result<Cleaned, CleanError> {
        let topic = partition.config();
        let settings = CleanSettings {
            now: self.storage.now(),
            min_lag_ms: topic.min_compaction_lag_ms,
            delete_retention_ms: topic.delete_retention_ms,
            map_bytes: config.log_cleaner_dedupe_buffer_bytes / u64::from(config.log_cleaner_threads.max(1)),
        };
        let below = partition.cleanable_below();
        let plan = partition.with(|replica| replica.log().plan_clean(below));
        let plan = plan.ok().flatten().ok_or(CleanError::Stopped)?;
        let bytes_per_second = config.log_cleaner_io_bytes_per_second;
        plan.run(
            &settings,
            &mut |bytes| self.may_go_on(bytes, bytes_per_second) && partition.unavailable().is_none(),
            &|work| partition.with(|replica| work(replica.log_mut())).is_ok(),
        )
    }

    /// Waits until so many bytes are within the rate. False if there is no room to write them, or it is to stop.
    fn may_go_on(&self, bytes: u64, bytes_per_second: f64) -> bool {
        let cost = Duration::try_from_secs_f64(bytes as f64 / bytes_per_second).unwrap_or(Duration::ZERO);
        let until = {
            let mut paid = self.paid.lock();
            *paid = (*paid).max(Instant::now()) + cost;
            *paid
        };
        !self.rest(until) && self.storage.check_room(bytes).is_ok()
    }
}

/// How much a partition wants to be cleaned; `None` if not now.
fn urgency(partition: &Arc<Partition>, now: Timestamp) -> Option<f64> {
    let cleaning = partition.cleaning();
    if cleaning.uncleanable.load(Ordering::Acquire) || !cleaning.take_due(now) {
        return None;
    }
    look(partition, now).unwrap_or_else(|_| {
        cleaning.look_again(Timestamp(now.0.saturating_add(RETRY_MS)));
        None
    })
}

/// The same for one that is due, and when to look again.
fn look(partition: &Arc<Partition>, now: Timestamp) -> Result<Option<f64>, ReadRefusal> {
    let (config, cleaning) = (partition.config(), partition.cleaning());
    let max_lag_ms = Some(config.max_compaction_lag_ms).filter(|lag_ms| *lag_ms < i64::MAX);
    // A log that nobody has open is opened only if there is something to do.
    if !partition.is_open() {
        // What cannot be read will show when it is opened.
        let seen = peek_dirtiness(partition.disk(), &partition.dir()).unwrap_or_default();
        if worth(&seen, &config, now).is_none() && (max_lag_ms.is_none() || partition.is_untouched()) {
            cleaning.look_again(if max_lag_ms.is_some() { now } else { next_look(&seen) });
            return Ok(None);
        }
    }
    let dirtiness = partition.dirtiness(now, config.min_compaction_lag_ms)?;
    let mut worth = worth(&dirtiness, &config, now);
    if let Some(max_lag_ms) = max_lag_ms {
        match partition.dirty_since()? {
            Some((since, closed)) if now.0.saturating_sub(since.0) > max_lag_ms => {
                if dirtiness.dirty_bytes > 0 {
                    worth = Some(OVERDUE + dirtiness.ratio());
                } else if !closed {
                    // What is overdue is still being written to. Without room to close it, it waits.
                    let _ = partition.roll();
                }
                cleaning.look_again(now);
            }
            Some((since, _)) => cleaning.look_again(Timestamp(since.0.saturating_add(max_lag_ms))),
            // The first record to come sets the time.
            None => cleaning.look_again(now),
        }
    }
    cleaning.look_again(next_look(&dirtiness));
    Ok(worth)
}

fn worth(dirtiness: &Dirtiness, config: &TopicConfig, now: Timestamp) -> Option<f64> {
    let ratio = dirtiness.ratio();
    let tombstones = dirtiness.tombstones_due.is_some_and(|due| due <= now);
    (ratio > config.min_cleanable_dirty_ratio || tombstones).then_some(ratio)
}

/// When something changes without an append.
fn next_look(dirtiness: &Dirtiness) -> Timestamp {
    [dirtiness.ripe_at, dirtiness.tombstones_due].into_iter().flatten().min().unwrap_or(Timestamp(NEVER))
}
