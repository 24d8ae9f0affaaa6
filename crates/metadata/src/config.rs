//! Every config as data: name, type, default, valid values, synonyms, who may change it when, and one sentence.
//!
//! Kafka's names and defaults wherever Kafka has one; ours begin with `ottla.`. What Ottla does not do yet is refused
//! when it is set, never stored and ignored (`docs/decisions/configs-as-data.md`). What is not here: where a static
//! value came from (flag, environment or file: the caller merges those and hands over the result).
//!
//! Next: `definition.rs` for a row's shape, `topic.rs`, `broker.rs` and `group.rs` for the rows, `resolve.rs` for which
//! value holds, `typed.rs` and `typed_group.rs` for the structs the code reads.

mod broker;
mod change;
mod definition;
mod group;
mod resolve;
mod settings;
mod topic;
mod typed;
mod typed_group;
mod valid;

pub use change::{Operation, check_limits};
pub use definition::{Change, Definition, Kind, Need, Scope, Synonym};
pub use resolve::{Entry, EntrySynonym, Layers, Overrides, Source};
pub use settings::{Settings, Warning};
pub use typed::{BrokerConfig, CleanupPolicy, CompressionType, Durability, TimestampType, TopicConfig};
pub use typed_group::{Assignor, GroupConfig, MigrationPolicy};
pub use valid::Valid;

pub(crate) use change::{check_group, check_groups, check_together, is_swallowed, split_list};

/// Why a config cannot be set. The message names the key, the value and what would be right.
///
/// On a topic or a group all of these are Kafka's `INVALID_CONFIG` (40); on a broker `INVALID_REQUEST` (42), as
/// KAFKA-13609 explains. At start-up each is fatal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such config of a topic or a group; Kafka refuses these too.
    #[error("Unknown {scope} config name: {key}")]
    UnknownKey {
        /// `topic` or `group`.
        scope: &'static str,
        /// The name as it was given.
        key: String,
    },
    /// A name that begins with `ottla.` and is none of ours.
    #[error("Unknown config {key}: {hint}")]
    UnknownOttlaKey {
        /// The name as it was given.
        key: String,
        /// The nearest name we do have, as a sentence.
        hint: String,
    },
    /// The value does not parse, or lies outside what is allowed.
    #[error("Invalid value {value} for configuration {key}: it must be {expected}")]
    Invalid {
        /// The name of the config.
        key: String,
        /// The value as it was given.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// Kafka would take this value and Ottla has nothing behind it yet.
    #[error("{key}={value} is not supported: {because}")]
    Lacking {
        /// The name of the config.
        key: String,
        /// The value as it was given.
        value: String,
        /// What is missing, and what to use instead.
        because: &'static str,
    },
    /// Two configs that are right by themselves contradict each other.
    #[error("{key}={value} contradicts {other}={other_value}: {rule}")]
    Conflict {
        /// The name of the first.
        key: &'static str,
        /// Its value.
        value: String,
        /// The name of the second.
        other: &'static str,
        /// Its value.
        other_value: String,
        /// What must hold between them.
        rule: &'static str,
    },
    /// The broker reads these only when it starts, or only for all brokers together.
    #[error("Cannot update these configs dynamically: {keys}")]
    NotDynamic {
        /// The names, separated by commas.
        keys: String,
    },
    /// No value where one must be.
    #[error("Null value not supported for topic configs: {key}")]
    NullValue {
        /// The name of the config.
        key: String,
    },
    /// APPEND or SUBTRACT on something that is not a list.
    #[error("Can't {operation} to key {key} because its type is not LIST.")]
    NotAList {
        /// The name of the config.
        key: String,
        /// APPEND or SUBTRACT.
        operation: &'static str,
    },
    /// Longer than a name or value may be.
    #[error("The configuration {what} of {key} has {len} bytes; at most {max} are allowed")]
    TooLong {
        /// `name` or `value`.
        what: &'static str,
        /// The name of the config, cut to a readable length.
        key: String,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
}
