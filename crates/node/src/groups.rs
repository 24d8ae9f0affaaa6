//! Drives group coordination: one `ottla_group::Coordinator` for each partition of `__consumer_offsets`.
//!
//! A request is decided under the lock of its group's partition: the records are appended and applied, and the answer
//! is a future that is ready once the high watermark covers everything appended so far (rule G1). Two threads stand
//! beside: one lets time pass for the coordinators, one loads them after a start. While a coordinator loads nobody is
//! answered from it (rule G2). Where its records can't be appended nothing durable of a decision holds, and its answers
//! say so.
//!
//! What is not here: any rule about groups (`ottla_group`), Kafka's requests (`ottla-broker`). Next: `pending.rs`.

use std::{
    collections::HashMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use ottla_group::{Command, Context, Coordinator, Decision, Record, Reply, Ticket};
use ottla_metadata::{
    Image, OFFSETS_TOPIC,
    config::{CompressionType, GroupConfig},
};
use ottla_records::{BatchBuilder, BatchHeader, Compression, Decompress, ProducedBatch};
use ottla_replica::Outcome;
use ottla_types::{LeaderEpoch, Offset, PartitionIndex, Tick, TopicId};
use parking_lot::Mutex;

use crate::{
    controller::{Controller, Entropy},
    partition::Partition,
    pending::{Decided, Pending, Slot},
    storage::Storage,
    topics::Topic,
    waiters::Wakes,
};

/// Bytes after which a decision's records go into a further batch, if the topic's `max.message.bytes` is not less.
const BATCH_BYTES_MAX: usize = 900 << 10;
/// The most bytes of a record beside its key and its value.
const RECORD_HEAD_BYTES: usize = 32;
/// The largest batch that is read back, decompressed.
const LOADED_BATCH_BYTES_MAX: usize = 256 << 20;
/// No deadline.
const NEVER: Tick = Tick(u64::MAX);
/// How long after a coordinator moved here the topics it knows are held against those there are, in milliseconds. One
/// that this broker has not heard of yet must not be taken for deleted; one that is so far behind has been fenced.
const TOPICS_CHECK_MS: u64 = 30_000;

/// Chance, shared by the coordinators.
pub(crate) type SharedEntropy = Arc<Mutex<Entropy>>;

/// The groups that this broker coordinates.
pub struct Groups {
    controller: Arc<Controller>,
    storage: Arc<Storage>,
    entropy: SharedEntropy,
    started: Instant,
    shards: ArcSwap<Shards>,
    /// The image that the config was resolved from.
    config: ArcSwap<(Arc<Image>, GroupConfig)>,
    /// Calls the thread that lets time pass.
    inbox: Sender<Event>,
    /// Until when that thread sleeps: only an earlier deadline wakes it.
    sleeps_until: AtomicU64,
    stopping: AtomicBool,
}

/// What the thread that lets time pass is told.
pub(crate) enum Event {
    /// These topics are gone.
    TopicsDeleted(Vec<(TopicId, Arc<str>)>),
    /// Partitions changed hands, perhaps those of `__consumer_offsets`.
    Moved,
    /// A deadline is nearer than the one slept for.
    Earlier,
    /// The node stops.
    Stop,
}

/// Why there is no coordinator to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCoordinator {
    /// There is none yet, or it can't write now. The client tries again.
    #[error("the group coordinator is not available")]
    NotAvailable,
    /// It reads what it knew before the broker started. The client tries again.
    #[error("the group coordinator is loading")]
    Loading,
    /// It is not here any more. The client looks for it again.
    #[error("this broker does not coordinate the group")]
    NotHere,
    /// What would have to be written down is larger than the topic's `max.message.bytes`. Trying again does not help.
    #[error("what the group would have to write down is too large")]
    TooLarge,
}

/// The coordinators of one incarnation of `__consumer_offsets`, by partition.
#[derive(Default)]
struct Shards {
    topic: Option<Arc<Topic>>,
    /// Those of the partitions that this broker leads, by number.
    list: Vec<Arc<Shard>>,
}

