//! Topics, configs and the rest of the admin requests as clients rely on them: lines 72, 73 and 79 to 84 of the client
//! behaviours.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use common::{Client, TestBroker, batch, by_name, code};
use ottla_protocol::{
    ErrorCode,
    messages::{
        AlterConfigsRequest, CreateAclsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteAclsRequest,
        DeleteRecordsRequest, DeleteTopicsRequest, DescribeAclsRequest, DescribeConfigsRequest, DescribeLogDirsRequest,
        DescribeProducersRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, InitProducerIdResponse,
        ListConfigResourcesRequest, ListPartitionReassignmentsRequest, MetadataRequest, alter_configs_request,
        create_acls_request::AclCreation,
        create_partitions_request::CreatePartitionsTopic,
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
        delete_acls_request::DeleteAclsFilter,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        delete_topics_request::DeleteTopicState,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
        describe_log_dirs_request::DescribableLogDirTopic,
        describe_producers_request::TopicRequest,
        incremental_alter_configs_request,
        list_config_resources_response::ConfigResource,
        list_partition_reassignments_request::ListPartitionReassignmentsTopics,
    },
};
use ottla_records::{BatchBuilder, Compression};
use ottla_types::{ProducerEpoch, ProducerId, Timestamp, TopicId};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Sources of DescribeConfigs.
const FROM_TOPIC: i8 = 1;
const FROM_DYNAMIC_BROKER: i8 = 2;
const FROM_DYNAMIC_DEFAULT: i8 = 3;
const FROM_STATIC: i8 = 4;
const FROM_DEFAULT: i8 = 5;
const FROM_GROUP: i8 = 8;

fn init(client: &mut Client, version: i16, id: i64, epoch: i16) -> InitProducerIdResponse {
    let request =
        InitProducerIdRequest { transactional_id: None, producer_id: id, producer_epoch: epoch, ..Default::default() };
    client.call(version, &request)
}

fn describe(client: &mut Client, resource_type: i8, name: &str) -> DescribeConfigsResult {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type,
            resource_name: name.into(),
            configuration_keys: None,
        }],
        include_synonyms: true,
        include_documentation: true,
    };
    let mut response = client.call(4, &request);
    assert_eq!(response.results.len(), 1);
    let result = response.results.pop().unwrap();
    assert_eq!((result.resource_type, &*result.resource_name), (resource_type, name));
    result
}

fn config(client: &mut Client, resource_type: i8, name: &str, key: &str) -> DescribeConfigsResourceResult {
    let result = describe(client, resource_type, name);
    assert_eq!(code(result.error_code), ErrorCode::None, "{:?}", result.error_message);
    by_name(result.configs, |entry| &entry.name).remove(key).unwrap_or_else(|| panic!("{key} is not reported"))
}

fn value(client: &mut Client, topic: &str, key: &str) -> String {
    config(client, TOPIC, topic, key).value.unwrap().to_string()
}

fn incremental(
    client: &mut Client,
    resource_type: i8,
    name: &str,
    operations: &[(&str, i8, Option<&str>)],
    validate_only: bool,
) -> (ErrorCode, String) {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let configs = operations.iter().map(|&(name, config_operation, value)| AlterableConfig {
        name: name.into(),
        config_operation,
        value: value.map(Into::into),
    });
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource { resource_type, resource_name: name.into(), configs: configs.collect() }],
        validate_only,
    };
    let response = client.call(1, &request);
    assert_eq!(response.responses.len(), 1);
    let row = &response.responses[0];
    assert_eq!((row.resource_type, &*row.resource_name), (resource_type, name));
    (code(row.error_code), row.error_message.as_deref().unwrap_or_default().to_owned())
}

fn replace(client: &mut Client, resource_type: i8, name: &str, configs: &[(&str, Option<&str>)]) -> ErrorCode {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let configs =
        configs.iter().map(|&(name, value)| AlterableConfig { name: name.into(), value: value.map(Into::into) });
    let request = AlterConfigsRequest {
        resources: vec![AlterConfigsResource { resource_type, resource_name: name.into(), configs: configs.collect() }],
        validate_only: false,
    };
    let response = client.call(2, &request);
    assert_eq!(response.responses.len(), 1);
    code(response.responses[0].error_code)
}

fn topic(name: &str, partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions: partitions, replication_factor, ..Default::default() }
}

fn delete_records(client: &mut Client, topic: &str, partition: i32, offset: i64) -> (ErrorCode, i64) {
    let request = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: topic.into(),
            partitions: vec![DeleteRecordsPartition { partition_index: partition, offset }],
        }],
        timeout_ms: 1000,
    };
    let response = client.call(2, &request);
    let row = &response.topics[0].partitions[0];
    assert_eq!(row.partition_index, partition);
    (code(row.error_code), row.low_watermark)
}

