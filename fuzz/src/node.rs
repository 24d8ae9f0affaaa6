//! A whole data directory: a node starts on it or refuses, in words; what it then serves has been checked.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use ottla_log::SimDisk;
use ottla_metadata::{Command, NewTopic, config::Settings};
use ottla_node::{Node, NodeConfig, OpenNodeError, ReadRequest, Wakes};
use ottla_records::{
    BatchBuilder, Compression, Decompress, ProducePolicy, TimestampType, TopicCompression, crc_matches, split,
    validate_produced,
};
use ottla_types::{LeaderEpoch, Timestamp};

use crate::edit::{self, Files};

const DIR: &str = "data";
const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn open(disk: &SimDisk) -> Result<Arc<Node>, OpenNodeError> {
    let mut drawn = 0_u128;
    Node::open(NodeConfig {
        disk: Arc::new(disk.clone()),
        dir: PathBuf::from(DIR),
        node_id: None,
        rack: None,
        listeners: Vec::new(),
        settings: Settings::default(),
        clock: Arc::new(|| NOW),
        entropy: Box::new(move || {
            drawn += 1;
            drawn.to_be_bytes()
        }),
        transport: Box::new(|_, _, reply| reply(None)),
        joined: None,
    })
}

/// The directory of a node with two topics, after a clean end.
fn template() -> &'static Files {
    static TEMPLATE: OnceLock<Files> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let disk = SimDisk::new(1);
        let node = open(&disk).unwrap();
        let topic = |name: &str| NewTopic {
            name: name.to_owned(),
            partitions: 2,
            replication_factor: -1,
            ..NewTopic::default()
        };
        let topics = vec![topic("a"), topic("b")];
        node.submit(Command::CreateTopics { topics, validate_only: false }).unwrap();
        for partition in node.topics().partitions() {
            for _ in 0..5 {
                let mut wakes = Wakes::default();
                let produced = validate_produced(&batch(), &policy()).unwrap();
                partition.append(&[produced], true, NOW, &mut Vec::new(), &mut wakes).unwrap();
                wakes.wake();
            }
        }
        node.shut_down().unwrap();
        edit::read(&disk, Path::new(DIR))
    })
}

fn batch() -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(NOW, Some(b"key"), Some(&[b'v'; 100]), &[]).unwrap();
    builder.build().unwrap()
}

fn policy() -> ProducePolicy {
    ProducePolicy {
        max_message_bytes: 1 << 20,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: i64::MAX,
        now: NOW,
        require_keys: false,
        compression: TopicCompression::Producer,
        zstd_allowed: true,
        decompress: Decompress { max_bytes: 1 << 20 },
    }
}

/// The first byte says what else is gone: an even one the checkpoint, so that every log is read and checked.
pub(crate) fn node(data: &[u8]) -> bool {
    let Some((&mode, edits)) = data.split_first() else { return false };
    let mut files = template().clone();
    edit::apply(edits, &mut files, |_| true);
    let checked = mode & 1 == 0;
    if checked {
        files.remove(&Path::new(DIR).join("checkpoint"));
        files.remove(&Path::new(DIR).join("clean-shutdown"));
    }
    let disk = edit::disk(&files);
    let node = match open(&disk) {
        Ok(node) => node,
        Err(refusal) => {
            assert!(!refusal.to_string().is_empty());
            return false;
        }
    };
    let mut batches = 0;
    for partition in node.topics().partitions() {
        let mut from = partition.log_start();
        loop {
            let request = ReadRequest {
                from,
                current_epoch: LeaderEpoch(-1),
                last_fetched_epoch: LeaderEpoch(-1),
                max_bytes: 1 << 20,
                at_least_one: true,
            };
            let Ok(fetched) = partition.read(&request) else { break };
            let Some(region) = fetched.records else { break };
            let Ok(bytes) = region.read() else { break };
            let before = from;
            for part in split(&bytes) {
                let Ok((header, batch)) = part else { break };
                assert!(!checked || crc_matches(&batch), "a batch at {} has a wrong checksum", header.base_offset);
                from = header.next_offset();
                batches += 1;
            }
            if from <= before {
                break;
            }
        }
    }
    let _ = node.shut_down();
    batches > 0
}

/// The records of the metadata log of the template.
pub(crate) fn metadata_records() -> Vec<Vec<u8>> {
    let node = open(&edit::disk(template())).unwrap();
    let records = node.image().to_records().iter().map(|record| record.encode().to_vec()).collect();
    node.shut_down().unwrap();
    records
}
