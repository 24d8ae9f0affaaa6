//! The primitives of Kafka's records: numbers big-endian, and text, bytes and lists in two shapes, the old one with a
//! fixed length and the compact one with a varint (KIP-482).
//!
//! Written apart from `ottla-protocol`, which reads requests: records have a version each and come from our own log.
//! What is not here: which fields a record has (`record/`).

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ottla_types::TopicId;

use crate::DecodeError;

pub(crate) struct Writer(BytesMut);

impl Writer {
    /// A key or a value begins with its version.
    pub(crate) fn new(version: i16) -> Writer {
        let mut bytes = BytesMut::with_capacity(64);
        bytes.put_i16(version);
        Writer(bytes)
    }

    pub(crate) fn i8(&mut self, value: i8) {
        self.0.put_i8(value);
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.0.put_i32(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.0.put_i64(value);
    }

    pub(crate) fn id(&mut self, id: TopicId) {
        self.0.put_slice(&id.to_bytes());
    }

    /// Text of up to 32767 bytes, which the coordinator takes no more of (`Command::fits`).
    pub(crate) fn text(&mut self, text: &str) {
        debug_assert!(i16::try_from(text.len()).is_ok(), "{} bytes of text", text.len());
        self.0.put_i16(text.len() as i16);
        self.0.put_slice(text.as_bytes());
    }

    pub(crate) fn optional_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.0.put_i16(-1),
        }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.put_slice(bytes);
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.0.put_i32(count as i32);
    }

    pub(crate) fn compact_text(&mut self, text: &str) {
        self.compact_bytes(text.as_bytes());
    }

    pub(crate) fn compact_optional_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.compact_text(text),
            None => self.varint(0),
        }
    }

    pub(crate) fn compact_bytes(&mut self, bytes: &[u8]) {
        self.compact_count(bytes.len());
        self.0.put_slice(bytes);
    }

    pub(crate) fn compact_count(&mut self, count: usize) {
        self.varint(count + 1);
    }

    /// The tagged fields, where tag 0 is the only one there is; `None` for its default, which is not written.
    pub(crate) fn tag_0(&mut self, write: Option<impl FnOnce(&mut Writer)>) {
        let Some(write) = write else { return self.varint(0) };
        let mut field = Writer(BytesMut::new());
        write(&mut field);
        self.varint(1);
        self.varint(0);
        self.varint(field.0.len());
        self.0.put_slice(&field.0);
    }

    pub(crate) fn no_tags(&mut self) {
        self.varint(0);
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.0.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.put_u8(value as u8);
    }

    pub(crate) fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

const ENDS_EARLY: DecodeError = DecodeError("it ends early");
const BAD_LENGTH: DecodeError = DecodeError("a length is not possible");

/// Reads a key or a value. What it gives owns its bytes, so that nothing holds on to the batch it came in.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(crate) fn i8(&mut self) -> Result<i8, DecodeError> {
        self.0.try_get_i8().map_err(|_| ENDS_EARLY)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, DecodeError> {
        self.0.try_get_i16().map_err(|_| ENDS_EARLY)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.0.try_get_i32().map_err(|_| ENDS_EARLY)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.0.try_get_i64().map_err(|_| ENDS_EARLY)
    }

    pub(crate) fn id(&mut self) -> Result<TopicId, DecodeError> {
        let (id, rest) = self.0.split_first_chunk::<16>().ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(TopicId::from_bytes(*id))
    }

    pub(crate) fn text(&mut self) -> Result<Arc<str>, DecodeError> {
        self.optional_text()?.ok_or(BAD_LENGTH)
    }

    pub(crate) fn optional_text(&mut self) -> Result<Option<Arc<str>>, DecodeError> {
        match self.i16()? {
            -1 => Ok(None),
            len => self.text_of(usize::try_from(len).map_err(|_| BAD_LENGTH)?).map(Some),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.count(1)?;
        self.take(len).map(Bytes::copy_from_slice)
    }

    /// Skips bytes that may not be there; how many they were.
    pub(crate) fn skip_optional_bytes(&mut self) -> Result<usize, DecodeError> {
        match self.i32()? {
            -1 => Ok(0),
            len => self.take(usize::try_from(len).map_err(|_| BAD_LENGTH)?).map(<[u8]>::len),
        }
    }

    /// How many elements of at least `least` bytes follow: never more than the rest can hold.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.i32()?).map_err(|_| BAD_LENGTH)?;
        self.that_fit(count, least)
    }

    pub(crate) fn compact_text(&mut self) -> Result<Arc<str>, DecodeError> {
        self.compact_optional_text()?.ok_or(BAD_LENGTH)
    }

    pub(crate) fn compact_optional_text(&mut self) -> Result<Option<Arc<str>>, DecodeError> {
        match self.varint()?.checked_sub(1) {
            Some(len) => self.text_of(len).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn compact_bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.compact_count(1)?;
        self.take(len).map(Bytes::copy_from_slice)
    }

    /// See [`Reader::count`].
    pub(crate) fn compact_count(&mut self, least: usize) -> Result<usize, DecodeError> {
        let count = self.varint()?.checked_sub(1).ok_or(BAD_LENGTH)?;
        self.that_fit(count, least)
    }

    /// The bytes of tag 0, if it is there. Other tags are of newer versions, which say by them what can be ignored.
    pub(crate) fn tag_0(&mut self) -> Result<Option<Reader<'a>>, DecodeError> {
        let mut first = None;
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let len = self.varint()?;
            let field = self.take(len)?;
            if tag == 0 {
                first = Some(Reader(field));
            }
        }
        Ok(first)
    }

    pub(crate) fn skip_tags(&mut self) -> Result<(), DecodeError> {
        self.tag_0().map(|_| ())
    }

    fn varint(&mut self) -> Result<usize, DecodeError> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.0.try_get_u8().map_err(|_| ENDS_EARLY)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).map_err(|_| BAD_LENGTH);
            }
        }
        Err(BAD_LENGTH)
    }

    fn that_fit(&self, count: usize, least: usize) -> Result<usize, DecodeError> {
        if count <= self.0.len() / least { Ok(count) } else { Err(BAD_LENGTH) }
    }

    /// Kafka holds all text to what the old shape can say, and so it can always be written in that.
    fn text_of(&mut self, len: usize) -> Result<Arc<str>, DecodeError> {
        i16::try_from(len).map_err(|_| BAD_LENGTH)?;
        std::str::from_utf8(self.take(len)?).map(Arc::from).map_err(|_| DecodeError("its text is not UTF-8"))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(taken)
    }
}
