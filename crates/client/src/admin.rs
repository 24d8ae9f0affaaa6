//! The calls that manage a cluster: topics, configs, and looking at brokers.
//!
//! Each method is one request with its retries. Not here: metadata (`client.rs`) and offsets (`offsets.rs`).

use std::collections::BTreeSet;

use bytestring::ByteString;
use ottla_protocol::{
    ApiKey, ErrorCode,
    messages::{
        CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        DescribeClusterRequest, DescribeConfigsRequest, DescribeLogDirsRequest, DescribeProducersRequest,
        IncrementalAlterConfigsRequest,
        create_partitions_request::CreatePartitionsTopic,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        delete_topics_request::DeleteTopicState,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::DescribeConfigsResourceResult,
        describe_producers_request::TopicRequest,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
};
use ottla_types::{BrokerId, Offset, PartitionIndex, ProducerId, Timestamp, TopicId};

use crate::{
    BrokerInfo, Client, Error, Target, TopicPartition,
    error::{check, only},
};

/// How long the cluster may take over a change before it answers.
pub(crate) const CHANGE_TIMEOUT_MS: i32 = 30_000;

/// A topic to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; `None` leaves it to the cluster (`num.partitions`).
    pub partitions: Option<i32>,
    /// How many replicas of each; `None` leaves it to the cluster (`default.replication.factor`).
    pub replication_factor: Option<i16>,
    /// Topic configs by name.
    pub configs: Vec<(String, String)>,
}

/// A topic as it was created. Brokers before 2.4 tell less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id; [`TopicId::ZERO`] if the broker did not say.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: Option<i32>,
    /// How many replicas each has.
    pub replication_factor: Option<i16>,
}

/// What a config belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigResource {
    /// A topic.
    Topic(String),
    /// A group.
    Group(String),
    /// One broker.
    Broker(BrokerId),
    /// All brokers together: the dynamic defaults.
    AllBrokers,
}

/// Where a config's value comes from (KIP-226).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic,
    /// Set on this broker at run time.
    DynamicBroker,
    /// Set for all brokers at run time.
    DynamicDefaultBroker,
    /// Given to the broker at its start.
    StaticBroker,
    /// Nobody set it.
    Default,
    /// Set on the group.
    Group,
    /// Something newer than this client, by its number.
    Other(i8),
}

impl ConfigSource {
    fn from_wire(source: i8) -> ConfigSource {
        match source {
            1 => ConfigSource::Topic,
            2 => ConfigSource::DynamicBroker,
            3 => ConfigSource::DynamicDefaultBroker,
            4 => ConfigSource::StaticBroker,
            5 => ConfigSource::Default,
            8 => ConfigSource::Group,
            other => ConfigSource::Other(other),
        }
    }
}

/// A config of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// Its value; `None` if it has none or is secret.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// The type of the value, in Kafka's words, such as `LONG`.
    pub kind: &'static str,
    /// Whether it can only be set at the start.
    pub read_only: bool,
    /// Whether it is secret.
    pub sensitive: bool,
    /// The values it could have, the one it has first: name, value and source of each.
    pub synonyms: Vec<(String, Option<String>, ConfigSource)>,
    /// What it means, if the broker tells.
    pub documentation: Option<String>,
}

/// A change of one config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// Set it to this value.
    Set(String),
    /// Back to the default.
    Unset,
    /// Add these items to a list.
    Append(String),
    /// Take these items from a list.
    Subtract(String),
}

/// A cluster and its brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Its id.
    pub id: String,
    /// The broker that takes changes.
    pub controller: Option<BrokerId>,
    /// The brokers, by ascending id.
    pub brokers: Vec<BrokerInfo>,
}

/// A directory of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDir {
    /// Its path on the broker.
    pub path: String,
    /// The size of the volume in bytes, if the broker tells.
    pub total_bytes: Option<u64>,
    /// The bytes of it that are left.
    pub usable_bytes: Option<u64>,
    /// The partitions in it, with their sizes in bytes.
    pub partitions: Vec<(TopicPartition, u64)>,
}

