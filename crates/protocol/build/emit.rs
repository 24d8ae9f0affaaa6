//! The Rust that comes out of a schema: one module per message, one struct per schema struct, and `ApiKey`.
//!
//! Not here: reading the notation (`schema.rs`), and the primitives the generated code calls (`src/reader.rs`,
//! `src/out.rs`). Generated functions test the version where it matters and are otherwise straight lines.

use std::fmt::{self, Write};

use crate::schema::{Api, Field, Kind, Message, Struct, Versions};

type Emitted = Result<(), fmt::Error>;

/// `messages.rs`: a module per message, re-exports of the messages, and the list of them for tests.
pub(crate) fn messages(apis: &[Api]) -> Result<String, fmt::Error> {
    let mut text = String::new();
    for api in apis {
        for (message, is_request) in [(&api.request, true), (&api.response, false)] {
            message_module(&mut text, api, message, is_request)?;
        }
    }
    each_macro(&mut text, "each_message", "every message's name", apis.iter())?;
    let kafkas = apis.iter().filter(|api| api.is_kafkas());
    each_macro(&mut text, "each_kafka_message", "the name of every message that Kafka has", kafkas)?;
    Ok(text)
}

fn each_macro<'a>(text: &mut String, name: &str, what: &str, apis: impl Iterator<Item = &'a Api>) -> Emitted {
    writeln!(text, "/// Calls the macro with {what}, for tests and fuzz targets.")?;
    writeln!(text, "#[doc(hidden)]\n#[macro_export]\nmacro_rules! {name} {{\n    ($with:ident) => {{")?;
    for api in apis {
        writeln!(text, "        $with!({0}Request);\n        $with!({0}Response);", api.name)?;
    }
    writeln!(text, "    }};\n}}")
}

/// `api_key.rs`: the enum and its tables.
pub(crate) fn api_keys(apis: &[Api]) -> String {
    let rows = |row: &dyn Fn(&Api) -> String| apis.iter().map(row).collect::<Vec<_>>().join("\n");
    format!(
        "/// The APIs this crate knows, by their Kafka names; the discriminant is the key on the wire. Those from\n\
         /// 20000 up are Ottla's own.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]\n\
         #[repr(i16)]\npub enum ApiKey {{\n{}\n}}\n\
         impl ApiKey {{\n    /// All of them, by ascending key.\n    pub const ALL: &'static [ApiKey] = &[{}];\n\n\
         /// Kafka's name of the API, such as `Fetch`.\n    \
         pub const fn name(self) -> &'static str {{ match self {{\n{}\n}} }}\n\n\
         /// The versions that can be encoded and decoded; both ends are served.\n    \
         pub const fn versions(self) -> RangeInclusive<i16> {{ match self {{\n{}\n}} }}\n\n\
         /// The first version with compact lengths and tagged fields (KIP-482), if there is one.\n    \
         pub const fn first_flexible(self) -> Option<i16> {{ match self {{\n{}\n}} }}\n}}\n\n\
         impl TryFrom<i16> for ApiKey {{\n    type Error = DecodeError;\n\n    \
         fn try_from(key: i16) -> Result<ApiKey, DecodeError> {{\n        Ok(match key {{\n{}\n\
         _ => return Err(DecodeError::UnknownApiKey(key)),\n}})\n    }}\n}}\n",
        rows(&|api| format!("    /// Versions {}.\n    {} = {},", range(api.versions), api.name, api.key)),
        rows(&|api| format!("ApiKey::{},", api.name)),
        rows(&|api| format!("ApiKey::{0} => \"{0}\",", api.name)),
        rows(&|api| format!("ApiKey::{} => {}..={},", api.name, api.versions.min, api.versions.max)),
        rows(&|api| format!("ApiKey::{} => {:?},", api.name, api.flexible)),
        rows(&|api| format!("{} => ApiKey::{},", api.key, api.name)),
    )
}

