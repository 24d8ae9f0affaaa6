//! [`GroupConsumer`]: a member of a group whose coordinator assigns the partitions (KIP-848).
//!
//! Not here: reading (`consumer.rs`). The reader is made anew when the assignment changes, so that no answer to a fetch
//! of before can move it. The classic protocol, by which members assign partitions themselves, is not spoken.

use std::{collections::BTreeMap, time::Duration};

use ottla_protocol::{
    ErrorCode,
    messages::{
        ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, consumer_group_heartbeat_request,
        consumer_group_heartbeat_response::Assignment,
    },
};
use ottla_types::{Offset, PartitionIndex, TopicId};
use tokio::time::Instant;

use crate::{
    Client, Consumer, ConsumerConfig, Error, Fetched, Position, Start, Target, TopicPartition, committed::Committer,
    error::check,
};

/// The member epochs that mean something else (KIP-848).
const JOINS: i32 = 0;
const LEAVES: i32 = -1;
/// A pause, whatever the coordinator asks for.
const HEARTBEAT_EVERY_MIN: Duration = Duration::from_millis(100);
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// How long the coordinator waits until this member has given up a partition.
const REBALANCE_TIMEOUT_MS: i32 = 60_000;

/// Reads topics together with the other members of its group. It takes part in the group only within its calls: who
/// does not [`GroupConsumer::poll`] for longer than the session timeout loses its partitions, and joins again.
#[derive(Debug)]
pub struct GroupConsumer {
    client: Client,
    config: ConsumerConfig,
    group: String,
    topics: Vec<String>,
    from: Start,
    member_id: String,
    epoch: i32,
    heartbeat_at: Instant,
    commit_at: Instant,
    /// The partitions that are ours, and the first offset of each that the caller was not given yet.
    owned: BTreeMap<TopicPartition, Offset>,
    /// Their ids, as the coordinator knows them.
    ids: BTreeMap<TopicPartition, TopicId>,
    reader: Consumer,
    /// What the caller is done with and the coordinator does not know yet.
    done: BTreeMap<TopicPartition, Offset>,
}

impl GroupConsumer {
    /// Joins a group. Where it has committed nothing, or what it has committed is gone, reading begins at `from`.
    ///
    /// # Errors
    /// The coordinator refuses, or the broker does not speak KIP-848 ([`Error::Unsupported`]).
    pub async fn join(
        client: &Client,
        group: &str,
        topics: &[String],
        from: Start,
        config: ConsumerConfig,
    ) -> Result<GroupConsumer, Error> {
        let now = Instant::now();
        let mut consumer = GroupConsumer {
            reader: Consumer::new(client, config.clone(), &[]).await?,
            client: client.clone(),
            config,
            group: group.to_owned(),
            topics: topics.to_vec(),
            from,
            member_id: uuid::Uuid::new_v4().to_string(),
            epoch: JOINS,
            heartbeat_at: now,
            commit_at: now + COMMIT_EVERY,
            owned: BTreeMap::new(),
            ids: BTreeMap::new(),
            done: BTreeMap::new(),
        };
        consumer.heartbeat().await?;
        Ok(consumer)
    }

    /// The partitions that are ours now, and where reading goes on in each.
    pub fn positions(&self) -> &BTreeMap<TopicPartition, Offset> {
        &self.owned
    }

    /// Waits for records, but no longer than until the coordinator has to hear of us, and then gives none.
    ///
    /// # Errors
    /// As [`Consumer::poll`], and those of the coordinator.
    pub async fn poll(&mut self) -> Result<Vec<Fetched>, Error> {
        if Instant::now() >= self.heartbeat_at {
            self.heartbeat().await?;
        }
        if Instant::now() >= self.commit_at {
            self.commit().await?;
        }
        let fetched = tokio::select! {
            fetched = self.reader.poll(), if !self.owned.is_empty() => fetched?,
            () = tokio::time::sleep_until(self.heartbeat_at.min(self.commit_at)) => Vec::new(),
        };
        for fetched in &fetched {
            self.owned.insert(fetched.at.clone(), fetched.next);
        }
        Ok(fetched)
    }

    /// Says that the caller is done with what is before an offset. It is committed every few seconds.
    pub fn done(&mut self, at: &TopicPartition, next: Offset) {
        if self.owned.contains_key(at) {
            self.done.insert(at.clone(), next);
        }
    }

