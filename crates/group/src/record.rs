//! What is written down in `__consumer_offsets`: Kafka's keys and values, byte for byte, one variant for each key.
//!
//! A value of `None` is a tombstone. What is not here: what the records add up to (`offsets.rs`, `classic.rs`,
//! `consumer.rs`). The bytes are described in `docs/formats/group-record.md`.

mod decode;
mod encode;

use std::sync::Arc;

use bytes::Bytes;
use ottla_types::{PartitionIndex, Timestamp, TopicId};

use crate::{Committed, GroupId, MemberId, TopicPartitions};

/// Key versions, which tell the kinds of record apart. Those of share and streams groups are not read yet.
const OFFSET_COMMIT_OLD: i16 = 0;
const OFFSET_COMMIT: i16 = 1;
const CLASSIC_GROUP: i16 = 2;
const CONSUMER_GROUP: i16 = 3;
const CONSUMER_MEMBER: i16 = 5;
const CONSUMER_TARGET: i16 = 6;
const CONSUMER_TARGET_MEMBER: i16 = 7;
const CONSUMER_CURRENT: i16 = 8;
const CONSUMER_REGEX: i16 = 16;

/// One fact about a group, or that it no longer holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Key version 1 (0 is read as the same): how far a group is in a partition.
    OffsetCommit(GroupId, Arc<str>, PartitionIndex, Option<Committed>),
    /// Key version 2: a classic group.
    ClassicGroup(GroupId, Option<ClassicGroupValue>),
    /// Key version 3: a consumer group.
    ConsumerGroup(GroupId, Option<ConsumerGroupValue>),
    /// Key version 5: what a member of a consumer group said of itself.
    ConsumerMember(GroupId, MemberId, Option<ConsumerMemberValue>),
    /// Key version 6: what the target assignment is for.
    ConsumerTarget(GroupId, Option<ConsumerTargetValue>),
    /// Key version 7: what a member should have.
    ConsumerTargetMember(GroupId, MemberId, Option<Vec<TopicPartitions>>),
    /// Key version 8: what a member has.
    ConsumerCurrent(GroupId, MemberId, Option<ConsumerCurrentValue>),
    /// Key version 16: what a regular expression matched.
    ConsumerRegex(GroupId, Arc<str>, Option<ConsumerRegexValue>),
}

/// A classic group as of its last rebalance.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassicGroupValue {
    /// Its protocol type; empty for a group that never had members.
    pub protocol_type: Arc<str>,
    /// Its generation.
    pub generation: i32,
    /// The protocol chosen.
    pub protocol: Option<Arc<str>>,
    /// The member that assigns.
    pub leader: Option<MemberId>,
    /// Since when it is in its state.
    pub state_since: Timestamp,
    /// Its members.
    pub members: Vec<ClassicMemberValue>,
}

/// One member of a [`ClassicGroupValue`].
#[derive(Clone, Debug, PartialEq)]
pub struct ClassicMemberValue {
    /// Its id.
    pub member: MemberId,
    /// Its `group.instance.id`.
    pub instance: Option<Arc<str>>,
    /// Its client id.
    pub client_id: Arc<str>,
    /// Its address.
    pub client_host: Arc<str>,
    /// How long it may take to come to a rebalance, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// How long it may be quiet, in milliseconds.
    pub session_timeout_ms: i32,
    /// What it gave with the chosen protocol.
    pub subscription: Bytes,
    /// The leader's bytes for it.
    pub assignment: Bytes,
}

/// A consumer group.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerGroupValue {
    /// The group epoch.
    pub epoch: i32,
    /// A hash over the topics subscribed to (KIP-1101); a tagged field, 0 by default.
    pub metadata_hash: i64,
}

/// What a member of a consumer group said of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumerMemberValue {
    /// Its `group.instance.id`.
    pub instance: Option<Arc<str>>,
    /// Its rack.
    pub rack: Option<Arc<str>>,
    /// Its client id.
    pub client_id: Arc<str>,
    /// Its address.
    pub client_host: Arc<str>,
    /// The topics it wants, by name, sorted.
    pub topics: Vec<Arc<str>>,
    /// The topics it wants, by regular expression.
    pub topics_regex: Option<Arc<str>>,
    /// How long it may take to give partitions up, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// The assignor it prefers.
    pub server_assignor: Option<Arc<str>>,
    /// What it said in the classic protocol, if it speaks that.
    pub classic: Option<ClassicMemberMetadata>,
}

/// A classic member in a consumer group.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassicMemberMetadata {
    /// How long it may be quiet, in milliseconds.
    pub session_timeout_ms: i32,
    /// The ways to assign that it knows, with their metadata.
    pub protocols: Vec<(Arc<str>, Bytes)>,
}

/// The target assignment of a consumer group as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerTargetValue {
    /// The group epoch it was computed for.
    pub assignment_epoch: i32,
    /// When it was computed (KIP-1263); a tagged field, 0 by default.
    pub computed_at: Timestamp,
}

/// What a member of a consumer group has.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerCurrentValue {
    /// Its epoch.
    pub member_epoch: i32,
    /// The epoch before, which a lost answer leaves the member with.
    pub previous_member_epoch: i32,
    /// Where it stands on the way to the target.
    pub state: MemberState,
    /// What it may have.
    pub assigned: Vec<HeldPartitions>,
    /// What it has to give up first.
    pub pending_revocation: Vec<HeldPartitions>,
}

/// Partitions of one topic that a member has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPartitions {
    /// The topic.
    pub topic: TopicId,
    /// Its partitions, sorted, each with the member epoch since which the member has it (KIP-1251). The epochs are a
    /// tagged field, an array beside that of the partitions; without it they are the member's epoch.
    pub partitions: Vec<(PartitionIndex, i32)>,
}

/// Where a member stands on its way to the target assignment (KIP-848).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// 0: it has its target as far as it knows.
    Stable,
    /// 1: it has to give partitions up before it gets more.
    UnrevokedPartitions,
    /// 2: it waits for partitions that others have to give up.
    UnreleasedPartitions,
    /// 127: written by a newer version.
    Unknown,
}

/// What a regular expression matched.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerRegexValue {
    /// The topics, sorted.
    pub topics: Vec<Arc<str>>,
    /// The metadata version it was matched against.
    pub version: i64,
    /// When it was matched.
    pub matched_at: Timestamp,
}

/// Bytes that are no record of a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a record of a group: {0}")]
pub struct DecodeError(pub &'static str);
