//! A broker as a process: started, watched, killed. The release binary of this repository, or Apache Kafka.
//!
//! Nothing about what a broker should do is here; the proofs know that.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::wire::Connection;

/// How long a broker may take to answer, or to go.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a condition is looked at that nothing announces.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// As Kafka's own start script has it.
const FULL_JVM: &str = "-Xmx1G -Xms1G -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 \
    -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent -XX:MaxInlineLevel=15";

/// Where the broker under test comes from, the same for all proofs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Subject {
    /// The broker: `PATH serve --data DIR --listen HOST:PORT -o KEY=VALUE ...`
    #[arg(long, value_name = "PATH", default_value = "target/release/ottla")]
    binary: PathBuf,
    /// Run Apache Kafka from compat/kafka instead, as a control
    #[arg(long, conflicts_with = "binary")]
    kafka: bool,
    /// Give Kafka the heap and the compilers that its own scripts give it.
    #[arg(skip)]
    full_jvm: bool,
}

impl Subject {
    /// Apache Kafka.
    pub(crate) fn kafka() -> Subject {
        Subject { binary: PathBuf::new(), kafka: true, full_jvm: false }
    }

    /// The broker in this file.
    pub(crate) fn of(binary: &Path) -> Subject {
        Subject { binary: binary.to_owned(), kafka: false, full_jvm: false }
    }

    /// For what is measured: Kafka is otherwise started for a small machine.
    pub(crate) fn with_full_jvm(self) -> Subject {
        Subject { full_jvm: true, ..self }
    }

    /// Refuses early, and in words, what could not be started.
    pub(crate) fn check(&self) -> Result<()> {
        let program = self.program();
        if !program.exists() {
            bail!("no broker at {}: build it (cargo build --release) or name it with --binary", program.display());
        }
        Ok(())
    }

    /// The file that is run.
    pub(crate) fn program(&self) -> PathBuf {
        if self.kafka { PathBuf::from("compat/kafka/start") } else { self.binary.clone() }
    }

    /// Whether settings of Ottla's own may be used.
    pub(crate) fn is_kafka(&self) -> bool {
        self.kafka
    }

    fn command(&self, data: &Path, address: SocketAddr, options: &[String]) -> Command {
        let mut command = Command::new(self.program());
        if self.kafka {
            command.arg(data).arg(address.to_string()).args(options);
            if self.full_jvm {
                command.env("KAFKA_JVM", FULL_JVM);
            }
        } else {
            command.arg("serve").arg("--data").arg(data).arg("--listen").arg(address.to_string());
            for option in options {
                command.arg("-o").arg(option);
            }
        }
        command
    }

    /// Starts the broker without waiting for it. What it prints is appended to `log`.
    pub(crate) fn spawn(&self, data: &Path, address: SocketAddr, options: &[String], log: &Path) -> Result<Broker> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = self.command(data, address, options);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{} does not start", self.program().display()))?;
        Ok(Broker { process: Process(child), address })
    }

    /// Starts the broker and waits until it answers.
    pub(crate) fn start(&self, data: &Path, address: SocketAddr, options: &[String], log: &Path) -> Result<Broker> {
        let mut broker = self.spawn(data, address, options, log)?;
        broker.wait_ready().with_context(|| format!("see {}", log.display()))?;
        Ok(broker)
    }
}

/// A process that does not outlive us: killed when dropped.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already; there is nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running broker; killed when dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    process: Process,
    address: SocketAddr,
}

impl Broker {
    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let answers = until(PATIENCE, || {
            if let Some(status) = self.process.0.try_wait()? {
                bail!("the broker ended: {status}");
            }
            let connection = Connection::open(self.address, Duration::from_secs(2));
            Ok(connection.is_ok_and(|mut connection| connection.api_versions().is_ok()))
        })?;
        if !answers {
            bail!("the broker does not answer at {} within {PATIENCE:?}", self.address);
        }
        Ok(())
    }

    /// Whether the process is gone by itself.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.0.try_wait()?.is_some())
    }

    /// `kill -9`, and waits until nothing of the process is left.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.process.0.kill()?;
        self.process.0.wait()?;
        Ok(())
    }

    /// `SIGTERM`, and waits for the orderly end.
    pub(crate) fn terminate(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.process.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        if !until(PATIENCE, || self.has_ended())? {
            bail!("the broker is still there {PATIENCE:?} after SIGTERM");
        }
        Ok(())
    }

    /// Resident memory in bytes, from `/proc`.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }

    /// CPU time in user and system code since the start, all threads together, from `/proc`.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The name of the program comes in parentheses and may have spaces and parentheses in it.
        let (_, fields) = stat.rsplit_once(')').context("no program in /proc")?;
        let mut ticks: u64 = 0;
        for field in fields.split_whitespace().skip(11).take(2) {
            ticks += field.parse::<u64>()?;
        }
        Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
    }
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
pub(crate) fn until(patience: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        if holds()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