#[test]
fn client_rule_72_a_null_transactional_id_gets_a_fresh_producer_id_each_time() {
    let mut broker = TestBroker::start();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..3 {
        let mut client = broker.connect();
        for version in 0..=5 {
            let response = init(&mut client, version, -1, -1);
            assert_eq!(code(response.error_code), ErrorCode::None, "version {version}");
            assert_eq!(response.producer_epoch, 0);
            assert!(response.producer_id >= 0);
            assert!(seen.insert(response.producer_id), "{} was given before", response.producer_id);
        }
        broker = broker.restart();
    }
    let killed = broker.killed();
    assert!(seen.insert(init(&mut killed.connect(), 5, -1, -1).producer_id));
}

#[test]
fn client_rule_72_an_empty_transactional_id_is_42_and_any_other_is_fatal() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let ask = |id: &str| InitProducerIdRequest {
        transactional_id: Some(id.into()),
        transaction_timeout_ms: 60_000,
        ..Default::default()
    };
    for version in 0..=5 {
        let empty = client.call(version, &ask(""));
        assert_eq!(code(empty.error_code), ErrorCode::InvalidRequest, "version {version}");
        let refused = client.call(version, &ask("tx"));
        assert_eq!(code(refused.error_code), ErrorCode::TransactionalIdAuthorizationFailed, "version {version}");
        assert!(!code(refused.error_code).is_retriable());
        assert_eq!((refused.producer_id, refused.producer_epoch), (-1, -1));
    }
}

#[test]
fn client_rule_73_without_a_transactional_id_every_request_gets_an_id_of_its_own() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let first = init(&mut client, 5, -1, -1).producer_id;
    for version in 3..=5 {
        let again = init(&mut client, version, first, 7);
        assert_eq!((code(again.error_code), again.producer_epoch), (ErrorCode::None, 0));
        assert_ne!(again.producer_id, first, "a raised epoch would fence the owner of the id");
    }
    for (id, epoch) in [(first, -1), (-1, 0)] {
        assert_eq!(code(init(&mut client, 5, id, epoch).error_code), ErrorCode::InvalidRequest);
    }
}

#[test]
fn client_rule_79_every_topic_config_is_described_with_type_source_and_synonyms() {
    let broker = TestBroker::start_with(&[("log.retention.hours", "3")]);
    let mut client = broker.connect();
    client.create_topic("described", 1, &[("segment.bytes", "2097152"), ("ottla.durability", "replicated")]);
    let result = describe(&mut client, TOPIC, "described");
    let configs = by_name(result.configs, |entry| &entry.name);
    let kafka = [
        "cleanup.policy",
        "compression.gzip.level",
        "compression.lz4.level",
        "compression.type",
        "compression.zstd.level",
        "delete.retention.ms",
        "file.delete.delay.ms",
        "flush.messages",
        "flush.ms",
        "follower.replication.throttled.replicas",
        "index.interval.bytes",
        "leader.replication.throttled.replicas",
        "local.retention.bytes",
        "local.retention.ms",
        "max.compaction.lag.ms",
        "max.message.bytes",
        "message.timestamp.after.max.ms",
        "message.timestamp.before.max.ms",
        "message.timestamp.type",
        "min.cleanable.dirty.ratio",
        "min.compaction.lag.ms",
        "min.insync.replicas",
        "preallocate",
        "remote.log.copy.disable",
        "remote.log.delete.on.disable",
        "remote.storage.enable",
        "retention.bytes",
        "retention.ms",
        "segment.bytes",
        "segment.index.bytes",
        "segment.jitter.ms",
        "segment.ms",
        "unclean.leader.election.enable",
    ];
    for name in kafka {
        let entry = configs.get(name).unwrap_or_else(|| panic!("{name} is not reported"));
        assert!(entry.value.is_some() && entry.config_type > 0 && !entry.is_sensitive, "{entry:?}");
        assert!(!entry.documentation.as_deref().unwrap_or_default().is_empty(), "{name} is documented");
    }
    let default = &configs["cleanup.policy"];
    assert_eq!((default.value.as_deref(), default.config_source), (Some("delete"), FROM_DEFAULT));
    let own = &configs["segment.bytes"];
    assert_eq!((own.value.as_deref(), own.config_source), (Some("2097152"), FROM_TOPIC));
    let sources: Vec<i8> = own.synonyms.iter().map(|synonym| synonym.source).collect();
    assert_eq!(sources, [FROM_TOPIC, FROM_DEFAULT]);
    let hours = &configs["retention.ms"];
    assert_eq!((hours.value.as_deref(), hours.config_source), (Some("10800000"), FROM_STATIC));
    assert_eq!(&*hours.synonyms[0].name, "log.retention.hours");
    assert_eq!(configs["ottla.durability"].value.as_deref(), Some("replicated"));
}

