//! A volume that can lose its power: what is on the platters, and what is only in the cache, of every file and name.
//!
//! The rules are those a careful program may rely on, and not one more. Bytes are safe once their file was synced. A
//! name (created, renamed, removed) is safe once its directory was synced; syncing the file does not save its name,
//! although ext4 would. At a power cut everything else is gone, or torn: each 4 KiB page of a file holds what any
//! prefix of its unsynced writes left there, the length is that of any moment since the last sync, and of the names
//! any prefix of the unsynced changes took place. [`Names::WithAnySync`] is the milder rule of a journal like ext4's.
//!
//! No system calls here: `powermount` serves a volume to the kernel, `power` runs a broker on it.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::mem;

/// The inode number of the volume's root directory, as FUSE wants it.
pub(crate) const ROOT: u64 = 1;

const PAGE: usize = 4096;

/// Which syncs the volume answers without doing them: negative controls, each like one sync missing in the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lie {
    /// Syncs of files named `*.log`.
    Logs,
    /// Syncs of all other files: what is kept beside the records.
    OtherFiles,
    /// Syncs of directories.
    Directories,
    /// Three of ten syncs, of anything.
    Some,
    /// Every sync.
    All,
}

/// What makes a new, changed or removed name safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// A sync of its directory, and nothing else: all that POSIX lets a program rely on.
    WithTheirDirectory,
    /// Any sync at all, which commits the journal, and with it all names so far.
    WithAnySync,
}

/// What a power cut takes from what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// All of it: nothing reached the platters before it had to.
    Everything,
    /// An arbitrary part of it, page by page.
    Torn,
}

/// How many operations of one kind may still happen before the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fuse {
    /// The n-th write or truncation from now is the first that does not happen.
    Write(u32),
    /// The n-th sync of a file or directory from now does not happen.
    Sync(u32),
    /// The n-th sync of a file from now fails, alone: the power stays, and what it should have saved is marked clean
    /// and never will be, as Linux does after a failed write-back (rule L10).
    FailingSync(u32),
    /// The n-th creation, renaming or removal from now does not happen.
    Name(u32),
}

/// What was asked of the volume, and what its last power cut took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// Syncs of files that were done.
    pub(crate) file_syncs: u64,
    /// Syncs of directories that were done.
    pub(crate) directory_syncs: u64,
    /// Syncs of files that failed, with the power still there.
    pub(crate) failed_syncs: u64,
    /// Syncs answered without being done.
    pub(crate) lies: u64,
    /// Bytes of unsynced writes that did not survive a cut.
    pub(crate) bytes_lost: u64,
    /// Unsynced creations, renamings and removals that did not survive a cut.
    pub(crate) names_lost: u64,
}

/// What `stat` wants to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    /// Inode number.
    pub(crate) inode: u64,
    /// Length in bytes; 0 for a directory.
    pub(crate) size: u64,
    /// Whether it is a directory.
    pub(crate) directory: bool,
}

pub(crate) type Result<T> = std::result::Result<T, ErrorKind>;

/// The volume. Everything a mounted file system does goes through it; `cut` is the power failing.
#[derive(Debug)]
pub(crate) struct Volume {
    nodes: HashMap<u64, Node>,
    last_inode: u64,
    /// Changes of names that no directory sync has covered yet, oldest first.
    names: Vec<NameChange>,
    random: fastrand::Rng,
    when_safe: Names,
    lie: Option<Lie>,
    fuse: Option<Fuse>,
    dark: bool,
    counters: Counters,
}

#[derive(Debug)]
enum Node {
    File(File),
    Directory(Directory),
}

#[derive(Debug, Default)]
struct File {
    durable: Vec<u8>,
    current: Vec<u8>,
    pending: Vec<Change>,
    /// Its name ends in `.log`, which is what [`Lie::Logs`] asks.
    log: bool,
}

#[derive(Debug, Default)]
struct Directory {
    durable: BTreeMap<OsString, u64>,
    current: BTreeMap<OsString, u64>,
}

#[derive(Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate { len: usize },
}

/// A creation adds, a removal removes, a renaming does both and is never seen half done.
#[derive(Debug)]
struct NameChange {
    removes: Option<(u64, OsString)>,
    adds: Option<(u64, OsString, u64)>,
}

impl NameChange {
    fn touches(&self, directory: u64) -> bool {
        self.removes.as_ref().is_some_and(|(it, _)| *it == directory)
            || self.adds.as_ref().is_some_and(|(it, ..)| *it == directory)
    }

    fn directories(&self) -> impl Iterator<Item = u64> {
        let removes = self.removes.as_ref().map(|(directory, _)| *directory);
        removes.into_iter().chain(self.adds.as_ref().map(|(directory, ..)| *directory))
    }
}

