//! `ottla-bench run`: the whole series. Floors first, then one workload after the other, each against each peer.
//!
//! After every workload the results so far are written, so that a series that is cut short is not lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::contest::{Contest, Pace};
use crate::floors::Floors;
use crate::machine::Steady;
use crate::namespace;
use crate::neutral;
use crate::peer::Peer;
use crate::report::{OTTLA, Series, json, table};
use crate::workload::{self, Workload};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// P1 to P6, C1 to C4, I1, R1, S1 to S3, N1; all if none is named
    workloads: Vec<String>,
    /// The brokers to measure against, files of bench/peers
    #[arg(long, value_delimiter = ',', default_value = "kafka")]
    against: Vec<String>,
    /// Turns of each broker in each cell
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of a turn's window
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// One short round, little data: does everything work? The figures are worth nothing
    #[arg(long)]
    quick: bool,
    /// How much is written before the kill of S2, and how much lies in the log in S3
    #[arg(long, value_name = "GB", default_value_t = 3.0)]
    recovery_gb: f64,
    /// Where results.json, table.md and the plots go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// Where the brokers' data lies meanwhile: a directory on a real disk
    #[arg(long, value_name = "DIR", default_value = "target/bench-data")]
    data: PathBuf,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn pace(&self) -> Pace {
        if self.quick {
            return Pace {
                rounds: 1,
                seconds: 2,
                warm_up: 5,
                backlog_gb: 0.5,
                recovery_gb: 0.5,
                partitions: 10_000,
                connections: 10_000,
            };
        }
        Pace {
            rounds: self.rounds,
            seconds: self.seconds,
            warm_up: 40,
            backlog_gb: 3.0,
            recovery_gb: self.recovery_gb,
            partitions: 10_000,
            connections: 10_000,
        }
    }

    fn chosen(&self) -> Result<Vec<&'static Workload>> {
        let is = |workload: &&Workload, id: &String| workload.id.eq_ignore_ascii_case(id);
        for id in &self.workloads {
            ensure!(workload::ALL.iter().any(|workload| is(&workload, id)), "there is no workload {id}");
        }
        let wanted = |workload: &&Workload| self.workloads.iter().any(|id| is(workload, id));
        Ok(workload::ALL.iter().filter(|workload| self.workloads.is_empty() || wanted(workload)).collect())
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let chosen = arguments.chosen()?;
    ensure!(arguments.rounds > 0 && arguments.seconds > 0, "no rounds or no seconds measure nothing");
    let ottla = Peer::named(OTTLA)?;
    let against = arguments.against.iter().map(|name| Peer::named(name)).collect::<Result<Vec<_>>>()?;
    // Before the network is left where packages come from; a second time, inside, there is nothing left to fetch.
    [&ottla].into_iter().chain(&against).try_for_each(Peer::fetch)?;
    if chosen.iter().any(|workload| workload.id == "N1") {
        neutral::fetch()?;
    }
    namespace::enter()?;
    let place = Place::new(&arguments.data)?;
    let series = measure(arguments, &chosen, &ottla, &against, &place.0)?;
    println!("{}", if arguments.json { json::text(&series)? } else { table::text(&series) });
    eprintln!("results are in {}", arguments.out.display());
    Ok(ExitCode::SUCCESS)
}

fn measure(
    arguments: &Arguments,
    chosen: &[&Workload],
    ottla: &Peer,
    against: &[Peer],
    place: &Path,
) -> Result<Series> {
    let pace = arguments.pace();
    let steady = Steady::keep();
    eprintln!("measuring the floors");
    let floors = Floors::measure(place, arguments.quick)?;
    floors.lines().iter().for_each(|line| eprintln!("  {line}"));
    let mut series = Series {
        machine: machine()?,
        rounds: pace.rounds,
        seconds: pace.seconds,
        floors: serde_json::to_value(&floors)?,
        notes: steady.notes.clone(),
        ..Series::default()
    };
    for peer in [ottla].into_iter().chain(against) {
        series.brokers.insert(peer.name().to_owned(), peer.version()?);
    }
    let mut left: u64 = chosen.iter().map(|workload| workload.estimate(pace)).sum::<u64>() * against.len() as u64;
    for workload in chosen {
        for peer in against {
            let minutes = left.div_ceil(60);
            eprintln!("{}: {}, against {} ({minutes} min left)", workload.id, workload.what, peer.name());
            one(workload, pace, [ottla.clone(), peer.clone()], place, &mut series)?;
            series.write(&arguments.out)?;
            left = left.saturating_sub(workload.estimate(pace));
        }
    }
    Ok(series)
}

/// A workload that cannot go on is noted, and the series goes on.
fn one(workload: &Workload, pace: Pace, peers: [Peer; 2], place: &Path, series: &mut Series) -> Result<()> {
    let began = Instant::now();
    let place = place.join(workload.id);
    let mut contest = Contest::new(workload.id, pace, peers, place.clone(), series);
    if let Err(error) = (workload.run)(&mut contest) {
        contest.note(format!("{} against {} ended early: {error:#}", workload.id, contest.peer()));
    }
    drop(contest);
    eprintln!("  {} took {:.0} s", workload.id, began.elapsed().as_secs_f64());
    fs::remove_dir_all(&place).with_context(|| format!("{} cannot be removed", place.display()))
}

/// A directory for data, removed in the end.
struct Place(PathBuf);

impl Place {
    fn new(parent: &Path) -> Result<Place> {
        let place = parent.join(std::process::id().to_string());
        fs::create_dir_all(&place)?;
        Ok(Place(fs::canonicalize(place)?))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} could not be removed: {error}", self.0.display());
        }
    }
}

/// What the figures were measured on, in a line.
fn machine() -> Result<String> {
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cpu = field(&fs::read_to_string("/proc/cpuinfo")?, "model name").unwrap_or_default();
    let memory = field(&fs::read_to_string("/proc/meminfo")?, "MemTotal").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cpus = std::thread::available_parallelism()?;
    Ok(format!("{cpus} CPUs ({cpu}), {memory} of memory, Linux {}", kernel.trim()))
}