#[test]
fn client_rule_79_synonyms_documentation_and_a_selection_only_when_asked_for() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("picked", 1, &[]);
    for version in 1..=4 {
        let ask = |keys: Option<&[&str]>| DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: TOPIC,
                resource_name: "picked".into(),
                configuration_keys: keys.map(|keys| keys.iter().map(|&key| key.into()).collect()),
            }],
            ..Default::default()
        };
        let picked = client.call(version, &ask(Some(&["retention.ms", "no.such.config"])));
        let [entry] = &picked.results[0].configs[..] else { panic!("one config: {picked:?}") };
        assert_eq!(&*entry.name, "retention.ms");
        assert!(entry.synonyms.is_empty() && entry.documentation.as_deref().unwrap_or_default().is_empty());
        let all = client.call(version, &ask(None)).results[0].configs.len();
        assert!(all >= 33);
        assert_eq!(client.call(version, &ask(Some(&[]))).results[0].configs.len(), all, "an empty list is all");
    }
}

#[test]
fn client_rule_79_a_broker_describes_itself_and_nobody_else() {
    let broker = TestBroker::start_with(&[("num.partitions", "4")]);
    let mut client = broker.connect();
    let id = broker.node.id().to_string();
    let partitions = config(&mut client, BROKER, &id, "num.partitions");
    assert_eq!((partitions.value.as_deref(), partitions.config_source), (Some("4"), FROM_STATIC));
    assert!(partitions.read_only);
    let factor = config(&mut client, BROKER, &id, "default.replication.factor");
    assert_eq!((factor.value.as_deref(), factor.config_source), (Some("1"), FROM_DEFAULT));
    for name in ["inter.broker.protocol.version", "log.retention.ms", "log.dirs", "listeners"] {
        config(&mut client, BROKER, &id, name);
    }
    assert_eq!(code(describe(&mut client, BROKER, "77").error_code), ErrorCode::InvalidRequest);
    assert_eq!(code(describe(&mut client, BROKER, "one").error_code), ErrorCode::InvalidRequest);
    // With an empty name: what is set for all brokers at run time, which is nothing yet.
    assert!(describe(&mut client, BROKER, "").configs.is_empty());
    let set = incremental(&mut client, BROKER, "", &[("log.retention.ms", SET, Some("5000"))], false);
    assert_eq!(set.0, ErrorCode::None, "{}", set.1);
    let described = describe(&mut client, BROKER, "").configs;
    assert_eq!(described.len(), 1);
    assert_eq!((&*described[0].name, described[0].config_source), ("log.retention.ms", FROM_DYNAMIC_DEFAULT));
}

#[test]
fn client_rule_79_resources_that_cannot_be_described_say_why() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let id = broker.node.id().to_string();
    let cases = [
        (TOPIC, "nobody", ErrorCode::UnknownTopicOrPartition),
        (TOPIC, "a/b", ErrorCode::InvalidTopicException),
        (TOPIC, "", ErrorCode::InvalidTopicException),
        (BROKER_LOGGER, "", ErrorCode::InvalidRequest),
        (BROKER_LOGGER, "77", ErrorCode::InvalidRequest),
        (BROKER_LOGGER, &id, ErrorCode::None),
        (CLIENT_METRICS, "", ErrorCode::InvalidRequest),
        (CLIENT_METRICS, "m", ErrorCode::None),
        (GROUP, "", ErrorCode::InvalidRequest),
        (1, "anything", ErrorCode::InvalidRequest),
    ];
    for (resource_type, name, expected) in cases {
        let result = describe(&mut client, resource_type, name);
        assert_eq!(code(result.error_code), expected, "type {resource_type} {name:?}");
        assert!(result.configs.is_empty());
    }
    client.create_topic("t", 1, &[]);
    let one = DescribeConfigsResource { resource_type: TOPIC, resource_name: "t".into(), configuration_keys: None };
    let response = client.call(4, &DescribeConfigsRequest { resources: vec![one.clone(), one], ..Default::default() });
    let codes: Vec<ErrorCode> = response.results.iter().map(|result| code(result.error_code)).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::InvalidRequest], "an answer is much larger than a question");
}

#[test]
fn client_rule_80_incremental_operations_set_delete_append_and_subtract() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("inc", 1, &[("retention.ms", "1000")]);
    let key = "leader.replication.throttled.replicas";
    for (operations, expected) in [
        (&[(key, SET, Some("0:1"))][..], "0:1"),
        (&[(key, APPEND, Some("1:2"))][..], "0:1,1:2"),
        (&[(key, APPEND, Some("1:2"))][..], "0:1,1:2"),
        (&[(key, SUBTRACT, Some("0:1"))][..], "1:2"),
        (&[(key, DELETE, None)][..], ""),
    ] {
        let done = incremental(&mut client, TOPIC, "inc", operations, false);
        assert_eq!(done.0, ErrorCode::None, "{}", done.1);
        assert_eq!(value(&mut client, "inc", key), expected);
    }
    // What was not named stays.
    assert_eq!(value(&mut client, "inc", "retention.ms"), "1000");
    let back = incremental(&mut client, TOPIC, "inc", &[("retention.ms", DELETE, None)], false);
    assert_eq!(back.0, ErrorCode::None);
    assert_eq!(value(&mut client, "inc", "retention.ms"), "604800000");
}

