//! Groups in the new protocol (KIP-848): the broker assigns, members only send heartbeats.
//!
//! Three numbers tell where a group stands. The *group epoch* rises with each change of members, subscriptions or
//! topics; the *assignment epoch* is the group epoch that the target assignment was computed for; the *member epoch* is
//! the target a member has come to. A member gives partitions up before it rises, and gets a partition only when nobody
//! else holds it (rule G5).
//!
//! Every operation reads the state, which only records change, and answers with records; the one thing remembered
//! beside them is which image the group has seen. What is not here: what members commit; only who may is.
//!
//! Where to go next: `state.rs` for what the records add up to, `heartbeat.rs` for the members' only request,
//! `reconcile.rs` for a member's way to its target, `draft.rs` for how groups change, `assignor.rs` for targets,
//! `classic_member.rs` and `migrate.rs` for members that speak the classic protocol, in the bytes of `protocol.rs`.

mod assignor;
mod classic_member;
mod draft;
mod heartbeat;
mod migrate;
mod pattern;
mod protocol;
mod reconcile;
mod state;

use std::{cmp::Ordering, collections::BTreeSet, sync::Arc};

use ottla_metadata::config::GroupConfig;
use ottla_types::{Offset, PartitionIndex, Tick, TopicId};

use crate::{
    CommitOffsets, ConsumerDescription, ConsumerMemberDescription, Context, GroupId, GroupState, LeavingMember,
    MemberId, MemberState, Record, Refusal,
    timers::{Timer, Timers},
};
use draft::Draft;
pub(crate) use heartbeat::validate;
pub(crate) use migrate::{ClassicGroup, ClassicMember, upgrade};
use state::{Current, State, grouped};

/// One partition of one topic.
type Place = (TopicId, PartitionIndex);

/// A consumer group.
#[derive(Debug)]
pub(crate) struct Group {
    id: GroupId,
    state: State,
    /// The image whose topics the group has seen, and the group epoch that came of it: if a decision was not written
    /// down, the epochs differ and the group looks again. Volatile.
    seen: Option<(Offset, i32)>,
}

impl Group {
    pub(crate) fn new(id: GroupId) -> Group {
        Group { id, state: State::default(), seen: None }
    }

    /// Takes a record of this group in. The only way its durable state changes.
    pub(crate) fn apply(&mut self, record: &Record) {
        self.state.apply(record);
    }

    /// After a load: everybody has a whole session from now, and a whole rebalance timeout for what it owes.
    pub(crate) fn start_timers(&self, ctx: &Context<'_>, timers: &mut Timers) {
        let config = self.config(ctx);
        for member in self.state.members.keys() {
            timers.set(self.session(member), after(ctx.now, self.session_timeout(member, &config)));
            if self.state.current(member).state == MemberState::UnrevokedPartitions {
                timers.set(self.revocation(member), after(ctx.now, self.state.said(member).rebalance_timeout_ms));
            }
        }
    }

    /// LeaveGroup: classic members, and an admin that removes members of either protocol. One row for each.
    pub(crate) fn leave(
        &self,
        ctx: &Context<'_>,
        timers: &mut Timers,
        leaving: &[LeavingMember],
    ) -> (Vec<Record>, Vec<Result<(), Refusal>>) {
        let found: Vec<_> = leaving.iter().map(|each| self.leaving(each)).collect();
        let members: Vec<MemberId> = found.iter().flatten().cloned().collect();
        (self.remove(ctx, timers, &members), found.into_iter().map(|row| row.map(drop)).collect())
    }

    /// The session of a member ended without a word from it.
    pub(crate) fn session_expired(&self, ctx: &Context<'_>, timers: &mut Timers, member: &MemberId) -> Vec<Record> {
        self.remove(ctx, timers, std::slice::from_ref(member))
    }

    /// A member has not done its part of a rebalance within its rebalance timeout.
    pub(crate) fn revocation_overdue(&self, ctx: &Context<'_>, timers: &mut Timers, member: &MemberId) -> Vec<Record> {
        let owes = self.state.current(member).state == MemberState::UnrevokedPartitions
            || self.state.said(member).classic.is_some();
        if owes { self.remove(ctx, timers, std::slice::from_ref(member)) } else { Vec::new() }
    }

