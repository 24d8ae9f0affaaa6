//! Fetch (key 1): file ranges up to the high watermark, now or when there are enough of them.
//!
//! [`prepare`] reads the request and its session; [`ParkedFetch::poll`] collects what there is and answers once
//! `min_bytes` are there, something is wrong, or `max_wait_ms` has passed. Records are never copied: the answer carries
//! ranges of segment files (`outbox.rs` sends them). KIP-74 (byte limits), KIP-227 (sessions), KIP-320 (epochs),
//! KIP-392 (followers serve consumers too, and leaders send them there: `nearest.rs`), KIP-516 (topic ids, version 13).
//!
//! Followers fetch the same way, up to the end of the log, and by asking say how far they are (KIP-903 for their
//! epochs).
//!
//! Next: `fetch_sessions.rs`, `ottla_node::Partition::read`.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, task::Waker, time::Duration};

use ottla_log::FileRegion;
use ottla_node::{Follower, FollowerCopy, ReadRefusal, ReadRequest, Topics, Unavailable};
use ottla_protocol::{
    ErrorCode, Reader, Records, Region, RequestHeader,
    messages::{
        FetchRequest, FetchResponse,
        fetch_request::FetchTopic,
        fetch_response::{EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData},
    },
};
use ottla_replica::EpochRefusal;
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Context, decode, held,
    leaders::{Endpoint, Way},
    nearest::Rack,
    unavailable_code,
};
use crate::{
    connection::Close,
    fetch_sessions::{FINAL_EPOCH, INITIAL_EPOCH, Session, Told, TopicKey, Wanted},
    outbox::Outbox,
    server::{Broker, Listener},
};

/// First version that names topics by id.
const TOPIC_ID_VERSION: i16 = 13;
/// First version whose client may be sent to a follower, and so the first that a follower serves (KIP-392).
const RACK_VERSION: i16 = 11;
/// First version whose answer can name the leader and its address (KIP-951).
const LEADER_HINT_VERSION: i16 = 16;
const READ_COMMITTED: i8 = 1;
/// Partitions in a request from which it is worth looking for some named twice.
const DUPLICATES_SOUGHT_FROM: usize = 1000;

/// A fetch that is answered by its first or a later [`ParkedFetch::poll`].
pub(crate) struct ParkedFetch {
    header: RequestHeader,
    /// Where the client reached this broker, for hints to the leader (KIP-951).
    listener: Arc<Listener>,
    local: SocketAddr,
    deadline: Instant,
    min_bytes: u64,
    max_bytes: u64,
    read_committed: bool,
    /// The broker that follows, if it is one.
    follower: Option<(BrokerId, BrokerEpoch)>,
    /// Where the client stands, if there are brokers too.
    rack: Option<Rack>,
    source: Source,
    waiting: bool,
}

/// Which partitions are meant.
enum Source {
    /// All are in the request, and all are answered.
    Request(Vec<Wanted>),
    /// The request opened a session: all are answered, and the session's id with them.
    Opened(Arc<Mutex<Session>>),
    /// The session goes on: only news is answered.
    Resumed(Arc<Mutex<Session>>),
    /// The session can't be used (rule F1).
    Refused(ErrorCode),
}

/// One look at the partitions.
struct Look<'a> {
    news_only: bool,
    max_bytes: u64,
    read_committed: bool,
    hints: bool,
    follower: Option<Follower>,
    from_followers: bool,
    /// Brokers nearer to the client than this one.
    near: Vec<BrokerId>,
    way: Way<'a>,
    collected: Collected,
}

/// What a look found.
#[derive(Default)]
struct Collected {
    topics: Vec<FetchableTopicResponse>,
    regions: Vec<FileRegion>,
    bytes: u64,
    /// Something that the client should hear of at once.
    urgent: bool,
    /// Brokers that the client is sent to.
    endpoints: Vec<Endpoint>,
}

