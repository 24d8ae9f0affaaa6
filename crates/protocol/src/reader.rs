//! [`Reader`]: the primitives of Kafka's wire, read from one frame.
//!
//! Not here: any message (`generated.rs`), and framing (`frame.rs`). Nothing read is trusted: every length is held
//! against the bytes that are left, and everything allocated is charged to a budget that grows with the frame.

use bytes::Bytes;
use bytestring::ByteString;
use ottla_types::TopicId;

use crate::DecodeError;

/// Bytes of memory that decoding may claim for each byte of the frame. The types are larger than their wire form: a
/// topic with an empty name and no partitions takes 4 bytes there and some 80 here.
const BUDGET_PER_BYTE: usize = 16;
const BUDGET_MIN: usize = 64 << 10;
const BUDGET_MAX: usize = 256 << 20;

/// Kafka's limit for a string, in bytes.
const STRING_MAX: usize = i16::MAX as usize;

/// Reads one frame from front to back. Strings and bytes that come out are slices of the frame, not copies.
#[derive(Debug)]
pub struct Reader {
    frame: Bytes,
    position: usize,
    /// Where reading stops: the frame's end, or the end of the tagged field being read.
    end: usize,
    /// Bytes of memory that arrays may still claim.
    budget: usize,
}

impl Reader {
    /// A reader at the start of `frame`, which comes without its length prefix.
    pub fn new(frame: Bytes) -> Reader {
        let end = frame.len();
        let budget = end.saturating_mul(BUDGET_PER_BYTE).clamp(BUDGET_MIN, BUDGET_MAX);
        Reader { frame, position: 0, end, budget }
    }

    /// Bytes not yet read.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.end - self.position
    }

    /// An error unless everything has been read.
    #[inline]
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes(left)),
        }
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.frame[self.position..self.end].first_chunk::<N>() {
            Some(bytes) => {
                self.position += N;
                Ok(*bytes)
            }
            None => Err(DecodeError::UnexpectedEnd { needed: N, left: self.remaining() }),
        }
    }

    #[inline]
    fn slice(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        let left = self.remaining();
        if len > left {
            return Err(DecodeError::UnexpectedEnd { needed: len, left });
        }
        let start = self.position;
        self.position += len;
        Ok(self.frame.slice(start..self.position))
    }

    /// A byte that is zero or not.
    #[inline]
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.fixed::<1>()? != [0])
    }

    /// One byte, signed.
    #[inline]
    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        Ok(i8::from_be_bytes(self.fixed()?))
    }

    /// Two bytes, signed.
    #[inline]
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.fixed()?))
    }

    /// Two bytes, unsigned.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.fixed()?))
    }

    /// Four bytes, signed.
    #[inline]
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    /// Four bytes, unsigned.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    /// Eight bytes, signed.
    #[inline]
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    /// Eight bytes, IEEE 754.
    #[inline]
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        Ok(f64::from_be_bytes(self.fixed()?))
    }

    /// Sixteen bytes.
    #[inline]
    pub fn uuid(&mut self) -> Result<[u8; 16], DecodeError> {
        self.fixed()
    }

    /// Sixteen bytes that name a topic.
    #[inline]
    pub fn topic_id(&mut self) -> Result<TopicId, DecodeError> {
        Ok(TopicId::from_bytes(self.fixed()?))
    }

    /// An unsigned number of up to 32 bits, seven bits a byte, least significant first. Trailing zero groups are read
    /// as Kafka reads them; more than five bytes or 32 bits are refused.
    #[inline]
    pub fn varint(&mut self) -> Result<u32, DecodeError> {
        let [first] = self.fixed()?;
        if first < 0x80 {
            return Ok(u32::from(first));
        }
        let mut value = u32::from(first & 0x7f);
        for shift in [7, 14, 21, 28] {
            let [byte] = self.fixed()?;
            if shift == 28 && byte > 0x0f {
                return Err(DecodeError::OverlongVarint);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::OverlongVarint)
    }

    /// The length before bytes or an array: 32 bits, or in flexible versions a varint of one more than the length.
    #[inline]
    fn length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            return Ok(self.varint()?.checked_sub(1).map(|length| length as usize));
        }
        match self.i32()? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| DecodeError::InvalidLength(length.into())),
        }
    }

    #[inline]
    fn string_length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            let length = self.length(true)?;
            return match length {
                Some(length) if length > STRING_MAX => Err(DecodeError::InvalidLength(length as i64)),
                length => Ok(length),
            };
        }
        match self.i16()? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| DecodeError::InvalidLength(length.into())),
        }
    }

    /// A string or null.
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<ByteString>, DecodeError> {
        let Some(length) = self.string_length(flexible)? else { return Ok(None) };
        ByteString::try_from(self.slice(length)?).map(Some).map_err(|_| DecodeError::InvalidUtf8)
    }

    /// A string.
    pub fn string(&mut self, flexible: bool) -> Result<ByteString, DecodeError> {
        self.nullable_string(flexible)?.ok_or(DecodeError::UnexpectedNull)
    }

    /// Bytes or null.
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<Bytes>, DecodeError> {
        self.length(flexible)?.map(|length| self.slice(length)).transpose()
    }

    /// Bytes.
    pub fn bytes(&mut self, flexible: bool) -> Result<Bytes, DecodeError> {
        self.nullable_bytes(flexible)?.ok_or(DecodeError::UnexpectedNull)
    }

    /// An array or null. No element takes less than a byte, so the length is bounded by what is left of the frame.
    #[inline]
    pub fn nullable_array<T>(
        &mut self,
        flexible: bool,
        mut element: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(length) = self.length(flexible)? else { return Ok(None) };
        let left = self.remaining();
        if length > left {
            return Err(DecodeError::UnexpectedEnd { needed: length, left });
        }
        let memory = length.saturating_mul(size_of::<T>());
        let Some(budget) = self.budget.checked_sub(memory) else {
            return Err(DecodeError::OverBudget { needed: memory - self.budget });
        };
        self.budget = budget;
        let mut elements = Vec::with_capacity(length);
        for _ in 0..length {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    /// An array.
    #[inline]
    pub fn array<T>(
        &mut self,
        flexible: bool,
        element: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        self.nullable_array(flexible, element)?.ok_or(DecodeError::UnexpectedNull)
    }

    /// A struct behind a byte that is negative for null.
    pub fn nullable_struct<T>(
        &mut self,
        read: impl FnOnce(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.i8()? < 0 { Ok(None) } else { read(self).map(Some) }
    }

    /// The tag section that ends every struct of a flexible version (KIP-482). `known` reads the field of a tag it
    /// knows and returns true, or returns false to have it skipped. As in Kafka, the order of tags is not enforced and
    /// the last of several fields with one tag counts; unlike there, a known field must fill its announced size.
    pub fn tagged_fields(
        &mut self,
        mut known: impl FnMut(&mut Reader, u32) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let left = self.remaining();
            if size > left {
                return Err(DecodeError::UnexpectedEnd { needed: size, left });
            }
            let outer = self.end;
            self.end = self.position + size;
            if known(self, tag)? {
                self.finish()?;
            }
            self.position = self.end;
            self.end = outer;
        }
        Ok(())
    }

    /// A tag section in which no tag is known.
    #[inline]
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        self.tagged_fields(|_, _| Ok(false))
    }
}
