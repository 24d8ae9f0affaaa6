//! The few primitives records are written with: numbers big-endian, lengths as unsigned LEB128, text as UTF-8.
//!
//! What is not here: Kafka's own encodings (`ottla-protocol`), and the records (`record.rs`).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::DecodeError;

pub(crate) struct Writer(BytesMut);

impl Writer {
    pub(crate) fn new(kind: u8, version: u8) -> Writer {
        let mut bytes = BytesMut::with_capacity(64);
        bytes.put_u8(kind);
        bytes.put_u8(version);
        Writer(bytes)
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.0.put_i16(value);
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.0.put_i32(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.0.put_i64(value);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.put_u8(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.put_u16(value);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.put_slice(bytes);
    }

    pub(crate) fn len(&mut self, mut len: usize) {
        while len >= 0x80 {
            self.0.put_u8((len & 0x7f) as u8 | 0x80);
            len >>= 7;
        }
        self.0.put_u8(len as u8);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.len(text.len());
        self.raw(text.as_bytes());
    }

    pub(crate) fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.0.try_get_u8().map_err(|_| DecodeError::UnexpectedEnd)
    }

    /// 0 or 1; `field` says what the byte tells.
    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::InvalidTag { field, value }),
        }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.0.try_get_u16().map_err(|_| DecodeError::UnexpectedEnd)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, DecodeError> {
        self.0.try_get_i16().map_err(|_| DecodeError::UnexpectedEnd)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.0.try_get_i32().map_err(|_| DecodeError::UnexpectedEnd)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.0.try_get_i64().map_err(|_| DecodeError::UnexpectedEnd)
    }

    pub(crate) fn id(&mut self) -> Result<[u8; 16], DecodeError> {
        let (id, rest) = self.0.split_first_chunk::<16>().ok_or(DecodeError::UnexpectedEnd)?;
        self.0 = rest;
        Ok(*id)
    }

    /// A length or count of things that take at least `least` bytes each, so never more than the rest can hold.
    pub(crate) fn len(&mut self, least: usize) -> Result<usize, DecodeError> {
        let mut len = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.u8()?;
            len |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // A last byte of zero adds nothing: the same number has a shorter form.
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::InvalidLength);
                }
                let len = usize::try_from(len).map_err(|_| DecodeError::InvalidLength)?;
                return if len <= self.0.len() / least { Ok(len) } else { Err(DecodeError::InvalidLength) };
            }
        }
        Err(DecodeError::InvalidLength)
    }

    pub(crate) fn text(&mut self) -> Result<String, DecodeError> {
        let len = self.len(1)?;
        let (text, rest) = self.0.split_at_checked(len).ok_or(DecodeError::UnexpectedEnd)?;
        self.0 = rest;
        std::str::from_utf8(text).map(str::to_owned).map_err(|_| DecodeError::InvalidUtf8)
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes { count: self.0.len() }) }
    }
}
