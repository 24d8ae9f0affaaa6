//! DescribeNodes (key 20001, Ottla's own): the nodes of the cluster and how its partitions are, for people: what
//! `ottla cluster status` shows. Any node answers, from the metadata it has applied.

use std::sync::Arc;

use ottla_metadata::{Broker, Image, OTTLA_VERSION, Reported, config::TopicConfig};
use ottla_node::Node;
use ottla_protocol::messages::{
    DescribeNodesRequest, DescribeNodesResponse,
    describe_nodes_response::{Listener, Node as WireNode},
};

use super::Context;

pub(super) fn handle(context: &Context<'_>, _request: DescribeNodesRequest) -> DescribeNodesResponse {
    let node = &context.broker.node;
    let (image, log) = (node.image(), node.log_status());
    let reported = node.reported_features();
    let mut response = DescribeNodesResponse {
        cluster_id: node.cluster_id().into(),
        level: image.level(),
        controller_id: log.leader.map_or(-1, |leader| leader.0),
        nodes: image
            .brokers()
            .map(|broker| WireNode {
                voter: log.voters.contains(&broker.id),
                leader_of_log: log.leader == Some(broker.id),
                ..described(node, &image, broker, &reported)
            })
            .collect(),
        ..Default::default()
    };
    count_partitions(node, &image, &mut response);
    response
}

fn described(node: &Node, image: &Image, broker: &Broker, reported: &Reported) -> WireNode {
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let is_own = broker.id == node.id();
    // Each node knows its own disk.
    let space = is_own.then(|| node.disk_space().ok()).flatten();
    let bytes = |bytes: Option<u64>| bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let listener = |listener: &ottla_metadata::Listener| Listener {
        name: listener.name.as_str().into(),
        host: listener.host.as_str().into(),
        port: listener.port,
        security_protocol: listener.security_protocol,
    };
    let (min_level, max_level) = levels(node, broker, reported);
    let lagging = image.partitions_of(broker.id).filter(|(_, _, partition)| !partition.isr.contains(&broker.id));
    WireNode {
        node_id: broker.id.0,
        directory: broker.directory,
        rack: broker.rack.as_deref().map(Into::into),
        fenced: broker.fenced,
        shutting_down: broker.shutting_down,
        draining: broker.draining,
        listeners: broker.listeners.iter().map(listener).collect(),
        replicas: count(image.partitions_of(broker.id).count()),
        leaders: count(image.led_by(broker.id).count()),
        under_replicated: count(lagging.count()),
        disk_total: bytes(space.as_ref().map(|space| space.total)),
        disk_free: bytes(space.as_ref().map(|space| space.available)),
        version: if is_own { env!("CARGO_PKG_VERSION").into() } else { Default::default() },
        min_level,
        max_level,
        ..Default::default()
    }
}

/// The lowest and the highest level of Ottla's own forms that a broker serves, or -1: what its registration says, or
/// what this node has heard as the controller; of itself it knows. One that says nothing is from before there were
/// levels.
fn levels(node: &Node, broker: &Broker, reported: &Reported) -> (i16, i16) {
    let reported = reported.get(&broker.id).filter(|(epoch, _)| *epoch == broker.epoch);
    let said = match reported {
        _ if broker.id == node.id() => node.registration().features,
        _ if !broker.features.is_empty() => Arc::clone(&broker.features),
        Some((_, features)) => Arc::clone(features),
        None => return (-1, -1),
    };
    let levels = said.iter().find(|feature| feature.name == OTTLA_VERSION.name);
    levels.map_or((OTTLA_VERSION.min, OTTLA_VERSION.min), |feature| (feature.min, feature.max))
}

fn count_partitions(node: &Node, image: &Image, response: &mut DescribeNodesResponse) {
    let layers = image.layers(node.id(), node.settings());
    let defaults = TopicConfig::resolve(&layers);
    for topic in image.topics() {
        let config = defaults.with_overrides(&topic.overrides);
        let mut single_copy = false;
        for partition in &topic.partitions {
            response.partitions += 1;
            response.offline += i32::from(partition.leader.is_none());
            response.under_replicated += i32::from(partition.isr.len() < partition.replicas.len());
            let minimum = partition.effective_min_isr(config.min_insync_replicas);
            response.below_min_isr += i32::from(partition.isr.len() < minimum);
            response.reassigning += i32::from(partition.is_reassigning());
            single_copy |= partition.replicas.len() == 1;
        }
        // Alone, a node has no place for a second copy.
        if single_copy && image.brokers().len() > 1 {
            response.single_copy_topics.push((&*topic.name).into());
        }
    }
}
