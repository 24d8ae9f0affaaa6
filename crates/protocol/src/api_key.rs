//! [`ApiKey`], generated from the schema. Not here: which versions a broker advertises, which is the broker's choice.

use std::ops::RangeInclusive;

use crate::DecodeError;

include!(concat!(env!("OUT_DIR"), "/api_key.rs"));

impl ApiKey {
    /// Whether this version has compact lengths and tagged fields (KIP-482). Versions beyond the known ones count as
    /// flexible where the newest known one is, because that is how their header can be read.
    pub const fn is_flexible(self, version: i16) -> bool {
        match self.first_flexible() {
            Some(first) => version >= first,
            None => false,
        }
    }
}
