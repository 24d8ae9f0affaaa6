//! What one failure may not grow into: damage into loss, a full disk into a dead one, a moment into for good.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::Wake,
    thread,
    time::{Duration, Instant},
};

use common::{
    append, batch, batch_at, create, eventually, open, open_on, open_with, partition, produce, read_all, try_open_on,
    wait_acknowledged,
};
use ottla_log::{AppendError, Disk, DiskFile, SimDisk, Space};
use ottla_node::{OpenNodeError, Partition, Unavailable};
use ottla_replica::Outcome;
use ottla_types::{Offset, Timestamp};

const CHECKPOINT: &str = "/data/checkpoint";

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn dir_of(partition: &Partition) -> PathBuf {
    PathBuf::from(format!("/data/topics/{}-{}", partition.topic(), partition.index()))
}

/// Waits until housekeeping has written down how far the logs are durable, this one's included.
fn await_checkpoint(disk: &SimDisk, partition: &Arc<Partition>) {
    let written = disk.read_file(Path::new(CHECKPOINT));
    partition.delete_records(Some(Offset(0))).unwrap();
    eventually("a checkpoint", || disk.read_file(Path::new(CHECKPOINT)) != written);
}

#[test]
fn l5_what_is_known_of_a_damaged_log_is_not_forgotten_while_it_is_offline() {
    let disk = SimDisk::new(1);
    let node = open(&disk);
    create(&node, "t", 1, &[]);
    create(&node, "other", 1, &[]);
    for value in ["a", "b", "c"] {
        produce(&partition(&node, "t", 0), value);
    }
    let file = dir_of(&partition(&node, "t", 0)).join("00000000000000000000.log");
    await_checkpoint(&disk, &partition(&node, "t", 0));
    // Killed here, and a bit turned over meanwhile.
    let disk = disk.fork();
    assert!(disk.flip_bit(&file, 65, 0), "inside the first batch");
    let before = disk.read_file(&file).unwrap();
    let node = open(&disk);
    let other = partition(&node, "other", 0);
    produce(&other, "x");
    await_checkpoint(&disk, &other);

    let disk = disk.fork();
    let node = open(&disk);
    let read = append(&partition(&node, "t", 0), &batch("d"));
    assert!(matches!(read, Err(Unavailable::Offline(_))), "{read:?}");
    assert_eq!(disk.read_file(&file).unwrap().len(), before.len(), "nothing is cut at the second start either");
}

#[test]
fn l11_no_room_for_the_files_beside_the_log_is_no_failed_sync() {
    let disk = SimDisk::new(2);
    let node = open_with(&disk, &[("ottla.disk.reserve.bytes", "0")]);
    create(&node, "t", 1, &[]);
    let full = partition(&node, "t", 0);
    produce(&full, "a");
    disk.set_capacity(Some(disk.used()));
    // A new log start is written down beside the log: that is tried, and there is no room.
    full.delete_records(Some(Offset(1))).unwrap();
    let tried = dir_of(&full).join("epochs.tmp");
    eventually("the try", || node.has_failed() || disk.exists(&tried).unwrap());
    disk.set_capacity(None);
    assert_eq!(produce(&full, "b"), Offset(1), "with room again everything goes on");
    assert!(!node.has_failed());

    drop(node);
    let node = open(&disk.crash());
    assert_eq!(read_all(&partition(&node, "t", 0)), [(Offset(1), "b".into())]);
}

#[test]
fn running_out_of_file_descriptors_is_no_failed_sync() {
    let disk = SimDisk::new(8);
    let node = open(&disk);
    create(&node, "t", 1, &[]);
    create(&node, "new", 1, &[]);
    let (busy, new) = (partition(&node, "t", 0), partition(&node, "new", 0));
    produce(&busy, "a");
    disk.fail_opens(true);
    let tried = disk.stats().dir_syncs;
    busy.delete_records(Some(Offset(1))).unwrap();
    let Ok(Outcome::Appended { required, .. }) = append(&busy, &batch("b")) else { panic!("not appended") };
    eventually("the try", || disk.stats().dir_syncs > tried);
    assert!(append(&new, &batch("x")).is_err());
    disk.fail_opens(false);
    assert!(wait_acknowledged(&busy, required), "what was written is acknowledged once it can be synced");
    produce(&new, "c");
    assert!(!node.has_failed());
    let node = open(&disk.crash());
    assert_eq!(read_all(&partition(&node, "t", 0)), [(Offset(1), "b".into())]);
    assert_eq!(read_all(&partition(&node, "new", 0)), [(Offset(0), "c".into())]);
}

