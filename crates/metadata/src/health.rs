//! How the cluster is, in numbers: what `ottla cluster status` and the metrics show.
//!
//! What is not here: anything a broker knows about its own disk or its lag. Next: `image.rs` for what is counted.

use std::{collections::BTreeMap, sync::Arc};

use ottla_types::BrokerId;

use crate::{Image, config::TopicConfig};

/// Counts over all partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// How many partitions there are.
    pub partitions: usize,
    /// How many have no leader.
    pub offline: usize,
    /// How many have replicas that are not in sync, those that are only being added left out.
    pub under_replicated: usize,
    /// How many have fewer replicas in sync than `min.insync.replicas`, as far as there are replicas.
    pub below_min_isr: usize,
    /// How many have a reassignment under way.
    pub reassigning: usize,
    /// The topics with a partition that will have one copy only, sorted by name.
    pub single_copy_topics: Vec<Arc<str>>,
    /// The share of each broker that is registered or holds something.
    pub brokers: BTreeMap<BrokerId, Load>,
}

/// What one broker has of the partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Replicas, in sync or not.
    pub replicas: usize,
    /// Replicas that are not in sync.
    pub out_of_sync: usize,
    /// Partitions it leads.
    pub leaders: usize,
}

impl Image {
    /// Counts everything; `defaults` holds for topics that override nothing.
    pub fn health(&self, defaults: TopicConfig) -> Health {
        let brokers = self.brokers().map(|broker| (broker.id, Load::default())).collect();
        let mut health = Health { brokers, ..Health::default() };
        for topic in self.topics() {
            let min_insync_replicas = defaults.with_overrides(&topic.overrides).min_insync_replicas;
            for (_, partition) in topic.numbered() {
                let settled = partition.replicas.iter().filter(|replica| !partition.adding.contains(replica));
                let lagging = settled.filter(|replica| !partition.isr.contains(replica)).count();
                health.partitions += 1;
                health.offline += usize::from(partition.leader.is_none());
                health.under_replicated += usize::from(lagging > 0);
                let needed = partition.effective_min_isr(min_insync_replicas);
                health.below_min_isr += usize::from(partition.isr.len() < needed);
                health.reassigning += usize::from(partition.is_reassigning());
                for replica in partition.replicas.iter() {
                    let load = health.brokers.entry(*replica).or_default();
                    load.replicas += 1;
                    load.out_of_sync += usize::from(!partition.isr.contains(replica));
                    load.leaders += usize::from(partition.leader == Some(*replica));
                }
            }
            if topic.partitions.iter().any(|partition| partition.target_replicas().count() == 1) {
                health.single_copy_topics.push(topic.name.clone());
            }
        }
        health
    }
}
