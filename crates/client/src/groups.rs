//! Consumer groups from outside: which there are, who is in them, and removing them.
//!
//! What a group has committed is in `committed.rs`. Not here: being a member of one (`group_consumer.rs`).

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use ottla_protocol::{
    DecodeError, ErrorCode, Reader,
    messages::{
        ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest,
        ListGroupsRequest, consumer_group_describe_response, describe_groups_response,
    },
};
use ottla_types::{BrokerId, PartitionIndex};

use crate::{
    Client, Error, Target, TopicPartition,
    error::{check, only},
};

/// The last version of FindCoordinator that asks for one group; all brokers know it.
const ONE_COORDINATOR_UNTIL: i16 = 3;
/// How many groups are asked about in one request.
const DESCRIBED_AT_ONCE: usize = 500;

/// Which protocol the members of a group speak.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupKind {
    /// JoinGroup and SyncGroup: the members assign partitions among themselves. Also groups that only keep offsets.
    Classic,
    /// ConsumerGroupHeartbeat: the broker assigns (KIP-848).
    Consumer,
    /// One that this client does not speak, such as `share`, in Kafka's word for it.
    Other(String),
}

impl GroupKind {
    fn from_wire(kind: &str) -> GroupKind {
        match kind.to_ascii_lowercase().as_str() {
            // Brokers that do not tell know no other.
            "" | "classic" => GroupKind::Classic,
            "consumer" => GroupKind::Consumer,
            other => GroupKind::Other(other.to_owned()),
        }
    }

    /// Kafka's word for it.
    pub fn name(&self) -> &str {
        match self {
            GroupKind::Classic => "classic",
            GroupKind::Consumer => "consumer",
            GroupKind::Other(name) => name,
        }
    }
}

/// A group as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its name.
    pub id: String,
    /// Which protocol it speaks.
    pub kind: GroupKind,
    /// Its state in Kafka's word for it, such as `Stable`; empty from brokers before 2.6.
    pub state: String,
    /// The broker that coordinates it.
    pub coordinator: BrokerId,
}

/// A group and its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its name.
    pub id: String,
    /// Which protocol it speaks.
    pub kind: GroupKind,
    /// Its state in Kafka's word for it, such as `Stable`.
    pub state: String,
    /// Who assigns its partitions, such as `range`; empty when nobody has yet.
    pub assignor: String,
    /// The broker that coordinates it.
    pub coordinator: BrokerId,
    /// Its members, by id.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its id.
    pub id: String,
    /// The name it keeps over restarts, if it is a static member.
    pub instance_id: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// Its partitions, in order.
    pub assignment: Vec<TopicPartition>,
}

impl Client {
    /// All groups of the cluster, by name.
    ///
    /// # Errors
    /// A broker does not answer.
    pub async fn list_groups(&self) -> Result<Vec<ListedGroup>, Error> {
        let mut groups = self
            .retry(|| async {
                // Each try begins anew: the groups of a broker that has gone are another's by now.
                self.refresh(Some(&[]), false).await?;
                let mut groups = Vec::new();
                for broker in self.brokers() {
                    groups.extend(self.list_groups_of(broker.id).await?);
                }
                Ok(groups)
            })
            .await?;
        groups.sort_by(|a, b| a.id.cmp(&b.id));
        // One that moves from broker to broker meanwhile may be seen at both.
        groups.dedup_by(|a, b| a.id == b.id);
        Ok(groups)
    }

    async fn list_groups_of(&self, broker: BrokerId) -> Result<Vec<ListedGroup>, Error> {
        let answer = self.request_once(Target::Broker(broker), &ListGroupsRequest::default()).await?;
        check(|| format!("the groups of broker {broker}"), answer.error_code, None)?;
        let listed = answer.groups.iter().map(|row| ListedGroup {
            id: row.group_id.to_string(),
            kind: GroupKind::from_wire(&row.group_type),
            state: row.group_state.to_string(),
            coordinator: broker,
        });
        Ok(listed.collect())
    }

