//! Where replicas are put: rack by rack, evenly, and anew when the set of brokers changes.

use std::collections::BTreeSet;

use ottla_metadata::{Command, Health, Move, OFFSETS_TOPIC, Refusal, Reply};
use ottla_types::BrokerId;

use crate::cluster::{Cluster, by_hand, ids, sized, topic};

/// How many replicas and leaders each broker has.
fn loads(cluster: &Cluster) -> Vec<(usize, usize)> {
    health(cluster).brokers.values().map(|load| (load.replicas, load.leaders)).collect()
}

fn health(cluster: &Cluster) -> Health {
    let layers = cluster.image.layers(BrokerId(1), &cluster.settings);
    cluster.image.health(ottla_metadata::config::TopicConfig::resolve(&layers))
}

fn racks(cluster: &Cluster, replicas: &[BrokerId]) -> usize {
    let rack = |id: &BrokerId| cluster.image.broker(*id).unwrap().rack.clone();
    replicas.iter().map(rack).collect::<BTreeSet<_>>().len()
}

/// Every follower of every partition catches up.
fn catch_up(cluster: &mut Cluster) {
    let all: Vec<(String, i32, Vec<i32>)> = cluster
        .image
        .partitions()
        .map(|(topic, index, partition)| {
            let replicas = partition.replicas.iter().filter(|id| cluster.image.is_live(**id));
            (topic.name.to_string(), index.0, replicas.map(|id| id.0).collect())
        })
        .collect();
    for (topic, index, replicas) in all {
        match cluster.set_isr(&topic, index, &replicas) {
            Ok(_) | Err(Refusal::NewLeaderElected) => {}
            Err(refusal) => panic!("{refusal}"),
        }
    }
}

fn drain(cluster: &mut Cluster, id: i32, drain: bool) -> Result<usize, Refusal> {
    match cluster.run(Command::DrainBroker { id: BrokerId(id), drain })? {
        Reply::Draining { left } => Ok(left),
        other => panic!("{other:?}"),
    }
}

fn rebalance(cluster: &mut Cluster, dry_run: bool) -> Vec<Move> {
    match cluster.run(Command::Rebalance { dry_run }) {
        Ok(Reply::Rebalanced(moves)) => moves,
        other => panic!("{other:?}"),
    }
}

#[test]
fn replicas_stand_in_as_many_racks_as_there_are() {
    let mut cluster = Cluster::in_racks(&["a", "a", "b", "b", "c", "c"]);
    cluster.create_one(sized("t", 60, 3)).unwrap();
    for partition in &cluster.topic("t").partitions {
        assert_eq!(racks(&cluster, &partition.replicas), 3, "{partition:?}");
    }
    let even = |(replicas, leaders): (usize, usize)| replicas.abs_diff(30) <= 1 && leaders == 10;
    assert!(loads(&cluster).into_iter().all(even), "{:?}", loads(&cluster));
    // With more replicas than racks, no rack has two more than another.
    cluster.create_one(sized("u", 60, 5)).unwrap();
    for partition in &cluster.topic("u").partitions {
        assert_eq!(racks(&cluster, &partition.replicas), 3, "{partition:?}");
    }
}

#[test]
fn uneven_racks_share_leadership_evenly() {
    let mut cluster = Cluster::in_racks(&["a", "a", "a", "b"]);
    cluster.create_one(sized("t", 40, 2)).unwrap();
    assert!(cluster.topic("t").partitions.iter().all(|partition| racks(&cluster, &partition.replicas) == 2));
    let loads = loads(&cluster);
    assert!(loads.iter().all(|(_, leaders)| *leaders == 10), "{loads:?}");
    assert_eq!(loads[3].0, 40, "one of each pair has to be there");
}

#[test]
fn a_topic_gets_three_copies_or_as_many_as_there_are_brokers_unless_somebody_says() {
    for (brokers, expected) in [(1, 1), (2, 2), (3, 3), (5, 3)] {
        let mut cluster = Cluster::of(brokers);
        assert_eq!(cluster.create_one(topic("t")).unwrap().replication_factor, expected);
    }
    let mut cluster = Cluster::with(3, &[("default.replication.factor", "1")]);
    assert_eq!(cluster.create_one(topic("t")).unwrap().replication_factor, 1);
    let mut cluster = Cluster::with(1, &[("default.replication.factor", "2")]);
    assert!(matches!(cluster.create_one(topic("t")), Err(Refusal::InvalidReplicationFactor(_))));
}

