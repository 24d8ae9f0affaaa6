//! Which brokers hold a partition and which of them leads it: reassignment (KIP-455) and election (KIP-460).
//!
//! These are Kafka's own requests. Not here: moving whole nodes (`nodes.rs`), and who leads now (`client.rs`).

use std::collections::BTreeMap;

use bytestring::ByteString;
use ottla_protocol::messages::{
    AlterPartitionReassignmentsRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest,
    ListPartitionReassignmentsRequest,
    alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
    describe_topic_partitions_request::{Cursor, TopicRequest},
    elect_leaders_request::TopicPartitions,
};
use ottla_types::{BrokerId, PartitionIndex};

use crate::{
    Client, Error, Target, TopicPartition,
    admin::CHANGE_TIMEOUT_MS,
    error::{check, only},
    nodes::brokers,
};

/// Which leader is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// The first of the replicas, if it is in sync.
    Preferred,
    /// Any that is alive, where none in sync is. What it lacks is lost for good.
    Unclean,
}

/// What became of a change of one partition.
pub type PartitionResult = (TopicPartition, Result<(), Error>);

/// A partition on its way to other brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// The partition.
    pub at: TopicPartition,
    /// The brokers that hold a copy or begin to.
    pub replicas: Vec<BrokerId>,
    /// Those of them that begin to.
    pub adding: Vec<BrokerId>,
    /// Those of them that will not any more.
    pub removing: Vec<BrokerId>,
}

impl Client {
    /// Has leaders elected for these partitions, or (`None`) for all that need it. Gives what became of each that was
    /// asked for; a partition that needs no election is refused with `ELECTION_NOT_NEEDED`.
    ///
    /// # Errors
    /// No controller takes it, or the brokers are too old for unclean elections.
    pub async fn elect_leaders(
        &self,
        kind: Election,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<Vec<PartitionResult>, Error> {
        let row = |(topic, partitions)| TopicPartitions { topic, partitions };
        let request = ElectLeadersRequest {
            election_type: i8::from(kind == Election::Unclean),
            topic_partitions: partitions.map(|partitions| by_topic(partitions.iter()).into_iter().map(row).collect()),
            timeout_ms: CHANGE_TIMEOUT_MS,
        };
        let answer = self
            .change(|| async {
                let answer = self.request_once(Target::Controller, &request).await?;
                check(|| "the election".to_owned(), answer.error_code, None)?;
                Ok(answer)
            })
            .await?;
        let rows = answer.replica_election_results.iter().flat_map(|topic| {
            topic
                .partition_result
                .iter()
                .map(|row| result(&topic.topic, row.partition_id, row.error_code, row.error_message.as_deref()))
        });
        Ok(self.forget_all(rows.collect()))
    }

    /// Has partitions moved to these brokers, the preferred leader first; `None` ends a move that is under way and goes
    /// back. Gives what became of each: the move itself goes on after that, see [`Client::reassignments`].
    ///
    /// # Errors
    /// No controller takes it.
    pub async fn reassign(
        &self,
        changes: &[(TopicPartition, Option<Vec<BrokerId>>)],
    ) -> Result<Vec<PartitionResult>, Error> {
        let mut topics: BTreeMap<&str, Vec<ReassignablePartition>> = BTreeMap::new();
        for (at, replicas) in changes {
            let replicas = replicas.as_ref().map(|replicas| replicas.iter().map(|broker| broker.0).collect());
            let row = ReassignablePartition { partition_index: at.partition.0, replicas };
            topics.entry(&at.topic).or_default().push(row);
        }
        let topics = topics.into_iter().map(|(name, partitions)| ReassignableTopic { name: name.into(), partitions });
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: CHANGE_TIMEOUT_MS,
            topics: topics.collect(),
            ..Default::default()
        };
        let answer = self
            .change(|| async {
                let answer = self.request_once(Target::Controller, &request).await?;
                check(|| "the reassignment".to_owned(), answer.error_code, answer.error_message.as_deref())?;
                Ok(answer)
            })
            .await?;
        let rows = answer.responses.iter().flat_map(|topic| {
            topic
                .partitions
                .iter()
                .map(|row| result(&topic.name, row.partition_index, row.error_code, row.error_message.as_deref()))
        });
        Ok(self.forget_all(rows.collect()))
    }

    /// The partitions that are on their way to other brokers, in order.
    ///
    /// # Errors
    /// No controller answers.
    pub async fn reassignments(&self) -> Result<Vec<Reassignment>, Error> {
        let request = ListPartitionReassignmentsRequest { timeout_ms: CHANGE_TIMEOUT_MS, topics: None };
        let answer = self
            .change(|| async {
                let answer = self.request_once(Target::Controller, &request).await?;
                check(|| "the reassignments".to_owned(), answer.error_code, answer.error_message.as_deref())?;
                Ok(answer)
            })
            .await?;
        let rows = answer.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|row| Reassignment {
                at: TopicPartition::new(&topic.name, PartitionIndex(row.partition_index)),
                replicas: brokers(&row.replicas),
                adding: brokers(&row.adding_replicas),
                removing: brokers(&row.removing_replicas),
            })
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by(|a, b| a.at.cmp(&b.at));
        Ok(rows)
    }

    /// The replicas of each partition of a topic that are not in sync and yet known to have all that was acknowledged:
    /// any of them may lead without a loss (KIP-966).
    ///
    /// # Errors
    /// There is no such topic, or the brokers are too old to tell.
    pub async fn eligible_leaders(&self, topic: &str) -> Result<BTreeMap<PartitionIndex, Vec<BrokerId>>, Error> {
        let topics = vec![TopicRequest { name: topic.into() }];
        let mut request = DescribeTopicPartitionsRequest { topics, cursor: None, ..Default::default() };
        let mut eligible = BTreeMap::new();
        loop {
            let answer = self.request(Target::Any, &request).await?;
            let described = only(answer.topics.first())?;
            check(|| format!("topic {topic}"), described.error_code, None)?;
            for row in &described.partitions {
                let replicas = row.eligible_leader_replicas.as_deref().unwrap_or_default();
                eligible.insert(PartitionIndex(row.partition_index), brokers(replicas));
            }
            // A page ends where the next one begins; one that does not move on would never end.
            let next = answer.next_cursor.map(|next| (next.partition_index, next.topic_name));
            let last = request.cursor.as_ref().map(|cursor| cursor.partition_index);
            match next.filter(|(next, _)| last.is_none_or(|last| *next > last)) {
                Some((partition_index, topic_name)) => {
                    request.cursor = Some(Cursor { topic_name, partition_index });
                }
                None => return Ok(eligible),
            }
        }
    }

    /// Sorts results, and forgets what was known of the topics, which have changed.
    fn forget_all(&self, mut results: Vec<PartitionResult>) -> Vec<PartitionResult> {
        results.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (at, _) in &results {
            self.forget_topic(&at.topic);
        }
        results
    }
}

fn by_topic<'a>(partitions: impl Iterator<Item = &'a TopicPartition>) -> BTreeMap<ByteString, Vec<i32>> {
    let mut topics: BTreeMap<ByteString, Vec<i32>> = BTreeMap::new();
    for at in partitions {
        topics.entry((*at.topic).into()).or_default().push(at.partition.0);
    }
    topics
}

fn result(topic: &str, partition: i32, code: i16, message: Option<&str>) -> PartitionResult {
    let at = TopicPartition::new(topic, PartitionIndex(partition));
    let result = check(|| format!("partition {at}"), code, message);
    (at, result)
}
