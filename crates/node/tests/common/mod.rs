//! A node on a simulated disk, driven through its public surface.

// Shared by several test programs, none of which uses all of it.
#![allow(unreachable_pub, dead_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    path::PathBuf,
    sync::Arc,
    task::{Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use ottla_log::{Disk, SimDisk};
use ottla_metadata::{Command, NewTopic, Reply, config::Settings};
use ottla_node::{Node, NodeConfig, OpenNodeError, Partition, ReadRequest, Unavailable, Wakes};
use ottla_records::{BatchBuilder, BatchHeader, Compression, Decompress, ProducedBatch};
use ottla_replica::Outcome;
use ottla_types::{LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Timestamp};

/// How long anything here may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(30);
pub const NOW: Timestamp = Timestamp(1_700_000_000_000);

pub fn open(disk: &SimDisk) -> Arc<Node> {
    open_with(disk, &[])
}

pub fn open_with(disk: &SimDisk, configs: &[(&str, &str)]) -> Arc<Node> {
    open_on(Arc::new(disk.clone()), disk.stats().syncs, configs)
}

/// Opens on any disk; `drawn` has to be another number at each start.
pub fn open_on(disk: Arc<dyn Disk>, drawn: u64, configs: &[(&str, &str)]) -> Arc<Node> {
    try_open_on(disk, drawn, configs).unwrap()
}

/// The same, which may be refused.
pub fn try_open_on(disk: Arc<dyn Disk>, drawn: u64, configs: &[(&str, &str)]) -> Result<Arc<Node>, OpenNodeError> {
    Node::open(config(disk, drawn, configs))
}

/// How a node is opened that nobody answers.
pub fn config(disk: Arc<dyn Disk>, mut drawn: u64, configs: &[(&str, &str)]) -> NodeConfig {
    let configs = configs.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    NodeConfig {
        disk,
        dir: PathBuf::from("/data"),
        node_id: None,
        rack: None,
        listeners: Vec::new(),
        settings: Settings::check(configs).unwrap().0,
        clock: Arc::new(|| NOW),
        entropy: Box::new(move || {
            drawn += 1;
            (u128::from(drawn) << 64 | 0x4242).to_be_bytes()
        }),
        transport: Box::new(|_, _, reply| reply(None)),
        joined: None,
    }
}

pub fn create(node: &Node, name: &str, partitions: i32, configs: &[(&str, &str)]) {
    let configs = configs.iter().map(|(key, value)| (key.to_string(), Some(value.to_string()))).collect();
    let topic = NewTopic { name: name.into(), partitions, replication_factor: -1, configs, ..NewTopic::default() };
    let Reply::TopicsCreated(rows) =
        node.submit(Command::CreateTopics { topics: vec![topic], validate_only: false }).unwrap()
    else {
        panic!("another reply");
    };
    rows[0].1.as_ref().unwrap();
}

pub fn partition(node: &Node, name: &str, index: i32) -> Arc<Partition> {
    Arc::clone(node.topics().named(name).unwrap().partition(PartitionIndex(index)).unwrap())
}

/// A batch of one record.
pub fn batch(value: &str) -> ProducedBatch {
    batch_at(NOW, value)
}

/// A batch of one record with this timestamp.
pub fn batch_at(timestamp: Timestamp, value: &str) -> ProducedBatch {
    produced(BatchBuilder::new(Compression::None, None), timestamp, value)
}

/// A batch of one record of an idempotent producer.
pub fn sequenced(producer: i64, sequence: i32, value: &str) -> ProducedBatch {
    let builder = BatchBuilder::new(Compression::None, None);
    produced(builder.producer(ProducerId(producer), ProducerEpoch(0), sequence), NOW, value)
}

fn produced(mut builder: BatchBuilder, timestamp: Timestamp, value: &str) -> ProducedBatch {
    builder.push(timestamp, None, Some(value.as_bytes()), &[]).unwrap();
    let bytes = builder.build().unwrap();
    ProducedBatch { header: BatchHeader::parse(&bytes).unwrap(), bytes }
}

/// Appends without waiting.
pub fn append(partition: &Arc<Partition>, batch: &ProducedBatch) -> Result<Outcome, Unavailable> {
    let (mut outcomes, mut wakes) = (Vec::new(), Wakes::default());
    partition.append(std::slice::from_ref(batch), true, NOW, &mut outcomes, &mut wakes)?;
    wakes.wake();
    Ok(outcomes.pop().unwrap())
}

/// Appends what nobody waits for.
pub fn append_unawaited(partition: &Arc<Partition>, batch: &ProducedBatch) -> Result<Outcome, Unavailable> {
    let (mut outcomes, mut wakes) = (Vec::new(), Wakes::default());
    partition.append(std::slice::from_ref(batch), false, NOW, &mut outcomes, &mut wakes)?;
    wakes.wake();
    Ok(outcomes.pop().unwrap())
}

/// Appends and waits until it is acknowledged; the offset.
pub fn produce(partition: &Arc<Partition>, value: &str) -> Offset {
    let Ok(Outcome::Appended { base_offset, required }) = append(partition, &batch(value)) else {
        panic!("not appended");
    };
    assert!(wait_acknowledged(partition, required), "{value} was not acknowledged");
    base_offset
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits as a connection does: whether the high watermark came to `required` before the partition went away.
pub fn wait_acknowledged(partition: &Partition, required: Offset) -> bool {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let deadline = Instant::now() + DEADLINE;
    while partition.wait_for(required, &waker) {
        let left = deadline.checked_duration_since(Instant::now()).expect("neither acknowledged nor refused in time");
        thread::park_timeout(left);
    }
    partition.high_watermark() >= required
}

/// Waits until `done`, looking again and again: for what only housekeeping does.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::yield_now();
    }
}

/// Every readable record: offset and value.
pub fn read_all(partition: &Partition) -> Vec<(Offset, String)> {
    let mut found = Vec::new();
    let mut from = partition.extent().unwrap().log_start;
    loop {
        let request = ReadRequest {
            from,
            current_epoch: LeaderEpoch::NONE,
            last_fetched_epoch: LeaderEpoch::NONE,
            max_bytes: 1 << 20,
            at_least_one: true,
        };
        let Some(region) = partition.read(&request).unwrap().records else { return found };
        let bytes = region.read().unwrap();
        for part in ottla_records::split(&bytes) {
            // The last batch may be cut.
            let Ok((header, bytes)) = part else { break };
            for record in ottla_records::records(&header, &bytes, Decompress { max_bytes: 1 << 20 }).unwrap() {
                let record = record.unwrap();
                found.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
            }
            from = header.next_offset();
        }
    }
}
