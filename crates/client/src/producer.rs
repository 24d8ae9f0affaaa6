//! [`Producer`]: collects records into batches, sends them to the leaders, and keeps their order.
//!
//! Records wait in a queue per partition (`batches.rs`); one task sends what is ready, one request per leader at a time
//! for each partition of it. Idempotent producers (KIP-98) give each batch a sequence number when it is first sent and
//! never change it, so a retry is recognised. Not here: what a batch is (`ottla_records`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ottla_protocol::{
    ErrorCode,
    messages::{
        InitProducerIdRequest, ProduceRequest, ProduceResponse,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::PartitionProduceResponse,
    },
};
use ottla_records::Compression;
use ottla_types::{BrokerId, Offset, PartitionIndex, ProducerEpoch, ProducerId, Timestamp};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    task::{JoinHandle, JoinSet},
};

use crate::{
    BrokerInfo, Client, Error, Target, TopicInfo, TopicPartition,
    batches::{Batch, Identity, Outcome, Queue, Verdict},
    client::Underway,
    metadata::Hint,
    partitioner,
};

/// Batches of one partition, and requests to one broker, that may be under way at once. Brokers remember five.
const IN_FLIGHT_MAX: usize = 5;
/// The pause before a batch is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The oldest version that names topics by id alone (KIP-516).
const TOPIC_IDS_FROM: i16 = 13;

/// When the cluster has taken a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// When it is sent; nobody says what became of it.
    None,
    /// When the leader has it.
    Leader,
    /// When every replica in sync has it.
    All,
}

/// How to produce.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// When a record counts as delivered.
    pub acks: Acks,
    /// How batches are compressed.
    pub compression: Compression,
    /// The codec's level; `None` is its default.
    pub compression_level: Option<i32>,
    /// Whether retries may never duplicate a record; needs [`Acks::All`].
    pub idempotent: bool,
    /// A batch is sent when it has this many bytes, before compression.
    pub batch_bytes: usize,
    /// A batch is sent when it is this old, however small.
    pub linger: Duration,
    /// The most bytes of batches in one request.
    pub request_bytes_max: usize,
    /// The most bytes of records that wait for an answer; [`Producer::send`] waits beyond it.
    pub buffer_bytes: usize,
    /// How long a record may take from [`Producer::send`] on, with all retries.
    pub delivery_timeout: Duration,
}

