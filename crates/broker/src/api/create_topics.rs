//! CreateTopics (key 19): each topic stands or falls by itself; the answer tells what the topic became.
//!
//! The answer leaves when the topic is there to be used, so the request's timeout has nothing to wait for. KIP-464
//! (-1 is the broker's default), KIP-525 (counts and configs in the answer), KIP-516 (topic ids).

use ottla_metadata::{Command, CreatedTopic, NewTopic, OFFSETS_TOPIC, Reply, config::Layers};
use ottla_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse,
    create_topics_request::CreatableTopic,
    create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
};
use ottla_types::{BrokerId, PartitionIndex};

use super::{Context, configs::rows};

pub(super) fn handle(context: &Context<'_>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let node = &context.broker.node;
    let topics: Vec<NewTopic> = request.topics.into_iter().map(new_topic).collect();
    let asked = topics.iter().map(|topic| topic.name.clone()).collect();
    let outcome = node.submit(match &topics[..] {
        // Brokers ask for it without saying how, when the first group wants it.
        [topic] if is_plain_offsets_topic(topic) && !request.validate_only => Command::CreateOffsetsTopic,
        _ => Command::CreateTopics { topics, validate_only: request.validate_only },
    });
    let image = node.image();
    let layers = image.layers(node.id(), node.settings());
    let pick = |reply| match reply {
        Reply::TopicsCreated(rows) => Some(rows),
        _ => None,
    };
    let topics = rows(outcome, asked, pick).into_iter().map(|(name, row)| match row {
        Ok(created) => CreatableTopicResult { name: name.into(), ..described(&created, &layers) },
        Err(failure) => CreatableTopicResult {
            name: name.into(),
            error_code: failure.code.code(),
            error_message: Some(failure.message),
            ..Default::default()
        },
    });
    CreateTopicsResponse { topics: topics.collect(), ..Default::default() }
}

/// Whether it is the topic of committed offsets, as it should be for groups.
fn is_plain_offsets_topic(topic: &NewTopic) -> bool {
    let plain =
        NewTopic { name: OFFSETS_TOPIC.to_owned(), partitions: -1, replication_factor: -1, ..NewTopic::default() };
    *topic == plain
}

fn new_topic(topic: CreatableTopic) -> NewTopic {
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic
            .assignments
            .into_iter()
            .map(|assignment| {
                let brokers = assignment.broker_ids.into_iter().map(BrokerId).collect();
                (PartitionIndex(assignment.partition_index), brokers)
            })
            .collect(),
        configs: topic
            .configs
            .into_iter()
            .map(|config| (config.name.to_string(), config.value.map(|value| value.to_string())))
            .collect(),
    }
}

fn described(created: &CreatedTopic, layers: &Layers<'_>) -> CreatableTopicResult {
    let configs = layers.topic_entries(&created.overrides).into_iter().map(|entry| CreatableTopicConfigs {
        name: entry.name.into(),
        value: entry.value.map(Into::into),
        read_only: entry.read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.sensitive,
    });
    CreatableTopicResult {
        error_message: None,
        topic_id: created.id,
        num_partitions: created.partitions,
        replication_factor: created.replication_factor,
        configs: Some(configs.collect()),
        ..Default::default()
    }
}