/// A producer whose state a partition keeps (KIP-664).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// Its id.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: i32,
    /// The sequence number of its last record.
    pub last_sequence: i32,
    /// When that was appended.
    pub last_timestamp: Option<Timestamp>,
    /// Where its open transaction begins.
    pub transaction_start: Option<Offset>,
}

impl Client {
    /// Creates a topic, or with `validate_only` says whether that could be done.
    ///
    /// # Errors
    /// The cluster refuses: the topic exists, a config is wrong, and so on.
    pub async fn create_topic(&self, topic: &NewTopic, validate_only: bool) -> Result<CreatedTopic, Error> {
        let configs = topic.configs.iter().map(|(name, value)| CreatableTopicConfig {
            name: name.as_str().into(),
            value: Some(value.as_str().into()),
        });
        let row = CreatableTopic {
            name: topic.name.as_str().into(),
            num_partitions: topic.partitions.unwrap_or(-1),
            replication_factor: topic.replication_factor.unwrap_or(-1),
            configs: configs.collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![row], timeout_ms: CHANGE_TIMEOUT_MS, validate_only };
        self.change(|| async {
            let answer = self.request_once(Target::Controller, &request).await?;
            let row = only(answer.topics.first())?;
            check(|| format!("topic {}", topic.name), row.error_code, row.error_message.as_deref())?;
            Ok(CreatedTopic {
                id: row.topic_id,
                partitions: (row.num_partitions > 0).then_some(row.num_partitions),
                replication_factor: (row.replication_factor > 0).then_some(row.replication_factor),
            })
        })
        .await
    }

