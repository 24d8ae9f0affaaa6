//! ListOffsets (key 2): the offset at a place or at a time of a partition.
//!
//! Negative timestamps are names of places, each since some version; KIP-79 (lookup by time), KIP-320 (epochs),
//! KIP-734 (largest timestamp), KIP-405, KIP-1005 and KIP-1023 (tiers, which Ottla does not have: what is local is all
//! there is). Next: `ottla_node::Partition::find_offset`.

use std::{collections::HashSet, sync::Arc};

use ottla_node::{FoundOffset, OffsetSpec, Topic};
use ottla_protocol::{
    ErrorCode,
    messages::{
        ListOffsetsRequest, ListOffsetsResponse,
        list_offsets_request::ListOffsetsPartition,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    },
};
use ottla_types::{LeaderEpoch, PartitionIndex, Timestamp};

use super::{Context, fetch::read_error, held};

/// First version whose answer carries an epoch.
const LEADER_EPOCH_VERSION: i16 = 4;

/// What a timestamp asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    At(OffsetSpec),
    /// A place in a tier that is not there.
    Tiered,
}

pub(super) fn handle(context: &Context<'_>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let version = context.version();
    let known = context.broker.node.topics();
    let repeated = repeated(&request);
    let topics = request.topics.iter().map(|wanted| {
        let topic = known.named(&wanted.name);
        let partitions = wanted.partitions.iter().map(|wanted_partition| {
            let found = if repeated.contains(&(&*wanted.name, wanted_partition.partition_index)) {
                Err(ErrorCode::InvalidRequest)
            } else {
                find(topic, wanted_partition, version)
            };
            answer(wanted_partition.partition_index, found, version)
        });
        ListOffsetsTopicResponse { name: wanted.name.clone(), partitions: partitions.collect() }
    });
    ListOffsetsResponse { topics: topics.collect(), ..Default::default() }
}

/// The partitions that the request names more than once.
fn repeated(request: &ListOffsetsRequest) -> HashSet<(&str, i32)> {
    let mut seen = HashSet::new();
    let all = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| (&*topic.name, partition.partition_index)));
    all.filter(|&partition| !seen.insert(partition)).collect()
}

fn find(
    topic: Option<&Arc<Topic>>,
    wanted: &ListOffsetsPartition,
    version: i16,
) -> Result<Option<FoundOffset>, ErrorCode> {
    let spec = spec(wanted.timestamp, version).ok_or(ErrorCode::UnsupportedVersion)?;
    let partition = held(topic, PartitionIndex(wanted.partition_index))?;
    partition.check_epoch(LeaderEpoch(wanted.current_leader_epoch)).map_err(|refusal| read_error(&refusal.into()))?;
    match spec {
        Wanted::At(spec) => partition.find_offset(spec).map_err(|refusal| read_error(&refusal)),
        Wanted::Tiered => Ok(None),
    }
}

/// What `timestamp` means in `version`, or `None` where it means nothing.
fn spec(timestamp: i64, version: i16) -> Option<Wanted> {
    let (wanted, since) = match timestamp {
        // Without transactions the last stable offset is the high watermark, at either isolation level.
        -1 => (Wanted::At(OffsetSpec::Latest), 1),
        -2 => (Wanted::At(OffsetSpec::Earliest), 1),
        -3 => (Wanted::At(OffsetSpec::MaxTimestamp), 7),
        // Earliest local, latest tiered, earliest pending upload.
        -4 => (Wanted::At(OffsetSpec::Earliest), 8),
        -5 => (Wanted::Tiered, 9),
        -6 => (Wanted::Tiered, 11),
        0.. => (Wanted::At(OffsetSpec::At(Timestamp(timestamp))), 1),
        _ => return None,
    };
    (version >= since).then_some(wanted)
}

/// Nothing found is no error: everything in the answer is -1.
fn answer(index: i32, found: Result<Option<FoundOffset>, ErrorCode>, version: i16) -> ListOffsetsPartitionResponse {
    let mut answer = ListOffsetsPartitionResponse { partition_index: index, ..Default::default() };
    match found {
        Ok(Some(found)) => {
            answer.offset = found.offset.0;
            answer.timestamp = found.timestamp.0;
            if version >= LEADER_EPOCH_VERSION {
                answer.leader_epoch = found.leader_epoch.0;
            }
        }
        Ok(None) => {}
        Err(code) => answer.error_code = code.code(),
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_rule_53_each_special_timestamp_has_its_first_version() {
        let first = |timestamp| (1..=11).find(|&version| spec(timestamp, version).is_some());
        let versions = [(-1, 1), (-2, 1), (-3, 7), (-4, 8), (-5, 9), (-6, 11), (0, 1), (i64::MAX, 1)];
        for (timestamp, version) in versions {
            assert_eq!(first(timestamp), Some(version), "timestamp {timestamp}");
        }
        assert_eq!(first(-7), None);
        assert_eq!(first(i64::MIN), None);
    }
}
