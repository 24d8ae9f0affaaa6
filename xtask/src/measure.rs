//! `cargo xtask measure`: how small and how quick the broker is, each figure with a command that shows it by hand.
//!
//! Start-up is the time from starting the process to the answer to the first produce with `acks=all`, on an empty
//! directory (a topic has to be created first) and on one that has been used. Memory is what is resident once it has
//! stopped changing. A figure is beside its target (`Aim` of the first broker); a missed one makes the exit code 1.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use crate::broker::{Broker, Subject, free_address};
use crate::wire::Connection;

const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a start may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Memory counts as settled when it has not grown by more than a page in this long.
const SETTLED: Duration = Duration::from_secs(1);
/// Topics and partitions of each, for the figure with many.
const MANY: (usize, i32) = (10, 1000);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often start-up is measured; the median counts
    #[arg(long, default_value_t = 11)]
    runs: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// A setting of the broker
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    option: Vec<String>,
    #[command(flatten)]
    subject: Subject,
}

/// One figure.
#[derive(Debug, serde::Serialize)]
struct Figure {
    what: &'static str,
    value: f64,
    unit: &'static str,
    /// At most this, if there is a target.
    target: Option<f64>,
    command: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    arguments.subject.check()?;
    if arguments.runs == 0 {
        bail!("--runs 0 measures nothing");
    }
    let place = std::env::temp_dir().join(format!("ottla-measure-{}", std::process::id()));
    fs::create_dir_all(&place)?;
    let figures = Measure { arguments, place: &place }.all();
    fs::remove_dir_all(&place)?;
    let figures = figures?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header(["what", "measured", "target", "by hand"]);
        for figure in &figures {
            table.add_row([
                figure.what.to_owned(),
                format!("{:.1} {}", figure.value, figure.unit),
                figure.target.map_or(String::new(), |target| format!("{target} {}", figure.unit)),
                figure.command.clone(),
            ]);
        }
        println!("{table}");
    }
    let missed = figures.iter().any(|figure| figure.target.is_some_and(|target| figure.value > target));
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Measure<'a> {
    arguments: &'a Arguments,
    place: &'a Path,
}

impl Measure<'_> {
    fn all(&self) -> Result<Vec<Figure>> {
        let program = self.arguments.subject.program();
        let program = program.display();
        let serve = format!("{program} serve --data /tmp/d & ");
        let memory = format!("{serve}grep VmRSS /proc/$!/status");
        let mut figures = Vec::new();
        let mut add = |what, value, unit, target, command: &str| {
            figures.push(Figure { what, value, unit, target, command: command.to_owned() });
        };

        let (mut fresh, mut used) = (Vec::new(), Vec::new());
        for run in 0..self.arguments.runs {
            let data = self.place.join(format!("start-{run}"));
            fresh.push(self.start_up(&data, true)?);
            used.push(self.start_up(&data, false)?);
            fs::remove_dir_all(data)?;
        }
        let start_up = format!("cargo xtask measure --runs {} --binary {program}", self.arguments.runs);
        add("start to first acknowledged produce, empty directory", median(fresh), "ms", Some(15.0), &start_up);
        add("start to first acknowledged produce, used directory", median(used), "ms", Some(15.0), &start_up);

        let data = self.place.join("idle");
        let (broker, _) = self.started(&data)?;
        add("memory, idle", settled(&broker)?, "MB", Some(10.0), &memory);
        broker.terminate()?;

        let data = self.place.join("many");
        let (broker, mut connection) = self.started(&data)?;
        let began = Instant::now();
        let (topics, partitions) = MANY;
        for topic in 0..topics {
            connection.create_topic(&format!("many-{topic}"), partitions, &[])?;
        }
        let create = format!("{program} topic create many-0 --partitions {partitions}   # ... many-{}", topics - 1);
        add("creating 10,000 partitions", began.elapsed().as_secs_f64() * 1e3, "ms", None, &create);
        add("memory, 10,000 partitions", settled(&broker)?, "MB", Some(50.0), &memory);
        drop(connection);
        broker.terminate()?;
        let began = Instant::now();
        let (broker, _) = self.started(&data)?;
        add("restart with 10,000 partitions, after SIGTERM", began.elapsed().as_secs_f64() * 1e3, "ms", None, &memory);
        add("memory, restarted with 10,000 partitions", settled(&broker)?, "MB", Some(50.0), &memory);
        broker.kill()?;
        let began = Instant::now();
        let (broker, _) = self.started(&data)?;
        add("restart with 10,000 partitions, after kill -9", began.elapsed().as_secs_f64() * 1e3, "ms", None, &memory);
        add("memory, restarted after kill -9", settled(&broker)?, "MB", Some(50.0), &memory);
        broker.terminate()?;

        let size = fs::metadata(self.arguments.subject.program())?.len() as f64 / 1e6;
        add("size of the binary", size, "MB", Some(10.0), &format!("ls -l {program}"));
        Ok(figures)
    }

    /// Starts the broker, and is connected as soon as it listens: no pause between attempts that would be measured.
    fn started(&self, data: &Path) -> Result<(Broker, Connection)> {
        let address: SocketAddr = free_address()?;
        let log: PathBuf = self.place.join("broker.log");
        let mut broker = self.arguments.subject.spawn(data, address, &self.arguments.option, &log)?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Ok(mut connection) = Connection::open(address, CALL_TIMEOUT)
                && connection.api_versions().is_ok()
            {
                return Ok((broker, connection));
            }
            if broker.has_ended()? {
                bail!("the broker ended: {}", fs::read_to_string(log)?.lines().last().unwrap_or_default());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        bail!("the broker does not answer within {PATIENCE:?}")
    }

    /// Milliseconds from starting the process to the first acknowledged produce.
    fn start_up(&self, data: &Path, create: bool) -> Result<f64> {
        let began = Instant::now();
        let (broker, mut connection) = self.started(data)?;
        if create {
            connection.create_topic("first", 1, &[]).context("the first topic")?;
        }
        connection.produce("first", 0, &[Bytes::from_static(b"hello")], None).context("the first produce")?;
        let spent = began.elapsed();
        broker.terminate()?;
        Ok(spent.as_secs_f64() * 1e3)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Resident memory in megabytes once it has stopped growing.
fn settled(broker: &Broker) -> Result<f64> {
    let mut last = broker.resident_bytes()?;
    loop {
        std::thread::sleep(SETTLED);
        let now = broker.resident_bytes()?;
        if now <= last + 4096 {
            return Ok(now as f64 / 1e6);
        }
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
    }
}
