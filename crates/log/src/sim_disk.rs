//! A simulated disk that forgets what was not synced: for tests and the simulator, never for data.
//!
//! The model (docs: rule pages of the `Disk` seam): a file is what was durable at its last good sync plus the writes
//! since. A crash keeps any subset of those writes, 4 KiB page by page, tears pages at 512 bytes, may leave zeros or
//! garbage where a lengthened file was not written, and loses any subset of the creations, renames and removals that
//! neither a sync of their directory nor one of the file system came after. A failing sync drops the pages it was to
//! write, as Linux does. Space is a byte budget. The same seed and the same calls give the same disk. Next: `disk.rs`
//! for the traits.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    ops::Range,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;

use crate::{
    disk::{Disk, DiskFile, FileSystem, Space},
    error::SyncError,
    sim_inode::{Change, Inode, next},
};

/// Larger than any test's file: keeps a wrong position from taking all memory.
const FILE_BYTES_MAX: u64 = 1 << 32;

/// A disk in memory; clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// What a disk has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimStats {
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Bytes written to files.
    pub bytes_written: u64,
    /// Calls that wrote to a file.
    pub writes: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Syncs of directories.
    pub dir_syncs: u64,
    /// Syncs of the whole file system.
    pub whole_syncs: u64,
    /// Files opened or created.
    pub opens: u64,
}

#[derive(Debug)]
struct State {
    random: u64,
    nodes: BTreeMap<PathBuf, Node>,
    durable_nodes: BTreeMap<PathBuf, Node>,
    name_changes: Vec<NameChange>,
    files: Vec<Inode>,
    capacity: Option<u64>,
    reserves: bool,
    failing_syncs: bool,
    failing_writes: bool,
    failing_opens: bool,
    lying_syncs: bool,
    lying_dir_syncs: bool,
    full_dirs: bool,
    holding_whole_syncs: bool,
    unwritten: u64,
    calls_left: Option<u64>,
    stats: SimStats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Put(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, Node),
}

#[derive(Debug)]
struct SimFile {
    state: Arc<Mutex<State>>,
    inode: usize,
}

