//! `range`: of each topic, neighbouring partitions for each member, the same numbers of every topic as far as members
//! want the same topics and topics have the same size. Records with one key then meet at one member.
//!
//! Like Kafka's it does not look at the target before: ranges that kept what they had would not line up any more. What
//! moves is decided by the order of the members alone, in which static ones keep their places.

use std::collections::BTreeSet;

use ottla_types::PartitionIndex;

use super::{Spec, Targets};

/// The target of every member.
pub(super) fn assign(spec: &Spec) -> Targets {
    let mut targets: Targets = vec![BTreeSet::new(); spec.members.len()];
    for (topic, count) in &spec.topics {
        let subscribers = spec.subscribers(*topic);
        let members = i32::try_from(subscribers.len()).unwrap_or(i32::MAX).max(1);
        let (quota, extras) = (count / members, count % members);
        let mut next = 0;
        for (rank, at) in (0..).zip(subscribers) {
            let end = next + quota + i32::from(rank < extras);
            targets[at].extend((next..end).map(|partition| (*topic, PartitionIndex(partition))));
            next = end;
        }
    }
    targets
}
