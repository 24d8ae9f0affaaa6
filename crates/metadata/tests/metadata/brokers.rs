//! The cluster's birth, its brokers' coming and going, and its producer ids.

use ottla_metadata::{
    BrokerRegistration, CleanEnd, Command, Image, Partition, Record, Refusal, Reply, config::Operation,
};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId};

use crate::cluster::{ALL_BROKERS, Cluster, directory, ended_as, ids, on_topic, registration, set, sized, topic};

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
fn a1_the_same_incarnation_keeps_its_epoch_and_a_new_one_gets_a_new() {
    let mut cluster = Cluster::of(2);
    let known = cluster.image.broker(BrokerId(1)).unwrap().clone();
    let again = BrokerRegistration { incarnation: known.incarnation, ..registration(1, 0) };
    let length = cluster.log.len();
    assert_eq!(cluster.register(again.clone()), Ok((BrokerId(1), known.epoch)), "asked again");
    assert_eq!(cluster.register(BrokerRegistration { id: None, ..again }), Ok((BrokerId(1), known.epoch)));
    assert_eq!(cluster.log.len(), length);
    cluster.start(1, true);
    assert!(cluster.epoch(1) > cluster.epoch(2) && cluster.epoch(1) > known.epoch);
}

#[test]
fn a1_a_live_brokers_number_is_taken_until_its_session_has_ended() {
    let mut cluster = Cluster::of(2);
    let refused = Err(Refusal::DuplicateRegistration(BrokerId(1)));
    assert_eq!(cluster.register(registration(1, 77)), refused);
    let stale = ended_as(Some(BrokerEpoch(cluster.epoch(1).0 - 1)));
    assert_eq!(cluster.register(BrokerRegistration { ended: stale, ..registration(1, 77) }), refused);
    let elsewhere = BrokerRegistration { directory: [9; 16], ..registration(1, 77) };
    let proof = ended_as(Some(cluster.epoch(1)));
    assert_eq!(cluster.register(BrokerRegistration { ended: proof.clone(), ..elsewhere.clone() }), refused);

    // What proves that the old process ended by itself ends its session.
    cluster.register(BrokerRegistration { ended: proof, ..registration(1, 77) }).unwrap();
    assert!(cluster.image.broker(BrokerId(1)).unwrap().fenced);
    // A fenced one can be followed by any.
    cluster.register(registration(1, 78)).unwrap();
    cluster.register(elsewhere).unwrap();
}

#[test]
fn m4_a_broker_is_fenced_until_it_has_applied_its_own_registration() {
    let mut cluster = Cluster::of(0);
    let before = cluster.image.offset();
    let (id, epoch) = cluster.register(registration(1, 1)).unwrap();
    assert!(epoch.0 >= before.0 && cluster.image.offset() > Offset(epoch.0), "the offset of its record is its epoch");
    assert!(!cluster.image.is_live(id));
    let refused = cluster.create_one(topic("early"));
    assert!(matches!(refused, Err(Refusal::InvalidReplicationFactor(_))), "{refused:?}");
    cluster.unfence(1);
    assert!(cluster.image.is_live(id));
    cluster.create_one(topic("now")).unwrap();
    let stale = Command::UnfenceBroker { id, epoch: BrokerEpoch(epoch.0 - 1) };
    assert_eq!(cluster.run(stale), Err(Refusal::StaleBrokerEpoch(id)));
}

#[test]
fn numbers_are_given_out_once_and_kept_by_directory() {
    let mut cluster = Cluster::of(0);
    cluster.start(2, false);
    let join = |incarnation: u8, directory: [u8; 16]| BrokerRegistration {
        id: None,
        directory,
        ..registration(0, incarnation)
    };
    assert_eq!(cluster.register(join(50, [50; 16])).unwrap().0, BrokerId(1));
    assert_eq!(cluster.register(join(51, [51; 16])).unwrap().0, BrokerId(3), "2 has been taken");
    assert_eq!(cluster.register(join(52, [50; 16])).unwrap().0, BrokerId(1), "the same directory");
    cluster.run(Command::UnregisterBroker { id: BrokerId(3) }).unwrap();
    assert_eq!(cluster.register(join(53, [53; 16])).unwrap().0, BrokerId(4), "3 has been used");
    // Whoever asks for it by number gets it.
    assert_eq!(cluster.register(registration(3, 54)).unwrap().0, BrokerId(3));

    let copied = BrokerRegistration { directory: directory(2), ..registration(7, 1) };
    for wrong in [registration(-1, 1), BrokerRegistration { directory: [0; 16], ..registration(7, 1) }, copied] {
        assert!(matches!(cluster.register(wrong), Err(Refusal::InvalidRequest(_))));
    }
}

