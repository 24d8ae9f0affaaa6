//! The bytes that consumers of the classic protocol tell each other: subscriptions and assignments (KIP-429, KIP-792,
//! KIP-881).
//!
//! Read only where both protocols meet in one group; otherwise a classic member's bytes are its own affair. Versions
//! grow at their end, so that an unknown one is read as the newest known.

use std::sync::Arc;

use bytes::Bytes;
use ottla_metadata::Image;
use ottla_types::PartitionIndex;

use crate::{
    DecodeError, TopicPartitions,
    wire::{Reader, Writer},
};

/// The protocol type of all who speak this.
pub(super) const PROTOCOL_TYPE: &str = "consumer";

/// What a classic consumer says when it joins.
#[derive(Debug, PartialEq)]
pub(super) struct Subscription {
    /// What the assignment for this member is written in, too.
    pub(super) version: i16,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) owned: Vec<NamedPartitions>,
    pub(super) rack: Option<Arc<str>>,
}

/// Partitions of a topic by its name.
type NamedPartitions = (Arc<str>, Vec<PartitionIndex>);

impl Subscription {
    pub(super) fn decode(bytes: &[u8]) -> Result<Subscription, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = version(&mut reader)?;
        let topics = (0..reader.count(2)?).map(|_| reader.text()).collect::<Result<_, _>>()?;
        // User data.
        reader.skip_optional_bytes()?;
        let owned = if version >= 1 { named_partitions(&mut reader)? } else { Vec::new() };
        if version >= 2 {
            let _generation = reader.i32()?;
        }
        let rack = if version >= 3 { reader.optional_text()? } else { None };
        Ok(Subscription { version, topics, owned, rack })
    }
}

/// The partitions in the bytes of an assignment, as far as their topics exist; none if there are no bytes, as for a
/// member that has not been assigned anything yet. User data is refused: whoever assigned with it could not go on.
pub(super) fn decode_assignment(bytes: &[u8], image: &Image) -> Result<Vec<TopicPartitions>, DecodeError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader::new(bytes);
    version(&mut reader)?;
    let named = named_partitions(&mut reader)?;
    match reader.skip_optional_bytes()? {
        0 => Ok(by_id(&named, image)),
        _ => Err(DecodeError("user data of a custom assignor would be lost")),
    }
}

/// An assignment as a classic consumer reads it; topics that are gone are left out.
pub(super) fn encode_assignment(version: i16, assigned: &[TopicPartitions], image: &Image) -> Bytes {
    let named: Vec<_> = assigned.iter().filter_map(|each| Some((image.topic(each.topic)?, &each.partitions))).collect();
    let mut writer = Writer::new(version);
    writer.count(named.len());
    for (topic, partitions) in named {
        writer.text(&topic.name);
        writer.count(partitions.len());
        partitions.iter().for_each(|partition| writer.i32(partition.0));
    }
    // No user data.
    writer.i32(-1);
    writer.finish()
}

/// The same partitions by the ids of their topics, as far as those exist.
pub(super) fn by_id(named: &[NamedPartitions], image: &Image) -> Vec<TopicPartitions> {
    let exists = |(name, partitions): &NamedPartitions| {
        Some(TopicPartitions { topic: image.topic_named(name)?.id, partitions: partitions.clone() })
    };
    named.iter().filter_map(exists).collect()
}

fn version(reader: &mut Reader<'_>) -> Result<i16, DecodeError> {
    match reader.i16()? {
        ..0 => Err(DecodeError("its version is negative")),
        version => Ok(version.min(3)),
    }
}

fn named_partitions(reader: &mut Reader<'_>) -> Result<Vec<NamedPartitions>, DecodeError> {
    let topic = |reader: &mut Reader<'_>| {
        let name = reader.text()?;
        let partitions = (0..reader.count(4)?).map(|_| reader.i32().map(PartitionIndex)).collect::<Result<_, _>>()?;
        Ok((name, partitions))
    };
    (0..reader.count(6)?).map(|_| topic(reader)).collect()
}
