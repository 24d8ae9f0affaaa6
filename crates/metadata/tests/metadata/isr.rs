//! ISRs that leaders ask for, and the eligible leaders that come of them: rules I1, I3, A3, and rows B8 to B11.

use ottla_metadata::{Command, IsrChange, NewTopic, Partition, Refusal, Reply, config::Operation};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionIndex, TopicId};

use crate::cluster::{ALL_BROKERS, Cluster, ids, on_topic, set, topic};

/// The partition `t-0` on brokers 1, 2 and 3, of which `min` must be in sync.
pub(crate) fn cluster_with(min: &str) -> Cluster {
    let mut cluster = Cluster::of(3);
    let configs = vec![("min.insync.replicas".to_owned(), Some(min.to_owned()))];
    let assignments = vec![(PartitionIndex(0), ids(&[1, 2, 3]))];
    cluster.create_one(NewTopic { configs, assignments, ..topic("t") }).unwrap();
    cluster
}

/// ISR, ELR and leader.
pub(crate) fn lists(partition: &Partition) -> (Vec<i32>, Vec<i32>, Option<i32>) {
    let numbers = |brokers: &[BrokerId]| brokers.iter().map(|id| id.0).collect();
    (numbers(&partition.isr), numbers(&partition.elr), partition.leader.map(|id| id.0))
}

#[test]
fn i3_every_change_is_a_newer_state() {
    let mut cluster = cluster_with("1");
    let first = cluster.set_isr("t", 0, &[1, 2]).unwrap();
    assert_eq!((first.partition_epoch, first.leader_epoch), (1, LeaderEpoch(0)), "the leader goes on");
    assert_eq!(&first, cluster.partition("t", 0));
    let length = cluster.log.len();
    assert_eq!(cluster.set_isr("t", 0, &[1, 2]), Ok(first), "no change is none");
    assert_eq!(cluster.log.len(), length);
}

#[test]
fn i1_b11_a_change_that_starts_from_another_state_is_refused_by_what_it_lacks() {
    let mut cluster = cluster_with("1");
    cluster.fence(1);
    let leader = 2;
    let right = cluster.isr_change("t", 0, &[2]);
    let epoch = right.leader_epoch;
    let changed = |change: &dyn Fn(&mut IsrChange)| {
        let mut wrong = right.clone();
        change(&mut wrong);
        wrong
    };
    let cases = [
        (changed(&|wrong| wrong.leader_epoch = LeaderEpoch(epoch.0 + 1)), Refusal::NotController),
        (changed(&|wrong| wrong.partition_epoch += 1), Refusal::NotController),
        (changed(&|wrong| wrong.leader_epoch = LeaderEpoch(epoch.0 - 1)), Refusal::FencedLeaderEpoch),
        (changed(&|wrong| wrong.partition_epoch -= 1), Refusal::InvalidUpdateVersion),
        (
            changed(&|wrong| wrong.topic = TopicId::from_bytes([9; 16])),
            Refusal::UnknownTopicId(TopicId::from_bytes([9; 16])),
        ),
        (
            changed(&|wrong| wrong.index = PartitionIndex(1)),
            Refusal::UnknownPartition("t".to_owned(), PartitionIndex(1)),
        ),
    ];
    let before = cluster.image.clone();
    for (wrong, refusal) in cases {
        assert_eq!(cluster.send(leader, wrong), Err(refusal));
    }
    // A former leader learns first that its epoch is over.
    let former = IsrChange { leader_epoch: LeaderEpoch(0), ..right.clone() };
    assert_eq!(cluster.send(3, former), Err(Refusal::FencedLeaderEpoch));
    assert!(matches!(cluster.send(3, right.clone()), Err(Refusal::InvalidRequest(_))), "it does not lead");
    for isr in [&[][..], &[3], &[2, 2], &[2, 4]] {
        let isr = isr.iter().map(|&id| (BrokerId(id), BrokerEpoch(0))).collect();
        let refused = cluster.send(leader, IsrChange { isr, ..right.clone() });
        assert!(matches!(refused, Err(Refusal::InvalidRequest(_))), "{refused:?}");
    }
    assert_eq!(cluster.image, before);
    let stale = Command::AlterPartitions { broker: BrokerId(2), epoch: BrokerEpoch(0), changes: vec![right.clone()] };
    assert_eq!(cluster.run(stale), Err(Refusal::StaleBrokerEpoch(BrokerId(2))));
    assert!(cluster.send(leader, right).is_ok());
}

#[test]
fn i1_b9_only_the_replica_the_leader_saw_joins() {
    let mut cluster = cluster_with("1");
    cluster.set_isr("t", 0, &[1]).unwrap();
    let seen = cluster.isr_change("t", 0, &[1, 2]);
    cluster.start(2, false);
    let refused = cluster.send(1, seen);
    assert!(matches!(refused, Err(Refusal::IneligibleReplica(BrokerId(2), _))), "KIP-903: {refused:?}");
    cluster.fence(2);
    let refused = cluster.set_isr("t", 0, &[1, 2]);
    assert!(matches!(refused, Err(Refusal::IneligibleReplica(BrokerId(2), _))), "B10: {refused:?}");
    cluster.unfence(2);
    cluster.set_isr("t", 0, &[1, 2]).unwrap();
    cluster.shut_down(3);
    let refused = cluster.set_isr("t", 0, &[1, 2, 3]);
    assert!(matches!(refused, Err(Refusal::IneligibleReplica(BrokerId(3), _))), "{refused:?}");
}

