//! Produce (key 0): batches go from the frame to the log unchanged, and are answered when they are as safe as asked.
//!
//! Three steps, so that the requests of one turn share their appends: [`prepare`] reads and validates one request,
//! [`ProduceRun::append`] takes the batches of all of them to their partitions (one lock and one write per partition),
//! and [`ParkedProduce::poll`] answers each request once its high watermarks are reached. KIP-98 (idempotence), KIP-467
//! (record errors), KIP-951 (leader hints), KIP-516 (topic ids, version 13).
//!
//! Next: `ottla_node::Partition::append`.

use std::{sync::Arc, task::Waker, time::Duration};

use bytestring::ByteString;
use ottla_log::AppendError;
use ottla_metadata::{
    config::{CompressionType, TimestampType as TopicTimestamps, TopicConfig},
    is_internal_topic,
};
use ottla_node::{Partition, Topic, Unavailable, Wakes};
use ottla_protocol::{
    ErrorCode, Reader, RequestHeader,
    messages::{
        ProduceRequest, ProduceResponse,
        produce_response::{
            BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
        },
    },
};
use ottla_records::{
    Compression, Decompress, ProducePolicy, ProduceRefusal, ProducedBatch, TimestampType, TopicCompression,
    validate_produced,
};
use ottla_replica::{Outcome, SequenceRefusal};
use ottla_types::{LeaderEpoch, Offset, PartitionIndex, Timestamp};
use smallvec::{SmallVec, smallvec};
use tokio::time::Instant;

use super::{Context, decode, leaders::Way};
use crate::{connection::Close, outbox::Outbox};

/// First version whose answer can name the leader and its address (KIP-951).
const LEADER_HINT_VERSION: i16 = 10;
/// First version that may carry zstd (KIP-110).
const ZSTD_VERSION: i16 = 7;
/// First version that names topics by id.
const TOPIC_ID_VERSION: i16 = 13;
/// Who may write to internal topics: the name Kafka's own tools give themselves to mend one.
const ADMIN_CLIENT: &str = "__admin_client";
/// How many times a topic's largest batch a compressed one may become where its records must be looked at: a bound on
/// bombs, generous to real data.
const DECOMPRESSED_RATIO_MAX: usize = 8;

/// A request whose batches are validated but not appended.
pub(crate) struct PendingProduce {
    answer: ParkedProduce,
    entries: Vec<Entry>,
    /// By the broker's clock.
    now: Timestamp,
}

/// One batch on its way to its partition.
struct Entry {
    request: usize,
    slot: Slot,
    partition: Arc<Partition>,
    batch: ProducedBatch,
}

impl Entry {
    fn place(&self) -> Place {
        let header = &self.batch.header;
        let stamp = match header.timestamp_type() {
            TimestampType::LogAppendTime => header.max_timestamp,
            TimestampType::CreateTime => Timestamp::NONE,
        };
        Place { request: self.request, slot: self.slot, stamp }
    }
}

/// Where the answer to a batch goes, and the time that was stamped on it, if any was.
#[derive(Clone, Copy)]
struct Place {
    request: usize,
    slot: Slot,
    stamp: Timestamp,
}

/// The place of a partition in the response.
#[derive(Clone, Copy)]
struct Slot {
    topic: usize,
    partition: usize,
}

/// A request whose batches have been appended and whose answer is owed.
pub(crate) struct ParkedProduce {
    header: RequestHeader,
    acks: i16,
    deadline: Instant,
    response: ProduceResponse,
    waits: Vec<Wait>,
}

struct Wait {
    slot: Slot,
    partition: Arc<Partition>,
    /// The leadership that appended: under another the same offsets may hold something else.
    epoch: LeaderEpoch,
    required: Offset,
}