#[test]
fn l10_a_failed_directory_wakes_everybody_who_waits_on_it() {
    let disk = SimDisk::new(3);
    let node = open(&disk);
    create(&node, "t", 2, &[]);
    let (idle, failing) = (partition(&node, "t", 0), partition(&node, "t", 1));
    produce(&idle, "a");
    let woken = Arc::new(Woken::default());
    assert!(idle.wait_for(Offset(2), &Arc::clone(&woken).into()));
    disk.fail_syncs(true);
    append(&failing, &batch("lost")).unwrap();
    eventually("a look at what happened", || woken.0.load(Ordering::Relaxed));
    assert!(idle.unavailable().is_some());
}

#[test]
fn a_log_that_cannot_be_opened_now_can_be_opened_later() {
    let disk = SimDisk::new(4);
    let node = open(&disk);
    create(&node, "t", 1, &[]);
    let opened = partition(&node, "t", 0);
    disk.fail_after(0);
    assert!(matches!(append(&opened, &batch("x")), Err(Unavailable::Offline(_))));
    disk.restart();
    produce(&opened, "a");
    assert_eq!(read_all(&opened), [(Offset(0), "a".into())]);
}

/// A disk that tells when a file is made, and when one goes.
struct Watched {
    disk: SimDisk,
    create: fn(&Path),
    remove: Box<dyn Fn(&Path) + Send + Sync>,
}

