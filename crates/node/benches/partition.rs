//! What a partition adds to its log: one append through the public surface, and waking those who wait for it.
//!
//! `cargo bench -p ottla-node`; data goes to the directory for temporary files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot go on fails")]

use std::{
    slice,
    sync::Arc,
    task::{Wake, Waker},
};

use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};
use ottla_log::OsDisk;
use ottla_metadata::{Command, NewTopic, config::Settings};
use ottla_node::{Node, NodeConfig, Partition, Wakes};
use ottla_records::{BatchBuilder, BatchHeader, Compression, ProducedBatch};
use ottla_types::{Offset, PartitionIndex, Timestamp};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn main() {
    divan::main();
}

#[divan::bench(args = [100, 16 << 10], max_time = 0.5)]
fn append(bencher: Bencher, value_bytes: usize) {
    let (_dir, _node, partition) = partition();
    let batch = batch(value_bytes);
    bencher.counter(BytesCount::new(batch.bytes.len())).bench_local(|| append_once(&partition, &batch).wake());
}

/// An append for which so many wait, each registered anew.
#[divan::bench(args = [0, 1, 16], max_time = 0.5)]
fn append_wakes(bencher: Bencher, waiting: usize) {
    let (_dir, _node, partition) = partition();
    let batch = batch(100);
    let wakers: Vec<Waker> = (0..waiting).map(|_| Waker::from(Arc::new(Nobody))).collect();
    bencher.counter(ItemsCount::new(waiting)).bench_local(|| {
        let next = Offset(partition.high_watermark().0 + 1);
        for waker in &wakers {
            assert!(partition.wait_for(next, waker), "it is there already");
        }
        append_once(&partition, &batch).wake();
    });
}

/// Wakes nothing: what the runtime does then is not the partition's cost.
struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

fn append_once(partition: &Arc<Partition>, batch: &ProducedBatch) -> Wakes {
    let (mut outcomes, mut wakes) = (Vec::new(), Wakes::default());
    partition.append(slice::from_ref(batch), false, NOW, &mut outcomes, &mut wakes).unwrap();
    wakes
}

/// A partition that acknowledges what the page cache has.
fn partition() -> (TempDir, Arc<Node>, Arc<Partition>) {
    let dir = tempfile::tempdir().unwrap();
    let mut drawn = 0;
    let node = Node::open(NodeConfig {
        disk: Arc::new(OsDisk::new()),
        dir: dir.path().join("node"),
        node_id: None,
        rack: None,
        listeners: Vec::new(),
        settings: Settings::check([("ottla.durability".to_owned(), "replicated".to_owned())]).unwrap().0,
        clock: Arc::new(|| NOW),
        entropy: Box::new(move || {
            drawn += 1;
            u128::to_be_bytes(drawn << 64 | 0x4242)
        }),
        transport: Box::new(|_, _, reply| reply(None)),
        joined: None,
    })
    .unwrap();
    let topic = NewTopic { name: "bench".into(), partitions: 1, replication_factor: -1, ..NewTopic::default() };
    node.submit(Command::CreateTopics { topics: vec![topic], validate_only: false }).unwrap();
    let topics = node.topics();
    let partition = Arc::clone(topics.named("bench").unwrap().partition(PartitionIndex(0)).unwrap());
    (dir, node, partition)
}

/// A batch of one record.
fn batch(value_bytes: usize) -> ProducedBatch {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(NOW, None, Some(&vec![b'x'; value_bytes]), &[]).unwrap();
    let bytes = builder.build().unwrap();
    ProducedBatch { header: BatchHeader::parse(&bytes).unwrap(), bytes }
}
