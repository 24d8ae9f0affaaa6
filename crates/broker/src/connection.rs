//! One client connection: reads everything the socket has, serves every complete request in it, writes all answers at
//! once.
//!
//! Requests run to completion here, on the task that received them. Order is kept as Kafka's clients rely on it:
//! answers leave in request order, and requests take effect in the order they came. A request that must wait (a long
//! poll, `acks=all`) is parked; behind a parked Produce only further Produce requests may take effect, behind anything
//! else nothing. Before a connection is closed for a bad frame, the answers owed are sent.
//!
//! A panic in a handler is logged with the kind of request and ends this connection alone.
//!
//! Next: `api/mod.rs` for the table of requests, `outbox.rs` for the way out.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{self, Poll, Wake, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use ottla_node::Wakes;
use ottla_protocol::{
    ApiKey, EncodeError, Reader, RequestHeader,
    frame::{FrameError, Splitter},
};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    sync::Notify,
    time::{Instant, Sleep},
};

use crate::{
    api::{
        self, Context, Later, Served, fetch::ParkedFetch, leaders::Way, produce::ParkedProduce, produce::ProduceRun,
    },
    budget::Charge,
    outbox::Outbox,
    server::{Broker, Listener},
};

/// Answers a connection may owe before we stop reading its requests. Idempotent producers keep five in flight.
const PARKED_MAX: usize = 64;
/// The read buffer of a connection that has just sent its first byte; charged to nobody.
const INPUT_BYTES_MIN: usize = 1 << 10;
/// With less room than this a read would often find half of a small frame.
const INPUT_BYTES_LOW: usize = 256;
/// The most that is allocated on a client's word alone, once it has kept it.
const PROVEN_BYTES_MAX: usize = 2 << 20;
/// The most that is read beyond the frame that is arriving, from a client that always has more to send.
const AHEAD_BYTES_MAX: usize = 256 << 10;
/// A read buffer larger than this is given back once it is at most half full.
const INPUT_BYTES_KEPT: usize = 512 << 10;
/// An empty read buffer is given back after this long: a connection at rest holds nothing.
const INPUT_KEPT_FOR: Duration = Duration::from_secs(1);
/// How often a connection looks around although it waits for an answer that will wake it.
const LATER_LOOK: Duration = Duration::from_secs(60);
/// How long a frame may take to arrive while its buffer is past the memory budget.
const OVERDRAWN_FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves one client until it leaves, misbehaves or the broker stops.
pub(crate) struct Connection {
    broker: Arc<Broker>,
    listener: Arc<Listener>,
    stream: TcpStream,
    local: SocketAddr,
    peer: SocketAddr,
    client: api::Client,
    input: BytesMut,
    charge: Charge,
    /// Bytes of the largest frame that has arrived whole: up to there the client's next announcement is believed.
    proven: usize,
    /// Bytes to have room for whatever the client announces: the last reads would have found as many.
    ahead: usize,
    /// A complete request that may not take effect yet.
    next: Option<Bytes>,
    parked: VecDeque<Parked>,
    outbox: Outbox,
    signal: Arc<Signal>,
    waker: Waker,
    /// When this turn began: one look at the clock for all that is served in it.
    now: Instant,
    closing: Option<Close>,
}

