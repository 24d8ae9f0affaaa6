//! The bytes of a record: there and back, and nothing else gets in.

use std::sync::Arc;

use ottla_metadata::{BrokerFeature, ConfigResource, DecodeError, Listener, Partition, Record};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, Timestamp, TopicId};
use proptest::{collection::vec, option, prelude::*};

/// Ids from a small set, so that records of one history meet.
fn topic_id() -> impl Strategy<Value = TopicId> {
    (1u8..4).prop_map(|byte| TopicId::from_bytes([byte; 16]))
}

fn broker() -> impl Strategy<Value = BrokerId> {
    (-1i32..4).prop_map(BrokerId)
}

fn brokers() -> impl Strategy<Value = Arc<[BrokerId]>> {
    vec(broker(), 0..4).prop_map(Arc::from)
}

fn resource() -> impl Strategy<Value = ConfigResource> {
    prop_oneof![
        topic_id().prop_map(ConfigResource::Topic),
        broker().prop_map(ConfigResource::Broker),
        Just(ConfigResource::DefaultBroker),
        text().prop_map(|id| ConfigResource::Group(id.into())),
    ]
}

fn text() -> impl Strategy<Value = String> {
    "[a-c]{0,2}|.{0,200}"
}

fn listener() -> impl Strategy<Value = Listener> {
    (text(), text(), any::<u16>(), any::<i16>()).prop_map(|(name, host, port, security_protocol)| Listener {
        name,
        host,
        port,
        security_protocol,
    })
}

fn partition() -> impl Strategy<Value = Partition> {
    let lists = (brokers(), brokers(), brokers(), brokers(), brokers());
    // -1 stands for none in the bytes, so it is no leader.
    let leader = || option::of((0..4i32).prop_map(BrokerId));
    (lists, leader(), leader(), any::<i32>(), any::<i32>(), any::<bool>()).prop_map(
        |(lists, leader, last_known_leader, leader_epoch, partition_epoch, recovering)| {
            let (replicas, isr, elr, adding, removing) = lists;
            let leader_epoch = LeaderEpoch(leader_epoch);
            Partition {
                replicas,
                isr,
                elr,
                leader,
                last_known_leader,
                leader_epoch,
                partition_epoch,
                adding,
                removing,
                recovering,
            }
        },
    )
}

pub(crate) fn record() -> impl Strategy<Value = Record> {
    let process = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<bool>());
    let told =
        vec((text(), any::<i16>(), any::<i16>()).prop_map(|(name, min, max)| BrokerFeature { name, min, max }), 0..3);
    let process = (process, told);
    let registered = (broker(), any::<i64>(), process, option::of(text()), vec(listener(), 0..3), any::<i64>());
    let numbered = || (topic_id(), (0..3i32).prop_map(PartitionIndex), partition());
    prop_oneof![
        text().prop_map(|id| Record::ClusterRegistered { cluster_id: id.into() }),
        (text(), -1..3i16).prop_map(|(name, level)| Record::FeatureLevel { name, level }),
        registered.prop_map(|(id, epoch, ((incarnation, directory, fenced), told), rack, listeners, registered)| {
            Record::BrokerRegistered {
                id,
                epoch: BrokerEpoch(epoch),
                incarnation,
                directory,
                rack: rack.map(Arc::from),
                listeners: listeners.into(),
                registered: Timestamp(registered),
                fenced,
                features: told.into(),
            }
        }),
        (broker(), any::<[bool; 3]>()).prop_map(|(id, [fenced, shutting_down, draining])| Record::BrokerChanged {
            id,
            fenced,
            shutting_down,
            draining,
        }),
        broker().prop_map(|id| Record::BrokerUnregistered { id }),
        broker().prop_map(|id| Record::BrokerRestartedUncleanly { id }),
        (topic_id(), "[a-c]", any::<i64>()).prop_map(|(id, name, created)| Record::TopicCreated {
            id,
            name: name.into(),
            created: Timestamp(created),
        }),
        numbered().prop_map(|(topic, index, partition)| Record::PartitionCreated { topic, index, partition }),
        numbered().prop_map(|(topic, index, partition)| Record::PartitionChanged { topic, index, partition }),
        topic_id().prop_map(|id| Record::TopicDeleted { id }),
        (topic_id(), any::<i64>()).prop_map(|(id, since)| Record::TopicSynced { id, since: BrokerEpoch(since) }),
        (resource(), text(), text()).prop_map(|(resource, key, value)| Record::ConfigSet { resource, key, value }),
        (resource(), text()).prop_map(|(resource, key)| Record::ConfigRemoved { resource, key }),
        (broker(), any::<i64>())
            .prop_map(|(broker, next)| Record::ProducerIdsAllocated { broker, next: ProducerId(next) }),
        (0..i64::MAX).prop_map(|offset| Record::SnapshotEnd { offset: Offset(offset) }),
    ]
}

