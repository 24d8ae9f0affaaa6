//! Kafka's requests and responses as Rust types, for both ends of the wire.
//!
//! No I/O, no broker semantics, no record batches: `records` fields are bytes (or regions of files) that pass through
//! untouched; `ottla-records` reads them. The types are generated from `schema/*.msg` (the notation is described in
//! `docs/formats/schema-notation.md`); `cargo doc` is how to read them. Start with [`Reader`] and [`GatherOut`].
//!
//! A broker's turn, from the bytes of a socket to the bytes that answer them:
//!
//! ```
//! use bytes::BytesMut;
//! use ottla_protocol::messages::{MetadataRequest, MetadataResponse};
//! use ottla_protocol::{ApiKey, Chunk, GatherOut, Reader, RequestHeader, frame::Splitter};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // What a client does.
//! let header = RequestHeader { api_key: ApiKey::Metadata, api_version: 12, correlation_id: 7, client_id: None };
//! let mut out = GatherOut::new();
//! out.request(&header, &MetadataRequest::default())?;
//! let mut received = BytesMut::new();
//! for chunk in out.finish() {
//!     match chunk {
//!         Chunk::Bytes(bytes) => received.extend_from_slice(&bytes),
//!         Chunk::Region(region) => unreachable!("no {region:?} in a request"),
//!     }
//! }
//!
//! // What the broker does.
//! let frame = Splitter::new(100 << 20).split(&mut received)?.expect("a whole frame");
//! let mut reader = Reader::new(frame);
//! let header = RequestHeader::decode(&mut reader)?;
//! let request = MetadataRequest::decode(&mut reader, header.api_version)?;
//! assert_eq!(request.topics, Some(vec![]));
//!
//! let mut out = GatherOut::new();
//! out.response(&header, &MetadataResponse { controller_id: 1, ..Default::default() })?;
//! assert!(!out.finish().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! Strings and bytes of a decoded message are slices of its frame, and keep the whole frame in memory: copy what is
//! kept beyond the request.

#![forbid(unsafe_code)]

mod api_key;
mod error;
mod error_code;
pub mod frame;
mod gather;
mod generated;
mod header;
mod message;
mod out;
mod reader;

pub use api_key::ApiKey;
pub use error::{DecodeError, EncodeError};
pub use error_code::ErrorCode;
pub use gather::{Chunk, GatherOut};
pub use generated::messages;
pub use header::{RequestHeader, ResponseHeader};
pub use message::{Message, Records, Region, Request};
pub use out::Out;
pub use reader::Reader;
