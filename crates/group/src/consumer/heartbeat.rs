//! ConsumerGroupHeartbeat: how members join, say what they want and have, hear what they may have, and leave.
//!
//! What is not here: how targets are computed (`draft.rs`, `assignor.rs`) and approached (`reconcile.rs`).

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use ottla_metadata::config::{Assignor, GroupConfig};

use super::{Context, Current, Draft, Group, after, grouped, state::places};
use crate::{
    ConsumerHeartbeat, ConsumerHeartbeatReply, ConsumerMemberValue, MemberId, MemberState, Record, Refusal,
    timers::Timers,
};

/// A member epoch: the member joins.
const JOIN: i32 = 0;
/// A member epoch: the member leaves.
const LEAVE: i32 = -1;
/// A member epoch: the static member leaves and comes back.
pub(super) const LEAVE_FOR_NOW: i32 = -2;

/// Whether a heartbeat makes sense on its own.
///
/// # Errors
/// It does not.
pub(crate) fn validate(config: &GroupConfig, request: &ConsumerHeartbeat) -> Result<(), Refusal> {
    let refuse = |what: &str| Err(Refusal::InvalidRequest(what.to_owned()));
    let is_empty = |text: &Option<Arc<str>>| text.as_ref().is_some_and(|text| text.trim().is_empty());
    if request.group.trim().is_empty() {
        return refuse("GroupId can't be empty.");
    }
    if request.member.is_empty() {
        return refuse("MemberId can't be empty.");
    }
    if is_empty(&request.instance) {
        return refuse("InstanceId can't be empty.");
    }
    if is_empty(&request.rack) {
        return refuse("RackId can't be empty.");
    }
    match request.member_epoch {
        JOIN if request.rebalance_timeout_ms.is_none() => {
            return refuse("RebalanceTimeoutMs must be provided in first request.");
        }
        JOIN if request.owned.as_ref().is_none_or(|owned| !owned.is_empty()) => {
            return refuse("TopicPartitions must be empty when (re-)joining.");
        }
        JOIN if request.topics.is_none() && request.topics_regex.is_none() => {
            return refuse("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.");
        }
        LEAVE_FOR_NOW if request.instance.is_none() => return refuse("InstanceId can't be null."),
        ..LEAVE_FOR_NOW => return refuse("MemberEpoch is invalid."),
        _ => {}
    }
    match &request.server_assignor {
        Some(name) if !config.consumer_assignors.iter().any(|assignor| assignor.name() == &**name) => {
            let offered: Vec<&str> = config.consumer_assignors.iter().copied().map(Assignor::name).collect();
            let offered = offered.join(", ");
            Err(Refusal::UnsupportedAssignor(format!(
                "ServerAssignor {name} is not supported. Supported assignors: {offered}."
            )))
        }
        _ => Ok(()),
    }
}

impl Group {
    /// A heartbeat that [`validate`] let through, to this group, which is empty and unknown so far where the member is
    /// the first. The member has an id: where it came without, the coordinator has drawn one.
    ///
    /// # Errors
    /// Nothing changed, and the session of the member goes on from its last heartbeat.
    pub(crate) fn heartbeat(
        &mut self,
        ctx: &Context<'_>,
        timers: &mut Timers,
        request: &ConsumerHeartbeat,
    ) -> Result<(Vec<Record>, ConsumerHeartbeatReply), Refusal> {
        match request.member_epoch {
            LEAVE => self.leave_for_good(ctx, timers, request),
            LEAVE_FOR_NOW => self.leave_for_now(timers, request),
            _ => self.stay(ctx, timers, request),
        }
    }

    /// The member joins or stays.
    fn stay(
        &mut self,
        ctx: &Context<'_>,
        timers: &mut Timers,
        request: &ConsumerHeartbeat,
    ) -> Result<(Vec<Record>, ConsumerHeartbeatReply), Refusal> {
        let config = self.config(ctx);
        let member = &request.member;
        let replaced = self.admit(request, &config)?;
        let before = self.state.current(replaced.as_ref().unwrap_or(member)).clone();

        let mut draft = self.draft();
        if let Some(old) = &replaced {
            draft.replace_member(old, member);
        }
        let known = draft.state.said(member);
        let wants_others = is_news(known, request) && {
            let said = said(known, request);
            draft.set_member(ctx, member, said)?
        };
        self.follow(ctx, &config, &mut draft, wants_others);
        draft.reconcile(ctx.image, member, request.owned.as_deref())?;

        let now = draft.state.current(member);
        // A member that is behind has missed an answer, perhaps one with an assignment.
        let is_due =
            request.member_epoch != before.epoch || is_full(request) || !now.assigned.keys().eq(before.assigned.keys());
        let reply = ConsumerHeartbeatReply {
            member: Some(Arc::clone(member)),
            member_epoch: now.epoch,
            heartbeat_interval_ms: config.consumer_heartbeat_interval_ms,
            assignment: is_due.then(|| grouped(now.assigned.keys().copied())),
        };
        if let Some(old) = &replaced {
            self.cancel_timers(timers, old);
        }
        self.time_revocation(ctx, timers, member, &draft, &before);
        timers.set(self.session(member), after(ctx.now, config.consumer_session_timeout_ms));
        let (epoch, records) = (draft.state.epoch, draft.records);
        self.seen = Some((ctx.image.offset(), epoch));
        Ok((records, reply))
    }

