//! What a log says of its segments, for retention and for people.
//!
//! Which of them are too old or too many is the node's decision; `retire.rs` takes them away.

use std::sync::Arc;

use ottla_types::{Offset, Timestamp};

use crate::{log::Log, segment::Segment};

/// One segment, for retention and for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its first offset.
    pub base: Offset,
    /// The offset after its last.
    pub end: Offset,
    /// Bytes of its data file.
    pub size: u64,
    /// Its largest timestamp; -1 when empty, the largest possible when it cannot be read, so that nothing expires
    /// because of it.
    pub largest_timestamp: Timestamp,
    /// Whether it is closed for writing.
    pub sealed: bool,
}

impl Log {
    /// The segments, oldest first; the last is the active one.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let files = &self.shared.files;
        let info = |segment: &Arc<Segment>| {
            let end = segment.end();
            SegmentInfo {
                base: segment.base,
                end: end.offset,
                size: end.position,
                largest_timestamp: segment.largest_timestamp(files).unwrap_or(Timestamp(i64::MAX)),
                sealed: segment.is_sealed(),
            }
        };
        self.shared.segments.load().iter().map(info).collect()
    }

    /// Whether there is no batch, not even below the start.
    pub fn is_empty(&self) -> bool {
        self.size_in_bytes() == 0
    }

    /// Bytes of all segments.
    pub fn size_in_bytes(&self) -> u64 {
        self.shared.segments.load().iter().map(|segment| segment.end().position).sum()
    }
}
