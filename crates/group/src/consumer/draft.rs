//! A group on its way from one state to the next: the records of a decision, and the state they lead to.
//!
//! What is not here: who asks for what (`heartbeat.rs`, `classic_member.rs`).

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use ottla_metadata::{Image, config::GroupConfig};
use ottla_types::Timestamp;

use super::{Context, Current, Place, State, assignor, grouped, pattern, reconcile::Step, state::member_tombstones};
use crate::{
    ConsumerGroupValue, ConsumerMemberValue, ConsumerRegexValue, ConsumerTargetValue, GroupId, MemberId, Record,
    Refusal, TopicPartitions,
};

/// A state that changes as records are added. It is copied with the first of them, so that what changes nothing costs
/// nothing.
pub(super) struct Draft<'a> {
    id: &'a GroupId,
    pub(super) state: Cow<'a, State>,
    pub(super) records: Vec<Record>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(id: &'a GroupId, state: &'a State) -> Draft<'a> {
        Draft { id, state: Cow::Borrowed(state), records: Vec::new() }
    }

    /// Writes down what a member says of itself, if that is new; whether it wants other topics than before.
    ///
    /// # Errors
    /// Its pattern can't be read.
    pub(super) fn set_member(
        &mut self,
        ctx: &Context<'_>,
        member: &MemberId,
        said: ConsumerMemberValue,
    ) -> Result<bool, Refusal> {
        let before = self.state.members.get(member);
        if before.is_some_and(|before| **before == said) {
            return Ok(false);
        }
        let other_topics = before.map_or(&[][..], |before| &before.topics) != said.topics;
        let other_pattern = before.and_then(|before| before.topics_regex.as_ref()) != said.topics_regex.as_ref();
        let pattern = said.topics_regex.clone();
        if let Some(pattern) = pattern.as_deref().filter(|_| other_pattern) {
            pattern::validate(pattern)?;
        }
        self.push(Record::ConsumerMember(self.group(), Arc::clone(member), Some(said)));
        if other_pattern {
            self.drop_unused_patterns();
            if let Some(pattern) = pattern.filter(|pattern| !self.state.patterns.contains_key(pattern)) {
                self.match_pattern(ctx, pattern);
            }
        }
        Ok(other_topics || other_pattern)
    }

    /// Puts a member in the place of another, which is the same static member under its old id: with all it has, but
    /// in no epoch yet.
    pub(super) fn replace_member(&mut self, old: &MemberId, new: &MemberId) {
        let said = self.state.said(old).clone();
        let target = grouped(self.state.target(old).iter().copied());
        let current = Current { epoch: 0, previous_epoch: 0, ..self.state.current(old).clone() };
        self.remove_member(old);
        self.push(Record::ConsumerMember(self.group(), Arc::clone(new), Some(said)));
        self.push(Record::ConsumerTargetMember(self.group(), Arc::clone(new), Some(target)));
        self.set_current(new, &current);
    }

    pub(super) fn remove_member(&mut self, member: &MemberId) {
        member_tombstones(self.id, member).into_iter().for_each(|record| self.push(record));
    }

    pub(super) fn set_current(&mut self, member: &MemberId, current: &Current) {
        self.push(Record::ConsumerCurrent(self.group(), Arc::clone(member), Some(current.into())));
    }

    /// Takes a member a step closer to its target.
    ///
    /// # Errors
    /// See [`Step::from`].
    pub(super) fn reconcile(
        &mut self,
        image: &Image,
        member: &MemberId,
        owned: Option<&[TopicPartitions]>,
    ) -> Result<(), Refusal> {
        let state = &*self.state;
        let wants = |(topic, _): &Place| image.topic(*topic).is_some_and(|topic| state.wants(member, &topic.name));
        let is_held = |place: &Place| state.is_held_by_another(place, member);
        let step = Step { epoch: state.target_epoch, target: state.target(member), wants, is_held, owned };
        let next = step.from(state.current(member))?;
        if next != *state.current(member) {
            self.set_current(member, &next);
        }
        Ok(())
    }

    /// Matches every pattern against the topics there are now; whether one matches others than before.
    pub(super) fn match_patterns(&mut self, ctx: &Context<'_>) -> bool {
        let patterns: Vec<_> = self.state.patterns.keys().cloned().collect();
        let mut others = false;
        for pattern in patterns {
            others |= self.match_pattern(ctx, pattern);
        }
        others
    }

    /// Whether the topics somebody wants are others, or larger, than at the group epoch.
    pub(super) fn is_metadata_other(&self, image: &Image) -> bool {
        metadata_hash(image, &self.state) != self.state.metadata_hash
    }

    pub(super) fn bump_epoch(&mut self, image: &Image) {
        let value = ConsumerGroupValue {
            epoch: self.state.epoch.saturating_add(1),
            metadata_hash: metadata_hash(image, &self.state),
        };
        self.push(Record::ConsumerGroup(self.group(), Some(value)));
    }

    /// Computes the target of the group epoch, unless there is one, or the last one is younger than the assignment
    /// interval: then whoever comes after that does it.
    pub(super) fn assign(&mut self, ctx: &Context<'_>, config: &GroupConfig) {
        let Timestamp(computed_at) = self.state.computed_at;
        let due_at = computed_at.saturating_add(config.consumer_assignment_interval_ms.into());
        let is_young = computed_at != 0 && (computed_at..due_at).contains(&ctx.wall.0);
        if self.state.target_epoch >= self.state.epoch || is_young {
            return;
        }
        let assignor = self.state.assignor(config.consumer_assignors);
        for (member, target) in assignor::assign(assignor, ctx.image, &self.state) {
            if self.state.targets.get(&member).is_none_or(|before| **before != target) {
                let target = grouped(target.into_iter());
                self.push(Record::ConsumerTargetMember(self.group(), member, Some(target)));
            }
        }
        let value = ConsumerTargetValue { assignment_epoch: self.state.epoch, computed_at: ctx.wall };
        self.push(Record::ConsumerTarget(self.group(), Some(value)));
    }

    /// Forgets patterns that nobody has any more.
    pub(super) fn drop_unused_patterns(&mut self) {
        let used: BTreeSet<_> = self.state.members.values().filter_map(|said| said.topics_regex.as_ref()).collect();
        let unused: Vec<_> = self.state.patterns.keys().filter(|pattern| !used.contains(pattern)).cloned().collect();
        for pattern in unused {
            self.push(Record::ConsumerRegex(self.group(), pattern, None));
        }
    }

    /// Matches a pattern against the topics there are; whether they are others than before.
    fn match_pattern(&mut self, ctx: &Context<'_>, pattern: Arc<str>) -> bool {
        let topics = pattern::matching(&pattern, ctx.image);
        if self.state.patterns.get(&pattern).is_some_and(|before| before.topics == topics) {
            return false;
        }
        let value = ConsumerRegexValue { topics, version: ctx.image.offset().0, matched_at: ctx.wall };
        self.push(Record::ConsumerRegex(self.group(), pattern, Some(value)));
        true
    }

    fn push(&mut self, record: Record) {
        self.state.to_mut().apply(&record);
        self.records.push(record);
    }

    fn group(&self) -> GroupId {
        Arc::clone(self.id)
    }
}

/// A number that changes when a topic that somebody wants appears, grows, or goes: 64-bit FNV-1a over ids and sizes. It
/// is written down, so it must come out the same from every version of this program.
pub(super) fn metadata_hash(image: &Image, state: &State) -> i64 {
    let mut hash = 0;
    for topic in state.topics().into_iter().filter_map(|name| image.topic_named(name)) {
        if hash == 0 {
            hash = 0xcbf2_9ce4_8422_2325_u64;
        }
        let partitions = (topic.partitions.len() as u64).to_be_bytes();
        for byte in topic.id.to_bytes().into_iter().chain(partitions) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash.cast_signed()
}
