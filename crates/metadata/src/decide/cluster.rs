//! Decisions about the cluster itself: its birth and its producer ids.
//!
//! What is not here: its brokers (`brokers.rs`).

use std::sync::Arc;

use ottla_types::{BrokerEpoch, BrokerId, ProducerId, TopicId};

use super::brokers::registered;
use crate::{Image, Record, Refusal, Reply, config::Settings};

/// An id and the highest feature levels for a cluster that has no id yet. Those of one that is there stay: raising them
/// is an operator's decision, because it cannot be taken back.
pub(super) fn bootstrap(
    image: &Image,
    settings: &Settings,
    entropy: &mut dyn FnMut() -> [u8; 16],
) -> (Vec<Record>, Reply) {
    if let Some(cluster_id) = image.cluster_id() {
        return (Vec::new(), Reply::Bootstrapped(cluster_id.clone()));
    }
    let cluster_id: Arc<str> = draw_id(entropy).to_string().into();
    let registered = Record::ClusterRegistered { cluster_id: cluster_id.clone() };
    let finalised = settings
        .supported_features()
        .map(|feature| Record::FeatureLevel { name: feature.name.to_owned(), level: feature.max });
    ([registered].into_iter().chain(finalised).collect(), Reply::Bootstrapped(cluster_id))
}

pub(super) fn allocate(
    image: &Image,
    broker: BrokerId,
    epoch: BrokerEpoch,
    count: u32,
) -> Result<(Vec<Record>, Reply), Refusal> {
    registered(image, broker, epoch)?;
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
