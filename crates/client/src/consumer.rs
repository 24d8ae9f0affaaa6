//! [`Consumer`]: reads given partitions from given places and follows them.
//!
//! There are no groups here. One Fetch per leader is under way at any time; the next one is sent before the records of
//! the last are decoded. What a broker refuses is asked for again, of the leader it names (KIP-951) or the cluster
//! does; the other partitions go on meanwhile. A consumer that names its rack may be sent to a follower (KIP-392,
//! `nearest.rs`). Fetches are sessionless: a client of a few partitions gains nothing from sessions (KIP-227).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use ottla_protocol::{
    Records,
    messages::{
        FetchRequest, FetchResponse,
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::PartitionData,
    },
};
use ottla_records::{BatchError, BatchHeader, Decompress, Record, crc_matches, records, split};
use ottla_types::{BrokerId, Offset, ProducerId, Timestamp, TopicId};
use tokio::task::JoinSet;

use crate::{BrokerInfo, Client, Error, Position, Target, TopicPartition, metadata::Hint, nearest::Nearest};

/// The oldest version that names topics by id alone (KIP-516).
const TOPIC_IDS_FROM: i16 = 13;
/// The pause before a partition that could not be read is asked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// A wait that something else is expected to end.
const LONG: Duration = Duration::from_secs(60);
/// What the records of one batch may have when decompressed, in bytes.
const DECOMPRESSED_MAX: usize = 1 << 30;

/// Where to begin reading a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record there is.
    Earliest,
    /// Behind the last record there is now.
    Latest,
    /// At this offset.
    Offset(Offset),
    /// This many records before the end, or at the first one.
    Last(u64),
    /// At the first record of this time or later; at the end if there is none.
    Time(Timestamp),
}

/// How to consume.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// How long a broker may wait for `min_bytes`.
    pub max_wait: Duration,
    /// A broker answers early when it has this many bytes.
    pub min_bytes: i32,
    /// About the most bytes in one answer.
    pub max_bytes: i32,
    /// About the most bytes of one partition in one answer.
    pub partition_max_bytes: i32,
    /// Leaves out what belongs to transactions that are open or were aborted.
    pub read_committed: bool,
    /// Whether each batch is held against its CRC.
    pub check_crcs: bool,
    /// Where the consumer stands: the cluster may send it to a follower in the same rack.
    pub rack: Option<String>,
}

impl Default for ConsumerConfig {
    fn default() -> ConsumerConfig {
        ConsumerConfig {
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            max_bytes: 50 << 20,
            partition_max_bytes: 1 << 20,
            read_committed: false,
            check_crcs: true,
            rack: None,
        }
    }
}

/// What one answer brought of one partition. It may have no records, when only `end` moved or all were skipped.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The partition.
    pub at: TopicPartition,
    /// Its records, in order.
    pub records: Vec<Record>,
    /// Where reading goes on.
    pub next: Offset,
    /// The first offset that cannot be read yet: the high watermark, or the last stable offset with `read_committed`.
    pub end: Offset,
    /// The first offset there is.
    pub log_start: Offset,
}

/// Reads partitions.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    /// In the order in which they are asked for; those that brought records go to the end.
    partitions: Vec<(TopicPartition, Offset)>,
    fetches: JoinSet<Answered>,
    /// The brokers with a fetch under way, and the partitions in each.
    under_way: HashMap<BrokerId, Vec<TopicPartition>>,
    ready: Vec<Fetched>,
    failing: HashMap<TopicPartition, Failing>,
    nearest: Nearest,
    /// Topics whose leaders have to be learnt anew.
    stale: BTreeSet<Arc<str>>,
    /// The question about them, at most one at a time.
    asking: JoinSet<()>,
}

/// A partition that cannot be read.
#[derive(Clone, Copy, Debug)]
struct Failing {
    since: Instant,
    /// When it is tried again.
    again_at: Instant,
}

struct Answered {
    broker: BrokerId,
    asked: Vec<(TopicPartition, TopicId, Offset)>,
    answer: Result<(FetchResponse, i16), Error>,
}

impl Consumer {
    /// A consumer of these partitions, with connections of its own.
    ///
    /// # Errors
    /// A partition does not exist, or its start cannot be found out.
    pub async fn new(
        client: &Client,
        config: ConsumerConfig,
        assignment: &[(TopicPartition, Start)],
    ) -> Result<Consumer, Error> {
        let client = client.apart();
        let partitions = starts(&client, assignment).await?;
        let (fetches, under_way, ready) = Default::default();
        let (failing, nearest, stale, asking) = Default::default();
        Ok(Consumer { client, config, partitions, fetches, under_way, ready, failing, nearest, stale, asking })
    }

    /// Where reading goes on in each partition.
    pub fn positions(&self) -> &[(TopicPartition, Offset)] {
        &self.partitions
    }

