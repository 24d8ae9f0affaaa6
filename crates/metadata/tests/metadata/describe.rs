//! DescribeConfigs: which value holds, where it comes from, and what would hold instead.

use ottla_metadata::{
    AlteredConfigs,
    config::{BrokerConfig, Entry, Kind, Operation, Overrides, Scope, Source},
};
use ottla_types::BrokerId;

use crate::cluster::{ALL_BROKERS, Cluster, on_topic, set, topic};

const ONE: AlteredConfigs = AlteredConfigs::Broker(Some(BrokerId(1)));

fn topic_entry(cluster: &Cluster, key: &str) -> Entry {
    let layers = cluster.image.layers(BrokerId(1), &cluster.settings);
    let entries = layers.topic_entries(&cluster.topic("t").overrides);
    entries.into_iter().find(|entry| entry.name == key).unwrap()
}

fn broker_entry(cluster: &Cluster, key: &str) -> Entry {
    let entries = cluster.image.layers(BrokerId(1), &cluster.settings).broker_entries();
    entries.into_iter().find(|entry| entry.name == key).unwrap()
}

/// The synonyms as `name=value source` lines.
fn story(entry: &Entry) -> Vec<String> {
    let line = |synonym: &ottla_metadata::config::EntrySynonym| {
        format!("{}={} {:?}", synonym.name, synonym.value.as_deref().unwrap_or("?"), synonym.source)
    };
    entry.synonyms.iter().map(line).collect()
}

#[test]
fn every_topic_config_is_described_set_or_not() {
    let mut cluster = Cluster::of(1);
    cluster.create_one(topic("t")).unwrap();
    let layers = cluster.image.layers(BrokerId(1), &cluster.settings);
    let entries = layers.topic_entries(&Overrides::new());
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let table: Vec<&str> = Scope::Topic.definitions().iter().map(|definition| definition.name).collect();
    assert_eq!(names, table);
    for entry in &entries {
        assert_eq!(entry.source, Source::Default, "{}", entry.name);
        assert!(entry.value.is_some() && !entry.read_only && !entry.sensitive, "{}", entry.name);
        let default = Scope::Topic.find(&entry.name).unwrap().default;
        assert_eq!(entry.value.as_deref(), default, "{}", entry.name);
    }
    // What Connect checks before it starts.
    assert_eq!(topic_entry(&cluster, "cleanup.policy").value.as_deref(), Some("delete"));
    assert_eq!(topic_entry(&cluster, "cleanup.policy").kind.map(Kind::code), Some(7));
}

#[test]
fn synonyms_come_in_kafkas_order_each_in_its_own_unit() {
    let mut cluster = Cluster::with(1, &[("log.retention.hours", "2"), ("log.retention.minutes", "30")]);
    cluster.create_one(topic("t")).unwrap();
    let entry = topic_entry(&cluster, "retention.ms");
    assert_eq!((entry.value.as_deref(), entry.source), (Some("1800000"), Source::StaticBroker), "minutes before hours");
    assert_eq!(cluster.topic_config("t").retention_ms, Some(1_800_000));

    cluster.alter(ALL_BROKERS, &[("log.retention.ms", set("3000"))]).unwrap();
    cluster.alter(ONE, &[("log.retention.ms", set("2000"))]).unwrap();
    cluster.alter(on_topic("t"), &[("retention.ms", set("1000"))]).unwrap();
    let entry = topic_entry(&cluster, "retention.ms");
    assert_eq!((entry.value.as_deref(), entry.source), (Some("1000"), Source::Topic));
    let expected = [
        "retention.ms=1000 Topic",
        "log.retention.ms=2000 DynamicBroker",
        "log.retention.ms=3000 DynamicDefaultBroker",
        "log.retention.minutes=30 StaticBroker",
        "log.retention.hours=2 StaticBroker",
        "log.retention.hours=168 Default",
    ];
    assert_eq!(story(&entry), expected);

    // Layer by layer, back to the start.
    for (resource, key, value, source) in [
        (on_topic("t"), "retention.ms", "2000", Source::DynamicBroker),
        (ONE, "log.retention.ms", "3000", Source::DynamicDefaultBroker),
        (ALL_BROKERS, "log.retention.ms", "1800000", Source::StaticBroker),
    ] {
        cluster.alter(resource, &[(key, Operation::Delete)]).unwrap();
        let entry = topic_entry(&cluster, "retention.ms");
        assert_eq!((entry.value.as_deref(), entry.source), (Some(value), source));
    }
}

