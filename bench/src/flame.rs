//! `ottla-bench flame`: where Ottla's CPU goes under a workload, as a flame graph.
//!
//! `perf` samples the broker while the replayer runs. The drawing is inferno's (`cargo install inferno`); without it
//! the samples are left as `perf script` prints them. The release binary has no symbols: name one that has with
//! `OTTLA=target/fast/ottla` (`cargo build --profile fast`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::load::Side;
use crate::namespace;
use crate::peer::{Peer, Profile};
use crate::report::OTTLA;
use crate::workload::{FETCH, P2, P3, TAIL};

const PARTITIONS: u32 = 16;
const SAMPLES_PER_SECOND: &str = "997";

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
    fs::create_dir_all(&arguments.out)?;
    let broker = Peer::named(OTTLA)?.start(&arguments.data, Profile::Default)?;
    let mut side = Side::new(OTTLA, broker);
    let topic = side.create(PARTITIONS)?;
    if kind == "fetch" {
        side.load("produce", &topic, PARTITIONS, P2, 3)?;
    }
    let seconds = arguments.seconds;
    let arguments_of_load = format!("{load} --partitions {PARTITIONS} --warmup 2 --seconds {seconds}");
    let replayer = side.spawn(kind, &topic, &arguments_of_load)?;
    let samples = arguments.out.join(format!("flame-{workload}.perf"));
    let sampled = record(side.broker.pid()?, seconds, &samples);
    side.report(replayer)?;
    sampled?;
    side.broker.stop()?;
    fs::remove_dir_all(&arguments.data)?;
    draw(&samples, &arguments.out.join(format!("flame-{workload}.svg")))
}

fn record(pid: u32, seconds: u64, samples: &Path) -> Result<()> {
    let mut perf = Command::new("perf");
    perf.args(["record", "--quiet", "-F", SAMPLES_PER_SECOND, "-g", "-p", &pid.to_string(), "-o"]).arg(samples);
    let status = perf.args(["--", "sleep", &seconds.to_string()]).status().context("perf does not start")?;
    ensure!(status.success(), "perf record: {status}");
    Ok(())
}

fn draw(samples: &Path, svg: &Path) -> Result<ExitCode> {
    let script = samples.with_extension("txt");
    let status = Command::new("perf").args(["script", "-i"]).arg(samples).stdout(File::create(&script)?).status()?;
    ensure!(status.success(), "perf script: {status}");
    let Ok(mut collapse) = Command::new("inferno-collapse-perf").arg(&script).stdout(Stdio::piped()).spawn() else {
        eprintln!("the samples are in {}; for a picture: cargo install inferno", script.display());
        return Ok(ExitCode::FAILURE);
    };
    let stacks = collapse.stdout.take().context("inferno-collapse-perf has no output")?;
    let status = Command::new("inferno-flamegraph").stdin(stacks).stdout(File::create(svg)?).status()?;
    ensure!(collapse.wait()?.success() && status.success(), "inferno failed");
    println!("{}", svg.display());
    Ok(ExitCode::SUCCESS)
}
