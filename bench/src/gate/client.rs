//! A connection for scripts: frames go out as they are given, answers come back whole, one thing after the other.
//!
//! No retries, no versions asked for: the gate runs against the broker of this repository only.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use ottla_protocol::{Chunk, GatherOut, Reader, Request, RequestHeader, ResponseHeader};

/// How long the broker may take for anything. Under valgrind it is fifty times slower.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest answer that is believed.
const ANSWER_MAX: usize = 16 << 20;

pub(super) struct Client {
    stream: TcpStream,
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream })
    }

    pub(super) fn send(&mut self, frames: &[u8]) -> Result<()> {
        self.stream.write_all(frames).context("sending a request")
    }

    /// The next answer without its length.
    pub(super) fn receive(&mut self) -> Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).context("waiting for an answer")?;
        let length = u32::from_be_bytes(length) as usize;
        if length > ANSWER_MAX {
            bail!("the broker announces an answer of {length} bytes");
        }
        let mut answer = BytesMut::zeroed(length);
        self.stream.read_exact(&mut answer).context("reading an answer")?;
        Ok(answer.freeze())
    }

    pub(super) fn call<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        self.send(&frame(request, version)?)?;
        decode::<R>(self.receive()?, version)
    }
}

/// A request as it goes over the wire.
pub(super) fn frame<R: Request>(request: &R, version: i16) -> Result<Bytes> {
    let header =
        RequestHeader { api_key: R::API, api_version: version, correlation_id: 1, client_id: Some("gate".into()) };
    let mut out = GatherOut::new();
    out.request(&header, request)?;
    let mut frame = BytesMut::with_capacity(out.len());
    for chunk in out.finish() {
        match chunk {
            Chunk::Bytes(bytes) => frame.extend_from_slice(&bytes),
            Chunk::Region(_) => bail!("a region in a request"),
        }
    }
    Ok(frame.freeze())
}

pub(super) fn decode<R: Request>(answer: Bytes, version: i16) -> Result<R::Response> {
    use ottla_protocol::Message;

    let mut reader = Reader::new(answer);
    ResponseHeader::decode(&mut reader, R::API, version)?;
    Ok(R::Response::decode(&mut reader, version)?)
}
