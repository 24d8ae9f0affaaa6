//! Setting configs: what is taken, what is refused and how it is said, and what holds afterwards.

use ottla_metadata::{
    AlteredConfigs, Command, ConfigAlteration, ConfigResource, IncrementalAlteration, Record, Refusal, Reply,
    config::{
        BrokerConfig, CleanupPolicy, CompressionType, ConfigError, Durability, Layers, Need, Operation, Overrides,
        Scope, Settings, Source, TimestampType, TopicConfig,
    },
};
use ottla_types::BrokerId;

use crate::cluster::{ALL_BROKERS, Cluster, on_topic, set, settings, topic};

fn append(value: &str) -> Operation {
    Operation::Append(value.to_owned())
}

fn subtract(value: &str) -> Operation {
    Operation::Subtract(value.to_owned())
}

fn with_topic() -> Cluster {
    let mut cluster = Cluster::of(1);
    cluster.create_one(topic("t")).unwrap();
    cluster
}

fn start(key: &str, value: &str) -> Result<Vec<String>, ConfigError> {
    let (_, warnings) = Settings::check([(key.to_owned(), value.to_owned())])?;
    Ok(warnings.into_iter().map(|warning| warning.key).collect())
}

#[test]
fn the_tables_are_sorted_complete_and_right_by_their_own_rules() {
    let topic_names: Vec<&str> = Scope::Topic.definitions().iter().map(|definition| definition.name).collect();
    assert_eq!(topic_names.iter().filter(|name| !name.starts_with("ottla.")).count(), 33);
    for scope in [Scope::Topic, Scope::Broker, Scope::Group] {
        let all = scope.definitions();
        assert!(all.is_sorted_by(|a, b| a.name < b.name), "{scope:?}");
        for definition in all {
            let name = definition.name;
            assert_eq!(scope.find(name), Some(definition));
            assert!(definition.documentation.ends_with('.'), "{name}");
            if let Some(default) = definition.default {
                assert_eq!(definition.check(default), Ok(()), "{name}");
            }
            for synonym in definition.synonyms {
                let twin = Scope::Broker.find(synonym.name).unwrap_or_else(|| panic!("{}", synonym.name));
                if synonym.unit == 1 && scope != Scope::Broker {
                    assert_eq!((twin.kind, twin.valid), (definition.kind, definition.valid), "{name}");
                }
            }
        }
    }
}

#[test]
fn the_typed_defaults_are_those_of_the_table() {
    let none = Overrides::new();
    let settings = Settings::default();
    let config = TopicConfig::resolve(&Layers { broker: &none, cluster: &none, settings: &settings });
    assert_eq!(config, TopicConfig::default());
    assert_eq!((config.retention_ms, config.segment_ms), (Some(604_800_000), 604_800_000));
    assert_eq!((config.retention_bytes, config.retention_topic_bytes), (None, None));
    assert_eq!(config.retention_disk_percent, None);
    assert_eq!(config.durability, Durability::Fsync);
    assert_eq!(config.cleanup_policy, CleanupPolicy { delete: true, compact: false });
}

