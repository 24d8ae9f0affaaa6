//! Subscriptions by regular expression: what they may say, and the topics they match.
//!
//! Members write RE2 syntax (Kafka reads it with RE2/J); the `regex` crate reads the same but for rarities, and like
//! RE2 takes time linear in the name, whatever the pattern. A pattern has to match a whole name. Names of topics are
//! ASCII, and so are patterns: classes of other letters (`[é]`, `\pL`) are refused, which saves half a megabyte of
//! tables. What is not here: when patterns are matched (`draft.rs`).

use std::sync::Arc;

use ottla_metadata::{Image, is_internal_topic};
use regex::bytes::{Regex, RegexBuilder};

use crate::Refusal;

/// Room for a compiled pattern; what needs more is refused like one that can't be read. It holds hundreds of names of
/// thirty letters. Names and a pattern that are made for it take milliseconds for each name, any other microseconds:
/// a thread and the groups of a partition wait meanwhile.
const MAX_COMPILED: usize = 1 << 20;

/// Whether the pattern can be read.
///
/// # Errors
/// It can't.
pub(super) fn validate(pattern: &str) -> Result<(), Refusal> {
    match compile(pattern) {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(Refusal::InvalidRegularExpression(format!("SubscribedTopicRegex `{pattern}` is not valid: {error}.")))
        }
    }
}

/// The topics the pattern matches, sorted; internal ones have to be asked for by name. A pattern that can't be read,
/// which another broker let in, matches nothing.
pub(super) fn matching(pattern: &str, image: &Image) -> Vec<Arc<str>> {
    let Ok(regex) = compile(pattern) else { return Vec::new() };
    let names = image.topics().map(|topic| &topic.name);
    names.filter(|name| !is_internal_topic(name) && regex.is_match(name.as_bytes())).cloned().collect()
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    let pattern = unquoted(pattern);
    let compile = |pattern: &str| RegexBuilder::new(pattern).unicode(false).size_limit(MAX_COMPILED).build();
    // First alone: `a)|(b` must not become valid between the parentheses added below.
    compile(&pattern)?;
    compile(&format!("^(?:{pattern})$"))
}

/// The pattern with what stands between `\Q` and `\E` taken letter by letter, as Java's `Pattern.quote` writes it.
fn unquoted(pattern: &str) -> String {
    let mut plain = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((before, escape)) = rest.split_once('\\') {
        plain.push_str(before);
        rest = match escape.strip_prefix('Q') {
            Some(quoted) => {
                let (literal, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
                plain.push_str(&regex::escape(literal));
                after
            }
            None => {
                // A backslash that is escaped itself begins nothing.
                let letter = escape.chars().next();
                plain.push('\\');
                plain.extend(letter);
                &escape[letter.map_or(0, char::len_utf8)..]
            }
        };
    }
    plain.push_str(rest);
    plain
}