    /// Reads no more of a partition.
    pub fn remove(&mut self, at: &TopicPartition) {
        self.partitions.retain(|(partition, _)| partition != at);
        self.ready.retain(|fetched| fetched.at != *at);
    }

    /// Waits for the next answer with something in it. A broker with nothing new answers after `max_wait`, so this
    /// returns that often with what is known of the ends. May be cancelled, and then nothing is lost.
    ///
    /// # Errors
    /// A partition is gone, or its position is outside its log; a batch is damaged; or the broker refuses. Errors that
    /// may pass are tried again until a partition could not be read for as long as the call timeout.
    pub async fn poll(&mut self) -> Result<Vec<Fetched>, Error> {
        // Nothing but this wait may be cancelled: what is taken out of an answer must end up in `ready`.
        loop {
            self.fetch_all()?;
            if !self.ready.is_empty() {
                return Ok(std::mem::take(&mut self.ready));
            }
            if self.partitions.is_empty() && self.fetches.is_empty() {
                return Ok(Vec::new());
            }
            let now = Instant::now();
            let again_at = self.failing.values().map(|failing| failing.again_at).filter(|at| *at > now).min();
            tokio::select! {
                Some(joined) = self.fetches.join_next() => {
                    if let Ok(answered) = joined {
                        self.take(answered)?;
                    }
                }
                Some(_) = self.asking.join_next() => {}
                () = tokio::time::sleep_until(again_at.unwrap_or(now + LONG).into()) => {}
            }
        }
    }

    /// Takes in an answer. After an error the partitions it does not concern are taken in all the same.
    fn take(&mut self, answered: Answered) -> Result<(), Error> {
        self.under_way.remove(&answered.broker);
        let (answer, version) = match answered.answer {
            Ok(answer) => answer,
            Err(error) if error.is_retriable() => {
                tracing::debug!(%error, "a fetch failed");
                answered.asked.iter().for_each(|(at, ..)| _ = self.nearest.forget(at));
                return answered.asked.iter().try_for_each(|(at, ..)| self.failed(at, &error, None));
            }
            Err(error) => return Err(error),
        };
        crate::error::check(|| "the fetch".to_owned(), answer.error_code, None)?;
        let mut taken = Ok(());
        let mut arrived = Vec::new();
        for topic in &answer.responses {
            for data in &topic.partitions {
                let is_it = |(at, id, _): &&(TopicPartition, TopicId, Offset)| {
                    let named =
                        if version >= TOPIC_IDS_FROM { *id == topic.topic_id } else { at.topic[..] == topic.topic[..] };
                    named && at.partition.0 == data.partition_index
                };
                let Some((at, _, from)) = answered.asked.iter().find(is_it) else { continue };
                match crate::error::check(|| format!("partition {at} at offset {from}"), data.error_code, None) {
                    Ok(()) => {
                        self.failing.remove(at);
                        if data.preferred_read_replica >= 0 {
                            self.nearest.sent_to(at, BrokerId(data.preferred_read_replica), Instant::now());
                        }
                        match self.arrived(at, *from, data) {
                            Ok(batches) => arrived.push((at.clone(), *from, data, batches)),
                            Err(error) => taken = Err(error),
                        }
                    }
                    // What a follower does not have its leader may.
                    Err(error) if self.nearest.forget(at) || error.is_retriable() => {
                        tracing::debug!(%error, "a partition could not be read");
                        if let Err(error) = self.failed(at, &error, hint(&answer, data)) {
                            taken = Err(error);
                        }
                    }
                    Err(error) => taken = Err(error),
                }
            }
        }
        // The broker gathers the next records while these are decoded.
        let fetched = self.fetch_all();
        for (at, from, data, batches) in arrived {
            match self.decode(at, from, data, batches) {
                Ok(fetched) => self.ready.push(fetched),
                Err(error) => taken = Err(error),
            }
        }
        taken.and(fetched)
    }

    /// Splits what arrived into batches, and moves the position behind them.
    fn arrived(
        &mut self,
        at: &TopicPartition,
        from: Offset,
        data: &PartitionData,
    ) -> Result<Vec<(BatchHeader, Bytes)>, Error> {
        let bytes = match &data.records {
            Some(Records::Bytes(bytes)) => bytes.clone(),
            Some(Records::Region(_)) | None => Bytes::new(),
        };
        let damaged = |error: BatchError| Error::Batch { what: format!("partition {at}"), error };
        let mut batches = Vec::new();
        for batch in split(&bytes) {
            match batch {
                Ok((_, batch)) if self.config.check_crcs && !crc_matches(&batch) => {
                    let reason = format!("partition {at} at offset {from}: a batch does not have the CRC it states");
                    return Err(Error::Malformed { address: "the broker".to_owned(), reason });
                }
                Ok(batch) => batches.push(batch),
                // The byte limit cut the last one.
                Err(BatchError::Truncated { .. }) if !batches.is_empty() => break,
                Err(error) => return Err(damaged(error)),
            }
        }
        if let Some((header, _)) = batches.last()
            && let Some(place) = self.partitions.iter().position(|(partition, _)| partition == at)
        {
            let (at, _) = self.partitions.remove(place);
            self.partitions.push((at, header.next_offset().max(from)));
        }
        Ok(batches)
    }

