//! `uniform`: as many partitions for each member as for any other, moving as few as that takes.
//!
//! Where all want the same topics, nobody ends up with two more than another. Where they do not, sizes are as even as
//! what members want lets them be.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
    iter::successors,
};

use ottla_types::TopicId;

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
        // The sum of the squares of the sizes falls with every chain, so there is a last one.
        while let Some(chain) = improvement(spec, &targets) {
            for (from, to, place) in chain {
                targets[from].remove(&place);
                targets[to].insert(place);
            }
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

/// A partition's way: from whom, to whom, which.
type Move = (usize, usize, Place);

/// The shortest chain of moves that takes one partition from a member to one with at least two fewer, where everybody
/// in between gets one and gives one. Without such a chain no other sizes are more even.
fn improvement(spec: &Spec, targets: &Targets) -> Option<Vec<Move>> {
    let owners = owners(spec, targets);
    let mut by_size: Vec<usize> = (0..targets.len()).collect();
    by_size.sort_by_key(|at| targets[*at].len());
    let largest = targets.iter().map(BTreeSet::len).max()?;
    let small = by_size.into_iter().take_while(|at| targets[*at].len() + 2 <= largest);
    small.into_iter().find_map(|to| chain(spec, targets, &owners, to))
}

/// Who has which partition of each topic; what the owner did not have before first, as it moves for nothing.
fn owners(spec: &Spec, targets: &Targets) -> BTreeMap<TopicId, Vec<(usize, Place)>> {
    let mut owners: BTreeMap<TopicId, Vec<(usize, Place)>> = BTreeMap::new();
    for (at, target) in targets.iter().enumerate() {
        target.iter().for_each(|place| owners.entry(place.0).or_default().push((at, *place)));
    }
    owners.values_mut().for_each(|all| all.sort_by_key(|(at, place)| spec.members[*at].before.contains(place)));
    owners
}

/// Looks from `to` for the nearest member that has at least two more, over those who have something that the one
/// before them wants.
fn chain(
    spec: &Spec,
    targets: &Targets,
    owners: &BTreeMap<TopicId, Vec<(usize, Place)>>,
    to: usize,
) -> Option<Vec<Move>> {
    let mut found: BTreeMap<usize, Move> = BTreeMap::new();
    let mut seen: BTreeSet<TopicId> = BTreeSet::new();
    let mut queue = VecDeque::from([to]);
    while let Some(taker) = queue.pop_front() {
        // Who has something of a topic that was seen has been found by it.
        for topic in spec.members[taker].topics.iter().filter(|topic| seen.insert(**topic)) {
            for (from, place) in owners.get(topic).into_iter().flatten() {
                if *from == to || found.contains_key(from) {
                    continue;
                }
                found.insert(*from, (*from, taker, *place));
                if targets[*from].len() >= targets[to].len() + 2 {
                    let end = found.get(from).copied();
                    return Some(successors(end, |(_, taker, _)| found.get(taker).copied()).collect());
                }
                queue.push_back(*from);
            }
        }
    }
    None
}
