//! The nouns every other crate shares: a type for each number that means something.
//!
//! No I/O, no clock, no behaviour beyond arithmetic that is safe for the noun. A bare `i64` never crosses a function
//! between crates; one of these does. Where to go next: `ottla-records` for the batch they are stored in.

mod id;
mod number;

pub use id::{InvalidTopicId, TopicId};
pub use number::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Tick, Timestamp,
};
