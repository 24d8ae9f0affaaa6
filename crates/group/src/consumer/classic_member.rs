//! Members of a consumer group that speak the classic protocol: JoinGroup, SyncGroup and Heartbeat, answered at once.
//!
//! Such a member reconciles with every JoinGroup, which says what it has, and hears of a change by
//! REBALANCE_IN_PROGRESS. Generations are member epochs. Its revocation timer runs from when it is told to rejoin, or
//! has joined, until its SyncGroup. What is not here: groups where everybody is classic (`classic.rs` of the crate),
//! and how a group changes from one kind to the other (`migrate.rs`).

use std::sync::Arc;

use ottla_metadata::config::{GroupConfig, MigrationPolicy};

use super::{
    Context, Group, after, grouped,
    migrate::downgrade,
    protocol::{PROTOCOL_TYPE, Subscription, by_id, encode_assignment},
};
use crate::{
    ClassicMemberMetadata, ConsumerMemberValue, Heartbeat, Join, JoinRefusal, Joined, MemberId, MemberState, Record,
    Refusal, Sync, Synced, TopicPartitions, timers::Timers,
};

impl Group {
    /// JoinGroup. `new_member` is the id for a member that comes without one.
    ///
    /// # Errors
    /// Nothing changed.
    pub(crate) fn classic_join(
        &mut self,
        ctx: &Context<'_>,
        timers: &mut Timers,
        join: &Join,
        new_member: MemberId,
    ) -> Result<(Vec<Record>, Joined), JoinRefusal> {
        let member = if join.member.is_empty() { new_member } else { Arc::clone(&join.member) };
        let refuse = |refusal| JoinRefusal { refusal, member: Arc::clone(&member) };
        let config = self.config(ctx);
        let subscription = self.check_join(&config, join).map_err(refuse)?;
        if join.member.is_empty() && join.requires_member_id && join.instance.is_none() {
            return Err(refuse(Refusal::MemberIdRequired));
        }
        let owned = by_id(&subscription.owned, ctx.image);
        let replaced = self.admit_classic(&config, join, &member, &owned).map_err(refuse)?;

        let mut draft = self.draft();
        if let Some(old) = &replaced {
            draft.replace_member(old, &member);
        }
        let said = said(draft.state.said(&member), join, &subscription);
        let wants_others = draft.set_member(ctx, &member, said).map_err(refuse)?;
        self.follow(ctx, &config, &mut draft, wants_others);
        draft.reconcile(ctx.image, &member, Some(&owned)).map_err(refuse)?;

        if let Some(old) = &replaced {
            self.cancel_timers(timers, old);
        }
        timers.set(self.session(&member), after(ctx.now, join.session_timeout_ms));
        timers.set(self.revocation(&member), after(ctx.now, join.rebalance_timeout_ms));
        let generation = draft.state.current(&member).epoch;
        // In the place of the last static member of the new protocol it takes the group back to the classic one.
        let was_mixed = self.state.members.values().any(|said| said.classic.is_none());
        let classic = if was_mixed { downgrade(self, &draft.state, ctx, timers) } else { None };
        let (epoch, records) = (draft.state.epoch, classic.unwrap_or(draft.records));
        self.seen = Some((ctx.image.offset(), epoch));
        let joined = Joined {
            generation,
            protocol_type: Some(Arc::from(PROTOCOL_TYPE)),
            protocol: join.protocols.first().map(|(name, _)| Arc::clone(name)),
            // Nobody leads: the broker assigns.
            leader: Arc::from(""),
            skip_assignment: false,
            member,
            members: Vec::new(),
        };
        Ok((records, joined))
    }

    /// SyncGroup.
    ///
    /// # Errors
    /// The member has to join, first or again.
    pub(crate) fn classic_sync(&self, ctx: &Context<'_>, timers: &mut Timers, sync: &Sync) -> Result<Synced, Refusal> {
        let (member, said) = self.classic_member(&sync.member, sync.instance.as_ref(), sync.generation)?;
        let protocols = said.classic.as_ref().map_or(&[][..], |classic| &classic.protocols);
        let (protocol, metadata) = protocols.first().ok_or(Refusal::UnknownMemberId)?;
        if sync.protocol_type.as_ref().is_some_and(|named| **named != *PROTOCOL_TYPE)
            || sync.protocol.as_ref().is_some_and(|named| named != protocol)
        {
            return Err(Refusal::InconsistentGroupProtocol(
                "The protocol is not the one the member joined with.".into(),
            ));
        }
        let current = self.state.current(member);
        if current.epoch < self.state.target_epoch && current.state != MemberState::UnrevokedPartitions {
            self.expect_join(ctx, timers, member, said);
            return Err(Refusal::RebalanceInProgress);
        }
        timers.cancel(&self.revocation(member));
        timers.set(self.session(member), after(ctx.now, self.session_timeout(member, ctx.config)));
        let version = Subscription::decode(metadata).map_or(0, |subscription| subscription.version);
        Ok(Synced {
            protocol_type: Some(Arc::from(PROTOCOL_TYPE)),
            protocol: Some(Arc::clone(protocol)),
            assignment: encode_assignment(version, &grouped(current.assigned.keys().copied()), ctx.image),
        })
    }

