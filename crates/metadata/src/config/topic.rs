//! The configs of a topic: Kafka's 33 (4.3) and three of ours, sorted by name.
//!
//! What is not here: the broker-wide defaults they fall back to (`broker.rs`), and their typed form (`typed.rs`).

use super::{
    Definition, Synonym, Valid,
    definition::{boolean, double, int, list, long, same, text, times},
};

/// Largest 64-bit value: Kafka's way to say "never".
const MAX: &str = "9223372036854775807";
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

const NO_TIERING: &str = "Ottla has no tiered storage; keep the default";

/// The synonyms of `retention.ms`, the most precise first.
pub(super) const RETENTION_MS: &[Synonym] =
    &[same("log.retention.ms"), times("log.retention.minutes", MINUTE_MS), times("log.retention.hours", HOUR_MS)];
/// The synonyms of `segment.ms`.
pub(super) const ROLL_MS: &[Synonym] = &[same("log.roll.ms"), times("log.roll.hours", HOUR_MS)];
/// The synonyms of `segment.jitter.ms`.
pub(super) const ROLL_JITTER_MS: &[Synonym] = &[same("log.roll.jitter.ms"), times("log.roll.jitter.hours", HOUR_MS)];
/// The synonyms of `flush.ms`.
pub(super) const FLUSH_MS: &[Synonym] = &[same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")];

pub(super) const CLEANUP_POLICY: Definition = list(
    "cleanup.policy",
    "delete",
    "What happens to old records: delete removes them by age and size, compact keeps the last of each key, an empty \
     list keeps everything.",
)
.valid(Valid::SomeOf(&["compact", "delete"]))
.synonyms(&[same("log.cleanup.policy")])
.dynamic();

pub(super) const COMPRESSION_GZIP_LEVEL: Definition = int(
    "compression.gzip.level",
    "-1",
    "How hard gzip tries where compression.type is gzip: 1 is fastest, 9 smallest, -1 the library's own choice.",
)
.valid(Valid::MinusOneOr(1, 9))
.synonyms(&[same("compression.gzip.level")])
.dynamic();

pub(super) const COMPRESSION_LZ4_LEVEL: Definition =
    int("compression.lz4.level", "9", "How hard lz4 tries where compression.type is lz4, from 1 to 17.")
        .valid(Valid::Between(1, 17))
        .stored()
        .synonyms(&[same("compression.lz4.level")])
        .dynamic();

pub(super) const COMPRESSION_TYPE: Definition =
    text("compression.type", "producer", "The codec batches are stored with; producer keeps what the producer chose.")
        .valid(Valid::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]))
        .synonyms(&[same("compression.type")])
        .dynamic();

pub(super) const COMPRESSION_ZSTD_LEVEL: Definition =
    int("compression.zstd.level", "3", "How hard zstd tries where compression.type is zstd, from -131072 to 22.")
        .valid(Valid::Between(-131_072, 22))
        .synonyms(&[same("compression.zstd.level")])
        .dynamic();

pub(super) const DELETE_RETENTION_MS: Definition = long(
    "delete.retention.ms",
    "86400000",
    "How long a compacted topic keeps the tombstone of a deleted key, in milliseconds.",
)
.at_least(0)
.synonyms(&[same("log.cleaner.delete.retention.ms")])
.dynamic();

pub(super) const FILE_DELETE_DELAY_MS: Definition = long(
    "file.delete.delay.ms",
    "60000",
    "How long the files of a removed segment stay on disk before they are unlinked, in milliseconds.",
)
.at_least(0)
.stored()
.synonyms(&[same("log.segment.delete.delay.ms")])
.dynamic();

pub(super) const FLUSH_MESSAGES: Definition = long(
    "flush.messages",
    MAX,
    "The log is synced to disk once this many records are waiting. Topics with ottla.durability=fsync are synced \
     before they are acknowledged anyway.",
)
.at_least(1)
.synonyms(&[same("log.flush.interval.messages")])
.dynamic();

pub(super) const FLUSH_MS_CONFIG: Definition = long(
    "flush.ms",
    MAX,
    "The log is synced to disk once a record has waited this long, in milliseconds. Topics with \
     ottla.durability=fsync are synced before they are acknowledged anyway.",
)
.at_least(0)
.synonyms(FLUSH_MS)
.dynamic();

pub(super) const INDEX_INTERVAL_BYTES: Definition =
    int("index.interval.bytes", "4096", "About how many bytes of log lie between two entries of the offset index.")
        .at_least(0)
        .stored()
        .synonyms(&[same("log.index.interval.bytes")])
        .dynamic();

