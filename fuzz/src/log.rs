//! The files of a log: whatever lies there, opening it neither panics nor believes what does not check.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use ottla_log::{Checkpoint, Disk, Log, LogConfig, SimDisk, StoredBatch};
use ottla_records::{BatchBuilder, BatchHeader, Compression, crc_matches};
use ottla_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::edit::{self, Files};

const DIR: &str = "data/partition";
const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// A log of several segments after a clean close, and what was stored about it.
struct Template {
    files: Files,
    checkpoint: Checkpoint,
    end: Offset,
}

/// Small segments and dense indexes, so that everything happens within a few kilobytes.
fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 2 << 10,
        index_interval_bytes: 128,
        checkpoint_bytes: 2 << 10,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    }
}

fn stored(number: i32) -> StoredBatch {
    let codec = [Compression::None, Compression::None, Compression::Lz4][number as usize % 3];
    let mut builder = BatchBuilder::new(codec, None);
    if number % 2 == 0 {
        builder = builder.producer(ProducerId(i64::from(number % 6)), ProducerEpoch(0), number / 6);
    }
    for record in 0..=number % 3 {
        let at = Timestamp(NOW.0 + i64::from(number * 10 + record));
        builder.push(at, Some(b"key"), Some(&[b'v'; 60]), &[]).unwrap();
    }
    let bytes = builder.build().unwrap();
    let header = BatchHeader::parse(&bytes).unwrap();
    StoredBatch { header, bytes, epoch: LeaderEpoch(number / 20) }
}

fn sync(log: &mut Log) {
    if let Some(plan) = log.begin_sync() {
        let result = plan.run();
        log.complete_sync(plan, result).unwrap();
    }
}

fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let disk = SimDisk::new(1);
        let (mut log, _) = open(&disk, None).unwrap();
        for number in 0..80 {
            let batch = stored(number);
            log.assign_epoch(batch.epoch).unwrap();
            log.append(&[batch], NOW).unwrap();
            if number % 7 == 0 {
                sync(&mut log);
            }
        }
        log.close_clean().unwrap();
        assert!(log.segments().len() > 3, "{:?}", log.segments());
        let files = edit::read(&disk, Path::new(DIR));
        Template { files, checkpoint: log.checkpoint(), end: log.end().offset }
    })
}

fn open(disk: &SimDisk, checkpoint: Option<Checkpoint>) -> Option<(Log, ottla_log::Recovered)> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Log::open(disk, PathBuf::from(DIR), config(), checkpoint, NOW).ok()
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

/// Every batch is whole and follows the one before; every offset is found where it is.
fn check_served(log: &Log) {
    let reader = log.reader();
    let end = reader.end();
    let mut next = None;
    for batch in reader.batches(reader.start_offset(), end) {
        let (header, bytes) = batch.expect("what was recovered can be read");
        assert!(crc_matches(&bytes), "a batch at {} with a wrong checksum is served", header.base_offset);
        assert!(next.is_none_or(|next| next == header.base_offset), "a gap before {}", header.base_offset);
        next = Some(header.next_offset());
        let asked = header.last_offset().max(reader.start_offset());
        let found = reader.read(asked, end, 1, true).expect("what was recovered can be found");
        assert_eq!(found.read().unwrap(), bytes, "offset {asked}");
    }
    assert!(next.is_none_or(|next| next == end.offset));
    look_around(log);
}

/// Reads that may fail, and must not panic.
fn look_around(log: &Log) {
    let reader = log.reader();
    let end = reader.end();
    for at in [0, 100, 400, 799, 2_000] {
        let _ = reader.find_by_timestamp(Timestamp(NOW.0 + at), end);
    }
    let _ = reader.max_timestamp(end);
    log.producers().describe();
    let entries = log.epochs();
    let rising =
        entries.entries().windows(2).all(|pair| pair[0].epoch < pair[1].epoch && pair[0].start < pair[1].start);
    assert!(rising, "{entries:?}");
    for epoch in -1..6 {
        let _ = log.epoch_end(LeaderEpoch(epoch));
    }
}

/// Any files, and nothing known about them: all that is served has been checked, and the log goes on from there.
pub(crate) fn recovery(data: &[u8]) -> bool {
    let mut files = template().files.clone();
    edit::apply(data, &mut files, |_| true);
    let disk = edit::disk(&files);
    let Some((mut log, recovered)) = open(&disk, None) else { return false };
    check_served(&log);
    if recovered.damaged.is_some() {
        return false;
    }
    let batch = StoredBatch { epoch: log.epochs().latest().unwrap_or(LeaderEpoch(0)), ..stored(1) };
    let Ok(appended) = log.append(&[batch], NOW) else { return false };
    sync(&mut log);
    let (again, _) = open(&disk.crash(), None).expect("a log that was opened and synced opens again");
    assert_eq!(again.end().offset, log.end().offset);
    assert!(again.end().offset > appended.first);
    check_served(&again);
    true
}

/// A proof that all was closed cleanly, and files beside the segments that lie: the segments are what is served. With
/// an odd first byte the segments may lie as well; then there is only no panic.
pub(crate) fn clean(data: &[u8]) -> bool {
    let Some((&mode, edits)) = data.split_first() else { return false };
    let template = template();
    let mut files = template.files.clone();
    edit::apply(edits, &mut files, |path| mode & 1 == 1 || !is_log(path));
    let Some((log, recovered)) = open(&edit::disk(&files), Some(template.checkpoint.clone())) else { return false };
    if mode & 1 == 1 || recovered.damaged.is_some() {
        let reader = log.reader();
        for offset in 0..template.end.0 {
            let _ = reader.read(Offset(offset), reader.end(), 1, true).map(|plan| plan.read());
        }
        reader.batches(reader.start_offset(), reader.end()).for_each(drop);
        look_around(&log);
        return false;
    }
    assert_eq!(log.end().offset, template.end);
    check_served(&log);
    true
}

/// Files with a checksum that is right, so that what lies behind it is reached.
fn framed(magic: &[u8; 4], name: &str, data: &[u8]) -> bool {
    let template = template();
    let mut files = template.files.clone();
    let path = files.keys().rev().find(|path| path.to_str().unwrap().ends_with(name)).cloned().unwrap();
    files.insert(path, ottla_log::checked_file::encode(*magic, 1, data));
    let mut opened = 0;
    for checkpoint in [None, Some(template.checkpoint.clone())] {
        let Some((log, _)) = open(&edit::disk(&files), checkpoint) else { continue };
        check_served(&log);
        opened += 1;
    }
    opened == 2
}

/// The bodies of the template's files of that kind.
fn bodies(magic: &[u8; 4], name: &str) -> Vec<Vec<u8>> {
    let files = template().files.iter().filter(|(path, _)| path.to_str().unwrap().ends_with(name));
    let bodies: Vec<Vec<u8>> =
        files.map(|(_, bytes)| ottla_log::checked_file::decode(*magic, 1, bytes).unwrap().to_vec()).collect();
    assert!(!bodies.is_empty());
    bodies
}

pub(crate) fn producer_snapshot(data: &[u8]) -> bool {
    framed(b"OTPS", ".producers", data)
}

pub(crate) fn producer_snapshots() -> Vec<Vec<u8>> {
    bodies(b"OTPS", ".producers")
}

pub(crate) fn epochs(data: &[u8]) -> bool {
    framed(b"OTEH", "epochs", data)
}

pub(crate) fn epoch_files() -> Vec<Vec<u8>> {
    bodies(b"OTEH", "epochs")
}
