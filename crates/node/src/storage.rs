//! What every partition of a node shares: the disk, its directory, its room, its flusher, its clocks, and where it
//! leaves what it wants of the controller.
//!
//! A sync that failed is final for the whole directory (rule L10): [`Storage::fail`] takes every partition offline at
//! once, and no clean-shutdown proof is written. A full disk is not a failure: [`Storage::check_room`] refuses writes
//! while less than the reserve is free, and lets them pass again by itself (rule L11). Next: `partition.rs`.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Instant,
};

use ottla_log::Disk;
use ottla_types::{PartitionIndex, Tick, Timestamp, TopicId};
use parking_lot::Mutex;

use crate::{
    flusher::Flusher,
    outbox::{IsrChange, Outbox},
    partition::Unavailable,
    topics::Topics,
};

/// Reads the wall clock. Injected, so that a simulator can own time.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The directory of the partitions within the data directory.
const TOPICS_DIR: &str = "topics";
/// How long the files of partitions that the metadata does not know are kept, in milliseconds.
const QUARANTINE_MS: i64 = 60_000;
/// How long a damaged copy is kept once another is made, in milliseconds.
const DAMAGED_KEPT_MS: i64 = 24 * 3_600_000;
/// Appended to a directory's name while it waits to be removed.
const DELETED_SUFFIX: &str = ".deleted";

pub(crate) struct Storage {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    clock: WallClock,
    flusher: Arc<Flusher>,
    failed: OnceLock<Arc<str>>,
    /// Bytes of the disk that only metadata may use.
    reserve: AtomicI64,
    /// Free bytes as last measured, less what was appended since: too low at worst, so it is measured again before
    /// anybody is refused.
    free: AtomicI64,
    checkpoint_wanted: AtomicBool,
    /// Size of the whole disk, measured with `free`.
    disk_bytes: AtomicU64,
    discarded: Mutex<Vec<(Timestamp, PathBuf)>>,
    started: Instant,
    /// `replica.lag.time.max.ms`
    lag_max_ms: AtomicU64,
    isr_changes: Outbox<IsrChange>,
    damaged: Outbox<(TopicId, PartitionIndex)>,
    /// Counts what retention here wants of leaders elsewhere.
    starts_wanted: AtomicU64,
}

