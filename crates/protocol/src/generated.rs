//! Where the generated code lives, and the names it uses. The generator is `build/emit.rs`.

pub(crate) use bytes::Bytes;
pub(crate) use bytestring::ByteString;
pub(crate) use ottla_types::TopicId;

pub(crate) use crate::{
    ApiKey, DecodeError, EncodeError, Message, Out, Reader, Records, Request,
    message::{check_version, check_version_out},
    out::TaggedFields,
};

/// One module per request and response, each with the structs it is made of, named as Kafka names them.
///
/// A struct has the fields of all versions, and its `Default` is Kafka's. `decode` fills the fields a version lacks
/// with their defaults; `encode` leaves them out, or is an error if such a field is set and losing it would change the
/// meaning.
#[allow(unused_imports, clippy::clone_on_copy, clippy::collapsible_match)]
pub mod messages {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}
