//! The Disk seam: everything the log asks of a file system, and the real one.
//!
//! What is not here: a policy. When to sync, reserve or close is the log's business. The simulated twin is
//! `sim_disk.rs`; the calls only Linux has are in `sys.rs`. Next: `segment.rs`.

use std::{
    fmt::Debug,
    fs::{self, File, OpenOptions},
    io::{self, IoSlice},
    ops::Range,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::Path,
    sync::Arc,
};

use rustix::io::Errno;

use crate::{error::SyncError, sys};

/// Bytes of the file system that holds a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size of the whole file system.
    pub total: u64,
    /// What an unprivileged process may still write.
    pub available: u64,
}

/// A file system. Every call is plain and blocking; nothing is durable before a sync.
pub trait Disk: Send + Sync + Debug {
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates an empty file, or empties the one that is there, and opens it for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a directory and those above it; no error if it is there already.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Moves a file or directory, replacing a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no particular order; names that are not UTF-8 are left out.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// The length of a file in bytes.
    fn file_len(&self, path: &Path) -> io::Result<u64>;
    /// Makes creations, renames and removals in this directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Whether there is a file or directory of this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Room on the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// The file system that holds the directory `path`, to be synced as a whole; none where that is not known to be
    /// cheap, to reach the disk and to report what failed. It has to be taken before anything is written that its
    /// syncs are to cover: failures are reported from then on, each once. Who syncs beside others takes one of its own.
    fn file_system(&self, _path: &Path) -> Option<Arc<dyn FileSystem>> {
        None
    }

    /// All bytes of a small file; [`READ_BYTES_MAX`] at most.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        let len = file.len()?;
        if len > READ_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = vec![0; len as usize];
        read_exact_at(file.as_ref(), &mut bytes, 0)?;
        Ok(bytes)
    }
}

/// A file system as a whole.
pub trait FileSystem: Send + Sync + Debug {
    /// Makes everything durable that was written to it, by anybody, before the call, names included. An error is final
    /// (rule L10).
    fn sync(&self) -> Result<(), SyncError>;
    /// Bytes that wait to be written to any disk of the machine: about what a sync may have to wait for.
    fn unwritten(&self) -> io::Result<u64>;
}

/// The largest file that [`Disk::read`] takes into memory; a snapshot of some ten million producers.
pub const READ_BYTES_MAX: u64 = 2 << 30;

/// One open file. All positions are bytes from its start; nothing moves a cursor, so it may be shared by threads.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads up to `buf.len()` bytes at `position`; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all the bytes, one buffer after the other, from `position` on. After an error any part may be written.
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Sets the length; also gives back space that was reserved past it.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Reserves space so that writes into the range cannot run out of it; the length stays. `Unsupported` where the
    /// file system cannot.
    fn reserve(&self, position: u64, len: u64) -> io::Result<()>;
    /// Has the disk write everything below `end` and waits until it has; proves nothing. A sync that follows has little
    /// left to do. Where the system can't, it does nothing. An error is as final as that of a sync.
    fn write_out(&self, end: u64) -> io::Result<()>;
    /// Makes the content and length durable (not its name: [`Disk::sync_dir`]). An error is final (rule L10).
    fn sync_data(&self) -> io::Result<()>;
    /// Whether the whole range is known to be in memory, so that sending it will not wait for the disk.
    fn is_resident(&self, range: Range<u64>) -> bool;
    /// Asks for the range to be read into memory; returns at once and may do nothing.
    fn prefetch(&self, range: Range<u64>);
    /// The descriptor, for `sendfile`; none where there is no real file.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;
}

/// Fills `buf` from `position`, an error if the file ends before.
pub(crate) fn read_exact_at(file: &dyn DiskFile, buf: &mut [u8], position: u64) -> io::Result<()> {
    match file.read_at(buf, position)? {
        n if n == buf.len() => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Whether a call was refused because the disk, or a quota on it, is full.
pub(crate) fn is_out_of_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a call was refused because the process or the system has no file descriptor left.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// The operating system's files.
#[derive(Clone, Copy, Debug)]
pub struct OsDisk {
    native: bool,
}

#[derive(Debug)]
struct OsFile {
    file: File,
    native: bool,
}

impl OsDisk {
    /// Files with all that this operating system offers.
    pub fn new() -> OsDisk {
        OsDisk { native: true }
    }

    /// Files with nothing but what every system has: no reservation, no residency probe, no hints.
    pub fn portable() -> OsDisk {
        OsDisk { native: false }
    }

    fn file(&self, file: File) -> Arc<dyn DiskFile> {
        Arc::new(OsFile { file, native: self.native })
    }
}

impl Default for OsDisk {
    fn default() -> OsDisk {
        OsDisk::new()
    }
}

impl Disk for OsDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        OpenOptions::new().read(true).write(true).open(path).map(|file| self.file(file))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        options.map(|file| self.file(file))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        fs::metadata(path).map(|metadata| metadata.len())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            available: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn file_system(&self, path: &Path) -> Option<Arc<dyn FileSystem>> {
        if !self.native {
            return None;
        }
        Some(Arc::new(sys::WholeFileSystem::of(path)?))
    }
}

impl FileSystem for sys::WholeFileSystem {
    fn sync(&self) -> Result<(), SyncError> {
        sys::WholeFileSystem::sync(self).map_err(|error| SyncError::new("the file system", &error))
    }

    fn unwritten(&self) -> io::Result<u64> {
        sys::WholeFileSystem::unwritten(self)
    }
}

impl DiskFile for OsFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], position + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        sys::write_all_vectored_at(&self.file, bufs, position)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn reserve(&self, position: u64, len: u64) -> io::Result<()> {
        if !self.native {
            return Err(io::ErrorKind::Unsupported.into());
        }
        sys::reserve(&self.file, position, len)
    }

    fn write_out(&self, end: u64) -> io::Result<()> {
        if self.native { sys::write_out(&self.file, end) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn is_resident(&self, range: Range<u64>) -> bool {
        self.native && sys::is_resident(&self.file, range)
    }

    fn prefetch(&self, range: Range<u64>) {
        if self.native {
            sys::prefetch(&self.file, range);
        }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}