impl Default for ProducerConfig {
    fn default() -> ProducerConfig {
        ProducerConfig {
            acks: Acks::All,
            compression: Compression::None,
            compression_level: None,
            idempotent: true,
            batch_bytes: 64 << 10,
            linger: Duration::from_millis(5),
            request_bytes_max: 1 << 20,
            buffer_bytes: 32 << 20,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

/// A record to be produced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Its key, which chooses the partition unless that is given.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers: key and value each.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Its timestamp; `None` is now.
    pub timestamp: Option<Timestamp>,
    /// Its partition; `None` goes by the key as in Kafka's Java client, and without a key to one partition after
    /// another, a batch at a time.
    pub partition: Option<PartitionIndex>,
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Its partition.
    pub partition: PartitionIndex,
    /// Its offset; `None` with [`Acks::None`].
    pub offset: Option<Offset>,
    /// The time the broker gave it, where the topic has `LogAppendTime`.
    pub append_time: Option<Timestamp>,
}

/// A record on its way.
#[derive(Debug)]
#[must_use = "without waiting for it, nobody learns whether the record arrived"]
pub struct Delivery {
    partition: PartitionIndex,
    /// The record's place in its batch.
    index: i64,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Delivery {
    /// The partition it was put in.
    pub fn partition(&self) -> PartitionIndex {
        self.partition
    }

    /// Waits until the record is delivered or given up.
    ///
    /// # Errors
    /// The broker refused its batch, the delivery timeout passed, or the producer was dropped.
    pub async fn done(mut self) -> Result<Delivered, Error> {
        let outcome = self.outcome.wait_for(Option::is_some).await.map_err(|_| Error::Closed)?.clone();
        let appended = outcome.ok_or(Error::Closed)??;
        Ok(Delivered {
            partition: self.partition,
            offset: appended.base_offset.and_then(|base| base.checked_add(self.index)),
            append_time: appended.append_time,
        })
    }
}

/// Produces records. What is not acknowledged when it is dropped is lost: [`Producer::flush`] first.
#[derive(Debug)]
pub struct Producer {
    shared: Arc<Shared>,
    sender: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    config: ProducerConfig,
    state: Mutex<State>,
    /// Wakes the sender.
    work: Notify,
    /// Bytes that may still be taken in.
    room: Arc<Semaphore>,
    /// Batches not finished yet.
    unfinished: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    queues: BTreeMap<TopicPartition, Queue>,
    topics: HashMap<Arc<str>, Spread>,
    /// Requests under way to each broker.
    requests: HashMap<BrokerId, usize>,
    identity: Option<Identity>,
    flushing: usize,
}

/// How records without a key are spread over a topic.
#[derive(Debug)]
struct Spread {
    topic: Arc<TopicInfo>,
    /// The partition that is being filled: a place in the topic's list.
    current: usize,
    /// Bytes of keyless records it was given; after a batch's worth it is the next one's turn.
    filled: usize,
}

impl Producer {
    /// A producer with connections of its own.
    ///
    /// # Errors
    /// The config contradicts itself, or an idempotent producer gets no id.
    pub async fn new(client: &Client, config: ProducerConfig) -> Result<Producer, Error> {
        if config.idempotent && config.acks != Acks::All {
            return Err(Error::Invalid("an idempotent producer needs acks=all".to_owned()));
        }
        let client = client.apart();
        let identity = if config.idempotent { Some(new_identity(&client).await?) } else { None };
        let shared = Arc::new(Shared {
            client,
            room: Arc::new(Semaphore::new(config.buffer_bytes.min(Semaphore::MAX_PERMITS))),
            config,
            state: Mutex::new(State { identity, ..State::default() }),
            work: Notify::new(),
            unfinished: watch::Sender::new(0),
        });
        let sender = tokio::spawn(Arc::clone(&shared).send_ready());
        Ok(Producer { shared, sender })
    }

    /// Takes a record in; waits for room in the buffer and for the topic to be known, not for the broker. Records of
    /// one partition are stored in the order they were taken in.
    ///
    /// # Errors
    /// The topic or partition does not exist, or the record can be in no batch.
    pub async fn send(&self, topic: &str, record: NewRecord) -> Result<Delivery, Error> {
        let shared = &*self.shared;
        let bytes = record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len) + 64;
        let permits = u32::try_from(bytes.min(shared.config.buffer_bytes)).unwrap_or(u32::MAX);
        let room = Arc::clone(&shared.room).acquire_many_owned(permits).await.map_err(|_| Error::Closed)?;
        if !shared.state.lock().topics.contains_key(topic) {
            let info = shared.client.topic(topic, true).await?;
            shared.state.lock().topics.entry(topic.into()).or_insert(Spread::new(info));
        }
        let mut guard = shared.state.lock();
        let state = &mut *guard;
        let spread = state.topics.get_mut(topic).ok_or(Error::Closed)?;
        let partition = spread.choose(&record)?;
        if record.partition.is_none() && record.key.is_none() {
            spread.filled += bytes;
            if spread.filled >= shared.config.batch_bytes {
                spread.advance(shared.client.known_topic(topic));
            }
        }
        let at = TopicPartition { topic: Arc::clone(&spread.topic.name), partition };
        let queue = match state.queues.get_mut(&at) {
            Some(queue) => queue,
            None => state.queues.entry(at.clone()).or_default(),
        };
        let taken =
            queue.push(&shared.config, record, room).map_err(|error| Error::Batch { what: at.to_string(), error })?;
        if taken.begun {
            shared.unfinished.send_modify(|count| *count += 1);
        }
        drop(guard);
        if taken.filled || taken.begun {
            shared.work.notify_one();
        }
        Ok(Delivery { partition, index: taken.index, outcome: taken.outcome })
    }

    /// Sends what is buffered without waiting for batches to fill, and waits until all of it is delivered or given up.
    /// Whether it was delivered, each [`Delivery`] knows.
    pub async fn flush(&self) {
        self.shared.state.lock().flushing += 1;
        self.shared.work.notify_one();
        // The sender of this channel lives in `shared`.
        let _ = self.shared.unfinished.subscribe().wait_for(|&count| count == 0).await;
        self.shared.state.lock().flushing -= 1;
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.sender.abort();
    }
}

impl Spread {
    /// Where a producer begins does not matter, only that it does not stay there.
    fn new(topic: Arc<TopicInfo>) -> Spread {
        let mut spread = Spread { current: topic.partitions.len().saturating_sub(1), topic, filled: 0 };
        spread.advance(None);
        spread
    }

    /// On to the next partition that has a leader, as far as that is known: what another is given only waits.
    fn advance(&mut self, news: Option<Arc<TopicInfo>>) {
        self.topic = news.unwrap_or_else(|| Arc::clone(&self.topic));
        self.filled = 0;
        let (current, count) = (self.current, self.topic.partitions.len().max(1));
        let has_leader =
            |place: &usize| self.topic.partitions.get(*place).is_some_and(|partition| partition.leader.is_some());
        let next = (1..=count).map(|step| (current + step) % count).find(has_leader);
        self.current = next.unwrap_or((current + 1) % count);
    }

    fn is_at(&self, partition: PartitionIndex) -> bool {
        self.topic.partitions.get(self.current).is_some_and(|current| current.index == partition)
    }

    fn choose(&self, record: &NewRecord) -> Result<PartitionIndex, Error> {
        let topic = &self.topic;
        let at = |place: usize| topic.partitions.get(place).map(|partition| partition.index);
        let none = || Error::Invalid(format!("topic {} has no partitions", topic.name));
        match (record.partition, &record.key) {
            (Some(index), _) if topic.partition(index).is_some() => Ok(index),
            (Some(index), _) => {
                let last = topic.partitions.len().saturating_sub(1);
                let name = &topic.name;
                Err(Error::Invalid(format!("topic {name} has no partition {index}, its partitions are 0 to {last}")))
            }
            (None, Some(key)) => at(partitioner::place(key, topic.partitions.len().max(1))).ok_or_else(none),
            (None, None) => at(self.current).ok_or_else(none),
        }
    }
}

async fn new_identity(client: &Client) -> Result<Identity, Error> {
    let request =
        InitProducerIdRequest { transactional_id: None, transaction_timeout_ms: i32::MAX, ..Default::default() };
    client
        .retry(|| async {
            let answer = client.request_once(Target::Any, &request).await?;
            crate::error::check(|| "a producer id".to_owned(), answer.error_code, None)?;
            Ok(Identity { id: ProducerId(answer.producer_id), epoch: ProducerEpoch(answer.producer_epoch) })
        })
        .await
}

/// Batches of one request, and to whom it goes.
struct Sending {
    leader: BrokerId,
    batches: Vec<(TopicPartition, Arc<TopicInfo>, Batch)>,
}

/// What has to be learnt before some batches can go on.
#[derive(Debug, Default)]
struct Upkeep {
    /// The topics with partitions whose leader is not known, or is another than it was.
    topics: BTreeSet<Arc<str>>,
    /// The sequence of a partition has a gap: its batches start over under a new id.
    identity: bool,
}

/// A request that has been answered, or has failed.
struct Answered {
    leader: BrokerId,
    batches: Vec<(TopicPartition, Batch)>,
    answer: Result<Option<ProduceResponse>, Error>,
}

impl Shared {
    /// The sender's task: ends when it is aborted.
    async fn send_ready(self: Arc<Self>) {
        let (answers, mut answered) = mpsc::unbounded_channel();
        let mut lanes: HashMap<BrokerId, mpsc::UnboundedSender<Sending>> = HashMap::new();
        let mut tasks = JoinSet::new();
        let mut upkeep = Upkeep::default();
        let mut upkeeping = JoinSet::new();
        loop {
            let (sendings, wake_at) = self.collect(&mut upkeep);
            for sending in sendings {
                let lane = lanes.entry(sending.leader).or_insert_with(|| {
                    let (lane, queue) = mpsc::unbounded_channel();
                    tasks.spawn(Arc::clone(&self).send_in_order(queue, answers.clone()));
                    lane
                });
                // The task ends only with this one. `IN_FLIGHT_MAX` bounds what is in the channel.
                let _ = lane.send(sending);
            }
            // Beside the loop: a broker that hangs must not hold up the batches for others.
            if upkeeping.is_empty() && (upkeep.identity || !upkeep.topics.is_empty()) {
                upkeeping.spawn(Arc::clone(&self).keep_up(std::mem::take(&mut upkeep)));
            }
            tokio::select! {
                () = self.work.notified() => {}
                Some(answered) = answered.recv() => self.settle(answered, &mut upkeep),
                // Whoever still needs another id asks again.
                Some(_) = upkeeping.join_next() => upkeep.identity = false,
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
        }
    }

    /// Sends the requests for one broker in their order, while another broker's may wait for a connection.
    async fn send_in_order(
        self: Arc<Self>,
        mut queue: mpsc::UnboundedReceiver<Sending>,
        answers: mpsc::UnboundedSender<Answered>,
    ) {
        let mut waiting = JoinSet::new();
        while let Some(sending) = queue.recv().await {
            let underway = self.start(&sending).await;
            let (shared, answers) = (Arc::clone(&self), answers.clone());
            waiting.spawn(async move {
                let _ = answers.send(shared.wait(sending, underway).await);
            });
            while waiting.try_join_next().is_some() {}
        }
    }

    async fn keep_up(self: Arc<Self>, upkeep: Upkeep) {
        if !upkeep.topics.is_empty() {
            self.client.relearn(&upkeep.topics).await;
        }
        if upkeep.identity {
            match new_identity(&self.client).await {
                Ok(identity) => self.state.lock().identity = Some(identity),
                Err(error) => tracing::warn!(%error, "no new producer id"),
            }
        }
    }

    /// What can be sent now, and when to look again.
    fn collect(&self, upkeep: &mut Upkeep) -> (Vec<Sending>, Instant) {
        let now = Instant::now();
        let mut wake_at = now + Duration::from_secs(60);
        let mut by_leader: BTreeMap<BrokerId, (usize, Sending)> = BTreeMap::new();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for (at, queue) in &mut state.queues {
            while let Some(late) = queue.expire(&self.config, now) {
                self.finish(late, Err(self.late(at)));
            }
            match queue.ready_at(&self.config, now, state.flushing > 0, IN_FLIGHT_MAX) {
                Some(when) if when <= now => {}
                Some(when) => {
                    wake_at = wake_at.min(when);
                    continue;
                }
                None => continue,
            }
            let Ok((leader, topic, _)) = self.client.leader(at) else {
                queue.pause_until(now + RETRY_PAUSE);
                wake_at = wake_at.min(now + RETRY_PAUSE);
                upkeep.topics.insert(Arc::clone(&at.topic));
                // Records without a key need not wait for this one.
                if let Some(spread) = state.topics.get_mut(&at.topic)
                    && spread.is_at(at.partition)
                {
                    spread.advance(self.client.known_topic(&at.topic));
                }
                continue;
            };
            if state.requests.get(&leader).is_some_and(|&count| count >= IN_FLIGHT_MAX) {
                continue;
            }
            let (bytes, sending) =
                by_leader.entry(leader).or_insert_with(|| (0, Sending { leader, batches: Vec::new() }));
            match queue.take(state.identity) {
                Some(Ok(batch)) if *bytes > 0 && *bytes + batch.len() > self.config.request_bytes_max => {
                    queue.put_back(batch);
                    wake_at = now;
                }
                Some(Ok(batch)) => {
                    *bytes += batch.len();
                    sending.batches.push((at.clone(), topic, batch));
                    // There may be more behind it.
                    wake_at = now;
                }
                Some(Err((batch, error))) => self.finish(batch, Err(Error::Batch { what: at.to_string(), error })),
                None => {
                    queue.pause_until(now + RETRY_PAUSE);
                    wake_at = wake_at.min(now + RETRY_PAUSE);
                    upkeep.identity = true;
                }
            }
        }
        let sendings: Vec<_> = by_leader.into_values().map(|(_, sending)| sending).collect();
        let sendings: Vec<_> = sendings.into_iter().filter(|sending| !sending.batches.is_empty()).collect();
        for sending in &sendings {
            *state.requests.entry(sending.leader).or_default() += 1;
        }
        (sendings, wake_at)
    }

    async fn start(&self, sending: &Sending) -> Result<Underway, Error> {
        let mut topics: Vec<TopicProduceData> = Vec::new();
        for (at, info, batch) in &sending.batches {
            let row = PartitionProduceData { index: at.partition.0, records: Some(batch.bytes()) };
            match topics.last_mut().filter(|topic| topic.name[..] == at.topic[..]) {
                Some(topic) => topic.partition_data.push(row),
                None => topics.push(TopicProduceData {
                    name: (*at.topic).into(),
                    topic_id: info.id,
                    partition_data: vec![row],
                }),
            }
        }
        let with_ids = sending.batches.iter().all(|(_, info, _)| !info.id.is_zero());
        let newest = if with_ids { i16::MAX } else { TOPIC_IDS_FROM - 1 };
        let acks = match self.config.acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        };
        let timeout_ms = i32::try_from(self.client.timeouts().request.as_millis()).unwrap_or(i32::MAX);
        let request = ProduceRequest { acks, timeout_ms, topic_data: topics, ..Default::default() };
        self.client.start(Target::Broker(sending.leader), &request, newest, acks != 0).await
    }

    async fn wait(&self, sending: Sending, underway: Result<Underway, Error>) -> Answered {
        let Sending { leader, batches } = sending;
        let answer = match underway {
            Err(error) => Err(error),
            Ok(underway) if self.config.acks == Acks::None => {
                self.client.finish_unanswered(underway).await.map(|()| None)
            }
            Ok(underway) => {
                let version = underway.started.version;
                self.client.finish(underway).await.map(|mut answer| {
                    if version >= TOPIC_IDS_FROM {
                        name_topics(&mut answer, &batches);
                    }
                    Some(answer)
                })
            }
        };
        Answered { leader, batches: batches.into_iter().map(|(at, _, batch)| (at, batch)).collect(), answer }
    }

    /// Gives every batch of a request its outcome, or puts it back to be sent again.
    fn settle(&self, answered: Answered, upkeep: &mut Upkeep) {
        let now = Instant::now();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if let Some(count) = state.requests.get_mut(&answered.leader) {
            *count = count.saturating_sub(1);
        }
        for (at, batch) in answered.batches {
            let Some(queue) = state.queues.get_mut(&at) else { continue };
            let result = outcome(&at, answered.answer.as_ref());
            let mut pause = RETRY_PAUSE;
            if let Err(error) = &result {
                tracing::debug!(partition = %at, %error, "a batch was not taken");
                if hint(&at, answered.answer.as_ref()).is_some_and(|hint| self.client.moved(&at, hint)) {
                    pause = Duration::ZERO;
                } else {
                    upkeep.topics.insert(Arc::clone(&at.topic));
                }
            }
            match queue.settle(&self.config, batch, result, now, pause) {
                Verdict::Finished(batch, outcome) => self.finish(batch, outcome),
                Verdict::Again => {}
            }
        }
    }

    /// The error of a batch that could not be sent in time.
    fn late(&self, at: &TopicPartition) -> Error {
        let last = Error::broker(format!("partition {at}"), ErrorCode::RequestTimedOut.code(), None);
        Error::Deadline { after: self.config.delivery_timeout, last: Arc::new(last) }
    }

    fn finish(&self, batch: Batch, outcome: Outcome) {
        batch.finish(outcome);
        self.unfinished.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Newer answers name topics by id; puts the names in.
fn name_topics(answer: &mut ProduceResponse, batches: &[(TopicPartition, Arc<TopicInfo>, Batch)]) {
    for topic in &mut answer.responses {
        if let Some((at, ..)) = batches.iter().find(|(_, info, _)| info.id == topic.topic_id) {
            topic.name = (*at.topic).into();
        }
    }
}

/// The row of an answer that is about a partition.
fn row<'a>(at: &TopicPartition, answer: &'a ProduceResponse) -> Option<&'a PartitionProduceResponse> {
    let topics = answer.responses.iter().filter(|topic| topic.name[..] == at.topic[..]);
    topics.flat_map(|topic| &topic.partition_responses).find(|row| row.index == at.partition.0)
}

/// Where an answer says that the leadership of a partition went.
fn hint(at: &TopicPartition, answer: Result<&Option<ProduceResponse>, &Error>) -> Option<Hint> {
    let answer = answer.ok()?.as_ref()?;
    let leader = &row(at, answer)?.current_leader;
    let endpoint = answer.node_endpoints.iter().find(|row| row.node_id == leader.leader_id);
    let endpoint = endpoint.and_then(|row| BrokerInfo::from_wire(row.node_id, &row.host, row.port, row.rack.as_ref()));
    Hint::from_wire(leader.leader_id, leader.leader_epoch, endpoint)
}

/// What an answer says of one partition.
fn outcome(at: &TopicPartition, answer: Result<&Option<ProduceResponse>, &Error>) -> Outcome {
    let Some(answer) = answer.map_err(Error::clone)? else { return Ok(crate::batches::Appended::default()) };
    let Some(row) = row(at, answer) else {
        return Err(Error::Malformed { address: "the broker".to_owned(), reason: format!("it lacks partition {at}") });
    };
    let reason = row.record_errors.iter().find_map(|record| record.batch_index_error_message.as_deref());
    let message = row.error_message.as_deref().or(reason);
    crate::error::check(|| format!("partition {at}"), row.error_code, message)?;
    Ok(crate::batches::Appended {
        base_offset: (row.base_offset >= 0).then_some(Offset(row.base_offset)),
        append_time: (row.log_append_time_ms >= 0).then_some(Timestamp(row.log_append_time_ms)),
    })
}
