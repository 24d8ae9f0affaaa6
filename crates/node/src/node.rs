//! Puts a node together: from a data directory to partitions that serve, and back to a clean shutdown.
//!
//! The order of a start is the order of trust: the identity, the clean-shutdown proof and the checkpoints of the last
//! run, the metadata log, then the partitions, which serve once the cluster has registered this run of the broker. A
//! node that is alone registers itself before [`Node::open`] returns; one of several is registered by its controller
//! (`ottla-broker` asks it). Logs are opened by whoever needs them first, or at once where the last run did not end
//! cleanly. Next: `controller.rs`, `partition.rs`.

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use ottla_consensus::{Config as ConsensusConfig, Consensus, OpenError as OpenLogError, Reply as LogReply, Status};
use ottla_log::{Disk, Space};
use ottla_metadata::{
    BrokerFeature, BrokerRegistration, CleanEnd, Command, Image, Listener, NewTopic, OFFSETS_TOPIC, Refusal, Reply,
    Reported,
    config::{BrokerConfig, GroupConfig, Settings},
    is_internal_topic,
};
use ottla_types::{BrokerEpoch, BrokerId, Offset, PartitionIndex, ProducerId, Timestamp, TopicId};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{
    caretaker::{Caretaker, HeartbeatReply},
    checkpoint::{self, CheckpointError, Checkpoints},
    cleaner::Cleaner,
    controller::{Controller, Entropy, SubmitError},
    flusher::Flusher,
    groups::{Groups, SharedEntropy},
    housekeeping::Housekeeper,
    identity::{Identity, LoadIdentityError},
    metadata_machine::MetadataMachine,
    outbox::{IsrChange, Outbox},
    partition::Partition,
    storage::{Storage, WallClock},
    topics::Topics,
};

const METADATA_DIR: &str = "metadata";
/// How often the leader of the metadata log is heard, and how long it may be silent before another is elected.
const LOG_HEARTBEAT_MS: u64 = 100;
const ELECTION_TIMEOUT_MS: std::ops::Range<u64> = 500..1000;
/// How long a node that is alone may take to lead its own log: a few syncs.
const LEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Producer ids drawn from the metadata at a time.
const PRODUCER_ID_BLOCK: u32 = 1000;

/// Takes a message of the metadata log to another node, and the answer back: `None` if there is none.
pub type Transport = Box<dyn Fn(BrokerId, Bytes, LogReply) + Send>;

/// What a node is started with.
pub struct NodeConfig {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The data directory; created if it is not there.
    pub dir: PathBuf,
    /// The configured `node.id`, which must be the one the directory belongs to; `None` takes that, or 1 for a new one.
    pub node_id: Option<BrokerId>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Where the broker can be reached.
    pub listeners: Vec<Listener>,
    /// The static configs.
    pub settings: Settings,
    /// Reads the wall clock.
    pub clock: WallClock,
    /// Draws 16 random bytes.
    pub entropy: Entropy,
    /// Takes messages of the metadata log to its other members.
    pub transport: Transport,
    /// What a cluster has made of this node, if it joins one; `None` founds a new cluster on a new directory.
    pub joined: Option<Joined>,
}

/// What a node without an identity was given by the cluster that it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The ids that are its own from now on.
    pub identity: Identity,
    /// What it called itself when it asked: the start it was registered for.
    pub incarnation: [u8; 16],
}

