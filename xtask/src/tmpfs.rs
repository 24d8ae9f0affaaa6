//! A small disk: a tmpfs of a given size, unmounted when dropped. Linux, and root.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

#[derive(Debug)]
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts an empty disk of `bytes` at a directory, which is created.
    pub(crate) fn new(at: &Path, bytes: u64) -> Result<Tmpfs> {
        if !rustix::process::geteuid().is_root() {
            bail!("mounting a tmpfs needs root");
        }
        fs::create_dir_all(at)?;
        mount("tmpfs", at, "tmpfs", MountFlags::NOATIME, &*size(bytes)?).context("mounting a tmpfs")?;
        Ok(Tmpfs(at.to_owned()))
    }

    /// Makes the disk larger or smaller under whoever uses it.
    pub(crate) fn resize(&self, bytes: u64) -> Result<()> {
        mount_remount(&self.0, MountFlags::NOATIME, &*size(bytes)?).context("remounting a tmpfs")
    }

    /// Used bytes.
    pub(crate) fn used(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.0)?;
        Ok((stat.f_blocks - stat.f_bfree) * stat.f_frsize)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.0, UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.0.display());
        }
    }
}

fn size(bytes: u64) -> Result<CString> {
    Ok(CString::new(format!("size={bytes}"))?)
}
