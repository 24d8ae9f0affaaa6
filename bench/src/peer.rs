//! A broker that is measured: named, started, frozen while another one has the machine, thawed, stopped.
//!
//! How each is installed and started is not here but in an executable file of `bench/peers`, which understands
//!
//! ```text
//! NAME fetch                                    installs what it needs
//! NAME version                                  prints one line
//! NAME serve DATA HOST:PORT default|durable     becomes the broker (exec), which ends at SIGTERM
//! NAME serve DATA HOST:PORT default|durable N HOST:PORT,HOST:PORT,...
//!                                               the same as node N, from 1, of a cluster with these addresses
//! ```
//!
//! so that whoever wants another broker measured adds a file.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long a broker may take to answer, or to go.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often a condition is looked at that nothing announces. Not less: each look costs the one CPU or the other.
const LOOK_AGAIN: Duration = Duration::from_micros(500);
/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(2);

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// The records are in the page cache, as Kafka comes.
    Default,
    /// They are on the disk.
    Durable,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Profile::Default => "default",
            Profile::Durable => "durable",
        }
    }
}

/// A kind of broker.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    name: String,
    program: PathBuf,
}

impl Peer {
    pub(crate) fn named(name: &str) -> Result<Peer> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name);
        ensure!(program.is_file(), "no broker of the name {name}: there is no bench/peers/{name}");
        Ok(Peer { name: name.to_owned(), program })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Installs what it needs; quick when it is there.
    pub(crate) fn fetch(&self) -> Result<()> {
        let status = Command::new(&self.program).arg("fetch").stdin(Stdio::null()).status()?;
        ensure!(status.success(), "bench/peers/{} fetch: {status}", self.name);
        Ok(())
    }

    pub(crate) fn version(&self) -> Result<String> {
        let output = Command::new(&self.program).arg("version").stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "bench/peers/{} version: {}", self.name, output.status);
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Starts one on `data`, which is created, and waits until it answers. What it prints goes to `data` + `.log`.
    pub(crate) fn start(&self, data: &Path, profile: Profile) -> Result<Running> {
        fs::create_dir_all(data)?;
        let data = fs::canonicalize(data)?;
        let address = free_address()?;
        let mut running = Running { peer: self.clone(), profile, data, address, member: None, child: None };
        running.restart()?;
        Ok(running)
    }

    /// Starts `count` that are one cluster, each in a directory below `data`, and waits until all answer.
    pub(crate) fn start_cluster(&self, data: &Path, profile: Profile, count: usize) -> Result<Vec<Running>> {
        let mut addresses: Vec<SocketAddr> = Vec::new();
        while addresses.len() < count {
            // Of each also the port behind it.
            let address = free_address()?;
            if addresses.iter().all(|other| other.port().abs_diff(address.port()) > 1) {
                addresses.push(address);
            }
        }
        let all = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut nodes = Vec::new();
        for (number, address) in (1..).zip(addresses) {
            let data = data.join(format!("node-{number}"));
            fs::create_dir_all(&data)?;
            let (data, member) = (fs::canonicalize(data)?, Some((number, all.clone())));
            nodes.push(Running { peer: self.clone(), profile, data, address, member, child: None });
        }
        // None answers before it has found others.
        nodes.iter_mut().try_for_each(Running::spawn)?;
        for node in &mut nodes {
            node.wait_ready().with_context(|| format!("see {}", node.log().display()))?;
        }
        Ok(nodes)
    }
}

/// A broker that was started; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    peer: Peer,
    profile: Profile,
    data: PathBuf,
    address: SocketAddr,
    /// Its number in a cluster, and all addresses of that.
    member: Option<(usize, String)>,
    child: Option<Child>,
}

impl Running {
    pub(crate) fn pid(&self) -> Result<u32> {
        Ok(self.child()?.id())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Takes it off the CPU; its sockets stay open.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let pid = self.pid()?;
        // The signal is taken thread by thread; a broker that still runs would be measured with the other one.
        let stopped = until(PATIENCE, || all_stopped(pid))?;
        ensure!(stopped, "{} does not freeze", self.peer.name);
        Ok(())
    }

    /// Gives it the CPU back.
    pub(crate) fn wake(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Gives it the CPU back, and waits until it answers.
    pub(crate) fn thaw(&mut self) -> Result<()> {
        self.wake()?;
        self.wait_ready()
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        self.signal(Signal::CONT)?;
        let ended = until(PATIENCE, || Ok(self.child_mut()?.try_wait()?.is_some()))?;
        ensure!(ended, "{} is still there {PATIENCE:?} after SIGTERM", self.peer.name);
        self.child = None;
        Ok(())
    }

    /// `kill -9`, and waits until nothing of the process is left.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let child = self.child_mut()?;
        child.kill()?;
        child.wait()?;
        self.child = None;
        Ok(())
    }

