//! Follows the leaders of the partitions that this broker has a copy of: one task and one connection for each leader,
//! which fetches for all of them together (KIP-227 sessions, KIP-320 epochs, KIP-903 broker epochs).
//!
//! A round sends where each partition stands that has moved, takes in what the answer brought, and has it synced where
//! the topic counts on the disk, before the next round tells the leader. What is not here: what a copy does with an
//! answer (`ottla_node::Partition::append_fetched`), and the leader's side (`api/fetch.rs`).

use std::{
    collections::{HashMap, HashSet},
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use ottla_node::Partition;
use ottla_protocol::{
    ErrorCode, Records,
    messages::{
        FetchRequest, FetchResponse,
        fetch_request::{FetchPartition, FetchTopic, ReplicaState},
        fetch_response::PartitionData,
    },
};
use ottla_replica::{FetchPosition, Fetched};
use ottla_types::{BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId};
use tokio::{task::JoinHandle, time::sleep};

use crate::{fetch_sessions::INITIAL_EPOCH, peers::PeerError, server::Broker};

/// Pause after a leader could not be asked.
const RETRY: Duration = Duration::from_millis(100);
/// How long a partition that its leader would not serve is left alone: one of the two brokers is behind.
const REFUSED_RETRY: Duration = Duration::from_millis(50);
/// On top of what an answer may wait for data.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

type Place = (TopicId, PartitionIndex);
/// A partition, and the leadership it is followed under.
type Member = (Arc<Partition>, LeaderEpoch);
type Followed = Vec<Member>;

impl Broker {
    /// Follows whoever leads what lies here, until the broker stops.
    pub(crate) async fn follow_leaders(self: Arc<Self>) {
        let mut stopping = self.stopping.subscribe();
        let mut tasks: HashMap<BrokerId, (Followed, JoinHandle<()>)> = HashMap::new();
        while !*stopping.borrow() {
            let changed = self.changed.notified();
            let mut wanted = self.followed();
            tasks.retain(|leader, (followed, task)| {
                let same = wanted.get(leader).is_some_and(|wanted| same(wanted, followed));
                if same && !task.is_finished() {
                    wanted.remove(leader);
                    return true;
                }
                // What its answer would have brought is fetched again: nothing is lost with it.
                task.abort();
                false
            });
            for (leader, followed) in wanted {
                let task = tokio::spawn(Arc::clone(&self).follow(leader, followed.clone()));
                tasks.insert(leader, (followed, task));
            }
            tokio::select! {
                _ = stopping.changed() => {}
                () = changed => {}
            }
        }
        tasks.into_values().for_each(|(_, task)| task.abort());
    }

    fn followed(&self) -> HashMap<BrokerId, Followed> {
        // Without a registration no leader takes us for a follower.
        if self.node.epoch().is_none() {
            return HashMap::new();
        }
        let epochs = |partitions: Vec<Arc<Partition>>| -> Followed {
            partitions.into_iter().map(|partition| (Arc::clone(&partition), partition.leader_epoch())).collect()
        };
        self.node.followed().into_iter().map(|(leader, partitions)| (leader, epochs(partitions))).collect()
    }

    /// Follows one leader for good.
    async fn follow(self: Arc<Self>, leader: BrokerId, followed: Followed) {
        let mut session = Session::new(followed);
        loop {
            if let Err(error) = self.follow_over_one_connection(leader, &mut session).await {
                tracing::debug!(%leader, %error, "a leader can't be followed; trying again");
            }
            sleep(RETRY).await;
        }
    }

    async fn follow_over_one_connection(&self, leader: BrokerId, session: &mut Session) -> Result<(), PeerError> {
        let connection = self.peers.connect(leader).await?;
        session.restart();
        while let Some(epoch) = self.node.epoch() {
            let config = self.node.broker_config();
            let request = FetchRequest {
                replica_state: ReplicaState { replica_id: self.node.id().0, replica_epoch: epoch.0 },
                max_wait_ms: config.replica_fetch_wait_max_ms,
                min_bytes: 1,
                max_bytes: config.replica_fetch_response_max_bytes,
                ..session.request(config.replica_fetch_max_bytes, self.node.starts_wanted())
            };
            let wait = Duration::from_millis(u64::try_from(config.replica_fetch_wait_max_ms).unwrap_or(0));
            let answer = connection.call(&request, wait + ANSWER_TIMEOUT).await?;
            let all_taken = session.take(answer);
            session.synced().await;
            if !all_taken {
                sleep(REFUSED_RETRY).await;
            }
        }
        Ok(())
    }
}

/// Whether the same is followed. Both come from the same walk over the topics, whose order is kept while they are.
fn same(a: &Followed, b: &Followed) -> bool {
    let equal = |(a, b): (&Member, &Member)| Arc::ptr_eq(&a.0, &b.0) && a.1 == b.1;
    a.len() == b.len() && a.iter().zip(b).all(equal)
}

/// A fetch session with one leader, from the follower's side.
struct Session {
    partitions: HashMap<Place, Following>,
    id: i32,
    epoch: i32,
    /// Those of which there is something to tell the leader.
    moved: HashSet<Place>,
    /// Those that the last answer changed.
    changed: Vec<Place>,
    /// `Node::starts_wanted` as of the last look.
    starts_wanted: u64,
}

struct Following {
    partition: Arc<Partition>,
    /// What the leader was last told.
    told: Option<FetchPosition>,
    /// The start that the leader was last asked for.
    start_told: Offset,
}

impl Session {
    fn new(followed: Followed) -> Session {
        let following = |(partition, _): Member| {
            let place = (partition.topic(), partition.index());
            (place, Following { partition, told: None, start_told: Offset::ZERO })
        };
        let partitions = followed.into_iter().map(following).collect();
        Session { partitions, id: 0, epoch: 0, moved: HashSet::new(), changed: Vec::new(), starts_wanted: 0 }
    }

    /// Begins anew: the leader knows nothing.
    fn restart(&mut self) {
        (self.id, self.epoch) = (0, INITIAL_EPOCH);
        self.moved = self.partitions.keys().copied().collect();
    }

    /// The next request, with what the leader does not know yet.
    fn request(&mut self, partition_max_bytes: i32, starts_wanted: u64) -> FetchRequest {
        self.changed.clear();
        if std::mem::replace(&mut self.starts_wanted, starts_wanted) != starts_wanted {
            let asks = |following: &Following| following.partition.start_wanted() != following.start_told;
            let more = self.partitions.iter().filter(|(_, following)| asks(following));
            self.moved.extend(more.map(|(place, _)| *place));
        }
        let mut topics: HashMap<TopicId, Vec<FetchPartition>> = HashMap::new();
        // What can't be told now, because the log can't be opened say, is tried again in the next round.
        self.moved.retain(|place| {
            let Some(following) = self.partitions.get_mut(place) else { return false };
            let Ok(Some(position)) = following.partition.fetch_position() else { return true };
            following.start_told = following.partition.start_wanted();
            topics.entry(place.0).or_default().push(FetchPartition {
                partition: place.1.0,
                current_leader_epoch: position.leader_epoch.0,
                fetch_offset: position.offset.0,
                last_fetched_epoch: position.last_epoch.0,
                log_start_offset: position.log_start.0,
                partition_max_bytes,
                ottla_durable_offset: position.durable.0,
                ottla_start_wanted: match following.start_told {
                    Offset::ZERO => -1,
                    start => start.0,
                },
                ..Default::default()
            });
            following.told = Some(position);
            // What a session before this one left to be synced the leader has to hear of too: nothing else may move.
            position.durable < position.offset && following.partition.counts_what_is_synced()
        });
        let topics =
            topics.into_iter().map(|(topic_id, partitions)| FetchTopic { topic_id, partitions, ..Default::default() });
        FetchRequest { session_id: self.id, session_epoch: self.epoch, topics: topics.collect(), ..Default::default() }
    }

    /// Takes in an answer; whether all of it could be.
    fn take(&mut self, answer: FetchResponse) -> bool {
        if answer.error_code != ErrorCode::None.code() {
            // The leader has forgotten the session, or never had room for it.
            self.restart();
            return false;
        }
        (self.id, self.epoch) = match (answer.session_id, self.epoch) {
            (0, _) => (0, INITIAL_EPOCH),
            (id, i32::MAX) => (id, 1),
            (id, epoch) => (id, epoch + 1),
        };
        let mut all_taken = true;
        for topic in answer.responses {
            for answer in topic.partitions {
                let place = (topic.topic_id, PartitionIndex(answer.partition_index));
                let Some(following) = self.partitions.get(&place) else { continue };
                match following.take(answer) {
                    Ok(false) => {}
                    Ok(true) => self.changed.push(place),
                    Err(why) => {
                        let (topic, partition) = (following.partition.topic_name(), following.partition.index());
                        tracing::debug!(%topic, %partition, %why, "what a leader answered was not taken in");
                        self.moved.insert(place);
                        all_taken = false;
                    }
                }
            }
        }
        self.moved.extend(&self.changed);
        if self.id == 0 {
            self.moved = self.partitions.keys().copied().collect();
        }
        all_taken
    }

    /// Waits until what was appended is synced, where the leader counts only that.
    async fn synced(&self) {
        for place in &self.changed {
            let Some(following) = self.partitions.get(place) else { continue };
            following.synced().await;
        }
    }
}

impl Following {
    /// Takes in the answer for one partition; whether the copy is another afterwards.
    fn take(&self, answer: PartitionData) -> Result<bool, String> {
        let Some(told) = self.told else { return Ok(false) };
        let code = answer.error_code;
        // A leader whose log begins behind our end says where: there the copy begins anew.
        if code != ErrorCode::None.code() && code != ErrorCode::OffsetOutOfRange.code() {
            return Err(format!("the leader answers with error {code}"));
        }
        let records = match answer.records {
            Some(Records::Bytes(bytes)) => bytes,
            Some(Records::Region(_)) | None => Bytes::new(),
        };
        let diverging = answer.diverging_epoch;
        let diverging = (diverging.end_offset >= 0 || diverging.epoch >= 0)
            .then_some((LeaderEpoch(diverging.epoch), Offset(diverging.end_offset)));
        let fetched = Fetched {
            leader_epoch: told.leader_epoch,
            from: told.offset,
            last_epoch: told.last_epoch,
            records,
            high_watermark: Offset(answer.high_watermark),
            log_start: Offset(answer.log_start_offset),
            diverging,
        };
        self.partition.append_fetched(&fetched).map_err(|error| error.to_string())
    }

    async fn synced(&self) {
        let Some(end) = self.partition.owes_sync() else { return };
        // Left behind by a task that is aborted, the waker wakes nobody once.
        let synced = poll_fn(|context| {
            // False if it is synced, or the partition has gone.
            match self.partition.owes_sync().is_some() && self.partition.wait_for_progress(end, context.waker()) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        });
        synced.await;
    }
}