/// Reads a request and finds its session.
pub(crate) fn prepare(context: &Context<'_>, reader: &mut Reader) -> Result<ParkedFetch, Close> {
    let request: FetchRequest = decode(context, reader)?;
    let by_id = context.version() >= TOPIC_ID_VERSION;
    let now = context.now;
    let sessions = &context.broker.sessions;
    let follower = follower(&request);
    if follower.is_some() && !context.listener.serves_brokers {
        return Err(Close::BadRequest("a follower's Fetch on a listener that is for clients".to_owned()));
    }
    let rack = match follower {
        None if context.version() >= RACK_VERSION => Rack::of(context.broker, &request.rack_id),
        _ => None,
    };
    let wanted = wanted(request.topics, by_id, follower.is_some(), &context.broker.node.topics());
    let source = match (request.session_id, request.session_epoch) {
        (id, INITIAL_EPOCH) => {
            sessions.close(id);
            match sessions.open(wanted.clone(), by_id, now) {
                Some(session) => Source::Opened(session),
                None => Source::Request(wanted),
            }
        }
        (id, FINAL_EPOCH) => {
            sessions.close(id);
            Source::Request(wanted)
        }
        (id, epoch) => match sessions.resume(id, epoch, by_id, now) {
            Err(code) => Source::Refused(code),
            Ok(session) => {
                let mut state = session.lock();
                let unwanted = request.forgotten_topics_data.into_iter().flat_map(|topic| {
                    let key = topic_key(by_id, topic.topic_id, &topic.topic);
                    topic.partitions.into_iter().map(move |index| (key.clone(), PartitionIndex(index)))
                });
                state.forget(&unwanted.collect());
                let fits = state.update(wanted);
                drop(state);
                if fits {
                    Source::Resumed(session)
                } else {
                    sessions.close(id);
                    Source::Refused(ErrorCode::FetchSessionIdNotFound)
                }
            }
        },
    };
    let bytes = |wire: i32| u64::try_from(wire).unwrap_or(0);
    Ok(ParkedFetch {
        // Not the client id, a slice of the frame, which would be held for as long as the answer is owed.
        header: context.header.without_client(),
        listener: Arc::clone(context.listener),
        local: context.local,
        deadline: now + Duration::from_millis(bytes(request.max_wait_ms)),
        min_bytes: bytes(request.min_bytes),
        max_bytes: bytes(request.max_bytes).min(context.broker.options.fetch_bytes_max),
        read_committed: request.isolation_level == READ_COMMITTED,
        follower,
        rack,
        source,
        waiting: false,
    })
}

/// The broker that asks as a follower. Before version 15 none could say which of its registrations it fetches under.
fn follower(request: &FetchRequest) -> Option<(BrokerId, BrokerEpoch)> {
    let state = &request.replica_state;
    let id = if state.replica_id >= 0 { state.replica_id } else { request.replica_id };
    (id >= 0).then_some((BrokerId(id), BrokerEpoch(state.replica_epoch)))
}

fn topic_key(by_id: bool, id: TopicId, name: &str) -> TopicKey {
    if by_id { TopicKey::Id(id) } else { TopicKey::Name(name.into()) }
}

fn wanted(topics: Vec<FetchTopic>, by_id: bool, follows: bool, known: &Topics) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for topic in topics {
        let held = if by_id { known.with_id(topic.topic_id) } else { known.named(&topic.topic) };
        let key = match held {
            Some(held) if !by_id => TopicKey::Name(Arc::clone(&held.name)),
            _ => topic_key(by_id, topic.topic_id, &topic.topic),
        };
        wanted.extend(topic.partitions.into_iter().map(|partition| Wanted {
            topic: key.clone(),
            index: PartitionIndex(partition.partition),
            from: Offset(partition.fetch_offset),
            current_epoch: LeaderEpoch(partition.current_leader_epoch),
            last_fetched_epoch: LeaderEpoch(partition.last_fetched_epoch),
            max_bytes: u64::try_from(partition.partition_max_bytes).unwrap_or(0),
            copy: follows.then(|| FollowerCopy {
                // A follower that does not say is one that counts what it has.
                durable: Offset(match partition.ottla_durable_offset {
                    -1 => partition.fetch_offset,
                    durable => durable,
                }),
                log_start: Offset(partition.log_start_offset),
                start_wanted: Offset(partition.ottla_start_wanted).max(Offset::ZERO),
            }),
            partition: held.and_then(|topic| topic.partition(PartitionIndex(partition.partition))).cloned(),
            told: Told::NOTHING,
            found: Told::NOTHING,
            end: Offset(-1),
            in_sync: true,
            answered: false,
            served: false,
        }));
    }
    if wanted.len() >= DUPLICATES_SOUGHT_FROM {
        // What a request names twice it gets once: a small frame must not hold memory by repeating itself.
        let mut seen = HashSet::with_capacity(wanted.len());
        wanted.retain(|wanted| seen.insert((wanted.topic.clone(), wanted.index)));
        wanted.shrink_to_fit();
    }
    wanted
}

