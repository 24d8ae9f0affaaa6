//! Small files that are read and written whole, over the `Disk` seam.
//!
//! What is not here: what is in them. The frame (magic, version, body, CRC-32C) is `ottla_log`'s, see
//! `docs/formats/checked-file.md`.

use std::{io, path::Path};

use ottla_log::{Disk, checked_file, write_atomically};

/// Replaces a framed file so that a power cut leaves the old one or the new one.
pub(crate) fn write_framed(disk: &dyn Disk, path: &Path, magic: [u8; 4], version: u16, body: &[u8]) -> io::Result<()> {
    write_atomically(disk, path, &checked_file::encode(magic, version, body))
}

/// The body of a framed file; `None` if it is not whole.
pub(crate) fn read_framed(disk: &dyn Disk, path: &Path, magic: [u8; 4], version: u16) -> io::Result<Option<Vec<u8>>> {
    let bytes = disk.read(path)?;
    Ok(checked_file::decode(magic, version, &bytes).map(<[u8]>::to_vec))
}
