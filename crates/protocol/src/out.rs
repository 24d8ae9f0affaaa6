//! [`Out`]: where messages are written, and the primitives of Kafka's wire on top of it.
//!
//! Not here: the sink that gathers without copying (`gather.rs`), and any message (`generated.rs`).

use bytes::Bytes;
use ottla_types::TopicId;

use crate::{EncodeError, Records, Region};

/// A place to write a message to: `Vec<u8>` for contiguous bytes, [`crate::GatherOut`] for chunks.
pub trait Out {
    /// Appends a copy of the bytes.
    fn put(&mut self, bytes: &[u8]);

    /// Appends the bytes, by reference where the sink can and it pays.
    fn put_shared(&mut self, bytes: &Bytes);

    /// Appends bytes that are somewhere else.
    fn put_region(&mut self, region: Region) -> Result<(), EncodeError>;

    /// One byte, 1 or 0.
    #[inline]
    fn put_bool(&mut self, value: bool) {
        self.put(&[u8::from(value)]);
    }

    /// One byte.
    #[inline]
    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    /// One byte, signed.
    #[inline]
    fn put_i8(&mut self, value: i8) {
        self.put(&value.to_be_bytes());
    }

    /// Two bytes, signed.
    #[inline]
    fn put_i16(&mut self, value: i16) {
        self.put(&value.to_be_bytes());
    }

    /// Two bytes, unsigned.
    #[inline]
    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    /// Four bytes, signed.
    #[inline]
    fn put_i32(&mut self, value: i32) {
        self.put(&value.to_be_bytes());
    }

    /// Four bytes, unsigned.
    #[inline]
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// Eight bytes, signed.
    #[inline]
    fn put_i64(&mut self, value: i64) {
        self.put(&value.to_be_bytes());
    }

    /// Eight bytes, IEEE 754.
    #[inline]
    fn put_f64(&mut self, value: f64) {
        self.put(&value.to_be_bytes());
    }

    /// Sixteen bytes.
    #[inline]
    fn put_uuid(&mut self, value: [u8; 16]) {
        self.put(&value);
    }

    /// Sixteen bytes that name a topic.
    #[inline]
    fn put_topic_id(&mut self, value: TopicId) {
        self.put(&value.to_bytes());
    }

    /// An unsigned number, seven bits a byte, least significant first.
    #[inline]
    fn put_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.put_u8(value as u8);
    }

    /// The length before bytes or an array.
    #[inline]
    fn put_array_len(&mut self, flexible: bool, length: usize) -> Result<(), EncodeError> {
        let length = i32::try_from(length).map_err(|_| EncodeError::TooLong(length))?;
        if flexible {
            self.put_varint(length.cast_unsigned() + 1);
        } else {
            self.put_i32(length);
        }
        Ok(())
    }

    /// A null array.
    #[inline]
    fn put_null_array(&mut self, flexible: bool) {
        if flexible { self.put_u8(0) } else { self.put_i32(-1) }
    }

    /// A string of at most 32,767 bytes.
    #[inline]
    fn put_string(&mut self, flexible: bool, text: &str) -> Result<(), EncodeError> {
        let length = i16::try_from(text.len()).map_err(|_| EncodeError::TooLong(text.len()))?;
        if flexible {
            self.put_varint(u32::from(length.cast_unsigned()) + 1);
        } else {
            self.put_i16(length);
        }
        self.put(text.as_bytes());
        Ok(())
    }

    /// A null string.
    #[inline]
    fn put_null_string(&mut self, flexible: bool) {
        if flexible { self.put_u8(0) } else { self.put_i16(-1) }
    }

    /// Bytes with their length.
    #[inline]
    fn put_bytes(&mut self, flexible: bool, bytes: &Bytes) -> Result<(), EncodeError> {
        self.put_array_len(flexible, bytes.len())?;
        self.put_shared(bytes);
        Ok(())
    }

    /// Null bytes.
    #[inline]
    fn put_null_bytes(&mut self, flexible: bool) {
        self.put_null_array(flexible);
    }

    /// Records with their length.
    #[inline]
    fn put_records(&mut self, flexible: bool, records: &Records) -> Result<(), EncodeError> {
        match records {
            Records::Bytes(bytes) => self.put_bytes(flexible, bytes),
            Records::Region(region) => {
                self.put_array_len(flexible, region.len as usize)?;
                self.put_region(*region)
            }
        }
    }
}

impl Out for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn put_shared(&mut self, bytes: &Bytes) {
        self.extend_from_slice(bytes);
    }

    fn put_region(&mut self, _region: Region) -> Result<(), EncodeError> {
        Err(EncodeError::RegionInBuffer)
    }
}

/// The tag section of a struct while it is written. Each field is written aside first, because its size comes before
/// it; no tagged field of the protocol is large.
#[derive(Default)]
pub(crate) struct TaggedFields {
    count: u32,
    fields: Vec<u8>,
}

impl TaggedFields {
    /// Adds a field. Tags must come in ascending order.
    pub(crate) fn put(
        &mut self,
        tag: u32,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut field = Vec::new();
        write(&mut field)?;
        let size = u32::try_from(field.len()).map_err(|_| EncodeError::TooLong(field.len()))?;
        self.count += 1;
        self.fields.put_varint(tag);
        self.fields.put_varint(size);
        self.fields.put(&field);
        Ok(())
    }

    pub(crate) fn write(self, out: &mut impl Out) {
        out.put_varint(self.count);
        if self.count > 0 {
            out.put(&self.fields);
        }
    }
}
