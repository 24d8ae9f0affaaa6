//! The configs of a group: Kafka's 17 (4.3), sorted by name.
//!
//! Those of share and streams groups are kept and reported; nothing reads them until Ottla has such groups. What is not
//! here: the broker-wide defaults they fall back to (`broker.rs`), their limits (`change.rs`), and their typed form
//! (`typed_group.rs`).

use super::{
    Definition, Valid,
    definition::{boolean, int, same, text},
};

/// Every group config, sorted by name.
pub(super) const CONFIGS: &[Definition] = &[
    int(
        "consumer.assignment.interval.ms",
        "1000",
        "The least time between two assignments of this consumer group, in milliseconds.",
    )
    .at_least(0)
    .synonyms(&[same("group.consumer.assignment.interval.ms")])
    .dynamic(),
    int("consumer.heartbeat.interval.ms", "5000", "How often the members of this consumer group report, in ms.")
        .at_least(1)
        .synonyms(&[same("group.consumer.heartbeat.interval.ms")])
        .dynamic(),
    int("consumer.session.timeout.ms", "45000", "How long a quiet member stays in this consumer group, in ms.")
        .at_least(1)
        .synonyms(&[same("group.consumer.session.timeout.ms")])
        .dynamic(),
    int(
        "share.assignment.interval.ms",
        "1000",
        "The least time between two assignments of this share group, in milliseconds.",
    )
    .at_least(0)
    .stored()
    .synonyms(&[same("group.share.assignment.interval.ms")])
    .dynamic(),
    text("share.auto.offset.reset", "latest", "Where a share group begins in a partition that is new to it.")
        .valid(Valid::OffsetReset)
        .stored()
        .dynamic(),
    int("share.delivery.count.limit", "5", "How often the share group is handed a record before it is given up.")
        .valid(Valid::Between(2, 10))
        .stored()
        .synonyms(&[same("group.share.delivery.count.limit")])
        .dynamic(),
    int("share.heartbeat.interval.ms", "5000", "How often the members of this share group report, in ms.")
        .at_least(1)
        .stored()
        .synonyms(&[same("group.share.heartbeat.interval.ms")])
        .dynamic(),
    text("share.isolation.level", "read_uncommitted", "Whether the share group sees records of open transactions.")
        .valid(Valid::OneOf(&["read_committed", "read_uncommitted"]))
        .stored()
        .dynamic(),
    int("share.partition.max.record.locks", "2000", "The most records of a partition the share group has in flight.")
        .valid(Valid::Between(100, 10_000))
        .stored()
        .synonyms(&[same("group.share.partition.max.record.locks")])
        .dynamic(),
    int("share.record.lock.duration.ms", "30000", "How long a member of the share group holds a record, in ms.")
        .at_least(1000)
        .stored()
        .synonyms(&[same("group.share.record.lock.duration.ms")])
        .dynamic(),
    boolean("share.renew.acknowledge.enable", "true", "Whether members of the share group may hold a record longer.")
        .stored()
        .dynamic(),
    int("share.session.timeout.ms", "45000", "How long a quiet member stays in this share group, in milliseconds.")
        .at_least(1)
        .stored()
        .synonyms(&[same("group.share.session.timeout.ms")])
        .dynamic(),
    int(
        "streams.assignment.interval.ms",
        "1000",
        "The least time between two assignments of this streams group, in milliseconds.",
    )
    .at_least(0)
    .stored()
    .synonyms(&[same("group.streams.assignment.interval.ms")])
    .dynamic(),
    int("streams.heartbeat.interval.ms", "5000", "How often the members of this streams group report, in ms.")
        .at_least(1)
        .stored()
        .synonyms(&[same("group.streams.heartbeat.interval.ms")])
        .dynamic(),
    int("streams.initial.rebalance.delay.ms", "3000", "How long a new streams group waits for members, in ms.")
        .at_least(0)
        .stored()
        .synonyms(&[same("group.streams.initial.rebalance.delay.ms")])
        .dynamic(),
    int("streams.num.standby.replicas", "0", "How many standby replicas each task of the streams group has.")
        .at_least(0)
        .stored()
        .synonyms(&[same("group.streams.num.standby.replicas")])
        .dynamic(),
    int("streams.session.timeout.ms", "45000", "How long a quiet member stays in this streams group, in ms.")
        .at_least(1)
        .stored()
        .synonyms(&[same("group.streams.session.timeout.ms")])
        .dynamic(),
];