    /// Whether the member may come in or stay; the static member in whose place it comes, if there is one.
    fn admit(&self, request: &ConsumerHeartbeat, config: &GroupConfig) -> Result<Option<MemberId>, Refusal> {
        if request.member_epoch != JOIN {
            self.known(&request.member, request.instance.as_ref())?;
            return check_epoch(self.state.current(&request.member), request).map(|()| None);
        }
        let Some(old) = request.instance.as_ref().and_then(|instance| self.state.instances.get(instance)) else {
            self.make_room(&request.member, config)?;
            return Ok(None);
        };
        // A process that speaks the classic protocol is fenced by its successor, as it expects.
        let has_left = self.state.current(old).epoch == LEAVE_FOR_NOW || self.state.said(old).classic.is_some();
        match old == &request.member {
            true => Ok(None),
            false if has_left => Ok(Some(Arc::clone(old))),
            false => Err(Refusal::UnreleasedInstanceId),
        }
    }

    fn leave_for_good(
        &self,
        ctx: &Context<'_>,
        timers: &mut Timers,
        request: &ConsumerHeartbeat,
    ) -> Result<(Vec<Record>, ConsumerHeartbeatReply), Refusal> {
        self.known(&request.member, request.instance.as_ref())?;
        Ok((self.remove(ctx, timers, std::slice::from_ref(&request.member)), farewell(request)))
    }

    /// The static member keeps its place, and what it has, for as long as its session lasts.
    fn leave_for_now(
        &self,
        timers: &mut Timers,
        request: &ConsumerHeartbeat,
    ) -> Result<(Vec<Record>, ConsumerHeartbeatReply), Refusal> {
        let member = self.known(&request.member, request.instance.as_ref())?;
        let Current { previous_epoch, assigned, .. } = self.state.current(member).clone();
        // Its process is gone, so it has given up what it had to.
        let (state, revoking) = (MemberState::Stable, BTreeMap::new());
        let mut draft = self.draft();
        draft.set_current(member, &Current { epoch: LEAVE_FOR_NOW, previous_epoch, state, assigned, revoking });
        timers.cancel(&self.revocation(member));
        Ok((draft.records, farewell(request)))
    }

    /// Gives the member its rebalance timeout for what it now has to give up.
    fn time_revocation(
        &self,
        ctx: &Context<'_>,
        timers: &mut Timers,
        member: &MemberId,
        draft: &Draft<'_>,
        before: &Current,
    ) {
        let now = draft.state.current(member);
        if now == before {
            return;
        }
        if now.state == MemberState::UnrevokedPartitions {
            let timeout = draft.state.said(member).rebalance_timeout_ms;
            timers.set(self.revocation(member), after(ctx.now, timeout));
        } else {
            timers.cancel(&self.revocation(member));
        }
    }
}

/// Whether the member is where the group believes it is. One that missed the answer that took it to its epoch still has
/// the one before; if it claims nothing that it may not have, nothing is lost by taking it along.
fn check_epoch(current: &Current, request: &ConsumerHeartbeat) -> Result<(), Refusal> {
    let owns_at_most_assigned =
        || request.owned.as_ref().is_some_and(|owned| places(owned).all(|place| current.assigned.contains_key(&place)));
    let how = match request.member_epoch.cmp(&current.epoch) {
        Ordering::Equal => return Ok(()),
        Ordering::Less if request.member_epoch == current.previous_epoch && owns_at_most_assigned() => return Ok(()),
        Ordering::Less => "smaller",
        Ordering::Greater => "greater",
    };
    Err(Refusal::FencedMemberEpoch(format!(
        "The consumer group member has a {how} member epoch ({}) than the one known by the group coordinator ({}). The \
         member must abandon all its partitions and rejoin.",
        request.member_epoch, current.epoch,
    )))
}

/// Whether a heartbeat may say something new of the member. Most do not, and subscriptions can be long.
fn is_news(before: &ConsumerMemberValue, request: &ConsumerHeartbeat) -> bool {
    let differs = |said: &Option<Arc<str>>, before: &Option<Arc<str>>| said.is_some() && said != before;
    request.topics.is_some()
        || request.topics_regex.is_some()
        || request.rebalance_timeout_ms.is_some()
        || differs(&request.instance, &before.instance)
        || differs(&request.rack, &before.rack)
        || differs(&request.server_assignor, &before.server_assignor)
        || (&request.client_id, &request.client_host) != (&before.client_id, &before.client_host)
        || before.classic.is_some()
}

/// What the member said before, with what it says now on top. Whoever sends this speaks the new protocol.
fn said(before: &ConsumerMemberValue, request: &ConsumerHeartbeat) -> ConsumerMemberValue {
    let mut topics = request.topics.clone().unwrap_or_else(|| before.topics.clone());
    topics.sort_unstable();
    topics.dedup();
    let pattern = request.topics_regex.as_ref().or(before.topics_regex.as_ref());
    ConsumerMemberValue {
        instance: request.instance.clone().or_else(|| before.instance.clone()),
        rack: request.rack.clone().or_else(|| before.rack.clone()),
        client_id: Arc::clone(&request.client_id),
        client_host: Arc::clone(&request.client_host),
        topics,
        topics_regex: pattern.filter(|pattern| !pattern.is_empty()).cloned(),
        rebalance_timeout_ms: request.rebalance_timeout_ms.unwrap_or(before.rebalance_timeout_ms),
        server_assignor: request.server_assignor.clone().or_else(|| before.server_assignor.clone()),
        classic: None,
    }
}

/// Whether a member says everything, as it does when it joins and when it is not sure what was heard.
fn is_full(request: &ConsumerHeartbeat) -> bool {
    let wants = request.topics.is_some() || request.topics_regex.is_some();
    request.rebalance_timeout_ms.is_some() && wants && request.owned.is_some()
}

fn farewell(request: &ConsumerHeartbeat) -> ConsumerHeartbeatReply {
    ConsumerHeartbeatReply {
        member: Some(Arc::clone(&request.member)),
        member_epoch: request.member_epoch,
        heartbeat_interval_ms: 0,
        assignment: None,
    }
}
