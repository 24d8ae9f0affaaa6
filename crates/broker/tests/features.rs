//! Feature levels over the wire: what is told, what may be changed, and who is refused (KIP-584); and which run of a
//! broker is taken in (rules A1 and A2).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use common::{Client, TestBroker, code};
use ottla_metadata::{METADATA_VERSION, OTTLA_VERSION, SUPPORTED_FEATURES};
use ottla_protocol::{
    ErrorCode,
    messages::{
        ApiVersionsRequest, BrokerHeartbeatRequest, BrokerRegistrationRequest, BrokerRegistrationResponse,
        ConsumerGroupHeartbeatRequest, UpdateFeaturesRequest, UpdateFeaturesResponse, broker_registration_request,
        update_features_request::FeatureUpdateKey,
    },
};

const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;

fn update(feature: &str, level: i16, upgrade_type: i8) -> FeatureUpdateKey {
    FeatureUpdateKey { feature: feature.into(), max_version_level: level, upgrade_type, ..Default::default() }
}

fn ask(client: &mut Client, version: i16, update: FeatureUpdateKey, validate_only: bool) -> UpdateFeaturesResponse {
    let feature_updates = vec![update];
    client.call(version, &UpdateFeaturesRequest { feature_updates, validate_only, ..Default::default() })
}

/// The finalised level of a feature, and the epoch that goes with it.
fn finalised(client: &mut Client, feature: &str) -> (Option<i16>, i64) {
    let (client_software_name, client_software_version) = ("test".into(), "1".into());
    let told = client.call(4, &ApiVersionsRequest { client_software_name, client_software_version });
    let row = told.finalized_features.iter().find(|row| row.name == feature);
    (row.map(|row| row.max_version_level), told.finalized_features_epoch)
}

#[test]
fn a_level_goes_down_and_up_again_in_every_version() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let name = METADATA_VERSION.name;
    let (level, epoch) = finalised(&mut client, name);
    assert_eq!(level, Some(METADATA_VERSION.max));
    let lower = METADATA_VERSION.max - 1;
    for version in 0..=2 {
        let down = match version {
            0 => FeatureUpdateKey { allow_downgrade: true, ..update(name, lower, UPGRADE) },
            _ => update(name, lower, SAFE_DOWNGRADE),
        };
        if version > 0 {
            let answer = ask(&mut client, version, down.clone(), true);
            assert_eq!(code(answer.error_code), ErrorCode::None, "{answer:?}");
            assert_eq!(finalised(&mut client, name).0, level, "only asked");
        }
        let answer = ask(&mut client, version, down, false);
        assert_eq!(code(answer.error_code), ErrorCode::None, "{answer:?}");
        let rows: Vec<_> = answer.results.iter().map(|row| (&*row.feature, row.error_code)).collect();
        assert_eq!(rows, if version < 2 { vec![(name, 0)] } else { Vec::new() });
        assert_eq!(finalised(&mut client, name).0, Some(lower));
        let answer = ask(&mut client, version, update(name, METADATA_VERSION.max, UPGRADE), false);
        assert_eq!(code(answer.error_code), ErrorCode::None, "{answer:?}");
    }
    let after = finalised(&mut client, name);
    assert_eq!(after.0, level);
    assert!(after.1 > epoch);
}

#[test]
fn what_can_be_no_level_is_refused_as_kafka_refuses_it() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let cases = [
        (update("metadata.version", METADATA_VERSION.max + 1, UPGRADE), ErrorCode::InvalidUpdateVersion),
        (update("metadata.version", METADATA_VERSION.max - 1, UPGRADE), ErrorCode::InvalidUpdateVersion),
        (update("nobody.knows", 1, UPGRADE), ErrorCode::InvalidUpdateVersion),
        (update(OTTLA_VERSION.name, 1, SAFE_DOWNGRADE), ErrorCode::InvalidUpdateVersion),
        (update("metadata.version", METADATA_VERSION.max, 0), ErrorCode::InvalidRequest),
        (update("metadata.version", METADATA_VERSION.max, 4), ErrorCode::InvalidRequest),
    ];
    for version in 1..=2 {
        for (update, expected) in &cases {
            let answer = ask(&mut client, version, update.clone(), false);
            assert_eq!(code(answer.error_code), *expected, "{update:?}");
            let message = answer.error_message.unwrap();
            let begins = "The update failed for all features since the following feature had an error: ";
            assert_eq!(message.starts_with(begins), *expected == ErrorCode::InvalidUpdateVersion, "{message}");
            assert!(answer.results.is_empty());
        }
    }
    assert_eq!(finalised(&mut client, OTTLA_VERSION.name).0, Some(OTTLA_VERSION.max));
}

