//! Compaction of what a topic may hold that was not always compacted: records without keys, batches that grow, batches
//! whose records can't be read, markers. Whatever is there, the last value of each key stays, and nothing is made up.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use ottla_log::{CleanError, CleanSettings, Disk, Log, LogConfig, SimDisk, StoredBatch};
use ottla_records::{BatchBuilder, BatchHeader, Compression, Decompress, HEADER_SIZE, crc_matches, records};
use ottla_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::mutate::{Choices, Random};

const DIR: &str = "data/partition";
const NOW: Timestamp = Timestamp(1_700_000_000_000);
const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
const BATCHES_MAX: usize = 60;
/// The largest value; what becomes of it fits into little in most codecs.
const VALUE_MAX: usize = 1 << 20;
/// What a pass may take: its map and buffers, and a few batches as they grow.
const MEMORY_MAX: u64 = 24 << 20;

/// Each key with the offset and the value it had last; a tombstone has none.
type Latest = BTreeMap<Bytes, (Offset, Option<Bytes>)>;

pub(crate) fn compaction(data: &[u8]) -> bool {
    let mut input = Choices(data);
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new(DIR)).unwrap();
    Path::new(DIR).ancestors().for_each(|dir| disk.sync_dir(dir).unwrap_or_default());
    let mut log = open(&disk);
    for number in 0..BATCHES_MAX {
        if input.0.is_empty() {
            break;
        }
        let epoch = LeaderEpoch(number as i32 / 20);
        log.assign_epoch(epoch).unwrap();
        let Some(batch) = batch(&mut input, epoch) else { continue };
        if log.append(&[batch], NOW).is_err() {
            return false;
        }
        if input.rarely(4) {
            log.roll(NOW).unwrap();
        }
    }
    log.roll(NOW).unwrap();
    sync(&mut log);
    let (before, end) = (read(&log), log.end().offset);
    let mut done = 0;
    for pass in 0..3 {
        let now = Timestamp(NOW.0 + pass * 2_000);
        let mut cleaned = Ok(());
        let used = allocation_counter::measure(|| cleaned = clean(&mut log, now, input.below(3) as u64));
        assert!(used.bytes_max <= MEMORY_MAX, "{} bytes for a pass", used.bytes_max);
        match cleaned {
            Ok(()) => done += 1,
            Err(CleanError::Damaged(_)) => {}
            Err(error) => panic!("{error}"),
        }
        check(&before, &read(&log), now > NOW);
        assert_eq!(log.end().offset, end);
    }
    let again = open(&disk.crash());
    assert!(read(&again) == read(&log) && again.end().offset == end, "a start finds something else");
    done == 3
}

/// Anything may be chosen by any bytes.
pub(crate) fn choices() -> Vec<Vec<u8>> {
    let mut random = Random::new(13);
    (0..32).map(|number| (0..100 + number * 20).map(|_| random.number() as u8).collect()).collect()
}

fn open(disk: &SimDisk) -> Log {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let config = LogConfig { segment_bytes: 4 << 20, file_delete_delay_ms: 0, ..LogConfig::default() };
    Log::open(disk, PathBuf::from(DIR), config, None, NOW).unwrap().0
}

fn sync(log: &mut Log) {
    if let Some(plan) = log.begin_sync() {
        let result = plan.run();
        log.complete_sync(plan, result).unwrap();
    }
}

/// One pass; `room` chooses how many keys its map has room for.
fn clean(log: &mut Log, now: Timestamp, room: u64) -> Result<(), CleanError> {
    let below = log.checkpoint().recovery_point.segment;
    let settings = CleanSettings { now, min_lag_ms: 0, delete_retention_ms: 1_000, map_bytes: 200 << (room * 6) };
    let plan = log.plan_clean(below).unwrap();
    let log = Mutex::new(log);
    let locked = |work: &mut dyn FnMut(&mut Log)| {
        work(&mut log.lock().unwrap());
        true
    };
    plan.run(&settings, &mut |_| true, &locked).map(drop)
}

/// A batch as a topic may hold it.
fn batch(input: &mut Choices<'_>, epoch: LeaderEpoch) -> Option<StoredBatch> {
    let mut builder = BatchBuilder::new(input.of(&CODECS), None);
    match input.below(8) {
        0 => builder = builder.producer(ProducerId(input.below(3) as i64), ProducerEpoch(0), 0).transactional(),
        1 => builder = builder.control(),
        _ => {}
    }
    for _ in 0..=input.below(4) {
        let key = [input.byte() % 12];
        let key = (!input.rarely(8)).then_some(&key[..]);
        let value = match input.below(12) {
            0 | 1 => None,
            2 => Some(vec![0; VALUE_MAX / 8]),
            3 if input.rarely(4) => Some(vec![0; VALUE_MAX]),
            _ => Some(input.bytes().to_vec()),
        };
        let at = input.of(&[NOW.0, 0, -1, i64::MAX, NOW.0 + 5, i64::MIN + 1]);
        builder.push(Timestamp(at), key, value.as_deref(), &[]).ok()?;
    }
    let mut bytes = builder.build().ok()?.to_vec();
    if input.rarely(6) && bytes.len() > HEADER_SIZE {
        // Bytes that nobody looked at when they came, with a checksum over them.
        let at = HEADER_SIZE + usize::from(input.byte()) % (bytes.len() - HEADER_SIZE);
        bytes[at] = input.byte();
    }
    if input.rarely(10) {
        bytes[57..61].copy_from_slice(&(input.of(&[0, -1, i32::MAX, 2])).to_be_bytes());
    }
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[21..]) as u32;
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let bytes = Bytes::from(bytes);
    Some(StoredBatch { header: BatchHeader::parse(&bytes).ok()?, bytes, epoch })
}

/// What is in the log: the latest of each key as far as it can be read, and the batches that are not to be touched.
fn read(log: &Log) -> (Latest, Vec<Bytes>) {
    let reader = log.reader();
    let (mut latest, mut untouchable) = (Latest::new(), Vec::new());
    for batch in reader.batches(reader.start_offset(), reader.end()) {
        let (header, bytes) = batch.unwrap();
        assert!(crc_matches(&bytes), "the batch at {} has a wrong checksum", header.base_offset);
        if header.is_control() || header.is_transactional() {
            untouchable.push(bytes.slice(HEADER_SIZE..));
            continue;
        }
        let Ok(read) = records(&header, &bytes, Decompress { max_bytes: 64 << 20 }) else {
            untouchable.push(bytes.slice(HEADER_SIZE..));
            continue;
        };
        let Ok(read) = read.collect::<Result<Vec<_>, _>>() else {
            untouchable.push(bytes.slice(HEADER_SIZE..));
            continue;
        };
        for record in read {
            if let Some(key) = record.key {
                latest.insert(key, (record.offset, record.value));
            }
        }
    }
    (latest, untouchable)
}

fn check(before: &(Latest, Vec<Bytes>), after: &(Latest, Vec<Bytes>), tombstones_may_be_gone: bool) {
    assert!(before.1 == after.1, "batches that nobody may touch");
    for (key, last) in &before.0 {
        let is_tombstone = last.1.is_none();
        let now = after.0.get(key);
        assert!(
            now == Some(last) || is_tombstone && tombstones_may_be_gone && now.is_none(),
            "key {key:?} of offset {}",
            last.0
        );
    }
    assert!(after.0.keys().all(|key| before.0.contains_key(key)));
}