/// One partition on three brokers, of which two must be in sync.
fn replicated(durability: &str) -> Cluster {
    let mut cluster = Cluster::of(3);
    let configs = [("min.insync.replicas", "2"), ("ottla.durability", durability)];
    let configs = configs.map(|(key, value)| (key.to_owned(), Some(value.to_owned()))).to_vec();
    let assignments = vec![(PartitionIndex(0), ids(&[1, 2, 3]))];
    cluster.create_one(ottla_metadata::NewTopic { configs, assignments, ..topic("t") }).unwrap();
    cluster
}

fn lists(partition: &Partition) -> (Vec<i32>, Vec<i32>, Option<i32>) {
    let numbers = |brokers: &[BrokerId]| brokers.iter().map(|id| id.0).collect();
    (numbers(&partition.isr), numbers(&partition.elr), partition.leader.map(|id| id.0))
}

#[test]
fn a1_b10_a_fenced_broker_leads_nothing_and_is_in_no_isr() {
    let mut cluster = replicated("fsync");
    cluster.fence(1);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![2, 3], vec![], Some(2)));
    assert_eq!(cluster.partition("t", 0).leader_epoch, LeaderEpoch(1));
    // It comes back by catching up, not by being there.
    cluster.start(1, true);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![2, 3], vec![], Some(2)));
    let fenced_again = Command::FenceBroker { id: BrokerId(1), epoch: BrokerEpoch(0) };
    assert_eq!(cluster.run(fenced_again), Err(Refusal::StaleBrokerEpoch(BrokerId(1))));
}

#[test]
fn a2_b12_a_lossy_restart_costs_eligibility_where_memory_is_all_there_was() {
    let mut cluster = replicated("replicated");
    cluster.fence(3);
    cluster.fence(2);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1], vec![2], Some(1)));
    cluster.begin_start(2, true);
    assert_eq!(lists(cluster.partition("t", 0)).1, [2], "it has proof of a clean end");
    cluster.begin_start(2, false);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1], vec![], Some(1)));
}

#[test]
fn a2_a_run_that_ended_before_it_heard_of_its_registration_is_proven_by_its_name() {
    let mut cluster = replicated("replicated");
    cluster.fence(3);
    cluster.fence(2);
    let before = ended_as(Some(cluster.epoch(2)));
    // Two runs that end in good order and hear nothing. The controller took the first of them in.
    cluster.register(BrokerRegistration { ended: before.clone(), ..registration(2, 51) }).unwrap();
    let known = cluster.epoch(2);
    let ended = before.after([51; 16], None).after([52; 16], None);
    cluster.register(BrokerRegistration { ended: ended.clone(), ..registration(2, 53) }).unwrap();
    assert!(cluster.epoch(2) > known);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1], vec![2], Some(1)), "nothing can be missing");

    // A copy of the directory from before that run proves nothing of it.
    cluster.register(BrokerRegistration { ended, ..registration(2, 54) }).unwrap();
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1], vec![], Some(1)));
}

#[test]
fn a2_what_a_run_heard_of_is_all_that_its_clean_end_proves() {
    let (heard, unheard) = (Some(BrokerEpoch(7)), None);
    let ended = CleanEnd::default().after([1; 16], unheard).after([2; 16], heard);
    assert_eq!(ended, ended_as(heard));
    let long = (0..100).fold(ended, |ended, run| ended.after([run; 16], unheard));
    assert_eq!((long.epoch, long.unheard.len()), (heard, 64));
    assert_eq!((long.unheard[0], long.unheard[63]), ([36; 16], [99; 16]));
}

#[test]
fn a2_what_was_synced_survives_a_lossy_restart_but_not_a_new_disk() {
    let mut cluster = replicated("fsync");
    cluster.fence(3);
    cluster.fence(2);
    cluster.begin_start(2, false);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1], vec![2], Some(1)));
    let incarnation = cluster.incarnation();
    cluster.register(BrokerRegistration { directory: [9; 16], ..registration(2, incarnation) }).unwrap();
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1], vec![], Some(1)));
}

