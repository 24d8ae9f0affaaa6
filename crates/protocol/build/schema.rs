//! The schema notation: its model and its parser. The notation is described in `docs/formats/schema-notation.md`.
//!
//! Not here: any Rust text (`emit.rs`). The tests parse the same files with this module and write wire bytes from them
//! without the generated code, so that generator and notation check each other.

use std::{fmt, fs, path::Path};

/// Versions `min..=max` of a message, of a field, or of a field's nullability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) min: i16,
    pub(crate) max: i16,
}

impl Versions {
    pub(crate) fn contains(self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    fn within(self, outer: Versions) -> bool {
        self.min <= self.max && outer.contains(self.min) && outer.contains(self.max)
    }
}

/// One API: a request and its response.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) key: i16,
    pub(crate) name: String,
    pub(crate) versions: Versions,
    /// The first version with compact lengths and tagged fields.
    pub(crate) flexible: Option<i16>,
    pub(crate) request: Message,
    pub(crate) response: Message,
}

impl Api {
    /// Whether Kafka has it. Keys from 20000 up are Ottla's own, for what Kafka has no request for.
    pub(crate) fn is_kafkas(&self) -> bool {
        self.key < 20_000
    }

    pub(crate) fn is_flexible(&self, version: i16) -> bool {
        self.flexible.is_some_and(|first| version >= first)
    }
}

/// All structs of a request or response; the first is the message itself.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) structs: Vec<Struct>,
}

#[derive(Debug)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) versions: Versions,
    pub(crate) fields: Vec<Field>,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) array: bool,
    pub(crate) versions: Versions,
    pub(crate) nullable: Option<Versions>,
    pub(crate) tag: Option<u32>,
    pub(crate) default: Option<String>,
    pub(crate) ignorable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    F64,
    String,
    Bytes,
    Records,
    Uuid,
    TopicId,
    Struct(String),
}

/// What is wrong, in which file, on which line.
#[derive(Debug)]
pub(crate) struct SchemaError(String);

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SchemaError {}

/// Every `.msg` file of the folder, ordered by API key.
pub(crate) fn load(folder: impl AsRef<Path>) -> Result<Vec<Api>, Box<dyn std::error::Error>> {
    let mut apis = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "msg") {
            let text = fs::read_to_string(&path)?;
            apis.push(parse(&text).map_err(|(line, what)| {
                let place = if line == 0 { String::new() } else { format!(":{line}") };
                SchemaError(format!("{}{place}: {what}", path.display()))
            })?);
        }
    }
    apis.sort_by_key(|api| api.key);
    if let Some(pair) = apis.windows(2).find(|pair| pair[0].key == pair[1].key) {
        return Err(SchemaError(format!("{} and {} have the same key", pair[0].name, pair[1].name)).into());
    }
    Ok(apis)
}

type Parsed<T> = Result<T, (usize, String)>;

/// A line without its comment: number, depth (two spaces each), words.
struct Line<'a> {
    number: usize,
    depth: usize,
    words: Vec<&'a str>,
}

fn parse(text: &str) -> Parsed<Api> {
    let mut lines = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let content = raw.split('#').next().unwrap_or_default();
        let words: Vec<&str> = content.split_whitespace().collect();
        let indent = content.len() - content.trim_start().len();
        if words.is_empty() {
            continue;
        }
        if indent % 2 != 0 {
            return Err((index + 1, "the indentation is not a multiple of two spaces".into()));
        }
        lines.push(Line { number: index + 1, depth: indent / 2, words });
    }
    let mut lines = lines.into_iter().peekable();
    let Some(head) = lines.next() else { return Err((0, "the file is empty".into())) };
    let fail = |what: &str| (head.number, what.to_string());
    let ["api", key, name, range, "flexible", flexible] = head.words[..] else {
        return Err(fail("expected: api KEY NAME MIN..MAX flexible FIRST..|never"));
    };
    let key = key.parse().map_err(|_| fail("the key is not a number"))?;
    let versions = versions(range, None).ok_or_else(|| fail("the versions are not MIN..MAX"))?;
    let flexible = match flexible.strip_suffix("..") {
        Some(first) => Some(first.parse().map_err(|_| fail("the first flexible version is not a number"))?),
        None if flexible == "never" => None,
        None => return Err(fail("expected FIRST.. or never after flexible")),
    };
    let mut half = |keyword: &str, suffix: &str| -> Parsed<Message> {
        match lines.next() {
            Some(line) if line.depth == 0 && line.words == [keyword] => {}
            other => return Err((other.map_or(0, |line| line.number), format!("expected {keyword}"))),
        }
        let mut structs = Vec::new();
        parse_struct(&mut lines, format!("{name}{suffix}"), versions, 1, flexible, &mut structs)?;
        resolve(&structs)?;
        Ok(Message { structs })
    };
    let request = half("request", "Request")?;
    let response = half("response", "Response")?;
    if let Some(line) = lines.next() {
        return Err((line.number, "unexpected line after the response".into()));
    }
    Ok(Api { key, name: name.into(), versions, flexible, request, response })
}

