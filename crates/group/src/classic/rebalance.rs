//! How a generation comes to be: members are waited for, a leader and a protocol are chosen, everybody is told.

use std::{cmp, mem, sync::Arc};

use bytes::Bytes;

use super::{Group, Phase, Turn};
use crate::{Joined, JoinedMember, MemberId, Refusal, Reply, timers::Timer};

/// The first rebalance of a group waits a while for its first members, and again whenever another came meanwhile, for
/// as long as a rebalance may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct InitialDelay {
    delay_ms: i32,
    /// What it may still be prolonged by.
    remaining_ms: i32,
    pub(super) somebody_came: bool,
}

impl Group {
    /// Something has changed: begins a rebalance, or goes on with one.
    pub(super) fn rebalance(&mut self, turn: &mut Turn<'_>) {
        match self.phase {
            Phase::Preparing(_) => self.complete_if_all_came(turn),
            _ => self.prepare(turn),
        }
    }

    pub(super) fn prepare(&mut self, turn: &mut Turn<'_>) {
        if self.phase == Phase::Completing {
            self.forget_assignment(turn);
        }
        turn.timers.cancel(&Timer::Sync(Arc::clone(&self.id)));
        let delay_ms = turn.ctx.config.classic_initial_rebalance_delay_ms;
        if self.phase == Phase::Empty && delay_ms > 0 {
            let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms).max(0);
            self.wait_for_more(turn, delay_ms, remaining_ms);
            return;
        }
        let is_first = self.phase == Phase::Empty;
        self.phase = Phase::Preparing(None);
        // Whoever else was given an id may be gone; the first wait for members is the delay, be it none.
        if is_first || self.have_all_come() {
            self.complete(turn);
        } else {
            self.wait_for_members(turn);
        }
    }

    pub(super) fn complete_if_all_came(&mut self, turn: &mut Turn<'_>) {
        if self.phase == Phase::Preparing(None) && self.have_all_come() {
            self.complete(turn);
        }
    }

    /// The time for members to come is over.
    pub(crate) fn rebalance_due(&mut self, turn: &mut Turn<'_>) {
        match self.phase {
            Phase::Preparing(Some(InitialDelay { delay_ms, remaining_ms, somebody_came: true }))
                if remaining_ms > 0 =>
            {
                let next_ms = cmp::min(turn.ctx.config.classic_initial_rebalance_delay_ms, remaining_ms);
                self.wait_for_more(turn, next_ms, remaining_ms.saturating_sub(delay_ms).max(0));
            }
            Phase::Preparing(_) => self.complete(turn),
            // A group that was a consumer group until now: its members have to hear of it.
            Phase::Stable => self.prepare(turn),
            Phase::Empty | Phase::Completing => {}
        }
    }

    /// The time for members to ask for their assignment is over: who has not is gone. If there is still none, its
    /// leader is one of them, or it could not be written down.
    pub(crate) fn sync_due(&mut self, turn: &mut Turn<'_>) {
        let late: Vec<_> =
            self.members.iter().filter(|(_, member)| !member.has_synced).map(|(id, _)| Arc::clone(id)).collect();
        if self.phase == Phase::Completing || self.phase == Phase::Stable && !late.is_empty() {
            for id in &late {
                self.expel(turn, id, &Refusal::UnknownMemberId);
            }
            self.prepare(turn);
        }
    }

    fn wait_for_more(&mut self, turn: &mut Turn<'_>, delay_ms: i32, remaining_ms: i32) {
        self.phase = Phase::Preparing(Some(InitialDelay { delay_ms, remaining_ms, somebody_came: false }));
        turn.set(Timer::Rebalance(Arc::clone(&self.id)), delay_ms);
    }

    fn wait_for_members(&self, turn: &mut Turn<'_>) {
        turn.set(Timer::Rebalance(Arc::clone(&self.id)), self.rebalance_timeout_ms());
    }

    fn have_all_come(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some())
    }

    /// Ends the wait: a new generation of those who came, and of static members, who may come back until their session
    /// ends.
    fn complete(&mut self, turn: &mut Turn<'_>) {
        turn.timers.cancel(&Timer::Rebalance(Arc::clone(&self.id)));
        let is_gone = |member: &super::Member| member.joining.is_none() && member.instance.is_none();
        let gone: Vec<_> =
            self.members.iter().filter(|(_, member)| is_gone(member)).map(|(id, _)| Arc::clone(id)).collect();
        for id in &gone {
            self.expel(turn, id, &Refusal::UnknownMemberId);
        }
        if self.members.is_empty() {
            self.become_empty(turn);
        } else if self.elect() {
            self.begin_generation(turn);
        } else {
            // Nobody came, but there are static members whose sessions last.
            self.wait_for_members(turn);
        }
    }

    fn become_empty(&mut self, turn: &mut Turn<'_>) {
        self.phase = Phase::Empty;
        self.generation = self.next_generation();
        self.protocol = None;
        self.state_since = turn.ctx.wall;
        turn.out.records.push(self.value(self.state_since, |_, _| Bytes::new()));
    }

    /// Sees that somebody leads who is there; whether anybody is.
    fn elect(&mut self) -> bool {
        let has_come = |id: &&MemberId| self.members.get(*id).is_some_and(|member| member.joining.is_some());
        let leader = self.leader.iter().chain(self.members.keys()).find(has_come).cloned();
        let elected = leader.is_some();
        self.leader = leader.or(self.leader.take());
        elected
    }

    fn begin_generation(&mut self, turn: &mut Turn<'_>) {
        self.generation = self.next_generation();
        self.protocol = self.vote();
        self.phase = Phase::Completing;
        for member in self.members.values_mut() {
            member.is_new = false;
            member.has_synced = false;
        }
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in &ids {
            if let Some(ticket) = self.members.get_mut(id).and_then(|member| member.joining.take()) {
                turn.reply(ticket, Reply::Join(Ok(self.joined(id))));
                self.keep_alive(turn, id);
            }
        }
        turn.set(Timer::Sync(Arc::clone(&self.id)), self.rebalance_timeout_ms());
    }

    /// What a member is told about the generation; the leader gets everybody's metadata.
    pub(super) fn joined(&self, id: &MemberId) -> Joined {
        let leader = self.leader.clone().unwrap_or_default();
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            skip_assignment: false,
            member: Arc::clone(id),
            members: if *id == leader { self.joined_members() } else { Vec::new() },
            leader,
        }
    }

    fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter().map(|(id, member)| JoinedMember {
            member: Arc::clone(id),
            instance: member.instance.clone(),
            metadata: member.metadata(protocol),
        });
        members.collect()
    }

    /// The generation ends before it had an assignment.
    fn forget_assignment(&mut self, turn: &mut Turn<'_>) {
        for (id, member) in &mut self.members {
            member.assignment = Bytes::new();
            if let Some(ticket) = member.syncing.take() {
                turn.reply(ticket, Reply::Sync(Err(Refusal::RebalanceInProgress)));
                // It counted as alive while it waited, whatever its session said.
                turn.set(Timer::Session(Arc::clone(&self.id), Arc::clone(id)), member.session_timeout_ms);
            }
        }
    }

    fn next_generation(&self) -> i32 {
        self.generation.checked_add(1).unwrap_or(0)
    }

    /// Takes a member out and tells it, if it waits for something.
    pub(super) fn expel(&mut self, turn: &mut Turn<'_>, id: &MemberId, refusal: &Refusal) {
        turn.timers.cancel(&self.session(id));
        let Some(mut member) = self.remove(id) else { return };
        dismiss(turn, &mut member, id, refusal);
    }
}

/// Answers whatever a member waits for.
pub(super) fn dismiss(turn: &mut Turn<'_>, member: &mut super::Member, id: &MemberId, refusal: &Refusal) {
    if let Some(ticket) = mem::take(&mut member.joining) {
        turn.refuse_join(ticket, refusal.clone(), id);
    }
    if let Some(ticket) = mem::take(&mut member.syncing) {
        turn.reply(ticket, Reply::Sync(Err(refusal.clone())));
    }
}
