//! Members' commands, on their way to their group: which kind it is, whether it is there, and when one kind becomes the
//! other.

use std::sync::Arc;

use ottla_types::{Tick, TopicId};

use super::{Context, Coordinator, Decision, Group, Ticket};
use crate::{
    ConsumerHeartbeat, ConsumerHeartbeatReply, GroupId, Heartbeat, Join, JoinRefusal, Leave, LeavingMember, LeftMember,
    MemberId, Record, Refusal, Reply, Sync,
    classic::{self, Turn, new_member_id},
    consumer,
    timers::Timer,
};

/// When to expel a member again that may still be there. If it is gone, nothing happens.
const RETRY_MS: u64 = 1_000;

impl Coordinator {
    pub(super) fn join(&mut self, ctx: &Context<'_>, ticket: Ticket, join: Join, out: &mut Decision) {
        match self.groups.get_mut(&join.group) {
            Some(Group::Consumer(group)) if !group.is_empty() => {
                let new_member = new_member_id(&mut self.entropy, &join);
                let result = group.classic_join(ctx, &mut self.timers, &join, new_member);
                let result = result.map(|(records, joined)| {
                    out.records.extend(records);
                    joined
                });
                return out.replies.push((ticket, Reply::Join(result)));
            }
            Some(Group::Classic(_)) => {}
            // Who brings an id was in a group that is no more.
            None | Some(Group::Consumer(_)) if !join.member.is_empty() => {
                let refusal = JoinRefusal { refusal: Refusal::UnknownMemberId, member: join.member };
                return out.replies.push((ticket, Reply::Join(Err(refusal))));
            }
            found => {
                if let Some(Group::Consumer(empty)) = found {
                    out.records.extend(empty.tombstones());
                    out.changes_kind = true;
                }
                let group = classic::Group::new(Arc::clone(&join.group));
                self.groups.insert(Arc::clone(&join.group), Group::Classic(group));
            }
        }
        let id = Arc::clone(&join.group);
        self.on_classic(ctx, &id, out, |group, turn| group.join(turn, ticket, join));
    }