#[test]
fn client_rule_80_what_cannot_be_altered_is_refused_and_nothing_of_it_happens() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("strict", 1, &[]);
    let refused = [
        (TOPIC, "strict", ("no.such.config", SET, Some("1")), ErrorCode::InvalidConfig),
        (TOPIC, "strict", ("retention.ms", SET, Some("soon")), ErrorCode::InvalidConfig),
        (TOPIC, "strict", ("segment.bytes", SET, Some("14")), ErrorCode::InvalidConfig),
        (TOPIC, "strict", ("retention.ms", APPEND, Some("1")), ErrorCode::InvalidConfig),
        (TOPIC, "strict", ("cleanup.policy", SET, Some("shrink")), ErrorCode::InvalidConfig),
        (TOPIC, "strict", ("retention.ms", SET, None), ErrorCode::InvalidRequest),
        (TOPIC, "strict", ("retention.ms", 4, Some("1")), ErrorCode::InvalidRequest),
        (TOPIC, "nobody", ("retention.ms", SET, Some("1")), ErrorCode::UnknownTopicOrPartition),
        (BROKER, "one", ("log.retention.ms", SET, Some("1")), ErrorCode::InvalidRequest),
        (BROKER, "77", ("log.retention.ms", SET, Some("1")), ErrorCode::InvalidRequest),
        (BROKER, "", ("num.partitions", SET, Some("2")), ErrorCode::InvalidRequest),
        (BROKER_LOGGER, "1", ("root", SET, Some("DEBUG")), ErrorCode::InvalidRequest),
        (CLIENT_METRICS, "m", ("interval.ms", SET, Some("100")), ErrorCode::InvalidRequest),
        (GROUP, "g", ("consumer.session.timeout.ms", SET, Some("100")), ErrorCode::InvalidConfig),
        (GROUP, "g", ("no.such.config", SET, Some("1")), ErrorCode::InvalidConfig),
        (GROUP, "", ("consumer.session.timeout.ms", SET, Some("50000")), ErrorCode::InvalidRequest),
        (99, "x", ("y", SET, Some("z")), ErrorCode::InvalidRequest),
    ];
    for (resource_type, name, operation, expected) in refused {
        let (got, message) = incremental(&mut client, resource_type, name, &[operation], false);
        assert_eq!(got, expected, "{name} {operation:?}: {message}");
        assert!(!message.is_empty());
    }
    let twice = [("retention.ms", SET, Some("1")), ("retention.ms", SET, Some("2"))];
    assert_eq!(incremental(&mut client, TOPIC, "strict", &twice, false).0, ErrorCode::InvalidRequest);
    assert_eq!(value(&mut client, "strict", "retention.ms"), "604800000");
}

#[test]
fn client_rule_79_and_80_a_group_has_configs_of_its_own_over_the_brokers() {
    let broker = TestBroker::start_with(&[("group.consumer.session.timeout.ms", "46000")]);
    let mut client = broker.connect();
    let key = "consumer.session.timeout.ms";
    let timeout = |client: &mut Client| {
        let config = config(client, GROUP, "g", key);
        (config.value.unwrap().to_string(), config.config_source, config.synonyms.len(), config.read_only)
    };
    assert_eq!(timeout(&mut client), ("46000".to_owned(), FROM_STATIC, 2, false));
    let set = [(key, SET, Some("50000")), ("streams.num.standby.replicas", SET, Some("1"))];
    assert_eq!(incremental(&mut client, GROUP, "g", &set, true).0, ErrorCode::None);
    assert_eq!(timeout(&mut client).0, "46000", "it was only validated");
    assert_eq!(incremental(&mut client, GROUP, "g", &set, false).0, ErrorCode::None);

    let broker = broker.restart();
    let mut client = broker.connect();
    assert_eq!(timeout(&mut client), ("50000".to_owned(), FROM_GROUP, 3, false));
    assert_eq!(describe(&mut client, GROUP, "g").configs.len(), 17);
    assert_eq!(replace(&mut client, GROUP, "g", &[("share.isolation.level", Some("read_committed"))]), ErrorCode::None);
    assert_eq!(timeout(&mut client).1, FROM_STATIC, "what a replacement leaves out is gone");
    assert_eq!(
        incremental(&mut client, GROUP, "g", &[("share.isolation.level", DELETE, None)], false).0,
        ErrorCode::None
    );
}

#[test]
fn what_has_configs_is_listed_by_kind() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    for group in ["h", "g"] {
        let set = [("consumer.session.timeout.ms", SET, Some("50000"))];
        assert_eq!(incremental(&mut client, GROUP, group, &set, false).0, ErrorCode::None);
    }
    let mut list = |version: i16, kinds: &[i8]| {
        let response = client.call(version, &ListConfigResourcesRequest { resource_types: kinds.to_vec() });
        let row = |row: ConfigResource| (row.resource_type, row.resource_name.to_string());
        (code(response.error_code), response.config_resources.into_iter().map(row).collect::<Vec<_>>())
    };
    let row = |kind: i8, name: &str| (kind, name.to_owned());
    let (groups, brokers) = ([row(GROUP, "g"), row(GROUP, "h")], [row(BROKER_LOGGER, "1"), row(BROKER, "1")]);
    assert_eq!(list(1, &[GROUP]), (ErrorCode::None, groups.to_vec()));
    let all = [&groups[..], &brokers[..], &[row(TOPIC, "t")]].concat();
    assert_eq!(list(1, &[]), (ErrorCode::None, all));
    assert_eq!(list(1, &[CLIENT_METRICS]), (ErrorCode::None, vec![]));
    assert_eq!(list(1, &[GROUP, 64]), (ErrorCode::UnsupportedVersion, vec![]));
    assert_eq!(list(0, &[]), (ErrorCode::None, vec![]), "version 0 asks for client metrics");
}

