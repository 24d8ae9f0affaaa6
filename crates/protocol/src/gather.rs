//! [`GatherOut`]: a sink that writes frames as a list of chunks, so that records are never copied.
//!
//! Not here: writing the chunks to a socket, and what a region's token means; both are the sender's.

use bytes::Bytes;

use crate::{ApiKey, EncodeError, Message, Out, Region, RequestHeader, ResponseHeader};

/// Bytes from which a chunk of its own is cheaper than a copy.
const SHARE_FROM: usize = 4096;

/// A piece of the output, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Bytes the sender has to find.
    Region(Region),
}

impl Chunk {
    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        match self {
            Chunk::Bytes(bytes) => bytes.len(),
            Chunk::Region(region) => region.len as usize,
        }
    }

    /// Whether it adds nothing to the wire.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Collects messages as a few chunks: what is small is written into one buffer, long `Bytes` and regions stay where
/// they are and are put between its parts.
#[derive(Debug, Default)]
pub struct GatherOut {
    inline: Vec<u8>,
    /// A chunk and the position in `inline` it stands before, ascending.
    inserts: Vec<(usize, Chunk)>,
    /// The sum of the inserts' lengths.
    inserted: usize,
}

impl GatherOut {
    /// An empty sink.
    pub fn new() -> GatherOut {
        GatherOut { inline: Vec::with_capacity(256), ..GatherOut::default() }
    }

    /// Bytes on the wire so far.
    pub fn len(&self) -> usize {
        self.inline.len() + self.inserted
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes a request as a whole frame. The message must be of the header's API; after an error nothing is added.
    pub fn request<M: Message>(&mut self, header: &RequestHeader, body: &M) -> Result<(), EncodeError> {
        debug_assert_eq!(M::API, header.api_key);
        self.frame(|out| {
            header.encode(out)?;
            body.encode(out, header.api_version)
        })
    }

    /// Writes the answer to the request with that header as a whole frame. After an error nothing is added.
    pub fn response<M: Message>(&mut self, request: &RequestHeader, body: &M) -> Result<(), EncodeError> {
        self.response_in(M::API, request.api_version, request.correlation_id, body)
    }

    /// Like [`GatherOut::response`], in a version of the broker's choosing: an ApiVersions request of an unknown
    /// version is answered in version 0.
    pub fn response_in<M: Message>(
        &mut self,
        api: ApiKey,
        version: i16,
        correlation_id: i32,
        body: &M,
    ) -> Result<(), EncodeError> {
        debug_assert_eq!(M::API, api);
        self.frame(|out| {
            ResponseHeader { correlation_id }.encode(out, api, version);
            body.encode(out, version)
        })
    }

    /// Writes a frame whose content, header included, another broker has written.
    pub fn relay(&mut self, content: &Bytes) -> Result<(), EncodeError> {
        self.frame(|out| {
            out.put_shared(content);
            Ok(())
        })
    }

    /// Writes what `write` writes behind the four bytes of its length. After an error nothing is added.
    fn frame(&mut self, write: impl FnOnce(&mut GatherOut) -> Result<(), EncodeError>) -> Result<(), EncodeError> {
        let (start, inserts, inserted) = (self.inline.len(), self.inserts.len(), self.inserted);
        self.put_i32(0);
        let written = write(self).and_then(|()| {
            let length = self.len() - (start + inserted) - size_of::<i32>();
            i32::try_from(length).map_err(|_| EncodeError::TooLong(length))
        });
        match written {
            Ok(length) => {
                self.inline[start..start + size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
                Ok(())
            }
            Err(error) => {
                self.inline.truncate(start);
                self.inserts.truncate(inserts);
                self.inserted = inserted;
                Err(error)
            }
        }
    }

    /// What was written, where that is only bytes in one buffer.
    pub fn into_buffer(self) -> Result<Vec<u8>, GatherOut> {
        if self.inserts.is_empty() { Ok(self.inline) } else { Err(self) }
    }

    /// What was written. Neighbouring small parts are slices of one buffer.
    pub fn finish(self) -> Vec<Chunk> {
        let inline = Bytes::from(self.inline);
        if self.inserts.is_empty() {
            return if inline.is_empty() { Vec::new() } else { vec![Chunk::Bytes(inline)] };
        }
        let mut chunks = Vec::with_capacity(2 * self.inserts.len() + 1);
        let mut done = 0;
        for (position, insert) in self.inserts {
            if position > done {
                chunks.push(Chunk::Bytes(inline.slice(done..position)));
                done = position;
            }
            chunks.push(insert);
        }
        if inline.len() > done {
            chunks.push(Chunk::Bytes(inline.slice(done..)));
        }
        chunks
    }
}

impl Out for GatherOut {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.inline.extend_from_slice(bytes);
    }

    #[inline]
    fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARE_FROM {
            self.put(bytes);
        } else {
            self.inserted += bytes.len();
            self.inserts.push((self.inline.len(), Chunk::Bytes(bytes.clone())));
        }
    }

    fn put_region(&mut self, region: Region) -> Result<(), EncodeError> {
        if region.len > 0 {
            self.inserted += region.len as usize;
            self.inserts.push((self.inline.len(), Chunk::Region(region)));
        }
        Ok(())
    }
}
