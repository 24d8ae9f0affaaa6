//! JoinGroup: members come, for the first time or for the next generation.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Builder;

use super::{Group, Member, Phase, Turn, rebalance::dismiss};
use crate::{Join, MemberId, Refusal, Reply, Ticket, timers::Timer};

/// How long a member that has never heard from the group may wait to: its client may be gone, and nobody would know.
const NEW_MEMBER_TIMEOUT_MS: i32 = 5 * 60 * 1_000;

impl Group {
    pub(crate) fn join(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: Join) {
        if !self.has_room(turn, &join.member) {
            turn.refuse_join(ticket, Refusal::GroupMaxSizeReached, &MemberId::default());
            self.turn_away(turn, &join.member);
        } else if !self.supports(&join) {
            let why =
                "the group's protocol type is another, or it has no protocol in common with the member".to_owned();
            turn.refuse_join(ticket, Refusal::InconsistentGroupProtocol(why), &join.member);
        } else if join.member.is_empty() {
            self.join_new(turn, ticket, join);
        } else {
            self.join_known(turn, ticket, join);
        }
    }

    /// Whether there is room for the member. While members come it is about those who have: the last to come have to
    /// go if the limit was lowered.
    fn has_room(&self, turn: &Turn<'_>, id: &MemberId) -> bool {
        let max = turn.ctx.config.classic_max_size;
        let member = self.members.get(id);
        match self.phase {
            Phase::Empty => true,
            Phase::Preparing(_) => {
                member.is_some_and(|member| member.joining.is_some())
                    || self.members.values().filter(|member| member.joining.is_some()).count() < max
            }
            Phase::Completing | Phase::Stable => member.is_some() || self.members.len() < max,
        }
    }

    fn turn_away(&mut self, turn: &mut Turn<'_>, id: &MemberId) {
        self.forget_pending(turn, id);
        self.expel(turn, id, &Refusal::GroupMaxSizeReached);
        self.complete_if_all_came(turn);
    }

    fn join_new(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: Join) {
        let id = new_member_id(turn.entropy, &join);
        let predecessor = join.instance.as_ref().and_then(|instance| self.instances.get(instance)).cloned();
        match predecessor {
            Some(old) => self.replace(turn, ticket, join, &old, id),
            None if join.requires_member_id && join.instance.is_none() => {
                self.pending.insert(Arc::clone(&id));
                turn.set(Timer::PendingMember(Arc::clone(&self.id), Arc::clone(&id)), join.session_timeout_ms);
                turn.refuse_join(ticket, Refusal::MemberIdRequired, &id);
            }
            None => self.add(turn, ticket, join, id),
        }
    }

    fn join_known(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: Join) {
        if self.pending.contains(&join.member) && join.instance.is_none() {
            let id = Arc::clone(&join.member);
            return self.add(turn, ticket, join, id);
        }
        if let Err(refusal) = self.validate_member(&join.member, join.instance.as_ref()) {
            return turn.refuse_join(ticket, refusal, &join.member);
        }
        if self.changes_nothing(&join) {
            self.keep_alive(turn, &join.member);
            turn.reply(ticket, Reply::Join(Ok(self.joined(&join.member))));
        } else {
            let id = Arc::clone(&join.member);
            self.update(turn, ticket, join, &id);
            self.rebalance(turn);
        }
    }

    /// Whether the member has only missed the answer to its last JoinGroup. Once the group is stable, its leader joins
    /// because it wants to assign anew.
    fn changes_nothing(&self, join: &Join) -> bool {
        let is_same = self.members.get(&join.member).is_some_and(|member| member.protocols == join.protocols);
        match self.phase {
            Phase::Completing => is_same,
            Phase::Stable => is_same && self.leader.as_ref() != Some(&join.member),
            Phase::Empty | Phase::Preparing(_) => false,
        }
    }

    fn add(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: Join, id: MemberId) {
        if let Phase::Preparing(Some(delay)) = &mut self.phase {
            delay.somebody_came = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(Arc::clone(&join.protocol_type));
        }
        self.forget_pending(turn, &id);
        turn.set(self.session(&id), NEW_MEMBER_TIMEOUT_MS);
        self.insert(
            id,
            Member {
                instance: join.instance,
                client_id: join.client_id,
                client_host: join.client_host,
                session_timeout_ms: join.session_timeout_ms,
                rebalance_timeout_ms: join.rebalance_timeout_ms,
                protocols: join.protocols,
                assignment: Bytes::new(),
                joining: Some(ticket),
                syncing: None,
                is_new: true,
                has_synced: false,
            },
        );
        self.rebalance(turn);
    }

    /// A member that is there comes to the next generation.
    fn update(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: Join, id: &MemberId) {
        let Some(member) = self.members.get_mut(id) else { return };
        // The client has given up on what it asked before.
        dismiss(turn, member, id, &Refusal::RebalanceInProgress);
        member.session_timeout_ms = join.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.protocols = join.protocols;
        member.joining = Some(ticket);
    }

    /// A static member comes back under a new id (KIP-345): it has its old place, and its predecessor has none.
    fn replace(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: Join, old: &MemberId, id: MemberId) {
        let led = self.leader.clone();
        let Some(mut member) = self.remove(old) else { return };
        dismiss(turn, &mut member, old, &Refusal::FencedInstanceId);
        turn.timers.cancel(&self.session(old));
        if led.as_ref() == Some(old) {
            self.leader = Some(Arc::clone(&id));
        }
        self.insert(Arc::clone(&id), member);
        let (skips, session_timeout_ms) = (join.supports_skipping_assignment, join.session_timeout_ms);
        turn.set(self.session(&id), session_timeout_ms);
        self.update(turn, ticket, join, &id);
        if self.phase == Phase::Stable && self.vote() == self.protocol {
            self.take_over(turn, &id, led, skips);
        } else {
            // In a generation without an assignment too: its leader knows the old id alone.
            self.rebalance(turn);
        }
    }

    /// The generation goes on with the new id in place of the old one.
    fn take_over(&mut self, turn: &mut Turn<'_>, id: &MemberId, led: Option<MemberId>, skips: bool) {
        turn.out.records.push(self.value(turn.ctx.wall, |_, member| member.assignment.clone()));
        let Some(ticket) = self.members.get_mut(id).and_then(|member| member.joining.take()) else { return };
        let mut joined = self.joined(id);
        if skips {
            joined.skip_assignment = joined.leader == *id;
        } else {
            // Told that it leads, it would assign; so it hears of a leader that is gone (KIP-814).
            joined.leader = led.unwrap_or_default();
            joined.members.clear();
        }
        turn.reply(ticket, Reply::Join(Ok(joined)));
    }
}

/// An id for a member that comes without one: a name that people know, and chance.
pub(crate) fn new_member_id(entropy: &mut dyn FnMut() -> [u8; 16], join: &Join) -> MemberId {
    let uuid = Builder::from_random_bytes(entropy()).into_uuid();
    format!("{}-{uuid}", join.instance.as_ref().unwrap_or(&join.client_id)).into()
}
