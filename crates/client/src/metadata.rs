//! What a client knows of a cluster: brokers, topics, and who leads what.
//!
//! Not here: asking for it and when to ask again (`client.rs`).

use std::{collections::HashMap, fmt, sync::Arc};

use ottla_protocol::{
    ErrorCode,
    messages::{MetadataResponse, metadata_response::MetadataResponseTopic},
};
use ottla_types::{BrokerId, LeaderEpoch, PartitionIndex, TopicId};

use crate::Error;

/// A partition of a topic, by name. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Which of its partitions.
    pub partition: PartitionIndex,
}

impl TopicPartition {
    /// The partition of that name and number.
    pub fn new(topic: &str, partition: PartitionIndex) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A broker, and where clients reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Its id.
    pub id: BrokerId,
    /// The host it advertises, without brackets.
    pub host: String,
    /// The port it advertises.
    pub port: u16,
    /// The rack it is in, if it says so.
    pub rack: Option<String>,
}

impl BrokerInfo {
    pub(crate) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A topic and its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Its id; [`TopicId::ZERO`] from brokers that have none.
    pub id: TopicId,
    /// Whether it belongs to the brokers.
    pub internal: bool,
    /// Its partitions, by ascending number.
    pub partitions: Vec<PartitionInfo>,
}

/// A partition and its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its number.
    pub index: PartitionIndex,
    /// The broker that leads it, if one does.
    pub leader: Option<BrokerId>,
    /// The epoch of that leader; [`LeaderEpoch::NONE`] from brokers that do not tell.
    pub leader_epoch: LeaderEpoch,
    /// The brokers it is placed on, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// Those in sync.
    pub isr: Vec<BrokerId>,
    /// Those that are down.
    pub offline: Vec<BrokerId>,
}

impl TopicInfo {
    /// The partition of that number.
    pub fn partition(&self, index: PartitionIndex) -> Option<&PartitionInfo> {
        self.partitions.iter().find(|partition| partition.index == index)
    }
}

/// The client's picture of the cluster, as of the last answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) brokers: HashMap<BrokerId, BrokerInfo>,
    pub(crate) controller: Option<BrokerId>,
    pub(crate) id: Option<String>,
    pub(crate) topics: HashMap<Arc<str>, Arc<TopicInfo>>,
}

impl Cluster {
    /// Takes over an answer; topics it does not mention stay. Gives the topics it does mention, or why they are not
    /// there.
    pub(crate) fn update(&mut self, answer: &MetadataResponse) -> Vec<(String, Result<Arc<TopicInfo>, Error>)> {
        self.brokers = answer
            .brokers
            .iter()
            .filter_map(|row| {
                let (id, port) = (BrokerId(row.node_id), u16::try_from(row.port).ok()?);
                let rack = row.rack.as_ref().map(ToString::to_string);
                Some((id, BrokerInfo { id, host: row.host.to_string(), port, rack }))
            })
            .collect();
        self.controller = broker(answer.controller_id);
        self.id = answer.cluster_id.as_ref().map(ToString::to_string).or(self.id.take());
        answer
            .topics
            .iter()
            .map(|row| {
                let name = row.name.as_deref().unwrap_or_default();
                match crate::error::check(|| format!("topic {name}"), row.error_code, None) {
                    Ok(()) => {
                        let topic = Arc::new(topic(name, row));
                        self.topics.insert(Arc::clone(&topic.name), Arc::clone(&topic));
                        (name.to_owned(), Ok(topic))
                    }
                    Err(error) => {
                        self.topics.remove(name);
                        (name.to_owned(), Err(error))
                    }
                }
            })
            .collect()
    }

    /// The leader of a partition, or an error that is worth asking the cluster again for.
    pub(crate) fn leader(&self, at: &TopicPartition) -> Result<(BrokerId, Arc<TopicInfo>, LeaderEpoch), Error> {
        let missing = |code: ErrorCode| Error::broker(format!("partition {at}"), code.code(), None);
        let topic = self.topics.get(&at.topic).ok_or_else(|| missing(ErrorCode::UnknownTopicOrPartition))?;
        let partition = topic.partition(at.partition).ok_or_else(|| missing(ErrorCode::UnknownTopicOrPartition))?;
        let leader = partition.leader.ok_or_else(|| missing(ErrorCode::LeaderNotAvailable))?;
        Ok((leader, Arc::clone(topic), partition.leader_epoch))
    }
}

fn topic(name: &str, row: &MetadataResponseTopic) -> TopicInfo {
    let brokers = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect();
    let mut partitions: Vec<PartitionInfo> = row
        .partitions
        .iter()
        .map(|row| PartitionInfo {
            index: PartitionIndex(row.partition_index),
            leader: broker(row.leader_id),
            leader_epoch: LeaderEpoch(row.leader_epoch),
            replicas: brokers(&row.replica_nodes),
            isr: brokers(&row.isr_nodes),
            offline: brokers(&row.offline_replicas),
        })
        .collect();
    partitions.sort_by_key(|partition| partition.index);
    TopicInfo { name: name.into(), id: row.topic_id, internal: row.is_internal, partitions }
}

/// -1 is no broker.
fn broker(id: i32) -> Option<BrokerId> {
    (id >= 0).then_some(BrokerId(id))
}
