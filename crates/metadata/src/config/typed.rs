//! Configs as the hot path reads them: plain fields, parsed once when something changes.
//!
//! Resolving cannot fail: values were checked when they were set, and one that an older version took and this one does
//! not counts as not set. What is not here: which layer wins (`resolve.rs`), and configs of groups (`typed_group.rs`).

use std::str::FromStr;

use super::{Layers, Overrides, Scope, broker::LEADER_SELECTOR, split_list, valid::parse_bool};

/// What is done with old records; neither means that everything is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Segments go by age and size.
    pub delete: bool,
    /// Only the last record of each key stays.
    pub compact: bool,
}

/// `compression.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// What the producer chose.
    Producer,
    /// No compression.
    Uncompressed,
    /// At `compression.gzip.level`.
    Gzip,
    /// Has no levels.
    Snappy,
    /// At `compression.lz4.level`.
    Lz4,
    /// At `compression.zstd.level`.
    Zstd,
}

/// `message.timestamp.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's.
    LogAppendTime,
}

/// `ottla.durability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Acknowledged means synced to disk on every replica in sync.
    Fsync,
    /// Acknowledged means in the memory of every replica in sync.
    Replicated,
}

/// The configs of one topic. Times are in milliseconds, sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy`
    pub cleanup_policy: CleanupPolicy,
    /// `compression.type`
    pub compression_type: CompressionType,
    /// `compression.gzip.level`: 1 to 9, or -1 for the library's choice
    pub compression_gzip_level: i32,
    /// `compression.lz4.level`: 1 to 17
    pub compression_lz4_level: i32,
    /// `compression.zstd.level`: -131072 to 22
    pub compression_zstd_level: i32,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
    /// `file.delete.delay.ms`
    pub file_delete_delay_ms: i64,
    /// `flush.messages`, at least 1
    pub flush_messages: i64,
    /// `flush.ms`
    pub flush_ms: i64,
    /// `index.interval.bytes`
    pub index_interval_bytes: u32,
    /// `max.compaction.lag.ms`, at least `min_compaction_lag_ms`
    pub max_compaction_lag_ms: i64,
    /// `max.message.bytes`
    pub max_message_bytes: u32,
    /// `message.timestamp.after.max.ms`
    pub message_timestamp_after_max_ms: i64,
    /// `message.timestamp.before.max.ms`
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.type`
    pub message_timestamp_type: TimestampType,
    /// `min.cleanable.dirty.ratio`, 0 to 1
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`
    pub min_compaction_lag_ms: i64,
    /// `min.insync.replicas`, at least 1
    pub min_insync_replicas: u32,
    /// `ottla.durability`
    pub durability: Durability,
    /// `ottla.retention.disk.percent`: above 0, at most 100
    pub retention_disk_percent: Option<f64>,
    /// `ottla.retention.topic.bytes`
    pub retention_topic_bytes: Option<u64>,
    /// `preallocate`
    pub preallocate: bool,
    /// `retention.bytes`, of each partition; `None` is no limit
    pub retention_bytes: Option<u64>,
    /// `retention.ms`; `None` is for ever
    pub retention_ms: Option<i64>,
    /// `segment.bytes`
    pub segment_bytes: u32,
    /// `segment.index.bytes`
    pub segment_index_bytes: u32,
    /// `segment.jitter.ms`
    pub segment_jitter_ms: i64,
    /// `segment.ms`
    pub segment_ms: i64,
    /// `unclean.leader.election.enable`
    pub unclean_leader_election: bool,
}