/// One broker's brain. See the crate.
pub struct Node {
    identity: Identity,
    rack: Option<Arc<str>>,
    listeners: Arc<[Listener]>,
    /// The proof that this run began with.
    ended: CleanEnd,
    storage: Arc<Storage>,
    controller: Arc<Controller>,
    groups: Arc<Groups>,
    housekeeper: Housekeeper,
    caretaker: Arc<Caretaker>,
    cleaner: Cleaner,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
pub enum OpenNodeError {
    /// The directory can't be read or written.
    #[error("cannot use the data directory {}: {error}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The directory's identity can't be read.
    #[error(transparent)]
    Identity(#[from] LoadIdentityError),
    /// The directory belongs to another node.
    #[error(
        "the data directory belongs to node.id={found} and the configuration says node.id={configured}; \
             set node.id={found}, or use another directory"
    )]
    WrongNode {
        /// The id in the directory.
        found: BrokerId,
        /// The id in the configuration.
        configured: BrokerId,
    },
    /// The directory's metadata is that of another cluster.
    #[error("the file `identity` and the metadata beside it are of different clusters; restore one from a backup")]
    WrongCluster,
    /// The metadata log can't be opened.
    #[error("cannot open the metadata log: {0}")]
    Metadata(#[from] OpenLogError),
    /// A node that is alone does not come to lead its log.
    #[error("the metadata log did not come to life within {} s; the log tells why", LEAD_TIMEOUT.as_secs())]
    NoLeader,
    /// The directory belongs to a cluster already.
    #[error("the data directory belongs to cluster {0}; a node joins another with a directory of its own, see --data")]
    JoinedBefore(String),
    /// The broker could not be registered.
    #[error("cannot register the broker: {0}")]
    Register(#[from] SubmitError),
}

/// Keeps other processes out of a data directory for as long as it lives.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// A data directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("the data directory {} is in use by another process; stop it, or choose another directory with --data",
            .0.display())]
    InUse(PathBuf),
    /// The directory can't be created or written.
    #[error("cannot write to the data directory {}: {error}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl DirectoryLock {
    /// Creates the directory if it is not there, and locks it for this process.
    pub fn take(dir: &Path) -> Result<DirectoryLock, LockError> {
        let failed = |error| LockError::Io { dir: dir.to_owned(), error };
        create_durably(dir).map_err(failed)?;
        let file = File::options().create(true).truncate(false).write(true).open(dir.join("lock")).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(DirectoryLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::InUse(dir.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// Creates a directory and those above it that are missing, each with its name in the one above safe from a power cut:
/// what is synced in it later would be lost with any of them.
fn create_durably(dir: &Path) -> io::Result<()> {
    if dir.try_exists()? {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_durably(parent)?;
    match std::fs::create_dir(dir) {
        // Another process was faster; which of the two gets the directory the lock decides.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => created?,
    }
    File::open(parent)?.sync_all()
}

impl Node {
    /// Who a data directory belongs to; `None` for a new one.
    pub fn identity_of(disk: &dyn Disk, dir: &Path) -> Result<Option<Identity>, OpenNodeError> {
        let io_error = |error| OpenNodeError::Io { dir: dir.to_owned(), error };
        disk.create_dir_all(dir).map_err(io_error)?;
        let identity = Identity::load(disk, dir)?;
        Ok(identity.filter(|identity| !identity.cluster_id.is_empty()))
    }

    /// Opens a data directory, a new one or that of an earlier run. A node that is alone can serve afterwards, one of
    /// several once the cluster has registered it.
    pub fn open(config: NodeConfig) -> Result<Arc<Node>, OpenNodeError> {
        let NodeConfig { disk, dir, node_id, rack, listeners, settings, clock, mut entropy, transport, joined } =
            config;
        let io_error = |error| OpenNodeError::Io { dir: dir.clone(), error };
        disk.create_dir_all(&dir).map_err(io_error)?;
        let mut identity = own_identity(&*disk, &dir, node_id, joined.as_ref(), &mut entropy)?;
        let id = identity.node_id;
        let founding = identity.cluster_id.is_empty();

        let checkpoints = match checkpoint::load(&*disk, &dir) {
            Ok(checkpoints) => checkpoints,
            Err(CheckpointError::Io(error)) => return Err(io_error(error)),
            Err(CheckpointError::Damaged) => {
                tracing::warn!("the file `checkpoint` is damaged; every log is read from its start");
                Checkpoints::default()
            }
        };
        let of_metadata = checkpoints.of_metadata();
        let incarnation = joined.map_or_else(&mut entropy, |joined| joined.incarnation);
        let seed = u64::from_be_bytes(entropy()[..8].try_into().unwrap_or_default());

        let flusher = Flusher::start(&*disk, &dir).map_err(io_error)?;
        let storage = Arc::new(Storage::new(Arc::clone(&disk), dir.clone(), clock, flusher));
        let (group_events, group_inbox) = mpsc::channel();
        let entropy: SharedEntropy = Arc::new(Mutex::new(entropy));
        let group_entropy = Arc::clone(&entropy);
        let controller_entropy = Box::new(move || (entropy.lock())());
        let controller = Arc::new(Controller::new(
            id,
            incarnation,
            settings,
            Arc::clone(&storage),
            checkpoints,
            controller_entropy,
            group_events.clone(),
        ));
        // A directory that has lost its metadata, or is put together from two, has to be left as it was found.
        let metadata = dir.join(METADATA_DIR);
        let has_metadata =
            disk.exists(&metadata).map_err(io_error)? && !disk.list(&metadata).map_err(io_error)?.is_empty();
        if !founding && !identity.joining && !has_metadata {
            return Err(OpenNodeError::WrongCluster);
        }
        let machine = MetadataMachine { controller: Arc::clone(&controller) };
        let log = ConsensusConfig {
            id,
            directory: identity.directory_id.into_bytes(),
            disk: Arc::clone(&disk),
            dir: metadata,
            checkpoint: of_metadata,
            heartbeat_ms: LOG_HEARTBEAT_MS,
            election_timeout_ms: ELECTION_TIMEOUT_MS,
            seed,
            halt: Arc::new(halt),
        };
        let ticks = Arc::clone(&storage);
        let consensus = Consensus::start(log, move || ticks.tick(), Box::new(machine), transport)?;
        let known = controller.image().cluster_id().map(|id| id.to_string());
        // None is known where the last run was killed before it wrote down that its first entries were committed; but
        // a log that names no voter is not that of the topics beside it.
        let has_log = identity.joining || !consensus.status().voters.is_empty();
        let expected = known.map_or(has_log, |known| known == identity.cluster_id);
        if !founding && !expected {
            return Err(OpenNodeError::WrongCluster);
        }
        // The proof names the registration it belongs to, so that an old one proves nothing (rule L6).
        let ended = checkpoint::take_clean_proof(&*disk, &dir).map_err(io_error)?;
        let registered = controller.image().broker(id).cloned();
        let first = registered.is_none() && (founding || identity.joining);
        let clean = first || registered.is_some_and(|registered| ended.proves(&registered));
        disk.create_dir_all(&storage.topics_dir()).map_err(io_error)?;
        if founding {
            consensus.bootstrap();
        }
        let alone = founding || consensus.status().voters == [id];
        controller.start(consensus);
        // Whoever waits for others recovers beside them.
        controller.publish_all(!clean && !alone);

        let (rack, listeners): (Option<Arc<str>>, Arc<[Listener]>) = (rack.map(Arc::from), listeners.into());
        let caretaker = Caretaker::new(id, Arc::clone(&storage), Arc::clone(&controller));
        let groups = Groups::new(Arc::clone(&controller), Arc::clone(&storage), group_entropy, group_events);
        let housekeeper = Housekeeper::new(Arc::clone(&storage), Arc::clone(&controller));
        let cleaner = Cleaner::new(Arc::clone(&storage), Arc::clone(&controller));
        if alone {
            if !controller.wait_until(LEAD_TIMEOUT, Controller::is_leading) {
                return Err(OpenNodeError::NoLeader);
            }
            let registration = BrokerRegistration {
                id: Some(id),
                directory: identity.directory_id.into_bytes(),
                incarnation,
                rack: rack.clone(),
                listeners: Arc::clone(&listeners),
                ended: ended.clone(),
                alone: true,
                features: controller.features(),
            };
            register_alone(&controller, registration)?;
            if !clean {
                controller.topics().recover_all();
            }
        }
        if alone && !founding && controller.image().cluster_id().map(|id| &**id) != Some(&*identity.cluster_id) {
            return Err(OpenNodeError::WrongCluster);
        }
        if founding {
            identity.cluster_id = controller.image().cluster_id().map(|id| id.to_string()).unwrap_or_default();
            identity.store(&*disk, &dir).map_err(io_error)?;
        }
        let threads = vec![
            groups.start(group_inbox).map_err(io_error)?,
            housekeeper.start().map_err(io_error)?,
            cleaner.start().map_err(io_error)?,
            caretaker.start().map_err(io_error)?,
        ];
        Ok(Arc::new(Node {
            identity,
            rack,
            listeners,
            ended,
            storage,
            controller,
            groups,
            housekeeper,
            caretaker,
            cleaner,
            threads: Mutex::new(threads),
        }))
    }

    /// The ids of the data directory.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The broker's `node.id`.
    pub fn id(&self) -> BrokerId {
        self.identity.node_id
    }

    /// The epoch of the broker's registration, once the cluster has registered this run of it.
    pub fn epoch(&self) -> Option<BrokerEpoch> {
        let image = self.controller.image();
        image
            .broker(self.id())
            .filter(|broker| broker.incarnation == self.controller.incarnation())
            .map(|own| own.epoch)
    }

    /// Notes that the metadata has arrived: from now on the node does not start without it.
    pub fn end_joining(&self) -> io::Result<()> {
        if !self.identity.joining {
            return Ok(());
        }
        let identity = Identity { joining: false, ..self.identity.clone() };
        identity.store(&**self.storage.disk(), self.storage.root())
    }

    /// What the broker says of itself when it registers.
    pub fn registration(&self) -> BrokerRegistration {
        BrokerRegistration {
            id: Some(self.id()),
            directory: self.identity.directory_id.into_bytes(),
            incarnation: self.controller.incarnation(),
            rack: self.rack.clone(),
            listeners: Arc::clone(&self.listeners),
            ended: self.ended.clone(),
            alone: false,
            features: self.controller.features(),
        }
    }

    /// The cluster's id, as Kafka prints it.
    pub fn cluster_id(&self) -> &str {
        &self.identity.cluster_id
    }

    /// What the cluster agreed on, as of now.
    pub fn image(&self) -> Arc<Image> {
        self.controller.image()
    }

    /// The partitions of this broker, as of now.
    pub fn topics(&self) -> Arc<Topics> {
        self.controller.topics()
    }

    /// The static configs.
    pub fn settings(&self) -> &Settings {
        self.controller.settings()
    }

    /// The broker's configs, as of now.
    pub fn broker_config(&self) -> BrokerConfig {
        self.controller.broker_config()
    }

    /// The configs of group coordination, as of now.
    pub fn group_config(&self) -> GroupConfig {
        self.groups.config().1
    }

    /// The groups that this broker coordinates.
    pub fn groups(&self) -> &Arc<Groups> {
        &self.groups
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        self.storage.now()
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        self.storage.root()
    }

    /// Room on the disk that holds the data directory.
    pub fn disk_space(&self) -> io::Result<Space> {
        self.storage.disk().space(self.storage.root())
    }

    /// Decides on a command and has that agreed on. Waits for the disks of most of the log's members. Only on the node
    /// that leads the metadata log.
    pub fn submit(&self, command: Command) -> Result<Reply, SubmitError> {
        self.controller.submit(command)
    }

    /// Whether this node leads the metadata log: the active controller.
    pub fn is_controller(&self) -> bool {
        self.controller.is_leading()
    }

    /// The node that leads the metadata log, as far as this one knows.
    pub fn controller_id(&self) -> Option<BrokerId> {
        self.log_status().leader
    }

    /// How the metadata log is doing.
    pub fn log_status(&self) -> Arc<Status> {
        self.controller.log_status().unwrap_or_default()
    }

    /// The metadata log, for messages of its other members; nothing before it is opened.
    pub fn consensus(&self) -> Option<&Consensus> {
        self.controller.consensus()
    }

    /// Lets another voter lead the metadata log, if this node does: it is about to leave.
    pub fn hand_over_log(&self) {
        self.controller.hand_over_log(&self.image());
    }

    /// Has `bell` called after each change of the image or of the controller. It must not wait for anything.
    pub fn on_change(&self, bell: impl Fn() + Send + Sync + 'static) {
        self.controller.on_change(bell);
    }

    /// Takes a broker's heartbeat, as the controller: lets it in once it has applied its own registration (rule M4),
    /// and lets it go once it leads nothing that another could. Waits for what that decides.
    pub fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatReply, SubmitError> {
        self.caretaker.heartbeat(heartbeat)
    }

    /// What brokers have said they serve, where their registrations do not hold it; heard as the controller.
    pub fn reported_features(&self) -> Reported {
        self.caretaker.reported()
    }

    /// A broker's connection has ended, which a live one replaces at once.
    pub fn suspect(&self, broker: BrokerId) {
        self.caretaker.suspect(broker);
    }

    /// The ISRs that partitions led here want committed.
    pub fn isr_changes(&self) -> &Outbox<IsrChange> {
        self.storage.isr_changes()
    }

    /// Partitions whose copy here is damaged below what was durable, which the controller has to know (rule L5). Each
    /// is owed a [`Partition::damage_reported`].
    pub fn damaged(&self) -> &Outbox<(TopicId, PartitionIndex)> {
        self.storage.damaged()
    }

    /// The partitions that this broker follows, by the broker that leads them.
    pub fn followed(&self) -> HashMap<BrokerId, Vec<Arc<Partition>>> {
        let mut followed: HashMap<BrokerId, Vec<Arc<Partition>>> = HashMap::new();
        for partition in self.topics().partitions() {
            if let Some(leader) = partition.followed_leader() {
                followed.entry(leader).or_default().push(Arc::clone(partition));
            }
        }
        followed
    }

    /// Changes whenever retention here wants something else of the leaders of what is followed
    /// ([`Partition::start_wanted`]).
    pub fn starts_wanted(&self) -> u64 {
        self.storage.starts_wanted()
    }

    /// A producer id that was never given before, if this broker has one left of those the controller gave it.
    pub fn take_producer_id(&self) -> Option<ProducerId> {
        self.controller.take_producer_id()
    }

    /// Adds `count` producer ids from `first` on, which the controller gave this broker.
    pub fn add_producer_ids(&self, first: ProducerId, count: u32) {
        self.controller.add_producer_ids(first.0..first.0.saturating_add(i64::from(count)));
    }

    /// Gives `broker` a block of producer ids, as the controller: the first of them, and how many.
    pub fn allocate_producer_ids(
        &self,
        broker: BrokerId,
        epoch: BrokerEpoch,
    ) -> Result<(ProducerId, u32), SubmitError> {
        let command = Command::AllocateProducerIds { broker, epoch, count: PRODUCER_ID_BLOCK };
        match self.submit(command)? {
            Reply::ProducerIds(first) => Ok((first, PRODUCER_ID_BLOCK)),
            _ => Err(SubmitError::Storage("no producer ids in the reply".to_owned())),
        }
    }

    /// Has a topic created with the broker's defaults, in a while and without an answer, as the controller: whoever
    /// asked asks again. Of the internal topics only that of committed offsets is known how to make.
    pub fn request_topic(&self, name: &str) {
        if name == OFFSETS_TOPIC {
            self.housekeeper.submit_soon(Command::CreateOffsetsTopic);
        } else if !is_internal_topic(name) {
            let topic =
                NewTopic { name: name.to_owned(), partitions: -1, replication_factor: -1, ..NewTopic::default() };
            self.housekeeper.submit_soon(Command::CreateTopics { topics: vec![topic], validate_only: false });
        }
    }

    /// Whether a sync of the data directory failed, so that nothing on it is served any more (rule L10).
    pub fn has_failed(&self) -> bool {
        self.storage.has_failed()
    }

    /// Syncs everything and leaves the proof of a clean shutdown (rule L6). Call it once no request is being served.
    pub fn shut_down(&self) -> io::Result<()> {
        self.groups.stop();
        self.housekeeper.stop();
        self.cleaner.stop();
        self.caretaker.stop();
        let mut sound = self.storage.flusher().stop();
        for thread in self.threads.lock().drain(..) {
            sound &= thread.join().is_ok();
        }
        if !sound {
            return Err(io::Error::other("a thread of the node ended by a bug; the next start recovers every log"));
        }
        let proof = self.ended.after(self.controller.incarnation(), self.epoch());
        let topics = self.topics();
        // Every log is closed even if one can't be: the more is synced, the less there is to recover.
        let closed = topics.partitions().map(|partition| partition.close()).fold(true, |all, one| all & one);
        let closed = self.controller.close() && closed && !self.storage.has_failed();
        let metadata = self.controller.checkpoint();
        checkpoint::store(&**self.storage.disk(), self.storage.root(), &topics, &metadata, &mut None)?;
        if !closed {
            return Err(io::Error::other("not everything could be synced; the next start recovers every log"));
        }
        checkpoint::leave_clean_proof(&**self.storage.disk(), self.storage.root(), &proof)
    }
}

/// Registers the broker with its own controller: nobody else could, and nobody else has to be asked whether the last
/// run has ended, as the directory is locked.
fn register_alone(controller: &Controller, registration: BrokerRegistration) -> Result<(), SubmitError> {
    let register = || controller.submit_all([Command::Bootstrap, Command::RegisterBroker(registration.clone())]);
    let replies = match register() {
        Err(SubmitError::Refused(Refusal::DuplicateRegistration(id))) => {
            let image = controller.image();
            let epoch = image.broker(id).map(|broker| broker.epoch).unwrap_or_default();
            controller.submit(Command::FenceBroker { id, epoch })?;
            register()?
        }
        replies => replies?,
    };
    let [_, Reply::BrokerRegistered { id, epoch }] = replies else {
        return Err(SubmitError::Storage("no broker epoch in the reply".to_owned()));
    };
    if controller.image().broker(id).is_some_and(|broker| broker.fenced) {
        controller.submit(Command::UnfenceBroker { id, epoch })?;
    }
    Ok(())
}

/// A broker's report to the controller (KIP-631).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The broker.
    pub broker: BrokerId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// How far it has applied what was agreed on: the offset of its image.
    pub offset: Offset,
    /// It wants to stay fenced.
    pub want_fence: bool,
    /// It wants to shut down.
    pub want_shut_down: bool,
    /// The features it serves, where its registration does not hold them. One of a version that does not tell has none.
    pub features: Arc<[BrokerFeature]>,
}

/// Nobody knows what of the metadata log is on the disk, so nobody may act on it (rule L10).
fn halt(why: &str) {
    tracing::error!(%why, "the metadata log can't be trusted; stopping at once");
    std::process::abort();
}

/// The identity of `dir`: the one it has, or the one it gets at its first start. That of a new cluster is written
/// before anything of the cluster is, and is without the cluster's id until that is agreed on.
fn own_identity(
    disk: &dyn Disk,
    dir: &Path,
    configured: Option<BrokerId>,
    joined: Option<&Joined>,
    entropy: &mut Entropy,
) -> Result<Identity, OpenNodeError> {
    let found = Identity::load(disk, dir)?;
    if let (Some(Identity { node_id: found, .. }), Some(configured)) = (&found, configured)
        && *found != configured
    {
        return Err(OpenNodeError::WrongNode { found: *found, configured });
    }
    let new = match (found, joined) {
        (Some(found), Some(joined)) if !found.cluster_id.is_empty() && found != joined.identity => {
            return Err(OpenNodeError::JoinedBefore(found.cluster_id));
        }
        (Some(found), None) => return Ok(found),
        (_, Some(joined)) => joined.identity.clone(),
        (None, None) => Identity {
            cluster_id: String::new(),
            node_id: configured.unwrap_or(BrokerId(1)),
            directory_id: Uuid::from_bytes(entropy()),
            port: None,
            joining: false,
        },
    };
    let io_error = |error| OpenNodeError::Io { dir: dir.to_owned(), error };
    new.store(disk, dir).map_err(io_error)?;
    // The directory itself is new: its name must survive a power cut too.
    if let Some(parent) = dir.parent() {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        disk.sync_dir(parent).map_err(io_error)?;
    }
    Ok(new)
}
