//! Answers on their way out: bytes from memory and ranges of segment files, in order, written with as few calls as the
//! socket allows.
//!
//! A range that is in the page cache goes from file to socket by `sendfile`, never through our memory. A cold one is
//! first read by a small pool of threads, so that nobody else's request waits for the disk behind it; a small one is
//! copied in behind its header. What is not here: what an answer says (`api/`).

use std::{collections::VecDeque, io, io::IoSlice, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use ottla_log::FileRegion;
use ottla_protocol::GatherOut;
use tokio::{io::Interest, net::TcpStream, sync::Semaphore};

/// Ranges up to this size are copied into memory and leave with their header in one call.
const COPY_BYTES_MAX: u64 = 48 << 10;
/// So much is in memory at the front of the queue at most, for ranges that were copied.
const COPIED_BYTES_MAX: u64 = 256 << 10;
/// The most bytes one `sendfile` may move before other connections get a turn.
const SENDFILE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of memory from which on answers are sent before further requests are taken.
const HELD_BYTES_MAX: usize = 1 << 20;
/// Buffers gathered into one write.
const SLICES_MAX: usize = 64;
/// Threads that may wait for the disk at a time on behalf of readers.
const COLD_READS_MAX: usize = 4;
/// Bytes that one cold read brings in before it is sent on.
const COLD_READ_BYTES: u64 = 1 << 20;

/// One piece of an answer.
enum Chunk {
    Bytes(Bytes),
    File(FileRegion),
}

/// The pool that reads cold ranges; shared by all connections.
pub(crate) struct ColdReads {
    permits: Semaphore,
}

impl ColdReads {
    pub(crate) fn new() -> ColdReads {
        ColdReads { permits: Semaphore::new(COLD_READS_MAX) }
    }

    /// Brings a range into the page cache.
    async fn warm(&self, region: &FileRegion) -> io::Result<()> {
        let _permit = self.permits.acquire().await.map_err(io::Error::other)?;
        let (file, position, len) = (Arc::clone(&region.file), region.position, region.len.min(COLD_READ_BYTES));
        let read = move || {
            let mut scratch = vec![0u8; 64 << 10];
            let mut done = 0;
            while done < len {
                let want = scratch.len().min(usize::try_from(len - done).unwrap_or(usize::MAX));
                match file.read_at(&mut scratch[..want], position + done)? {
                    0 => break,
                    n => done += n as u64,
                }
            }
            Ok(())
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }
}

/// What one connection has yet to send.
#[derive(Default)]
pub(crate) struct Outbox {
    /// Answers that are all bytes and have nothing but such before them, and how much of them has been sent.
    bytes: Vec<u8>,
    sent: usize,
    /// What follows.
    chunks: VecDeque<Chunk>,
    /// Bytes of memory of what was added since all of it was last sent.
    held: usize,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.chunks.is_empty()
    }

    /// Whether it is to be sent before more requests are answered: those that a client sends in one go, each with a
    /// large answer, would fill the memory otherwise.
    pub(crate) fn is_full(&self) -> bool {
        self.held >= HELD_BYTES_MAX
    }

    /// Adds a response; `regions` are the file ranges that it names by their position in the list.
    pub(crate) fn push_response(&mut self, response: GatherOut, regions: Vec<FileRegion>) {
        let response = match response.into_buffer() {
            Ok(buffer) => return self.push_bytes(buffer),
            Err(response) => response,
        };
        let mut regions = regions.into_iter();
        for chunk in response.finish() {
            self.held += size_of::<Chunk>();
            match chunk {
                ottla_protocol::Chunk::Bytes(bytes) => {
                    self.held += bytes.len();
                    self.chunks.push_back(Chunk::Bytes(bytes));
                }
                // Regions are named in the order in which they were written.
                ottla_protocol::Chunk::Region(_) => self.chunks.extend(regions.next().map(Chunk::File)),
            }
        }
    }

    fn push_bytes(&mut self, buffer: Vec<u8>) {
        self.held += buffer.len();
        if !self.chunks.is_empty() {
            self.chunks.push_back(Chunk::Bytes(buffer.into()));
        } else if self.bytes.is_empty() {
            self.bytes = buffer;
        } else {
            self.bytes.extend_from_slice(&buffer);
        }
    }

    /// Sends what the socket takes at once, and says whether that was everything. Files are left to [`Outbox::flush`].
    pub(crate) fn try_flush(&mut self, stream: &TcpStream) -> io::Result<bool> {
        self.inline_small_files()?;
        if !self.is_at_file() {
            match self.write(stream) {
                Ok(sent) => self.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.is_empty())
    }

    /// Whether a file is what is to be sent next.
    fn is_at_file(&self) -> bool {
        self.bytes.is_empty() && matches!(self.chunks.front(), Some(Chunk::File(_)))
    }

    /// Sends everything.
    pub(crate) async fn flush(&mut self, stream: &TcpStream, cold: &ColdReads) -> io::Result<()> {
        while !self.is_empty() {
            if self.is_at_file() {
                self.send_file(stream, cold).await?;
            } else {
                self.send_bytes(stream).await?;
            }
        }
        Ok(())
    }

    async fn send_bytes(&mut self, stream: &TcpStream) -> io::Result<()> {
        self.inline_small_files()?;
        loop {
            match self.write(stream) {
                Ok(sent) => {
                    self.advance(sent);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Gathers the bytes at the front into one write. Apart from the future above, which would hold the slices for as
    /// long as its connection lives.
    fn write(&self, stream: &TcpStream) -> io::Result<usize> {
        let bytes = &self.bytes[self.sent..];
        let written = if self.chunks.is_empty() {
            stream.try_write(bytes)?
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            slices[0] = IoSlice::new(bytes);
            let mut count = 1;
            for (slot, chunk) in slices[1..].iter_mut().zip(&self.chunks) {
                let Chunk::Bytes(bytes) = chunk else { break };
                *slot = IoSlice::new(bytes);
                count += 1;
            }
            stream.try_write_vectored(&slices[..count])?
        };
        if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
    }

    /// Turns small ranges near the front that are in memory into bytes: cheaper than a system call of their own.
    fn inline_small_files(&mut self) -> io::Result<()> {
        let mut copied = 0;
        for chunk in self.chunks.iter_mut().take(SLICES_MAX) {
            let region = match chunk {
                Chunk::File(region) => region,
                Chunk::Bytes(bytes) => {
                    copied += bytes.len() as u64;
                    continue;
                }
            };
            copied += region.len;
            let fits = region.len <= COPY_BYTES_MAX && copied <= COPIED_BYTES_MAX;
            if !fits || !region.file.is_resident(region.position..region.position + region.len) {
                break;
            }
            *chunk = Chunk::Bytes(read_region(region)?);
        }
        Ok(())
    }

    async fn send_file(&mut self, stream: &TcpStream, cold: &ColdReads) -> io::Result<()> {
        let Some(Chunk::File(region)) = self.chunks.front_mut() else { return Ok(()) };
        let len = region.len.min(SENDFILE_BYTES_MAX);
        if !region.file.is_resident(region.position..region.position + len) {
            Box::pin(cold.warm(region)).await?;
        }
        let sent = match region.file.as_fd() {
            Some(fd) => {
                let mut position = region.position;
                let count = usize::try_from(len).unwrap_or(usize::MAX);
                stream
                    .async_io(Interest::WRITABLE, || {
                        rustix::fs::sendfile(stream, fd, Some(&mut position), count).map_err(io::Error::from)
                    })
                    .await? as u64
            }
            None => {
                let piece = FileRegion { file: Arc::clone(&region.file), position: region.position, len };
                let bytes = read_region(&piece)?;
                region.position += len;
                region.len -= len;
                if region.len == 0 {
                    self.chunks.pop_front();
                }
                self.chunks.push_front(Chunk::Bytes(bytes));
                return Ok(());
            }
        };
        if sent == 0 {
            // The length has been announced and the bytes are not there: the connection cannot be saved.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        region.position += sent;
        region.len -= sent;
        if region.len == 0 {
            self.chunks.pop_front();
        }
        if self.chunks.is_empty() {
            self.held = 0;
        }
        Ok(())
    }

    fn advance(&mut self, sent: usize) {
        let left = self.bytes.len() - self.sent;
        if sent < left {
            self.sent += sent;
            return;
        }
        (self.bytes, self.sent) = (Vec::new(), 0);
        let mut sent = sent - left;
        while let Some(Chunk::Bytes(bytes)) = self.chunks.front_mut() {
            if sent < bytes.len() {
                bytes.advance(sent);
                return;
            }
            sent -= bytes.len();
            self.chunks.pop_front();
        }
        if self.chunks.is_empty() {
            self.held = 0;
        }
    }
}

fn read_region(region: &FileRegion) -> io::Result<Bytes> {
    let len = usize::try_from(region.len).map_err(io::Error::other)?;
    let mut bytes = BytesMut::zeroed(len);
    let mut done = 0;
    while done < len {
        match region.file.read_at(&mut bytes[done..], region.position + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(bytes.freeze())
}
