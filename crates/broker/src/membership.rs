//! A broker's place in its cluster: how it joins, registers, reports, and leaves in good order.
//!
//! A node without an identity asks any member to be taken in ([`join`]) before it is opened. From then on one task
//! registers each run of the broker with the controller (KIP-631), reports every `broker.heartbeat.interval.ms`, and at
//! the end asks for leave, which it gets once its partitions are led by others (rule S1). A broker that is alone does
//! all that with itself.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytestring::ByteString;
use ottla_metadata::{BrokerFeature, FEATURES_IN_REGISTRATIONS, Listener};
use ottla_node::{Identity, Joined};
use ottla_protocol::{
    ErrorCode,
    messages::{
        BrokerHeartbeatRequest, BrokerRegistrationRequest, BrokerRegistrationResponse, broker_heartbeat_request,
        broker_registration_request::{Feature, Listener as WireListener},
    },
};
use ottla_types::{BrokerEpoch, BrokerId};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use crate::{
    api::{broker_heartbeat, broker_registration},
    peers,
    server::Broker,
};

/// Pause before the next try.
const RETRY: Duration = Duration::from_millis(100);
/// How long a member may take to take a node in.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a broker that stops waits for others to take over what it leads.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often one that wants to leave asks whether it may.
const LEAVE_INTERVAL: Duration = Duration::from_millis(50);

/// A node that asks to be taken into a cluster.
pub struct Candidate {
    /// The `node.id` it was configured with; without one it is given an id.
    pub id: Option<BrokerId>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Where it can be reached.
    pub listeners: Vec<Listener>,
    /// Its directory's own id.
    pub directory: Uuid,
    /// Drawn at this start.
    pub incarnation: [u8; 16],
    /// The port it chose for itself, if nobody said one.
    pub port: Option<u16>,
    /// The features it serves.
    pub features: Vec<BrokerFeature>,
}

/// Why a node was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No member answered.
    #[error("no member of the cluster answers at {0}: {1}; check --join, and that a node runs there")]
    Unreachable(String, String),
    /// A member answered no.
    #[error("the cluster does not take this node in: {0}")]
    Refused(String),
}

/// Asks the members at `seeds` (host and port; a name may stand for several addresses) to take a node in, again and
/// again until one does or says no.
pub async fn join(seeds: &[String], candidate: &Candidate) -> Result<Joined, JoinError> {
    let request = BrokerRegistrationRequest {
        broker_id: candidate.id.map_or(-1, |id| id.0),
        cluster_id: ByteString::new(),
        ..registration(
            &candidate.listeners,
            candidate.rack.as_deref(),
            candidate.incarnation,
            candidate.directory,
            &candidate.features,
        )
    };
    let deadline = Instant::now() + JOIN_TIMEOUT;
    let mut reason = "nothing was tried".to_owned();
    while Instant::now() < deadline {
        for address in addresses(seeds).await {
            match ask(&address, &request).await {
                Ok(answer) if answer.error_code == ErrorCode::None.code() => {
                    return Ok(Joined {
                        identity: Identity {
                            cluster_id: answer.ottla_cluster_id.to_string(),
                            node_id: BrokerId(answer.ottla_node_id),
                            directory_id: candidate.directory,
                            port: candidate.port,
                            joining: true,
                        },
                        incarnation: candidate.incarnation,
                    });
                }
                Ok(answer) => match refusal(&answer) {
                    Some(refusal) => return Err(JoinError::Refused(refusal.to_owned())),
                    None => reason = format!("{address} answers with error {}", answer.error_code),
                },
                Err(error) => reason = error,
            }
        }
        sleep(RETRY).await;
    }
    Err(JoinError::Unreachable(seeds.join(", "), reason))
}

/// Every address that the seeds stand for now.
async fn addresses(seeds: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for seed in seeds {
        match tokio::net::lookup_host(seed.as_str()).await {
            Ok(found) => all.extend(found.map(|address: SocketAddr| address.to_string())),
            // The connection will say what is wrong with it.
            Err(_) => all.push(seed.clone()),
        }
    }
    all
}

async fn ask(address: &str, request: &BrokerRegistrationRequest) -> Result<BrokerRegistrationResponse, String> {
    let connection = peers::connect(address).await.map_err(|error| error.to_string())?;
    connection.call(request, JOIN_TIMEOUT).await.map_err(|error| error.to_string())
}

/// What is final about an answer; none where it is worth another try.
fn refusal(answer: &BrokerRegistrationResponse) -> Option<&str> {
    match answer.error_code {
        code if code == ErrorCode::DuplicateBrokerRegistration.code() => Some(
            "its node.id belongs to another node, or to this one with another data directory; leave node.id out, and \
             take a node that is gone out of the cluster with `ottla cluster decommission`",
        ),
        code if code == ErrorCode::InconsistentClusterId.code() => Some("the directory is of another cluster"),
        code if code == ErrorCode::InvalidRequest.code() => {
            Some("its request is not valid; the member's log tells why")
        }
        code if code == ErrorCode::UnsupportedVersion.code() => match &*answer.ottla_refusal {
            "" => Some("the member runs another version"),
            why => Some(why),
        },
        _ => None,
    }
}

/// The parts of a registration that a node knows by itself.
fn registration(
    listeners: &[Listener],
    rack: Option<&str>,
    incarnation: [u8; 16],
    directory: Uuid,
    features: &[BrokerFeature],
) -> BrokerRegistrationRequest {
    let listeners = listeners.iter().map(|listener| WireListener {
        name: listener.name.as_str().into(),
        host: listener.host.as_str().into(),
        port: listener.port,
        security_protocol: listener.security_protocol,
    });
    let features = features.iter().map(|feature| Feature {
        name: feature.name.as_str().into(),
        min_supported_version: feature.min,
        max_supported_version: feature.max,
    });
    BrokerRegistrationRequest {
        incarnation_id: incarnation,
        listeners: listeners.collect(),
        features: features.collect(),
        rack: rack.map(ByteString::from),
        log_dirs: vec![directory.into_bytes()],
        previous_broker_epoch: -1,
        ..Default::default()
    }
}

