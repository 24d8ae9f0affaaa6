//! Snapshot files: written, synced and read back before they replace anything (rule M3).
//!
//! What is in them: `snapshot.rs`. When one is made: `machine.rs`.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use ottla_log::{Disk, write_atomically};

use crate::{error::OpenError, snapshot, types::Snapshot};

const ENDING: &str = ".snapshot";

/// Puts a snapshot in place of the others. An error leaves those that were there.
pub(super) fn write(disk: &dyn Disk, dir: &Path, index: u64, bytes: &[u8]) -> io::Result<()> {
    let path = path(dir, index);
    write_atomically(disk, &path, bytes)?;
    if disk.read(&path)? != bytes {
        return Err(io::Error::other("a snapshot that was written could not be read back"));
    }
    for older in list(disk, dir)?.into_iter().filter(|older| *older < index) {
        disk.remove(&self::path(dir, older))?;
    }
    Ok(())
}

/// The newest one. Where it is damaged nothing older will do: the log does not reach back to it.
pub(super) fn load(disk: &dyn Disk, dir: &Path) -> Result<Option<Snapshot>, OpenError> {
    let Some(index) = list(disk, dir)?.pop() else { return Ok(None) };
    read(disk, dir, index)?.map(Some).ok_or_else(|| OpenError::Damaged(format!("snapshot {index} is not whole")))
}

/// The snapshot of this index; `None` if it is not whole.
pub(super) fn read(disk: &dyn Disk, dir: &Path, index: u64) -> io::Result<Option<Snapshot>> {
    let found = snapshot::decode(&Bytes::from(disk.read(&path(dir, index))?));
    Ok(found.filter(|found| found.meta.last_log_id.is_some_and(|last| last.index == index)))
}

fn path(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("{index:020}{ENDING}"))
}

/// The indexes of those that are there, the newest last.
fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<u64>> {
    let names = disk.list(dir)?;
    let mut found: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(ENDING)?.parse().ok()).collect();
    found.sort_unstable();
    Ok(found)
}
