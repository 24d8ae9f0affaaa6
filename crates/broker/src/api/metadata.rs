//! Metadata (key 3): brokers, topics and who leads what, in the addresses of the listener the client came in on.
//!
//! Asking for a topic that does not exist may create it: the first answer is UNKNOWN_TOPIC_OR_PARTITION, and the
//! client asks again. KIP-4 (all topics, internal topics), KIP-204 (no creation on demand), KIP-430 (authorised
//! operations), KIP-516 (topic ids, asked for from version 12 on).

use std::collections::HashSet;

use bytestring::ByteString;
use ottla_metadata::{Image, Partition, Topic, is_internal_topic, validate_topic_name};
use ottla_protocol::{
    ErrorCode,
    messages::{
        MetadataRequest, MetadataResponse,
        metadata_request::MetadataRequestTopic,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
};
use ottla_types::{BrokerId, TopicId};

use super::{Context, leaders::Endpoint};

/// First version that can ask for topics by id; versions 10 and 11 have the field and must not use it.
const TOPIC_ID_VERSION: i16 = 12;
/// First version whose clients know LISTENER_NOT_FOUND.
const LISTENER_NOT_FOUND_VERSION: i16 = 6;
/// Topics that one request may have created; the client asks again for the rest.
const CREATED_PER_REQUEST: usize = 1000;

/// What may be done to a topic, one bit for each of Kafka's operation codes: read, write, create, delete, alter,
/// describe, and describe and alter configs. Without an authorizer that is everything (KIP-430).
pub(super) const TOPIC_OPERATIONS: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// What may be done to the cluster: create, alter, describe, act as a broker, describe and alter configs, and write
/// idempotently.
pub(super) const CLUSTER_OPERATIONS: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);

const fn bits(operations: &[u32]) -> i32 {
    match operations {
        [] => 0,
        [operation, rest @ ..] => 1 << *operation | bits(rest),
    }
}

/// Every broker that is not fenced and has a listener of the name that the client came in on.
pub(super) fn endpoints(context: &Context<'_>, image: &Image) -> Vec<Endpoint> {
    let way = context.way();
    let live = image.brokers().filter(|broker| !broker.fenced || broker.id == context.broker.node.id());
    live.filter_map(|broker| way.endpoint(image, broker.id)).collect()
}

pub(super) fn handle(context: &Context<'_>, request: MetadataRequest) -> MetadataResponse {
    let node = &context.broker.node;
    let image = node.image();
    let endpoints = endpoints(context, &image);
    let view = View {
        image: &image,
        reachable: endpoints.iter().map(|endpoint| endpoint.id).collect(),
        version: context.version(),
        operations: if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { i32::MIN },
    };
    let mut missing = Vec::new();
    let topics = match request.topics {
        None => view.all(),
        Some(topics) if topics.is_empty() && context.version() == 0 => view.all(),
        Some(topics) => view.these(&topics, &mut missing),
    };
    if !missing.is_empty() && request.allow_auto_topic_creation && node.broker_config().auto_create_topics {
        missing.truncate(CREATED_PER_REQUEST);
        context.broker.request_topics(missing);
    }
    let brokers = endpoints.into_iter().map(|endpoint| MetadataResponseBroker {
        node_id: endpoint.id.0,
        host: endpoint.host.into(),
        port: i32::from(endpoint.port),
        rack: endpoint.rack,
    });
    let mut response = MetadataResponse {
        brokers: brokers.collect(),
        cluster_id: Some(node.cluster_id().into()),
        // Every broker takes admin requests, so each may name itself.
        controller_id: node.id().0,
        topics,
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

/// The cluster as one request sees it.
struct View<'a> {
    image: &'a Image,
    reachable: Vec<BrokerId>,
    version: i16,
    operations: i32,
}

impl View<'_> {
    fn all(&self) -> Vec<MetadataResponseTopic> {
        self.image.topics().map(|topic| self.topic(topic)).collect()
    }

    /// The topics asked for, each once. Names that could be topics and are none are added to `missing`.
    fn these(&self, wanted: &[MetadataRequestTopic], missing: &mut Vec<String>) -> Vec<MetadataResponseTopic> {
        let takes_ids = self.version >= TOPIC_ID_VERSION;
        if !takes_ids && wanted.iter().any(|topic| !topic.topic_id.is_zero() || topic.name.is_none()) {
            let refused = |topic: &MetadataRequestTopic| {
                let name = topic.name.clone().unwrap_or_default();
                self.absent(Some(name), topic.topic_id, ErrorCode::InvalidRequest)
            };
            return wanted.iter().map(refused).collect();
        }
        let mut seen = HashSet::with_capacity(wanted.len());
        let once = wanted.iter().filter(|topic| seen.insert((topic.topic_id, topic.name.as_deref())));
        once.map(|topic| match &topic.name {
            _ if !topic.topic_id.is_zero() => match self.image.topic(topic.topic_id) {
                Some(found) => self.topic(found),
                None => self.absent(None, topic.topic_id, ErrorCode::UnknownTopicId),
            },
            None => self.absent(None, TopicId::ZERO, ErrorCode::InvalidRequest),
            Some(name) => match self.image.topic_named(name) {
                Some(found) => self.topic(found),
                None if validate_topic_name(name).is_err() => {
                    self.absent(Some(name.clone()), TopicId::ZERO, ErrorCode::InvalidTopicException)
                }
                None => {
                    missing.push(name.to_string());
                    self.absent(Some(name.clone()), TopicId::ZERO, ErrorCode::UnknownTopicOrPartition)
                }
            },
        })
        .collect()
    }

    fn absent(&self, name: Option<ByteString>, topic_id: TopicId, code: ErrorCode) -> MetadataResponseTopic {
        MetadataResponseTopic {
            error_code: code.code(),
            is_internal: name.as_deref().is_some_and(is_internal_topic),
            name,
            topic_id,
            topic_authorized_operations: self.operations,
            ..Default::default()
        }
    }

    fn topic(&self, topic: &Topic) -> MetadataResponseTopic {
        MetadataResponseTopic {
            name: Some((&*topic.name).into()),
            topic_id: topic.id,
            is_internal: is_internal_topic(&topic.name),
            partitions: (0..)
                .zip(&topic.partitions)
                .map(|(index, partition)| self.partition(index, partition))
                .collect(),
            topic_authorized_operations: self.operations,
            ..Default::default()
        }
    }

    fn partition(&self, index: i32, partition: &Partition) -> MetadataResponsePartition {
        let ids = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.0).collect();
        let leader = partition.leader.filter(|leader| self.reachable.contains(leader));
        let code = if leader.is_some() {
            ErrorCode::None
        } else if partition.leader.is_none() {
            ErrorCode::LeaderNotAvailable
        } else if self.version >= LISTENER_NOT_FOUND_VERSION {
            ErrorCode::ListenerNotFound
        } else {
            ErrorCode::LeaderNotAvailable
        };
        MetadataResponsePartition {
            error_code: code.code(),
            partition_index: index,
            leader_id: leader.map_or(-1, |leader| leader.0),
            leader_epoch: partition.leader_epoch.0,
            replica_nodes: ids(&partition.replicas),
            isr_nodes: ids(&partition.isr),
            offline_replicas: ids(&partition
                .replicas
                .iter()
                .copied()
                .filter(|id| !self.image.is_live(*id))
                .collect::<Vec<_>>()),
        }
    }
}