#[test]
fn only_brokers_that_are_there_to_stay_get_replicas() {
    let mut cluster = Cluster::of(5);
    cluster.fence(1);
    cluster.shut_down(2);
    drain(&mut cluster, 3, true).unwrap();
    cluster.create_one(sized("t", 10, 2)).unwrap();
    assert!(cluster.topic("t").partitions.iter().all(|partition| partition.replicas.iter().all(|id| id.0 > 3)));
    let refused = cluster.create_one(sized("u", 1, 3));
    assert!(matches!(refused, Err(Refusal::InvalidReplicationFactor(_))), "{refused:?}");
}

#[test]
fn a_partition_assigned_to_brokers_that_are_down_begins_with_the_others() {
    let mut cluster = Cluster::of(3);
    cluster.fence(1);
    cluster.create_one(by_hand("t", &[(0, &[1, 2, 3])])).unwrap();
    let partition = cluster.partition("t", 0);
    assert_eq!((&*partition.isr, partition.leader), (&ids(&[2, 3])[..], Some(BrokerId(2))));
    let refused = cluster.create_one(by_hand("u", &[(0, &[1])]));
    assert!(matches!(refused, Err(Refusal::InvalidAssignment(_))), "{refused:?}");
}

#[test]
fn a_drained_broker_gives_its_replicas_away_some_at_a_time() {
    let mut cluster = Cluster::in_racks(&["a", "a", "b", "b", "c", "c"]);
    cluster.create_one(sized("t", 400, 3)).unwrap();
    let held = cluster.image.partitions_of(BrokerId(1)).count();
    assert!(held > 150, "{held}");
    let mut left = drain(&mut cluster, 1, true).unwrap();
    assert_eq!((left, health(&cluster).reassigning), (held, 100));
    assert_eq!(drain(&mut cluster, 1, true), Ok(held), "no more at a time");
    while left > 0 {
        catch_up(&mut cluster);
        left = drain(&mut cluster, 1, true).unwrap();
    }
    assert_eq!(cluster.image.partitions_of(BrokerId(1)).count(), 0);
    assert_eq!(health(&cluster).reassigning, 0);
    let topic = cluster.topic("t");
    assert!(topic.partitions.iter().all(|p| p.replicas.len() == 3 && racks(&cluster, &p.replicas) == 3));
    assert_eq!(loads(&cluster)[1].0, 400, "its rack has one broker left");
    cluster.fence(1);
    cluster.run(Command::UnregisterBroker { id: BrokerId(1) }).unwrap();
    assert_eq!(drain(&mut cluster, 1, true), Err(Refusal::BrokerNotRegistered(BrokerId(1))));
}

#[test]
fn a_broker_whose_replicas_nobody_can_take_is_not_drained() {
    let mut cluster = Cluster::of(3);
    cluster.create_one(sized("t", 1, 3)).unwrap();
    let refused = drain(&mut cluster, 2, true);
    let Err(Refusal::InvalidReplicationFactor(why)) = refused else { panic!("there is no fourth: {refused:?}") };
    assert!(why.contains("t-0"), "{why}");
    assert!(!cluster.image.broker(BrokerId(2)).unwrap().draining, "as if it had not been asked");
    cluster.start(4, false);
    assert_eq!(drain(&mut cluster, 2, true), Ok(1));
    assert_eq!(drain(&mut cluster, 2, false), Ok(0));
    assert!(!cluster.image.broker(BrokerId(2)).unwrap().draining);
}

#[test]
fn being_drained_outlives_a_restart() {
    let mut cluster = Cluster::of(2);
    drain(&mut cluster, 2, true).unwrap();
    cluster.start(2, false);
    assert!(cluster.image.broker(BrokerId(2)).unwrap().draining);
}

#[test]
fn internal_topics_grow_with_the_cluster_and_shrink_with_it() {
    let mut cluster = Cluster::of(1);
    cluster.run(Command::CreateOffsetsTopic).unwrap();
    cluster.create_one(sized("t", 1, 1)).unwrap();
    let copies = |cluster: &Cluster| cluster.partition(OFFSETS_TOPIC, 7).target_replicas().count();
    for (brokers, expected) in [(1, 1), (2, 2), (3, 3), (4, 3)] {
        if brokers > 1 {
            cluster.start(brokers, false);
        }
        cluster.run(Command::RaiseInternalTopics).unwrap();
        catch_up(&mut cluster);
        assert_eq!(copies(&cluster), expected);
        let length = cluster.log.len();
        cluster.run(Command::RaiseInternalTopics).unwrap();
        assert_eq!(cluster.log.len(), length, "no change, no record");
    }
    assert_eq!(cluster.partition("t", 0).replicas.len(), 1, "others are their owners' affair");
    let lonely = health(&cluster).single_copy_topics;
    assert_eq!(lonely.iter().map(|name| &**name).collect::<Vec<&str>>(), ["t"]);
    // With two brokers left, the third copy goes rather than keep a broker from leaving.
    for id in [4, 3] {
        while drain(&mut cluster, id, true).unwrap() > 0 {
            catch_up(&mut cluster);
        }
    }
    assert_eq!(copies(&cluster), 2);
}

