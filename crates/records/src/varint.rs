//! Zigzag variable-length integers as records use them, and taking bytes off the front of a slice.
//!
//! Reading refuses what overflows or never ends (at most 5 bytes for 32 bits, 10 for 64); like Kafka it takes padded
//! forms such as `80 00` within that length. Next: `record.rs`.

/// What is wrong with a record: one byte, so that the results of the strict pass fit into registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    EndsEarly,
    LengthTooLarge,
    Overflows32,
    Overflows64,
    VarintTooLong,
    NegativeSize,
    NegativeHeaderCount,
    HeaderCountTooLarge,
    SizeTooLarge,
    OffsetOutOfRange,
    TimestampOverflows,
    NullHeaderKey,
    NegativeLength,
    OffsetNotPosition,
}

impl Malformed {
    /// The same for people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Malformed::EndsEarly => "it ends early",
            Malformed::LengthTooLarge => "a length is larger than the bytes that are left",
            Malformed::Overflows32 => "a varint overflows 32 bits",
            Malformed::Overflows64 => "a varint overflows 64 bits",
            Malformed::VarintTooLong => "a varint is too long",
            Malformed::NegativeSize => "its length is negative",
            Malformed::NegativeHeaderCount => "its header count is negative",
            Malformed::HeaderCountTooLarge => "its header count is larger than the bytes that are left",
            Malformed::SizeTooLarge => "its length is larger than its fields",
            Malformed::OffsetOutOfRange => "its offset is outside the range of the batch",
            Malformed::TimestampOverflows => "its timestamp overflows",
            Malformed::NullHeaderKey => "a header key is null",
            Malformed::NegativeLength => "a length is negative",
            Malformed::OffsetNotPosition => "its offset delta is not its position",
        }
    }
}

/// Takes one byte off the front.
#[inline]
pub(crate) fn take_byte(input: &mut &[u8]) -> Result<u8, Malformed> {
    let (&first, rest) = input.split_first().ok_or(Malformed::EndsEarly)?;
    *input = rest;
    Ok(first)
}

/// Takes `count` bytes off the front.
#[inline]
pub(crate) fn take<'a>(input: &mut &'a [u8], count: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = input.split_at_checked(count).ok_or(Malformed::LengthTooLarge)?;
    *input = rest;
    Ok(taken)
}

/// Reads a zigzag varint of 32 bits.
#[inline]
pub(crate) fn take_i32(input: &mut &[u8]) -> Result<i32, Malformed> {
    // One and two bytes are nearly all there is in practice.
    match **input {
        [first, ref rest @ ..] if first < 0x80 => {
            *input = rest;
            return Ok(unzigzag_32(u32::from(first)));
        }
        [first, second, ref rest @ ..] if second < 0x80 => {
            *input = rest;
            return Ok(unzigzag_32(u32::from(first & 0x7f) | u32::from(second) << 7));
        }
        _ => {}
    }
    let first = take_byte(input)?;
    let raw = take_tail(input, first, 4)?;
    u32::try_from(raw).map(unzigzag_32).map_err(|_| Malformed::Overflows32)
}

/// Reads a zigzag varint of 64 bits.
#[inline]
pub(crate) fn take_i64(input: &mut &[u8]) -> Result<i64, Malformed> {
    let first = take_byte(input)?;
    let raw = if first < 0x80 { u64::from(first) } else { take_tail(input, first, 9)? };
    Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
}

/// The value of a varint whose first byte was `first`, with up to `more` bytes to come.
fn take_tail(input: &mut &[u8], first: u8, more: u32) -> Result<u64, Malformed> {
    let mut value = u64::from(first & 0x7f);
    for group in 1..=more {
        let byte = take_byte(input)?;
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * group;
        if shift == 63 && bits > 1 {
            return Err(Malformed::Overflows64);
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed::VarintTooLong)
}

#[inline]
fn unzigzag_32(raw: u32) -> i32 {
    (raw >> 1).cast_signed() ^ -(raw & 1).cast_signed()
}

/// Appends a zigzag varint; a 32-bit value has the same form as the 64-bit value equal to it.
pub(crate) fn put(out: &mut Vec<u8>, value: i64) {
    let mut raw = zigzag(value);
    while raw >= 0x80 {
        out.push((raw & 0x7f) as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// How many bytes [`put`] writes for `value`.
pub(crate) fn size(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn l1_varints_that_overflow_or_never_end_are_refused() {
        assert_eq!(take_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x0f][..]), Ok(i32::MIN));
        for bytes in [&[0xff, 0xff, 0xff, 0xff, 0x1f][..], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], &[0x80], &[]] {
            assert!(take_i32(&mut &*bytes).is_err(), "{bytes:02x?}");
        }
        let mut widest = [0xff; 10];
        widest[9] = 0x01;
        assert_eq!(take_i64(&mut &widest[..]), Ok(i64::MIN));
        widest[9] = 0x02;
        assert!(take_i64(&mut &widest[..]).is_err());
        assert!(take_i64(&mut &[0x80; 11][..]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_put_is_taken(value: i64, small: i32) {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            prop_assert_eq!(bytes.len(), size(value));
            put(&mut bytes, i64::from(small));
            let mut input = &bytes[..];
            prop_assert_eq!(take_i64(&mut input), Ok(value));
            prop_assert_eq!(take_i32(&mut input), Ok(small));
            prop_assert!(input.is_empty());
        }
    }
}
