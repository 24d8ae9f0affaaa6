//! SyncGroup (key 14): the leader brings everybody's assignment, the others wait for theirs. KIP-345, KIP-559.

use std::sync::Arc;

use bytes::Bytes;
use ottla_group::{Command, Reply, Sync};
use ottla_protocol::{
    ErrorCode,
    messages::{SyncGroupRequest, SyncGroupResponse},
};

use super::{
    Context,
    group::{Failure, flatten, group_id, owned},
};

/// From this version on the client says which protocol it believes in.
const PROTOCOL_VERSION: i16 = 5;

pub(super) fn handle(
    context: &Context<'_>,
    request: SyncGroupRequest,
) -> impl Future<Output = SyncGroupResponse> + Send + use<> {
    let complete = context.version() < PROTOCOL_VERSION
        || request.group_id.is_empty()
        || (request.protocol_type.is_some() && request.protocol_name.is_some());
    let sync = Sync {
        group: group_id(&request.group_id),
        member: Arc::from(&*request.member_id),
        instance: owned(&request.group_instance_id),
        generation: request.generation_id,
        protocol_type: owned(&request.protocol_type),
        protocol: owned(&request.protocol_name),
        assignments: request
            .assignments
            .iter()
            .map(|given| (Arc::from(&*given.member_id), Bytes::copy_from_slice(&given.assignment)))
            .collect(),
    };
    let pick = |reply| match reply {
        Reply::Sync(synced) => Some(synced),
        _ => None,
    };
    let group = Arc::clone(&sync.group);
    let pending = complete.then(|| context.broker.node.groups().submit(&group, Command::Sync(sync), pick));
    async move {
        let synced = match pending {
            Some(pending) => flatten(pending.await).map_err(|Failure { code, .. }| code),
            None => Err(ErrorCode::InconsistentGroupProtocol),
        };
        match synced {
            Ok(synced) => SyncGroupResponse {
                protocol_type: synced.protocol_type.as_deref().map(Into::into),
                protocol_name: synced.protocol.as_deref().map(Into::into),
                assignment: synced.assignment,
                ..Default::default()
            },
            Err(code) => SyncGroupResponse { error_code: code.code(), ..Default::default() },
        }
    }
}