#[test]
fn client_rule_80_alter_configs_replaces_all() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("all", 1, &[("retention.ms", "1000"), ("segment.ms", "2000")]);
    assert_eq!(replace(&mut client, TOPIC, "all", &[("retention.bytes", Some("4096"))]), ErrorCode::None);
    assert_eq!(value(&mut client, "all", "retention.bytes"), "4096");
    assert_eq!(value(&mut client, "all", "retention.ms"), "604800000");
    assert_eq!(value(&mut client, "all", "segment.ms"), "604800000");
    assert_eq!(replace(&mut client, TOPIC, "all", &[("retention.ms", None)]), ErrorCode::InvalidRequest);
    assert_eq!(replace(&mut client, TOPIC, "nobody", &[]), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(replace(&mut client, CLIENT_METRICS, "g", &[]), ErrorCode::InvalidRequest);
    assert_eq!(value(&mut client, "all", "retention.bytes"), "4096", "a refused change changes nothing");
}

#[test]
fn client_rule_80_validate_only_changes_nothing_and_resources_stand_alone() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("dry", 1, &[]);
    let dry = incremental(&mut client, TOPIC, "dry", &[("retention.ms", SET, Some("1"))], true);
    assert_eq!(dry.0, ErrorCode::None);
    assert_eq!(value(&mut client, "dry", "retention.ms"), "604800000");

    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let set = |name: &str| AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: name.into(),
        configs: vec![AlterableConfig { name: "retention.ms".into(), config_operation: SET, value: Some("77".into()) }],
    };
    let resources = vec![set("nobody"), set("dry")];
    let response = client.call(1, &IncrementalAlterConfigsRequest { resources, validate_only: false });
    let rows: Vec<_> =
        response.responses.iter().map(|row| (row.resource_name.to_string(), code(row.error_code))).collect();
    let expected = [("nobody".to_owned(), ErrorCode::UnknownTopicOrPartition), ("dry".to_owned(), ErrorCode::None)];
    assert_eq!(rows, expected, "in the order of the request");
    assert_eq!(value(&mut client, "dry", "retention.ms"), "77");
    let resources = vec![set("dry"), set("dry")];
    let response = client.call(1, &IncrementalAlterConfigsRequest { resources, validate_only: false });
    assert!(response.responses.iter().all(|row| code(row.error_code) == ErrorCode::InvalidRequest));
}

#[test]
fn client_rule_80_dynamic_broker_configs_take_effect_and_survive_a_restart() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("small", 1, &[]);
    let id = broker.node.id().to_string();
    let set = incremental(&mut client, BROKER, &id, &[("message.max.bytes", SET, Some("200"))], false);
    assert_eq!(set.0, ErrorCode::None, "{}", set.1);
    let too_large = "x".repeat(300);
    let refused = client.produce("small", 0, batch(&[&too_large]));
    assert_eq!(code(refused.error_code), ErrorCode::MessageTooLarge);

    let broker = broker.restart();
    let mut client = broker.connect();
    let entry = config(&mut client, BROKER, &id, "message.max.bytes");
    assert_eq!((entry.value.as_deref(), entry.config_source), (Some("200"), FROM_DYNAMIC_BROKER));
    assert_eq!(value(&mut client, "small", "max.message.bytes"), "200");
    assert_eq!(code(client.produce("small", 0, batch(&[&too_large])).error_code), ErrorCode::MessageTooLarge);
    assert_eq!(replace(&mut client, BROKER, &id, &[]), ErrorCode::None);
    assert_eq!(code(client.produce("small", 0, batch(&[&too_large])).error_code), ErrorCode::None);
}

#[test]
fn client_rule_81_create_topics_tells_what_it_made() {
    let broker = TestBroker::start_with(&[("num.partitions", "3")]);
    let mut client = broker.connect();
    for version in 2..=7 {
        let name = format!("v{version}");
        let mut wanted = topic(&name, -1, -1);
        wanted.configs = vec![CreatableTopicConfig { name: "retention.ms".into(), value: Some("1000".into()) }];
        let response = client.call(version, &CreateTopicsRequest { topics: vec![wanted], ..Default::default() });
        let created = &response.topics[0];
        assert_eq!((code(created.error_code), &*created.name), (ErrorCode::None, &*name));
        if version >= 5 {
            assert_eq!((created.num_partitions, created.replication_factor), (3, 1));
            let configs = by_name(created.configs.clone().unwrap(), |entry| &entry.name);
            assert!(configs.len() >= 33, "every config, set or not");
            let retention = &configs["retention.ms"];
            assert_eq!((retention.value.as_deref(), retention.config_source), (Some("1000"), FROM_TOPIC));
        }
        assert_eq!(created.topic_id.is_zero(), version < 7);
        // Visible at once: the answer waits for that.
        assert!(!common::topic_id(&mut client, &name).is_zero());
        assert_eq!(client.write(&name, 2, &["at once"]), 0);
    }
}

