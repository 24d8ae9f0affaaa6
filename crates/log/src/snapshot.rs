//! The producer snapshot: the state of all producers at one offset, in a file (docs/formats/producer-snapshot.md).
//!
//! Keeps all five batches of each producer, where Kafka's keeps one (B27). A snapshot that is not whole is as good as
//! none: the state is rebuilt from an older one and the batches since.

use ottla_types::{Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::{
    checked_file,
    producers::{BATCHES_MAX, Entry, Producers, Written},
};

const MAGIC: [u8; 4] = *b"OTPS";
const VERSION: u16 = 1;

/// The file's bytes for the state at `offset`.
pub(crate) fn encode(producers: &Producers, offset: Offset) -> Vec<u8> {
    let mut body = Vec::with_capacity(16 + producers.entries.len() * 64);
    body.extend_from_slice(&offset.0.to_be_bytes());
    for (id, entry) in &producers.entries {
        body.extend_from_slice(&id.0.to_be_bytes());
        body.extend_from_slice(&entry.epoch.0.to_be_bytes());
        body.push(entry.len as u8);
        body.push(0);
        body.extend_from_slice(&entry.last_timestamp.0.to_be_bytes());
        body.extend_from_slice(&entry.transaction_start.map_or(-1, |start| start.0).to_be_bytes());
        body.extend_from_slice(&producers.watched_ms.saturating_sub(entry.active_at_ms).to_be_bytes());
        for batch in entry.written() {
            body.extend_from_slice(&batch.base_offset.0.to_be_bytes());
            body.extend_from_slice(&batch.base_sequence.to_be_bytes());
            body.extend_from_slice(&batch.last_delta.to_be_bytes());
            body.extend_from_slice(&batch.timestamp.0.to_be_bytes());
        }
    }
    checked_file::encode(MAGIC, VERSION, &body)
}

/// The state in a file that says it is of `offset`; `None` if it is not whole, not possible, or of another offset.
pub(crate) fn decode(bytes: &[u8], offset: Offset) -> Option<Producers> {
    let mut body = checked_file::decode(MAGIC, VERSION, bytes)?;
    if take_i64(&mut body)? != offset.0 {
        return None;
    }
    let mut read = Vec::new();
    let mut oldest_ms = 0;
    while !body.is_empty() {
        let id = ProducerId(take_i64(&mut body)?);
        let mut entry = Entry::new(ProducerEpoch(i16::from_be_bytes(take(&mut body)?)));
        let [len, _] = take(&mut body)?;
        entry.last_timestamp = Timestamp(take_i64(&mut body)?);
        let transaction_start = take_i64(&mut body)?;
        entry.transaction_start = (transaction_start >= 0).then_some(Offset(transaction_start));
        let idle_ms = u64::from_be_bytes(take(&mut body)?);
        oldest_ms = oldest_ms.max(idle_ms);
        if usize::from(len) > BATCHES_MAX {
            return None;
        }
        for _ in 0..len {
            if cfg!(zoo = "B27") {
                entry.len = 0;
            }
            entry.push(Written {
                base_offset: Offset(take_i64(&mut body)?),
                base_sequence: i32::from_be_bytes(take(&mut body)?),
                last_delta: i32::from_be_bytes(take(&mut body)?),
                timestamp: Timestamp(take_i64(&mut body)?),
            });
        }
        let possible = entry.written().iter().all(|batch| batch.base_sequence >= 0 && batch.last_delta >= 0);
        if id.0 < 0 || !possible {
            return None;
        }
        read.push((id, entry, idle_ms));
    }
    let mut producers = Producers::default();
    producers.watched_ms = oldest_ms;
    for (id, mut entry, idle_ms) in read {
        entry.active_at_ms = oldest_ms - idle_ms;
        producers.entries.insert(id, entry);
    }
    Some(producers)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    take(bytes).map(i64::from_be_bytes)
}