#[test]
fn without_group_version_there_is_no_consumer_protocol() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let heartbeat = ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        member_epoch: 5,
        ..Default::default()
    };
    assert_eq!(
        code(ask(&mut client, 2, update("group.version", 0, SAFE_DOWNGRADE), false).error_code),
        ErrorCode::None
    );
    assert_eq!(finalised(&mut client, "group.version").0, None, "0 is not told");
    assert_eq!(code(client.call(1, &heartbeat).error_code), ErrorCode::UnsupportedVersion);
    let broker = broker.restart();
    let mut client = broker.connect();
    assert_eq!(finalised(&mut client, "group.version").0, None, "a start raises nothing");
    assert_eq!(code(ask(&mut client, 2, update("group.version", 1, UPGRADE), false).error_code), ErrorCode::None);
    assert_ne!(code(client.call(1, &heartbeat).error_code), ErrorCode::UnsupportedVersion);
}

#[test]
fn a_node_that_does_not_support_the_level_is_refused_with_what_to_do() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let mut join = |features: &[(&str, i16, i16)]| -> BrokerRegistrationResponse {
        let feature = |&(name, min, max): &(&str, i16, i16)| broker_registration_request::Feature {
            name: name.into(),
            min_supported_version: min,
            max_supported_version: max,
        };
        client.call(
            4,
            &BrokerRegistrationRequest {
                broker_id: -1,
                incarnation_id: [1; 16],
                features: features.iter().map(feature).collect(),
                log_dirs: vec![[7; 16]],
                previous_broker_epoch: -1,
                ..Default::default()
            },
        )
    };
    let before = [("metadata.version", 7, 30), ("group.version", 0, 1), ("eligible.leader.replicas.version", 0, 1)];
    for ours in [None, Some((OTTLA_VERSION.name, 1, 1))] {
        let features: Vec<_> = before.into_iter().chain(ours).collect();
        let refused = join(&features);
        assert_eq!((code(refused.error_code), refused.ottla_node_id), (ErrorCode::UnsupportedVersion, -1));
        let why = &refused.ottla_refusal;
        assert!(why.contains("level 2 of ottla.version") && why.contains("start the node with"), "{why}");
    }
    assert_eq!(broker.node.image().brokers().len(), 1);
    let features: Vec<_> = before.into_iter().chain([(OTTLA_VERSION.name, 1, OTTLA_VERSION.max)]).collect();
    assert_eq!(code(join(&features).error_code), ErrorCode::None);
}

#[test]
fn a1_a2_a_registration_names_the_runs_that_ended_before_they_heard_of_theirs() {
    let broker = TestBroker::start();
    let mut client = broker.connect();
    let features = SUPPORTED_FEATURES.iter().map(|feature| broker_registration_request::Feature {
        name: feature.name.into(),
        min_supported_version: feature.min,
        max_supported_version: feature.max,
    });
    let joining = BrokerRegistrationRequest {
        broker_id: 77,
        cluster_id: broker.node.cluster_id().into(),
        incarnation_id: [1; 16],
        features: features.collect(),
        log_dirs: vec![[7; 16]],
        previous_broker_epoch: -1,
        ..Default::default()
    };
    let first = client.call(4, &joining);
    assert_eq!(code(first.error_code), ErrorCode::None);
    let heartbeat = BrokerHeartbeatRequest {
        broker_id: 77,
        broker_epoch: first.broker_epoch,
        current_metadata_offset: first.broker_epoch + 1,
        ..Default::default()
    };
    let answer = client.call(1, &heartbeat);
    assert_eq!((code(answer.error_code), answer.is_fenced), (ErrorCode::None, false));

    // While its session lasts only who proves that the run ended is taken in.
    let next = BrokerRegistrationRequest { incarnation_id: [3; 16], ..joining };
    let other = BrokerRegistrationRequest { ottla_unheard_runs: vec![[2; 16]], ..next.clone() };
    for unproven in [&next, &other] {
        assert_eq!(code(client.call(4, unproven).error_code), ErrorCode::DuplicateBrokerRegistration);
    }
    let proven = BrokerRegistrationRequest { ottla_unheard_runs: vec![[1; 16], [2; 16]], ..next };
    let second = client.call(4, &proven);
    assert_eq!(code(second.error_code), ErrorCode::None);
    assert!(second.broker_epoch > first.broker_epoch);
}
