//! The latest offset of each key, in a fixed amount of memory: what a pass of compaction knows of the dirty part.
//!
//! Keys are known by a 128-bit hash with secret, random keys (two SipHashes): nobody can find two that collide, and by
//! chance a trillion keys do with a probability of 10^-15 (docs/decisions/compaction.md). A table of open addresses
//! that says no when it is full; the pass then ends early and the next one goes on. What stays is decided in
//! `compact.rs`.

use std::hash::{BuildHasher, Hasher, RandomState};

use ottla_types::Offset;

/// Two words of hash and the offset plus one; 0 is an empty slot, so that fresh memory is an empty table.
type Slot = [u64; 3];
const SLOT_BYTES: u64 = size_of::<Slot>() as u64;
/// Of so many slots one fewer is used: longer chains cost more than they save.
const FULL_OF_EIGHT: usize = 7;

#[derive(Debug)]
pub(crate) struct KeyMap {
    slots: Vec<Slot>,
    used: usize,
    hashers: [RandomState; 2],
}

impl KeyMap {
    /// A map for at most `keys` keys and of at most `bytes` bytes, which takes at least one key.
    pub(crate) fn new(keys: u64, bytes: u64) -> KeyMap {
        let wanted = keys.saturating_add(keys / 4).saturating_add(8);
        let slots = wanted.min(bytes / SLOT_BYTES).max(8);
        KeyMap {
            slots: vec![[0; 3]; usize::try_from(slots).unwrap_or(usize::MAX / 64)],
            used: 0,
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    /// Records that `key` was written at `offset`, later than any time before. False if there is no room.
    pub(crate) fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let (at, hash) = self.find(key);
        let Some(slot) = self.slots.get_mut(at) else { return false };
        if slot[2] == 0 {
            if self.used >= self.slots.len() / 8 * FULL_OF_EIGHT {
                return false;
            }
            self.used += 1;
        }
        self.slots[at] = [hash[0], hash[1], offset.0.cast_unsigned().wrapping_add(1)];
        true
    }

    /// The latest offset of `key`, if it has one here.
    pub(crate) fn latest(&self, key: &[u8]) -> Option<Offset> {
        let (at, _) = self.find(key);
        let offset = self.slots.get(at)?[2].checked_sub(1)?;
        Some(Offset(offset.cast_signed()))
    }

    /// The slot of `key`, or the empty one it would take.
    fn find(&self, key: &[u8]) -> (usize, [u64; 2]) {
        let hash = self.hashers.each_ref().map(|hasher| {
            let mut hasher = hasher.build_hasher();
            hasher.write(key);
            hasher.finish()
        });
        let len = self.slots.len();
        let mut at = ((u128::from(hash[0]) * len as u128) >> 64) as usize;
        // There is always an empty one.
        while self.slots[at][2] != 0 && self.slots[at][..2] != hash {
            at = if at + 1 == len { 0 } else { at + 1 };
        }
        (at, hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_latest_offset_of_every_key_and_says_when_it_is_full() {
        let mut map = KeyMap::new(1000, 24 * 64);
        let key = |number: i64| number.to_be_bytes();
        let taken = (0..1000).take_while(|&number| map.put(&key(number), Offset(number))).count() as i64;
        assert_eq!(taken, 56);
        assert!(map.put(&key(3), Offset(5000)), "a known key needs no room");
        assert_eq!(map.latest(&key(3)), Some(Offset(5000)));
        assert_eq!(map.latest(&key(0)), Some(Offset(0)));
        assert_eq!(map.latest(&key(taken)), None);
    }
}
