//! A socket that never waits: what `engine.rs` sends and receives over.

use std::io::IoSlice;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Result, bail};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::client::Client;

#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
}

impl Socket {
    pub(super) fn new(client: Client) -> Result<Socket> {
        let stream = client.into_stream();
        stream.set_nonblocking(true)?;
        Ok(Socket { stream })
    }

    /// Bytes that the kernel took: zero where it has no room.
    pub(super) fn send(&self, slices: &[IoSlice<'_>]) -> Result<usize> {
        match rustix::io::writev(&self.stream, slices) {
            Ok(sent) => Ok(sent),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => bail!("sending: {error}"),
        }
    }

    /// Bytes that lie in `buffer` now: zero where none had arrived.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> Result<usize> {
        self.receive_with(buffer, RecvFlags::empty())
    }

    /// Drops up to `room.len()` bytes that have arrived. The kernel doesn't copy them; `room` is only a number to it.
    pub(super) fn discard(&self, room: &mut [u8]) -> Result<usize> {
        self.receive_with(room, RecvFlags::TRUNC)
    }

    fn receive_with(&self, buffer: &mut [u8], flags: RecvFlags) -> Result<usize> {
        match rustix::net::recv(&self.stream, buffer, flags) {
            Ok((_, 0)) => bail!("the broker closed a connection"),
            Ok((_, received)) => Ok(received),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => bail!("receiving: {error}"),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
