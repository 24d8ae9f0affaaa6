//! FindCoordinator (key 10): which broker coordinates a group (KIP-699: from version 4 on many groups at once).
//!
//! The leader of the group's partition of the topic of committed offsets. Who asks first has that topic created, and is
//! told to come back until it is there. Not here: anything about the group, which need not exist and whose id is not
//! judged.

use bytestring::ByteString;
use ottla_metadata::OFFSETS_TOPIC;
use ottla_node::group_partition;
use ottla_protocol::{
    ErrorCode,
    messages::{FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response::Coordinator},
};

use super::{Context, configs::Failure, init_producer_id::TRANSACTIONS_REFUSED, leaders::Endpoint};

/// First version that asks for many keys.
const MANY_KEYS_VERSION: i16 = 4;

/// What a key may name. Share groups have coordinators of their own too, which only brokers look for.
const GROUP: i8 = 0;
const TRANSACTIONAL_ID: i8 = 1;

pub(super) fn handle(context: &Context<'_>, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    if context.version() >= MANY_KEYS_VERSION {
        let keys = request.coordinator_keys.into_iter();
        let coordinators = keys.map(|key| find(context, request.key_type, key)).collect();
        return FindCoordinatorResponse { coordinators, ..Default::default() };
    }
    let found = find(context, request.key_type, request.key);
    FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..Default::default()
    }
}

fn find(context: &Context<'_>, key_type: i8, key: ByteString) -> Coordinator {
    match coordinator(context, key_type, &key) {
        Ok(endpoint) => Coordinator {
            key,
            node_id: endpoint.id.0,
            host: ByteString::from(endpoint.host),
            port: i32::from(endpoint.port),
            ..Default::default()
        },
        Err(failure) => Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: failure.code.code(),
            error_message: Some(failure.message),
            ..Default::default()
        },
    }
}

fn coordinator(context: &Context<'_>, key_type: i8, key: &str) -> Result<Endpoint, Failure> {
    let unavailable = |why: &'static str| Failure::new(ErrorCode::CoordinatorNotAvailable, why);
    match key_type {
        GROUP => {
            let image = context.broker.node.image();
            let Some(topic) = image.topic_named(OFFSETS_TOPIC) else {
                context.broker.request_topics(vec![OFFSETS_TOPIC.to_owned()]);
                return Err(unavailable("The topic of committed offsets is being created."));
            };
            let partition = topic.partitions.get(group_partition(key, topic.partitions.len()));
            let leader = partition.and_then(|partition| partition.leader);
            leader
                .and_then(|leader| context.way().endpoint(&image, leader))
                .ok_or_else(|| unavailable("Nobody leads the group's partition of the topic of committed offsets."))
        }
        TRANSACTIONAL_ID => Err(Failure::new(TRANSACTIONS_REFUSED, "Transactions are not served yet.")),
        other => Err(Failure::invalid_request(format!("There is no coordinator of type {other}."))),
    }
}
