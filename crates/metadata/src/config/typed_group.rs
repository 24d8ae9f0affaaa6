//! The configs of group coordination as coordinators read them: the broker's, and those of one group on top.
//!
//! What is not here: which layer wins (`resolve.rs`), the rules between these configs (`change.rs`), and the configs of
//! share and streams groups, which nothing reads yet.

use super::{
    CompressionType, Layers, Overrides, Settings, split_list,
    typed::{number, parsed, put},
};

const MINUTE_MS: i64 = 60_000;

/// `group.consumer.assignors`: how the broker can spread partitions over the members of a consumer group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// `uniform`: the same number for each, moving as little as possible.
    Uniform,
    /// `range`: of each topic a contiguous range for each, so that topics line up.
    Range,
}

/// `group.consumer.migration.policy`: which way a group with members may change its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// Neither way.
    Disabled,
    /// From classic to consumer.
    Upgrade,
    /// From consumer to classic.
    Downgrade,
    /// Both ways.
    Bidirectional,
}

/// What holds for groups. Times are in milliseconds, sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`, of classic members
    pub classic_min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub classic_max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub classic_initial_rebalance_delay_ms: i32,
    /// `group.max.size`
    pub classic_max_size: usize,
    /// `group.coordinator.rebalance.protocols`: whether it holds `consumer`
    pub consumer_protocol: bool,
    /// `group.consumer.session.timeout.ms`, or a group's `consumer.session.timeout.ms`
    pub consumer_session_timeout_ms: i32,
    /// `group.consumer.min.session.timeout.ms`
    pub consumer_min_session_timeout_ms: i32,
    /// `group.consumer.max.session.timeout.ms`
    pub consumer_max_session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`, or a group's `consumer.heartbeat.interval.ms`
    pub consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.min.heartbeat.interval.ms`
    pub consumer_min_heartbeat_interval_ms: i32,
    /// `group.consumer.max.heartbeat.interval.ms`
    pub consumer_max_heartbeat_interval_ms: i32,
    /// `group.consumer.assignment.interval.ms`, or a group's `consumer.assignment.interval.ms`
    pub consumer_assignment_interval_ms: i32,
    /// `group.consumer.min.assignment.interval.ms`
    pub consumer_min_assignment_interval_ms: i32,
    /// `group.consumer.max.assignment.interval.ms`
    pub consumer_max_assignment_interval_ms: i32,
    /// `group.consumer.max.size`
    pub consumer_max_size: usize,
    /// `group.consumer.assignors`, the one that members get who do not choose first; never empty
    pub consumer_assignors: &'static [Assignor],
    /// `group.consumer.migration.policy`
    pub consumer_migration_policy: MigrationPolicy,
    /// `group.consumer.regex.refresh.interval.ms`
    pub consumer_regex_refresh_interval_ms: i32,
    /// `offset.metadata.max.bytes`
    pub offset_metadata_max_bytes: usize,
    /// `offsets.commit.timeout.ms`
    pub offsets_commit_timeout_ms: i32,
    /// `offsets.retention.minutes`, in milliseconds
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
    /// `offsets.topic.compression.codec`
    pub offsets_topic_compression: CompressionType,
    /// `offsets.topic.num.partitions`, at its creation
    pub offsets_topic_partitions: i32,
    /// `offsets.topic.replication.factor`, as far as there are brokers
    pub offsets_topic_replication_factor: i16,
    /// `offsets.topic.segment.bytes`
    pub offsets_topic_segment_bytes: u32,
}

impl Assignor {
    /// The name clients choose it by.
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }
}

impl MigrationPolicy {
    /// Whether a classic group with members may become a consumer group.
    pub fn allows_upgrade(self) -> bool {
        matches!(self, MigrationPolicy::Upgrade | MigrationPolicy::Bidirectional)
    }

    /// Whether a consumer group with members may become a classic one.
    pub fn allows_downgrade(self) -> bool {
        matches!(self, MigrationPolicy::Downgrade | MigrationPolicy::Bidirectional)
    }

    fn named(value: &str) -> MigrationPolicy {
        match value.trim().to_ascii_lowercase().as_str() {
            "disabled" => MigrationPolicy::Disabled,
            "upgrade" => MigrationPolicy::Upgrade,
            "downgrade" => MigrationPolicy::Downgrade,
            _ => MigrationPolicy::Bidirectional,
        }
    }
}

impl Default for GroupConfig {
    /// The defaults of the table: a broker where nothing is set.
    fn default() -> GroupConfig {
        let (none, settings) = (Overrides::new(), Settings::default());
        GroupConfig::resolve(&Layers { broker: &none, cluster: &none, settings: &settings })
    }
}

