//! What a value must look like, and how a person is told when it does not.
//!
//! What is not here: which config has which rule (the tables), and rules between two configs (`change.rs`).

use super::{Kind, split_list};

/// The rule a value must keep, beyond being of its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Valid {
    /// Anything of the type.
    Any,
    /// A whole number from the first to the second, both included.
    Between(i64, i64),
    /// -1, or a whole number in the range.
    MinusOneOr(i64, i64),
    /// A decimal number from the first to the second, both included.
    Fraction(f64, f64),
    /// -1 for no limit, or a decimal number above 0 and at most 100.
    Percent,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// One of these words, in lower or upper case.
    OneOfAnyCase(&'static [&'static str]),
    /// A list of these words, none twice; it may be empty.
    SomeOf(&'static [&'static str]),
    /// A list of these words, none twice, with at least one.
    OneOrMoreOf(&'static [&'static str]),
    /// A list of at most one entry.
    AtMostOne,
    /// `*`, or a list of `partition:broker`.
    ThrottledReplicas,
    /// `latest`, `earliest`, or `by_duration:` and a duration of ISO 8601.
    OffsetReset,
    /// A list of `NAME://host:port`, all in plain text.
    Endpoints,
    /// A list of `LISTENER:PLAINTEXT`.
    ProtocolMap,
}

impl Valid {
    /// Checks `value`; the error says what would be right.
    pub(super) fn check(self, kind: Kind, value: &str) -> Result<(), String> {
        if self.holds(kind, value.trim()) { Ok(()) } else { Err(self.expected(kind)) }
    }

    fn holds(self, kind: Kind, value: &str) -> bool {
        match kind {
            Kind::Boolean => parse_bool(value).is_some(),
            Kind::Int => value.parse::<i32>().is_ok_and(|number| self.holds_number(number.into())),
            Kind::Long => value.parse::<i64>().is_ok_and(|number| self.holds_number(number)),
            Kind::Double => value.parse::<f64>().is_ok_and(|number| number.is_finite() && self.holds_decimal(number)),
            Kind::String => match self {
                Valid::OneOf(words) => words.contains(&value),
                Valid::OneOfAnyCase(words) => words.iter().any(|word| word.eq_ignore_ascii_case(value)),
                Valid::OffsetReset => is_offset_reset(value),
                _ => true,
            },
            Kind::List => self.holds_list(value),
        }
    }

    fn holds_number(self, number: i64) -> bool {
        match self {
            Valid::Between(min, max) => (min..=max).contains(&number),
            Valid::MinusOneOr(min, max) => number == -1 || (min..=max).contains(&number),
            _ => true,
        }
    }

    fn holds_decimal(self, number: f64) -> bool {
        match self {
            Valid::Fraction(min, max) => (min..=max).contains(&number),
            Valid::Percent => number == -1.0 || (number > 0.0 && number <= 100.0),
            _ => true,
        }
    }

    fn holds_list(self, value: &str) -> bool {
        let entries: Vec<&str> = value.split(',').map(str::trim).collect();
        if value.is_empty() {
            return !matches!(self, Valid::Endpoints | Valid::OneOrMoreOf(_));
        }
        match self {
            Valid::SomeOf(words) | Valid::OneOrMoreOf(words) => {
                entries.iter().enumerate().all(|(i, entry)| words.contains(entry) && !entries[..i].contains(entry))
            }
            Valid::AtMostOne => entries.len() == 1,
            Valid::ThrottledReplicas => value == "*" || entries.iter().all(|entry| is_throttled_replica(entry)),
            Valid::Endpoints => entries.iter().all(|entry| is_plaintext_endpoint(entry)),
            Valid::ProtocolMap => split_list(value).all(|entry| {
                entry.rsplit_once(':').is_some_and(|(name, protocol)| !name.is_empty() && protocol == "PLAINTEXT")
            }),
            _ => true,
        }
    }

    fn expected(self, kind: Kind) -> String {
        let number = match kind {
            Kind::Int => "a whole number of 32 bits",
            _ => "a whole number",
        };
        match self {
            Valid::Between(min, i64::MAX) => format!("{number}, at least {min}"),
            Valid::Between(min, max) => format!("{number} from {min} to {max}"),
            Valid::MinusOneOr(min, i64::MAX) => format!("-1, or {number}, at least {min}"),
            Valid::MinusOneOr(min, max) => format!("-1, or {number} from {min} to {max}"),
            Valid::Fraction(min, max) => format!("a decimal number from {min} to {max}"),
            Valid::Percent => "a decimal number above 0 and at most 100, or -1 for no limit".to_owned(),
            Valid::OneOf(words) | Valid::OneOfAnyCase(words) => format!("one of {}", words.join(", ")),
            Valid::SomeOf(words) => format!("a list of {}, none twice, or empty", words.join(", ")),
            Valid::OneOrMoreOf(words) => format!("a list of {}, none twice, at least one", words.join(", ")),
            Valid::AtMostOne => "a single entry, without a comma".to_owned(),
            Valid::ThrottledReplicas => "* or a list of partition:broker, such as 0:1,1:2".to_owned(),
            Valid::OffsetReset => "latest, earliest, or by_duration: with a duration such as PT1H behind it".to_owned(),
            Valid::Endpoints => {
                "a list of NAME://host:port such as PLAINTEXT://localhost:9092; TLS and SASL are not served yet"
                    .to_owned()
            }
            Valid::ProtocolMap => "a list of LISTENER:PLAINTEXT; TLS and SASL are not served yet".to_owned(),
            Valid::Any => match kind {
                Kind::Boolean => "true or false".to_owned(),
                Kind::Double => "a decimal number".to_owned(),
                Kind::String => "text".to_owned(),
                Kind::List => "a list separated by commas".to_owned(),
                Kind::Int | Kind::Long => number.to_owned(),
            },
        }
    }
}

/// `true` or `false` in any case, as Kafka reads it.
pub(super) fn parse_bool(value: &str) -> Option<bool> {
    match value.trim() {
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn is_throttled_replica(entry: &str) -> bool {
    entry
        .split_once(':')
        .is_some_and(|(partition, broker)| partition.parse::<u32>().is_ok() && broker.parse::<u32>().is_ok())
}

/// Looks at a duration no closer than for what it could be: nothing reads it until there are share groups.
fn is_offset_reset(value: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_digit() || b"DTHMS.".contains(&byte.to_ascii_uppercase());
    match value.strip_prefix("by_duration:P") {
        Some(duration) => duration.bytes().all(part) && duration.bytes().any(|byte| byte.is_ascii_digit()),
        None => matches!(value, "latest" | "earliest"),
    }
}

fn is_plaintext_endpoint(entry: &str) -> bool {
    // A listener named after a secure protocol is a secure listener unless a map says otherwise.
    let Some((name, address)) = entry.split_once("://") else { return false };
    let secure = ["SSL", "SASL_PLAINTEXT", "SASL_SSL"].iter().any(|protocol| name.eq_ignore_ascii_case(protocol));
    let port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    !name.is_empty() && !secure && port
}
