//! The headers in front of every request and response, and which of their versions goes with which message.
//!
//! Not here: the length in front of the header (`frame.rs`).

use bytestring::ByteString;

use crate::{ApiKey, DecodeError, EncodeError, Out, Reader};

/// What precedes every request. Flexible versions of a message use header version 2, the others version 1; they differ
/// in the tag section only, the client id is a string with a 16-bit length in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API.
    pub api_key: ApiKey,
    /// The version of the body, as the client sent it: decoding the header does not say that this crate knows it.
    pub api_version: i16,
    /// The client's number for the request, which the response repeats.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<ByteString>,
}

impl RequestHeader {
    /// The header as an answer needs it: without the client's name, which is a part of the request's frame.
    pub fn without_client(&self) -> RequestHeader {
        let RequestHeader { api_key, api_version, correlation_id, client_id: _ } = *self;
        RequestHeader { api_key, api_version, correlation_id, client_id: None }
    }

    /// Reads the header; the reader then stands at the body.
    pub fn decode(reader: &mut Reader) -> Result<RequestHeader, DecodeError> {
        let api_key = ApiKey::try_from(reader.i16()?)?;
        let api_version = reader.i16()?;
        let correlation_id = reader.i32()?;
        let client_id = reader.nullable_string(false)?;
        if api_key.is_flexible(api_version) {
            reader.skip_tagged_fields()?;
        }
        Ok(RequestHeader { api_key, api_version, correlation_id, client_id })
    }

    /// Writes the header.
    pub fn encode(&self, out: &mut impl Out) -> Result<(), EncodeError> {
        out.put_i16(self.api_key as i16);
        out.put_i16(self.api_version);
        out.put_i32(self.correlation_id);
        match &self.client_id {
            Some(client_id) => out.put_string(false, client_id)?,
            None => out.put_null_string(false),
        }
        if self.api_key.is_flexible(self.api_version) {
            out.put_u8(0);
        }
        Ok(())
    }
}

/// What precedes every response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHeader {
    /// The number of the request that is answered.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Reads the header of a response to a request of that API and version.
    pub fn decode(reader: &mut Reader, api: ApiKey, version: i16) -> Result<ResponseHeader, DecodeError> {
        let correlation_id = reader.i32()?;
        if has_tags(api, version) {
            reader.skip_tagged_fields()?;
        }
        Ok(ResponseHeader { correlation_id })
    }

    /// Writes the header.
    pub fn encode(self, out: &mut impl Out, api: ApiKey, version: i16) {
        out.put_i32(self.correlation_id);
        if has_tags(api, version) {
            out.put_u8(0);
        }
    }
}

/// A client that asks for ApiVersions does not know yet what the broker speaks, and must be able to read an answer in
/// version 0. So the header of that one response never has a tag section (KIP-511).
fn has_tags(api: ApiKey, version: i16) -> bool {
    api != ApiKey::ApiVersions && api.is_flexible(version)
}
