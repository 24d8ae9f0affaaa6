//! Which brokers are near to a consumer: those in the rack that its Fetch names (KIP-392).
//!
//! What Kafka's RackAwareReplicaSelector does: a leader in the consumer's rack serves it itself, any other sends it to
//! a follower there. Which of them has what the consumer wants is the partition's to say
//! (`ottla_node::Partition::nearest_copy`). See `docs/decisions/racks-on-both-sides.md`.

use std::sync::Arc;

use ottla_types::BrokerId;

use super::leaders::Way;
use crate::server::Broker;

/// A consumer's rack, in which there are brokers, but not this one.
pub(super) struct Rack(Arc<str>);

impl Rack {
    /// The rack of that name; none if this broker is as near as any.
    pub(super) fn of(broker: &Broker, name: &str) -> Option<Rack> {
        if name.is_empty() || !broker.options.rack_aware_reads {
            return None;
        }
        let image = broker.node.image();
        if image.broker(broker.node.id()).is_some_and(|own| own.rack.as_deref() == Some(name)) {
            return None;
        }
        // The cluster's own copy of the name: the request's would be held for as long as the answer is owed.
        image.brokers().find_map(|broker| broker.rack.as_ref().filter(|rack| ***rack == *name)).cloned().map(Rack)
    }

    /// The live brokers in it that the client can reach the way it came.
    pub(super) fn brokers(&self, way: &Way<'_>) -> Vec<BrokerId> {
        let image = way.broker.node.image();
        let near = image.live_brokers().filter(|broker| broker.rack.as_ref() == Some(&self.0)).map(|broker| broker.id);
        near.filter(|id| way.endpoint(&image, *id).is_some()).collect()
    }
}