pub(super) const LOCAL_RETENTION_BYTES: Definition = long(
    "local.retention.bytes",
    "-2",
    "How much of a tiered partition stays on the local disk, in bytes; -2 means retention.bytes.",
)
.at_least(-2)
.later(NO_TIERING)
.synonyms(&[same("log.local.retention.bytes")])
.dynamic();

pub(super) const LOCAL_RETENTION_MS: Definition = long(
    "local.retention.ms",
    "-2",
    "How long a tiered partition stays on the local disk, in milliseconds; -2 means retention.ms.",
)
.at_least(-2)
.later(NO_TIERING)
.synonyms(&[same("log.local.retention.ms")])
.dynamic();

pub(super) const MAX_COMPACTION_LAG_MS: Definition = long(
    "max.compaction.lag.ms",
    MAX,
    "The longest a record of a compacted topic may stay uncompacted, in milliseconds.",
)
.at_least(1)
.synonyms(&[same("log.cleaner.max.compaction.lag.ms")])
.dynamic();

pub(super) const MAX_MESSAGE_BYTES: Definition = int(
    "max.message.bytes",
    "1048588",
    "The largest record batch this topic takes, in bytes as it is sent (compressed, if it is).",
)
.at_least(0)
.synonyms(&[same("message.max.bytes")])
.dynamic();

pub(super) const MESSAGE_TIMESTAMP_AFTER_MAX_MS: Definition = long(
    "message.timestamp.after.max.ms",
    "3600000",
    "How far a record's own timestamp may lie ahead of the broker's clock, in milliseconds, before it is refused.",
)
.at_least(0)
.synonyms(&[same("log.message.timestamp.after.max.ms")])
.dynamic();

pub(super) const MESSAGE_TIMESTAMP_BEFORE_MAX_MS: Definition = long(
    "message.timestamp.before.max.ms",
    MAX,
    "How far a record's own timestamp may lie behind the broker's clock, in milliseconds, before it is refused.",
)
.at_least(0)
.synonyms(&[same("log.message.timestamp.before.max.ms")])
.dynamic();

pub(super) const MESSAGE_TIMESTAMP_TYPE: Definition = text(
    "message.timestamp.type",
    "CreateTime",
    "Whose time a record carries: the producer's (CreateTime) or the broker's at append (LogAppendTime).",
)
.valid(Valid::OneOf(&["CreateTime", "LogAppendTime"]))
.synonyms(&[same("log.message.timestamp.type")])
.dynamic();

pub(super) const MIN_CLEANABLE_DIRTY_RATIO: Definition = double(
    "min.cleanable.dirty.ratio",
    "0.5",
    "The share of a compacted log that must be uncompacted before it is worth compacting.",
)
.valid(Valid::Fraction(0.0, 1.0))
.synonyms(&[same("log.cleaner.min.cleanable.ratio")])
.dynamic();

pub(super) const MIN_COMPACTION_LAG_MS: Definition = long(
    "min.compaction.lag.ms",
    "0",
    "The shortest a record of a compacted topic stays uncompacted, in milliseconds.",
)
.at_least(0)
.synonyms(&[same("log.cleaner.min.compaction.lag.ms")])
.dynamic();

pub(super) const MIN_INSYNC_REPLICAS: Definition =
    int("min.insync.replicas", "1", "How many replicas must be in sync for a write with acks=all to be taken.")
        .at_least(1)
        .synonyms(&[same("min.insync.replicas")])
        .dynamic();

pub(super) const OTTLA_DURABILITY: Definition = text(
    "ottla.durability",
    "fsync",
    "What an acknowledgement of acks=all means: fsync, on disk on every replica in sync; replicated, in the memory of \
     every replica in sync, as Kafka does it.",
)
.valid(Valid::OneOf(&["fsync", "replicated"]))
.synonyms(&[same("ottla.durability")])
.dynamic();

pub(super) const OTTLA_RETENTION_DISK_PERCENT: Definition = double(
    "ottla.retention.disk.percent",
    "-1",
    "The share of the disk that holds it which this topic may fill, all its partitions on the broker together: above 0 \
     and at most 100, or -1 for no limit. The oldest records go first.",
)
.valid(Valid::Percent)
.synonyms(&[same("ottla.retention.disk.percent")])
.dynamic();

pub(super) const OTTLA_RETENTION_TOPIC_BYTES: Definition = long(
    "ottla.retention.topic.bytes",
    "-1",
    "How many bytes this topic may hold on a broker, all its partitions together, or -1 for no limit. The oldest \
     records go first.",
)
.valid(Valid::MinusOneOr(1, i64::MAX))
.synonyms(&[same("ottla.retention.topic.bytes")])
.dynamic();

pub(super) const PREALLOCATE: Definition =
    boolean("preallocate", "false", "Whether a new segment takes its whole size on disk at once.")
        .stored()
        .synonyms(&[same("log.preallocate")])
        .dynamic();

