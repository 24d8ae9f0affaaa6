//! A blocking Kafka client that never retries: one connection, one request at a time, every error as it was answered.
//!
//! The proofs need to know exactly what was sent, answered and refused, which the retries of a good client hide. The
//! codec is the `kafka-protocol` crate, so nothing of Ottla's own code judges Ottla here. For a single broker only:
//! it asks nobody for the leader. Real client libraries are run by `kill` and by `compat`.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest,
    DescribeLogDirsRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest,
    RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record, RecordBatchDecoder,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

pub(crate) mod groups;

/// How long the broker may take inside a request that says so, in milliseconds.
const BROKER_TIMEOUT_MS: i32 = 30_000;
/// How much one fetch may bring, in bytes.
const FETCH_BYTES: i32 = 4 << 20;
/// The largest response that is believed, in bytes.
const MAX_RESPONSE: usize = 64 << 20;

/// Why a call has no result.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The broker answered with an error.
    Refused(ResponseError),
    /// No answer, or none that can be understood: whatever was asked may or may not have happened.
    NoAnswer(anyhow::Error),
}

impl CallError {
    /// Whether the answer is an error that clients retry by themselves.
    pub(crate) fn is_retriable_refusal(&self) -> bool {
        matches!(self, CallError::Refused(error) if error.is_retriable())
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Refused(error) => write!(out, "{error:?}"),
            CallError::NoAnswer(error) => write!(out, "no answer: {error:#}"),
        }
    }
}

impl std::error::Error for CallError {}

impl From<anyhow::Error> for CallError {
    fn from(error: anyhow::Error) -> CallError {
        CallError::NoAnswer(error)
    }
}

pub(crate) type CallResult<T> = Result<T, CallError>;

/// Who an idempotent producer is, and where its numbering of one partition stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    /// Sequence number of the first record of the next batch.
    pub(crate) sequence: i32,
}

/// One connection to the one broker.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    correlation: i32,
}