/// Reads a request and validates every batch in it. What can't be appended has its error in the answer already.
pub(crate) fn prepare(context: &Context<'_>, reader: &mut Reader) -> Result<PendingProduce, Close> {
    let request: ProduceRequest = decode(context, reader)?;
    let refused = refusal_of_request(&request);
    let now = context.broker.node.now();
    let topics = context.broker.node.topics();
    let mut pending = PendingProduce {
        answer: ParkedProduce {
            // Nothing in it may be a slice of the frame, which would be held for as long as the answer is owed.
            header: context.header.without_client(),
            acks: request.acks,
            deadline: context.now + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)),
            response: ProduceResponse {
                responses: Vec::with_capacity(request.topic_data.len()),
                ..ProduceResponse::default()
            },
            waits: Vec::new(),
        },
        entries: Vec::with_capacity(request.topic_data.len()),
        now,
    };
    for (topic_slot, data) in request.topic_data.into_iter().enumerate() {
        let topic = match context.version() {
            TOPIC_ID_VERSION.. => topics.with_id(data.topic_id),
            _ => topics.named(&data.name),
        };
        let refused = refused.or_else(|| refusal_of_topic(context, topic?));
        let mut answer = TopicProduceResponse {
            name: (*data.name).into(),
            topic_id: data.topic_id,
            partition_responses: Vec::with_capacity(data.partition_data.len()),
        };
        for (partition_slot, data) in data.partition_data.into_iter().enumerate() {
            let mut response = PartitionProduceResponse { index: data.index, base_offset: -1, ..Default::default() };
            let partition = topic.and_then(|topic| topic.partition(PartitionIndex(data.index)));
            let batch = match (refused, partition) {
                (Some(code), _) => Err((code, None, Vec::new())),
                (None, None) if topic.is_none() && context.version() >= TOPIC_ID_VERSION => {
                    Err((ErrorCode::UnknownTopicId, None, Vec::new()))
                }
                (None, None) if topic.is_some_and(|topic| topic.has(PartitionIndex(data.index))) => {
                    Err((ErrorCode::NotLeaderOrFollower, None, Vec::new()))
                }
                (None, None) => Err((ErrorCode::UnknownTopicOrPartition, None, Vec::new())),
                (None, Some(partition)) => {
                    let policy = policy(&partition.config(), now, context.version());
                    validate(&data.records.unwrap_or_default(), &policy).map(|batch| (partition, batch))
                }
            };
            match batch {
                Ok((partition, batch)) => pending.entries.push(Entry {
                    request: 0,
                    slot: Slot { topic: topic_slot, partition: partition_slot },
                    partition: Arc::clone(partition),
                    batch,
                }),
                Err((code, message, records)) => {
                    response.error_code = code.code();
                    response.error_message = message.map(ByteString::from);
                    response.record_errors = records;
                }
            }
            answer.partition_responses.push(response);
        }
        pending.answer.response.responses.push(answer);
    }
    Ok(pending)
}

/// What is wrong with the request as a whole.
fn refusal_of_request(request: &ProduceRequest) -> Option<ErrorCode> {
    if request.transactional_id.is_some() {
        // No transactions yet, and an error that clients give up on rather than retry.
        return Some(ErrorCode::TransactionalIdAuthorizationFailed);
    }
    (!(-1..=1).contains(&request.acks)).then_some(ErrorCode::InvalidRequiredAcks)
}

/// What is wrong with writing to this topic at all: internal ones are for those who know their records.
fn refusal_of_topic(context: &Context<'_>, topic: &Topic) -> Option<ErrorCode> {
    let refused = is_internal_topic(&topic.name) && context.header.client_id.as_deref() != Some(ADMIN_CLIENT);
    refused.then_some(ErrorCode::InvalidTopicException)
}

type Refused = (ErrorCode, Option<String>, Vec<BatchIndexAndErrorMessage>);

fn validate(records: &bytes::Bytes, policy: &ProducePolicy) -> Result<ProducedBatch, Refused> {
    let batch = validate_produced(records, policy).map_err(|refusal| {
        let text = Some(refusal.to_string());
        match refusal {
            ProduceRefusal::CorruptMessage => (ErrorCode::CorruptMessage, text, Vec::new()),
            ProduceRefusal::InvalidRecord { records, .. } => (ErrorCode::InvalidRecord, text, record_errors(records)),
            ProduceRefusal::InvalidTimestamp { records, .. } => {
                (ErrorCode::InvalidTimestamp, text, record_errors(records))
            }
            ProduceRefusal::MessageTooLarge { .. } => (ErrorCode::MessageTooLarge, text, Vec::new()),
            ProduceRefusal::UnsupportedCompression { .. } => (ErrorCode::UnsupportedCompressionType, text, Vec::new()),
        }
    })?;
    if batch.header.is_transactional() {
        return Err((ErrorCode::InvalidTxnState, Some("transactions are not served yet".into()), Vec::new()));
    }
    Ok(batch)
}

