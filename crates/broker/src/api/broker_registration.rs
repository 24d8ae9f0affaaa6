//! BrokerRegistration (key 62): a run of a broker begins (KIP-631). The controller gives it an epoch, and a number to
//! one that has none; it stays fenced until its heartbeats show that it has applied its own registration.

use std::sync::Arc;

use bytestring::ByteString;
use ottla_metadata::{Broker, BrokerFeature, BrokerRegistration, CleanEnd, Command, Listener, Refusal, Reply};
use ottla_node::{Node, SubmitError};
use ottla_protocol::{
    ErrorCode,
    messages::{BrokerRegistrationRequest, BrokerRegistrationResponse},
};
use ottla_types::{BrokerEpoch, BrokerId};

use super::{Context, configs::Failure};

pub(super) fn handle(context: &Context<'_>, request: BrokerRegistrationRequest) -> BrokerRegistrationResponse {
    serve(&context.broker.node, request)
}

/// What the controller does.
pub(crate) fn serve(node: &Node, request: BrokerRegistrationRequest) -> BrokerRegistrationResponse {
    let refused = |code: ErrorCode, why: &str| BrokerRegistrationResponse {
        error_code: code.code(),
        ottla_refusal: why.into(),
        broker_epoch: -1,
        ottla_node_id: -1,
        ..Default::default()
    };
    // Whoever joins knows no cluster yet.
    if !request.cluster_id.is_empty() && *request.cluster_id != *node.cluster_id() {
        let (broker, cluster) = (request.broker_id, &request.cluster_id);
        tracing::warn!(broker, %cluster, "a broker of another cluster is refused");
        return refused(ErrorCode::InconsistentClusterId, "");
    }
    // A number stays with its directory: a voter of the metadata log whose disk was replaced would vote again without
    // what it has promised (rule M2).
    let directory = request.log_dirs.first().copied().unwrap_or_default();
    let is_other = |known: &Broker| known.directory != [0; 16] && known.directory != directory;
    if node.image().broker(BrokerId(request.broker_id)).is_some_and(|known| is_other(known)) {
        tracing::warn!(
            broker = request.broker_id,
            "a broker comes with another data directory than before, and is refused"
        );
        return refused(ErrorCode::DuplicateBrokerRegistration, "");
    }
    match register(node, request) {
        Ok((id, epoch)) => BrokerRegistrationResponse {
            broker_epoch: epoch.0,
            ottla_node_id: id.0,
            ottla_cluster_id: ByteString::from(node.cluster_id()),
            ..Default::default()
        },
        Err(error) => {
            if let SubmitError::Refused(Refusal::DuplicateRegistration(id)) = &error {
                // Most likely the same broker, started again: if its last run still lives it says so.
                node.suspect(*id);
            }
            let failure = Failure::from(error);
            tracing::info!(why = %failure.message, "a broker's registration is refused");
            refused(failure.code, &failure.message)
        }
    }
}

fn register(node: &Node, request: BrokerRegistrationRequest) -> Result<(BrokerId, BrokerEpoch), SubmitError> {
    let listeners = request.listeners.iter().map(|listener| Listener {
        name: listener.name.to_string(),
        host: listener.host.to_string(),
        port: listener.port,
        security_protocol: listener.security_protocol,
    });
    let features = request.features.iter().map(|feature| BrokerFeature {
        name: feature.name.to_string(),
        min: feature.min_supported_version,
        max: feature.max_supported_version,
    });
    let registration = BrokerRegistration {
        id: (request.broker_id >= 0).then_some(BrokerId(request.broker_id)),
        directory: request.log_dirs.first().copied().unwrap_or_default(),
        incarnation: request.incarnation_id,
        rack: request.rack.as_deref().map(Arc::from),
        listeners: listeners.collect(),
        alone: false,
        ended: CleanEnd {
            epoch: (request.previous_broker_epoch >= 0).then_some(BrokerEpoch(request.previous_broker_epoch)),
            unheard: request.ottla_unheard_runs,
        },
        features: features.collect(),
    };
    match node.submit(Command::RegisterBroker(registration))? {
        Reply::BrokerRegistered { id, epoch } => Ok((id, epoch)),
        _ => Err(SubmitError::Storage("the controller answered another command".to_owned())),
    }
}
