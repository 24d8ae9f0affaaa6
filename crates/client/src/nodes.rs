//! The nodes of an Ottla cluster: how they are, and moving everything off one or evenly over all.
//!
//! Kafka has no such requests, so other brokers answer with [`Error::Unsupported`]; [`Client::unregister_broker`] is
//! Kafka's own. Not here: what is moved where, one partition at a time (`replicas.rs`).

use std::time::Duration;

use ottla_protocol::messages::{
    DecommissionRequest, DescribeNodesRequest, DescribeNodesResponse, RebalanceRequest, UnregisterBrokerRequest,
    UpdateFeaturesRequest, describe_nodes_response, update_features_request::FeatureUpdateKey,
};
use ottla_types::{BrokerId, PartitionIndex};
use tokio::{task::JoinSet, time::timeout};
use uuid::Uuid;

use crate::{Client, Error, Target, TopicPartition, admin::CHANGE_TIMEOUT_MS, error::check};

/// The feature whose levels say which of Ottla's own forms a cluster uses.
pub const LEVEL: &str = "ottla.version";

/// How long a node may take to tell of itself; what only it knows is left out then.
const OF_ITSELF: Duration = Duration::from_secs(2);

/// A cluster as its controller knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// The cluster's id.
    pub cluster_id: String,
    /// The node that decides, if there is one.
    pub controller: Option<BrokerId>,
    /// All that are registered, by ascending id.
    pub nodes: Vec<Node>,
    /// The finalised level of [`LEVEL`]: which of Ottla's own forms are written. `None` from a controller of before
    /// there were levels, when all was what is level 1 now.
    pub level: Option<i16>,
    /// Partitions of all topics.
    pub partitions: i32,
    /// Those without a leader.
    pub offline: i32,
    /// Those with a copy that is not in sync.
    pub under_replicated: i32,
    /// Those with fewer copies in sync than `min.insync.replicas`: they take no records with acks=all.
    pub below_min_isr: i32,
    /// Those on their way to other nodes.
    pub reassigning: i32,
    /// The topics with a partition that has one copy only, by name.
    pub single_copy_topics: Vec<String>,
}

/// A node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: BrokerId,
    /// Its data directory's id.
    pub directory: Uuid,
    /// The rack it is in, if it says so.
    pub rack: Option<String>,
    /// It sends no heartbeats, or has not caught up yet: it leads nothing.
    pub fenced: bool,
    /// It is about to stop.
    pub shutting_down: bool,
    /// It is being decommissioned: what it holds is moved to others.
    pub draining: bool,
    /// It votes on the metadata log.
    pub voter: bool,
    /// It leads the metadata log.
    pub controller: bool,
    /// Where it is reached.
    pub listeners: Vec<NodeListener>,
    /// Partitions it holds a copy of.
    pub replicas: i32,
    /// Partitions it leads.
    pub leaders: i32,
    /// Its copies that are not in sync.
    pub under_replicated: i32,
    /// The size of its disk in bytes, if that is known.
    pub disk_total: Option<u64>,
    /// The bytes of it that are free.
    pub disk_free: Option<u64>,
    /// The version of its software.
    pub version: String,
    /// The lowest and the highest level of [`LEVEL`] that it supports, if that is known.
    pub levels: Option<(i16, i16)>,
}

/// A listener of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeListener {
    /// Its name.
    pub name: String,
    /// The host it advertises.
    pub host: String,
    /// The port it advertises.
    pub port: u16,
}

/// A partition that is moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The partition.
    pub at: TopicPartition,
    /// The nodes that hold it, the preferred leader first.
    pub from: Vec<BrokerId>,
    /// The nodes that will.
    pub to: Vec<BrokerId>,
}

impl Client {
    /// The nodes of the cluster and the health of its partitions. Disk and version each node tells of itself; they are
    /// unknown of one that does not answer.
    ///
    /// # Errors
    /// No node answers that knows, or the cluster is not Ottla's ([`Error::Unsupported`]).
    pub async fn describe_nodes(&self) -> Result<Nodes, Error> {
        let mut described = self
            .change(|| async {
                let answer = self.request_once(Target::Controller, &DescribeNodesRequest::default()).await?;
                check(|| "the cluster's nodes".to_owned(), answer.error_code, answer.error_message.as_deref())?;
                Ok(nodes(&answer))
            })
            .await?;
        let mut asked = JoinSet::new();
        for node in described.nodes.iter().filter(|node| node.version.is_empty() && !node.fenced) {
            let (client, id) = (self.clone(), node.id);
            asked.spawn(async move { timeout(OF_ITSELF, client.describe_node(id)).await.ok().flatten() });
        }
        while let Some(told) = asked.join_next().await {
            let Ok(Some(told)) = told else { continue };
            if let Some(node) = described.nodes.iter_mut().find(|node| node.id == told.id) {
                (node.disk_total, node.disk_free, node.version) = (told.disk_total, told.disk_free, told.version);
            }
        }
        Ok(described)
    }

