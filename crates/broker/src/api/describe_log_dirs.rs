//! DescribeLogDirs (key 35): what lies in the data directory and how much room is left (KIP-113, KIP-827).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ottla_node::Topic;
use ottla_protocol::{
    ErrorCode,
    messages::{
        DescribeLogDirsRequest, DescribeLogDirsResponse,
        describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic},
    },
};
use ottla_types::PartitionIndex;

use super::Context;

pub(super) fn handle(context: &Context<'_>, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let node = &context.broker.node;
    let known = node.topics();
    let mut topics: Vec<DescribeLogDirsTopic> = match &request.topics {
        None => {
            let all =
                |topic: &Arc<Topic>| described(topic, topic.partitions.iter().map(|partition| partition.index().0));
            known.iter().map(all).collect()
        }
        Some(wanted) => {
            let mut by_name: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
            for topic in wanted {
                by_name.entry(&topic.topic).or_default().extend(&topic.partitions);
            }
            // What is not in this directory is left out, as in Kafka.
            let found = by_name.into_iter().filter_map(|(name, indexes)| Some((known.named(name)?, indexes)));
            found.map(|(topic, indexes)| described(topic, indexes.into_iter())).collect()
        }
    };
    topics.retain(|topic| !topic.partitions.is_empty());
    topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut directory =
        DescribeLogDirsResult { log_dir: node.data_dir().display().to_string().into(), topics, ..Default::default() };
    match node.disk_space() {
        Ok(space) if !node.has_failed() => {
            directory.total_bytes = i64::try_from(space.total).unwrap_or(i64::MAX);
            directory.usable_bytes = i64::try_from(space.available).unwrap_or(i64::MAX);
        }
        _ => directory.error_code = ErrorCode::KafkaStorageError.code(),
    }
    DescribeLogDirsResponse { results: vec![directory], ..Default::default() }
}

fn described(topic: &Topic, indexes: impl Iterator<Item = i32>) -> DescribeLogDirsTopic {
    let partitions = indexes.filter_map(|index| {
        // A partition that can't be opened has no size to tell; its error shows wherever it is used.
        let extent = topic.partition(PartitionIndex(index))?.extent().ok()?;
        Some(DescribeLogDirsPartition {
            partition_index: index,
            partition_size: i64::try_from(extent.size).unwrap_or(i64::MAX),
            // How far behind its own high watermark a copy is; none ever is.
            offset_lag: 0,
            is_future_key: false,
        })
    });
    DescribeLogDirsTopic { name: (&*topic.name).into(), partitions: partitions.collect() }
}
