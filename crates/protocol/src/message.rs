//! What all messages have in common, and the two types of a response's records.
//!
//! Not here: the messages, which are generated (`generated.rs`).

use std::fmt::Debug;

use bytes::Bytes;

use crate::{ApiKey, DecodeError, EncodeError, Out, Reader};

/// A request or response of one API. The inherent methods of each message are the same; this is for generic callers.
pub trait Message: Clone + Debug + Default + PartialEq {
    /// The API it belongs to.
    const API: ApiKey;

    /// Reads the body of `version`. Bytes behind it are left in the reader and are no error, as with Kafka: librdkafka
    /// 2.16 sends three of them behind a Metadata request for all topics.
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError>;

    /// Writes the body of `version`. After an error `out` holds part of it.
    fn encode<O: Out>(&self, out: &mut O, version: i16) -> Result<(), EncodeError>;
}

/// A request, which knows the type of its answer.
pub trait Request: Message {
    /// What the broker answers with.
    type Response: Message;
}

/// The records of one partition in a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// In memory; what decoding gives, as a slice of the frame.
    Bytes(Bytes),
    /// Somewhere the sender knows, such as a range of a file. Only [`crate::GatherOut`] can carry it.
    Region(Region),
}

impl Records {
    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        match self {
            Records::Bytes(bytes) => bytes.len(),
            Records::Region(region) => region.len as usize,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Records {
    fn default() -> Records {
        Records::Bytes(Bytes::new())
    }
}

/// Bytes that this crate never sees: `len` of them, put on the wire by whoever understands the `token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The sender's own name for the place, for instance an index into a list of file ranges.
    pub token: u64,
    /// Bytes, at most `i32::MAX`.
    pub len: u32,
}

pub(crate) fn check_version(api: ApiKey, version: i16) -> Result<(), DecodeError> {
    if api.versions().contains(&version) { Ok(()) } else { Err(DecodeError::UnsupportedVersion { api, version }) }
}

pub(crate) fn check_version_out(api: ApiKey, version: i16) -> Result<(), EncodeError> {
    if api.versions().contains(&version) { Ok(()) } else { Err(EncodeError::UnsupportedVersion { api, version }) }
}
