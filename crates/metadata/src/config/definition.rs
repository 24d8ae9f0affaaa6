//! One row of the config tables, and how the rows are looked up and checked.
//!
//! What is not here: the rows (`topic.rs`, `broker.rs`, `group.rs`) and what a value must look like (`valid.rs`).

use super::{ConfigError, Valid, broker, check_limits, group, topic};

/// Whose configs: a topic's, a broker's or a group's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Resource type 2 on the wire.
    Topic,
    /// Resource type 4 on the wire; with an empty name, every broker's.
    Broker,
    /// Resource type 32 on the wire.
    Group,
}

/// The type of a config, with Kafka's codes (KIP-569).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// Any text.
    String,
    /// A 32-bit whole number.
    Int,
    /// A 64-bit whole number.
    Long,
    /// A decimal number.
    Double,
    /// Values separated by commas.
    List,
}

/// How much of a config Ottla honours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Its behaviour is enforced.
    Enforced,
    /// It is stored and reported; its effect may be nil.
    Stored,
    /// It is reported with its default; another value is refused until the feature is there.
    Later,
}

/// When a config may change: Kafka's update modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only at a restart.
    ReadOnly,
    /// At run time, for one broker or as the default of all.
    ClusterWide,
}

/// Another name for the same setting, and what its unit is worth in the unit of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The broker config's name.
    pub name: &'static str,
    /// How many of the topic config's units make one of this (3,600,000 for hours against milliseconds).
    pub unit: i64,
}

/// One config: everything that is known about it before anybody sets it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Definition {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its default as text; `None` is Kafka's null, which means that a synonym or another config decides.
    pub default: Option<&'static str>,
    /// What its value must look like.
    pub valid: Valid,
    /// Broker configs of the same meaning, the one that wins first.
    pub synonyms: &'static [Synonym],
    /// How much of it is honoured.
    pub need: Need,
    /// When it may change.
    pub change: Change,
    /// Where every value but the default is refused: what is missing and what to use instead, the end of a sentence.
    pub lacking: Option<&'static str>,
    /// What it does, in one or two sentences.
    pub documentation: &'static str,
}

impl Kind {
    /// The code in a DescribeConfigs answer (v3+).
    pub fn code(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::String => 2,
            Kind::Int => 3,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
        }
    }
}

impl Scope {
    /// Every config of this scope, sorted by name.
    pub fn definitions(self) -> &'static [Definition] {
        match self {
            Scope::Topic => topic::CONFIGS,
            Scope::Broker => broker::CONFIGS,
            Scope::Group => group::CONFIGS,
        }
    }

    /// The config of that name, if there is one.
    pub fn find(self, name: &str) -> Option<&'static Definition> {
        let all = self.definitions();
        all.binary_search_by(|definition| definition.name.cmp(name)).ok().and_then(|index| all.get(index))
    }

    /// Whether `key` may be set to `value` here: the name known, the value right, and something behind it.
    ///
    /// # Errors
    /// See [`ConfigError`]. A name that is unknown at broker level passes, because plug-ins of Kafka's world define
    /// their own; one that begins with `ottla.` never does.
    pub fn validate(self, key: &str, value: &str) -> Result<(), ConfigError> {
        check_limits(key, value)?;
        match self.find(key) {
            Some(definition) => definition.check(value),
            None if key.starts_with("ottla.") => {
                Err(ConfigError::UnknownOttlaKey { key: key.to_owned(), hint: nearest(self, key) })
            }
            None => match self {
                Scope::Topic => Err(ConfigError::UnknownKey { scope: "topic", key: key.to_owned() }),
                Scope::Group => Err(ConfigError::UnknownKey { scope: "group", key: key.to_owned() }),
                Scope::Broker => Ok(()),
            },
        }
    }
}

impl Definition {
    /// Whether this config may hold `value`, and Ottla can do what it says.
    pub fn check(&self, value: &str) -> Result<(), ConfigError> {
        self.valid.check(self.kind, value).map_err(|expected| ConfigError::Invalid {
            key: self.name.to_owned(),
            value: value.to_owned(),
            expected,
        })?;
        match self.lacking {
            Some(because) if self.default.unwrap_or_default() != value.trim() => {
                Err(ConfigError::Lacking { key: self.name.to_owned(), value: value.to_owned(), because })
            }
            _ => Ok(()),
        }
    }
}

/// A sentence that names the config of ours nearest to a misspelt one.
fn nearest(scope: Scope, key: &str) -> String {
    let ours = scope.definitions().iter().map(|definition| definition.name).filter(|name| name.starts_with("ottla."));
    match ours.min_by_key(|name| distance(name, key)) {
        Some(name) => format!("did you mean {name}?"),
        None => "no config of that name exists".to_owned(),
    }
}

/// Levenshtein distance in bytes; both names are short.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(b.bytes()) {
            let replace = diagonal + usize::from(from != to);
            diagonal = *cell;
            left = replace.min(*cell + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

// The words the tables are written with.

/// A broker config of the same unit.
pub(super) const fn same(name: &'static str) -> Synonym {
    Synonym { name, unit: 1 }
}

/// A broker config whose unit is `unit` of the topic config's.
pub(super) const fn times(name: &'static str, unit: i64) -> Synonym {
    Synonym { name, unit }
}

const fn new(name: &'static str, kind: Kind, default: Option<&'static str>, doc: &'static str) -> Definition {
    Definition {
        name,
        kind,
        default,
        valid: Valid::Any,
        synonyms: &[],
        need: Need::Enforced,
        change: Change::ReadOnly,
        lacking: None,
        documentation: doc,
    }
}

pub(super) const fn boolean(name: &'static str, default: &'static str, doc: &'static str) -> Definition {
    new(name, Kind::Boolean, Some(default), doc)
}

pub(super) const fn text(name: &'static str, default: &'static str, doc: &'static str) -> Definition {
    new(name, Kind::String, Some(default), doc)
}

pub(super) const fn int(name: &'static str, default: &'static str, doc: &'static str) -> Definition {
    new(name, Kind::Int, Some(default), doc)
}

pub(super) const fn long(name: &'static str, default: &'static str, doc: &'static str) -> Definition {
    new(name, Kind::Long, Some(default), doc)
}

pub(super) const fn double(name: &'static str, default: &'static str, doc: &'static str) -> Definition {
    new(name, Kind::Double, Some(default), doc)
}

pub(super) const fn list(name: &'static str, default: &'static str, doc: &'static str) -> Definition {
    new(name, Kind::List, Some(default), doc)
}

impl Definition {
    pub(super) const fn unset(mut self) -> Self {
        self.default = None;
        self
    }

    pub(super) const fn valid(mut self, valid: Valid) -> Self {
        self.valid = valid;
        self
    }

    pub(super) const fn at_least(self, min: i64) -> Self {
        self.valid(Valid::Between(min, i64::MAX))
    }

    pub(super) const fn synonyms(mut self, synonyms: &'static [Synonym]) -> Self {
        self.synonyms = synonyms;
        self
    }

    /// Stored and reported, with no promise of an effect.
    pub(super) const fn stored(mut self) -> Self {
        self.need = Need::Stored;
        self
    }

    /// Reported with its default, refused otherwise.
    pub(super) const fn later(mut self, because: &'static str) -> Self {
        self.need = Need::Later;
        self.lacking = Some(because);
        self
    }

    /// May change at run time.
    pub(super) const fn dynamic(mut self) -> Self {
        self.change = Change::ClusterWide;
        self
    }

    /// The broker-wide default of a topic config: same type, values and refusals, another name.
    pub(super) const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }
}