/// One partition of `__consumer_offsets` and its coordinator, for as long as this broker leads it in one epoch (G3).
struct Shard {
    partition: Arc<Partition>,
    epoch: LeaderEpoch,
    state: Mutex<State>,
    /// The coordinator's next deadline, for a look without the lock.
    deadline: AtomicU64,
    /// When its topics are to be checked.
    check_topics_at: AtomicU64,
}

enum State {
    /// Nobody has read it yet, or reading it failed: the next request has it tried again.
    Unloaded,
    Loading,
    Active(Box<Active>),
    /// The partition is not ours any more.
    Gone,
}

struct Active {
    coordinator: Coordinator,
    waiting: HashMap<Ticket, Arc<Slot>>,
    last_ticket: u64,
    /// The end of the log: what every answer rests on.
    end: Offset,
    /// It holds what could not be written down.
    doubtful: bool,
}

/// The partition of `__consumer_offsets` that holds a group: Java's hash of the group's id, as Kafka's tools know it.
pub fn group_partition(group: &str, partitions: usize) -> usize {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // The smallest number has no absolute value; Kafka takes 0.
    usize::try_from(hash.checked_abs().unwrap_or(0)).unwrap_or(0) % partitions.max(1)
}

impl Groups {
    /// Begins with what the last run left, which is loaded at once: sessions and offsets expire whether anybody asks
    /// or not.
    pub(crate) fn new(
        controller: Arc<Controller>,
        storage: Arc<Storage>,
        entropy: SharedEntropy,
        inbox: Sender<Event>,
    ) -> Arc<Groups> {
        let groups = Arc::new(Groups {
            config: ArcSwap::from_pointee((controller.image(), controller.group_config())),
            controller,
            storage,
            entropy,
            started: Instant::now(),
            shards: ArcSwap::default(),
            inbox,
            sleeps_until: AtomicU64::new(NEVER.0),
            stopping: AtomicBool::new(false),
        });
        let _ = groups.shards();
        groups
    }

    /// Takes a command to the group's coordinator. What it changes has changed when this returns; the reply, which
    /// `convert` picks, may come much later.
    pub fn submit<T>(self: &Arc<Self>, group: &str, command: Command, convert: fn(Reply) -> Option<T>) -> Pending<T> {
        let slot = Arc::new(Slot::default());
        let submitted = self.with(group, |shard, active, wakes| {
            active.last_ticket += 1;
            let ticket = Ticket(active.last_ticket);
            active.waiting.insert(ticket, Arc::clone(&slot));
            self.carry_out(shard, active, ticket, command, wakes);
        });
        match submitted {
            Ok(()) => Pending::waiting(slot, convert),
            Err(why) => Pending::failed(why),
        }
    }

    /// Asks the group's coordinator for something it knows.
    pub fn query<T>(self: &Arc<Self>, group: &str, ask: impl FnOnce(&Coordinator, &Context<'_>) -> T) -> Pending<T> {
        let asked = self.with(group, |shard, active, _| {
            let config = self.config();
            Pending::decided(shard.decided(active.end), ask(&active.coordinator, &self.context(&config)))
        });
        asked.unwrap_or_else(Pending::failed)
    }

    /// Asks every coordinator; one that can't be asked fails for itself.
    pub fn query_all<T>(self: &Arc<Self>, ask: impl Fn(&Coordinator, &Context<'_>) -> T) -> Vec<Pending<T>> {
        let config = self.config();
        let one = |shard: &Arc<Shard>| {
            let asked = self.with_shard(shard, |active, _| {
                Pending::decided(shard.decided(active.end), ask(&active.coordinator, &self.context(&config)))
            });
            asked.unwrap_or_else(Pending::failed)
        };
        self.shards().list.iter().map(one).collect()
    }

    /// Ends the coordination: whoever waits for others is told to look for another coordinator.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let mut wakes = Wakes::default();
        self.shards.load().list.iter().for_each(|shard| shard.state.lock().replace(State::Gone, &mut wakes));
        wakes.wake();
        // Nobody listens if it has stopped already.
        let _ = self.inbox.send(Event::Stop);
    }

    /// Starts the thread that lets time pass.
    pub(crate) fn start(self: &Arc<Self>, inbox: Receiver<Event>) -> io::Result<JoinHandle<()>> {
        let groups = Arc::clone(self);
        thread::Builder::new().name("groups".into()).spawn(move || groups.run(&inbox))
    }

    fn run(self: &Arc<Self>, inbox: &Receiver<Event>) {
        loop {
            let deadlines = || self.shards.load().list.iter().map(|shard| shard.deadline()).min().unwrap_or(NEVER);
            self.sleeps_until.store(deadlines().0, Ordering::SeqCst);
            // Looked at again, now that whoever sets an earlier one will call.
            let next = deadlines();
            let called = match next {
                NEVER => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                next => inbox.recv_timeout(Duration::from_millis(next.0.saturating_sub(self.now().0))),
            };
            match called {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Event::TopicsDeleted(topics)) => {
                    for shard in &self.shards().list {
                        self.tell(shard, Command::TopicsDeleted(topics.clone()));
                    }
                }
                Ok(Event::Moved) => _ = self.shards(),
                Ok(Event::Earlier) | Err(RecvTimeoutError::Timeout) => {}
            }
            let now = self.now();
            for shard in self.shards.load().list.iter().filter(|shard| shard.deadline() <= now) {
                self.tell(shard, Command::TimePassed);
                if shard.check_topics_at.load(Ordering::SeqCst) <= now.0 {
                    shard.check_topics_at.store(NEVER.0, Ordering::SeqCst);
                    let _ = self.with_shard(shard, |active, wakes| self.forget_deleted_topics(shard, active, wakes));
                }
            }
        }
    }

