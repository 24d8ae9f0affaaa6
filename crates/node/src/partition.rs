//! One partition as the rest of the broker sees it: append, read, wait, sync, under one short lock.
//!
//! A [`Partition`] is cheap while nobody uses it: its log is opened by the first call that needs it, and it owns no
//! task, timer or open file. Readers never take the lock: they use the log's read half and the published high
//! watermark. A panic under the lock takes this partition offline and nothing else.
//!
//! What is not here: leading and following among several brokers (`partition/replication.rs`), and what followers tell
//! of their copies (`partition/copies.rs`). Next: `ottla_replica` for what an append means, `flusher.rs` for who syncs,
//! `waiters.rs` for who is woken.

mod copies;
mod replication;

pub use copies::FollowerCopy;
pub use replication::{FollowError, Follower};

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    task::Waker,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use ottla_log::{
    Damage, Dirtiness, Disk, FileRegion, Log, LogPosition, LogReader, OpenError, ReadError, ScrubCursor, ScrubStep,
    SegmentInfo, SyncError, SyncPlan, Synced,
};
use ottla_metadata::config::TopicConfig;
use ottla_records::ProducedBatch;
use ottla_replica::{Assignment, Durability, EpochRefusal, Outcome, Replica};
use ottla_types::{BrokerId, LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId};
use parking_lot::{Mutex, RwLock};

use crate::{
    checkpoint::Known,
    cleaner::Cleaning,
    storage::Storage,
    topic_log_config::{durability, log_config, replica_settings},
    waiters::{Waiters, Wakes},
};
use copies::Copies;
use replication::Leadership;

/// Unsynced bytes after which a `replicated` topic asks for a sync by itself: what recovery would have to read again.
const LAZY_SYNC_BYTES: u64 = 16 << 20;

/// After so long, in milliseconds, a `replicated` topic's bytes are to be synced; `flush.ms` may ask for less.
const LAZY_SYNC_MS: i64 = 5000;

/// On the flusher's list or being synced.
const SYNC_LISTED: u8 = 1;
/// Somebody wants a sync that has not begun.
const SYNC_ASKED: u8 = 2;
/// Somebody waits for it.
const SYNC_AWAITED: u8 = 4;

/// The copy is damaged, and the controller is to be told.
const DAMAGED: u8 = 1;
/// It has been.
const DAMAGE_REPORTED: u8 = 2;

/// This broker's copy of one partition.
pub struct Partition {
    broker: BrokerId,
    topic: TopicId,
    topic_name: Arc<str>,
    index: PartitionIndex,
    storage: Arc<Storage>,
    /// Shared by the partitions of a topic, so that it is in the cache whichever is written to.
    config: ArcSwap<TopicConfig>,
    /// Bytes after which the active segment closes early for the sake of a retention budget.
    segment_limit: AtomicU64,
    /// What the cluster last said about the partition; nothing until this broker may believe what it reads there.
    assignment: ArcSwapOption<Assignment>,
    /// Whether this broker leads, and the epoch, for a look without the lock. Written under `state`.
    leadership: Leadership,
    copies: Copies,
    start_wanted: AtomicI64,
    state: Mutex<State>,
    reader: OnceLock<LogReader>,
    /// What consumers may read up to. Written under `state`, read by anyone.
    visible: RwLock<LogPosition>,
    visible_offset: AtomicI64,
    waiters: Waiters,
    /// Where a leader's log ends, and up to where a follower's is durable: what its leader, and what its followers,
    /// wait for.
    progress: AtomicI64,
    progress_waiters: Waiters,
    /// The log is to be cut below what the stored checkpoint says, which has to be replaced first.
    checkpoint_owed: AtomicBool,
    /// 0, or `DAMAGED` and what follows.
    damage: AtomicU8,
    /// What the flusher has to do: `SYNC_` flags.
    sync: AtomicU8,
    cleaning: Cleaning,
    /// Set once the partition is deleted or offline, for those who look without the lock.
    gone: AtomicBool,
}

enum State {
    /// Not opened since the start; where the last run left off.
    Closed(Option<Known>),
    Open(Box<Replica>),
    /// The log can't be trusted: why, and what was known of it. Without that, the next start would take damage for a
    /// torn write and cut it off (rule L5).
    Offline(Arc<str>, Option<Known>),
    Deleted,
}

