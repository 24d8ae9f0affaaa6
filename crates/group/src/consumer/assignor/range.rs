//! `range`: of each topic, neighbouring partitions for each member, the same numbers of every topic as far as members
//! want the same topics and topics have the same size. Records with one key then meet at one member.
//!
//! Sticky like Kafka's: a member keeps the lowest partitions it had, as many as it gets; the rest is handed out in
//! runs. Members that come or go therefore leave gaps in ranges until everything is assigned anew.

use std::collections::BTreeSet;

use ottla_types::{PartitionIndex, TopicId};

use super::{Spec, Targets};

/// The target of every member.
pub(super) fn assign(spec: &Spec) -> Targets {
    let mut targets: Targets = vec![BTreeSet::new(); spec.members.len()];
    for (topic, count) in &spec.topics {
        assign_topic(spec, *topic, *count, &mut targets);
    }
    targets
}

fn assign_topic(spec: &Spec, topic: TopicId, count: i32, targets: &mut Targets) {
    let subscribers = spec.subscribers(topic);
    let members = i32::try_from(subscribers.len()).unwrap_or(i32::MAX).max(1);
    let (quota, mut extras) = (count / members, count % members);
    let mut free: BTreeSet<i32> = (0..count).collect();
    // What each member still needs, and whether it may be given an extra one.
    let mut open = Vec::new();
    for at in subscribers {
        let before =
            spec.members[at].before.range((topic, PartitionIndex(i32::MIN))..=(topic, PartitionIndex(i32::MAX)));
        let mut room = quota;
        let mut has_extra = false;
        for (_, PartitionIndex(partition)) in before.filter(|(_, partition)| (0..count).contains(&partition.0)) {
            if room == 0 && extras > 0 && !has_extra {
                (extras, has_extra) = (extras - 1, true);
            } else if room == 0 {
                break;
            } else {
                room -= 1;
            }
            free.remove(partition);
            targets[at].insert((topic, PartitionIndex(*partition)));
        }
        if !has_extra {
            open.push((at, room));
        }
    }
    for (at, mut room) in open {
        if extras > 0 {
            (extras, room) = (extras - 1, room + 1);
        }
        for _ in 0..room {
            let Some(partition) = free.pop_first() else { return };
            targets[at].insert((topic, PartitionIndex(partition)));
        }
    }
}
