//! What a start needs to know of the last run: how far each log is durable, and whether the end was clean.
//!
//! Two files in the data directory (`docs/formats/checkpoint.md`): `checkpoint`, rewritten every few seconds, with the
//! recovery point, durable end, high watermark and log start of every partition and of the metadata log; and
//! `clean-shutdown`, the proof that every log ended synced, which names the registration it belongs to and is gone
//! before anything is appended (rule L6). A checkpoint only ever lags behind the truth, so an old one costs time and
//! nothing else.

use std::{collections::HashMap, io, path::Path};

use ottla_log::{Checkpoint, Disk, LogPosition};
use ottla_metadata::CleanEnd;
use ottla_types::{BrokerEpoch, Offset, PartitionIndex, Timestamp, TopicId};

use crate::{files, topics::Topics};

const FILE: &str = "checkpoint";
const MAGIC: [u8; 4] = *b"OCKP";
/// Version 1 had no high watermark of the replicas.
const VERSION: u16 = 2;
const PROOF_FILE: &str = "clean-shutdown";
const PROOF_MAGIC: [u8; 4] = *b"OCLN";
const PROOF_VERSION: u16 = 1;
/// "No registration was heard of" in the place of its epoch.
const NO_EPOCH: i64 = -1;
/// The place of the metadata log among the partitions.
const METADATA: (TopicId, PartitionIndex) = (TopicId::ZERO, PartitionIndex(0));
/// "No snapshot" in the place of its offset.
const NO_PRODUCERS: i64 = -1;

/// The checkpoints of the last run.
#[derive(Default)]
pub(crate) struct Checkpoints {
    by_partition: HashMap<(TopicId, PartitionIndex), Known>,
}

/// What is remembered of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) log: Checkpoint,
    /// What all replicas in sync were known to have.
    pub(crate) high_watermark: Offset,
}

/// Why the checkpoints of the last run are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the file is damaged")]
    Damaged,
}

impl Checkpoints {
    pub(crate) fn of(&self, topic: TopicId, index: PartitionIndex) -> Option<Known> {
        self.by_partition.get(&(topic, index)).cloned()
    }

    pub(crate) fn of_metadata(&self) -> Option<Checkpoint> {
        self.of(METADATA.0, METADATA.1).map(|known| known.log)
    }
}

/// Reads the checkpoints; none where there is no file yet.
pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<Checkpoints, CheckpointError> {
    let path = dir.join(FILE);
    if !disk.exists(&path)? {
        return Ok(Checkpoints::default());
    }
    let body = files::read_framed(disk, &path, MAGIC, VERSION)?.ok_or(CheckpointError::Damaged)?;
    let (entries, rest) = body.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() {
        return Err(CheckpointError::Damaged);
    }
    Ok(Checkpoints { by_partition: entries.iter().map(decode).collect() })
}

/// Writes the checkpoints of all partitions and of the metadata log, unless `last`, the checksum of what was written
/// before, says that nothing changed: an idle broker leaves its disk alone.
pub(crate) fn store(
    disk: &dyn Disk,
    dir: &Path,
    topics: &Topics,
    metadata: &Checkpoint,
    last: &mut Option<u32>,
) -> io::Result<()> {
    let mut body = Vec::new();
    let mut recovery_points = Vec::new();
    encode(METADATA, &Known { log: metadata.clone(), high_watermark: metadata.high_watermark }, &mut body);
    let owed: Vec<_> = topics.partitions().filter(|partition| partition.owes_checkpoint()).collect();
    for partition in topics.partitions() {
        if let Some(known) = partition.known() {
            encode((partition.topic(), partition.index()), &known, &mut body);
            recovery_points.push((partition, known.log.recovery_point.segment));
        }
    }
    // Two states of one checksum leave the older one behind, which only lags.
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &body) as u32;
    if *last == Some(checksum) {
        owed.iter().for_each(|partition| partition.checkpoint_stored());
        return Ok(());
    }
    files::write_framed(disk, &dir.join(FILE), MAGIC, VERSION, &body)?;
    *last = Some(checksum);
    for (partition, segment) in recovery_points {
        partition.cleaning().set_stored(segment);
    }
    owed.iter().for_each(|partition| partition.checkpoint_stored());
    Ok(())
}

