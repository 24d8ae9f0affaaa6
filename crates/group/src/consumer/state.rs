//! What the records of a consumer group add up to.
//!
//! What is not here: any rule. Records are taken as they come, from a replay or from a decision of a moment ago.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

use ottla_metadata::config::Assignor;
use ottla_types::Timestamp;

use super::Place;
use crate::{
    ConsumerCurrentValue, ConsumerMemberValue, ConsumerRegexValue, GroupId, HeldPartitions, MemberId, MemberState,
    Record, TopicPartitions,
};

/// The durable state of a group. What a member says, should have and has are records of their own, so they are maps of
/// their own; who is in `members` is a member. Values are shared, which makes a copy of a state cheap.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// The group epoch; 0 before the first member.
    pub(super) epoch: i32,
    /// A hash over the topics subscribed to, as of the group epoch.
    pub(super) metadata_hash: i64,
    /// The group epoch that `targets` is for.
    pub(super) target_epoch: i32,
    /// When `targets` was computed; 0 for never.
    pub(super) computed_at: Timestamp,
    pub(super) members: BTreeMap<MemberId, Arc<ConsumerMemberValue>>,
    pub(super) targets: BTreeMap<MemberId, Arc<BTreeSet<Place>>>,
    pub(super) patterns: BTreeMap<Arc<str>, Arc<ConsumerRegexValue>>,
    /// Invariant: holds the member of each instance of `members`.
    pub(super) instances: HashMap<Arc<str>, MemberId>,
    /// Invariant: how many of `members` want each topic by name.
    wanted: BTreeMap<Arc<str>, usize>,
    current: BTreeMap<MemberId, Arc<Current>>,
    /// Invariant: holds the places of `current`, those to be given up included.
    owners: HashMap<Place, MemberId>,
}

/// What a member has.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Current {
    pub(super) epoch: i32,
    /// The epoch before, which a lost answer leaves the member with.
    pub(super) previous_epoch: i32,
    pub(super) state: MemberState,
    /// What it may have, each with the epoch since which it has it.
    pub(super) assigned: BTreeMap<Place, i32>,
    /// What it has to give up.
    pub(super) revoking: BTreeMap<Place, i32>,
}

/// A member that has just come.
static NEW: LazyLock<Current> = LazyLock::new(|| Current {
    epoch: 0,
    previous_epoch: 0,
    state: MemberState::Stable,
    assigned: BTreeMap::new(),
    revoking: BTreeMap::new(),
});
static SAID_NOTHING: LazyLock<ConsumerMemberValue> = LazyLock::new(ConsumerMemberValue::default);
static NO_PLACES: BTreeSet<Place> = BTreeSet::new();

impl State {
    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::ConsumerGroup(_, value) => {
                self.epoch = value.as_ref().map_or(0, |value| value.epoch);
                self.metadata_hash = value.as_ref().map_or(0, |value| value.metadata_hash);
            }
            Record::ConsumerTarget(_, value) => {
                self.target_epoch = value.as_ref().map_or(0, |value| value.assignment_epoch);
                self.computed_at = value.as_ref().map_or(Timestamp(0), |value| value.computed_at);
            }
            Record::ConsumerMember(_, member, value) => self.apply_member(member, value.as_ref()),
            Record::ConsumerTargetMember(_, member, value) => {
                let target = value.as_ref().map(|value| Arc::new(places(value).collect()));
                put(&mut self.targets, member, target);
            }
            Record::ConsumerCurrent(_, member, value) => self.apply_current(member, value.as_ref()),
            Record::ConsumerRegex(_, pattern, value) => {
                put(&mut self.patterns, pattern, value.clone().map(Arc::new));
            }
            Record::OffsetCommit(..) | Record::ClassicGroup(..) => {}
        }
    }

    fn apply_member(&mut self, member: &MemberId, value: Option<&ConsumerMemberValue>) {
        let old = put(&mut self.members, member, value.cloned().map(Arc::new));
        let (before, after) =
            (old.as_ref().map_or(&[][..], |old| &old.topics), value.map_or(&[][..], |new| &new.topics));
        if before != after {
            after.iter().for_each(|topic| *self.wanted.entry(Arc::clone(topic)).or_default() += 1);
            before.iter().for_each(|topic| self.want_less(topic));
        }
        // A static member's place may have been taken by another in between.
        if let Some(instance) = old.and_then(|old| old.instance.clone())
            && self.instances.get(&instance) == Some(member)
        {
            self.instances.remove(&instance);
        }
        if let Some(instance) = value.and_then(|value| value.instance.clone()) {
            self.instances.insert(instance, Arc::clone(member));
        }
    }

    fn want_less(&mut self, topic: &Arc<str>) {
        if let Some(count) = self.wanted.get_mut(topic) {
            *count -= 1;
            if *count == 0 {
                self.wanted.remove(topic);
            }
        }
    }

    fn apply_current(&mut self, member: &MemberId, value: Option<&ConsumerCurrentValue>) {
        let old = put(&mut self.current, member, value.map(|value| Arc::new(Current::from(value))));
        for place in old.iter().flat_map(|old| old.held()) {
            if self.owners.get(&place) == Some(member) {
                self.owners.remove(&place);
            }
        }
        for place in self.current.get(member).iter().flat_map(|current| current.held()) {
            self.owners.insert(place, Arc::clone(member));
        }
    }

    pub(super) fn said(&self, member: &MemberId) -> &ConsumerMemberValue {
        self.members.get(member).map_or(&*SAID_NOTHING, |said| said)
    }

    pub(super) fn target(&self, member: &MemberId) -> &BTreeSet<Place> {
        self.targets.get(member).map_or(&NO_PLACES, |target| target)
    }

    pub(super) fn current(&self, member: &MemberId) -> &Current {
        self.current.get(member).map_or(&*NEW, |current| current)
    }

    /// Whether somebody else has the partition, or has it still to give up.
    pub(super) fn is_held_by_another(&self, place: &Place, member: &MemberId) -> bool {
        self.owners.get(place).is_some_and(|owner| owner != member)
    }

    /// Whether a member wants the topic, by name or by pattern.
    pub(super) fn wants(&self, member: &MemberId, topic: &str) -> bool {
        let said = self.said(member);
        let is_topic = |each: &Arc<str>| (**each).cmp(topic);
        said.topics.binary_search_by(is_topic).is_ok() || self.matched(said).binary_search_by(is_topic).is_ok()
    }

    /// Whether anybody wants the topic.
    pub(super) fn is_wanted(&self, topic: &str) -> bool {
        let is_topic = |each: &Arc<str>| (**each).cmp(topic);
        let matches = |pattern: &Arc<ConsumerRegexValue>| pattern.topics.binary_search_by(is_topic).is_ok();
        self.wanted.contains_key(topic) || self.patterns.values().any(matches)
    }

    /// The topics that the pattern of a member matched, sorted.
    pub(super) fn matched(&self, said: &ConsumerMemberValue) -> &[Arc<str>] {
        let value = said.topics_regex.as_ref().and_then(|pattern| self.patterns.get(pattern));
        value.map_or(&[], |value| &value.topics)
    }

    /// Every topic that somebody wants; a pattern that is written down is somebody's.
    pub(super) fn topics(&self) -> BTreeSet<&Arc<str>> {
        self.wanted.keys().chain(self.patterns.values().flat_map(|pattern| &pattern.topics)).collect()
    }

    /// The assignor most members ask for; of two the one that comes first in `offered`, which is also what members get
    /// that ask for none.
    pub(super) fn assignor(&self, offered: &'static [Assignor]) -> Assignor {
        let votes = |assignor: Assignor| {
            let asks = |said: &&Arc<ConsumerMemberValue>| said.server_assignor.as_deref() == Some(assignor.name());
            self.members.values().filter(asks).count()
        };
        offered.iter().rev().copied().max_by_key(|assignor| votes(*assignor)).unwrap_or(Assignor::Uniform)
    }
}

