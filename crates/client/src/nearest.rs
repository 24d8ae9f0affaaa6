//! Where a consumer reads each partition: of its leader, or for a while of the follower that the leader sent it to,
//! because that one is nearer (KIP-392).
//!
//! What is not here: the fetches, and what sends a consumer back to the leader (`consumer.rs`).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use ottla_types::BrokerId;

use crate::TopicPartition;

/// How long a follower is read before the leader is asked again: `metadata.max.age.ms` of Kafka's clients.
const LEASE: Duration = Duration::from_secs(300);

/// The partitions that are read of a follower, and until when.
#[derive(Debug, Default)]
pub(crate) struct Nearest(HashMap<TopicPartition, (BrokerId, Instant)>);

impl Nearest {
    /// The follower to read `at` of; none if it is the leader.
    pub(crate) fn of(&self, at: &TopicPartition, now: Instant) -> Option<BrokerId> {
        self.0.get(at).filter(|(_, until)| *until > now).map(|(broker, _)| *broker)
    }

    /// The leader sends us to `broker`.
    pub(crate) fn sent_to(&mut self, at: &TopicPartition, broker: BrokerId, now: Instant) {
        self.0.insert(at.clone(), (broker, now + LEASE));
    }

    /// Back to the leader; whether it was a follower before.
    pub(crate) fn forget(&mut self, at: &TopicPartition) -> bool {
        self.0.remove(at).is_some()
    }
}
