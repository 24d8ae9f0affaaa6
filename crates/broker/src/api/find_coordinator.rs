//! FindCoordinator (key 10): which broker coordinates a group (KIP-699: from version 4 on many groups at once).
//!
//! This broker, as long as there is one only. Who asks first has the topic of committed offsets created, and is told to
//! come back until it is there. Not here: anything about the group, which need not exist and whose id is not judged.

use bytestring::ByteString;
use ottla_metadata::OFFSETS_TOPIC;
use ottla_protocol::{
    ErrorCode,
    messages::{FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response::Coordinator},
};

use super::{Context, configs::Failure, init_producer_id::TRANSACTIONS_REFUSED};

/// First version that asks for many keys.
const MANY_KEYS_VERSION: i16 = 4;

/// What a key may name. Share groups have coordinators of their own too, which only brokers look for.
const GROUP: i8 = 0;
const TRANSACTIONAL_ID: i8 = 1;

pub(super) fn handle(context: &Context<'_>, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let found = find(context, request.key_type);
    if context.version() >= MANY_KEYS_VERSION {
        let keys = request.coordinator_keys.into_iter();
        let coordinators = keys.map(|key| Coordinator { key, ..found.clone() }).collect();
        return FindCoordinatorResponse { coordinators, ..Default::default() };
    }
    FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..Default::default()
    }
}

/// The answer for every key of a type.
fn find(context: &Context<'_>, key_type: i8) -> Coordinator {
    if let Err(failure) = check(context, key_type) {
        return Coordinator {
            node_id: -1,
            port: -1,
            error_code: failure.code.code(),
            error_message: Some(failure.message),
            ..Default::default()
        };
    }
    let (host, port) = context.endpoint();
    Coordinator {
        node_id: context.broker.node.id().0,
        host: ByteString::from(host),
        port: i32::from(port),
        ..Default::default()
    }
}

fn check(context: &Context<'_>, key_type: i8) -> Result<(), Failure> {
    let node = &context.broker.node;
    match key_type {
        GROUP if node.topics().named(OFFSETS_TOPIC).is_some() => Ok(()),
        GROUP => {
            node.request_offsets_topic();
            Err(Failure::new(ErrorCode::CoordinatorNotAvailable, "The topic of committed offsets is being created."))
        }
        TRANSACTIONAL_ID => Err(Failure::new(TRANSACTIONS_REFUSED, "Transactions are not served yet.")),
        other => Err(Failure::invalid_request(format!("There is no coordinator of type {other}."))),
    }
}
