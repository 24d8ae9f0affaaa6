//! Groups in the classic protocol: the broker counts generations, and one of the members assigns.
//!
//! A generation begins when members have come (JoinGroup), gets its assignment from its leader (SyncGroup), and ends
//! when somebody comes, goes or wants something else. What a generation was assigned is written down, and only that: a
//! rebalance that the coordinator does not survive is begun anew by its members. So the group becomes stable by a
//! record alone; everything on the way there is volatile.
//!
//! What is not here: what the members' metadata means (`protocol.rs` reads the topics in it, for expiry), and what
//! offsets there are.
//!
//! Where to go next: `join.rs`, `sync.rs` and `leave.rs` for what members ask, `rebalance.rs` for how a generation
//! comes to be, `protocol.rs` for the vote.

mod join;
mod leave;
mod protocol;
mod rebalance;
mod sync;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::Arc,
};

use bytes::Bytes;
use ottla_types::{Tick, Timestamp};

use crate::{
    ClassicDescription, ClassicGroupValue, ClassicMemberDescription, ClassicMemberValue, CommitOffsets, Context,
    Decision, GroupId, GroupListing, GroupState, GroupType, JoinRefusal, MemberId, Record, Refusal, Reply, Ticket,
    consumer::{ClassicGroup, ClassicMember},
    timers::{Timer, Timers},
};
pub(crate) use join::new_member_id;
use rebalance::InitialDelay;

/// The protocol type of consumers, whose metadata says what topics they read.
pub(crate) const CONSUMER: &str = "consumer";

const LEAST_REBALANCE_TIMEOUT_MS: i32 = 1_000;

/// A classic group.
#[derive(Debug)]
pub(crate) struct Group {
    id: GroupId,
    phase: Phase,
    /// Since when it is stable or empty; `NONE` where an old record did not say.
    state_since: Timestamp,
    /// `None` for a group of offsets alone.
    protocol_type: Option<Arc<str>>,
    generation: i32,
    protocol: Option<Arc<str>>,
    /// Invariant: one of `members`, and `None` only without them.
    leader: Option<MemberId>,
    members: BTreeMap<MemberId, Member>,
    /// Invariant: the member of each instance of `members`.
    instances: HashMap<Arc<str>, MemberId>,
    /// Ids that were given, and not come back with yet.
    pending: BTreeSet<MemberId>,
    /// Whether there is a record of it.
    written: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Empty,
    /// Members are coming. A group that was empty waits for more of them than those it knows.
    Preparing(Option<InitialDelay>),
    Completing,
    Stable,
}

#[derive(Debug)]
struct Member {
    instance: Option<Arc<str>>,
    client_id: Arc<str>,
    client_host: Arc<str>,
    session_timeout_ms: i32,
    rebalance_timeout_ms: i32,
    protocols: Vec<(Arc<str>, Bytes)>,
    assignment: Bytes,
    joining: Option<Ticket>,
    syncing: Option<Ticket>,
    /// It has never heard from the group, so it can't say that it lives.
    is_new: bool,
    /// It has asked for its assignment of this generation.
    has_synced: bool,
}

/// What an operation on a group works with, beside the group.
pub(crate) struct Turn<'a> {
    pub(crate) ctx: &'a Context<'a>,
    pub(crate) timers: &'a mut Timers,
    pub(crate) entropy: &'a mut dyn FnMut() -> [u8; 16],
    pub(crate) out: &'a mut Decision,
}

impl Turn<'_> {
    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.out.replies.push((ticket, reply));
    }

    fn refuse_join(&mut self, ticket: Ticket, refusal: Refusal, member: &MemberId) {
        self.reply(ticket, Reply::Join(Err(JoinRefusal { refusal, member: Arc::clone(member) })));
    }

    fn set(&mut self, timer: Timer, after_ms: i32) {
        let after_ms = u64::try_from(after_ms).unwrap_or(0);
        self.timers.set(timer, Tick(self.ctx.now.0.saturating_add(after_ms)));
    }
}

impl Group {
    pub(crate) fn new(id: GroupId) -> Group {
        Group {
            id,
            phase: Phase::Empty,
            state_since: Timestamp::NONE,
            protocol_type: None,
            generation: 0,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: HashMap::new(),
            pending: BTreeSet::new(),
            written: false,
        }
    }

    /// Takes a record of this group in: the only way it becomes stable. What is known of its members beside the record
    /// stays.
    pub(crate) fn apply(&mut self, value: &ClassicGroupValue) {
        self.written = true;
        self.state_since = value.state_since;
        self.protocol_type = Some(Arc::clone(&value.protocol_type)).filter(|name| !name.is_empty());
        self.generation = value.generation;
        self.protocol = value.protocol.clone();
        self.leader = value.leader.clone().filter(|leader| value.members.iter().any(|each| each.member == *leader));
        let mut known = mem::take(&mut self.members);
        self.instances.clear();
        for each in &value.members {
            let loaded = Member::loaded(each, &value.protocol);
            let member = match known.remove(&each.member) {
                Some(known) => loaded.with_what_is_known(known),
                None => loaded,
            };
            self.insert(Arc::clone(&each.member), member);
        }
        self.phase = if self.members.is_empty() { Phase::Empty } else { Phase::Stable };
    }

