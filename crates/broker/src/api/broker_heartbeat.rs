//! BrokerHeartbeat (key 63): a broker is there, says how far it has applied the metadata, and may ask to go (KIP-631).

use ottla_metadata::BrokerFeature;
use ottla_node::{Heartbeat, Node};
use ottla_protocol::messages::{BrokerHeartbeatRequest, BrokerHeartbeatResponse};
use ottla_types::{BrokerEpoch, BrokerId, Offset};

use super::{Client, Context, configs::Failure};

/// Remembers whose connection this is: when it ends, that broker may have.
pub(super) fn handle(
    context: &Context<'_>,
    client: &mut Client,
    request: BrokerHeartbeatRequest,
) -> BrokerHeartbeatResponse {
    client.reports_for = Some(BrokerId(request.broker_id));
    serve(&context.broker.node, request)
}

/// What the controller does.
pub(crate) fn serve(node: &Node, request: BrokerHeartbeatRequest) -> BrokerHeartbeatResponse {
    let features = request.ottla_features.iter().map(|feature| BrokerFeature {
        name: feature.name.to_string(),
        min: feature.min_supported_version,
        max: feature.max_supported_version,
    });
    let heartbeat = Heartbeat {
        broker: BrokerId(request.broker_id),
        epoch: BrokerEpoch(request.broker_epoch),
        offset: Offset(request.current_metadata_offset),
        want_fence: request.want_fence,
        want_shut_down: request.want_shut_down,
        features: features.collect(),
    };
    match node.heartbeat(&heartbeat) {
        Ok(reply) => BrokerHeartbeatResponse {
            is_caught_up: reply.caught_up,
            is_fenced: reply.fenced,
            should_shut_down: reply.may_shut_down,
            ..Default::default()
        },
        Err(error) => BrokerHeartbeatResponse {
            error_code: Failure::from(error).code.code(),
            is_fenced: true,
            ..Default::default()
        },
    }
}
