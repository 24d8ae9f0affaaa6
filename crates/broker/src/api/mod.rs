//! The table of requests: one row and one file for each Kafka API that is served.
//!
//! A row names the operation that `authorize` is asked about and the handler. ApiVersions is derived from the table, so
//! nothing can be advertised that is not served. Handlers take the newest shape of a request and return the newest
//! shape of its response; the codec alone knows versions, except where behaviour differs between them.
//!
//! Next: `produce.rs` and `fetch.rs` for the hot path, the file of any other API by its name.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use ottla_node::{Partition, Topic, Unavailable};
use ottla_protocol::{ApiKey, ErrorCode, GatherOut, Reader, Request, RequestHeader};
use ottla_types::{BrokerId, PartitionIndex};
use tokio::time::Instant;

use crate::{
    connection::Close,
    server::{Broker, Listener},
};

pub(crate) mod allocate_producer_ids;
mod alter_configs;
pub(crate) mod alter_partition;
mod alter_partition_reassignments;
mod api_versions;
pub(crate) mod broker_heartbeat;
pub(crate) mod broker_registration;
mod configs;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_acls;
mod create_partitions;
mod create_topics;
mod decommission;
mod delete_acls;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_acls;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_nodes;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod elect_leaders;
mod envelope;
pub(crate) mod fetch;
mod find_coordinator;
mod group;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
pub(crate) mod leaders;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod nearest;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
pub(crate) mod produce;
mod raft;
mod rebalance;
pub(crate) mod report_damage;
mod sync_group;
mod unregister_broker;
mod update_features;

/// Who is behind a connection, as far as it said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    /// Name and version of its library (KIP-511).
    pub(crate) software: Option<(String, String)>,
    /// Who it authenticated as; nobody until a listener asks for it.
    pub(crate) principal: Principal,
    /// The broker whose heartbeats come over this connection.
    pub(crate) reports_for: Option<BrokerId>,
}

/// The identity that requests are authorised as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Principal {
    /// `User:ANONYMOUS`: the listener asks for no proof.
    #[default]
    Anonymous,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.software {
            Some((name, version)) => write!(f, "{name} {version}"),
            None => f.write_str("unknown"),
        }
    }
}

/// What a handler knows of the request besides its body.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) broker: &'a Arc<Broker>,
    pub(crate) listener: &'a Arc<Listener>,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) header: &'a RequestHeader,
    /// All of it, header included.
    pub(crate) frame: &'a Bytes,
    /// Another broker has passed it on.
    pub(crate) is_forwarded: bool,
    /// When it was taken up.
    pub(crate) now: Instant,
    pub(crate) principal: &'a Principal,
}

impl Context<'_> {
    /// Version of the request.
    pub(crate) fn version(&self) -> i16 {
        self.header.api_version
    }

    /// The way the client came, for what it is told about other brokers.
    pub(crate) fn way(&self) -> leaders::Way<'_> {
        leaders::Way { broker: self.broker, listener: self.listener, local: self.local }
    }
}

/// What became of a request.
#[allow(clippy::large_enum_variant, reason = "moved once; a box would be memory asked for by each Produce")]
pub(crate) enum Served {
    /// Done; the answer is complete.
    Answer(GatherOut),
    /// Validated, to be appended together with its neighbours.
    Produce(produce::PendingProduce),
    /// To be answered now or when there is data.
    Fetch(Box<fetch::ParkedFetch>),
    /// It has taken effect, and will be answered.
    Later(Later),
}

/// An answer on its way, polled by the connection that owes it.
pub(crate) type Later = Pin<Box<dyn Future<Output = Result<GatherOut, Close>> + Send>>;

/// What a principal wants to do with the API, in Kafka's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Read,
    Write,
    Create,
    Delete,
    Alter,
    Describe,
    DescribeConfigs,
    AlterConfigs,
    IdempotentWrite,
    /// What only brokers do to each other.
    ClusterAction,
    /// Allowed before anything else is known of the client.
    Handshake,
}

struct Row {
    key: ApiKey,
    operation: Operation,
    serve: Serve,
}

