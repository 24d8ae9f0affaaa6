//! The quick way through the strict pass: one look over records as nearly all producers write them.
//!
//! What it returns is certain. Where it returns nothing, something is wrong or merely unusual, and the pass in
//! `produce.rs` finds out what and says it. Next: `record.rs`.

/// What the records of a batch have in common. All of them are well formed, and their offsets are their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    pub(crate) min_timestamp_delta: i64,
    pub(crate) max_timestamp_delta: i64,
    pub(crate) all_have_keys: bool,
}

/// Looks over `count` records, which must be all there is in `bytes`.
pub(crate) fn survey(bytes: &[u8], count: i32) -> Option<Survey> {
    let mut survey = Survey { min_timestamp_delta: i64::MAX, max_timestamp_delta: i64::MIN, all_have_keys: true };
    let mut cursor = Cursor { bytes, at: 0 };
    for index in 0..count.unsigned_abs() {
        let size = cursor.length()?;
        let end = cursor.at + size;
        let _attributes = cursor.byte()?;
        let timestamp_delta = unzigzag(cursor.varint()?);
        if cursor.varint()? != index << 1 {
            return None;
        }
        survey.all_have_keys &= cursor.skip_nullable()?;
        cursor.skip_nullable()?;
        for _ in 0..cursor.length()? {
            let key = cursor.length()?;
            cursor.at += key;
            cursor.skip_nullable()?;
        }
        if cursor.at != end {
            return None;
        }
        survey.min_timestamp_delta = survey.min_timestamp_delta.min(timestamp_delta);
        survey.max_timestamp_delta = survey.max_timestamp_delta.max(timestamp_delta);
    }
    (cursor.at == bytes.len()).then_some(survey)
}

/// Goes through bytes; lengths may take it past their end, where nothing more can be read. Each is below 2^27, so that
/// the place cannot overflow.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Takes a varint of up to four bytes, in its zigzag form: longer ones are unusual.
    #[inline(always)]
    fn varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    #[inline(always)]
    fn length(&mut self) -> Option<usize> {
        let raw = self.varint()?;
        (raw & 1 == 0).then_some(raw as usize >> 1)
    }

    /// Skips bytes behind their length; whether there are any, and not null.
    #[inline(always)]
    fn skip_nullable(&mut self) -> Option<bool> {
        match self.varint()? {
            NULL => Some(false),
            raw if raw & 1 == 0 => {
                self.at += raw as usize >> 1;
                Some(true)
            }
            _ => None,
        }
    }
}

/// The zigzag form of -1.
const NULL: u32 = 1;

fn unzigzag(raw: u32) -> i64 {
    i64::from((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
}
