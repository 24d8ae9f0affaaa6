//! The disk of a node: an ext4 in a file, so that it can be filled and slowed down; or a plain directory.
//!
//! Slow means a cgroup that throttles writes to the loop device, of version 1 or 2, whichever the machine has.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::FallocateFlags;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::libraries::{command, text};

/// Sparse: what is not written takes nothing.
const DISK_BYTES: u64 = 8 << 30;
/// What filling leaves, less than any broker's reserve.
const LEFT: u64 = 1 << 20;
/// A slow disk writes so many bytes, and does so many writes, in a second.
const SLOW_BYTES: u64 = 128 << 10;
const SLOW_WRITES: u64 = 20;

#[derive(Debug)]
pub(crate) enum Disk {
    Directory(PathBuf),
    Loop(Loop),
}

/// Unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Loop {
    at: PathBuf,
    device: String,
    group: Option<PathBuf>,
}

impl Disk {
    /// An ext4 of its own, mounted in a new directory at `place`.
    pub(crate) fn new_loop(place: &Path) -> Result<Disk> {
        let (image, at) = (place.join("disk.img"), place.join("disk"));
        fs::create_dir_all(&at)?;
        File::create(&image)?.set_len(DISK_BYTES)?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &text(&image)])?;
        let device = run("losetup", &["--find", "--show", &text(&image)])?.trim().to_owned();
        let disk = Loop { at, device, group: None };
        mount(&*disk.device, &disk.at, "ext4", MountFlags::NOATIME, None::<&std::ffi::CStr>)
            .with_context(|| format!("mounting {}", disk.device))?;
        Ok(Disk::Loop(disk))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Disk::Directory(at) => at,
            Disk::Loop(disk) => &disk.at,
        }
    }

    /// Leaves next to nothing free, until `make_room`.
    pub(crate) fn fill(&self) -> Result<()> {
        let Disk::Loop(disk) = self else { bail!("a directory is not filled") };
        let stat = rustix::fs::statvfs(&disk.at)?;
        let ballast = File::create(disk.ballast())?;
        let mut bytes = (stat.f_bavail * stat.f_frsize).saturating_sub(LEFT);
        // The file system needs some of it for itself.
        while bytes > 0 {
            match rustix::fs::fallocate(&ballast, FallocateFlags::empty(), 0, bytes) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::NOSPC) => bytes = bytes.saturating_sub(LEFT),
                Err(error) => return Err(error).context("filling a disk"),
            }
        }
        Ok(())
    }

    pub(crate) fn make_room(&self) -> Result<()> {
        let Disk::Loop(disk) = self else { bail!("a directory is not filled") };
        Ok(fs::remove_file(disk.ballast())?)
    }

    /// Slows down what this process writes, until `hurry`.
    pub(crate) fn slow_down(&mut self, process: u32, name: &str) -> Result<()> {
        let Disk::Loop(disk) = self else { bail!("a directory is not slowed down") };
        let number = device_number(&disk.device)?;
        let group = match throttle()? {
            Throttle::V1(root) => {
                let group = root.join(name);
                fs::create_dir_all(&group)?;
                fs::write(group.join("blkio.throttle.write_bps_device"), format!("{number} {SLOW_BYTES}"))?;
                fs::write(group.join("blkio.throttle.write_iops_device"), format!("{number} {SLOW_WRITES}"))?;
                group
            }
            Throttle::V2(root) => {
                let group = root.join(name);
                fs::create_dir_all(&group)?;
                fs::write(group.join("io.max"), format!("{number} wbps={SLOW_BYTES} wiops={SLOW_WRITES}"))?;
                group
            }
        };
        fs::write(group.join("cgroup.procs"), process.to_string())?;
        disk.group = Some(group);
        Ok(())
    }

    pub(crate) fn hurry(&mut self) -> Result<()> {
        let Disk::Loop(disk) = self else { bail!("a directory is not slowed down") };
        disk.hurry()
    }
}