/// Takes away the proof of the last clean shutdown. One that is missing or can't be read proves nothing.
pub(crate) fn take_clean_proof(disk: &dyn Disk, dir: &Path) -> io::Result<CleanEnd> {
    let path = dir.join(PROOF_FILE);
    if !disk.exists(&path)? {
        return Ok(CleanEnd::default());
    }
    let body = files::read_framed(disk, &path, PROOF_MAGIC, PROOF_VERSION)?;
    disk.remove(&path)?;
    // Before the first append: otherwise a crash would find both new records and the old proof.
    disk.sync_dir(dir)?;
    Ok(body.and_then(|body| decode_proof(&body)).unwrap_or_default())
}

/// Leaves the proof that every log ended synced.
pub(crate) fn leave_clean_proof(disk: &dyn Disk, dir: &Path, proof: &CleanEnd) -> io::Result<()> {
    let mut body = proof.epoch.map_or(NO_EPOCH, |epoch| epoch.0).to_be_bytes().to_vec();
    body.extend(proof.unheard.as_flattened());
    files::write_framed(disk, &dir.join(PROOF_FILE), PROOF_MAGIC, PROOF_VERSION, &body)
}

fn decode_proof(body: &[u8]) -> Option<CleanEnd> {
    let (epoch, unheard) = body.split_first_chunk()?;
    let epoch = Some(i64::from_be_bytes(*epoch)).filter(|epoch| *epoch != NO_EPOCH).map(BrokerEpoch);
    let (unheard, []) = unheard.as_chunks() else { return None };
    Some(CleanEnd { epoch, unheard: unheard.to_vec() })
}

const ENTRY_BYTES: usize = 16 + 4 + 8 * 8;

fn encode((topic, index): (TopicId, PartitionIndex), known: &Known, out: &mut Vec<u8>) {
    let Checkpoint { recovery_point, high_watermark: durable_end, log_start, producers, largest_timestamp } =
        &known.log;
    out.extend_from_slice(&topic.to_bytes());
    out.extend_from_slice(&index.0.to_be_bytes());
    let position = recovery_point.position.cast_signed();
    let producers = producers.map_or(NO_PRODUCERS, |offset| offset.0);
    for number in [
        recovery_point.offset.0,
        recovery_point.segment.0,
        position,
        durable_end.0,
        log_start.0,
        producers,
        largest_timestamp.0,
        known.high_watermark.0,
    ] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn decode(entry: &[u8; ENTRY_BYTES]) -> ((TopicId, PartitionIndex), Known) {
    let mut topic = [0; 16];
    topic.copy_from_slice(&entry[..16]);
    let mut index = [0; 4];
    index.copy_from_slice(&entry[16..20]);
    let number = |place: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&entry[20 + 8 * place..28 + 8 * place]);
        i64::from_be_bytes(bytes)
    };
    let log = Checkpoint {
        recovery_point: LogPosition {
            offset: Offset(number(0)),
            segment: Offset(number(1)),
            position: number(2).cast_unsigned(),
        },
        high_watermark: Offset(number(3)),
        log_start: Offset(number(4)),
        producers: (number(5) != NO_PRODUCERS).then(|| Offset(number(5))),
        largest_timestamp: Timestamp(number(6)),
    };
    let known = Known { log, high_watermark: Offset(number(7)) };
    ((TopicId::from_bytes(topic), PartitionIndex(i32::from_be_bytes(index))), known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_its_bytes() {
        let log = Checkpoint {
            recovery_point: LogPosition { offset: Offset(7), segment: Offset(3), position: u64::MAX },
            high_watermark: Offset(6),
            log_start: Offset(2),
            producers: Some(Offset(5)),
            largest_timestamp: Timestamp(-1),
        };
        let known = Known { log, high_watermark: Offset(4) };
        let place = (TopicId::from_bytes([9; 16]), PartitionIndex(4));
        let mut bytes = Vec::new();
        encode(place, &known, &mut bytes);
        let (decoded_place, decoded) = decode(bytes.as_slice().try_into().unwrap());
        assert_eq!(decoded_place, place);
        assert_eq!(decoded, known);
    }
}
