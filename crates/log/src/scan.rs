//! Walking over the batches of one segment file: by header alone, or whole.
//!
//! Knows nothing of segments or of what is valid beyond the bytes of one batch; the callers check offsets and CRC.

use std::{io, sync::Arc};

use bytes::Bytes;
use ottla_records::{BatchError, BatchHeader, HEADER_SIZE};

use crate::disk::DiskFile;

/// What a header walk reads at a time: as far apart as index entries, so a lookup mostly takes one read.
const WINDOW_BYTES: usize = 4096;
/// What a walk over whole batches reads at a time.
const CHUNK_BYTES: u64 = 256 << 10;

/// Why a walk stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// The file could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What lies at the position is no batch.
    #[error("at byte {position}: {error}")]
    Invalid {
        /// Bytes from the start of the file.
        position: u64,
        /// What is wrong with it.
        error: BatchError,
    },
}

/// The headers of the batches between two positions.
pub(crate) struct Headers {
    file: Arc<dyn DiskFile>,
    position: u64,
    limit: u64,
    window: Box<[u8; WINDOW_BYTES]>,
    window_at: u64,
    window_len: usize,
}

impl Headers {
    pub(crate) fn new(file: Arc<dyn DiskFile>, position: u64, limit: u64) -> Headers {
        Headers { file, position, limit, window: Box::new([0; WINDOW_BYTES]), window_at: 0, window_len: 0 }
    }

    /// The next batch's position and header; `None` at the limit.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, BatchHeader)>, ScanError> {
        if self.position >= self.limit {
            return Ok(None);
        }
        let position = self.position;
        let buffered =
            position >= self.window_at && position + HEADER_SIZE as u64 <= self.window_at + self.window_len as u64;
        if !buffered {
            let wanted = (self.limit - position).min(WINDOW_BYTES as u64) as usize;
            self.window_len = self.file.read_at(&mut self.window[..wanted], position)?;
            self.window_at = position;
        }
        let header = parse(&self.window[(position - self.window_at) as usize..self.window_len], position, self.limit)?;
        self.position = position + header.size() as u64;
        Ok(Some((position, header)))
    }
}

/// The whole batches between two positions.
pub(crate) struct WholeBatches {
    file: Arc<dyn DiskFile>,
    position: u64,
    limit: u64,
    chunk: Bytes,
}

impl WholeBatches {
    pub(crate) fn new(file: Arc<dyn DiskFile>, position: u64, limit: u64) -> WholeBatches {
        WholeBatches { file, position, limit, chunk: Bytes::new() }
    }

    /// Where the next batch begins.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next batch; `None` at the limit.
    pub(crate) fn next(&mut self) -> Result<Option<(BatchHeader, Bytes)>, ScanError> {
        if self.position >= self.limit {
            return Ok(None);
        }
        self.need(HEADER_SIZE as u64)?;
        let header = parse(&self.chunk, self.position, self.limit)?;
        let size = header.size();
        self.need(size as u64)?;
        if self.chunk.len() < size {
            let error = BatchError::Truncated { needed: size, available: self.chunk.len() };
            return Err(ScanError::Invalid { position: self.position, error });
        }
        self.position += size as u64;
        Ok(Some((header, self.chunk.split_to(size))))
    }

    /// Reads on if fewer than `bytes` are at hand; the file may have fewer.
    fn need(&mut self, bytes: u64) -> Result<(), ScanError> {
        if self.chunk.len() as u64 >= bytes {
            return Ok(());
        }
        let len = bytes.max(CHUNK_BYTES).min(self.limit - self.position);
        let mut buffer = vec![0; len as usize];
        let read = self.file.read_at(&mut buffer, self.position)?;
        buffer.truncate(read);
        self.chunk = buffer.into();
        Ok(())
    }
}

/// A header whose batch ends at or before the limit.
fn parse(bytes: &[u8], position: u64, limit: u64) -> Result<BatchHeader, ScanError> {
    let invalid = |error| ScanError::Invalid { position, error };
    let header = BatchHeader::parse(bytes).map_err(invalid)?;
    let available = limit - position;
    if header.size() as u64 > available {
        let available = available as usize;
        return Err(invalid(BatchError::Truncated { needed: header.size(), available }));
    }
    Ok(header)
}
