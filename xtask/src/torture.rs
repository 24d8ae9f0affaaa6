//! `cargo xtask torture`: a cluster of real processes under faults, with the clients people use, and a judge.
//!
//! Every node has a network namespace of its own (`torture/network.rs`), and if need be a disk (`torture/disks.rs`).
//! Producers, readers and group members of three client libraries (`compat/torture`) work while faults come by a
//! seeded plan (`torture/plan.rs`): kills, stops, cuts, full and slow disks, flipped bits, clocks that step, nodes that
//! come and go, disks that are replaced. Then everything is healed, read from offset 0, and judged
//! (`torture/checker.rs`). What everybody said is kept in one file, which `--check` judges again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::checker::{Limits, Verdict};
use self::clients::LIBRARIES;
use self::plan::Kind;
use self::run::Asked;
use crate::broker::Subject;

pub(crate) mod admin;
pub(crate) mod checker;
pub(crate) mod clients;
pub(crate) mod cluster;
mod disks;
mod inject;
pub(crate) mod network;
pub(crate) mod node;
mod plan;
pub(crate) mod report;
pub(crate) mod run;
mod watch;

/// Where programs are built; not part of the repository.
pub(crate) const CACHE: &str = "compat/.cache/torture";
/// Apache Kafka, started as if it were ours.
pub(crate) const KAFKA: &str = "compat/torture/kafka/node";
const QUICK_MINUTES: f64 = 2.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// For how long faults come
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Nodes of the cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Start of everything random; by default taken from the clock, and printed
    #[arg(long)]
    seed: Option<u64>,
    /// Only these kinds of faults
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    faults: Vec<Kind>,
    /// Two minutes of kills, stops and cuts
    #[arg(long, conflicts_with_all = ["minutes", "faults"])]
    quick: bool,
    /// The broker: `PATH serve --data DIR --listen IP:PORT [--join IP:PORT]`
    #[arg(long, value_name = "PATH", default_value = "target/release/ottla")]
    binary: PathBuf,
    /// Torture three nodes of Apache Kafka instead, as a control
    #[arg(long, conflicts_with_all = ["binary", "nodes"])]
    kafka: bool,
    /// A setting of every broker
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    option: Vec<String>,
    /// Where the history and what everybody said is kept; by default in a temporary directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the report as JSON
    #[arg(long)]
    json: bool,
    /// Judge a history that was kept, and run nothing
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(file) = &arguments.check {
        return check(file, arguments.json);
    }
    if let Some(missing) = network::missing() {
        println!("the torture of a cluster cannot be run here: {missing}");
        return Ok(ExitCode::from(2));
    }
    let binary = if arguments.kafka { Path::new(KAFKA) } else { &arguments.binary };
    Subject::of(binary).check()?;
    fs::create_dir_all(CACHE)?;
    let cache = fs::canonicalize(CACHE)?;
    let (mut libraries, mut missing) = (Vec::new(), Vec::new());
    for (index, library) in LIBRARIES.iter().enumerate() {
        match library.prepare(&cache) {
            Ok(()) => libraries.push(index),
            Err(error) => missing.push(format!("{}: {error:#}", library.name)),
        }
    }
    if libraries.is_empty() {
        println!("the torture of a cluster cannot be run here, there are no clients: {}", missing.join("; "));
        return Ok(ExitCode::from(2));
    }

    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let minutes = if arguments.quick { QUICK_MINUTES } else { arguments.minutes };
    let wanted = match (arguments.quick, arguments.faults.is_empty()) {
        (true, _) => Kind::QUICK.to_vec(),
        (false, true) => Kind::ALL.to_vec(),
        (false, false) => arguments.faults.clone(),
    };
    let temporary = std::env::temp_dir().join(format!("ottla-torture-{}", std::process::id()));
    let place = arguments.out.clone().unwrap_or(temporary);
    fs::create_dir_all(&place)?;
    // Nodes are started in namespaces and clients in directories of their own.
    let (place, binary) = (fs::canonicalize(place)?, fs::canonicalize(binary)?);
    let (kinds, skipped) = possible(&wanted, arguments, &place);
    if kinds.is_empty() {
        println!("the torture of a cluster cannot be run here: {}", skipped.join("; "));
        return Ok(ExitCode::from(2));
    }
    eprintln!("{minutes} minutes of {kinds:?} on {}, --seed {seed}, kept in {}", binary.display(), place.display());
    let asked = Asked {
        seed,
        nodes: usize::from(arguments.nodes),
        lasts: Duration::try_from_secs_f64(minutes * 60.0).context("--minutes is not a time")?,
        kinds,
        binary,
        is_kafka: arguments.kafka,
        settings: arguments.option.clone(),
        faketime: node::faketime(),
        place,
        cache,
        libraries,
        skipped: skipped.into_iter().chain(missing.iter().cloned()).collect(),
    };
    let report = run::run(&asked)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    let history = asked.place.join("history");
    if !report.is_good() {
        eprintln!("FAILED, --seed {seed}; judge it again: cargo xtask torture --check {}", history.display());
        return Ok(ExitCode::FAILURE);
    }
    if arguments.out.is_none() {
        fs::remove_dir_all(&asked.place)?;
    }
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// The kinds of faults that this machine can do, and why not the others.
fn possible(wanted: &[Kind], arguments: &Arguments, place: &Path) -> (Vec<Kind>, Vec<String>) {
    let try_disk = || -> Result<()> {
        let trial = place.join("trial");
        fs::create_dir_all(&trial)?;
        let disk = disks::Disk::new_loop(&trial);
        let mounted = disk.map(drop);
        fs::remove_dir_all(&trial)?;
        mounted
    };
    let needs_disk = wanted.iter().any(|kind| matches!(kind, Kind::DiskFull | Kind::DiskSlow));
    let disk = if needs_disk { try_disk() } else { Ok(()) };
    let can = |kind: Kind| -> Result<()> {
        match kind {
            Kind::DiskFull | Kind::DiskSlow if disk.is_err() => bail!("{:#}", disk.as_ref().err().context("no disk")?),
            Kind::DiskSlow => disks::can_be_slow(),
            Kind::Flip | Kind::Member if arguments.kafka => bail!("it is done with what only Ottla has"),
            Kind::Flip | Kind::Wipe if arguments.nodes < 3 => {
                bail!("one copy of three may be lost, and there are no three")
            }
            Kind::Clock => node::faketime().map(drop).context("there is no libfaketime: apt-get install faketime"),
            _ => Ok(()),
        }
    };
    let (mut kinds, mut skipped) = (Vec::new(), Vec::new());
    for kind in wanted {
        match can(*kind) {
            Ok(()) if kinds.contains(kind) => {}
            Ok(()) => kinds.push(*kind),
            Err(error) => skipped.push(format!("{}: {error:#}", kind.name())),
        }
    }
    skipped.iter().for_each(|skipped| eprintln!("left out: {skipped}"));
    (kinds, skipped)
}

/// Judges a stored history.
fn check(file: &Path, json: bool) -> Result<ExitCode> {
    let began = Instant::now();
    let history = run::read(file)?;
    let read = began.elapsed();
    let verdict: Verdict = checker::check(&history, Limits::default());
    let anomalies = report::examples(&verdict);
    if json {
        let found = serde_json::json!({ "numbers": verdict.numbers, "anomalies": anomalies });
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        for (name, examples) in &anomalies {
            examples.iter().for_each(|example| println!("{name}: {example}"));
        }
        let (all, numbers) = (began.elapsed(), verdict.numbers);
        println!("{numbers:?}");
        println!("{} operations, read in {read:.1?}, judged in {:.1?}", numbers.operations, all - read);
    }
    Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