impl SimDisk {
    /// An empty disk without limits. The seed decides what a crash keeps.
    pub fn new(seed: u64) -> SimDisk {
        let state = State {
            random: seed,
            nodes: BTreeMap::new(),
            durable_nodes: BTreeMap::new(),
            name_changes: Vec::new(),
            files: Vec::new(),
            capacity: None,
            reserves: true,
            failing_syncs: false,
            failing_writes: false,
            failing_opens: false,
            lying_syncs: false,
            lying_dir_syncs: false,
            full_dirs: false,
            holding_whole_syncs: false,
            unwritten: 0,
            calls_left: None,
            stats: SimStats::default(),
        };
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Cuts the power: what a machine finds when it starts again. This disk stays as it was.
    pub fn crash(&self) -> SimDisk {
        let mut state = self.state.lock();
        let mut nodes = state.durable_nodes.clone();
        for change in state.name_changes.clone() {
            if state.chance(2) {
                change.apply(&mut nodes);
            }
        }
        // What lies in a directory that was lost is lost with it; parents sort before what is in them.
        let names: Vec<PathBuf> = nodes.keys().cloned().collect();
        for path in names {
            let is_root = |parent: &Path| parent.as_os_str().is_empty() || parent.parent().is_none();
            if path.parent().is_some_and(|parent| !is_root(parent) && nodes.get(parent) != Some(&Node::Dir)) {
                nodes.remove(&path);
            }
        }
        let mut files = Vec::with_capacity(state.files.len());
        let mut random = state.random;
        for inode in &state.files {
            let bytes = inode.after_crash(&mut random);
            files.push(Inode { current: bytes.clone(), durable: bytes, linked: true, ..Inode::default() });
        }
        state.random = random;
        let survivor = SimDisk::new(next(&mut state.random));
        let mut new = survivor.state.lock();
        new.durable_nodes = nodes.clone();
        new.nodes = nodes;
        new.files = files;
        new.capacity = state.capacity;
        new.reserves = state.reserves;
        new.unlink_unnamed();
        drop(new);
        survivor
    }

    /// A disk of its own with the content that this one shows now, all of it durable.
    pub fn fork(&self) -> SimDisk {
        let state = self.state.lock();
        let copy = SimDisk::new(state.random);
        let mut new = copy.state.lock();
        new.nodes = state.nodes.clone();
        new.durable_nodes = state.nodes.clone();
        let settled = |inode: &Inode| Inode {
            current: inode.current.clone(),
            durable: inode.current.clone(),
            unsynced: Vec::new(),
            reserved: inode.reserved,
            linked: inode.linked,
        };
        new.files = state.files.iter().map(settled).collect();
        drop(new);
        copy
    }

    /// The disk after the process alone died: everything written is there.
    pub fn restart(&self) -> SimDisk {
        self.state.lock().calls_left = None;
        self.clone()
    }

    /// Limits the disk to this many bytes of file content and reservations; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Whether space can be reserved; otherwise `reserve` answers `Unsupported`.
    pub fn set_reserves(&self, reserves: bool) {
        self.state.lock().reserves = reserves;
    }

    /// From now on syncs fail, and drop what they were to write.
    pub fn fail_syncs(&self, fail: bool) {
        self.state.lock().failing_syncs = fail;
    }

    /// From now on writes to files fail with EIO.
    pub fn fail_writes(&self, fail: bool) {
        self.state.lock().failing_writes = fail;
    }

    /// From now on there is no file descriptor to open anything with: EMFILE.
    pub fn fail_opens(&self, fail: bool) {
        self.state.lock().failing_opens = fail;
    }

    /// From now on a sync of the whole file system seems to have so much else to write, in bytes.
    pub fn set_unwritten(&self, bytes: u64) {
        self.state.lock().unwritten = bytes;
    }

    /// From now on syncs of the whole file system begin and do not end until they are let go.
    pub fn hold_whole_syncs(&self, hold: bool) {
        self.state.lock().holding_whole_syncs = hold;
    }

    /// From now on file syncs answer "done" and do nothing: a sync missing from the code under test.
    pub fn lie_about_syncs(&self, lie: bool) {
        self.state.lock().lying_syncs = lie;
    }

    /// From now on no directory has room for another name: a rename needs it before the old one goes.
    pub fn fill_dirs(&self, full: bool) {
        self.state.lock().full_dirs = full;
    }

    /// From now on syncs of names answer "done" and do nothing, also those of the whole file system.
    pub fn lie_about_dir_syncs(&self, lie: bool) {
        self.state.lock().lying_dir_syncs = lie;
    }

    /// After this many more calls that change something, every one fails: the moment just before a power cut.
    pub fn fail_after(&self, calls: u64) {
        self.state.lock().calls_left = Some(calls);
    }

    /// Whether the calls given to `fail_after` are used up.
    pub fn is_dead(&self) -> bool {
        self.state.lock().calls_left == Some(0)
    }

    /// Turns over one bit of a file at rest, durably. False if the file is shorter or not there.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) -> bool {
        let mut state = self.state.lock();
        let Some(Node::File(inode)) = state.nodes.get(path).copied() else { return false };
        let file = &mut state.files[inode];
        let mask = 1 << (bit & 7);
        let index = position as usize;
        if let Some(byte) = file.durable.get_mut(index) {
            *byte ^= mask;
        }
        file.current.get_mut(index).map(|byte| *byte ^= mask).is_some()
    }

    /// The bytes of a file as a reader sees them now.
    pub fn read_file(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        match state.nodes.get(path)? {
            Node::File(inode) => Some(state.files[*inode].current.clone()),
            Node::Dir => None,
        }
    }

    /// Bytes of content and reservations of all files that have a name or are open.
    pub fn used(&self) -> u64 {
        self.state.lock().used()
    }

    /// What it has done so far.
    pub fn stats(&self) -> SimStats {
        self.state.lock().stats
    }
}

