//! OffsetFetch (key 9): how far groups are; from version 8 on many groups at once (KIP-709).
//! KIP-447 (stable offsets), KIP-848 (member epochs, and topic ids in version 10).

use std::{collections::HashSet, sync::Arc};

use bytestring::ByteString;
use ottla_group::{Committed, FetchOffsets, FetchedOffset, Refusal};
use ottla_metadata::Image;
use ottla_node::Pending;
use ottla_protocol::{
    ErrorCode,
    messages::{
        OffsetFetchRequest, OffsetFetchResponse,
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
};
use ottla_types::{PartitionIndex, TopicId};

use super::{
    Context,
    group::{Failure, flatten, group_id, owned},
};

/// First version with an error for the whole group.
const GROUP_ERROR_VERSION: i16 = 2;
/// First version that asks for many groups.
const MANY_VERSION: i16 = 8;
/// First version that names topics by id.
const TOPIC_ID_VERSION: i16 = 10;

/// The offsets of one group on their way.
struct Wanted {
    group: OffsetFetchRequestGroup,
    pending: Pending<Result<Vec<FetchedOffset>, Refusal>>,
}

pub(super) fn handle(
    context: &Context<'_>,
    request: OffsetFetchRequest,
) -> impl Future<Output = OffsetFetchResponse> + Send + use<> {
    let version = context.version();
    let image = context.broker.node.image();
    let groups = match version {
        MANY_VERSION.. => request.groups,
        _ => vec![one_group(request.group_id, request.topics)],
    };
    let ask = |group: OffsetFetchRequestGroup| {
        let fetch = FetchOffsets {
            group: group_id(&group.group_id),
            member: owned(&group.member_id),
            member_epoch: group.member_epoch,
            partitions: group.topics.as_ref().map(|topics| named(topics, version, &image)),
            require_stable: request.require_stable,
        };
        let id = Arc::clone(&fetch.group);
        let pending = context.broker.node.groups().query(&id, |groups, now| groups.fetch_offsets(now, &fetch));
        Wanted { group, pending }
    };
    let wanted: Vec<Wanted> = each_once(groups).into_iter().map(ask).collect();
    async move {
        let mut groups = Vec::with_capacity(wanted.len());
        for Wanted { group, pending } in wanted {
            groups.push(match flatten(pending.await) {
                Ok(found) => answer(&group, found, version, &image),
                Err(failure) => refuse(group, &failure),
            });
        }
        match version {
            MANY_VERSION.. => OffsetFetchResponse { groups, ..Default::default() },
            _ => groups.pop().map(|group| old_answer(group, version)).unwrap_or_default(),
        }
    }
}

/// Each group and each partition of it once, however often it is named: a commit of four kilobytes is asked for with
/// four bytes.
fn each_once(mut groups: Vec<OffsetFetchRequestGroup>) -> Vec<OffsetFetchRequestGroup> {
    let mut seen = HashSet::with_capacity(groups.len());
    groups.retain(|group| seen.insert(group.group_id.clone()));
    for topics in groups.iter_mut().filter_map(|group| group.topics.as_mut()) {
        let mut seen = HashSet::new();
        for OffsetFetchRequestTopics { name, topic_id, partition_indexes } in topics {
            partition_indexes.retain(|index| seen.insert((name.clone(), *topic_id, *index)));
        }
    }
    groups
}

/// The one group of an old version, as one of many.
fn one_group(
    group_id: ByteString,
    topics: Option<Vec<ottla_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic>>,
) -> OffsetFetchRequestGroup {
    let topics = topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..Default::default()
        });
        topics.collect()
    });
    OffsetFetchRequestGroup { group_id, topics, ..Default::default() }
}

/// The partitions asked for, by name. What has an id that nobody knows is left out and answered as such.
fn named(topics: &[OffsetFetchRequestTopics], version: i16, image: &Image) -> Vec<(Arc<str>, PartitionIndex)> {
    let name = |topic: &OffsetFetchRequestTopics| match version {
        TOPIC_ID_VERSION.. => image.topic(topic.topic_id).map(|topic| Arc::clone(&topic.name)),
        _ => Some(Arc::from(&*topic.name)),
    };
    let known = topics.iter().filter_map(|topic| Some((name(topic)?, &topic.partition_indexes)));
    known
        .flat_map(|(name, indexes)| indexes.iter().map(move |index| (Arc::clone(&name), PartitionIndex(*index))))
        .collect()
}

