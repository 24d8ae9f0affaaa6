//! The feature levels this version can serve (KIP-584).
//!
//! Clients change their behaviour by what is finalised here: `transaction.version` 2 makes a Java producer skip
//! AddPartitionsToTxn, `group.version` 1 makes consumers try the new protocol. So a feature appears only when all of
//! it is served, and `kraft.version` only when Ottla has what it names.
//! What is not here: what the cluster has finalised (`Image::features`), and who may change that
//! (`decide/features.rs`).

use std::fmt;

/// A feature and the levels this version serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Kafka's name.
    pub name: &'static str,
    /// The lowest level.
    pub min: i16,
    /// The highest level, which a new cluster finalises.
    pub max: i16,
}

/// Which release's metadata the cluster speaks, as Kafka numbers them: 7 is 3.3-IV3, 30 is 4.3-IV0. Tools show it as
/// the cluster's version; Ottla's own records have versions of their own.
pub const METADATA_VERSION: Feature = Feature { name: "metadata.version", min: 7, max: 30 };

/// Whether replicas that left the ISR with every committed record stay eligible to lead (KIP-966). Ottla's always do:
/// level 0, an older cluster's, changes nothing.
pub const ELIGIBLE_LEADER_REPLICAS_VERSION: Feature =
    Feature { name: "eligible.leader.replicas.version", min: 0, max: 1 };

/// Which group protocols clients may use: with 1, the consumer protocol besides the classic one (KIP-848).
pub const GROUP_VERSION: Feature = Feature { name: "group.version", min: 0, max: 1 };

/// Which of Ottla's own forms the cluster uses, of what is stored and of what nodes tell each other. A cluster that has
/// never finalised one is at level 1. What each level brought is in `docs/decisions/feature-levels.md`.
pub const OTTLA_VERSION: Feature = Feature { name: "ottla.version", min: 1, max: 2 };

/// The level from which a broker's registration holds the features it serves.
pub const FEATURES_IN_REGISTRATIONS: i16 = 2;

/// The level from which it is written down that a topic counts only what is synced, and did not before.
pub const CHANGES_OF_DURABILITY: i16 = 2;

/// Every feature this version serves, by name.
pub const SUPPORTED_FEATURES: &[Feature] =
    &[ELIGIBLE_LEADER_REPLICAS_VERSION, GROUP_VERSION, METADATA_VERSION, OTTLA_VERSION];

/// A feature and the levels some broker serves, which may run another version of Ottla.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerFeature {
    /// The feature's name.
    pub name: String,
    /// The lowest level.
    pub min: i16,
    /// The highest level.
    pub max: i16,
}

impl From<Feature> for BrokerFeature {
    fn from(feature: Feature) -> BrokerFeature {
        BrokerFeature { name: feature.name.to_owned(), min: feature.min, max: feature.max }
    }
}

/// A level that the cluster has finalised, and a node does not serve: it must not take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedLevel {
    /// The feature.
    pub name: String,
    /// The level of the cluster.
    pub level: i16,
    /// The lowest and highest level that the node serves; `None` if it does not know the feature.
    pub served: Option<(i16, i16)>,
}

impl std::error::Error for UnsupportedLevel {}

impl fmt::Display for UnsupportedLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnsupportedLevel { name, level, served } = self;
        write!(f, "The cluster is at level {level} of {name}, and this node's version of Ottla ")?;
        match served {
            Some((min, max)) => write!(f, "supports levels {min} to {max}")?,
            None => f.write_str("does not know that feature")?,
        }
        write!(f, "; start the node with a version that supports level {level}.")
    }
}

/// Whether a node that serves `features` may be part of a cluster that has finalised this level. Level 0 is that of a
/// feature that is not used.
pub(crate) fn check_level(features: &[BrokerFeature], name: &str, level: i16) -> Result<(), UnsupportedLevel> {
    let served = features.iter().find(|feature| feature.name == name).map(|feature| (feature.min, feature.max));
    if level == 0 || served.is_some_and(|(min, max)| (min..=max).contains(&level)) {
        return Ok(());
    }
    Err(UnsupportedLevel { name: name.to_owned(), level, served })
}
