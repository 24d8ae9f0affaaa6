//! Topic ids: 128 random bits, written the way Kafka writes them (KIP-516).
//!
//! What is not here: where an id comes from. The node draws the bits (randomness is a seam) and calls
//! [`TopicId::from_random`]. Next: `number.rs`.

use std::{fmt, str::FromStr};

use uuid::{Builder, Uuid};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const TEXT_LEN: usize = 22;

/// The identity of a topic for its whole life; a re-created topic of the same name has another (rule M6).
///
/// Its text form is Kafka's: 22 characters of URL-safe base64 without padding. It never begins with `-`, so that it
/// can stand on a command line, and names the partition's directory.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(Uuid);

/// The text is not 22 characters of URL-safe base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTopicId;

impl TopicId {
    /// No topic id: all zeros, which the wire uses for "not given".
    pub const ZERO: TopicId = TopicId(Uuid::nil());

    /// An id from 16 random bytes, or `None` if Kafka would draw again (reserved values, or a leading `-`).
    pub fn from_random(bits: [u8; 16]) -> Option<TopicId> {
        let id = TopicId(Builder::from_random_bytes(bits).into_uuid());
        let reserved = id.0.as_u128() <= 1;
        (!reserved && !id.to_string().starts_with('-')).then_some(id)
    }

    /// The id from its 16 bytes, most significant first, as the wire and the disk hold it.
    pub fn from_bytes(bytes: [u8; 16]) -> TopicId {
        TopicId(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes of the id, most significant first.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// Whether this is [`TopicId::ZERO`].
    pub fn is_zero(self) -> bool {
        self.0.is_nil()
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 128 bits and 4 bits of padding: 22 digits of 6 bits, the last holding the low 2 bits of the id.
        let value = self.0.as_u128();
        let mut text = [0u8; TEXT_LEN];
        for (index, digit) in text.iter_mut().enumerate() {
            let shift = 122 - 6 * index as i32;
            let bits = if shift >= 0 { value >> shift } else { value << -shift };
            *digit = ALPHABET[(bits & 0x3f) as usize];
        }
        f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TopicId {
    type Err = InvalidTopicId;

    fn from_str(text: &str) -> Result<Self, InvalidTopicId> {
        if text.len() != TEXT_LEN {
            return Err(InvalidTopicId);
        }
        let mut value = 0u128;
        for (index, byte) in text.bytes().enumerate() {
            let digit = ALPHABET.iter().position(|&c| c == byte).ok_or(InvalidTopicId)? as u128;
            if index < TEXT_LEN - 1 {
                value = value << 6 | digit;
            } else if digit & 0xf == 0 {
                value = value << 2 | digit >> 4;
            } else {
                return Err(InvalidTopicId);
            }
        }
        Ok(TopicId(Uuid::from_u128(value)))
    }
}

impl fmt::Display for InvalidTopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a topic id is 22 characters of URL-safe base64")
    }
}

impl std::error::Error for InvalidTopicId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_kafkas_base64() {
        let id = TopicId::from_bytes(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10");
        assert_eq!(id.to_string(), "ASNFZ4mrze_-3LqYdlQyEA");
        assert_eq!("ASNFZ4mrze_-3LqYdlQyEA".parse(), Ok(id));
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in
            ["", "ASNFZ4mrze_-3LqYdlQyE", "ASNFZ4mrze_-3LqYdlQyEB", "ASNFZ4mrze+-3LqYdlQyEA", "ASNFZ4mrze_-3LqYdlQyEAA"]
        {
            assert_eq!(text.parse::<TopicId>(), Err(InvalidTopicId), "{text:?}");
        }
    }

    #[test]
    fn an_id_that_would_read_as_an_option_is_drawn_again() {
        assert_eq!(TopicId::from_random([0xf8; 16]), None);
        assert!(TopicId::from_random([0x10; 16]).is_some());
    }
}
