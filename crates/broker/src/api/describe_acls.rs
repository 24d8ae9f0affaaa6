//! DescribeAcls (key 29): without an authorizer there are no ACLs, and Kafka says so with SECURITY_DISABLED.

use bytestring::ByteString;
use ottla_protocol::{
    ErrorCode,
    messages::{DescribeAclsRequest, DescribeAclsResponse},
};

use super::Context;

/// What every ACL request is told, in Kafka's words, which people search for.
pub(super) const NO_AUTHORIZER: &str = "No Authorizer is configured.";

pub(super) fn handle(_context: &Context<'_>, _request: DescribeAclsRequest) -> DescribeAclsResponse {
    DescribeAclsResponse {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(ByteString::from_static(NO_AUTHORIZER)),
        ..Default::default()
    }
}