#[test]
fn every_field_of_a_topic_config_follows_its_config() {
    let mut cluster = with_topic();
    let values = [
        ("cleanup.policy", ""),
        ("compression.type", "zstd"),
        ("compression.gzip.level", "9"),
        ("compression.lz4.level", "17"),
        ("compression.zstd.level", "-131072"),
        ("delete.retention.ms", "1"),
        ("file.delete.delay.ms", "2"),
        ("flush.messages", "3"),
        ("flush.ms", "4"),
        ("index.interval.bytes", "5"),
        ("max.compaction.lag.ms", "6"),
        ("max.message.bytes", "7"),
        ("message.timestamp.after.max.ms", "8"),
        ("message.timestamp.before.max.ms", "9"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.cleanable.dirty.ratio", "0.25"),
        ("min.compaction.lag.ms", "6"),
        ("min.insync.replicas", "2"),
        ("ottla.durability", "replicated"),
        ("ottla.retention.disk.percent", "12.5"),
        ("ottla.retention.topic.bytes", "10"),
        ("preallocate", "TRUE"),
        ("retention.bytes", "0"),
        ("retention.ms", " -1 "),
        ("segment.bytes", "1048576"),
        ("segment.index.bytes", "11"),
        ("segment.jitter.ms", "12"),
        ("segment.ms", "13"),
    ];
    cluster.replace(on_topic("t"), &values).unwrap();
    let expected = TopicConfig {
        cleanup_policy: CleanupPolicy { delete: false, compact: false },
        compression_type: CompressionType::Zstd,
        compression_gzip_level: 9,
        compression_lz4_level: 17,
        compression_zstd_level: -131_072,
        delete_retention_ms: 1,
        file_delete_delay_ms: 2,
        flush_messages: 3,
        flush_ms: 4,
        index_interval_bytes: 5,
        max_compaction_lag_ms: 6,
        max_message_bytes: 7,
        message_timestamp_after_max_ms: 8,
        message_timestamp_before_max_ms: 9,
        message_timestamp_type: TimestampType::LogAppendTime,
        min_cleanable_dirty_ratio: 0.25,
        min_compaction_lag_ms: 6,
        min_insync_replicas: 2,
        durability: Durability::Replicated,
        retention_disk_percent: Some(12.5),
        retention_topic_bytes: Some(10),
        preallocate: true,
        retention_bytes: Some(0),
        retention_ms: None,
        segment_bytes: 1_048_576,
        segment_index_bytes: 11,
        segment_jitter_ms: 12,
        segment_ms: 13,
        unclean_leader_election: false,
    };
    assert_eq!(cluster.topic_config("t"), expected);
}

#[test]
fn every_value_of_a_topic_config_takes_the_place_of_every_other() {
    let all: [(&str, &[&str]); 9] = [
        ("compression.type", &["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        ("message.timestamp.type", &["CreateTime", "LogAppendTime"]),
        ("ottla.durability", &["fsync", "replicated"]),
        ("cleanup.policy", &["delete", "compact", "compact,delete", ""]),
        ("preallocate", &["true", "false"]),
        ("unclean.leader.election.enable", &["true", "false"]),
        ("retention.ms", &["-1", "0", "1"]),
        ("retention.bytes", &["-1", "0", "1"]),
        ("ottla.retention.disk.percent", &["-1", "0.5", "100"]),
    ];
    let (none, settings) = (Overrides::new(), Settings::default());
    let layers = Layers { broker: &none, cluster: &none, settings: &settings };
    let resolved = TopicConfig::resolve(&layers);
    for (key, values) in all {
        let with = |config: &TopicConfig, value: &str| {
            config.with_overrides(&Overrides::from([(key.to_owned(), value.to_owned())]))
        };
        for before in values {
            for own in values {
                let replaced = with(&with(&resolved, before), own);
                assert_eq!(replaced, with(&resolved, own), "{key}={own} after {before}");
                assert_eq!(replaced == with(&resolved, before), before == own, "{key}={own} is not {before}");
            }
        }
    }
}

#[test]
fn wrong_values_are_refused_with_key_value_and_what_would_be_right() {
    let wrong = [
        ("segment.bytes", "1048575"),
        ("segment.bytes", "2147483648"),
        ("segment.bytes", "1e6"),
        ("retention.ms", "-2"),
        ("retention.ms", "9223372036854775808"),
        ("compression.gzip.level", "0"),
        ("compression.zstd.level", "23"),
        ("compression.type", "none"),
        ("min.cleanable.dirty.ratio", "1.1"),
        ("min.cleanable.dirty.ratio", "NaN"),
        ("min.insync.replicas", "0"),
        ("preallocate", "yes"),
        ("cleanup.policy", "delete,delete"),
        ("cleanup.policy", "shred"),
        ("leader.replication.throttled.replicas", "0"),
        ("ottla.durability", "async"),
        ("ottla.retention.disk.percent", "0"),
        ("ottla.retention.disk.percent", "100.1"),
        ("ottla.retention.disk.percent", "inf"),
        ("ottla.retention.topic.bytes", "0"),
    ];
    for (key, value) in wrong {
        let refused = Scope::Topic.validate(key, value);
        assert!(matches!(refused, Err(ConfigError::Invalid { .. })), "{key}={value}: {refused:?}");
    }
    let told = Scope::Topic.validate("retention.ms", "soon").unwrap_err().to_string();
    assert_eq!(told, "Invalid value soon for configuration retention.ms: it must be a whole number, at least -1");
    assert_eq!(Scope::Topic.validate("ottla.retention.disk.percent", "100"), Ok(()));
    assert_eq!(Scope::Topic.validate("leader.replication.throttled.replicas", "0:1, 2:3"), Ok(()));
    assert_eq!(Scope::Topic.validate("leader.replication.throttled.replicas", "*"), Ok(()));
}

#[test]
fn what_ottla_lacks_is_refused_and_not_stored() {
    let mut cluster = with_topic();
    let lacking =
        [("remote.storage.enable", "true"), ("remote.log.copy.disable", "true"), ("local.retention.ms", "1000")];
    let before = cluster.image.clone();
    for (key, value) in lacking {
        let refused = cluster.alter(on_topic("t"), &[(key, set(value))]);
        let Err(Refusal::InvalidTopicConfig(ConfigError::Lacking { because, .. })) = refused else {
            panic!("{key}={value}: {refused:?}");
        };
        assert!(!because.is_empty());
        if let Some(twin) = Scope::Topic.find(key).and_then(|definition| definition.synonyms.first()) {
            let refused = cluster.alter(ALL_BROKERS, &[(twin.name, set(value))]);
            assert!(matches!(refused, Err(Refusal::InvalidBrokerConfig(ConfigError::Lacking { .. }))), "{}", twin.name);
        }
    }
    assert_eq!(cluster.image, before);
    // The default, said aloud, is no wish for what is missing.
    let harmless = [("remote.storage.enable", set("false"))];
    cluster.alter(on_topic("t"), &harmless).unwrap();
    let later: Vec<&str> =
        Scope::Topic.definitions().iter().filter(|d| d.need == Need::Later).map(|d| d.name).collect();
    assert_eq!(later.len(), 5, "{later:?}");
}

#[test]
fn nothing_that_guards_can_seem_to_be_on() {
    for (key, value) in [
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("listeners", "SASL_SSL://:9092"),
        ("listeners", "PLAINTEXT://:9092,SSL://:9093"),
        ("listener.security.protocol.map", "CLIENT:SASL_SSL"),
        ("ssl.client.auth", "required"),
        ("sasl.enabled.mechanisms", "PLAIN"),
    ] {
        assert!(start(key, value).is_err(), "{key}={value}");
    }
    assert_eq!(start("listeners", "PLAINTEXT://:9092,INSIDE://[::1]:9093"), Ok(vec![]));
}

#[test]
fn increments_work_on_lists_and_on_nothing_else() {
    let mut cluster = with_topic();
    let key = "leader.replication.throttled.replicas";
    let now = |cluster: &Cluster| cluster.topic("t").overrides.get(key).cloned();
    cluster.alter(on_topic("t"), &[(key, append("0:1,1:1"))]).unwrap();
    cluster.alter(on_topic("t"), &[(key, append("1:1,2:1"))]).unwrap();
    assert_eq!(now(&cluster).as_deref(), Some("0:1,1:1,2:1"), "an entry joins once");
    cluster.alter(on_topic("t"), &[(key, subtract("1:1,9:9"))]).unwrap();
    assert_eq!(now(&cluster).as_deref(), Some("0:1,2:1"));
    cluster.alter(on_topic("t"), &[(key, Operation::Delete)]).unwrap();
    assert_eq!(now(&cluster), None);

    // A list that is not set begins at its default.
    cluster.alter(on_topic("t"), &[("cleanup.policy", subtract("delete"))]).unwrap();
    assert_eq!(cluster.topic_config("t").cleanup_policy, CleanupPolicy { delete: false, compact: false });
    cluster.alter(on_topic("t"), &[("cleanup.policy", append("compact"))]).unwrap();
    assert_eq!(cluster.topic_config("t").cleanup_policy, CleanupPolicy { delete: false, compact: true });
    assert_eq!(cluster.topic("t").overrides.get("cleanup.policy").map(String::as_str), Some("compact"));

    for operation in [append("1"), subtract("1")] {
        let refused = cluster.alter(on_topic("t"), &[("retention.ms", operation)]);
        assert!(matches!(refused, Err(Refusal::InvalidTopicConfig(ConfigError::NotAList { .. }))));
    }
}

#[test]
fn alter_configs_replaces_everything_and_increments_touch_what_they_name() {
    let mut cluster = with_topic();
    cluster.alter(on_topic("t"), &[("retention.ms", set("1")), ("segment.ms", set("2"))]).unwrap();
    cluster.alter(on_topic("t"), &[("retention.ms", set("3"))]).unwrap();
    let config = cluster.topic_config("t");
    assert_eq!((config.retention_ms, config.segment_ms), (Some(3), 2));
    cluster.replace(on_topic("t"), &[("flush.ms", "4")]).unwrap();
    let config = cluster.topic_config("t");
    assert_eq!((config.retention_ms, config.segment_ms, config.flush_ms), (Some(604_800_000), 604_800_000, 4));

    let length = cluster.log.len();
    cluster.replace(on_topic("t"), &[("flush.ms", "4")]).unwrap();
    assert_eq!(cluster.log.len(), length, "what is so already is not written again");
}

#[test]
fn a_refused_row_changes_nothing_and_validation_neither() {
    let mut cluster = with_topic();
    let before = cluster.image.clone();
    let half = [("retention.ms", set("1")), ("segment.ms", set("-1"))];
    assert!(cluster.alter(on_topic("t"), &half).is_err());
    assert_eq!(cluster.image, before);
    let row = |name: &str| IncrementalAlteration {
        resource: on_topic(name),
        operations: vec![("retention.ms".to_owned(), Some(set("1")))],
    };
    let validate = |resources| Command::IncrementalAlterConfigs { resources, validate_only: true };
    let Ok(Reply::ConfigsAltered(rows)) = cluster.run(validate(vec![row("t"), row("x")])) else {
        panic!("answered with something else");
    };
    assert_eq!(rows[0], (on_topic("t"), Ok(())));
    assert_eq!(rows[1], (on_topic("x"), Err(Refusal::UnknownTopic("x".to_owned()))));
    assert_eq!(cluster.image, before);
}

#[test]
fn requests_that_contradict_themselves_are_refused() {
    let mut cluster = with_topic();
    let twice = cluster.alter(on_topic("t"), &[("retention.ms", set("1")), ("retention.ms", set("2"))]);
    assert!(matches!(twice, Err(Refusal::InvalidRequest(_))));
    let missing = ConfigAlteration { resource: on_topic("t"), configs: vec![("retention.ms".to_owned(), None)] };
    let run = cluster.run(Command::AlterConfigs { resources: vec![missing.clone(), missing], validate_only: false });
    let Ok(Reply::ConfigsAltered(rows)) = run else { panic!("answered with something else") };
    assert!(matches!(rows[..], [(_, Err(Refusal::InvalidRequest(_)))]), "the same resource twice");
    let null = IncrementalAlteration { resource: on_topic("t"), operations: vec![("retention.ms".to_owned(), None)] };
    let run = cluster.run(Command::IncrementalAlterConfigs { resources: vec![null], validate_only: false });
    let Ok(Reply::ConfigsAltered(rows)) = run else { panic!("answered with something else") };
    assert!(matches!(rows[..], [(_, Err(Refusal::InvalidRequest(_)))]));
    let stranger = cluster.alter(AlteredConfigs::Broker(Some(BrokerId(7))), &[("num.io.threads", set("2"))]);
    assert!(matches!(stranger, Err(Refusal::InvalidRequest(_))));
}

#[test]
fn lags_that_contradict_each_other_are_refused_wherever_they_were_set() {
    let conflict = |result: Result<(), Refusal>| {
        matches!(
            result,
            Err(Refusal::InvalidTopicConfig(ConfigError::Conflict { .. })
                | Refusal::InvalidBrokerConfig(ConfigError::Conflict { .. }))
        )
    };
    let mut cluster = with_topic();
    let both = [("min.compaction.lag.ms", set("20")), ("max.compaction.lag.ms", set("10"))];
    assert!(conflict(cluster.alter(on_topic("t"), &both)));
    cluster.alter(ALL_BROKERS, &[("log.cleaner.max.compaction.lag.ms", set("10"))]).unwrap();
    assert!(conflict(cluster.alter(on_topic("t"), &[("min.compaction.lag.ms", set("20"))])));
    assert!(conflict(cluster.alter(ALL_BROKERS, &[("log.cleaner.min.compaction.lag.ms", set("20"))])));
    cluster.alter(on_topic("t"), &[("min.compaction.lag.ms", set("10"))]).unwrap();
    let pairs = [("log.cleaner.min.compaction.lag.ms", "2"), ("log.cleaner.max.compaction.lag.ms", "1")];
    let started = Settings::check(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert!(matches!(started, Err(ConfigError::Conflict { .. })));
}

#[test]
fn brokers_change_at_run_time_what_kafka_lets_them() {
    let mut cluster = with_topic();
    cluster.alter(ALL_BROKERS, &[("log.retention.ms", set("1000")), ("max.connections", set("5"))]).unwrap();
    assert_eq!(cluster.topic_config("t").retention_ms, Some(1000));
    let one = AlteredConfigs::Broker(Some(BrokerId(1)));
    cluster.alter(one.clone(), &[("log.retention.ms", set("2000"))]).unwrap();
    assert_eq!(cluster.topic_config("t").retention_ms, Some(2000), "one broker's own comes first");
    let resolved = BrokerConfig::resolve(&cluster.image.layers(BrokerId(1), &cluster.settings));
    assert_eq!(resolved.max_connections, 5);

    let fixed = cluster.alter(one.clone(), &[("num.partitions", set("3")), ("log.dirs", set("x"))]);
    let Err(Refusal::InvalidBrokerConfig(error)) = fixed else { panic!("{fixed:?}") };
    assert_eq!(error.to_string(), "Cannot update these configs dynamically: log.dirs, num.partitions");
    for key in ["log.retention.hours", "log.roll.hours", "socket.request.max.bytes", "ottla.memory.bytes"] {
        assert!(cluster.alter(ALL_BROKERS, &[(key, set("1"))]).is_err(), "{key}");
    }
    cluster.alter(one, &[("log.retention.ms", Operation::Delete)]).unwrap();
    assert_eq!(cluster.topic_config("t").retention_ms, Some(1000));
}

#[test]
fn unknown_names_are_kept_at_a_broker_and_refused_at_a_topic() {
    let mut cluster = with_topic();
    let unknown = cluster.alter(on_topic("t"), &[("my.plugin", set("1"))]);
    assert!(matches!(unknown, Err(Refusal::InvalidTopicConfig(ConfigError::UnknownKey { .. }))));
    cluster.alter(ALL_BROKERS, &[("my.plugin", set("1"))]).unwrap();
    assert_eq!(cluster.image.cluster_configs().get("my.plugin").map(String::as_str), Some("1"));
    let ours = cluster.alter(ALL_BROKERS, &[("ottla.durabilty", set("fsync"))]);
    let Err(Refusal::InvalidBrokerConfig(error)) = ours else { panic!("{ours:?}") };
    assert_eq!(error.to_string(), "Unknown config ottla.durabilty: did you mean ottla.durability?");
}

/// The name with one letter left out, put in twice, or another, at each place behind the prefix.
fn misspelt(name: &str) -> Vec<String> {
    let places = "ottla.".len()..name.len();
    let spell = |at: usize| {
        let (before, letter, after) = (&name[..at], &name[at..=at], &name[at + 1..]);
        [String::new(), letter.repeat(2), "_".to_owned()].map(|instead| format!("{before}{instead}{after}"))
    };
    places.flat_map(spell).collect()
}

#[test]
fn a_misspelt_name_of_ours_is_refused_with_the_right_one_and_nothing_near_is_no_name() {
    let mut tried = 0;
    for scope in [Scope::Topic, Scope::Broker] {
        for name in scope.definitions().iter().map(|definition| definition.name) {
            for wrong in misspelt(name).into_iter().filter(|_| name.starts_with("ottla.")) {
                let Err(ConfigError::UnknownOttlaKey { key, hint }) = scope.validate(&wrong, "1") else {
                    panic!("{wrong} is taken")
                };
                assert_eq!((key, hint), (wrong, format!("did you mean {name}?")));
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn names_of_older_tools_are_taken_without_effect() {
    let mut cluster = with_topic();
    let length = cluster.log.len();
    for key in ["message.format.version", "message.downconversion.enable", "message.timestamp.difference.max.ms"] {
        cluster.alter(on_topic("t"), &[(key, set("whatever"))]).unwrap();
        cluster.replace(on_topic("t"), &[(key, "whatever")]).unwrap();
    }
    assert_eq!(cluster.log.len(), length);
}

#[test]
fn names_and_values_have_limits() {
    let mut cluster = with_topic();
    let long_key = "k".repeat(1025);
    let long_value = "v".repeat(32_768);
    for (key, value) in [(long_key.as_str(), "1"), ("", "1"), ("my.plugin", &long_value)] {
        let refused = cluster.alter(ALL_BROKERS, &[(key, set(value))]);
        let Err(Refusal::InvalidBrokerConfig(error @ ConfigError::TooLong { .. })) = refused else {
            panic!("{refused:?}");
        };
        assert!(error.to_string().len() < 200);
    }
}

#[test]
fn a_kafka_server_properties_loads_with_warnings_and_a_misspelt_name_of_ours_does_not() {
    assert_eq!(start("zookeeper.connect", "localhost:2181"), Ok(vec!["zookeeper.connect".to_owned()]));
    assert_eq!(start("num.network.threads", "3"), Ok(vec![]));
    assert!(matches!(start("ottla.memory.byte", "1"), Err(ConfigError::UnknownOttlaKey { .. })));
    assert!(matches!(start("ottla.memory.bytes", "1"), Err(ConfigError::Invalid { .. })));
    assert!(matches!(start("log.dirs", "a,b"), Err(ConfigError::Invalid { .. })));
    assert_eq!(start("unclean.leader.election.enable", "true"), Ok(vec![]));
    assert!(matches!(start("controller.quorum.voters", "1@a:9093"), Err(ConfigError::Lacking { .. })));
    assert!(matches!(start("log.retention.hours", "many"), Err(ConfigError::Invalid { .. })));
    assert_eq!(settings(&[("node.id", "3")]).get("node.id"), Some("3"));
}

#[test]
fn a_stored_value_this_version_does_not_take_counts_as_not_set() {
    let mut cluster = with_topic();
    let id = cluster.topic("t").id;
    for (key, value) in [("segment.bytes", "14"), ("cleanup.policy", "shrink"), ("retention.ms", "x")] {
        let resource = ConfigResource::Topic(id);
        let (key, value) = (key.to_owned(), value.to_owned());
        cluster.image.apply(&Record::ConfigSet { resource, key, value });
    }
    for (key, value) in [("log.segment.bytes", "14"), ("log.retention.ms", "x"), ("max.connections", "many")] {
        let resource = ConfigResource::DefaultBroker;
        cluster.image.apply(&Record::ConfigSet { resource, key: key.to_owned(), value: value.to_owned() });
    }
    assert_eq!(cluster.topic_config("t"), TopicConfig::default());
    let layers = cluster.image.layers(BrokerId(1), &cluster.settings);
    assert_eq!(BrokerConfig::resolve(&layers).max_connections, i32::MAX as u32);
    // And what is reported is what holds.
    let entries = layers.topic_entries(&cluster.topic("t").overrides);
    let size = entries.iter().find(|entry| entry.name == "segment.bytes").unwrap();
    assert_eq!((size.value.as_deref(), size.source), (Some("1073741824"), Source::Default));
}
