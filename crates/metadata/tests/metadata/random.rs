//! Commands in any order: the invariants hold after each (`invariants.rs`), and whoever reads the log ends up with the
//! same image, however it began (rule M5).

use ottla_metadata::{
    BrokerRegistration, Command, DamagedCopy, Election, Image, IsrChange, NewTopic, OTTLA_VERSION, Record, TopicRef,
};
use ottla_types::{BrokerId, PartitionIndex};
use proptest::{collection::vec, prelude::*};

use crate::cluster::{Cluster, ended_as, on_topic, registration, set, sized};

const BROKERS: i32 = 5;
const TOPICS: [&str; 2] = ["t", "u"];

#[derive(Clone, Debug)]
enum Step {
    Start { broker: i32, clean: bool, new_disk: bool },
    Fence(i32),
    Unfence(i32),
    ShutDown(i32),
    Damage(i32, Which),
    Isr { which: Which, members: u8, recovering: bool },
    Elect(Election, Which),
    Balance(u32),
    Reassign(Which, Option<Vec<i32>>),
    Drain(i32, bool),
    Unregister(i32),
    Raise,
    Rebalance,
    RaiseLevel,
    Create { topic: usize, factor: i16, min: usize, replicated: bool },
    Delete(usize),
    Unclean(usize, bool),
}

/// A partition of a topic.
type Which = (usize, i32);

fn step() -> impl Strategy<Value = Step> {
    let broker = || 1..=BROKERS;
    let topic = || 0..TOPICS.len();
    let which = || (topic(), 0..2i32);
    let kind = prop_oneof![Just(Election::Preferred), Just(Election::Unclean)];
    let target = proptest::option::weighted(0.8, Just((1..=BROKERS).collect::<Vec<i32>>()).prop_shuffle());
    let target = (target, 1usize..4).prop_map(|(target, len)| target.map(|brokers| brokers[..len].to_vec()));
    prop_oneof![
        6 => (broker(), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(broker, clean, new_disk)| Step::Start { broker, clean, new_disk }),
        4 => broker().prop_map(Step::Fence),
        6 => broker().prop_map(Step::Unfence),
        2 => broker().prop_map(Step::ShutDown),
        1 => (broker(), which()).prop_map(|(broker, which)| Step::Damage(broker, which)),
        10 => (which(), any::<u8>(), prop::bool::weighted(0.1))
            .prop_map(|(which, members, recovering)| Step::Isr { which, members, recovering }),
        2 => (kind, which()).prop_map(|(kind, which)| Step::Elect(kind, which)),
        1 => (0u32..50).prop_map(Step::Balance),
        4 => (which(), target).prop_map(|(which, target)| Step::Reassign(which, target)),
        1 => (broker(), any::<bool>()).prop_map(|(broker, drain)| Step::Drain(broker, drain)),
        1 => broker().prop_map(Step::Unregister),
        1 => Just(Step::Raise),
        1 => Just(Step::Rebalance),
        1 => Just(Step::RaiseLevel),
        3 => (topic(), 1i16..4, 1usize..4, any::<bool>())
            .prop_map(|(topic, factor, min, replicated)| Step::Create { topic, factor, min, replicated }),
        1 => topic().prop_map(Step::Delete),
        1 => (topic(), any::<bool>()).prop_map(|(topic, on)| Step::Unclean(topic, on)),
    ]
}

