//! Files at rest, spoilt: bytes of the input are read as a list of edits to a directory that was right.

use std::{
    collections::BTreeMap,
    io::IoSlice,
    path::{Path, PathBuf},
};

use ottla_log::{Disk, SimDisk};

use crate::mutate::Random;

const EDIT_BYTES: usize = 5;
const EDITS_MAX: usize = 8;

/// All files below a directory.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Reads all files below `dir`.
pub(crate) fn read(disk: &SimDisk, dir: &Path) -> Files {
    let mut files = Files::new();
    for name in disk.list(dir).unwrap() {
        let path = dir.join(name);
        match disk.read_file(&path) {
            Some(bytes) => drop(files.insert(path, bytes)),
            None => files.extend(read(disk, &path)),
        }
    }
    files
}

/// A disk with these files, all of it durable.
pub(crate) fn disk(files: &Files) -> SimDisk {
    let disk = SimDisk::new(0);
    for (path, bytes) in files {
        let dir = path.parent().unwrap();
        disk.create_dir_all(dir).unwrap();
        let file = disk.create(path).unwrap();
        file.write_vectored_at(&[IoSlice::new(bytes)], 0).unwrap();
        file.sync_data().unwrap();
        dir.ancestors().for_each(|dir| disk.sync_dir(dir).unwrap_or_default());
    }
    disk
}

/// Edits those files that `may` change. An edit is five bytes: which file, what to do, where (two), a value.
pub(crate) fn apply(data: &[u8], files: &mut Files, may: impl Fn(&Path) -> bool) {
    for edit in data.as_chunks::<EDIT_BYTES>().0.iter().take(EDITS_MAX) {
        let &[which, what, high, low, value] = edit;
        let paths: Vec<PathBuf> = files.keys().filter(|path| may(path)).cloned().collect();
        let Some(path) = paths.get(usize::from(which) % paths.len().max(1)) else { return };
        let other = files[&paths[usize::from(value) % paths.len()]].clone();
        let bytes = files.get_mut(path).unwrap();
        // Half of the edits are near the front, where the lengths are; the others anywhere.
        let place = usize::from(u16::from_be_bytes([high, low]));
        let at = if what & 1 == 0 { place & 0xff } else { (place * bytes.len()) >> 16 }.min(bytes.len());
        match what >> 1 & 7 {
            0 if at < bytes.len() => bytes[at] ^= 1 << (value & 7),
            1 if at < bytes.len() => bytes[at] = value,
            2 => bytes.truncate(at),
            3 => drop(bytes.splice(at..at, vec![value; usize::from(low)])),
            4 => {
                let end = (at + usize::from(low)).min(bytes.len());
                bytes[at..end].fill(value & 0x80);
            }
            5 => bytes.extend_from_slice(&other),
            6 => *bytes = other,
            _ => drop(files.remove(path)),
        }
    }
}

/// No edit, and a few lists of some.
pub(crate) fn none() -> Vec<Vec<u8>> {
    let mut random = Random::new(5);
    let list = |edits: usize| (0..edits * EDIT_BYTES).map(|_| random.number() as u8).collect();
    (0..64).map(|number| number % 5).map(list).collect()
}
