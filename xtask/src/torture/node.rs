//! One node: its broker as a process on its own machine, and what can be done to both.
//!
//! Nothing here knows why; the faults are chosen in `plan` and done in `inject`.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::disks::Disk;
use super::network::Network;
use crate::broker::{Process, until};
use crate::libraries::text;

/// How long a broker may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of each damaged file, one bit in so many bytes is flipped, about.
const DAMAGE_EVERY: u64 = 2 << 20;
/// And at least, and at most, so many bits.
const BITS: (u64, u64) = (2, 20);

/// What all nodes have in common.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) binary: PathBuf,
    pub(crate) is_kafka: bool,
    /// Settings of the broker, `KEY=VALUE`.
    pub(crate) settings: Vec<String>,
    /// Debian's libfaketime, if clocks are to be moved.
    pub(crate) faketime: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct Node {
    machine: usize,
    place: PathBuf,
    process: Option<Process>,
    is_stopped: bool,
    /// Whom to join; none for the first.
    join: Option<SocketAddr>,
    // Last, so that it is unmounted when the process is gone.
    pub(crate) disk: Disk,
}

impl Node {
    /// A node that is not started yet. `place` is for what is not on its disk.
    pub(crate) fn new(machine: usize, place: &Path, disk: Disk, join: Option<SocketAddr>) -> Result<Node> {
        let node = Node { machine, place: place.to_owned(), process: None, is_stopped: false, join, disk };
        node.set_clock(0)?;
        Ok(node)
    }

    /// Starts the broker, and does not wait for it.
    pub(crate) fn start(&mut self, network: &Network, program: &Program) -> Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let mut command = match &program.faketime {
            None => network.command(self.machine, &program.binary)?,
            Some(library) => {
                let mut command = network.command(self.machine, Path::new("env"))?;
                command.arg(format!("LD_PRELOAD={}", text(library)));
                command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", text(&self.clock())));
                // Read again every second, and the monotonic clock left alone.
                command.args(["FAKETIME_CACHE_DURATION=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]);
                command.arg(&program.binary);
                command
            }
        };
        command.arg("serve").arg("--data").arg(self.data());
        command.arg("--listen").arg(network.address(self.machine).to_string());
        if let Some(join) = self.join {
            command.arg("--join").arg(join.to_string());
        }
        for setting in &program.settings {
            command.arg("-o").arg(setting);
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{} does not start", program.binary.display()))?;
        (self.process, self.is_stopped) = (Some(Process(child)), false);
        Ok(())
    }

    /// The process, if there is one.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.0.id())
    }

    /// Whether there is a process that goes on.
    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some() && !self.is_stopped
    }

    /// `kill -9`, stopped or not.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.is_stopped = false;
        if let Some(mut process) = self.process.take() {
            process.0.kill()?;
            process.0.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for the orderly end.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        if let Some(mut process) = self.process.take()
            && !until(PATIENCE, || Ok(process.0.try_wait()?.is_some()))?
        {
            bail!("node {} is still there {PATIENCE:?} after SIGTERM", self.machine);
        }
        Ok(())
    }

