//! From bytes to a [`Record`]: every version that Kafka ever wrote, so that its topic can be taken over.
//!
//! A key or value of a newer kind is `None` and not an error: whoever wrote it left the old facts true. The bytes are
//! described in `docs/formats/group-record.md`; `encode.rs` is the other direction.

use bytes::Bytes;
use ottla_types::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId};

use super::{
    CLASSIC_GROUP, CONSUMER_CURRENT, CONSUMER_GROUP, CONSUMER_MEMBER, CONSUMER_REGEX, CONSUMER_TARGET,
    CONSUMER_TARGET_MEMBER, ClassicGroupValue, ClassicMemberMetadata, ClassicMemberValue, ConsumerCurrentValue,
    ConsumerGroupValue, ConsumerMemberValue, ConsumerRegexValue, ConsumerTargetValue, DecodeError, HeldPartitions,
    MemberState, OFFSET_COMMIT, OFFSET_COMMIT_OLD, Record,
};
use crate::{Committed, TopicPartitions, wire::Reader};

impl Record {
    /// Reads a record; `None` for a kind of record this version does not know or need.
    ///
    /// # Errors
    /// The bytes end early, or say what can't be.
    pub fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<Record>, DecodeError> {
        let key = &mut Reader::new(&key);
        let kind = key.i16()?;
        if !is_known(kind) {
            return Ok(None);
        }
        let group = key.text()?;
        Ok(match kind {
            OFFSET_COMMIT_OLD | OFFSET_COMMIT => {
                let (topic, partition) = (key.text()?, PartitionIndex(key.i32()?));
                read(value, 4, committed)?.map(|value| Record::OffsetCommit(group, topic, partition, value))
            }
            CLASSIC_GROUP => read(value, 4, classic_group)?.map(|value| Record::ClassicGroup(group, value)),
            CONSUMER_GROUP => read(value, 0, consumer_group)?.map(|value| Record::ConsumerGroup(group, value)),
            CONSUMER_TARGET => read(value, 0, consumer_target)?.map(|value| Record::ConsumerTarget(group, value)),
            _ => {
                let name = key.text()?;
                match kind {
                    CONSUMER_MEMBER => {
                        read(value, 0, consumer_member)?.map(|value| Record::ConsumerMember(group, name, value))
                    }
                    CONSUMER_TARGET_MEMBER => read(value, 0, consumer_target_member)?
                        .map(|value| Record::ConsumerTargetMember(group, name, value)),
                    CONSUMER_CURRENT => {
                        read(value, 0, consumer_current)?.map(|value| Record::ConsumerCurrent(group, name, value))
                    }
                    _ => read(value, 0, consumer_regex)?.map(|value| Record::ConsumerRegex(group, name, value)),
                }
            }
        })
    }
}

fn is_known(kind: i16) -> bool {
    matches!(
        kind,
        OFFSET_COMMIT_OLD
            | OFFSET_COMMIT
            | CLASSIC_GROUP
            | CONSUMER_GROUP
            | CONSUMER_MEMBER
            | CONSUMER_TARGET
            | CONSUMER_TARGET_MEMBER
            | CONSUMER_CURRENT
            | CONSUMER_REGEX
    )
}

/// A value, `Some(None)` for a tombstone, `None` for a version above `newest`.
#[expect(clippy::option_option, reason = "a tombstone is a value too")]
fn read<T>(
    value: Option<Bytes>,
    newest: i16,
    decode: impl FnOnce(&mut Reader<'_>, i16) -> Result<T, DecodeError>,
) -> Result<Option<Option<T>>, DecodeError> {
    let Some(value) = value else { return Ok(Some(None)) };
    let input = &mut Reader::new(&value);
    match input.i16()? {
        version if version > newest => Ok(None),
        version if version < 0 => Err(DecodeError("its version is negative")),
        version => decode(input, version).map(|value| Some(Some(value))),
    }
}

fn committed(input: &mut Reader<'_>, version: i16) -> Result<Committed, DecodeError> {
    let offset = Offset(input.i64()?);
    let leader_epoch = if version >= 3 { LeaderEpoch(input.i32()?) } else { LeaderEpoch::NONE };
    let metadata = if version >= 4 { input.compact_text()? } else { input.text()? };
    let committed_at = Timestamp(input.i64()?);
    let expires_at = if version == 1 { Some(Timestamp(input.i64()?)) } else { None };
    let topic_id = match version {
        4.. => input.tag_0()?.map(|mut tag| tag.id()).transpose()?.unwrap_or_default(),
        _ => TopicId::ZERO,
    };
    // Version 1 without an expiry of its own says so by -1.
    let expires_at = expires_at.filter(|at| *at != Timestamp::NONE);
    Ok(Committed { offset, leader_epoch, metadata, committed_at, expires_at, topic_id })
}

fn classic_group(input: &mut Reader<'_>, version: i16) -> Result<ClassicGroupValue, DecodeError> {
    let compact = version >= 4;
    let protocol_type = if compact { input.compact_text()? } else { input.text()? };
    let generation = input.i32()?;
    let optional = |input: &mut Reader<'_>| {
        if compact { input.compact_optional_text() } else { input.optional_text() }
    };
    let protocol = optional(input)?;
    let leader = optional(input)?;
    let state_since = if version >= 2 { Timestamp(input.i64()?) } else { Timestamp::NONE };
    let count = if compact { input.compact_count(15)? } else { input.count(18)? };
    let members = (0..count).map(|_| classic_member(input, version)).collect::<Result<_, _>>()?;
    if compact {
        input.skip_tags()?;
    }
    Ok(ClassicGroupValue { protocol_type, generation, protocol, leader, state_since, members })
}