    /// Heartbeat.
    ///
    /// # Errors
    /// The member has to join, first or again.
    pub(crate) fn classic_heartbeat(
        &self,
        ctx: &Context<'_>,
        timers: &mut Timers,
        heartbeat: &Heartbeat,
    ) -> Result<(), Refusal> {
        let (member, said) =
            self.classic_member(&heartbeat.member, heartbeat.instance.as_ref(), heartbeat.generation)?;
        timers.set(self.session(member), after(ctx.now, self.session_timeout(member, ctx.config)));
        let current = self.state.current(member);
        let may_move_on = match current.state {
            // By joining it says what it has given up.
            MemberState::UnrevokedPartitions => true,
            // By joining it gets what has become free.
            MemberState::UnreleasedPartitions => {
                let missing = |place: &&_| !current.assigned.contains_key(*place);
                let mut missing = self.state.target(member).iter().filter(missing);
                !missing.any(|place| self.state.is_held_by_another(place, member))
            }
            MemberState::Stable | MemberState::Unknown => false,
        };
        if may_move_on || current.epoch < self.state.target_epoch {
            self.expect_join(ctx, timers, member, said);
            return Err(Refusal::RebalanceInProgress);
        }
        Ok(())
    }

    /// What a member wants that may speak the classic protocol in this group.
    fn check_join(&self, config: &GroupConfig, join: &Join) -> Result<Subscription, Refusal> {
        let refuse = |why: &str| Refusal::InconsistentGroupProtocol(why.to_owned());
        if config.consumer_migration_policy == MigrationPolicy::Disabled {
            return Err(refuse("The group speaks the new protocol, and migration is disabled."));
        }
        let others = self.state.members.values().filter_map(|said| said.classic.as_ref()).collect::<Vec<_>>();
        let all_know = |(name, _): &(Arc<str>, _)| {
            others.iter().all(|classic| classic.protocols.iter().any(|(known, _)| known == name))
        };
        if *join.protocol_type != *PROTOCOL_TYPE || !join.protocols.iter().any(all_know) {
            return Err(refuse("The member has no protocol in common with the group."));
        }
        let (_, metadata) = join.protocols.first().ok_or_else(|| refuse("The member knows no protocol."))?;
        Subscription::decode(metadata).map_err(|_| refuse("The member's subscription can't be read."))
    }

    /// Whether the member may come in or stay; the static member in whose place it comes, if there is one.
    fn admit_classic(
        &self,
        config: &GroupConfig,
        join: &Join,
        member: &MemberId,
        owned: &[TopicPartitions],
    ) -> Result<Option<MemberId>, Refusal> {
        match &join.instance {
            Some(instance) if !join.member.is_empty() => self.known(member, Some(instance)).map(|_| None),
            Some(instance) if self.state.instances.contains_key(instance) => {
                Ok(self.state.instances.get(instance).cloned())
            }
            // Its session has ended without its knowing, and what it believes to have may be another's by now.
            None if !owned.is_empty() && !self.state.members.contains_key(member) => Err(Refusal::UnknownMemberId),
            _ => self.make_room(member, config).map(|()| None),
        }
    }

    /// The member and what it said, if it is a classic one in its generation.
    fn classic_member<'a>(
        &'a self,
        member: &MemberId,
        instance: Option<&Arc<str>>,
        generation: i32,
    ) -> Result<(&'a MemberId, &'a ConsumerMemberValue), Refusal> {
        let member = self.known(member, instance)?;
        let said = self.state.said(member);
        match said.classic {
            None => Err(Refusal::UnknownMemberId),
            Some(_) if generation != self.state.current(member).epoch => Err(Refusal::IllegalGeneration),
            Some(_) => Ok((member, said)),
        }
    }

    /// The member has been told to join again, and has its rebalance timeout to do it, from when it first was told.
    fn expect_join(&self, ctx: &Context<'_>, timers: &mut Timers, member: &MemberId, said: &ConsumerMemberValue) {
        let timer = self.revocation(member);
        if timers.deadline(&timer).is_none() {
            timers.set(timer, after(ctx.now, said.rebalance_timeout_ms));
        }
    }
}

fn said(before: &ConsumerMemberValue, join: &Join, subscription: &Subscription) -> ConsumerMemberValue {
    let mut topics = subscription.topics.clone();
    topics.sort_unstable();
    topics.dedup();
    ConsumerMemberValue {
        instance: join.instance.clone().or_else(|| before.instance.clone()),
        rack: subscription.rack.clone().or_else(|| before.rack.clone()),
        client_id: Arc::clone(&join.client_id),
        client_host: Arc::clone(&join.client_host),
        topics,
        topics_regex: None,
        rebalance_timeout_ms: join.rebalance_timeout_ms,
        server_assignor: before.server_assignor.clone(),
        classic: Some(ClassicMemberMetadata {
            session_timeout_ms: join.session_timeout_ms,
            protocols: join.protocols.clone(),
        }),
    }
}
