//! Compaction against a simple model: the last record of each key stays, byte for byte and at its offset; tombstones go
//! in time; producers, epochs and recovery agree with what is left; and a crash at any system call leaves either the
//! old segments or the new ones (rule L9, bug class B22).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
};

use bytes::Bytes;
use common::*;
use ottla_log::{
    Checkpoint, CleanError, CleanSettings, Cleaned, Disk, Log, LogConfig, LogReader, ScrubCursor, SimDisk, StoredBatch,
};
use ottla_records::{BatchBuilder, BatchHeader, Compression, Decompress, Record, crc_matches, records};
use ottla_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};
use parking_lot::Mutex;
use proptest::prelude::*;

const RETENTION_MS: i64 = 1000;
const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// Segments of a few batches.
fn tiny() -> LogConfig {
    LogConfig { segment_bytes: 2 << 10, checkpoint_bytes: 1 << 10, ..small() }
}

fn settings(now: i64) -> CleanSettings {
    CleanSettings { now: Timestamp(now), min_lag_ms: 0, delete_retention_ms: RETENTION_MS, map_bytes: 1 << 20 }
}

/// Cleans all that is closed and below the recovery point.
fn clean(log: &mut Log, settings: &CleanSettings) -> Result<Cleaned, CleanError> {
    let below = log.checkpoint().recovery_point.segment;
    clean_below(log, below, settings)
}

fn clean_below(log: &mut Log, below: Offset, settings: &CleanSettings) -> Result<Cleaned, CleanError> {
    let plan = log.plan_clean(below).unwrap();
    let log = Mutex::new(log);
    plan.run(settings, &mut |_| true, &|work| {
        work(&mut log.lock());
        true
    })
}

/// Closes the active segment and makes everything durable, so that all there is may be cleaned.
fn close_segment(log: &mut Log) {
    log.roll(NOW).unwrap();
    sync(log);
}

fn keyed(codec: Compression, pairs: &[(&str, Option<&str>)]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(codec, None);
    let headers: [(&[u8], Option<&[u8]>); 3] = [(b"h", Some(b"1")), (b"h", None), (b"h", Some(b"2"))];
    for (number, (key, value)) in pairs.iter().enumerate() {
        let timestamp = Timestamp(NOW.0 + number as i64);
        builder.push(timestamp, Some(key.as_bytes()), value.map(str::as_bytes), &headers).unwrap();
    }
    builder
}

fn put(log: &mut Log, pairs: &[(&str, Option<&str>)]) {
    append(log, stored(keyed(Compression::None, pairs)));
}

fn read_all(reader: &LogReader) -> Vec<Record> {
    let mut found: Vec<Record> = Vec::new();
    for batch in reader.batches(reader.start_offset(), reader.end()) {
        let (header, bytes) = batch.unwrap();
        assert!(crc_matches(&bytes), "batch at {} has a wrong checksum", header.base_offset);
        let limits = Decompress { max_bytes: 1 << 20 };
        found.extend(records(&header, &bytes, limits).unwrap().map(Result::unwrap));
    }
    assert!(found.is_sorted_by_key(|record| record.offset));
    found.retain(|record| record.offset >= reader.start_offset());
    found
}

fn pairs(log: &Log) -> Vec<(i64, String, Option<String>)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let pair = |record: Record| (record.offset.0, text(&record.key.unwrap()), record.value.as_ref().map(text));
    read_all(&log.reader()).into_iter().map(pair).collect()
}

