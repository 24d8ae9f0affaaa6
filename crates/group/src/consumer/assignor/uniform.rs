//! `uniform`: as many partitions for each member as for any other, moving as few as that takes.
//!
//! Where all want the same topics, nobody ends up with two more than another. Where they do not, no partition could
//! move to a member that wants it and has at least two fewer than its owner.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use ottla_types::{PartitionIndex, TopicId};

use super::{Place, Spec, Subscriber, Targets};

/// The target of every member.
pub(super) fn assign(spec: &Spec) -> Targets {
    let mut targets: Targets = spec.members.iter().map(|member| kept(spec, member)).collect();
    let taken: BTreeSet<Place> = targets.iter().flatten().copied().collect();
    let free: Vec<Place> = spec.places().filter(|place| !taken.contains(place)).collect();
    let all_want_the_same = spec.members.windows(2).all(|pair| pair[0].topics == pair[1].topics);
    if all_want_the_same {
        level(&mut targets, free);
    } else {
        fill(spec, &mut targets, free);
        while let Some((from, to, place)) = improvement(spec, &targets) {
            // The sum of the squares of the sizes falls with every move, so there is a last one.
            targets[from].remove(&place);
            targets[to].insert(place);
        }
    }
    targets
}

fn kept(spec: &Spec, member: &Subscriber) -> BTreeSet<Place> {
    member.before.iter().filter(|place| spec.may_keep(member, place)).copied().collect()
}

/// For members that may all have everything: who has too much gives up, who has too little gets.
fn level(targets: &mut Targets, mut free: Vec<Place>) {
    let total = free.len() + targets.iter().map(BTreeSet::len).sum::<usize>();
    let members = targets.len().max(1);
    // Who has most gets the extra ones, so that nothing moves for them.
    let mut order: Vec<usize> = (0..targets.len()).collect();
    order.sort_by_key(|at| Reverse(targets[*at].len()));
    let mut shares = vec![total / members; targets.len()];
    order.iter().take(total % members).for_each(|at| shares[*at] += 1);
    for (target, share) in targets.iter_mut().zip(&shares) {
        while target.len() > *share {
            free.extend(target.pop_last());
        }
    }
    // One each in turn, so that everybody gets some of a topic whose partitions are busier than others'.
    free.sort_unstable_by_key(|place| Reverse(*place));
    while !free.is_empty() {
        for (target, _) in targets.iter_mut().zip(&shares).filter(|(target, share)| target.len() < **share) {
            target.extend(free.pop());
        }
    }
}

/// Gives each free partition to the one with least of those that want it.
fn fill(spec: &Spec, targets: &mut Targets, mut free: Vec<Place>) {
    let subscribers: BTreeMap<TopicId, Vec<usize>> =
        spec.topics.keys().map(|topic| (*topic, spec.subscribers(*topic))).collect();
    // What fewest can take goes first.
    free.sort_by_key(|place| (subscribers[&place.0].len(), *place));
    for place in free {
        if let Some(at) = subscribers[&place.0].iter().min_by_key(|at| targets[**at].len()) {
            targets[*at].insert(place);
        }
    }
}

/// A partition that could move to a member with at least two fewer than its owner: from, to and which.
fn improvement(spec: &Spec, targets: &Targets) -> Option<(usize, usize, Place)> {
    let mut by_size: Vec<usize> = (0..targets.len()).collect();
    by_size.sort_by_key(|at| targets[*at].len());
    for to in &by_size {
        let larger = by_size.iter().rev().take_while(|from| targets[**from].len() >= targets[*to].len() + 2);
        for from in larger {
            if let Some(place) = movable(&spec.members[*to], &spec.members[*from], &targets[*from]) {
                return Some((*from, *to, place));
            }
        }
    }
    None
}

/// Something that `to` wants of what `from` has, if possible something `from` did not have before.
fn movable(to: &Subscriber, from: &Subscriber, has: &BTreeSet<Place>) -> Option<Place> {
    let wanted = to
        .topics
        .iter()
        .flat_map(|topic| has.range((*topic, PartitionIndex(i32::MIN))..=(*topic, PartitionIndex(i32::MAX))));
    let mut any = None;
    for place in wanted {
        if !from.before.contains(place) {
            return Some(*place);
        }
        any = Some(*place);
    }
    any
}
