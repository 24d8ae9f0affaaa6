//! DeleteAcls (key 31): without an authorizer each filter is refused with SECURITY_DISABLED, as Kafka does.

use bytestring::ByteString;
use ottla_protocol::{
    ErrorCode,
    messages::{DeleteAclsRequest, DeleteAclsResponse, delete_acls_response::DeleteAclsFilterResult},
};

use super::{Context, describe_acls::NO_AUTHORIZER};

pub(super) fn handle(_context: &Context<'_>, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let refused = DeleteAclsFilterResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(ByteString::from_static(NO_AUTHORIZER)),
        ..Default::default()
    };
    DeleteAclsResponse { filter_results: vec![refused; request.filters.len()], ..Default::default() }
}