impl Storage {
    pub(crate) fn new(disk: Arc<dyn Disk>, root: PathBuf, clock: WallClock, flusher: Arc<Flusher>) -> Storage {
        Storage {
            disk,
            root,
            clock,
            flusher,
            failed: OnceLock::new(),
            reserve: AtomicI64::new(0),
            free: AtomicI64::new(0),
            checkpoint_wanted: AtomicBool::new(false),
            disk_bytes: AtomicU64::new(0),
            discarded: Mutex::default(),
            started: Instant::now(),
            lag_max_ms: AtomicU64::new(u64::MAX),
            isr_changes: Outbox::default(),
            damaged: Outbox::default(),
            starts_wanted: AtomicU64::new(0),
        }
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(crate) fn flusher(&self) -> &Flusher {
        &self.flusher
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// What timeouts are measured with (rule C1).
    pub(crate) fn tick(&self) -> Tick {
        Tick(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn lag_max_ms(&self) -> u64 {
        self.lag_max_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_lag_max_ms(&self, ms: u64) {
        self.lag_max_ms.store(ms, Ordering::Relaxed);
    }

    /// One that is followed here is wanted to begin somewhere else.
    pub(crate) fn start_wanted(&self) {
        self.starts_wanted.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn starts_wanted(&self) -> u64 {
        self.starts_wanted.load(Ordering::Acquire)
    }

    pub(crate) fn isr_changes(&self) -> &Outbox<IsrChange> {
        &self.isr_changes
    }

    /// Partitions whose copy here is damaged, which the controller has to know.
    pub(crate) fn damaged(&self) -> &Outbox<(TopicId, PartitionIndex)> {
        &self.damaged
    }

    /// Takes a damaged copy out of the way, for a person to look at while it is there.
    pub(crate) fn set_damaged_aside(&self, dir: &Path) {
        self.set_aside(dir, Timestamp(self.now().0.saturating_add(DAMAGED_KEPT_MS)));
    }

    pub(crate) fn topics_dir(&self) -> PathBuf {
        self.root.join(TOPICS_DIR)
    }

    pub(crate) fn partition_dir(&self, topic: TopicId, index: PartitionIndex) -> PathBuf {
        self.topics_dir().join(format!("{topic}-{index}"))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the directory offline for good: a sync failed.
    pub(crate) fn fail(&self, error: &dyn std::error::Error) {
        let why: Arc<str> = format!(
            "a sync of the data directory failed ({error}); nothing on it is served until the disk is checked and the \
             broker restarted"
        )
        .into();
        tracing::error!(directory = %self.root.display(), %error, "the data directory is offline");
        // The first failure is the one to report.
        let _ = self.failed.set(why);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.get().is_some()
    }

    pub(crate) fn check_alive(&self) -> Result<(), Unavailable> {
        match self.failed.get() {
            None => Ok(()),
            Some(why) => Err(Unavailable::Offline(Arc::clone(why))),
        }
    }

    /// Sets how many bytes of the disk stay free for metadata.
    pub(crate) fn set_reserve(&self, bytes: u64) {
        self.reserve.store(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.free.store(0, Ordering::Relaxed);
    }

    /// Whether `bytes` more may be appended without touching the reserve.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<(), Unavailable> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let reserve = self.reserve.load(Ordering::Relaxed);
        if self.free.fetch_sub(bytes, Ordering::Relaxed) - bytes >= reserve {
            return Ok(());
        }
        let free = self.measure_room();
        if free.saturating_sub(bytes) >= reserve {
            return Ok(());
        }
        Err(Unavailable::NoSpace(
            format!(
                "{free} bytes are free and {reserve} of them are kept for metadata; delete records or topics, or \
                 shorten retention"
            )
            .into(),
        ))
    }

    /// Measures the free bytes; done by housekeeping too, so that a wrong estimate does not last.
    pub(crate) fn measure_room(&self) -> i64 {
        // A disk that can't say how full it is will say so at the reservation of the append itself.
        let Ok(space) = self.disk.space(&self.root) else { return i64::MAX };
        let free = i64::try_from(space.available).unwrap_or(i64::MAX);
        self.free.store(free, Ordering::Relaxed);
        self.disk_bytes.store(space.total, Ordering::Relaxed);
        free
    }

    /// Size of the disk, in bytes.
    pub(crate) fn disk_bytes(&self) -> u64 {
        if self.disk_bytes.load(Ordering::Relaxed) == 0 {
            self.measure_room();
        }
        self.disk_bytes.load(Ordering::Relaxed)
    }

    /// Takes a partition's directory out of use, to be removed in the next round of housekeeping.
    pub(crate) fn discard(&self, dir: &Path) {
        self.set_aside(dir, Timestamp(0));
    }

    fn set_aside(&self, dir: &Path, remove_at: Timestamp) {
        if matches!(self.disk.exists(dir), Ok(false)) {
            return;
        }
        let mut aside = dir.as_os_str().to_owned();
        aside.push(DELETED_SUFFIX);
        let aside = PathBuf::from(aside);
        match self.disk.rename(dir, &aside) {
            Ok(()) => self.discarded.lock().push((remove_at, aside)),
            Err(error) => tracing::warn!(directory = %dir.display(), %error, "a deleted partition was not set aside"),
        }
    }

    /// Sets aside directories of partitions that the metadata does not know, and removes them only after a delay: the
    /// metadata of a cluster of one is whole once it is loaded, but a person may have mixed up backups (rule L12).
    pub(crate) fn quarantine_unknown(&self, topics: &Topics) -> io::Result<()> {
        let known: HashSet<PathBuf> = topics.partitions().map(|partition| partition.dir()).collect();
        for name in self.disk.list(&self.topics_dir())? {
            let dir = self.topics_dir().join(&name);
            if known.contains(&dir) {
                continue;
            }
            if name.ends_with(DELETED_SUFFIX) {
                self.discarded.lock().push((Timestamp(0), dir));
            } else {
                tracing::warn!(directory = %dir.display(), "no topic of this cluster has this partition; set aside");
                self.set_aside(&dir, Timestamp(self.now().0.saturating_add(QUARANTINE_MS)));
            }
        }
        Ok(())
    }

    /// Removes what was set aside and has waited long enough.
    pub(crate) fn remove_discarded(&self, now: Timestamp) {
        let due: Vec<_> = self.discarded.lock().extract_if(.., |(remove_at, _)| *remove_at <= now).collect();
        for (_, dir) in due {
            if let Err(error) = self.disk.remove_dir_all(&dir) {
                tracing::warn!(directory = %dir.display(), %error, "a deleted partition's files were not removed");
            }
        }
    }

    /// Asks for the checkpoint file to be written with the next housekeeping.
    pub(crate) fn checkpoint_wanted(&self) {
        self.checkpoint_wanted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take_checkpoint_wanted(&self) -> bool {
        self.checkpoint_wanted.swap(false, Ordering::Relaxed)
    }
}