impl State {
    fn known(&self) -> Option<Known> {
        match self {
            State::Open(replica) => {
                Some(Known { log: replica.log().checkpoint(), high_watermark: replica.high_watermark().offset })
            }
            State::Closed(known) | State::Offline(_, known) => known.clone(),
            State::Deleted => None,
        }
    }
}

/// Why a partition can't serve now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The topic was deleted.
    #[error("the topic was deleted")]
    Deleted,
    /// Another broker leads the partition, or nobody does.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// The log is damaged or its disk failed; retriable, since an operator may bring it back.
    #[error("the partition is offline: {0}")]
    Offline(Arc<str>),
    /// The disk has no room beyond its reserve; retriable, reads go on.
    #[error("no room on the disk: {0}")]
    NoSpace(Arc<str>),
}

/// Why a read was not served.
#[derive(Debug, thiserror::Error)]
pub enum ReadRefusal {
    /// The partition can't serve at all.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The leader epoch of the request does not fit.
    #[error(transparent)]
    Epoch(#[from] EpochRefusal),
    /// Below the log start or above the log end.
    #[error("the offset is outside of the log")]
    OutOfRange,
    /// A new leader does not know yet how far the log is committed (rule I7); retriable.
    #[error("the leader does not know the high watermark yet")]
    NotYetKnown,
    /// The reader's history differs from ours: its last epoch ended here (rule E3).
    #[error("the reader's log diverges at the end of epoch {epoch}, offset {end}")]
    Diverging {
        /// The largest epoch of ours at or below the reader's.
        epoch: LeaderEpoch,
        /// Where that epoch ends with us.
        end: Offset,
    },
}

/// What a fetch names besides the partition.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// The first offset wanted.
    pub from: Offset,
    /// The leadership that the client knows, or -1.
    pub current_epoch: LeaderEpoch,
    /// The epoch of the last record that the client has, or -1.
    pub last_fetched_epoch: LeaderEpoch,
    /// The most bytes wanted.
    pub max_bytes: u64,
    /// Whether the first batch is wanted whole even above `max_bytes` (KIP-74).
    pub at_least_one: bool,
}

/// What a fetch gets from one partition.
#[derive(Debug)]
pub struct Fetched {
    /// The bytes, as the range of a file; none when there is nothing new or no room in the answer.
    pub records: Option<FileRegion>,
    /// The end of what may be read.
    pub high_watermark: Offset,
    /// The end of what is to be had by whoever asked: the high watermark, and for a follower the end of the log.
    pub end: Offset,
    /// The first offset still there.
    pub log_start: Offset,
    /// Whether whoever asked is a replica in sync, or no replica at all. One that is not may be let in at any time.
    pub in_sync: bool,
}

/// Where ListOffsets points (its negative timestamps have a meaning each).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first offset still there.
    Earliest,
    /// The high watermark.
    Latest,
    /// The record with the largest timestamp (KIP-734).
    MaxTimestamp,
    /// The first record at or after the timestamp.
    At(Timestamp),
}

/// An offset that ListOffsets found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset.
    pub offset: Offset,
    /// The record's timestamp, or -1 where the question was for a place rather than a record.
    pub timestamp: Timestamp,
    /// The epoch the record was written in.
    pub leader_epoch: LeaderEpoch,
}

/// Offsets and size of a partition for DescribeLogDirs and its like.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// The first offset still there.
    pub log_start: Offset,
    /// The offset of the next record.
    pub log_end: Offset,
    /// The bytes of all segments.
    pub size: u64,
}

impl Partition {
    pub(crate) fn new(
        broker: BrokerId,
        topic: TopicId,
        topic_name: Arc<str>,
        index: PartitionIndex,
        config: Arc<TopicConfig>,
        storage: Arc<Storage>,
        known: Option<Known>,
    ) -> Partition {
        Partition {
            broker,
            topic,
            topic_name,
            index,
            storage,
            config: ArcSwap::new(config),
            cleaning: Cleaning::new(known.as_ref().map(|known| &known.log)),
            segment_limit: AtomicU64::new(u64::MAX),
            assignment: ArcSwapOption::empty(),
            leadership: Leadership::default(),
            copies: Copies::default(),
            start_wanted: AtomicI64::new(0),
            state: Mutex::new(State::Closed(known)),
            reader: OnceLock::new(),
            visible: RwLock::new(LogPosition::default()),
            visible_offset: AtomicI64::new(0),
            waiters: Waiters::default(),
            progress: AtomicI64::new(0),
            progress_waiters: Waiters::default(),
            checkpoint_owed: AtomicBool::new(false),
            damage: AtomicU8::new(0),
            sync: AtomicU8::new(0),
            gone: AtomicBool::new(false),
        }
    }

