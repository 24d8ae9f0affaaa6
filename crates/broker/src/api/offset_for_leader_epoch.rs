//! OffsetForLeaderEpoch (key 23): where an epoch of a partition ends, so that a reader can find out whether what it
//! read is still there (KIP-101, KIP-320). An epoch that the log does not know is no error: epoch and offset are -1.

use std::sync::Arc;

use ottla_node::Topic;
use ottla_protocol::{
    ErrorCode,
    messages::{
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
        offset_for_leader_epoch_request::OffsetForLeaderPartition,
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    },
};
use ottla_types::{LeaderEpoch, Offset, PartitionIndex};

use super::{Context, fetch::read_error, held, unavailable_code};

pub(super) fn handle(context: &Context<'_>, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let known = context.broker.node.topics();
    let topics = request.topics.into_iter().map(|wanted| {
        let topic = known.named(&wanted.topic);
        let partitions = wanted.partitions.iter().map(|wanted| {
            let mut answer = EpochEndOffset { partition: wanted.partition, ..Default::default() };
            match epoch_end(topic, wanted) {
                Ok(Some((epoch, end))) => {
                    answer.leader_epoch = epoch.0;
                    answer.end_offset = end.0;
                }
                Ok(None) => {}
                Err(code) => answer.error_code = code.code(),
            }
            answer
        });
        OffsetForLeaderTopicResult { partitions: partitions.collect(), topic: wanted.topic }
    });
    OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() }
}

fn epoch_end(
    topic: Option<&Arc<Topic>>,
    wanted: &OffsetForLeaderPartition,
) -> Result<Option<(LeaderEpoch, Offset)>, ErrorCode> {
    let partition = held(topic, PartitionIndex(wanted.partition))?;
    partition.check_epoch(LeaderEpoch(wanted.current_leader_epoch)).map_err(|refusal| read_error(&refusal.into()))?;
    if wanted.leader_epoch < 0 {
        return Ok(None);
    }
    partition.epoch_end(LeaderEpoch(wanted.leader_epoch)).map_err(|unavailable| unavailable_code(&unavailable))
}
