//! [`ErrorCode`]: the numbers by which a response says what went wrong.
//!
//! Not here: errors of decoding (`error.rs`). The names, numbers and the retriable mark are Kafka's (protocol guide,
//! "Error Codes"); the texts are ours.

use std::fmt;

macro_rules! error_codes {
    ($($code:literal $name:ident $kafka:ident $retriable:ident $message:literal)*) => {
        /// An error code of Kafka's protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", stringify!($kafka), "`: ", $message, ".")] $name = $code,)*
        }

        impl ErrorCode {
            /// All of them, by ascending number.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The code with that number, if Kafka has given it a meaning.
            pub const fn from_code(code: i16) -> Option<ErrorCode> {
                match code {
                    $($code => Some(ErrorCode::$name),)*
                    _ => None,
                }
            }

            /// Kafka's name, such as `NOT_LEADER_OR_FOLLOWER`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => stringify!($kafka),)*
                }
            }

            /// Whether the same request may succeed later, perhaps at another broker.
            pub const fn is_retriable(self) -> bool {
                match self {
                    $(ErrorCode::$name => error_codes!(@ $retriable),)*
                }
            }

            /// What it means, in one line without a full stop.
            pub const fn message(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $message,)*
                }
            }
        }
    };
    (@ retriable) => { true };
    (@ fatal) => { false };
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.message())
    }
}

impl std::error::Error for ErrorCode {}