fn classic_member(input: &mut Reader<'_>, version: i16) -> Result<ClassicMemberValue, DecodeError> {
    let compact = version >= 4;
    let text = |input: &mut Reader<'_>| if compact { input.compact_text() } else { input.text() };
    let bytes = |input: &mut Reader<'_>| if compact { input.compact_bytes() } else { input.bytes() };
    let member = text(input)?;
    let instance = match version {
        4.. => input.compact_optional_text()?,
        3 => input.optional_text()?,
        _ => None,
    };
    let (client_id, client_host) = (text(input)?, text(input)?);
    let rebalance_timeout_ms = if version >= 1 { Some(input.i32()?) } else { None };
    let session_timeout_ms = input.i32()?;
    let (subscription, assignment) = (bytes(input)?, bytes(input)?);
    if compact {
        input.skip_tags()?;
    }
    Ok(ClassicMemberValue {
        member,
        instance,
        client_id,
        client_host,
        // As JoinGroup version 0, from whose days these are.
        rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription,
        assignment,
    })
}

fn consumer_group(input: &mut Reader<'_>, _version: i16) -> Result<ConsumerGroupValue, DecodeError> {
    let epoch = input.i32()?;
    let metadata_hash = input.tag_0()?.map(|mut tag| tag.i64()).transpose()?.unwrap_or_default();
    Ok(ConsumerGroupValue { epoch, metadata_hash })
}

fn consumer_member(input: &mut Reader<'_>, _version: i16) -> Result<ConsumerMemberValue, DecodeError> {
    Ok(ConsumerMemberValue {
        instance: input.compact_optional_text()?,
        rack: input.compact_optional_text()?,
        client_id: input.compact_text()?,
        client_host: input.compact_text()?,
        topics: list(input, 1, Reader::compact_text)?,
        topics_regex: input.compact_optional_text()?,
        rebalance_timeout_ms: input.i32()?,
        server_assignor: input.compact_optional_text()?,
        classic: input.tag_0()?.map(|mut tag| classic_metadata(&mut tag)).transpose()?.flatten(),
    })
}

fn classic_metadata(input: &mut Reader<'_>) -> Result<Option<ClassicMemberMetadata>, DecodeError> {
    if input.i8()? < 0 {
        return Ok(None);
    }
    let session_timeout_ms = input.i32()?;
    let protocols = list(input, 3, |input| {
        let protocol = (input.compact_text()?, input.compact_bytes()?);
        input.skip_tags()?;
        Ok(protocol)
    })?;
    input.skip_tags()?;
    Ok(Some(ClassicMemberMetadata { session_timeout_ms, protocols }))
}

fn consumer_target(input: &mut Reader<'_>, _version: i16) -> Result<ConsumerTargetValue, DecodeError> {
    let assignment_epoch = input.i32()?;
    let computed_at = input.tag_0()?.map(|mut tag| tag.i64()).transpose()?.unwrap_or_default();
    Ok(ConsumerTargetValue { assignment_epoch, computed_at: Timestamp(computed_at) })
}

fn consumer_target_member(input: &mut Reader<'_>, _version: i16) -> Result<Vec<TopicPartitions>, DecodeError> {
    let target = list(input, 18, |input| {
        let (topic, partitions) = topic_partitions(input)?;
        input.skip_tags()?;
        Ok(TopicPartitions { topic, partitions })
    })?;
    input.skip_tags()?;
    Ok(target)
}

fn consumer_current(input: &mut Reader<'_>, _version: i16) -> Result<ConsumerCurrentValue, DecodeError> {
    let member_epoch = input.i32()?;
    let value = ConsumerCurrentValue {
        member_epoch,
        previous_member_epoch: input.i32()?,
        state: match input.i8()? {
            0 => MemberState::Stable,
            1 => MemberState::UnrevokedPartitions,
            2 => MemberState::UnreleasedPartitions,
            _ => MemberState::Unknown,
        },
        assigned: held_partitions(input, member_epoch)?,
        pending_revocation: held_partitions(input, member_epoch)?,
    };
    input.skip_tags()?;
    Ok(value)
}

fn held_partitions(input: &mut Reader<'_>, member_epoch: i32) -> Result<Vec<HeldPartitions>, DecodeError> {
    list(input, 18, |input| {
        let (topic, partitions) = topic_partitions(input)?;
        let epochs = match input.tag_0()? {
            Some(mut tag) => list(&mut tag, 4, Reader::i32)?,
            None => Vec::new(),
        };
        let epochs = epochs.into_iter().chain(std::iter::repeat(member_epoch));
        Ok(HeldPartitions { topic, partitions: partitions.into_iter().zip(epochs).collect() })
    })
}

fn topic_partitions(input: &mut Reader<'_>) -> Result<(TopicId, Vec<PartitionIndex>), DecodeError> {
    Ok((input.id()?, list(input, 4, |input| input.i32().map(PartitionIndex))?))
}

fn consumer_regex(input: &mut Reader<'_>, _version: i16) -> Result<ConsumerRegexValue, DecodeError> {
    let topics = list(input, 1, Reader::compact_text)?;
    let (version, matched_at) = (input.i64()?, Timestamp(input.i64()?));
    input.skip_tags()?;
    Ok(ConsumerRegexValue { topics, version, matched_at })
}

fn list<'a, T>(
    input: &mut Reader<'a>,
    least: usize,
    mut element: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = input.compact_count(least)?;
    (0..count).map(|_| element(input)).collect()
}
