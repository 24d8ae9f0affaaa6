//! What groups have committed: reading it, and changing it the way a tool does, without being a member.
//!
//! Not here: where a group's coordinator is and how it is asked again (`groups.rs`), and the offsets of logs
//! (`offsets.rs`).

use bytestring::ByteString;
use ottla_protocol::{
    ErrorCode,
    messages::{
        OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
    },
};
use ottla_types::{BrokerId, Offset, PartitionIndex};

use crate::{Client, Error, Target, TopicPartition, error::check};

/// The last version of OffsetFetch that asks for one group; all brokers know it.
const ONE_GROUP_UNTIL: i16 = 7;
/// The last version of OffsetCommit that names topics; those after know them by id alone.
const NAMES_UNTIL: i16 = 9;

/// Who commits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Committer<'a> {
    /// Somebody outside the group.
    Tool,
    /// A member of it.
    Member { id: &'a str, epoch: i32 },
}

impl Client {
    /// What a group has committed, by partition. A group that does not exist has committed nothing.
    ///
    /// # Errors
    /// The coordinator refuses, or cannot tell.
    pub async fn committed(&self, group: &str) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        let request = OffsetFetchRequest { group_id: group.into(), topics: None, ..Default::default() };
        let mut committed = self.coordinated(group, async |at| self.committed_once(at, &request).await).await?;
        committed.sort();
        Ok(committed)
    }

    async fn committed_once(
        &self,
        coordinator: BrokerId,
        request: &OffsetFetchRequest,
    ) -> Result<Vec<(TopicPartition, Offset)>, Error> {
        let group = &request.group_id;
        let (answer, _) = self.request_at_most(Target::Broker(coordinator), request, ONE_GROUP_UNTIL).await?;
        check(|| format!("group {group}"), answer.error_code, None)?;
        let mut committed = Vec::new();
        for topic in &answer.topics {
            for row in &topic.partitions {
                let at = TopicPartition::new(&topic.name, PartitionIndex(row.partition_index));
                check(|| format!("the offset of group {group} in {at}"), row.error_code, None)?;
                if row.committed_offset >= 0 {
                    committed.push((at, Offset(row.committed_offset)));
                }
            }
        }
        Ok(committed)
    }

    /// Sets the offsets of a group without members; a group that does not exist comes to be.
    ///
    /// # Errors
    /// The group has members ([`ErrorCode::UnknownMemberId`]), a partition does not exist, or the coordinator refuses.
    pub async fn set_committed(&self, group: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        self.commit(group, Committer::Tool, offsets).await
    }

    pub(crate) async fn commit(
        &self,
        group: &str,
        by: Committer<'_>,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), Error> {
        let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
        for (at, offset) in offsets {
            let row = OffsetCommitRequestPartition {
                partition_index: at.partition.0,
                committed_offset: offset.0,
                ..Default::default()
            };
            match topics.iter_mut().find(|topic| topic.name[..] == at.topic[..]) {
                Some(topic) => topic.partitions.push(row),
                None => topics.push(OffsetCommitRequestTopic {
                    name: (*at.topic).into(),
                    partitions: vec![row],
                    ..Default::default()
                }),
            }
        }
        let (member_id, epoch) = match by {
            Committer::Tool => ("", -1),
            Committer::Member { id, epoch } => (id, epoch),
        };
        let request = OffsetCommitRequest {
            group_id: group.into(),
            generation_id_or_member_epoch: epoch,
            member_id: member_id.into(),
            topics,
            ..Default::default()
        };
        self.coordinated(group, async |at| {
            let (answer, _) = self.request_at_most(Target::Broker(at), &request, NAMES_UNTIL).await?;
            let rows = answer.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |row| (topic, row)));
            settled(group, rows.map(|(topic, row)| (&topic.name, row.partition_index, row.error_code)))
        })
        .await?
    }

    /// Deletes offsets of a group.
    ///
    /// # Errors
    /// There is no such group, or its members read one of the topics ([`ErrorCode::GroupSubscribedToTopic`]).
    pub async fn delete_committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<(), Error> {
        let mut topics: Vec<OffsetDeleteRequestTopic> = Vec::new();
        for at in partitions {
            let row = OffsetDeleteRequestPartition { partition_index: at.partition.0 };
            match topics.iter_mut().find(|topic| topic.name[..] == at.topic[..]) {
                Some(topic) => topic.partitions.push(row),
                None => topics.push(OffsetDeleteRequestTopic { name: (*at.topic).into(), partitions: vec![row] }),
            }
        }
        let request = OffsetDeleteRequest { group_id: group.into(), topics };
        self.coordinated(group, async |at| {
            let answer = self.request_once(Target::Broker(at), &request).await?;
            check(|| format!("group {group}"), answer.error_code, None)?;
            let rows = answer.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |row| (topic, row)));
            settled(group, rows.map(|(topic, row)| (&topic.name, row.partition_index, row.error_code)))
        })
        .await?
    }
}

/// The first failure among the rows of an answer: topic, partition, code. What is not worth another try is inside.
fn settled<'a>(
    group: &str,
    mut rows: impl Iterator<Item = (&'a ByteString, i32, i16)>,
) -> Result<Result<(), Error>, Error> {
    let failed = rows.find_map(|(topic, partition, code)| {
        check(|| format!("the offset of group {group} in {topic}-{partition}"), code, None).err()
    });
    match failed {
        None => Ok(Ok(())),
        // Retriable for those who read the partition, but final here.
        Some(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => Ok(Err(error)),
        Some(error) => Err(error),
    }
}
