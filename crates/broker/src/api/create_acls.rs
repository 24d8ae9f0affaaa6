//! CreateAcls (key 30): without an authorizer each ACL is refused with SECURITY_DISABLED, as Kafka does.

use bytestring::ByteString;
use ottla_protocol::{
    ErrorCode,
    messages::{CreateAclsRequest, CreateAclsResponse, create_acls_response::AclCreationResult},
};

use super::{Context, describe_acls::NO_AUTHORIZER};

pub(super) fn handle(_context: &Context<'_>, request: CreateAclsRequest) -> CreateAclsResponse {
    let refused = AclCreationResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(ByteString::from_static(NO_AUTHORIZER)),
    };
    CreateAclsResponse { results: vec![refused; request.creations.len()], ..Default::default() }
}
