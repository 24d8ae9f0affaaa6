//! What a node knows of the quorum, and when it may say that it leads (rule M1).
//!
//! The library calls a node leader from its election on, also while it hears nothing of the others. Here it is
//! *leading* only while a quorum has answered it within the largest election timeout (B23), and once everything that
//! its log held when that became so is applied: what earlier leaders had agreed on, and what it had proposed itself
//! before it lost touch. Next: `node.rs`.

use std::time::Duration;

use openraft::{RaftMetrics, ServerState};
use ottla_types::{BrokerId, LeaderEpoch, Tick};

use crate::{
    runtime::Instant,
    types::{Types, next_index, term_of},
};

/// The quorum as this node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Who leads; a leader that lost touch with its quorum does not name itself.
    pub leader: Option<BrokerId>,
    /// The term, which is the leader epoch.
    pub term: LeaderEpoch,
    /// This node leads, and may decide: a quorum answers it, and all that was agreed on before is applied.
    pub leading: bool,
    /// Who votes, old and new ones while they change.
    pub voters: Vec<BrokerId>,
    /// Who follows without a vote.
    pub observers: Vec<BrokerId>,
    /// The end of the log: the offset of the next entry.
    pub last: u64,
    /// The end of what is committed: the high watermark.
    pub committed: u64,
    /// The end of what is applied.
    pub applied: u64,
    /// How far each member is, this node included; known to the leader alone.
    pub progress: Vec<Progress>,
}

/// How far a member is, as the leader knows it (DescribeQuorum).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The member.
    pub id: BrokerId,
    /// The end of its log, as far as it is known to agree with the leader's.
    pub last: u64,
    /// When the leader sent the last request that it answered; none before the first, and for the leader itself.
    pub heard: Option<Tick>,
}

impl Status {
    /// Whether the other says the same of roles and members.
    pub(crate) fn same_roles(&self, other: &Status) -> bool {
        (self.leader, self.term, self.leading) == (other.leader, other.term, other.leading)
            && (&self.voters, &self.observers) == (&other.voters, &other.observers)
    }
}

/// Makes a [`Status`] of what the library says.
pub(crate) struct View {
    pub(crate) id: BrokerId,
    /// How long a quorum's answer makes a leader.
    pub(crate) lease: Duration,
    /// The end that must be applied before this node is leading; none while it cannot be.
    pub(crate) barrier: Option<u64>,
    /// The term whose leadership this node gives away.
    pub(crate) leaving: Option<i32>,
}

impl View {
    pub(crate) fn status(&mut self, metrics: &RaftMetrics<Types>, now: Instant) -> Status {
        let term = metrics.current_term;
        let members = &metrics.membership_config;
        let voters: Vec<BrokerId> = members.voter_ids().collect();
        let last = metrics.last_log_index.map_or(0, |index| index + 1);
        let leader = metrics.state == ServerState::Leader && metrics.current_leader == Some(self.id);
        let heard = metrics.last_quorum_acked.is_some_and(|acked| now < acked.into_inner() + self.lease);
        let in_touch = leader && (heard || voters == [self.id]);
        let may_lead = in_touch && self.leaving != Some(term) && metrics.running_state.is_ok();
        self.barrier = may_lead.then(|| self.barrier.unwrap_or(last));
        let applied = next_index(metrics.last_applied.as_ref());
        // An entry of its own term is among them: those of earlier terms are committed for sure.
        let of_this_term = metrics.last_applied.as_ref().is_some_and(|applied| term_of(applied) == term);
        Status {
            leader: metrics.current_leader.filter(|id| *id != self.id || in_touch),
            term: LeaderEpoch(term),
            leading: of_this_term && self.barrier.is_some_and(|barrier| barrier <= applied),
            observers: members.membership().learner_ids().collect(),
            voters,
            last,
            committed: next_index(metrics.local_committed.as_ref()),
            applied,
            progress: if leader { progress(self.id, metrics) } else { Vec::new() },
        }
    }
}

fn progress(me: BrokerId, metrics: &RaftMetrics<Types>) -> Vec<Progress> {
    let heard = |id: &BrokerId| {
        let at = metrics.heartbeat.as_ref()?.get(id)?.filter(|_| *id != me)?;
        Some(at.into_inner().to_tick())
    };
    let matched = metrics.replication.iter().flatten();
    matched.map(|(id, last)| Progress { id: *id, last: next_index(last.as_ref()), heard: heard(id) }).collect()
}
