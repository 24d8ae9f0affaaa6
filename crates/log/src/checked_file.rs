//! Small files that are whole or refused (rule L7): magic, version, body, CRC-32C; written to a temporary name,
//! synced, renamed.
//!
//! The caller syncs the directory, once for all the files it wrote. What the bodies hold is said by `epochs.rs` and
//! `snapshot.rs`.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::disk::{Disk, DiskFile};

/// Bytes around the body: 4 magic, 2 version, 2 zero, 4 CRC.
const FRAME_BYTES: usize = 12;
const HEAD_BYTES: usize = 8;
/// The ending of a file that was not finished; recovery removes it.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Frames a body.
pub fn encode(magic: [u8; 4], version: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + FRAME_BYTES);
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(body);
    let crc = crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

/// The body, if the frame is whole and of this kind and version.
pub fn decode(magic: [u8; 4], version: u16, bytes: &[u8]) -> Option<&[u8]> {
    let (framed, crc) = bytes.split_last_chunk::<4>()?;
    let (head, body) = framed.split_first_chunk::<HEAD_BYTES>()?;
    let whole = head[..4] == magic && head[4..6] == version.to_be_bytes() && u32::from_be_bytes(*crc) == crc32c(framed);
    whole.then_some(body)
}

/// Puts the file in place of an older one: after a crash one of the two is there, whole, once the directory is synced.
pub(crate) fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = write_aside(disk, path, bytes)?;
    // Of no kind, so that nobody takes it for a want of room, which shows before.
    if !cfg!(zoo = "B19") {
        file.sync_data().map_err(io::Error::other)?;
    }
    put_in_place(disk, path)
}

/// The first half of [`write`]: under a name that means nothing yet. The file has to be synced before the second.
pub(crate) fn write_aside(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.create(&aside(path))?;
    file.write_vectored_at(&[IoSlice::new(bytes)], 0)?;
    Ok(file)
}

/// The second half.
pub(crate) fn put_in_place(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.rename(&aside(path), path)
}

fn aside(path: &Path) -> PathBuf {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY);
    temporary.into()
}

/// Replaces a small file whole, for other owners of such files (rule L7): temporary name, sync, rename, sync of the
/// directory. What a checksum protects is the caller's format.
pub fn write_atomically(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(disk, path, bytes)?;
    path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))
}

/// CRC-32C, the checksum of everything the log writes beside the batches (which carry the same).
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