impl Change {
    fn end(&self) -> usize {
        match self {
            Change::Write { at, bytes } => at + bytes.len(),
            Change::Truncate { len } => *len,
        }
    }

    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Write { at, bytes } => {
                let end = at + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*at..end].copy_from_slice(bytes);
            }
            Change::Truncate { len } => to.resize(*len, 0),
        }
    }
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// Leaves on the platters what a failing power supply might have.
    fn tear(&mut self, random: &mut fastrand::Rng) {
        let reached = random.usize(0..=self.pending.len());
        let longest = self.pending.iter().map(Change::end).max().unwrap_or(0).max(self.durable.len());
        // Every page takes its own prefix of the changes; a third of the time all of them were luckier than that.
        let luck = random.u8(0..3);
        let prefixes: Vec<usize> = (0..longest.div_ceil(PAGE))
            .map(|_| if luck == 0 { self.pending.len() } else { random.usize(0..=self.pending.len()) })
            .collect();
        let mut torn = mem::take(&mut self.durable);
        let mut len = torn.len();
        torn.resize(longest, 0);
        for (index, change) in self.pending.iter().enumerate() {
            if index < reached {
                len = match change {
                    Change::Write { at, bytes } => len.max(at + bytes.len()),
                    Change::Truncate { len } => *len,
                };
            }
            let (start, end) = match change {
                Change::Write { at, bytes } => (*at, at + bytes.len()),
                Change::Truncate { len } => (*len, longest),
            };
            let pages = prefixes.iter().enumerate().take(end.div_ceil(PAGE)).skip(start / PAGE);
            for (page, prefix) in pages {
                if index >= *prefix {
                    continue;
                }
                let from = start.max(page * PAGE);
                let to = end.min((page + 1) * PAGE);
                match change {
                    Change::Write { at, bytes } => torn[from..to].copy_from_slice(&bytes[from - at..to - at]),
                    Change::Truncate { .. } => torn[from..to].fill(0),
                }
            }
        }
        torn.truncate(len);
        self.durable = torn;
    }
}

impl Volume {
    /// An empty volume. Everything random about it comes from `seed`.
    pub(crate) fn new(seed: u64, when_safe: Names, lie: Option<Lie>) -> Volume {
        let mut nodes = HashMap::new();
        nodes.insert(ROOT, Node::Directory(Directory::default()));
        Volume {
            nodes,
            last_inode: ROOT,
            names: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            when_safe,
            lie,
            fuse: None,
            dark: false,
            counters: Counters::default(),
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// From the moment the fuse has burnt down every change and every sync fails, so that nothing the broker says
    /// afterwards can rest on this volume.
    pub(crate) fn light(&mut self, fuse: Fuse) {
        self.fuse = Some(fuse);
    }

    /// The power fails now.
    pub(crate) fn go_dark(&mut self) {
        self.dark = true;
    }

    pub(crate) fn is_dark(&self) -> bool {
        self.dark
    }

    /// Decides what survived and brings the power back. Nobody may be using the volume.
    pub(crate) fn cut(&mut self, loss: Loss) {
        let survive = match loss {
            Loss::Everything => 0,
            Loss::Torn => self.random.usize(0..=self.names.len()),
        };
        self.counters.names_lost += (self.names.len() - survive) as u64;
        let changes: Vec<NameChange> = self.names.drain(..).take(survive).collect();
        for change in &changes {
            self.make_durable(change);
        }
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => {
                    if loss == Loss::Torn && !file.pending.is_empty() {
                        file.tear(&mut self.random);
                    }
                    self.counters.bytes_lost += file
                        .pending
                        .drain(..)
                        .filter(|change| match change {
                            Change::Write { at, bytes } => file.durable.get(*at..at + bytes.len()) != Some(bytes),
                            Change::Truncate { .. } => false,
                        })
                        .map(|change| match change {
                            Change::Write { bytes, .. } => bytes.len() as u64,
                            Change::Truncate { .. } => 0,
                        })
                        .sum::<u64>();
                    file.current = file.durable.clone();
                }
                Node::Directory(directory) => directory.current = directory.durable.clone(),
            }
        }
        self.forget_unreachable();
        self.fuse = None;
        self.dark = false;
    }

    fn forget_unreachable(&mut self) {
        let mut reachable = vec![ROOT];
        let mut next = 0;
        while let Some(inode) = reachable.get(next) {
            if let Some(Node::Directory(directory)) = self.nodes.get(inode) {
                reachable.extend(directory.durable.values());
            }
            next += 1;
        }
        let reachable: std::collections::HashSet<u64> = reachable.into_iter().collect();
        self.nodes.retain(|inode, _| reachable.contains(inode));
    }

