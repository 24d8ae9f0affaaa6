//! Runs seeds, many or one, and says what they came to. `cargo xtask sim` builds and calls it.
//!
//! What is not here: what a seed does (`lib.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use clap::Parser;
use ottla_sim::{Fault, MARKS, Options, Report, Tally, run, shrink};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask sim", about = "A cluster in one thread, with faults: many seeds, or one")]
struct Arguments {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 500)]
    seeds: u64,
    /// How long each meets faults, in simulated seconds
    #[arg(long, value_name = "S", default_value_t = 60)]
    seconds: u64,
    /// The first of them
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    from: u64,
    /// How many at a time
    #[arg(long, value_name = "J", default_value_t = 1)]
    jobs: usize,
    /// Only this one
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Print everything that happens
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Leave a kind of fault out; may be given several times
    #[arg(long, value_name = "KIND")]
    without: Vec<String>,
    /// At most so many brokers
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    brokers: usize,
    /// Run each seed twice, and compare
    #[arg(long)]
    twice: bool,
    /// Stop at the first failure, and say no more than after how many seeds it came
    #[arg(long)]
    catch: bool,
    /// Add what was run to this file, one line for each call
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    virtual_ms: u64,
    tally: Tally,
    failed: Option<Report>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let without = match kinds(&arguments.without) {
        Ok(without) => without,
        Err(unknown) => {
            let known: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
            eprintln!("error: there is no fault `{unknown}`; there are {}", known.join(", "));
            return ExitCode::FAILURE;
        }
    };
    let options = |seed| Options {
        without: without.clone(),
        brokers_max: arguments.brokers,
        trace: arguments.trace,
        ..Options::new(seed, arguments.seconds * 1000)
    };
    let seeds = arguments.seed.map_or(arguments.from..arguments.from + arguments.seeds, |seed| seed..seed + 1);
    let (begun, first) = (Instant::now(), seeds.start);
    let (next, stop, sum) = (AtomicU64::new(seeds.start), AtomicBool::new(false), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let report = one(&options(seed), arguments.twice);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.seeds += 1;
                    sum.virtual_ms += report.virtual_ms;
                    sum.tally.add(&report.tally);
                    if report.violation.is_some() {
                        stop.store(true, Ordering::Relaxed);
                        if sum.failed.is_none() {
                            sum.failed = Some(report);
                        }
                    } else if !arguments.catch && sum.seeds.is_multiple_of(100) {
                        progress(&sum, begun);
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    if arguments.catch {
        let rule = sum.failed.as_ref().and_then(|report| report.violation.as_ref()).map(|violation| violation.rule);
        println!("{} {}", if rule.is_some() { "caught" } else { "missed" }, sum.seeds);
        if let (Some(report), Some(rule)) = (&sum.failed, rule) {
            println!("seed {} breaks {rule}", report.seed);
        }
        return ExitCode::SUCCESS;
    }
    progress(&sum, begun);
    print_tally(&sum);
    if let Some(file) = &arguments.record
        && let Err(error) = record(file, &sum, first)
    {
        eprintln!("error: {} can't be written: {error}", file.display());
        return ExitCode::FAILURE;
    }
    match &sum.failed {
        None => ExitCode::SUCCESS,
        Some(report) => {
            explain(&options(report.seed), report, arguments.trace);
            ExitCode::FAILURE
        }
    }
}

fn kinds(names: &[String]) -> Result<BTreeSet<Fault>, String> {
    let find = |name: &String| Fault::ALL.into_iter().find(|fault| fault.name() == name).ok_or_else(|| name.clone());
    names.iter().map(find).collect()
}

fn one(options: &Options, twice: bool) -> Report {
    let report = run(options);
    if twice && report.hash != run(options).hash {
        let what = format!("seed {} does not do the same twice", options.seed);
        return Report { violation: Some(ottla_sim::Violation { rule: "determinism", what }), ..report };
    }
    report
}

fn progress(sum: &Sum, begun: Instant) {
    let (hours, real) = (sum.virtual_ms as f64 / 3_600_000.0, begun.elapsed().as_secs_f64());
    let speed = sum.virtual_ms as f64 / 1000.0 / real.max(0.001);
    println!("{} seeds, {hours:.2} simulated hours in {real:.0} s ({speed:.0} times real time)", sum.seeds);
}

fn print_tally(sum: &Sum) {
    let tally = &sum.tally;
    let hours = sum.virtual_ms as f64 / 3_600_000.0;
    let each_hour = |count: u64| count as f64 / hours.max(1e-9);
    let faults: u64 = tally.faults.values().sum();
    println!(
        "{} events, {} batches acknowledged, {} read; each hour {:.0} faults, {:.0} crashes, {:.0} leader changes",
        tally.events,
        tally.acknowledged,
        tally.read,
        each_hour(faults),
        each_hour(tally.crashes),
        each_hour(tally.leader_changes),
    );
    let list = |counts: &BTreeMap<&'static str, u64>| {
        let each: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        each.join(", ")
    };
    println!("faults: {}", list(&tally.faults));
    println!("marks: {}", list(&tally.marks));
    let missing: Vec<&str> = MARKS.into_iter().filter(|mark| !tally.marks.contains_key(mark)).collect();
    if !missing.is_empty() {
        println!("never reached: {}", missing.join(", "));
    }
    if tally.lost_excused > 0 {
        println!("{} batches lost where more copies were than the cluster promises to bear", tally.lost_excused);
    }
}

fn explain(options: &Options, report: &Report, traced: bool) {
    if !traced {
        report.lines.iter().for_each(|line| println!("{line}"));
    }
    let Some(violation) = &report.violation else { return };
    println!("seed {} at {} breaks {}: {}", report.seed, commit(), violation.rule, violation.what);
    let (smallest, smaller) = shrink(&Options { trace: false, ..options.clone() }, report);
    let without: Vec<String> = smallest.without.iter().map(|fault| format!(" --without {}", fault.name())).collect();
    let brokers = if smallest.brokers_max == usize::MAX { String::new() } else { " --brokers 3".to_owned() };
    println!(
        "smallest: --seed {} --seconds {}{brokers}{}",
        smallest.seed,
        smallest.duration_ms.div_ceil(1000),
        without.concat()
    );
    if let Some(violation) = smaller.violation {
        println!("which breaks {}: {}", violation.rule, violation.what);
    }
}

/// The commit that is run, where that can be found out.
fn commit() -> String {
    let described = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let described = described.ok().filter(|output| output.status.success());
    let name = described.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    name.unwrap_or_else(|| "an unknown commit".to_owned())
}

fn record(file: &Path, sum: &Sum, first: u64) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
    let faults: u64 = sum.tally.faults.values().sum();
    writeln!(
        file,
        "{} from seed {first}: {} seeds, \
         {:.3} simulated hours, {faults} faults, {} crashes, {} leader changes, {} failed",
        commit(),
        sum.seeds,
        sum.virtual_ms as f64 / 3_600_000.0,
        sum.tally.crashes,
        sum.tally.leader_changes,
        u8::from(sum.failed.is_some()),
    )
}