/// An answer owed, in its place in the order.
enum Parked {
    Produce(ParkedProduce),
    Fetch(Box<ParkedFetch>),
    Later(ApiKey, Later),
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Close {
    #[error("the client closed it")]
    ByClient,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a request that can't be read: {0}")]
    BadRequest(String),
    #[error("the answer to {0:?} can't be written: {1}")]
    Unanswerable(ApiKey, EncodeError),
    #[error("no controller could be found for {0:?}")]
    NoController(ApiKey),
    #[error("a Produce request with acks=0 failed")]
    SilentFailure,
    #[error("a bug in the handler of {0:?}")]
    Panic(ApiKey),
    #[error("idle")]
    Idle,
    #[error("a request stopped arriving while memory was short")]
    Dawdling,
    #[error("the broker stops")]
    Stopping,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Wakes the connection's task from the flusher or another connection.
#[derive(Default)]
struct Signal {
    notify: Notify,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.notify.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify.notify_one();
    }
}

impl Connection {
    pub(crate) fn new(
        broker: Arc<Broker>,
        listener: Arc<Listener>,
        stream: TcpStream,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Connection {
        let signal = Arc::new(Signal::default());
        let waker = Waker::from(Arc::clone(&signal));
        let charge = broker.memory.charge();
        Connection {
            broker,
            listener,
            stream,
            local,
            peer,
            client: api::Client::default(),
            input: BytesMut::new(),
            charge,
            proven: 0,
            ahead: 0,
            next: None,
            parked: VecDeque::new(),
            outbox: Outbox::default(),
            signal,
            waker,
            now: Instant::now(),
            closing: None,
        }
    }

    /// Serves the connection to its end.
    pub(crate) async fn run(&mut self) {
        let why = self.serve().await;
        self.parked.iter().for_each(|parked| parked.forget(&self.waker));
        if let Some(broker) = self.client.reports_for {
            self.broker.node.suspect(broker);
        }
        match why {
            Close::ByClient | Close::Idle | Close::Stopping => {
                tracing::debug!(peer = %self.peer, reason = %why, "connection closed");
            }
            Close::Io(error) => tracing::debug!(peer = %self.peer, %error, "connection lost"),
            why => tracing::warn!(peer = %self.peer, client = %self.client, reason = %why, "connection closed"),
        }
    }

    async fn serve(&mut self) -> Close {
        let mut stopping = self.broker.stopping.subscribe();
        // Both for good: to arm another timer for each request would wake a thread for each, and to wait anew for the
        // end costs two locks.
        let mut stop = pin!(async move { stopping.wait_for(|stopping| *stopping).await.map(drop) });
        let mut timer = pin!(tokio::time::sleep_until(self.deadline()));
        loop {
            // Not left to the future: a client that always has another request would never let it come to its turn.
            let is_stopping = self.broker.is_stopping.load(Ordering::Acquire);
            self.take_requests();
            if is_stopping {
                self.parked.iter_mut().for_each(Parked::hurry);
            }
            self.answer_parked();
            if !self.outbox.is_empty() {
                match self.flush().await {
                    Ok(()) => continue,
                    Err(why) => return why,
                }
            }
            if self.parked.is_empty() {
                if let Some(why) = self.closing.take() {
                    return why;
                }
                if is_stopping {
                    return Close::Stopping;
                }
            }
            let deadline = self.deadline();
            let wants_input = self.closing.is_none() && self.next.is_none() && self.parked.len() < PARKED_MAX;
            tokio::select! {
                biased;
                () = self.signal.notify.notified(), if !self.parked.is_empty() => {}
                filled = fill(
                    &mut self.stream, &mut self.input, &mut self.charge, self.proven, &mut self.ahead,
                ), if wants_input => {
                    if let Err(why) = filled {
                        if matches!(why, Close::ByClient | Close::Io(_)) {
                            return why;
                        }
                        self.closing = Some(why);
                    }
                }
                _ = stop.as_mut(), if !is_stopping => {}
                () = passed(timer.as_mut(), deadline) => {
                    if self.overdraft_end().is_some_and(|end| end <= Instant::now()) {
                        return Close::Dawdling;
                    }
                    if self.parked.is_empty() && !self.rest() {
                        return Close::Idle;
                    }
                }
            }
            self.now = Instant::now();
        }
    }

    /// Sends everything, which the socket mostly takes at once.
    async fn flush(&mut self) -> Result<(), Close> {
        if !self.outbox.try_flush(&self.stream)? {
            // In a box, as that is rare.
            let flush = Box::pin(self.outbox.flush(&self.stream, &self.broker.cold_reads));
            tokio::time::timeout(self.broker.options.idle_timeout, flush).await.map_err(|_| Close::Idle)??;
            self.now = Instant::now();
        }
        Ok(())
    }

    /// When to look again although nothing happened.
    fn deadline(&self) -> Instant {
        // Only the first that is parked may be answered; a deadline behind it would be looked at again and again.
        let due = self.parked.front().map_or_else(
            || self.now + if self.rests() { INPUT_KEPT_FOR } else { self.broker.options.idle_timeout },
            |front| front.deadline(self.now),
        );
        self.overdraft_end().map_or(due, |end| end.min(due))
    }

    /// When the frame that is arriving must be there, if memory is short.
    fn overdraft_end(&self) -> Option<Instant> {
        Some(self.charge.overdrawn_since()? + OVERDRAWN_FRAME_TIMEOUT)
    }

    /// Whether there is a read buffer with nothing in it.
    fn rests(&self) -> bool {
        self.input.is_empty() && self.input.capacity() > 0
    }

    /// Gives back a read buffer with nothing in it; whether there was one.
    fn rest(&mut self) -> bool {
        let rests = self.rests();
        if rests {
            self.input = BytesMut::new();
            self.charge.try_set(0);
        }
        rests
    }

    /// Serves every complete request that may take effect now.
    fn take_requests(&mut self) {
        let mut run = ProduceRun::default();
        while self.closing.is_none() && self.parked.len() + run.len() < PARKED_MAX && !self.outbox.is_full() {
            let Some(request) = self.next_frame() else { break };
            let produce = api::peek_key(&request) == Some(ApiKey::Produce as i16);
            if !produce {
                // What came before takes effect first; if it must wait for its answer, so must this.
                self.append(&mut run);
                self.answer_parked();
            }
            if self.parked.iter().any(|parked| !produce || !matches!(parked, Parked::Produce(_))) {
                self.next = Some(request);
                break;
            }
            if let Err(why) = self.serve_request(request, &mut run) {
                self.closing = Some(why);
            }
        }
        self.append(&mut run);
        self.shrink_input();
    }

    fn next_frame(&mut self) -> Option<Bytes> {
        if let Some(request) = self.next.take() {
            return Some(request);
        }
        match Splitter::new(self.broker.options.request_bytes_max).split(&mut self.input) {
            Ok(request) => {
                let bytes = request.as_ref().map_or(0, Bytes::len);
                self.proven = self.proven.max(bytes.min(PROVEN_BYTES_MAX));
                request
            }
            Err(error) => {
                self.closing = Some(error.into());
                None
            }
        }
    }

    fn serve_request(&mut self, request: Bytes, run: &mut ProduceRun) -> Result<(), Close> {
        let mut reader = Reader::new(request.clone());
        let header = RequestHeader::decode(&mut reader).map_err(|error| Close::BadRequest(error.to_string()))?;
        let key = header.api_key;
        let context = Context {
            broker: &self.broker,
            listener: &self.listener,
            local: self.local,
            peer: self.peer,
            header: &header,
            frame: &request,
            is_forwarded: false,
            now: self.now,
            principal: &self.client.principal.clone(),
        };
        // The handler may be left half-way by a panic: nothing of this connection is used again but its answers owed.
        let served = catch_unwind(AssertUnwindSafe(|| api::serve(&context, &mut self.client, reader)));
        match served {
            Ok(Ok(Served::Answer(answer))) => self.outbox.push_response(answer, Vec::new()),
            Ok(Ok(Served::Produce(pending))) => run.push(pending),
            Ok(Ok(Served::Fetch(parked))) => self.parked.push_back(Parked::Fetch(parked)),
            Ok(Ok(Served::Later(later))) => self.parked.push_back(Parked::Later(key, later)),
            Ok(Err(why)) => return Err(why),
            Err(_) => return Err(Close::Panic(key)),
        }
        Ok(())
    }

    /// Appends the batches of a run of Produce requests, each partition once, and parks or sends their answers.
    fn append(&mut self, run: &mut ProduceRun) {
        if run.len() == 0 {
            return;
        }
        let run = std::mem::take(run);
        let mut wakes = Wakes::default();
        let appended = catch_unwind(AssertUnwindSafe(|| run.append(&mut wakes)));
        wakes.wake();
        match appended {
            Ok(parked) => self.parked.extend(parked.into_iter().map(Parked::Produce)),
            Err(_) => self.closing = Some(Close::Panic(ApiKey::Produce)),
        }
    }

    /// Moves answers that are due from the front of the parked list to the outbox, and waits for the first that is not.
    fn answer_parked(&mut self) {
        let now = self.now;
        let way = Way { broker: &self.broker, listener: &self.listener, local: self.local };
        while let Some(front) = self.parked.front_mut() {
            let polled = catch_unwind(AssertUnwindSafe(|| match front {
                Parked::Produce(produce) => produce.poll(&way, now, &self.waker, &mut self.outbox),
                Parked::Fetch(fetch) => fetch.poll(&self.broker, now, &self.waker, &mut self.outbox),
                Parked::Later(_, later) => poll_later(later, &self.waker, &mut self.outbox),
            }));
            match polled {
                Ok(Ok(true)) => {
                    self.parked.pop_front();
                }
                Ok(Ok(false)) => return,
                Ok(Err(why)) => {
                    self.parked.pop_front();
                    self.closing.get_or_insert(why);
                }
                Err(_) => {
                    let key = front.key();
                    self.parked.pop_front();
                    self.closing.get_or_insert(Close::Panic(key));
                }
            }
        }
    }

    /// Gives back the memory of a read buffer that is large and has little in it.
    fn shrink_input(&mut self) {
        let held = self.charge.bytes();
        // What arrives is worth its room from the client that has proven it: else it would be taken again at once.
        let wanted = self.input.len() + missing(&self.input).min(self.proven);
        if (held > INPUT_BYTES_KEPT || self.charge.overdrawn_since().is_some()) && wanted <= held / 2 {
            // A copy: the rest of a buffer keeps all of it.
            self.input = BytesMut::from(&self.input[..]);
            self.charge.try_set(self.input.len().saturating_sub(INPUT_BYTES_MIN));
        }
    }
}

impl Parked {
    fn key(&self) -> ApiKey {
        match self {
            Parked::Produce(_) => ApiKey::Produce,
            Parked::Fetch(_) => ApiKey::Fetch,
            Parked::Later(key, _) => *key,
        }
    }

