//! The system calls that the standard library does not have: vectored positioned writes, and on Linux reserving
//! space, probing the page cache, reading ahead, beginning to write, and syncing a whole file system.
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

/// A file system that can be synced as a whole.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(crate) struct WholeFileSystem {
    /// Any directory of it. What failed since this was opened is reported by its next sync, and by no other.
    dir: File,
    /// Whether the last that a sync writes is left in the disk's cache.
    needs_flush: bool,
    /// `/proc/meminfo`.
    memory: File,
}

#[cfg(target_os = "linux")]
impl WholeFileSystem {
    /// The first kernel whose `syncfs` says what could not be written, metadata (5.17) and data (5.8).
    const LINUX_MIN: (u32, u32) = (5, 17);
    /// Those whose `syncfs` has the disk empty its cache, and costs about as much as the sync of one file. Others leave
    /// it to each file (FUSE) or write all of their metadata anew (btrfs).
    const KINDS: [&str; 2] = ["ext4", "xfs"];

    pub(crate) fn of(dir: &std::path::Path) -> Option<WholeFileSystem> {
        if linux_version(rustix::system::uname().release().to_str().ok()?)? < Self::LINUX_MIN {
            return None;
        }
        let dir = File::open(dir).ok()?;
        let device = rustix::fs::fstat(&dir).ok()?.st_dev;
        let kind = kind_of(device, &std::fs::read_to_string("/proc/self/mountinfo").ok()?)?;
        let memory = File::open("/proc/meminfo").ok()?;
        let needs_flush = kind == "ext4" && !has_journal(device);
        Self::KINDS.contains(&kind.as_str()).then_some(WholeFileSystem { dir, needs_flush, memory })
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        rustix::fs::syncfs(&self.dir)?;
        if self.needs_flush {
            // Without a journal directories and extents are written after `syncfs` had the disk empty its cache. The
            // sync of one file, whichever, has it done at its end.
            rustix::fs::fsync(&self.dir)?;
        }
        // A file system that gave up takes the call and does nothing.
        let read_only = rustix::fs::fstatvfs(&self.dir)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
        if read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    pub(crate) fn unwritten(&self) -> io::Result<u64> {
        use std::os::unix::fs::FileExt;

        let mut text = [0; 4096];
        let length = self.memory.read_at(&mut text, 0)?;
        let text = String::from_utf8_lossy(&text[..length]);
        let kilobytes = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix("kB")?.trim().parse().ok()
        };
        let sum =
            kilobytes("Dirty:").zip(kilobytes("Writeback:")).and_then(|(a, b)| a.checked_add(b)?.checked_mul(1024));
        sum.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/meminfo says nothing of unwritten pages"))
    }
}

/// The first two numbers of a kernel's release.
#[cfg(target_os = "linux")]
fn linux_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether the ext4 on this device has a journal; also `false` if it does not say.
#[cfg(target_os = "linux")]
fn has_journal(device: u64) -> bool {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let Ok(block) = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")) else { return false };
    let Some(name) = block.file_name().and_then(|name| name.to_str()) else { return false };
    // The number of its thread; `<none>` otherwise.
    let task = std::fs::read_to_string(format!("/sys/fs/ext4/{name}/journal_task"));
    task.is_ok_and(|task| task.trim().parse::<u32>().is_ok())
}

/// The kind of file system that is mounted from `device`, by the text of `/proc/self/mountinfo` (proc(5)).
#[cfg(target_os = "linux")]
fn kind_of(device: u64, mounts: &str) -> Option<String> {
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device.as_str()))?;
    Some(mount.split_once(" - ")?.1.split(' ').next()?.to_owned())
}

/// Elsewhere there is none.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) enum WholeFileSystem {}

#[cfg(not(target_os = "linux"))]
impl WholeFileSystem {
    pub(crate) fn of(_dir: &std::path::Path) -> Option<WholeFileSystem> {
        None
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn unwritten(&self) -> io::Result<u64> {
        match *self {}
    }
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_file_system_is_found_by_its_device() {
        let mounts = "22 27 0:21 / /proc rw,nosuid shared:13 - proc proc rw\n\
                      27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
                      31 27 259:2 /a\\040b /mnt rw shared:1 master:2 - xfs /dev/nvme0n1p2 rw\n";
        assert_eq!(kind_of(rustix::fs::makedev(254, 0), mounts).as_deref(), Some("ext4"));
        assert_eq!(kind_of(rustix::fs::makedev(259, 2), mounts).as_deref(), Some("xfs"));
        assert_eq!(kind_of(rustix::fs::makedev(1, 1), mounts), None);
    }

    #[test]
    fn a_kernel_is_told_by_two_numbers() {
        assert_eq!(linux_version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(linux_version("5.8"), Some((5, 8)));
        assert_eq!(linux_version("5.10-rc1+"), Some((5, 10)));
        assert_eq!(linux_version("generic"), None);
    }
}
