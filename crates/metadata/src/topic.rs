//! A topic and its partitions, as the image holds them: who has a copy, who is in sync, who leads.
//!
//! What is not here: how a partition changes (`decide/transition.rs`) and what its configs mean (`config.rs`).

use std::sync::Arc;

use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionIndex, Timestamp, TopicId};

use crate::config::Overrides;

/// A topic with its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// When it was created, by the controller's wall clock.
    pub created: Timestamp,
    /// Its partitions by number.
    pub partitions: Vec<Partition>,
    /// The configs set on it.
    pub overrides: Overrides,
    /// Brokers whose registration has an older epoch have counted what was in memory alone, if the topic counts what is
    /// synced now and did not always ([`Record::TopicSynced`](crate::Record::TopicSynced)).
    pub synced_since: BrokerEpoch,
}

/// One partition of a topic.
///
/// Invariants, as decisions make it: ISR and ELR are disjoint and hold replicas only; a leader is in the ISR; where
/// nobody leads, the ISR is empty (rules A1, A3 and A4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// The brokers that hold it, the preferred leader first; while it is reassigned, the old and the new ones.
    pub replicas: Arc<[BrokerId]>,
    /// Those of them in sync.
    pub isr: Arc<[BrokerId]>,
    /// The eligible leader replicas (KIP-966): out of sync, but with every record that was ever committed.
    pub elr: Arc<[BrokerId]>,
    /// The one that takes writes; `None` while the partition is offline.
    pub leader: Option<BrokerId>,
    /// While nobody leads: who did last. `None` as well if that one's copy is known to be damaged or gone.
    pub last_known_leader: Option<BrokerId>,
    /// Rises with each change of `leader`, and when a replica is taken away.
    pub leader_epoch: LeaderEpoch,
    /// Rises with each change of any of this.
    pub partition_epoch: i32,
    /// Those of `replicas` that a reassignment adds (KIP-455).
    pub adding: Arc<[BrokerId]>,
    /// Those of `replicas` that go once all of `adding` are in sync.
    pub removing: Arc<[BrokerId]>,
    /// The leader was elected without certainty that it holds every committed record, and has not yet said that it has
    /// dealt with that. Until then its ISR is itself alone (rule A4).
    pub recovering: bool,
}

impl Topic {
    /// The partition of that number.
    pub fn partition(&self, index: PartitionIndex) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }

    /// Every partition with its number.
    pub fn numbered(&self) -> impl Iterator<Item = (PartitionIndex, &Partition)> {
        (0..).map(PartitionIndex).zip(&self.partitions)
    }
}

impl Partition {
    /// A new partition on these brokers: all in sync, led by the first.
    pub fn on(replicas: Arc<[BrokerId]>) -> Partition {
        Partition { leader: replicas.first().copied(), isr: replicas.clone(), replicas, ..Partition::default() }
    }

    /// The replica that should lead when it can.
    pub fn preferred_leader(&self) -> Option<BrokerId> {
        self.replicas.first().copied()
    }

    /// Whether replicas are being added or taken away.
    pub fn is_reassigning(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// The replicas it will have when the reassignment under way is complete; without one, those it has.
    pub fn target_replicas(&self) -> impl Iterator<Item = BrokerId> {
        self.replicas.iter().copied().filter(|replica| !self.removing.contains(replica))
    }

    /// How many replicas must be in sync for records to be committed: `min.insync.replicas`, as far as there are
    /// replicas. Those that are only being added don't count, or a topic with one copy could not get a second while it
    /// is written to.
    pub fn effective_min_isr(&self, min_insync_replicas: u32) -> usize {
        min_isr(self.replicas.len().saturating_sub(self.adding.len()), min_insync_replicas)
    }
}

/// `min.insync.replicas` as far as there are replicas.
pub(crate) fn min_isr(replicas: usize, min_insync_replicas: u32) -> usize {
    usize::try_from(min_insync_replicas).unwrap_or(usize::MAX).clamp(1, replicas.max(1))
}
