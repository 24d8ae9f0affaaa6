//! A broker to attack, somebody else who uses it meanwhile, and a client that speaks in bytes.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use ottla_protocol::{
    ApiKey, Chunk, GatherOut, Message, Reader, Request, RequestHeader,
    messages::{CreateTopicsRequest, ProduceRequest, ProduceResponse},
    messages::{create_topics_request::CreatableTopic, produce_request},
};
use ottla_records::{BatchBuilder, Compression};
use ottla_types::Timestamp;
use tempfile::TempDir;

/// What an attack may cost, above what the broker had before it.
const RSS_MAX: u64 = 64 << 20;
/// Longer than any answer takes on a machine that is busy; nothing waits for it if all is well.
const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);
/// The topic that is there.
pub(crate) const TOPIC: &str = "topic";

/// Runs an attack against a broker of its own, and holds the broker to what it promises to everybody else.
pub(crate) fn attack(attack: impl FnOnce(&Victim)) {
    attack_with(&[], attack);
}

/// As [`attack`], with more arguments for the broker.
pub(crate) fn attack_with(arguments: &[&str], attack: impl FnOnce(&Victim)) {
    let victim = Victim::start(arguments);
    let witness = Witness::start(victim.address);
    witness.wait_for_another();
    let before = victim.status("VmRSS:");
    // Makes the high-water mark what is resident now (proc(5)).
    fs::write(format!("/proc/{}/clear_refs", victim.child.id()), "5").unwrap();
    attack(&victim);
    witness.wait_for_another();
    let used = victim.status("VmHWM:").saturating_sub(before);
    witness.finish();
    let log = victim.finish();
    assert!(!log.contains("panic") && !log.contains("a bug in"), "the broker said: {log}");
    println!("the attack cost {} KiB", used >> 10);
    assert!(used < RSS_MAX, "the attack cost {} MiB", used >> 20);
}

/// A running broker with one topic of one partition.
pub(crate) struct Victim {
    child: Child,
    dir: TempDir,
    pub(crate) address: SocketAddr,
}

impl Victim {
    fn start(arguments: &[&str]) -> Victim {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ottla"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(dir.path().join("data"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap_or_default();
        let address = address.parse().unwrap_or_else(|_| panic!("the broker said {line:?}"));
        let victim = Victim { child, dir, address };
        let topic =
            CreatableTopic { name: TOPIC.into(), num_partitions: 1, replication_factor: 1, ..Default::default() };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let answer = victim.connect().call(&request, 7).expect("a broker that answers");
        assert_eq!(answer.topics[0].error_code, 0);
        victim
    }

    /// A connection that has said nothing yet.
    pub(crate) fn connect(&self) -> Peer {
        Peer::connect(self.address)
    }

    /// A size in bytes from what the kernel knows of the process.
    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a process that runs");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// The broker still runs; what it had to say.
    fn finish(mut self) -> String {
        assert_eq!(self.child.try_wait().unwrap(), None, "the broker is gone");
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Somebody who goes on producing while others misbehave. Each answer has to come, and to be right.
struct Witness {
    served: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Witness {
    fn start(address: SocketAddr) -> Witness {
        let served = Arc::new(AtomicU64::new(0));
        let done = Arc::new(AtomicBool::new(false));
        let (count, stop) = (Arc::clone(&served), Arc::clone(&done));
        let thread = thread::spawn(move || {
            let mut peer = Peer::connect(address);
            while !stop.load(Ordering::Acquire) {
                let answer = peer.call(&produce(good_batch()), 9).expect("the witness is served");
                assert_eq!(only_error(&answer), 0);
                count.fetch_add(1, Ordering::Release);
            }
        });
        Witness { served, done, thread }
    }

    /// Returns once a request that began after this call has been served.
    fn wait_for_another(&self) {
        let goal = self.served.load(Ordering::Acquire) + 2;
        while self.served.load(Ordering::Acquire) < goal {
            assert!(!self.thread.is_finished(), "the witness was let down");
            thread::yield_now();
        }
    }

    fn finish(self) {
        self.done.store(true, Ordering::Release);
        self.thread.join().expect("the witness is content");
    }
}

pub(crate) fn good_batch() -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(NOW, None, Some(b"value"), &[]).unwrap();
    builder.build().unwrap()
}

/// A request to append these bytes to [`TOPIC`].
pub(crate) fn produce(records: Bytes) -> ProduceRequest {
    let partition = produce_request::PartitionProduceData { index: 0, records: Some(records) };
    let topic =
        produce_request::TopicProduceData { name: TOPIC.into(), partition_data: vec![partition], ..Default::default() };
    ProduceRequest { acks: 1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() }
}

/// The error code of the only partition.
pub(crate) fn only_error(answer: &ProduceResponse) -> i16 {
    answer.responses[0].partition_responses[0].error_code
}

/// A request as it is on the wire, length included.
pub(crate) fn frame<R: Request>(request: &R, version: i16) -> Vec<u8> {
    let client_id = Some("hostile".into());
    let header = RequestHeader { api_key: R::API, api_version: version, correlation_id: 1, client_id };
    let mut out = GatherOut::new();
    out.request(&header, request).unwrap();
    let chunk = |chunk| match chunk {
        Chunk::Bytes(bytes) => bytes,
        Chunk::Region(_) => Bytes::new(),
    };
    out.finish().into_iter().map(chunk).collect::<Vec<_>>().concat()
}

/// A length in front of bytes.
pub(crate) fn framed(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A header of a request whose body is `body`, in a frame. Flexible versions get an empty section of tags.
pub(crate) fn request(api: i16, version: i16, flexible: bool, body: &[u8]) -> Vec<u8> {
    let mut bytes = [&api.to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 1, 0, 1, b'h']].concat();
    if flexible {
        bytes.push(0);
    }
    framed(&[&bytes, body].concat())
}

/// A client that sends what it likes.
pub(crate) struct Peer(TcpStream);

impl Peer {
    pub(crate) fn connect(address: SocketAddr) -> Peer {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Peer(stream)
    }

    /// The socket, for those who do without answers.
    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.0
    }

    /// Sends bytes; an error says that the broker closed the connection.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Waits for an answer, or for the end of the connection. Neither, for a minute, is a failure.
    pub(crate) fn answer(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        self.read(&mut length)?;
        let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        self.read(&mut answer)?;
        Some(answer.into())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.0.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("neither answer nor end"),
            Err(_) => None,
        }
    }

    /// Sends a request and reads its answer; none if the broker closed the connection instead.
    pub(crate) fn call<R: Request>(&mut self, request: &R, version: i16) -> Option<R::Response> {
        self.send(&frame(request, version));
        let mut reader = Reader::new(self.answer()?);
        reader.i32().unwrap();
        if R::API != ApiKey::ApiVersions && R::API.is_flexible(version) {
            reader.skip_tagged_fields().unwrap();
        }
        Some(R::Response::decode(&mut reader, version).unwrap())
    }

    /// Sends bytes and demands that the connection ends without an answer.
    pub(crate) fn hangs_up_on(mut self, bytes: &[u8]) -> bool {
        self.send(bytes);
        self.answer().is_none()
    }
}