fn message_module(text: &mut String, api: &Api, message: &Message, is_request: bool) -> Emitted {
    let name = &message.structs[0].name;
    let half = if is_request { "request" } else { "response" };
    let module = format!("{}_{half}", snake(&api.name));
    writeln!(text, "pub use {module}::{name};\n")?;
    writeln!(text, "/// The {} {half} (key {}), versions {}.", api.name, api.key, range(api.versions))?;
    writeln!(text, "pub mod {module} {{\n    use crate::generated::*;\n")?;
    let context = Context { api, message, is_request };
    for (index, each) in message.structs.iter().enumerate() {
        context.definition(text, each)?;
        context.default(text, each)?;
        writeln!(text, "impl {} {{", each.name)?;
        context.decode(text, each, index == 0)?;
        context.encode(text, each, index == 0)?;
        writeln!(text, "}}\n")?;
    }
    writeln!(
        text,
        "impl Message for {name} {{\n    const API: ApiKey = ApiKey::{};\n\n    \
         fn decode(r: &mut Reader, version: i16) -> Result<{name}, DecodeError> {{\n        \
         {name}::decode(r, version) }}\n\n    \
         fn encode<O: Out>(&self, out: &mut O, version: i16) -> Result<(), EncodeError> {{\n        \
         {name}::encode(self, out, version) }}\n}}\n",
        api.name
    )?;
    if is_request {
        writeln!(text, "impl Request for {name} {{\n    type Response = super::{}Response;\n}}", api.name)?;
    }
    writeln!(text, "}}\n")
}

/// The message whose structs are being written.
struct Context<'a> {
    api: &'a Api,
    message: &'a Message,
    is_request: bool,
}

