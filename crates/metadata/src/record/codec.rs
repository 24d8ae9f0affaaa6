//! Records as bytes: a type, a version, and a body that only these two explain (`docs/formats/metadata-record.md`).
//!
//! What is not here: the primitives (`wire.rs`), and what the records mean (`record.rs`).

use std::sync::Arc;

use bytes::Bytes;
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, Timestamp, TopicId};

use super::{ConfigResource, DecodeError, Listener, Record};
use crate::{
    BrokerFeature, Partition,
    wire::{Reader, Writer},
};

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
const PARTITION_CHANGED: u8 = 12;
const BROKER_CHANGED: u8 = 13;
const BROKER_UNREGISTERED: u8 = 14;
const TOPIC_SYNCED: u8 = 15;

const NEWEST_TYPE: u8 = TOPIC_SYNCED;

/// What stands where a broker would, if there is none.
const NO_BROKER: i32 = -1;

/// The newest version of a type that is read. Version 1 came with clusters of many.
const fn newest(kind: u8) -> u8 {
    match kind {
        BROKER_REGISTERED => 2,
        PARTITION_CREATED => 1,
        _ => 0,
    }
}

impl Record {
    /// The bytes of this record.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new(self.kind(), self.version());
        match self {
            Record::ClusterRegistered { cluster_id } => out.text(cluster_id),
            Record::FeatureLevel { name, level } => {
                out.text(name);
                out.i16(*level);
            }
            Record::BrokerRegistered {
                id,
                epoch,
                incarnation,
                directory,
                rack,
                listeners,
                registered,
                fenced,
                features,
            } => {
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
                out.raw(directory);
                out.u8((*fenced).into());
                if !features.is_empty() {
                    out.len(features.len());
                }
                for feature in features.iter() {
                    out.text(&feature.name);
                    out.i16(feature.min);
                    out.i16(feature.max);
                }
            }
            Record::BrokerChanged { id, fenced, shutting_down, draining } => {
                out.i32(id.0);
                [fenced, shutting_down, draining].into_iter().for_each(|is| out.u8((*is).into()));
            }
            Record::BrokerUnregistered { id } => out.i32(id.0),
            Record::BrokerRestartedUncleanly { id } => out.i32(id.0),
            Record::TopicCreated { id, name, created } => {
                out.raw(&id.to_bytes());
                out.text(name);
                out.i64(created.0);
            }
            Record::PartitionCreated { topic, index, partition }
            | Record::PartitionChanged { topic, index, partition } => {
                out.raw(&topic.to_bytes());
                out.i32(index.0);
                partition.encode(&mut out);
            }
            Record::TopicSynced { id, since } => {
                out.raw(&id.to_bytes());
                out.i64(since.0);
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
        let given = input.u8()?;
        if kind == 0 || kind > NEWEST_TYPE {
            return Err(DecodeError::UnknownType { kind });
        }
        if given > newest(kind) {
            return Err(DecodeError::NewerVersion { kind, version: given, known: newest(kind) });
        }
        let record = match kind {
            CLUSTER_REGISTERED => Record::ClusterRegistered { cluster_id: input.text()?.into() },
            FEATURE_LEVEL => Record::FeatureLevel { name: input.text()?, level: input.i16()? },
            BROKER_REGISTERED => decode_registration(&mut input, given)?,
            BROKER_CHANGED => Record::BrokerChanged {
                id: BrokerId(input.i32()?),
                fenced: input.flag("whether a broker is fenced")?,
                shutting_down: input.flag("whether a broker is shutting down")?,
                draining: input.flag("whether a broker is draining")?,
            },
            BROKER_UNREGISTERED => Record::BrokerUnregistered { id: BrokerId(input.i32()?) },
            BROKER_RESTARTED_UNCLEANLY => Record::BrokerRestartedUncleanly { id: BrokerId(input.i32()?) },
            TOPIC_CREATED => Record::TopicCreated {
                id: TopicId::from_bytes(input.id()?),
                name: input.text()?.into(),
                created: Timestamp(input.i64()?),
            },
            PARTITION_CREATED => Record::PartitionCreated {
                topic: TopicId::from_bytes(input.id()?),
                index: PartitionIndex(input.i32()?),
                partition: match given {
                    0 => Partition::decode_v0(&mut input)?,
                    _ => Partition::decode(&mut input)?,
                },
            },
            PARTITION_CHANGED => Record::PartitionChanged {
                topic: TopicId::from_bytes(input.id()?),
                index: PartitionIndex(input.i32()?),
                partition: Partition::decode(&mut input)?,
            },
            TOPIC_SYNCED => {
                Record::TopicSynced { id: TopicId::from_bytes(input.id()?), since: BrokerEpoch(input.i64()?) }
            }
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

    /// The oldest version that can say all of it, so that who reads no newer one can read what it needs no newer one
    /// for. What needs one is decided on only where the cluster's level allows it (`decide/features.rs`).
    fn version(&self) -> u8 {
        match self {
            Record::BrokerRegistered { features, .. } if !features.is_empty() => 2,
            Record::BrokerRegistered { .. } | Record::PartitionCreated { .. } => 1,
            _ => 0,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Record::ClusterRegistered { .. } => CLUSTER_REGISTERED,
            Record::FeatureLevel { .. } => FEATURE_LEVEL,
            Record::BrokerRegistered { .. } => BROKER_REGISTERED,
            Record::BrokerChanged { .. } => BROKER_CHANGED,
            Record::BrokerUnregistered { .. } => BROKER_UNREGISTERED,
            Record::BrokerRestartedUncleanly { .. } => BROKER_RESTARTED_UNCLEANLY,
            Record::TopicCreated { .. } => TOPIC_CREATED,
            Record::PartitionCreated { .. } => PARTITION_CREATED,
            Record::PartitionChanged { .. } => PARTITION_CHANGED,
            Record::TopicSynced { .. } => TOPIC_SYNCED,
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

impl Partition {
    fn encode(&self, out: &mut Writer) {
        for brokers in [&self.replicas, &self.isr, &self.elr, &self.adding, &self.removing] {
            out.len(brokers.len());
            brokers.iter().for_each(|broker| out.i32(broker.0));
        }
        for broker in [self.leader, self.last_known_leader] {
            out.i32(broker.map_or(NO_BROKER, |broker| broker.0));
        }
        out.i32(self.leader_epoch.0);
        out.i32(self.partition_epoch);
        out.u8(self.recovering.into());
    }

    fn decode(input: &mut Reader<'_>) -> Result<Partition, DecodeError> {
        Ok(Partition {
            replicas: decode_brokers(input)?,
            isr: decode_brokers(input)?,
            elr: decode_brokers(input)?,
            adding: decode_brokers(input)?,
            removing: decode_brokers(input)?,
            leader: decode_broker(input)?,
            last_known_leader: decode_broker(input)?,
            leader_epoch: LeaderEpoch(input.i32()?),
            partition_epoch: input.i32()?,
            recovering: input.flag("whether a leader recovers")?,
        }
        .compact())
    }

    fn decode_v0(input: &mut Reader<'_>) -> Result<Partition, DecodeError> {
        Ok(Partition {
            replicas: decode_brokers(input)?,
            isr: decode_brokers(input)?,
            leader: decode_broker(input)?,
            leader_epoch: LeaderEpoch(input.i32()?),
            partition_epoch: input.i32()?,
            ..Partition::default()
        }
        .compact())
    }

    /// Replicas and ISR are nearly always the same brokers: then they are stored once.
    fn compact(mut self) -> Partition {
        if self.isr == self.replicas {
            self.isr = self.replicas.clone();
        }
        self
    }
}

fn decode_broker(input: &mut Reader<'_>) -> Result<Option<BrokerId>, DecodeError> {
    let id = input.i32()?;
    Ok((id != NO_BROKER).then_some(BrokerId(id)))
}

fn decode_brokers(input: &mut Reader<'_>) -> Result<Arc<[BrokerId]>, DecodeError> {
    match input.len(size_of::<i32>())? {
        // All empty lists are one, which costs no memory.
        0 => Ok(Arc::default()),
        count => (0..count).map(|_| input.i32().map(BrokerId)).collect(),
    }
}

fn decode_registration(input: &mut Reader<'_>, given: u8) -> Result<Record, DecodeError> {
    let id = BrokerId(input.i32()?);
    let epoch = BrokerEpoch(input.i64()?);
    let incarnation = input.id()?;
    let rack = match input.flag("whether there is a rack")? {
        false => None,
        true => Some(input.text()?.into()),
    };
    let listeners = decode_listeners(input)?;
    let registered = Timestamp(input.i64()?);
    let (directory, fenced) = match given {
        0 => ([0; 16], false),
        _ => (input.id()?, input.flag("whether a broker is fenced")?),
    };
    let features = if given < 2 { Arc::default() } else { decode_features(input)? };
    Ok(Record::BrokerRegistered { id, epoch, incarnation, directory, rack, listeners, registered, fenced, features })
}

fn decode_features(input: &mut Reader<'_>) -> Result<Arc<[BrokerFeature]>, DecodeError> {
    // An empty name and two levels. A list without one is what version 1 is for.
    match input.len(5)? {
        0 => Err(DecodeError::InvalidLength),
        count => (0..count)
            .map(|_| Ok(BrokerFeature { name: input.text()?, min: input.i16()?, max: input.i16()? }))
            .collect(),
    }
}

fn decode_listeners(input: &mut Reader<'_>) -> Result<Arc<[Listener]>, DecodeError> {
    // Two empty texts, a port and a protocol: no listener is smaller.
    let count = input.len(6)?;
    let listener = |_| {
        Ok(Listener { name: input.text()?, host: input.text()?, port: input.u16()?, security_protocol: input.i16()? })
    };
    (0..count).map(listener).collect()
}
