//! Puts a node together: from a data directory to partitions that serve, and back to a clean shutdown.
//!
//! The order of a start is the order of trust: the identity, the clean-shutdown proof and the checkpoints of the last
//! run, the metadata, the registration as a broker, then the partitions, whose logs are opened by whoever needs them
//! first, or at once where the last run did not end cleanly. Next: `controller.rs`, `partition.rs`.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use ottla_log::{Disk, Space};
use ottla_metadata::{
    BrokerRegistration, Command, Image, Listener, NewTopic, OFFSETS_TOPIC, Reply,
    config::{BrokerConfig, GroupConfig, Settings},
    is_internal_topic,
};
use ottla_types::{BrokerEpoch, BrokerId, ProducerId, Timestamp};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{
    checkpoint::{self, CheckpointError, Checkpoints},
    cleaner::Cleaner,
    controller::{Controller, Entropy, SubmitError},
    flusher::Flusher,
    groups::{Groups, SharedEntropy},
    housekeeping::Housekeeper,
    identity::{Identity, LoadIdentityError},
    metadata_log::{LoadMetadataError, MetadataLog},
    storage::{Storage, WallClock},
    topics::Topics,
};

/// Threads that recover logs after an unclean end.
const RECOVERY_THREADS: usize = 2;
const METADATA_DIR: &str = "metadata";

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
}

