//! The cluster's birth, its brokers and its producer ids.

use ottla_metadata::{Command, GROUP_VERSION, METADATA_VERSION, Record, Refusal, Reply};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, ProducerId};

use crate::cluster::{Cluster, registration, topic};

#[test]
fn a_cluster_is_born_once() {
    let mut cluster = Cluster::of(1);
    let id = cluster.image.cluster_id().unwrap().clone();
    assert_eq!(id.len(), 22);
    let length = cluster.log.len();
    assert_eq!(cluster.run(Command::Bootstrap), Ok(Reply::Bootstrapped(id)));
    assert_eq!(cluster.log.len(), length, "nothing is written the second time");
}

#[test]
fn only_features_that_are_served_are_finalised() {
    let cluster = Cluster::of(1);
    let features: Vec<(&str, i16)> =
        cluster.image.features().iter().map(|(name, level)| (name.as_str(), *level)).collect();
    assert_eq!(features, [("group.version", 1), ("metadata.version", METADATA_VERSION.max)]);
    assert!(cluster.image.features_epoch() > 0);
}

#[test]
fn a_cluster_of_an_older_version_gets_the_features_that_are_new_and_keeps_its_levels() {
    let mut cluster = Cluster::of(1);
    for (name, level) in [(GROUP_VERSION.name, 0), (METADATA_VERSION.name, 29)] {
        cluster.image.apply(&Record::FeatureLevel { name: name.to_owned(), level });
    }
    cluster.run(Command::Bootstrap).unwrap();
    let features: Vec<(&str, i16)> =
        cluster.image.features().iter().map(|(name, level)| (name.as_str(), *level)).collect();
    assert_eq!(features, [("group.version", 1), ("metadata.version", 29)]);
}

#[test]
fn a1_the_same_incarnation_keeps_its_epoch_and_a_new_one_gets_a_new() {
    let mut cluster = Cluster::of(2);
    let first = cluster.register(registration(1, 1, true));
    let length = cluster.log.len();
    assert_eq!(cluster.register(registration(1, 1, false)), first, "asked again");
    assert_eq!(cluster.log.len(), length);
    let second = cluster.register(registration(1, 2, true));
    assert!(second > cluster.image.broker(BrokerId(2)).unwrap().epoch && second > first);
    assert_eq!(cluster.image.broker(BrokerId(1)).unwrap().epoch, second);
}

#[test]
fn an_unclean_restart_begins_a_new_leader_epoch_and_a_clean_one_does_not() {
    let mut cluster = Cluster::of(1);
    cluster.register(registration(1, 2, false));
    assert!(
        !cluster.log.iter().any(|record| matches!(record, Record::BrokerRestartedUncleanly { .. })),
        "nothing led, nothing to say"
    );
    cluster.create_one(topic("orders")).unwrap();
    cluster.register(registration(1, 3, true));
    assert_eq!(cluster.topic("orders").partitions[0].leader_epoch, LeaderEpoch(0));
    cluster.register(registration(1, 4, false));
    let partition = cluster.topic("orders").partitions[0].clone();
    assert_eq!((partition.leader_epoch, partition.partition_epoch), (LeaderEpoch(1), 1));
}

#[test]
fn a_broker_below_zero_is_refused() {
    let refused = Cluster::of(0).run(Command::RegisterBroker(registration(-1, 1, true)));
    assert!(matches!(refused, Err(Refusal::InvalidRequest(_))));
}

#[test]
fn producer_ids_are_given_once() {
    let mut cluster = Cluster::of(1);
    let epoch = cluster.image.broker(BrokerId(1)).unwrap().epoch;
    let allocate = |epoch, count| Command::AllocateProducerIds { broker: BrokerId(1), epoch, count };
    assert_eq!(cluster.run(allocate(epoch, 1000)), Ok(Reply::ProducerIds(ProducerId(0))));
    assert_eq!(cluster.run(allocate(epoch, 1)), Ok(Reply::ProducerIds(ProducerId(1000))));
    assert_eq!(cluster.image.next_producer_id(), ProducerId(1001));

    assert!(matches!(cluster.run(allocate(epoch, 0)), Err(Refusal::InvalidRequest(_))));
    assert_eq!(cluster.run(allocate(BrokerEpoch(epoch.0 - 1), 1)), Err(Refusal::StaleBrokerEpoch(BrokerId(1))));
    cluster.image.apply(&Record::ProducerIdsAllocated { broker: BrokerId(1), next: ProducerId(7) });
    assert_eq!(cluster.image.next_producer_id(), ProducerId(1001), "it never falls");
    cluster.image.apply(&Record::ProducerIdsAllocated { broker: BrokerId(1), next: ProducerId(i64::MAX - 1) });
    assert_eq!(cluster.run(allocate(epoch, 2)), Err(Refusal::ProducerIdsExhausted));
}
