//! What can be asked of a [`Coordinator`](crate::Coordinator), and what it answers: commands, queries and replies.
//!
//! These are Kafka's requests without their wire: versions have become flags, error codes a [`Refusal`]. Everything
//! that is kept owns its bytes; nothing is a slice of a request. What is not here: any rule.

use std::sync::Arc;

use bytes::Bytes;
use ottla_types::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId};

use crate::Refusal;

/// A group's id.
pub type GroupId = Arc<str>;
/// A member's id, given by the coordinator or, in the new protocol, made by the client.
pub type MemberId = Arc<str>;

/// What somebody wants to change. Each is answered with the [`Reply`] of the same name, now or later.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Enter a classic group, or come to its next generation. Waits for the others.
    Join(Join),
    /// Get the assignment of this generation, or bring it. Waits for the leader.
    Sync(Sync),
    /// Stay in a classic group.
    Heartbeat(Heartbeat),
    /// Leave a group, in either protocol.
    Leave(Leave),
    /// Enter, stay in or leave a group in the new protocol (KIP-848).
    ConsumerHeartbeat(ConsumerHeartbeat),
    /// Write down how far a group is.
    CommitOffsets(CommitOffsets),
    /// Forget how far a group is in some partitions.
    DeleteOffsets(DeleteOffsets),
    /// Forget a group that nobody is in, and all its offsets.
    DeleteGroup(GroupId),
    /// Topics were deleted: forget how far anybody is in them. Answered with nothing.
    TopicsDeleted(Vec<(TopicId, Arc<str>)>),
    /// Do what is due at `now`: sessions, rebalances, expiry. Answered with nothing.
    TimePassed,
}

/// The answer to a [`Command`]; whose, a [`Ticket`](crate::Ticket) says.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// See [`Command::Join`].
    Join(Result<Joined, JoinRefusal>),
    /// See [`Command::Sync`].
    Sync(Result<Synced, Refusal>),
    /// See [`Command::Heartbeat`].
    Heartbeat(Result<(), Refusal>),
    /// See [`Command::Leave`]; one row for each member, in the order asked for.
    Leave(Result<Vec<LeftMember>, Refusal>),
    /// See [`Command::ConsumerHeartbeat`].
    ConsumerHeartbeat(Result<ConsumerHeartbeatReply, Refusal>),
    /// See [`Command::CommitOffsets`]; one row for each offset, in the order asked for.
    CommitOffsets(Result<Vec<Result<(), Refusal>>, Refusal>),
    /// See [`Command::DeleteOffsets`]; one row for each partition, in the order asked for.
    DeleteOffsets(Result<Vec<Result<(), Refusal>>, Refusal>),
    /// See [`Command::DeleteGroup`].
    DeleteGroup(Result<(), Refusal>),
}

/// JoinGroup.
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    /// The group.
    pub group: GroupId,
    /// Empty for a member that has no id yet.
    pub member: MemberId,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance: Option<Arc<str>>,
    /// The client's `client.id`.
    pub client_id: Arc<str>,
    /// The client's address, as Kafka prints it.
    pub client_host: Arc<str>,
    /// How long the member may be quiet, in milliseconds.
    pub session_timeout_ms: i32,
    /// How long it may take to come to a rebalance, in milliseconds; version 0 has the session timeout here.
    pub rebalance_timeout_ms: i32,
    /// `consumer`, `connect`, …: all members of a group have the same.
    pub protocol_type: Arc<str>,
    /// The ways to assign that the member knows, the preferred first, each with bytes that only members understand.
    pub protocols: Vec<(Arc<str>, Bytes)>,
    /// Whether a member without an id is to be given one before it may join (version 4 on, KIP-394).
    pub requires_member_id: bool,
    /// Whether the client knows to leave the assignment as it is (version 9 on, KIP-814).
    pub supports_skipping_assignment: bool,
    /// Why it joins, for the log (KIP-800).
    pub reason: Option<Arc<str>>,
}

/// A generation, as one of its members sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol chosen; `None` where there is none.
    pub protocol: Option<Arc<str>>,
    /// The member that assigns.
    pub leader: MemberId,
    /// Whether the leader keeps the assignment as it is (KIP-814).
    pub skip_assignment: bool,
    /// The member itself.
    pub member: MemberId,
    /// Everybody, for the leader alone.
    pub members: Vec<JoinedMember>,
}

/// One member of a generation, for its leader.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinedMember {
    /// Its id.
    pub member: MemberId,
    /// Its `group.instance.id`.
    pub instance: Option<Arc<str>>,
    /// What it gave with the protocol that was chosen.
    pub metadata: Bytes,
}

/// Why a member may not join.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinRefusal {
    /// Why.
    pub refusal: Refusal,
    /// The id to come back with, for [`Refusal::MemberIdRequired`]; otherwise the one it came with.
    pub member: MemberId,
}

