//! The configs of groups: the broker's, what must hold between them, and those of one group on top.

use ottla_metadata::{
    AlteredConfigs, Command, CreatedTopic, NewPartitions, OFFSETS_TOPIC, Refusal, Reply,
    config::{
        Assignor, CompressionType, ConfigError, Entry, GroupConfig, Kind, MigrationPolicy, Need, Operation, Overrides,
        Scope, Settings, Source,
    },
};
use ottla_types::BrokerId;

use crate::cluster::{ALL_BROKERS, Cluster, set};

fn resolved(cluster: &Cluster) -> GroupConfig {
    GroupConfig::resolve(&cluster.image.layers(BrokerId(1), &cluster.settings))
}

fn overrides(pairs: &[(&str, &str)]) -> Overrides {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn on_group(id: &str) -> AlteredConfigs {
    AlteredConfigs::Group(id.to_owned())
}

fn entry(cluster: &Cluster, id: &str, key: &str) -> Entry {
    let layers = cluster.image.layers(BrokerId(1), &cluster.settings);
    let entries = layers.group_entries(cluster.image.group_configs(id));
    entries.into_iter().find(|entry| entry.name == key).unwrap()
}

fn create_offsets_topic(cluster: &mut Cluster) -> Result<CreatedTopic, Refusal> {
    match cluster.run(Command::CreateOffsetsTopic) {
        Ok(Reply::TopicsCreated(mut rows)) if rows.len() == 1 => rows.remove(0).1,
        other => panic!("{other:?}"),
    }
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
        ("offsets.topic.num.partitions", "10001"),
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

#[test]
fn a_group_is_configured_before_it_exists_and_forgotten_with_its_last_config() {
    let mut cluster = Cluster::of(1);
    let key = "consumer.session.timeout.ms";
    cluster.alter(on_group("g"), &[(key, set("50000")), ("streams.num.standby.replicas", set("1"))]).unwrap();
    cluster.replace(on_group("a"), &[("share.auto.offset.reset", "by_duration:PT1H30M")]).unwrap();
    assert_eq!(cluster.image.configured_groups().collect::<Vec<_>>(), ["a", "g"]);
    let config = resolved(&cluster).with_overrides(cluster.image.group_configs("g"));
    assert_eq!(config.consumer_session_timeout_ms, 50_000);
    assert_eq!(cluster.image.group_configs("nobody"), &Overrides::new());

    cluster.replace(on_group("g"), &[(key, "55000")]).unwrap();
    assert_eq!(cluster.image.group_configs("g"), &overrides(&[(key, "55000")]));
    cluster.alter(on_group("g"), &[(key, Operation::Delete)]).unwrap();
    cluster.replace(on_group("a"), &[]).unwrap();
    assert_eq!(cluster.image.configured_groups().count(), 0);
}

#[test]
fn a_group_may_not_leave_the_limits_of_its_broker() {
    let mut cluster = Cluster::with(1, &[("group.consumer.max.heartbeat.interval.ms", "46000")]);
    let before = cluster.image.clone();
    for (key, value) in [
        ("consumer.session.timeout.ms", "44999"),
        ("consumer.session.timeout.ms", "60001"),
        ("consumer.heartbeat.interval.ms", "4999"),
        ("consumer.heartbeat.interval.ms", "46001"),
        ("consumer.heartbeat.interval.ms", "45000"),
        ("consumer.assignment.interval.ms", "15001"),
    ] {
        let refused = cluster.alter(on_group("g"), &[(key, set(value))]);
        assert!(matches!(refused, Err(Refusal::InvalidGroupConfig(ConfigError::Conflict { .. }))), "{refused:?}");
    }
    for (key, value) in [
        ("consumer.session.timeout.ms", "soon"),
        ("share.isolation.level", "none"),
        ("share.auto.offset.reset", "by_duration:x"),
        ("share.auto.offset.reset", "by_duration:PT"),
        ("share.delivery.count.limit", "11"),
        ("streams.num.standby.replicas", "-1"),
    ] {
        let refused = cluster.alter(on_group("g"), &[(key, set(value))]);
        assert!(matches!(refused, Err(Refusal::InvalidGroupConfig(ConfigError::Invalid { .. }))), "{refused:?}");
    }
    let Err(Refusal::InvalidGroupConfig(error)) = cluster.alter(on_group("g"), &[("bogus", set("1"))]) else {
        panic!("a name that does not exist was taken");
    };
    assert_eq!(error.to_string(), "Unknown group config name: bogus");
    for id in [String::new(), "g".repeat(32_768)] {
        let refused = cluster.alter(on_group(&id), &[("consumer.session.timeout.ms", set("50000"))]);
        assert!(matches!(refused, Err(Refusal::InvalidRequest(_))), "{refused:?}");
    }
    assert_eq!(cluster.image, before);
    // Together they fit.
    let both = [("consumer.heartbeat.interval.ms", set("45000")), ("consumer.session.timeout.ms", set("45001"))];
    cluster.alter(on_group("g"), &both).unwrap();
}

#[test]
fn every_group_config_is_described_with_what_the_broker_says_below_it() {
    let mut cluster = Cluster::with(1, &[("group.consumer.session.timeout.ms", "46000")]);
    let layers = cluster.image.layers(BrokerId(1), &cluster.settings);
    let names: Vec<String> = layers.group_entries(&Overrides::new()).into_iter().map(|entry| entry.name).collect();
    let table: Vec<&str> = Scope::Group.definitions().iter().map(|definition| definition.name).collect();
    assert_eq!(names, table);
    assert_eq!(table.len(), 17);

    let key = "consumer.session.timeout.ms";
    let inherited = entry(&cluster, "g", key);
    assert_eq!((inherited.value.as_deref(), inherited.source.code()), (Some("46000"), Source::StaticBroker.code()));
    cluster.alter(on_group("g"), &[(key, set("50000"))]).unwrap();
    let own = entry(&cluster, "g", key);
    assert_eq!((own.value.as_deref(), own.source.code(), own.read_only), (Some("50000"), 8, false));
    assert_eq!(own.kind, Some(Kind::Int));
    let story: Vec<(&str, &str, i8)> = own
        .synonyms
        .iter()
        .map(|synonym| (synonym.name.as_str(), synonym.value.as_deref().unwrap(), synonym.source.code()))
        .collect();
    let twin = "group.consumer.session.timeout.ms";
    assert_eq!(story, [(key, "50000", 8), (twin, "46000", 4), (twin, "45000", 5)]);
    assert_eq!(entry(&cluster, "h", key).value.as_deref(), Some("46000"), "another group has its own");
}

#[test]
fn the_offsets_topic_is_made_once_as_the_configs_say() {
    let mut cluster = Cluster::with(2, &[("num.partitions", "7"), ("offsets.topic.segment.bytes", "2097152")]);
    let created = create_offsets_topic(&mut cluster).unwrap();
    assert_eq!((created.partitions, created.replication_factor), (50, 2), "3 replicas, as far as there are brokers");
    let expected = [("cleanup.policy", "compact"), ("compression.type", "producer"), ("segment.bytes", "2097152")];
    assert_eq!(cluster.topic(OFFSETS_TOPIC).overrides, overrides(&expected));
    assert_eq!(cluster.topic(OFFSETS_TOPIC).partitions.len(), 50);

    let before = cluster.image.clone();
    assert_eq!(create_offsets_topic(&mut cluster), Err(Refusal::TopicExists(OFFSETS_TOPIC.to_owned())));
    let more = NewPartitions { name: OFFSETS_TOPIC.to_owned(), count: 51, assignments: None };
    let more = cluster.run(Command::CreatePartitions { topics: vec![more], validate_only: false });
    let Ok(Reply::PartitionsCreated(rows)) = more else { panic!("{more:?}") };
    assert!(matches!(rows[..], [(_, Err(Refusal::InvalidPartitions(_)))]), "groups would not be found any more");
    assert_eq!(cluster.image, before);
    let mut empty = Cluster::of(0);
    assert!(matches!(create_offsets_topic(&mut empty), Err(Refusal::InvalidReplicationFactor(_))));
}
