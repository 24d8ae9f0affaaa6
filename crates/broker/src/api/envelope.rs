//! Envelope (key 58): a client's request that another broker passes on to the controller (KIP-590).
//!
//! Answered here or not at all: what is passed on is never passed on again, so that two brokers that take each other
//! for the controller don't keep a request going between them.

use bytes::{Bytes, BytesMut};
use ottla_protocol::{
    Chunk, ErrorCode, Reader, RequestHeader,
    messages::{EnvelopeRequest, EnvelopeResponse},
};

use super::{Context, Serve, TABLE};
use crate::connection::Close;

pub(super) fn handle(context: &Context<'_>, request: EnvelopeRequest) -> EnvelopeResponse {
    if !context.broker.node.is_controller() {
        return refused(ErrorCode::NotController);
    }
    match answer(context, request.request_data) {
        Ok(Some(answer)) => EnvelopeResponse { response_data: Some(answer), ..Default::default() },
        Ok(None) => refused(ErrorCode::InvalidRequest),
        Err(why) => {
            tracing::warn!(peer = %context.peer, %why, "a forwarded request can't be answered");
            refused(ErrorCode::InvalidRequest)
        }
    }
}

fn refused(code: ErrorCode) -> EnvelopeResponse {
    EnvelopeResponse { error_code: code.code(), ..Default::default() }
}

/// The answer, header included; none to what is no request for the controller.
fn answer(context: &Context<'_>, frame: Bytes) -> Result<Option<Bytes>, Close> {
    let mut reader = Reader::new(frame.clone());
    let header = RequestHeader::decode(&mut reader).map_err(|error| Close::BadRequest(error.to_string()))?;
    let row = TABLE.iter().find(|row| row.key == header.api_key);
    let Some(Serve::Controlled(handler)) = row.map(|row| &row.serve) else { return Ok(None) };
    if !header.api_key.versions().contains(&header.api_version) {
        return Ok(None);
    }
    let context = Context { header: &header, frame: &frame, is_forwarded: true, ..*context };
    let chunks = handler(&context, &mut reader)?.finish();
    let mut answer = BytesMut::new();
    for chunk in &chunks {
        // Only a Fetch has anything but bytes in it.
        if let Chunk::Bytes(bytes) = chunk {
            answer.extend_from_slice(bytes);
        }
    }
    // Without the length before it, which the frame of the answer to the client gets anew.
    Ok(Some(answer.freeze().split_off(size_of::<i32>())))
}