fn answer(
    wanted: &OffsetFetchRequestGroup,
    found: Vec<FetchedOffset>,
    version: i16,
    image: &Image,
) -> OffsetFetchResponseGroup {
    let topics = match &wanted.topics {
        None => all_topics(found, version, image),
        Some(topics) => {
            let mut found = found.into_iter();
            let answer = |topic: &OffsetFetchRequestTopics| {
                let unknown = version >= TOPIC_ID_VERSION && image.topic(topic.topic_id).is_none();
                let partitions = topic.partition_indexes.iter().map(|&index| match unknown {
                    true => partition(index, None, ErrorCode::UnknownTopicId),
                    // One for each partition that was asked of the coordinator, in that order.
                    false => partition(index, found.next().and_then(|found| found.committed), ErrorCode::None),
                });
                OffsetFetchResponseTopics {
                    partitions: partitions.collect(),
                    name: topic.name.clone(),
                    topic_id: topic.topic_id,
                }
            };
            topics.iter().map(answer).collect()
        }
    };
    OffsetFetchResponseGroup { group_id: wanted.group_id.clone(), topics, error_code: ErrorCode::None.code() }
}

/// Everything the group has committed; where topics go by id, those that still exist.
fn all_topics(found: Vec<FetchedOffset>, version: i16, image: &Image) -> Vec<OffsetFetchResponseTopics> {
    let mut topics: Vec<(Arc<str>, OffsetFetchResponseTopics)> = Vec::new();
    for FetchedOffset { topic, partition: index, committed } in found {
        let topic_id = image.topic_named(&topic).map_or(TopicId::ZERO, |topic| topic.id);
        if version >= TOPIC_ID_VERSION && topic_id.is_zero() {
            continue;
        }
        let row = partition(index.0, committed, ErrorCode::None);
        match topics.last_mut() {
            Some((name, last)) if *name == topic => last.partitions.push(row),
            _ => {
                let first = OffsetFetchResponseTopics { name: (&*topic).into(), topic_id, partitions: vec![row] };
                topics.push((topic, first));
            }
        }
    }
    topics.into_iter().map(|(_, topic)| topic).collect()
}

fn partition(index: i32, committed: Option<Committed>, code: ErrorCode) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: index,
        committed_offset: committed.as_ref().map_or(-1, |committed| committed.offset.0),
        committed_leader_epoch: committed.as_ref().map_or(-1, |committed| committed.leader_epoch.0),
        metadata: Some(committed.map(|committed| (&*committed.metadata).into()).unwrap_or_default()),
        error_code: code.code(),
    }
}

/// A group that can't be asked: each partition says so too, which is where the oldest clients look.
fn refuse(wanted: OffsetFetchRequestGroup, failure: &Failure) -> OffsetFetchResponseGroup {
    let topics = wanted.topics.unwrap_or_default().into_iter().map(|topic| OffsetFetchResponseTopics {
        partitions: topic.partition_indexes.iter().map(|&index| partition(index, None, failure.code)).collect(),
        name: topic.name,
        topic_id: topic.topic_id,
    });
    OffsetFetchResponseGroup { group_id: wanted.group_id, topics: topics.collect(), error_code: failure.code.code() }
}

/// The answer of the versions that know one group.
fn old_answer(group: OffsetFetchResponseGroup, version: i16) -> OffsetFetchResponse {
    let failed = version >= GROUP_ERROR_VERSION && group.error_code != ErrorCode::None.code();
    let topics = group.topics.into_iter().filter(|_| !failed).map(|topic| {
        let partitions = topic.partitions.into_iter().map(|row| OffsetFetchResponsePartition {
            partition_index: row.partition_index,
            committed_offset: row.committed_offset,
            committed_leader_epoch: row.committed_leader_epoch,
            metadata: row.metadata,
            error_code: row.error_code,
        });
        OffsetFetchResponseTopic { name: topic.name, partitions: partitions.collect() }
    });
    OffsetFetchResponse { topics: topics.collect(), error_code: group.error_code, ..Default::default() }
}
