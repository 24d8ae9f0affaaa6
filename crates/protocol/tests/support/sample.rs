//! Sample messages: wire bytes written straight from the schema, without the generated code. The fuzz targets begin
//! with them too.

use super::schema::{self, Api, Field, Kind, Struct};

/// SplitMix64: small, seeded, the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// How a sample is filled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Zeros, empty strings, no elements, no tags.
    Empty,
    /// Random values; nulls, empty arrays and absent tags now and then.
    Random,
    /// As `Random`, with fields of unknown tags at the end of every tag section.
    UnknownTags,
}

/// The wire bytes of a message, from its schema alone.
pub(crate) fn sample(api: &Api, message: &schema::Message, version: i16, fill: Fill, seed: u64) -> Vec<u8> {
    let mut sampler = Sampler {
        structs: &message.structs,
        version,
        flexible: api.is_flexible(version),
        fill,
        random: Random(seed),
        unknown: Random(!seed),
        out: Vec::new(),
    };
    sampler.fields(&message.structs[0]);
    sampler.out
}

struct Sampler<'a> {
    structs: &'a [Struct],
    version: i16,
    flexible: bool,
    fill: Fill,
    random: Random,
    unknown: Random,
    out: Vec<u8>,
}

impl Sampler<'_> {
    fn fields(&mut self, each: &Struct) {
        let version = self.version;
        for field in each.fields.iter().filter(|field| field.tag.is_none() && field.versions.contains(version)) {
            self.field(field);
        }
        if !self.flexible {
            return;
        }
        let mut tagged: Vec<&Field> =
            each.fields.iter().filter(|field| field.tag.is_some() && field.versions.contains(version)).collect();
        tagged.sort_by_key(|field| field.tag);
        let mut section = Vec::new();
        for field in tagged {
            if self.fill == Fill::Empty || self.random.below(4) == 0 {
                continue;
            }
            let outside = std::mem::take(&mut self.out);
            self.tagged_value(field);
            let value = std::mem::replace(&mut self.out, outside);
            section.push((field.tag.unwrap(), value));
        }
        if self.fill == Fill::UnknownTags {
            for tag in [1_000, 70_000_000] {
                let len = self.unknown.below(20);
                section.push((tag, self.unknown.bytes(len)));
            }
        }
        self.varint(section.len() as u32);
        for (tag, value) in section {
            self.varint(tag);
            self.varint(value.len() as u32);
            self.out.extend_from_slice(&value);
        }
    }

    /// A tagged field is only on the wire when it differs from its default, so its value must not be the default.
    fn tagged_value(&mut self, field: &Field) {
        if field.array {
            self.length(2);
            (0..2).for_each(|_| self.value(field));
        } else if let Kind::Bool = field.kind {
            self.out.push(1);
        } else {
            self.value(field);
        }
    }

    fn field(&mut self, field: &Field) {
        let nullable = field.nullable.is_some_and(|versions| versions.contains(self.version));
        let null = nullable && self.fill != Fill::Empty && self.random.below(5) == 0;
        if field.array {
            let len = if self.fill == Fill::Empty { 0 } else { self.random.below(4) };
            if null {
                return self.null_length();
            }
            self.length(len as u32);
            (0..len).for_each(|_| self.value(field));
        } else if null {
            match field.kind {
                Kind::String if !self.flexible => self.out.extend_from_slice(&[0xff; 2]),
                Kind::Struct(_) => self.out.push(0xff),
                _ => self.null_length(),
            }
        } else {
            if let (Kind::Struct(_), true) = (&field.kind, nullable) {
                self.out.push(1);
            }
            self.value(field);
        }
    }

    fn value(&mut self, field: &Field) {
        let empty = self.fill == Fill::Empty;
        let len = if empty { 0 } else { self.random.below(200) };
        let fixed = |len: usize| if empty { vec![0; len] } else { Vec::new() };
        match &field.kind {
            Kind::Bool => self.out.push(if empty { 0 } else { self.random.below(2) as u8 }),
            Kind::String => {
                let text: Vec<u8> = (0..len).map(|_| b'a' + self.random.below(26) as u8).collect();
                if self.flexible {
                    self.varint(len as u32 + 1);
                } else {
                    self.out.extend_from_slice(&(len as i16).to_be_bytes());
                }
                self.out.extend_from_slice(&text);
            }
            Kind::Bytes | Kind::Records => {
                self.length(len as u32);
                let bytes = self.random.bytes(len);
                self.out.extend_from_slice(&bytes);
            }
            Kind::Struct(name) => {
                let structs = self.structs;
                self.fields(structs.iter().find(|each| each.name == *name).unwrap());
            }
            kind => {
                let size = match kind {
                    Kind::I8 => 1,
                    Kind::I16 | Kind::U16 => 2,
                    Kind::I32 | Kind::U32 => 4,
                    Kind::I64 | Kind::F64 => 8,
                    _ => 16,
                };
                let bytes = if empty { fixed(size) } else { self.random.bytes(size as u64) };
                self.out.extend_from_slice(&bytes);
            }
        }
    }

    fn length(&mut self, len: u32) {
        if self.flexible { self.varint(len + 1) } else { self.out.extend_from_slice(&len.to_be_bytes()) }
    }

    fn null_length(&mut self) {
        if self.flexible { self.out.push(0) } else { self.out.extend_from_slice(&[0xff; 4]) }
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}