#[test]
fn the_last_record_of_each_key_stays_where_it_was_with_all_its_bytes() {
    for codec in CODECS {
        let sim = SimDisk::new(1);
        let (mut log, _) = open(&sim, tiny(), None);
        append(&mut log, stored(keyed(codec, &[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))])));
        append(&mut log, stored(keyed(codec, &[("a", Some("2"))])));
        append(&mut log, stored(keyed(codec, &[("c", Some("2")), ("c", Some("3"))])));
        close_segment(&mut log);
        append(&mut log, stored(keyed(codec, &[("b", Some("active"))])));
        let before = read_all(&log.reader());
        let done = clean(&mut log, &settings(NOW.0)).unwrap();
        assert_eq!(done.clean_to, Offset(6));
        let kept = read_all(&log.reader());
        let expected: Vec<_> = before.into_iter().filter(|record| [1, 3, 5, 6].contains(&record.offset.0)).collect();
        assert_eq!(kept, expected, "{codec}");
        assert_eq!(kept[0].headers.len(), 3, "headers of one key are all there");
        let (header, _) = log.reader().batches(Offset(0), log.reader().end()).next().unwrap().unwrap();
        assert_eq!((header.base_offset, header.last_offset_delta), (Offset(0), 2), "the batch spans what it spanned");
        assert_eq!(header.compression().unwrap(), codec);
    }
}

#[test]
fn tombstones_stay_for_their_retention_counted_from_the_first_pass_that_saw_them() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, tiny(), None);
    put(&mut log, &[("a", Some("1")), ("b", Some("1"))]);
    put(&mut log, &[("a", None)]);
    close_segment(&mut log);
    let tombstone = (2, "a".to_owned(), None);
    let first_pass = NOW.0 + 500_000;
    clean(&mut log, &settings(first_pass)).unwrap();
    assert_eq!(pairs(&log), [(1, "b".to_owned(), Some("1".to_owned())), tombstone.clone()]);
    let timestamps: Vec<_> = read_all(&log.reader()).iter().map(|record| record.timestamp.0 - NOW.0).collect();
    assert_eq!(timestamps, [1, 0], "the delete horizon takes the base timestamp's place, not the records' times");
    let due = log.reader().dirtiness(log.end().offset, NOW, 0).unwrap().tombstones_due;
    assert_eq!(due, Some(Timestamp(first_pass + RETENTION_MS)));
    clean(&mut log, &settings(first_pass + RETENTION_MS - 1)).unwrap();
    assert!(pairs(&log).contains(&tombstone));
    clean(&mut log, &settings(first_pass + RETENTION_MS)).unwrap();
    assert_eq!(pairs(&log), [(1, "b".to_owned(), Some("1".to_owned()))]);
    assert_eq!(log.reader().dirtiness(log.end().offset, NOW, 0).unwrap().tombstones_due, None);
    let last = log.reader().batches(Offset(0), log.reader().end()).last().unwrap().unwrap().0;
    assert_eq!((last.next_offset(), last.record_count), (Offset(3), 0), "a reader comes to the end");
}

#[test]
fn only_closed_segments_below_the_bound_and_old_enough_are_touched() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, tiny(), None);
    for _ in 0..3 {
        put(&mut log, &[("a", Some("1")), ("a", Some("2"))]);
        close_segment(&mut log);
    }
    put(&mut log, &[("a", Some("3")), ("a", Some("4"))]);
    let offsets = |log: &Log| pairs(log).into_iter().map(|(offset, ..)| offset).collect::<Vec<_>>();
    let young = CleanSettings { min_lag_ms: 1000, ..settings(NOW.0 + 500) };
    assert_eq!(clean(&mut log, &young).unwrap().clean_to, Offset(0));
    let dirtiness = log.reader().dirtiness(Offset(6), young.now, 1000).unwrap();
    assert_eq!((dirtiness.dirty_bytes, dirtiness.ripe_at), (0, Some(Timestamp(NOW.0 + 1001))));
    assert_eq!(clean_below(&mut log, Offset(4), &settings(NOW.0)).unwrap().clean_to, Offset(4));
    assert_eq!(offsets(&log), [3, 4, 5, 6, 7]);
    assert_eq!(clean(&mut log, &settings(NOW.0)).unwrap().clean_to, Offset(6));
    assert_eq!(offsets(&log), [5, 6, 7]);
    assert_eq!(log.segments().len(), 2, "small neighbours become one");
}

