//! Groups that change their kind while members are in them (KIP-848): a classic group becomes a consumer group with the
//! first member of the new protocol, and goes back when the last one has left and classic ones remain.
//!
//! What is not here: what classic members of a consumer group may do (`classic_member.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use ottla_metadata::Image;
use ottla_types::Timestamp;

use super::{
    Context, Current, Group, Place, State, after,
    draft::metadata_hash,
    grouped,
    protocol::{PROTOCOL_TYPE, Subscription, by_id, decode_assignment, encode_assignment},
    state::places,
};
use crate::{
    ClassicGroupValue, ClassicMemberMetadata, ClassicMemberValue, ConsumerGroupValue, ConsumerMemberValue,
    ConsumerTargetValue, DecodeError, GroupId, MemberId, MemberState, Record, Refusal, TopicPartitions,
    timers::{Timer, Timers},
};

/// The most bytes of a classic group that a consumer group becomes. As one record it has to fit into a batch, or the
/// member whose end brings it about could never go.
const CLASSIC_BYTES_MAX: usize = 900 << 10;

/// A member of a classic group: what is written down of it, and the protocols it joined with last.
pub(crate) struct ClassicMember {
    pub(crate) value: ClassicMemberValue,
    pub(crate) protocols: Vec<(Arc<str>, Bytes)>,
}

/// A classic group about to become a consumer group.
pub(crate) struct ClassicGroup<'a> {
    pub(crate) id: &'a GroupId,
    pub(crate) protocol_type: &'a str,
    pub(crate) generation: i32,
    pub(crate) members: Vec<ClassicMember>,
}

/// Turns a classic group with members into a consumer group, where they keep what they have until they join again.
///
/// # Errors
/// It can't be turned, in the words of the answer to who asked for it.
pub(crate) fn upgrade(
    ctx: &Context<'_>,
    timers: &mut Timers,
    classic: ClassicGroup<'_>,
) -> Result<(Vec<Record>, Group), Refusal> {
    let ClassicGroup { id, protocol_type, generation, members } = classic;
    let refuse = |why: &str| Refusal::GroupIdNotFound(format!("Cannot upgrade classic group {id}: {why}."));
    if !ctx.config.consumer_migration_policy.allows_upgrade() {
        return Err(refuse("online upgrade is disabled"));
    }
    if protocol_type != PROTOCOL_TYPE {
        return Err(refuse("its members are no consumers"));
    }
    if members.len() > ctx.config.consumer_max_size {
        return Err(refuse("it has more members than a consumer group may have"));
    }
    let read = |member| Upgraded::read(ctx.image, generation, member).map_err(|DecodeError(why)| refuse(why));
    let mut members = members.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    // A classic leader may have given two members the same partition; here only one can have it.
    let mut taken = BTreeSet::new();
    members.iter_mut().for_each(|member| member.current.assigned.retain(|place, _| taken.insert(*place)));
    members.iter_mut().for_each(|member| member.current.revoking.retain(|place, _| taken.insert(*place)));
    let mut records = vec![Record::ClassicGroup(Arc::clone(id), None)];
    records.extend(members.into_iter().flat_map(|member| member.into_records(id)));
    // Computed long ago, so that the first change does not wait for the assignment interval.
    let target = ConsumerTargetValue { assignment_epoch: generation, computed_at: Timestamp(0) };
    records.push(Record::ConsumerTarget(Arc::clone(id), Some(target)));
    let mut group = Group::new(Arc::clone(id));
    records.iter().for_each(|record| group.apply(record));
    let value = ConsumerGroupValue { epoch: generation, metadata_hash: metadata_hash(ctx.image, &group.state) };
    let record = Record::ConsumerGroup(Arc::clone(id), Some(value));
    group.apply(&record);
    records.push(record);
    group.start_timers(ctx, timers);
    Ok((records, group))
}

/// A member on its way from a classic group.
struct Upgraded {
    id: MemberId,
    said: ConsumerMemberValue,
    current: Current,
}

