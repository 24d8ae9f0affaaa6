//! What a client knows of a cluster: brokers, topics, and who leads what.
//!
//! Not here: asking for it and when to ask again (`client.rs`).

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use bytestring::ByteString;
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
    /// None where the port is none.
    pub(crate) fn from_wire(id: i32, host: &str, port: i32, rack: Option<&ByteString>) -> Option<BrokerInfo> {
        let port = u16::try_from(port).ok()?;
        Some(BrokerInfo { id: BrokerId(id), host: host.to_owned(), port, rack: rack.map(ToString::to_string) })
    }

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

    /// Whether it has partitions and none of them has a leader.
    pub(crate) fn is_offline(&self) -> bool {
        !self.partitions.is_empty() && self.partitions.iter().all(|partition| partition.leader.is_none())
    }

    /// Keeps of an earlier answer what is newer than in this one, which came from a broker that is behind. A topic that
    /// was created anew has another id, and begins with low epochs again.
    fn keep_newer(&mut self, known: &TopicInfo) {
        if known.id != self.id || self.id.is_zero() {
            return;
        }
        for partition in &mut self.partitions {
            if let Some(known) = known.partition(partition.index)
                && LeaderEpoch::NONE < partition.leader_epoch
                && partition.leader_epoch < known.leader_epoch
            {
                *partition = known.clone();
            }
        }
    }
}

/// The client's picture of the cluster, as of the last answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) brokers: HashMap<BrokerId, BrokerInfo>,
    pub(crate) controller: Option<BrokerId>,
    pub(crate) id: Option<String>,
    pub(crate) topics: HashMap<Arc<str>, Arc<TopicInfo>>,
    /// Brokers that could not be reached where they were said to be, since the last answer.
    pub(crate) suspects: HashSet<BrokerId>,
}

/// Where the leadership of a partition went, as a broker tells that had it (KIP-951).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) leader: BrokerId,
    pub(crate) epoch: LeaderEpoch,
    /// Where the leader is, if it says so.
    pub(crate) endpoint: Option<BrokerInfo>,
}

impl Hint {
    /// None where the broker does not know either.
    pub(crate) fn from_wire(leader: i32, epoch: i32, endpoint: Option<BrokerInfo>) -> Option<Hint> {
        Some(Hint { leader: broker(leader)?, epoch: LeaderEpoch(epoch), endpoint })
    }
}

impl Cluster {
    /// Takes over an answer; topics it does not mention stay. Gives the topics it does mention, or why they are not
    /// there.
    pub(crate) fn update(&mut self, answer: &MetadataResponse) -> Vec<(String, Result<Arc<TopicInfo>, Error>)> {
        self.brokers = answer
            .brokers
            .iter()
            .filter_map(|row| BrokerInfo::from_wire(row.node_id, &row.host, row.port, row.rack.as_ref()))
            .map(|broker| (broker.id, broker))
            .collect();
        self.suspects.clear();
        self.controller = broker(answer.controller_id);
        self.id = answer.cluster_id.as_ref().map(ToString::to_string).or(self.id.take());
        answer
            .topics
            .iter()
            .map(|row| {
                let name = row.name.as_deref().unwrap_or_default();
                match crate::error::check(|| format!("topic {name}"), row.error_code, None) {
                    Ok(()) => {
                        let mut topic = topic(name, row);
                        if let Some(known) = self.topics.get(name) {
                            topic.keep_newer(known);
                        }
                        let topic = Arc::new(topic);
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

    /// Whoever is at that address could not be reached: what it led has no known leader until the cluster was asked.
    pub(crate) fn suspect(&mut self, address: &str) {
        let there = self.brokers.values().filter(|broker| broker.address() == address).map(|broker| broker.id);
        let there: HashSet<BrokerId> = there.collect();
        let is_there = |partition: &PartitionInfo| partition.leader.is_some_and(|leader| there.contains(&leader));
        for topic in self.topics.values_mut().filter(|topic| topic.partitions.iter().any(is_there)) {
            for partition in Arc::make_mut(topic).partitions.iter_mut().filter(|partition| is_there(partition)) {
                partition.leader = None;
            }
        }
        self.suspects.extend(there);
    }

    /// Believes a hint if it is news. Gives whether it is, and the leader can be asked at once.
    pub(crate) fn moved(&mut self, at: &TopicPartition, hint: Hint) -> bool {
        if let Some(endpoint) = hint.endpoint
            && self.brokers.get(&endpoint.id) != Some(&endpoint)
        {
            self.suspects.remove(&endpoint.id);
            self.brokers.insert(endpoint.id, endpoint);
        }
        let reachable = self.brokers.contains_key(&hint.leader);
        let Some(topic) = self.topics.get_mut(&at.topic).filter(|_| reachable) else { return false };
        let Some(place) = topic.partitions.iter().position(|partition| partition.index == at.partition) else {
            return false;
        };
        let partition = &mut Arc::make_mut(topic).partitions[place];
        let known = (partition.leader_epoch, partition.leader.is_some());
        if (hint.epoch, true) <= known {
            return false;
        }
        (partition.leader, partition.leader_epoch) = (Some(hint.leader), hint.epoch);
        true
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
