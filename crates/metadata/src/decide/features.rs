//! Decisions about feature levels (KIP-584, KIP-1022): who may be part of the cluster, and which level it goes to next.
//!
//! What is not here: the levels that this version serves (`feature.rs`), and the bytes that depend on them
//! (`record/codec.rs`).

use std::sync::Arc;

use crate::{
    Broker, BrokerFeature, FEATURES_IN_REGISTRATIONS, FeatureChange, FeatureUpdate, Image, OTTLA_VERSION, Record,
    Refusal, Reported, UnsupportedLevel, config::Settings, feature::check_level, image::broker_records,
};

/// What is written down of the features that a broker registers with: nothing where the cluster's level does not allow
/// it. Refused is who does not serve what the cluster has finalised.
pub(super) fn registered(
    image: &Image,
    features: Arc<[BrokerFeature]>,
) -> Result<Arc<[BrokerFeature]>, UnsupportedLevel> {
    // Versions from before there were levels do not name it, and serve level 1.
    let names_ours = features.iter().any(|feature| feature.name == OTTLA_VERSION.name);
    if names_ours || image.level() > 1 {
        check_level(&features, OTTLA_VERSION.name, image.level())?;
    }
    let others = image.features().iter().filter(|(name, _)| *name != OTTLA_VERSION.name);
    others.into_iter().try_for_each(|(name, level)| check_level(&features, name, *level))?;
    Ok(if image.level() >= FEATURES_IN_REGISTRATIONS { features } else { Arc::default() })
}

/// The records of all updates; the first that can't be refuses them all.
pub(super) fn update(
    image: &Image,
    settings: &Settings,
    updates: &[FeatureUpdate],
    reported: &Reported,
) -> Result<Vec<Record>, Refusal> {
    let mut records = Vec::new();
    for update in updates {
        let FeatureUpdate { name, level, .. } = update;
        if let Some(why) = obstacle(image, settings, update, reported) {
            return Err(Refusal::InvalidLevel { name: name.clone(), level: *level, why });
        }
        if *level != image.level_of(name) {
            records.push(Record::FeatureLevel { name: name.clone(), level: *level });
        }
        if *name == OTTLA_VERSION.name && (image.level() + 1..=*level).contains(&FEATURES_IN_REGISTRATIONS) {
            // From here on registrations say it; those that are there say it once more.
            let told = image.brokers().flat_map(|broker| {
                let features = features_of(broker, reported).unwrap_or_default();
                broker_records(&Broker { features, ..Broker::clone(broker) }).collect::<Vec<_>>()
            });
            records.extend(told);
        }
    }
    Ok(records)
}

/// Why a feature can't have the level, in words for a person.
fn obstacle(image: &Image, settings: &Settings, update: &FeatureUpdate, reported: &Reported) -> Option<String> {
    let FeatureUpdate { name, level, change } = update;
    if *level < 0 {
        return Some("A level is never below 0.".to_owned());
    }
    let Some(ours) = settings.supported_features().find(|feature| feature.name == name) else {
        return Some("The controller does not know this feature.".to_owned());
    };
    if !(ours.min..=ours.max).contains(level) {
        return Some(format!("The controller only supports levels {} to {}.", ours.min, ours.max));
    }
    let now = image.level_of(name);
    if *level == now {
        return None;
    }
    match (*level > now, change) {
        (true, FeatureChange::Upgrade) => {}
        (true, _) => return Some(format!("It is at level {now}, and a downgrade does not raise it.")),
        (false, FeatureChange::Upgrade) => {
            return Some(format!("It is at level {now}, and only a safe or an unsafe downgrade lowers it."));
        }
        (false, _) if name == OTTLA_VERSION.name => {
            return Some(format!(
                "The metadata log holds records that came with level {now}, which versions of Ottla for level {level} \
                 can't read."
            ));
        }
        (false, _) => {}
    }
    image.brokers().find_map(|broker| {
        let id = broker.id;
        let Some(features) = features_of(broker, reported) else {
            return Some(format!(
                "Broker {id} is down, or has only just started, and has not said which levels it supports. Start it, \
                 or take it out of the cluster with `ottla cluster decommission {id}`."
            ));
        };
        let served = features.iter().find(|feature| feature.name == *name);
        match served.map(|feature| (feature.min, feature.max)) {
            Some((min, max)) if (min..=max).contains(level) => None,
            Some((min, max)) => Some(format!("Broker {id} only supports levels {min} to {max}.")),
            None => Some(format!("Broker {id} runs a version of Ottla that does not know this feature.")),
        }
    })
}

/// The features that a broker serves, as the metadata has them or as it said in this registration; `None` if neither
/// tells.
fn features_of(broker: &Broker, reported: &Reported) -> Option<Arc<[BrokerFeature]>> {
    if !broker.features.is_empty() {
        return Some(Arc::clone(&broker.features));
    }
    reported.get(&broker.id).filter(|(epoch, _)| *epoch == broker.epoch).map(|(_, features)| Arc::clone(features))
}