impl ParkedFetch {
    /// Answers if there is enough to say, and says whether it did; otherwise `waker` is woken when it is worth looking
    /// again.
    pub(crate) fn poll(
        &mut self,
        broker: &Arc<Broker>,
        now: Instant,
        waker: &Waker,
        outbox: &mut Outbox,
    ) -> Result<bool, Close> {
        loop {
            let collected = self.collect(broker);
            let enough = collected.urgent || collected.bytes >= self.min_bytes || now >= self.deadline;
            if enough {
                if !collected.urgent && collected.bytes == 0 && self.overlooked() {
                    continue;
                }
                self.forget(waker);
                self.answer(collected, outbox)?;
                return Ok(true);
            }
            if self.wait(waker) {
                return Ok(false);
            }
        }
    }

    /// Looks at each partition in turn while there is room in the answer. In a session that goes on, only those with
    /// news are answered (rule F2).
    fn collect(&mut self, broker: &Arc<Broker>) -> Collected {
        let follower = self.follower.map(|(id, epoch)| {
            let image = broker.node.image();
            let eligible = image.broker(id).is_some_and(|known| known.epoch == epoch && known.is_live());
            let copy = FollowerCopy { durable: Offset::ZERO, log_start: Offset::ZERO, start_wanted: Offset::ZERO };
            Follower { broker: id, epoch, copy, eligible }
        });
        let listener = Arc::clone(&self.listener);
        let way = Way { broker, listener: &listener, local: self.local };
        let mut look = Look {
            news_only: matches!(self.source, Source::Resumed(_)),
            max_bytes: self.max_bytes,
            read_committed: self.read_committed,
            hints: self.header.api_version >= LEADER_HINT_VERSION,
            follower,
            from_followers: self.header.api_version >= RACK_VERSION,
            near: self.rack.as_ref().map(|rack| rack.brokers(&way)).unwrap_or_default(),
            way,
            collected: Collected::default(),
        };
        match &mut self.source {
            Source::Refused(_) => look.collected.urgent = true,
            Source::Request(wanted) => {
                look.collected.urgent = wanted.is_empty();
                wanted.iter_mut().for_each(|wanted| look.at(wanted));
            }
            Source::Opened(session) | Source::Resumed(session) => {
                let mut session = session.lock();
                look.collected.urgent = session.is_empty();
                session.look(|wanted| look.at(wanted));
            }
        }
        look.collected
    }

    fn answer(&self, collected: Collected, outbox: &mut Outbox) -> Result<(), Close> {
        let mut response = FetchResponse { responses: collected.topics, ..Default::default() };
        match &self.source {
            Source::Refused(code) => response.error_code = code.code(),
            Source::Request(_) => {}
            Source::Opened(session) | Source::Resumed(session) => {
                let mut session = session.lock();
                response.session_id = session.id;
                session.settle();
            }
        }
        response.node_endpoints.extend(collected.endpoints.into_iter().map(|endpoint| NodeEndpoint {
            node_id: endpoint.id.0,
            host: endpoint.host.into(),
            port: i32::from(endpoint.port),
            rack: endpoint.rack,
        }));
        outbox.push_response(super::encode(&self.header, &response)?, collected.regions);
        Ok(())
    }