/// The command for a step where the cluster is now; none if it makes no sense.
fn command(cluster: &mut Cluster, step: Step) -> Option<Command> {
    let named = |(topic, index): Which| (TOPICS[topic].to_owned(), PartitionIndex(index));
    let epoch = |cluster: &Cluster, id: i32| Some(cluster.image.broker(BrokerId(id))?.epoch);
    Some(match step {
        Step::Start { broker, clean, new_disk } => {
            let incarnation = cluster.incarnation();
            let known = cluster.image.broker(BrokerId(broker));
            let mut registration = registration(broker, incarnation);
            match known {
                Some(_) if new_disk => registration.directory = [incarnation; 16],
                Some(known) => registration.directory = known.directory,
                None => {}
            }
            let ended = ended_as(known.filter(|_| clean).map(|known| known.epoch));
            Command::RegisterBroker(BrokerRegistration { ended, ..registration })
        }
        Step::Fence(id) => Command::FenceBroker { id: BrokerId(id), epoch: epoch(cluster, id)? },
        Step::Unfence(id) => Command::UnfenceBroker { id: BrokerId(id), epoch: epoch(cluster, id)? },
        Step::ShutDown(id) => Command::BeginShutdown { id: BrokerId(id), epoch: epoch(cluster, id)? },
        Step::Damage(id, (topic, index)) => Command::ReportDamage {
            broker: BrokerId(id),
            epoch: epoch(cluster, id)?,
            partitions: vec![DamagedCopy {
                topic: cluster.image.topic_named(TOPICS[topic])?.id,
                index: PartitionIndex(index),
                partition_epoch: i32::MAX,
            }],
        },
        Step::Isr { which: (topic, index), members, recovering } => {
            let partition = cluster.image.topic_named(TOPICS[topic])?.partition(PartitionIndex(index))?;
            let leader = partition.leader?;
            let wanted = |(at, id): &(usize, &BrokerId)| members >> at & 1 == 1 || **id == leader;
            let isr: Vec<i32> = partition.replicas.iter().enumerate().filter(wanted).map(|(_, id)| id.0).collect();
            if !isr.iter().all(|&id| cluster.image.broker(BrokerId(id)).is_some()) {
                return None;
            }
            let change = IsrChange { recovering, ..cluster.isr_change(TOPICS[topic], index, &isr) };
            Command::AlterPartitions { broker: leader, epoch: epoch(cluster, leader.0)?, changes: vec![change] }
        }
        Step::Elect(kind, which) => Command::ElectLeaders { kind, partitions: Some(vec![named(which)]) },
        Step::Balance(threshold_percent) => Command::BalanceLeaders { threshold_percent },
        Step::Reassign(which, target) => {
            let (topic, index) = named(which);
            let target = target.map(|brokers| brokers.into_iter().map(BrokerId).collect());
            Command::AlterReassignments { partitions: vec![(topic, index, target)], allow_factor_change: true }
        }
        Step::Drain(id, drain) => Command::DrainBroker { id: BrokerId(id), drain },
        Step::Unregister(id) => Command::UnregisterBroker { id: BrokerId(id) },
        Step::Raise => Command::RaiseInternalTopics,
        Step::Rebalance => Command::Rebalance { dry_run: false },
        Step::RaiseLevel => cluster.raise(OTTLA_VERSION.name, OTTLA_VERSION.max),
        Step::Create { topic, factor, min, replicated } => {
            let durability = if replicated { "replicated" } else { "fsync" };
            let configs = [("min.insync.replicas", min.to_string()), ("ottla.durability", durability.to_owned())];
            let configs = configs.map(|(key, value)| (key.to_owned(), Some(value))).to_vec();
            let topic = NewTopic { configs, ..sized(TOPICS[topic], 2, factor) };
            Command::CreateTopics { topics: vec![topic], validate_only: false }
        }
        Step::Delete(topic) => Command::DeleteTopics { topics: vec![TopicRef::Name(TOPICS[topic].to_owned())] },
        Step::Unclean(topic, on) => {
            let operations = [("unclean.leader.election.enable", set(&on.to_string()))];
            // Refused where there is no topic.
            let _ = cluster.alter(on_topic(TOPICS[topic]), &operations);
            return None;
        }
    })
}

fn restored(image: &Image) -> Image {
    let mut restored = Image::default();
    image.to_records().iter().for_each(|record| restored.apply(&Record::decode(&record.encode()).unwrap()));
    restored
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a1_a3_a4_i3_m5_any_commands_in_any_order(steps in vec(step(), 1..80), snapshot_at in 0usize..200, old: bool) {
        let mut cluster = if old { Cluster::at_level_1(BROKERS - 2) } else { Cluster::of(BROKERS - 2) };
        for (topic, replicated) in [(0, false), (1, true)] {
            let create = Step::Create { topic, factor: 3, min: 2, replicated };
            let create = command(&mut cluster, create).unwrap();
            cluster.run(create).unwrap();
        }
        for step in steps {
            if let Some(command) = command(&mut cluster, step) {
                // Refusals are answers too; what must hold is checked in there.
                let _ = cluster.run(command);
            }
        }
        let snapshot_at = snapshot_at % (cluster.log.len() + 1);
        let (covered, tail) = cluster.log.split_at(snapshot_at);
        let mut deltas = Image::default();
        covered.iter().for_each(|record| deltas.apply(record));
        let mut from_snapshot = restored(&deltas);
        prop_assert_eq!(&from_snapshot, &deltas);
        for record in tail {
            from_snapshot.apply(record);
            deltas.apply(record);
            prop_assert_eq!(&from_snapshot, &deltas);
        }
        prop_assert_eq!(&deltas, &cluster.image);
    }
}
