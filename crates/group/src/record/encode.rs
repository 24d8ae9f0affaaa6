//! From a [`Record`] to its bytes: the versions that Kafka 4.3 writes.
//!
//! The bytes are described in `docs/formats/group-record.md`; `decode.rs` is the other direction.

use bytes::Bytes;
use ottla_types::Timestamp;

use super::{
    CLASSIC_GROUP, CONSUMER_CURRENT, CONSUMER_GROUP, CONSUMER_MEMBER, CONSUMER_REGEX, CONSUMER_TARGET,
    CONSUMER_TARGET_MEMBER, ClassicGroupValue, ClassicMemberMetadata, ClassicMemberValue, ConsumerCurrentValue,
    ConsumerGroupValue, ConsumerMemberValue, ConsumerRegexValue, ConsumerTargetValue, HeldPartitions, MemberState,
    OFFSET_COMMIT, Record,
};
use crate::{Committed, TopicPartitions, wire::Writer};

impl Record {
    /// The record's key and value; a value of `None` is a tombstone.
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        let mut key = Writer::new(self.key_version());
        match self {
            Record::OffsetCommit(group, topic, partition, _) => {
                key.text(group);
                key.text(topic);
                key.i32(partition.0);
            }
            Record::ClassicGroup(group, _) | Record::ConsumerGroup(group, _) | Record::ConsumerTarget(group, _) => {
                key.text(group);
            }
            Record::ConsumerMember(group, name, _)
            | Record::ConsumerTargetMember(group, name, _)
            | Record::ConsumerCurrent(group, name, _)
            | Record::ConsumerRegex(group, name, _) => {
                key.text(group);
                key.text(name);
            }
        }
        (key.finish(), self.encode_value())
    }

    fn key_version(&self) -> i16 {
        match self {
            Record::OffsetCommit(..) => OFFSET_COMMIT,
            Record::ClassicGroup(..) => CLASSIC_GROUP,
            Record::ConsumerGroup(..) => CONSUMER_GROUP,
            Record::ConsumerMember(..) => CONSUMER_MEMBER,
            Record::ConsumerTarget(..) => CONSUMER_TARGET,
            Record::ConsumerTargetMember(..) => CONSUMER_TARGET_MEMBER,
            Record::ConsumerCurrent(..) => CONSUMER_CURRENT,
            Record::ConsumerRegex(..) => CONSUMER_REGEX,
        }
    }

    fn encode_value(&self) -> Option<Bytes> {
        match self {
            Record::OffsetCommit(_, _, _, value) => value.as_ref().map(committed),
            Record::ClassicGroup(_, value) => value.as_ref().map(classic_group),
            Record::ConsumerGroup(_, value) => value.as_ref().map(consumer_group),
            Record::ConsumerMember(_, _, value) => value.as_ref().map(consumer_member),
            Record::ConsumerTarget(_, value) => value.as_ref().map(consumer_target),
            Record::ConsumerTargetMember(_, _, value) => value.as_ref().map(|value| consumer_target_member(value)),
            Record::ConsumerCurrent(_, _, value) => value.as_ref().map(consumer_current),
            Record::ConsumerRegex(_, _, value) => value.as_ref().map(consumer_regex),
        }
    }
}

/// Version 4, or version 1 for a commit that says when it expires: that one has room for it, and no leader epoch,
/// which no request with a retention time has either.
fn committed(value: &Committed) -> Bytes {
    if let Some(expires_at) = value.expires_at {
        let mut out = Writer::new(1);
        out.i64(value.offset.0);
        out.text(&value.metadata);
        out.i64(value.committed_at.0);
        out.i64(expires_at.0);
        return out.finish();
    }
    let mut out = Writer::new(4);
    out.i64(value.offset.0);
    out.i32(value.leader_epoch.0);
    out.compact_text(&value.metadata);
    out.i64(value.committed_at.0);
    out.tag_0((!value.topic_id.is_zero()).then_some(|out: &mut Writer| out.id(value.topic_id)));
    out.finish()
}

