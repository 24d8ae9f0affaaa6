//! DeleteRecords (key 21): moves the start of partitions forward, to an offset or to the high watermark (KIP-107).

use std::sync::Arc;

use ottla_metadata::is_internal_topic;
use ottla_node::Topic;
use ottla_protocol::{
    ErrorCode,
    messages::{
        DeleteRecordsRequest, DeleteRecordsResponse,
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
    },
};
use ottla_types::{Offset, PartitionIndex};

use super::{Context, fetch::read_error, held};

/// The offset that stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

pub(super) fn handle(context: &Context<'_>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let topics = context.broker.node.topics();
    let results = request.topics.into_iter().map(|wanted| {
        let topic = topics.named(&wanted.name);
        let partitions = wanted.partitions.into_iter().map(|wanted| {
            let deleted = delete(topic, PartitionIndex(wanted.partition_index), wanted.offset);
            DeleteRecordsPartitionResult {
                partition_index: wanted.partition_index,
                low_watermark: deleted.map_or(-1, |start| start.0),
                error_code: deleted.err().unwrap_or(ErrorCode::None).code(),
            }
        });
        DeleteRecordsTopicResult { name: wanted.name, partitions: partitions.collect() }
    });
    DeleteRecordsResponse { topics: results.collect(), ..Default::default() }
}

/// The partition's new start.
fn delete(topic: Option<&Arc<Topic>>, index: PartitionIndex, before: i64) -> Result<Offset, ErrorCode> {
    if topic.is_some_and(|topic| is_internal_topic(&topic.name)) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let partition = held(topic, index)?;
    let before = if before == HIGH_WATERMARK { None } else { Some(Offset(before)) };
    partition.delete_records(before).map_err(|refusal| read_error(&refusal))
}