error_codes! {
    -1 UnknownServerError UNKNOWN_SERVER_ERROR fatal "the broker failed in a way it did not expect"
    0 None NONE fatal "no error"
    1 OffsetOutOfRange OFFSET_OUT_OF_RANGE fatal "the offset lies outside the partition's log"
    2 CorruptMessage CORRUPT_MESSAGE retriable
        "the records are damaged: wrong checksum, wrong size, or no key where the topic needs one"
    3 UnknownTopicOrPartition UNKNOWN_TOPIC_OR_PARTITION retriable "this broker has no such topic or partition"
    4 InvalidFetchSize INVALID_FETCH_SIZE fatal "the fetch size is not valid"
    5 LeaderNotAvailable LEADER_NOT_AVAILABLE retriable "the partition has no leader at the moment"
    6 NotLeaderOrFollower NOT_LEADER_OR_FOLLOWER retriable
        "this broker is not the partition's leader, or holds no replica of it"
    7 RequestTimedOut REQUEST_TIMED_OUT retriable "the request took too long"
    8 BrokerNotAvailable BROKER_NOT_AVAILABLE fatal "the broker is not available"
    9 ReplicaNotAvailable REPLICA_NOT_AVAILABLE retriable "this replica cannot be read at the moment"
    10 MessageTooLarge MESSAGE_TOO_LARGE fatal "a batch is larger than the topic allows"
    11 StaleControllerEpoch STALE_CONTROLLER_EPOCH fatal "the controller has changed"
    12 OffsetMetadataTooLarge OFFSET_METADATA_TOO_LARGE fatal "the metadata stored with an offset is too long"
    13 NetworkException NETWORK_EXCEPTION retriable "the connection broke before the answer came"
    14 CoordinatorLoadInProgress COORDINATOR_LOAD_IN_PROGRESS retriable "the coordinator is still loading its state"
    15 CoordinatorNotAvailable COORDINATOR_NOT_AVAILABLE retriable "there is no coordinator at the moment"
    16 NotCoordinator NOT_COORDINATOR retriable "this broker is not the coordinator"
    17 InvalidTopicException INVALID_TOPIC_EXCEPTION fatal
        "the topic's name is not valid, or the topic may not be used this way"
    18 RecordListTooLarge RECORD_LIST_TOO_LARGE fatal "the batch is larger than a segment"
    19 NotEnoughReplicas NOT_ENOUGH_REPLICAS retriable "too few replicas are in sync to accept the records"
    20 NotEnoughReplicasAfterAppend NOT_ENOUGH_REPLICAS_AFTER_APPEND retriable
        "the records were written, but too few replicas hold them"
    21 InvalidRequiredAcks INVALID_REQUIRED_ACKS fatal "acks must be -1, 0 or 1"
    22 IllegalGeneration ILLEGAL_GENERATION fatal "the generation is not the group's current one"
    23 InconsistentGroupProtocol INCONSISTENT_GROUP_PROTOCOL fatal
        "the member's protocols do not fit those of the group"
    24 InvalidGroupId INVALID_GROUP_ID fatal "the group's name is not valid"
    25 UnknownMemberId UNKNOWN_MEMBER_ID fatal "the group has no such member"
    26 InvalidSessionTimeout INVALID_SESSION_TIMEOUT fatal "the session timeout is outside the broker's limits"
    27 RebalanceInProgress REBALANCE_IN_PROGRESS fatal "the group is rebalancing, members have to join again"
    28 InvalidCommitOffsetSize INVALID_COMMIT_OFFSET_SIZE fatal "the offset commit is too large"
    29 TopicAuthorizationFailed TOPIC_AUTHORIZATION_FAILED fatal "no permission for the topic"
    30 GroupAuthorizationFailed GROUP_AUTHORIZATION_FAILED fatal "no permission for the group"
    31 ClusterAuthorizationFailed CLUSTER_AUTHORIZATION_FAILED fatal "no permission for the cluster"
    32 InvalidTimestamp INVALID_TIMESTAMP fatal "the record's timestamp is too far from the broker's clock"
    33 UnsupportedSaslMechanism UNSUPPORTED_SASL_MECHANISM fatal "the SASL mechanism is not enabled"
    34 IllegalSaslState ILLEGAL_SASL_STATE fatal "the request does not fit the state of the SASL exchange"
    35 UnsupportedVersion UNSUPPORTED_VERSION fatal "the version of the request is not supported"
    36 TopicAlreadyExists TOPIC_ALREADY_EXISTS fatal "the topic exists already"
    37 InvalidPartitions INVALID_PARTITIONS fatal "a topic needs at least one partition, and may not lose any"
    38 InvalidReplicationFactor INVALID_REPLICATION_FACTOR fatal
        "the replication factor is below one or above the number of brokers"
    39 InvalidReplicaAssignment INVALID_REPLICA_ASSIGNMENT fatal "the replica assignment is not valid"
    40 InvalidConfig INVALID_CONFIG fatal "a configuration value is not valid"
    41 NotController NOT_CONTROLLER retriable "this node is not the controller"
    42 InvalidRequest INVALID_REQUEST fatal "the request makes no sense to the broker"
    43 UnsupportedForMessageFormat UNSUPPORTED_FOR_MESSAGE_FORMAT fatal "the record format does not allow this"
    44 PolicyViolation POLICY_VIOLATION fatal "a policy of the cluster forbids this"
    45 OutOfOrderSequenceNumber OUT_OF_ORDER_SEQUENCE_NUMBER fatal "the sequence number is not the next one"
    46 DuplicateSequenceNumber DUPLICATE_SEQUENCE_NUMBER fatal "the sequence number was used before"
    47 InvalidProducerEpoch INVALID_PRODUCER_EPOCH fatal "the producer's epoch is out of date"
    48 InvalidTxnState INVALID_TXN_STATE fatal "the transaction is in a state that does not allow this"
    49 InvalidProducerIdMapping INVALID_PRODUCER_ID_MAPPING fatal
        "the producer id does not belong to the transactional id"
    50 InvalidTransactionTimeout INVALID_TRANSACTION_TIMEOUT fatal "the transaction timeout is above the broker's limit"
    51 ConcurrentTransactions CONCURRENT_TRANSACTIONS retriable
        "another operation on the transaction is not finished yet"
    52 TransactionCoordinatorFenced TRANSACTION_COORDINATOR_FENCED fatal
        "a newer transaction coordinator has taken over"
    53 TransactionalIdAuthorizationFailed TRANSACTIONAL_ID_AUTHORIZATION_FAILED fatal
        "no permission for the transactional id"
    54 SecurityDisabled SECURITY_DISABLED fatal "security is not enabled"
    55 OperationNotAttempted OPERATION_NOT_ATTEMPTED fatal "not attempted, because another part of the request failed"
    56 KafkaStorageError KAFKA_STORAGE_ERROR retriable "the broker cannot read or write its disk"
    57 LogDirNotFound LOG_DIR_NOT_FOUND fatal "the broker has no such log directory"
    58 SaslAuthenticationFailed SASL_AUTHENTICATION_FAILED fatal "authentication failed"
    59 UnknownProducerId UNKNOWN_PRODUCER_ID fatal "the broker knows nothing of the producer id"
    60 ReassignmentInProgress REASSIGNMENT_IN_PROGRESS fatal "the partition is being reassigned"
    61 DelegationTokenAuthDisabled DELEGATION_TOKEN_AUTH_DISABLED fatal "delegation tokens are not enabled"
    62 DelegationTokenNotFound DELEGATION_TOKEN_NOT_FOUND fatal "there is no such delegation token"
    63 DelegationTokenOwnerMismatch DELEGATION_TOKEN_OWNER_MISMATCH fatal
        "the principal neither owns nor may renew the token"
    64 DelegationTokenRequestNotAllowed DELEGATION_TOKEN_REQUEST_NOT_ALLOWED fatal
        "delegation tokens cannot be requested over this connection"
    65 DelegationTokenAuthorizationFailed DELEGATION_TOKEN_AUTHORIZATION_FAILED fatal
        "no permission for the delegation token"
    66 DelegationTokenExpired DELEGATION_TOKEN_EXPIRED fatal "the delegation token has expired"
    67 InvalidPrincipalType INVALID_PRINCIPAL_TYPE fatal "the type of principal is not supported"
    68 NonEmptyGroup NON_EMPTY_GROUP fatal "the group still has members"
    69 GroupIdNotFound GROUP_ID_NOT_FOUND fatal "there is no such group"
    70 FetchSessionIdNotFound FETCH_SESSION_ID_NOT_FOUND retriable "there is no such fetch session"
    71 InvalidFetchSessionEpoch INVALID_FETCH_SESSION_EPOCH retriable
        "the fetch session's epoch is not the expected one"
    72 ListenerNotFound LISTENER_NOT_FOUND retriable "the leader has no listener of the name the request came through"
    73 TopicDeletionDisabled TOPIC_DELETION_DISABLED fatal "topics cannot be deleted on this cluster"
    74 FencedLeaderEpoch FENCED_LEADER_EPOCH retriable "the request's leader epoch is older than the broker's"
    75 UnknownLeaderEpoch UNKNOWN_LEADER_EPOCH retriable "the request's leader epoch is newer than the broker's"
    76 UnsupportedCompressionType UNSUPPORTED_COMPRESSION_TYPE fatal "the client cannot read the topic's compression"
    77 StaleBrokerEpoch STALE_BROKER_EPOCH fatal "the broker has registered anew since"
    78 OffsetNotAvailable OFFSET_NOT_AVAILABLE retriable "the new leader does not know the end of the log yet"
    79 MemberIdRequired MEMBER_ID_REQUIRED fatal "the member has to join again with the id it was given"
    80 PreferredLeaderNotAvailable PREFERRED_LEADER_NOT_AVAILABLE retriable "the preferred leader is not available"
    81 GroupMaxSizeReached GROUP_MAX_SIZE_REACHED fatal "the group is full"
    82 FencedInstanceId FENCED_INSTANCE_ID fatal "another member has taken over the group instance id"
    83 EligibleLeadersNotAvailable ELIGIBLE_LEADERS_NOT_AVAILABLE retriable "no replica is fit to become leader"
    84 ElectionNotNeeded ELECTION_NOT_NEEDED retriable "the partition needs no election"
    85 NoReassignmentInProgress NO_REASSIGNMENT_IN_PROGRESS fatal "no reassignment is in progress"
    86 GroupSubscribedToTopic GROUP_SUBSCRIBED_TO_TOPIC fatal "the group still subscribes to the topic"
    87 InvalidRecord INVALID_RECORD fatal "a record is not valid"
    88 UnstableOffsetCommit UNSTABLE_OFFSET_COMMIT retriable "a transaction on these offsets is still open"
    89 ThrottlingQuotaExceeded THROTTLING_QUOTA_EXCEEDED retriable "a quota is used up"
    90 ProducerFenced PRODUCER_FENCED fatal "a newer producer with this transactional id has taken over"
    91 ResourceNotFound RESOURCE_NOT_FOUND fatal "there is no such resource"
    92 DuplicateResource DUPLICATE_RESOURCE fatal "the request names a resource twice"
    93 UnacceptableCredential UNACCEPTABLE_CREDENTIAL fatal "the credential is too weak or otherwise not acceptable"
    94 InconsistentVoterSet INCONSISTENT_VOTER_SET fatal "the voters do not agree on who votes"
    95 InvalidUpdateVersion INVALID_UPDATE_VERSION fatal "the feature's new level is not valid"
    96 FeatureUpdateFailed FEATURE_UPDATE_FAILED fatal "the features could not be updated"
    97 PrincipalDeserializationFailure PRINCIPAL_DESERIALIZATION_FAILURE fatal
        "the forwarded principal could not be read"
    98 SnapshotNotFound SNAPSHOT_NOT_FOUND fatal "there is no such snapshot"
    99 PositionOutOfRange POSITION_OUT_OF_RANGE fatal "the position lies outside the snapshot"
    100 UnknownTopicId UNKNOWN_TOPIC_ID retriable "this broker has no topic with that id"
    101 DuplicateBrokerRegistration DUPLICATE_BROKER_REGISTRATION fatal "the broker id is in use"
    102 BrokerIdNotRegistered BROKER_ID_NOT_REGISTERED fatal "the broker id is not registered"
    103 InconsistentTopicId INCONSISTENT_TOPIC_ID retriable "the topic id is not the one the log was written under"
    104 InconsistentClusterId INCONSISTENT_CLUSTER_ID fatal "the request is meant for another cluster"
    105 TransactionalIdNotFound TRANSACTIONAL_ID_NOT_FOUND fatal "there is no such transactional id"
    106 FetchSessionTopicIdError FETCH_SESSION_TOPIC_ID_ERROR retriable
        "the fetch session mixes topic names and topic ids"
    107 IneligibleReplica INELIGIBLE_REPLICA fatal "a replica is not fit to join the in-sync replicas"
    108 NewLeaderElected NEW_LEADER_ELECTED fatal "the change was made, and the leader has changed with it"
    109 OffsetMovedToTieredStorage OFFSET_MOVED_TO_TIERED_STORAGE fatal "the offset is in tiered storage"
    110 FencedMemberEpoch FENCED_MEMBER_EPOCH fatal
        "the member's epoch is out of date, it has to give up its partitions and join again"
    111 UnreleasedInstanceId UNRELEASED_INSTANCE_ID fatal "the group instance id is still in use by another member"
    112 UnsupportedAssignor UNSUPPORTED_ASSIGNOR fatal "the group does not support this assignor"
    113 StaleMemberEpoch STALE_MEMBER_EPOCH fatal
        "the member's epoch is out of date, the next heartbeat brings the new one"
    114 MismatchedEndpointType MISMATCHED_ENDPOINT_TYPE fatal "the request is meant for another kind of endpoint"
    115 UnsupportedEndpointType UNSUPPORTED_ENDPOINT_TYPE fatal "this kind of endpoint is not supported"
    116 UnknownControllerId UNKNOWN_CONTROLLER_ID fatal "there is no controller with that id"
    117 UnknownSubscriptionId UNKNOWN_SUBSCRIPTION_ID fatal "the telemetry subscription is out of date"
    118 TelemetryTooLarge TELEMETRY_TOO_LARGE fatal "the telemetry is larger than the broker accepts"
    119 InvalidRegistration INVALID_REGISTRATION fatal "the broker's registration is not valid"
    120 TransactionAbortable TRANSACTION_ABORTABLE fatal "the transaction has failed and can be aborted"
    121 InvalidRecordState INVALID_RECORD_STATE fatal "the record's state does not allow this acknowledgement"
    122 ShareSessionNotFound SHARE_SESSION_NOT_FOUND retriable "there is no such share session"
    123 InvalidShareSessionEpoch INVALID_SHARE_SESSION_EPOCH retriable
        "the share session's epoch is not the expected one"
    124 FencedStateEpoch FENCED_STATE_EPOCH fatal "the share group's state epoch is out of date"
    125 InvalidVoterKey INVALID_VOTER_KEY fatal "the voter's key is not this replica's"
    126 DuplicateVoter DUPLICATE_VOTER fatal "the voter exists already"
    127 VoterNotFound VOTER_NOT_FOUND fatal "there is no such voter"
    128 InvalidRegularExpression INVALID_REGULAR_EXPRESSION fatal "the regular expression is not valid"
    129 RebootstrapRequired REBOOTSTRAP_REQUIRED fatal
        "the client's metadata is too old, it has to start from its bootstrap servers"
    130 StreamsInvalidTopology STREAMS_INVALID_TOPOLOGY fatal "the streams topology is not valid"
    131 StreamsInvalidTopologyEpoch STREAMS_INVALID_TOPOLOGY_EPOCH fatal "the streams topology's epoch is not valid"
    132 StreamsTopologyFenced STREAMS_TOPOLOGY_FENCED fatal "the streams topology's epoch is out of date"
    133 ShareSessionLimitReached SHARE_SESSION_LIMIT_REACHED retriable
        "the broker holds as many share sessions as it may"
}
