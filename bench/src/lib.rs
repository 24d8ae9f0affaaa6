//! `ottla-bench`: measures Ottla beside other brokers on one machine; `cargo xtask bench` builds and runs it.
//!
//! Start with `README.md` in this folder: what is measured, against whom, and how a run is kept honest.

// Everything here rests on /proc, namespaces and epoll; elsewhere there is nothing of it.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod contest;
mod flame;
mod floors;
mod gate;
mod load;
mod machine;
mod namespace;
mod neutral;
mod peer;
mod process;
mod replay;
mod report;
mod run;
mod statistics;
mod workload;

#[derive(Debug, Parser)]
#[command(name = "ottla-bench", about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure brokers beside each other
    Run(run::Arguments),
    /// Make the table and the plots of a series again
    Report {
        /// A results.json
        results: PathBuf,
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Draw where Ottla's CPU goes
    Flame(flame::Arguments),
    /// What the machine can do at best, measured on its primitives
    Floors(floors::Arguments),
    /// Count what requests cost in instructions, allocations, system calls and context switches
    Gate(gate::Arguments),
    /// Load a broker without being the limit
    Replay(replay::Arguments),
}

/// What `main.rs` calls.
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Report { results, out } => report(&results, &out),
        Command::Flame(arguments) => flame::run(&arguments),
        Command::Floors(arguments) => floors::run(&arguments),
        Command::Gate(arguments) => gate::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn report(results: &Path, out: &Path) -> Result<ExitCode> {
    let series = report::json::read(&std::fs::read_to_string(results)?)?;
    series.write(out)?;
    println!("{}", report::table::text(&series));
    Ok(ExitCode::SUCCESS)
}
