//! A broker in this process on a directory of its own, and a client that speaks the raw protocol to it over TCP, in any
//! version and as wrongly as a test wants.

#![allow(dead_code, unreachable_pub, reason = "each test file is a crate of its own and uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use ottla_broker::{Bound, Broker, ListenerConfig, LogTransport, Options};
use ottla_log::OsDisk;
use ottla_metadata::{Listener, config::Settings};
use ottla_node::{Node, NodeConfig};
use ottla_protocol::{
    Chunk, ErrorCode, GatherOut, Reader, Records, Request, RequestHeader, ResponseHeader,
    frame::Splitter,
    messages::{
        CreateTopicsRequest, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        create_topics_response::CreatableTopicResult,
        fetch_request::{FetchPartition, FetchTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::PartitionProduceResponse,
    },
};
use ottla_records::{BatchBuilder, BatchHeader, Compression, Decompress, Record};
use ottla_types::{Timestamp, TopicId};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long an answer may take before a test gives up: far more than any should need.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running broker.
pub struct TestBroker {
    pub address: SocketAddr,
    pub node: Arc<Node>,
    broker: Arc<Broker>,
    runtime: Option<Runtime>,
    served: Option<tokio::task::JoinHandle<()>>,
    settings: Vec<(String, String)>,
    clock: Arc<AtomicI64>,
    dir: Option<TempDir>,
}

impl TestBroker {
    /// A new broker with Kafka's defaults.
    pub fn start() -> TestBroker {
        TestBroker::start_with(&[])
    }

    /// A new broker with these static configs.
    pub fn start_with(settings: &[(&str, &str)]) -> TestBroker {
        let settings = settings.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let clock = Arc::new(AtomicI64::new(i64::try_from(now).unwrap()));
        TestBroker::open(tempfile::tempdir().unwrap(), settings, clock)
    }

    fn open(dir: TempDir, settings: Vec<(String, String)>, clock: Arc<AtomicI64>) -> TestBroker {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = ListenerConfig {
            name: "PLAINTEXT".to_owned(),
            addresses: vec!["127.0.0.1:0".parse().unwrap()],
            advertised: None,
        };
        let bound = runtime.block_on(async { Bound::bind(&[listener], None) }).unwrap();
        let address = bound.addresses()[0];
        let ticking = Arc::clone(&clock);
        let transport = LogTransport::default();
        let node = Node::open(NodeConfig {
            disk: Arc::new(OsDisk::new()),
            dir: dir.path().to_owned(),
            node_id: None,
            rack: Some("shelf".to_owned()),
            listeners: vec![Listener {
                name: "PLAINTEXT".to_owned(),
                host: address.ip().to_string(),
                port: address.port(),
                security_protocol: 0,
            }],
            settings: Settings::check(settings.clone()).unwrap().0,
            clock: Arc::new(move || Timestamp(ticking.load(Ordering::Relaxed))),
            entropy: Box::new(draw),
            transport: transport.transport(),
            joined: None,
        })
        .unwrap();
        let options = Options::of(&node.broker_config(), node.settings());
        let broker = runtime.block_on(async { Broker::new(Arc::clone(&node), options, &transport) });
        let serving = Arc::clone(&broker);
        let served = runtime.spawn(async move { serving.serve(bound).await });
        TestBroker {
            address,
            node,
            broker,
            runtime: Some(runtime),
            served: Some(served),
            settings,
            clock,
            dir: Some(dir),
        }
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// The broker's clock, which stands still unless a test moves it.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.clock.load(Ordering::Relaxed))
    }

    /// Runs `work` while the clock, which stands still else, jumps ahead all the time.
    pub fn with_running_clock(&self, work: impl FnOnce()) {
        let running = AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while running.load(Ordering::Relaxed) {
                    self.clock.fetch_add(1, Ordering::Relaxed);
                }
            });
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            running.store(false, Ordering::Relaxed);
            worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }

    /// Shuts down cleanly and starts again on the same directory.
    pub fn restart(mut self) -> TestBroker {
        self.stop();
        self.node.shut_down().unwrap();
        TestBroker::open(self.dir.take().unwrap(), std::mem::take(&mut self.settings), Arc::clone(&self.clock))
    }

    /// What the next start finds after a SIGKILL now: a copy of the directory as it is, opened by a new broker.
    pub fn killed(&self) -> TestBroker {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(self.dir.as_ref().unwrap().path(), copy.path());
        TestBroker::open(copy, self.settings.clone(), Arc::clone(&self.clock))
    }

    fn stop(&mut self) {
        self.broker.stop();
        if let (Some(runtime), Some(served)) = (self.runtime.take(), self.served.take()) {
            let stopped = runtime.block_on(async { tokio::time::timeout(PATIENCE, served).await });
            runtime.shutdown_background();
            stopped.expect("the broker stops").unwrap();
        }
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            self.broker.stop();
            runtime.shutdown_background();
            // The directory is about to go; what can't be synced any more is nobody's loss.
            let _ = self.node.shut_down();
        }
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Bits that differ at every draw of the process (SplitMix64).
fn draw() -> [u8; 16] {
    static STATE: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0; 16];
    for half in bytes.chunks_mut(8) {
        let mut z = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        half.copy_from_slice(&(z ^ (z >> 31)).to_be_bytes());
    }
    bytes
}