    /// Whether somebody may commit these offsets (rule G5). An epoch that is past still counts for partitions the
    /// member has had without a break since then (KIP-1251): nobody else can have committed in between.
    ///
    /// # Errors
    /// The member is unknown, or its epoch gives it no right to one of the partitions.
    pub(crate) fn validate_commit(&self, request: &CommitOffsets) -> Result<(), Refusal> {
        if request.epoch < 0 && self.state.members.is_empty() {
            return Ok(());
        }
        let said = self.state.members.get(&request.member).ok_or(Refusal::UnknownMemberId)?;
        let stale = if said.classic.is_some() || !request.knows_member_epochs {
            Refusal::IllegalGeneration
        } else {
            Refusal::StaleMemberEpoch
        };
        let current = self.state.current(&request.member);
        let held_since = |place: Place| current.assigned.get(&place).or_else(|| current.revoking.get(&place));
        let may = match request.epoch.cmp(&current.epoch) {
            Ordering::Equal => true,
            Ordering::Greater => false,
            Ordering::Less => request.offsets.iter().all(|offset| {
                held_since((offset.topic_id, offset.partition)).is_some_and(|since| request.epoch >= *since)
            }),
        };
        if may { Ok(()) } else { Err(stale) }
    }

    /// Whether somebody may ask for the group's offsets.
    ///
    /// # Errors
    /// The member is unknown or its epoch is not the one it has.
    pub(crate) fn validate_fetch(&self, member: Option<&MemberId>, epoch: i32) -> Result<(), Refusal> {
        let Some(member) = member.filter(|member| epoch >= 0 || !member.is_empty()) else { return Ok(()) };
        let said = self.state.members.get(member).ok_or(Refusal::UnknownMemberId)?;
        match said.classic {
            _ if epoch == self.state.current(member).epoch => Ok(()),
            Some(_) => Err(Refusal::IllegalGeneration),
            None => Err(Refusal::StaleMemberEpoch),
        }
    }

    /// Whether a member wants the topic.
    pub(crate) fn is_subscribed(&self, topic: &str) -> bool {
        self.state.is_wanted(topic)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.members.is_empty()
    }

    pub(crate) fn state(&self) -> GroupState {
        let arrived = |member| {
            let current = self.state.current(member);
            current.state == MemberState::Stable && current.epoch == self.state.target_epoch
        };
        match () {
            () if self.is_empty() => GroupState::Empty,
            () if self.state.epoch > self.state.target_epoch => GroupState::Assigning,
            () if self.state.members.keys().all(arrived) => GroupState::Stable,
            () => GroupState::Reconciling,
        }
    }

    /// ConsumerGroupDescribe.
    pub(crate) fn describe(&self, ctx: &Context<'_>) -> ConsumerDescription {
        let members = self.state.members.iter().map(|(member, said)| {
            let current = self.state.current(member);
            ConsumerMemberDescription {
                member: Arc::clone(member),
                instance: said.instance.clone(),
                rack: said.rack.clone(),
                member_epoch: current.epoch,
                client_id: Arc::clone(&said.client_id),
                client_host: Arc::clone(&said.client_host),
                topics: said.topics.clone(),
                topics_regex: said.topics_regex.clone(),
                // What it has still to give up is its own too.
                assignment: grouped(current.held().collect::<BTreeSet<_>>().into_iter()),
                target: grouped(self.state.target(member).iter().copied()),
                classic: said.classic.is_some(),
            }
        });
        ConsumerDescription {
            state: self.state(),
            group_epoch: self.state.epoch,
            assignment_epoch: self.state.target_epoch,
            assignor: Arc::from(self.state.assignor(ctx.config.consumer_assignors).name()),
            members: members.collect(),
        }
    }

    /// Everything the group has written down, taken back.
    pub(crate) fn tombstones(&self) -> Vec<Record> {
        let group = || Arc::clone(&self.id);
        let mut records: Vec<Record> =
            self.state.patterns.keys().map(|p| Record::ConsumerRegex(group(), Arc::clone(p), None)).collect();
        for member in self.state.members.keys() {
            records.extend(state::member_tombstones(&self.id, member));
        }
        records.push(Record::ConsumerTarget(group(), None));
        records.push(Record::ConsumerGroup(group(), None));
        records
    }