#[test]
fn a2_what_was_held_in_memory_is_not_believed_to_be_synced_because_the_topic_changed() {
    for on_all in [false, true] {
        let mut cluster = replicated("replicated");
        let configs = [("ottla.durability", set("fsync"))];
        match on_all {
            false => cluster.alter(on_topic("t"), &configs).unwrap(),
            true => {
                cluster.alter(ALL_BROKERS, &configs).unwrap();
                cluster.alter(on_topic("t"), &[("ottla.durability", Operation::Delete)]).unwrap();
            }
        }
        cluster.fence(3);
        cluster.fence(2);
        assert_eq!(lists(cluster.partition("t", 0)), (vec![1], vec![2], Some(1)));
        cluster.begin_start(2, false);
        assert_eq!(lists(cluster.partition("t", 0)), (vec![1], vec![], Some(1)), "it ran before the change");
        cluster.unfence(2);
        cluster.set_isr("t", 0, &[1, 2]).unwrap();
        cluster.fence(2);
        cluster.begin_start(2, false);
        assert_eq!(lists(cluster.partition("t", 0)), (vec![1], vec![2], Some(1)), "it has synced all that counted");
        let mut restored = Image::default();
        cluster.image.to_records().iter().for_each(|record| restored.apply(record));
        assert_eq!(restored, cluster.image);
    }
}

#[test]
fn l5_a_broker_with_a_new_disk_is_not_elected_because_it_led_last() {
    let mut cluster = Cluster::of(1);
    cluster.create_one(topic("t")).unwrap();
    cluster.fence(1);
    let incarnation = cluster.incarnation();
    cluster.register(BrokerRegistration { directory: [9; 16], ..registration(1, incarnation) }).unwrap();
    cluster.unfence(1);
    let partition = cluster.partition("t", 0);
    assert_eq!((partition.leader, partition.last_known_leader, partition.elr.len()), (None, None, 0));
}

#[test]
fn a_single_node_stops_starts_and_goes_on() {
    let mut cluster = Cluster::of(1);
    cluster.create_one(topic("t")).unwrap();
    for clean in [true, false, true] {
        let before = cluster.partition("t", 0).leader_epoch;
        if clean {
            assert_eq!(cluster.shut_down(1), 1, "nobody can take it");
        }
        cluster.start(1, clean);
        let partition = cluster.partition("t", 0);
        assert_eq!(lists(partition), (vec![1], vec![], Some(1)));
        assert!(partition.leader_epoch > before && !partition.recovering, "KIP-101");
    }
}

#[test]
fn a_broker_that_is_all_there_is_goes_on_leading() {
    let mut cluster = Cluster::of(1);
    cluster.create_one(sized("t", 3, 1)).unwrap();
    let alone = |incarnation: u8| BrokerRegistration { alone: true, ..registration(1, incarnation) };
    let proof = ended_as(Some(cluster.epoch(1)));
    let length = cluster.log.len();
    cluster.register(BrokerRegistration { ended: proof, ..alone(50) }).unwrap();
    assert_eq!(cluster.log.len() - length, 1, "no record for each partition");
    assert!(cluster.image.is_live(BrokerId(1)));
    assert_eq!(cluster.partition("t", 0).leader_epoch, LeaderEpoch(0), "a clean end loses nothing");
    cluster.register(alone(51)).unwrap();
    let partition = cluster.partition("t", 2);
    assert_eq!((lists(partition), partition.leader_epoch), ((vec![1], vec![], Some(1)), LeaderEpoch(1)), "KIP-101");
    // With another disk, or where others take part, it begins like everybody.
    cluster.register(BrokerRegistration { directory: [9; 16], ..alone(52) }).unwrap();
    assert_eq!(lists(cluster.partition("t", 0)), (vec![], vec![], None));

    let mut cluster = Cluster::of(2);
    cluster.create_one(sized("t", 1, 2)).unwrap();
    cluster.register(alone(50)).unwrap();
    assert!(cluster.image.broker(BrokerId(1)).unwrap().fenced);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![2], vec![], Some(2)));
}

