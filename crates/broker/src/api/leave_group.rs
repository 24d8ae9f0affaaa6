//! LeaveGroup (key 13): members leave at once rather than by silence; from version 3 on many, each with a result, and
//! an admin may remove static ones by their instance. KIP-345, KIP-800.

use std::sync::Arc;

use ottla_group::{Command, Leave, LeavingMember, Reply};
use ottla_protocol::{
    ErrorCode,
    messages::{LeaveGroupRequest, LeaveGroupResponse, leave_group_response::MemberResponse},
};

use super::{
    Context,
    group::{Failure, flatten, group_id, owned, row_code},
};

/// First version with many members.
const BATCH_VERSION: i16 = 3;

pub(super) fn handle(
    context: &Context<'_>,
    request: LeaveGroupRequest,
) -> impl Future<Output = LeaveGroupResponse> + Send + use<> {
    let batch = context.version() >= BATCH_VERSION;
    let members = match batch {
        true => request
            .members
            .iter()
            .map(|member| LeavingMember {
                member: Arc::from(&*member.member_id),
                instance: owned(&member.group_instance_id),
                reason: owned(&member.reason),
            })
            .collect(),
        false => vec![LeavingMember { member: Arc::from(&*request.member_id), instance: None, reason: None }],
    };
    let leave = Leave { group: group_id(&request.group_id), members };
    let pick = |reply| match reply {
        Reply::Leave(left) => Some(left),
        _ => None,
    };
    let group = Arc::clone(&leave.group);
    let pending = context.broker.node.groups().submit(&group, Command::Leave(leave), pick);
    async move {
        match flatten(pending.await) {
            Ok(rows) if batch => {
                let members = rows.into_iter().map(|row| MemberResponse {
                    member_id: (&*row.member).into(),
                    group_instance_id: row.instance.as_deref().map(Into::into),
                    error_code: row_code(row.result),
                });
                LeaveGroupResponse { members: members.collect(), ..Default::default() }
            }
            Ok(rows) => {
                let code = rows.into_iter().next().map_or(ErrorCode::None.code(), |row| row_code(row.result));
                LeaveGroupResponse { error_code: code, ..Default::default() }
            }
            Err(Failure { code, .. }) => LeaveGroupResponse { error_code: code.code(), ..Default::default() },
        }
    }
}
