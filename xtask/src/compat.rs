//! `cargo xtask compat`: unmodified clients and tools of every ecosystem against a broker, as a table.
//!
//! Each client's program (`compat/`) does the same named checks and prints one JSON line for each; here brokers are
//! started, restarted when a program asks for it, and the lines are counted. What a check does is written in
//! `compat/README.md`; which clients there are, in `clients`; what the table looks like, in `table`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

use crate::broker::{Broker, Process, Subject, free_address};
use clients::{CLIENTS, Client};

mod clients;
mod table;

/// Where clients are installed and built, and what they say on standard error; not part of the repository.
const CACHE: &str = "compat/.cache";
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const ACKS: [&str; 3] = ["0", "1", "all"];
/// The checks besides producing, in the order of the table.
const CHECKS: [&str; 42] = [
    "produce.idempotent",
    "records.headers",
    "records.null_empty",
    "records.1mb",
    "consume.start",
    "consume.middle",
    "consume.timestamp",
    "consume.end",
    "admin.describe_topic",
    "admin.describe_configs",
    "admin.alter_configs",
    "admin.create_partitions",
    "admin.delete_records",
    "admin.delete_topic",
    "admin.describe_cluster",
    "restart.clean",
    "restart.kill",
    "group.join",
    "group.rebalance",
    "group.cooperative",
    "group.leave",
    "group.crash",
    "group.static",
    "group.resume",
    "group.metadata",
    "group.reset",
    "group.admin",
    "group.delete",
    "group.delete_offsets",
    "group.restart.clean",
    "group.restart.kill",
    "group848.join",
    "group848.rebalance",
    "group848.leave",
    "group848.crash",
    "group848.static",
    "group848.resume",
    "group848.regex",
    "group848.admin",
    "group848.delete",
    "group848.restart.clean",
    "group848.restart.kill",
];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this client; may be given more than once
    #[arg(long = "client", value_name = "NAME", value_parser = clients::names())]
    clients: Vec<String>,
    /// Only the three independent clients that take least time
    #[arg(long, conflicts_with = "clients")]
    short: bool,
    /// Only checks whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// A broker that is running already; it is not restarted, and its files are not looked at
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["binary", "kafka"])]
    bootstrap: Option<String>,
    /// How long one call of a client may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u32,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    subject: Subject,
}

/// What a client's program prints about one check, or about itself.
#[derive(Debug, Default, Deserialize)]
struct Line {
    client: Option<String>,
    version: Option<String>,
    check: Option<String>,
    ok: Option<bool>,
    na: Option<String>,
    detail: Option<String>,
}

/// How one check went.
#[derive(Debug)]
enum Outcome {
    Ok(String),
    Failed(String),
    /// The client cannot do this at all, and why.
    NotAvailable(String),
}

/// What became of one client.
#[derive(Debug)]
struct Report {
    client: &'static str,
    version: String,
    /// Why it was not run: a toolchain that is not installed.
    missing: Option<String>,
    outcomes: Vec<(String, Outcome)>,
    took: Duration,
}

