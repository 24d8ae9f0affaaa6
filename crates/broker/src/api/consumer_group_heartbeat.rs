//! ConsumerGroupHeartbeat (key 68): all of a consumer's life in a group in the new protocol (KIP-848): it says what it
//! wants and has, and hears what it may have.

use std::sync::Arc;

use ottla_group::{Command, ConsumerHeartbeat, ConsumerHeartbeatReply, Reply, TopicPartitions};
use ottla_metadata::GROUP_VERSION;
use ottla_protocol::{
    ErrorCode,
    messages::{
        ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
        consumer_group_heartbeat_response::{self as response, Assignment},
    },
};
use ottla_types::PartitionIndex;

use super::{
    Context,
    group::{Failure, client, flatten, group_id, owned},
};

/// First version whose members make their own ids (KIP-1082).
const CLIENT_IDS_VERSION: i16 = 1;
/// The level of `group.version` that has the protocol.
const CONSUMER_PROTOCOL_LEVEL: i16 = 1;

pub(super) fn handle(
    context: &Context<'_>,
    request: ConsumerGroupHeartbeatRequest,
) -> impl Future<Output = ConsumerGroupHeartbeatResponse> + Send + use<> {
    let (client_id, client_host) = client(context);
    let owned_partitions = request.topic_partitions.map(|topics| {
        let topics = topics.into_iter().map(|topic| TopicPartitions {
            topic: topic.topic_id,
            partitions: topic.partitions.into_iter().map(PartitionIndex).collect(),
        });
        topics.collect()
    });
    let heartbeat = ConsumerHeartbeat {
        group: group_id(&request.group_id),
        member: Arc::from(&*request.member_id),
        member_epoch: request.member_epoch,
        instance: owned(&request.instance_id),
        rack: owned(&request.rack_id),
        client_id,
        client_host,
        rebalance_timeout_ms: (request.rebalance_timeout_ms != -1).then_some(request.rebalance_timeout_ms),
        topics: request.subscribed_topic_names.map(|names| names.iter().map(|name| Arc::from(&**name)).collect()),
        topics_regex: owned(&request.subscribed_topic_regex),
        server_assignor: owned(&request.server_assignor),
        owned: owned_partitions,
        client_makes_ids: context.version() >= CLIENT_IDS_VERSION,
    };
    let pick = |reply| match reply {
        Reply::ConsumerHeartbeat(heard) => Some(heard),
        _ => None,
    };
    let group = Arc::clone(&heartbeat.group);
    let node = &context.broker.node;
    let off = if !node.group_config().consumer_protocol {
        Some("group.coordinator.rebalance.protocols of this broker leaves out `consumer`")
    } else if node.image().level_of(GROUP_VERSION.name) < CONSUMER_PROTOCOL_LEVEL {
        Some("the cluster has finalised group.version at a level without the consumer protocol")
    } else {
        None
    };
    let pending = match off {
        None => Ok(node.groups().submit(&group, Command::ConsumerHeartbeat(heartbeat), pick)),
        Some(why) => Err(Failure { code: ErrorCode::UnsupportedVersion, message: why.to_owned() }),
    };
    async move {
        let heard = match pending {
            Ok(pending) => flatten(pending.await),
            Err(failure) => Err(failure),
        };
        match heard {
            Ok(reply) => accepted(reply),
            Err(Failure { code, message }) => ConsumerGroupHeartbeatResponse {
                error_code: code.code(),
                error_message: Some(message.into()),
                ..Default::default()
            },
        }
    }
}

fn accepted(reply: ConsumerHeartbeatReply) -> ConsumerGroupHeartbeatResponse {
    let assignment = reply.assignment.map(|topics| {
        let topics = topics.into_iter().map(|topic| response::TopicPartitions {
            topic_id: topic.topic,
            partitions: topic.partitions.iter().map(|index| index.0).collect(),
        });
        Assignment { topic_partitions: topics.collect() }
    });
    ConsumerGroupHeartbeatResponse {
        member_id: reply.member.as_deref().map(Into::into),
        member_epoch: reply.member_epoch,
        heartbeat_interval_ms: reply.heartbeat_interval_ms,
        assignment,
        ..Default::default()
    }
}
