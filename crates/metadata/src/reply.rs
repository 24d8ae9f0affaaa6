//! What a command is answered with, once its records are committed.
//!
//! What is not here: the commands (`command.rs`) and why one may not (`refusal.rs`).

use std::sync::Arc;

use ottla_types::{BrokerEpoch, BrokerId, PartitionIndex, ProducerId, TopicId};

use crate::{AlteredConfigs, Partition, Refusal, TopicRef, config::Overrides};

/// One answer for each distinct thing a command names, in the order of first mention.
pub type Rows<K, T> = Vec<(K, Result<T, Refusal>)>;

/// What to answer once the records are committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The cluster's id.
    Bootstrapped(Arc<str>),
    /// It is so.
    Done,
    /// The broker's registration.
    BrokerRegistered {
        /// Its number, which it may have asked for.
        id: BrokerId,
        /// Its epoch. The broker has applied its registration once its image's offset is above.
        epoch: BrokerEpoch,
    },
    /// The broker may stop once it leads nothing, or nothing more that others could take.
    ShuttingDown {
        /// How many partitions it still leads, because nobody else is in sync.
        leaderships: usize,
    },
    /// The broker is being drained.
    Draining {
        /// How many partitions it still holds.
        left: usize,
    },
    /// A row for each change, in their order: the partition as it is now. A change that ends a reassignment may elect
    /// another leader: then it is committed and refused with [`Refusal::NewLeaderElected`].
    PartitionsAltered(Rows<(TopicId, PartitionIndex), Partition>),
    /// A row for each distinct partition; if all were asked for, only for those that needed an election.
    LeadersElected(Rows<(String, PartitionIndex), ()>),
    /// Preferred replicas lead again.
    LeadersBalanced {
        /// How many.
        elected: usize,
    },
    /// A row for each distinct partition.
    ReassignmentsAltered(Rows<(String, PartitionIndex), ()>),
    /// What moves, or would.
    Rebalanced(Vec<Move>),
    /// The ids from the first on, as many as were asked for.
    ProducerIds(ProducerId),
    /// A row for each distinct name.
    TopicsCreated(Rows<String, CreatedTopic>),
    /// A row for each distinct name or id.
    TopicsDeleted(Rows<TopicRef, DeletedTopic>),
    /// A row for each distinct name.
    PartitionsCreated(Rows<String, ()>),
    /// A row for each distinct resource.
    ConfigsAltered(Rows<AlteredConfigs, ()>),
}

/// A topic as CreateTopics v5+ reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id; zero if it was only validated.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: i32,
    /// How many replicas each has.
    pub replication_factor: i16,
    /// The configs set on it; [`crate::config::Layers::topic_entries`] makes the full list.
    pub overrides: Overrides,
}

/// A topic that is gone, by both its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its name.
    pub name: Arc<str>,
    /// Its id.
    pub id: TopicId,
}

/// A change of one partition's replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub index: PartitionIndex,
    /// The replicas it has.
    pub from: Arc<[BrokerId]>,
    /// The replicas it is to have. The same ones in another order only change which is preferred to lead.
    pub to: Arc<[BrokerId]>,
}
