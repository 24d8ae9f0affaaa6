//! Who is elected when a leader goes, and when somebody asks: rules A4 and A5, and rows B8 and B12.

use ottla_metadata::{Command, DamagedCopy, Election, IsrChange, NewTopic, Refusal, Reply};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionIndex};

use crate::{
    cluster::{Cluster, by_hand, ids, on_topic, set, sized, topic},
    isr::{cluster_with, lists},
};

/// ElectLeaders for `t-0`.
fn elect(cluster: &mut Cluster, kind: Election) -> Result<(), Refusal> {
    let partitions = Some(vec![("t".to_owned(), PartitionIndex(0))]);
    match cluster.run(Command::ElectLeaders { kind, partitions }) {
        Ok(Reply::LeadersElected(rows)) => rows.into_iter().next().unwrap().1,
        other => panic!("{other:?}"),
    }
}

fn damaged(cluster: &mut Cluster, id: i32) {
    let report = damage_report(cluster, id);
    cluster.run(report).unwrap();
}

/// What a broker says of its copy of `t-0`.
fn damage_report(cluster: &Cluster, id: i32) -> Command {
    let (topic, index) = (cluster.topic("t").id, PartitionIndex(0));
    let partition_epoch = cluster.partition("t", 0).partition_epoch;
    let partitions = vec![DamagedCopy { topic, index, partition_epoch }];
    Command::ReportDamage { broker: BrokerId(id), epoch: cluster.epoch(id), partitions }
}

#[test]
fn l5_a_report_of_damage_that_was_held_up_says_nothing_of_the_copy_made_anew() {
    let mut cluster = cluster_with("2");
    let report = damage_report(&cluster, 1);
    cluster.run(report.clone()).unwrap();
    cluster.set_isr("t", 0, &[1, 2, 3]).unwrap();
    let before = cluster.partition("t", 0).clone();
    assert_eq!(cluster.run(report), Err(Refusal::InvalidUpdateVersion));
    assert_eq!(*cluster.partition("t", 0), before);
}

#[test]
fn a4_a_live_member_of_the_isr_leads_and_the_present_leader_first() {
    let mut cluster = cluster_with("1");
    cluster.fence(1);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![2, 3], vec![], Some(2)));
    cluster.start(1, false);
    cluster.set_isr("t", 0, &[2, 3, 1]).unwrap();
    assert_eq!(cluster.partition("t", 0).leader, Some(BrokerId(2)), "nobody asked for the preferred one");
    cluster.fence(2);
    assert_eq!(cluster.partition("t", 0).leader, Some(BrokerId(1)), "in the order of the replicas");
    assert_eq!(cluster.partition("t", 0).leader_epoch, LeaderEpoch(2));
}

#[test]
fn a4_b8_who_is_not_in_the_isr_is_not_elected() {
    let mut cluster = cluster_with("1");
    cluster.set_isr("t", 0, &[1]).unwrap();
    cluster.fence(1);
    let partition = cluster.partition("t", 0);
    assert_eq!(lists(partition), (vec![], vec![1], None));
    assert_eq!(partition.last_known_leader, Some(BrokerId(1)));
    cluster.fence(2);
    cluster.start(2, false);
    assert_eq!(cluster.partition("t", 0).leader, None);
    cluster.start(1, false);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1], vec![], Some(1)));
    assert!(!cluster.partition("t", 0).recovering, "it has everything");
}

#[test]
fn a4_an_eligible_replica_leads_only_when_the_isr_is_empty() {
    let mut cluster = cluster_with("2");
    cluster.set_isr("t", 0, &[1]).unwrap();
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1], vec![2, 3], Some(1)));
    cluster.fence(1);
    let partition = cluster.partition("t", 0);
    assert_eq!(lists(partition), (vec![2], vec![1, 3], Some(2)));
    assert!(!partition.recovering);
}

#[test]
fn a4_a5_the_last_leader_comes_back_where_all_others_have_lost_their_proof_and_says_so() {
    let mut cluster = cluster_with("2");
    cluster.alter(on_topic("t"), &[("ottla.durability", set("replicated"))]).unwrap();
    // Power is lost everywhere.
    [3, 1, 2].into_iter().for_each(|id| cluster.begin_start(id, false));
    let partition = cluster.partition("t", 0).clone();
    assert_eq!(lists(&partition), (vec![], vec![], None));
    let last = partition.last_known_leader.unwrap();
    assert_eq!(last, BrokerId(2));
    cluster.unfence(1);
    assert_eq!(cluster.partition("t", 0).leader, None, "1 may lack what 2 has");
    cluster.unfence(2);
    let partition = cluster.partition("t", 0);
    assert_eq!(lists(partition), (vec![2], vec![], Some(2)));
    assert!(partition.recovering, "what is lost is said to be");
}

