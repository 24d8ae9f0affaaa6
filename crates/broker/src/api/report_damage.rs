//! ReportDamage (key 20004, Ottla's own): a broker's copies of some partitions can't be trusted any more (rule L5):
//! they leave ISR and ELR.

use std::iter;

use ottla_metadata::{Command, DamagedCopy};
use ottla_node::Node;
use ottla_protocol::messages::{ReportDamageRequest, ReportDamageResponse};
use ottla_types::{BrokerEpoch, BrokerId, PartitionIndex};

use super::{Context, configs::Failure};

pub(super) fn handle(context: &Context<'_>, request: ReportDamageRequest) -> ReportDamageResponse {
    serve(&context.broker.node, request)
}

/// What the controller does.
pub(crate) fn serve(node: &Node, request: ReportDamageRequest) -> ReportDamageResponse {
    let mut partitions = Vec::new();
    for topic in request.topics {
        let id = topic.topic_id;
        // A broker of an older version does not say how it knows them.
        let epochs = topic.partition_epochs.into_iter().chain(iter::repeat(i32::MAX));
        partitions.extend(topic.partitions.into_iter().zip(epochs).map(|(index, partition_epoch)| DamagedCopy {
            topic: id,
            index: PartitionIndex(index),
            partition_epoch,
        }));
    }
    let command = Command::ReportDamage {
        broker: BrokerId(request.broker_id),
        epoch: BrokerEpoch(request.broker_epoch),
        partitions,
    };
    let failure = node.submit(command).err().map(Failure::from);
    ReportDamageResponse { error_code: failure.map_or(0, |failure| failure.code.code()) }
}
