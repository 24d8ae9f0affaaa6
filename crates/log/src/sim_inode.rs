//! One file of the simulated disk: what is durable, what was written since, and what a power cut makes of it.
//!
//! Pages of 4 KiB survive or not one by one and may be torn at 512 bytes. Names, space and failures are in
//! `sim_disk.rs`.

const PAGE: usize = 4096;
const SECTOR: usize = 512;

#[derive(Debug, Default)]
pub(crate) struct Inode {
    pub(crate) current: Vec<u8>,
    pub(crate) durable: Vec<u8>,
    pub(crate) unsynced: Vec<Change>,
    pub(crate) reserved: u64,
    pub(crate) linked: bool,
}

#[derive(Debug)]
pub(crate) enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

impl Inode {
    pub(crate) fn used(&self) -> u64 {
        if self.linked { self.reserved.max(self.current.len() as u64) } else { 0 }
    }

    /// Makes the content durable, or, failing, forgets what was written: the pages are clean then, and what they held
    /// never reaches the disk, whatever a later sync says. Lying, it does nothing.
    pub(crate) fn sync(&mut self, failing: bool, lying: bool) {
        if !failing && !lying {
            self.durable.clone_from(&self.current);
        }
        if failing || !lying {
            self.unsynced.clear();
        }
    }

    /// The content a machine finds after the power was cut.
    pub(crate) fn after_crash(&self, random: &mut u64) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let mut longest = bytes.len();
        for change in &self.unsynced {
            match change {
                Change::Truncate(len) => {
                    if next(random).is_multiple_of(2) {
                        bytes.resize(*len as usize, 0);
                    }
                }
                Change::Write(position, data) => {
                    longest = longest.max(*position as usize + data.len());
                    keep_some(&mut bytes, *position as usize, data, random);
                }
            }
        }
        // The new length may have reached the disk although the bytes did not.
        if longest > bytes.len() && next(random).is_multiple_of(2) {
            let len = bytes.len() + (next(random) as usize) % (longest - bytes.len() + 1);
            let garbage = next(random).is_multiple_of(2);
            while bytes.len() < len {
                bytes.push(if garbage { next(random) as u8 } else { 0 });
            }
        }
        bytes
    }
}

/// Writes the pages of `data` that the crash kept; a kept page may be torn at a sector.
fn keep_some(bytes: &mut Vec<u8>, position: usize, data: &[u8], random: &mut u64) {
    let keeps_all = next(random).is_multiple_of(3);
    let mut start = 0;
    while start < data.len() {
        let page_end = ((position + start) / PAGE + 1) * PAGE;
        let mut end = data.len().min(page_end - position);
        let next_start = end;
        let kept = keeps_all || next(random).is_multiple_of(2);
        if kept {
            if !keeps_all && next(random).is_multiple_of(4) {
                let torn = (position + start + (next(random) as usize) % PAGE) / SECTOR * SECTOR;
                end = end.min(torn.saturating_sub(position).max(start));
            }
            if bytes.len() < position + end {
                bytes.resize(position + end, 0);
            }
            bytes[position + start..position + end].copy_from_slice(&data[start..end]);
        }
        start = next_start;
    }
}

/// SplitMix64: one more number of the sequence.
pub(crate) fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *random;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