/// The configs of one broker that its own code reads. Times are in milliseconds, sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BrokerConfig {
    /// `auto.create.topics.enable`
    pub auto_create_topics: bool,
    /// `auto.leader.rebalance.enable`
    pub auto_leader_rebalance: bool,
    /// `broker.heartbeat.interval.ms`
    pub broker_heartbeat_interval_ms: u32,
    /// `broker.session.timeout.ms`
    pub broker_session_timeout_ms: u32,
    /// `connections.max.idle.ms`; `None` is never
    pub connections_max_idle_ms: Option<u64>,
    /// `default.replication.factor`
    pub default_replication_factor: i16,
    /// `delete.topic.enable`
    pub delete_topic: bool,
    /// `fetch.max.bytes`
    pub fetch_max_bytes: u32,
    /// `leader.imbalance.check.interval.seconds`
    pub leader_imbalance_check_interval_s: u64,
    /// `log.cleaner.backoff.ms`
    pub log_cleaner_backoff_ms: u64,
    /// `log.cleaner.dedupe.buffer.size`
    pub log_cleaner_dedupe_buffer_bytes: u64,
    /// `log.cleaner.enable`
    pub log_cleaner_enable: bool,
    /// `log.cleaner.io.max.bytes.per.second`; no limit unless above 0
    pub log_cleaner_io_bytes_per_second: f64,
    /// `log.cleaner.threads`
    pub log_cleaner_threads: u32,
    /// `log.retention.check.interval.ms`
    pub log_retention_check_interval_ms: u64,
    /// `max.connection.creation.rate`, a second
    pub max_connection_creation_rate: u32,
    /// `max.connections`
    pub max_connections: u32,
    /// `max.connections.per.ip`
    pub max_connections_per_ip: u32,
    /// `max.incremental.fetch.session.cache.slots`
    pub max_fetch_sessions: u32,
    /// `max.request.partition.size.limit`
    pub max_request_partitions: u32,
    /// `num.partitions`
    pub num_partitions: i32,
    /// `ottla.disk.reserve.bytes`
    pub disk_reserve_bytes: u64,
    /// `ottla.memory.bytes`
    pub memory_bytes: u64,
    /// `producer.id.expiration.ms`
    pub producer_id_expiration_ms: i64,
    /// `replica.selector.class`: whether a consumer is sent to followers in its rack (KIP-392).
    pub rack_aware_reads: bool,
    /// `replica.fetch.max.bytes`
    pub replica_fetch_max_bytes: i32,
    /// `replica.fetch.response.max.bytes`
    pub replica_fetch_response_max_bytes: i32,
    /// `replica.fetch.wait.max.ms`
    pub replica_fetch_wait_max_ms: i32,
    /// `replica.lag.time.max.ms`
    pub replica_lag_time_max_ms: u64,
    /// `socket.request.max.bytes`
    pub socket_request_max_bytes: u32,
    /// `transaction.max.timeout.ms`
    pub transaction_max_timeout_ms: i32,
}

impl Default for TopicConfig {
    /// The defaults of the table: a topic that overrides nothing on a broker where nothing is set.
    fn default() -> TopicConfig {
        TopicConfig {
            cleanup_policy: CleanupPolicy { delete: true, compact: false },
            compression_type: CompressionType::Producer,
            compression_gzip_level: -1,
            compression_lz4_level: 9,
            compression_zstd_level: 3,
            delete_retention_ms: 86_400_000,
            file_delete_delay_ms: 60_000,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            index_interval_bytes: 4096,
            max_compaction_lag_ms: i64::MAX,
            max_message_bytes: 1_048_588,
            message_timestamp_after_max_ms: 3_600_000,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_type: TimestampType::CreateTime,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            min_insync_replicas: 1,
            durability: Durability::Fsync,
            retention_disk_percent: None,
            retention_topic_bytes: None,
            preallocate: false,
            retention_bytes: None,
            retention_ms: Some(604_800_000),
            segment_bytes: 1_073_741_824,
            segment_index_bytes: 10_485_760,
            segment_jitter_ms: 0,
            segment_ms: 604_800_000,
            unclean_leader_election: false,
        }
    }
}

impl TopicConfig {
    /// What holds for a topic that overrides nothing. Resolve once per change of a layer, then add each topic's own
    /// with [`TopicConfig::with_overrides`].
    pub fn resolve(layers: &Layers<'_>) -> TopicConfig {
        let mut config = TopicConfig::default();
        for definition in Scope::Topic.definitions() {
            if let Some(value) = layers.inherited(definition) {
                config.set(definition.name, &value);
            }
        }
        config
    }