#[test]
fn a_pass_that_runs_out_of_memory_for_keys_goes_on_with_the_next() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, small(), None);
    for round in 0..3 {
        for key in 0..60 {
            put(&mut log, &[(&format!("key {key}"), Some(&round.to_string()))]);
        }
    }
    close_segment(&mut log);
    let end = log.end().offset;
    let scarce = CleanSettings { map_bytes: 24 * 32, ..settings(NOW.0) };
    let mut passes = Vec::new();
    while log.reader().dirtiness(end, NOW, 0).unwrap().dirty_bytes > 0 && passes.last() != Some(&end) {
        passes.push(clean(&mut log, &scarce).unwrap().clean_to);
    }
    assert!(passes.len() > 3 && passes.is_sorted(), "{passes:?}");
    let kept = pairs(&log);
    assert_eq!(kept.len(), 60);
    assert!(kept.iter().all(|(offset, _, value)| *offset >= 120 && value.as_deref() == Some("2")));
}

#[test]
fn records_without_a_key_go_and_batches_that_cannot_be_judged_stay() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, tiny(), None);
    append(&mut log, batch(2, 10));
    let marker = keyed(Compression::None, &[("x", Some("1"))]).producer(ProducerId(1), ProducerEpoch(0), -1).control();
    append(&mut log, stored(marker));
    let transactional =
        keyed(Compression::None, &[("x", Some("1"))]).producer(ProducerId(2), ProducerEpoch(0), 0).transactional();
    append(&mut log, stored(transactional));
    put(&mut log, &[("x", Some("2"))]);
    close_segment(&mut log);
    clean(&mut log, &settings(NOW.0)).unwrap();
    assert_eq!(pairs(&log).iter().map(|(offset, ..)| *offset).collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn p1_p3_producers_and_epochs_are_rebuilt_from_a_compacted_log() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, tiny(), None);
    for sequence in 0..12 {
        let epoch = LeaderEpoch(sequence / 4);
        let batch = keyed(Compression::None, &[("a", Some("1"))]).producer(ProducerId(7), ProducerEpoch(2), sequence);
        append(&mut log, StoredBatch { epoch, ..stored(batch) });
    }
    close_segment(&mut log);
    clean(&mut log, &settings(NOW.0)).unwrap();
    assert_eq!(pairs(&log).len(), 1);
    for name in sim.list(&dir()).unwrap() {
        if name.ends_with(".producers") || name == "epochs" {
            sim.remove(&dir().join(name)).unwrap();
        }
    }
    let (rebuilt, recovered) = open(&sim, tiny(), None);
    assert_eq!(recovered.damaged, None);
    assert!(rebuilt.producers().same_state(log.producers()));
    assert_eq!(rebuilt.epochs().entries(), log.epochs().entries());
    assert_eq!(rebuilt.end().offset, log.end().offset);
}

#[test]
fn l5_rot_in_what_is_to_be_cleaned_ends_the_pass_and_changes_nothing() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, tiny(), None);
    put(&mut log, &[("a", Some("1")), ("a", Some("2"))]);
    put(&mut log, &[("a", Some("3"))]);
    close_segment(&mut log);
    let path = segment_path(0, ".log");
    assert!(sim.flip_bit(&path, 100, 3));
    let bytes = sim.read_file(&path).unwrap();
    assert!(matches!(clean(&mut log, &settings(NOW.0)), Err(CleanError::Damaged(_))));
    assert_eq!(sim.read_file(&path).unwrap(), bytes);
    assert!(!sim.list(&dir()).unwrap().iter().any(|name| name.ends_with(".cleaned")));
}

