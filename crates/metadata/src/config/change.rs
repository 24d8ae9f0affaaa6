//! How a request changes configs: limits, the four incremental operations, and rules between two configs.
//!
//! What is not here: which resource is changed and what is written down (`decide/configs.rs`).

use super::{ConfigError, Kind, Layers, Scope, TopicConfig};

/// Longest name of a config, in bytes; Kafka's own are under 70.
const MAX_KEY: usize = 1024;
/// Longest value, in bytes: Kafka's limit.
const MAX_VALUE: usize = 32_767;

/// Topic configs of older tools that are taken and mean nothing: what they governed went with Kafka 4.0, and a tool
/// that sends them expects no more. They are not stored, so DescribeConfigs does not show them.
const SWALLOWED: [&str; 3] =
    ["message.downconversion.enable", "message.format.version", "message.timestamp.difference.max.ms"];

/// Broker configs of which the first must not exceed the second.
const ASCENDING: [(&str, &str); 7] = [
    ("group.min.session.timeout.ms", "group.max.session.timeout.ms"),
    ("group.consumer.min.session.timeout.ms", "group.consumer.session.timeout.ms"),
    ("group.consumer.session.timeout.ms", "group.consumer.max.session.timeout.ms"),
    ("group.consumer.min.heartbeat.interval.ms", "group.consumer.heartbeat.interval.ms"),
    ("group.consumer.heartbeat.interval.ms", "group.consumer.max.heartbeat.interval.ms"),
    ("group.consumer.min.assignment.interval.ms", "group.consumer.assignment.interval.ms"),
    ("group.consumer.assignment.interval.ms", "group.consumer.max.assignment.interval.ms"),
];

/// One incremental operation (KIP-339).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The config gets this value.
    Set(String),
    /// The config goes back to what holds without it.
    Delete,
    /// These entries join the list, if they are not in it.
    Append(String),
    /// These entries leave the list.
    Subtract(String),
}

/// Whether name and value are short enough to be looked at.
pub fn check_limits(key: &str, value: &str) -> Result<(), ConfigError> {
    let shown = || key.chars().take(64).collect();
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(ConfigError::TooLong { what: "name", key: shown(), len: key.len(), max: MAX_KEY });
    }
    if value.len() > MAX_VALUE {
        return Err(ConfigError::TooLong { what: "value", key: shown(), len: value.len(), max: MAX_VALUE });
    }
    Ok(())
}

/// Whether `key` is a topic config that is taken without effect.
pub(crate) fn is_swallowed(scope: Scope, key: &str) -> bool {
    scope == Scope::Topic && SWALLOWED.contains(&key)
}

/// The entries of a list, trimmed, empty ones left out.
pub(crate) fn split_list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

impl Operation {
    /// What `key` holds afterwards: `None` when it is to be removed. `current` is what is set on this very resource.
    pub(crate) fn result(&self, scope: Scope, key: &str, current: Option<&str>) -> Result<Option<String>, ConfigError> {
        let (value, append) = match self {
            Operation::Set(value) => return Ok(Some(value.clone())),
            Operation::Delete => return Ok(None),
            Operation::Append(value) => (value, true),
            Operation::Subtract(value) => (value, false),
        };
        let definition = scope.find(key).filter(|definition| definition.kind == Kind::List).ok_or_else(|| {
            ConfigError::NotAList { key: key.to_owned(), operation: if append { "APPEND" } else { "SUBTRACT" } }
        })?;
        let before = current.or(definition.default).unwrap_or_default();
        let mut entries: Vec<&str> = split_list(before).collect();
        for entry in split_list(value) {
            if !append {
                entries.retain(|&kept| kept != entry);
            } else if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        Ok(Some(entries.join(",")))
    }
}

/// Rules between configs, checked on what will hold after the change.
pub(crate) fn check_together(config: TopicConfig) -> Result<(), ConfigError> {
    if config.min_compaction_lag_ms > config.max_compaction_lag_ms {
        return Err(ConfigError::Conflict {
            key: "min.compaction.lag.ms",
            value: config.min_compaction_lag_ms.to_string(),
            other: "max.compaction.lag.ms",
            other_value: config.max_compaction_lag_ms.to_string(),
            rule: "the shortest lag must not exceed the longest",
        });
    }
    Ok(())
}

/// Rules between the broker configs of groups, checked on what these layers would make hold.
pub(crate) fn check_groups(layers: &Layers<'_>) -> Result<(), ConfigError> {
    let value = |key: &str| layers.broker_value(key).unwrap_or_default().trim().to_owned();
    let number = |key: &str| value(key).parse::<i64>().unwrap_or_default();
    let conflict =
        |key, other, rule| ConfigError::Conflict { key, value: value(key), other, other_value: value(other), rule };
    for (key, other) in ASCENDING {
        if number(key) > number(other) {
            return Err(conflict(key, other, "the first must not exceed the second"));
        }
    }
    let (heartbeat, session) = ("group.consumer.heartbeat.interval.ms", "group.consumer.session.timeout.ms");
    if number(heartbeat) >= number(session) {
        return Err(conflict(heartbeat, session, "members must report more often than they are given up"));
    }
    let protocols = "group.coordinator.rebalance.protocols";
    if !split_list(&value(protocols)).any(|protocol| protocol == "classic") {
        return Err(ConfigError::Invalid {
            key: protocols.to_owned(),
            value: value(protocols),
            expected: "a list with classic in it, which cannot be switched off".to_owned(),
        });
    }
    Ok(())
}
