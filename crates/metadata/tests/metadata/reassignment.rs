//! Moving replicas by hand: KIP-455 and KIP-860.

use ottla_metadata::{Command, Partition, Refusal, Reply};
use ottla_types::{BrokerId, LeaderEpoch, PartitionIndex};

use crate::{
    cluster::{Cluster, ids, on_topic, set},
    isr::{cluster_with, lists},
};

fn command(target: Option<&[i32]>, allow_factor_change: bool) -> Command {
    let partitions = vec![("t".to_owned(), PartitionIndex(0), target.map(ids))];
    Command::AlterReassignments { partitions, allow_factor_change }
}

fn result(reply: Result<Reply, Refusal>) -> Result<(), Refusal> {
    match reply {
        Ok(Reply::ReassignmentsAltered(rows)) => rows.into_iter().next().unwrap().1,
        other => panic!("{other:?}"),
    }
}

fn reassign(cluster: &mut Cluster, target: &[i32]) -> Result<(), Refusal> {
    result(cluster.run(command(Some(target), true)))
}

fn cancel(cluster: &mut Cluster) -> Result<(), Refusal> {
    result(cluster.run(command(None, true)))
}

/// Replicas, those being added and those that go.
fn sets(partition: &Partition) -> [Vec<i32>; 3] {
    [&partition.replicas, &partition.adding, &partition.removing].map(|list| list.iter().map(|id| id.0).collect())
}

/// `t-0` on brokers 1, 2 and 3 of six, with a minimum of 2.
fn six() -> Cluster {
    let mut cluster = cluster_with("2");
    (4..=6).for_each(|id| cluster.start(id, false));
    cluster
}

#[test]
fn new_replicas_come_first_and_the_old_ones_go_when_all_are_in_sync() {
    let mut cluster = six();
    reassign(&mut cluster, &[4, 5, 3]).unwrap();
    assert_eq!(sets(cluster.partition("t", 0)), [vec![4, 5, 3, 1, 2], vec![4, 5], vec![1, 2]]);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1, 2, 3], vec![], Some(1)));
    assert!(cluster.partition("t", 0).is_reassigning());
    cluster.set_isr("t", 0, &[1, 2, 3, 4]).unwrap();
    assert!(cluster.partition("t", 0).is_reassigning(), "5 is missing");
    let epoch = cluster.partition("t", 0).leader_epoch;
    assert_eq!(cluster.set_isr("t", 0, &[1, 2, 3, 4, 5]), Err(Refusal::NewLeaderElected));
    let partition = cluster.partition("t", 0);
    assert_eq!(sets(partition), [vec![4, 5, 3], vec![], vec![]]);
    assert_eq!(lists(partition), (vec![3, 4, 5], vec![], Some(4)));
    assert_eq!(partition.leader_epoch, LeaderEpoch(epoch.0 + 1));
}

#[test]
fn a_replica_that_goes_begins_an_epoch_even_if_the_leader_stays() {
    let mut cluster = six();
    reassign(&mut cluster, &[1, 2]).unwrap();
    let partition = cluster.partition("t", 0);
    assert_eq!((sets(partition)[0].clone(), partition.leader), (vec![1, 2], Some(BrokerId(1))));
    assert_eq!(partition.leader_epoch, LeaderEpoch(1), "3 must not be taken for a follower any more");
    reassign(&mut cluster, &[2, 1]).unwrap();
    let partition = cluster.partition("t", 0);
    assert_eq!((partition.preferred_leader(), partition.leader), (Some(BrokerId(2)), Some(BrokerId(1))));
    assert_eq!(partition.leader_epoch, LeaderEpoch(1));
}

#[test]
fn a_move_is_taken_back_or_aimed_elsewhere() {
    let mut cluster = six();
    assert_eq!(cancel(&mut cluster), Err(Refusal::NoReassignmentInProgress));
    reassign(&mut cluster, &[4, 5, 6]).unwrap();
    cluster.set_isr("t", 0, &[1, 2, 3, 4]).unwrap();
    reassign(&mut cluster, &[1, 4, 6]).unwrap();
    // 5 had nothing yet. 4, which is in sync, is still new.
    assert_eq!(sets(cluster.partition("t", 0)), [vec![1, 4, 6, 2, 3], vec![4, 6], vec![2, 3]]);
    cancel(&mut cluster).unwrap();
    assert_eq!(sets(cluster.partition("t", 0)), [vec![1, 2, 3], vec![], vec![]]);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1, 2, 3], vec![], Some(1)));
}

