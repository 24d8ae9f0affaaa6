//! Target assignments: which member should have which partitions.
//!
//! The assignors are pure functions of who wants what, how large topics are, and the target before. Each gives every
//! partition of a wanted topic to exactly one of those that want it. What is not here: how members get to their target
//! (`reconcile.rs`), and racks, which no assignor looks at.

mod range;
#[cfg(test)]
mod tests;
mod uniform;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ottla_metadata::{Image, Topic, config::Assignor};
use ottla_types::{PartitionIndex, TopicId};

use super::{Place, State};
use crate::MemberId;

/// Who wants what.
#[derive(Debug, Default)]
struct Spec {
    members: Vec<Subscriber>,
    /// How many partitions each topic has that a member wants.
    topics: BTreeMap<TopicId, i32>,
}

/// A member in the eyes of an assignor. Members are known by their place in the [`Spec`].
#[derive(Debug, Default)]
struct Subscriber {
    /// Shared by all who say the same.
    topics: Arc<BTreeSet<TopicId>>,
    /// Its target before. No two members have the same partition in it.
    before: BTreeSet<Place>,
}

/// One target for each member, in their order.
type Targets = Vec<BTreeSet<Place>>;

/// The target of every member.
pub(super) fn assign(assignor: Assignor, image: &Image, state: &State) -> Vec<(MemberId, BTreeSet<Place>)> {
    let (members, spec) = Spec::of(image, state);
    let targets = match assignor {
        Assignor::Uniform => uniform::assign(&spec),
        Assignor::Range => range::assign(&spec),
    };
    members.into_iter().zip(targets).collect()
}

impl Spec {
    fn of(image: &Image, state: &State) -> (Vec<MemberId>, Spec) {
        let mut order: Vec<&MemberId> = state.members.keys().collect();
        // A static member stands where it stood under its old id; ids of others come at random.
        order.sort_by_key(|member| (state.said(member).instance.is_none(), &state.said(member).instance, *member));
        let mut spec = Spec::default();
        let mut resolved = HashMap::new();
        for member in &order {
            let said = state.said(member);
            let topics = resolved.entry((&said.topics, &said.topics_regex)).or_insert_with(|| {
                let names = said.topics.iter().chain(state.matched(said));
                let topics: Vec<_> = names.filter_map(|name| image.topic_named(name)).collect();
                let size = |topic: &Topic| i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                spec.topics.extend(topics.iter().map(|topic| (topic.id, size(topic))));
                Arc::new(topics.into_iter().map(|topic| topic.id).collect::<BTreeSet<_>>())
            });
            spec.members.push(Subscriber { topics: Arc::clone(topics), before: state.target(member).clone() });
        }
        (order.into_iter().map(Arc::clone).collect(), spec)
    }

    /// Whether a member may keep a partition it had.
    fn may_keep(&self, member: &Subscriber, (topic, partition): &Place) -> bool {
        member.topics.contains(topic) && self.topics.get(topic).is_some_and(|count| (0..*count).contains(&partition.0))
    }

    /// The members that want a topic.
    fn subscribers(&self, topic: TopicId) -> Vec<usize> {
        self.members.iter().enumerate().filter(|(_, member)| member.topics.contains(&topic)).map(|(at, _)| at).collect()
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        let places = |(topic, count): (&TopicId, &i32)| {
            let topic = *topic;
            (0..*count).map(move |partition| (topic, PartitionIndex(partition)))
        };
        self.topics.iter().flat_map(places)
    }
}