#[test]
fn each_change_of_a_request_stands_by_itself_and_one_partition_changes_once() {
    let mut cluster = cluster_with("1");
    let change = cluster.isr_change("t", 0, &[1, 2]);
    let other = IsrChange { index: PartitionIndex(7), ..change.clone() };
    let again = cluster.isr_change("t", 0, &[1]);
    let command =
        Command::AlterPartitions { broker: BrokerId(1), epoch: cluster.epoch(1), changes: vec![other, change, again] };
    let Ok(Reply::PartitionsAltered(rows)) = cluster.run(command) else { panic!("answered with something else") };
    let results: Vec<_> = rows.into_iter().map(|(_, result)| result.map(|partition| partition.isr.len())).collect();
    let unknown = Refusal::UnknownPartition("t".to_owned(), PartitionIndex(7));
    assert_eq!(results, [Err(unknown), Ok(2), Err(Refusal::InvalidUpdateVersion)]);
}

#[test]
fn a3_who_leaves_an_isr_below_its_minimum_stays_eligible_until_it_is_back() {
    let mut cluster = cluster_with("2");
    cluster.set_isr("t", 0, &[1, 2]).unwrap();
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1, 2], vec![], Some(1)), "two commit without the third");
    cluster.set_isr("t", 0, &[1]).unwrap();
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1], vec![2], Some(1)), "one alone commits nothing");
    cluster.set_isr("t", 0, &[1, 3]).unwrap();
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1, 3], vec![], Some(1)), "these commit without 2 again");
}

#[test]
fn a3_both_who_leave_at_once_stay_eligible() {
    let mut cluster = cluster_with("2");
    cluster.set_isr("t", 0, &[1]).unwrap();
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1], vec![2, 3], Some(1)));
}

#[test]
fn a3_the_minimum_is_at_most_the_replicas_there_are() {
    let mut cluster = cluster_with("7");
    cluster.set_isr("t", 0, &[1, 2]).unwrap();
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1, 2], vec![3], Some(1)));
    assert_eq!(cluster.partition("t", 0).effective_min_isr(7), 3);
    cluster.set_isr("t", 0, &[1, 2, 3]).unwrap();
    assert_eq!(lists(cluster.partition("t", 0)).1, []);
}

#[test]
fn a3_one_that_is_elected_and_suffices_makes_the_others_ineligible() {
    let mut cluster = cluster_with("2");
    cluster.set_isr("t", 0, &[1]).unwrap();
    [3, 2, 1].into_iter().for_each(|id| cluster.fence(id));
    assert_eq!(lists(cluster.partition("t", 0)), (vec![], vec![1, 2, 3], None));
    cluster.alter(on_topic("t"), &[("min.insync.replicas", set("1"))]).unwrap();
    assert_eq!(lists(cluster.partition("t", 0)).1, [1, 2, 3], "nobody commits yet");
    cluster.start(3, true);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![3], vec![], Some(3)));
}

#[test]
fn a3_a_leader_that_has_not_heard_of_a_higher_minimum_changes_no_isr() {
    for resource in [on_topic("t"), ALL_BROKERS] {
        let mut cluster = cluster_with("1");
        if resource == ALL_BROKERS {
            cluster.alter(ALL_BROKERS, &[("min.insync.replicas", set("1"))]).unwrap();
            cluster.alter(on_topic("t"), &[("min.insync.replicas", Operation::Delete)]).unwrap();
        }
        let epoch = |cluster: &Cluster| cluster.partition("t", 0).partition_epoch;
        let heard = epoch(&cluster);
        cluster.alter(resource.clone(), &[("min.insync.replicas", set("2"))]).unwrap();
        assert!(epoch(&cluster) > heard, "what is proposed from the state before is refused");
        let heard = epoch(&cluster);
        cluster.alter(resource.clone(), &[("min.insync.replicas", set("2"))]).unwrap();
        cluster.alter(resource.clone(), &[("min.insync.replicas", set("1"))]).unwrap();
        assert_eq!(epoch(&cluster), heard, "who goes by more than is needed does no harm");
    }
}

#[test]
fn a3_a_lower_minimum_ends_eligibility_where_the_isr_suffices_now() {
    for resource in [on_topic("t"), ALL_BROKERS] {
        let mut cluster = cluster_with("2");
        let by_topic = resource == on_topic("t");
        if !by_topic {
            cluster.alter(ALL_BROKERS, &[("min.insync.replicas", set("2"))]).unwrap();
            cluster.alter(on_topic("t"), &[("min.insync.replicas", Operation::Delete)]).unwrap();
        }
        cluster.set_isr("t", 0, &[1]).unwrap();
        assert_eq!(lists(cluster.partition("t", 0)).1, [2, 3]);
        cluster.alter(resource.clone(), &[("min.insync.replicas", set("3"))]).unwrap();
        assert_eq!(lists(cluster.partition("t", 0)).1, [2, 3], "nothing is looked at again for a higher one");
        cluster.alter(resource, &[("min.insync.replicas", set("1"))]).unwrap();
        assert_eq!(lists(cluster.partition("t", 0)).1, [], "1 alone commits from now on");
    }
}