impl NameChange {
    fn directory_is(&self, dir: &Path) -> bool {
        match self {
            NameChange::Put(path, _) | NameChange::Remove(path) => path.parent() == Some(dir),
            NameChange::Rename(from, to, _) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }

    fn apply(self, nodes: &mut BTreeMap<PathBuf, Node>) {
        match self {
            NameChange::Put(path, node) => {
                nodes.insert(path, node);
            }
            NameChange::Remove(path) => {
                nodes.remove(&path);
            }
            NameChange::Rename(from, to, Node::Dir) => rename_dir(nodes, &from, &to),
            NameChange::Rename(from, to, node) => {
                nodes.remove(&from);
                nodes.insert(to, node);
            }
        }
    }
}

fn rename_dir(nodes: &mut BTreeMap<PathBuf, Node>, from: &Path, to: &Path) {
    let inside: Vec<PathBuf> = nodes.keys().filter(|path| path.starts_with(from)).cloned().collect();
    for path in inside {
        if let (Some(node), Ok(rest)) = (nodes.remove(&path), path.strip_prefix(from)) {
            let target = if rest.as_os_str().is_empty() { to.to_path_buf() } else { to.join(rest) };
            nodes.insert(target, node);
        }
    }
}

impl State {
    fn chance(&mut self, one_in: u64) -> bool {
        next(&mut self.random).is_multiple_of(one_in)
    }

    fn used(&self) -> u64 {
        self.files.iter().map(Inode::used).sum()
    }

