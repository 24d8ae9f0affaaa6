//! What can go wrong between bytes and messages. Not here: the errors inside responses (`error_code.rs`).

use thiserror::Error;

use crate::ApiKey;

/// The bytes are not a message of that version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A field needs more bytes than there are.
    #[error("the message ends inside a field: {needed} bytes needed, {left} left")]
    UnexpectedEnd {
        /// Bytes the field needs.
        needed: usize,
        /// Bytes left in the frame or in the tagged field.
        left: usize,
    },
    /// A length below -1, or a string of more than 32,767 bytes.
    #[error("{0} is not a valid length")]
    InvalidLength(i64),
    /// Null where this version allows none.
    #[error("null in a field that cannot be null")]
    UnexpectedNull,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    InvalidUtf8,
    /// A variable-length number of more than 5 bytes or 32 bits.
    #[error("a variable-length number is longer than 32 bits")]
    OverlongVarint,
    /// Decoding would take more memory than a frame of this size may claim.
    #[error("the message claims {needed} bytes of memory beyond its budget")]
    OverBudget {
        /// Bytes by which the budget is too small.
        needed: usize,
    },
    /// The version is not one this crate knows.
    #[error("{} has no version {version}", .api.name())]
    UnsupportedVersion {
        /// The API.
        api: ApiKey,
        /// The version asked for.
        version: i16,
    },
    /// The key is not one this crate knows.
    #[error("{0} is not an API key")]
    UnknownApiKey(i16),
    /// Bytes are left where a tagged field must end.
    #[error("{0} bytes follow the end of the message")]
    TrailingBytes(usize),
}

/// The message cannot be written in that version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The field is set, the version lacks it, and leaving it out would change the meaning.
    #[error("{field} cannot be expressed in version {version}")]
    NotInVersion {
        /// `Struct.field`.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// The field is null and the version does not allow it.
    #[error("{field} cannot be null in this version")]
    Null {
        /// `Struct.field`.
        field: &'static str,
    },
    /// A string, array, tagged field or frame is longer than the wire can say.
    #[error("a length of {0} does not fit on the wire")]
    TooLong(usize),
    /// The version is not one this crate knows.
    #[error("{} has no version {version}", .api.name())]
    UnsupportedVersion {
        /// The API.
        api: ApiKey,
        /// The version asked for.
        version: i16,
    },
    /// A [`crate::Region`] was written to a sink that can only hold bytes.
    #[error("a region cannot be written to a contiguous buffer")]
    RegionInBuffer,
}
