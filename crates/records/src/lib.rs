//! Kafka's record batch, magic 2 (KIP-98): the only bytes shared by wire and disk.
//!
//! A batch is read by its header and passed on as it came; its records are looked at only where somebody must: the
//! strict pass over an uncompressed produce, a lookup by timestamp, a consumer of our own. No I/O happens here, and
//! nothing here knows of sequences, epochs or offsets already in a log: that is `ottla-log`. The bytes are described
//! in `docs/formats/record-batch.md`.
//!
//! Reading order: [`BatchHeader`] and [`split`] (`header`), [`records`] (`record`), [`validate_produced`]
//! (`produce`), [`OpenBatch`] (`retain`), [`BatchBuilder`] (`builder`); below them `compression` and `varint`.
//!
//! Every function takes bytes from strangers: none panics, and none allocates more than the bytes at hand or the
//! caller's [`Decompress`] limit allow.
#![forbid(unsafe_code)]

mod builder;
mod compression;
mod error;
mod header;
mod produce;
mod record;
mod retain;
mod survey;
mod varint;

pub use builder::BatchBuilder;
pub use compression::{Compression, Decompress, UnknownCompressionName};
pub use error::BatchError;
pub use header::{
    Attributes, BatchHeader, Batches, HEADER_SIZE, LENGTH_PREFIX, TimestampType, crc_matches, split, stored_head,
};
pub use produce::{ProducePolicy, ProduceRefusal, ProducedBatch, RecordError, TopicCompression, validate_produced};
pub use record::{Record, RecordHeader, RecordIter, first_at_or_after, records};
pub use retain::{KeyedRecord, OpenBatch, Retained};
