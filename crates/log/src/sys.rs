//! The system calls that the standard library does not have: vectored positioned writes, and on Linux reserving
//! space, probing the page cache, reading ahead and beginning to write.
//!
//! The one module of the workspace that may hold `unsafe`. Elsewhere than on Linux each call answers what is safe to
//! assume: cannot reserve, not resident. `OsDisk::portable` takes those same answers on Linux, where they are tested.

use std::{
    fs::File,
    io::{self, IoSlice},
    ops::Range,
};

/// The most buffers one `pwritev` takes (IOV_MAX on Linux and the BSDs).
const BUFFERS_MAX: usize = 1024;

/// Writes every buffer at `position`, in one call where the system takes it all at once.
pub(crate) fn write_all_vectored_at(file: &File, bufs: &[IoSlice<'_>], mut position: u64) -> io::Result<()> {
    for group in bufs.chunks(BUFFERS_MAX) {
        let total: usize = group.iter().map(|buf| buf.len()).sum();
        let mut done = 0;
        while done < total {
            let written = if done == 0 {
                rustix::io::pwritev(file, group, position)
            } else {
                rustix::io::pwritev(file, &remaining(group, done), position)
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    done += n;
                    position += n as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// What is left of the buffers after their first `done` bytes: only a short write comes here.
fn remaining<'a>(bufs: &'a [IoSlice<'_>], mut done: usize) -> Vec<IoSlice<'a>> {
    let mut rest = Vec::with_capacity(bufs.len());
    for buf in bufs {
        let skip = done.min(buf.len());
        done -= skip;
        if skip < buf.len() {
            rest.push(IoSlice::new(&buf[skip..]));
        }
    }
    rest
}

#[cfg(target_os = "linux")]
pub(crate) fn reserve(file: &File, position: u64, len: u64) -> io::Result<()> {
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, position, len).map_err(|error| match error {
        rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS => io::ErrorKind::Unsupported.into(),
        error => error.into(),
    })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn reserve(_file: &File, _position: u64, _len: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
pub(crate) fn prefetch(file: &File, range: Range<u64>) {
    let len = std::num::NonZeroU64::new(range.end.saturating_sub(range.start));
    // A hint: a file system that does not take it changes nothing for the caller.
    let _ = rustix::fs::fadvise(file, range.start, len, rustix::fs::Advice::WillNeed);
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn prefetch(_file: &File, _range: Range<u64>) {}

/// Where the file system does not know the call, it does nothing.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(crate) fn write_out(file: &File, end: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    // A length of zero would be all of the file.
    let Some(length) = std::num::NonZeroI64::new(i64::try_from(end).unwrap_or(i64::MAX)) else { return Ok(()) };
    let waiting = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the call takes no pointer, and the descriptor is open for as long as `file` is borrowed.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, length.get(), waiting) };
    let error = io::Error::last_os_error();
    match rustix::io::Errno::from_io_error(&error) {
        _ if result == 0 => Ok(()),
        Some(rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => Ok(()),
        _ => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn write_out(_file: &File, _end: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(crate) fn is_resident(file: &File, range: Range<u64>) -> bool {
    use std::os::fd::AsRawFd;

    #[repr(C)]
    struct CachestatRange {
        off: u64,
        len: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Cachestat {
        nr_cache: u64,
        nr_dirty: u64,
        nr_writeback: u64,
        nr_evicted: u64,
        nr_recently_evicted: u64,
    }
    /// The number is the same on every architecture: cachestat came after they were unified (Linux 6.5).
    const SYS_CACHESTAT: libc::c_long = 451;

    if range.is_empty() {
        return true;
    }
    let page = rustix::param::page_size() as u64;
    let pages = range.end.div_ceil(page) - range.start / page;
    let asked = CachestatRange { off: range.start, len: range.end - range.start };
    let mut answer = Cachestat::default();
    // SAFETY: both pointers are to live, properly laid out structures of the sizes the call expects; it writes only
    // the second and keeps neither. An older kernel answers ENOSYS.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const asked, &raw mut answer, 0u32) };
    if result != 0 {
        // Nor do all containers let the call through. Both ends stand for what lies between them.
        return reads_at_once(file, range.start) && reads_at_once(file, range.end - 1);
    }
    // Large folios may count pages around the range, so more than asked for is as good.
    answer.nr_cache >= pages
}

/// Whether a byte is there without waiting for the disk.
#[cfg(target_os = "linux")]
fn reads_at_once(file: &File, position: u64) -> bool {
    let mut byte = [0];
    let mut buffers = [std::io::IoSliceMut::new(&mut byte)];
    rustix::io::preadv2(file, &mut buffers, position, rustix::io::ReadWriteFlags::NOWAIT) == Ok(1)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn is_resident(_file: &File, range: Range<u64>) -> bool {
    range.is_empty()
}
