//! Decisions about the cluster itself: its birth, its brokers, its producer ids.
//!
//! What is not here: fencing and heartbeats, which come with the second broker.

use std::sync::Arc;

use ottla_types::{BrokerEpoch, BrokerId, ProducerId, Timestamp, TopicId};

use super::{BrokerRegistration, Reply};
use crate::{Image, Record, Refusal, SUPPORTED_FEATURES};

/// An id for the cluster if it has none, and a level for each feature that has none. Levels that exist stay: raising
/// them is an operator's decision, because it cannot be taken back.
pub(super) fn bootstrap(image: &Image, entropy: &mut dyn FnMut() -> [u8; 16]) -> (Vec<Record>, Reply) {
    let mut records = Vec::new();
    let cluster_id = image.cluster_id().cloned().unwrap_or_else(|| {
        let cluster_id: Arc<str> = draw_id(entropy).to_string().into();
        records.push(Record::ClusterRegistered { cluster_id: cluster_id.clone() });
        cluster_id
    });
    let missing = SUPPORTED_FEATURES.iter().filter(|feature| !image.features().contains_key(feature.name));
    records.extend(missing.map(|feature| Record::FeatureLevel { name: feature.name.to_owned(), level: feature.max }));
    (records, Reply::Bootstrapped(cluster_id))
}

pub(super) fn register(
    image: &Image,
    now: Timestamp,
    registration: BrokerRegistration,
) -> Result<(Vec<Record>, Reply), Refusal> {
    let BrokerRegistration { id, incarnation, rack, listeners, clean } = registration;
    if id.0 < 0 {
        return Err(Refusal::InvalidRequest(format!("A broker's number is 0 or more, not {id}.")));
    }
    // A1: the same process that asks again keeps its epoch (its first answer may have been lost).
    if let Some(known) = image.broker(id).filter(|known| known.incarnation == incarnation) {
        return Ok((Vec::new(), Reply::BrokerRegistered(known.epoch)));
    }
    let epoch = BrokerEpoch(image.last_broker_epoch().0.saturating_add(1));
    let mut records = vec![Record::BrokerRegistered { id, epoch, incarnation, rack, listeners, registered: now }];
    let mut partitions = image.topics().flat_map(|topic| &topic.partitions);
    if !clean && partitions.any(|partition| partition.leader == id) {
        records.push(Record::BrokerRestartedUncleanly { id });
    }
    Ok((records, Reply::BrokerRegistered(epoch)))
}

pub(super) fn allocate(
    image: &Image,
    broker: BrokerId,
    epoch: BrokerEpoch,
    count: u32,
) -> Result<(Vec<Record>, Reply), Refusal> {
    if image.broker(broker).is_none_or(|known| known.epoch != epoch) {
        return Err(Refusal::StaleBrokerEpoch(broker));
    }
    if count == 0 {
        return Err(Refusal::InvalidRequest("A block of producer ids holds at least one.".to_owned()));
    }
    let first = image.next_producer_id();
    let next = first.0.checked_add(count.into()).map(ProducerId).ok_or(Refusal::ProducerIdsExhausted)?;
    Ok((vec![Record::ProducerIdsAllocated { broker, next }], Reply::ProducerIds(first)))
}

/// Draws until Kafka would be content, which is nearly always at once.
pub(super) fn draw_id(entropy: &mut dyn FnMut() -> [u8; 16]) -> TopicId {
    loop {
        if let Some(id) = TopicId::from_random(entropy()) {
            return id;
        }
    }
}
