//! DeleteGroups (key 42): groups that nobody is in, with everything they have committed (KIP-229).

use ottla_group::{Command, Reply};
use ottla_protocol::{
    ErrorCode,
    messages::{DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult},
};

use super::{
    Context,
    group::{Failure, flatten, group_id},
};

pub(super) fn handle(
    context: &Context<'_>,
    request: DeleteGroupsRequest,
) -> impl Future<Output = DeleteGroupsResponse> + Send + use<> {
    let groups = context.broker.node.groups();
    let pick = |reply| match reply {
        Reply::DeleteGroup(deleted) => Some(deleted),
        _ => None,
    };
    let delete = |id: bytestring::ByteString| {
        let pending = groups.submit(&id, Command::DeleteGroup(group_id(&id)), pick);
        (id, pending)
    };
    let asked: Vec<_> = request.groups_names.into_iter().map(delete).collect();
    async move {
        let mut results = Vec::with_capacity(asked.len());
        for (group_id, pending) in asked {
            let code = flatten(pending.await).map_or_else(|Failure { code, .. }| code, |()| ErrorCode::None);
            results.push(DeletableGroupResult { group_id, error_code: code.code() });
        }
        DeleteGroupsResponse { results, ..Default::default() }
    }
}
