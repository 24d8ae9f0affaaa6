//! What a topic's settings mean to its logs.
//!
//! The one place where Kafka's topic configs become the settings of `ottla_log` and `ottla_replica`.

use ottla_log::LogConfig;
use ottla_metadata::config::{Durability as TopicDurability, TopicConfig};
use ottla_replica::{Durability, Settings};
use ottla_types::Tick;

/// The log settings of a partition. `segment_limit` closes segments early where a retention budget needs it.
pub(crate) fn log_config(config: &TopicConfig, segment_limit: u64) -> LogConfig {
    // A record must be in a closed segment to be compacted in time.
    let lag_ms = if config.cleanup_policy.compact { config.max_compaction_lag_ms } else { i64::MAX };
    LogConfig {
        segment_bytes: u64::from(config.segment_bytes),
        roll_bytes: segment_limit,
        segment_ms: config.segment_ms.min(lag_ms),
        segment_jitter_ms: config.segment_jitter_ms,
        index_interval_bytes: config.index_interval_bytes,
        segment_index_bytes: config.segment_index_bytes,
        preallocate: config.preallocate,
        // Readers keep a removed segment's file open for as long as they need it, so nothing has to wait: a retention
        // budget is about the disk as it is. Kafka's `file.delete.delay.ms` is stored and reported.
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    }
}

pub(crate) fn durability(config: &TopicConfig) -> Durability {
    match config.durability {
        TopicDurability::Fsync => Durability::Fsync,
        TopicDurability::Replicated => Durability::Replicated,
    }
}

/// What a replica has to know of its topic. `lag_max_ms` is the broker's `replica.lag.time.max.ms`.
pub(crate) fn replica_settings(config: &TopicConfig, lag_max_ms: u64) -> Settings {
    Settings {
        durability: durability(config),
        min_insync_replicas: config.min_insync_replicas as usize,
        lag_max: Tick(lag_max_ms),
    }
}
