//! Where brokers are, in the addresses of the listener a client came in on, and who leads a partition: told to clients
//! that ask for it, and to those that came to the wrong broker (KIP-951).

use std::{net::SocketAddr, sync::Arc};

use bytestring::ByteString;
use ottla_metadata::Image;
use ottla_types::{BrokerId, LeaderEpoch, PartitionIndex, TopicId};

use crate::server::{Broker, Listener};

/// How a broker is reached over one listener.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) id: BrokerId,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) rack: Option<ByteString>,
    pub(super) fenced: bool,
}

/// The way a client came.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) broker: &'a Arc<Broker>,
    pub(crate) listener: &'a Arc<Listener>,
    pub(crate) local: SocketAddr,
}

impl Way<'_> {
    /// How the client reaches `id`; nothing if that broker has no listener of the name that the client came in on.
    pub(super) fn endpoint(&self, image: &Image, id: BrokerId) -> Option<Endpoint> {
        let broker = image.broker(id)?;
        let (host, port) = if id == self.broker.node.id() {
            // What an unadvertised listener tells depends on the address by which the client reached it.
            self.listener.endpoint(self.local)
        } else {
            let listener = broker.listeners.iter().find(|listener| *listener.name == *self.listener.name)?;
            (listener.host.clone(), listener.port)
        };
        Some(Endpoint { id, host, port, rack: broker.rack.as_deref().map(Into::into), fenced: broker.fenced })
    }

    /// Who leads a partition, and where that is.
    pub(super) fn leader(&self, topic: TopicId, index: PartitionIndex) -> Option<(Endpoint, LeaderEpoch)> {
        let image = self.broker.node.image();
        let partition = image.topic(topic)?.partition(index)?;
        Some((self.endpoint(&image, partition.leader?)?, partition.leader_epoch))
    }
}