/// SyncGroup.
#[derive(Clone, Debug, PartialEq)]
pub struct Sync {
    /// The group.
    pub group: GroupId,
    /// The member.
    pub member: MemberId,
    /// Its `group.instance.id`.
    pub instance: Option<Arc<str>>,
    /// The generation it is in.
    pub generation: i32,
    /// The protocol type it believes in (version 5 on).
    pub protocol_type: Option<Arc<str>>,
    /// The protocol it believes was chosen (version 5 on).
    pub protocol: Option<Arc<str>>,
    /// Everybody's assignment, from the leader.
    pub assignments: Vec<(MemberId, Bytes)>,
}

/// A member's assignment.
#[derive(Clone, Debug, PartialEq)]
pub struct Synced {
    /// The group's protocol type.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol chosen.
    pub protocol: Option<Arc<str>>,
    /// The leader's bytes for this member.
    pub assignment: Bytes,
}

/// Heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// The group.
    pub group: GroupId,
    /// The member.
    pub member: MemberId,
    /// Its `group.instance.id`.
    pub instance: Option<Arc<str>>,
    /// The generation it is in.
    pub generation: i32,
}

/// LeaveGroup.
#[derive(Clone, Debug, PartialEq)]
pub struct Leave {
    /// The group.
    pub group: GroupId,
    /// Who leaves: a member id, or a static member's instance with an id or an empty one.
    pub members: Vec<LeavingMember>,
}

/// One member that leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct LeavingMember {
    /// Its id; empty where only the instance is known (an admin removes it).
    pub member: MemberId,
    /// Its `group.instance.id`.
    pub instance: Option<Arc<str>>,
    /// Why, for the log (KIP-800).
    pub reason: Option<Arc<str>>,
}

/// What became of one [`LeavingMember`].
#[derive(Clone, Debug, PartialEq)]
pub struct LeftMember {
    /// Its id as asked for.
    pub member: MemberId,
    /// Its instance as asked for.
    pub instance: Option<Arc<str>>,
    /// Whether it left.
    pub result: Result<(), Refusal>,
}

/// ConsumerGroupHeartbeat. `None` says that nothing changed since the last.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerHeartbeat {
    /// The group.
    pub group: GroupId,
    /// The member. Made by the client from version 1 on; empty before, when it joins.
    pub member: MemberId,
    /// The member's epoch; 0 to join, -1 to leave, -2 for a static member that will come back.
    pub member_epoch: i32,
    /// `group.instance.id`.
    pub instance: Option<Arc<str>>,
    /// `client.rack`.
    pub rack: Option<Arc<str>>,
    /// The client's `client.id`.
    pub client_id: Arc<str>,
    /// The client's address, as Kafka prints it.
    pub client_host: Arc<str>,
    /// How long it may take to give partitions up, in milliseconds.
    pub rebalance_timeout_ms: Option<i32>,
    /// The topics it wants, by name.
    pub topics: Option<Vec<Arc<str>>>,
    /// The topics it wants, by regular expression; empty for no more.
    pub topics_regex: Option<Arc<str>>,
    /// `group.remote.assignor`.
    pub server_assignor: Option<Arc<str>>,
    /// The partitions it has.
    pub owned: Option<Vec<TopicPartitions>>,
    /// Whether a member makes its own id (version 1 on, KIP-1082); version 0 is given one when it joins without.
    pub client_makes_ids: bool,
}

/// Partitions of one topic, by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPartitions {
    /// The topic.
    pub topic: TopicId,
    /// Its partitions.
    pub partitions: Vec<PartitionIndex>,
}

/// The answer to a [`ConsumerHeartbeat`].
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerHeartbeatReply {
    /// The member; `None` for one that left.
    pub member: Option<MemberId>,
    /// Its epoch.
    pub member_epoch: i32,
    /// When to come again, in milliseconds.
    pub heartbeat_interval_ms: i32,
    /// What it may have; only if that changed or it asked with everything.
    pub assignment: Option<Vec<TopicPartitions>>,
}

/// OffsetCommit.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitOffsets {
    /// The group.
    pub group: GroupId,
    /// The member; empty for somebody who is not one.
    pub member: MemberId,
    /// Its `group.instance.id`.
    pub instance: Option<Arc<str>>,
    /// The generation or member epoch; -1 for somebody who is not a member.
    pub epoch: i32,
    /// Whether the request can say STALE_MEMBER_EPOCH (version 9 on); others hear ILLEGAL_GENERATION.
    pub knows_member_epochs: bool,
    /// `retention_time_ms` of versions 2 to 4, where given.
    pub retention_ms: Option<i64>,
    /// What to write down.
    pub offsets: Vec<CommitOffset>,
}