    fn decode(
        &self,
        at: TopicPartition,
        from: Offset,
        data: &PartitionData,
        batches: Vec<(BatchHeader, Bytes)>,
    ) -> Result<Fetched, Error> {
        let damaged = |error: BatchError| Error::Batch { what: format!("partition {at}"), error };
        let mut aborted = Aborted::new(data, self.config.read_committed);
        let mut found = Vec::new();
        let mut next = from;
        for (header, batch) in batches {
            next = next.max(header.next_offset());
            if aborted.skips(&header, &batch).map_err(damaged)? {
                continue;
            }
            for record in records(&header, &batch, Decompress { max_bytes: DECOMPRESSED_MAX }).map_err(damaged)? {
                let record = record.map_err(damaged)?;
                // A batch comes whole; the records before the place asked for are not wanted.
                if record.offset >= from {
                    found.push(record);
                }
            }
        }
        let end = if self.config.read_committed && data.last_stable_offset >= 0 {
            data.last_stable_offset
        } else {
            data.high_watermark
        };
        Ok(Fetched { at, records: found, next, end: Offset(end), log_start: Offset(data.log_start_offset.max(0)) })
    }

    /// Sends a fetch to each broker to read of that has none under way, and asks the cluster for leaders that are not
    /// known.
    fn fetch_all(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let mut by_broker: BTreeMap<BrokerId, Vec<(TopicPartition, TopicId, i32, Offset)>> = BTreeMap::new();
        let mut unknown = Vec::new();
        let busy: HashSet<TopicPartition> = self.under_way.values().flatten().cloned().collect();
        let pauses = |at: &TopicPartition| self.failing.get(at).is_some_and(|failing| failing.again_at > now);
        for (at, next) in self.partitions.iter().filter(|(at, _)| !busy.contains(at) && !pauses(at)) {
            match self.client.leader(at) {
                Ok((leader, topic, epoch)) => {
                    let broker = self.nearest.of(at, now).unwrap_or(leader);
                    if !self.under_way.contains_key(&broker) {
                        by_broker.entry(broker).or_default().push((at.clone(), topic.id, epoch.0, *next));
                    }
                }
                Err(error) => unknown.push((at.clone(), error)),
            }
        }
        for (at, error) in &unknown {
            self.failed(at, error, None)?;
        }
        if self.asking.is_empty() && !self.stale.is_empty() {
            let (client, topics) = (self.client.clone(), std::mem::take(&mut self.stale));
            self.asking.spawn(async move { client.relearn(&topics).await });
        }
        for (broker, asked) in by_broker {
            self.under_way.insert(broker, asked.iter().map(|(at, ..)| at.clone()).collect());
            let (client, request, newest) = (self.client.clone(), self.request(&asked), newest(&asked));
            let asked = asked.into_iter().map(|(at, id, _, next)| (at, id, next)).collect();
            self.fetches.spawn(async move {
                let answer = client.request_at_most(Target::Broker(broker), &request, newest).await;
                Answered { broker, asked, answer }
            });
        }
        Ok(())
    }

    /// Remembers that a partition cannot be read now: it is tried again at once where the broker has told who leads it,
    /// and otherwise after a pause. An error once that has lasted too long.
    fn failed(&mut self, at: &TopicPartition, error: &Error, hint: Option<Hint>) -> Result<(), Error> {
        let now = Instant::now();
        let failing = self.failing.entry(at.clone()).or_insert(Failing { since: now, again_at: now });
        if hint.is_some_and(|hint| self.client.moved(at, hint)) {
            failing.again_at = now;
        } else {
            failing.again_at = now + RETRY_PAUSE;
            self.stale.insert(Arc::clone(&at.topic));
        }
        let after = now - failing.since;
        if after < self.client.timeouts().call {
            return Ok(());
        }
        Err(Error::Deadline { after, last: Arc::new(error.clone()) })
    }