    /// The members of groups that were listed, by name. Those that are gone since are left out, and those of
    /// [`GroupKind::Other`].
    ///
    /// # Errors
    /// A broker does not answer.
    pub async fn describe_groups(&self, listed: &[ListedGroup]) -> Result<Vec<GroupInfo>, Error> {
        let mut places: BTreeMap<(BrokerId, &GroupKind), Vec<&str>> = BTreeMap::new();
        for group in listed.iter().filter(|group| !matches!(group.kind, GroupKind::Other(_))) {
            places.entry((group.coordinator, &group.kind)).or_default().push(&group.id);
        }
        let mut groups: Vec<GroupInfo> = Vec::new();
        let mut moved = Vec::new();
        for ((coordinator, kind), ids) in places {
            for ids in ids.chunks(DESCRIBED_AT_ONCE) {
                let described = match self.describe_at(coordinator, kind, ids).await {
                    Err(error) if error.is_retriable() => ids.iter().map(|_| Err(error.clone())).collect(),
                    described => described?,
                };
                let elsewhere = described.iter().any(|group| group.as_ref().is_err_and(Error::is_retriable));
                let described: Vec<_> = described.into_iter().flatten().collect();
                let is_missing = |id: &&&str| !described.iter().any(|group| group.id == **id);
                moved.extend(ids.iter().filter(|id| elsewhere && is_missing(id)).copied());
                groups.extend(described);
            }
        }
        for id in moved {
            match self.describe_group(id).await {
                Ok(group) => groups.push(group),
                Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        groups.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(groups)
    }

    /// A group and its members, whichever of the two protocols it speaks.
    ///
    /// # Errors
    /// There is no such group ([`ErrorCode::GroupIdNotFound`]), or it is of [`GroupKind::Other`].
    pub async fn describe_group(&self, id: &str) -> Result<GroupInfo, Error> {
        self.coordinated(id, async |coordinator| {
            match self.describe_one(coordinator, &GroupKind::Consumer, id).await {
                // The one broker has no such group of this kind, the other has no groups of this kind.
                Err(Error::Unsupported { .. }) => {}
                Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => {}
                Err(error) if error.code() == Some(ErrorCode::UnsupportedVersion) => {}
                found => return found,
            }
            self.describe_one(coordinator, &GroupKind::Classic, id).await
        })
        .await
    }

    async fn describe_one(&self, coordinator: BrokerId, kind: &GroupKind, id: &str) -> Result<GroupInfo, Error> {
        let mut described = self.describe_at(coordinator, kind, &[id]).await?;
        only(described.pop())?
    }

    /// One request to a broker for groups of one kind.
    async fn describe_at(
        &self,
        coordinator: BrokerId,
        kind: &GroupKind,
        ids: &[&str],
    ) -> Result<Vec<Result<GroupInfo, Error>>, Error> {
        let (target, ids) = (Target::Broker(coordinator), ids.iter().map(|id| ByteString::from(*id)).collect());
        if *kind == GroupKind::Consumer {
            let request = ConsumerGroupDescribeRequest { group_ids: ids, ..Default::default() };
            let answer = self.request_once(target, &request).await?;
            return Ok(answer.groups.iter().map(|row| consumer_group(coordinator, row)).collect());
        }
        let request = DescribeGroupsRequest { groups: ids, ..Default::default() };
        let answer = self.request_once(target, &request).await?;
        Ok(answer.groups.iter().map(|row| classic_group(coordinator, row)).collect())
    }

    /// Deletes a group and all its offsets.
    ///
    /// # Errors
    /// It has members ([`ErrorCode::NonEmptyGroup`]), or there is no such group ([`ErrorCode::GroupIdNotFound`]).
    pub async fn delete_group(&self, id: &str) -> Result<(), Error> {
        let request = DeleteGroupsRequest { groups_names: vec![id.into()] };
        self.coordinated(id, async |coordinator| {
            let answer = self.request_once(Target::Broker(coordinator), &request).await?;
            check(|| format!("group {id}"), only(answer.results.first())?.error_code, None)
        })
        .await
    }

    /// The broker that coordinates a group.
    ///
    /// # Errors
    /// The cluster names none within the call timeout.
    pub async fn find_coordinator(&self, group: &str) -> Result<BrokerId, Error> {
        self.retry(|| self.find_coordinator_once(group)).await
    }

    async fn find_coordinator_once(&self, group: &str) -> Result<BrokerId, Error> {
        let request = FindCoordinatorRequest { key: group.into(), ..Default::default() };
        let (answer, _) = self.request_at_most(Target::Any, &request, ONE_COORDINATOR_UNTIL).await?;
        let what = || format!("the coordinator of group {group}");
        check(what, answer.error_code, answer.error_message.as_deref())?;
        Ok(BrokerId(answer.node_id))
    }

    /// As `retry`, for what only a group's coordinator does: asks before each try who that is.
    pub(crate) async fn coordinated<T>(
        &self,
        group: &str,
        attempt: impl AsyncFn(BrokerId) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.retry(|| async { attempt(self.find_coordinator_once(group).await?).await }).await
    }
}

fn consumer_group(
    coordinator: BrokerId,
    row: &consumer_group_describe_response::DescribedGroup,
) -> Result<GroupInfo, Error> {
    check(|| format!("group {}", row.group_id), row.error_code, row.error_message.as_deref())?;
    let members = row.members.iter().map(|row| GroupMember {
        id: row.member_id.to_string(),
        instance_id: row.instance_id.as_ref().map(ToString::to_string),
        client_id: row.client_id.to_string(),
        host: host(&row.client_host),
        assignment: sorted(row.assignment.topic_partitions.iter().flat_map(|topic| {
            topic.partitions.iter().map(|index| TopicPartition::new(&topic.topic_name, PartitionIndex(*index)))
        })),
    });
    Ok(GroupInfo {
        id: row.group_id.to_string(),
        kind: GroupKind::Consumer,
        state: row.group_state.to_string(),
        assignor: row.assignor_name.to_string(),
        coordinator,
        members: by_id(members),
    })
}

fn classic_group(coordinator: BrokerId, row: &describe_groups_response::DescribedGroup) -> Result<GroupInfo, Error> {
    let what = || format!("group {}", row.group_id);
    check(what, row.error_code, row.error_message.as_deref())?;
    // How brokers before 4.0 say that there is no such group.
    if row.group_state == "Dead" {
        return Err(Error::broker(what(), ErrorCode::GroupIdNotFound.code(), None));
    }
    let of_consumers = row.protocol_type == "consumer";
    let members = row.members.iter().map(|row| GroupMember {
        id: row.member_id.to_string(),
        instance_id: row.group_instance_id.as_ref().map(ToString::to_string),
        client_id: row.client_id.to_string(),
        host: host(&row.client_host),
        // The assignment is the members' own affair: what cannot be read is no failure of the broker.
        assignment: match assigned(&row.member_assignment) {
            Ok(assignment) if of_consumers => assignment,
            _ => Vec::new(),
        },
    });
    Ok(GroupInfo {
        id: row.group_id.to_string(),
        kind: GroupKind::Classic,
        state: row.group_state.to_string(),
        assignor: row.protocol_data.to_string(),
        coordinator,
        members: by_id(members),
    })
}

/// Java writes addresses with a slash before them.
fn host(host: &str) -> String {
    host.trim_start_matches('/').to_owned()
}

fn by_id(members: impl Iterator<Item = GroupMember>) -> Vec<GroupMember> {
    let mut members: Vec<_> = members.collect();
    members.sort_by(|a, b| a.id.cmp(&b.id));
    members
}

/// The partitions in an assignment of the classic protocol: a version, and the topics with their partitions. Newer
/// versions only add behind that.
fn assigned(assignment: &Bytes) -> Result<Vec<TopicPartition>, DecodeError> {
    let mut reader = Reader::new(assignment.clone());
    if reader.remaining() == 0 {
        return Ok(Vec::new());
    }
    reader.i16()?;
    let topics = reader.array(false, |reader| Ok((reader.string(false)?, reader.array(false, Reader::i32)?)))?;
    Ok(sorted(topics.iter().flat_map(|(topic, partitions)| {
        partitions.iter().map(|index| TopicPartition::new(topic, PartitionIndex(*index)))
    })))
}

fn sorted(partitions: impl Iterator<Item = TopicPartition>) -> Vec<TopicPartition> {
    let mut partitions: Vec<_> = partitions.collect();
    partitions.sort();
    partitions
}