#[test]
fn a_broker_registered_by_an_older_version_comes_back_with_its_copies() {
    let mut cluster = Cluster::of(0);
    cluster.image.apply(&Record::BrokerRegistered {
        id: BrokerId(1),
        epoch: BrokerEpoch(1),
        incarnation: [200; 16],
        directory: [0; 16],
        rack: None,
        listeners: [].into(),
        registered: ottla_types::Timestamp(0),
        fenced: false,
        features: [].into(),
    });
    cluster.create_one(topic("t")).unwrap();
    cluster.start(1, false);
    assert_eq!(lists(cluster.partition("t", 0)), (vec![1], vec![], Some(1)));
    assert_eq!(cluster.image.broker(BrokerId(1)).unwrap().directory, directory(1));
}

#[test]
fn s1_a_broker_that_shuts_down_hands_over_what_others_can_take() {
    let mut cluster = replicated("fsync");
    cluster.create_one(sized("alone", 1, 1)).unwrap();
    let only = cluster.partition("alone", 0).leader.unwrap().0;
    cluster.set_isr("t", 0, &[1, 2]).unwrap();
    let expected = usize::from(only == 1);
    assert_eq!(cluster.shut_down(1), expected);
    assert_eq!(cluster.shut_down(1), expected, "asked again");
    assert_eq!(lists(cluster.partition("t", 0)), (vec![2], vec![1], Some(2)), "below min: it stays eligible");
    // The last in sync stays until another has caught up, and hands over in the same moment.
    assert_eq!(cluster.shut_down(2), 1 + usize::from(only == 2));
    assert_eq!(lists(cluster.partition("t", 0)), (vec![2], vec![1], Some(2)));
    let refused = cluster.set_isr("t", 0, &[2, 1]);
    assert!(matches!(refused, Err(Refusal::IneligibleReplica(BrokerId(1), _))), "B10: {refused:?}");
    assert_eq!(cluster.set_isr("t", 0, &[2, 3]), Err(Refusal::NewLeaderElected));
    assert_eq!(lists(cluster.partition("t", 0)), (vec![3], vec![1, 2], Some(3)));
    // It stays out until it registers again.
    cluster.unfence(1);
    assert!(!cluster.image.is_live(BrokerId(1)));
    cluster.start(1, true);
    assert!(cluster.image.is_live(BrokerId(1)));
}

#[test]
fn a_broker_is_unregistered_when_it_is_down_and_nobody_needs_it() {
    let mut cluster = Cluster::of(3);
    let unregister = |id: i32| Command::UnregisterBroker { id: BrokerId(id) };
    assert_eq!(cluster.run(unregister(9)), Err(Refusal::BrokerNotRegistered(BrokerId(9))));
    assert!(matches!(cluster.run(unregister(3)), Err(Refusal::InvalidRequest(_))), "it runs");
    cluster.create_one(crate::cluster::by_hand("alone", &[(0, &[3])])).unwrap();
    cluster.create_one(crate::cluster::by_hand("shared", &[(0, &[3, 1])])).unwrap();
    cluster.fence(3);
    let Err(Refusal::InvalidRequest(why)) = cluster.run(unregister(3)) else { panic!("its copy is the last") };
    assert!(why.contains("alone-0"), "{why}");
    let topics = vec![ottla_metadata::TopicRef::Name("alone".to_owned())];
    cluster.run(Command::DeleteTopics { topics }).unwrap();
    cluster.run(unregister(3)).unwrap();
    assert!(cluster.image.broker(BrokerId(3)).is_none());
    assert_eq!(cluster.partition("shared", 0).leader, Some(BrokerId(1)));
}

#[test]
fn min_insync_replicas_is_no_single_brokers_affair() {
    let mut cluster = Cluster::of(2);
    let one = ottla_metadata::AlteredConfigs::Broker(Some(BrokerId(1)));
    let refused = cluster.alter(one, &[("min.insync.replicas", set("2"))]);
    assert!(matches!(refused, Err(Refusal::InvalidRequest(_))), "{refused:?}");
    cluster.create_one(topic("t")).unwrap();
    cluster.alter(on_topic("t"), &[("min.insync.replicas", set("2"))]).unwrap();
    cluster.alter(crate::cluster::ALL_BROKERS, &[("min.insync.replicas", set("2"))]).unwrap();
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