    fn make_durable(&mut self, change: &NameChange) {
        if let Some((directory, name)) = &change.removes
            && let Some(Node::Directory(directory)) = self.nodes.get_mut(directory)
        {
            directory.durable.remove(name);
        }
        if let Some((directory, name, inode)) = &change.adds
            && let Some(Node::Directory(directory)) = self.nodes.get_mut(directory)
        {
            directory.durable.insert(name.clone(), *inode);
        }
    }

    /// Called before each change with the fuse it burns; says whether there still is power.
    fn powered(&mut self, burns: fn(Fuse) -> Option<u32>, shorter: fn(u32) -> Fuse) -> Result<()> {
        if let Some(left) = self.fuse.and_then(burns) {
            match left.checked_sub(1) {
                Some(left) if left > 0 => self.fuse = Some(shorter(left)),
                _ => self.dark = true,
            }
        }
        if self.dark { Err(ErrorKind::Other) } else { Ok(()) }
    }

    fn before_write(&mut self) -> Result<()> {
        self.powered(|fuse| if let Fuse::Write(left) = fuse { Some(left) } else { None }, Fuse::Write)
    }

    fn before_sync(&mut self) -> Result<()> {
        self.powered(|fuse| if let Fuse::Sync(left) = fuse { Some(left) } else { None }, Fuse::Sync)
    }

    fn before_name(&mut self) -> Result<()> {
        self.powered(|fuse| if let Fuse::Name(left) = fuse { Some(left) } else { None }, Fuse::Name)
    }

    fn lies_about(&mut self, directory: bool, log: bool) -> bool {
        let lies = match self.lie {
            None => false,
            Some(Lie::Logs) => log,
            Some(Lie::OtherFiles) => !log && !directory,
            Some(Lie::Directories) => directory,
            Some(Lie::Some) => self.random.u8(0..10) < 3,
            Some(Lie::All) => true,
        };
        self.counters.lies += u64::from(lies);
        lies
    }