    /// Commits what the caller is done with, and leaves the group.
    ///
    /// # Errors
    /// Those of the coordinator. Then the group waits for the session timeout before others get the partitions.
    pub async fn leave(mut self) -> Result<(), Error> {
        self.commit().await?;
        if !self.done.is_empty() {
            self.heartbeat().await?;
            self.commit().await?;
        }
        self.epoch = LEAVES;
        match self.beat().await {
            Err(error) if !is_behind(&error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn commit(&mut self) -> Result<(), Error> {
        self.commit_at = Instant::now() + COMMIT_EVERY;
        if self.done.is_empty() {
            return Ok(());
        }
        let offsets: Vec<_> = self.done.iter().map(|(at, next)| (at.clone(), *next)).collect();
        let us = Committer::Member { id: &self.member_id, epoch: self.epoch };
        match self.client.commit(&self.group, us, &offsets).await {
            Ok(()) => self.done.clear(),
            // The next heartbeat tells what became of us. What is not committed until then is read again.
            Err(error) if is_behind(&error) => self.heartbeat_at = Instant::now(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn heartbeat(&mut self) -> Result<(), Error> {
        let answer = match self.beat().await {
            Err(error) if is_behind(&error) => {
                tracing::debug!(%error, "joining the group again");
                self.epoch = JOINS;
                self.heartbeat_at = Instant::now();
                self.done.clear();
                return self.own(BTreeMap::new()).await;
            }
            answer => answer?,
        };
        self.epoch = answer.member_epoch;
        let every = Duration::from_millis(u64::try_from(answer.heartbeat_interval_ms).unwrap_or(0));
        self.heartbeat_at = Instant::now() + every.max(HEARTBEAT_EVERY_MIN);
        match answer.assignment {
            Some(assignment) => self.take_over(&assignment).await,
            None => Ok(()),
        }
    }

    /// Tells the coordinator all about us, though it would be enough to tell what is new.
    async fn beat(&self) -> Result<ConsumerGroupHeartbeatResponse, Error> {
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.group.as_str().into(),
            member_id: self.member_id.as_str().into(),
            member_epoch: self.epoch,
            rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
            subscribed_topic_names: Some(self.topics.iter().map(|topic| topic.as_str().into()).collect()),
            topic_partitions: Some(self.owned_by_id()),
            ..Default::default()
        };
        self.client
            .coordinated(&self.group, async |coordinator| {
                let answer = self.client.request_once(Target::Broker(coordinator), &request).await?;
                check(|| format!("group {}", self.group), answer.error_code, answer.error_message.as_deref())?;
                Ok(answer)
            })
            .await
    }

    fn owned_by_id(&self) -> Vec<consumer_group_heartbeat_request::TopicPartitions> {
        let mut topics: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
        for (at, id) in &self.ids {
            topics.entry(*id).or_default().push(at.partition.0);
        }
        let row = |(topic_id, partitions)| consumer_group_heartbeat_request::TopicPartitions { topic_id, partitions };
        topics.into_iter().map(row).collect()
    }

    /// Gives up the partitions that are no longer ours, takes up those that are new, and has the coordinator told.
    async fn take_over(&mut self, assignment: &Assignment) -> Result<(), Error> {
        let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let known = self.client.topics(Some(&names)).await?;
        let known: Vec<_> = known.into_iter().filter_map(|(_, topic)| topic.ok()).collect();
        let assigned = assignment.topic_partitions.iter().filter_map(|row| {
            let topic = known.iter().find(|topic| topic.id == row.topic_id)?;
            let at = |index: &i32| (TopicPartition::new(&topic.name, PartitionIndex(*index)), topic.id);
            Some(row.partitions.iter().map(at))
        });
        let assigned: BTreeMap<_, _> = assigned.flatten().collect();
        if assigned == self.ids {
            return Ok(());
        }
        // Before others go on where we were.
        self.commit().await?;
        self.heartbeat_at = Instant::now();
        self.own(assigned).await
    }

    async fn own(&mut self, partitions: BTreeMap<TopicPartition, TopicId>) -> Result<(), Error> {
        self.owned.retain(|at, _| partitions.contains_key(at));
        self.done.retain(|at, _| partitions.contains_key(at));
        let new: Vec<_> = partitions.keys().filter(|at| !self.owned.contains_key(at)).cloned().collect();
        let starts = self.starts(&new).await?;
        let kept = self.owned.iter().map(|(at, next)| (at.clone(), Start::Offset(*next)));
        let reader = Consumer::new(&self.client, self.config.clone(), &kept.chain(starts).collect::<Vec<_>>()).await?;
        self.owned = reader.positions().iter().cloned().collect();
        // The place where we begin is the group's, even if nothing comes.
        self.done.extend(new.iter().filter_map(|at| Some((at.clone(), *self.owned.get(at)?))));
        self.ids = partitions;
        self.reader = reader;
        Ok(())
    }

    /// Where reading begins in partitions that are new to us: where the group is, if that is still there.
    async fn starts(&self, new: &[TopicPartition]) -> Result<Vec<(TopicPartition, Start)>, Error> {
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let committed: BTreeMap<_, _> = self.client.committed(&self.group).await?.into_iter().collect();
        let wanted: Vec<_> =
            new.iter().flat_map(|at| [Position::Earliest, Position::Latest].map(|place| (at.clone(), place))).collect();
        let logs = self.client.list_offsets(&wanted).await?;
        let starts = new.iter().zip(logs.chunks_exact(2)).map(|(at, log)| {
            let inside = |next: &&Offset| {
                log.first().is_some_and(|first| first.offset <= Some(**next))
                    && log.last().is_some_and(|end| Some(**next) <= end.offset)
            };
            let start = committed.get(at).filter(inside).map_or(self.from, |next| Start::Offset(*next));
            (at.clone(), start)
        });
        Ok(starts.collect())
    }
}

/// Whether the coordinator takes us for an earlier self, or for nobody.
fn is_behind(error: &Error) -> bool {
    let codes = [ErrorCode::StaleMemberEpoch, ErrorCode::FencedMemberEpoch, ErrorCode::UnknownMemberId];
    error.code().is_some_and(|code| codes.contains(&code))
}
