//! [`ApiKey`], generated from the schema. Not here: which versions a broker advertises, which is the broker's choice.

use std::ops::RangeInclusive;

use crate::DecodeError;

include!(concat!(env!("OUT_DIR"), "/api_key.rs"));

impl ApiKey {
    /// Whether Kafka has it. The others, with keys from 20000 up, are Ottla's own: they are for its nodes and its
    /// command line, and clients of Kafka skip them where ApiVersions lists them.
    pub const fn is_kafkas(self) -> bool {
        (self as i16) < 20_000
    }

    /// Whether this version has compact lengths and tagged fields (KIP-482). Versions beyond the known ones count as
    /// flexible where the newest known one is, because that is how their header can be read.
    pub const fn is_flexible(self, version: i16) -> bool {
        match self.first_flexible() {
            Some(first) => version >= first,
            None => false,
        }
    }
}
