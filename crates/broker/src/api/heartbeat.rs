//! Heartbeat (key 12): a member of a classic group is still there, and hears whether it has to join again. KIP-345.

use std::sync::Arc;

use ottla_group::{Command, Heartbeat, Reply};
use ottla_protocol::{
    ErrorCode,
    messages::{HeartbeatRequest, HeartbeatResponse},
};

use super::{
    Context,
    group::{Failure, flatten, group_id, owned},
};

pub(super) fn handle(
    context: &Context<'_>,
    request: HeartbeatRequest,
) -> impl Future<Output = HeartbeatResponse> + Send + use<> {
    let heartbeat = Heartbeat {
        group: group_id(&request.group_id),
        member: Arc::from(&*request.member_id),
        instance: owned(&request.group_instance_id),
        generation: request.generation_id,
    };
    let pick = |reply| match reply {
        Reply::Heartbeat(heard) => Some(heard),
        _ => None,
    };
    let group = Arc::clone(&heartbeat.group);
    let pending = context.broker.node.groups().submit(&group, Command::Heartbeat(heartbeat), pick);
    async move {
        let code = flatten(pending.await).map_or_else(|Failure { code, .. }| code, |()| ErrorCode::None);
        HeartbeatResponse { error_code: code.code(), ..Default::default() }
    }
}
