//! A connection in lock-step: one request, then its answer, in the highest version that both sides speak.
//!
//! For what is asked before and after a measurement. What is measured goes over `socket.rs`, which this turns into.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use ottla_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use ottla_protocol::messages::delete_topics_request::DeleteTopicState;
use ottla_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ottla_protocol::messages::metadata_request::MetadataRequestTopic;
use ottla_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, InitProducerIdRequest, ListOffsetsRequest,
    MetadataRequest,
};
use ottla_protocol::{ApiKey, ErrorCode, Reader, Request, ResponseHeader};

use super::frame::{self, BROKER_TIMEOUT_MS};

/// How long an answer may take, and how long something retriable is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest answer that is believed, in bytes.
const ANSWER_MAX: usize = 64 << 20;
/// Asks ListOffsets for the end of a partition.
const END: i64 = -1;

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    correlation: i32,
    /// Lowest and highest version of each API key that the broker serves.
    served: HashMap<i16, (i16, i16)>,
}

impl Client {
    /// Connects and asks for the versions.
    pub(crate) fn open(address: &str) -> Result<Client> {
        let resolved = address.to_socket_addrs()?.next().with_context(|| format!("{address} is no address"))?;
        let stream = TcpStream::connect(resolved).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut client = Client { stream, correlation: 0, served: HashMap::new() };
        let answer = client.call(0, &ApiVersionsRequest::default())?;
        check(answer.error_code)?;
        client.served = answer.api_keys.iter().map(|it| (it.api_key, (it.min_version, it.max_version))).collect();
        Ok(client)
    }

