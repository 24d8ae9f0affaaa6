//! Feature levels: what a new cluster has, who is let in, and when a level may change.

use ottla_metadata::{
    BrokerRegistration, Command, ELIGIBLE_LEADER_REPLICAS_VERSION, FeatureChange, FeatureUpdate, GROUP_VERSION, Image,
    METADATA_VERSION, OTTLA_VERSION, Record, Refusal, Reply, UnsupportedLevel, config::Settings,
};
use ottla_types::{BrokerEpoch, BrokerId};

use crate::cluster::{Cluster, features, registration};

const OURS: &str = OTTLA_VERSION.name;

fn update(name: &str, level: i16, change: FeatureChange) -> Command {
    let update = FeatureUpdate { name: name.to_owned(), level, change };
    Command::UpdateFeatures { updates: vec![update], validate_only: false, reported: Default::default() }
}

/// The command with what brokers have said: number, epoch, and the highest level they serve.
fn with_reports(command: Command, said: &[(i32, BrokerEpoch, i16)]) -> Command {
    let Command::UpdateFeatures { updates, validate_only, .. } = command else { panic!("{command:?}") };
    let said = said.iter().map(|&(id, epoch, highest)| (BrokerId(id), (epoch, features(highest))));
    Command::UpdateFeatures { updates, validate_only, reported: said.collect() }
}