    pub(super) fn sync(&mut self, ctx: &Context<'_>, ticket: Ticket, sync: Sync, out: &mut Decision) {
        let id = Arc::clone(&sync.group);
        match self.groups.get_mut(&id) {
            None => out.replies.push((ticket, Reply::Sync(Err(Refusal::UnknownMemberId)))),
            Some(Group::Consumer(group)) => {
                let result = group.classic_sync(ctx, &mut self.timers, &sync);
                out.replies.push((ticket, Reply::Sync(result)));
            }
            Some(Group::Classic(_)) => self.on_classic(ctx, &id, out, |group, turn| group.sync(turn, ticket, sync)),
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        ctx: &Context<'_>,
        heartbeat: &Heartbeat,
        out: &mut Decision,
    ) -> Result<(), Refusal> {
        match self.groups.get_mut(&heartbeat.group) {
            None => Err(Refusal::UnknownMemberId),
            Some(Group::Consumer(group)) => group.classic_heartbeat(ctx, &mut self.timers, heartbeat),
            Some(Group::Classic(group)) => {
                let turn = &mut Turn { ctx, timers: &mut self.timers, entropy: &mut self.entropy, out };
                group.heartbeat(turn, heartbeat)
            }
        }
    }

    pub(super) fn leave(&mut self, ctx: &Context<'_>, leave: Leave, out: &mut Decision) -> Vec<LeftMember> {
        let Leave { group: id, members } = leave;
        match self.groups.get_mut(&id) {
            None => left(members, std::iter::repeat(Err(Refusal::UnknownMemberId))),
            Some(Group::Consumer(group)) => {
                let (records, results) = group.leave(ctx, &mut self.timers, &members);
                out.records.extend(records);
                left(members, results.into_iter())
            }
            Some(Group::Classic(_)) => {
                let mut rows = Vec::new();
                self.on_classic(ctx, &id, out, |group, turn| rows = group.leave(turn, members));
                rows
            }
        }
    }

    pub(super) fn consumer_heartbeat(
        &mut self,
        ctx: &Context<'_>,
        mut request: ConsumerHeartbeat,
        out: &mut Decision,
    ) -> Result<ConsumerHeartbeatReply, Refusal> {
        if request.member.is_empty() && request.member_epoch == 0 && !request.client_makes_ids {
            request.member = TopicId::from_bytes((self.entropy)()).to_string().into();
        }
        consumer::validate(ctx.config, &request)?;
        let id = Arc::clone(&request.group);
        if let Some(Group::Consumer(group)) = self.groups.get_mut(&id) {
            let (records, reply) = group.heartbeat(ctx, &mut self.timers, &request)?;
            out.records.extend(records);
            return Ok(reply);
        }
        if request.member_epoch != 0 {
            return Err(Refusal::GroupIdNotFound(format!("Group {id} is not a consumer group.")));
        }
        let (mut records, mut group) = self.new_consumer_group(ctx, &id)?;
        let (more, reply) = group.heartbeat(ctx, &mut self.timers, &request)?;
        records.extend(more);
        out.changes_kind = true;
        if let Some(Group::Classic(old)) = self.groups.insert(id, Group::Consumer(group)) {
            old.dissolve(&mut Turn { ctx, timers: &mut self.timers, entropy: &mut self.entropy, out });
        }
        out.records.extend(records);
        Ok(reply)
    }

    /// The consumer group that a first member comes to, with the records that make it of the classic group there was.
    fn new_consumer_group(
        &mut self,
        ctx: &Context<'_>,
        id: &GroupId,
    ) -> Result<(Vec<Record>, consumer::Group), Refusal> {
        match self.groups.get(id) {
            Some(Group::Classic(group)) if !group.is_empty() => {
                consumer::upgrade(ctx, &mut self.timers, group.upgradable())
            }
            Some(Group::Classic(group)) if group.exists() => {
                let tombstone = Record::ClassicGroup(Arc::clone(id), None);
                Ok((vec![tombstone], consumer::Group::new(Arc::clone(id))))
            }
            _ => Ok((Vec::new(), consumer::Group::new(Arc::clone(id)))),
        }
    }

    pub(super) fn session_expired(
        &mut self,
        ctx: &Context<'_>,
        group: &GroupId,
        member: &MemberId,
        out: &mut Decision,
    ) {
        if let Some(Group::Consumer(consumers)) = self.groups.get_mut(group) {
            out.records.extend(consumers.session_expired(ctx, &mut self.timers, member));
            self.try_again(ctx, Timer::Session(Arc::clone(group), Arc::clone(member)), out);
        } else {
            self.on_classic(ctx, group, out, |group, turn| group.session_expired(turn, member));
        }
    }

    pub(super) fn revocation_overdue(
        &mut self,
        ctx: &Context<'_>,
        group: &GroupId,
        member: &MemberId,
        out: &mut Decision,
    ) {
        if let Some(Group::Consumer(consumers)) = self.groups.get_mut(group) {
            out.records.extend(consumers.revocation_overdue(ctx, &mut self.timers, member));
            self.try_again(ctx, Timer::Revocation(Arc::clone(group), Arc::clone(member)), out);
        }
    }

    /// A consumer group changes by records alone, and these may not get written down.
    fn try_again(&mut self, ctx: &Context<'_>, timer: Timer, out: &Decision) {
        if !out.records.is_empty() {
            self.timers.set(timer, Tick(ctx.now.0.saturating_add(RETRY_MS)));
        }
    }

    /// Does something to a classic group, and forgets it if there is nothing to it any more.
    pub(super) fn on_classic(
        &mut self,
        ctx: &Context<'_>,
        id: &GroupId,
        out: &mut Decision,
        work: impl FnOnce(&mut classic::Group, &mut Turn<'_>),
    ) {
        let Some(Group::Classic(group)) = self.groups.get_mut(id) else { return };
        work(group, &mut Turn { ctx, timers: &mut self.timers, entropy: &mut self.entropy, out });
        if !group.exists() && !group.has_pending() && !self.offsets.has(id) {
            self.groups.remove(id);
        }
    }
}

fn left(members: Vec<LeavingMember>, results: impl Iterator<Item = Result<(), Refusal>>) -> Vec<LeftMember> {
    let row = |(LeavingMember { member, instance, .. }, result)| LeftMember { member, instance, result };
    members.into_iter().zip(results).map(row).collect()
}