/// A disk on which creating a segment meets a bug.
fn buggy(disk: &SimDisk) -> Arc<Watched> {
    let create = |path: &Path| {
        assert!(!path.starts_with("/data/topics") || !path.ends_with("00000000000000000000.log"), "a bug");
    };
    Arc::new(Watched { disk: disk.clone(), create, remove: Box::new(|_| {}) })
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

impl Disk for Watched {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        (self.create)(path);
        self.disk.create(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        (self.remove)(path);
        self.disk.remove(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }
    fn file_len(&self, path: &Path) -> io::Result<u64> {
        self.disk.file_len(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }
}

#[test]
fn a_panic_under_the_lock_takes_the_partition_offline_and_nothing_else() {
    let disk = SimDisk::new(9);
    let sound = open(&disk);
    create(&sound, "t", 2, &[]);
    produce(&partition(&sound, "t", 0), "a");
    sound.shut_down().unwrap();
    let node = open_on(buggy(&disk), 1000, &[]);
    let woken = Arc::new(Woken::default());
    let broken = partition(&node, "t", 1);
    assert!(broken.wait_for(Offset(1), &Arc::clone(&woken).into()));
    assert!(matches!(append(&broken, &batch("x")), Err(Unavailable::Offline(_))));
    assert!(woken.0.load(Ordering::Relaxed), "nobody waits for what will not come");
    assert!(matches!(append(&broken, &batch("x")), Err(Unavailable::Offline(_))));
    assert_eq!(produce(&partition(&node, "t", 0), "b"), Offset(1));
}

#[test]
fn retention_goes_on_beside_a_partition_that_is_offline() {
    let disk = SimDisk::new(11);
    let sound = open(&disk);
    create(&sound, "t", 2, &[]);
    append(&partition(&sound, "t", 1), &batch_at(Timestamp(1), "old")).unwrap();
    sound.shut_down().unwrap();
    let node = open_on(buggy(&disk), 1000, &[("log.retention.check.interval.ms", "1")]);
    assert!(matches!(append(&partition(&node, "t", 0), &batch("x")), Err(Unavailable::Offline(_))));
    let beside = partition(&node, "t", 1);
    eventually("retention", || beside.extent().unwrap().log_start == Offset(1));
}

#[test]
fn an_append_does_not_wait_for_files_to_be_removed() {
    let (appended, waited) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (removing, begun) = mpsc::channel();
    let (until, gave_up) = (Arc::clone(&appended), Arc::clone(&waited));
    let remove = move |path: &Path| {
        if path.extension().is_some_and(|ending| ending == "deleted") {
            let _ = removing.send(());
            let deadline = Instant::now() + Duration::from_secs(5);
            while !until.load(Ordering::Acquire) {
                if Instant::now() >= deadline {
                    gave_up.store(true, Ordering::Release);
                    return;
                }
                thread::yield_now();
            }
        }
    };
    let disk = Watched { disk: SimDisk::new(12), create: |_| {}, remove: Box::new(remove) };
    let node = open_on(Arc::new(disk), 1000, &[("log.retention.check.interval.ms", "1")]);
    create(&node, "t", 1, &[]);
    let target = partition(&node, "t", 0);
    append(&target, &batch_at(Timestamp(1), "old")).unwrap();
    begun.recv_timeout(Duration::from_secs(30)).expect("a removal");
    append(&target, &batch("new")).unwrap();
    appended.store(true, Ordering::Release);
    assert!(!waited.load(Ordering::Acquire), "the partition was locked while a file went");
}

#[test]
fn l7_a_directory_without_its_metadata_is_refused_and_left_as_it_is() {
    let disk = SimDisk::new(10);
    let node = open(&disk);
    create(&node, "t", 1, &[]);
    node.shut_down().unwrap();
    disk.remove_dir_all(Path::new("/data/metadata")).unwrap();
    disk.remove(Path::new(CHECKPOINT)).unwrap();
    let opened = try_open_on(Arc::new(disk.clone()), 1000, &[]);
    assert!(matches!(opened, Err(OpenNodeError::WrongCluster)));
    assert!(disk.exists(Path::new("/data/clean-shutdown")).unwrap(), "a backup put back is as clean as it was");
    assert!(!disk.exists(Path::new("/data/metadata")).unwrap(), "nothing is made in its place");
}

#[test]
fn l12_a_directory_whose_metadata_holds_no_log_is_refused_and_its_topics_stay() {
    let disk = SimDisk::new(10);
    let node = open(&disk);
    create(&node, "t", 1, &[]);
    node.shut_down().unwrap();
    let topics = disk.list(Path::new("/data/topics")).unwrap();
    disk.remove_dir_all(Path::new("/data/metadata")).unwrap();
    disk.remove(Path::new(CHECKPOINT)).unwrap();
    disk.create_dir_all(Path::new("/data/metadata")).unwrap();
    disk.create(Path::new("/data/metadata/notes")).unwrap();
    let opened = try_open_on(Arc::new(disk.clone()), 1000, &[]);
    assert!(matches!(opened, Err(OpenNodeError::WrongCluster)));
    assert_eq!(disk.list(Path::new("/data/topics")).unwrap(), topics);
}

#[test]
fn retention_budgets_do_not_limit_a_batch() {
    let disk = SimDisk::new(5);
    let node = open(&disk);
    create(&node, "t", 3, &[("ottla.retention.topic.bytes", "1048576")]);
    let outcome = append(&partition(&node, "t", 0), &batch(&"x".repeat(300_000)));
    assert!(matches!(outcome, Ok(Outcome::Appended { .. })), "{outcome:?}");
}

#[test]
fn a_batch_larger_than_a_segment_fails_alone() {
    let disk = SimDisk::new(6);
    let node = open(&disk);
    create(&node, "t", 1, &[("segment.bytes", "1048576"), ("max.message.bytes", "4194304")]);
    let target = partition(&node, "t", 0);
    let (mut outcomes, mut wakes) = (Vec::new(), ottla_node::Wakes::default());
    let batches = [batch("a"), batch(&"x".repeat(2 << 20)), batch("b")];
    target.append(&batches, true, Timestamp(0), &mut outcomes, &mut wakes).unwrap();
    assert!(
        matches!(
            outcomes.as_slice(),
            [
                Outcome::Appended { base_offset: Offset(0), .. },
                Outcome::Failed(AppendError::TooLarge { .. }),
                Outcome::Appended { base_offset: Offset(1), .. }
            ]
        ),
        "{outcomes:?}"
    );
}

#[test]
fn retention_ms_does_not_take_records_without_a_timestamp_for_old_ones() {
    let disk = SimDisk::new(7);
    let node = open_with(&disk, &[("log.retention.check.interval.ms", "1")]);
    let old = |name: &str| {
        create(&node, name, 1, &[]);
        let old = partition(&node, name, 0);
        append(&old, &batch_at(Timestamp(1), "old")).unwrap();
        old
    };
    create(&node, "t", 1, &[]);
    let kept = partition(&node, "t", 0);
    append(&kept, &batch_at(Timestamp::NONE, "undated")).unwrap();
    for name in ["one", "two"] {
        let expired = old(name);
        eventually("retention", || expired.extent().unwrap().log_start == Offset(1));
    }
    assert_eq!(read_all(&kept), [(Offset(0), "undated".into())]);
}