/// How far a group is in one partition.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitOffset {
    /// The topic's name, which the broker found.
    pub topic: Arc<str>,
    /// The topic's id; zero where the client named the topic and the broker does not know it.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The next offset to read.
    pub offset: Offset,
    /// The epoch of the last record read, or -1 (KIP-320).
    pub leader_epoch: LeaderEpoch,
    /// What the client wants to find again.
    pub metadata: Arc<str>,
}

/// OffsetDelete.
#[derive(Clone, Debug, PartialEq)]
pub struct DeleteOffsets {
    /// The group.
    pub group: GroupId,
    /// The partitions, by topic name.
    pub partitions: Vec<(Arc<str>, PartitionIndex)>,
}

/// OffsetFetch, of one group. A query: see [`Coordinator::fetch_offsets`](crate::Coordinator::fetch_offsets).
#[derive(Clone, Debug, PartialEq)]
pub struct FetchOffsets {
    /// The group.
    pub group: GroupId,
    /// The member (version 9 on), if the client said.
    pub member: Option<MemberId>,
    /// Its epoch (version 9 on); -1 otherwise.
    pub member_epoch: i32,
    /// The partitions; `None` for all.
    pub partitions: Option<Vec<(Arc<str>, PartitionIndex)>>,
    /// Whether offsets of an open transaction make the answer unstable (KIP-447).
    pub require_stable: bool,
}

/// How far a group is in one partition, or that nobody said.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchedOffset {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionIndex,
    /// What was committed last.
    pub committed: Option<Committed>,
}

/// What was committed last.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: Offset,
    /// The epoch of the last record read, or -1.
    pub leader_epoch: LeaderEpoch,
    /// What the client wants to find again.
    pub metadata: Arc<str>,
    /// When it was committed, by the coordinator's wall clock.
    pub committed_at: Timestamp,
    /// When it expires, for commits that said so themselves (versions 2 to 4).
    pub expires_at: Option<Timestamp>,
    /// The topic's id, or zero where that was not known.
    pub topic_id: TopicId,
}

/// What kind of group it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupType {
    /// JoinGroup and SyncGroup; also a group of offsets alone.
    Classic,
    /// KIP-848.
    Consumer,
}

/// Where a group stands, in Kafka's words for both kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// Classic: members are coming.
    PreparingRebalance,
    /// Classic: the leader assigns.
    CompletingRebalance,
    /// Everybody has what they should.
    Stable,
    /// Nobody is there.
    Empty,
    /// There is no such group.
    Dead,
    /// Consumer: a new target is to be computed.
    Assigning,
    /// Consumer: members are on their way to the target.
    Reconciling,
}

/// One row of ListGroups.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupListing {
    /// The group.
    pub group: GroupId,
    /// Its protocol type.
    pub protocol_type: Arc<str>,
    /// Where it stands.
    pub state: GroupState,
    /// Its kind.
    pub kind: GroupType,
}

/// DescribeGroups, of one group. Also how a consumer group of classic members looks to old tools.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassicDescription {
    /// Where it stands.
    pub state: GroupState,
    /// Its protocol type.
    pub protocol_type: Arc<str>,
    /// The protocol chosen; empty unless stable.
    pub protocol: Arc<str>,
    /// Its members.
    pub members: Vec<ClassicMemberDescription>,
}

/// One member for DescribeGroups.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassicMemberDescription {
    /// Its id.
    pub member: MemberId,
    /// Its `group.instance.id`.
    pub instance: Option<Arc<str>>,
    /// Its client id.
    pub client_id: Arc<str>,
    /// Its address.
    pub client_host: Arc<str>,
    /// What it gave with the chosen protocol; empty unless stable.
    pub metadata: Bytes,
    /// The leader's bytes for it, as of the last generation that had some.
    pub assignment: Bytes,
}

/// ConsumerGroupDescribe, of one group.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerDescription {
    /// Where it stands.
    pub state: GroupState,
    /// Rises with each change of members, subscriptions or topics.
    pub group_epoch: i32,
    /// The group epoch that the target assignment is for.
    pub assignment_epoch: i32,
    /// The assignor.
    pub assignor: Arc<str>,
    /// Its members.
    pub members: Vec<ConsumerMemberDescription>,
}

/// One member for ConsumerGroupDescribe.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerMemberDescription {
    /// Its id.
    pub member: MemberId,
    /// Its `group.instance.id`.
    pub instance: Option<Arc<str>>,
    /// Its rack.
    pub rack: Option<Arc<str>>,
    /// Its epoch.
    pub member_epoch: i32,
    /// Its client id.
    pub client_id: Arc<str>,
    /// Its address.
    pub client_host: Arc<str>,
    /// The topics it wants, by name.
    pub topics: Vec<Arc<str>>,
    /// The topics it wants, by regular expression.
    pub topics_regex: Option<Arc<str>>,
    /// What it has.
    pub assignment: Vec<TopicPartitions>,
    /// What it should have.
    pub target: Vec<TopicPartitions>,
    /// Whether it speaks the classic protocol in this group.
    pub classic: bool,
}