/// One connection to a broker.
pub struct Client {
    stream: TcpStream,
    input: BytesMut,
    correlation: i32,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, input: BytesMut::new(), correlation: 0 }
    }

    /// The address of this end.
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Sends a request and returns its answer.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let correlation = self.send(version, request);
        self.receive::<R>(version, correlation)
    }

    /// Sends a request; its correlation id is what [`Client::receive`] needs.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.send_as("test", version, request)
    }

    /// Sends a request under another client id.
    pub fn send_as<R: Request>(&mut self, client_id: &'static str, version: i16, request: &R) -> i32 {
        self.correlation += 1;
        let header = RequestHeader {
            api_key: R::API,
            api_version: version,
            correlation_id: self.correlation,
            client_id: Some(client_id.into()),
        };
        let mut out = GatherOut::new();
        out.request(&header, request).unwrap_or_else(|error| panic!("{:?} version {version}: {error}", R::API));
        for chunk in out.finish() {
            let Chunk::Bytes(bytes) = chunk else { unreachable!("no regions in a request") };
            self.send_bytes(&bytes);
        }
        self.correlation
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends `frame` behind its length.
    pub fn send_frame(&mut self, frame: &[u8]) {
        self.send_bytes(&i32::try_from(frame.len()).unwrap().to_be_bytes());
        self.send_bytes(frame);
    }

    /// The next answer, which must be to the request of that correlation id.
    pub fn receive<R: Request>(&mut self, version: i16, correlation: i32) -> R::Response {
        let frame = self.receive_frame().unwrap_or_else(|| panic!("{:?} version {version}: closed", R::API));
        let mut reader = Reader::new(frame);
        let header = ResponseHeader::decode(&mut reader, R::API, version).unwrap();
        assert_eq!(header.correlation_id, correlation, "answers come in the order of requests");
        <R::Response as ottla_protocol::Message>::decode(&mut reader, version)
            .unwrap_or_else(|error| panic!("answer to {:?} version {version}: {error}", R::API))
    }

    /// The next frame, without its length, or `None` if the broker closed the connection.
    pub fn receive_frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = Splitter::new(usize::MAX).split(&mut self.input).unwrap() {
                return Some(frame);
            }
            let mut chunk = [0; 64 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    assert!(self.input.is_empty(), "closed in the middle of an answer");
                    return None;
                }
                Ok(read) => self.input.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// Creates a topic.
    pub fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopicResult {
        let configs =
            configs.iter().map(|&(name, value)| CreatableTopicConfig { name: name.into(), value: Some(value.into()) });
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: name.into(),
                num_partitions: partitions,
                replication_factor: -1,
                configs: configs.collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let mut response = self.call(7, &request);
        let created = response.topics.pop().unwrap();
        assert_eq!(code(created.error_code), ErrorCode::None, "{:?}", created.error_message);
        created
    }

    /// Produces to one partition with acks=all and returns its part of the answer.
    pub fn produce(&mut self, topic: &str, partition: i32, records: Bytes) -> PartitionProduceResponse {
        self.produce_in(9, topic, partition, records)
    }

    /// The same in another version, which must name topics (3 to 12).
    pub fn produce_in(
        &mut self,
        version: i16,
        topic: &str,
        partition: i32,
        records: Bytes,
    ) -> PartitionProduceResponse {
        let response = self.call(version, &produce_request(-1, topic, partition, records));
        only_partition(response)
    }

    /// Produces one batch of these values and returns the offset of the first.
    pub fn write(&mut self, topic: &str, partition: i32, values: &[&str]) -> i64 {
        let answer = self.produce(topic, partition, batch(values));
        assert_eq!(code(answer.error_code), ErrorCode::None, "{:?}", answer.error_message);
        answer.base_offset
    }

    /// Every value of a partition from `offset` on, as far as it is visible now.
    pub fn read(&mut self, topic: &str, partition: i32, offset: i64) -> Vec<String> {
        let records = self.read_records(topic, partition, offset);
        records.iter().map(|record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap()).collect()
    }

    /// The first `count` values of a partition, waiting for those that are not visible yet.
    pub fn await_values(&mut self, topic: &str, partition: i32, count: usize) -> Vec<String> {
        let mut values = Vec::new();
        while values.len() < count {
            let mut request = fetch_request(topic, partition, i64::try_from(values.len()).unwrap());
            request.max_wait_ms = i32::try_from(PATIENCE.as_millis()).unwrap();
            request.min_bytes = 1;
            let answer = only_fetched(self.call(12, &request));
            assert_eq!(code(answer.error_code), ErrorCode::None);
            let records = fetched_records(&answer);
            assert!(!records.is_empty(), "{topic} {partition}: {} of {count} values", values.len());
            values.extend(
                records.iter().map(|record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap()),
            );
        }
        values
    }

    /// Every record of a partition from `offset` on, as far as it is visible now.
    pub fn read_records(&mut self, topic: &str, partition: i32, mut offset: i64) -> Vec<Record> {
        let mut all = Vec::new();
        loop {
            let response = self.call(12, &fetch_request(topic, partition, offset));
            let answer = only_fetched(response);
            assert_eq!(code(answer.error_code), ErrorCode::None);
            let records = fetched_records(&answer);
            let Some(last) = records.last() else { return all };
            let next = last.offset.0 + 1;
            all.extend(records.into_iter().filter(|record| record.offset.0 >= offset));
            offset = next;
        }
    }
}

