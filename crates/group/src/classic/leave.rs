//! How members go: they leave, somebody removes them, or they are not heard of any more.

use std::sync::Arc;

use super::{Group, Phase, Turn};
use crate::{LeavingMember, LeftMember, MemberId, Refusal, timers::Timer};

impl Group {
    /// LeaveGroup: one row for each member.
    pub(crate) fn leave(&mut self, turn: &mut Turn<'_>, leaving: Vec<LeavingMember>) -> Vec<LeftMember> {
        let mut rows = Vec::with_capacity(leaving.len());
        for LeavingMember { member, instance, .. } in leaving {
            let result = self.leave_one(turn, &member, instance.as_ref());
            rows.push(LeftMember { member, instance, result });
        }
        if rows.iter().any(|row| row.result.is_ok()) {
            self.go_on_without(turn);
        }
        rows
    }

    fn leave_one(&mut self, turn: &mut Turn<'_>, id: &MemberId, instance: Option<&Arc<str>>) -> Result<(), Refusal> {
        if self.pending.contains(id) {
            self.forget_pending(turn, id);
            return Ok(());
        }
        let id = if id.is_empty() {
            // An admin knows static members by their instance alone.
            instance.and_then(|instance| self.instances.get(instance)).cloned().ok_or(Refusal::UnknownMemberId)?
        } else {
            self.validate_member(id, instance)?;
            Arc::clone(id)
        };
        self.expel(turn, &id, &Refusal::UnknownMemberId);
        Ok(())
    }

    /// A member has not been heard of for its session timeout.
    pub(crate) fn session_expired(&mut self, turn: &mut Turn<'_>, id: &MemberId) {
        let Some(member) = self.members.get(id) else { return };
        // Who waits for the group is alive, as far as the group can know; but of a new member it never knew.
        let waits = member.joining.is_some() || member.syncing.is_some();
        if member.is_new || !waits {
            self.expel(turn, id, &Refusal::UnknownMemberId);
            self.go_on_without(turn);
        }
    }

    /// Nobody has come with an id that was given.
    pub(crate) fn pending_expired(&mut self, turn: &mut Turn<'_>, id: &MemberId) {
        self.pending.remove(id);
        self.complete_if_all_came(turn);
    }

    pub(super) fn forget_pending(&mut self, turn: &mut Turn<'_>, id: &MemberId) {
        if self.pending.remove(id) {
            turn.timers.cancel(&Timer::PendingMember(Arc::clone(&self.id), Arc::clone(id)));
        }
    }

    fn go_on_without(&mut self, turn: &mut Turn<'_>) {
        if self.phase != Phase::Empty {
            self.rebalance(turn);
        }
    }
}
