//! DescribeGroups (key 15): classic groups and their members. One that is not there is `Dead`, and from version 6 on an
//! error (KIP-1043).

use ottla_group::{ClassicDescription, Refusal};
use ottla_protocol::{
    ErrorCode,
    messages::{
        DescribeGroupsRequest, DescribeGroupsResponse,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
    },
};

use super::{
    Context,
    group::{Failure, authorized_operations, each_once, flatten},
    list_groups::state_name,
};

/// First version that says GROUP_ID_NOT_FOUND.
const NOT_FOUND_VERSION: i16 = 6;

pub(super) fn handle(
    context: &Context<'_>,
    request: DescribeGroupsRequest,
) -> impl Future<Output = DescribeGroupsResponse> + Send + use<> {
    let version = context.version();
    let operations = authorized_operations(request.include_authorized_operations);
    let groups = context.broker.node.groups();
    let ask = |id: bytestring::ByteString| {
        let pending = groups.query(&id, |groups, _| groups.describe_classic(&id));
        (id, pending)
    };
    let asked: Vec<_> = each_once(request.groups).map(ask).collect();
    async move {
        let mut groups = Vec::with_capacity(asked.len());
        for (group_id, pending) in asked {
            let described = match pending.await {
                Ok(Err(Refusal::GroupIdNotFound(_))) if version < NOT_FOUND_VERSION => DescribedGroup {
                    group_state: state_name(ottla_group::GroupState::Dead).into(),
                    ..Default::default()
                },
                reply => match flatten(reply) {
                    Ok(description) => describe(description),
                    Err(Failure { code, message }) => DescribedGroup {
                        error_code: code.code(),
                        error_message: (version >= NOT_FOUND_VERSION).then(|| message.into()),
                        group_state: match code {
                            ErrorCode::GroupIdNotFound => state_name(ottla_group::GroupState::Dead).into(),
                            _ => Default::default(),
                        },
                        ..Default::default()
                    },
                },
            };
            groups.push(DescribedGroup { group_id, authorized_operations: operations, ..described });
        }
        DescribeGroupsResponse { groups, ..Default::default() }
    }
}

fn describe(description: ClassicDescription) -> DescribedGroup {
    let members = description.members.into_iter().map(|member| DescribedGroupMember {
        member_id: (&*member.member).into(),
        group_instance_id: member.instance.as_deref().map(Into::into),
        client_id: (&*member.client_id).into(),
        client_host: (&*member.client_host).into(),
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    });
    DescribedGroup {
        group_state: state_name(description.state).into(),
        protocol_type: (&*description.protocol_type).into(),
        protocol_data: (&*description.protocol).into(),
        members: members.collect(),
        ..Default::default()
    }
}
