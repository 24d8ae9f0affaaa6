//! What a log is told about itself: sizes, ages and intervals, with Kafka's defaults.
//!
//! Not here: retention, which the node decides over all logs, and where the values come from.

/// Settings of one log. May be replaced while it runs (`Log::set_config`); what exists already keeps its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment is closed before it would pass this many bytes (`segment.bytes`), and a larger batch is refused; at
    /// most 2^31 - 1 counts.
    pub segment_bytes: u64,
    /// Fewer bytes than that, at which a segment is closed already so that retention can take it. A larger batch has a
    /// segment for itself.
    pub roll_bytes: u64,
    /// A segment is closed when a batch is this many milliseconds newer than its first (`segment.ms`).
    pub segment_ms: i64,
    /// Milliseconds taken off `segment_ms` for this log, drawn by the owner from `segment.jitter.ms`, so that many
    /// logs do not roll at once.
    pub segment_jitter_ms: i64,
    /// Bytes of data between two index entries (`index.interval.bytes`).
    pub index_interval_bytes: u32,
    /// A segment is closed when its index reaches this many bytes (`segment.index.bytes`).
    pub segment_index_bytes: u32,
    /// Reserve a whole segment when it is created (`preallocate`), and not step by step.
    pub preallocate: bool,
    /// Milliseconds a removed segment's files stay, renamed, for readers that are on them
    /// (`file.delete.delay.ms`).
    pub file_delete_delay_ms: i64,
    /// A sync that comes after this many new bytes is also a checkpoint: it syncs the index and a producer snapshot,
    /// and moves the recovery point. Bounds what a recovery reads.
    pub checkpoint_bytes: u64,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            segment_bytes: 1 << 30,
            roll_bytes: u64::MAX,
            segment_ms: 7 * 24 * 60 * 60 * 1000,
            segment_jitter_ms: 0,
            index_interval_bytes: 4096,
            segment_index_bytes: 10 << 20,
            preallocate: false,
            file_delete_delay_ms: 60_000,
            checkpoint_bytes: 16 << 20,
        }
    }
}