impl Upgraded {
    fn read(
        image: &Image,
        generation: i32,
        ClassicMember { value, protocols }: ClassicMember,
    ) -> Result<Upgraded, DecodeError> {
        let (_, metadata) = protocols.first().ok_or(DecodeError("a member knows no protocol"))?;
        let Subscription { mut topics, rack, owned, .. } = Subscription::decode(metadata)?;
        topics.sort_unstable();
        topics.dedup();
        let held = |topics: Vec<TopicPartitions>| -> BTreeMap<Place, i32> {
            let exists =
                |(topic, partition): &Place| image.topic(*topic).is_some_and(|t| t.partition(*partition).is_some());
            places(&topics).filter(exists).map(|place| (place, generation)).collect()
        };
        let assigned = held(decode_assignment(&value.assignment, image)?);
        // What it had when it joined it may still have: a generation may have ended before its assignment came, or the
        // member may be about to give it up. It says so with its next JoinGroup.
        let mut revoking = held(by_id(&owned, image));
        revoking.retain(|place, _| !assigned.contains_key(place));
        let said = ConsumerMemberValue {
            instance: value.instance,
            rack,
            client_id: value.client_id,
            client_host: value.client_host,
            topics,
            topics_regex: None,
            rebalance_timeout_ms: value.rebalance_timeout_ms,
            server_assignor: None,
            classic: Some(ClassicMemberMetadata { session_timeout_ms: value.session_timeout_ms, protocols }),
        };
        let state = MemberState::Stable;
        let current = Current { epoch: generation, previous_epoch: generation, state, assigned, revoking };
        Ok(Upgraded { id: value.member, said, current })
    }

    fn into_records(self, group: &GroupId) -> [Record; 3] {
        let Upgraded { id, said, mut current } = self;
        if !current.revoking.is_empty() {
            current.state = MemberState::UnrevokedPartitions;
        }
        let target = grouped(current.assigned.keys().copied());
        let group = || Arc::clone(group);
        [
            Record::ConsumerMember(group(), Arc::clone(&id), Some(said)),
            Record::ConsumerTargetMember(group(), Arc::clone(&id), Some(target)),
            Record::ConsumerCurrent(group(), id, Some((&current).into())),
        ]
    }
}

/// The records that turn a consumer group into a classic one, if those who remain all speak the classic protocol and
/// it is allowed. They keep what they should have; a rebalance, which is due at once, begins from there.
pub(super) fn downgrade(
    group: &Group,
    remaining: &State,
    ctx: &Context<'_>,
    timers: &mut Timers,
) -> Option<Vec<Record>> {
    let members = remaining.members.len();
    if !ctx.config.consumer_migration_policy.allows_downgrade() || members == 0 || members > ctx.config.classic_max_size
    {
        return None;
    }
    let protocol = common_protocol(remaining)?;
    let members: Option<Vec<_>> =
        remaining.members.keys().map(|member| downgrade_member(remaining, member, &protocol, ctx.image)).collect();
    let value = ClassicGroupValue {
        protocol_type: Arc::from(PROTOCOL_TYPE),
        generation: remaining.epoch,
        protocol: Some(protocol),
        leader: remaining.members.keys().next().cloned(),
        state_since: ctx.wall,
        members: members?,
    };
    let classic = Record::ClassicGroup(Arc::clone(&group.id), Some(value));
    if classic.encode().1.is_some_and(|value| value.len() > CLASSIC_BYTES_MAX) {
        return None;
    }
    let mut records = group.tombstones();
    records.push(classic);
    for member in remaining.members.keys() {
        let session_timeout_ms =
            remaining.said(member).classic.as_ref().map_or(0, |classic| classic.session_timeout_ms);
        timers.cancel(&group.revocation(member));
        timers.set(group.session(member), after(ctx.now, session_timeout_ms));
    }
    timers.set(Timer::Rebalance(Arc::clone(&group.id)), ctx.now);
    Some(records)
}

/// The first protocol of the first member that all know; `None` if a member speaks the new protocol.
fn common_protocol(state: &State) -> Option<Arc<str>> {
    let mut known = Vec::new();
    for said in state.members.values() {
        known.push(&said.classic.as_ref()?.protocols);
    }
    let is_common = |name: &Arc<str>| known.iter().all(|protocols| protocols.iter().any(|(each, _)| each == name));
    known.first()?.iter().map(|(name, _)| name).find(|name| is_common(name)).cloned()
}

fn downgrade_member(
    state: &State,
    member: &MemberId,
    protocol: &Arc<str>,
    image: &Image,
) -> Option<ClassicMemberValue> {
    let said = state.said(member);
    let classic = said.classic.as_ref()?;
    let (_, subscription) = classic.protocols.iter().find(|(name, _)| name == protocol)?;
    let version = Subscription::decode(subscription).map_or(0, |subscription| subscription.version);
    Some(ClassicMemberValue {
        member: Arc::clone(member),
        instance: said.instance.clone(),
        client_id: Arc::clone(&said.client_id),
        client_host: Arc::clone(&said.client_host),
        rebalance_timeout_ms: said.rebalance_timeout_ms,
        session_timeout_ms: classic.session_timeout_ms,
        subscription: subscription.clone(),
        assignment: encode_assignment(version, &grouped(state.current(member).assigned.keys().copied()), image),
    })
}
