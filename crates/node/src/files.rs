//! Small files that are read and written whole, over the `Disk` seam.
//!
//! What is not here: what is in them. The frame (magic, version, body, CRC-32C) is `ottla_log`'s, see
//! `docs/formats/checked-file.md`.

use std::{io, path::Path};

use ottla_log::{Disk, checked_file, write_atomically};

/// More than any of our small files has; a longer one is not read into memory.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// The bytes of a file.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let len = file.len()?;
    if len > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too large to be one of ours"));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(bytes)
}

/// Replaces a framed file so that a power cut leaves the old one or the new one.
pub(crate) fn write_framed(disk: &dyn Disk, path: &Path, magic: [u8; 4], version: u16, body: &[u8]) -> io::Result<()> {
    write_atomically(disk, path, &checked_file::encode(magic, version, body))
}

/// The body of a framed file; `None` if it is not whole.
pub(crate) fn read_framed(disk: &dyn Disk, path: &Path, magic: [u8; 4], version: u16) -> io::Result<Option<Vec<u8>>> {
    let bytes = read(disk, path)?;
    Ok(checked_file::decode(magic, version, &bytes).map(<[u8]>::to_vec))
}
