//! Where a cluster of one keeps what it agreed on: the metadata log and its snapshots.
//!
//! The log is an ordinary `ottla_log` whose records are metadata records, one batch per decision, synced before the
//! decision takes effect. Once it has grown, the image is written as a snapshot, read back, and the log trimmed to it
//! (rule M3). What is not here: deciding (`controller.rs`). Formats: `docs/formats/metadata-record.md`.

use std::{io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use ottla_log::{AppendError, Checkpoint, Disk, Log, LogConfig, OpenError, ReadError, StoredBatch, SyncError};
use ottla_metadata::{Image, Record};
use ottla_records::{BatchBuilder, BatchHeader, Compression, Decompress};
use ottla_types::{LeaderEpoch, Offset, Timestamp};

use crate::files;

const SNAPSHOT_MAGIC: [u8; 4] = *b"OMSN";
const SNAPSHOT_VERSION: u16 = 1;
const SNAPSHOT_ENDING: &str = ".snapshot";
/// Log bytes after which a snapshot is worth its writing.
const SNAPSHOT_AFTER_BYTES: u64 = 3 << 20;
/// Taken from the disk when a segment begins, so that a full disk leaves room for tens of thousands of decisions, such
/// as to delete a topic (rule L11).
const SEGMENT_BYTES: u64 = 4 << 20;
/// Decisions are small: one that grows past this is split into several batches of one append.
const BATCH_BYTES_MAX: usize = 1 << 20;
const EPOCH: LeaderEpoch = LeaderEpoch(0);

/// The store of the metadata of a cluster of one.
pub(crate) struct MetadataLog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    log: Log,
}

/// Why the metadata can't be loaded. Nothing is ever started from less than what was agreed on.
#[derive(Debug, thiserror::Error)]
pub enum LoadMetadataError {
    /// A file can't be read.
    #[error("cannot read the metadata: {0}")]
    Io(#[from] io::Error),
    /// The log can't be opened.
    #[error("cannot open the metadata log: {0}")]
    Open(#[from] OpenError),
    /// The log can't be read.
    #[error("cannot read the metadata log: {0}")]
    Read(#[from] ReadError),
    /// The log or snapshot holds something that makes no sense.
    #[error("the metadata is damaged ({0}); restore the directory `metadata` from a backup")]
    Damaged(String),
}

/// Why records were not stored. After a failed sync nothing can be stored any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Sync(#[from] SyncError),
    #[error("the records do not fit into a batch")]
    Batch,
}

impl MetadataLog {
    /// Opens the store and replays it.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        checkpoint: Option<Checkpoint>,
        now: Timestamp,
    ) -> Result<(MetadataLog, Image), LoadMetadataError> {
        disk.create_dir_all(&dir)?;
        let mut image = load_snapshot(&*disk, &dir)?;
        let config = LogConfig {
            segment_bytes: SEGMENT_BYTES,
            preallocate: true,
            file_delete_delay_ms: 0,
            ..LogConfig::default()
        };
        let (log, recovered) = Log::open(Arc::clone(&disk), dir.clone(), config, checkpoint, now)?;
        if let Some(damage) = recovered.damaged {
            return Err(LoadMetadataError::Damaged(damage.to_string()));
        }
        replay(&log, &mut image)?;
        Ok((MetadataLog { disk, dir, log }, image))
    }

    /// Stores records so that they survive a power cut.
    pub(crate) fn store(&mut self, records: &[Record], now: Timestamp) -> Result<(), StoreError> {
        let mut batches = Vec::new();
        let mut rest = records.iter().peekable();
        while rest.peek().is_some() {
            let mut builder = BatchBuilder::new(Compression::None, None);
            while let Some(record) = rest.next_if(|_| builder.is_empty() || builder.size() < BATCH_BYTES_MAX) {
                builder.push(now, None, Some(&record.encode()), &[]).map_err(|_| StoreError::Batch)?;
            }
            let bytes = builder.build().map_err(|_| StoreError::Batch)?;
            let header = BatchHeader::parse(&bytes).map_err(|_| StoreError::Batch)?;
            batches.push(StoredBatch { header, bytes, epoch: EPOCH });
        }
        self.log.append(&batches, now)?;
        self.sync()
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        if let Some(plan) = self.log.begin_sync() {
            let result = plan.run();
            self.log.complete_sync(plan, result)?;
        }
        // Without a file descriptor to sync with, nobody knows what of it is on the disk.
        if self.log.durable_end() != self.log.end() {
            return Err(SyncError::lost().into());
        }
        Ok(())
    }

    /// Writes a snapshot if the log has grown enough since the last, and drops what it replaces.
    pub(crate) fn maybe_snapshot(&mut self, image: &Image, now: Timestamp) -> Result<(), SnapshotError> {
        if self.log.size_in_bytes() < SNAPSHOT_AFTER_BYTES {
            return Ok(());
        }
        let path = self.dir.join(format!("{:020}{SNAPSHOT_ENDING}", image.offset().0));
        let mut body = Vec::new();
        for record in image.to_records() {
            let bytes = record.encode();
            let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            body.extend_from_slice(&len.to_be_bytes());
            body.extend_from_slice(&bytes);
        }
        files::write_framed(&*self.disk, &path, SNAPSHOT_MAGIC, SNAPSHOT_VERSION, &body)?;
        // Only what can be read back may replace the log (rule M3).
        if load_snapshot(&*self.disk, &self.dir).ok().as_ref() != Some(image) {
            return Err(SnapshotError::NotReadBack);
        }
        self.log.roll(now)?;
        self.sync()?;
        self.log.advance_start(image.offset())?;
        // Segments go once the new start is durable.
        self.sync()?;
        self.log.remove_deleted(now);
        for (offset, name) in snapshots(&*self.disk, &self.dir)? {
            if offset < image.offset() {
                self.disk.remove(&self.dir.join(name))?;
            }
        }
        Ok(self.disk.sync_dir(&self.dir)?)
    }

    /// What the node's checkpoint file holds of the metadata log.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        self.log.checkpoint()
    }

