//! The partitions of this broker by topic: a snapshot that readers take without a lock.
//!
//! Only the controller's thread changes it, by building the next snapshot and swapping it in (`controller.rs`).
//! What is not here: what the cluster knows about topics (`ottla_metadata::Image`); this is what lies on our disk.

use std::{collections::HashMap, sync::Arc, thread};

use ottla_types::{PartitionIndex, TopicId};

use crate::partition::Partition;

/// Threads that recover logs after an unclean end.
const RECOVERY_THREADS: usize = 2;

/// A topic with the partitions that this broker holds.
pub struct Topic {
    /// The topic's id.
    pub id: TopicId,
    /// The topic's name.
    pub name: Arc<str>,
    /// How many partitions it has in the cluster.
    pub partition_count: usize,
    /// Those of them that lie here, by number.
    pub partitions: Vec<Arc<Partition>>,
}

impl Topic {
    /// The partition of that number, if it lies here.
    pub fn partition(&self, index: PartitionIndex) -> Option<&Arc<Partition>> {
        // Where all lie here each stands in the place of its number.
        let place = self.partitions.get(usize::try_from(index.0).ok()?);
        place.filter(|partition| partition.index() == index).or_else(|| {
            let found = self.partitions.binary_search_by_key(&index, |partition| partition.index());
            self.partitions.get(found.ok()?)
        })
    }

    /// Whether the topic has a partition of that number, here or elsewhere.
    pub fn has(&self, index: PartitionIndex) -> bool {
        usize::try_from(index.0).is_ok_and(|index| index < self.partition_count)
    }
}

/// All topics at one moment.
#[derive(Clone, Default)]
pub struct Topics {
    by_id: HashMap<TopicId, Arc<Topic>>,
    by_name: HashMap<Arc<str>, Arc<Topic>>,
}

impl Topics {
    /// The topic of that name.
    pub fn named(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// The topic of that id.
    pub fn with_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// Every topic, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_id.values()
    }

    /// Every partition, in no order.
    pub fn partitions(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.iter().flat_map(|topic| &topic.partitions)
    }

    /// Opens every log, which recovers it: after an unclean end nobody may wait for that in the middle of a request.
    pub(crate) fn recover_all(&self) {
        let partitions: Vec<_> = self.partitions().collect();
        let share = partitions.len().div_ceil(RECOVERY_THREADS).max(1);
        thread::scope(|scope| {
            for share in partitions.chunks(share) {
                // A partition that can't be opened is offline, and has said so in the log.
                scope.spawn(move || share.iter().for_each(|partition| drop(partition.extent())));
            }
        });
    }

    pub(crate) fn insert(&mut self, topic: Arc<Topic>) {
        self.by_name.insert(Arc::clone(&topic.name), Arc::clone(&topic));
        self.by_id.insert(topic.id, topic);
    }

    pub(crate) fn remove(&mut self, id: TopicId) -> Option<Arc<Topic>> {
        let topic = self.by_id.remove(&id)?;
        self.by_name.remove(&topic.name);
        Some(topic)
    }
}