pub(super) const RETENTION_BYTES: Definition = long(
    "retention.bytes",
    "-1",
    "How many bytes each partition may hold before its oldest segments are deleted; -1 for no limit.",
)
.synonyms(&[same("log.retention.bytes")])
.dynamic();

pub(super) const RETENTION_MS_CONFIG: Definition = long(
    "retention.ms",
    "604800000",
    "How long records are kept before their segment is deleted, in milliseconds; -1 for ever.",
)
.at_least(-1)
.synonyms(RETENTION_MS)
.dynamic();

pub(super) const SEGMENT_BYTES: Definition = int(
    "segment.bytes",
    "1073741824",
    "The size at which a partition begins a new segment file, in bytes; records are deleted a segment at a time.",
)
.at_least(1_048_576)
.synonyms(&[same("log.segment.bytes")])
.dynamic();

pub(super) const SEGMENT_INDEX_BYTES: Definition = int(
    "segment.index.bytes",
    "10485760",
    "The largest an index file may grow, in bytes, before a new segment begins.",
)
.at_least(4)
.stored()
.synonyms(&[same("log.index.size.max.bytes")])
.dynamic();

pub(super) const SEGMENT_JITTER_MS: Definition = long(
    "segment.jitter.ms",
    "0",
    "At most how much segment.ms is shortened by chance, in milliseconds, so that segments do not all roll at once.",
)
.at_least(0)
.stored()
.synonyms(ROLL_JITTER_MS)
.dynamic();

pub(super) const SEGMENT_MS: Definition = long(
    "segment.ms",
    "604800000",
    "The age at which a partition begins a new segment even if it is not full, in milliseconds.",
)
.at_least(1)
.synonyms(ROLL_MS)
.dynamic();

pub(super) const UNCLEAN_LEADER_ELECTION_ENABLE: Definition = boolean(
    "unclean.leader.election.enable",
    "false",
    "Whether a replica that lacks acknowledged records may become leader when no other is left, losing them.",
)
.synonyms(&[same("unclean.leader.election.enable")])
.dynamic();

/// Every topic config, sorted by name.
pub(super) const CONFIGS: &[Definition] = &[
    CLEANUP_POLICY,
    COMPRESSION_GZIP_LEVEL,
    COMPRESSION_LZ4_LEVEL,
    COMPRESSION_TYPE,
    COMPRESSION_ZSTD_LEVEL,
    DELETE_RETENTION_MS,
    FILE_DELETE_DELAY_MS,
    FLUSH_MESSAGES,
    FLUSH_MS_CONFIG,
    list(
        "follower.replication.throttled.replicas",
        "",
        "Replicas whose fetching from leaders is throttled, as partition:broker, or * for all.",
    )
    .valid(Valid::ThrottledReplicas)
    .stored()
    .dynamic(),
    INDEX_INTERVAL_BYTES,
    list(
        "leader.replication.throttled.replicas",
        "",
        "Replicas whose serving of followers is throttled, as partition:broker, or * for all.",
    )
    .valid(Valid::ThrottledReplicas)
    .stored()
    .dynamic(),
    LOCAL_RETENTION_BYTES,
    LOCAL_RETENTION_MS,
    MAX_COMPACTION_LAG_MS,
    MAX_MESSAGE_BYTES,
    MESSAGE_TIMESTAMP_AFTER_MAX_MS,
    MESSAGE_TIMESTAMP_BEFORE_MAX_MS,
    MESSAGE_TIMESTAMP_TYPE,
    MIN_CLEANABLE_DIRTY_RATIO,
    MIN_COMPACTION_LAG_MS,
    MIN_INSYNC_REPLICAS,
    OTTLA_DURABILITY,
    OTTLA_RETENTION_DISK_PERCENT,
    OTTLA_RETENTION_TOPIC_BYTES,
    PREALLOCATE,
    boolean("remote.log.copy.disable", "false", "Whether a tiered topic stops copying segments to the remote tier.")
        .later(NO_TIERING)
        .dynamic(),
    boolean(
        "remote.log.delete.on.disable",
        "false",
        "Whether a topic's remote segments are deleted when tiering is switched off.",
    )
    .later(NO_TIERING)
    .dynamic(),
    boolean("remote.storage.enable", "false", "Whether the topic keeps old segments in a remote tier.")
        .later(NO_TIERING)
        .dynamic(),
    RETENTION_BYTES,
    RETENTION_MS_CONFIG,
    SEGMENT_BYTES,
    SEGMENT_INDEX_BYTES,
    SEGMENT_JITTER_MS,
    SEGMENT_MS,
    UNCLEAN_LEADER_ELECTION_ENABLE,
];