fn why(outcome: Result<Reply, Refusal>) -> String {
    match outcome {
        Err(refusal @ Refusal::InvalidLevel { .. }) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Everything that is written is read by a version that goes up to level 1.
fn readable_at_level_1(records: &[Record]) -> bool {
    records.iter().all(|record| record.encode()[1] <= 1)
}

#[test]
fn a_new_cluster_is_at_the_highest_levels_that_its_founder_serves() {
    let cluster = Cluster::of(1);
    let finalised: Vec<(&str, i16)> =
        cluster.image.features().iter().map(|(name, level)| (name.as_str(), *level)).collect();
    let elr = ELIGIBLE_LEADER_REPLICAS_VERSION;
    assert_eq!(finalised, [(elr.name, 1), ("group.version", 1), ("metadata.version", METADATA_VERSION.max), (OURS, 2)]);
    assert!(cluster.image.features_epoch() > 0);
    let held_back = Settings::default().with_highest_level(1);
    let levels: Vec<i16> = held_back.supported_features().map(|feature| feature.max).collect();
    assert_eq!(levels, [1, 1, METADATA_VERSION.max, 1]);
}

#[test]
fn a_start_changes_no_level_of_a_cluster_that_is_there() {
    let mut cluster = Cluster::at_level_1(1);
    for (name, level) in [(GROUP_VERSION.name, 0), (METADATA_VERSION.name, 29)] {
        cluster.image.apply(&Record::FeatureLevel { name: name.to_owned(), level });
    }
    let before = cluster.image.clone();
    cluster.run(Command::Bootstrap).unwrap();
    assert_eq!(cluster.image, before);
    let level = |name: &str| cluster.image.level_of(name);
    assert_eq!((level("group.version"), level("metadata.version"), level(OURS)), (0, 29, 1));
}

#[test]
fn at_level_1_everything_is_written_as_before_there_were_levels() {
    let mut cluster = Cluster::at_level_1(3);
    cluster.start(2, true);
    assert!(readable_at_level_1(&cluster.log) && readable_at_level_1(&cluster.image.to_records()));
    assert!(cluster.image.brokers().all(|broker| broker.features.is_empty()));
    // Versions of Ottla that know no levels name the other features alone.
    let old = features(1).iter().filter(|feature| feature.name != OURS).cloned().collect();
    cluster.register(BrokerRegistration { features: old, ..registration(4, 90) }).unwrap();
}

#[test]
fn a_level_is_raised_once_every_broker_has_said_that_it_serves_it() {
    let mut cluster = Cluster::at_level_1(3);
    let raise = || update(OURS, 2, FeatureChange::Upgrade);
    cluster.shut_down(2);
    cluster.fence(3);
    let [one, two, three] = [1, 2, 3].map(|id| cluster.epoch(id));
    let told = why(cluster.run(with_reports(raise(), &[(1, one, 2), (2, two, 2)])));
    assert!(told.contains("Broker 3 is down") && told.contains("ottla cluster decommission 3"), "{told}");
    let told = why(cluster.run(with_reports(raise(), &[(1, one, 2), (2, two, 1), (3, three, 2)])));
    assert!(told.contains("Broker 2 only supports levels 1 to 1."), "{told}");
    // What an earlier run of it said does not count: it may have gone back to the old version.
    let earlier = BrokerEpoch(three.0 - 1);
    let told = why(cluster.run(with_reports(raise(), &[(1, one, 2), (2, two, 2), (3, earlier, 2)])));
    assert!(told.contains("Broker 3 is down"), "{told}");
    let silent = (BrokerId(3), (three, [].into()));
    let Command::UpdateFeatures { updates, validate_only, mut reported } =
        with_reports(raise(), &[(1, one, 2), (2, two, 2)])
    else {
        panic!()
    };
    reported.extend([silent]);
    let told = why(cluster.run(Command::UpdateFeatures { updates, validate_only, reported }));
    assert!(told.contains("Broker 3 runs a version of Ottla that does not know this feature."), "{told}");

    let all = [(1, one, 2), (2, two, 2), (3, three, 2)];
    let Command::UpdateFeatures { updates, reported, .. } = with_reports(raise(), &all) else { panic!() };
    let before = cluster.image.clone();
    cluster.run(Command::UpdateFeatures { updates, validate_only: true, reported }).unwrap();
    assert_eq!(cluster.image, before, "only asked");

    cluster.run(with_reports(raise(), &all)).unwrap();
    assert_eq!(cluster.image.level(), 2);
    // All else about the brokers is as it was.
    for broker in before.brokers() {
        let mut expected = (**broker).clone();
        expected.features = features(2);
        assert_eq!(**cluster.image.broker(broker.id).unwrap(), expected);
    }
    assert!(!readable_at_level_1(&cluster.image.to_records()));
    let length = cluster.log.len();
    cluster.run(raise()).unwrap();
    assert_eq!(cluster.log.len(), length, "it is there already, and nobody has to be heard for that");
    // A snapshot tells it before anything that needs it, as does the log.
    for records in [cluster.image.to_records(), cluster.log.clone()] {
        let mut image = Image::default();
        for record in &records {
            image.apply(record);
            assert!(record.level() <= image.level(), "{record:?}");
        }
        assert_eq!(image, cluster.image);
    }
}

#[test]
fn a_broker_that_does_not_serve_the_clusters_levels_is_refused_with_what_to_do() {
    let mut cluster = Cluster::of(1);
    let unsupported = |name: &str, level, served| {
        Err(Refusal::UnsupportedLevel(UnsupportedLevel { name: name.to_owned(), level, served }))
    };
    let join = |features| BrokerRegistration { features, ..registration(2, 90) };
    let refused = cluster.register(join(features(1)));
    assert_eq!(refused, unsupported(OURS, 2, Some((1, 1))));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "The cluster is at level 2 of ottla.version, and this node's version of Ottla supports levels 1 to 1; start \
         the node with a version that supports level 2."
    );
    let old: Vec<_> = features(1).iter().filter(|feature| feature.name != OURS).cloned().collect();
    assert_eq!(cluster.register(join(old.into())), unsupported(OURS, 2, None));
    let mut newer = features(2).to_vec();
    newer.iter_mut().for_each(|feature| feature.min = feature.max.max(3));
    let Err(Refusal::UnsupportedLevel(refused)) = cluster.register(join(newer.into())) else { panic!("too new") };
    assert_eq!((refused.level, refused.served), (2, Some((3, 2))));
    let without_groups: Vec<_> =
        features(2).iter().filter(|feature| feature.name != GROUP_VERSION.name).cloned().collect();
    assert_eq!(cluster.register(join(without_groups.into())), unsupported(GROUP_VERSION.name, 1, None));
    assert!(cluster.image.broker(BrokerId(2)).is_none());
    cluster.register(join(features(2))).unwrap();
    assert_eq!(cluster.image.broker(BrokerId(2)).unwrap().features, features(2));
}

#[test]
fn a_node_knows_a_level_that_it_does_not_serve_before_it_reads_on() {
    let level = |name: &str, level| [Record::FeatureLevel { name: name.to_owned(), level }];
    let (newest, held_back) = (Settings::default(), Settings::default().with_highest_level(1));
    assert_eq!(newest.check_levels(&level(OURS, 2)), Ok(()));
    let refused = held_back.check_levels(&level(OURS, 2)).unwrap_err();
    assert_eq!((refused.level, refused.served), (2, Some((1, 1))));
    assert_eq!(held_back.check_levels(&level(OURS, 1)), Ok(()));
    let unknown = newest.check_levels(&level("feature.of.tomorrow", 1)).unwrap_err();
    assert!(unknown.to_string().contains("does not know that feature"), "{unknown}");
    assert_eq!(newest.check_levels(&level("feature.of.tomorrow", 0)), Ok(()), "not used");
    assert!(newest.check_levels(&level(OURS, 3)).is_err());
}

#[test]
fn a_level_goes_down_where_nothing_written_depends_on_it() {
    use FeatureChange::{SafeDowngrade, UnsafeDowngrade, Upgrade};
    let mut cluster = Cluster::of(2);
    for change in [SafeDowngrade, UnsafeDowngrade] {
        let told = why(cluster.run(update(OURS, 1, change)));
        assert!(told.contains("can't read"), "{told}");
    }
    for (name, level, change, expected) in [
        (GROUP_VERSION.name, 0, Upgrade, "only a safe or an unsafe downgrade lowers it"),
        (METADATA_VERSION.name, 6, SafeDowngrade, "The controller only supports levels 7 to 30."),
        (METADATA_VERSION.name, -1, SafeDowngrade, "never below 0"),
        (OURS, 3, Upgrade, "The controller only supports levels 1 to 2."),
        (OURS, 0, SafeDowngrade, "The controller only supports levels 1 to 2."),
        ("feature.of.tomorrow", 1, Upgrade, "does not know"),
    ] {
        let told = why(cluster.run(update(name, level, change)));
        assert!(told.contains(expected) && told.contains(name), "{name} {level}: {told}");
    }
    for (name, level, change) in [(GROUP_VERSION.name, 0, SafeDowngrade), (METADATA_VERSION.name, 29, UnsafeDowngrade)]
    {
        cluster.run(update(name, level, change)).unwrap();
        assert_eq!(cluster.image.level_of(name), level);
    }
    let told = why(cluster.run(update(GROUP_VERSION.name, 1, SafeDowngrade)));
    assert!(told.contains("a downgrade does not raise it"), "{told}");
    cluster.run(update(GROUP_VERSION.name, 1, Upgrade)).unwrap();
    assert_eq!(cluster.image.level_of(GROUP_VERSION.name), 1);
}

#[test]
fn all_of_an_update_is_done_or_nothing() {
    let mut cluster = Cluster::of(1);
    let before = cluster.image.clone();
    let change = FeatureChange::SafeDowngrade;
    let updates = [(METADATA_VERSION.name, 20), (OURS, 1)];
    let updates = updates.map(|(name, level)| FeatureUpdate { name: name.to_owned(), level, change });
    let updates =
        Command::UpdateFeatures { updates: updates.to_vec(), validate_only: false, reported: Default::default() };
    assert!(why(cluster.run(updates)).contains(OURS));
    assert_eq!(cluster.image, before);
}