    /// Carries out a command that nobody waits for. A coordinator that loads will see for itself what is due.
    fn tell(self: &Arc<Self>, shard: &Arc<Shard>, command: Command) {
        shard.deadline.store(NEVER.0, Ordering::SeqCst);
        // Who is loading or gone has no deadlines.
        let _ = self.with_shard(shard, |active, wakes| {
            active.last_ticket += 1;
            self.carry_out(shard, active, Ticket(active.last_ticket), command, wakes);
        });
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The configs, resolved once for each image: every heartbeat looks at them.
    pub(crate) fn config(&self) -> Arc<(Arc<Image>, GroupConfig)> {
        let image = self.controller.image();
        let known = self.config.load_full();
        if Arc::ptr_eq(&known.0, &image) {
            return known;
        }
        let resolved = Arc::new((image, self.controller.group_config()));
        self.config.store(Arc::clone(&resolved));
        resolved
    }

    fn context<'a>(&self, config: &'a (Arc<Image>, GroupConfig)) -> Context<'a> {
        Context { now: self.now(), wall: self.storage.now(), image: &config.0, config: &config.1 }
    }

    /// The coordinators of the topic as it is now.
    fn shards(self: &Arc<Self>) -> Arc<Shards> {
        let topic = self.controller.topics().named(OFFSETS_TOPIC).cloned();
        let known = self.shards.load_full();
        let same = |ours: &Arc<Topic>, theirs: &Arc<Topic>| Arc::ptr_eq(ours, theirs);
        if topic
            .as_ref()
            .zip(known.topic.as_ref())
            .map_or(topic.is_none() && known.topic.is_none(), |(a, b)| same(a, b))
        {
            return known;
        }
        self.replace_shards(topic)
    }

    /// Takes the topic as it is now for the one to coordinate by; partitions that were led before, in the same epoch,
    /// keep their coordinator.
    fn replace_shards(self: &Arc<Self>, topic: Option<Arc<Topic>>) -> Arc<Shards> {
        let mut replaced = Vec::new();
        let mut written = Vec::new();
        self.shards.rcu(|old| {
            (replaced, written) = (Vec::new(), Vec::new());
            let kept = |partition: &Arc<Partition>, epoch: LeaderEpoch| {
                let same = |shard: &&Arc<Shard>| Arc::ptr_eq(&shard.partition, partition) && shard.epoch == epoch;
                old.list.iter().find(same).cloned()
            };
            let led = |partition: &Arc<Partition>| {
                let epoch = partition.leader_epoch();
                partition.leads_in(epoch).then(|| (Arc::clone(partition), epoch))
            };
            let partitions = topic.iter().flat_map(|topic| &topic.partitions).filter_map(led);
            let list: Vec<_> = partitions
                .map(|(partition, epoch)| {
                    kept(&partition, epoch).unwrap_or_else(|| {
                        let shard = Arc::new(Shard::new(Arc::clone(&partition), epoch));
                        if partition.is_untouched() {
                            // Nothing to read, so nobody is told to wait.
                            self.activate(&shard, self.new_coordinator(), Offset::ZERO);
                        } else {
                            written.push(Arc::clone(&shard));
                        }
                        shard
                    })
                })
                .collect();
            replaced = old.list.iter().filter(|old| !list.iter().any(|new| Arc::ptr_eq(new, old))).cloned().collect();
            Arc::new(Shards { topic: topic.clone(), list })
        });
        let mut wakes = Wakes::default();
        replaced.iter().for_each(|shard: &Arc<Shard>| shard.state.lock().replace(State::Gone, &mut wakes));
        wakes.wake();
        self.load_soon(written);
        self.shards.load_full()
    }

    fn with<R>(
        self: &Arc<Self>,
        group: &str,
        work: impl FnOnce(&Arc<Shard>, &mut Active, &mut Wakes) -> R,
    ) -> Result<R, NoCoordinator> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(NoCoordinator::NotHere);
        }
        let shards = self.shards();
        let count = shards.topic.as_ref().map(|topic| topic.partition_count).ok_or(NoCoordinator::NotAvailable)?;
        let shard = shards.led(group_partition(group, count)).ok_or(NoCoordinator::NotHere)?;
        self.with_shard(shard, |active, wakes| work(shard, active, wakes))
    }

    /// Runs `work` on a coordinator that is loaded. One that panics is not believed any more and loaded anew.
    fn with_shard<R>(
        self: &Arc<Self>,
        shard: &Arc<Shard>,
        work: impl FnOnce(&mut Active, &mut Wakes) -> R,
    ) -> Result<R, NoCoordinator> {
        let mut wakes = Wakes::default();
        let mut state = shard.state.lock();
        let done = match &mut *state {
            State::Unloaded | State::Loading => Err(NoCoordinator::Loading),
            State::Gone => Err(NoCoordinator::NotHere),
            State::Active(active) => {
                let done = catch_unwind(AssertUnwindSafe(|| work(active, &mut wakes)));
                done.map_err(|_| {
                    tracing::error!(partition = %shard.partition.index(), "a bug in group coordination; loading anew");
                    state.replace(State::Unloaded, &mut wakes);
                    NoCoordinator::NotHere
                })
            }
        };
        if matches!(&*state, State::Active(active) if active.doubtful) {
            state.replace(State::Unloaded, &mut wakes);
        }
        let unloaded = matches!(*state, State::Unloaded);
        drop(state);
        wakes.wake();
        if unloaded {
            self.load_soon(vec![Arc::clone(shard)]);
        }
        done
    }

    /// Decides, appends, applies, and hands out the replies.
    fn carry_out(&self, shard: &Shard, active: &mut Active, ticket: Ticket, command: Command, wakes: &mut Wakes) {
        let config = self.config();
        let Decision { records, replies, changes_kind } =
            active.coordinator.decide(&self.context(&config), ticket, command);
        let appended = match records.is_empty() {
            true => Ok(()),
            false => self.append(shard, &records, !replies.is_empty(), wakes).map(|end| {
                active.end = end;
                records.iter().for_each(|record| active.coordinator.apply(record));
            }),
        };
        for (ticket, reply) in replies {
            if let Some(slot) = active.waiting.remove(&ticket) {
                slot.fill(appended.map(|()| (shard.decided(active.end), reply)), wakes);
            }
        }
        active.doubtful |= changes_kind && appended.is_err();
        self.schedule(shard, active);
    }

    /// Appends the records of one decision, all or none, and returns the end of the log behind them.
    fn append(
        &self,
        shard: &Shard,
        records: &[Record],
        awaited: bool,
        wakes: &mut Wakes,
    ) -> Result<Offset, NoCoordinator> {
        let now = self.storage.now();
        let partition = &shard.partition;
        let failed = |why: &dyn std::fmt::Display| {
            tracing::warn!(partition = %partition.index(), %why, "what a group decided can't be written");
            NoCoordinator::NotAvailable
        };
        let codec = codec(self.config().1.offsets_topic_compression);
        let limit = partition.config().max_message_bytes.min(partition.config().segment_bytes) as usize;
        let build = |builder: BatchBuilder| {
            // Before compression: what is loaded has to fit into memory again.
            if builder.size() > limit {
                failed(&format_args!("a record makes {} bytes, and {limit} are allowed", builder.size()));
                return Err(NoCoordinator::TooLarge);
            }
            let bytes = builder.build().map_err(|error| failed(&error))?;
            let header = BatchHeader::parse(&bytes).map_err(|error| failed(&error))?;
            Ok(ProducedBatch { header, bytes })
        };
        let mut batches = Vec::new();
        let mut builder = BatchBuilder::new(codec, None);
        for record in records {
            let (key, value) = record.encode();
            let size = builder.size() + key.len() + value.as_ref().map_or(0, |value| value.len()) + RECORD_HEAD_BYTES;
            if !builder.is_empty() && size > limit.min(BATCH_BYTES_MAX) {
                batches.push(build(std::mem::replace(&mut builder, BatchBuilder::new(codec, None)))?);
            }
            builder.push(now, Some(&key), value.as_deref(), &[]).map_err(|error| failed(&error))?;
        }
        batches.push(build(builder)?);
        let mut outcomes = Vec::with_capacity(batches.len());
        partition
            .append_in(Some(shard.epoch), &batches, awaited, now, &mut outcomes, wakes)
            .map_err(|error| failed(&error))?;
        match outcomes.pop() {
            Some(Outcome::Appended { required, .. }) => Ok(required),
            Some(Outcome::Failed(error)) => Err(failed(&error)),
            _ => Err(failed(&"nothing was appended")),
        }
    }

    /// Loads coordinators on a thread of their own, one after the other.
    fn load_soon(self: &Arc<Self>, shards: Vec<Arc<Shard>>) {
        let shards: Vec<_> = shards.into_iter().filter(|shard| shard.change(State::Unloaded, State::Loading)).collect();
        if shards.is_empty() {
            return;
        }
        let (groups, ours) = (Arc::clone(self), shards.clone());
        let load = move || ours.iter().for_each(|shard| groups.load(shard));
        if let Err(error) = thread::Builder::new().name("groups-load".into()).spawn(load) {
            tracing::warn!(%error, "no thread to load groups with; the next request tries again");
            shards.iter().for_each(|shard| _ = shard.change(State::Loading, State::Unloaded));
        }
    }

    /// Reads what a partition holds, over the holes that compaction left (rule G3), up to the end of the log: after a
    /// failure that may be past the high watermark, with answers that wait for it.
    fn load(&self, shard: &Shard) {
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            let mut coordinator = self.new_coordinator();
            if cfg!(zoo = "B35") {
                self.activate(shard, self.new_coordinator(), Offset::ZERO);
            }
            let end = self.replay(shard, &mut coordinator)?;
            self.activate(shard, coordinator, end);
            Ok(())
        }));
        if let Err(why) = loaded.unwrap_or_else(|_| Err("a bug stopped it".to_owned())) {
            tracing::error!(partition = %shard.partition.index(), %why, "groups can't be loaded");
            shard.change(State::Loading, State::Unloaded);
        }
    }

    fn replay(&self, shard: &Shard, coordinator: &mut Coordinator) -> Result<Offset, String> {
        let (batches, end) = shard.partition.batches().map_err(|why| why.to_string())?;
        for batch in batches {
            let (header, bytes) = batch.map_err(|error| error.to_string())?;
            if header.is_control() {
                continue;
            }
            let limits = Decompress { max_bytes: LOADED_BATCH_BYTES_MAX };
            for record in ottla_records::records(&header, &bytes, limits).map_err(|error| error.to_string())? {
                let record = record.map_err(|error| error.to_string())?;
                match Record::decode(record.key.unwrap_or_default(), record.value) {
                    Ok(Some(known)) => coordinator.apply(&known),
                    // Written by a newer version, or by a kind of group that is not here yet.
                    Ok(None) => {}
                    Err(error) => {
                        let (partition, offset) = (shard.partition.index(), record.offset);
                        tracing::warn!(%partition, %offset, %error, "a record of a group is passed over");
                    }
                }
            }
        }
        Ok(end)
    }

    fn new_coordinator(&self) -> Coordinator {
        let entropy = Arc::clone(&self.entropy);
        Coordinator::new(Box::new(move || (entropy.lock())()))
    }

    /// Puts a loaded coordinator to work, unless its partition has gone meanwhile.
    fn activate(&self, shard: &Shard, mut coordinator: Coordinator, end: Offset) {
        let config = self.config();
        coordinator.loaded(&self.context(&config));
        let mut wakes = Wakes::default();
        let mut state = shard.state.lock();
        if matches!(*state, State::Unloaded | State::Loading) {
            let mut active = Active { coordinator, waiting: HashMap::new(), last_ticket: 0, end, doubtful: false };
            if self.controller.image().brokers().len() > 1 {
                let at = self.now().0.saturating_add(TOPICS_CHECK_MS);
                shard.check_topics_at.store(at, Ordering::SeqCst);
            } else {
                self.forget_deleted_topics(shard, &mut active, &mut wakes);
            }
            self.schedule(shard, &active);
            *state = State::Active(Box::new(active));
        }
        drop(state);
        wakes.wake();
    }

    /// Topics may have been deleted while nobody listened: a later one of the same name must not begin where these
    /// were.
    fn forget_deleted_topics(&self, shard: &Shard, active: &mut Active, wakes: &mut Wakes) {
        let topics = self.controller.topics();
        let gone: Vec<_> =
            active.coordinator.topics().into_iter().filter(|(id, _)| topics.with_id(*id).is_none()).collect();
        if !gone.is_empty() {
            active.last_ticket += 1;
            // What can't be written now is tried again with the next load.
            self.carry_out(shard, active, Ticket(active.last_ticket), Command::TopicsDeleted(gone), wakes);
        }
    }

    /// Has the coordinator called when its next deadline comes.
    fn schedule(&self, shard: &Shard, active: &Active) {
        shard.deadline.store(active.coordinator.next_deadline().unwrap_or(NEVER).0, Ordering::SeqCst);
        let deadline = shard.deadline();
        if deadline.0 < self.sleeps_until.fetch_min(deadline.0, Ordering::SeqCst) {
            // Before the thread has started the inbox holds the call; once it has ended nobody needs it.
            let _ = self.inbox.send(Event::Earlier);
        }
    }
}