fn record_errors(records: Vec<ottla_records::RecordError>) -> Vec<BatchIndexAndErrorMessage> {
    let error = |record: ottla_records::RecordError| BatchIndexAndErrorMessage {
        batch_index: record.batch_index,
        batch_index_error_message: Some(ByteString::from_static(record.message)),
    };
    records.into_iter().map(error).collect()
}

fn policy(config: &TopicConfig, now: Timestamp, version: i16) -> ProducePolicy {
    let max_message_bytes = config.max_message_bytes as usize;
    ProducePolicy {
        max_message_bytes,
        timestamp_type: match config.message_timestamp_type {
            TopicTimestamps::CreateTime => TimestampType::CreateTime,
            TopicTimestamps::LogAppendTime => TimestampType::LogAppendTime,
        },
        before_max_ms: config.message_timestamp_before_max_ms,
        after_max_ms: config.message_timestamp_after_max_ms,
        now,
        require_keys: config.cleanup_policy.compact,
        compression: match config.compression_type {
            CompressionType::Producer => TopicCompression::Producer,
            CompressionType::Uncompressed => TopicCompression::Codec(Compression::None, None),
            CompressionType::Gzip => {
                let level = config.compression_gzip_level;
                TopicCompression::Codec(Compression::Gzip, (level != -1).then_some(level))
            }
            CompressionType::Snappy => TopicCompression::Codec(Compression::Snappy, None),
            CompressionType::Lz4 => TopicCompression::Codec(Compression::Lz4, Some(config.compression_lz4_level)),
            CompressionType::Zstd => TopicCompression::Codec(Compression::Zstd, Some(config.compression_zstd_level)),
        },
        zstd_allowed: version >= ZSTD_VERSION,
        decompress: Decompress { max_bytes: max_message_bytes.saturating_mul(DECOMPRESSED_RATIO_MAX) },
    }
}

/// What a partition gets in one turn: mostly one batch, for which no memory is asked for.
type Few<T> = SmallVec<[T; 1]>;

/// Consecutive Produce requests of one connection, to be appended together.
pub(crate) struct ProduceRun {
    requests: Vec<ParkedProduce>,
    entries: Vec<Entry>,
    /// When the last of them was read.
    now: Timestamp,
}

impl Default for ProduceRun {
    fn default() -> ProduceRun {
        ProduceRun { requests: Vec::new(), entries: Vec::new(), now: Timestamp::NONE }
    }
}

impl ProduceRun {
    /// How many requests are in it.
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn push(&mut self, pending: PendingProduce) {
        let request = self.requests.len();
        if self.entries.is_empty() {
            // Most runs are of one request.
            self.requests.reserve_exact(1);
            self.entries = pending.entries;
            self.entries.iter_mut().for_each(|entry| entry.request = request);
        } else {
            self.entries.extend(pending.entries.into_iter().map(|entry| Entry { request, ..entry }));
        }
        self.requests.push(pending.answer);
        self.now = pending.now;
    }