#[test]
fn readers_on_old_segments_and_old_places_read_on() {
    let sim = SimDisk::new(1);
    let (mut log, _) = open(&sim, tiny(), None);
    for number in 0..80 {
        put(&mut log, &[("a", Some(&format!("{number:030}"))), ("b", Some("1"))]);
        if number == 40 {
            sync(&mut log);
        }
    }
    sync(&mut log);
    let reader = log.reader();
    let upto = reader.end();
    let whole = reader.read(Offset(0), upto, u64::MAX, true).unwrap();
    let bytes = whole.read().unwrap();
    let mut batches = reader.batches(Offset(0), upto);
    let first = batches.next().unwrap().unwrap().0;
    let step = reader.scrub_step(ScrubCursor::default(), upto, 100).unwrap();
    put(&mut log, &[("b", Some("2"))]);
    close_segment(&mut log);
    clean(&mut log, &settings(NOW.0)).unwrap();
    assert_eq!(whole.read().unwrap(), bytes, "a range that was handed out stays what it was");
    let mut next = first.next_offset();
    for batch in batches {
        let (header, bytes) = batch.unwrap();
        assert!(crc_matches(&bytes) && header.base_offset >= next);
        next = header.next_offset();
    }
    assert!(next >= upto.offset, "the end of then is reached, although its segment is another now");
    let step = reader.scrub_step(step.next, reader.end(), u64::MAX).unwrap();
    assert_eq!(step.found, None, "a cursor in the old file means nothing in the new one");
    check_lookups(&log);
}

#[test]
fn a_pass_that_runs_while_the_log_is_trimmed_brings_nothing_back() {
    for trim_to in [3, 5, 12, 20] {
        let sim = SimDisk::new(1);
        let (mut log, _) = open(&sim, tiny(), None);
        for number in 0..20 {
            put(&mut log, &[(&format!("{}", number % 7), Some(&format!("{number:060}")))]);
            if number % 3 == 2 {
                close_segment(&mut log);
            }
        }
        close_segment(&mut log);
        let plan = log.plan_clean(log.checkpoint().recovery_point.segment).unwrap();
        let log = Mutex::new(log);
        let trimmed = Cell::new(false);
        // Between the work and the first swap.
        let done = plan.run(&settings(NOW.0), &mut |_| true, &|work| {
            let mut log = log.lock();
            if !trimmed.replace(true) {
                log.advance_start(Offset(trim_to)).unwrap();
                sync(&mut log);
                log.remove_deleted(Timestamp(NOW.0 + 5000));
            }
            work(&mut log);
            true
        });
        assert!(matches!(done, Ok(_) | Err(CleanError::Stopped)), "{done:?}");
        let mut log = log.into_inner();
        sync(&mut log);
        assert_eq!(log.start(), Offset(trim_to));
        assert!(pairs(&log).iter().all(|(offset, ..)| *offset >= trim_to));
        let checkpoint = log.checkpoint();
        for checkpoint in [Some(checkpoint), None] {
            let (again, recovered) = open(&sim.fork(), tiny(), checkpoint);
            assert_eq!((recovered.damaged, again.start()), (None, Offset(trim_to)), "trimmed to {trim_to}");
            assert_eq!(pairs(&again), pairs(&log));
        }
    }
}

/// Every offset and time is found as a scan finds it, holes included.
fn check_lookups(log: &Log) {
    let reader = log.reader();
    let upto = reader.end();
    let kept = read_all(&reader);
    for offset in reader.start_offset().0..upto.offset.0 {
        let plan = reader.read(Offset(offset), upto, 1, true).unwrap();
        let bytes = plan.read().unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        assert!(header.last_offset() >= Offset(offset), "offset {offset}");
        let skipped = kept.iter().any(|record| record.offset.0 >= offset && record.offset < header.base_offset);
        assert!(!skipped, "offset {offset} is answered with {}", header.base_offset);
    }
    let newest = kept.iter().map(|record| record.timestamp).max();
    let first_of = |at: Timestamp| kept.iter().find(|record| record.timestamp >= at).map(|record| record.offset);
    assert_eq!(
        reader.max_timestamp(upto).unwrap().map(|(offset, ..)| offset),
        newest.and_then(|at| { kept.iter().find(|record| record.timestamp == at).map(|record| record.offset) })
    );
    for record in &kept {
        let found = reader.find_by_timestamp(record.timestamp, upto).unwrap();
        assert_eq!(found.map(|(offset, ..)| offset), first_of(record.timestamp));
    }
}

