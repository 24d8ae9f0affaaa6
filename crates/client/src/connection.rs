//! [`Connection`]: requests go out in order, answers come back in order, many may be under way.
//!
//! Two tasks own the halves of the socket, so that a caller who gives up never leaves half a frame behind. Brokers use
//! it among themselves too. Not here: which broker to ask and whether to ask again (`client.rs`).

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use ottla_protocol::{
    ApiKey, Chunk, EncodeError, ErrorCode, GatherOut, Message, Reader, Request, RequestHeader, ResponseHeader,
    frame::Splitter,
    messages::{ApiVersionsRequest, ApiVersionsResponse},
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use crate::Error;

/// The largest answer taken. A Fetch answer is the largest there is, and we ask for far less.
const FRAME_MAX: usize = 512 << 20;
/// Requests that may wait for the socket before callers wait in turn.
const QUEUE: usize = 32;
const READ_AT_ONCE: usize = 64 << 10;
/// Frames are gathered into one write up to this many bytes.
const WRITE_AT_ONCE: usize = 64 << 10;

/// What ends a wait for an answer: the answer, or the reason there will be none.
type Answer = Result<Bytes, Error>;

struct Outgoing {
    chunks: Vec<Chunk>,
    correlation_id: i32,
    /// Whether the broker answers; it does not answer a Produce with acks=0.
    answered: bool,
    done: oneshot::Sender<Answer>,
}

/// A request that is in line or under way.
#[derive(Debug)]
pub(crate) struct Started {
    api: ApiKey,
    pub(crate) version: i16,
    answer: oneshot::Receiver<Answer>,
}

/// Requests that were written and not answered, oldest first; `Err` once the connection is broken.
type Pending = Mutex<Result<VecDeque<(i32, oneshot::Sender<Answer>)>, Error>>;

/// An open connection to one broker, closed when it is dropped.
///
/// Calls may be made from many tasks at once, or from one with several futures: their requests go out in the order in
/// which they were begun, without waiting for each other's answers. It is never mended: once it is broken, or an answer
/// did not come in time and all later ones would wait behind it, drop it and open another.
#[derive(Debug)]
pub struct Connection {
    address: String,
    client_id: ByteString,
    versions: HashMap<i16, (i16, i16)>,
    correlation_id: AtomicI32,
    outgoing: mpsc::Sender<Outgoing>,
    pending: Arc<Pending>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Connection {
    /// Connects to `host:port` and asks the broker what it speaks, all within `limit`. Of a name with several addresses
    /// each is tried.
    ///
    /// # Errors
    /// [`Error::Connect`], or what the broker answers is not understood.
    pub async fn open(address: &str, client_id: &str, limit: Duration) -> Result<Connection, Error> {
        let cannot = |reason: String| Error::Connect { address: address.to_owned(), reason };
        let opening = async {
            let stream = TcpStream::connect(address).await.map_err(|error| cannot(plain(&error)))?;
            stream.set_nodelay(true).map_err(|error| cannot(plain(&error)))?;
            let (read, write) = stream.into_split();
            let pending: Arc<Pending> = Arc::new(Mutex::new(Ok(VecDeque::new())));
            let (outgoing, queue) = mpsc::channel(QUEUE);
            let mut connection = Connection {
                address: address.to_owned(),
                client_id: client_id.into(),
                versions: HashMap::new(),
                correlation_id: AtomicI32::new(0),
                outgoing,
                pending: Arc::clone(&pending),
                reader: tokio::spawn(read_answers(read, Arc::clone(&pending), address.to_owned())),
                writer: tokio::spawn(write_requests(write, queue, pending, address.to_owned())),
            };
            connection.negotiate().await?;
            Ok(connection)
        };
        match timeout(limit, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(cannot(format!("no answer within {} ms", limit.as_millis()))),
        }
    }

    /// Where it goes, as it was given to [`Connection::open`].
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether nothing will be answered by it any more.
    pub fn is_broken(&self) -> bool {
        self.pending.lock().is_err() || self.reader.is_finished() || self.writer.is_finished()
    }

    /// Requests that were sent and not answered yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.pending.lock().as_ref().map_or(usize::MAX, VecDeque::len)
    }

    /// The newest version both sides speak, but none above `newest`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where there is none.
    pub fn version(&self, api: ApiKey, newest: i16) -> Result<i16, Error> {
        let ours = api.versions();
        let common = self.versions.get(&(api as i16)).and_then(|&(min, max)| {
            let version = max.min(*ours.end()).min(newest);
            (version >= min && version >= *ours.start()).then_some(version)
        });
        common.ok_or_else(|| Error::Unsupported { address: self.address.clone(), api })
    }

    /// Sends a request in the newest version that both sides speak and waits for the answer, all within `limit`. A
    /// caller who stops waiting leaves the connection as good as it was.
    ///
    /// # Errors
    /// No common version, no answer in time, the connection is broken, or the answer cannot be read. The codes inside
    /// the answer are the caller's to read.
    pub async fn call<R: Request>(&self, request: &R, limit: Duration) -> Result<R::Response, Error> {
        let version = self.version(R::API, i16::MAX)?;
        let calling = async { self.finish(self.start(request, version, true).await?, Duration::MAX).await };
        timeout(limit, calling).await.unwrap_or_else(|_| Err(self.late(R::API, limit)))
    }

    /// As [`Connection::call`], for a body that was encoded in `version` already: gives the body of the answer as it
    /// came.
    ///
    /// # Errors
    /// As [`Connection::call`]; the version is the caller's choice, see [`Connection::version`].
    pub async fn call_raw(&self, api: ApiKey, version: i16, body: Bytes, limit: Duration) -> Result<Bytes, Error> {
        let calling = async {
            let header = self.header(api, version);
            let mut head = vec![0; size_of::<i32>()];
            header.encode(&mut head)?;
            let length = head.len() - size_of::<i32>() + body.len();
            let length = i32::try_from(length).map_err(|_| EncodeError::TooLong(length))?;
            head[..size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
            let chunks = vec![Chunk::Bytes(head.into()), Chunk::Bytes(body)];
            let frame = self.wait(self.put_in_line(&header, chunks, true).await?, Duration::MAX).await?;
            let mut reader = Reader::new(frame.clone());
            ResponseHeader::decode(&mut reader, api, version)
                .map_err(|error| Error::malformed(&self.address, &error))?;
            Ok(frame.slice(frame.len() - reader.remaining()..))
        };
        timeout(limit, calling).await.unwrap_or_else(|_| Err(self.late(api, limit)))
    }

    /// Puts `request` in line to be written, behind all that were started before. With `answered` false the "answer" is
    /// empty and comes when the socket has taken the request.
    pub(crate) async fn start<R: Request>(&self, request: &R, version: i16, answered: bool) -> Result<Started, Error> {
        let header = self.header(R::API, version);
        let mut out = GatherOut::new();
        out.request(&header, request)?;
        self.put_in_line(&header, out.finish(), answered).await
    }

    fn header(&self, api_key: ApiKey, api_version: i16) -> RequestHeader {
        // Wraps around, which is as good: only the requests under way must differ.
        let correlation_id = self.correlation_id.fetch_add(1, Ordering::Relaxed);
        RequestHeader { api_key, api_version, correlation_id, client_id: Some(self.client_id.clone()) }
    }

    async fn put_in_line(&self, header: &RequestHeader, chunks: Vec<Chunk>, answered: bool) -> Result<Started, Error> {
        let (done, answer) = oneshot::channel();
        let outgoing = Outgoing { chunks, correlation_id: header.correlation_id, answered, done };
        self.outgoing.send(outgoing).await.map_err(|_| self.gone())?;
        Ok(Started { api: header.api_key, version: header.api_version, answer })
    }

    /// Waits for the frame that answers a request, at most for `limit`.
    pub(crate) async fn wait(&self, started: Started, limit: Duration) -> Result<Bytes, Error> {
        match timeout(limit, started.answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(self.gone())),
            Err(_) => Err(self.late(started.api, limit)),
        }
    }

    /// Waits for the answer to a request, at most for `limit`.
    pub(crate) async fn finish<M: Message>(&self, started: Started, limit: Duration) -> Result<M, Error> {
        let version = started.version;
        let frame = self.wait(started, limit).await?;
        self.decode(frame, version)
    }

    fn late(&self, api: ApiKey, after: Duration) -> Error {
        Error::Timeout { address: self.address.clone(), api, after }
    }

    fn gone(&self) -> Error {
        Error::Disconnected { address: self.address.clone(), reason: "it was closed".to_owned() }
    }

    fn decode<M: Message>(&self, frame: Bytes, version: i16) -> Result<M, Error> {
        let mut reader = Reader::new(frame);
        ResponseHeader::decode(&mut reader, M::API, version)
            .and_then(|_| M::decode(&mut reader, version))
            .map_err(|error| Error::malformed(&self.address, &error))
    }

    /// Asks in our newest version; a broker that does not know it says so in version 0, with the versions it has.
    async fn negotiate(&mut self) -> Result<(), Error> {
        const API: ApiKey = ApiKey::ApiVersions;
        let request = ApiVersionsRequest {
            client_software_name: ByteString::from_static("ottla"),
            client_software_version: ByteString::from_static(env!("CARGO_PKG_VERSION")),
        };
        let mut version = *API.versions().end();
        let answer: ApiVersionsResponse = loop {
            // The caller's limit covers the whole of opening.
            let frame = self.wait(self.start(&request, version, true).await?, Duration::MAX).await?;
            let unsupported = ErrorCode::UnsupportedVersion.code();
            // The code is the first field of every version, right behind the correlation id.
            let refused = frame.get(4..6) == Some(unsupported.to_be_bytes().as_slice());
            let answer: ApiVersionsResponse = self.decode(frame, if refused { 0 } else { version })?;
            if !refused {
                break answer;
            }
            let offered = answer.api_keys.iter().find(|row| row.api_key == API as i16).map_or(0, |row| row.max_version);
            // Downwards only, so that this ends whatever the peer says.
            version = match offered.min(version - 1) {
                lower if lower >= 0 => lower,
                _ => return Err(Error::Unsupported { address: self.address.clone(), api: API }),
            };
        };
        crate::error::check(|| format!("the versions of {}", self.address), answer.error_code, None)?;
        self.versions = answer.api_keys.iter().map(|row| (row.api_key, (row.min_version, row.max_version))).collect();
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

/// Ends every wait for an answer with `error`, and those that begin later too.
fn fail(pending: &Pending, error: &Error) {
    let waiting = std::mem::replace(&mut *pending.lock(), Err(error.clone()));
    for (_, done) in waiting.into_iter().flatten() {
        let _ = done.send(Err(error.clone()));
    }
}

async fn write_requests(
    mut socket: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Outgoing>,
    pending: Arc<Pending>,
    address: String,
) {
    let mut buffer = Vec::with_capacity(WRITE_AT_ONCE);
    let mut unanswered = Vec::new();
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        let mut written = Ok(());
        while let Some(outgoing) = next {
            if outgoing.answered {
                match pending.lock().as_mut() {
                    Ok(waiting) => waiting.push_back((outgoing.correlation_id, outgoing.done)),
                    Err(error) => drop(outgoing.done.send(Err(error.clone()))),
                }
            } else {
                unanswered.push(outgoing.done);
            }
            for chunk in outgoing.chunks {
                // Requests have no regions.
                let Chunk::Bytes(bytes) = chunk else { continue };
                if buffer.len() + bytes.len() > WRITE_AT_ONCE {
                    written = written.and(socket.write_all(&buffer).await);
                    buffer.clear();
                }
                if bytes.len() > WRITE_AT_ONCE {
                    written = written.and(socket.write_all(&bytes).await);
                } else {
                    buffer.extend_from_slice(&bytes);
                }
            }
            next = queue.try_recv().ok();
        }
        written = written.and(socket.write_all(&buffer).await);
        buffer.clear();
        if let Err(error) = written {
            fail(&pending, &Error::disconnected(&address, &error));
            return;
        }
        for done in unanswered.drain(..) {
            let _ = done.send(Ok(Bytes::new()));
        }
    }
}

async fn read_answers(mut socket: OwnedReadHalf, pending: Arc<Pending>, address: String) {
    let mut buffer = BytesMut::new();
    let splitter = Splitter::new(FRAME_MAX);
    let error = loop {
        match splitter.split(&mut buffer) {
            Ok(Some(frame)) => match deliver(frame, &pending, &address) {
                Ok(()) => continue,
                Err(error) => break error,
            },
            Ok(None) => {}
            Err(error) => break Error::Malformed { address, reason: error.to_string() },
        }
        buffer.reserve(READ_AT_ONCE);
        match socket.read_buf(&mut buffer).await {
            Ok(0) => break Error::Disconnected { address, reason: "the broker closed it".to_owned() },
            Ok(_) => {}
            Err(error) => break Error::disconnected(&address, &error),
        }
    };
    fail(&pending, &error);
}

/// Gives the answer to the oldest request, which is the one it must belong to.
fn deliver(frame: Bytes, pending: &Pending, address: &str) -> Result<(), Error> {
    let malformed = |reason: String| Error::Malformed { address: address.to_owned(), reason };
    let id = frame.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
    let id = id.ok_or_else(|| malformed("it is shorter than a header".to_owned()))?;
    let oldest = pending.lock().as_mut().ok().and_then(VecDeque::pop_front);
    match oldest {
        Some((expected, done)) if expected == id => {
            // A caller who no longer waits is no fault.
            let _ = done.send(Ok(frame));
            Ok(())
        }
        Some((expected, done)) => {
            let error = malformed(format!("it answers request {id}, expected was {expected}"));
            let _ = done.send(Err(error.clone()));
            Err(error)
        }
        None => Err(malformed(format!("it answers request {id}, and none is open"))),
    }
}

/// The system's words without the number behind them.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
        _ => text.split(" (os error").next().unwrap_or_default().to_lowercase(),
    }
}
