//! The sparse index of a segment: from an offset or a time to a place in the file (docs/formats/index.md).
//!
//! One entry says: at this position begins the batch of this base offset, and no batch before it in the segment has a
//! timestamp above this one. So one list serves both lookups. Each entry carries its own checksum and any subset of
//! them is a valid index: an entry that could not be written is left out, one that does not check makes the reader
//! rebuild the file. When to write entries is `log.rs`'s business, caching the files `segment.rs`'s.

use std::{
    io,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use ottla_types::{Offset, Timestamp};

use crate::{
    checked_file::crc32c,
    disk::{DiskFile, read_exact_at},
};

/// Bytes before the first entry: 4 magic, 2 version, 2 entry size, 8 base offset, 4 CRC.
pub(crate) const HEADER_BYTES: usize = 20;
/// Bytes of an entry: 4 offset less base, 4 position, 8 timestamp, 4 CRC over base offset and these.
pub(crate) const ENTRY_BYTES: usize = 20;
const MAGIC: [u8; 4] = *b"OTIX";
const VERSION: u16 = 1;
/// Below this many entries a search reads them all at once.
const BLOCK_ENTRIES: u32 = 128;

/// One place in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Base offset of the batch that begins here, less the segment's.
    pub(crate) delta: u32,
    /// Its position in bytes.
    pub(crate) position: u32,
    /// The largest timestamp of all batches before it.
    pub(crate) largest_before: Timestamp,
}

/// Why a lookup in the file failed.
#[derive(Debug)]
pub(crate) enum IndexFault {
    /// An entry or the header does not check: the file is to be rebuilt.
    Damaged,
    /// It could not be read.
    Io(io::Error),
}

impl IndexEntry {
    pub(crate) fn encode(&self, base: Offset) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..4].copy_from_slice(&self.delta.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.position.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.largest_before.0.to_be_bytes());
        let crc = entry_crc(base, &bytes);
        bytes[16..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(base: Offset, bytes: &[u8; ENTRY_BYTES]) -> Option<IndexEntry> {
        let (delta, rest) = bytes.split_first_chunk::<4>()?;
        let (position, rest) = rest.split_first_chunk::<4>()?;
        let (largest_before, rest) = rest.split_first_chunk::<8>()?;
        let crc = u32::from_be_bytes(*rest.first_chunk()?);
        (crc == entry_crc(base, bytes)).then_some(IndexEntry {
            delta: u32::from_be_bytes(*delta),
            position: u32::from_be_bytes(*position),
            largest_before: Timestamp(i64::from_be_bytes(*largest_before)),
        })
    }
}

fn entry_crc(base: Offset, bytes: &[u8; ENTRY_BYTES]) -> u32 {
    let mut covered = [0; 24];
    covered[..8].copy_from_slice(&base.0.to_be_bytes());
    covered[8..].copy_from_slice(&bytes[..16]);
    crc32c(&covered)
}

/// The first bytes of an index file.
pub(crate) fn header(base: Offset) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&VERSION.to_be_bytes());
    bytes[6..8].copy_from_slice(&(ENTRY_BYTES as u16).to_be_bytes());
    bytes[8..16].copy_from_slice(&base.0.to_be_bytes());
    let crc = crc32c(&bytes[..16]);
    bytes[16..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Position of entry number `index`.
pub(crate) fn entry_position(index: u32) -> u64 {
    HEADER_BYTES as u64 + u64::from(index) * ENTRY_BYTES as u64
}

/// How many whole entries a file of this index has; `Damaged` if it is not one.
pub(crate) fn count_entries(file: &dyn DiskFile, base: Offset) -> Result<u32, IndexFault> {
    let len = file.len().map_err(IndexFault::Io)?;
    let mut found = [0; HEADER_BYTES];
    if len < HEADER_BYTES as u64 || file.read_at(&mut found, 0).map_err(IndexFault::Io)? < HEADER_BYTES {
        return Err(IndexFault::Damaged);
    }
    if found != header(base) {
        return Err(IndexFault::Damaged);
    }
    u32::try_from((len - HEADER_BYTES as u64) / ENTRY_BYTES as u64).map_err(|_| IndexFault::Damaged)
}

/// Those of the first `count` entries that are whole.
pub(crate) fn read_whole_entries(file: &dyn DiskFile, base: Offset, count: u32) -> io::Result<Vec<IndexEntry>> {
    let mut bytes = vec![0; count as usize * ENTRY_BYTES];
    let read = file.read_at(&mut bytes, entry_position(0))?;
    let (entries, _) = bytes[..read].as_chunks::<ENTRY_BYTES>();
    Ok(entries.iter().filter_map(|entry| IndexEntry::decode(base, entry)).collect())
}

/// Some consecutive entries.
pub(crate) fn read_entries(
    file: &dyn DiskFile,
    base: Offset,
    from: u32,
    count: u32,
) -> Result<Vec<IndexEntry>, IndexFault> {
    let mut bytes = vec![0; count as usize * ENTRY_BYTES];
    read_exact_at(file, &mut bytes, entry_position(from)).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => IndexFault::Damaged,
        _ => IndexFault::Io(error),
    })?;
    let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
    let decoded: Option<Vec<_>> = entries.iter().map(|entry| IndexEntry::decode(base, entry)).collect();
    decoded.ok_or(IndexFault::Damaged)
}