    /// Starts it again on the same data and address (and stops it first if it runs): how long until it answered.
    ///
    /// The shell of the file in `bench/peers` is in that time, about 2 ms of it, the same for every broker.
    pub(crate) fn restart(&mut self) -> Result<Duration> {
        if self.child.is_some() {
            self.stop()?;
        }
        let began = Instant::now();
        self.spawn()?;
        self.wait_ready().with_context(|| format!("see {}", self.log().display()))?;
        Ok(began.elapsed())
    }

    fn spawn(&mut self) -> Result<()> {
        let output = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.peer.program);
        command.arg("serve").arg(&self.data).arg(self.address.to_string()).arg(self.profile.name());
        if let Some((number, all)) = &self.member {
            command.arg(number.to_string()).arg(all);
        }
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        self.child = Some(command.spawn().with_context(|| format!("bench/peers/{} does not start", self.peer.name))?);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        let mut log = self.data.clone().into_os_string();
        log.push(".log");
        PathBuf::from(log)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let address = self.address;
        let answered = until(PATIENCE, || {
            if let Some(status) = self.child_mut()?.try_wait()? {
                bail!("{} ended: {status}", self.peer.name);
            }
            Ok(answers(address).is_ok())
        })?;
        ensure!(answered, "{} does not answer at {address} within {PATIENCE:?}", self.peer.name);
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(self.child()?), signal)?)
    }

    fn child(&self) -> Result<&Child> {
        self.child.as_ref().with_context(|| format!("{} is not running", self.peer.name))
    }

    fn child_mut(&mut self) -> Result<&mut Child> {
        self.child.as_mut().with_context(|| format!("{} is not running", self.peer.name))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.is_some() {
            // It may be gone already; there is nobody to tell.
            let _ = self.kill();
        }
    }
}

fn all_stopped(pid: u32) -> Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(thread?.path().join("stat"))?;
        let state = stat.rsplit_once(") ").and_then(|(_, fields)| fields.chars().next());
        if state != Some('T') {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Asks for the versions it speaks (ApiVersions, version 0), which every broker answers to anybody.
fn answers(address: SocketAddr) -> Result<()> {
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(&REQUEST)?;
    let mut head = [0; 10];
    stream.read_exact(&mut head)?;
    ensure!(head[4..] == [0, 0, 0, 7, 0, 0], "an answer to something else, or an error");
    Ok(())
}

/// A loopback address nobody listens on at this moment, nor on the port after it (Kafka's controller takes that one).
///
/// Below the ports that the system hands out, so that no client's own socket sits on it while the broker is restarted.
pub(crate) fn free_address() -> Result<SocketAddr> {
    for _ in 0..100 {
        let port = fastrand::u16(16_384..32_000);
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free(port) && free(port + 1) {
            return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        }
    }
    bail!("no two free ports in a row on the loopback address")
}

/// Looks at a condition until it holds or `patience` is over; says whether it held.
fn until(patience: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + patience;
    while !holds()? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(LOOK_AGAIN);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::cpu;

    #[test]
    fn only_files_of_the_folder_are_brokers() {
        assert!(Peer::named("kafka").is_ok());
        assert!(Peer::named("none").is_err());
        assert!(Peer::named("../src").is_err());
    }

    #[test]
    fn a_broker_that_is_frozen_does_nothing_and_goes_on_where_it_was() {
        let ottla = Peer::named("ottla").unwrap();
        if ottla.fetch().is_err() {
            eprintln!("SKIPPED: there is no release binary");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let mut running = ottla.start(&place.path().join("data"), Profile::Durable).unwrap();
        answers(running.address()).unwrap();

        running.freeze().unwrap();
        let before = cpu(running.pid().unwrap()).unwrap();
        assert!(answers(running.address()).is_err(), "it answers although it is frozen");
        assert_eq!(cpu(running.pid().unwrap()).unwrap(), before);
        running.thaw().unwrap();
        answers(running.address()).unwrap();

        running.kill().unwrap();
        assert!(running.pid().is_err());
        running.restart().unwrap();
        running.freeze().unwrap();
        running.stop().unwrap();
        assert!(answers(running.address()).is_err());
    }
}
