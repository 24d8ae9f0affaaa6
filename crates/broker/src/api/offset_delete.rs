//! OffsetDelete (key 47): forgets how far a group is in partitions that it does not read any more (KIP-496).

use std::sync::Arc;

use ottla_group::{Command, DeleteOffsets, Reply};
use ottla_protocol::{
    ErrorCode,
    messages::{
        OffsetDeleteRequest, OffsetDeleteResponse,
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
    },
};
use ottla_types::PartitionIndex;

use super::{
    Context,
    group::{Failure, flatten, group_id, row_code},
};

pub(super) fn handle(
    context: &Context<'_>,
    request: OffsetDeleteRequest,
) -> impl Future<Output = OffsetDeleteResponse> + Send + use<> {
    let image = context.broker.node.image();
    let mut partitions = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for wanted in request.topics {
        let topic = image.topic_named(&wanted.name);
        let rows = wanted.partitions.iter().map(|wanted| {
            let index = PartitionIndex(wanted.partition_index);
            let known = topic.filter(|topic| topic.partition(index).is_some());
            let code = known.map_or(ErrorCode::UnknownTopicOrPartition, |topic| {
                partitions.push((Arc::clone(&topic.name), index));
                ErrorCode::None
            });
            OffsetDeleteResponsePartition { partition_index: wanted.partition_index, error_code: code.code() }
        });
        topics.push(OffsetDeleteResponseTopic { partitions: rows.collect(), name: wanted.name });
    }
    let delete = DeleteOffsets { group: group_id(&request.group_id), partitions };
    let pick = |reply| match reply {
        Reply::DeleteOffsets(deleted) => Some(deleted),
        _ => None,
    };
    let group = Arc::clone(&delete.group);
    let pending = context.broker.node.groups().submit(&group, Command::DeleteOffsets(delete), pick);
    async move {
        let mut rows = match flatten(pending.await) {
            Ok(rows) => rows.into_iter(),
            Err(Failure { code, .. }) => return OffsetDeleteResponse { error_code: code.code(), ..Default::default() },
        };
        let accepted = |row: &&mut OffsetDeleteResponsePartition| row.error_code == ErrorCode::None.code();
        for row in topics.iter_mut().flat_map(|topic| &mut topic.partitions).filter(accepted) {
            row.error_code = rows.next().map_or(ErrorCode::UnknownServerError.code(), row_code);
        }
        OffsetDeleteResponse { topics, ..Default::default() }
    }
}
