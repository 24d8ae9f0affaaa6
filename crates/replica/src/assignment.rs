//! What a replica is told: its partition as the controller committed it, and its topic's settings.
//!
//! Not here: how either is come by. Next: `replica.rs` for what becomes of it.

use std::sync::Arc;

use ottla_types::{BrokerId, LeaderEpoch, Tick};

use crate::{CommittedIsr, NotEnoughReplicas};

/// When a record counts as held by a replica (`ottla.durability`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it is synced to disk (the default; rule L13).
    Fsync,
    /// Once it is in the page cache, as with Kafka.
    Replicated,
}

/// The settings of a partition that its replicas need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When a record counts as held.
    pub durability: Durability,
    /// `min.insync.replicas`, 1 or more; no more than there are replicas counts (KIP-966).
    pub min_insync_replicas: usize,
    /// `replica.lag.time.max.ms`: a follower that has not been at the leader's end for longer leaves the ISR.
    pub lag_max: Tick,
}

/// What the controller committed about a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The broker that leads; `None` while nobody can.
    pub leader: Option<BrokerId>,
    /// Counts the leaderships (KIP-101).
    pub leader_epoch: LeaderEpoch,
    /// Counts the changes of the partition (KIP-497), from 0.
    pub partition_epoch: i32,
    /// The brokers that have a copy, or are to have one.
    pub replicas: Arc<[BrokerId]>,
    /// Those of them that a reassignment adds (KIP-455).
    pub adding: Arc<[BrokerId]>,
    /// The in-sync replicas.
    pub isr: Arc<[BrokerId]>,
    /// The leader was elected uncleanly and has not taken over yet (KIP-704): nobody may join the ISR (A4).
    pub recovering: bool,
}

impl Assignment {
    /// Whether an append with `acks=all` may go in: asked before it, so that nothing is written that can't be
    /// acknowledged (I6). Replicas that are only being added are not asked for, or a topic with one copy could not get
    /// a second while it is written to.
    pub fn check_min_isr(&self, min_insync_replicas: usize) -> Result<(), NotEnoughReplicas> {
        let in_sync = self.isr.len();
        let there = self.replicas.len().saturating_sub(self.adding.len()).max(1);
        let required = min_insync_replicas.min(there);
        if in_sync >= required { Ok(()) } else { Err(NotEnoughReplicas { in_sync, required }) }
    }

    /// The partition once the controller has committed that of the same leadership. Its replicas stay, but those being
    /// added may be all there now. The controller may have seen a reason not to call the reassignment complete; asking
    /// for more in sync than it does is safe.
    pub(crate) fn with(&self, committed: CommittedIsr) -> Assignment {
        let CommittedIsr { leader, leader_epoch, partition_epoch, isr, recovering } = committed;
        let added = self.adding.iter().all(|broker| isr.contains(broker));
        let adding = if added { Arc::default() } else { self.adding.clone() };
        Assignment { leader, leader_epoch, partition_epoch, replicas: self.replicas.clone(), adding, isr, recovering }
    }

    /// Before anything is known; every other is newer.
    pub(crate) fn none() -> Assignment {
        Assignment {
            leader: None,
            leader_epoch: LeaderEpoch::NONE,
            partition_epoch: -1,
            replicas: Arc::default(),
            adding: Arc::default(),
            isr: Arc::default(),
            recovering: false,
        }
    }

    /// Whether `other` is the same leadership.
    pub(crate) fn is_led_as(&self, other: &Assignment) -> bool {
        self.leader == other.leader && (self.leader_epoch == other.leader_epoch || cfg!(zoo = "B3"))
    }
}