/// The code of an answer by its name.
pub fn code(wire: i16) -> ErrorCode {
    ErrorCode::from_code(wire).unwrap_or_else(|| panic!("{wire} is no error code"))
}

/// An uncompressed batch of values, without keys, at timestamp 1000.
pub fn batch(values: &[&str]) -> Bytes {
    batch_at(Compression::None, &values.iter().map(|&value| (1000, value)).collect::<Vec<_>>())
}

/// A batch of values at their timestamps.
pub fn batch_at(compression: Compression, records: &[(i64, &str)]) -> Bytes {
    let mut builder = BatchBuilder::new(compression, None);
    for &(timestamp, value) in records {
        builder.push(Timestamp(timestamp), None, Some(value.as_bytes()), &[]).unwrap();
    }
    builder.build().unwrap()
}

pub fn produce_request(acks: i16, topic: &str, partition: i32, records: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![PartitionProduceData { index: partition, records: Some(records) }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A fetch of one partition by name (version 4 to 12) that is answered at once, without a session.
pub fn fetch_request(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: 50 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: vec![fetch_partition(partition, offset)],
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub fn fetch_partition(partition: i32, offset: i64) -> FetchPartition {
    FetchPartition { partition, fetch_offset: offset, partition_max_bytes: 1 << 20, ..Default::default() }
}

pub fn only_partition(mut response: ProduceResponse) -> PartitionProduceResponse {
    assert_eq!(response.responses.len(), 1);
    let mut topic = response.responses.pop().unwrap();
    assert_eq!(topic.partition_responses.len(), 1);
    topic.partition_responses.pop().unwrap()
}

pub fn only_fetched(mut response: FetchResponse) -> ottla_protocol::messages::fetch_response::PartitionData {
    assert_eq!(code(response.error_code), ErrorCode::None);
    assert_eq!(response.responses.len(), 1);
    let mut topic = response.responses.pop().unwrap();
    assert_eq!(topic.partitions.len(), 1);
    topic.partitions.pop().unwrap()
}

/// The bytes of a fetched partition.
pub fn fetched_bytes(answer: &ottla_protocol::messages::fetch_response::PartitionData) -> Bytes {
    match &answer.records {
        Some(Records::Bytes(bytes)) => bytes.clone(),
        other => panic!("records are never null: {other:?}"),
    }
}

/// The headers of the whole batches in an answer; a cut-off one at the end is left out, as clients do.
pub fn fetched_batches(answer: &ottla_protocol::messages::fetch_response::PartitionData) -> Vec<(BatchHeader, Bytes)> {
    let mut bytes = fetched_bytes(answer);
    let mut batches = Vec::new();
    while let Ok(header) = BatchHeader::parse(&bytes) {
        if header.size() > bytes.len() {
            break;
        }
        let batch = bytes.split_to(header.size());
        assert!(ottla_records::crc_matches(&batch), "the CRC of batch {}", header.base_offset);
        batches.push((header, batch));
    }
    batches
}

/// The records of the whole batches in an answer.
pub fn fetched_records(answer: &ottla_protocol::messages::fetch_response::PartitionData) -> Vec<Record> {
    let limits = Decompress { max_bytes: 64 << 20 };
    fetched_batches(answer)
        .iter()
        .flat_map(|(header, batch)| ottla_records::records(header, batch, limits).unwrap().map(Result::unwrap))
        .collect()
}

/// The entries of an answer by name.
pub fn by_name<T>(entries: Vec<T>, name: impl Fn(&T) -> &str) -> HashMap<String, T> {
    entries.into_iter().map(|entry| (name(&entry).to_owned(), entry)).collect()
}

/// The id of a topic.
pub fn topic_id(client: &mut Client, name: &str) -> TopicId {
    use ottla_protocol::messages::{MetadataRequest, metadata_request::MetadataRequestTopic};
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { name: Some(name.into()), ..Default::default() }]),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    let response = client.call(12, &request);
    assert_eq!(code(response.topics[0].error_code), ErrorCode::None);
    response.topics[0].topic_id
}

/// The header of a request that no encoder would write: version 1, without a client id.
pub fn raw_header(key: i16, version: i16, correlation: i32) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(key.to_be_bytes());
    header.extend(version.to_be_bytes());
    header.extend(correlation.to_be_bytes());
    header.extend((-1i16).to_be_bytes());
    header
}
