//! `ottla-bench gate`: what requests cost in instructions, allocations, system calls and context switches, which is the
//! same on every run, against the record in `bench/gate.json`.
//!
//! Why these and how they are made exact: `docs/decisions/noise-free-gate.md`. The requests are in `gate/scripts.rs`.
//! Times are not here: they are never the same twice, and the workloads measure them.

mod broker;
mod callgrind;
mod client;
mod record;
mod scripts;
mod strace;

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result};

use self::{
    broker::Broker,
    callgrind::{Callgrind, Counts},
    client::Client,
    record::{Build, Costs, Record, Verdict, compare, table},
    scripts::{Requests, SCRIPTS, Script},
    strace::{Calls, Strace},
};

/// The exit code that says that something needed is not on this machine.
const NOT_POSSIBLE: u8 = 2;
/// Turns of a script before it is counted.
const WARM_UP: u32 = 20;
/// So often a script is counted, and the least counts: a sync or a timer of the broker's own only adds.
const WINDOWS: usize = 3;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The broker; symbols must not be stripped, or no allocation is seen
    #[arg(long, value_name = "PATH", default_value = "target/fast/ottla")]
    binary: PathBuf,
    /// Write the record instead of comparing with it
    #[arg(long)]
    record: bool,
    /// The file of the record
    #[arg(long, value_name = "FILE", default_value = "bench/gate.json")]
    against: PathBuf,
    /// Only the scripts with this in their name
    #[arg(long, value_name = "TEXT", default_value = "", conflicts_with = "record")]
    only: String,
    /// Leave what was counted here: a file for callgrind_annotate for each script, and its system calls by name
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    for program in ["valgrind", "vgdb", "strace"] {
        if !is_installed(program) {
            eprintln!("the gate needs {program}: apt-get install valgrind strace");
            return Ok(NOT_POSSIBLE.into());
        }
    }
    let place = Place::create()?;
    let keep = arguments.keep.clone().unwrap_or_else(|| place.0.clone());
    fs::create_dir_all(&keep)?;
    let scripts: Vec<&Script> = SCRIPTS.iter().filter(|script| script.name.contains(&arguments.only)).collect();
    let now =
        Record { build: build(&arguments.binary)?, scripts: measure(&arguments.binary, &scripts, &place.0, &keep)? };
    if arguments.record {
        now.store(&arguments.against)?;
    }
    report(&Record::load(&arguments.against)?, &now)
}