impl GroupConfig {
    /// What holds for a group that overrides nothing. Resolve once per change of a layer, then add each group's own
    /// with [`GroupConfig::with_overrides`].
    pub fn resolve(layers: &Layers<'_>) -> GroupConfig {
        let get = |key: &str| layers.broker_value(key);
        let config = GroupConfig {
            classic_min_session_timeout_ms: number(get("group.min.session.timeout.ms")),
            classic_max_session_timeout_ms: number(get("group.max.session.timeout.ms")),
            classic_initial_rebalance_delay_ms: number(get("group.initial.rebalance.delay.ms")),
            classic_max_size: number(get("group.max.size")),
            consumer_protocol: listed(get("group.coordinator.rebalance.protocols")).any(|name| name == "consumer"),
            consumer_session_timeout_ms: number(get("group.consumer.session.timeout.ms")),
            consumer_min_session_timeout_ms: number(get("group.consumer.min.session.timeout.ms")),
            consumer_max_session_timeout_ms: number(get("group.consumer.max.session.timeout.ms")),
            consumer_heartbeat_interval_ms: number(get("group.consumer.heartbeat.interval.ms")),
            consumer_min_heartbeat_interval_ms: number(get("group.consumer.min.heartbeat.interval.ms")),
            consumer_max_heartbeat_interval_ms: number(get("group.consumer.max.heartbeat.interval.ms")),
            consumer_assignment_interval_ms: number(get("group.consumer.assignment.interval.ms")),
            consumer_min_assignment_interval_ms: number(get("group.consumer.min.assignment.interval.ms")),
            consumer_max_assignment_interval_ms: number(get("group.consumer.max.assignment.interval.ms")),
            consumer_max_size: number(get("group.consumer.max.size")),
            consumer_assignors: assignors(get("group.consumer.assignors")),
            consumer_migration_policy: MigrationPolicy::named(
                get("group.consumer.migration.policy").unwrap_or_default(),
            ),
            consumer_regex_refresh_interval_ms: number(get("group.consumer.regex.refresh.interval.ms")),
            offset_metadata_max_bytes: number(get("offset.metadata.max.bytes")),
            offsets_commit_timeout_ms: number(get("offsets.commit.timeout.ms")),
            offsets_retention_ms: number::<i64>(get("offsets.retention.minutes")).saturating_mul(MINUTE_MS),
            offsets_retention_check_interval_ms: number(get("offsets.retention.check.interval.ms")),
            offsets_topic_compression: codec(get("offsets.topic.compression.codec")),
            offsets_topic_partitions: number(get("offsets.topic.num.partitions")),
            offsets_topic_replication_factor: number(get("offsets.topic.replication.factor")),
            offsets_topic_segment_bytes: number(get("offsets.topic.segment.bytes")),
        };
        config.within_limits()
    }

    /// This config with a group's own values on top.
    pub fn with_overrides(mut self, overrides: &Overrides) -> GroupConfig {
        let own = |key: &str| overrides.get(key).map(String::as_str).and_then(parsed);
        put(&mut self.consumer_session_timeout_ms, own("consumer.session.timeout.ms"));
        put(&mut self.consumer_heartbeat_interval_ms, own("consumer.heartbeat.interval.ms"));
        put(&mut self.consumer_assignment_interval_ms, own("consumer.assignment.interval.ms"));
        self.within_limits()
    }

    /// Values that were right when they were set may lie outside limits that were changed later: the limits win.
    fn within_limits(mut self) -> GroupConfig {
        let session = (self.consumer_min_session_timeout_ms, self.consumer_max_session_timeout_ms);
        let heartbeat = (self.consumer_min_heartbeat_interval_ms, self.consumer_max_heartbeat_interval_ms);
        let assignment = (self.consumer_min_assignment_interval_ms, self.consumer_max_assignment_interval_ms);
        limit(&mut self.consumer_session_timeout_ms, session);
        limit(&mut self.consumer_heartbeat_interval_ms, heartbeat);
        limit(&mut self.consumer_assignment_interval_ms, assignment);
        self
    }
}

fn limit(value: &mut i32, (min, max): (i32, i32)) {
    *value = (*value).min(max).max(min);
}

fn listed(value: Option<&str>) -> impl Iterator<Item = &str> {
    split_list(value.unwrap_or_default())
}

fn assignors(value: Option<&str>) -> &'static [Assignor] {
    use Assignor::{Range, Uniform};
    let names: Vec<&str> = listed(value).collect();
    match names.as_slice() {
        ["uniform"] => &[Uniform],
        ["range"] => &[Range],
        ["range", _] => &[Range, Uniform],
        _ => &[Uniform, Range],
    }
}

fn codec(value: Option<&str>) -> CompressionType {
    match number::<u8>(value) {
        1 => CompressionType::Gzip,
        2 => CompressionType::Snappy,
        3 => CompressionType::Lz4,
        4 => CompressionType::Zstd,
        _ => CompressionType::Uncompressed,
    }
}