    /// After a load: everybody has a whole session from now.
    pub(crate) fn start_timers(&self, ctx: &Context<'_>, timers: &mut Timers) {
        for (id, member) in &self.members {
            let after_ms = u64::try_from(member.session_timeout_ms).unwrap_or(0);
            timers.set(self.session(id), Tick(ctx.now.0.saturating_add(after_ms)));
        }
    }

    /// Whether there is anything to it but ids that were given away.
    pub(crate) fn exists(&self) -> bool {
        self.written || self.phase != Phase::Empty
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.phase == Phase::Empty
    }

    pub(crate) fn state(&self) -> GroupState {
        match self.phase {
            Phase::Empty => GroupState::Empty,
            Phase::Preparing(_) => GroupState::PreparingRebalance,
            Phase::Completing => GroupState::CompletingRebalance,
            Phase::Stable => GroupState::Stable,
        }
    }

    pub(crate) fn listing(&self) -> GroupListing {
        GroupListing {
            group: Arc::clone(&self.id),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            state: self.state(),
            kind: GroupType::Classic,
        }
    }

    /// DescribeGroups. What is chosen counts only once everybody has it; until then they have what they had.
    pub(crate) fn describe(&self) -> ClassicDescription {
        let chosen = self.protocol.as_ref().filter(|_| self.phase == Phase::Stable);
        let members = self.members.iter().map(|(id, member)| ClassicMemberDescription {
            member: Arc::clone(id),
            instance: member.instance.clone(),
            client_id: Arc::clone(&member.client_id),
            client_host: Arc::clone(&member.client_host),
            metadata: chosen.map(|protocol| member.metadata(protocol)).unwrap_or_default(),
            assignment: member.assignment.clone(),
        });
        ClassicDescription {
            state: self.state(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: chosen.cloned().unwrap_or_default(),
            members: members.collect(),
        }
    }

    /// Whether somebody may commit offsets (rule G5).
    ///
    /// # Errors
    /// It is no member of the group as it is now.
    pub(crate) fn validate_commit(&self, request: &CommitOffsets) -> Result<(), Refusal> {
        // An admin that resets offsets, or a consumer that assigns partitions to itself.
        if request.epoch < 0 && self.is_empty() {
            return Ok(());
        }
        if request.epoch < 0 && request.member.is_empty() && request.instance.is_none() {
            return Err(Refusal::UnknownMemberId);
        }
        self.validate_member(&request.member, request.instance.as_ref())?;
        if request.epoch != self.generation {
            return Err(Refusal::IllegalGeneration);
        }
        // Before that what the member read belongs to the last generation, and may still be written down.
        if self.phase == Phase::Completing { Err(Refusal::RebalanceInProgress) } else { Ok(()) }
    }

    /// A commit is a sign of life too.
    pub(crate) fn committed(&self, ctx: &Context<'_>, timers: &mut Timers, id: &MemberId) {
        if let Some(member) = self.members.get(id).filter(|_| self.phase != Phase::Completing) {
            let after_ms = u64::try_from(member.session_timeout_ms).unwrap_or(0);
            timers.set(self.session(id), Tick(ctx.now.0.saturating_add(after_ms)));
        }
    }

    /// What a consumer group is made of that takes this group's place.
    pub(crate) fn upgradable(&self) -> ClassicGroup<'_> {
        let members = self.members.iter().map(|(id, member)| ClassicMember {
            value: self.member_value(id, member, member.assignment.clone()),
            protocols: member.protocols.clone(),
        });
        ClassicGroup {
            id: &self.id,
            protocol_type: self.protocol_type.as_deref().unwrap_or_default(),
            generation: self.generation,
            members: members.collect(),
        }
    }

    /// The group gives way to another: whoever waits has to come again.
    pub(crate) fn dissolve(mut self, turn: &mut Turn<'_>) {
        turn.timers.cancel(&Timer::Rebalance(Arc::clone(&self.id)));
        turn.timers.cancel(&Timer::Sync(Arc::clone(&self.id)));
        for id in mem::take(&mut self.pending) {
            turn.timers.cancel(&Timer::PendingMember(Arc::clone(&self.id), id));
        }
        for (id, member) in &mut self.members {
            rebalance::dismiss(turn, member, id, &Refusal::RebalanceInProgress);
        }
    }

    /// Whether offsets may be deleted at all; of consumers it is known what they still read.
    ///
    /// # Errors
    /// The group has members of another kind.
    pub(crate) fn validate_delete_offsets(&self) -> Result<(), Refusal> {
        if self.is_empty() || self.is_of_consumers() { Ok(()) } else { Err(Refusal::NonEmptyGroup) }
    }