    /// Whether there is something to tell after all.
    fn overlooked(&self) -> bool {
        match &self.source {
            Source::Opened(session) | Source::Resumed(session) => session.lock().overlooked(),
            Source::Request(_) | Source::Refused(_) => false,
        }
    }

    /// Has `waker` woken when a partition moves; `false` if one did since it was looked at.
    fn wait(&mut self, waker: &Waker) -> bool {
        self.waiting = true;
        match &self.source {
            // All of them: one that has moved must not keep the others from waking us.
            Source::Request(wanted) => wanted.iter().fold(true, |unmoved, wanted| wanted.wait(waker) & unmoved),
            Source::Opened(session) | Source::Resumed(session) => session.lock().wait(waker),
            Source::Refused(_) => true,
        }
    }

    /// When the client wants an answer whatever there is.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Has the next poll answer with what there is: the broker stops.
    pub(crate) fn hurry(&mut self) {
        self.deadline = Instant::now();
    }

    /// Takes the waker back.
    pub(crate) fn forget(&self, waker: &Waker) {
        if !self.waiting {
            return;
        }
        match &self.source {
            Source::Request(wanted) => wanted.iter().for_each(|wanted| wanted.forget(waker)),
            Source::Opened(session) | Source::Resumed(session) => session.lock().stop_waiting(waker),
            Source::Refused(_) => {}
        }
    }
}

impl Look<'_> {
    /// Takes in what there is to tell of one partition.
    fn at(&mut self, wanted: &mut Wanted) {
        let answer = self.read(wanted);
        // The client has to ask for something else, or somewhere else.
        let elsewhere = answer.diverging_epoch != EpochEndOffset::default() || answer.preferred_read_replica >= 0;
        wanted.found = Told {
            high_watermark: Offset(answer.high_watermark),
            log_start: Offset(answer.log_start_offset),
            error: answer.error_code != 0,
        };
        wanted.served = answer.records.as_ref().is_some_and(|records| !records.is_empty());
        self.collected.urgent |= wanted.found.error || elsewhere;
        wanted.answered =
            !self.news_only || wanted.served || elsewhere || wanted.found.error || wanted.found != wanted.told;
        if wanted.answered {
            self.collected.push(&wanted.topic, answer);
        }
    }

    /// The answer for one partition; its records' file range goes to the list.
    fn read(&mut self, wanted: &mut Wanted) -> PartitionData {
        let room = self.max_bytes.saturating_sub(self.collected.bytes);
        let mut answer = PartitionData {
            partition_index: wanted.index.0,
            high_watermark: -1,
            aborted_transactions: self.read_committed.then(Vec::new),
            records: Some(Records::default()),
            ..Default::default()
        };
        if wanted.partition.is_none() {
            let topics = self.way.broker.node.topics();
            let topic = match &wanted.topic {
                TopicKey::Id(id) => topics.with_id(*id),
                TopicKey::Name(name) => topics.named(name),
            };
            let by_id = matches!(wanted.topic, TopicKey::Id(_));
            match held(topic, wanted.index) {
                Ok(partition) => wanted.partition = Some(Arc::clone(partition)),
                Err(_) if by_id && topic.is_none() => answer.error_code = ErrorCode::UnknownTopicId.code(),
                Err(code) => {
                    answer.error_code = code.code();
                    self.name_leader(topic.map(|topic| topic.id), wanted.index, &mut answer);
                }
            }
        }
        let Some(partition) = &wanted.partition else { return answer };
        let request = ReadRequest {
            from: wanted.from,
            current_epoch: wanted.current_epoch,
            last_fetched_epoch: wanted.last_fetched_epoch,
            max_bytes: wanted.max_bytes.min(room),
            at_least_one: self.collected.bytes == 0,
        };
        let read = match (&self.follower, wanted.copy) {
            (Some(follower), Some(copy)) => partition.fetch(&Follower { copy, ..*follower }, &request),
            (None, _) | (_, None) if self.from_followers || partition.is_leading() => partition.read(&request),
            // Such a client can't have been sent here, and takes what a follower lacks for gone.
            _ => Err(Unavailable::NotLeader.into()),
        };
        match read {
            Ok(fetched) => {
                (wanted.end, wanted.in_sync) = (fetched.end, fetched.in_sync);
                answer.high_watermark = fetched.high_watermark.0;
                // Without transactions nothing is ever undecided.
                answer.last_stable_offset = fetched.high_watermark.0;
                answer.log_start_offset = fetched.log_start.0;
                let nearest = if self.near.is_empty() { None } else { partition.nearest_copy(&self.near, wanted.from) };
                if let Some(nearest) = nearest {
                    answer.preferred_read_replica = nearest.0;
                } else if let Some(region) = fetched.records {
                    // One partition's share of an answer never passes i32::MAX bytes: the limits come from the wire.
                    let len = u32::try_from(region.len).unwrap_or(0);
                    answer.records = Some(Records::Region(Region { token: self.collected.regions.len() as u64, len }));
                    self.collected.bytes += region.len;
                    self.collected.regions.push(region);
                }
            }
            Err(ReadRefusal::Diverging { epoch, end }) => {
                answer.diverging_epoch = EpochEndOffset { epoch: epoch.0, end_offset: end.0 };
            }
            Err(refusal) => {
                let code = read_error(&refusal);
                answer.error_code = code.code();
                if code == ErrorCode::OffsetOutOfRange && self.follower.is_some() {
                    // It has to begin where this log does.
                    answer.log_start_offset = partition.log_start().0;
                }
                if matches!(code, ErrorCode::FencedLeaderEpoch | ErrorCode::NotLeaderOrFollower) {
                    let (topic, index) = (partition.topic(), partition.index());
                    self.name_leader(Some(topic), index, &mut answer);
                }
                if matches!(refusal, ReadRefusal::Unavailable(Unavailable::Deleted)) {
                    // Re-created under the same name it is another partition: look it up again next time.
                    wanted.partition = None;
                }
            }
        }
        answer
    }

    /// Tells a client that came to the wrong broker, or with an old epoch, where the leader is.
    fn name_leader(&mut self, topic: Option<TopicId>, index: PartitionIndex, answer: &mut PartitionData) {
        let leader = topic.filter(|_| self.hints).and_then(|topic| self.way.leader(topic, index));
        let Some((endpoint, epoch)) = leader else { return };
        answer.current_leader = LeaderIdAndEpoch { leader_id: endpoint.id.0, leader_epoch: epoch.0 };
        if !self.collected.endpoints.iter().any(|known| known.id == endpoint.id) {
            self.collected.endpoints.push(endpoint);
        }
    }
}