#[test]
fn client_rule_81_validate_only_creates_nothing() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let request =
        |validate_only| CreateTopicsRequest { topics: vec![topic("dry", 2, 1)], validate_only, ..Default::default() };
    let dry = client.call(7, &request(true)).topics.remove(0);
    assert_eq!((code(dry.error_code), dry.num_partitions), (ErrorCode::None, 2));
    assert!(dry.topic_id.is_zero());
    let all = client.call(12, &MetadataRequest { topics: None, ..Default::default() });
    assert!(all.topics.is_empty());
    assert_eq!(code(client.call(7, &request(false)).topics[0].error_code), ErrorCode::None);
    assert_eq!(code(client.call(7, &request(true)).topics[0].error_code), ErrorCode::TopicAlreadyExists);
}

#[test]
fn client_rule_81_each_topic_stands_or_falls_by_itself() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("taken", 1, &[]);
    let by_hand = |name: &str, brokers: &[i32]| CreatableTopic {
        assignments: vec![CreatableReplicaAssignment { partition_index: 0, broker_ids: brokers.to_vec() }],
        ..topic(name, -1, -1)
    };
    let configured = |name: &str, key: &str, value: Option<&str>| CreatableTopic {
        configs: vec![CreatableTopicConfig { name: key.into(), value: value.map(Into::into) }],
        ..topic(name, 1, 1)
    };
    let us = broker.node.id().0;
    let cases = [
        (topic("fine", 1, 1), ErrorCode::None),
        (by_hand("placed", &[us]), ErrorCode::None),
        (topic("taken", 1, 1), ErrorCode::TopicAlreadyExists),
        (topic("a/b", 1, 1), ErrorCode::InvalidTopicException),
        (topic("", 1, 1), ErrorCode::InvalidTopicException),
        (topic("none", 0, 1), ErrorCode::InvalidPartitions),
        (topic("negative", -2, 1), ErrorCode::InvalidPartitions),
        (topic("huge", i32::MAX, 1), ErrorCode::PolicyViolation),
        (topic("unreplicated", 1, 0), ErrorCode::InvalidReplicationFactor),
        (topic("replicated", 1, 3), ErrorCode::InvalidReplicationFactor),
        (by_hand("elsewhere", &[77]), ErrorCode::InvalidReplicaAssignment),
        (CreatableTopic { num_partitions: 1, ..by_hand("both", &[us]) }, ErrorCode::InvalidRequest),
        (configured("odd", "no.such.config", Some("1")), ErrorCode::InvalidConfig),
        (configured("wrong", "retention.ms", Some("soon")), ErrorCode::InvalidConfig),
        (configured("compacted", "cleanup.policy", Some("compact")), ErrorCode::None),
        (configured("nothing", "retention.ms", None), ErrorCode::InvalidConfig),
    ];
    let topics = cases.iter().map(|(topic, _)| topic.clone()).collect();
    let response = client.call(7, &CreateTopicsRequest { topics, ..Default::default() });
    assert_eq!(response.topics.len(), cases.len());
    for (row, (wanted, expected)) in response.topics.iter().zip(&cases) {
        assert_eq!(row.name, wanted.name);
        assert_eq!(code(row.error_code), *expected, "{}: {:?}", row.name, row.error_message);
        assert_eq!(row.error_message.is_some(), *expected != ErrorCode::None, "{}", row.name);
    }
    let twice = vec![topic("double", 1, 1), topic("double", 1, 1)];
    let response = client.call(7, &CreateTopicsRequest { topics: twice, ..Default::default() });
    assert!(response.topics.iter().all(|row| code(row.error_code) == ErrorCode::InvalidRequest));
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    for version in 1..=5 {
        client.create_topic("gone", 1, &[]);
        let request = DeleteTopicsRequest { topic_names: vec!["gone".into(), "nobody".into()], ..Default::default() };
        let response = client.call(version, &request);
        let rows: Vec<_> =
            response.responses.iter().map(|row| (row.name.as_deref().unwrap(), code(row.error_code))).collect();
        assert_eq!(rows, [("gone", ErrorCode::None), ("nobody", ErrorCode::UnknownTopicOrPartition)]);
    }
    let id = client.create_topic("by-id", 1, &[]).topic_id;
    let named = client.create_topic("by-name", 1, &[]).topic_id;
    let state = |name: Option<&str>, topic_id| DeleteTopicState { name: name.map(Into::into), topic_id };
    let cases = [
        (state(None, id), ErrorCode::None),
        (state(Some("by-name"), TopicId::ZERO), ErrorCode::None),
        (state(None, TopicId::from_bytes([9; 16])), ErrorCode::UnknownTopicId),
        (state(Some("nobody"), TopicId::ZERO), ErrorCode::UnknownTopicOrPartition),
        (state(Some("by-name"), named), ErrorCode::InvalidRequest),
        (state(None, TopicId::ZERO), ErrorCode::InvalidRequest),
    ];
    let topics = cases.iter().map(|(state, _)| state.clone()).collect();
    let response = client.call(6, &DeleteTopicsRequest { topics, ..Default::default() });
    assert_eq!(response.responses.len(), cases.len());
    for (state, expected) in &cases {
        let found = response
            .responses
            .iter()
            .any(|row| code(row.error_code) == *expected && (row.topic_id == state.topic_id || row.name == state.name));
        assert!(found, "{state:?} gets {expected:?}: {:?}", response.responses);
    }
    let deleted = response.responses.iter().find(|row| row.topic_id == id).unwrap();
    assert_eq!(deleted.name.as_deref(), Some("by-id"), "the answer has both names");
    let all = client.call(12, &MetadataRequest { topics: None, ..Default::default() });
    assert!(all.topics.is_empty());
}

