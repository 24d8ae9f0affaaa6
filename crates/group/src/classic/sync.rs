//! SyncGroup and Heartbeat: what members of a generation ask.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use super::{Group, Phase, Turn};
use crate::{Heartbeat, MemberId, Refusal, Reply, Sync, Synced, Ticket};

impl Group {
    pub(crate) fn sync(&mut self, turn: &mut Turn<'_>, ticket: Ticket, sync: Sync) {
        if let Err(refusal) = self.validate_sync(&sync) {
            return turn.reply(ticket, Reply::Sync(Err(refusal)));
        }
        self.note_sync(&sync.member);
        let assignment = self.members.get(&sync.member).map(|member| member.assignment.clone()).unwrap_or_default();
        if self.phase == Phase::Stable {
            self.keep_alive(turn, &sync.member);
            return turn.reply(ticket, Reply::Sync(Ok(self.synced(assignment))));
        }
        let waited = self.members.get_mut(&sync.member).and_then(|member| member.syncing.replace(ticket));
        if let Some(older) = waited {
            // The client has given up on that request.
            turn.reply(older, Reply::Sync(Err(Refusal::RebalanceInProgress)));
        }
        if self.leader.as_ref() == Some(&sync.member) {
            self.assign(turn, sync.assignments);
        }
    }

    pub(crate) fn heartbeat(&self, turn: &mut Turn<'_>, heartbeat: &Heartbeat) -> Result<(), Refusal> {
        self.validate_member(&heartbeat.member, heartbeat.instance.as_ref())?;
        if heartbeat.generation != self.generation {
            return Err(Refusal::IllegalGeneration);
        }
        self.keep_alive(turn, &heartbeat.member);
        if matches!(self.phase, Phase::Preparing(_)) { Err(Refusal::RebalanceInProgress) } else { Ok(()) }
    }

    fn validate_sync(&self, sync: &Sync) -> Result<(), Refusal> {
        self.validate_member(&sync.member, sync.instance.as_ref())?;
        if sync.generation != self.generation {
            return Err(Refusal::IllegalGeneration);
        }
        let differs = |said: &Option<Arc<str>>, is: &Option<Arc<str>>| said.is_some() && said != is;
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            let why = "the protocol is not the one that the group has chosen".to_owned();
            return Err(Refusal::InconsistentGroupProtocol(why));
        }
        if matches!(self.phase, Phase::Preparing(_)) { Err(Refusal::RebalanceInProgress) } else { Ok(()) }
    }

    fn note_sync(&mut self, id: &MemberId) {
        if let Some(member) = self.members.get_mut(id) {
            member.has_synced = true;
        }
    }

    /// The leader has assigned. The group is stable once that is written down; if it can't be, the leader tries again.
    fn assign(&mut self, turn: &mut Turn<'_>, assignments: Vec<(MemberId, Bytes)>) {
        let assignments: HashMap<MemberId, Bytes> = assignments.into_iter().collect();
        let assignment = |id: &MemberId| assignments.get(id).cloned().unwrap_or_default();
        turn.out.records.push(self.value(turn.ctx.wall, |id, _| assignment(id)));
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in &ids {
            if let Some(ticket) = self.members.get_mut(id).and_then(|member| member.syncing.take()) {
                turn.reply(ticket, Reply::Sync(Ok(self.synced(assignment(id)))));
                // It counted as alive while it waited, whatever its session said.
                self.keep_alive(turn, id);
            }
        }
    }

    fn synced(&self, assignment: Bytes) -> Synced {
        Synced { protocol_type: self.protocol_type.clone(), protocol: self.protocol.clone(), assignment }
    }
}
