//! OffsetCommit (key 8): how far a group is, by a member or by somebody who administers a group without members.
//! KIP-320 (leader epochs), KIP-345, KIP-848 (member epochs), KIP-848's topic ids in version 10.

use std::sync::Arc;

use ottla_group::{Command, CommitOffset, CommitOffsets, Reply};
use ottla_metadata::Topic;
use ottla_protocol::{
    ErrorCode,
    messages::{
        OffsetCommitRequest, OffsetCommitResponse,
        offset_commit_request::OffsetCommitRequestTopic,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    },
};
use ottla_types::{LeaderEpoch, Offset, PartitionIndex};

use super::{
    Context,
    group::{Failure, flatten, group_id, owned, row_code},
};

/// Last version whose commits say how long they are kept.
const RETENTION_VERSION_MAX: i16 = 4;
/// First version whose clients have member epochs.
const MEMBER_EPOCH_VERSION: i16 = 9;
/// First version that names topics by id.
const TOPIC_ID_VERSION: i16 = 10;

pub(super) fn handle(
    context: &Context<'_>,
    request: OffsetCommitRequest,
) -> impl Future<Output = OffsetCommitResponse> + Send + use<> {
    let version = context.version();
    let image = context.broker.node.image();
    let mut offsets = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for wanted in &request.topics {
        let (topic, unknown) = match version {
            TOPIC_ID_VERSION.. => (image.topic(wanted.topic_id), ErrorCode::UnknownTopicId),
            _ => (image.topic_named(&wanted.name), ErrorCode::UnknownTopicOrPartition),
        };
        topics.push(take(wanted, topic.map(AsRef::as_ref), unknown, &mut offsets));
    }
    let commit = CommitOffsets {
        group: group_id(&request.group_id),
        member: Arc::from(&*request.member_id),
        instance: owned(&request.group_instance_id),
        epoch: request.generation_id_or_member_epoch,
        knows_member_epochs: version >= MEMBER_EPOCH_VERSION,
        retention_ms: (version <= RETENTION_VERSION_MAX && request.retention_time_ms >= 0)
            .then_some(request.retention_time_ms),
        offsets,
    };
    let pick = |reply| match reply {
        Reply::CommitOffsets(committed) => Some(committed),
        _ => None,
    };
    let group = Arc::clone(&commit.group);
    let asked = !commit.offsets.is_empty();
    let pending = asked.then(|| context.broker.node.groups().submit(&group, Command::CommitOffsets(commit), pick));
    async move {
        let Some(pending) = pending else { return OffsetCommitResponse { topics, ..Default::default() } };
        let mut committed = flatten(pending.await).map(Vec::into_iter);
        let accepted = |row: &&mut OffsetCommitResponsePartition| row.error_code == ErrorCode::None.code();
        for row in topics.iter_mut().flat_map(|topic| &mut topic.partitions).filter(accepted) {
            row.error_code = match &mut committed {
                // One row for each offset, in our order.
                Ok(rows) => rows.next().map_or(ErrorCode::UnknownServerError.code(), row_code),
                Err(Failure { code, .. }) => code.code(),
            };
        }
        OffsetCommitResponse { topics, ..Default::default() }
    }
}

/// Gathers what may be committed of one topic; the rest has its error in the answer already.
fn take(
    wanted: &OffsetCommitRequestTopic,
    topic: Option<&Topic>,
    unknown: ErrorCode,
    offsets: &mut Vec<CommitOffset>,
) -> OffsetCommitResponseTopic {
    let partitions = wanted.partitions.iter().map(|given| {
        let partition = PartitionIndex(given.partition_index);
        let code = match topic {
            None => unknown,
            Some(topic) if topic.partition(partition).is_none() => ErrorCode::UnknownTopicOrPartition,
            Some(topic) => {
                offsets.push(CommitOffset {
                    topic: Arc::clone(&topic.name),
                    topic_id: topic.id,
                    partition,
                    offset: Offset(given.committed_offset),
                    leader_epoch: LeaderEpoch(given.committed_leader_epoch),
                    metadata: given.committed_metadata.as_deref().unwrap_or_default().into(),
                });
                ErrorCode::None
            }
        };
        OffsetCommitResponsePartition { partition_index: given.partition_index, error_code: code.code() }
    });
    OffsetCommitResponseTopic { partitions: partitions.collect(), name: wanted.name.clone(), topic_id: wanted.topic_id }
}
