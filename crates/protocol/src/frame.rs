//! Frames: a message behind four bytes of length, the unit of a connection.
//!
//! Not here: reading a socket. Writing frames is [`crate::GatherOut`]'s work, because only the writer knows the length.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

const PREFIX: usize = size_of::<i32>();

/// The stream cannot be split any further; the connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length is negative.
    #[error("a frame announces a negative length, {0}")]
    Negative(i32),
    /// The length is above the limit.
    #[error("a frame announces {length} bytes, the limit is {max}")]
    TooLarge {
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        max: usize,
    },
}

/// Takes whole frames from the front of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Splitter {
    max: usize,
}

impl Splitter {
    /// Frames of at most `max` bytes, without the length prefix (Kafka's `socket.request.max.bytes`).
    pub fn new(max: usize) -> Splitter {
        Splitter { max }
    }

    /// Takes the next frame, without its prefix, or leaves the buffer as it is if that is not complete yet. The length
    /// is judged as soon as it is there, and nothing is reserved for it.
    pub fn split(self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let Some(prefix) = buffer.first_chunk::<PREFIX>() else { return Ok(None) };
        let length = i32::from_be_bytes(*prefix);
        let length = usize::try_from(length).map_err(|_| FrameError::Negative(length))?;
        if length > self.max {
            return Err(FrameError::TooLarge { length, max: self.max });
        }
        if buffer.len() - PREFIX < length {
            return Ok(None);
        }
        buffer.advance(PREFIX);
        Ok(Some(buffer.split_to(length).freeze()))
    }
}