impl Current {
    /// Its partitions, those to be given up included.
    pub(super) fn held(&self) -> impl Iterator<Item = Place> {
        self.assigned.keys().chain(self.revoking.keys()).copied()
    }
}

impl From<&ConsumerCurrentValue> for Current {
    fn from(value: &ConsumerCurrentValue) -> Current {
        let held = |held: &[HeldPartitions]| -> BTreeMap<Place, i32> {
            let places = |each: &HeldPartitions| {
                let topic = each.topic;
                each.partitions.clone().into_iter().map(move |(partition, epoch)| ((topic, partition), epoch))
            };
            held.iter().flat_map(places).collect()
        };
        Current {
            epoch: value.member_epoch,
            previous_epoch: value.previous_member_epoch,
            state: value.state,
            assigned: held(&value.assigned),
            revoking: held(&value.pending_revocation),
        }
    }
}

impl From<&Current> for ConsumerCurrentValue {
    fn from(current: &Current) -> ConsumerCurrentValue {
        let held = |places: &BTreeMap<Place, i32>| {
            let mut held: Vec<HeldPartitions> = Vec::new();
            for ((topic, partition), epoch) in places {
                match held.last_mut().filter(|last| last.topic == *topic) {
                    Some(last) => last.partitions.push((*partition, *epoch)),
                    None => held.push(HeldPartitions { topic: *topic, partitions: vec![(*partition, *epoch)] }),
                }
            }
            held
        };
        ConsumerCurrentValue {
            member_epoch: current.epoch,
            previous_member_epoch: current.previous_epoch,
            state: current.state,
            assigned: held(&current.assigned),
            pending_revocation: held(&current.revoking),
        }
    }
}

/// What a member that is gone has written down, taken back; what it is last, so that half of it is no member.
pub(super) fn member_tombstones(group: &GroupId, member: &MemberId) -> [Record; 3] {
    let (group, member) = (|| Arc::clone(group), || Arc::clone(member));
    [
        Record::ConsumerCurrent(group(), member(), None),
        Record::ConsumerTargetMember(group(), member(), None),
        Record::ConsumerMember(group(), member(), None),
    ]
}

/// The partitions, one by one.
pub(super) fn places(topics: &[TopicPartitions]) -> impl Iterator<Item = Place> {
    topics.iter().flat_map(|each| each.partitions.iter().map(|partition| (each.topic, *partition)))
}

/// Sorted partitions by topic, as records and replies have them.
pub(super) fn grouped(places: impl Iterator<Item = Place>) -> Vec<TopicPartitions> {
    let mut topics: Vec<TopicPartitions> = Vec::new();
    for (topic, partition) in places {
        match topics.last_mut().filter(|last| last.topic == topic) {
            Some(last) => last.partitions.push(partition),
            None => topics.push(TopicPartitions { topic, partitions: vec![partition] }),
        }
    }
    topics
}

/// Inserts or removes, and gives what was there.
fn put<V>(map: &mut BTreeMap<Arc<str>, V>, key: &Arc<str>, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(Arc::clone(key), value),
        None => map.remove(key),
    }
}
