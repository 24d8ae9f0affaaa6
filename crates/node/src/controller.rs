//! The control path: decide, store, apply, publish, one change at a time.
//!
//! [`Controller::submit`] holds one lock from the decision until its records are applied, so every decision sees the
//! outcome of the one before. In a cluster of one, stored is committed. Readers never meet the lock: they use the
//! published image and topics. What is not here: the rules (`ottla_metadata::decide`).

use std::sync::{Arc, mpsc::Sender};

use arc_swap::ArcSwap;
use ottla_log::{Checkpoint, SyncError};
use ottla_metadata::{
    Command, ConfigResource, Image, Record, Refusal, Reply,
    config::{BrokerConfig, GroupConfig, Settings, TopicConfig},
    decide,
};
use ottla_types::{BrokerEpoch, BrokerId, PartitionIndex, ProducerId, TopicId};
use parking_lot::Mutex;

use crate::{
    checkpoint::Checkpoints,
    groups::Event,
    metadata_log::{MetadataLog, SnapshotError, StoreError},
    partition::Partition,
    retention,
    storage::Storage,
    topics::{Topic, Topics},
};

/// Producer ids drawn from the metadata at a time; what is left of a block is lost with the process, as in Kafka.
const PRODUCER_ID_BLOCK: u32 = 1000;

/// Draws 16 random bytes. Injected, so that a simulator can own chance.
pub type Entropy = Box<dyn FnMut() -> [u8; 16] + Send>;

pub(crate) struct Controller {
    id: BrokerId,
    settings: Settings,
    storage: Arc<Storage>,
    image: ArcSwap<Image>,
    topics: ArcSwap<Topics>,
    work: Mutex<Work>,
    producer_ids: Mutex<std::ops::Range<i64>>,
    /// Tells the groups of topics that are gone.
    group_events: Sender<Event>,
}

/// What only the holder of the lock may use.
struct Work {
    log: MetadataLog,
    entropy: Entropy,
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
}

