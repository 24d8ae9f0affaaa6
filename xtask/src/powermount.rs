//! Serves a [`Volume`] to the kernel through FUSE, so that any program can be run on it. Linux, and root.
//!
//! Only translation: no rule about what survives a power cut is here, they are all in `powerfs`. `flock`, `sendfile`
//! and shared memory maps are the kernel's own doing on top of reads and writes.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use crate::powerfs::{Attributes, Result, Volume};

/// Nothing but the kernel changes a mounted volume, so it may remember names and lengths.
const REMEMBER: Duration = Duration::from_secs(60);
/// The size the volume claims to have, in blocks of 4 KiB: 4 GiB.
const BLOCKS: u64 = 1 << 20;
/// `fallocate` without a change of the length; what `FALLOC_FL_KEEP_SIZE` is in `linux/falloc.h`.
const KEEP_SIZE: i32 = 1;

/// A mounted volume. It must be unmounted before [`Volume::cut`], so that the kernel forgets what it has cached.
#[derive(Debug)]
pub(crate) struct Mounted(BackgroundSession);

impl Mounted {
    pub(crate) fn new(volume: &Arc<Mutex<Volume>>, at: &Path) -> io::Result<Mounted> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("powerfs".to_owned()), MountOption::NoAtime];
        fuser::spawn_mount(Served(Arc::clone(volume)), at, &config).map(Mounted)
    }

    /// Fails while a process still has a file of the volume open.
    pub(crate) fn unmount(self) -> io::Result<()> {
        match self.0.umount_and_join() {
            // How the kernel tells the serving thread, if it asks at the wrong moment, that the mount is gone.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => Ok(()),
            ended => ended,
        }
    }
}

#[derive(Debug)]
struct Served(Arc<Mutex<Volume>>);

fn errno(kind: ErrorKind) -> Errno {
    match kind {
        ErrorKind::NotFound => Errno::ENOENT,
        ErrorKind::AlreadyExists => Errno::EEXIST,
        ErrorKind::NotADirectory => Errno::ENOTDIR,
        ErrorKind::IsADirectory => Errno::EISDIR,
        ErrorKind::DirectoryNotEmpty => Errno::ENOTEMPTY,
        ErrorKind::FileTooLarge => Errno::EFBIG,
        _ => Errno::EIO,
    }
}

fn attr(of: Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(of.inode),
        size: of.size,
        blocks: of.size.div_ceil(512),
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: kind(of),
        perm: if of.directory { 0o755 } else { 0o644 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn kind(of: Attributes) -> FileType {
    if of.directory { FileType::Directory } else { FileType::RegularFile }
}

fn empty(result: Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(kind) => reply.error(errno(kind)),
    }
}

fn entry(result: Result<Attributes>, reply: ReplyEntry) {
    match result {
        Ok(found) => reply.entry(&REMEMBER, &attr(found), Generation(0)),
        Err(kind) => reply.error(errno(kind)),
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.0.lock().lookup(parent.0, name), reply);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.lock().attributes(inode.0) {
            Ok(found) => reply.attr(&REMEMBER, &attr(found)),
            Err(kind) => reply.error(errno(kind)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut volume = self.0.lock();
        let changed = size.map_or(Ok(()), |size| volume.truncate(inode.0, size));
        match changed.and_then(|()| volume.attributes(inode.0)) {
            Ok(found) => reply.attr(&REMEMBER, &attr(found)),
            Err(kind) => reply.error(errno(kind)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        entry(self.0.lock().create(parent.0, name, true), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.0.lock().remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.0.lock().remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return reply.error(Errno::EINVAL);
        }
        let may_replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        empty(self.0.lock().rename((parent.0, name), (new_parent.0, new_name), may_replace), reply);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.0.lock().create(parent.0, name, false) {
            Ok(found) => {
                reply.created(&REMEMBER, &attr(found), Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(kind) => reply.error(errno(kind)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.lock().read(inode.0, offset, size as usize) {
            Ok(bytes) => reply.data(bytes),
            Err(kind) => reply.error(errno(kind)),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match (self.0.lock().write(inode.0, offset, data), u32::try_from(data.len())) {
            (Ok(()), Ok(len)) => reply.written(len),
            (Err(kind), _) => reply.error(errno(kind)),
            (_, Err(_)) => reply.error(Errno::EINVAL),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.0.lock().sync_file(inode.0), reply);
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.0.lock().sync_directory(inode.0), reply);
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = match self.0.lock().list(inode.0) {
            Ok(entries) => entries,
            Err(kind) => return reply.error(errno(kind)),
        };
        let itself = [".", ".."].map(|name| (name.into(), Attributes { inode: inode.0, size: 0, directory: true }));
        for (next, (name, found)) in (1..).zip(itself.into_iter().chain(entries)) {
            if next > offset && reply.add(INodeNo(found.inode), next, kind(found), name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, 4096, 255, 4096);
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mut volume = self.0.lock();
        let end = offset.saturating_add(length);
        let result = match mode {
            KEEP_SIZE => Ok(()),
            0 => match volume.attributes(inode.0) {
                Ok(found) if found.size < end => volume.truncate(inode.0, end),
                found => found.map(|_| ()),
            },
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        empty(result, reply);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::powerfs::{Loss, Names};

    /// Needs /dev/fuse and root, which a developer's machine may not give; `cargo xtask power-loss` refuses without.
    #[test]
    fn a_program_on_a_mounted_volume_keeps_what_it_synced() {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("not run: no root or no /dev/fuse");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let volume = Arc::new(Mutex::new(Volume::new(3, Names::WithTheirDirectory, None)));
        let mounted = Mounted::new(&volume, place.path()).unwrap();

        let directory = place.path().join("topic-0");
        fs::create_dir(&directory).unwrap();
        File::open(place.path()).unwrap().sync_all().unwrap();
        let log = OpenOptions::new().create_new(true).read(true).write(true).open(directory.join("0.log")).unwrap();
        File::open(&directory).unwrap().sync_all().unwrap();
        log.try_lock().unwrap();
        rustix::fs::fallocate(&log, rustix::fs::FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
        log.write_all_at(b"acknowledged", 0).unwrap();
        log.sync_data().unwrap();
        log.write_all_at(b" and not", 12).unwrap();
        fs::write(directory.join("checkpoint.tmp"), b"new").unwrap();
        fs::rename(directory.join("checkpoint.tmp"), directory.join("checkpoint")).unwrap();
        assert_eq!(fs::read(directory.join("0.log")).unwrap(), b"acknowledged and not");
        assert_eq!(fs::read(directory.join("checkpoint")).unwrap(), b"new");
        drop(log);

        mounted.unmount().unwrap();
        volume.lock().cut(Loss::Everything);
        let mounted = Mounted::new(&volume, place.path()).unwrap();
        assert_eq!(fs::read(directory.join("0.log")).unwrap(), b"acknowledged");
        let names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["0.log"]);
        mounted.unmount().unwrap();
    }
}