impl Connection {
    /// Connects; every read and write afterwards may take `timeout`.
    pub(crate) fn open(address: SocketAddr, timeout: Duration) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, correlation: 0 })
    }

    fn call<R: Request>(&mut self, request: &R, version: i16) -> anyhow::Result<R::Response> {
        self.correlation = self.correlation.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("xtask")));
        let mut frame = BytesMut::from(&[0; 4][..]);
        header.encode(&mut frame, R::header_version(version))?;
        request.encode(&mut frame, version)?;
        let len = u32::try_from(frame.len() - 4).context("the request is too large")?;
        frame[..4].copy_from_slice(&len.to_be_bytes());
        self.stream.write_all(&frame)?;

        let mut len = [0; 4];
        self.stream.read_exact(&mut len)?;
        let len = u32::from_be_bytes(len) as usize;
        if len > MAX_RESPONSE {
            bail!("the broker announces a response of {len} bytes");
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body)?;
        let mut body = Bytes::from(body);
        let header = ResponseHeader::decode(&mut body, R::Response::header_version(version))?;
        if header.correlation_id != self.correlation {
            bail!("response {} to request {}", header.correlation_id, self.correlation);
        }
        let response = R::Response::decode(&mut body, version)?;
        if body.has_remaining() {
            bail!("{} bytes after the response", body.remaining());
        }
        Ok(response)
    }

    /// Whether the broker answers at all.
    pub(crate) fn api_versions(&mut self) -> CallResult<()> {
        refused(self.call(&ApiVersionsRequest::default(), 0)?.error_code)
    }

    /// Creates a topic with one replica.
    pub(crate) fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> CallResult<()> {
        let configs = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value))))
            .collect();
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(name)))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(BROKER_TIMEOUT_MS);
        refused(one(self.call(&request, 7)?.topics)?.error_code)
    }

    /// Raises the number of partitions to `count`.
    pub(crate) fn add_partitions(&mut self, topic: &str, count: i32) -> CallResult<()> {
        let topic =
            CreatePartitionsTopic::default().with_name(TopicName(text(topic))).with_count(count).with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(BROKER_TIMEOUT_MS);
        refused(one(self.call(&request, 2)?.results)?.error_code)
    }

    /// Names and partition counts of all topics that are not internal.
    pub(crate) fn topics(&mut self) -> CallResult<Vec<(String, usize)>> {
        let response = self.call(&MetadataRequest::default().with_topics(None), 9)?;
        let topics = response.topics.into_iter().filter(|topic| !topic.is_internal);
        Ok(topics.filter_map(|topic| Some((topic.name?.as_str().to_owned(), topic.partitions.len()))).collect())
    }

    /// A producer id for one idempotent producer.
    pub(crate) fn producer(&mut self) -> CallResult<Producer> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(BROKER_TIMEOUT_MS)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        let response = self.call(&request, 4)?;
        refused(response.error_code)?;
        Ok(Producer { id: response.producer_id.0, epoch: response.producer_epoch, sequence: 0 })
    }

    /// Produces one batch with `acks=all`; returns the offset of its first record.
    pub(crate) fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        values: &[Bytes],
        producer: Option<Producer>,
    ) -> CallResult<i64> {
        let partition_data =
            PartitionProduceData::default().with_index(partition).with_records(Some(encode_batch(values, producer)?));
        let topic_data =
            TopicProduceData::default().with_name(TopicName(text(topic))).with_partition_data(vec![partition_data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(BROKER_TIMEOUT_MS)
            .with_topic_data(vec![topic_data]);
        let answer = one(one(self.call(&request, 9)?.responses)?.partition_responses)?;
        refused(answer.error_code)?;
        Ok(answer.base_offset)
    }

    /// The first offset and the one after the last.
    pub(crate) fn offsets(&mut self, topic: &str, partition: i32) -> CallResult<(i64, i64)> {
        Ok((self.offset_at(topic, partition, -2)?, self.offset_at(topic, partition, -1)?))
    }

    fn offset_at(&mut self, topic: &str, partition: i32, timestamp: i64) -> CallResult<i64> {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(TopicName(text(topic))).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let answer = one(one(self.call(&request, 6)?.topics)?.partitions)?;
        refused(answer.error_code)?;
        Ok(answer.offset)
    }

    /// What the broker says every topic takes on its disk, all partitions together, in bytes.
    pub(crate) fn topic_sizes(&mut self) -> CallResult<HashMap<String, u64>> {
        let response = self.call(&DescribeLogDirsRequest::default().with_topics(None), 4)?;
        refused(response.error_code)?;
        let mut sizes: HashMap<String, u64> = HashMap::new();
        for directory in response.results {
            refused(directory.error_code)?;
            for topic in directory.topics {
                let bytes =
                    topic.partitions.iter().map(|it| u64::try_from(it.partition_size).unwrap_or(0)).sum::<u64>();
                *sizes.entry(topic.name.as_str().to_owned()).or_default() += bytes;
            }
        }
        Ok(sizes)
    }

    /// Advances the log start to `before`.
    pub(crate) fn delete_records(&mut self, topic: &str, partition: i32, before: i64) -> CallResult<()> {
        let partition = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(before);
        let topic = DeleteRecordsTopic::default().with_name(TopicName(text(topic))).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(BROKER_TIMEOUT_MS);
        refused(one(one(self.call(&request, 2)?.topics)?.partitions)?.error_code)
    }

    /// Offsets and values from `from` on, as many as one fetch brings; batches are checked against their CRC.
    pub(crate) fn fetch(&mut self, topic: &str, partition: i32, from: i64) -> CallResult<Vec<(i64, Bytes)>> {
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(from)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(FETCH_BYTES);
        let topic = FetchTopic::default().with_topic(TopicName(text(topic))).with_partitions(vec![wanted]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(100)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let response = self.call(&request, 12)?;
        refused(response.error_code)?;
        let answer = one(one(response.responses)?.partitions)?;
        refused(answer.error_code)?;
        let mut found = Vec::new();
        for mut batch in whole_batches(answer.records.unwrap_or_default()) {
            let batch = RecordBatchDecoder::decode(&mut batch)?;
            let records = batch.records.into_iter().filter(|record| !record.control && record.offset >= from);
            found.extend(records.map(|record| (record.offset, record.value.unwrap_or_default())));
        }
        Ok(found)
    }

    /// Everything a partition holds, from its first offset to the end it had when this was called.
    pub(crate) fn read_all(&mut self, topic: &str, partition: i32) -> CallResult<Vec<(i64, Bytes)>> {
        let (start, end) = self.offsets(topic, partition)?;
        let mut found: Vec<(i64, Bytes)> = Vec::new();
        let mut next = start;
        while next < end {
            let more = self.fetch(topic, partition, next)?;
            let Some((last, _)) = more.last() else {
                return Err(anyhow!("{topic}-{partition}: nothing at offset {next}, although the end is {end}").into());
            };
            next = last + 1;
            found.extend(more);
        }
        Ok(found)
    }
}

fn text(of: &str) -> StrBytes {
    StrBytes::from_string(of.to_owned())
}

fn refused(code: i16) -> CallResult<()> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(error) => Err(CallError::Refused(error)),
    }
}

