//! A broker, as the image holds it: who it is, where it stands, and what it may do now.
//!
//! What is not here: sessions and heartbeats, which are the controller's own and not agreed on; what follows from a
//! broker's coming and going (`decide/brokers.rs`).

use std::sync::Arc;

use ottla_types::{BrokerEpoch, BrokerId, Timestamp};

use crate::{BrokerFeature, Listener};

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its number.
    pub id: BrokerId,
    /// Its latest registration.
    pub epoch: BrokerEpoch,
    /// The process that registered.
    pub incarnation: [u8; 16],
    /// The data directory that holds its copies; all zeros if it is not known, from before directories were.
    pub directory: [u8; 16],
    /// Where it stands.
    pub rack: Option<Arc<str>>,
    /// Where it can be reached.
    pub listeners: Arc<[Listener]>,
    /// When it registered, by the controller's wall clock.
    pub registered: Timestamp,
    /// The features it serves (KIP-584); empty if the cluster's level was too low to write them down.
    pub features: Arc<[BrokerFeature]>,
    /// It is not to be relied on: it has only just registered, or was not heard of for too long. A fenced broker leads
    /// nothing and is in no ISR (rule A1).
    pub fenced: bool,
    /// It is on its way out: it hands its leaderships over and joins no ISR, until it registers again.
    pub shutting_down: bool,
    /// It is being decommissioned and gets no new replicas.
    pub draining: bool,
}

impl Broker {
    /// Whether it may be elected and join an ISR.
    pub fn is_live(&self) -> bool {
        !self.fenced && !self.shutting_down
    }

    /// Whether new replicas may be put on it.
    pub fn takes_replicas(&self) -> bool {
        self.is_live() && !self.draining
    }
}