impl Context<'_> {
    fn definition(&self, text: &mut String, each: &Struct) -> Emitted {
        let part = if each.name == self.message.structs[0].name { "The message" } else { "A part of the message" };
        writeln!(text, "/// {part}, versions {}.", range(each.versions))?;
        writeln!(text, "#[derive(Clone, Debug, PartialEq{})]", if self.all_default(each) { ", Default" } else { "" })?;
        writeln!(text, "pub struct {} {{", each.name)?;
        for field in &each.fields {
            let mut doc = format!("Versions {}", range(field.versions));
            if let Some(tag) = field.tag {
                write!(doc, ", tag {tag}")?;
            }
            if let Some(nullable) = field.nullable.filter(|nullable| *nullable != field.versions) {
                write!(doc, "; null in versions {}", range(nullable))?;
            }
            if let Some(default) = &field.default {
                write!(doc, "; default {default}")?;
            }
            let lost = field.versions != each.versions || field.tag.is_some_and(|_| !self.flexible_throughout(each));
            if lost {
                doc += if field.ignorable { "; left out elsewhere" } else { "; an error elsewhere unless default" };
            }
            writeln!(text, "    /// {doc}.\n    pub {}: {},", ident(field), self.field_type(field))?;
        }
        writeln!(text, "}}\n")
    }

    fn default(&self, text: &mut String, each: &Struct) -> Emitted {
        if self.all_default(each) {
            return Ok(());
        }
        writeln!(text, "impl Default for {0} {{\n    fn default() -> {0} {{\n        {0} {{", each.name)?;
        for field in &each.fields {
            writeln!(text, "            {}: {},", ident(field), default_value(field))?;
        }
        writeln!(text, "        }}\n    }}\n}}\n")
    }

    fn decode(&self, text: &mut String, each: &Struct, top: bool) -> Emitted {
        let plain = each.fields.iter().filter(|field| field.tag.is_none());
        let tagged: Vec<&Field> = each.fields.iter().filter(|field| field.tag.is_some()).collect();
        let visibility = if top { "pub " } else { "" };
        if top {
            writeln!(text, "/// Reads the message; bytes behind it are left in the reader.")?;
        }
        let used = self.version_matters(each, top);
        let version = if used { "version" } else { "_version" };
        writeln!(
            text,
            "{visibility}fn decode(r: &mut Reader, {version}: i16) -> Result<{}, DecodeError> {{",
            each.name
        )?;
        if top {
            writeln!(text, "check_version(ApiKey::{}, version)?;", self.api.name)?;
        }
        self.let_flexible(text, each)?;
        for field in plain {
            let mut read = self.read(field);
            if let Some(nullable) = field.nullable
                && let Some(test) = condition(nullable, field.versions)
            {
                read = format!("if {test} {{ {read} }} else {{ Some({}) }}", self.read_value(field));
            }
            if let Some(test) = condition(field.versions, each.versions) {
                read = format!("if {test} {{ {read} }} else {{ {} }}", default_value(field));
            }
            writeln!(text, "let {} = {read};", ident(field))?;
        }
        for field in &tagged {
            writeln!(text, "let mut {} = {};", ident(field), default_value(field))?;
        }
        if self.ever_flexible(each) {
            let open = if self.flexible_throughout(each) { "{" } else { "if flexible {" };
            writeln!(text, "{open}")?;
            if tagged.is_empty() {
                writeln!(text, "r.skip_tagged_fields()?;")?;
            } else {
                writeln!(text, "r.tagged_fields(|r, tag| {{ match tag {{")?;
                for field in &tagged {
                    let guard = condition(field.versions, self.flexible_part(each))
                        .map_or(String::new(), |test| format!(" if {test}"));
                    let tag = field.tag.unwrap_or_default();
                    writeln!(text, "{tag}{guard} => {} = {},", ident(field), self.read(field))?;
                }
                writeln!(text, "_ => return Ok(false), }} Ok(true) }})?;")?;
            }
            writeln!(text, "}}")?;
        }
        let names: Vec<String> = each.fields.iter().map(ident).collect();
        writeln!(text, "Ok({} {{ {} }})\n}}\n", each.name, names.join(", "))
    }

    fn encode(&self, text: &mut String, each: &Struct, top: bool) -> Emitted {
        let visibility = if top { "pub " } else { "" };
        if top {
            writeln!(text, "/// Writes the message in this version.")?;
        }
        let used = self.version_matters(each, top);
        let version = if used { "version" } else { "_version" };
        writeln!(
            text,
            "{visibility}fn encode<O: Out>(&self, out: &mut O, {version}: i16) -> Result<(), EncodeError> {{"
        )?;
        if top {
            writeln!(text, "check_version_out(ApiKey::{}, version)?;", self.api.name)?;
        }
        self.let_flexible(text, each)?;
        for field in each.fields.iter().filter(|field| field.tag.is_none()) {
            let write = self.write(each, field, "out");
            match condition(field.versions, each.versions) {
                None => writeln!(text, "{write}")?,
                Some(test) if field.ignorable => writeln!(text, "if {test} {{ {write} }}")?,
                Some(test) => {
                    let refuse = format!("else if {} {{ {} }}", self.not_default(field), refusal(each, field));
                    writeln!(text, "if {test} {{ {write} }} {refuse}")?;
                }
            }
        }
        let mut tagged: Vec<&Field> = each.fields.iter().filter(|field| field.tag.is_some()).collect();
        tagged.sort_by_key(|field| field.tag);
        if !self.ever_flexible(each) {
            return writeln!(text, "Ok(())\n}}\n");
        }
        for field in tagged.iter().filter(|field| !field.ignorable) {
            if let Some(test) = outside(field.versions, each.versions) {
                writeln!(text, "if {test} && {} {{ {} }}", self.not_default(field), refusal(each, field))?;
            }
        }
        writeln!(text, "{}", if self.flexible_throughout(each) { "{" } else { "if flexible {" })?;
        if tagged.is_empty() {
            writeln!(text, "out.put_u8(0);")?;
        } else {
            writeln!(text, "let mut tags = TaggedFields::default();")?;
            for field in &tagged {
                let guard = condition(field.versions, self.flexible_part(each))
                    .map_or(String::new(), |test| format!("{test} && "));
                let tag = field.tag.unwrap_or_default();
                let write = self.write(each, field, "out");
                writeln!(
                    text,
                    "if {guard}{} {{ tags.put({tag}, |out| {{ {write} Ok(()) }})?; }}",
                    self.not_default(field)
                )?;
            }
            writeln!(text, "tags.write(out);")?;
        }
        writeln!(text, "}}\nOk(())\n}}\n")
    }

    fn read(&self, field: &Field) -> String {
        let flexible = "flexible";
        let value = match (&field.kind, field.nullable.is_some(), field.array) {
            (_, false, _) => return self.read_value(field),
            (_, true, true) => format!("r.nullable_array({flexible}, |r| {})", self.read_element(field)),
            (Kind::String, ..) => format!("r.nullable_string({flexible})"),
            (Kind::Bytes, ..) => format!("r.nullable_bytes({flexible})"),
            (Kind::Records, ..) if self.is_request => format!("r.nullable_bytes({flexible})"),
            (Kind::Records, ..) => return format!("r.nullable_bytes({flexible})?.map(Records::Bytes)"),
            (Kind::Struct(name), ..) => format!("r.nullable_struct(|r| {name}::decode(r, version))"),
            (kind, ..) => unreachable!("the parser refuses a null {kind:?}"),
        };
        value + "?"
    }

    fn read_value(&self, field: &Field) -> String {
        if field.array {
            return format!("r.array(flexible, |r| {})?", self.read_element(field));
        }
        self.read_element(field) + "?"
    }

    fn read_element(&self, field: &Field) -> String {
        match &field.kind {
            Kind::String => "r.string(flexible)".into(),
            Kind::Bytes => "r.bytes(flexible)".into(),
            Kind::Records if self.is_request => "r.bytes(flexible)".into(),
            Kind::Records => "r.bytes(flexible).map(Records::Bytes)".into(),
            Kind::Struct(name) => format!("{name}::decode(r, version)"),
            kind => format!("r.{}()", scalar(kind)),
        }
    }

    fn write(&self, each: &Struct, field: &Field, out: &str) -> String {
        let place = format!("self.{}", ident(field));
        let Some(nullable) = field.nullable else { return self.write_value(field, &place, out, true) };
        let some = self.write_value(field, "value", out, false);
        let null = if field.array {
            format!("{out}.put_null_array(flexible);")
        } else {
            match &field.kind {
                Kind::String => format!("{out}.put_null_string(flexible);"),
                Kind::Bytes | Kind::Records => format!("{out}.put_null_bytes(flexible);"),
                _ => format!("{out}.put_i8(-1);"),
            }
        };
        let marker = match &field.kind {
            Kind::Struct(_) if !field.array => format!("{out}.put_i8(1);"),
            _ => String::new(),
        };
        let forbidden = outside(nullable, field.versions).map_or(String::new(), |test| {
            format!("None if {test} => return Err(EncodeError::Null {{ field: \"{}.{}\" }}),", each.name, field.name)
        });
        format!("match &{place} {{ {forbidden} None => {{ {null} }} Some(value) => {{ {marker} {some} }} }}")
    }

    /// `owned` tells whether `place` is the field itself or a reference to its value.
    fn write_value(&self, field: &Field, place: &str, out: &str, owned: bool) -> String {
        if field.array {
            let borrow = if owned { "&" } else { "" };
            let element = self.write_element(field, "each", out, false);
            return format!(
                "{out}.put_array_len(flexible, {place}.len())?; for each in {borrow}{place} {{ {element} }}"
            );
        }
        self.write_element(field, place, out, owned)
    }

    fn write_element(&self, field: &Field, place: &str, out: &str, owned: bool) -> String {
        let borrow = if owned { "&" } else { "" };
        let deref = if owned { "" } else { "*" };
        match &field.kind {
            Kind::String => format!("{out}.put_string(flexible, {borrow}{place})?;"),
            Kind::Bytes => format!("{out}.put_bytes(flexible, {borrow}{place})?;"),
            Kind::Records if self.is_request => format!("{out}.put_bytes(flexible, {borrow}{place})?;"),
            Kind::Records => format!("{out}.put_records(flexible, {borrow}{place})?;"),
            Kind::Struct(_) => format!("{place}.encode({out}, version)?;"),
            kind => format!("{out}.put_{}({deref}{place});", scalar(kind)),
        }
    }

    fn not_default(&self, field: &Field) -> String {
        let place = format!("self.{}", ident(field));
        let null_default = field.default.as_deref() == Some("null") || field.kind == Kind::Records;
        match &field.kind {
            _ if field.nullable.is_some() && null_default => format!("{place}.is_some()"),
            _ if field.nullable.is_some() => format!("{place} != {}", default_value(field)),
            _ if field.array => format!("!{place}.is_empty()"),
            Kind::String | Kind::Bytes if field.default.is_none() => format!("!{place}.is_empty()"),
            Kind::Struct(name) => format!("{place} != {name}::default()"),
            Kind::Bool if field.default.as_deref() == Some("true") => format!("!{place}"),
            Kind::Bool => place,
            _ => format!("{place} != {}", default_value(field)),
        }
    }

    fn field_type(&self, field: &Field) -> String {
        let mut text = match &field.kind {
            Kind::Bool => "bool".into(),
            Kind::String => "ByteString".into(),
            Kind::Bytes => "Bytes".into(),
            Kind::Records if self.is_request => "Bytes".into(),
            Kind::Records => "Records".into(),
            Kind::Uuid => "[u8; 16]".into(),
            Kind::TopicId => "TopicId".into(),
            Kind::Struct(name) => name.clone(),
            kind => scalar(kind).to_string(),
        };
        if field.array {
            text = format!("Vec<{text}>");
        }
        if field.nullable.is_some() { format!("Option<{text}>") } else { text }
    }

    /// Whether every field's default is what `#[derive(Default)]` gives it.
    fn all_default(&self, each: &Struct) -> bool {
        each.fields.iter().all(|field| match field.nullable {
            Some(_) => default_value(field) == "None",
            None => matches!(field.default.as_deref(), None | Some("false") | Some("0")),
        })
    }

    fn let_flexible(&self, text: &mut String, each: &Struct) -> Emitted {
        let lengths = each
            .fields
            .iter()
            .any(|field| field.array || matches!(field.kind, Kind::String | Kind::Bytes | Kind::Records));
        let tags = self.ever_flexible(each) && !self.flexible_throughout(each);
        if !lengths && !tags {
            return Ok(());
        }
        match self.api.flexible.filter(|_| self.ever_flexible(each)) {
            None => writeln!(text, "let flexible = false;"),
            Some(_) if self.flexible_throughout(each) => writeln!(text, "let flexible = true;"),
            Some(first) => writeln!(text, "let flexible = version >= {first};"),
        }
    }

    fn ever_flexible(&self, each: &Struct) -> bool {
        self.api.is_flexible(each.versions.max)
    }

    fn flexible_throughout(&self, each: &Struct) -> bool {
        self.api.is_flexible(each.versions.min)
    }

    /// The struct's versions that have a tag section.
    fn flexible_part(&self, each: &Struct) -> Versions {
        Versions { min: each.versions.min.max(self.api.flexible.unwrap_or(i16::MAX)), max: each.versions.max }
    }

    /// Whether the code of the struct mentions its version.
    fn version_matters(&self, each: &Struct, top: bool) -> bool {
        top || (self.ever_flexible(each) && !self.flexible_throughout(each))
            || each.fields.iter().any(|field| {
                matches!(field.kind, Kind::Struct(_))
                    || condition(field.versions, each.versions).is_some()
                    || field.nullable.is_some_and(|nullable| condition(nullable, field.versions).is_some())
            })
    }
}