    /// The highest version between `from` and `to` that the broker serves.
    pub(crate) fn version(&self, api: ApiKey, from: i16, to: i16) -> Result<i16> {
        let (min, max) = *self.served.get(&(api as i16)).with_context(|| format!("the broker has no {api:?}"))?;
        let version = to.min(max);
        if version < from.max(min) {
            bail!("the broker serves versions {min} to {max} of {api:?}, wanted is {from} to {to}");
        }
        Ok(version)
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn call<R: Request>(&mut self, version: i16, body: &R) -> Result<R::Response> {
        self.correlation += 1;
        self.stream.write_all(&frame::request(version, self.correlation, body)?)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).with_context(|| format!("no answer to {:?}", R::API))?;
        let length = usize::try_from(i32::from_be_bytes(length))?;
        if length > ANSWER_MAX {
            bail!("the broker announces an answer of {length} bytes");
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        let mut reader = Reader::new(Bytes::from(answer));
        let header = ResponseHeader::decode(&mut reader, R::API, version)?;
        if header.correlation_id != self.correlation {
            bail!("answer {} to request {}", header.correlation_id, self.correlation);
        }
        Ok(<R::Response as ottla_protocol::Message>::decode(&mut reader, version)?)
    }

    /// Creates a topic with a copy on each of so many nodes, and waits until all of it can be asked for. Of a cluster
    /// the nodes are numbered from 1, and each next one leads each next partition.
    pub(crate) fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        nodes: i32,
        configs: &[(String, String)],
    ) -> Result<()> {
        let configs: Vec<_> = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig {
                name: name.as_str().into(),
                value: Some(value.as_str().into()),
            })
            .collect();
        let mut topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs,
            ..Default::default()
        };
        if nodes > 1 {
            self.together(nodes)?;
            (topic.num_partitions, topic.replication_factor) = (-1, -1);
            topic.assignments = (0..partitions)
                .map(|partition_index| CreatableReplicaAssignment {
                    partition_index,
                    broker_ids: (0..nodes).map(|place| (partition_index + place) % nodes + 1).collect(),
                })
                .collect();
        }
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: BROKER_TIMEOUT_MS, ..Default::default() };
        let version = self.version(ApiKey::CreateTopics, 2, 7)?;
        retried(|| {
            let answer = self.call(version, &request)?;
            let code = answer.topics.first().context("no answer for the topic")?.error_code;
            // In a cluster the answer to an earlier try may have been lost.
            let is_there = nodes > 1 && code == ErrorCode::TopicAlreadyExists.code();
            Ok(if code == 0 || is_there { Ok(()) } else { Err(code) })
        })?;
        if nodes > 1 { self.led(name, partitions, nodes) } else { self.ends(name, partitions).map(drop) }
    }

    /// Waits until so many nodes are there: one that is not yet leads nothing.
    fn together(&mut self, nodes: i32) -> Result<()> {
        let version = self.version(ApiKey::Metadata, 4, 9)?;
        let request = MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
        retried(|| {
            let found = self.call(version, &request)?.brokers.len();
            let are_there = i32::try_from(found).is_ok_and(|found| found >= nodes);
            Ok(if are_there { Ok(()) } else { Err(ErrorCode::LeaderNotAvailable.code()) })
        })
    }

    /// Waits until this node has heard that each partition is led by the node that should, with all copies in sync.
    fn led(&mut self, topic: &str, partitions: i32, nodes: i32) -> Result<()> {
        let version = self.version(ApiKey::Metadata, 4, 9)?;
        let row = MetadataRequestTopic { name: Some(topic.into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![row]), ..Default::default() };
        let count = usize::try_from(partitions)?;
        retried(|| {
            let answer = self.call(version, &request)?;
            let topic = answer.topics.first().context("no answer for the topic")?;
            let all = topic.partitions.iter().filter(|it| {
                it.error_code == 0
                    && it.leader_id == it.partition_index % nodes + 1
                    && i32::try_from(it.isr_nodes.len()).is_ok_and(|copies| copies == nodes)
            });
            let is_ready = all.count() == count;
            Ok(if is_ready { Ok(()) } else { Err(ErrorCode::LeaderNotAvailable.code()) })
        })
    }

    pub(crate) fn delete_topic(&mut self, name: &str) -> Result<()> {
        let version = self.version(ApiKey::DeleteTopics, 1, 6)?;
        let mut request = DeleteTopicsRequest { timeout_ms: BROKER_TIMEOUT_MS, ..Default::default() };
        if version >= 6 {
            request.topics.push(DeleteTopicState { name: Some(name.into()), ..Default::default() });
        } else {
            request.topic_names.push(name.into());
        }
        retried(|| {
            let answer = self.call(version, &request)?;
            let code = answer.responses.first().context("no answer for the topic")?.error_code;
            Ok(if code == 0 { Ok(()) } else { Err(code) })
        })
    }

    /// The offset behind the last record of each partition. A topic that was just created may need a moment.
    pub(crate) fn ends(&mut self, topic: &str, partitions: i32) -> Result<Vec<i64>> {
        let version = self.version(ApiKey::ListOffsets, 1, 6)?;
        let ask = |partition_index| ListOffsetsPartition { partition_index, current_leader_epoch: -1, timestamp: END };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic { name: topic.into(), partitions: (0..partitions).map(ask).collect() }],
            ..Default::default()
        };
        retried(|| {
            let mut answer = self.call(version, &request)?;
            let mut found = answer.topics.pop().context("no answer for the topic")?.partitions;
            found.sort_by_key(|it| it.partition_index);
            Ok(match found.iter().find(|it| it.error_code != 0) {
                Some(refused) => Err(refused.error_code),
                None => Ok(found.iter().map(|it| it.offset).collect()),
            })
        })
    }

    /// Id and epoch for an idempotent producer.
    pub(crate) fn producer(&mut self) -> Result<(i64, i16)> {
        let version = self.version(ApiKey::InitProducerId, 0, 4)?;
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: BROKER_TIMEOUT_MS,
            producer_id: -1,
            producer_epoch: -1,
        };
        retried(|| {
            let answer = self.call(version, &request)?;
            Ok(match answer.error_code {
                0 => Ok((answer.producer_id, answer.producer_epoch)),
                code => Err(code),
            })
        })
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

/// An error code of a broker as an error.
pub(crate) fn check(code: i16) -> Result<()> {
    match code {
        0 => Ok(()),
        code => bail!("the broker refuses: {}", name(code)),
    }
}

pub(crate) fn name(code: i16) -> String {
    ErrorCode::from_code(code).map_or_else(|| format!("error {code}"), |it| it.name().to_owned())
}

/// Asks until the answer is no retriable refusal.
fn retried<T>(mut ask: impl FnMut() -> Result<Result<T, i16>>) -> Result<T> {
    let began = Instant::now();
    loop {
        match ask()? {
            Ok(answer) => return Ok(answer),
            Err(code) => {
                let retriable = ErrorCode::from_code(code).is_some_and(ErrorCode::is_retriable);
                if !retriable || began.elapsed() > PATIENCE {
                    bail!("the broker refuses: {}", name(code));
                }
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}
