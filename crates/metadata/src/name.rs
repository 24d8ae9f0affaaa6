//! What a topic may be called.
//!
//! What is not here: whether the name is taken (`decide/topics.rs`).

/// Longest name of a topic, in bytes: with a partition's number behind it, it still fits a file name.
pub const MAX_TOPIC_NAME: usize = 249;

/// The internal topic of committed offsets and groups.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The log Kafka keeps its own metadata in: no topic of ours, and nobody may make one that looks like it.
pub(crate) const METADATA_TOPIC: &str = "__cluster_metadata";

/// Whether `name` can be a topic's: 1 to 249 of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`.
///
/// # Errors
/// A sentence for the client, which gets `INVALID_TOPIC_EXCEPTION` (17).
pub fn validate_topic_name(name: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() {
        Err("Topic name is invalid: it must not be empty".to_owned())
    } else if name == "." || name == ".." {
        Err(format!("Topic name is invalid: it must not be '{name}'"))
    } else if name.len() > MAX_TOPIC_NAME {
        let len = name.len();
        Err(format!("Topic name is invalid: it has {len} bytes; at most {MAX_TOPIC_NAME} are allowed"))
    } else if !name.bytes().all(legal) {
        Err(format!(
            "Topic name is invalid: '{name}' holds something other than ASCII letters, digits, '.', '_' and '-'"
        ))
    } else {
        Ok(())
    }
}

/// What Kafka's metrics call a topic, because they turn `.` into `_`: two topics must not share it. `None` for a name
/// that holds neither, and so can't be mixed up with another.
pub(crate) fn metric_name(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

/// Whether the topic belongs to the brokers, as Metadata reports it.
pub fn is_internal_topic(name: &str) -> bool {
    matches!(name, OFFSETS_TOPIC | "__transaction_state" | "__share_group_state")
}
