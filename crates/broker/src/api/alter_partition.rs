//! AlterPartition (key 56): leaders want other ISRs, and the controller commits them or says why not (KIP-497, KIP-903
//! for the epochs of brokers).

use std::collections::HashMap;

use ottla_metadata::{Command, IsrChange, Partition, Reply};
use ottla_node::Node;
use ottla_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse,
    alter_partition_response::{PartitionData, TopicData},
};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionIndex, TopicId};

use super::{Context, configs::Failure};

/// `leader_recovery_state` of a leader that may have lost records.
const RECOVERING: i8 = 1;

pub(super) fn handle(context: &Context<'_>, request: AlterPartitionRequest) -> AlterPartitionResponse {
    serve(&context.broker.node, request)
}

/// What the controller does.
pub(crate) fn serve(node: &Node, request: AlterPartitionRequest) -> AlterPartitionResponse {
    let mut changes = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            // Version 2 names no epochs of brokers: -1 is known to be none of them, and so not checked.
            let without_epochs = partition.new_isr.iter().map(|broker| (BrokerId(*broker), BrokerEpoch(-1)));
            let with_epochs = partition
                .new_isr_with_epochs
                .iter()
                .map(|state| (BrokerId(state.broker_id), BrokerEpoch(state.broker_epoch)));
            changes.push(IsrChange {
                topic: topic.topic_id,
                index: PartitionIndex(partition.partition_index),
                leader_epoch: LeaderEpoch(partition.leader_epoch),
                partition_epoch: partition.partition_epoch,
                isr: without_epochs.chain(with_epochs).collect(),
                recovering: partition.leader_recovery_state == RECOVERING,
            });
        }
    }
    let command = Command::AlterPartitions {
        broker: BrokerId(request.broker_id),
        epoch: BrokerEpoch(request.broker_epoch),
        changes,
    };
    let rows = match node.submit(command).map_err(Failure::from) {
        Ok(Reply::PartitionsAltered(rows)) => rows,
        Ok(_) => return refused(ottla_protocol::ErrorCode::UnknownServerError.code()),
        Err(failure) => return refused(failure.code.code()),
    };
    let mut topics: HashMap<TopicId, Vec<PartitionData>> = HashMap::new();
    for ((topic, index), row) in rows {
        let row = match row {
            Ok(partition) => altered(index, &partition),
            Err(refusal) => PartitionData {
                partition_index: index.0,
                error_code: Failure::from(refusal).code.code(),
                ..Default::default()
            },
        };
        topics.entry(topic).or_default().push(row);
    }
    let topics = topics.into_iter().map(|(topic_id, partitions)| TopicData { topic_id, partitions });
    AlterPartitionResponse { topics: topics.collect(), ..Default::default() }
}

fn refused(error_code: i16) -> AlterPartitionResponse {
    AlterPartitionResponse { error_code, ..Default::default() }
}

fn altered(index: PartitionIndex, partition: &Partition) -> PartitionData {
    PartitionData {
        partition_index: index.0,
        leader_id: partition.leader.map_or(-1, |leader| leader.0),
        leader_epoch: partition.leader_epoch.0,
        isr: partition.isr.iter().map(|broker| broker.0).collect(),
        leader_recovery_state: i8::from(partition.recovering),
        partition_epoch: partition.partition_epoch,
        ..Default::default()
    }
}
