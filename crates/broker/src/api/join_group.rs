//! JoinGroup (key 11): entering a classic group, or its next generation. Answered when the others have come too.
//! KIP-345 (static members), KIP-394 (ids before joining), KIP-559 (protocol names), KIP-814 (skipped assignments).

use std::sync::Arc;

use bytes::Bytes;
use ottla_group::{Command, Join, JoinRefusal, Joined, Reply};
use ottla_protocol::{
    ErrorCode,
    messages::{JoinGroupRequest, JoinGroupResponse, join_group_response::JoinGroupResponseMember},
};

use super::{
    Context,
    group::{Failure, client, group_id, owned},
};

/// First version whose clients know MEMBER_ID_REQUIRED. Older ones would join again and again (KIP-394).
const MEMBER_ID_VERSION: i16 = 4;
/// First version where there may be no protocol name.
const NULL_PROTOCOL_VERSION: i16 = 7;
/// First version whose leaders know to leave the assignment as it is.
const SKIP_ASSIGNMENT_VERSION: i16 = 9;

pub(super) fn handle(
    context: &Context<'_>,
    request: JoinGroupRequest,
) -> impl Future<Output = JoinGroupResponse> + Send + use<> {
    let version = context.version();
    let (client_id, client_host) = client(context);
    let member = Arc::from(&*request.member_id);
    let join = Join {
        group: group_id(&request.group_id),
        member: Arc::clone(&member),
        instance: owned(&request.group_instance_id),
        client_id,
        client_host,
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: match request.rebalance_timeout_ms {
            // Version 0 has none of its own.
            ..0 => request.session_timeout_ms,
            given => given,
        },
        protocol_type: Arc::from(&*request.protocol_type),
        protocols: request
            .protocols
            .iter()
            .map(|p| (Arc::from(&*p.name), Bytes::copy_from_slice(&p.metadata)))
            .collect(),
        requires_member_id: version >= MEMBER_ID_VERSION,
        supports_skipping_assignment: version >= SKIP_ASSIGNMENT_VERSION,
        reason: owned(&request.reason),
    };
    let pick = |reply| match reply {
        Reply::Join(joined) => Some(joined),
        _ => None,
    };
    let group = Arc::clone(&join.group);
    let pending = context.broker.node.groups().submit(&group, Command::Join(join), pick);
    async move {
        let response = match pending.await {
            Ok(Ok(joined)) => accepted(joined),
            Ok(Err(JoinRefusal { refusal, member })) => refused(refusal.into(), &member),
            Err(why) => refused(why.into(), &member),
        };
        match version {
            NULL_PROTOCOL_VERSION.. => response,
            _ => JoinGroupResponse { protocol_name: Some(response.protocol_name.unwrap_or_default()), ..response },
        }
    }
}

fn accepted(joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| JoinGroupResponseMember {
        member_id: (&*member.member).into(),
        group_instance_id: member.instance.as_deref().map(Into::into),
        metadata: member.metadata,
    });
    JoinGroupResponse {
        error_code: ErrorCode::None.code(),
        generation_id: joined.generation,
        protocol_type: joined.protocol_type.as_deref().map(Into::into),
        protocol_name: joined.protocol.as_deref().map(Into::into),
        leader: (&*joined.leader).into(),
        skip_assignment: joined.skip_assignment,
        member_id: (&*joined.member).into(),
        members: members.collect(),
        ..Default::default()
    }
}

fn refused(failure: Failure, member: &str) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: failure.code.code(),
        protocol_name: None,
        member_id: member.into(),
        ..Default::default()
    }
}