#[test]
fn never_is_never_in_every_unit() {
    let mut cluster = Cluster::with(1, &[("log.retention.hours", "-1")]);
    cluster.create_one(topic("t")).unwrap();
    assert_eq!(topic_entry(&cluster, "retention.ms").value.as_deref(), Some("-1"));
    assert_eq!(cluster.topic_config("t").retention_ms, None);
}

#[test]
fn a_broker_is_described_whole() {
    let mut cluster = Cluster::with(1, &[("log.retention.hours", "2"), ("node.id", "1")]);
    cluster.alter(ALL_BROKERS, &[("my.plugin", set("secret")), ("message.max.bytes", set("77"))]).unwrap();
    let size = broker_entry(&cluster, "message.max.bytes");
    assert_eq!((size.value.as_deref(), size.source, size.read_only), (Some("77"), Source::DynamicDefaultBroker, false));
    assert_eq!(story(&size), ["message.max.bytes=77 DynamicDefaultBroker", "message.max.bytes=1048588 Default"]);

    let hours = broker_entry(&cluster, "log.retention.hours");
    assert_eq!((hours.value.as_deref(), hours.source, hours.read_only), (Some("2"), Source::StaticBroker, true));
    let ms = broker_entry(&cluster, "log.retention.ms");
    assert_eq!((ms.value, ms.read_only), (None, false), "nobody set it under this name");
    assert_eq!(ms.synonyms[0].name, "log.retention.hours");

    // Tools read these to name the version and to place internal topics.
    assert_eq!(broker_entry(&cluster, "inter.broker.protocol.version").value.as_deref(), Some("4.3-IV0"));
    assert_eq!(broker_entry(&cluster, "default.replication.factor").value.as_deref(), Some("1"));
    assert_eq!(broker_entry(&cluster, "node.id").value.as_deref(), Some("1"));

    let plugin = broker_entry(&cluster, "my.plugin");
    assert_eq!((plugin.value, plugin.sensitive, plugin.kind), (None, true, None), "it may be a secret");
    cluster.alter(ONE, &[("my.plugin", set("other"))]).unwrap();
    let entries = cluster.image.layers(BrokerId(1), &cluster.settings).broker_entries();
    assert_eq!(entries.iter().filter(|entry| entry.name == "my.plugin").count(), 1);
}

#[test]
fn the_default_of_all_brokers_shows_only_what_was_set() {
    let mut cluster = Cluster::of(1);
    let entries = |cluster: &Cluster| cluster.image.layers(BrokerId(1), &cluster.settings).cluster_entries();
    assert_eq!(entries(&cluster), []);
    cluster.alter(ALL_BROKERS, &[("log.segment.bytes", set("2097152"))]).unwrap();
    cluster.alter(ONE, &[("log.segment.bytes", set("1048576"))]).unwrap();
    let described = entries(&cluster);
    assert_eq!(described.len(), 1);
    assert_eq!(described[0].value.as_deref(), Some("2097152"));
    assert_eq!(story(&described[0]), ["log.segment.bytes=2097152 DynamicDefaultBroker"]);
}

#[test]
fn typed_broker_configs_follow_their_table() {
    let cluster = Cluster::with(1, &[("connections.max.idle.ms", "-1"), ("auto.create.topics.enable", "false")]);
    let config = BrokerConfig::resolve(&cluster.image.layers(BrokerId(1), &cluster.settings));
    assert_eq!(config.connections_max_idle_ms, None);
    assert!(!config.auto_create_topics);
    let plain = Cluster::of(1);
    let config = BrokerConfig::resolve(&plain.image.layers(BrokerId(1), &plain.settings));
    let table = |key: &str| Scope::Broker.find(key).unwrap().default.unwrap().parse::<u64>().unwrap();
    assert_eq!(config.connections_max_idle_ms, Some(table("connections.max.idle.ms")));
    assert_eq!(config.memory_bytes, table("ottla.memory.bytes"));
    assert_eq!(config.disk_reserve_bytes, table("ottla.disk.reserve.bytes"));
    assert_eq!(u64::from(config.fetch_max_bytes), table("fetch.max.bytes"));
    assert_eq!(u64::from(config.socket_request_max_bytes), table("socket.request.max.bytes"));
    assert_eq!(u64::from(config.max_connections), table("max.connections"));
}
