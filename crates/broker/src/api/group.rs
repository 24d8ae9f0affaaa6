//! What the APIs of group coordination share: how a refusal becomes one of Kafka's error codes.
//!
//! Each of them submits a command to the coordinator at once, in the order of the connection, and awaits the reply in a
//! future that the connection keeps. Next: `ottla_node::Groups`, and `ottla_group` for the rules.

use std::collections::HashSet;

use bytestring::ByteString;
use ottla_group::{GroupId, Refusal};
use ottla_node::NoCoordinator;
use ottla_protocol::ErrorCode;

use super::Context;

/// Bits of Kafka's operations on a group: read, delete, describe, describe and alter its configs (KIP-430).
const ALL_GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;
/// What `authorized_operations` says when nobody asked.
const NOT_ASKED: i32 = i32::MIN;

/// The longest message, in characters.
const MESSAGE_MAX: usize = 1_000;

/// Why a group request failed, with what to tell a client that listens.
pub(super) struct Failure {
    pub(super) code: ErrorCode,
    pub(super) message: String,
}

impl From<NoCoordinator> for Failure {
    fn from(why: NoCoordinator) -> Failure {
        let code = match why {
            NoCoordinator::NotAvailable => ErrorCode::CoordinatorNotAvailable,
            NoCoordinator::Loading => ErrorCode::CoordinatorLoadInProgress,
            NoCoordinator::NotHere => ErrorCode::NotCoordinator,
            NoCoordinator::TooLarge => ErrorCode::UnknownServerError,
        };
        Failure { code, message: why.to_string() }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let code = match &refusal {
            Refusal::InvalidGroupId => ErrorCode::InvalidGroupId,
            Refusal::GroupIdNotFound(_) => ErrorCode::GroupIdNotFound,
            Refusal::NonEmptyGroup => ErrorCode::NonEmptyGroup,
            Refusal::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
            Refusal::UnknownMemberId => ErrorCode::UnknownMemberId,
            Refusal::MemberIdRequired => ErrorCode::MemberIdRequired,
            Refusal::FencedInstanceId => ErrorCode::FencedInstanceId,
            Refusal::UnreleasedInstanceId => ErrorCode::UnreleasedInstanceId,
            Refusal::IllegalGeneration => ErrorCode::IllegalGeneration,
            Refusal::RebalanceInProgress => ErrorCode::RebalanceInProgress,
            Refusal::InconsistentGroupProtocol(_) => ErrorCode::InconsistentGroupProtocol,
            Refusal::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
            Refusal::FencedMemberEpoch(_) => ErrorCode::FencedMemberEpoch,
            Refusal::StaleMemberEpoch => ErrorCode::StaleMemberEpoch,
            Refusal::UnsupportedAssignor(_) => ErrorCode::UnsupportedAssignor,
            Refusal::InvalidRegularExpression(_) => ErrorCode::InvalidRegularExpression,
            Refusal::InvalidRequest(_) => ErrorCode::InvalidRequest,
            Refusal::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
            Refusal::GroupSubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
            Refusal::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
            Refusal::UnstableOffsetCommit => ErrorCode::UnstableOffsetCommit,
        };
        Failure { code, message: shortened(refusal.to_string()) }
    }
}

/// Names in a message may be as long as the wire allows, and the message around them must not be longer than that.
fn shortened(message: String) -> String {
    if message.len() <= MESSAGE_MAX { message } else { message.chars().take(MESSAGE_MAX).collect() }
}

/// The reply, or whichever of the two kinds of failure there was.
pub(super) fn flatten<T>(reply: Result<Result<T, Refusal>, NoCoordinator>) -> Result<T, Failure> {
    Ok(reply??)
}

/// The code of a row of a reply.
pub(super) fn row_code(row: Result<(), Refusal>) -> i16 {
    row.map_or_else(|refusal| Failure::from(refusal).code, |()| ErrorCode::None).code()
}

/// A group's id as the coordinator keeps it: it must not hold on to the frame.
pub(super) fn group_id(id: &ByteString) -> GroupId {
    GroupId::from(&**id)
}

/// Each group once, however often it is named: the answer is to be no larger than what there is to know.
pub(super) fn each_once(ids: Vec<ByteString>) -> impl Iterator<Item = ByteString> {
    let mut seen = HashSet::with_capacity(ids.len());
    ids.into_iter().filter(move |id| seen.insert(id.clone()))
}

/// A string as the coordinator keeps it.
pub(super) fn owned(text: &Option<ByteString>) -> Option<std::sync::Arc<str>> {
    text.as_deref().map(std::sync::Arc::from)
}

/// The client's id and address, as Kafka shows them.
pub(super) fn client(context: &Context<'_>) -> (std::sync::Arc<str>, std::sync::Arc<str>) {
    let id = context.header.client_id.as_deref().unwrap_or_default();
    (id.into(), format!("/{}", context.peer.ip().to_canonical()).into())
}

/// What everybody may do with a group, for those who ask.
pub(super) fn authorized_operations(asked: bool) -> i32 {
    if asked { ALL_GROUP_OPERATIONS } else { NOT_ASKED }
}