#[test]
fn a3_a_move_is_not_taken_back_to_fewer_copies_than_commit() {
    let mut cluster = six();
    reassign(&mut cluster, &[4, 5, 6]).unwrap();
    cluster.set_isr("t", 0, &[1, 4]).unwrap();
    assert!(matches!(cancel(&mut cluster), Err(Refusal::InvalidAssignment(_))), "1 alone is too few");
    cluster.set_isr("t", 0, &[1, 4, 2]).unwrap();
    cancel(&mut cluster).unwrap();
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1, 2], vec![], Some(1)));
}

#[test]
fn a3_copies_that_are_needed_do_not_go_before_others_are_in_sync() {
    let mut cluster = six();
    cluster.set_isr("t", 0, &[1, 3]).unwrap();
    reassign(&mut cluster, &[1, 2]).unwrap();
    assert_eq!(sets(cluster.partition("t", 0)), [vec![1, 2, 3], vec![], vec![3]]);
    cluster.set_isr("t", 0, &[1, 3, 2]).unwrap();
    assert_eq!(sets(cluster.partition("t", 0)), [vec![1, 2], vec![], vec![]]);
}

#[test]
fn a3_a_copy_that_is_only_being_added_does_not_raise_the_minimum() {
    let mut cluster = Cluster::of(3);
    cluster.create_one(crate::cluster::by_hand("t", &[(0, &[1])])).unwrap();
    cluster.alter(on_topic("t"), &[("min.insync.replicas", set("2"))]).unwrap();
    reassign(&mut cluster, &[1, 2, 3]).unwrap();
    assert_eq!(cluster.partition("t", 0).effective_min_isr(2), 1, "it is written to as before");
    cluster.set_isr("t", 0, &[1, 2]).unwrap();
    assert_eq!(cluster.partition("t", 0).effective_min_isr(2), 1);
    cluster.set_isr("t", 0, &[1]).unwrap();
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1], vec![], Some(1)), "1 goes on committing without 2");
    cluster.set_isr("t", 0, &[1, 2, 3]).unwrap();
    assert_eq!(cluster.partition("t", 0).effective_min_isr(2), 2);
}

#[test]
fn what_can_be_no_assignment_is_refused() {
    let mut cluster = six();
    for target in [&[][..], &[1, 1, 2], &[1, 2, 9]] {
        assert!(matches!(reassign(&mut cluster, target), Err(Refusal::InvalidAssignment(_))), "{target:?}");
    }
    for target in [&[1, 2][..], &[1, 2, 3, 4]] {
        let refused = result(cluster.run(command(Some(target), false)));
        assert!(matches!(refused, Err(Refusal::InvalidReplicationFactor(_))), "KIP-860: {refused:?}");
    }
    result(cluster.run(command(Some(&[4, 2, 3]), false))).unwrap();
    let unknown = vec![
        ("x".to_owned(), PartitionIndex(0), None),
        ("t".to_owned(), PartitionIndex(4), Some(ids(&[1]))),
        ("t".to_owned(), PartitionIndex(0), None),
        ("t".to_owned(), PartitionIndex(0), Some(ids(&[1]))),
    ];
    let command = Command::AlterReassignments { partitions: unknown, allow_factor_change: true };
    let Ok(Reply::ReassignmentsAltered(rows)) = cluster.run(command) else { panic!("answered with something else") };
    assert_eq!(rows[0].1, Err(Refusal::UnknownTopic("x".to_owned())));
    assert_eq!(rows[1].1, Err(Refusal::UnknownPartition("t".to_owned(), PartitionIndex(4))));
    assert!(matches!(rows[2..], [(_, Err(Refusal::InvalidRequest(_)))]), "named twice");
}
