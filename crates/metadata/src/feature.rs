//! The feature levels this version can serve (KIP-584).
//!
//! Clients change their behaviour by what is finalised here: `transaction.version` 2 makes a Java producer skip
//! AddPartitionsToTxn, `group.version` 1 makes consumers try the new protocol. So a feature appears only when all of
//! it is served, and `kraft.version` only when Ottla has what it names.
//! What is not here: what the cluster has finalised (`Image::features`).

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

/// Every feature this version serves.
pub const SUPPORTED_FEATURES: &[Feature] = &[ELIGIBLE_LEADER_REPLICAS_VERSION, GROUP_VERSION, METADATA_VERSION];
