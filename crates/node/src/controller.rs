//! The control path: decide, agree, apply, publish, one change at a time.
//!
//! On the node that leads the metadata log, [`Controller::submit`] holds one lock from the decision until its records
//! are applied, so every decision sees the outcome of the one before; on every other node it refuses. On all of them
//! [`Controller::apply`] takes what was agreed on into the image, and publishes it: readers use the published image and
//! topics and never meet a lock. What is not here: the rules (`ottla_metadata::decide`), the log (`ottla_consensus`,
//! `metadata_machine.rs`), what a controller does unasked (`caretaker.rs`).

use std::{
    sync::{
        Arc, OnceLock,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use ottla_consensus::{Consensus, ProposeError, Status};
use ottla_log::Checkpoint;
use ottla_metadata::{
    BrokerFeature, Command, ConfigResource, Image, Partition as Described, Record, Refusal, Reply,
    config::{BrokerConfig, GroupConfig, Settings, TopicConfig},
    decide,
};
use ottla_replica::Assignment;
use ottla_types::{BrokerId, PartitionIndex, ProducerId, TopicId};
use parking_lot::{Condvar, Mutex};

use crate::{
    checkpoint::Checkpoints,
    groups::Event,
    metadata_machine,
    partition::Partition,
    retention,
    storage::Storage,
    topics::{Topic, Topics},
};

/// How long a decision may take to be agreed on before whoever asked is told that nobody knows.
const AGREEMENT_TIMEOUT: Duration = Duration::from_secs(15);

/// Draws 16 random bytes. Injected, so that a simulator can own chance.
pub type Entropy = Box<dyn FnMut() -> [u8; 16] + Send>;

pub(crate) struct Controller {
    id: BrokerId,
    /// Drawn at this start: what the cluster says of an earlier run of this broker is not about us.
    incarnation: [u8; 16],
    settings: Settings,
    storage: Arc<Storage>,
    image: ArcSwap<Image>,
    topics: ArcSwap<Topics>,
    consensus: OnceLock<Consensus>,
    work: Mutex<Work>,
    /// What the last run left, for partitions that become known until this one is registered.
    last_run: Mutex<LastRun>,
    producer_ids: Mutex<std::ops::Range<i64>>,
    /// Tells the groups of topics that are gone.
    group_events: Sender<Event>,
    changes: Changes,
}

/// What only the holder of the lock may use.
struct Work {
    entropy: Entropy,
    /// The outcome of a decision that is not known yet. Until it is, nothing may be decided: it might hold.
    in_doubt: Option<Receiver<Result<(), ProposeError>>>,
}

#[derive(Default)]
struct LastRun {
    checkpoints: Checkpoints,
    /// Whether the logs have to be recovered.
    unclean: bool,
    /// Whether partitions are published yet.
    published: bool,
    /// Whether the cluster knows this run of the broker.
    registered: bool,
}

/// Tells whoever wants to know that the image or the leader of the log is another.
#[derive(Default)]
struct Changes {
    count: Mutex<u64>,
    moved: Condvar,
    bells: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
}

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The rules do not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be stored; nothing of it holds, and it may be tried again.
    #[error("the metadata cannot be stored: {0}")]
    Storage(String),
    /// Another node leads the metadata log, or nobody does; nothing of it holds.
    #[error("this node is not the controller")]
    NotController(Option<BrokerId>),
    /// It was not agreed on in time, and may yet be.
    #[error("too few nodes answer to agree on it; it may still take effect")]
    InDoubt,
}

impl Controller {
    #[allow(clippy::too_many_arguments, reason = "called once")]
    pub(crate) fn new(
        id: BrokerId,
        incarnation: [u8; 16],
        settings: Settings,
        storage: Arc<Storage>,
        checkpoints: Checkpoints,
        entropy: Entropy,
        group_events: Sender<Event>,
    ) -> Controller {
        Controller {
            id,
            incarnation,
            settings,
            storage,
            image: ArcSwap::default(),
            topics: ArcSwap::default(),
            consensus: OnceLock::new(),
            work: Mutex::new(Work { entropy, in_doubt: None }),
            last_run: Mutex::new(LastRun { checkpoints, ..LastRun::default() }),
            producer_ids: Mutex::new(0..0),
            group_events,
            changes: Changes::default(),
        }
    }

    /// Goes to work over the log, which has replayed what was agreed on before.
    pub(crate) fn start(&self, consensus: Consensus) {
        // Once: a node opens its log once.
        let _ = self.consensus.set(consensus);
    }

    pub(crate) fn consensus(&self) -> Option<&Consensus> {
        self.consensus.get()
    }

    /// What the log's members agree on about it; nothing before it is opened.
    pub(crate) fn log_status(&self) -> Option<Arc<Status>> {
        self.consensus.get().map(Consensus::status)
    }

    /// Whether this node leads the metadata log, and may decide.
    pub(crate) fn is_leading(&self) -> bool {
        self.log_status().is_some_and(|status| status.leading)
    }

    pub(crate) fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    pub(crate) fn topics(&self) -> Arc<Topics> {
        self.topics.load_full()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The features that this broker serves.
    pub(crate) fn features(&self) -> Arc<[BrokerFeature]> {
        self.settings.supported_features().map(BrokerFeature::from).collect()
    }

    pub(crate) fn incarnation(&self) -> [u8; 16] {
        self.incarnation
    }

    pub(crate) fn group_config(&self) -> GroupConfig {
        GroupConfig::resolve(&self.image.load().layers(self.id, &self.settings))
    }

    pub(crate) fn broker_config(&self) -> BrokerConfig {
        BrokerConfig::resolve(&self.image.load().layers(self.id, &self.settings))
    }

    /// Decides on a command and has the decision agreed on. Waits for that, and for the outcome to be published here.
    pub(crate) fn submit(&self, command: Command) -> Result<Reply, SubmitError> {
        self.submit_all([command]).map(|[reply]| reply)
    }

    /// Carries out several commands at once: all of them or, where one is refused, none.
    pub(crate) fn submit_all<const N: usize>(&self, commands: [Command; N]) -> Result<[Reply; N], SubmitError> {
        let Some(consensus) = self.consensus.get() else { return Err(SubmitError::NotController(None)) };
        let deadline = Instant::now() + AGREEMENT_TIMEOUT;
        let mut work = self.work.lock();
        // Whatever became of it, it is known by now, or we wait like the one who asked.
        let _ = work.settle(deadline)?;
        let status = consensus.status();
        if !status.leading {
            return Err(SubmitError::NotController(status.leader));
        }
        let now = self.storage.now();
        // All that is agreed on is in it: what earlier leaders left when we came to lead, and our own decisions.
        let mut image = Image::clone(&self.image.load());
        let mut records = Vec::new();
        let mut replies = Vec::with_capacity(N);
        for command in commands {
            let (decided, reply) = decide(&image, &self.settings, now, &mut work.entropy, command)?;
            decided.iter().for_each(|record| image.apply(record));
            records.extend(decided);
            replies.push(reply);
        }
        let replies = replies.try_into().map_err(|_| SubmitError::Storage("a reply is missing".to_owned()))?;
        if records.is_empty() {
            return Ok(replies);
        }
        let (done, outcome) = mpsc::sync_channel(1);
        let tell = move |result| {
            // Nobody listens if the node has stopped.
            let _ = done.send(result);
        };
        consensus.propose(status.term, metadata_machine::encode(&records), tell);
        work.in_doubt = Some(outcome);
        work.settle(deadline)?.map_err(|error| match error {
            ProposeError::NotLeader { leader } => SubmitError::NotController(leader),
            // It was proposed, and may yet be agreed on under the next leader: whoever asked asks that one.
            ProposeError::Unknown => SubmitError::InDoubt,
            error => SubmitError::Storage(error.to_string()),
        })?;
        Ok(replies)
    }

    /// Takes in what was agreed on. Called for each decision, in the order of the log, on every node.
    pub(crate) fn apply(&self, records: &[Record]) {
        let mut image = Image::clone(&self.image.load());
        records.iter().for_each(|record| image.apply(record));
        self.take(image, Touched::by(records));
    }

    /// Takes a whole image for the one so far: a node that was away too long is given a snapshot.
    pub(crate) fn replace(&self, image: Image) {
        self.take(image, Touched::All);
    }

    fn take(&self, image: Image, touched: Touched) {
        let image = Arc::new(image);
        let published = self.last_run.lock().published;
        // Partitions first: a topic that Metadata shows must be one that Produce knows.
        let left = if published { self.publish(&image, touched) } else { Vec::new() };
        self.image.store(image);
        left.iter().for_each(|partition| partition.look_at_followers());
        if published {
            self.changed();
        }
    }

    /// The log has another leader, or we may decide from now on.
    pub(crate) fn status_changed(&self, status: &Status) {
        tracing::debug!(leader = ?status.leader, term = %status.term, leading = status.leading, "metadata log");
        self.changed();
    }

    fn changed(&self) {
        *self.changes.count.lock() += 1;
        self.changes.moved.notify_all();
        self.changes.bells.lock().iter().for_each(|bell| bell());
    }

    /// Has `bell` called after each change of the image or of the log's leader. It must not wait for anything.
    pub(crate) fn on_change(&self, bell: impl Fn() + Send + Sync + 'static) {
        self.changes.bells.lock().push(Box::new(bell));
    }

    /// Waits until `condition` holds, which changes of the image or of the leader make true; `false` if it does not in
    /// time.
    pub(crate) fn wait_until(&self, timeout: Duration, condition: impl Fn(&Controller) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        let mut count = self.changes.count.lock();
        loop {
            if condition(self) {
                return true;
            }
            if self.changes.moved.wait_until(&mut count, deadline).timed_out() {
                return condition(self);
            }
        }
    }

    /// Opens no log, but makes every partition of the image known that lies here.
    pub(crate) fn publish_all(&self, unclean: bool) {
        {
            let mut last_run = self.last_run.lock();
            last_run.published = true;
            last_run.unclean = unclean;
        }
        let left = self.publish(&self.image.load_full(), Touched::All);
        left.iter().for_each(|partition| partition.look_at_followers());
    }

    /// Makes what the image says of topics hold here. Gives the partitions whose ISR somebody has left.
    fn publish(&self, image: &Image, touched: Touched) -> Vec<Arc<Partition>> {
        let registered = image.broker(self.id).is_some_and(|broker| broker.incarnation == self.incarnation);
        let mut last_run = self.last_run.lock();
        let newly_registered = registered && !std::mem::replace(&mut last_run.registered, registered);
        let ids: Vec<TopicId> = match touched {
            _ if newly_registered => image.topics().map(|topic| topic.id).collect(),
            Touched::Topics(ids) if ids.is_empty() => return Vec::new(),
            Touched::Topics(ids) => ids,
            Touched::All => {
                let known: Vec<TopicId> = self.topics.load().iter().map(|topic| topic.id).collect();
                let gone = known.into_iter().filter(|id| image.topic(*id).is_none());
                gone.chain(image.topics().map(|topic| topic.id)).collect()
            }
        };
        let layers = image.layers(self.id, &self.settings);
        let defaults = TopicConfig::resolve(&layers);
        let config = BrokerConfig::resolve(&layers);
        self.storage.set_lag_max_ms(config.replica_lag_time_max_ms);
        self.storage.set_reserve(config.disk_reserve_bytes);
        let mut topics = Topics::clone(&self.topics.load());
        let mut deleted = Vec::new();
        let mut dropped = Vec::new();
        let mut left = Vec::new();
        for id in ids {
            let Some(described) = image.topic(id) else {
                deleted.extend(topics.remove(id));
                continue;
            };
            let known = topics.with_id(id).cloned();
            let topic = self.hold(described, known.as_deref(), defaults, registered, &last_run.checkpoints, &mut left);
            let held = known.iter().flat_map(|known| &known.partitions);
            dropped.extend(held.filter(|held| topic.partition(held.index()).is_none()).cloned());
            topics.insert(Arc::new(topic));
        }
        let topics = Arc::new(topics);
        self.topics.store(Arc::clone(&topics));
        if !deleted.is_empty() {
            let gone = deleted.iter().map(|topic| (topic.id, Arc::clone(&topic.name))).collect();
            // While the node stops nobody listens; what lingers of them expires.
            let _ = self.group_events.send(Event::TopicsDeleted(gone));
        }
        for partition in deleted.iter().flat_map(|topic| &topic.partitions).chain(&dropped) {
            partition.delete();
            self.storage.discard(&partition.dir());
        }
        if newly_registered {
            self.settle_last_run(&mut last_run, &topics);
        }
        let _ = self.group_events.send(Event::Moved);
        left
    }

    /// The topic with the partitions that lie here, as `described` has them.
    fn hold(
        &self,
        described: &ottla_metadata::Topic,
        known: Option<&Topic>,
        defaults: TopicConfig,
        registered: bool,
        checkpoints: &Checkpoints,
        left: &mut Vec<Arc<Partition>>,
    ) -> Topic {
        let topic = described.id;
        let config = Arc::new(defaults.with_overrides(&described.overrides));
        let name = known.map_or_else(|| Arc::clone(&described.name), |known| Arc::clone(&known.name));
        let ours: Vec<_> = (0..)
            .map(PartitionIndex)
            .zip(&described.partitions)
            .filter(|(_, partition)| partition.replicas.contains(&self.id))
            .collect();
        let limit = retention::early_roll_bytes(&config, self.storage.disk_bytes(), ours.len());
        let hold = |(index, described): (PartitionIndex, &Described)| {
            let next = assignment(described);
            let held = known.and_then(|known| known.partition(index)).cloned();
            let given_up = held.as_ref().filter(|held| registered && held.is_given_up(&next)).cloned();
            let partition = held.filter(|_| given_up.is_none()).unwrap_or_else(|| {
                let (name, storage) = (Arc::clone(&name), Arc::clone(&self.storage));
                let known = checkpoints.of(topic, index).filter(|_| given_up.is_none());
                Arc::new(Partition::new(self.id, topic, name, index, Arc::clone(&config), storage, known))
            });
            if let Some(given_up) = given_up {
                given_up.set_aside();
                partition.owe_checkpoint();
            }
            partition.set_config(&config, limit);
            if registered && partition.assign(next) {
                left.push(Arc::clone(&partition));
            }
            partition
        };
        let partitions = ours.into_iter().map(hold).collect();
        Topic { id: topic, name: Arc::clone(&name), partition_count: described.partitions.len(), partitions }
    }

    /// What the last run left is settled once the cluster knows this one: nothing is quarantined on the word of
    /// metadata that may be old (rule L12).
    fn settle_last_run(&self, last_run: &mut LastRun, topics: &Arc<Topics>) {
        last_run.checkpoints = Checkpoints::default();
        if let Err(error) = self.storage.quarantine_unknown(topics) {
            tracing::warn!(%error, "directories of partitions that nobody knows were not set aside");
        }
        if std::mem::take(&mut last_run.unclean) {
            let topics = Arc::clone(topics);
            let recover = move || topics.recover_all();
            // Without a thread each log is recovered by the first request that needs it.
            let _ = thread::Builder::new().name("recover".into()).spawn(recover);
        }
    }

    /// Lets another voter lead the metadata log, if this node does.
    pub(crate) fn hand_over_log(&self, image: &Image) {
        let (Some(consensus), Some(status)) = (self.consensus(), self.log_status()) else { return };
        let next = status.voters.iter().find(|id| **id != self.id && image.is_live(**id));
        if let Some(next) = next.filter(|_| status.leading) {
            // If it does not take over, the others elect one of them once this one is silent.
            consensus.transfer_leadership(*next, |_| ());
        }
    }

    /// A producer id that was never given before, if this broker has one left.
    pub(crate) fn take_producer_id(&self) -> Option<ProducerId> {
        self.producer_ids.lock().next().map(ProducerId)
    }

    /// Adds producer ids that the controller gave this broker. What is left of a block is lost with the process, as in
    /// Kafka.
    pub(crate) fn add_producer_ids(&self, ids: std::ops::Range<i64>) {
        *self.producer_ids.lock() = ids;
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        self.consensus.get().map(Consensus::checkpoint).unwrap_or_default()
    }

    /// Ends the log for a clean shutdown; says whether that worked.
    pub(crate) fn close(&self) -> bool {
        self.consensus.get().is_none_or(Consensus::shut_down)
    }
}

impl Work {
    /// Waits until the outcome of the last decision is known.
    fn settle(&mut self, deadline: Instant) -> Result<Result<(), ProposeError>, SubmitError> {
        let Some(outcome) = &self.in_doubt else { return Ok(Ok(())) };
        let result = match outcome.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => return Err(SubmitError::InDoubt),
            Err(RecvTimeoutError::Disconnected) => return Err(SubmitError::Storage("the node stops".to_owned())),
        };
        self.in_doubt = None;
        Ok(result)
    }
}

/// What a replica needs to know of a partition.
pub(crate) fn assignment(described: &Described) -> Assignment {
    Assignment {
        leader: described.leader,
        leader_epoch: described.leader_epoch,
        partition_epoch: described.partition_epoch,
        replicas: Arc::clone(&described.replicas),
        adding: Arc::clone(&described.adding),
        isr: Arc::clone(&described.isr),
        recovering: described.recovering,
    }
}

/// Which topics some records change here.
enum Touched {
    Topics(Vec<TopicId>),
    /// The defaults of all topics.
    All,
}

impl Touched {
    fn by(records: &[Record]) -> Touched {
        let mut ids = Vec::new();
        for record in records {
            match record {
                Record::TopicCreated { id, .. } | Record::TopicDeleted { id } => ids.push(*id),
                Record::PartitionCreated { topic, .. } | Record::PartitionChanged { topic, .. } => ids.push(*topic),
                Record::ConfigSet { resource, .. } | Record::ConfigRemoved { resource, .. } => match resource {
                    ConfigResource::Topic(id) => ids.push(*id),
                    ConfigResource::Broker(_) | ConfigResource::DefaultBroker => return Touched::All,
                    ConfigResource::Group(_) => {}
                },
                // It changes partitions without naming them.
                Record::BrokerRestartedUncleanly { .. } => return Touched::All,
                Record::ClusterRegistered { .. }
                | Record::FeatureLevel { .. }
                | Record::BrokerRegistered { .. }
                | Record::BrokerChanged { .. }
                | Record::BrokerUnregistered { .. }
                | Record::ProducerIdsAllocated { .. }
                | Record::TopicSynced { .. }
                | Record::SnapshotEnd { .. } => {}
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Touched::Topics(ids)
    }
}