#[test]
fn a4_the_last_leader_waits_for_one_that_has_proof() {
    let mut cluster = cluster_with("2");
    cluster.alter(on_topic("t"), &[("ottla.durability", set("replicated"))]).unwrap();
    cluster.fence(3);
    cluster.fence(2);
    cluster.start(1, false);
    let partition = cluster.partition("t", 0);
    assert_eq!((lists(partition), partition.last_known_leader), ((vec![], vec![2], None), Some(BrokerId(1))));
    cluster.start(2, true);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![2], vec![], Some(2)));
    assert!(!cluster.partition("t", 0).recovering);
}

#[test]
fn a4_a_leader_that_recovers_stays_alone_until_it_has() {
    let mut cluster = cluster_with("1");
    cluster.alter(on_topic("t"), &[("ottla.durability", set("replicated"))]).unwrap();
    cluster.set_isr("t", 0, &[1]).unwrap();
    cluster.start(1, false);
    assert!(cluster.partition("t", 0).recovering);
    let wider = IsrChange { recovering: true, ..cluster.isr_change("t", 0, &[1, 2]) };
    assert!(matches!(cluster.send(1, wider), Err(Refusal::InvalidRequest(_))));
    let still = IsrChange { recovering: true, ..cluster.isr_change("t", 0, &[1]) };
    assert!(cluster.send(1, still).unwrap().recovering);
    assert!(!cluster.set_isr("t", 0, &[1, 2]).unwrap().recovering);
    let again = IsrChange { recovering: true, ..cluster.isr_change("t", 0, &[1]) };
    assert!(matches!(cluster.send(1, again), Err(Refusal::InvalidRequest(_))));
}

#[test]
fn a4_an_unclean_election_is_an_operators_or_a_configs_decision() {
    let mut cluster = cluster_with("1");
    cluster.set_isr("t", 0, &[1]).unwrap();
    assert_eq!(elect(&mut cluster, Election::Unclean), Err(Refusal::ElectionNotNeeded));
    cluster.fence(1);
    assert_eq!(elect(&mut cluster, Election::Unclean), Ok(()));
    let partition = cluster.partition("t", 0);
    assert_eq!((lists(partition), partition.recovering), ((vec![2], vec![], Some(2)), true));
    // The one with more records is cut back, and does not lead because of them.
    cluster.start(1, false);
    assert_eq!(cluster.partition("t", 0).leader, Some(BrokerId(2)));

    let mut cluster = cluster_with("1");
    cluster.set_isr("t", 0, &[1]).unwrap();
    cluster.fence(1);
    cluster.alter(on_topic("t"), &[("unclean.leader.election.enable", set("true"))]).unwrap();
    let partition = cluster.partition("t", 0);
    assert_eq!((partition.leader, partition.recovering), (Some(BrokerId(2)), true), "at once");
    cluster.fence(2);
    assert_eq!(cluster.partition("t", 0).leader, Some(BrokerId(3)));
    cluster.fence(3);
    assert_eq!(cluster.partition("t", 0).leader, None);
    assert_eq!(elect(&mut cluster, Election::Unclean), Err(Refusal::EligibleLeadersNotAvailable));
    cluster.start(2, false);
    assert_eq!(cluster.partition("t", 0).leader, Some(BrokerId(2)), "as soon as there is one");
}

#[test]
fn l5_a_damaged_copy_is_not_believed_and_the_last_one_stays_offline_until_an_operator_accepts_the_loss() {
    let mut cluster = cluster_with("2");
    damaged(&mut cluster, 1);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![2, 3], vec![], Some(2)), "others have everything");
    cluster.fence(3);
    damaged(&mut cluster, 2);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![], vec![3], None), "3 is not there, but it is eligible");
    damaged(&mut cluster, 3);
    let partition = cluster.partition("t", 0);
    assert_eq!((lists(partition), partition.last_known_leader), ((vec![], vec![], None), None));
    cluster.start(3, false);
    assert_eq!(cluster.partition("t", 0).leader, None);
    elect(&mut cluster, Election::Unclean).unwrap();
    assert!(cluster.partition("t", 0).recovering);
    let stale = Command::ReportDamage { broker: BrokerId(1), epoch: BrokerEpoch(0), partitions: vec![] };
    assert_eq!(cluster.run(stale), Err(Refusal::StaleBrokerEpoch(BrokerId(1))));
}

