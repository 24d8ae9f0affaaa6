//! The ISR as its leader sees it: what the controller committed, and what the leader asks it to commit (KIP-497).
//!
//! The controller alone decides (I1). Until it is known what became of a proposal, both ISRs may be true, so that the
//! high watermark waits for the members of either: the maximal ISR (I2, B8). Not here: who is asked and when an answer
//! counts (`replica.rs`).

use std::sync::Arc;

use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};

use crate::{
    Assignment, Settings,
    leader::{Follower, Leader},
};

/// What a leader asks the controller to commit (AlterPartition).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrProposal {
    /// The leadership that asks.
    pub leader_epoch: LeaderEpoch,
    /// The partition as the leader knows it: the controller refuses if it has changed since.
    pub partition_epoch: i32,
    /// The members, each with the registration it fetched under (KIP-903); -1 where that is not known: of this broker
    /// itself, which the caller knows, and of members that have not fetched under this leadership.
    pub isr: Vec<(BrokerId, BrokerEpoch)>,
    /// False: whoever was elected uncleanly has taken over (KIP-704).
    pub recovering: bool,
}

/// What the controller committed, as its answer to a proposal has it (KIP-497): all but the replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedIsr {
    /// The leader.
    pub leader: Option<BrokerId>,
    /// Its epoch.
    pub leader_epoch: LeaderEpoch,
    /// Counts the changes of the partition.
    pub partition_epoch: i32,
    /// The replicas in sync.
    pub isr: Arc<[BrokerId]>,
    /// The leader was elected uncleanly and has not taken over yet (KIP-704).
    pub recovering: bool,
}

/// Why a proposal was not committed, as far as the leader has to know (I2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsrRefusal {
    /// It never will be: INELIGIBLE_REPLICA, OPERATION_NOT_ATTEMPTED. What was committed before is all there is.
    NotAttempted,
    /// The partition is not what the leader thinks, so that newer metadata is on its way and decides:
    /// FENCED_LEADER_EPOCH, INVALID_UPDATE_VERSION, INVALID_REQUEST, NEW_LEADER_ELECTED, an unknown topic.
    Superseded,
    /// Nobody knows whether it was: no answer, NOT_CONTROLLER, any other error. It is proposed again at the next tick.
    Unanswered,
}

/// A proposal whose fate is not known.
#[derive(Debug)]
pub(crate) struct Pending {
    proposal: IsrProposal,
    /// To be sent once more.
    again: bool,
}

/// What a proposal is made from.
pub(crate) struct Facts<'a> {
    pub(crate) me: BrokerId,
    pub(crate) assignment: &'a Assignment,
    pub(crate) settings: &'a Settings,
    pub(crate) high_watermark: Offset,
}

impl Leader {
    /// Whether a broker is in the ISR, or will be if what is proposed gets committed.
    pub(crate) fn is_in_maximal_isr(&self, assignment: &Assignment, broker: BrokerId) -> bool {
        let pending = self.pending.as_ref().map_or(&[][..], |pending| pending.proposal.isr.as_slice());
        assignment.isr.contains(&broker) || pending.iter().any(|(member, _)| *member == broker)
    }

    /// The next proposal, if there is anything to propose and none is pending. Who lags leaves only when time has
    /// passed (`ticked`).
    pub(crate) fn propose(&mut self, facts: &Facts<'_>, ticked: bool) -> Option<IsrProposal> {
        if let Some(pending) = &mut self.pending {
            let again = ticked && std::mem::take(&mut pending.again);
            return again.then(|| pending.proposal.clone());
        }
        if self.refused {
            return None;
        }
        let assignment = facts.assignment;
        let lags = |broker: &BrokerId| {
            let follower = self.followers.iter().find(|follower| follower.broker == *broker);
            ticked && *broker != facts.me && follower.is_some_and(|follower| !follower.in_sync)
        };
        let joins = |follower: &&Follower| self.may_join(follower, facts);
        let leaves = assignment.isr.iter().any(lags);
        if !assignment.recovering && !leaves && !self.followers.iter().any(|follower| joins(&follower)) {
            return None;
        }
        let stay = assignment.isr.iter().copied().filter(|broker| !lags(broker));
        let join = self.followers.iter().filter(joins).map(|follower| follower.broker);
        let proposal = IsrProposal {
            leader_epoch: assignment.leader_epoch,
            partition_epoch: assignment.partition_epoch,
            isr: stay.chain(join).map(|broker| (broker, self.broker_epoch(broker))).collect(),
            recovering: false,
        };
        self.pending = Some(Pending { proposal: proposal.clone(), again: false });
        Some(proposal)
    }

    /// Whether a follower may join the ISR (I4, B9, B10): it is no member yet, it has fetched under this leadership all
    /// that is committed and all that the leader began with, and its broker is in good standing. While a leader that
    /// was elected uncleanly takes over nobody does (A4).
    fn may_join(&self, follower: &Follower, facts: &Facts<'_>) -> bool {
        let held = follower.counted(facts.settings.durability);
        !facts.assignment.recovering
            && follower.eligible
            && held.is_some_and(|held| held >= facts.high_watermark && (held >= self.epoch_start || cfg!(zoo = "B9")))
            && !self.is_in_maximal_isr(facts.assignment, follower.broker)
    }

    fn broker_epoch(&self, broker: BrokerId) -> BrokerEpoch {
        let follower = self.followers.iter().find(|follower| follower.broker == broker);
        follower.map_or(BrokerEpoch(-1), |follower| follower.broker_epoch)
    }

    /// The controller did not commit what was proposed.
    pub(crate) fn on_refused(&mut self, refusal: IsrRefusal) {
        match refusal {
            IsrRefusal::NotAttempted => {
                self.pending = None;
                self.refused = true;
            }
            IsrRefusal::Superseded => {}
            IsrRefusal::Unanswered if cfg!(zoo = "B11") => self.pending = None,
            IsrRefusal::Unanswered => {
                if let Some(pending) = &mut self.pending {
                    pending.again = true;
                }
            }
        }
    }
}