impl Loop {
    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    fn hurry(&mut self) -> Result<()> {
        let Some(group) = self.group.take() else { return Ok(()) };
        let root = group.parent().context("a cgroup without a root")?;
        for process in fs::read_to_string(group.join("cgroup.procs"))?.lines() {
            // It may have gone meanwhile.
            let _ = fs::write(root.join("cgroup.procs"), process);
        }
        fs::remove_dir(&group).with_context(|| format!("removing {}", group.display()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let hurried = self.hurry();
        // Detached: a process that was just killed may still hold it.
        let unmounted = unmount(&self.at, UnmountFlags::DETACH).context("unmounting a disk");
        let released = run("losetup", &["--detach", &self.device]).map(drop);
        for error in [hurried, unmounted, released].into_iter().filter_map(Result::err) {
            eprintln!("{}: {error:#}", self.device);
        }
    }
}

/// Where groups that throttle are made.
enum Throttle {
    V1(PathBuf),
    V2(PathBuf),
}

fn throttle() -> Result<Throttle> {
    let v1 = PathBuf::from("/sys/fs/cgroup/blkio");
    if v1.join("cgroup.procs").exists() {
        return Ok(Throttle::V1(v1));
    }
    let v2 = PathBuf::from("/sys/fs/cgroup");
    let controllers = fs::read_to_string(v2.join("cgroup.controllers")).unwrap_or_default();
    if !controllers.split_whitespace().any(|controller| controller == "io") {
        bail!("no cgroup here throttles a disk");
    }
    fs::write(v2.join("cgroup.subtree_control"), "+io").context("switching on the io controller")?;
    Ok(Throttle::V2(v2))
}

/// Whether disks can be slowed down here, and why not.
pub(crate) fn can_be_slow() -> Result<()> {
    throttle().map(drop)
}

/// The number of a device, `MAJOR:MINOR`.
fn device_number(device: &str) -> Result<String> {
    let number = fs::metadata(device)?.rdev();
    Ok(format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number)))
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = command(program, arguments).output().with_context(|| format!("{program} cannot be run"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Instant;

    use super::*;

    fn disk(place: &Path) -> Option<Disk> {
        match Disk::new_loop(place) {
            Ok(disk) => Some(disk),
            Err(error) => {
                println!("not tried: {error:#}");
                None
            }
        }
    }

    fn write(at: &Path, bytes: usize) -> std::io::Result<()> {
        let mut file = File::create(at)?;
        file.write_all(&vec![7; bytes])?;
        file.sync_all()
    }

    #[test]
    fn a_full_disk_takes_nothing_until_there_is_room() {
        let place = tempfile::tempdir().unwrap();
        let Some(disk) = disk(place.path()) else { return };
        let file = disk.path().join("file");
        disk.fill().unwrap();
        let error = write(&file, 16 << 20).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
        disk.make_room().unwrap();
        write(&file, 16 << 20).unwrap();
    }

    #[test]
    fn a_slow_disk_is_slow_until_it_hurries() {
        let place = tempfile::tempdir().unwrap();
        let Some(mut disk) = disk(place.path()) else { return };
        if let Err(error) = can_be_slow() {
            println!("not tried: {error:#}");
            return;
        }
        let file = text(&disk.path().join("file"));
        // Throttled is a process of its own, not the test.
        let script = format!("read line; dd if=/dev/zero of={file} bs=64k count=6 conv=fsync 2>&1");
        let mut time = |slow: bool| {
            let mut shell = command("bash", &["-c", &script]);
            shell.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
            let mut child = crate::broker::Process(shell.spawn().unwrap());
            if slow {
                disk.slow_down(child.0.id(), &format!("ottla-test-{}", std::process::id())).unwrap();
            }
            let began = Instant::now();
            child.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
            assert!(child.0.wait().unwrap().success());
            if slow {
                disk.hurry().unwrap();
            }
            began.elapsed().as_secs_f64()
        };
        let (slow, fast) = (time(true), time(false));
        // 384 KiB at 128 KiB a second. How fast it is otherwise depends on what else the machine does.
        assert!(slow > 1.5 && fast < slow, "{slow} s and {fast} s");
    }
}