    /// Counts a call that changes something; an error once the power is about to be cut.
    fn change(&mut self) -> io::Result<()> {
        match &mut self.calls_left {
            Some(0) => Err(io::Error::other("the simulated machine has stopped")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn rename_now(&mut self, change: NameChange) {
        change.clone().apply(&mut self.nodes);
        self.name_changes.push(change);
        self.unlink_unnamed();
    }

    /// Files without a name take no space any more.
    fn unlink_unnamed(&mut self) {
        for inode in &mut self.files {
            inode.linked = false;
        }
        for node in self.nodes.values() {
            if let Node::File(inode) = node {
                self.files[*inode].linked = true;
            }
        }
    }

    /// Whether another file may be open.
    fn descriptor(&self) -> io::Result<()> {
        if self.failing_opens { Err(Errno::MFILE.into()) } else { Ok(()) }
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.nodes.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn room_for(&self, inode: usize, end: u64) -> u64 {
        let Some(capacity) = self.capacity else { return end };
        let own = self.files[inode].used();
        if end <= own {
            return end;
        }
        let others = self.used() - own;
        end.min(own.max(capacity.saturating_sub(others)))
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.descriptor()?;
        let inode = state.file(path)?;
        state.stats.opens += 1;
        Ok(Arc::new(SimFile { state: Arc::clone(&self.state), inode }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.change()?;
        state.descriptor()?;
        if path.parent().is_some_and(|parent| !parent.as_os_str().is_empty() && !state.nodes.contains_key(parent)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.stats.opens += 1;
        if let Ok(inode) = state.file(path) {
            let file = &mut state.files[inode];
            file.current.clear();
            file.unsynced.push(Change::Truncate(0));
            file.reserved = 0;
            return Ok(Arc::new(SimFile { state: Arc::clone(&self.state), inode }));
        }
        let inode = state.files.len();
        state.files.push(Inode::default());
        state.rename_now(NameChange::Put(path.to_path_buf(), Node::File(inode)));
        Ok(Arc::new(SimFile { state: Arc::clone(&self.state), inode }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        let above: Vec<PathBuf> =
            path.ancestors().filter(|path| !path.as_os_str().is_empty()).map(Into::into).collect();
        for dir in above.into_iter().rev() {
            match state.nodes.get(&dir) {
                Some(Node::Dir) => {}
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => state.rename_now(NameChange::Put(dir, Node::Dir)),
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        if state.full_dirs {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let node = *state.nodes.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.rename_now(NameChange::Rename(from.to_path_buf(), to.to_path_buf(), node));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        state.file(path)?;
        state.rename_now(NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        if !state.nodes.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside: Vec<PathBuf> = state.nodes.keys().filter(|inner| inner.starts_with(path)).cloned().collect();
        for path in inside {
            state.rename_now(NameChange::Remove(path));
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.descriptor()?;
        if state.nodes.get(path) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.nodes.keys().filter(|inner| inner.parent() == Some(path));
        Ok(inside.filter_map(|inner| inner.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        let inode = state.file(path)?;
        Ok(state.files[inode].current.len() as u64)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        state.stats.dir_syncs += 1;
        state.descriptor()?;
        if state.failing_syncs {
            return Err(io::Error::other("simulated failure of a directory sync"));
        }
        if state.lying_dir_syncs {
            return Ok(());
        }
        let changes = std::mem::take(&mut state.name_changes);
        for change in changes {
            if change.directory_is(path) {
                change.apply(&mut state.durable_nodes);
            } else {
                state.name_changes.push(change);
            }
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.state.lock().nodes.contains_key(path))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let state = self.state.lock();
        let total = state.capacity.unwrap_or(1 << 40);
        Ok(Space { total, available: total.saturating_sub(state.used()) })
    }

    fn file_system(&self, _path: &Path) -> Option<Arc<dyn FileSystem>> {
        Some(Arc::new(self.clone()))
    }
}

/// Syncs what is in the files, and their names.
impl FileSystem for SimDisk {
    fn sync(&self) -> Result<(), SyncError> {
        let mut state = self.state.lock();
        let error = |error| SyncError::new("the file system", &error);
        state.change().map_err(error)?;
        state.stats.whole_syncs += 1;
        while state.holding_whole_syncs {
            MutexGuard::unlocked(&mut state, thread::yield_now);
        }
        let (failing, lying) = (state.failing_syncs, state.lying_syncs);
        state.files.iter_mut().for_each(|file| file.sync(failing, lying));
        if !failing && !state.lying_dir_syncs {
            for change in std::mem::take(&mut state.name_changes) {
                change.apply(&mut state.durable_nodes);
            }
        }
        if failing { Err(error(io::Error::other("simulated failure of a sync"))) } else { Ok(()) }
    }

    fn unwritten(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwritten)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let mut state = self.state.lock();
        let bytes = &state.files[self.inode].current;
        let start = usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
        let len = buf.len().min(bytes.len() - start);
        buf[..len].copy_from_slice(&bytes[start..start + len]);
        state.stats.bytes_read += len as u64;
        Ok(len)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut data = Vec::with_capacity(bufs.iter().map(|buf| buf.len()).sum());
        for buf in bufs {
            data.extend_from_slice(buf);
        }
        let mut state = self.state.lock();
        state.change()?;
        let wanted = data.len();
        let end = position.saturating_add(wanted as u64);
        if end > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let room = state.room_for(self.inode, end);
        data.truncate(usize::try_from(room.saturating_sub(position)).unwrap_or(usize::MAX));
        if state.failing_writes {
            let torn = data.len() / 2;
            data.truncate(torn);
        }
        state.stats.writes += 1;
        state.stats.bytes_written += data.len() as u64;
        let file = &mut state.files[self.inode];
        let (start, written) = (position as usize, data.len());
        if written > 0 {
            if file.current.len() < start + written {
                file.current.resize(start + written, 0);
            }
            file.current[start..start + written].copy_from_slice(&data);
            file.unsynced.push(Change::Write(position, data));
        }
        match (state.failing_writes, written == wanted) {
            (true, _) => Err(io::Error::other("simulated failure of a write")),
            (false, true) => Ok(()),
            (false, false) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().files[self.inode].current.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        if len > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let file = &mut state.files[self.inode];
        file.reserved = len;
        if file.current.len() as u64 != len {
            file.current.resize(len as usize, 0);
            file.unsynced.push(Change::Truncate(len));
        }
        Ok(())
    }

    fn reserve(&self, position: u64, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        if !state.reserves {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let end = position.saturating_add(len);
        if state.room_for(self.inode, end) < end {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = &mut state.files[self.inode];
        file.reserved = file.reserved.max(end);
        Ok(())
    }

    fn write_out(&self, _end: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.failing_syncs {
            state.files[self.inode].unsynced.clear();
            return Err(io::Error::other("simulated failure of a write"));
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        state.stats.syncs += 1;
        let (failing, lying) = (state.failing_syncs, state.lying_syncs);
        state.files[self.inode].sync(failing, lying);
        if failing { Err(io::Error::other("simulated failure of a sync")) } else { Ok(()) }
    }

    fn is_resident(&self, range: Range<u64>) -> bool {
        range.end <= self.state.lock().files[self.inode].current.len() as u64
    }

    fn prefetch(&self, _range: Range<u64>) {}

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