    pub(crate) fn close(&mut self) -> Result<(), SyncError> {
        self.log.close_clean()
    }
}

/// Why a snapshot was not taken. The log still has everything.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("what was written could not be read back")]
    NotReadBack,
}

/// The names of the snapshots with their offsets, the newest last.
fn snapshots(disk: &dyn Disk, dir: &std::path::Path) -> io::Result<Vec<(Offset, String)>> {
    let offset = |name: &String| name.strip_suffix(SNAPSHOT_ENDING)?.parse().ok().map(Offset);
    let mut found: Vec<_> = disk.list(dir)?.into_iter().filter_map(|name| Some((offset(&name)?, name))).collect();
    found.sort();
    Ok(found)
}

/// The image of the newest snapshot, or an empty one where there is none.
fn load_snapshot(disk: &dyn Disk, dir: &std::path::Path) -> Result<Image, LoadMetadataError> {
    let mut image = Image::default();
    let Some((offset, name)) = snapshots(disk, dir)?.pop() else { return Ok(image) };
    let damaged = |what: &str| LoadMetadataError::Damaged(format!("{name}: {what}"));
    let body = files::read_framed(disk, &dir.join(&name), SNAPSHOT_MAGIC, SNAPSHOT_VERSION)?
        .ok_or_else(|| damaged("its checksum does not match"))?;
    let mut rest = &body[..];
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*len) as usize;
        let (record, tail) = tail.split_at_checked(len).ok_or_else(|| damaged("it ends early"))?;
        image.apply(&Record::decode(record).map_err(|error| damaged(&error.to_string()))?);
        rest = tail;
    }
    if !rest.is_empty() || image.offset() != offset {
        return Err(damaged("it is not whole"));
    }
    Ok(image)
}

/// Applies what the log holds from the image's offset on.
fn replay(log: &Log, image: &mut Image) -> Result<(), LoadMetadataError> {
    let damaged = |what: String| LoadMetadataError::Damaged(what);
    if log.start() > image.offset() {
        return Err(damaged(format!("records {} to {} are missing", image.offset(), log.start())));
    }
    for batch in log.reader().batches(image.offset(), log.end()) {
        let (header, bytes): (BatchHeader, Bytes) = batch?;
        let records = ottla_records::records(&header, &bytes, Decompress { max_bytes: usize::MAX })
            .map_err(|error| damaged(error.to_string()))?;
        for record in records {
            let record = record.map_err(|error| damaged(error.to_string()))?;
            if record.offset < image.offset() {
                continue;
            }
            let value = record.value.unwrap_or_default();
            let fact = Record::decode(&value).map_err(|error| damaged(format!("record {}: {error}", record.offset)))?;
            image.apply(&fact);
        }
    }
    Ok(())
}