    /// The id of the topic.
    pub fn topic(&self) -> TopicId {
        self.topic
    }

    /// The name of the topic.
    pub fn topic_name(&self) -> &Arc<str> {
        &self.topic_name
    }

    /// The number of the partition.
    pub fn index(&self) -> PartitionIndex {
        self.index
    }

    /// The topic's settings as they are now.
    pub fn config(&self) -> arc_swap::Guard<Arc<TopicConfig>> {
        self.config.load()
    }

    /// The end of what is acknowledged and may be read.
    pub fn high_watermark(&self) -> Offset {
        Offset(self.visible_offset.load(Ordering::SeqCst))
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.storage.partition_dir(self.topic, self.index)
    }

    /// Runs `work` on the replica, opening it first if nobody has. A panic in `work` takes the partition offline.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Replica) -> R) -> Result<R, Unavailable> {
        self.storage.check_alive()?;
        let mut state = self.state.lock();
        // After a panic nothing of the replica is used again but what it knew to be durable.
        catch_unwind(AssertUnwindSafe(|| self.open_in(&mut state).map(work))).unwrap_or_else(|_| {
            let why: Arc<str> = "a bug stopped a change half-way; restart the broker to recover it".into();
            tracing::error!(topic = %self.topic_name, partition = %self.index, %why, "partition is offline");
            *state = State::Offline(Arc::clone(&why), state.known());
            self.gone.store(true, Ordering::Release);
            drop(state);
            self.wake_all();
            Err(Unavailable::Offline(why))
        })
    }

    fn open_in<'s>(&self, state: &'s mut State) -> Result<&'s mut Replica, Unavailable> {
        if let State::Closed(known) = state {
            match self.open_replica(known.clone()) {
                Ok(Ok(replica)) => {
                    self.publish(replica.high_watermark());
                    self.publish_progress(&replica);
                    // Set once: a partition is opened once in its life.
                    let _ = self.reader.set(replica.log().reader());
                    *state = State::Open(Box::new(replica));
                }
                Ok(Err(damage)) => {
                    // Below what was synced nothing is cut: another copy is made, and where there is none an operator
                    // decides (rule L5).
                    let why: Arc<str> = format!("its log is damaged below what was acknowledged ({damage})").into();
                    tracing::error!(topic = %self.topic_name, partition = %self.index, %why, "partition is offline");
                    *state = State::Offline(why, known.take());
                    self.gone.store(true, Ordering::Release);
                    if self.damage.swap(DAMAGED, Ordering::AcqRel) == 0 {
                        self.storage.damaged().push((self.topic, self.index));
                    }
                }
                Err(OpenError::Sync(error)) => {
                    self.storage.fail(&error);
                    self.storage.check_alive()?;
                }
                Err(error) => {
                    // For want of room or of file descriptors, say: nothing was lost, and the next call tries again.
                    tracing::warn!(topic = %self.topic_name, partition = %self.index, %error, "cannot open the log");
                    return Err(Unavailable::Offline(error.to_string().into()));
                }
            }
        }
        match state {
            State::Open(replica) => Ok(replica),
            State::Deleted => Err(Unavailable::Deleted),
            State::Offline(why, _) => Err(Unavailable::Offline(Arc::clone(why))),
            // `open_replica` left either an open or an offline state behind.
            State::Closed(_) => Err(Unavailable::Offline("not opened".into())),
        }
    }

    fn open_replica(&self, known: Option<Known>) -> Result<Result<Replica, Damage>, OpenError> {
        let config = self.config.load();
        let high_watermark = known.as_ref().map_or(Offset::ZERO, |known| known.high_watermark);
        let (log, recovered) = Log::open(
            Arc::clone(self.storage.disk()),
            self.dir(),
            log_config(&config, self.segment_limit.load(Ordering::Relaxed)),
            known.map(|known| known.log),
            self.storage.now(),
        )?;
        if let Some(damage) = recovered.damaged {
            return Ok(Err(damage));
        }
        if recovered.truncated_bytes > 0 {
            tracing::warn!(
                topic = %self.topic_name, partition = %self.index, bytes = recovered.truncated_bytes,
                "dropped a torn, unacknowledged end of the log"
            );
        }
        let mut replica =
            Replica::new(log, self.broker, high_watermark, replica_settings(&config, self.storage.lag_max_ms()));
        if let Some(assignment) = &*self.assignment.load() {
            let mut effects = Vec::new();
            replica.assign(self.storage.tick(), assignment, &mut effects)?;
            // Whoever leads anew has nothing to propose before a follower has come.
        }
        Ok(Ok(replica))
    }

    /// The read half, opening the log if nobody has.
    fn reader(&self) -> Result<&LogReader, Unavailable> {
        self.storage.check_alive()?;
        if self.reader.get().is_none() || self.gone.load(Ordering::Acquire) {
            self.with(|_| ())?;
        }
        self.reader.get().ok_or_else(|| Unavailable::Offline("not opened".into()))
    }

    fn publish(&self, high_watermark: LogPosition) {
        *self.visible.write() = high_watermark;
        // Before anyone looks for waiters: see `Waiters::earliest`.
        self.visible_offset.store(high_watermark.offset.0, Ordering::SeqCst);
    }

    /// Appends validated batches, in order, under one lock and with as few writes as possible. `outcomes` gains one
    /// entry per batch; connections to wake because of it are left in `wakes`. With `awaited` somebody waits for the
    /// batches to be durable, so that a sync is asked for at once rather than within milliseconds.
    pub fn append(
        self: &Arc<Self>,
        batches: &[ProducedBatch],
        awaited: bool,
        now: Timestamp,
        outcomes: &mut Vec<Outcome>,
        wakes: &mut Wakes,
    ) -> Result<(), Unavailable> {
        self.append_in(None, batches, awaited, now, outcomes, wakes)
    }

    /// The same, only while this broker leads in `epoch`: what was decided in an earlier one rests on less than is
    /// there.
    pub(crate) fn append_in(
        self: &Arc<Self>,
        epoch: Option<LeaderEpoch>,
        batches: &[ProducedBatch],
        awaited: bool,
        now: Timestamp,
        outcomes: &mut Vec<Outcome>,
        wakes: &mut Wakes,
    ) -> Result<(), Unavailable> {
        let bytes = batches.iter().map(|batch| batch.bytes.len() as u64).sum();
        self.storage.check_room(bytes)?;
        let config = self.config.load();
        let (high_watermark, end, sync) = self.lead(|replica| {
            if epoch.is_some_and(|epoch| epoch != replica.leader_epoch()) {
                return Err(Unavailable::NotLeader);
            }
            replica.append(batches, now, outcomes);
            let high_watermark = replica.high_watermark();
            if high_watermark.offset.0 != self.visible_offset.load(Ordering::Relaxed) {
                self.publish(high_watermark);
            }
            self.publish_progress(replica);
            let log = replica.log();
            Ok((high_watermark.offset, log.end().offset, wants_sync(log, &config)))
        })??;
        self.waiters.take_reached(high_watermark, wakes);
        self.progress_waiters.take_reached(end, wakes);
        if sync {
            // Who waits on a `replicated` topic does not wait for the disk.
            self.request_sync(awaited && durability(&config) == Durability::Fsync);
        }
        Ok(())
    }

    /// Puts the partition on the flusher's list, or has it put there again after the sync that is under way.
    pub(crate) fn request_sync(self: &Arc<Self>, urgent: bool) {
        let asked = if urgent { SYNC_ASKED | SYNC_AWAITED } else { SYNC_ASKED };
        let before = self.sync.fetch_or(SYNC_LISTED | asked, Ordering::AcqRel);
        let unlisted = before & SYNC_LISTED == 0;
        if unlisted || asked & SYNC_AWAITED > before & SYNC_AWAITED {
            self.storage.flusher().request(unlisted.then(|| Arc::clone(self)));
        }
    }

    pub(crate) fn begin_sync(&self) -> Option<SyncPlan> {
        // Cleared first, so that an append from here on asks again.
        self.sync.fetch_and(!(SYNC_ASKED | SYNC_AWAITED), Ordering::AcqRel);
        self.with(Replica::begin_sync).ok().flatten()
    }

    /// Whether somebody waits for a sync that has not begun.
    pub(crate) fn is_sync_awaited(&self) -> bool {
        self.sync.load(Ordering::Acquire) & SYNC_AWAITED != 0
    }

    /// Takes the partition from the flusher's list, unless somebody has asked since its sync began: then it is true.
    pub(crate) fn end_sync(&self) -> bool {
        self.sync.compare_exchange(SYNC_LISTED, 0, Ordering::AcqRel, Ordering::Acquire).is_err()
    }

    pub(crate) fn complete_sync(&self, plan: SyncPlan, result: Result<Synced, SyncError>, wakes: &mut Wakes) {
        let completed = self.with(|replica| {
            let completed = replica.complete_sync(plan, result);
            self.publish(replica.high_watermark());
            self.publish_progress(replica);
            completed
        });
        match completed {
            Ok(Ok(())) => {
                self.waiters.take_reached(self.high_watermark(), wakes);
                self.progress_waiters.take_reached(self.progress(), wakes);
            }
            Ok(Err(error)) => {
                // Linux forgets which pages failed: nothing after the last good sync can be believed (rule L10).
                self.storage.fail(&error);
                self.take_all(wakes);
            }
            Err(_) => self.take_all(wakes),
        }
    }

    /// Where to find the bytes a consumer's fetch asks for, up to the high watermark. Followers in sync serve it too
    /// (KIP-392), each as far as it knows what is committed; one that is not sends the consumer back to the leader.
    pub fn read(&self, request: &ReadRequest) -> Result<Fetched, ReadRefusal> {
        self.check_epoch(request.current_epoch)?;
        if !self.is_leading() && !self.is_in_sync() {
            return Err(Unavailable::NotLeader.into());
        }
        let reader = self.reader()?;
        self.check_divergence(request)?;
        // Taken once, so that what is planned below and what is reported agree (rule L3).
        let visible = *self.visible.read();
        if request.from > visible.offset && request.from > reader.end_offset() {
            return Err(ReadRefusal::OutOfRange);
        }
        let records = plan(reader, request, visible)?;
        let (high_watermark, log_start) = (visible.offset, reader.start_offset());
        Ok(Fetched { records, high_watermark, end: high_watermark, log_start, in_sync: true })
    }

    /// Whether what the reader has is what we have, as far as its last epoch goes (rule E3).
    fn check_divergence(&self, request: &ReadRequest) -> Result<(), ReadRefusal> {
        let last_epoch = request.last_fetched_epoch;
        if last_epoch != LeaderEpoch::NONE && last_epoch != self.leader_epoch() {
            let divergence = self.with(|replica| replica.divergence(request.from, last_epoch, request.from))?;
            if let Some((epoch, end)) = divergence {
                return Err(ReadRefusal::Diverging { epoch, end });
            }
        }
        Ok(())
    }

    /// Wakes `waker` when the high watermark reaches `target`, the log start moves or the partition goes away. `false`
    /// if it is there already: then nothing was registered.
    pub fn wait_for(&self, target: Offset, waker: &Waker) -> bool {
        if self.high_watermark() >= target || self.unavailable().is_some() {
            return false;
        }
        self.waiters.register(waker, target);
        if self.high_watermark() >= target || self.unavailable().is_some() {
            self.waiters.forget(waker);
            return false;
        }
        true
    }

    /// Takes back a [`Partition::wait_for`].
    pub fn forget(&self, waker: &Waker) {
        self.waiters.forget(waker);
    }

    /// Why the partition can't serve, if it can't. Looks only; never opens the log.
    pub fn unavailable(&self) -> Option<Unavailable> {
        if let Err(why) = self.storage.check_alive() {
            return Some(why);
        }
        if !self.gone.load(Ordering::Acquire) {
            return None;
        }
        match &*self.state.lock() {
            State::Closed(_) | State::Open(_) => None,
            State::Offline(why, _) => Some(Unavailable::Offline(Arc::clone(why))),
            State::Deleted => Some(Unavailable::Deleted),
        }
    }

    /// Answers ListOffsets; `None` where no record matches. Only the leader does.
    pub fn find_offset(&self, spec: OffsetSpec) -> Result<Option<FoundOffset>, ReadRefusal> {
        // What a leader can't know at once it does not answer: it might be less than what an earlier one has (I7, B14).
        if !self.lead(|replica| replica.latest_known())? && spec != OffsetSpec::Earliest {
            return Err(ReadRefusal::NotYetKnown);
        }
        let reader = self.reader()?;
        let visible = *self.visible.read();
        let place = |offset: Offset| {
            let leader_epoch = self.with(|replica| replica.log().epochs().epoch_at(offset))?;
            Ok(Some(FoundOffset {
                offset,
                timestamp: Timestamp::NONE,
                leader_epoch: leader_epoch.unwrap_or(LeaderEpoch::NONE),
            }))
        };
        let found = match spec {
            OffsetSpec::Earliest => return place(reader.start_offset()),
            OffsetSpec::Latest => {
                return Ok(Some(FoundOffset {
                    offset: visible.offset,
                    timestamp: Timestamp::NONE,
                    leader_epoch: self.leader_epoch(),
                }));
            }
            OffsetSpec::MaxTimestamp => reader.max_timestamp(visible),
            OffsetSpec::At(timestamp) => reader.find_by_timestamp(timestamp, visible),
        };
        let found = found.map_err(|error| Unavailable::Offline(error.to_string().into()))?;
        Ok(found.map(|(offset, timestamp, leader_epoch)| FoundOffset { offset, timestamp, leader_epoch }))
    }

    /// Where `epoch` ends (OffsetForLeaderEpoch, rule E2): the largest epoch at or below it, and its end. `None` for an
    /// epoch later than ours. Only the leader knows.
    pub fn epoch_end(&self, epoch: LeaderEpoch) -> Result<Option<(LeaderEpoch, Offset)>, Unavailable> {
        self.lead(|replica| replica.log().epoch_end(epoch))
    }

    /// The first offset still there. Looks only; never opens the log.
    pub fn log_start(&self) -> Offset {
        self.reader.get().map_or(Offset::ZERO, LogReader::start_offset)
    }

    /// Moves the log start to `before` (DeleteRecords); `None` is the high watermark. Returns the new start.
    pub fn delete_records(self: &Arc<Self>, before: Option<Offset>) -> Result<Offset, ReadRefusal> {
        let start = self.lead(|replica| {
            let high_watermark = replica.high_watermark().offset;
            let before = before.unwrap_or(high_watermark);
            if before > high_watermark || before < Offset::ZERO {
                return Err(ReadRefusal::OutOfRange);
            }
            replica.log_mut().advance_start(before).map_err(|error| Unavailable::Offline(error.to_string().into()))?;
            Ok(replica.log().start())
        })??;
        self.started_anew();
        Ok(start)
    }

    /// Everything there is now, from the log start on, and where it ends: for who leads here and waits until what it
    /// has read is committed.
    pub(crate) fn batches(&self) -> Result<(ottla_log::Batches, Offset), Unavailable> {
        let reader = self.reader()?;
        let end = self.with(|replica| replica.log().end())?;
        Ok((reader.batches(reader.start_offset(), end), end.offset))
    }

    /// Whether nothing was ever written: there is no directory yet, and nothing is known of one.
    pub(crate) fn is_untouched(&self) -> bool {
        matches!(&*self.state.lock(), State::Closed(None))
            && matches!(self.storage.disk().exists(&self.dir()), Ok(false))
    }

    /// Offsets and size. Does not create a log where there is none.
    pub fn extent(&self) -> Result<Extent, Unavailable> {
        if self.is_untouched() {
            return Ok(Extent { log_start: Offset::ZERO, log_end: Offset::ZERO, size: 0 });
        }
        self.with(|replica| {
            let log = replica.log();
            Extent { log_start: log.start(), log_end: log.end().offset, size: log.size_in_bytes() }
        })
    }

    /// The producers that are active on the partition (KIP-664).
    pub fn producers(&self) -> Result<Vec<ottla_log::ProducerDescription>, Unavailable> {
        self.with(|replica| replica.log().producers().describe())
    }

    /// Whether somebody has used the partition since the start.
    pub(crate) fn is_open(&self) -> bool {
        matches!(&*self.state.lock(), State::Open(_))
    }

    /// Checks some of what is durable for rot, and reports what it finds; `None` if that could not be read.
    pub(crate) fn scrub(&self, cursor: ScrubCursor, max_bytes: u64) -> Option<ScrubStep> {
        let reader = self.reader().ok()?;
        let look = || {
            let durable = self.with(|replica| replica.log().durable_end()).ok()?;
            reader.scrub_step(cursor, durable, max_bytes).ok()
        };
        let step = look()?;
        // A cut may have come in between: only what is there a second time is rot, and has a copy made anew.
        let is_there = |damage: &_| look().is_some_and(|again| again.found.as_ref() == Some(damage));
        if let Some(damage) = step.found.as_ref().filter(|damage| is_there(*damage)) {
            tracing::error!(
                topic = %self.topic_name, partition = %self.index, %damage,
                "a batch on the disk is damaged; consumers that verify checksums will refuse it"
            );
            self.report_rot();
        }
        Some(step)
    }

    pub(crate) fn cleaning(&self) -> &Cleaning {
        &self.cleaning
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &**self.storage.disk()
    }

    /// Compaction leaves alone what is not acknowledged, and what a start would begin to read.
    pub(crate) fn cleanable_below(&self) -> Offset {
        self.cleaning.stored().min(self.high_watermark())
    }

    /// The log is compacted below, as far as is known without opening it.
    pub(crate) fn cleaned_to(&self) -> Option<Offset> {
        self.reader.get().map(LogReader::cleaned_to)
    }

    /// How much there is to compact. Opens the log.
    pub(crate) fn dirtiness(&self, now: Timestamp, min_lag_ms: i64) -> Result<Dirtiness, ReadRefusal> {
        let reader = self.reader()?;
        let dirtiness = reader.dirtiness(self.cleanable_below(), now, min_lag_ms);
        Ok(dirtiness.map_err(|error| Unavailable::Offline(error.to_string().into()))?)
    }

    /// The time of the oldest record that is not compacted, and whether its segment is closed. Opens the log.
    pub(crate) fn dirty_since(&self) -> Result<Option<(Timestamp, bool)>, ReadRefusal> {
        let since = self.reader()?.dirty_since();
        Ok(since.map_err(|error| Unavailable::Offline(error.to_string().into()))?)
    }

    /// The segments, oldest first, for retention.
    pub(crate) fn segments(&self) -> Result<Vec<SegmentInfo>, Unavailable> {
        if self.is_untouched() {
            return Ok(Vec::new());
        }
        self.with(|replica| replica.log().segments())
    }

    /// Drops every segment that ends at or below `before`, up to the high watermark. Followers leave that to their
    /// leader.
    pub(crate) fn trim(self: &Arc<Self>, before: Offset) -> Result<(), Unavailable> {
        if !self.is_leading() {
            return Ok(());
        }
        self.with(|replica| {
            let before = before.min(replica.high_watermark().offset);
            replica.log_mut().advance_start(before).map_err(|error| Unavailable::Offline(error.to_string().into()))
        })??;
        self.started_anew();
        Ok(())
    }

    /// After the log start has moved.
    fn started_anew(self: &Arc<Self>) {
        // Files go once the new start is durable.
        self.request_sync(false);
        self.storage.checkpoint_wanted();
        // It is news to sessions.
        self.wake_all();
    }

    /// Closes the active segment, so that it can go once the log starts behind it.
    pub(crate) fn roll(self: &Arc<Self>) -> Result<(), Unavailable> {
        let now = self.storage.now();
        self.with(|replica| {
            replica.log_mut().roll(now).map_err(|error| Unavailable::Offline(error.to_string().into()))
        })??;
        self.request_sync(false);
        Ok(())
    }

    /// Regular housekeeping that costs nothing on a partition nobody opened: expired producers, deleted segments,
    /// idle files. Whether it is to be synced although nobody waits for that: see `Flusher::request_regular`.
    pub(crate) fn housekeep(self: &Arc<Self>, now: Timestamp, producer_expiration_ms: i64, sync_all: bool) -> bool {
        if !matches!(&*self.state.lock(), State::Open(_)) {
            return false;
        }
        self.remove_deleted(now);
        let unsynced = self.with(|replica| {
            let log = replica.log_mut();
            log.expire_producers(now, producer_expiration_ms);
            log.close_idle_files();
            log.needs_sync()
        });
        let soon = sync_all || self.config.load().flush_ms < LAZY_SYNC_MS;
        soon && unsynced == Ok(true)
    }

    /// Whether those wait for a sync who want to read what was written.
    pub(crate) fn is_read_when_synced(&self) -> bool {
        durability(&self.config.load()) == Durability::Fsync
    }

    /// Marks the partition as on the flusher's list, for a sync that nobody waits for; `false` if it is on it already.
    pub(crate) fn enlist(&self) -> bool {
        self.sync.fetch_or(SYNC_LISTED | SYNC_ASKED, Ordering::AcqRel) & SYNC_LISTED == 0
    }

    /// Removes the files of segments that retention took, if somebody has the partition open.
    pub(crate) fn remove_deleted(&self, now: Timestamp) {
        let mut deleted = match &mut *self.state.lock() {
            State::Open(replica) => replica.log_mut().take_deleted(now),
            _ => return,
        };
        // Not under the lock: to give back the blocks of a large file takes tens of milliseconds, and appends wait.
        deleted.remove();
        if !deleted.is_empty()
            && let State::Open(replica) = &mut *self.state.lock()
        {
            replica.log_mut().put_back(deleted);
        }
    }

    /// Takes new topic settings.
    pub(crate) fn set_config(&self, config: &Arc<TopicConfig>, segment_limit: Option<u64>) {
        let limit = segment_limit.unwrap_or(u64::MAX);
        if *self.config.load() == *config && self.segment_limit.load(Ordering::Relaxed) == limit {
            return;
        }
        self.config.store(Arc::clone(config));
        self.segment_limit.store(limit, Ordering::Relaxed);
        self.cleaning.look_again(Timestamp(0));
        let mut wakes = Wakes::default();
        if let State::Open(replica) = &mut *self.state.lock() {
            replica.log_mut().set_config(log_config(config, limit));
            replica.set_settings(replica_settings(config, self.storage.lag_max_ms()));
            self.publish(replica.high_watermark());
        }
        self.waiters.take_reached(self.high_watermark(), &mut wakes);
        wakes.wake();
    }

    /// What the node's checkpoint file holds of this partition; `None` if nothing is known beyond what it held before.
    pub(crate) fn known(&self) -> Option<Known> {
        self.state.lock().known()
    }

    /// Syncs everything for a clean shutdown. `false` if that could not be proved.
    pub(crate) fn close(&self) -> bool {
        match &mut *self.state.lock() {
            State::Open(replica) => match replica.close_clean() {
                Ok(()) => true,
                Err(error) => {
                    tracing::error!(topic = %self.topic_name, partition = %self.index, %error, "not closed cleanly");
                    false
                }
            },
            State::Closed(_) | State::Deleted => true,
            State::Offline(..) => false,
        }
    }

    /// Forgets the partition and wakes whoever waits for it. The files are the caller's to remove.
    pub(crate) fn delete(&self) {
        *self.state.lock() = State::Deleted;
        self.gone.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Has everyone who waits for the partition look again: its start moved, or it or its directory is gone.
    pub(crate) fn wake_all(&self) {
        let mut wakes = Wakes::default();
        self.take_all(&mut wakes);
        wakes.wake();
    }

    pub(crate) fn take_all(&self, wakes: &mut Wakes) {
        self.waiters.take_all(wakes);
        self.progress_waiters.take_all(wakes);
    }
}