/// What the log should hold.
#[derive(Clone, Default)]
struct Model {
    /// By offset, with the last offset of its batch.
    records: BTreeMap<i64, (Record, i64)>,
    /// From when on a tombstone may go.
    horizons: HashMap<i64, i64>,
}

impl Model {
    fn take_in(&mut self, log: &Log, base: Offset) {
        for batch in log.reader().batches(base, log.end()) {
            let (header, bytes) = batch.unwrap();
            for record in records(&header, &bytes, Decompress { max_bytes: 1 << 20 }).unwrap() {
                let record = record.unwrap();
                self.records.insert(record.offset.0, (record, header.last_offset().0));
            }
        }
    }

    /// A pass at `now` that came to `clean_to`.
    fn clean(&mut self, clean_to: i64, now: i64) {
        let mut latest = HashMap::new();
        for (offset, (record, _)) in self.records.range(..clean_to) {
            latest.insert(record.key.clone(), *offset);
        }
        let horizons = &mut self.horizons;
        self.records.retain(|offset, (record, batch_end)| {
            if *offset >= clean_to {
                return true;
            }
            let is_last = record.key.is_some() && latest.get(&record.key) == Some(offset);
            let due = record.value.is_none() && horizons.get(offset).is_some_and(|horizon| *horizon <= now);
            if is_last && !due && record.value.is_none() && *batch_end < clean_to {
                horizons.entry(*offset).or_insert(now + RETENTION_MS);
            }
            is_last && !due
        });
    }