    /// Takes members out, and with the last one that speaks the new protocol the group back to the classic one.
    fn remove(&self, ctx: &Context<'_>, timers: &mut Timers, members: &[MemberId]) -> Vec<Record> {
        // Whoever is named twice goes once.
        let members: BTreeSet<_> = members.iter().filter(|member| self.state.members.contains_key(*member)).collect();
        if members.is_empty() {
            return Vec::new();
        }
        for member in &members {
            self.cancel_timers(timers, member);
        }
        let mut draft = self.draft();
        for member in &members {
            draft.remove_member(member);
        }
        draft.drop_unused_patterns();
        migrate::downgrade(self, &draft.state, ctx, timers).unwrap_or_else(|| {
            draft.bump_epoch(ctx.image);
            draft.records
        })
    }

    /// Who it is that leaves; an admin knows static members by their instance alone.
    fn leaving(&self, leaving: &LeavingMember) -> Result<MemberId, Refusal> {
        match &leaving.instance {
            Some(instance) if leaving.member.is_empty() => {
                self.state.instances.get(instance).cloned().ok_or(Refusal::UnknownMemberId)
            }
            instance => self.known(&leaving.member, instance.as_ref()).cloned(),
        }
    }

    /// The member, if there is one of that id, and if the static member is still the one it believes to be.
    fn known<'a>(&'a self, member: &MemberId, instance: Option<&Arc<str>>) -> Result<&'a MemberId, Refusal> {
        match instance.map(|instance| self.state.instances.get(instance)) {
            None => self.state.members.get_key_value(member).map(|(member, _)| member).ok_or(Refusal::UnknownMemberId),
            Some(None) => Err(Refusal::UnknownMemberId),
            Some(Some(found)) if found != member => Err(Refusal::FencedInstanceId),
            Some(Some(found)) => Ok(found),
        }
    }

    /// Whether a member may come in addition to those there are.
    fn make_room(&self, member: &MemberId, config: &GroupConfig) -> Result<(), Refusal> {
        let is_full = self.state.members.len() >= config.consumer_max_size;
        if is_full && !self.state.members.contains_key(member) { Err(Refusal::GroupMaxSizeReached) } else { Ok(()) }
    }

    /// Lets the group follow a member's change, if there is one, and topics that are not what they were when it last
    /// looked: by a new group epoch, and a target for it.
    fn follow(&self, ctx: &Context<'_>, config: &GroupConfig, draft: &mut Draft<'_>, changed: bool) {
        let is_behind = self.seen != Some((ctx.image.offset(), self.state.epoch));
        let matches_others = is_behind && draft.match_patterns(ctx);
        let are_others = || is_behind && draft.is_metadata_other(ctx.image);
        if changed || matches_others || self.state.epoch == 0 || are_others() {
            draft.bump_epoch(ctx.image);
        }
        draft.assign(ctx, config);
    }

    fn draft(&self) -> Draft<'_> {
        Draft::new(&self.id, &self.state)
    }

    /// The broker's config with this group's own on top.
    fn config(&self, ctx: &Context<'_>) -> GroupConfig {
        ctx.config.with_overrides(ctx.image.group_configs(&self.id))
    }

    fn session_timeout(&self, member: &MemberId, config: &GroupConfig) -> i32 {
        match &self.state.said(member).classic {
            Some(classic) => classic.session_timeout_ms,
            None => config.consumer_session_timeout_ms,
        }
    }

    fn session(&self, member: &MemberId) -> Timer {
        Timer::Session(Arc::clone(&self.id), Arc::clone(member))
    }

    fn revocation(&self, member: &MemberId) -> Timer {
        Timer::Revocation(Arc::clone(&self.id), Arc::clone(member))
    }

    fn cancel_timers(&self, timers: &mut Timers, member: &MemberId) {
        timers.cancel(&self.session(member));
        timers.cancel(&self.revocation(member));
    }
}

fn after(now: Tick, milliseconds: i32) -> Tick {
    Tick(now.0.saturating_add(u64::try_from(milliseconds).unwrap_or(0)))
}
