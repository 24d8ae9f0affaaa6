//! What the harness asks a cluster: who leads what, who coordinates, where partitions end; and to create topics.
//!
//! One connection for each question, to a broker that may well be dead. The codec is the `kafka-protocol` crate, as
//! in `wire`, which speaks to one broker alone.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DescribeQuorumRequest, FindCoordinatorRequest, ListOffsetsRequest, MetadataRequest,
    RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// For one question and its answer.
const PATIENCE: Duration = Duration::from_secs(5);
const CREATE_PATIENCE_MS: i32 = 10_000;
/// The largest answer that is believed, in bytes.
const MAX_ANSWER: usize = 16 << 20;
const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;

/// A cluster as one broker describes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Where each broker is that is not fenced.
    pub(crate) brokers: BTreeMap<i32, SocketAddr>,
    pub(crate) partitions: Vec<PartitionView>,
}

#[derive(Clone, Debug)]
pub(crate) struct PartitionView {
    pub(crate) topic: String,
    pub(crate) index: i32,
    /// `None` while there is none.
    pub(crate) leader: Option<i32>,
    pub(crate) replicas: Vec<i32>,
    pub(crate) isr: Vec<i32>,
}

impl PartitionView {
    /// As a history names it.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.topic, self.index)
    }

    /// Whether it has a leader and all its copies are in sync.
    pub(crate) fn is_whole(&self) -> bool {
        self.leader.is_some() && self.isr.len() == self.replicas.len()
    }
}

/// Everything there is, internal topics too.
pub(crate) fn view(of: SocketAddr) -> Result<View> {
    let response = call(of, &MetadataRequest::default().with_topics(None), 9)?;
    let mut view = View::default();
    for broker in response.brokers {
        view.brokers.insert(broker.node_id.0, resolve(&broker.host, broker.port)?);
    }
    for topic in response.topics {
        let name = topic.name.context("a topic without a name")?;
        for partition in topic.partitions {
            view.partitions.push(PartitionView {
                topic: name.as_str().to_owned(),
                index: partition.partition_index,
                leader: (partition.leader_id.0 >= 0).then_some(partition.leader_id.0),
                replicas: partition.replica_nodes.iter().map(|it| it.0).collect(),
                isr: partition.isr_nodes.iter().map(|it| it.0).collect(),
            });
        }
    }
    Ok(view)
}

/// Creates a topic; that it is there already is as good.
pub(crate) fn create_topic(
    at: SocketAddr,
    name: &str,
    (partitions, copies): (i32, i16),
    configs: &[(&str, &str)],
) -> Result<()> {
    let configs = configs
        .iter()
        .map(|(name, value)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value))))
        .collect();
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(copies)
        .with_configs(configs);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(CREATE_PATIENCE_MS);
    let answer = call(at, &request, 7)?.topics.into_iter().next().context("no answer for the topic")?;
    match ResponseError::try_from_code(answer.error_code) {
        None | Some(ResponseError::TopicAlreadyExists) => Ok(()),
        Some(error) => {
            bail!("creating {name}: {error:?} {}", answer.error_message.as_ref().map_or("", |it| it.as_str()))
        }
    }
}

/// The leader of the metadata log.
pub(crate) fn controller(of: SocketAddr) -> Result<i32> {
    let log = TopicData::default()
        .with_topic_name(TopicName(text("__cluster_metadata")))
        .with_partitions(vec![PartitionData::default()]);
    let answer = call(of, &DescribeQuorumRequest::default().with_topics(vec![log]), 0)?;
    let topic = answer.topics.into_iter().next().context("no answer for the metadata log")?;
    let log = topic.partitions.into_iter().next().context("no answer for the metadata log's partition")?;
    for code in [answer.error_code, log.error_code] {
        if let Some(error) = ResponseError::try_from_code(code) {
            bail!("the metadata log: {error:?}");
        }
    }
    Ok(log.leader_id.0)
}

/// Where the coordinator of a group is.
pub(crate) fn coordinator(of: SocketAddr, group: &str) -> Result<SocketAddr> {
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
    let answer = call(of, &request, 4)?.coordinators.into_iter().next().context("no answer for the group")?;
    if let Some(error) = ResponseError::try_from_code(answer.error_code) {
        bail!("the coordinator of {group}: {error:?}");
    }
    resolve(&answer.host, answer.port)
}

/// Last stable offset and high watermark of a partition, as its leader tells readers.
pub(crate) fn ends(leader: SocketAddr, topic: &str, partition: i32) -> Result<(i64, i64)> {
    // In this order: what is stable at first is below the high watermark later.
    let last_stable = end(leader, topic, partition, READ_COMMITTED)?;
    Ok((last_stable, end(leader, topic, partition, READ_UNCOMMITTED)?))
}

fn end(leader: SocketAddr, topic: &str, partition: i32, isolation: i8) -> Result<i64> {
    let asked = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_current_leader_epoch(-1)
        .with_timestamp(-1);
    let topic = ListOffsetsTopic::default().with_name(TopicName(text(topic))).with_partitions(vec![asked]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation)
        .with_topics(vec![topic]);
    let topic = call(leader, &request, 6)?.topics.into_iter().next().context("no answer for the topic")?;
    let answer = topic.partitions.into_iter().next().context("no answer for the partition")?;
    match ResponseError::try_from_code(answer.error_code) {
        None => Ok(answer.offset),
        Some(error) => bail!("the end of partition {partition}: {error:?}"),
    }
}

fn resolve(host: &str, port: i32) -> Result<SocketAddr> {
    let port = u16::try_from(port).with_context(|| format!("{host} at port {port}"))?;
    (host, port).to_socket_addrs()?.next().with_context(|| format!("{host} has no address"))
}

fn text(of: &str) -> StrBytes {
    StrBytes::from_string(of.to_owned())
}

fn call<R: Request>(to: SocketAddr, request: &R, version: i16) -> Result<R::Response> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("torture")));
    let mut frame = BytesMut::from(&[0; 4][..]);
    header.encode(&mut frame, R::header_version(version))?;
    request.encode(&mut frame, version)?;
    let len = u32::try_from(frame.len() - 4).context("the request is too large")?;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    stream.write_all(&frame)?;

    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MAX_ANSWER {
        bail!("{to} announces an answer of {len} bytes");
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    let mut body = Bytes::from(body);
    ResponseHeader::decode(&mut body, R::Response::header_version(version))?;
    R::Response::decode(&mut body, version)
}