    /// Deletes a topic and all its records.
    ///
    /// # Errors
    /// The cluster refuses, or has no such topic.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        // Old versions have a list of names, new ones a list of rows; each is ignored or refused by the other.
        let version = self.version(Target::Controller, ApiKey::DeleteTopics).await?;
        let mut request = DeleteTopicsRequest { timeout_ms: CHANGE_TIMEOUT_MS, ..Default::default() };
        if version >= 6 {
            request.topics = vec![DeleteTopicState { name: Some(name.into()), ..Default::default() }];
        } else {
            request.topic_names = vec![name.into()];
        }
        self.change(|| async {
            let (answer, _) = self.request_at_most(Target::Controller, &request, version).await?;
            self.forget_topic(name);
            let row = only(answer.responses.first())?;
            match check(|| format!("topic {name}"), row.error_code, row.error_message.as_deref()) {
                // Retriable for those who produce, but final here.
                Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => Ok(Err(error)),
                result => result.map(Ok),
            }
        })
        .await?
    }

    /// Raises the number of a topic's partitions to `total`.
    ///
    /// # Errors
    /// The cluster refuses: it has as many or more, or there is no such topic.
    pub async fn create_partitions(&self, topic: &str, total: i32, validate_only: bool) -> Result<(), Error> {
        let row = CreatePartitionsTopic { name: topic.into(), count: total, assignments: None };
        let request = CreatePartitionsRequest { topics: vec![row], timeout_ms: CHANGE_TIMEOUT_MS, validate_only };
        self.change(|| async {
            let answer = self.request_once(Target::Controller, &request).await?;
            self.forget_topic(topic);
            let row = only(answer.results.first())?;
            match check(|| format!("topic {topic}"), row.error_code, row.error_message.as_deref()) {
                Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => Ok(Err(error)),
                result => result.map(Ok),
            }
        })
        .await?
    }

    /// Deletes the records below `before` (`None`: all that are committed) and gives the new first offset.
    ///
    /// # Errors
    /// The offset lies beyond the end, or the partition does not exist.
    pub async fn delete_records(&self, at: &TopicPartition, before: Option<Offset>) -> Result<Offset, Error> {
        let partition =
            DeleteRecordsPartition { partition_index: at.partition.0, offset: before.map_or(-1, |offset| offset.0) };
        let topic = DeleteRecordsTopic { name: (*at.topic).into(), partitions: vec![partition] };
        let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: CHANGE_TIMEOUT_MS };
        self.led(&BTreeSet::from([&*at.topic]), || async {
            let leader = Target::Broker(self.leader(at)?.0);
            let answer = self.request_once(leader, &request).await?;
            let row = only(answer.topics.first().and_then(|topic| topic.partitions.first()))?;
            check(|| format!("partition {at}"), row.error_code, None)?;
            Ok(Offset(row.low_watermark))
        })
        .await
    }

    /// The configs of a resource: those of `names`, or all of them.
    ///
    /// # Errors
    /// There is no such resource.
    pub async fn describe_configs(
        &self,
        resource: &ConfigResource,
        names: Option<&[&str]>,
    ) -> Result<Vec<ConfigEntry>, Error> {
        let (resource_type, resource_name, target) = on_wire(resource);
        let keys = names.map(|names| names.iter().map(|name| ByteString::from(*name)).collect());
        let resources = vec![DescribeConfigsResource { resource_type, resource_name, configuration_keys: keys }];
        let version = self.version(target, ApiKey::DescribeConfigs).await?;
        let include_documentation = version >= 3;
        let request = DescribeConfigsRequest { resources, include_synonyms: true, include_documentation };
        let answer = self.request(target, &request).await?;
        let row = only(answer.results.first())?;
        check(|| describe(resource), row.error_code, row.error_message.as_deref())?;
        let mut entries: Vec<_> = row.configs.iter().map(entry).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Changes some configs of a resource and leaves the others alone (KIP-339).
    ///
    /// # Errors
    /// A name or value is wrong; then nothing is changed.
    pub async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[(String, ConfigChange)],
        validate_only: bool,
    ) -> Result<(), Error> {
        let (resource_type, resource_name, target) = on_wire(resource);
        let configs = changes.iter().map(|(name, change)| {
            let (config_operation, value) = match change {
                ConfigChange::Set(value) => (0, Some(value)),
                ConfigChange::Unset => (1, None),
                ConfigChange::Append(value) => (2, Some(value)),
                ConfigChange::Subtract(value) => (3, Some(value)),
            };
            let value = value.map(|value| ByteString::from(value.as_str()));
            AlterableConfig { name: name.as_str().into(), config_operation, value }
        });
        let resources = vec![AlterConfigsResource { resource_type, resource_name, configs: configs.collect() }];
        let request = IncrementalAlterConfigsRequest { resources, validate_only };
        let target = if target == Target::Any { Target::Controller } else { target };
        self.change(|| async {
            let answer = self.request_once(target, &request).await?;
            let row = only(answer.responses.first())?;
            check(|| describe(resource), row.error_code, row.error_message.as_deref()).map_or_else(
                |error| if error.code() == Some(ErrorCode::NotController) { Err(error) } else { Ok(Err(error)) },
                |()| Ok(Ok(())),
            )
        })
        .await?
    }

    /// The cluster's id, brokers and controller.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn describe_cluster(&self) -> Result<ClusterInfo, Error> {
        let request = DescribeClusterRequest { endpoint_type: 1, ..Default::default() };
        let answer = self.request(Target::Any, &request).await?;
        check(|| "the cluster".to_owned(), answer.error_code, answer.error_message.as_deref())?;
        let brokers = answer.brokers.iter();
        let mut brokers: Vec<_> = brokers
            .filter_map(|row| BrokerInfo::from_wire(row.broker_id, &row.host, row.port, row.rack.as_ref()))
            .collect();
        brokers.sort_by_key(|broker| broker.id);
        let controller = (answer.controller_id >= 0).then_some(BrokerId(answer.controller_id));
        Ok(ClusterInfo { id: answer.cluster_id.to_string(), controller, brokers })
    }

    /// The directories of a broker and what lies in them.
    ///
    /// # Errors
    /// The broker does not answer, or cannot read a directory.
    pub async fn describe_log_dirs(&self, broker: BrokerId) -> Result<Vec<LogDir>, Error> {
        let answer = self.request(Target::Broker(broker), &DescribeLogDirsRequest { topics: None }).await?;
        check(|| format!("the directories of broker {broker}"), answer.error_code, None)?;
        let size = |bytes: i64| u64::try_from(bytes).ok();
        answer
            .results
            .iter()
            .map(|row| {
                check(|| format!("directory {}", row.log_dir), row.error_code, None)?;
                let partitions = row.topics.iter().flat_map(|topic| {
                    topic.partitions.iter().map(|partition| {
                        let at = TopicPartition::new(&topic.name, PartitionIndex(partition.partition_index));
                        (at, size(partition.partition_size).unwrap_or(0))
                    })
                });
                Ok(LogDir {
                    path: row.log_dir.to_string(),
                    total_bytes: size(row.total_bytes),
                    usable_bytes: size(row.usable_bytes),
                    partitions: partitions.collect(),
                })
            })
            .collect()
    }

    /// The producers whose state a partition keeps.
    ///
    /// # Errors
    /// The partition does not exist.
    pub async fn describe_producers(&self, at: &TopicPartition) -> Result<Vec<ProducerState>, Error> {
        let row = TopicRequest { name: (*at.topic).into(), partition_indexes: vec![at.partition.0] };
        let request = DescribeProducersRequest { topics: vec![row] };
        self.led(&BTreeSet::from([&*at.topic]), || async {
            let leader = Target::Broker(self.leader(at)?.0);
            let answer = self.request_once(leader, &request).await?;
            let row = only(answer.topics.first().and_then(|topic| topic.partitions.first()))?;
            check(|| format!("partition {at}"), row.error_code, row.error_message.as_deref())?;
            let state = |row: &ottla_protocol::messages::describe_producers_response::ProducerState| ProducerState {
                id: ProducerId(row.producer_id),
                epoch: row.producer_epoch,
                last_sequence: row.last_sequence,
                last_timestamp: (row.last_timestamp >= 0).then_some(Timestamp(row.last_timestamp)),
                transaction_start: (row.current_txn_start_offset >= 0).then_some(Offset(row.current_txn_start_offset)),
            };
            Ok(row.active_producers.iter().map(state).collect())
        })
        .await
    }

    /// As `retry`, for what only the controller does: learns who that is before the next try.
    pub(crate) async fn change<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.retry(|| async {
            let result = attempt().await;
            if let Err(error) = &result
                && error.code() == Some(ErrorCode::NotController)
            {
                let _ = self.refresh(Some(&[]), false).await;
            }
            result
        })
        .await
    }
}