#[test]
fn deletion_can_be_disabled_and_old_clients_hear_it_in_their_own_words() {
    let broker = TestBroker::start_with(&[("delete.topic.enable", "false")]);
    let mut client = broker.connect();
    client.create_topic("kept", 1, &[]);
    let request = DeleteTopicsRequest { topic_names: vec!["kept".into()], ..Default::default() };
    for (version, expected) in [(2, ErrorCode::InvalidRequest), (3, ErrorCode::TopicDeletionDisabled)] {
        assert_eq!(code(client.call(version, &request).responses[0].error_code), expected);
    }
    assert!(!common::topic_id(&mut client, "kept").is_zero());
}

#[test]
fn client_rule_82_create_partitions_answers_one_row_for_each_topic() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("grows", 1, &[]);
    client.create_topic("shrinks", 3, &[]);
    let row = |name: &str, count| CreatePartitionsTopic { name: name.into(), count, assignments: None };
    let request = |validate_only| CreatePartitionsRequest {
        topics: vec![row("grows", 4), row("shrinks", 2), row("nobody", 2)],
        validate_only,
        ..Default::default()
    };
    for version in 0..=3 {
        let response = client.call(version, &request(true));
        let rows: Vec<_> = response.results.iter().map(|row| (&*row.name, code(row.error_code))).collect();
        let expected = [
            ("grows", ErrorCode::None),
            ("shrinks", ErrorCode::InvalidPartitions),
            ("nobody", ErrorCode::UnknownTopicOrPartition),
        ];
        assert_eq!(rows, expected, "version {version}");
    }
    assert_eq!(code(client.produce("grows", 3, batch(&["early"])).error_code), ErrorCode::UnknownTopicOrPartition);
    client.call(3, &request(false));
    assert_eq!(client.write("grows", 3, &["now"]), 0);
}

#[test]
fn client_rule_82_delete_records_moves_the_start_and_returns_it() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("trim", 2, &[]);
    for i in 0..10 {
        client.write("trim", 0, &[&i.to_string()]);
    }
    assert_eq!(delete_records(&mut client, "trim", 0, 4), (ErrorCode::None, 4));
    assert_eq!(client.read("trim", 0, 4), ["4", "5", "6", "7", "8", "9"]);
    let below = common::only_fetched(client.call(12, &common::fetch_request("trim", 0, 3)));
    assert_eq!(code(below.error_code), ErrorCode::OffsetOutOfRange);
    assert_eq!(delete_records(&mut client, "trim", 0, 2), (ErrorCode::None, 4), "the start never goes back");
    assert_eq!(delete_records(&mut client, "trim", 0, -1), (ErrorCode::None, 10), "-1 is the high watermark");
    assert!(client.read("trim", 0, 10).is_empty());
    assert_eq!(delete_records(&mut client, "trim", 0, 11), (ErrorCode::OffsetOutOfRange, -1));
    assert_eq!(delete_records(&mut client, "trim", 0, -2), (ErrorCode::OffsetOutOfRange, -1));
    assert_eq!(delete_records(&mut client, "trim", 1, -1), (ErrorCode::None, 0), "an empty partition");
    assert_eq!(delete_records(&mut client, "trim", 2, -1), (ErrorCode::UnknownTopicOrPartition, -1));
    assert_eq!(delete_records(&mut client, "nobody", 0, -1), (ErrorCode::UnknownTopicOrPartition, -1));
    assert_eq!(client.write("trim", 0, &["next"]), 10, "offsets go on");

    let broker = broker.restart();
    let mut client = broker.connect();
    assert_eq!(client.read("trim", 0, 10), ["next"]);
    let below = common::only_fetched(client.call(12, &common::fetch_request("trim", 0, 9)));
    assert_eq!(code(below.error_code), ErrorCode::OffsetOutOfRange, "what was deleted stays deleted");
}

