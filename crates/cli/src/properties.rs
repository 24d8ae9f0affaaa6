//! Reads the two forms of a config file into keys and values: Kafka's `server.properties`, and TOML.
//!
//! Not here: what the keys mean (`settings.rs`).

use std::path::Path;

use crate::failure::Failure;

/// Keys and values of a file, in its order. A name that ends in `.properties` makes it a Java properties file, anything
/// else is TOML.
pub(crate) fn read(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read the config file {shown}: {error}")))?;
    if path.extension().is_some_and(|extension| extension == "properties") {
        return properties(&text).map_err(|line| Failure::usage(format!("{shown}, line {line}: a bad \\u escape")));
    }
    let table: toml::Table = text.parse().map_err(|error| Failure::usage(format!("{shown} is not TOML: {error}")))?;
    let mut pairs = Vec::new();
    flatten("", &table, &mut pairs)
        .map_err(|key| Failure::usage(format!("{shown}: {key} must be a string, a number, true, false, or a list")))?;
    Ok(pairs)
}

/// `[log.retention] ms = 5` is `log.retention.ms=5`.
fn flatten(prefix: &str, table: &toml::Table, pairs: &mut Vec<(String, String)>) -> Result<(), String> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(table) => flatten(&key, table, pairs)?,
            toml::Value::Array(items) => {
                let items: Option<Vec<String>> = items.iter().map(scalar).collect();
                pairs.push((key.clone(), items.ok_or(key)?.join(",")));
            }
            value => {
                let value = scalar(value).ok_or_else(|| key.clone())?;
                pairs.push((key, value));
            }
        }
    }
    Ok(())
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

/// Java's format: `#` and `!` begin comments, a backslash at the end continues the line, `=`, `:` or white space ends
/// the key. The error is the number of a line.
fn properties(text: &str) -> Result<Vec<(String, String)>, usize> {
    let mut pairs = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut logical = line.trim_start().to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        // An odd number of backslashes: the last one escapes the end of the line.
        while (logical.len() - logical.trim_end_matches('\\').len()) % 2 == 1 {
            logical.pop();
            let Some((_, more)) = lines.next() else { break };
            logical.push_str(more.trim_start());
        }
        let (key, value) = split(&logical);
        let unescape = |text: &str| unescape(text).ok_or(number + 1);
        pairs.push((unescape(key)?, unescape(value)?.trim_end().to_owned()));
    }
    Ok(pairs)
}

/// Key and value, still escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|c: char| {
        let ends = !escaped && (c == '=' || c == ':' || c.is_whitespace());
        escaped = !escaped && c == '\\';
        ends
    });
    let Some(end) = end else { return (line, "") };
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start();
    (key, rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start())
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let hex: String = chars.by_ref().take(4).collect();
                out.push(u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32)?);
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_as_java_reads_them() {
        let text = "# comment\n! another\n\n a = 1 \n\
                    b:2\nc 3\nd=x\\\n   y\nlist=a,\\\n  b\nkey\\ with\\:odd=v\\u0041\\t.\nempty\n";
        let pairs = properties(text).unwrap();
        let shown: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let expected = [
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("d", "xy"),
            ("list", "a,b"),
            ("key with:odd", "vA\t."),
            ("empty", ""),
        ];
        assert_eq!(shown, expected);
        assert_eq!(properties("a=1\nb=\\u00g0\n"), Err(2));
    }

    #[test]
    fn toml_tables_become_dotted_keys() {
        let table =
            "data = '/d'\n[log.retention]\nms = 5\n[log.cleaner]\nenable = true\n[x]\ny = ['a', 1]\n".parse().unwrap();
        let mut pairs = Vec::new();
        flatten("", &table, &mut pairs).unwrap();
        pairs.sort();
        let shown: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(shown, ["data=/d", "log.cleaner.enable=true", "log.retention.ms=5", "x.y=a,1"]);
    }
}