fn describe(resource: &ConfigResource) -> String {
    match resource {
        ConfigResource::Topic(name) => format!("topic {name}"),
        ConfigResource::Group(name) => format!("group {name}"),
        ConfigResource::Broker(id) => format!("broker {id}"),
        ConfigResource::AllBrokers => "all brokers".to_owned(),
    }
}

/// Type and name on the wire, and who can answer.
fn on_wire(resource: &ConfigResource) -> (i8, ByteString, Target) {
    const TOPIC: i8 = 2;
    const BROKER: i8 = 4;
    const GROUP: i8 = 32;
    match resource {
        ConfigResource::Topic(name) => (TOPIC, name.as_str().into(), Target::Any),
        ConfigResource::Group(name) => (GROUP, name.as_str().into(), Target::Any),
        ConfigResource::Broker(id) => (BROKER, id.to_string().into(), Target::Broker(*id)),
        ConfigResource::AllBrokers => (BROKER, ByteString::new(), Target::Any),
    }
}

fn entry(row: &DescribeConfigsResourceResult) -> ConfigEntry {
    let text = |text: &Option<ByteString>| text.as_ref().map(ToString::to_string);
    let synonym = |row: &ottla_protocol::messages::describe_configs_response::DescribeConfigsSynonym| {
        (row.name.to_string(), text(&row.value), ConfigSource::from_wire(row.source))
    };
    let kind = match row.config_type {
        1 => "BOOLEAN",
        2 => "STRING",
        3 => "INT",
        4 => "SHORT",
        5 => "LONG",
        6 => "DOUBLE",
        7 => "LIST",
        8 => "CLASS",
        9 => "PASSWORD",
        _ => "UNKNOWN",
    };
    ConfigEntry {
        name: row.name.to_string(),
        value: text(&row.value),
        source: ConfigSource::from_wire(row.config_source),
        kind,
        read_only: row.read_only,
        sensitive: row.is_sensitive,
        synonyms: row.synonyms.iter().map(synonym).collect(),
        documentation: text(&row.documentation),
    }
}