    /// A node, as it tells of itself.
    async fn describe_node(self, id: BrokerId) -> Option<Node> {
        let answer = self.request_once(Target::Broker(id), &DescribeNodesRequest::default()).await;
        let answer = answer.inspect_err(|error| tracing::debug!(%error, node = %id, "it does not tell of itself"));
        answer.ok()?.nodes.iter().map(node).find(|node| node.id == id)
    }

    /// Has everything moved off a node, so that it can leave, or with `cancel` lets it stay after all. Gives how many
    /// partitions it still holds a copy of; the call may be repeated to see them become fewer.
    ///
    /// # Errors
    /// There is no such node (`BROKER_ID_NOT_REGISTERED`), or the others cannot take what it holds.
    pub async fn decommission(&self, node: BrokerId, cancel: bool) -> Result<i32, Error> {
        let request = DecommissionRequest { node_id: node.0, cancel };
        self.change(|| async {
            let answer = self.request_once(Target::Controller, &request).await?;
            check(|| format!("node {node}"), answer.error_code, answer.error_message.as_deref())?;
            Ok(answer.remaining)
        })
        .await
    }

    /// Spreads replicas and leaders evenly over the nodes, or with `dry_run` says what that would move.
    ///
    /// # Errors
    /// The cluster refuses.
    pub async fn rebalance(&self, dry_run: bool) -> Result<Vec<Move>, Error> {
        let request = RebalanceRequest { dry_run };
        self.change(|| async {
            let answer = self.request_once(Target::Controller, &request).await?;
            check(|| "the rebalance".to_owned(), answer.error_code, answer.error_message.as_deref())?;
            let moves = answer.moves.iter().map(|row| Move {
                at: TopicPartition::new(&row.topic, PartitionIndex(row.partition)),
                from: brokers(&row.from),
                to: brokers(&row.to),
            });
            Ok(moves.collect())
        })
        .await
    }

    /// Raises a feature to a level that all nodes support (KIP-584), or with `validate_only` says whether that could be
    /// done. Also works against Kafka.
    ///
    /// # Errors
    /// A node does not support the level (`INVALID_UPDATE_VERSION`), or has not said whether it does.
    pub async fn raise_feature(&self, feature: &str, level: i16, validate_only: bool) -> Result<(), Error> {
        let update =
            FeatureUpdateKey { feature: feature.into(), max_version_level: level, ..FeatureUpdateKey::default() };
        let request =
            UpdateFeaturesRequest { timeout_ms: CHANGE_TIMEOUT_MS, feature_updates: vec![update], validate_only };
        self.change(|| async {
            let answer = self.request_once(Target::Controller, &request).await?;
            let what = || format!("feature {feature}");
            check(what, answer.error_code, answer.error_message.as_deref())?;
            // Before version 2 each feature has an outcome of its own.
            let own = answer.results.first();
            own.map_or(Ok(()), |row| check(what, row.error_code, row.error_message.as_deref()))
        })
        .await
    }

    /// Takes a node that has stopped for good out of the cluster.
    ///
    /// # Errors
    /// There is no such node (`BROKER_ID_NOT_REGISTERED`), it is alive, or it holds what nobody else does.
    pub async fn unregister_broker(&self, node: BrokerId) -> Result<(), Error> {
        let request = UnregisterBrokerRequest { broker_id: node.0 };
        self.change(|| async {
            let answer = self.request_once(Target::Controller, &request).await?;
            check(|| format!("node {node}"), answer.error_code, answer.error_message.as_deref())
        })
        .await
    }
}

fn nodes(answer: &DescribeNodesResponse) -> Nodes {
    let mut nodes: Vec<_> = answer.nodes.iter().map(node).collect();
    nodes.sort_by_key(|node| node.id);
    let mut single_copy_topics: Vec<_> = answer.single_copy_topics.iter().map(ToString::to_string).collect();
    single_copy_topics.sort();
    Nodes {
        cluster_id: answer.cluster_id.to_string(),
        controller: (answer.controller_id >= 0).then_some(BrokerId(answer.controller_id)),
        nodes,
        partitions: answer.partitions,
        offline: answer.offline,
        under_replicated: answer.under_replicated,
        below_min_isr: answer.below_min_isr,
        reassigning: answer.reassigning,
        single_copy_topics,
        level: (answer.level > 0).then_some(answer.level),
    }
}

fn node(row: &describe_nodes_response::Node) -> Node {
    let listeners = row.listeners.iter().map(|row| NodeListener {
        name: row.name.to_string(),
        host: row.host.to_string(),
        port: row.port,
    });
    Node {
        id: BrokerId(row.node_id),
        directory: Uuid::from_bytes(row.directory),
        rack: row.rack.as_ref().map(ToString::to_string),
        fenced: row.fenced,
        shutting_down: row.shutting_down,
        draining: row.draining,
        voter: row.voter,
        controller: row.leader_of_log,
        listeners: listeners.collect(),
        replicas: row.replicas,
        leaders: row.leaders,
        under_replicated: row.under_replicated,
        disk_total: u64::try_from(row.disk_total).ok(),
        disk_free: u64::try_from(row.disk_free).ok(),
        version: row.version.to_string(),
        levels: (row.max_level > 0).then_some((row.min_level, row.max_level)),
    }
}

/// Broker ids as they stand in a message.
pub(crate) fn brokers(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}