/// Parses the lines at `depth` as the fields of one struct, and deeper ones as the structs they introduce.
fn parse_struct<'a>(
    lines: &mut std::iter::Peekable<impl Iterator<Item = Line<'a>>>,
    name: String,
    within: Versions,
    depth: usize,
    flexible: Option<i16>,
    structs: &mut Vec<Struct>,
) -> Parsed<()> {
    let place = structs.len();
    structs.push(Struct { name, versions: within, fields: Vec::new() });
    while let Some(line) = lines.next_if(|line| line.depth == depth) {
        let deeper = lines.peek().is_some_and(|next| next.depth > depth);
        if let ["struct", shared, range @ ..] = &line.words[..] {
            let range = match range {
                [] => within,
                [range] => versions(range, Some(within))
                    .ok_or_else(|| (line.number, "the struct's versions are not within the message's".to_string()))?,
                _ => return Err((line.number, "expected: struct NAME [VERSIONS]".into())),
            };
            parse_struct(lines, shared.to_string(), range, depth + 1, flexible, structs)?;
            continue;
        }
        let field = parse_field(&line.words, within).map_err(|what| (line.number, what))?;
        if field.tag.is_some() && flexible.is_none_or(|first| field.versions.min < first) {
            return Err((line.number, "a tagged field in versions that are not flexible".into()));
        }
        match (&field.kind, deeper) {
            (Kind::Struct(name), true) => {
                parse_struct(lines, name.clone(), field.versions, depth + 1, flexible, structs)?;
            }
            (_, true) => return Err((line.number, "fields below a field that is not a struct".into())),
            (_, false) => {}
        }
        structs[place].fields.push(field);
    }
    Ok(())
}

/// Every struct that a field names must exist once.
fn resolve(structs: &[Struct]) -> Parsed<()> {
    for field in structs.iter().flat_map(|each| &each.fields) {
        if let Kind::Struct(name) = &field.kind
            && structs.iter().filter(|each| each.name == *name).count() != 1
        {
            return Err((0, format!("{name} is not defined exactly once")));
        }
    }
    Ok(())
}

/// `NAME TYPE [VERSIONS] [tag N] [= DEFAULT] [ignorable]`
fn parse_field(words: &[&str], within: Versions) -> Result<Field, String> {
    let [name, kind, rest @ ..] = words else { return Err("expected: NAME TYPE ...".into()) };
    let (kind, nullable) = match kind.split_once('?') {
        Some((kind, range)) => (kind, Some(range)),
        None => (*kind, None),
    };
    let (kind, array) = match kind.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => (inner, true),
        None => (kind, false),
    };
    let mut field = Field {
        name: name.to_string(),
        kind: parse_kind(kind)?,
        array,
        versions: within,
        nullable: None,
        tag: None,
        default: None,
        ignorable: false,
    };
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match *word {
            "ignorable" => field.ignorable = true,
            "tag" => {
                let tag = rest.next().and_then(|tag| tag.parse().ok());
                field.tag = Some(tag.ok_or("a number must follow tag")?);
            }
            "=" => field.default = Some(rest.next().ok_or("a value must follow =")?.to_string()),
            range => {
                field.versions = versions(range, Some(within)).ok_or_else(|| format!("{range} is not understood"))?;
            }
        }
    }
    field.nullable = match nullable {
        None => None,
        Some("") => Some(field.versions),
        Some(range) => Some(versions(range, Some(field.versions)).ok_or("the nullable versions are not the field's")?),
    };
    let can_be_null = array || matches!(field.kind, Kind::String | Kind::Bytes | Kind::Records | Kind::Struct(_));
    if field.nullable.is_some() && (!can_be_null || matches!(field.kind, Kind::Struct(_)) && field.tag.is_some()) {
        return Err("only strings, bytes, records, arrays and untagged structs can be null".into());
    }
    if field.default.as_deref() == Some("null") && field.nullable.is_none() {
        return Err("the default is null but the field is not nullable".into());
    }
    Ok(field)
}

fn parse_kind(word: &str) -> Result<Kind, String> {
    Ok(match word {
        "bool" => Kind::Bool,
        "i8" => Kind::I8,
        "i16" => Kind::I16,
        "u16" => Kind::U16,
        "i32" => Kind::I32,
        "u32" => Kind::U32,
        "i64" => Kind::I64,
        "f64" => Kind::F64,
        "string" => Kind::String,
        "bytes" => Kind::Bytes,
        "records" => Kind::Records,
        "uuid" => Kind::Uuid,
        "topic_id" => Kind::TopicId,
        name if name.starts_with(|first: char| first.is_ascii_uppercase()) => Kind::Struct(name.into()),
        other => return Err(format!("{other} is not a type")),
    })
}

/// `a..b`, and with an outer range `a..` and `..b`; both ends are included and must lie within the outer range.
fn versions(text: &str, within: Option<Versions>) -> Option<Versions> {
    let (min, max) = text.split_once("..")?;
    let end = |text: &str, default: Option<i16>| if text.is_empty() { default } else { text.parse().ok() };
    let min = end(min, within.map(|outer| outer.min))?;
    let max = end(max, within.map(|outer| outer.max))?;
    let versions = Versions { min, max };
    versions.within(within.unwrap_or(Versions { min: 0, max: i16::MAX })).then_some(versions)
}