    /// This config with a topic's own values on top.
    pub fn with_overrides(mut self, overrides: &Overrides) -> TopicConfig {
        for (key, value) in overrides {
            if Scope::Topic.find(key).is_some_and(|definition| definition.check(value).is_ok()) {
                self.set(key, value);
            }
        }
        self
    }

    /// Takes one value that its definition has accepted; what does not parse leaves the field as it is.
    fn set(&mut self, key: &str, value: &str) {
        match key {
            "cleanup.policy" => {
                let holds = |policy: &str| split_list(value).any(|entry| entry == policy);
                self.cleanup_policy = CleanupPolicy { delete: holds("delete"), compact: holds("compact") };
            }
            "compression.type" => put(&mut self.compression_type, CompressionType::named(value)),
            "compression.gzip.level" => put(&mut self.compression_gzip_level, parsed(value)),
            "compression.lz4.level" => put(&mut self.compression_lz4_level, parsed(value)),
            "compression.zstd.level" => put(&mut self.compression_zstd_level, parsed(value)),
            "delete.retention.ms" => put(&mut self.delete_retention_ms, parsed(value)),
            "file.delete.delay.ms" => put(&mut self.file_delete_delay_ms, parsed(value)),
            "flush.messages" => put(&mut self.flush_messages, parsed(value)),
            "flush.ms" => put(&mut self.flush_ms, parsed(value)),
            "index.interval.bytes" => put(&mut self.index_interval_bytes, parsed(value)),
            "max.compaction.lag.ms" => put(&mut self.max_compaction_lag_ms, parsed(value)),
            "max.message.bytes" => put(&mut self.max_message_bytes, parsed(value)),
            "message.timestamp.after.max.ms" => put(&mut self.message_timestamp_after_max_ms, parsed(value)),
            "message.timestamp.before.max.ms" => put(&mut self.message_timestamp_before_max_ms, parsed(value)),
            "message.timestamp.type" => put(&mut self.message_timestamp_type, TimestampType::named(value)),
            "min.cleanable.dirty.ratio" => put(&mut self.min_cleanable_dirty_ratio, parsed(value)),
            "min.compaction.lag.ms" => put(&mut self.min_compaction_lag_ms, parsed(value)),
            "min.insync.replicas" => put(&mut self.min_insync_replicas, parsed(value)),
            "ottla.durability" => put(&mut self.durability, Durability::named(value)),
            "ottla.retention.disk.percent" => {
                put(
                    &mut self.retention_disk_percent,
                    parsed(value).map(|percent: f64| (percent > 0.0).then_some(percent)),
                );
            }
            "ottla.retention.topic.bytes" => put(&mut self.retention_topic_bytes, parsed(value).map(unless_negative)),
            "preallocate" => put(&mut self.preallocate, parse_bool(value)),
            "retention.bytes" => put(&mut self.retention_bytes, parsed(value).map(unless_negative)),
            "retention.ms" => put(&mut self.retention_ms, parsed(value).map(|ms: i64| (ms >= 0).then_some(ms))),
            "segment.bytes" => put(&mut self.segment_bytes, parsed(value)),
            "segment.index.bytes" => put(&mut self.segment_index_bytes, parsed(value)),
            "segment.jitter.ms" => put(&mut self.segment_jitter_ms, parsed(value)),
            "segment.ms" => put(&mut self.segment_ms, parsed(value)),
            "unclean.leader.election.enable" => put(&mut self.unclean_leader_election, parse_bool(value)),
            // Throttles and tiering have no field: nothing reads them yet.
            _ => {}
        }
    }
}

