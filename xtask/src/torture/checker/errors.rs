//! Which errors mean that something surely did not happen. All others leave it open: it may have, or still may.
//!
//! NOT_LEADER_OR_FOLLOWER, timeouts, lost connections and UNKNOWN_SERVER_ERROR are not here on purpose: the write may
//! survive all of them (KAFKA-13574). Names are Kafka's; librdkafka's differ in a few.

const DEFINITE: [&str; 18] = [
    "TOPIC_AUTHORIZATION_FAILED",
    "CLUSTER_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
    "INVALID_TOPIC_EXCEPTION",
    "TOPIC_EXCEPTION",
    "INVALID_REPLICATION_FACTOR",
    "UNKNOWN_TOPIC_OR_PARTITION",
    "UNKNOWN_TOPIC_OR_PART",
    "PRODUCER_FENCED",
    "INVALID_PRODUCER_EPOCH",
    "OUT_OF_ORDER_SEQUENCE_NUMBER",
    "BROKER_NOT_AVAILABLE",
    // Commits of members that are no longer, or not yet, what they say they are.
    "ILLEGAL_GENERATION",
    "UNKNOWN_MEMBER_ID",
    "FENCED_INSTANCE_ID",
    "FENCED_MEMBER_EPOCH",
    "STALE_MEMBER_EPOCH",
];

pub(super) fn is_definite(error: &str) -> bool {
    DEFINITE.contains(&error)
}