    /// Appends everything, each partition once, and returns the answers owed, in request order.
    pub(crate) fn append(mut self, wakes: &mut Wakes) -> Vec<ParkedProduce> {
        // Stable, so that the batches of a partition stay in request order.
        self.entries.sort_by_key(|entry| Arc::as_ptr(&entry.partition));
        let mut outcomes = Vec::with_capacity(self.entries.len());
        let mut entries = std::mem::take(&mut self.entries).into_iter().peekable();
        while let Some(first) = entries.next() {
            let mut places: Few<Place> = smallvec![first.place()];
            let Entry { partition, batch, .. } = first;
            let mut batches: Few<ProducedBatch> = smallvec![batch];
            while let Some(next) = entries.next_if(|next| Arc::ptr_eq(&next.partition, &partition)) {
                places.push(next.place());
                batches.push(next.batch);
            }
            let awaited = places.iter().any(|&Place { request, .. }| self.requests[request].acks == -1);
            if awaited && !partition.has_enough_in_sync() {
                self.refuse_unsafe(&mut places, &mut batches);
            }
            // Before the append: if it moves on meanwhile, the wait is in vain and the client asks the next leader.
            let epoch = partition.leader_epoch();
            outcomes.clear();
            match partition.append(&batches, awaited, self.now, &mut outcomes, wakes) {
                Ok(()) => {
                    for (&place, outcome) in places.iter().zip(outcomes.drain(..)) {
                        self.requests[place.request].take_outcome(place, &partition, epoch, outcome);
                    }
                }
                Err(unavailable) => {
                    for &Place { request, slot, .. } in &places {
                        self.requests[request].fail(slot, &unavailable);
                    }
                }
            }
        }
        self.requests
    }

    /// Takes out what asks for more copies than there are now (rule I6).
    fn refuse_unsafe(&mut self, places: &mut Few<Place>, batches: &mut Few<ProducedBatch>) {
        let kept: Vec<bool> = places.iter().map(|place| self.requests[place.request].acks != -1).collect();
        for (place, _) in places.iter().zip(&kept).filter(|(_, kept)| !**kept) {
            let answer = self.requests[place.request].slot(place.slot);
            answer.error_code = ErrorCode::NotEnoughReplicas.code();
            answer.error_message = Some("fewer replicas are in sync than min.insync.replicas asks for".into());
        }
        let mut keep = kept.iter();
        places.retain(|_| keep.next() == Some(&true));
        let mut keep = kept.iter();
        batches.retain(|_| keep.next() == Some(&true));
    }
}

impl ParkedProduce {
    fn slot(&mut self, slot: Slot) -> &mut PartitionProduceResponse {
        &mut self.response.responses[slot.topic].partition_responses[slot.partition]
    }

    fn take_outcome(&mut self, place: Place, partition: &Arc<Partition>, epoch: LeaderEpoch, outcome: Outcome) {
        let Place { slot, stamp: log_append_time, .. } = place;
        let log_start = partition.log_start();
        let answer = self.slot(slot);
        let required = match outcome {
            Outcome::Appended { base_offset, required } => {
                answer.base_offset = base_offset.0;
                answer.log_append_time_ms = log_append_time.0;
                required
            }
            Outcome::Duplicate { base_offset, append_time, required } => {
                answer.base_offset = base_offset.0;
                answer.log_append_time_ms = if log_append_time == Timestamp::NONE { -1 } else { append_time.0 };
                required
            }
            Outcome::Refused(refusal) => {
                answer.error_code = sequence_error(&refusal).code();
                answer.error_message = Some(refusal.to_string().into());
                return;
            }
            Outcome::Failed(error) => {
                answer.error_code = append_error(&error).code();
                answer.error_message = Some(error.to_string().into());
                return;
            }
        };
        answer.log_start_offset = log_start.0;
        // Where nobody else holds a copy it is there already. Who still leads after that look led when it was reached.
        let reached = partition.high_watermark() >= required && partition.leads_in(epoch);
        if self.acks == -1 && !reached {
            self.waits.push(Wait { slot, partition: Arc::clone(partition), epoch, required });
        }
    }

    fn fail(&mut self, slot: Slot, unavailable: &Unavailable) {
        let answer = self.slot(slot);
        answer.base_offset = -1;
        answer.error_code = super::unavailable_code(unavailable).code();
        answer.error_message = Some(unavailable.to_string().into());
    }

    /// Answers if nothing is left to wait for, and says whether it did; otherwise `waker` is woken when it is worth
    /// looking again.
    pub(crate) fn poll(
        &mut self,
        way: &Way<'_>,
        now: Instant,
        waker: &Waker,
        outbox: &mut Outbox,
    ) -> Result<bool, Close> {
        loop {
            self.drop_settled(now);
            // One after the other, as all have to be reached: woken by each it would look in vain many times.
            let Some(next) = self.waits.first() else {
                self.answer(way, outbox)?;
                return Ok(true);
            };
            // False if it was reached, or went away, since the look above.
            if next.partition.wait_for(next.required, waker) {
                return Ok(false);
            }
        }
    }

