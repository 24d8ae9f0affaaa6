//! Why a command, or one row of it, is refused: a closed list, mapped to Kafka's codes in one place by the broker.
//!
//! What is not here: the codes themselves (`ottla-protocol`); each variant names the one it stands for.

use ottla_types::{BrokerId, PartitionIndex, TopicId};

use crate::{UnsupportedLevel, config::ConfigError};

/// A refusal; its text is for the client's `error_message`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `INVALID_TOPIC_EXCEPTION` (17): a name that cannot be, or collides with another.
    #[error("{0}")]
    InvalidTopic(String),
    /// `TOPIC_ALREADY_EXISTS` (36)
    #[error("Topic '{0}' already exists.")]
    TopicExists(String),
    /// `UNKNOWN_TOPIC_OR_PARTITION` (3)
    #[error("The topic '{0}' does not exist.")]
    UnknownTopic(String),
    /// `UNKNOWN_TOPIC_OR_PARTITION` (3)
    #[error("The topic '{0}' has no partition {1}.")]
    UnknownPartition(String, PartitionIndex),
    /// `UNKNOWN_TOPIC_ID` (100)
    #[error("There is no topic of id {0}.")]
    UnknownTopicId(TopicId),
    /// `TOPIC_DELETION_DISABLED` (73)
    #[error("Topic deletion is disabled: delete.topic.enable is false.")]
    DeletionDisabled,
    /// `INVALID_PARTITIONS` (37)
    #[error("{0}")]
    InvalidPartitions(String),
    /// `INVALID_REPLICATION_FACTOR` (38)
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// `INVALID_REPLICA_ASSIGNMENT` (39)
    #[error("{0}")]
    InvalidAssignment(String),
    /// `INVALID_CONFIG` (40): of a topic.
    #[error("{0}")]
    InvalidTopicConfig(ConfigError),
    /// `INVALID_CONFIG` (40): of a group.
    #[error("{0}")]
    InvalidGroupConfig(ConfigError),
    /// `INVALID_REQUEST` (42): of a broker (KAFKA-13609 keeps this odd code).
    #[error("{0}")]
    InvalidBrokerConfig(ConfigError),
    /// `INVALID_REQUEST` (42): the request contradicts itself.
    #[error("{0}")]
    InvalidRequest(String),
    /// `POLICY_VIOLATION` (44): more than one request may ask for.
    #[error("{0}")]
    TooMuch(String),
    /// `STALE_BROKER_EPOCH` (77): the broker has registered again since.
    #[error("The registration of broker {0} that asks has been replaced.")]
    StaleBrokerEpoch(BrokerId),
    /// `DUPLICATE_BROKER_REGISTRATION` (101): another process has the number, and is not known to have ended (rule A1).
    #[error("Another process is registered as broker {0}, and its session has not ended.")]
    DuplicateRegistration(BrokerId),
    /// `BROKER_ID_NOT_REGISTERED` (102)
    #[error("Broker {0} is not registered.")]
    BrokerNotRegistered(BrokerId),
    /// `NOT_CONTROLLER` (41): the asking leader knows a newer state than this image holds.
    #[error("The partition's state that the leader knows is newer than the controller's.")]
    NotController,
    /// `FENCED_LEADER_EPOCH` (74)
    #[error("The partition has begun a newer leader epoch.")]
    FencedLeaderEpoch,
    /// `INVALID_UPDATE_VERSION` (95)
    #[error("The partition has changed since the state that the change starts from.")]
    InvalidUpdateVersion,
    /// `INVALID_UPDATE_VERSION` (95): a feature can't have that level.
    #[error("Invalid update version {level} for feature {name}. {why}")]
    InvalidLevel {
        /// The feature.
        name: String,
        /// The level that was asked for.
        level: i16,
        /// Why not.
        why: String,
    },
    /// `UNSUPPORTED_VERSION` (35): a broker can't serve what the cluster has finalised.
    #[error(transparent)]
    UnsupportedLevel(#[from] UnsupportedLevel),
    /// `INELIGIBLE_REPLICA` (107): fenced, shutting down, or registered again since the leader saw it.
    #[error("Broker {0} can't join the ISR: {1}.")]
    IneligibleReplica(BrokerId, &'static str),
    /// `NEW_LEADER_ELECTED` (108): the change is committed, and with it ended a reassignment and this leadership.
    #[error("The change ended a reassignment, and another replica leads now.")]
    NewLeaderElected,
    /// `ELECTION_NOT_NEEDED` (84)
    #[error("The partition has the leader that was asked for.")]
    ElectionNotNeeded,
    /// `PREFERRED_LEADER_NOT_AVAILABLE` (80)
    #[error("The preferred leader is not live and in sync.")]
    PreferredLeaderNotAvailable,
    /// `ELIGIBLE_LEADERS_NOT_AVAILABLE` (83)
    #[error("No replica of the partition is live.")]
    EligibleLeadersNotAvailable,
    /// `NO_REASSIGNMENT_IN_PROGRESS` (85)
    #[error("No reassignment of the partition is in progress.")]
    NoReassignmentInProgress,
    /// `UNKNOWN_SERVER_ERROR` (-1): 2^63 producer ids are gone.
    #[error("There are no producer ids left.")]
    ProducerIdsExhausted,
}