impl Broker {
    /// Keeps the broker's place in the cluster until it stops.
    pub(crate) async fn keep_membership(self: Arc<Self>) {
        let mut stopping = self.stopping.subscribe();
        let mut known = false;
        let mut refused = false;
        while !*stopping.borrow() {
            if !known && self.node.epoch().is_some() {
                match self.node.end_joining() {
                    Ok(()) => known = true,
                    Err(error) => tracing::warn!(%error, "the file `identity` could not be written"),
                }
            }
            match self.node.epoch() {
                None => self.register(&mut refused).await,
                Some(epoch) if self.node.has_failed() => {
                    // Its leaderships go to others once it has gone quiet (rule L10).
                    tracing::debug!(%epoch, "the data directory is offline; no heartbeat");
                }
                Some(epoch) => _ = self.report(epoch, false).await,
            }
            let interval = if self.is_fenced() { RETRY } else { self.heartbeat_interval() };
            let next = Instant::now() + interval;
            loop {
                tokio::select! {
                    _ = stopping.changed() => break,
                    () = sleep_until(next) => break,
                    // Another controller wants to hear of us at once.
                    () = self.changed.notified() => {
                        if self.node.controller_id().is_some() && self.wants_to_report() {
                            break;
                        }
                    }
                }
            }
        }
    }

    fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.node.broker_config().broker_heartbeat_interval_ms))
    }

    fn is_fenced(&self) -> bool {
        self.node.image().broker(self.node.id()).is_none_or(|broker| broker.fenced)
    }

    /// Whether the controller is another than the one that was last reported to.
    fn wants_to_report(&self) -> bool {
        *self.reported_to.lock() != self.node.controller_id()
    }

    /// Asks the controller to register this run of the broker. Whether it did shows in the metadata. `refused` is
    /// whether it was told that it can't be, which is said once.
    async fn register(&self, refused: &mut bool) {
        let own = self.node.registration();
        let identity = self.node.identity();
        let request = BrokerRegistrationRequest {
            broker_id: identity.node_id.0,
            cluster_id: identity.cluster_id.as_str().into(),
            previous_broker_epoch: own.ended.epoch.map_or(-1, |epoch| epoch.0),
            ottla_unheard_runs: own.ended.unheard,
            ..registration(&own.listeners, own.rack.as_deref(), own.incarnation, identity.directory_id, &own.features)
        };
        match self.ask_controller(request, broker_registration::serve).await {
            Ok(answer) if answer.error_code == ErrorCode::None.code() => {
                tracing::info!(epoch = answer.broker_epoch, "registered with the controller");
            }
            Ok(answer) if answer.error_code == ErrorCode::DuplicateBrokerRegistration.code() => {
                tracing::info!("the cluster still waits for the last run of this broker to go quiet");
            }
            Ok(answer) if answer.error_code == ErrorCode::UnsupportedVersion.code() => {
                if !std::mem::replace(refused, true) {
                    tracing::error!(why = %answer.ottla_refusal, "the cluster does not take this node in");
                }
            }
            Ok(answer) => tracing::debug!(code = answer.error_code, "not registered yet"),
            Err(error) => tracing::debug!(%error, "not registered yet"),
        }
    }

    /// Reports to the controller; whether it lets the broker go.
    async fn report(&self, epoch: BrokerEpoch, want_shut_down: bool) -> bool {
        let controller = self.node.controller_id();
        let request = BrokerHeartbeatRequest {
            broker_id: self.node.id().0,
            broker_epoch: epoch.0,
            current_metadata_offset: self.node.image().offset().0,
            want_fence: false,
            want_shut_down,
            ottla_features: self.features_to_report(),
            ..Default::default()
        };
        let answer = match self.ask_controller(request, broker_heartbeat::serve).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "no heartbeat was taken");
                return false;
            }
        };
        if answer.error_code == ErrorCode::None.code() {
            *self.reported_to.lock() = controller;
        } else {
            tracing::debug!(code = answer.error_code, "the heartbeat was refused");
        }
        answer.error_code == ErrorCode::None.code() && answer.should_shut_down
    }

    /// The features that this broker serves, as long as its registration can't hold them.
    fn features_to_report(&self) -> Vec<broker_heartbeat_request::Feature> {
        if self.node.image().level() >= FEATURES_IN_REGISTRATIONS {
            return Vec::new();
        }
        let features = self.node.settings().supported_features();
        let feature = |feature: ottla_metadata::Feature| broker_heartbeat_request::Feature {
            name: ByteString::from_static(feature.name),
            min_supported_version: feature.min,
            max_supported_version: feature.max,
        };
        features.map(feature).collect()
    }

    /// Leaves the cluster in good order: what this broker leads is led by others first, as far as there are any.
    pub async fn leave(&self) {
        let others = self.node.image().live_brokers().any(|broker| broker.id != self.node.id());
        let Some(epoch) = self.node.epoch().filter(|_| others) else { return };
        let left = async {
            while !self.report(epoch, true).await {
                sleep(LEAVE_INTERVAL).await;
            }
        };
        if timeout(LEAVE_TIMEOUT, left).await.is_err() {
            tracing::warn!("others did not take over in time what this broker leads");
        }
        self.node.hand_over_log();
    }
}