/// Whether what was appended makes a sync due.
fn wants_sync(log: &Log, config: &TopicConfig) -> bool {
    let bytes = log.unsynced_bytes();
    match durability(config) {
        Durability::Fsync => bytes > 0,
        Durability::Replicated => {
            let records = log.end().offset.0 - log.durable_end().offset.0;
            bytes >= LAZY_SYNC_BYTES || (bytes > 0 && records >= config.flush_messages)
        }
    }
}

/// The bytes that `request` asks for, up to `upto`; none where there is nothing new, or no room for it.
fn plan(reader: &LogReader, request: &ReadRequest, upto: LogPosition) -> Result<Option<FileRegion>, ReadRefusal> {
    if request.from < reader.start_offset() {
        return Err(ReadRefusal::OutOfRange);
    }
    let room = request.max_bytes > 0 || request.at_least_one;
    if !room || request.from >= upto.offset {
        return Ok(None);
    }
    let plan = reader.read(request.from, upto, request.max_bytes, request.at_least_one);
    let plan = plan.map_err(|error| match error {
        // Retention moved the start while we looked.
        ReadError::OutOfRange { .. } => ReadRefusal::OutOfRange,
        error => ReadRefusal::Unavailable(Unavailable::Offline(error.to_string().into())),
    })?;
    // A plan never crosses a segment, so there is one region at most.
    Ok(plan.regions.into_iter().next())
}