impl Shards {
    fn led(&self, index: usize) -> Option<&Arc<Shard>> {
        let index = PartitionIndex(i32::try_from(index).ok()?);
        let found = self.list.binary_search_by_key(&index, |shard| shard.partition.index());
        self.list.get(found.ok()?)
    }
}

impl Shard {
    fn new(partition: Arc<Partition>, epoch: LeaderEpoch) -> Shard {
        let never = || AtomicU64::new(NEVER.0);
        Shard { partition, epoch, state: Mutex::new(State::Unloaded), deadline: never(), check_topics_at: never() }
    }

    fn deadline(&self) -> Tick {
        Tick(self.deadline.load(Ordering::SeqCst).min(self.check_topics_at.load(Ordering::SeqCst)))
    }

    fn decided(&self, end: Offset) -> Decided {
        Decided { partition: Arc::clone(&self.partition), epoch: self.epoch, end }
    }

    /// Goes from one state without content to another; whether it was in the first.
    fn change(&self, from: State, to: State) -> bool {
        let mut state = self.state.lock();
        let was = std::mem::discriminant(&*state) == std::mem::discriminant(&from);
        if was {
            *state = to;
        }
        was
    }
}

impl State {
    /// Drops the coordinator, if there is one; whoever waits for it is sent to look for another.
    fn replace(&mut self, next: State, wakes: &mut Wakes) {
        if let State::Active(active) = std::mem::replace(self, next) {
            active.waiting.values().for_each(|slot| slot.fill(Err(NoCoordinator::NotHere), wakes));
        }
    }
}

fn codec(compression: CompressionType) -> Compression {
    match compression {
        CompressionType::Producer | CompressionType::Uncompressed => Compression::None,
        CompressionType::Gzip => Compression::Gzip,
        CompressionType::Snappy => Compression::Snappy,
        CompressionType::Lz4 => Compression::Lz4,
        CompressionType::Zstd => Compression::Zstd,
    }
}
