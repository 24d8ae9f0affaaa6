//! ListGroups (key 16): every group this broker coordinates, by state (KIP-518) and by kind (KIP-848).

use ottla_group::{GroupListing, GroupState, GroupType};
use ottla_protocol::{
    ErrorCode,
    messages::{ListGroupsRequest, ListGroupsResponse, list_groups_response::ListedGroup},
};

use super::{Context, group::Failure};

pub(super) fn handle(
    context: &Context<'_>,
    request: ListGroupsRequest,
) -> impl Future<Output = ListGroupsResponse> + Send + use<> {
    let asked = context.broker.node.groups().query_all(|groups, _| groups.list());
    async move {
        let mut response = ListGroupsResponse::default();
        for pending in asked {
            match pending.await {
                Ok(listed) => {
                    response.groups.extend(listed.into_iter().filter(|group| matches(group, &request)).map(row));
                }
                // What the others know is told all the same; the client asks again.
                Err(why) => response.error_code = Failure::from(why).code.code(),
            }
        }
        if response.error_code != ErrorCode::None.code() {
            response.groups.clear();
        }
        response
    }
}

fn matches(group: &GroupListing, request: &ListGroupsRequest) -> bool {
    let named = |wanted: &[_], name: &str| {
        wanted.is_empty() || wanted.iter().any(|wanted: &bytestring::ByteString| wanted.eq_ignore_ascii_case(name))
    };
    named(&request.states_filter, state_name(group.state)) && named(&request.types_filter, kind_name(group.kind))
}

fn row(group: GroupListing) -> ListedGroup {
    ListedGroup {
        group_id: (&*group.group).into(),
        protocol_type: (&*group.protocol_type).into(),
        group_state: state_name(group.state).into(),
        group_type: kind_name(group.kind).into(),
    }
}

/// A state as Kafka's tools print it.
pub(super) fn state_name(state: GroupState) -> &'static str {
    match state {
        GroupState::PreparingRebalance => "PreparingRebalance",
        GroupState::CompletingRebalance => "CompletingRebalance",
        GroupState::Stable => "Stable",
        GroupState::Empty => "Empty",
        GroupState::Dead => "Dead",
        GroupState::Assigning => "Assigning",
        GroupState::Reconciling => "Reconciling",
    }
}

fn kind_name(kind: GroupType) -> &'static str {
    match kind {
        GroupType::Classic => "classic",
        GroupType::Consumer => "consumer",
    }
}