#[test]
fn client_rule_83_telemetry_is_not_advertised() {
    let broker = TestBroker::start();
    let keys = broker.connect().call(0, &ottla_protocol::messages::ApiVersionsRequest::default()).api_keys;
    assert!(keys.iter().all(|row| ![71, 72].contains(&row.api_key)));
}

#[test]
fn acls_are_security_disabled_row_by_row() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    for version in 1..=3 {
        let described = client.call(version, &DescribeAclsRequest { pattern_type_filter: 1, ..Default::default() });
        assert_eq!(code(described.error_code), ErrorCode::SecurityDisabled);
        let creations = vec![AclCreation::default(); 2];
        let created = client.call(version, &CreateAclsRequest { creations });
        assert_eq!(created.results.len(), 2);
        assert!(created.results.iter().all(|row| code(row.error_code) == ErrorCode::SecurityDisabled));
        let filters = vec![DeleteAclsFilter::default(); 3];
        let deleted = client.call(version, &DeleteAclsRequest { filters });
        assert_eq!(deleted.filter_results.len(), 3);
        assert!(deleted.filter_results.iter().all(|row| code(row.error_code) == ErrorCode::SecurityDisabled));
    }
}

#[test]
fn log_dirs_show_partitions_sizes_and_room() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("b", 2, &[]);
    client.create_topic("a", 1, &[]);
    client.write("b", 1, &["some", "bytes"]);
    for version in 1..=5 {
        let all = client.call(version, &DescribeLogDirsRequest { topics: None });
        let [dir] = &all.results[..] else { panic!("one directory: {all:?}") };
        assert_eq!(code(dir.error_code), ErrorCode::None);
        assert!(std::path::Path::new(&*dir.log_dir).is_dir());
        let names: Vec<_> = dir.topics.iter().map(|topic| (&*topic.name, topic.partitions.len())).collect();
        assert_eq!(names, [("a", 1), ("b", 2)]);
        let sizes: Vec<_> = dir.topics[1].partitions.iter().map(|partition| partition.partition_size).collect();
        assert_eq!(sizes[0], 0);
        assert!(sizes[1] > 61, "one batch");
        assert!(dir.topics[1].partitions.iter().all(|partition| partition.offset_lag == 0 && !partition.is_future_key));
        if version >= 4 {
            assert!(dir.usable_bytes > 0 && dir.total_bytes > dir.usable_bytes / 2);
        }
        let topics = Some(vec![
            DescribableLogDirTopic { topic: "b".into(), partitions: vec![1, 1, 7, -1] },
            DescribableLogDirTopic { topic: "nobody".into(), partitions: vec![0] },
        ]);
        let some = client.call(version, &DescribeLogDirsRequest { topics });
        let found: Vec<_> = some.results[0].topics.iter().map(|topic| (&*topic.name, topic.partitions.len())).collect();
        assert_eq!(found, [("b", 1)]);
    }
}

#[test]
fn producers_of_a_partition_are_described() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("p", 1, &[]);
    let id = init(&mut client, 5, -1, -1).producer_id;
    let mut builder = BatchBuilder::new(Compression::None, None).producer(ProducerId(id), ProducerEpoch(0), 0);
    for value in ["a", "b", "c"] {
        builder.push(Timestamp(5000), None, Some(value.as_bytes()), &[]).unwrap();
    }
    let answer = client.produce("p", 0, builder.build().unwrap());
    assert_eq!(code(answer.error_code), ErrorCode::None);
    let ask = |name: &str, partition_indexes: &[i32]| TopicRequest {
        name: name.into(),
        partition_indexes: partition_indexes.to_vec(),
    };
    let topics = vec![ask("p", &[0, 0, 1]), ask("nobody", &[0])];
    let response = client.call(0, &DescribeProducersRequest { topics });
    let rows: Vec<_> = response.topics.iter().flat_map(|topic| &topic.partitions).collect();
    let codes: Vec<_> = rows.iter().map(|row| code(row.error_code)).collect();
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(codes, [ErrorCode::None, ErrorCode::InvalidRequest, unknown, unknown]);
    let [producer] = &rows[0].active_producers[..] else { panic!("one producer: {rows:?}") };
    assert_eq!((producer.producer_id, producer.producer_epoch, producer.last_sequence), (id, 0, 2));
    assert_eq!((producer.last_timestamp, producer.current_txn_start_offset), (5000, -1));
}

#[test]
fn no_reassignment_is_ever_under_way() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    client.create_topic("stays", 1, &[]);
    let unknown = ListPartitionReassignmentsTopics { name: "nobody".into(), partition_indexes: vec![0] };
    let known = ListPartitionReassignmentsTopics { name: "stays".into(), partition_indexes: vec![0, 1] };
    for topics in [None, Some(Vec::new()), Some(vec![known, unknown])] {
        let response = client.call(0, &ListPartitionReassignmentsRequest { topics, ..Default::default() });
        assert_eq!(code(response.error_code), ErrorCode::None);
        assert!(response.topics.is_empty());
    }
}