    fn from(&self, start: Offset) -> Vec<Record> {
        self.records.range(start.0..).map(|(_, (record, _))| record.clone()).collect()
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn batch(&mut self, sequences: &mut [i32; 2], epoch: i32) -> StoredBatch {
        let mut builder = BatchBuilder::new(CODECS[self.roll(5) as usize], None);
        let count = 1 + self.roll(6) as i32;
        for _ in 0..count {
            let key = format!("key {}", self.roll(12));
            let key = (self.roll(30) > 0).then_some(key.as_bytes());
            let value = vec![b'v'; self.roll(120) as usize];
            let value = (self.roll(4) > 0).then_some(value.as_slice());
            let headers: [(&[u8], Option<&[u8]>); 2] = [(b"h", Some(b"1")), (b"h", None)];
            let headers = &headers[..self.roll(3) as usize];
            builder.push(Timestamp(NOW.0 + self.roll(5000) as i64), key, value, headers).unwrap();
        }
        if self.roll(2) == 0 {
            let id = self.roll(2) as usize;
            builder = builder.producer(ProducerId(id as i64), ProducerEpoch(0), sequences[id]);
            sequences[id] += count;
        }
        StoredBatch { epoch: LeaderEpoch(epoch), ..stored(builder) }
    }
}

/// A life of appends, passes, trims and restarts.
fn live(seed: u64) {
    let mut dice = Dice(seed);
    let mut sim = SimDisk::new(seed);
    let (mut log, _) = open(&sim, tiny(), None);
    let mut model = Model::default();
    let mut now = NOW.0;
    let mut sequences = [0; 2];
    let mut epoch = 0;
    for _ in 0..120 {
        match dice.roll(16) {
            0..=8 => {
                let base = log.end().offset;
                append(&mut log, dice.batch(&mut sequences, epoch));
                model.take_in(&log, base);
            }
            9 => sync(&mut log),
            10 => close_segment(&mut log),
            11 => {
                log.advance_start(Offset(dice.roll(log.durable_end().offset.0 as u64 + 1) as i64 / 2)).unwrap();
                log.remove_deleted(Timestamp(now));
            }
            12 => {
                now += dice.roll(1500) as i64;
                epoch += dice.roll(2) as i32;
            }
            13 | 14 => {
                let map_bytes = if dice.roll(3) == 0 { 24 * 8 } else { 1 << 20 };
                let done = clean(&mut log, &CleanSettings { map_bytes, ..settings(now) }).unwrap();
                model.clean(done.clean_to.0, now);
                check_lookups(&log);
            }
            _ => {
                close_segment(&mut log);
                sim = sim.fork();
                let checkpoint = (dice.roll(2) == 0).then(|| log.checkpoint());
                let (again, recovered) = open(&sim, tiny(), checkpoint);
                assert_eq!((recovered.damaged, recovered.truncated_bytes), (None, 0));
                assert_eq!(again.end().offset, log.end().offset);
                assert_eq!(again.epochs().entries(), log.epochs().entries());
                log = again;
            }
        }
        assert_eq!(read_all(&log.reader()), model.from(log.start()));
    }
    check_lookups(&log);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn passes_agree_with_the_model(seed: u64) {
        live(seed);
    }
}

/// A durable log of several segments, the first of them cleaned once, with its model.
fn prepared(sim: &SimDisk) -> (Checkpoint, Model) {
    sim.create_dir_all("data".as_ref()).unwrap();
    sim.sync_dir("".as_ref()).unwrap();
    let (mut log, _) = open(sim, tiny(), None);
    let mut model = Model::default();
    let (mut dice, mut sequences) = (Dice(5), [0; 2]);
    for round in 0..80 {
        append(&mut log, dice.batch(&mut sequences, 0));
        if round % 8 == 7 {
            close_segment(&mut log);
        }
        if round == 30 {
            model.take_in(&log, Offset(0));
            let done = clean(&mut log, &settings(NOW.0)).unwrap();
            model.clean(done.clean_to.0, NOW.0);
        }
    }
    close_segment(&mut log);
    model.take_in(&log, Offset(0));
    (log.checkpoint(), model)
}

/// What a start finds after a crash in a pass: nothing that must stay is gone, nothing that went is back in part, and
/// another pass leaves what one without a crash would have.
fn check_after_crash(sim: &SimDisk, checkpoint: Option<Checkpoint>, before: &Model, after: &Model, what: &str) {
    let (mut log, recovered) = open(sim, tiny(), checkpoint);
    assert_eq!((&recovered.damaged, recovered.truncated_bytes), (&None, 0), "{what}");
    assert!(!sim.list(&dir()).unwrap().iter().any(|name| name.ends_with(".cleaned")), "{what}");
    let found = read_all(&log.reader());
    for record in &found {
        assert_eq!(before.records.get(&record.offset.0).map(|(known, _)| known), Some(record), "{what}");
    }
    let offsets: Vec<i64> = found.iter().map(|record| record.offset.0).collect();
    assert!(after.records.keys().all(|offset| offsets.binary_search(offset).is_ok()), "{what}");
    check_lookups(&log);
    close_segment(&mut log);
    let later = NOW.0 + 2 * RETENTION_MS;
    clean(&mut log, &settings(later)).unwrap();
    assert_eq!(read_all(&log.reader()), after.from(Offset(0)), "{what}");
}

#[test]
fn l9_b22_a_power_cut_at_any_call_of_a_pass_leaves_old_or_new() {
    let later = NOW.0 + 2 * RETENTION_MS;
    for seed in 0..2 {
        let mut cut_in_pass = 0;
        for calls in 0.. {
            let sim = SimDisk::new(seed * 1000 + calls);
            let (checkpoint, before) = prepared(&sim);
            let (mut log, _) = open(&sim, tiny(), Some(checkpoint.clone()));
            let mut after = before.clone();
            after.clean(log.end().offset.0, later);
            sim.fail_after(calls);
            let done = clean(&mut log, &settings(later));
            let finished = done.is_ok();
            drop(log);
            // The process alone dies, and then the machine too.
            for crashed in [sim.crash(), sim.crash(), sim.restart().fork()] {
                let what = format!("seed {seed}, {calls} calls");
                check_after_crash(&crashed.fork(), None, &before, &after, &what);
                check_after_crash(&crashed, Some(checkpoint.clone()), &before, &after, &what);
            }
            if finished {
                break;
            }
            cut_in_pass += 1;
        }
        assert!(cut_in_pass > 30, "{cut_in_pass} calls");
    }
}