    fn file(&mut self, inode: u64) -> Result<&mut File> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory(_)) => Err(ErrorKind::IsADirectory),
            None => Err(ErrorKind::NotFound),
        }
    }

    fn directory(&mut self, inode: u64) -> Result<&mut Directory> {
        match self.nodes.get_mut(&inode) {
            Some(Node::Directory(directory)) => Ok(directory),
            Some(Node::File(_)) => Err(ErrorKind::NotADirectory),
            None => Err(ErrorKind::NotFound),
        }
    }

    pub(crate) fn lookup(&mut self, parent: u64, name: &OsStr) -> Result<Attributes> {
        let inode = *self.directory(parent)?.current.get(name).ok_or(ErrorKind::NotFound)?;
        self.attributes(inode)
    }

    pub(crate) fn attributes(&self, inode: u64) -> Result<Attributes> {
        match self.nodes.get(&inode) {
            Some(Node::File(file)) => Ok(Attributes { inode, size: file.current.len() as u64, directory: false }),
            Some(Node::Directory(_)) => Ok(Attributes { inode, size: 0, directory: true }),
            None => Err(ErrorKind::NotFound),
        }
    }

    /// Names and attributes of what is in a directory, in the order of the names.
    pub(crate) fn list(&mut self, inode: u64) -> Result<Vec<(OsString, Attributes)>> {
        let entries = self.directory(inode)?.current.clone();
        entries.into_iter().map(|(name, inode)| Ok((name, self.attributes(inode)?))).collect()
    }

    /// Creates an empty file or directory.
    pub(crate) fn create(&mut self, parent: u64, name: &OsStr, directory: bool) -> Result<Attributes> {
        self.before_name()?;
        let inode = self.last_inode + 1;
        let entries = &mut self.directory(parent)?.current;
        if entries.contains_key(name) {
            return Err(ErrorKind::AlreadyExists);
        }
        entries.insert(name.to_owned(), inode);
        self.last_inode = inode;
        let node = if directory {
            Node::Directory(Directory::default())
        } else {
            Node::File(File { log: is_log(name), ..File::default() })
        };
        self.nodes.insert(inode, node);
        self.names.push(NameChange { removes: None, adds: Some((parent, name.to_owned(), inode)) });
        self.attributes(inode)
    }

    /// Removes a file, or an empty directory. An open file stays readable.
    pub(crate) fn remove(&mut self, parent: u64, name: &OsStr, directory: bool) -> Result<()> {
        self.before_name()?;
        let found = self.lookup(parent, name)?;
        match (directory, found.directory) {
            (true, false) => return Err(ErrorKind::NotADirectory),
            (false, true) => return Err(ErrorKind::IsADirectory),
            (true, true) if !self.directory(found.inode)?.current.is_empty() => {
                return Err(ErrorKind::DirectoryNotEmpty);
            }
            _ => {}
        }
        self.directory(parent)?.current.remove(name);
        self.names.push(NameChange { removes: Some((parent, name.to_owned())), adds: None });
        Ok(())
    }

    /// Renames, replacing what had the new name.
    pub(crate) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), may_replace: bool) -> Result<()> {
        self.before_name()?;
        let inode = self.lookup(from.0, from.1)?.inode;
        if let Ok(replaced) = self.lookup(to.0, to.1) {
            if !may_replace {
                return Err(ErrorKind::AlreadyExists);
            }
            if replaced.directory && !self.directory(replaced.inode)?.current.is_empty() {
                return Err(ErrorKind::DirectoryNotEmpty);
            }
        }
        self.directory(to.0)?;
        self.directory(from.0)?.current.remove(from.1);
        self.directory(to.0)?.current.insert(to.1.to_owned(), inode);
        if let Ok(file) = self.file(inode) {
            file.log = is_log(to.1);
        }
        self.names.push(NameChange {
            removes: Some((from.0, from.1.to_owned())),
            adds: Some((to.0, to.1.to_owned(), inode)),
        });
        Ok(())
    }

    pub(crate) fn read(&mut self, inode: u64, at: u64, len: usize) -> Result<&[u8]> {
        let bytes = &self.file(inode)?.current;
        let start = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[start..start.saturating_add(len).min(bytes.len())])
    }

    pub(crate) fn write(&mut self, inode: u64, at: u64, bytes: &[u8]) -> Result<()> {
        self.before_write()?;
        let at = usize::try_from(at).map_err(|_| ErrorKind::FileTooLarge)?;
        self.file(inode)?.change(Change::Write { at, bytes: bytes.to_vec() });
        Ok(())
    }

    pub(crate) fn truncate(&mut self, inode: u64, len: u64) -> Result<()> {
        self.before_write()?;
        let len = usize::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?;
        self.file(inode)?.change(Change::Truncate { len });
        Ok(())
    }

    /// `fsync` or `fdatasync` of a file: the length counts as data that is needed to read it.
    pub(crate) fn sync_file(&mut self, inode: u64) -> Result<()> {
        self.before_sync()?;
        if let Some(Fuse::FailingSync(left)) = self.fuse {
            self.fuse = (left > 1).then(|| Fuse::FailingSync(left - 1));
            if self.fuse.is_none() {
                self.file(inode)?.pending.clear();
                self.counters.failed_syncs += 1;
                return Err(ErrorKind::Other);
            }
        }
        let log = self.file(inode)?.log;
        if !self.lies_about(false, log) {
            self.file(inode)?.sync();
            self.counters.file_syncs += 1;
            if self.when_safe == Names::WithAnySync {
                self.commit_names();
            }
        }
        Ok(())
    }

    /// `fsync` of a directory: its names are safe, and with a renaming from elsewhere those of the other directory.
    pub(crate) fn sync_directory(&mut self, inode: u64) -> Result<()> {
        self.before_sync()?;
        self.directory(inode)?;
        if self.lies_about(true, false) {
            return Ok(());
        }
        self.counters.directory_syncs += 1;
        if self.when_safe == Names::WithAnySync {
            self.commit_names();
            return Ok(());
        }
        let mut together = vec![inode];
        loop {
            let before = together.len();
            for change in &self.names {
                if together.iter().any(|directory| change.touches(*directory)) {
                    for directory in change.directories() {
                        if !together.contains(&directory) {
                            together.push(directory);
                        }
                    }
                }
            }
            if together.len() == before {
                break;
            }
        }
        let (saved, rest): (Vec<_>, Vec<_>) = mem::take(&mut self.names)
            .into_iter()
            .partition(|change| together.iter().any(|directory| change.touches(*directory)));
        self.names = rest;
        for change in &saved {
            self.make_durable(change);
        }
        Ok(())
    }

    /// Makes all there is durable, as nothing but an orderly shutdown of the machine would.
    pub(crate) fn sync_everything(&mut self) {
        self.commit_names();
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.sync();
            }
        }
    }

    fn commit_names(&mut self) {
        for change in mem::take(&mut self.names) {
            self.make_durable(&change);
        }
    }
}

fn is_log(name: &OsStr) -> bool {
    name.as_encoded_bytes().ends_with(b".log")
}

#[cfg(test)]
mod tests;