/// The last of the first `count` entries for which `before` holds; it holds for a first part of them.
pub(crate) fn last_where(
    file: &dyn DiskFile,
    base: Offset,
    count: u32,
    before: impl Fn(&IndexEntry) -> bool,
) -> Result<Option<IndexEntry>, IndexFault> {
    let (mut low, mut high) = (0, count);
    // Entries below `low` are before, those from `high` on are not.
    while high - low > BLOCK_ENTRIES {
        let middle = low + (high - low) / 2;
        let entry = read_entries(file, base, middle, 1)?;
        if entry.first().is_some_and(&before) {
            low = middle;
        } else {
            high = middle;
        }
    }
    let block = read_entries(file, base, low, high - low)?;
    let inside = block.partition_point(before);
    Ok(inside.checked_sub(1).map(|index| block[index]))
}

/// Where the newest batches of a segment that is being written begin, for readers at its end: all of the last few, and
/// those that have an index entry. Writer and readers share it without a lock: each slot is one word and true by
/// itself, so a reader that is overtaken still gets a place at or below what it looks for, or none.
#[derive(Debug, Default)]
pub(crate) struct RecentPlaces {
    /// Offset delta above, position below; 0 is empty (a first batch is found without).
    slots: [AtomicU64; RecentPlaces::SLOTS],
    next: AtomicUsize,
}

impl RecentPlaces {
    /// More than the entries that wait to be written to the file.
    pub(crate) const SLOTS: usize = 32;

    /// Called by the writer alone.
    pub(crate) fn push(&self, delta: u32, position: u32) {
        let next = self.next.load(Ordering::Relaxed);
        let word = u64::from(delta) << 32 | u64::from(position);
        self.slots[next % RecentPlaces::SLOTS].store(word, Ordering::Release);
        self.next.store(next.wrapping_add(1), Ordering::Relaxed);
    }

    /// Where the batch that begins with an offset lies and where the next does, if there is one. Of use where every
    /// batch was pushed.
    pub(crate) fn exact(&self, delta: u32) -> Option<(u32, Option<u32>)> {
        let words = || self.slots.iter().map(|slot| slot.load(Ordering::Acquire));
        let slot = words().position(|word| word != 0 && (word >> 32) as u32 == delta)?;
        let word = self.slots[slot].load(Ordering::Acquire);
        let next = words().filter(|next| *next > word).min();
        // Slots are overwritten oldest first: if this one still is what it was, the next one was when we passed it.
        let unmoved = (word >> 32) as u32 == delta && self.slots[slot].load(Ordering::Acquire) == word;
        unmoved.then(|| (word as u32, next.map(|next| next as u32)))
    }

    /// The position of the newest entry at or below an offset.
    pub(crate) fn floor(&self, delta: u32) -> Option<u32> {
        let at_or_below = |word: u64| word != 0 && (word >> 32) as u32 <= delta;
        let words = self.slots.iter().map(|slot| slot.load(Ordering::Acquire));
        words.filter(|word| at_or_below(*word)).max().map(|word| word as u32)
    }
}
