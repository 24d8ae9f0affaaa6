//! DescribeCluster (key 60): the cluster's id, its controller and its brokers (KIP-700; KIP-919 for endpoint types).

use ottla_protocol::{
    ErrorCode,
    messages::{DescribeClusterRequest, DescribeClusterResponse, describe_cluster_response::DescribeClusterBroker},
};

use super::{Context, metadata::CLUSTER_OPERATIONS};

/// What a client may ask for: brokers, or controllers, which answer on a listener of their own.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) fn handle(context: &Context<'_>, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let refused = match request.endpoint_type {
        BROKERS => None,
        CONTROLLERS => {
            Some((ErrorCode::MismatchedEndpointType, "This is a broker's endpoint, not a controller's.".to_owned()))
        }
        other => Some((ErrorCode::UnsupportedEndpointType, format!("There is no endpoint type {other}."))),
    };
    if let Some((code, message)) = refused {
        let error_code = code.code();
        return DescribeClusterResponse { error_code, error_message: Some(message.into()), ..Default::default() };
    }
    let node = &context.broker.node;
    let (image, way) = (node.image(), context.way());
    let wanted = image.brokers().filter(|broker| !broker.fenced || request.include_fenced_brokers);
    let endpoints = wanted.filter_map(|broker| way.endpoint(&image, broker.id));
    let brokers = endpoints.map(|endpoint| DescribeClusterBroker {
        broker_id: endpoint.id.0,
        host: endpoint.host.into(),
        port: i32::from(endpoint.port),
        rack: endpoint.rack,
        is_fenced: endpoint.fenced,
    });
    let mut response = DescribeClusterResponse {
        cluster_id: node.cluster_id().into(),
        controller_id: node.id().0,
        brokers: brokers.collect(),
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}
