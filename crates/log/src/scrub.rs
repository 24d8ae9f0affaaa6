//! The slow check of data at rest: reads batches that nobody asked for and verifies their CRC, a little at a time.
//!
//! It only reports (L5: rot below the recovery point is loss, to be told apart from a torn write); what to do about
//! it is the node's decision. It reads through the page cache, so the caller keeps the steps small and far apart.

use ottla_records::crc_matches;
use ottla_types::Offset;

use crate::{
    error::{Damage, ReadError},
    log::LogPosition,
    reader::{LogReader, limit_of},
    scan::{ScanError, WholeBatches},
};

/// Where a scrub has come to. The default is the start of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubCursor {
    segment: Offset,
    position: u64,
    generation: u32,
}

/// What one step of a scrub did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubStep {
    /// Where the next step goes on.
    pub next: ScrubCursor,
    /// Bytes it read.
    pub bytes: u64,
    /// The first damage it met; the rest of that segment is skipped, since nothing says where a batch begins.
    pub found: Option<Damage>,
    /// Whether it came to the end; the next step begins at the start again.
    pub finished: bool,
}

impl LogReader {
    /// Checks batches from the cursor on, below `upto` (what is durable), until `max_bytes` are read or something is
    /// found. At least one batch is read.
    pub fn scrub_step(&self, cursor: ScrubCursor, upto: LogPosition, max_bytes: u64) -> Result<ScrubStep, ReadError> {
        let segments = self.shared.segments.load();
        let at = segments.partition_point(|segment| segment.base < cursor.segment);
        let mut bytes = 0;
        for (number, segment) in segments.iter().enumerate().skip(at).filter(|(_, seg)| seg.base <= upto.segment) {
            let next = segments.get(number + 1).filter(|next| next.base <= upto.segment);
            let after = ScrubCursor { segment: next.map_or(Offset::ZERO, |next| next.base), ..ScrubCursor::default() };
            let limit = limit_of(segment, upto);
            let generation = segment.generation;
            let here = segment.base == cursor.segment && generation == cursor.generation;
            let from = if here { cursor.position } else { 0 };
            if from >= limit {
                continue;
            }
            let mut batches = WholeBatches::new(segment.log_file(&self.shared.files)?, from, limit);
            loop {
                let position = batches.position();
                if bytes >= max_bytes && bytes > 0 {
                    let next = ScrubCursor { segment: segment.base, position, generation };
                    return Ok(ScrubStep { next, bytes, found: None, finished: false });
                }
                let (offset, reason) = match batches.next() {
                    Ok(None) => break,
                    Ok(Some((header, batch))) => {
                        bytes += batch.len() as u64;
                        if crc_matches(&batch) {
                            continue;
                        }
                        (header.base_offset, "the checksum of the batch is wrong".to_owned())
                    }
                    Err(ScanError::Io(error)) => return Err(error.into()),
                    Err(ScanError::Invalid { error, .. }) => (segment.base, error.to_string()),
                };
                let found = Some(Damage { from: offset, segment: segment.base, position, reason });
                return Ok(ScrubStep { next: after, bytes, found, finished: next.is_none() });
            }
        }
        Ok(ScrubStep { next: ScrubCursor::default(), bytes, found: None, finished: true })
    }
}