impl Report {
    fn failed(&self) -> bool {
        self.outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.bootstrap.is_none() {
        arguments.subject.check()?;
    }
    fs::create_dir_all(CACHE)?;
    let cache = fs::canonicalize(CACHE)?;
    let mut reports = Vec::new();
    for client in CLIENTS.iter().filter(|client| chosen(client, arguments)) {
        eprintln!("{} ...", client.name);
        let report = one(client, arguments, &cache);
        eprintln!("{} {}", client.name, table::summary(&report));
        reports.push(report);
    }
    let subject = match &arguments.bootstrap {
        Some(address) => address.clone(),
        None => arguments.subject.program().display().to_string(),
    };
    if arguments.json {
        println!("{}", table::json(&subject, &reports));
    } else {
        table::print(&subject, &reports);
    }
    if reports.iter().any(Report::failed) || reports.iter().all(|report| report.missing.is_some()) {
        return Ok(ExitCode::FAILURE);
    }
    let missing = reports.iter().any(|report| report.missing.is_some());
    Ok(if missing { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

fn chosen(client: &Client, arguments: &Arguments) -> bool {
    match arguments.clients.as_slice() {
        [] => client.short || !arguments.short,
        names => names.iter().any(|name| name == client.name),
    }
}

/// The names of the checks that every client does or says that it cannot do.
fn expected() -> Vec<String> {
    let mut names = vec!["topic.create".to_owned()];
    names.extend(CODECS.iter().flat_map(|codec| ACKS.iter().map(move |acks| format!("produce.{codec}.{acks}"))));
    names.extend(CHECKS.map(str::to_owned));
    names
}

fn one(client: &'static Client, arguments: &Arguments, cache: &Path) -> Report {
    let began = Instant::now();
    let mut report = Report {
        client: client.name,
        version: String::new(),
        missing: client.missing(),
        outcomes: Vec::new(),
        took: Duration::ZERO,
    };
    if report.missing.is_none() {
        if let Err(error) = prepare_and_check(client, arguments, cache, &mut report) {
            report.outcomes.push(("run".to_owned(), Outcome::Failed(format!("{error:#}"))));
        }
        let wanted = |check: &String| arguments.only.as_ref().is_none_or(|only| check.contains(only.as_str()));
        for check in if client.own_tests { Vec::new() } else { expected() }.into_iter().filter(wanted) {
            if !report.outcomes.iter().any(|(name, _)| *name == check) {
                report.outcomes.push((check, Outcome::Failed("never reached".to_owned())));
            }
        }
        let done = report.outcomes.iter().any(|(_, outcome)| !matches!(outcome, Outcome::NotAvailable(_)));
        if !done && arguments.only.is_none() {
            report.outcomes.push(("run".to_owned(), Outcome::Failed("no check was done".to_owned())));
        }
    }
    report.took = began.elapsed();
    report
}

/// The broker that a client's program talks to.
enum Service {
    /// Ours to start and restart, in its own directory.
    Own {
        broker: Option<Broker>,
        subject: Subject,
        settings: Vec<String>,
        place: PathBuf,
        address: SocketAddr,
    },
    Foreign(String),
}

impl Service {
    fn start(arguments: &Arguments, cache: &Path, client: &Client) -> Result<Self> {
        if let Some(address) = &arguments.bootstrap {
            return Ok(Self::Foreign(address.clone()));
        }
        let place = cache.join(format!("run/{}-{}", client.name, std::process::id()));
        fs::create_dir_all(&place)?;
        let (subject, address) = (arguments.subject.clone(), free_address()?);
        let settings = client.settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut service = Self::Own { broker: None, subject, settings, place, address };
        service.run()?;
        Ok(service)
    }

    fn run(&mut self) -> Result<()> {
        if let Self::Own { broker, subject, settings, place, address } = self {
            *broker = Some(subject.start(&place.join("data"), *address, settings, &place.join("broker.log"))?);
        }
        Ok(())
    }

    fn address(&self) -> String {
        match self {
            Self::Own { address, .. } => address.to_string(),
            Self::Foreign(address) => address.clone(),
        }
    }

    /// Ends the broker in the way asked for and starts it again; what to answer to the program that asked.
    fn restart(&mut self, how: &str) -> Result<&'static str> {
        let Self::Own { broker, .. } = self else { return Ok("the broker is not the runner's to restart") };
        let running = broker.take().context("the broker is not running")?;
        match how {
            "clean" => running.terminate()?,
            "kill" => running.kill()?,
            _ => bail!("a program asked for a restart of an unknown kind: {how:?}"),
        }
        self.run()?;
        Ok("RESTARTED")
    }

    /// Removes the broker's files; they stay when something failed.
    fn finish(self, failed: bool) -> Result<()> {
        if let Self::Own { broker, place, .. } = self {
            drop(broker);
            if failed {
                eprintln!("the broker's data and what it said: {}", place.display());
            } else {
                fs::remove_dir_all(place)?;
            }
        }
        Ok(())
    }
}

fn prepare_and_check(client: &Client, arguments: &Arguments, cache: &Path, report: &mut Report) -> Result<()> {
    client.prepare(cache)?;
    report.version = (client.version)(cache);
    for (test, reason) in client.skips {
        report.outcomes.push((format!("tests.{test}"), Outcome::NotAvailable((*reason).to_owned())));
    }
    let mut service = Service::start(arguments, cache, client)?;
    let result = check(client, arguments, cache, &mut service, report);
    service.finish(result.is_err() || report.failed())?;
    result
}

fn check(
    client: &Client,
    arguments: &Arguments,
    cache: &Path,
    service: &mut Service,
    report: &mut Report,
) -> Result<()> {
    let logs = cache.join("logs");
    fs::create_dir_all(&logs)?;
    let log = logs.join(format!("{}.log", client.name));
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut command = (client.program)(cache, &service.address());
    if !client.own_tests {
        command.args(["--prefix", &format!("compat-{}-{seconds}", client.name)]);
        command.args(["--timeout", &arguments.timeout.to_string()]);
        command.args(arguments.only.iter().flat_map(|only| ["--only", only]));
    }
    if let Service::Own { place, .. } = &*service {
        command.env("COMPAT_DATA", place.join("data"));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
    command.process_group(0);
    let mut process = Process(command.spawn().with_context(|| format!("{:?} does not start", command.get_program()))?);
    let mut input = process.0.stdin.take().context("no standard input")?;
    let output = process.0.stdout.take().context("no standard output")?;

    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    // A check makes several calls; a program that is silent for longer than they may take hangs.
    let patience = Duration::from_secs(u64::from(arguments.timeout) * 6).max(client.patience);
    loop {
        match lines.recv_timeout(patience) {
            Ok(line) => match line.strip_prefix("RESTART ") {
                Some(how) => {
                    let answer = service.restart(how)?;
                    writeln!(input, "{answer}")?;
                }
                None => take(&(client.read)(&line), report),
            },
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // What it started itself, too: cargo's tests outlive cargo.
                kill_process_group(Pid::from_child(&process.0), Signal::KILL)?;
                bail!("silent for {patience:?}: see {}", log.display());
            }
        }
    }
    let status = process.0.wait()?;
    if !status.success() && !report.failed() {
        bail!("its program ended with {status}: see {}", log.display());
    }
    Ok(())
}

fn take(line: &Option<Line>, report: &mut Report) {
    let Some(line) = line else { return };
    if let (Some(_), Some(version)) = (&line.client, &line.version) {
        report.version.clone_from(version);
    }
    if let Some(check) = &line.check {
        let detail = line.detail.clone().unwrap_or_default();
        let outcome = match (&line.na, line.ok) {
            (Some(reason), _) => Outcome::NotAvailable(reason.clone()),
            (None, Some(true)) => Outcome::Ok(detail),
            (None, _) => Outcome::Failed(detail),
        };
        report.outcomes.push((check.clone(), outcome));
    }
}
