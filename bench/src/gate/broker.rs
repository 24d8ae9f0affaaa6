//! The broker under test as a process: plain, or under a program that counts for us.
//!
//! It is asked for everything in lock step, and waited for until all its threads sleep: so what one request costs does
//! not depend on how quickly the next one comes.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::client::Client;
use crate::peer::free_address;

/// How long the broker may take to start, or to come to rest.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at that nothing announces.
const LOOK_AGAIN: Duration = Duration::from_micros(50);
/// The broker's thread for regular work. What it does follows the clock and not the requests, and is not counted.
const HOUSEKEEPER: &str = "housekeeper";

/// A running broker; killed when dropped.
pub(super) struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Broker {
    /// Starts `binary` on a fresh directory below `place`, as an argument of `wrapper` where that is not empty.
    pub(super) fn start(binary: &Path, place: &Path, wrapper: &[String]) -> Result<Broker> {
        let address = free_address()?;
        let log = fs::File::create(place.join("broker.log"))?;
        let program = binary.to_str().context("the path of the binary is not UTF-8")?.to_owned();
        let words: Vec<String> = wrapper.iter().cloned().chain([program]).collect();
        let (program, arguments) = words.split_first().context("nothing to start")?;
        let child = Command::new(program)
            .args(arguments)
            .arg("serve")
            .arg("--data")
            .arg(place.join("data"))
            .args(["--listen", &address.to_string()])
            // One thread serves everything, so that who wakes whom is the same in every run.
            .args(["-o", "ottla.durability=replicated", "-o", "ottla.worker.threads=1"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{program} does not start"))?;
        let mut broker = Broker { child, address };
        broker.wait_ready().with_context(|| fs::read_to_string(place.join("broker.log")).unwrap_or_default())?;
        Ok(broker)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn connect(&self) -> Result<Client> {
        Client::connect(self.address)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.connect().is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the broker ended: {status}");
            }
            if Instant::now() > deadline {
                bail!("the broker does not listen on {} within {PATIENCE:?}", self.address);
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Waits until every thread sleeps and has not been awake between two looks.
    pub(super) fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut before = None;
        while Instant::now() < deadline {
            let now = self.asleep();
            if now.is_some() && now == before {
                return Ok(());
            }
            before = now;
            thread::sleep(LOOK_AGAIN);
        }
        bail!("the broker does not come to rest within {PATIENCE:?}")
    }

    /// How often all threads together went to sleep, if they all do so now.
    fn asleep(&self) -> Option<u64> {
        let threads = self.threads().ok()?;
        let asleep = |thread: &Thread| thread.asleep || thread.name == HOUSEKEEPER;
        threads.iter().all(asleep).then(|| switches(&threads))
    }

    /// Voluntary context switches so far.
    pub(super) fn switches(&self) -> Result<u64> {
        Ok(switches(&self.threads()?))
    }

    /// The id of the thread that is not counted.
    pub(super) fn housekeeper(&self) -> Result<u32> {
        let threads = self.threads()?;
        let found = threads.iter().find(|thread| thread.name == HOUSEKEEPER);
        Ok(found.context("the broker has no thread called housekeeper")?.id)
    }

    fn threads(&self) -> Result<Vec<Thread>> {
        let mut threads = Vec::new();
        for entry in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok()).context("a thread without an id")?;
            threads.push(Thread::parse(id, &fs::read_to_string(entry.path().join("status"))?)?);
        }
        Ok(threads)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may be gone already; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn switches(threads: &[Thread]) -> u64 {
    threads.iter().filter(|thread| thread.name != HOUSEKEEPER).map(|thread| thread.switches).sum()
}

/// What `/proc/PID/task/TID/status` says.
#[derive(Debug, PartialEq, Eq)]
struct Thread {
    id: u32,
    name: String,
    asleep: bool,
    switches: u64,
}

impl Thread {
    fn parse(id: u32, status: &str) -> Result<Thread> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim).with_context(|| format!("no {name} in /proc"))
        };
        Ok(Thread {
            id,
            name: field("Name")?.to_owned(),
            asleep: field("State")?.starts_with('S'),
            switches: field("voluntary_ctxt_switches")?.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

    use super::Thread;

    #[test]
    fn a_thread_is_read_from_proc() {
        let status = "Name:\ttokio-rt-worker\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t7\n\
            voluntary_ctxt_switches:\t1234\nnonvoluntary_ctxt_switches:\t5\n";
        let expected = Thread { id: 8, name: "tokio-rt-worker".into(), asleep: true, switches: 1234 };
        assert_eq!(Thread::parse(8, status).unwrap(), expected);
        assert!(Thread::parse(8, "Name:\tx\n").is_err());
    }
}
