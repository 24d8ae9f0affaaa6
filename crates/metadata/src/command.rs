//! What the metadata machine can be asked for, with what each command carries.
//!
//! What is not here: what is answered (`reply.rs`) and who decides how (`decide.rs`).

use std::{collections::BTreeMap, sync::Arc};

use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionIndex, TopicId};

#[cfg(doc)]
use crate::Reply;
use crate::{Broker, BrokerFeature, Listener, config::Operation};

/// Something a broker or a client wants to be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Gives a new cluster its id and its feature levels; does nothing to one that has them.
    Bootstrap,
    /// A broker starts. It begins fenced, unless it is all there is. Refused while the session of the last process of
    /// that number is not known to have ended: it was not fenced, `ended` does not prove that it ended by itself,
    /// and the broker is not `alone` (rule A1). Answered with [`Reply::BrokerRegistered`].
    RegisterBroker(BrokerRegistration),
    /// A broker was not heard of for too long. Answered with [`Reply::Done`].
    FenceBroker {
        /// The broker.
        id: BrokerId,
        /// The registration that was not heard of.
        epoch: BrokerEpoch,
    },
    /// A broker has applied its own registration (rule M4): it may lead and be in sync. Answered with [`Reply::Done`].
    UnfenceBroker {
        /// The broker.
        id: BrokerId,
        /// Its registration.
        epoch: BrokerEpoch,
    },
    /// A broker is about to stop: what it leads goes to others in sync, and it leaves the ISRs that have others. May be
    /// asked again. Answered with [`Reply::ShuttingDown`].
    BeginShutdown {
        /// The broker.
        id: BrokerId,
        /// Its registration.
        epoch: BrokerEpoch,
    },
    /// A broker's copies of these partitions are damaged below what was durable (rule L5): they leave ISR and ELR, and
    /// a partition of which nothing else is left stays offline until an operator accepts the loss. Answered with
    /// [`Reply::Done`].
    ReportDamage {
        /// The broker.
        broker: BrokerId,
        /// Its registration.
        epoch: BrokerEpoch,
        /// Which partitions; those that are gone or not the broker's are passed over.
        partitions: Vec<DamagedCopy>,
    },
    /// A broker is gone for good: its number is not given out again. Refused while it is unfenced, or if a partition
    /// would lose its last trustworthy copy. Answered with [`Reply::Done`].
    UnregisterBroker {
        /// The broker.
        id: BrokerId,
    },
    /// A broker is decommissioned: it gets no new replicas, and some of those it has begin to move. To be asked again
    /// until none is left. Answered with [`Reply::Draining`].
    DrainBroker {
        /// The broker.
        id: BrokerId,
        /// `false` takes it back; moves under way are not undone.
        drain: bool,
    },
    /// The leaders of partitions want these ISRs (KIP-497). Answered with [`Reply::PartitionsAltered`].
    AlterPartitions {
        /// The broker that leads them.
        broker: BrokerId,
        /// Its registration.
        epoch: BrokerEpoch,
        /// What it wants.
        changes: Vec<IsrChange>,
    },
    /// An operator wants leaders elected (KIP-460). Answered with [`Reply::LeadersElected`].
    ElectLeaders {
        /// Which way.
        kind: Election,
        /// Of which partitions; `None` for all that need it.
        partitions: Option<Vec<(String, PartitionIndex)>>,
    },
    /// Time for `auto.leader.rebalance.enable`: preferred replicas lead again, on each broker that lacks more than this
    /// share of the leaderships it is preferred for. Answered with [`Reply::LeadersBalanced`].
    BalanceLeaders {
        /// `leader.imbalance.per.broker.percentage`, 10 by Kafka's default.
        threshold_percent: u32,
    },
    /// Replicas are to move (KIP-455). Answered with [`Reply::ReassignmentsAltered`].
    AlterReassignments {
        /// The replicas each partition is to have; `None` cancels what is under way.
        partitions: Vec<(String, PartitionIndex, Option<Vec<BrokerId>>)>,
        /// Whether the number of replicas may change (KIP-860).
        allow_factor_change: bool,
    },
    /// The internal topics get as many copies as their configs say, as far as there are brokers, by reassignment.
    /// Answered with [`Reply::Done`].
    RaiseInternalTopics,
    /// Replicas and preferred leaders are to be even over brokers and racks: some begin to move. Answered with
    /// [`Reply::Rebalanced`].
    Rebalance {
        /// Only say which.
        dry_run: bool,
    },
    /// Feature levels are raised or lowered: all that are named, or none (KIP-584, KIP-1022). Answered with
    /// [`Reply::Done`].
    UpdateFeatures {
        /// What to change.
        updates: Vec<FeatureUpdate>,
        /// Only say whether it could be done.
        validate_only: bool,
        /// What the brokers say they serve, as far as the controller has heard. It counts where the metadata does not
        /// hold it.
        reported: Reported,
    },
    /// A broker needs `count` producer ids (at least 1) to hand out. Answered with [`Reply::ProducerIds`].
    AllocateProducerIds {
        /// The broker.
        broker: BrokerId,
        /// Its registration, so that a replaced process is not served.
        epoch: BrokerEpoch,
        /// How many.
        count: u32,
    },
    /// Answered with [`Reply::TopicsCreated`], one row for each distinct name.
    CreateTopics {
        /// What to create.
        topics: Vec<NewTopic>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Groups need the topic of committed offsets: it is made as the group configs say, unless it is there. Answered
    /// with [`Reply::TopicsCreated`].
    CreateOffsetsTopic,
    /// Answered with [`Reply::TopicsDeleted`], one row for each distinct topic asked for.
    DeleteTopics {
        /// What to delete.
        topics: Vec<TopicRef>,
    },
    /// Answered with [`Reply::PartitionsCreated`], one row for each distinct name.
    CreatePartitions {
        /// What to grow.
        topics: Vec<NewPartitions>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Replaces all configs of each resource. Answered with [`Reply::ConfigsAltered`].
    AlterConfigs {
        /// What to change.
        resources: Vec<ConfigAlteration>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Changes some configs of each resource. Answered with [`Reply::ConfigsAltered`].
    IncrementalAlterConfigs {
        /// What to change.
        resources: Vec<IncrementalAlteration>,
        /// Only say what would happen.
        validate_only: bool,
    },
}

/// A broker that starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// Its number; `None` for the one its directory is known by, or else a new one.
    pub id: Option<BrokerId>,
    /// The id of its data directory, drawn once; not all zeros.
    pub directory: [u8; 16],
    /// Drawn at this start of the process.
    pub incarnation: [u8; 16],
    /// Where it stands.
    pub rack: Option<Arc<str>>,
    /// Where it can be reached.
    pub listeners: Arc<[Listener]>,
    /// What its data directory proves of the run before.
    pub ended: CleanEnd,
    /// The broker asks itself: it is its cluster's only controller, and knows that its last run has ended. If there are
    /// no other brokers and it leads all it has, it begins unfenced and goes on leading: nobody else could take part,
    /// and a start costs no records for each partition.
    pub alone: bool,
    /// The features it serves (KIP-584).
    pub features: Arc<[BrokerFeature]>,
}

/// What a data directory proves: that the broker's last runs ended with a clean shutdown (rules L6 and A2).
///
/// A run may end before it hears of its registration, and can't tell whether there is one. So both are named, the last
/// registration that was heard of and the runs since, and whichever of them the controller knows is the one that ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanEnd {
    /// The last registration that a run heard of.
    pub epoch: Option<BrokerEpoch>,
    /// The incarnations of the runs after it, none of which heard of a registration; the oldest first.
    pub unheard: Vec<[u8; 16]>,
}