    /// SIGSTOP, until `resume`.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        self.is_stopped = true;
        Ok(())
    }

    pub(crate) fn resume(&mut self) -> Result<()> {
        self.is_stopped = false;
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        match &self.process {
            Some(process) => Ok(kill_process(Pid::from_child(&process.0), signal)?),
            None => Ok(()),
        }
    }

    /// Whether the broker ended although nobody asked it to; it can be started again then.
    pub(crate) fn ended_by_itself(&mut self) -> Result<Option<String>> {
        let ended = self.process.as_mut().map(|process| process.0.try_wait()).transpose()?.flatten();
        Ok(ended.map(|status| {
            self.process = None;
            format!("node {} ended by itself: {status}; see {}", self.machine, self.log().display())
        }))
    }

    /// An empty disk in the place of the old one; the broker on it is another to the cluster. The node must not run.
    pub(crate) fn replace_disk(&mut self, join: SocketAddr) -> Result<()> {
        self.forget()?;
        self.join = Some(join);
        Ok(())
    }

    /// Everything the node had is gone. It must not run.
    pub(crate) fn forget(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("node {} runs", self.machine);
        }
        if self.data().exists() {
            fs::remove_dir_all(self.data())?;
        }
        Ok(())
    }

    /// Flips a few bits in every log of every topic; says in how many files. The node must not run.
    pub(crate) fn flip_bits(&self, random: &mut fastrand::Rng) -> Result<usize> {
        let topics = self.data().join("topics");
        let mut damaged = 0;
        // In an order that the seed decides, not the file system.
        let mut logs = Vec::new();
        for partition in fs::read_dir(&topics).with_context(|| topics.display().to_string())? {
            let partition = partition?.path();
            if partition.is_dir() {
                for file in fs::read_dir(partition)? {
                    logs.push(file?.path());
                }
            }
        }
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        for path in logs {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let bytes = file.metadata()?.len();
            if bytes == 0 {
                continue;
            }
            for _ in 0..(bytes / DAMAGE_EVERY).clamp(BITS.0, BITS.1) {
                let (at, bit) = (random.u64(..bytes), random.u8(..8));
                let mut byte = [0];
                file.read_exact_at(&mut byte, at)?;
                file.write_all_at(&[byte[0] ^ (1 << bit)], at)?;
            }
            file.sync_all()?;
            damaged += 1;
        }
        Ok(damaged)
    }

    /// Moves the wall clock of the broker so many seconds away from ours, if it has libfaketime.
    pub(crate) fn set_clock(&self, seconds: i64) -> Result<()> {
        let (file, next) = (self.clock(), self.clock().with_extension("next"));
        // Never half a file.
        fs::write(&next, format!("{seconds:+}\n"))?;
        Ok(fs::rename(next, file)?)
    }

    fn data(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.place.join("broker.log")
    }

    fn clock(&self) -> PathBuf {
        self.place.join("clock")
    }
}

/// Debian's library that moves a program's clock, if it is installed.
pub(crate) fn faketime() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flipped_bits_are_few_and_in_every_log() {
        let place = tempfile::tempdir().unwrap();
        let node = Node::new(0, place.path(), Disk::Directory(place.path().to_owned()), None).unwrap();
        let logs = ["topics/a-0/0.log", "topics/b-1/0.log"].map(|name| place.path().join("data").join(name));
        let others = ["topics/a-0/0.index", "metadata/0.log"].map(|name| place.path().join("data").join(name));
        for path in logs.iter().chain(&others) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, [0; 5_000]).unwrap();
        }
        fs::write(place.path().join("data/topics/a-0/1.log"), b"").unwrap();
        assert_eq!(node.flip_bits(&mut fastrand::Rng::with_seed(4)).unwrap(), 2);
        let ones = |path: &PathBuf| fs::read(path).unwrap().iter().map(|byte| byte.count_ones()).sum::<u32>();
        for log in &logs {
            assert!((1..=2).contains(&ones(log)), "{} bits of {}", ones(log), log.display());
        }
        assert_eq!(others.each_ref().map(ones), [0, 0]);
    }

    #[test]
    fn a_clock_can_be_moved_alone() {
        let Some(library) = faketime() else {
            println!("not tried: there is no libfaketime");
            return;
        };
        let place = tempfile::tempdir().unwrap();
        let node = Node::new(0, place.path(), Disk::Directory(place.path().to_owned()), None).unwrap();
        let clocks = || {
            let script = "import time; print(time.time(), time.monotonic())";
            let mut python = crate::libraries::command("python3", &["-c", script]);
            python.env("LD_PRELOAD", &library).env("FAKETIME_TIMESTAMP_FILE", node.clock());
            python.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            let said = String::from_utf8(python.output().unwrap().stdout).unwrap();
            let clocks: Vec<f64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
            (clocks[0], clocks[1])
        };
        let before = clocks();
        node.set_clock(-315_360_000).unwrap();
        let after = clocks();
        assert!((before.0 - after.0 - 315_360_000.0).abs() < 600.0, "{before:?} {after:?}");
        assert!((0.0..600.0).contains(&(after.1 - before.1)), "{before:?} {after:?}");
    }
}
