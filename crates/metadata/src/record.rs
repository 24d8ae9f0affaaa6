//! The facts a cluster agrees on, one record each, and their bytes (`docs/formats/metadata-record.md`).
//!
//! A record says what is now true, never what somebody asked for, so that applying it needs no judgement. What is not
//! here: the log the records lie in, with its offsets and checksums (the node), and what they add up to (`image.rs`).

use std::sync::Arc;

use bytes::Bytes;
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, Timestamp, TopicId};

use crate::wire::{Reader, Writer};

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
        /// Counts registrations over the whole cluster, so an older one can be told from a newer (rule A1).
        epoch: BrokerEpoch,
        /// Drawn at each start of the process.
        incarnation: [u8; 16],
        /// Where it stands.
        rack: Option<Arc<str>>,
        /// Where it can be reached.
        listeners: Arc<[Listener]>,
        /// The controller's wall clock, for people to read.
        registered: Timestamp,
    },
    /// A broker came back without proof of a clean shutdown: what it leads begins a new epoch, so that records it may
    /// have lost and written anew can be told apart (KIP-101).
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
        /// The brokers that hold it, the preferred leader first.
        replicas: Arc<[BrokerId]>,
        /// Those of them in sync.
        isr: Arc<[BrokerId]>,
        /// The one that takes writes.
        leader: BrokerId,
        /// Rises with each leadership and each unclean restart of the leader.
        leader_epoch: LeaderEpoch,
        /// Rises with each change of the above.
        partition_epoch: i32,
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

/// The only version of every record so far.
const VERSION: u8 = 0;

const CLUSTER_REGISTERED: u8 = 1;
const FEATURE_LEVEL: u8 = 2;
const BROKER_REGISTERED: u8 = 3;
const BROKER_RESTARTED_UNCLEANLY: u8 = 4;
const TOPIC_CREATED: u8 = 5;
const PARTITION_CREATED: u8 = 6;
const TOPIC_DELETED: u8 = 7;
const CONFIG_SET: u8 = 8;
const CONFIG_REMOVED: u8 = 9;
const PRODUCER_IDS_ALLOCATED: u8 = 10;
const SNAPSHOT_END: u8 = 11;

const NEWEST_TYPE: u8 = SNAPSHOT_END;