    fn request(&self, asked: &[(TopicPartition, TopicId, i32, Offset)]) -> FetchRequest {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for (at, id, epoch, next) in asked {
            let row = FetchPartition {
                partition: at.partition.0,
                current_leader_epoch: *epoch,
                fetch_offset: next.0,
                partition_max_bytes: self.config.partition_max_bytes,
                ..Default::default()
            };
            match topics.iter_mut().find(|topic| topic.topic[..] == at.topic[..]) {
                Some(topic) => topic.partitions.push(row),
                None => topics.push(FetchTopic { topic: (*at.topic).into(), topic_id: *id, partitions: vec![row] }),
            }
        }
        FetchRequest {
            max_wait_ms: i32::try_from(self.config.max_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: self.config.min_bytes,
            max_bytes: self.config.max_bytes,
            isolation_level: i8::from(self.config.read_committed),
            topics,
            rack_id: self.config.rack.as_deref().unwrap_or_default().into(),
            ..Default::default()
        }
    }
}

/// Where an answer says that the leadership of a partition went.
fn hint(answer: &FetchResponse, data: &PartitionData) -> Option<Hint> {
    let leader = &data.current_leader;
    let endpoint = answer.node_endpoints.iter().find(|row| row.node_id == leader.leader_id);
    let endpoint = endpoint.and_then(|row| BrokerInfo::from_wire(row.node_id, &row.host, row.port, row.rack.as_ref()));
    Hint::from_wire(leader.leader_id, leader.leader_epoch, endpoint)
}

fn newest(asked: &[(TopicPartition, TopicId, i32, Offset)]) -> i16 {
    if asked.iter().any(|(_, id, ..)| id.is_zero()) { TOPIC_IDS_FROM - 1 } else { i16::MAX }
}

/// Turns starts into offsets.
async fn starts(
    client: &Client,
    assignment: &[(TopicPartition, Start)],
) -> Result<Vec<(TopicPartition, Offset)>, Error> {
    let mut wanted = Vec::new();
    for (at, start) in assignment {
        client.partitions_of(&at.topic, &[at.partition]).await?;
        match start {
            Start::Offset(_) => {}
            Start::Earliest => wanted.push((at.clone(), Position::Earliest)),
            Start::Latest => wanted.push((at.clone(), Position::Latest)),
            Start::Last(_) => wanted.extend([(at.clone(), Position::Earliest), (at.clone(), Position::Latest)]),
            Start::Time(time) => wanted.extend([(at.clone(), Position::Time(*time)), (at.clone(), Position::Latest)]),
        }
    }
    let mut found = client.list_offsets(&wanted).await?.into_iter().map(|found| found.offset);
    let mut next = || found.next().flatten();
    let offset = |start: &Start| match *start {
        Start::Offset(offset) => offset,
        Start::Earliest | Start::Latest => next().unwrap_or(Offset::ZERO),
        Start::Last(count) => {
            let (first, end) = (next().unwrap_or(Offset::ZERO), next().unwrap_or(Offset::ZERO));
            let back = i64::try_from(count).unwrap_or(i64::MAX);
            first.max(Offset(end.0.saturating_sub(back)))
        }
        Start::Time(_) => {
            let (found, end) = (next(), next());
            found.or(end).unwrap_or(Offset::ZERO)
        }
    };
    let offsets: Vec<Offset> = assignment.iter().map(|(_, start)| start).map(offset).collect();
    Ok(assignment.iter().map(|(at, _)| at.clone()).zip(offsets).collect())
}

/// Which batches of an answer belong to aborted transactions (KIP-98): those between the first offset of one and the
/// marker that ends it.
struct Aborted {
    read_committed: bool,
    /// Transactions that begin further on, the nearest last.
    ahead: Vec<(Offset, ProducerId)>,
    open: HashSet<ProducerId>,
}

impl Aborted {
    fn new(data: &PartitionData, read_committed: bool) -> Aborted {
        let rows = data.aborted_transactions.iter().flatten();
        let mut ahead: Vec<_> = rows.map(|row| (Offset(row.first_offset), ProducerId(row.producer_id))).collect();
        ahead.sort_by(|a, b| b.cmp(a));
        Aborted { read_committed, ahead, open: HashSet::new() }
    }

    fn skips(&mut self, header: &BatchHeader, batch: &Bytes) -> Result<bool, BatchError> {
        while let Some(&(first, producer)) = self.ahead.last()
            && first <= header.last_offset()
        {
            self.open.insert(producer);
            self.ahead.pop();
        }
        if header.is_control() {
            if is_abort(header, batch)? {
                self.open.remove(&header.producer_id);
            }
            return Ok(true);
        }
        Ok(self.read_committed && header.is_transactional() && self.open.contains(&header.producer_id))
    }
}

/// Whether a control batch says that its producer's transaction is aborted: a key of version and type, type 0.
fn is_abort(header: &BatchHeader, batch: &Bytes) -> Result<bool, BatchError> {
    let marker = records(header, batch, Decompress { max_bytes: DECOMPRESSED_MAX })?.next().transpose()?;
    let key = marker.and_then(|record| record.key);
    Ok(key.is_some_and(|mut key| {
        key.len() >= 4 && {
            key.advance(2);
            key.get_i16() == 0
        }
    }))
}