    /// Since when the offsets of the topics that nobody reads wait for their expiry: `None` for as long as they don't
    /// (rule G4).
    pub(crate) fn expires_since(&self, committed_at: Timestamp) -> Option<Timestamp> {
        match self.phase {
            // A group of offsets alone, and one of the days when records did not say since when.
            Phase::Empty if self.protocol_type.is_none() || self.state_since == Timestamp::NONE => Some(committed_at),
            Phase::Empty => Some(self.state_since.max(committed_at)),
            Phase::Stable if self.is_of_consumers() && self.subscribed_topics().is_some() => Some(committed_at),
            _ => None,
        }
    }

    /// Whether a member reads the topic. Of consumers whose metadata can't be read, every topic.
    pub(crate) fn is_subscribed(&self, topic: &str) -> bool {
        match self.subscribed_topics() {
            Some(topics) => topics.contains(topic),
            None => self.is_of_consumers() && !self.is_empty(),
        }
    }

    fn subscribed_topics(&self) -> Option<BTreeSet<Arc<str>>> {
        let protocol = self.protocol.as_ref().filter(|_| self.is_of_consumers())?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(protocol::topics(member.metadata_ref(protocol)?).ok()?);
        }
        Some(topics)
    }

    fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// Finds a member, and sees that nobody newer has its place.
    fn validate_member(&self, id: &MemberId, instance: Option<&Arc<str>>) -> Result<(), Refusal> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(Refusal::UnknownMemberId),
                Some(now) if now != id => return Err(Refusal::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(Refusal::UnknownMemberId) }
    }

    fn insert(&mut self, id: MemberId, member: Member) {
        if let Some(instance) = &member.instance {
            self.instances.insert(Arc::clone(instance), Arc::clone(&id));
        }
        if self.leader.is_none() {
            self.leader = Some(Arc::clone(&id));
        }
        self.members.insert(id, member);
    }

    fn remove(&mut self, id: &MemberId) -> Option<Member> {
        let member = self.members.remove(id)?;
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        if self.leader.as_ref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// The group as a record, with what the leader has assigned, or each member has.
    fn value(&self, state_since: Timestamp, assignment: impl Fn(&MemberId, &Member) -> Bytes) -> Record {
        let members = self.members.iter().map(|(id, member)| self.member_value(id, member, assignment(id, member)));
        let value = ClassicGroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since,
            members: members.collect(),
        };
        Record::ClassicGroup(Arc::clone(&self.id), Some(value))
    }

    fn member_value(&self, id: &MemberId, member: &Member, assignment: Bytes) -> ClassicMemberValue {
        ClassicMemberValue {
            member: Arc::clone(id),
            instance: member.instance.clone(),
            client_id: Arc::clone(&member.client_id),
            client_host: Arc::clone(&member.client_host),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: self.protocol.as_ref().map(|protocol| member.metadata(protocol)).unwrap_or_default(),
            assignment,
        }
    }

    /// The longest that any member may take to come. If that were no time at all, and nobody came, a rebalance would be
    /// due again and again.
    fn rebalance_timeout_ms(&self) -> i32 {
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0);
        longest.max(LEAST_REBALANCE_TIMEOUT_MS)
    }

    fn keep_alive(&self, turn: &mut Turn<'_>, id: &MemberId) {
        if let Some(member) = self.members.get(id) {
            turn.set(self.session(id), member.session_timeout_ms);
        }
    }

    fn session(&self, id: &MemberId) -> Timer {
        Timer::Session(Arc::clone(&self.id), Arc::clone(id))
    }
}

impl Member {
    fn loaded(value: &ClassicMemberValue, protocol: &Option<Arc<str>>) -> Member {
        Member {
            instance: value.instance.clone(),
            client_id: Arc::clone(&value.client_id),
            client_host: Arc::clone(&value.client_host),
            session_timeout_ms: value.session_timeout_ms,
            rebalance_timeout_ms: value.rebalance_timeout_ms,
            // The others come with the next JoinGroup.
            protocols: protocol.iter().map(|name| (Arc::clone(name), value.subscription.clone())).collect(),
            assignment: value.assignment.clone(),
            joining: None,
            syncing: None,
            is_new: false,
            has_synced: true,
        }
    }

    /// This member of a record with what records don't say.
    fn with_what_is_known(self, known: Member) -> Member {
        // An older record may have had other metadata.
        let is_same = self.protocols.iter().all(|(name, metadata)| known.metadata_ref(name) == Some(metadata));
        let protocols = if is_same { known.protocols } else { self.protocols };
        let Member { joining, syncing, is_new, has_synced, .. } = known;
        Member { protocols, joining, syncing, is_new, has_synced, ..self }
    }

    fn metadata(&self, protocol: &str) -> Bytes {
        self.metadata_ref(protocol).cloned().unwrap_or_default()
    }

    fn metadata_ref(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols.iter().find(|(name, _)| &**name == protocol).map(|(_, metadata)| metadata)
    }

    fn knows(&self, protocol: &str) -> bool {
        self.metadata_ref(protocol).is_some()
    }
}