type Handler = fn(&Context<'_>, &mut Reader) -> Result<GatherOut, Close>;

enum Serve {
    /// Answers from memory and the page cache.
    Inline(Handler),
    /// May wait for the disk: other connections go on meanwhile.
    Blocking(Handler),
    /// For the controller, wherever that is. Waits for the disks of others too.
    Controlled(Handler),
    /// The same, from a broker that is known by its connection from then on.
    Reporting(fn(&Context<'_>, &mut Client, &mut Reader) -> Result<GatherOut, Close>),
    Handshake(fn(&Context<'_>, &mut Client, &mut Reader) -> Result<GatherOut, Close>),
    Produce,
    Fetch,
    /// Takes effect at once, and is answered when it is decided and safe.
    Waiting(fn(&Context<'_>, &mut Reader) -> Result<Later, Close>),
}

macro_rules! row {
    ($key:ident, $operation:ident, Reporting($handler:path)) => {
        Row {
            key: ApiKey::$key,
            operation: Operation::$operation,
            serve: Serve::Reporting(|context, client, reader| {
                let response = $handler(context, client, decode(context, reader)?);
                encode(context.header, &response)
            }),
        }
    };
    ($key:ident, $operation:ident, Waiting($handler:path)) => {
        Row {
            key: ApiKey::$key,
            operation: Operation::$operation,
            serve: Serve::Waiting(|context, reader| later(context, reader, $handler)),
        }
    };
    ($key:ident, $operation:ident, $how:ident($handler:path)) => {
        Row {
            key: ApiKey::$key,
            operation: Operation::$operation,
            serve: Serve::$how(|context, reader| answer(context, reader, $handler)),
        }
    };
}

static TABLE: &[Row] = &[
    Row { key: ApiKey::Produce, operation: Operation::Write, serve: Serve::Produce },
    Row { key: ApiKey::Fetch, operation: Operation::Read, serve: Serve::Fetch },
    row!(ListOffsets, Describe, Blocking(list_offsets::handle)),
    row!(Metadata, Describe, Inline(metadata::handle)),
    row!(OffsetCommit, Read, Waiting(offset_commit::handle)),
    row!(OffsetFetch, Describe, Waiting(offset_fetch::handle)),
    row!(FindCoordinator, Describe, Inline(find_coordinator::handle)),
    row!(JoinGroup, Read, Waiting(join_group::handle)),
    row!(Heartbeat, Read, Waiting(heartbeat::handle)),
    row!(LeaveGroup, Read, Waiting(leave_group::handle)),
    row!(SyncGroup, Read, Waiting(sync_group::handle)),
    row!(DescribeGroups, Describe, Waiting(describe_groups::handle)),
    row!(ListGroups, Describe, Waiting(list_groups::handle)),
    Row { key: ApiKey::ApiVersions, operation: Operation::Handshake, serve: Serve::Handshake(api_versions::serve) },
    row!(CreateTopics, Create, Controlled(create_topics::handle)),
    row!(DeleteTopics, Delete, Controlled(delete_topics::handle)),
    row!(DeleteRecords, Delete, Blocking(delete_records::handle)),
    row!(InitProducerId, IdempotentWrite, Waiting(init_producer_id::handle)),
    row!(OffsetForLeaderEpoch, Describe, Blocking(offset_for_leader_epoch::handle)),
    row!(DescribeAcls, Describe, Inline(describe_acls::handle)),
    row!(CreateAcls, Alter, Inline(create_acls::handle)),
    row!(DeleteAcls, Alter, Inline(delete_acls::handle)),
    row!(DescribeConfigs, DescribeConfigs, Inline(describe_configs::handle)),
    row!(AlterConfigs, AlterConfigs, Controlled(alter_configs::handle)),
    row!(DescribeLogDirs, Describe, Blocking(describe_log_dirs::handle)),
    row!(CreatePartitions, Alter, Controlled(create_partitions::handle)),
    row!(DeleteGroups, Delete, Waiting(delete_groups::handle)),
    row!(ElectLeaders, Alter, Controlled(elect_leaders::handle)),
    row!(IncrementalAlterConfigs, AlterConfigs, Controlled(incremental_alter_configs::handle)),
    row!(AlterPartitionReassignments, Alter, Controlled(alter_partition_reassignments::handle)),
    row!(ListPartitionReassignments, Describe, Inline(list_partition_reassignments::handle)),
    row!(OffsetDelete, Delete, Waiting(offset_delete::handle)),
    row!(DescribeQuorum, Describe, Controlled(describe_quorum::handle)),
    row!(AlterPartition, ClusterAction, Controlled(alter_partition::handle)),
    row!(UpdateFeatures, Alter, Controlled(update_features::handle)),
    row!(Envelope, ClusterAction, Blocking(envelope::handle)),
    row!(DescribeCluster, Describe, Inline(describe_cluster::handle)),
    row!(DescribeProducers, Read, Blocking(describe_producers::handle)),
    row!(BrokerRegistration, ClusterAction, Controlled(broker_registration::handle)),
    row!(BrokerHeartbeat, ClusterAction, Reporting(broker_heartbeat::handle)),
    row!(UnregisterBroker, Alter, Controlled(unregister_broker::handle)),
    row!(AllocateProducerIds, ClusterAction, Controlled(allocate_producer_ids::handle)),
    row!(ConsumerGroupHeartbeat, Read, Waiting(consumer_group_heartbeat::handle)),
    row!(ConsumerGroupDescribe, Describe, Waiting(consumer_group_describe::handle)),
    row!(ListConfigResources, DescribeConfigs, Inline(list_config_resources::handle)),
    row!(DescribeTopicPartitions, Describe, Inline(describe_topic_partitions::handle)),
    row!(Raft, ClusterAction, Waiting(raft::handle)),
    row!(DescribeNodes, Describe, Inline(describe_nodes::handle)),
    row!(Decommission, Alter, Controlled(decommission::handle)),
    row!(Rebalance, Alter, Controlled(rebalance::handle)),
    row!(ReportDamage, ClusterAction, Controlled(report_damage::handle)),
];

/// Serves one request, whose header has been read from `reader`.
///
/// # Errors
/// The connection has to be closed: Kafka has no answer for an API that is not there, a version that is not served, or
/// a body that can't be read.
pub(crate) fn serve(context: &Context<'_>, client: &mut Client, mut reader: Reader) -> Result<Served, Close> {
    let key = context.header.api_key;
    let Some(row) = TABLE.iter().find(|row| row.key == key) else {
        return Err(Close::BadRequest(format!("{key:?} is not served")));
    };
    if key != ApiKey::ApiVersions && !key.versions().contains(&context.version()) {
        return Err(Close::BadRequest(format!("version {} of {key:?} is not served", context.version())));
    }
    if row.operation == Operation::ClusterAction && !context.listener.serves_brokers {
        return Err(Close::BadRequest(format!("{key:?} is for brokers, who come in on another listener")));
    }
    if !authorize(context.principal, row.operation) {
        return Err(Close::BadRequest(format!("{key:?} is not allowed")));
    }
    match row.serve {
        Serve::Inline(handler) => handler(context, &mut reader).map(Served::Answer),
        Serve::Blocking(handler) => tokio::task::block_in_place(|| handler(context, &mut reader)).map(Served::Answer),
        Serve::Controlled(handler) if context.broker.node.is_controller() || context.is_forwarded => {
            tokio::task::block_in_place(|| handler(context, &mut reader)).map(Served::Answer)
        }
        Serve::Controlled(_) => Ok(Served::Later(forwarded(context))),
        Serve::Reporting(handler) => {
            tokio::task::block_in_place(|| handler(context, client, &mut reader)).map(Served::Answer)
        }
        Serve::Handshake(handler) => handler(context, client, &mut reader).map(Served::Answer),
        Serve::Produce => produce::prepare(context, &mut reader).map(Served::Produce),
        Serve::Fetch => fetch::prepare(context, &mut reader).map(|parked| Served::Fetch(Box::new(parked))),
        Serve::Waiting(handler) => handler(context, &mut reader).map(Served::Later),
    }
}

/// The one place that every request passes. Without an authorizer everything is allowed, as in Kafka.
fn authorize(principal: &Principal, _operation: Operation) -> bool {
    match principal {
        Principal::Anonymous => true,
    }
}

/// Reads a request's body.
fn decode<R: Request>(context: &Context<'_>, reader: &mut Reader) -> Result<R, Close> {
    R::decode(reader, context.version())
        .map_err(|error| Close::BadRequest(format!("{:?} version {}: {error}", R::API, context.version())))
}

fn answer<R: Request>(
    context: &Context<'_>,
    reader: &mut Reader,
    handle: fn(&Context<'_>, R) -> R::Response,
) -> Result<GatherOut, Close> {
    let response = handle(context, decode(context, reader)?);
    encode(context.header, &response)
}

fn later<R: Request, F>(
    context: &Context<'_>,
    reader: &mut Reader,
    handle: fn(&Context<'_>, R) -> F,
) -> Result<Later, Close>
where
    F: Future<Output = R::Response> + Send + 'static,
{
    let response = handle(context, decode(context, reader)?);
    // It must not hold on to the frame for as long as the answer is owed.
    let header = context.header.without_client();
    Ok(Box::pin(async move { encode(&header, &response.await) }))
}

/// Has the controller answer.
fn forwarded(context: &Context<'_>) -> Later {
    let key = context.header.api_key;
    let host = match context.peer.ip().to_canonical() {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    };
    let answer = Arc::clone(context.broker).forward(context.frame.clone(), host);
    Box::pin(async move {
        let mut out = GatherOut::new();
        out.relay(&answer.await.ok_or(Close::NoController(key))?).map_err(|error| Close::Unanswerable(key, error))?;
        Ok(out)
    })
}

/// The partition asked for, if it lies here.
fn held(topic: Option<&Arc<Topic>>, index: PartitionIndex) -> Result<&Arc<Partition>, ErrorCode> {
    let topic = topic.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    topic.partition(index).ok_or(match topic.has(index) {
        true => ErrorCode::NotLeaderOrFollower,
        false => ErrorCode::UnknownTopicOrPartition,
    })
}

/// Writes a response as a frame.
fn encode<M: ottla_protocol::Message>(header: &RequestHeader, response: &M) -> Result<GatherOut, Close> {
    let mut out = GatherOut::new();
    out.response(header, response).map_err(|error| Close::Unanswerable(M::API, error))?;
    Ok(out)
}

/// Kafka's code for a partition that can't serve.
fn unavailable_code(unavailable: &Unavailable) -> ErrorCode {
    match unavailable {
        Unavailable::Deleted => ErrorCode::UnknownTopicOrPartition,
        Unavailable::NotLeader => ErrorCode::NotLeaderOrFollower,
        // Retriable, and never UNKNOWN_SERVER_ERROR (rule P5).
        Unavailable::Offline(_) | Unavailable::NoSpace(_) => ErrorCode::KafkaStorageError,
    }
}

/// The kind of request in a frame, before anything of it is checked.
pub(crate) fn peek_key(frame: &Bytes) -> Option<i16> {
    frame.first_chunk().map(|bytes| i16::from_be_bytes(*bytes))
}