fn one<T>(answers: Vec<T>) -> anyhow::Result<T> {
    let count = answers.len();
    let mut answers = answers.into_iter();
    match (answers.next(), answers.next()) {
        (Some(answer), None) => Ok(answer),
        _ => bail!("{count} answers to one question"),
    }
}

/// The batches of a fetch response that are there in full; the last may have been cut off.
fn whole_batches(mut records: Bytes) -> Vec<Bytes> {
    let mut batches = Vec::new();
    while let Some(len) = records.get(8..12) {
        let len = 12 + len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
        if len > records.len() {
            break;
        }
        batches.push(records.split_to(len));
    }
    batches
}

fn encode_batch(values: &[Bytes], producer: Option<Producer>) -> anyhow::Result<Bytes> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let timestamp = i64::try_from(now.as_millis())?;
    let mut records = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let index = i32::try_from(index)?;
        records.push(Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: producer.map_or(NO_PRODUCER_ID, |it| it.id),
            producer_epoch: producer.map_or(NO_PRODUCER_EPOCH, |it| it.epoch),
            timestamp_type: TimestampType::Creation,
            offset: i64::from(index),
            // Without a producer id the encoder derives a base sequence from the records; it must come out as -1.
            sequence: producer.map_or(NO_SEQUENCE + index, |it| it.sequence + index),
            timestamp,
            key: None,
            value: Some(value.clone()),
            headers: Default::default(),
        });
    }
    let mut batch = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut batch, &records, &options)?;
    Ok(batch.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_comes_back_as_it_went_and_a_cut_one_is_left_out() {
        let values = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        for producer in [None, Some(Producer { id: 5, epoch: 1, sequence: 40 })] {
            let batch = encode_batch(&values, producer).unwrap();
            let base_sequence = i32::from_be_bytes(batch[53..57].try_into().unwrap());
            assert_eq!(base_sequence, producer.map_or(-1, |it| it.sequence));
            let mut twice = BytesMut::from(&batch[..]);
            twice.extend_from_slice(&batch[..batch.len() - 1]);
            let whole = whole_batches(twice.freeze());
            assert_eq!(whole.len(), 1, "the whole values must be one batch");
            let read = RecordBatchDecoder::decode(&mut whole[0].clone()).unwrap();
            let read: Vec<_> = read.records.into_iter().map(|record| (record.offset, record.value.unwrap())).collect();
            assert_eq!(read, [(0, values[0].clone()), (1, values[1].clone())]);
        }
    }
}
