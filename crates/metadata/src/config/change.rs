//! How a request changes configs: limits, the four incremental operations, and rules between two configs.
//!
//! What is not here: which resource is changed and what is written down (`decide/configs.rs`).

use super::{ConfigError, Kind, Layers, Overrides, Scope, TopicConfig};

/// Longest name of a config, in bytes; Kafka's own are under 70.
const MAX_KEY: usize = 1024;
/// Longest value, in bytes: Kafka's limit.
const MAX_VALUE: usize = 32_767;

/// Topic configs of older tools that are taken and mean nothing: what they governed went with Kafka 4.0, and a tool
/// that sends them expects no more. They are not stored, so DescribeConfigs does not show them.
const SWALLOWED: [&str; 3] =
    ["message.downconversion.enable", "message.format.version", "message.timestamp.difference.max.ms"];

/// The configs a group may set within the limits of its broker.
const LIMITED: [Limited; 3] = [
    Limited {
        own: "consumer.session.timeout.ms",
        min: "group.consumer.min.session.timeout.ms",
        broker: "group.consumer.session.timeout.ms",
        max: "group.consumer.max.session.timeout.ms",
    },
    Limited {
        own: "consumer.heartbeat.interval.ms",
        min: "group.consumer.min.heartbeat.interval.ms",
        broker: "group.consumer.heartbeat.interval.ms",
        max: "group.consumer.max.heartbeat.interval.ms",
    },
    Limited {
        own: "consumer.assignment.interval.ms",
        min: "group.consumer.min.assignment.interval.ms",
        broker: "group.consumer.assignment.interval.ms",
        max: "group.consumer.max.assignment.interval.ms",
    },
];

/// A group's config, the broker's of the same meaning, and the broker's limits for both.
struct Limited {
    own: &'static str,
    min: &'static str,
    broker: &'static str,
    max: &'static str,
}

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
    let of = |key: &'static str| (key, layers.broker_value(key).unwrap_or_default());
    check_ascending(of("group.min.session.timeout.ms"), of("group.max.session.timeout.ms"))?;
    for Limited { min, broker, max, .. } in LIMITED {
        check_ascending(of(min), of(broker))?;
        check_ascending(of(broker), of(max))?;
    }
    check_patience(of("group.consumer.heartbeat.interval.ms"), of("group.consumer.session.timeout.ms"))?;
    let (key, protocols) = of("group.coordinator.rebalance.protocols");
    if !split_list(protocols).any(|protocol| protocol == "classic") {
        return Err(ConfigError::Invalid {
            key: key.to_owned(),
            value: protocols.to_owned(),
            expected: "a list with classic in it, which cannot be switched off".to_owned(),
        });
    }
    Ok(())
}

/// Rules for the configs of one group, given the broker's.
pub(crate) fn check_group(layers: &Layers<'_>, group: &Overrides) -> Result<(), ConfigError> {
    let of_broker = |key: &'static str| (key, layers.broker_value(key).unwrap_or_default());
    let own = |key: &'static str| group.get(key).map(|value| (key, value.as_str()));
    for Limited { own: key, min, max, .. } in LIMITED {
        if let Some(own) = own(key) {
            check_ascending(of_broker(min), own)?;
            check_ascending(own, of_broker(max))?;
        }
    }
    let heartbeat = own("consumer.heartbeat.interval.ms");
    let session = own("consumer.session.timeout.ms");
    check_patience(
        heartbeat.unwrap_or_else(|| of_broker("group.consumer.heartbeat.interval.ms")),
        session.unwrap_or_else(|| of_broker("group.consumer.session.timeout.ms")),
    )
}

/// A config and its value.
type Held<'a> = (&'static str, &'a str);

fn check_ascending(least: Held<'_>, most: Held<'_>) -> Result<(), ConfigError> {
    check_pair(least, most, |least, most| least <= most, "the first must not exceed the second")
}

fn check_patience(heartbeat: Held<'_>, session: Held<'_>) -> Result<(), ConfigError> {
    let rule = "members must report more often than a quiet one is given up";
    check_pair(heartbeat, session, |heartbeat, session| heartbeat < session, rule)
}

fn check_pair(
    (key, value): Held<'_>,
    (other, other_value): Held<'_>,
    holds: fn(i64, i64) -> bool,
    rule: &'static str,
) -> Result<(), ConfigError> {
    // Every value here was accepted as a number before.
    let number = |value: &str| value.trim().parse().unwrap_or_default();
    if holds(number(value), number(other_value)) {
        return Ok(());
    }
    Err(ConfigError::Conflict { key, value: value.to_owned(), other, other_value: other_value.to_owned(), rule })
}
