//! `ottla dump`: what is in the files of a data directory, for people and for machines.
//!
//! Reads the files as they are, also while a broker writes them; it changes nothing and trusts nothing. The formats are
//! in `docs/formats/`. Kafka's own `.log` files are the same bytes and can be read as well.

mod metadata;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use clap::Args;
use ottla_log::checked_file;
use ottla_records::{BatchError, BatchHeader, Decompress, HEADER_SIZE, TimestampType, crc_matches, records};
use ottla_types::TopicId;
use serde_json::{Value, json};

use crate::{commands::format::record_json, failure::Failure, output};

pub(crate) const EXAMPLES: &str = "\
Examples:
  ottla dump ottla-data                     identity, checkpoint, and which directories there are
  ottla dump ottla-data/metadata            what the cluster agreed on
  ottla dump --records ottla-data/topics/*/00000000000000000000.log
  ottla dump --json 00000000000000000000.index

A file is recognised by its name or its first bytes: segments (.log), indexes, producer snapshots, epochs, checkpoints,
the proof of a clean shutdown, what a voter voted, metadata snapshots, the identity.";

/// What the records of one batch may have when decompressed, in bytes.
const DECOMPRESSED_MAX: usize = 1 << 30;
/// More than any file but a segment has.
const SMALL_FILE_MAX: u64 = 1 << 30;

#[derive(Args)]
pub(crate) struct DumpArgs {
    /// Files and directories
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Also the records of each batch
    #[arg(long, short)]
    records: bool,
    /// Take the values of the records for metadata records, as is done in a directory of that name
    #[arg(long)]
    metadata: bool,
    /// Write JSON, one value a line
    #[arg(long)]
    json: bool,
}

/// Where what is found goes: a line for people or a value for machines, each with its file.
struct Dump<'a> {
    args: &'a DumpArgs,
    path: &'a Path,
}

pub(crate) fn run(args: &DumpArgs) -> Result<(), Failure> {
    crate::logging::start()?;
    for path in &args.paths {
        let kind = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if kind.is_file() {
            Dump { args, path }.file()?;
        } else {
            directory(args, path)?;
        }
    }
    Ok(())
}

/// The files of a directory, and of the metadata log one below.
fn directory(args: &DumpArgs, path: &Path) -> Result<(), Failure> {
    let entries = fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    let mut inside: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(path, &error))?;
    inside.sort();
    for inside in &inside {
        let dump = Dump { args, path: inside };
        if !inside.is_dir() {
            dump.file()?;
        } else if path.ends_with("metadata") {
            directory(args, inside)?;
        } else {
            dump.say("directory", &json!({}), "directory")?;
        }
    }
    Ok(())
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot read {}: {error}", path.display()))
}

impl Dump<'_> {
    fn say(&self, kind: &str, json: &Value, text: &str) -> Result<(), Failure> {
        if !self.args.json {
            return output::print(&format!("{}: {text}\n", self.path.display()));
        }
        let mut json = json.clone();
        if let Value::Object(members) = &mut json {
            members.insert("file".to_owned(), json!(self.path.display().to_string()));
            members.insert("kind".to_owned(), json!(kind));
        }
        output::print_json(&json)
    }

    fn file(&self) -> Result<(), Failure> {
        if self.path.extension().is_some_and(|extension| extension == "log") {
            return self.segment();
        }
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let bytes = self.read()?;
        match (name, bytes.first_chunk::<4>()) {
            ("identity", _) => self.identity(&bytes),
            ("lock", None) => self.say("lock", &json!({}), "what keeps a second broker out"),
            (_, Some(b"OTIX")) => self.index(&bytes),
            (_, Some(b"OTPS")) => self.checked(&bytes, ("producer snapshot", 1), Dump::producers),
            (_, Some(b"OTEH")) => self.checked(&bytes, ("epochs", 1), Dump::epochs),
            (_, Some(b"OCKP")) => self.checked(&bytes, ("checkpoint", 2), Dump::checkpoint),
            (_, Some(b"OCLN")) => self.checked(&bytes, ("clean shutdown", 1), Dump::clean_shutdown),
            (_, Some(b"OMSN")) => self.checked(&bytes, ("metadata snapshot", 2), Dump::metadata_snapshot),
            (_, Some(b"OQST")) => self.checked(&bytes, ("quorum state", 1), Dump::quorum_state),
            _ => {
                self.say("unknown", &json!({ "size": bytes.len() }), &format!("{} bytes of nothing known", bytes.len()))
            }
        }
    }

    fn read(&self) -> Result<Vec<u8>, Failure> {
        let len = fs::metadata(self.path).map_err(|error| unreadable(self.path, &error))?.len();
        if len > SMALL_FILE_MAX {
            return Err(Failure::failed(format!("{} is too large for a file of its kind", self.path.display())));
        }
        fs::read(self.path).map_err(|error| unreadable(self.path, &error))
    }

    /// Says that something in the file is not as it must be, and goes on.
    fn damaged(&self, what: &str) -> Result<(), Failure> {
        self.say("damage", &json!({ "reason": what }), &format!("DAMAGED: {what}"))
    }

    /// A file with magic, version and checksum around its body.
    fn checked(
        &self,
        bytes: &[u8],
        (kind, version): (&str, u16),
        show: impl FnOnce(&Self, Fields<'_>) -> Result<Option<()>, Failure>,
    ) -> Result<(), Failure> {
        let found = bytes.get(4..6).map_or(0, |version| u16::from_be_bytes([version[0], version[1]]));
        if found != version {
            return self.damaged(&format!("a {kind} of version {found}, this program knows version {version}"));
        }
        let magic = bytes.first_chunk::<4>().copied().unwrap_or_default();
        match checked_file::decode(magic, version, bytes) {
            None => self.damaged(&format!("a {kind} whose checksum does not match")),
            Some(body) => match show(self, Fields(body))? {
                Some(()) => Ok(()),
                None => self.damaged(&format!("a {kind} that ends in the middle of an entry")),
            },
        }
    }

    fn identity(&self, bytes: &[u8]) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(bytes);
        let fields: serde_json::Map<_, _> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), json!(value)))
            .collect();
        let shown: Vec<_> = text.lines().filter(|line| !line.starts_with("crc32c=")).collect();
        self.say("identity", &Value::Object(fields), &shown.join(", "))
    }

    /// Twenty bytes of header, then entries of twenty bytes with a checksum each.
    fn index(&self, bytes: &[u8]) -> Result<(), Failure> {
        let Some((header, entries)) = bytes.split_at_checked(20) else {
            return self.damaged("an index without a header");
        };
        let mut header = Fields(header.get(8..).unwrap_or_default());
        let base = header.i64().unwrap_or(0);
        let (entries, rest) = entries.as_chunks::<20>();
        for (number, entry) in entries.iter().enumerate() {
            let mut covered = base.to_be_bytes().to_vec();
            covered.extend_from_slice(&entry[..16]);
            let mut fields = Fields(entry);
            let (Some(delta), Some(position), Some(time), Some(crc)) =
                (fields.u32(), fields.u32(), fields.i64(), fields.u32())
            else {
                continue;
            };
            if crc != crc32c(&covered) {
                self.damaged(&format!("entry {number}: its checksum does not match"))?;
                continue;
            }
            let offset = base.saturating_add(i64::from(delta));
            self.say(
                "index entry",
                &json!({ "offset": offset, "position": position, "largest_timestamp_before": time }),
                &format!(
                    "offset {offset} at position {position}, nothing before it is later than {}",
                    output::time(time)
                ),
            )?;
        }
        if rest.is_empty() { Ok(()) } else { self.damaged(&format!("{} bytes behind the last entry", rest.len())) }
    }

    fn producers(&self, mut body: Fields<'_>) -> Result<Option<()>, Failure> {
        let Some(offset) = body.i64() else { return Ok(None) };
        self.say("producer snapshot", &json!({ "offset": offset }), &format!("producers below offset {offset}"))?;
        while !body.0.is_empty() {
            let (Some(id), Some(epoch), Some([count, _]), Some(last), Some(start), Some(idle)) =
                (body.i64(), body.i16(), body.take::<2>(), body.i64(), body.i64(), body.i64())
            else {
                return Ok(None);
            };
            let mut batches = Vec::new();
            let mut shown = String::new();
            for _ in 0..count {
                let (Some(offset), Some(sequence), Some(delta), Some(time)) =
                    (body.i64(), body.i32(), body.i32(), body.i64())
                else {
                    return Ok(None);
                };
                let last = (i64::from(sequence) + i64::from(delta)) & i64::from(i32::MAX);
                shown += &format!(", sequence {sequence} to {last} at offset {offset}");
                batches.push(
                    json!({ "offset": offset, "first_sequence": sequence, "last_sequence": last, "timestamp": time }),
                );
            }
            let transaction = (start >= 0).then_some(start);
            self.say(
                "producer",
                &json!({
                    "id": id,
                    "epoch": epoch,
                    "last_timestamp": last,
                    "transaction_start": transaction,
                    "idle_ms": idle,
                    "batches": batches,
                }),
                &format!("producer {id}, epoch {epoch}, last at {}{shown}", output::time(last)),
            )?;
        }
        Ok(Some(()))
    }

    fn epochs(&self, mut body: Fields<'_>) -> Result<Option<()>, Failure> {
        let Some(start) = body.i64() else { return Ok(None) };
        self.say("log start", &json!({ "offset": start }), &format!("the log starts at offset {start}"))?;
        while !body.0.is_empty() {
            let (Some(epoch), Some(start)) = (body.i32(), body.i64()) else { return Ok(None) };
            self.say(
                "epoch",
                &json!({ "epoch": epoch, "start": start }),
                &format!("leader epoch {epoch} begins at offset {start}"),
            )?;
        }
        Ok(Some(()))
    }

    fn checkpoint(&self, mut body: Fields<'_>) -> Result<Option<()>, Failure> {
        while !body.0.is_empty() {
            let Some(topic) = body.take::<16>().map(TopicId::from_bytes) else { return Ok(None) };
            let Some(partition) = body.i32() else { return Ok(None) };
            let mut numbers = [0; 8];
            for number in &mut numbers {
                let Some(read) = body.i64() else { return Ok(None) };
                *number = read;
            }
            let [recovery, segment, position, durable, log_start, producers, largest, high_watermark] = numbers;
            let place = if topic.is_zero() { "the metadata log".to_owned() } else { format!("{topic}-{partition}") };
            self.say(
                "checkpoint",
                &json!({
                    "topic_id": topic.to_string(),
                    "partition": partition,
                    "recovery_point": recovery,
                    "segment": segment,
                    "position": position,
                    "durable_end": durable,
                    "high_watermark": high_watermark,
                    "log_start": log_start,
                    "producer_snapshot": (producers >= 0).then_some(producers),
                    "largest_timestamp": largest,
                }),
                &format!(
                    "{place}: durable to offset {durable}, recovery from {recovery} (segment {segment}, position \
                     {position}), high watermark {high_watermark}, log start {log_start}"
                ),
            )?;
        }
        Ok(Some(()))
    }

    fn clean_shutdown(&self, mut body: Fields<'_>) -> Result<Option<()>, Failure> {
        let Some(epoch) = body.i64() else { return Ok(None) };
        let text = format!("shut down cleanly in broker epoch {epoch}");
        self.say("clean shutdown", &json!({ "broker_epoch": epoch }), &text)?;
        Ok(Some(()))
    }

    fn segment(&self) -> Result<(), Failure> {
        let file = File::open(self.path).map_err(|error| unreadable(self.path, &error))?;
        let len = file.metadata().map_err(|error| unreadable(self.path, &error))?.len();
        let mut position = 0;
        while position < len {
            let left = len - position;
            let mut head = [0; HEADER_SIZE];
            let head =
                head.get_mut(..usize::try_from(left).unwrap_or(HEADER_SIZE).min(HEADER_SIZE)).unwrap_or_default();
            file.read_exact_at(head, position).map_err(|error| unreadable(self.path, &error))?;
            if head.iter().all(|&byte| byte == 0) {
                return self.say(
                    "reserved",
                    &json!({ "position": position, "size": left }),
                    &format!("{position}: {left} bytes reserved and not written"),
                );
            }
            let header = match BatchHeader::parse(head) {
                Ok(header) if header.size() as u64 <= left => header,
                Ok(header) => {
                    return self
                        .damaged(&format!("position {position}: a batch of {} bytes, {left} are left", header.size()));
                }
                Err(error) => return self.damaged(&format!("position {position}: {error}")),
            };
            let mut batch = vec![0; header.size()];
            file.read_exact_at(&mut batch, position).map_err(|error| unreadable(self.path, &error))?;
            self.batch(position, &header, &Bytes::from(batch))?;
            position += header.size() as u64;
        }
        Ok(())
    }

    fn batch(&self, position: u64, header: &BatchHeader, batch: &Bytes) -> Result<(), Failure> {
        let valid = crc_matches(batch);
        let codec = header.compression().map_or("unknown".to_owned(), |codec| codec.to_string());
        let append_time = header.timestamp_type() == TimestampType::LogAppendTime;
        let producer = match header.is_idempotent() {
            true => format!(
                ", producer {} epoch {} sequence {} to {}",
                header.producer_id,
                header.producer_epoch,
                header.base_sequence,
                header.last_sequence()
            ),
            false => String::new(),
        };
        let flags: String = [
            (header.is_transactional(), ", transactional"),
            (header.is_control(), ", control"),
            (append_time, ", append time"),
            (!valid, ", CRC WRONG"),
        ]
        .iter()
        .filter_map(|&(set, text)| set.then_some(text))
        .collect();
        self.say(
            "batch",
            &json!({
                "position": position,
                "size": header.size(),
                "base_offset": header.base_offset.0,
                "last_offset": header.last_offset().0,
                "records": header.record_count,
                "leader_epoch": header.leader_epoch.0,
                "compression": codec,
                "base_timestamp": header.base_timestamp.0,
                "max_timestamp": header.max_timestamp.0,
                "append_time": append_time,
                "producer_id": header.producer_id.0,
                "producer_epoch": header.producer_epoch.0,
                "base_sequence": header.base_sequence,
                "last_sequence": header.last_sequence(),
                "transactional": header.is_transactional(),
                "control": header.is_control(),
                "crc": header.crc,
                "crc_valid": valid,
            }),
            &format!(
                "{position}: offsets {} to {}, records {} in {} bytes, {codec}, epoch {}, to {}{producer}{flags}",
                header.base_offset,
                header.last_offset(),
                header.record_count,
                header.size(),
                header.leader_epoch,
                output::time(header.max_timestamp.0),
            ),
        )?;
        let in_metadata = || self.path.ancestors().skip(1).take(2).any(|parent| parent.ends_with("metadata"));
        let metadata = self.args.metadata || in_metadata();
        if !self.args.records && !metadata {
            return Ok(());
        }
        let show = |error: BatchError| self.damaged(&format!("position {position}: {error}"));
        let found = match records(header, batch, Decompress { max_bytes: DECOMPRESSED_MAX }) {
            Ok(found) => found,
            Err(error) => return show(error),
        };
        for record in found {
            match record {
                Ok(record) if metadata => {
                    self.entry(record.offset.0, record.value.as_deref().unwrap_or_default())?;
                }
                Ok(record) => {
                    let json = record_json(&record);
                    let text = |name: &str| json.get(name).map_or(String::new(), Value::to_string);
                    let shown = format!(
                        "  {} {} key {} value {}{}",
                        record.offset,
                        output::time(record.timestamp.0),
                        text("key"),
                        text("value"),
                        if record.headers.is_empty() { String::new() } else { format!(" headers {}", text("headers")) },
                    );
                    self.say("record", &json, &shown)?;
                }
                Err(error) => return show(error),
            }
        }
        Ok(())
    }
}

/// Reads big-endian numbers from the front of some bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn i16(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
