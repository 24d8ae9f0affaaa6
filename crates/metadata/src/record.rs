//! The facts a cluster agrees on, one record each.
//!
//! A record says what is now true, never what somebody asked for, so that applying it needs no judgement. What is not
//! here: the log the records lie in, with its offsets and checksums (the node), and what they add up to (`image.rs`).
//! Next: `record/codec.rs` for the bytes.

mod codec;

use std::sync::Arc;

use ottla_types::{BrokerEpoch, BrokerId, Offset, PartitionIndex, ProducerId, Timestamp, TopicId};

use crate::{BrokerFeature, CHANGES_OF_DURABILITY, FEATURES_IN_REGISTRATIONS, Partition};

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The cluster has this id, for ever.
    ClusterRegistered {
        /// 22 characters of URL-safe base64, as Kafka makes them.
        cluster_id: Arc<str>,
    },
    /// A feature is finalised at this level (KIP-584); level 0 takes it away.
    FeatureLevel {
        /// Kafka's name of the feature.
        name: String,
        /// The level every broker serves.
        level: i16,
    },
    /// A broker has joined, or come back.
    BrokerRegistered {
        /// Its number.
        id: BrokerId,
        /// Rises with each registration of the cluster, so that an older one can be told from a newer (rule A1).
        epoch: BrokerEpoch,
        /// Drawn at each start of the process.
        incarnation: [u8; 16],
        /// The data directory that holds its copies; all zeros in version 0, which did not tell.
        directory: [u8; 16],
        /// Where it stands.
        rack: Option<Arc<str>>,
        /// Where it can be reached.
        listeners: Arc<[Listener]>,
        /// The controller's wall clock, for people to read.
        registered: Timestamp,
        /// Whether it still has to show that it has caught up with the metadata (rule M4); false in version 0.
        fenced: bool,
        /// The features it serves (KIP-584). Version 2 has some, those before have none.
        features: Arc<[BrokerFeature]>,
    },
    /// A registered broker is now in this state; a new registration begins another.
    BrokerChanged {
        /// Its number.
        id: BrokerId,
        /// Nothing may rely on it.
        fenced: bool,
        /// It hands over what it leads.
        shutting_down: bool,
        /// It gets no new replicas. Of the three, this outlives the registration.
        draining: bool,
    },
    /// A broker is gone for good, and its number is not given out again.
    BrokerUnregistered {
        /// Its number.
        id: BrokerId,
    },
    /// The only broker came back without proof of a clean shutdown: what it leads begins a new epoch, so that records
    /// it may have lost and written anew can be told apart (KIP-101). Where there are others, a start takes the
    /// leaderships away, which begins new epochs as well.
    BrokerRestartedUncleanly {
        /// Its number.
        id: BrokerId,
    },
    /// A topic exists, with no partitions yet.
    TopicCreated {
        /// Its identity (rule M6).
        id: TopicId,
        /// Its name.
        name: Arc<str>,
        /// The controller's wall clock, for people to read.
        created: Timestamp,
    },
    /// A topic has one more partition.
    PartitionCreated {
        /// The topic.
        topic: TopicId,
        /// Its number, the next of the topic.
        index: PartitionIndex,
        /// Its state.
        partition: Partition,
    },
    /// A partition is now in this state, all of it.
    PartitionChanged {
        /// The topic.
        topic: TopicId,
        /// Its number.
        index: PartitionIndex,
        /// Its state.
        partition: Partition,
    },
    /// A topic counts only what is synced from now on (`ottla.durability`), and did not before.
    TopicSynced {
        /// The topic.
        id: TopicId,
        /// The first registration of a broker that has never counted more than that. One with an older epoch may hold
        /// what was acknowledged in memory alone (rule A2).
        since: BrokerEpoch,
    },
    /// A topic is gone, with its partitions and configs.
    TopicDeleted {
        /// The topic.
        id: TopicId,
    },
    /// A config has this value.
    ConfigSet {
        /// On what.
        resource: ConfigResource,
        /// Its name.
        key: String,
        /// Its value.
        value: String,
    },
    /// A config is no longer set.
    ConfigRemoved {
        /// On what.
        resource: ConfigResource,
        /// Its name.
        key: String,
    },
    /// A broker owns the producer ids up to `next`, exclusive; they are never handed out again.
    ProducerIdsAllocated {
        /// The owner.
        broker: BrokerId,
        /// The first id that is still free.
        next: ProducerId,
    },
    /// The end of a snapshot: the records before it add up to the image of the log below this offset.
    SnapshotEnd {
        /// The offset of the first record the snapshot does not cover.
        offset: Offset,
    },
}

impl Record {
    /// The level of [`OTTLA_VERSION`](crate::OTTLA_VERSION) from which this may be written down: versions of Ottla that
    /// serve only lower ones can't read it.
    pub fn level(&self) -> i16 {
        match self {
            Record::BrokerRegistered { features, .. } if !features.is_empty() => FEATURES_IN_REGISTRATIONS,
            Record::TopicSynced { .. } => CHANGES_OF_DURABILITY,
            _ => 1,
        }
    }
}

/// What a config is set on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// A topic, by identity: a new topic of the same name inherits nothing (rule M6).
    Topic(TopicId),
    /// One broker.
    Broker(BrokerId),
    /// Every broker that does not set its own.
    DefaultBroker,
    /// A group, by id; whether it has members does not matter.
    Group(Arc<str>),
}

/// An address of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The listener's name.
    pub name: String,
    /// A bare host name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Kafka's code of the security protocol: 0 plain text, 1 TLS, 2 SASL, 3 SASL over TLS.
    pub security_protocol: i16,
}

/// Why bytes are no record. Past the checksum of the log that holds them, this is damage or a newer version's work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A record type this version does not know.
    #[error("metadata record type {kind} is unknown to this version of Ottla; a newer version wrote it")]
    UnknownType {
        /// The type byte.
        kind: u8,
    },
    /// A newer form of a known record.
    #[error("metadata record type {kind} has version {version}, and this version of Ottla reads up to {known}")]
    NewerVersion {
        /// The type byte.
        kind: u8,
        /// The version byte.
        version: u8,
        /// The newest version that can be read.
        known: u8,
    },
    /// The bytes end inside the record.
    #[error("a metadata record ends too early")]
    UnexpectedEnd,
    /// A length that the rest of the bytes cannot hold, or written in more bytes than it needs.
    #[error("a metadata record holds an impossible length")]
    InvalidLength,
    /// Text that is not UTF-8.
    #[error("a metadata record holds text that is not UTF-8")]
    InvalidUtf8,
    /// A byte that must be one of a few is none of them.
    #[error("a metadata record holds {value} where {field} stands")]
    InvalidTag {
        /// What the byte says.
        field: &'static str,
        /// The byte.
        value: u8,
    },
    /// More bytes than the record has.
    #[error("{count} bytes follow a metadata record")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
}
