//! How a record is written out: its value, key and value, JSON, or a format string.

use ottla_client::TopicPartition;
use ottla_records::{Record, RecordHeader};
use serde_json::{Value, json};

use crate::output;

/// A way to write a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Parts(Vec<Part>),
}

/// A piece of a format string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Text(Vec<u8>),
    Value,
    Key,
    Offset,
    Partition,
    Topic,
    Timestamp,
    Date,
    Headers,
    ValueSize,
    KeySize,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "value" => return "%v\\n".parse(),
            "key-value" => return "%k\\t%v\\n".parse(),
            "json" => return Ok(Format::Json),
            _ if !text.contains(['%', '\\']) => {
                return Err("a format is value, key-value, json, or a string with % in it".to_owned());
            }
            _ => {}
        }
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let part = match c {
                '\\' => {
                    plain.push(match chars.next() {
                        Some('n') => b'\n',
                        Some('t') => b'\t',
                        Some('r') => b'\r',
                        Some('0') => 0,
                        Some('\\') => b'\\',
                        other => return Err(format!("\\{} is no escape", other.unwrap_or(' '))),
                    });
                    continue;
                }
                '%' => match chars.next() {
                    Some('%') => {
                        plain.push(b'%');
                        continue;
                    }
                    Some('v') => Part::Value,
                    Some('k') => Part::Key,
                    Some('o') => Part::Offset,
                    Some('p') => Part::Partition,
                    Some('t') => Part::Topic,
                    Some('T') => Part::Timestamp,
                    Some('d') => Part::Date,
                    Some('h') => Part::Headers,
                    Some('V') => Part::ValueSize,
                    Some('K') => Part::KeySize,
                    other => return Err(format!("%{} means nothing, see --help", other.unwrap_or(' '))),
                },
                other => {
                    plain.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(part);
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Format::Parts(parts))
    }
}

impl Format {
    /// Appends the record to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, at: &TopicPartition, record: &Record) {
        let parts = match self {
            Format::Json => {
                out.extend_from_slice(to_json(at, record).to_string().as_bytes());
                out.push(b'\n');
                return;
            }
            Format::Parts(parts) => parts,
        };
        for part in parts {
            let text = match part {
                Part::Text(text) => {
                    out.extend_from_slice(text);
                    continue;
                }
                Part::Value => {
                    out.extend_from_slice(record.value.as_deref().unwrap_or_default());
                    continue;
                }
                Part::Key => {
                    out.extend_from_slice(record.key.as_deref().unwrap_or_default());
                    continue;
                }
                Part::Headers => {
                    headers(out, &record.headers);
                    continue;
                }
                Part::Offset => record.offset.to_string(),
                Part::Partition => at.partition.to_string(),
                Part::Topic => at.topic.to_string(),
                Part::Timestamp => record.timestamp.to_string(),
                Part::Date => output::time(record.timestamp.0),
                Part::ValueSize => size(record.value.as_deref()),
                Part::KeySize => size(record.key.as_deref()),
            };
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// Bytes, or -1 for null, as kcat has it.
fn size(bytes: Option<&[u8]>) -> String {
    bytes.map_or("-1".to_owned(), |bytes| bytes.len().to_string())
}

fn headers(out: &mut Vec<u8>, headers: &[RecordHeader]) {
    for (number, header) in headers.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&header.key);
        out.push(b'=');
        out.extend_from_slice(header.value.as_deref().unwrap_or_default());
    }
}

/// A record as JSON. Bytes that are not UTF-8 become an object with the member `base64`.
pub(crate) fn to_json(at: &TopicPartition, record: &Record) -> Value {
    let mut value = record_json(record);
    if let Value::Object(members) = &mut value {
        members.insert("topic".to_owned(), json!(&*at.topic));
        members.insert("partition".to_owned(), json!(at.partition.0));
    }
    value
}

/// A record as JSON, without its topic.
pub(crate) fn record_json(record: &Record) -> Value {
    let headers: Vec<_> = record
        .headers
        .iter()
        .map(|header| json!({ "key": text(Some(&header.key)), "value": text(header.value.as_deref()) }))
        .collect();
    json!({
        "offset": record.offset.0,
        "timestamp": record.timestamp.0,
        "key": text(record.key.as_deref()),
        "value": text(record.value.as_deref()),
        "headers": headers,
    })
}

fn text(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => Value::Null,
        Some((Ok(text), _)) => json!(text),
        Some((Err(_), bytes)) => json!({ "base64": base64(bytes) }),
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let used = digit <= group.len();
            let index = (bits >> (18 - 6 * digit) & 0x3f) as usize;
            out.push(if used { char::from(DIGITS[index]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use ottla_types::{Offset, PartitionIndex, Timestamp};

    use super::*;

    fn record() -> Record {
        Record {
            offset: Offset(5),
            timestamp: Timestamp(1_700_000_000_123),
            key: None,
            value: Some("v\u{e9}".into()),
            headers: vec![
                RecordHeader { key: "h".into(), value: None },
                RecordHeader { key: "h".into(), value: Some(vec![0xff].into()) },
            ],
        }
    }

    fn written(format: &str) -> String {
        let mut out = Vec::new();
        let at = TopicPartition::new("t", PartitionIndex(3));
        format.parse::<Format>().unwrap().write(&mut out, &at, &record());
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn formats_write_what_they_name() {
        assert_eq!(written("value"), "v\u{e9}\n");
        assert_eq!(written("key-value"), "\tv\u{e9}\n");
        assert_eq!(
            written("%t/%p@%o %T %d %V %K 100%%\\t|"),
            "t/3@5 1700000000123 2023-11-14T22:13:20.123Z 3 -1 100%\t|"
        );
        let json: Value = serde_json::from_str(&written("json")).unwrap();
        assert_eq!(json["headers"][1]["value"], json!({ "base64": "/w==" }));
        assert_eq!((&json["key"], &json["value"], &json["partition"]), (&Value::Null, &json!("v\u{e9}"), &json!(3)));
    }

    #[test]
    fn formats_without_meaning_are_refused() {
        for format in ["%x", "vlaue", "%", "\\q"] {
            assert!(format.parse::<Format>().is_err(), "{format}");
        }
    }

    #[test]
    fn base64_pads() {
        let encoded: Vec<_> = [&b""[..], b"f", b"fo", b"foo", b"foob"].iter().map(|bytes| base64(bytes)).collect();
        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }
}