impl BrokerConfig {
    /// What holds for the broker that sees these layers.
    pub fn resolve(layers: &Layers<'_>) -> BrokerConfig {
        let get = |key: &str| layers.broker_value(key);
        BrokerConfig {
            auto_create_topics: get("auto.create.topics.enable").and_then(parse_bool).unwrap_or_default(),
            auto_leader_rebalance: get("auto.leader.rebalance.enable").and_then(parse_bool).unwrap_or_default(),
            broker_heartbeat_interval_ms: number(get("broker.heartbeat.interval.ms")),
            broker_session_timeout_ms: number(get("broker.session.timeout.ms")),
            connections_max_idle_ms: unless_negative(number(get("connections.max.idle.ms"))),
            default_replication_factor: number(get("default.replication.factor")),
            delete_topic: get("delete.topic.enable").and_then(parse_bool).unwrap_or_default(),
            fetch_max_bytes: number(get("fetch.max.bytes")),
            leader_imbalance_check_interval_s: number(get("leader.imbalance.check.interval.seconds")),
            log_cleaner_backoff_ms: number(get("log.cleaner.backoff.ms")),
            log_cleaner_dedupe_buffer_bytes: number(get("log.cleaner.dedupe.buffer.size")),
            log_cleaner_enable: get("log.cleaner.enable").and_then(parse_bool).unwrap_or_default(),
            log_cleaner_io_bytes_per_second: number(get("log.cleaner.io.max.bytes.per.second")),
            log_cleaner_threads: number(get("log.cleaner.threads")),
            log_retention_check_interval_ms: number(get("log.retention.check.interval.ms")),
            max_connection_creation_rate: number(get("max.connection.creation.rate")),
            max_connections: number(get("max.connections")),
            max_connections_per_ip: number(get("max.connections.per.ip")),
            max_fetch_sessions: number(get("max.incremental.fetch.session.cache.slots")),
            max_request_partitions: number(get("max.request.partition.size.limit")),
            num_partitions: number(get("num.partitions")),
            disk_reserve_bytes: number(get("ottla.disk.reserve.bytes")),
            memory_bytes: number(get("ottla.memory.bytes")),
            producer_id_expiration_ms: number(get("producer.id.expiration.ms")),
            rack_aware_reads: get("replica.selector.class") != Some(LEADER_SELECTOR),
            replica_fetch_max_bytes: number(get("replica.fetch.max.bytes")),
            replica_fetch_response_max_bytes: number(get("replica.fetch.response.max.bytes")),
            replica_fetch_wait_max_ms: number(get("replica.fetch.wait.max.ms")),
            replica_lag_time_max_ms: number(get("replica.lag.time.max.ms")),
            socket_request_max_bytes: number(get("socket.request.max.bytes")),
            transaction_max_timeout_ms: number(get("transaction.max.timeout.ms")),
        }
    }
}

impl CompressionType {
    fn named(value: &str) -> Option<CompressionType> {
        Some(match value.trim() {
            "producer" => CompressionType::Producer,
            "uncompressed" => CompressionType::Uncompressed,
            "gzip" => CompressionType::Gzip,
            "snappy" => CompressionType::Snappy,
            "lz4" => CompressionType::Lz4,
            "zstd" => CompressionType::Zstd,
            _ => return None,
        })
    }
}

impl TimestampType {
    fn named(value: &str) -> Option<TimestampType> {
        Some(match value.trim() {
            "CreateTime" => TimestampType::CreateTime,
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => return None,
        })
    }
}

impl Durability {
    fn named(value: &str) -> Option<Durability> {
        Some(match value.trim() {
            "fsync" => Durability::Fsync,
            "replicated" => Durability::Replicated,
            _ => return None,
        })
    }
}

/// A value that its definition accepted, or its default: both parse.
pub(super) fn number<T: FromStr + Default>(value: Option<&str>) -> T {
    value.and_then(parsed).unwrap_or_default()
}

pub(super) fn parsed<T: FromStr>(value: &str) -> Option<T> {
    value.trim().parse().ok()
}

fn unless_negative(bytes: i64) -> Option<u64> {
    u64::try_from(bytes).ok()
}

pub(super) fn put<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}
