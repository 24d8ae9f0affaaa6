//! ListConfigResources (key 74): the names of what has configs (KIP-1142; version 0 is KIP-714's, and knows client
//! metrics only, of which there are none).
//!
//! Topics and brokers are listed whether or not something is set on them, groups only if something is. Not here: the
//! configs themselves (`describe_configs.rs`).

use bytestring::ByteString;
use ottla_protocol::{
    ErrorCode,
    messages::{
        ListConfigResourcesRequest, ListConfigResourcesResponse, list_config_resources_response::ConfigResource,
    },
};

use super::{
    Context,
    configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC},
};

/// First version that knows kinds of resource.
const KINDS_VERSION: i16 = 1;
/// What is listed for a client that names no kind, in Kafka's order.
const ALL: [i8; 5] = [GROUP, CLIENT_METRICS, BROKER_LOGGER, BROKER, TOPIC];

pub(super) fn handle(context: &Context<'_>, request: ListConfigResourcesRequest) -> ListConfigResourcesResponse {
    let wanted = |kind: &i8| match context.version() {
        KINDS_VERSION.. => request.resource_types.is_empty() || request.resource_types.contains(kind),
        _ => *kind == CLIENT_METRICS,
    };
    if request.resource_types.iter().any(|kind| !ALL.contains(kind)) {
        let error_code = ErrorCode::UnsupportedVersion.code();
        return ListConfigResourcesResponse { error_code, ..Default::default() };
    }
    let config_resources = ALL.into_iter().filter(wanted).flat_map(|kind| {
        let resource = move |resource_name| ConfigResource { resource_name, resource_type: kind };
        names(context, kind).into_iter().map(resource)
    });
    ListConfigResourcesResponse { config_resources: config_resources.collect(), ..Default::default() }
}

fn names(context: &Context<'_>, kind: i8) -> Vec<ByteString> {
    let image = context.broker.node.image();
    match kind {
        GROUP => image.configured_groups().map(ByteString::from).collect(),
        BROKER | BROKER_LOGGER => image.brokers().map(|broker| broker.id.to_string().into()).collect(),
        TOPIC => image.topics().map(|topic| ByteString::from(&*topic.name)).collect(),
        _ => Vec::new(),
    }
}