impl CleanEnd {
    /// Beyond so many runs the oldest is forgotten. If it is the one the controller knows, the start is unclean.
    const MOST_UNHEARD: usize = 64;

    /// Whether that registration's run is proven to have ended cleanly.
    pub fn proves(&self, registered: &Broker) -> bool {
        self.epoch == Some(registered.epoch) || self.unheard.contains(&registered.incarnation)
    }

    /// What there is to prove once a run that began with this has ended cleanly too. `epoch` is its registration, if it
    /// heard of it.
    pub fn after(&self, incarnation: [u8; 16], epoch: Option<BrokerEpoch>) -> CleanEnd {
        if epoch.is_some() {
            return CleanEnd { epoch, unheard: Vec::new() };
        }
        let forgotten = (self.unheard.len() + 1).saturating_sub(CleanEnd::MOST_UNHEARD);
        let unheard = self.unheard.iter().skip(forgotten).copied().chain([incarnation]).collect();
        CleanEnd { epoch: self.epoch, unheard }
    }
}

/// What brokers say they serve, each with the registration it said it in: another run of it may serve something else.
/// An empty list is of a version of Ottla that does not tell.
pub type Reported = BTreeMap<BrokerId, (BrokerEpoch, Arc<[BrokerFeature]>)>;

/// A feature's level to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureUpdate {
    /// The feature's name.
    pub name: String,
    /// The level it is to have; 0 if it is not to be used.
    pub level: i16,
    /// In which direction.
    pub change: FeatureChange,
}

