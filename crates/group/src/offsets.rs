//! How far groups are: the offsets that were committed, by group, topic and partition.
//!
//! An offset changes by a commit of the group alone, and goes when it is deleted, its topic is, or it expires (rule
//! G4). What is not here: who may do that (the groups say), and transactions.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ottla_metadata::config::GroupConfig;
use ottla_types::{PartitionIndex, Timestamp, TopicId};

use crate::{CommitOffset, CommitOffsets, Committed, Context, FetchedOffset, GroupId, Record, Refusal};

/// The offsets of one group.
type OfGroup = BTreeMap<Arc<str>, BTreeMap<PartitionIndex, Committed>>;

#[derive(Debug, Default)]
pub(crate) struct Offsets {
    /// Invariant: no map in it is empty.
    groups: HashMap<GroupId, OfGroup>,
}

impl Offsets {
    /// Takes a record in; see [`Record::OffsetCommit`].
    pub(crate) fn apply(
        &mut self,
        group: &GroupId,
        topic: &Arc<str>,
        partition: PartitionIndex,
        committed: Option<&Committed>,
    ) {
        if let Some(committed) = committed {
            let topics = self.groups.entry(Arc::clone(group)).or_default();
            topics.entry(Arc::clone(topic)).or_default().insert(partition, committed.clone());
            return;
        }
        let Some(topics) = self.groups.get_mut(group) else { return };
        if let Some(partitions) = topics.get_mut(topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                topics.remove(topic);
            }
        }
        if topics.is_empty() {
            self.groups.remove(group);
        }
    }

    pub(crate) fn has(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    pub(crate) fn fetch(&self, group: &str, partitions: Option<&[(Arc<str>, PartitionIndex)]>) -> Vec<FetchedOffset> {
        let Some(partitions) = partitions else { return self.of(group).collect() };
        let fetched = partitions.iter().map(|(topic, partition)| FetchedOffset {
            topic: Arc::clone(topic),
            partition: *partition,
            committed: self.get(group, topic, *partition).cloned(),
        });
        fetched.collect()
    }

    /// Takes offsets out of a group; one row for each. Those that nobody committed are gone already.
    pub(crate) fn delete(
        &self,
        group: &GroupId,
        partitions: &[(Arc<str>, PartitionIndex)],
        is_subscribed: impl Fn(&str) -> bool,
        records: &mut Vec<Record>,
    ) -> Vec<Result<(), Refusal>> {
        let rows = partitions.iter().map(|(topic, partition)| {
            if is_subscribed(topic) {
                return Err(Refusal::GroupSubscribedToTopic);
            }
            if self.get(group, topic, *partition).is_some() {
                records.push(Record::OffsetCommit(Arc::clone(group), Arc::clone(topic), *partition, None));
            }
            Ok(())
        });
        rows.collect()
    }

    /// The topics that there are offsets of, where it is known which topic it was.
    pub(crate) fn topics(&self) -> BTreeSet<(TopicId, Arc<str>)> {
        let topics = self.groups.values().flatten();
        let ids =
            topics.flat_map(|(name, partitions)| partitions.values().map(|each| (each.topic_id, Arc::clone(name))));
        ids.filter(|(id, _)| !id.is_zero()).collect()
    }

    pub(crate) fn delete_all(&self, group: &GroupId, records: &mut Vec<Record>) {
        self.delete_where(group, records, |_, _| true);
    }

    /// Takes the offsets of a deleted topic out of all groups. Those of a topic that has its name now are not its.
    pub(crate) fn delete_topics(&self, topics: &[(TopicId, Arc<str>)], records: &mut Vec<Record>) {
        let mut gone: HashMap<&str, Vec<TopicId>> = HashMap::new();
        for (id, name) in topics {
            gone.entry(name).or_default().push(*id);
        }
        for group in self.groups.keys() {
            self.delete_where(group, records, |name, Committed { topic_id, .. }| {
                gone.get(name).is_some_and(|ids| topic_id.is_zero() || ids.contains(topic_id))
            });
        }
    }

    /// Takes out what has expired; whether nothing is left. `since` says since when an offset waits for it.
    pub(crate) fn expire(
        &self,
        ctx: &Context<'_>,
        group: &GroupId,
        since: impl Fn(&str, &Committed) -> Option<Timestamp>,
        records: &mut Vec<Record>,
    ) -> bool {
        let before = records.len();
        let retention_ms = ctx.config.offsets_retention_ms;
        self.delete_where(group, records, |topic, committed| match (since(topic, committed), committed.expires_at) {
            (None, _) => false,
            (Some(_), Some(expires_at)) => ctx.wall >= expires_at,
            (Some(since), None) => ctx.wall.0.saturating_sub(since.0) >= retention_ms,
        });
        records.len() - before == self.of(group).count()
    }

    fn delete_where(
        &self,
        group: &GroupId,
        records: &mut Vec<Record>,
        mut is_it: impl FnMut(&str, &Committed) -> bool,
    ) {
        for (topic, partitions) in self.groups.get(group).into_iter().flatten() {
            for (partition, _) in partitions.iter().filter(|(_, committed)| is_it(topic, committed)) {
                records.push(Record::OffsetCommit(Arc::clone(group), Arc::clone(topic), *partition, None));
            }
        }
    }

    fn of(&self, group: &str) -> impl Iterator<Item = FetchedOffset> {
        let topics = self.groups.get(group).into_iter().flatten();
        topics.flat_map(|(topic, partitions)| {
            partitions.iter().map(|(partition, committed)| FetchedOffset {
                topic: Arc::clone(topic),
                partition: *partition,
                committed: Some(committed.clone()),
            })
        })
    }

    fn get(&self, group: &str, topic: &str, partition: PartitionIndex) -> Option<&Committed> {
        self.groups.get(group)?.get(topic)?.get(&partition)
    }
}

/// Writes down how far a group is; one row for each offset.
pub(crate) fn commit(ctx: &Context<'_>, commit: &CommitOffsets, records: &mut Vec<Record>) -> Vec<Result<(), Refusal>> {
    let expires_at = commit.retention_ms.map(|retention_ms| Timestamp(ctx.wall.0.saturating_add(retention_ms)));
    let rows = commit.offsets.iter().map(|offset| {
        if !fits(ctx.config, &offset.metadata) {
            return Err(Refusal::OffsetMetadataTooLarge);
        }
        let CommitOffset { topic, topic_id, partition, offset, leader_epoch, metadata } = offset.clone();
        let committed = Committed { offset, leader_epoch, metadata, committed_at: ctx.wall, expires_at, topic_id };
        records.push(Record::OffsetCommit(Arc::clone(&commit.group), topic, partition, Some(committed)));
        Ok(())
    });
    rows.collect()
}

/// Kafka counts UTF-16 units, which it calls bytes; and a record has room for 32767 bytes.
fn fits(config: &GroupConfig, metadata: &str) -> bool {
    metadata.len() <= i16::MAX as usize && metadata.encode_utf16().count() <= config.offset_metadata_max_bytes
}
