//! `ottla-bench flame`: where Ottla's CPU goes under a workload, as a flame graph.
//!
//! `perf` samples the broker while the replayer runs. The drawing is inferno's (`cargo install inferno`). The release
//! binary has no symbols: name one that has with `OTTLA=target/fast/ottla` (`cargo build --profile fast`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::load::Side;
use crate::machine::Steady;
use crate::namespace;
use crate::peer::{Peer, Profile};
use crate::report::OTTLA;
use crate::workload::{FETCH, P2, P3, TAIL};

const PARTITIONS: u32 = 16;
const SAMPLES_PER_SECOND: &str = "997";
/// Our binaries keep no frame pointers: a piece of the stack goes with each sample, and is unwound afterwards. Most of
/// a stack is less than this.
const STACKS: &str = "dwarf,16384";
/// Room for samples that perf has not written yet, for each CPU.
const ROOM: &str = "16M";
/// C1: batches a second while there is made what is read.
const MAKING: u32 = 12_000;
/// Frames that take less than this much of the picture, in percent, are not drawn: nobody could read them.
const NARROWEST: &str = "0.3";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// P2, P3, C1 or C3
    workload: String,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Where flame-WORKLOAD.svg goes
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// Where the broker's data lies meanwhile
    #[arg(long, value_name = "DIR", default_value = "target/bench-data/flame")]
    data: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let workload = arguments.workload.to_uppercase();
    let (kind, load) = match &*workload {
        "P2" => ("produce", P2.to_owned()),
        "P3" => ("produce", format!("{P3} --connections 16")),
        "C1" => ("fetch", FETCH.to_owned()),
        "C3" => ("tail", format!("{TAIL} --rate 50000 --batch-records 10")),
        other => bail!("no flame graph of {other}: P2, P3, C1 or C3"),
    };
    namespace::enter()?;
    let _steady = Steady::keep();
    fs::create_dir_all(&arguments.out)?;
    let samples = arguments.out.join(format!("flame-{workload}.perf"));
    let sampled = sample(&arguments.data, kind, &load, arguments.seconds, &samples);
    fs::remove_dir_all(&arguments.data)?;
    sampled?;
    let svg = arguments.out.join(format!("flame-{workload}.svg"));
    draw(&samples, &format!("Ottla under {workload}"), &svg)?;
    fs::remove_file(samples)?;
    println!("{}", svg.display());
    Ok(ExitCode::SUCCESS)
}

/// Runs the load on a fresh broker, and takes samples of that.
fn sample(data: &Path, kind: &str, load: &str, seconds: u64, samples: &Path) -> Result<()> {
    let mut side = Side::new(OTTLA, Peer::named(OTTLA)?.start(&data.join(OTTLA), Profile::Default)?);
    let topic = side.create(PARTITIONS)?;
    if kind == "fetch" {
        side.load("produce", &topic, PARTITIONS, &format!("{P2} --rate {MAKING}"), 5)?;
    }
    side.settle()?;
    let load = format!("{load} --partitions {PARTITIONS} --warmup 1 --seconds {seconds}");
    let replayer = side.spawn(kind, &topic, &load)?;
    let sampled = record(side.broker.pid()?, seconds, samples);
    side.report(replayer)?;
    sampled?;
    side.broker.stop()
}

fn record(pid: u32, seconds: u64, samples: &Path) -> Result<()> {
    let mut perf = Command::new("perf");
    perf.args(["record", "--quiet", "-F", SAMPLES_PER_SECOND, "--call-graph", STACKS, "-m", ROOM]);
    perf.args(["-p", &pid.to_string(), "-o"]).arg(samples);
    let status = perf.args(["--", "sleep", &seconds.to_string()]).status().context("perf does not start")?;
    ensure!(status.success(), "perf record: {status}");
    Ok(())
}

/// Unwinds, counts equal stacks, and draws them.
fn draw(samples: &Path, title: &str, svg: &Path) -> Result<()> {
    let mut script = Command::new("perf");
    // To look up what was inlined takes minutes. Without its period each sample counts as one.
    script.args(["script", "--no-inline", "-F", "comm,pid,tid,time,event,ip,sym,dso", "-i"]).arg(samples);
    let mut script = piped(&mut script)?;
    let mut collapse = Command::new("inferno-collapse-perf");
    let mut collapse = piped(collapse.stdin(output(&mut script)?))?;
    let mut flamegraph = Command::new("inferno-flamegraph");
    flamegraph.args(["--colors", "rust", "--minwidth", NARROWEST, "--title", title]);
    flamegraph.stdin(output(&mut collapse)?).stdout(File::create(svg)?);
    let drawn = flamegraph.status().context("inferno-flamegraph does not start: cargo install inferno")?;
    ensure!(script.wait()?.success() && collapse.wait()?.success() && drawn.success(), "drawing failed");
    Ok(())
}

fn piped(command: &mut Command) -> Result<Child> {
    let program = command.get_program().to_owned();
    let started = command.stdout(Stdio::piped()).spawn();
    started.with_context(|| format!("{} does not start; see bench/README.md", program.display()))
}

fn output(child: &mut Child) -> Result<Stdio> {
    Ok(child.stdout.take().context("a program has no output")?.into())
}