proptest! {
    #[test]
    fn every_record_comes_back(record in record()) {
        prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn a_record_cut_short_is_refused(record in record(), cut in any::<prop::sample::Index>()) {
        let bytes = record.encode();
        prop_assert!(Record::decode(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn a_record_has_one_form_only(kind in 0u8..17, bytes in vec(any::<u8>(), 0..64), registration in 1u8..3) {
        let version = match kind {
            3 => registration,
            6 => 1,
            _ => 0,
        };
        let bytes: Vec<u8> = [kind, version].into_iter().chain(bytes).collect();
        if let Ok(record) = Record::decode(&bytes) {
            prop_assert_eq!(&record.encode()[..], &bytes[..]);
        }
    }
}

#[test]
fn the_bytes_are_those_of_the_format_page() {
    let resource = ConfigResource::Topic(TopicId::from_bytes(
        *b"\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10",
    ));
    let record = Record::ConfigSet { resource, key: "retention.ms".to_owned(), value: "3600000".to_owned() };
    let expected =
        b"\x08\x00\x00\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10\x0cretention.ms\x073600000";
    assert_eq!(&record.encode()[..], expected);

    let topic = TopicId::from_bytes(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10");
    let brokers = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Arc<[BrokerId]>>();
    let partition = Partition {
        replicas: brokers(&[1, 2, 3]),
        isr: brokers(&[2]),
        elr: brokers(&[1]),
        leader: Some(BrokerId(2)),
        leader_epoch: LeaderEpoch(5),
        partition_epoch: 9,
        ..Partition::default()
    };
    let record = Record::PartitionChanged { topic, index: PartitionIndex(0), partition };
    let expected = b"\x0c\x00\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10\0\0\0\0\
        \x03\0\0\0\x01\0\0\0\x02\0\0\0\x03\x01\0\0\0\x02\x01\0\0\0\x01\0\0\
        \0\0\0\x02\xff\xff\xff\xff\0\0\0\x05\0\0\0\x09\0";
    assert_eq!(&record.encode()[..], expected);
    let record = Record::BrokerChanged { id: BrokerId(3), fenced: true, shutting_down: false, draining: false };
    assert_eq!(&record.encode()[..], b"\x0d\x00\0\0\0\x03\x01\0\0");
    let record = Record::BrokerUnregistered { id: BrokerId(3) };
    assert_eq!(&record.encode()[..], b"\x0e\x00\0\0\0\x03");
    let registered = |features: &[(&str, i16, i16)]| {
        let feature = |&(name, min, max): &(&str, i16, i16)| BrokerFeature { name: name.to_owned(), min, max };
        Record::BrokerRegistered {
            id: BrokerId(1),
            epoch: BrokerEpoch(7),
            incarnation: *b"iiiiiiiiiiiiiiii",
            directory: *b"dddddddddddddddd",
            rack: None,
            listeners: Arc::default(),
            registered: Timestamp(9),
            fenced: true,
            features: features.iter().map(feature).collect(),
        }
    };
    // What needs no newer version is written so that older ones read it.
    let expected = b"\x03\x01\0\0\0\x01\0\0\0\0\0\0\0\x07iiiiiiiiiiiiiiii\
        \x00\x00\0\0\0\0\0\0\0\x09dddddddddddddddd\x01";
    assert_eq!(&registered(&[]).encode()[..], expected);
    let mut expected = expected.to_vec();
    expected[1] = 2;
    // Version 2 without a feature is no record: that is what version 1 is for.
    assert_eq!(Record::decode(&[&expected[..], b"\0"].concat()), Err(DecodeError::InvalidLength));
    expected.extend(b"\x01\x0dottla.version\0\x01\0\x02");
    let record = registered(&[("ottla.version", 1, 2)]);
    assert_eq!(record.encode(), expected);
    assert_eq!(Record::decode(&expected), Ok(record));
}

#[test]
fn what_an_older_version_wrote_is_read() {
    let registered = b"\x03\x00\0\0\0\x01\0\0\0\0\0\0\0\x07iiiiiiiiiiiiiiii\x00\x00\0\0\0\0\0\0\0\x09";
    let expected = Record::BrokerRegistered {
        id: BrokerId(1),
        epoch: BrokerEpoch(7),
        incarnation: *b"iiiiiiiiiiiiiiii",
        directory: [0; 16],
        rack: None,
        listeners: Arc::default(),
        registered: Timestamp(9),
        fenced: false,
        features: Arc::default(),
    };
    assert_eq!(Record::decode(registered), Ok(expected));

    let created = b"\x06\x00tttttttttttttttt\0\0\0\x02\x01\0\0\0\x01\x01\0\0\0\x01\0\0\0\x01\0\0\0\x04\0\0\0\x06";
    let expected = Record::PartitionCreated {
        topic: TopicId::from_bytes([b't'; 16]),
        index: PartitionIndex(2),
        partition: Partition {
            leader_epoch: LeaderEpoch(4),
            partition_epoch: 6,
            ..Partition::on([BrokerId(1)].into())
        },
    };
    assert_eq!(Record::decode(created), Ok(expected));
}

#[test]
fn what_a_newer_version_wrote_is_refused_by_name() {
    assert_eq!(Record::decode(&[7, 1]), Err(DecodeError::NewerVersion { kind: 7, version: 1, known: 0 }));
    assert_eq!(Record::decode(&[6, 2]), Err(DecodeError::NewerVersion { kind: 6, version: 2, known: 1 }));
    assert_eq!(Record::decode(&[16, 0]), Err(DecodeError::UnknownType { kind: 16 }));
    assert_eq!(Record::decode(&[0, 0]), Err(DecodeError::UnknownType { kind: 0 }));
    let told = Record::decode(&[7, 1]).unwrap_err().to_string();
    assert_eq!(told, "metadata record type 7 has version 1, and this version of Ottla reads up to 0");
}

#[test]
fn a_length_larger_than_the_record_is_refused_before_anything_is_allocated() {
    // Replicas of partition 0, 2^28 - 1 of them in five bytes.
    let mut bytes = vec![6, 0];
    bytes.extend([1; 16]);
    bytes.extend([0; 4]);
    bytes.extend([0xff, 0xff, 0xff, 0x7f, 0]);
    assert_eq!(Record::decode(&bytes), Err(DecodeError::InvalidLength));
    // A name whose length never ends.
    assert_eq!(Record::decode(&[1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Err(DecodeError::InvalidLength));
    // Length 3 written in two bytes.
    assert_eq!(Record::decode(b"\x01\x00\x83\x00abc"), Err(DecodeError::InvalidLength));
}

#[test]
fn bytes_after_a_record_are_refused() {
    let mut bytes = Record::BrokerRestartedUncleanly { id: BrokerId(1) }.encode().to_vec();
    bytes.push(0);
    assert_eq!(Record::decode(&bytes), Err(DecodeError::TrailingBytes { count: 1 }));
}
