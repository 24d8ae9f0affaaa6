//! What can be wrong with a batch.
//!
//! Not here: what Produce answers to a client, which is `ProduceRefusal` in `produce.rs`.

use crate::Compression;

/// Why bytes are not a batch that can be read, or why one cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("the batch needs {needed} bytes and there are {available}")]
    Truncated {
        /// Bytes the batch needs, as far as can be told.
        needed: usize,
        /// Bytes there are.
        available: usize,
    },
    /// The batch is not of magic 2; Kafka 4 dropped the older message formats (KIP-724).
    #[error("the batch has magic {0}, only magic 2 is supported")]
    Magic(i8),
    /// The length field is negative or shorter than a header.
    #[error("the batch length {0} is impossible, it is at least 49")]
    Length(i32),
    /// The base offset or last offset delta is negative, or their sum passes the largest offset.
    #[error("the offsets from {base_offset} on, delta {last_offset_delta}, are impossible")]
    Offsets {
        /// The base offset of the batch.
        base_offset: i64,
        /// The delta of the last offset to it.
        last_offset_delta: i32,
    },
    /// The record count is negative or larger than the range of offsets.
    #[error("the record count {count} does not fit the last offset delta {last_offset_delta}")]
    RecordCount {
        /// The count of the header.
        count: i32,
        /// The delta of the last offset to the base offset.
        last_offset_delta: i32,
    },
    /// Bits 0 to 2 of the attributes name no codec.
    #[error("the compression codec {0} is unknown")]
    UnknownCompression(u8),
    /// The records cannot be decompressed, or not be compressed.
    #[error("{codec}: {reason}")]
    Codec {
        /// The codec the attributes name.
        codec: Compression,
        /// What its decoder or encoder says.
        reason: String,
    },
    /// The decompressed records are larger than the caller's limit.
    #[error("the decompressed records are larger than the limit of {max_bytes} bytes")]
    DecompressedTooLarge {
        /// The limit, from [`crate::Decompress`].
        max_bytes: usize,
    },
    /// A record cannot be read.
    #[error("record {index} of the batch is malformed: {reason}")]
    Record {
        /// Position of the record in its batch, from 0.
        index: i32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There are bytes behind the last record.
    #[error("{0} bytes follow the last record of the batch")]
    TrailingBytes(usize),
    /// A batch without records cannot be built.
    #[error("a batch needs at least one record")]
    Empty,
    /// The batch being built would pass 2^31 - 1 bytes or records, or its timestamps lie too far apart.
    #[error("the record does not fit into this batch")]
    Full,
}
