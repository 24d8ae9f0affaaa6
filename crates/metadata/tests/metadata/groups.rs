//! The configs of groups: the broker's, what must hold between them, and those of one group on top.

use ottla_metadata::{
    AlteredConfigs, Refusal,
    config::{Assignor, CompressionType, ConfigError, GroupConfig, MigrationPolicy, Need, Overrides, Scope, Settings},
};
use ottla_types::BrokerId;

use crate::cluster::{ALL_BROKERS, Cluster, set};

fn resolved(cluster: &Cluster) -> GroupConfig {
    GroupConfig::resolve(&cluster.image.layers(BrokerId(1), &cluster.settings))
}

fn overrides(pairs: &[(&str, &str)]) -> Overrides {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn start(pairs: &[(&str, &str)]) -> Result<(), ConfigError> {
    Settings::check(overrides(pairs)).map(|_| ())
}

#[test]
fn the_defaults_of_groups_are_kafkas() {
    let expected = GroupConfig {
        classic_min_session_timeout_ms: 6000,
        classic_max_session_timeout_ms: 1_800_000,
        classic_initial_rebalance_delay_ms: 3000,
        classic_max_size: 2_147_483_647,
        consumer_protocol: true,
        consumer_session_timeout_ms: 45_000,
        consumer_min_session_timeout_ms: 45_000,
        consumer_max_session_timeout_ms: 60_000,
        consumer_heartbeat_interval_ms: 5000,
        consumer_min_heartbeat_interval_ms: 5000,
        consumer_max_heartbeat_interval_ms: 15_000,
        consumer_assignment_interval_ms: 1000,
        consumer_min_assignment_interval_ms: 0,
        consumer_max_assignment_interval_ms: 15_000,
        consumer_max_size: 2_147_483_647,
        consumer_assignors: &[Assignor::Uniform, Assignor::Range],
        consumer_migration_policy: MigrationPolicy::Bidirectional,
        consumer_regex_refresh_interval_ms: 600_000,
        offset_metadata_max_bytes: 4096,
        offsets_commit_timeout_ms: 5000,
        offsets_retention_ms: 7 * 24 * 3_600_000,
        offsets_retention_check_interval_ms: 600_000,
        offsets_topic_compression: CompressionType::Uncompressed,
        offsets_topic_partitions: 50,
        offsets_topic_replication_factor: 3,
        offsets_topic_segment_bytes: 104_857_600,
    };
    assert_eq!(GroupConfig::default(), expected);
    assert_eq!(resolved(&Cluster::of(1)), expected);
}

#[test]
fn every_field_of_a_group_config_follows_its_config() {
    let cluster = Cluster::with(
        1,
        &[
            ("group.min.session.timeout.ms", "1"),
            ("group.max.session.timeout.ms", "2"),
            ("group.initial.rebalance.delay.ms", "0"),
            ("group.max.size", "3"),
            ("group.coordinator.rebalance.protocols", "classic"),
            ("group.consumer.session.timeout.ms", "1005"),
            ("group.consumer.min.session.timeout.ms", "1004"),
            ("group.consumer.max.session.timeout.ms", "1006"),
            ("group.consumer.heartbeat.interval.ms", "8"),
            ("group.consumer.min.heartbeat.interval.ms", "7"),
            ("group.consumer.max.heartbeat.interval.ms", "9"),
            ("group.consumer.assignment.interval.ms", "11"),
            ("group.consumer.min.assignment.interval.ms", "10"),
            ("group.consumer.max.assignment.interval.ms", "12"),
            ("group.consumer.max.size", "13"),
            ("group.consumer.assignors", "range"),
            ("group.consumer.migration.policy", "UPGRADE"),
            ("group.consumer.regex.refresh.interval.ms", "10000"),
            ("offset.metadata.max.bytes", "14"),
            ("offsets.commit.timeout.ms", "15"),
            ("offsets.retention.minutes", "16"),
            ("offsets.retention.check.interval.ms", "17"),
            ("offsets.topic.compression.codec", "4"),
            ("offsets.topic.num.partitions", "18"),
            ("offsets.topic.replication.factor", "1"),
            ("offsets.topic.segment.bytes", "1048576"),
        ],
    );
    let expected = GroupConfig {
        classic_min_session_timeout_ms: 1,
        classic_max_session_timeout_ms: 2,
        classic_initial_rebalance_delay_ms: 0,
        classic_max_size: 3,
        consumer_protocol: false,
        consumer_session_timeout_ms: 1005,
        consumer_min_session_timeout_ms: 1004,
        consumer_max_session_timeout_ms: 1006,
        consumer_heartbeat_interval_ms: 8,
        consumer_min_heartbeat_interval_ms: 7,
        consumer_max_heartbeat_interval_ms: 9,
        consumer_assignment_interval_ms: 11,
        consumer_min_assignment_interval_ms: 10,
        consumer_max_assignment_interval_ms: 12,
        consumer_max_size: 13,
        consumer_assignors: &[Assignor::Range],
        consumer_migration_policy: MigrationPolicy::Upgrade,
        consumer_regex_refresh_interval_ms: 10_000,
        offset_metadata_max_bytes: 14,
        offsets_commit_timeout_ms: 15,
        offsets_retention_ms: 16 * 60_000,
        offsets_retention_check_interval_ms: 17,
        offsets_topic_compression: CompressionType::Zstd,
        offsets_topic_partitions: 18,
        offsets_topic_replication_factor: 1,
        offsets_topic_segment_bytes: 1_048_576,
    };
    assert_eq!(resolved(&cluster), expected);
}

#[test]
fn what_is_enforced_of_groups_says_so_in_the_table() {
    for definition in Scope::Broker.definitions() {
        let name = definition.name;
        let ours = ["group.consumer.", "group.m", "group.initial", "offset"].iter().any(|part| name.starts_with(part));
        // Kafka's own buffers, which Ottla has no use for.
        if ours && name != "offsets.load.buffer.size" {
            assert_eq!(definition.need, Need::Enforced, "{name}");
        }
    }
}

#[test]
fn limits_of_groups_that_contradict_each_other_keep_a_broker_from_starting() {
    for pairs in [
        [("group.min.session.timeout.ms", "10"), ("group.max.session.timeout.ms", "9")],
        [("group.consumer.min.session.timeout.ms", "70000"), ("group.consumer.max.session.timeout.ms", "80000")],
        [("group.consumer.session.timeout.ms", "60001"), ("group.max.size", "1")],
        [("group.consumer.heartbeat.interval.ms", "4999"), ("group.max.size", "1")],
        [("group.consumer.heartbeat.interval.ms", "15001"), ("group.max.size", "1")],
        [("group.consumer.assignment.interval.ms", "15001"), ("group.max.size", "1")],
        [("group.consumer.heartbeat.interval.ms", "45000"), ("group.consumer.max.heartbeat.interval.ms", "45000")],
    ] {
        let refused = start(&pairs);
        assert!(matches!(refused, Err(ConfigError::Conflict { .. })), "{pairs:?}: {refused:?}");
    }
    let told = start(&[("group.consumer.session.timeout.ms", "44999")]).unwrap_err().to_string();
    assert_eq!(
        told,
        "group.consumer.min.session.timeout.ms=45000 contradicts group.consumer.session.timeout.ms=44999: the first \
         must not exceed the second"
    );
    for (key, value) in [
        ("group.coordinator.rebalance.protocols", "consumer"),
        ("group.coordinator.rebalance.protocols", ""),
        ("group.coordinator.rebalance.protocols", "classic,share"),
        ("group.consumer.assignors", ""),
        ("group.consumer.assignors", "sticky"),
        ("group.consumer.migration.policy", "sideways"),
        ("offsets.topic.compression.codec", "5"),
        ("offsets.topic.segment.bytes", "1048575"),
    ] {
        let refused = start(&[(key, value)]);
        assert!(matches!(refused, Err(ConfigError::Invalid { .. })), "{key}={value}: {refused:?}");
    }
}

#[test]
fn the_assignment_interval_changes_at_run_time_and_within_its_limits() {
    let key = "group.consumer.assignment.interval.ms";
    let mut cluster = Cluster::of(1);
    for resource in [ALL_BROKERS, AlteredConfigs::Broker(Some(BrokerId(1)))] {
        cluster.alter(resource.clone(), &[(key, set("2000"))]).unwrap();
        assert_eq!(resolved(&cluster).consumer_assignment_interval_ms, 2000);
        let refused = cluster.alter(resource, &[(key, set("15001"))]);
        assert!(matches!(refused, Err(Refusal::InvalidBrokerConfig(ConfigError::Conflict { .. }))), "{refused:?}");
    }
    // What was taken under wider limits does not break the limits of today.
    cluster.settings = crate::cluster::settings(&[(key, "10"), ("group.consumer.max.assignment.interval.ms", "1000")]);
    assert_eq!(resolved(&cluster).consumer_assignment_interval_ms, 1000);
}

#[test]
fn a_group_overrides_what_it_sets_and_stays_within_the_brokers_limits() {
    let broker = GroupConfig::default();
    assert_eq!(broker.with_overrides(&Overrides::new()), broker);
    let own = overrides(&[
        ("consumer.session.timeout.ms", "50000"),
        ("consumer.heartbeat.interval.ms", " 6000 "),
        ("consumer.assignment.interval.ms", "0"),
    ]);
    let expected = GroupConfig {
        consumer_session_timeout_ms: 50_000,
        consumer_heartbeat_interval_ms: 6000,
        consumer_assignment_interval_ms: 0,
        ..broker
    };
    assert_eq!(broker.with_overrides(&own), expected);
    let outside = overrides(&[
        ("consumer.session.timeout.ms", "1"),
        ("consumer.heartbeat.interval.ms", "20000"),
        ("consumer.assignment.interval.ms", "soon"),
    ]);
    let expected =
        GroupConfig { consumer_session_timeout_ms: 45_000, consumer_heartbeat_interval_ms: 15_000, ..broker };
    assert_eq!(broker.with_overrides(&outside), expected);
}

#[test]
fn a_migration_policy_is_a_way_and_not_its_opposite() {
    let ways = |policy: MigrationPolicy| (policy.allows_upgrade(), policy.allows_downgrade());
    assert_eq!(ways(MigrationPolicy::Disabled), (false, false));
    assert_eq!(ways(MigrationPolicy::Upgrade), (true, false));
    assert_eq!(ways(MigrationPolicy::Downgrade), (false, true));
    assert_eq!(ways(MigrationPolicy::Bidirectional), (true, true));
}