impl Controller {
    pub(crate) fn new(
        id: BrokerId,
        settings: Settings,
        storage: Arc<Storage>,
        log: MetadataLog,
        image: Image,
        entropy: Entropy,
        group_events: Sender<Event>,
    ) -> Controller {
        Controller {
            id,
            settings,
            storage,
            image: ArcSwap::from_pointee(image),
            topics: ArcSwap::default(),
            work: Mutex::new(Work { log, entropy }),
            producer_ids: Mutex::new(0..0),
            group_events,
        }
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

    pub(crate) fn group_config(&self) -> GroupConfig {
        GroupConfig::resolve(&self.image.load().layers(self.id, &self.settings))
    }

    pub(crate) fn broker_config(&self) -> BrokerConfig {
        BrokerConfig::resolve(&self.image.load().layers(self.id, &self.settings))
    }

    /// Decides on a command, stores what was decided, applies it and publishes the outcome. Waits for the disk.
    pub(crate) fn submit(&self, command: Command) -> Result<Reply, SubmitError> {
        self.submit_all([command]).map(|[reply]| reply)
    }

    /// Carries out several commands with one sync: all of them or, where one is refused, none.
    pub(crate) fn submit_all<const N: usize>(&self, commands: [Command; N]) -> Result<[Reply; N], SubmitError> {
        let now = self.storage.now();
        let mut work = self.work.lock();
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
        match work.log.store(&records, now) {
            Ok(()) => {}
            Err(StoreError::Sync(error)) => halt(&error),
            Err(error) => return Err(SubmitError::Storage(error.to_string())),
        }
        let touched = Touched::by(&records);
        let image = Arc::new(image);
        // Partitions first: a topic that Metadata shows must be one that Produce knows.
        self.publish(&image, touched, &Checkpoints::default());
        self.image.store(Arc::clone(&image));
        match work.log.maybe_snapshot(&image, now) {
            Ok(()) => {}
            Err(SnapshotError::Store(StoreError::Sync(error))) => halt(&error),
            Err(error) => tracing::warn!(%error, "no snapshot of the metadata was taken; the log keeps growing"),
        }
        Ok(replies)
    }

    /// Opens no log, but makes every partition of the image known. `checkpoints` are those of the last run.
    pub(crate) fn publish_all(&self, checkpoints: &Checkpoints) {
        self.publish(&self.image.load_full(), Touched::All, checkpoints);
    }

    fn publish(&self, image: &Image, touched: Touched, checkpoints: &Checkpoints) {
        let ids: Vec<TopicId> = match touched {
            Touched::Topics(ids) if ids.is_empty() => return,
            Touched::Topics(ids) => ids,
            Touched::All => image.topics().map(|topic| topic.id).collect(),
        };
        let layers = image.layers(self.id, &self.settings);
        let defaults = TopicConfig::resolve(&layers);
        let disk_bytes = self.storage.disk_bytes();
        let mut topics = Topics::clone(&self.topics.load());
        let mut deleted = Vec::new();
        for id in ids {
            let Some(described) = image.topic(id) else {
                deleted.extend(topics.remove(id));
                continue;
            };
            let config = defaults.with_overrides(&described.overrides);
            let limit = retention::early_roll_bytes(&config, disk_bytes, described.partitions.len());
            let known = topics.with_id(id).cloned();
            let mut partitions = known.as_ref().map(|topic| topic.partitions.clone()).unwrap_or_default();
            let name = known.map_or_else(|| Arc::clone(&described.name), |topic| Arc::clone(&topic.name));
            for (index, new) in (0i32..).zip(&described.partitions).skip(partitions.len()) {
                let index = PartitionIndex(index);
                partitions.push(Arc::new(Partition::new(
                    id,
                    Arc::clone(&name),
                    index,
                    new.leader_epoch,
                    config,
                    Arc::clone(&self.storage),
                    checkpoints.of(id, index),
                )));
            }
            partitions.iter().for_each(|partition| partition.set_config(config, limit));
            topics.insert(Arc::new(Topic { id, name, partitions }));
        }
        self.topics.store(Arc::new(topics));
        if !deleted.is_empty() {
            let gone = deleted.iter().map(|topic| (topic.id, Arc::clone(&topic.name))).collect();
            // While the node stops nobody listens; what lingers of them expires.
            let _ = self.group_events.send(Event::TopicsDeleted(gone));
        }
        for topic in deleted {
            for partition in &topic.partitions {
                partition.delete();
                self.storage.discard(&partition.dir());
            }
        }
        self.storage.set_reserve(BrokerConfig::resolve(&layers).disk_reserve_bytes);
    }

    /// A producer id that was never given before.
    pub(crate) fn allocate_producer_id(&self, epoch: BrokerEpoch) -> Result<ProducerId, SubmitError> {
        let mut block = self.producer_ids.lock();
        if block.is_empty() {
            let command = Command::AllocateProducerIds { broker: self.id, epoch, count: PRODUCER_ID_BLOCK };
            let Reply::ProducerIds(first) = self.submit(command)? else {
                return Err(SubmitError::Storage("no producer ids in the reply".to_owned()));
            };
            *block = first.0..first.0.saturating_add(i64::from(PRODUCER_ID_BLOCK));
        }
        block.next().map(ProducerId).ok_or(SubmitError::Refused(Refusal::ProducerIdsExhausted))
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        self.work.lock().log.checkpoint()
    }

    /// Ends the log for a clean shutdown; says whether that worked.
    pub(crate) fn close(&self) -> bool {
        let closed = self.work.lock().log.close();
        if let Err(error) = &closed {
            tracing::error!(%error, "the metadata log was not closed cleanly");
        }
        closed.is_ok()
    }
}

/// Nobody knows what of the metadata log is on the disk, so nobody may act on it (rule L10).
fn halt(error: &SyncError) -> ! {
    tracing::error!(%error, "the metadata log cannot be synced; stopping at once");
    std::process::abort();
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
                Record::PartitionCreated { topic, .. } => ids.push(*topic),
                Record::ConfigSet { resource, .. } | Record::ConfigRemoved { resource, .. } => match resource {
                    ConfigResource::Topic(id) => ids.push(*id),
                    ConfigResource::Broker(_) | ConfigResource::DefaultBroker => return Touched::All,
                    ConfigResource::Group(_) => {}
                },
                Record::ClusterRegistered { .. }
                | Record::FeatureLevel { .. }
                | Record::BrokerRegistered { .. }
                | Record::BrokerRestartedUncleanly { .. }
                | Record::ProducerIdsAllocated { .. }
                | Record::SnapshotEnd { .. } => {}
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Touched::Topics(ids)
    }
}
