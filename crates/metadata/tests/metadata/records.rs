//! The bytes of a record: there and back, and nothing else gets in.

use std::sync::Arc;

use ottla_metadata::{ConfigResource, DecodeError, Listener, Record};
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

pub(crate) fn record() -> impl Strategy<Value = Record> {
    let registered =
        (broker(), any::<i64>(), any::<[u8; 16]>(), option::of(text()), vec(listener(), 0..3), any::<i64>());
    let partition = (topic_id(), 0..3i32, brokers(), brokers(), broker(), any::<i32>(), any::<i32>());
    prop_oneof![
        text().prop_map(|id| Record::ClusterRegistered { cluster_id: id.into() }),
        (text(), -1..3i16).prop_map(|(name, level)| Record::FeatureLevel { name, level }),
        registered.prop_map(|(id, epoch, incarnation, rack, listeners, registered)| Record::BrokerRegistered {
            id,
            epoch: BrokerEpoch(epoch),
            incarnation,
            rack: rack.map(Arc::from),
            listeners: listeners.into(),
            registered: Timestamp(registered),
        }),
        broker().prop_map(|id| Record::BrokerRestartedUncleanly { id }),
        (topic_id(), "[a-c]", any::<i64>()).prop_map(|(id, name, created)| Record::TopicCreated {
            id,
            name: name.into(),
            created: Timestamp(created),
        }),
        partition.prop_map(|(topic, index, replicas, isr, leader, leader_epoch, partition_epoch)| {
            Record::PartitionCreated {
                topic,
                index: PartitionIndex(index),
                replicas,
                isr,
                leader,
                leader_epoch: LeaderEpoch(leader_epoch),
                partition_epoch,
            }
        }),
        topic_id().prop_map(|id| Record::TopicDeleted { id }),
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
    fn a_record_has_one_form_only(kind in 0u8..13, bytes in vec(any::<u8>(), 0..64)) {
        let bytes: Vec<u8> = [kind, 0].into_iter().chain(bytes).collect();
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
}

#[test]
fn what_a_newer_version_wrote_is_refused_by_name() {
    assert_eq!(Record::decode(&[7, 1]), Err(DecodeError::NewerVersion { kind: 7, version: 1, known: 0 }));
    assert_eq!(Record::decode(&[12, 0]), Err(DecodeError::UnknownType { kind: 12 }));
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