/// Prints every figure beside its record, and says whether one is worse.
fn report(recorded: &Record, now: &Record) -> Result<ExitCode> {
    let rows = compare(recorded, now);
    println!("{}", table(&rows));
    if recorded.build != now.build {
        println!("Instructions are not compared: the record is of {}, this is {}.", recorded.build, now.build);
    }
    let any = |verdict| rows.iter().any(|row| row.verdict == verdict);
    if any(Verdict::Better) {
        println!("Some requests cost less than recorded: record them (cargo xtask gate --record).");
    }
    if any(Verdict::Worse) || any(Verdict::New) {
        println!("Some requests cost more than recorded. If that is meant: cargo xtask gate --record, and say why.");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Three brokers, one after the other, do the same: each is watched for something else, since who watches disturbs.
fn measure(binary: &Path, scripts: &[&Script], place: &Path, keep: &Path) -> Result<BTreeMap<String, Costs>> {
    let mut costs = BTreeMap::new();
    let counts = instructions(binary, scripts, &fresh(place, "callgrind")?, keep)?;
    let calls = system_calls(binary, scripts, &fresh(place, "strace")?, keep)?;
    let switches = switches(binary, scripts, &fresh(place, "plain")?)?;
    for (((script, counts), calls), switches) in scripts.iter().zip(counts).zip(calls).zip(switches) {
        let each = |total: u64| total as f64 / f64::from(script.turns * script.in_flight);
        let cost = Costs {
            instructions: each(counts.instructions),
            allocations: each(counts.allocations),
            system_calls: each(calls.values().sum()),
            switches: each(switches),
        };
        costs.insert(script.name.to_owned(), cost);
    }
    Ok(costs)
}

fn instructions(binary: &Path, scripts: &[&Script], place: &Path, keep: &Path) -> Result<Vec<Counts>> {
    let mut callgrind = Callgrind::start(binary, place)?;
    let each = |script: &&Script| {
        let mut course = Course::begin(script, &callgrind.broker)?;
        let mut least = Counts { instructions: u64::MAX, allocations: u64::MAX };
        for _ in 0..WINDOWS {
            callgrind.zero()?;
            course.run(&callgrind.broker)?;
            let counts = callgrind.counts(&keep.join(format!("callgrind.out.{}", file_name(script))))?;
            least.instructions = least.instructions.min(counts.instructions);
            least.allocations = least.allocations.min(counts.allocations);
        }
        Ok(least)
    };
    scripts.iter().map(each).collect()
}

fn system_calls(binary: &Path, scripts: &[&Script], place: &Path, keep: &Path) -> Result<Vec<Calls>> {
    let strace = Strace::start(binary, place)?;
    let each = |script: &&Script| {
        let mut course = Course::begin(script, &strace.broker)?;
        let mut least: Option<Calls> = None;
        for _ in 0..WINDOWS {
            let point = strace.point()?;
            course.run(&strace.broker)?;
            let calls = strace.calls(point)?;
            let total = |calls: &Calls| calls.values().sum::<u64>();
            if least.as_ref().is_none_or(|least| total(&calls) < total(least)) {
                least = Some(calls);
            }
        }
        let calls = least.context("no window")?;
        fs::write(keep.join(format!("strace.{}", file_name(script))), listing(&calls, script))?;
        Ok(calls)
    };
    scripts.iter().map(each).collect()
}

fn switches(binary: &Path, scripts: &[&Script], place: &Path) -> Result<Vec<u64>> {
    let broker = Broker::start(binary, place, &[])?;
    let each = |script: &&Script| {
        let mut course = Course::begin(script, &broker)?;
        let mut least = u64::MAX;
        for _ in 0..WINDOWS {
            let before = broker.switches()?;
            course.run(&broker)?;
            least = least.min(broker.switches()? - before);
        }
        Ok(least)
    };
    scripts.iter().map(each).collect()
}

/// A script on its way against one broker.
struct Course<'a> {
    script: &'a Script,
    client: Client,
    requests: Requests,
}

impl<'a> Course<'a> {
    /// Connects, prepares, and goes on until nothing is new any more: buffers have grown, files are there.
    fn begin(script: &'a Script, broker: &Broker) -> Result<Course<'a>> {
        let mut client = broker.connect()?;
        let requests = (script.prepare)(&mut client).with_context(|| script.name)?;
        let mut course = Course { script, client, requests };
        for _ in 0..WARM_UP {
            course.turn(broker)?;
        }
        Ok(course)
    }

    fn run(&mut self, broker: &Broker) -> Result<()> {
        for _ in 0..self.script.turns {
            self.turn(broker)?;
        }
        Ok(())
    }

    fn turn(&mut self, broker: &Broker) -> Result<()> {
        let mut frames = Vec::new();
        for _ in 0..self.script.in_flight {
            frames.extend_from_slice(&(self.requests.next)()?);
        }
        self.client.send(&frames)?;
        for _ in 0..self.script.in_flight {
            (self.requests.check)(self.client.receive()?).with_context(|| self.script.name)?;
        }
        broker.settle()
    }
}

/// System calls a request by name, most frequent first.
fn listing(calls: &Calls, script: &Script) -> String {
    let mut calls: Vec<_> = calls.iter().collect();
    calls.sort_by_key(|&(name, count)| (Reverse(count), name));
    let requests = f64::from(script.turns * script.in_flight);
    calls.iter().map(|&(name, &count)| format!("{:8.2} {name}\n", count as f64 / requests)).collect()
}

fn file_name(script: &Script) -> String {
    script.name.replace(',', "").replace(' ', "-")
}

/// The compiler as it signs its binaries, the name of the directory (which is the profile's), and the machine.
fn build(binary: &Path) -> Result<Build> {
    const SIGNATURE: &[u8] = b"rustc version ";
    let bytes = fs::read(binary).with_context(|| {
        format!("no broker at {}: build it (cargo build --profile fast -p ottla) or name it", binary.display())
    })?;
    let at = bytes.windows(SIGNATURE.len()).position(|window| window == SIGNATURE);
    let signed = at.and_then(|at| bytes.get(at + SIGNATURE.len()..)).context("no compiler has signed the binary")?;
    let version = signed.split(|&byte| !(byte.is_ascii_graphic() || byte == b' ')).next().unwrap_or_default();
    let profile = binary.parent().and_then(Path::file_name).unwrap_or_default();
    Ok(Build {
        rustc: String::from_utf8_lossy(version).into_owned(),
        profile: profile.to_string_lossy().into_owned(),
        machine: env::consts::ARCH.to_owned(),
    })
}

fn is_installed(program: &str) -> bool {
    let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    quiet(Command::new(program).arg("--version"))
}

fn fresh(place: &Path, name: &str) -> Result<PathBuf> {
    let directory = place.join(name);
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// A directory for one run; removed when dropped.
struct Place(PathBuf);

impl Place {
    fn create() -> Result<Place> {
        let place = env::temp_dir().join(format!("ottla-gate-{}", std::process::id()));
        fs::create_dir_all(&place)?;
        Ok(Place(place))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left is found by whoever cleans temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