/// In which direction a feature's level may go (KIP-584's and KIP-778's upgrade types).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureChange {
    /// Up.
    Upgrade,
    /// Down, if nothing is lost by it.
    SafeDowngrade,
    /// Down. Ottla has no level that loses something: what is not safe is refused.
    UnsafeDowngrade,
}

/// A copy that can't be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedCopy {
    /// The topic.
    pub topic: TopicId,
    /// Its partition.
    pub index: PartitionIndex,
    /// The partition as the broker knows it. If it has changed since, the report may be an old one that was held up,
    /// and the copy made anew: it is refused, and the broker reports again if it still has reason to. `i32::MAX` is
    /// never refused.
    pub partition_epoch: i32,
}

/// An ISR that a leader wants (KIP-497). The epochs are those the leader knows, so that the controller sees what the
/// leader did not yet hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrChange {
    /// The topic.
    pub topic: TopicId,
    /// The partition's number.
    pub index: PartitionIndex,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// The state that the change starts from.
    pub partition_epoch: i32,
    /// The whole ISR, each member with the registration that the leader saw in its fetches (KIP-903).
    pub isr: Vec<(BrokerId, BrokerEpoch)>,
    /// Whether the leader still deals with an election that may have lost records.
    pub recovering: bool,
}

/// How a leader is elected when an operator asks (KIP-460).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// The preferred replica, if it is in sync.
    Preferred,
    /// Where nobody leads, any live replica; records that only others have are lost.
    Unclean,
}

/// A topic to create.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; -1 for `num.partitions`.
    pub partitions: i32,
    /// How many replicas each; -1 for `default.replication.factor`, and where nobody set that, 3 or as many as there
    /// are brokers.
    pub replication_factor: i16,
    /// The replicas of each partition by hand; empty to have them placed. With it, the two above must be -1.
    pub assignments: Vec<(PartitionIndex, Vec<BrokerId>)>,
    /// Its configs. A `None`, which the wire allows, is refused.
    pub configs: Vec<(String, Option<String>)>,
}

/// A topic by name or by id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicRef {
    /// By name.
    Name(String),
    /// By id.
    Id(TopicId),
}

/// A topic to grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPartitions {
    /// Its name.
    pub name: String,
    /// How many partitions it should have in all.
    pub count: i32,
    /// The replicas of each new partition by hand; `None` to have them placed.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

/// What configs are to be changed on, as a client names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlteredConfigs {
    /// A topic, by name.
    Topic(String),
    /// A broker, by number; `None` for the default of all brokers.
    Broker(Option<BrokerId>),
    /// A group, by id.
    Group(String),
}

/// All configs of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigAlteration {
    /// What to change.
    pub resource: AlteredConfigs,
    /// All it is to have. A `None`, which the wire allows, is refused.
    pub configs: Vec<(String, Option<String>)>,
}

/// Some configs of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncrementalAlteration {
    /// What to change.
    pub resource: AlteredConfigs,
    /// What to do with each config. A `None`, which the wire allows where a value is missing, is refused.
    pub operations: Vec<(String, Option<Operation>)>,
}
