//! Integers with a meaning, each a transparent wrapper with the value public as `.0`.
//!
//! What is not here: arithmetic that could overflow silently on data from outside; callers use `checked_add`.
//! Next: `id.rs` for the identifiers that are not numbers.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number! {
    /// The position of a record in its partition, from 0. Negative values are only ever Kafka's sentinels on the wire.
    Offset(i64)
}
number! {
    /// Counts the leaderships of one partition; rises on every change of leader and every unclean restart (KIP-101).
    LeaderEpoch(i32)
}
number! {
    /// A broker's `node.id`, 0 or more.
    BrokerId(i32)
}
number! {
    /// Counts the registrations of one broker with the controller (KIP-631).
    BrokerEpoch(i64)
}
number! {
    /// The number of a partition within its topic, from 0.
    PartitionIndex(i32)
}
number! {
    /// A producer's id as `InitProducerId` gave it (KIP-98); -1 on the wire means none.
    ProducerId(i64)
}
number! {
    /// Fences the older incarnations of a producer id (KIP-98).
    ProducerEpoch(i16)
}
number! {
    /// Wall-clock milliseconds since the Unix epoch; -1 on the wire means none.
    Timestamp(i64)
}
number! {
    /// Monotonic milliseconds since the process started: what timeouts and leases are measured with (rule C1).
    Tick(u64)
}

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Offset = Offset(0);

    /// This offset moved by `records`, or `None` past the end of the range.
    pub fn checked_add(self, records: i64) -> Option<Offset> {
        self.0.checked_add(records).map(Offset)
    }
}

impl LeaderEpoch {
    /// No epoch known: what the wire calls -1.
    pub const NONE: LeaderEpoch = LeaderEpoch(-1);
}

impl ProducerId {
    /// No producer id: a batch that is not idempotent.
    pub const NONE: ProducerId = ProducerId(-1);
}

impl ProducerEpoch {
    /// No producer epoch.
    pub const NONE: ProducerEpoch = ProducerEpoch(-1);
}

impl Timestamp {
    /// No timestamp.
    pub const NONE: Timestamp = Timestamp(-1);
}