#[test]
fn preferred_replicas_lead_again_when_they_are_asked_to() {
    let mut cluster = cluster_with("1");
    assert_eq!(elect(&mut cluster, Election::Preferred), Err(Refusal::ElectionNotNeeded));
    cluster.start(1, false);
    assert_eq!(elect(&mut cluster, Election::Preferred), Err(Refusal::PreferredLeaderNotAvailable));
    cluster.set_isr("t", 0, &[2, 3, 1]).unwrap();
    assert_eq!(elect(&mut cluster, Election::Preferred), Ok(()));
    assert_eq!(cluster.partition("t", 0).leader, Some(BrokerId(1)));
    assert_eq!(lists(cluster.partition("t", 0)).0, [2, 3, 1]);
}

#[test]
fn all_that_need_an_election_are_answered_if_none_is_named() {
    let mut cluster = Cluster::of(2);
    cluster.create_one(by_hand("a", &[(0, &[1, 2]), (1, &[2, 1])])).unwrap();
    cluster.create_one(by_hand("b", &[(0, &[1, 2])])).unwrap();
    cluster.start(1, false);
    cluster.set_isr("a", 0, &[2, 1]).unwrap();
    let command = Command::ElectLeaders { kind: Election::Preferred, partitions: None };
    let Ok(Reply::LeadersElected(rows)) = cluster.run(command) else { panic!("answered with something else") };
    let a = (("a".to_owned(), PartitionIndex(0)), Ok(()));
    let b = (("b".to_owned(), PartitionIndex(0)), Err(Refusal::PreferredLeaderNotAvailable));
    assert_eq!(rows, [a, b]);

    let zero = PartitionIndex(0);
    let named = ["a", "x", "b", "b"].map(|name| (name.to_owned(), zero)).to_vec();
    let named = [named, vec![("a".to_owned(), PartitionIndex(9))]].concat();
    let command = Command::ElectLeaders { kind: Election::Preferred, partitions: Some(named) };
    let Ok(Reply::LeadersElected(rows)) = cluster.run(command) else { panic!("answered with something else") };
    let results: Vec<_> = rows.into_iter().map(|(_, result)| result).collect();
    assert_eq!(results[..2], [Err(Refusal::ElectionNotNeeded), Err(Refusal::UnknownTopic("x".to_owned()))]);
    assert!(matches!(results[2], Err(Refusal::InvalidRequest(_))), "named twice");
    assert_eq!(results[3], Err(Refusal::UnknownPartition("a".to_owned(), PartitionIndex(9))));
}

#[test]
fn leadership_goes_back_by_itself_where_it_is_more_uneven_than_allowed() {
    let mut cluster = Cluster::of(2);
    let assignments = (0..10).map(|index| (PartitionIndex(index), ids(&[1, 2]))).collect();
    cluster.create_one(NewTopic { assignments, ..topic("t") }).unwrap();
    cluster.start(1, false);
    (0..10).for_each(|index| drop(cluster.set_isr("t", index, &[2, 1]).unwrap()));
    for index in 0..9 {
        let partitions = Some(vec![("t".to_owned(), PartitionIndex(index))]);
        cluster.run(Command::ElectLeaders { kind: Election::Preferred, partitions }).unwrap();
    }
    // One of ten is elsewhere.
    let balance = |threshold_percent| Command::BalanceLeaders { threshold_percent };
    assert_eq!(cluster.run(balance(10)), Ok(Reply::LeadersBalanced { elected: 0 }));
    assert_eq!(cluster.run(balance(9)), Ok(Reply::LeadersBalanced { elected: 1 }));
    assert_eq!(cluster.image.led_by(BrokerId(1)).count(), 10);
    assert_eq!(cluster.run(balance(0)), Ok(Reply::LeadersBalanced { elected: 0 }));
}

#[test]
fn a_broker_with_10_000_partitions_is_fenced_in_one_decision() {
    let mut cluster = Cluster::of(3);
    cluster.create_one(sized("many", 10_000, 3)).unwrap();
    let led = cluster.image.led_by(BrokerId(1)).count();
    assert!(led >= 3_333);
    let published = cluster.image.clone();
    let length = cluster.log.len();
    cluster.fence(1);
    assert_eq!(cluster.log.len() - length, 10_001, "the broker, and each partition once");
    assert_eq!(cluster.image.led_by(BrokerId(1)).count(), 0);
    assert_eq!(published.led_by(BrokerId(1)).count(), led);
    let others = [2, 3].map(|id| cluster.image.led_by(BrokerId(id)).count());
    assert!(others[0].abs_diff(others[1]) <= 10, "its leaderships go to many, not to one: {others:?}");
}
