//! The partitions of this broker by topic: a snapshot that readers take without a lock.
//!
//! Only the controller's thread changes it, by building the next snapshot and swapping it in (`controller.rs`).
//! What is not here: what the cluster knows about topics (`ottla_metadata::Image`); this is what lies on our disk.

use std::{collections::HashMap, sync::Arc};

use ottla_types::{PartitionIndex, TopicId};

use crate::partition::Partition;

/// A topic with the partitions that this broker holds.
pub struct Topic {
    /// The topic's id.
    pub id: TopicId,
    /// The topic's name.
    pub name: Arc<str>,
    /// Its partitions, by number.
    pub partitions: Vec<Arc<Partition>>,
}

impl Topic {
    /// The partition of that number, if there is one.
    pub fn partition(&self, index: PartitionIndex) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index.0).ok()?)
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
