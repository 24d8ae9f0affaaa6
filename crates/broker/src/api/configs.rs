//! What the admin handlers share: from resources on the wire to commands, from the controller's refusals to Kafka's
//! codes (here and nowhere else), and the outcome of a command as one result for each row of an answer.
//!
//! Not here: which value a config may have and who wins (`ottla_metadata::config`). Next: `alter_configs.rs`,
//! `describe_configs.rs`.

use std::collections::BTreeMap;

use bytestring::ByteString;
use ottla_metadata::{AlteredConfigs, Refusal, Reply, Rows};
use ottla_node::SubmitError;
use ottla_protocol::ErrorCode;
use ottla_types::BrokerId;

/// Kafka's numbers for the kinds of resource that have configs.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// Why a row of an admin request was not done, as the client is told.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) code: ErrorCode,
    pub(super) message: ByteString,
}

impl Failure {
    pub(super) fn new(code: ErrorCode, message: impl Into<ByteString>) -> Failure {
        Failure { code, message: message.into() }
    }

    pub(super) fn invalid_request(message: impl Into<ByteString>) -> Failure {
        Failure::new(ErrorCode::InvalidRequest, message)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::new(code_of(&refusal), refusal.to_string())
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Failure {
        match error {
            SubmitError::Refused(refusal) => refusal.into(),
            // Retriable, and true: with room on the disk the same request will pass.
            SubmitError::Storage(_) => Failure::new(ErrorCode::KafkaStorageError, error.to_string()),
            SubmitError::NotController(_) => Failure::new(ErrorCode::NotController, error.to_string()),
            SubmitError::InDoubt => Failure::new(ErrorCode::RequestTimedOut, error.to_string()),
        }
    }
}

fn code_of(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::InvalidTopic(_) => ErrorCode::InvalidTopicException,
        Refusal::TopicExists(_) => ErrorCode::TopicAlreadyExists,
        Refusal::UnknownTopic(_) | Refusal::UnknownPartition(..) => ErrorCode::UnknownTopicOrPartition,
        Refusal::UnknownTopicId(_) => ErrorCode::UnknownTopicId,
        Refusal::DeletionDisabled => ErrorCode::TopicDeletionDisabled,
        Refusal::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
        Refusal::InvalidReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
        Refusal::InvalidAssignment(_) => ErrorCode::InvalidReplicaAssignment,
        Refusal::InvalidTopicConfig(_) | Refusal::InvalidGroupConfig(_) => ErrorCode::InvalidConfig,
        Refusal::InvalidBrokerConfig(_) | Refusal::InvalidRequest(_) => ErrorCode::InvalidRequest,
        Refusal::TooMuch(_) => ErrorCode::PolicyViolation,
        Refusal::StaleBrokerEpoch(_) => ErrorCode::StaleBrokerEpoch,
        Refusal::DuplicateRegistration(_) => ErrorCode::DuplicateBrokerRegistration,
        Refusal::BrokerNotRegistered(_) => ErrorCode::BrokerIdNotRegistered,
        Refusal::NotController => ErrorCode::NotController,
        Refusal::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
        Refusal::InvalidUpdateVersion | Refusal::InvalidLevel { .. } => ErrorCode::InvalidUpdateVersion,
        Refusal::UnsupportedLevel(_) => ErrorCode::UnsupportedVersion,
        Refusal::IneligibleReplica(..) => ErrorCode::IneligibleReplica,
        Refusal::NewLeaderElected => ErrorCode::NewLeaderElected,
        Refusal::ElectionNotNeeded => ErrorCode::ElectionNotNeeded,
        Refusal::PreferredLeaderNotAvailable => ErrorCode::PreferredLeaderNotAvailable,
        Refusal::EligibleLeadersNotAvailable => ErrorCode::EligibleLeadersNotAvailable,
        Refusal::NoReassignmentInProgress => ErrorCode::NoReassignmentInProgress,
        Refusal::ProducerIdsExhausted => ErrorCode::UnknownServerError,
    }
}

/// The outcome of a command, row by row. Where nothing of it was done, each of what was `asked` gets the reason.
pub(super) fn rows<K, T>(
    outcome: Result<Reply, SubmitError>,
    asked: Vec<K>,
    pick: fn(Reply) -> Option<Rows<K, T>>,
) -> Vec<(K, Result<T, Failure>)> {
    let failure = match outcome.map(pick) {
        Ok(Some(rows)) => return rows.into_iter().map(|(key, row)| (key, row.map_err(Failure::from))).collect(),
        Ok(None) => Failure::new(ErrorCode::UnknownServerError, "the controller answered another command"),
        Err(error) => error.into(),
    };
    asked.into_iter().map(|key| (key, Err(failure.clone()))).collect()
}

/// The resource that a client wants to change.
pub(super) fn altered(resource_type: i8, name: &str) -> Result<AlteredConfigs, Failure> {
    match resource_type {
        TOPIC => Ok(AlteredConfigs::Topic(name.to_owned())),
        BROKER if name.is_empty() => Ok(AlteredConfigs::Broker(None)),
        BROKER => {
            let id = name
                .parse()
                .map_err(|_| Failure::invalid_request(format!("Broker id must be an integer, but it is: {name}")))?;
            Ok(AlteredConfigs::Broker(Some(BrokerId(id))))
        }
        BROKER_LOGGER => Err(Failure::invalid_request("Log levels cannot be changed at run time.")),
        CLIENT_METRICS => Err(Failure::invalid_request("Client metrics are not served.")),
        GROUP => Ok(AlteredConfigs::Group(name.to_owned())),
        other => Err(Failure::invalid_request(format!("Unknown resource type {other}."))),
    }
}

/// What became of the resources of an alteration; a resource that is asked for twice has one outcome.
pub(super) struct Altered(BTreeMap<AlteredConfigs, Result<(), Failure>>);

impl Altered {
    pub(super) fn of(outcome: Result<Reply, SubmitError>, asked: Vec<AlteredConfigs>) -> Altered {
        let pick = |reply| match reply {
            Reply::ConfigsAltered(rows) => Some(rows),
            _ => None,
        };
        Altered(rows(outcome, asked, pick).into_iter().collect())
    }

    /// The code and text for one resource, `NONE` and no text where it was done.
    pub(super) fn answer(&self, resource: &Result<AlteredConfigs, Failure>) -> (i16, Option<ByteString>) {
        let failure = match resource {
            Ok(resource) => self.0.get(resource).and_then(|row| row.as_ref().err()),
            Err(failure) => Some(failure),
        };
        match failure {
            None => (ErrorCode::None.code(), None),
            Some(failure) => (failure.code.code(), Some(failure.message.clone())),
        }
    }
}