/// One broker's brain. See the crate.
pub struct Node {
    identity: Identity,
    epoch: BrokerEpoch,
    storage: Arc<Storage>,
    controller: Arc<Controller>,
    groups: Arc<Groups>,
    housekeeper: Housekeeper,
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
    /// The metadata can't be loaded.
    #[error(transparent)]
    Metadata(#[from] LoadMetadataError),
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
    /// Opens a data directory, a new one or that of an earlier run. Afterwards every partition can serve.
    pub fn open(config: NodeConfig) -> Result<Arc<Node>, OpenNodeError> {
        let NodeConfig { disk, dir, node_id, rack, listeners, settings, clock, mut entropy } = config;
        let io_error = |error| OpenNodeError::Io { dir: dir.clone(), error };
        disk.create_dir_all(&dir).map_err(io_error)?;
        let identity = Identity::load(&*disk, &dir)?;
        if let (Some(found), Some(configured)) = (&identity, node_id)
            && found.node_id != configured
        {
            return Err(OpenNodeError::WrongNode { found: found.node_id, configured });
        }
        let id = identity.as_ref().map(|identity| identity.node_id).or(node_id).unwrap_or(BrokerId(1));

        let checkpoints = match checkpoint::load(&*disk, &dir) {
            Ok(checkpoints) => checkpoints,
            Err(CheckpointError::Io(error)) => return Err(io_error(error)),
            Err(CheckpointError::Damaged) => {
                tracing::warn!("the file `checkpoint` is damaged; every log is read from its start");
                Checkpoints::default()
            }
        };
        let now = clock();
        let (log, image) =
            MetadataLog::open(Arc::clone(&disk), dir.join(METADATA_DIR), checkpoints.of_metadata(), now)?;
        // Before anything is written: a directory put together from two has to be left as it was found.
        let known = image.cluster_id().map(|id| id.to_string());
        if identity.as_ref().is_some_and(|identity| Some(&identity.cluster_id) != known.as_ref()) {
            return Err(OpenNodeError::WrongCluster);
        }
        // The proof names the registration it belongs to, so that an old one proves nothing (rule L6).
        let proof = checkpoint::take_clean_proof(&*disk, &dir).map_err(io_error)?;
        let registered = image.broker(id).map(|broker| broker.epoch);
        let clean = registered.is_none() || (proof.is_some() && proof == registered);
        let incarnation = entropy();
        let directory_id = Uuid::from_bytes(entropy());

        let flusher = Flusher::start().map_err(io_error)?;
        let storage = Arc::new(Storage::new(Arc::clone(&disk), dir.clone(), clock, flusher));
        disk.create_dir_all(&storage.topics_dir()).map_err(io_error)?;
        let (group_events, group_inbox) = mpsc::channel();
        let entropy: SharedEntropy = Arc::new(Mutex::new(entropy));
        let group_entropy = Arc::clone(&entropy);
        let controller_entropy = Box::new(move || (entropy.lock())());
        let controller = Arc::new(Controller::new(
            id,
            settings,
            Arc::clone(&storage),
            log,
            image,
            controller_entropy,
            group_events.clone(),
        ));
        let registration =
            BrokerRegistration { id, incarnation, rack: rack.map(Arc::from), listeners: listeners.into(), clean };
        let [_, Reply::BrokerRegistered(epoch)] =
            controller.submit_all([Command::Bootstrap, Command::RegisterBroker(registration)])?
        else {
            return Err(SubmitError::Storage("no broker epoch in the reply".to_owned()).into());
        };
        let cluster_id = controller.image().cluster_id().map(|id| id.to_string()).unwrap_or_default();
        let identity = match identity {
            Some(identity) => identity,
            None => {
                let identity = Identity { cluster_id, node_id: id, directory_id };
                identity.store(&*disk, &dir).map_err(io_error)?;
                // The directory itself is new: its name must survive a power cut too.
                if let Some(parent) = dir.parent() {
                    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                    disk.sync_dir(parent).map_err(io_error)?;
                }
                identity
            }
        };
        controller.publish_all(&checkpoints);
        storage.quarantine_unknown(&controller.topics()).map_err(io_error)?;
        if !clean {
            recover_all(&controller.topics());
        }
        let groups = Groups::new(Arc::clone(&controller), Arc::clone(&storage), group_entropy, group_events);
        let groups_thread = groups.start(group_inbox).map_err(io_error)?;
        let housekeeper = Housekeeper::new(Arc::clone(&storage), Arc::clone(&controller));
        let housekeeping_thread = housekeeper.start().map_err(io_error)?;
        let cleaner = Cleaner::new(Arc::clone(&storage), Arc::clone(&controller));
        let cleaner_thread = cleaner.start().map_err(io_error)?;
        Ok(Arc::new(Node {
            identity,
            epoch,
            storage,
            controller,
            groups,
            housekeeper,
            cleaner,
            threads: Mutex::new(vec![housekeeping_thread, cleaner_thread, groups_thread]),
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

    /// The broker's registration.
    pub fn epoch(&self) -> BrokerEpoch {
        self.epoch
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

    /// Decides on a command and makes it so. Waits for the disk.
    pub fn submit(&self, command: Command) -> Result<Reply, SubmitError> {
        self.controller.submit(command)
    }

    /// A producer id that was never given before. May wait for the disk.
    pub fn allocate_producer_id(&self) -> Result<ProducerId, SubmitError> {
        self.controller.allocate_producer_id(self.epoch)
    }

    /// Has topics created with the broker's defaults, in a while and without an answer: the client asks again. Internal
    /// topics are none of these: of them only that of committed offsets is known how to make.
    pub fn request_auto_creation(&self, names: Vec<String>) {
        if names.iter().any(|name| name == OFFSETS_TOPIC) {
            self.request_offsets_topic();
        }
        let topics = names
            .into_iter()
            .filter(|name| !is_internal_topic(name))
            .map(|name| NewTopic { name, partitions: -1, replication_factor: -1, ..NewTopic::default() })
            .collect();
        self.housekeeper.submit_soon(Command::CreateTopics { topics, validate_only: false });
    }

    /// Has the topic of committed offsets created, in a while and without an answer. Nothing happens where it is.
    pub fn request_offsets_topic(&self) {
        self.housekeeper.submit_soon(Command::CreateOffsetsTopic);
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
        let mut sound = self.storage.flusher().stop();
        for thread in self.threads.lock().drain(..) {
            sound &= thread.join().is_ok();
        }
        if !sound {
            return Err(io::Error::other("a thread of the node ended by a bug; the next start recovers every log"));
        }
        let topics = self.topics();
        // Every log is closed even if one can't be: the more is synced, the less there is to recover.
        let closed = topics.partitions().map(|partition| partition.close()).fold(true, |all, one| all & one);
        let closed = self.controller.close() && closed && !self.storage.has_failed();
        let metadata = self.controller.checkpoint();
        checkpoint::store(&**self.storage.disk(), self.storage.root(), &topics, &metadata, &mut None)?;
        if !closed {
            return Err(io::Error::other("not everything could be synced; the next start recovers every log"));
        }
        checkpoint::leave_clean_proof(&**self.storage.disk(), self.storage.root(), self.epoch)
    }
}

/// Opens every log, which recovers it: after an unclean end nobody may wait for that in the middle of a request.
fn recover_all(topics: &Topics) {
    let partitions: Vec<_> = topics.partitions().collect();
    let share = partitions.len().div_ceil(RECOVERY_THREADS).max(1);
    thread::scope(|scope| {
        for share in partitions.chunks(share) {
            // A partition that can't be opened is offline, and has said so in the log.
            scope.spawn(move || share.iter().for_each(|partition| drop(partition.extent())));
        }
    });
}