impl Collected {
    /// Adds an answer, to those of its topic if that was the last.
    fn push(&mut self, topic: &TopicKey, answer: PartitionData) {
        let is_last = |last: &FetchableTopicResponse| match topic {
            TopicKey::Id(id) => last.topic_id == *id,
            TopicKey::Name(name) => *last.topic == **name,
        };
        match self.topics.last_mut() {
            Some(last) if is_last(last) => last.partitions.push(answer),
            _ => {
                let mut new = FetchableTopicResponse { partitions: vec![answer], ..Default::default() };
                match topic {
                    TopicKey::Id(id) => new.topic_id = *id,
                    TopicKey::Name(name) => new.topic = name.as_ref().into(),
                }
                self.topics.push(new);
            }
        }
    }
}

/// Kafka's code for a refused read.
pub(super) fn read_error(refusal: &ReadRefusal) -> ErrorCode {
    match refusal {
        ReadRefusal::Unavailable(unavailable) => unavailable_code(unavailable),
        ReadRefusal::Epoch(EpochRefusal::Fenced) => ErrorCode::FencedLeaderEpoch,
        ReadRefusal::Epoch(EpochRefusal::Unknown) => ErrorCode::UnknownLeaderEpoch,
        // A diverging history is its own answer where a request can carry one; elsewhere the offset is not ours.
        ReadRefusal::OutOfRange | ReadRefusal::Diverging { .. } => ErrorCode::OffsetOutOfRange,
        ReadRefusal::NotYetKnown => ErrorCode::OffsetNotAvailable,
    }
}
