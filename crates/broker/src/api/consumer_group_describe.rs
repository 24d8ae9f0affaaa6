//! ConsumerGroupDescribe (key 69): groups of the new protocol, with what each member has and should have (KIP-848).

use ottla_group::{ConsumerDescription, ConsumerMemberDescription, TopicPartitions};
use ottla_metadata::Image;
use ottla_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
    consumer_group_describe_response::{self as response, Assignment, DescribedGroup, Member},
};

use super::{
    Context,
    group::{Failure, authorized_operations, each_once, flatten},
    list_groups::state_name,
};

/// `member_type` of a member that speaks the classic protocol, and of one that does not.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

pub(super) fn handle(
    context: &Context<'_>,
    request: ConsumerGroupDescribeRequest,
) -> impl Future<Output = ConsumerGroupDescribeResponse> + Send + use<> {
    let operations = authorized_operations(request.include_authorized_operations);
    let image = context.broker.node.image();
    let groups = context.broker.node.groups();
    let ask = |id: bytestring::ByteString| {
        let pending = groups.query(&id, |groups, now| groups.describe_consumer(now, &id));
        (id, pending)
    };
    let asked: Vec<_> = each_once(request.group_ids).map(ask).collect();
    async move {
        let mut groups = Vec::with_capacity(asked.len());
        for (group_id, pending) in asked {
            let described = match flatten(pending.await) {
                Ok(description) => describe(description, &image),
                Err(Failure { code, message }) => DescribedGroup {
                    error_code: code.code(),
                    error_message: Some(message.into()),
                    ..Default::default()
                },
            };
            groups.push(DescribedGroup { group_id, authorized_operations: operations, ..described });
        }
        ConsumerGroupDescribeResponse { groups, ..Default::default() }
    }
}

fn describe(description: ConsumerDescription, image: &Image) -> DescribedGroup {
    DescribedGroup {
        group_state: state_name(description.state).into(),
        group_epoch: description.group_epoch,
        assignment_epoch: description.assignment_epoch,
        assignor_name: (&*description.assignor).into(),
        members: description.members.into_iter().map(|member| describe_member(member, image)).collect(),
        ..Default::default()
    }
}

fn describe_member(member: ConsumerMemberDescription, image: &Image) -> Member {
    Member {
        member_id: (&*member.member).into(),
        instance_id: member.instance.as_deref().map(Into::into),
        rack_id: member.rack.as_deref().map(Into::into),
        member_epoch: member.member_epoch,
        client_id: (&*member.client_id).into(),
        client_host: (&*member.client_host).into(),
        subscribed_topic_names: member.topics.iter().map(|topic| (&**topic).into()).collect(),
        subscribed_topic_regex: member.topics_regex.as_deref().map(Into::into),
        assignment: assignment(&member.assignment, image),
        target_assignment: assignment(&member.target, image),
        member_type: if member.classic { CLASSIC_MEMBER } else { CONSUMER_MEMBER },
    }
}

/// Partitions with the names of their topics; those of topics that are gone are left out.
fn assignment(topics: &[TopicPartitions], image: &Image) -> Assignment {
    let named = topics.iter().filter_map(|assigned| {
        Some(response::TopicPartitions {
            topic_id: assigned.topic,
            topic_name: (&*image.topic(assigned.topic)?.name).into(),
            partitions: assigned.partitions.iter().map(|index| index.0).collect(),
        })
    });
    Assignment { topic_partitions: named.collect() }
}
