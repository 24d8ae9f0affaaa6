//! The calls of group members, beside those in `wire`: one request, one answer, every error as it was answered.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerProtocolAssignment, ConsumerProtocolSubscription, FindCoordinatorRequest,
    GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest,
    SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::{CallResult, Connection, one, refused, text};

/// The only assignment strategy here; each member lists it.
const STRATEGY: &str = "range";
/// Of the metadata that members exchange through the broker.
const SUBSCRIPTION_VERSION: i16 = 1;

/// A member of a classic group, as the coordinator knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) generation: i32,
    /// The ids of all members, for the leader only.
    pub(crate) led: Vec<String>,
}

/// How long members of a classic group may take, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) session: i32,
    pub(crate) rebalance: i32,
}

/// What a member under KIP-848 was told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) epoch: i32,
    pub(crate) heartbeat_ms: i32,
    /// `None` if it has not changed.
    pub(crate) assignment: Option<Vec<(uuid::Uuid, Vec<i32>)>>,
}

impl Connection {
    /// Asks for the coordinator of a group, which creates the offsets topic where there is none.
    pub(crate) fn find_coordinator(&mut self, group: &str) -> CallResult<()> {
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
        refused(one(self.call(&request, 4)?.coordinators)?.error_code)
    }

    /// The committed offsets of one topic.
    pub(crate) fn committed(&mut self, group: &str, topic: &str) -> CallResult<BTreeMap<i32, i64>> {
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(group)))
            .with_member_epoch(-1)
            .with_topics(None);
        let request = OffsetFetchRequest::default().with_groups(vec![asked]);
        let answer = one(self.call(&request, 8)?.groups)?;
        refused(answer.error_code)?;
        let mut offsets = BTreeMap::new();
        let of_topic = answer.topics.into_iter().filter(|it| it.name.as_str() == topic);
        for partition in of_topic.flat_map(|it| it.partitions) {
            refused(partition.error_code)?;
            offsets.insert(partition.partition_index, partition.committed_offset);
        }
        Ok(offsets)
    }

    /// Commits as somebody who is no member.
    pub(crate) fn commit(&mut self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> CallResult<()> {
        let partitions = offsets
            .iter()
            .map(|(partition, offset)| {
                OffsetCommitRequestPartition::default()
                    .with_partition_index(*partition)
                    .with_committed_offset(*offset)
                    .with_committed_leader_epoch(-1)
            })
            .collect();
        let topic = OffsetCommitRequestTopic::default().with_name(TopicName(text(topic))).with_partitions(partitions);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        let answers = self.call(&request, 8)?.topics;
        answers.into_iter().flat_map(|it| it.partitions).try_for_each(|it| refused(it.error_code))
    }

    /// Joins; on `MEMBER_ID_REQUIRED` the id is kept and has to be sent again.
    pub(crate) fn join(&mut self, group: &str, topic: &str, member: &mut Member, within: Timeouts) -> CallResult<()> {
        let subscription = ConsumerProtocolSubscription::default().with_topics(vec![text(topic)]);
        let protocol =
            JoinGroupRequestProtocol::default().with_name(text(STRATEGY)).with_metadata(versioned(&subscription)?);
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_session_timeout_ms(within.session)
            .with_rebalance_timeout_ms(within.rebalance)
            .with_member_id(text(&member.id))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let answer = self.call(&request, 9)?;
        if !answer.member_id.is_empty() {
            member.id = answer.member_id.as_str().to_owned();
        }
        refused(answer.error_code)?;
        member.generation = answer.generation_id;
        member.led = answer.members.iter().map(|it| it.member_id.as_str().to_owned()).collect();
        Ok(())
    }

    /// Gets the assignment; the leader brings those of all.
    pub(crate) fn sync(
        &mut self,
        group: &str,
        topic: &str,
        member: &Member,
        assignments: &[(String, Vec<i32>)],
    ) -> CallResult<Vec<i32>> {
        let mut encoded = Vec::with_capacity(assignments.len());
        for (of, partitions) in assignments {
            let partitions =
                TopicPartition::default().with_topic(TopicName(text(topic))).with_partitions(partitions.clone());
            let assignment = ConsumerProtocolAssignment::default().with_assigned_partitions(vec![partitions]);
            let assignment = versioned(&assignment)?;
            encoded.push(SyncGroupRequestAssignment::default().with_member_id(text(of)).with_assignment(assignment));
        }
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id(member.generation)
            .with_member_id(text(&member.id))
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text(STRATEGY)))
            .with_assignments(encoded);
        let answer = self.call(&request, 5)?;
        refused(answer.error_code)?;
        let mut bytes = answer.assignment;
        // There is no assignment at all for a member that the leader left out.
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        let version = bytes::Buf::try_get_i16(&mut bytes).map_err(anyhow::Error::from)?;
        let assignment = ConsumerProtocolAssignment::decode(&mut bytes, version)?;
        Ok(assignment.assigned_partitions.into_iter().flat_map(|it| it.partitions).collect())
    }

    pub(crate) fn heartbeat(&mut self, group: &str, member: &Member) -> CallResult<()> {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id(member.generation)
            .with_member_id(text(&member.id));
        refused(self.call(&request, 4)?.error_code)
    }

    pub(crate) fn leave(&mut self, group: &str, member: &Member) -> CallResult<()> {
        let identity = MemberIdentity::default().with_member_id(text(&member.id));
        let request = LeaveGroupRequest::default().with_group_id(GroupId(text(group))).with_members(vec![identity]);
        let answer = self.call(&request, 5)?;
        refused(answer.error_code)?;
        refused(one(answer.members)?.error_code)
    }

    /// A heartbeat of KIP-848: `epoch` 0 joins, -1 leaves; `owned` is sent when it has changed.
    pub(crate) fn consumer_heartbeat(
        &mut self,
        group: &str,
        topic: &str,
        (member, epoch): (&str, i32),
        owned: Option<&[(uuid::Uuid, Vec<i32>)]>,
    ) -> CallResult<Told> {
        let partitions = |(topic, partitions): &(uuid::Uuid, Vec<i32>)| {
            TopicPartitions::default().with_topic_id(*topic).with_partitions(partitions.clone())
        };
        let mut request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_member_id(text(member))
            .with_member_epoch(epoch)
            .with_topic_partitions(owned.map(|owned| owned.iter().map(partitions).collect()));
        if epoch == 0 {
            request = request
                .with_rebalance_timeout_ms(60_000)
                .with_subscribed_topic_names(Some(vec![TopicName(text(topic))]))
                .with_topic_partitions(Some(Vec::new()));
        }
        let answer = self.call(&request, 1)?;
        refused(answer.error_code)?;
        let assignment = answer
            .assignment
            .map(|it| it.topic_partitions.into_iter().map(|it| (it.topic_id, it.partitions)).collect());
        Ok(Told { epoch: answer.member_epoch, heartbeat_ms: answer.heartbeat_interval_ms, assignment })
    }
}

/// What members write for each other begins with its version.
fn versioned<T: Encodable>(message: &T) -> anyhow::Result<Bytes> {
    let mut bytes = BytesMut::new();
    bytes::BufMut::put_i16(&mut bytes, SUBSCRIPTION_VERSION);
    message.encode(&mut bytes, SUBSCRIPTION_VERSION)?;
    Ok(bytes.freeze())
}