    fn deadline(&self, now: Instant) -> Instant {
        match self {
            Parked::Produce(produce) => produce.deadline(),
            Parked::Fetch(fetch) => fetch.deadline(),
            // It is woken when there is something to say, which may be after many minutes.
            Parked::Later(..) => now + LATER_LOOK,
        }
    }

    /// A long poll is answered with what there is; a Produce is still owed its sync.
    fn hurry(&mut self) {
        if let Parked::Fetch(fetch) = self {
            fetch.hurry();
        }
    }

    fn forget(&self, waker: &Waker) {
        match self {
            Parked::Produce(produce) => produce.forget(waker),
            Parked::Fetch(fetch) => fetch.forget(waker),
            // Takes itself back when it is dropped.
            Parked::Later(..) => {}
        }
    }
}

/// Ends at the deadline. A timer that is armed for a moment before it stays as it is until then.
async fn passed(mut timer: Pin<&mut Sleep>, deadline: Instant) {
    if deadline < timer.deadline() {
        timer.as_mut().reset(deadline);
    }
    loop {
        timer.as_mut().await;
        if Instant::now() >= deadline {
            return;
        }
        timer.as_mut().reset(deadline);
    }
}

/// Answers if the future is ready, and says whether it was.
fn poll_later(later: &mut Later, waker: &Waker, outbox: &mut Outbox) -> Result<bool, Close> {
    match later.as_mut().poll(&mut task::Context::from_waker(waker)) {
        Poll::Ready(answer) => {
            outbox.push_response(answer?, Vec::new());
            Ok(true)
        }
        Poll::Pending => Ok(false),
    }
}

/// Reads what the socket has, growing the buffer with what arrives: to the end of the frame that is arriving, or
/// beyond it while there is more than there was room for.
async fn fill(
    stream: &mut TcpStream,
    input: &mut BytesMut,
    charge: &mut Charge,
    proven: usize,
    ahead: &mut usize,
) -> Result<(), Close> {
    // A connection at rest has no buffer.
    poll_fn(|context| stream.poll_read_ready(context)).await?;
    // Doubling follows what has arrived, and costs a copy each time; what is missing is only the client's word.
    let (len, missing) = (input.len(), missing(input));
    let needed = len.max(proven).min(missing).max(INPUT_BYTES_MIN);
    if input.capacity() - len < missing.clamp(INPUT_BYTES_LOW, needed) {
        // Never less than before: frames that were taken from the front may still hold their part of the buffer.
        let held = charge.bytes();
        let kept = |more: usize| (len + more).saturating_sub(INPUT_BYTES_MIN).max(held);
        // Of large frames nothing is read before its turn: what is half there has to be copied.
        let more = match *ahead {
            0 => needed,
            _ if proven >= AHEAD_BYTES_MAX => needed,
            ahead => needed.max(ahead).max(proven + INPUT_BYTES_MIN),
        };
        // While its bytes move, the old buffer and the new one are both there.
        let more = if more > needed && charge.try_set_spare(kept(more) + len) { more } else { needed };
        if more == needed && !charge.try_set(kept(needed) + len) {
            // In a box, as all that is rare: a connection at rest pays for the largest of its futures.
            Box::pin(charge.set(kept(needed) + len)).await;
        }
        input.reserve(more);
        charge.try_set(kept(more));
    }
    let room = input.capacity() - input.len();
    // Unlike `try_read`, this remembers that a read that came back short has emptied the socket.
    match stream.read_buf(input).await? {
        0 => Err(Close::ByClient),
        read => {
            *ahead = match read == room {
                true => (2 * room).min(AHEAD_BYTES_MAX),
                false if read < INPUT_BYTES_MIN => 0,
                false => (*ahead).min(2 * read),
            };
            Ok(())
        }
    }
}

/// How many bytes the frame at the front still lacks by its own account.
fn missing(input: &BytesMut) -> usize {
    const PREFIX: usize = size_of::<i32>();
    let Some(prefix) = input.first_chunk::<PREFIX>() else { return PREFIX };
    let length = usize::try_from(i32::from_be_bytes(*prefix)).unwrap_or(0);
    (PREFIX + length).saturating_sub(input.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand of them are idle while one is busy, and each is as large as the largest thing it may ever await.
    #[test]
    fn a_connection_at_rest_is_small() {
        fn size<F: Future>(_: impl FnOnce(&'static mut Connection) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size_of::<Connection>() + size(|connection| connection.run());
        assert!(bytes <= 1536, "{bytes} bytes");
    }
}