fn refusal(each: &Struct, field: &Field) -> String {
    format!("return Err(EncodeError::NotInVersion {{ field: \"{}.{}\", version }});", each.name, field.name)
}

/// The test that tells `inner` from the rest of `outer`, or nothing where they are the same.
fn condition(inner: Versions, outer: Versions) -> Option<String> {
    match (inner.min > outer.min, inner.max < outer.max) {
        (false, false) => None,
        (true, false) => Some(format!("version >= {}", inner.min)),
        (false, true) => Some(format!("version <= {}", inner.max)),
        (true, true) => Some(format!("({}..={}).contains(&version)", inner.min, inner.max)),
    }
}

/// The opposite of [`condition`].
fn outside(inner: Versions, outer: Versions) -> Option<String> {
    match (inner.min > outer.min, inner.max < outer.max) {
        (false, false) => None,
        (true, false) => Some(format!("version < {}", inner.min)),
        (false, true) => Some(format!("version > {}", inner.max)),
        (true, true) => Some(format!("!({}..={}).contains(&version)", inner.min, inner.max)),
    }
}

fn default_value(field: &Field) -> String {
    let text = field.default.as_deref();
    if text == Some("null") {
        return "None".into();
    }
    let value = match &field.kind {
        _ if field.array => "Vec::new()".to_string(),
        Kind::Records if field.nullable.is_some() => return "None".into(),
        Kind::Records | Kind::Bytes => "Bytes::new()".into(),
        Kind::String => match text {
            None => "ByteString::new()".into(),
            Some(text) => format!("ByteString::from_static({text:?})"),
        },
        Kind::Uuid => "[0; 16]".into(),
        Kind::TopicId => "TopicId::ZERO".into(),
        Kind::Struct(name) => format!("{name}::default()"),
        Kind::Bool => text.unwrap_or("false").into(),
        Kind::F64 => text.unwrap_or("0.0").into(),
        _ => text.unwrap_or("0").into(),
    };
    if field.nullable.is_some() { format!("Some({value})") } else { value }
}

/// The name of a fixed-size type in `Reader` and `Out`, and in Rust for the numbers.
fn scalar(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "bool",
        Kind::I8 => "i8",
        Kind::I16 => "i16",
        Kind::U16 => "u16",
        Kind::I32 => "i32",
        Kind::U32 => "u32",
        Kind::I64 => "i64",
        Kind::F64 => "f64",
        Kind::Uuid => "uuid",
        Kind::TopicId => "topic_id",
        other => unreachable!("{other:?} has no fixed size"),
    }
}

fn ident(field: &Field) -> String {
    match field.name.as_str() {
        name @ ("type" | "match" | "final" | "struct" | "ref" | "move") => format!("r#{name}"),
        name => name.to_string(),
    }
}

fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

fn range(versions: Versions) -> String {
    if versions.min == versions.max { versions.min.to_string() } else { format!("{}–{}", versions.min, versions.max) }
}