impl Record {
    /// The bytes of this record.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new(self.kind(), VERSION);
        match self {
            Record::ClusterRegistered { cluster_id } => out.text(cluster_id),
            Record::FeatureLevel { name, level } => {
                out.text(name);
                out.i16(*level);
            }
            Record::BrokerRegistered { id, epoch, incarnation, rack, listeners, registered } => {
                out.i32(id.0);
                out.i64(epoch.0);
                out.raw(incarnation);
                out.u8(rack.is_some().into());
                if let Some(rack) = rack {
                    out.text(rack);
                }
                out.len(listeners.len());
                for listener in listeners.iter() {
                    out.text(&listener.name);
                    out.text(&listener.host);
                    out.u16(listener.port);
                    out.i16(listener.security_protocol);
                }
                out.i64(registered.0);
            }
            Record::BrokerRestartedUncleanly { id } => out.i32(id.0),
            Record::TopicCreated { id, name, created } => {
                out.raw(&id.to_bytes());
                out.text(name);
                out.i64(created.0);
            }
            Record::PartitionCreated { topic, index, replicas, isr, leader, leader_epoch, partition_epoch } => {
                out.raw(&topic.to_bytes());
                out.i32(index.0);
                encode_brokers(&mut out, replicas);
                encode_brokers(&mut out, isr);
                out.i32(leader.0);
                out.i32(leader_epoch.0);
                out.i32(*partition_epoch);
            }
            Record::TopicDeleted { id } => out.raw(&id.to_bytes()),
            Record::ConfigSet { resource, key, value } => {
                resource.encode(&mut out);
                out.text(key);
                out.text(value);
            }
            Record::ConfigRemoved { resource, key } => {
                resource.encode(&mut out);
                out.text(key);
            }
            Record::ProducerIdsAllocated { broker, next } => {
                out.i32(broker.0);
                out.i64(next.0);
            }
            Record::SnapshotEnd { offset } => out.i64(offset.0),
        }
        out.finish()
    }

    /// Reads one record, which must take all of `bytes`.
    ///
    /// # Errors
    /// See [`DecodeError`]; an unknown type or a newer version is refused rather than skipped, because an image that
    /// misses a fact is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
        let mut input = Reader::new(bytes);
        let kind = input.u8()?;
        let version = input.u8()?;
        if kind == 0 || kind > NEWEST_TYPE {
            return Err(DecodeError::UnknownType { kind });
        }
        if version > VERSION {
            return Err(DecodeError::NewerVersion { kind, version, known: VERSION });
        }
        let record = match kind {
            CLUSTER_REGISTERED => Record::ClusterRegistered { cluster_id: input.text()?.into() },
            FEATURE_LEVEL => Record::FeatureLevel { name: input.text()?, level: input.i16()? },
            BROKER_REGISTERED => Record::BrokerRegistered {
                id: BrokerId(input.i32()?),
                epoch: BrokerEpoch(input.i64()?),
                incarnation: input.id()?,
                rack: match input.u8()? {
                    0 => None,
                    1 => Some(input.text()?.into()),
                    value => return Err(DecodeError::InvalidTag { field: "whether there is a rack", value }),
                },
                listeners: decode_listeners(&mut input)?,
                registered: Timestamp(input.i64()?),
            },
            BROKER_RESTARTED_UNCLEANLY => Record::BrokerRestartedUncleanly { id: BrokerId(input.i32()?) },
            TOPIC_CREATED => Record::TopicCreated {
                id: TopicId::from_bytes(input.id()?),
                name: input.text()?.into(),
                created: Timestamp(input.i64()?),
            },
            PARTITION_CREATED => Record::PartitionCreated {
                topic: TopicId::from_bytes(input.id()?),
                index: PartitionIndex(input.i32()?),
                replicas: decode_brokers(&mut input)?,
                isr: decode_brokers(&mut input)?,
                leader: BrokerId(input.i32()?),
                leader_epoch: LeaderEpoch(input.i32()?),
                partition_epoch: input.i32()?,
            },
            TOPIC_DELETED => Record::TopicDeleted { id: TopicId::from_bytes(input.id()?) },
            CONFIG_SET => Record::ConfigSet {
                resource: ConfigResource::decode(&mut input)?,
                key: input.text()?,
                value: input.text()?,
            },
            CONFIG_REMOVED => {
                Record::ConfigRemoved { resource: ConfigResource::decode(&mut input)?, key: input.text()? }
            }
            PRODUCER_IDS_ALLOCATED => {
                Record::ProducerIdsAllocated { broker: BrokerId(input.i32()?), next: ProducerId(input.i64()?) }
            }
            SNAPSHOT_END => Record::SnapshotEnd { offset: Offset(input.i64()?) },
            _ => return Err(DecodeError::UnknownType { kind }),
        };
        input.finish()?;
        Ok(record)
    }

    fn kind(&self) -> u8 {
        match self {
            Record::ClusterRegistered { .. } => CLUSTER_REGISTERED,
            Record::FeatureLevel { .. } => FEATURE_LEVEL,
            Record::BrokerRegistered { .. } => BROKER_REGISTERED,
            Record::BrokerRestartedUncleanly { .. } => BROKER_RESTARTED_UNCLEANLY,
            Record::TopicCreated { .. } => TOPIC_CREATED,
            Record::PartitionCreated { .. } => PARTITION_CREATED,
            Record::TopicDeleted { .. } => TOPIC_DELETED,
            Record::ConfigSet { .. } => CONFIG_SET,
            Record::ConfigRemoved { .. } => CONFIG_REMOVED,
            Record::ProducerIdsAllocated { .. } => PRODUCER_IDS_ALLOCATED,
            Record::SnapshotEnd { .. } => SNAPSHOT_END,
        }
    }
}

impl ConfigResource {
    fn encode(&self, out: &mut Writer) {
        match self {
            ConfigResource::Topic(id) => {
                out.u8(0);
                out.raw(&id.to_bytes());
            }
            ConfigResource::Broker(id) => {
                out.u8(1);
                out.i32(id.0);
            }
            ConfigResource::DefaultBroker => out.u8(2),
            ConfigResource::Group(id) => {
                out.u8(3);
                out.text(id);
            }
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<ConfigResource, DecodeError> {
        match input.u8()? {
            0 => Ok(ConfigResource::Topic(TopicId::from_bytes(input.id()?))),
            1 => Ok(ConfigResource::Broker(BrokerId(input.i32()?))),
            2 => Ok(ConfigResource::DefaultBroker),
            3 => Ok(ConfigResource::Group(input.text()?.into())),
            value => Err(DecodeError::InvalidTag { field: "what a config is set on", value }),
        }
    }
}

fn encode_brokers(out: &mut Writer, brokers: &[BrokerId]) {
    out.len(brokers.len());
    for broker in brokers {
        out.i32(broker.0);
    }
}

fn decode_brokers(input: &mut Reader<'_>) -> Result<Arc<[BrokerId]>, DecodeError> {
    let count = input.len(size_of::<i32>())?;
    (0..count).map(|_| input.i32().map(BrokerId)).collect()
}

fn decode_listeners(input: &mut Reader<'_>) -> Result<Arc<[Listener]>, DecodeError> {
    // Two empty texts, a port and a protocol: no listener is smaller.
    let count = input.len(6)?;
    let listener = |_| {
        Ok(Listener { name: input.text()?, host: input.text()?, port: input.u16()?, security_protocol: input.i16()? })
    };
    (0..count).map(listener).collect()
}