fn classic_group(value: &ClassicGroupValue) -> Bytes {
    let mut out = Writer::new(3);
    out.text(&value.protocol_type);
    out.i32(value.generation);
    out.optional_text(value.protocol.as_deref());
    out.optional_text(value.leader.as_deref());
    out.i64(value.state_since.0);
    out.count(value.members.len());
    for member in &value.members {
        classic_member(&mut out, member);
    }
    out.finish()
}

fn classic_member(out: &mut Writer, member: &ClassicMemberValue) {
    out.text(&member.member);
    out.optional_text(member.instance.as_deref());
    out.text(&member.client_id);
    out.text(&member.client_host);
    out.i32(member.rebalance_timeout_ms);
    out.i32(member.session_timeout_ms);
    out.bytes(&member.subscription);
    out.bytes(&member.assignment);
}

fn consumer_group(value: &ConsumerGroupValue) -> Bytes {
    let mut out = Writer::new(0);
    out.i32(value.epoch);
    out.tag_0((value.metadata_hash != 0).then_some(|out: &mut Writer| out.i64(value.metadata_hash)));
    out.finish()
}

fn consumer_member(value: &ConsumerMemberValue) -> Bytes {
    let mut out = Writer::new(0);
    out.compact_optional_text(value.instance.as_deref());
    out.compact_optional_text(value.rack.as_deref());
    out.compact_text(&value.client_id);
    out.compact_text(&value.client_host);
    out.compact_count(value.topics.len());
    for topic in &value.topics {
        out.compact_text(topic);
    }
    out.compact_optional_text(value.topics_regex.as_deref());
    out.i32(value.rebalance_timeout_ms);
    out.compact_optional_text(value.server_assignor.as_deref());
    out.tag_0(value.classic.as_ref().map(|classic| |out: &mut Writer| classic_metadata(out, classic)));
    out.finish()
}

/// A struct that may be missing begins with 1 where it is not, in a tag too.
fn classic_metadata(out: &mut Writer, classic: &ClassicMemberMetadata) {
    out.i8(1);
    out.i32(classic.session_timeout_ms);
    out.compact_count(classic.protocols.len());
    for (name, metadata) in &classic.protocols {
        out.compact_text(name);
        out.compact_bytes(metadata);
        out.no_tags();
    }
    out.no_tags();
}

fn consumer_target(value: &ConsumerTargetValue) -> Bytes {
    let mut out = Writer::new(0);
    out.i32(value.assignment_epoch);
    out.tag_0((value.computed_at != Timestamp(0)).then_some(|out: &mut Writer| out.i64(value.computed_at.0)));
    out.finish()
}

fn consumer_target_member(value: &[TopicPartitions]) -> Bytes {
    let mut out = Writer::new(0);
    out.compact_count(value.len());
    for topic in value {
        out.id(topic.topic);
        out.compact_count(topic.partitions.len());
        for partition in &topic.partitions {
            out.i32(partition.0);
        }
        out.no_tags();
    }
    out.no_tags();
    out.finish()
}

fn consumer_current(value: &ConsumerCurrentValue) -> Bytes {
    let mut out = Writer::new(0);
    out.i32(value.member_epoch);
    out.i32(value.previous_member_epoch);
    out.i8(match value.state {
        MemberState::Stable => 0,
        MemberState::UnrevokedPartitions => 1,
        MemberState::UnreleasedPartitions => 2,
        MemberState::Unknown => 127,
    });
    held_partitions(&mut out, &value.assigned);
    held_partitions(&mut out, &value.pending_revocation);
    out.no_tags();
    out.finish()
}

fn held_partitions(out: &mut Writer, topics: &[HeldPartitions]) {
    out.compact_count(topics.len());
    for topic in topics {
        out.id(topic.topic);
        out.compact_count(topic.partitions.len());
        for (partition, _) in &topic.partitions {
            out.i32(partition.0);
        }
        out.tag_0(Some(|out: &mut Writer| {
            out.compact_count(topic.partitions.len());
            for (_, epoch) in &topic.partitions {
                out.i32(*epoch);
            }
        }));
    }
}

fn consumer_regex(value: &ConsumerRegexValue) -> Bytes {
    let mut out = Writer::new(0);
    out.compact_count(value.topics.len());
    for topic in &value.topics {
        out.compact_text(topic);
    }
    out.i64(value.version);
    out.i64(value.matched_at.0);
    out.no_tags();
    out.finish()
}