    fn drop_settled(&mut self, now: Instant) {
        for wait in std::mem::take(&mut self.waits) {
            if !wait.partition.leads_in(wait.epoch) {
                self.fail(wait.slot, &wait.partition.unavailable().unwrap_or(Unavailable::NotLeader));
            } else if wait.partition.high_watermark() >= wait.required {
                continue;
            } else if let Some(unavailable) = wait.partition.unavailable() {
                self.fail(wait.slot, &unavailable);
            } else if now >= self.deadline {
                // The batch is in the log and may still be acknowledged: the client must not take this as final.
                let code = match wait.partition.has_enough_in_sync() {
                    true => ErrorCode::RequestTimedOut,
                    false => ErrorCode::NotEnoughReplicasAfterAppend,
                };
                let answer = self.slot(wait.slot);
                answer.base_offset = -1;
                answer.error_code = code.code();
            } else {
                self.waits.push(wait);
            }
        }
    }

    fn answer(&mut self, way: &Way<'_>, outbox: &mut Outbox) -> Result<(), Close> {
        if self.acks == 0 {
            // The client expects no answer, so a closed connection is the only way to tell it.
            let mut answers = self.response.responses.iter().flat_map(|topic| &topic.partition_responses);
            return if answers.any(|answer| answer.error_code != 0) { Err(Close::SilentFailure) } else { Ok(()) };
        }
        if self.header.api_version >= LEADER_HINT_VERSION {
            self.name_leaders(way);
        }
        outbox.push_response(super::encode(&self.header, &self.response)?, Vec::new());
        Ok(())
    }

    /// Tells a client that came to the wrong broker where the leaders are.
    fn name_leaders(&mut self, way: &Way<'_>) {
        let misled = ErrorCode::NotLeaderOrFollower.code();
        for topic in &mut self.response.responses {
            for answer in topic.partition_responses.iter_mut().filter(|answer| answer.error_code == misled) {
                let known = way.broker.node.topics();
                let known =
                    if topic.topic_id.is_zero() { known.named(&topic.name) } else { known.with_id(topic.topic_id) }
                        .map(|topic| topic.id);
                let leader = known.and_then(|id| way.leader(id, PartitionIndex(answer.index)));
                let Some((endpoint, epoch)) = leader else { continue };
                answer.current_leader = LeaderIdAndEpoch { leader_id: endpoint.id.0, leader_epoch: epoch.0 };
                let endpoints = &mut self.response.node_endpoints;
                if !endpoints.iter().any(|known| known.node_id == endpoint.id.0) {
                    endpoints.push(NodeEndpoint {
                        node_id: endpoint.id.0,
                        host: endpoint.host.into(),
                        port: i32::from(endpoint.port),
                        rack: endpoint.rack,
                    });
                }
            }
        }
    }

    /// When the client stops waiting for its acknowledgement.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Takes the waker back: the connection ends.
    pub(crate) fn forget(&self, waker: &Waker) {
        self.waits.iter().for_each(|wait| wait.partition.forget(waker));
    }
}

fn sequence_error(refusal: &SequenceRefusal) -> ErrorCode {
    match refusal {
        SequenceRefusal::OutOfOrder { .. } => ErrorCode::OutOfOrderSequenceNumber,
        SequenceRefusal::StaleEpoch { .. } => ErrorCode::InvalidProducerEpoch,
    }
}

/// Never `UNKNOWN_SERVER_ERROR`, upon which older Java clients write the batch again (rule P5).
fn append_error(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::TooLarge { .. } => ErrorCode::RecordListTooLarge,
        AppendError::NoSpace { .. }
        | AppendError::NoFiles
        | AppendError::Impossible(_)
        | AppendError::Foreign(_)
        | AppendError::Failed(_) => ErrorCode::KafkaStorageError,
    }
}
