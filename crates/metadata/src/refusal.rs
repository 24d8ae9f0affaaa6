//! Why a command, or one row of it, is refused: a closed list, mapped to Kafka's codes in one place by the broker.
//!
//! What is not here: the codes themselves (`ottla-protocol`); each variant names the one it stands for.

use ottla_types::{BrokerId, TopicId};

use crate::config::ConfigError;

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
    /// `UNKNOWN_SERVER_ERROR` (-1): 2^63 producer ids are gone.
    #[error("There are no producer ids left.")]
    ProducerIdsExhausted,
}
