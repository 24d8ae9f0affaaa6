//! What records add up to, with and without a snapshot on the way.

use ottla_metadata::{Command, DamagedCopy, Image, NewPartitions, Partition, Record, TopicRef};
use ottla_types::{BrokerId, LeaderEpoch, Offset, PartitionIndex};
use proptest::{collection::vec, prelude::*};

use crate::cluster::{ALL_BROKERS, Cluster, on_topic, set, sized, topic};
use crate::records::record;

fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> Image {
    let mut image = Image::default();
    records.into_iter().for_each(|record| image.apply(record));
    image
}

/// The snapshot as a broker reads it: through bytes.
fn restored(image: &Image) -> Image {
    let records = image.to_records();
    assert!(matches!(records.last(), Some(Record::SnapshotEnd { .. })), "a snapshot ends with its end");
    let decoded: Vec<Record> = records.iter().map(|record| Record::decode(&record.encode()).unwrap()).collect();
    replay(&decoded)
}

proptest! {
    #[test]
    fn m5_snapshot_and_deltas_agree_at_every_offset(history in vec(record(), 1..40)) {
        let mut image = Image::default();
        for (index, record) in history.iter().enumerate() {
            image.apply(record);
            let from_snapshot = restored(&image);
            prop_assert_eq!(&from_snapshot, &image);
            // And they stay equal for the rest of the log.
            let rest = &history[index + 1..];
            let mut ahead = from_snapshot;
            let mut deltas = image.clone();
            rest.iter().for_each(|record| { ahead.apply(record); deltas.apply(record); });
            prop_assert_eq!(ahead, deltas);
        }
    }
}

#[test]
fn m5_a_real_history_comes_back_from_its_snapshot() {
    let mut cluster = Cluster::of(3);
    let mut big = sized("orders", 6, 3);
    big.configs = vec![("min.insync.replicas".to_owned(), Some("2".to_owned()))];
    cluster.create_one(big).unwrap();
    cluster.create_one(topic("gone")).unwrap();
    cluster.alter(ALL_BROKERS, &[("log.retention.ms", set("5000"))]).unwrap();
    cluster.alter(on_topic("orders"), &[("segment.ms", set("7000"))]).unwrap();
    cluster.run(Command::DeleteTopics { topics: vec![TopicRef::Name("gone".to_owned())] }).unwrap();
    cluster.fence(3);
    cluster.start(2, false);
    cluster.set_isr("orders", 0, &[1, 2]).unwrap();
    let epoch = cluster.epoch(1);
    let (topic, index) = (cluster.topic("orders").id, PartitionIndex(1));
    let damaged = vec![DamagedCopy { topic, index, partition_epoch: i32::MAX }];
    cluster.run(Command::ReportDamage { broker: BrokerId(1), epoch, partitions: damaged }).unwrap();
    cluster.run(Command::DrainBroker { id: BrokerId(2), drain: true }).unwrap_err();
    cluster.start(4, false);
    cluster.run(Command::DrainBroker { id: BrokerId(2), drain: true }).unwrap();
    cluster.run(Command::UnregisterBroker { id: BrokerId(3) }).unwrap();
    cluster.start(5, false);
    let grow = NewPartitions { name: "orders".to_owned(), count: 9, assignments: None };
    cluster.run(Command::CreatePartitions { topics: vec![grow], validate_only: false }).unwrap();

    for end in 0..=cluster.log.len() {
        let image = replay(&cluster.log[..end]);
        assert_eq!(image.offset(), Offset(end as i64));
        assert_eq!(restored(&image), image, "at offset {end}");
    }
    // Every kind of state has been there.
    let partitions = &restored(&cluster.image).topic_named("orders").unwrap().partitions.clone();
    assert_eq!(partitions.len(), 9);
    assert!(partitions.iter().any(|partition| !partition.elr.is_empty()));
    assert!(partitions.iter().any(|partition| partition.is_reassigning()));
    assert!(restored(&cluster.image).broker(BrokerId(2)).unwrap().draining);
}

#[test]
fn m6_a_new_topic_of_an_old_name_shares_nothing_with_it() {
    let mut cluster = Cluster::of(1);
    let mut first = topic("orders");
    first.configs = vec![("retention.ms".to_owned(), Some("1000".to_owned()))];
    let old = cluster.create_one(first).unwrap().id;
    cluster.start(1, false);
    assert_eq!(cluster.topic("orders").partitions[0].leader_epoch, LeaderEpoch(2), "it had no leader in between");

    cluster.run(Command::DeleteTopics { topics: vec![TopicRef::Id(old)] }).unwrap();
    assert!(cluster.image.topic_named("orders").is_none());
    let new = cluster.create_one(topic("orders")).unwrap().id;
    assert_ne!(new, old);
    assert!(cluster.image.topic(old).is_none());
    assert_eq!(cluster.topic("orders").overrides.len(), 0);
    assert_eq!(cluster.topic("orders").partitions[0].leader_epoch, LeaderEpoch(0));

    // A record for the old identity that arrives late changes nothing.
    let before = cluster.image.clone();
    cluster.image.apply(&Record::TopicDeleted { id: old });
    assert_eq!(cluster.image.topic(new), before.topic(new));
}

#[test]
fn a_partition_says_who_is_in_sync_and_who_is_not() {
    let mut cluster = Cluster::of(2);
    let id = cluster.create_one(topic("t")).unwrap().id;
    let partition = Partition {
        isr: [2].map(BrokerId).into(),
        leader: Some(BrokerId(2)),
        leader_epoch: LeaderEpoch(5),
        partition_epoch: 6,
        ..Partition::on([1, 2].map(BrokerId).into())
    };
    cluster.image.apply(&Record::PartitionCreated { topic: id, index: PartitionIndex(1), partition });
    for image in [&cluster.image, &restored(&cluster.image)] {
        let partition = image.topic(id).unwrap().partition(PartitionIndex(1)).unwrap();
        assert_eq!((&*partition.replicas, &*partition.isr), (&[BrokerId(1), BrokerId(2)][..], &[BrokerId(2)][..]));
        assert_eq!((partition.leader_epoch, partition.partition_epoch), (LeaderEpoch(5), 6));
    }
}

#[test]
fn a_clone_sees_nothing_of_what_comes_after() {
    let mut cluster = Cluster::of(1);
    let mut many = topic("many");
    many.partitions = 10_000;
    cluster.create_one(many).unwrap();
    let published = cluster.image.clone();
    cluster.start(1, false);
    let epoch =
        |image: &Image| image.topic_named("many").unwrap().partition(PartitionIndex(9_999)).unwrap().leader_epoch;
    assert_eq!(epoch(&published), LeaderEpoch(0));
    assert_eq!(epoch(&cluster.image), LeaderEpoch(2));
}

#[test]
fn topics_are_found_by_name_and_id_and_listed_by_name() {
    let mut cluster = Cluster::of(1);
    for name in ["b", "c", "a"] {
        cluster.create_one(topic(name)).unwrap();
    }
    let names: Vec<&str> = cluster.image.topics().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let id = cluster.topic("b").id;
    assert_eq!(&*cluster.image.topic(id).unwrap().name, "b");
    assert!(cluster.topic("b").partition(PartitionIndex(1)).is_none());
    assert!(cluster.topic("b").partition(PartitionIndex(-1)).is_none());
}