#[test]
fn a_new_broker_gets_its_share_and_no_more() {
    let mut cluster = Cluster::in_racks(&["a", "b", "c"]);
    cluster.create_one(sized("t", 60, 3)).unwrap();
    cluster.create_one(sized("u", 60, 1)).unwrap();
    assert_eq!(rebalance(&mut cluster, false), [], "it is even");
    cluster.start(4, false);
    let planned = rebalance(&mut cluster, true);
    assert!(!planned.is_empty() && planned.len() <= 100);
    let before = cluster.image.clone();
    assert_eq!(rebalance(&mut cluster, true), planned);
    assert_eq!(cluster.image, before, "a dry run changes nothing");
    assert_eq!(rebalance(&mut cluster, false), planned);
    for _ in 0..10 {
        catch_up(&mut cluster);
        if rebalance(&mut cluster, false).is_empty() {
            break;
        }
    }
    assert_eq!(rebalance(&mut cluster, false), [], "it comes to an end");
    cluster.run(Command::BalanceLeaders { threshold_percent: 0 }).unwrap();
    let loads = loads(&cluster);
    assert!(loads.iter().all(|(replicas, leaders)| *replicas == 60 && *leaders == 30), "{loads:?}");
}

#[test]
fn the_leaders_of_neighbouring_partitions_stand_in_different_racks() {
    let mut cluster = Cluster::in_racks(&["a", "a", "b", "b"]);
    cluster.create_one(sized("t", 8, 1)).unwrap();
    for pair in cluster.topic("t").partitions.windows(2) {
        let neighbours = [pair[0].replicas[0], pair[1].replicas[0]];
        assert_eq!(racks(&cluster, &neighbours), 2, "{neighbours:?}");
    }
}

#[test]
fn leaders_are_evened_out_some_at_a_time() {
    let mut cluster = Cluster::of(2);
    let assignments: Vec<(i32, &[i32])> = (0..240).map(|index| (index, &[1, 2][..])).collect();
    cluster.create_one(by_hand("t", &assignments)).unwrap();
    assert_eq!(rebalance(&mut cluster, false).len(), 100);
    catch_up(&mut cluster);
    assert_eq!(rebalance(&mut cluster, false).len(), 20);
    catch_up(&mut cluster);
    assert_eq!(rebalance(&mut cluster, false), []);
    cluster.run(Command::BalanceLeaders { threshold_percent: 0 }).unwrap();
    assert_eq!(loads(&cluster), [(240, 120), (240, 120)]);
}

#[test]
fn racks_are_not_crowded_for_the_sake_of_evenness() {
    let mut cluster = Cluster::in_racks(&["a", "a", "a", "b"]);
    cluster.create_one(sized("t", 30, 2)).unwrap();
    assert_eq!(loads(&cluster)[3].0, 30, "one of each pair");
    rebalance(&mut cluster, false);
    catch_up(&mut cluster);
    assert!(cluster.topic("t").partitions.iter().all(|partition| racks(&cluster, &partition.replicas) == 2));
}

#[test]
fn replicas_that_share_a_rack_are_parted_when_there_is_another() {
    let mut cluster = Cluster::in_racks(&["a", "a", "b"]);
    cluster.create_one(by_hand("t", &[(0, &[1, 2]), (1, &[2, 1])])).unwrap();
    rebalance(&mut cluster, false);
    catch_up(&mut cluster);
    assert!(cluster.topic("t").partitions.iter().all(|partition| racks(&cluster, &partition.replicas) == 2));
}

#[test]
fn health_counts_what_is_wrong() {
    let mut cluster = Cluster::with(3, &[("min.insync.replicas", "2")]);
    cluster.create_one(by_hand("t", &[(0, &[1, 2]), (1, &[2, 3]), (2, &[3, 1])])).unwrap();
    cluster.create_one(by_hand("lone", &[(0, &[3])])).unwrap();
    assert_eq!(health(&cluster).under_replicated, 0);
    cluster.fence(3);
    let health = health(&cluster);
    assert_eq!((health.partitions, health.offline, health.reassigning), (4, 1, 0));
    assert_eq!((health.under_replicated, health.below_min_isr), (3, 3));
    let third = health.brokers[&BrokerId(3)];
    assert_eq!((third.replicas, third.out_of_sync, third.leaders), (3, 3, 0));
}
