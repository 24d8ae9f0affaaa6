//! `cargo xtask`: the proofs and chores of this repository, one subcommand each.
//!
//! Nothing here is part of the product; each command's story is in the file that has its name.

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod bench;
mod broker;
mod compat;
#[cfg(target_os = "linux")]
mod failover;
#[cfg(target_os = "linux")]
mod full;
mod fuzz;
mod gate;
mod group_bench;
mod groups;
mod history;
mod kill;
mod libraries;
mod measure;
mod mutants;
mod pgo;
#[cfg(target_os = "linux")]
mod power;
#[cfg(target_os = "linux")]
mod powerfs;
#[cfg(target_os = "linux")]
mod powermount;
#[cfg(target_os = "linux")]
mod retention;
#[cfg(unix)]
mod sim;
mod tidy;
#[cfg(target_os = "linux")]
mod tmpfs;
#[cfg(target_os = "linux")]
mod torture;
mod wire;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run unmodified clients of every ecosystem against a broker, and print a table of client and check
    Compat(compat::Arguments),
    /// Cut the power under a broker again and again, and look for acknowledged records that are gone
    #[cfg(target_os = "linux")]
    PowerLoss(power::Arguments),
    /// Kill a broker again and again under producers of three client libraries, and read everything back
    Kill(kill::Arguments),
    /// Torture consumer groups of three client libraries, and the broker under them
    Groups(groups::Arguments),
    /// Measure what large groups cost, beside Apache Kafka
    GroupBench(group_bench::Arguments),
    /// Fill a small disk under load: errors, reads, losses, and getting on when there is room again
    #[cfg(target_os = "linux")]
    Full(full::Arguments),
    /// Watch the sizes of topics with a budget while partitions and topics are added under load
    #[cfg(target_os = "linux")]
    Retention(retention::Arguments),
    /// Torture a cluster of real processes with clients of three libraries, and judge what all of them saw
    #[cfg(target_os = "linux")]
    Torture(torture::Arguments),
    /// Measure how long writes are away when leaders are killed, and when nodes are restarted in order
    #[cfg(target_os = "linux")]
    Failover(failover::Arguments),
    /// Run many seeds of a cluster that lives in one thread, with faulty disks and a faulty network
    #[cfg(unix)]
    Sim(sim::Arguments),
    /// Measure what requests cost, beside Apache Kafka and others
    Bench(bench::Arguments),
    /// Build the release binary with a profile of what a broker does
    Pgo(pgo::Arguments),
    /// Measure start-up, memory and the size of the binary
    Measure(measure::Arguments),
    /// Try spoilt inputs on everything that reads bytes from strangers
    Fuzz(fuzz::Arguments),
    /// Break the code here and there, and see whether a test fails
    Mutants(mutants::Arguments),
    /// Count what requests cost, and compare it with the record
    Gate(gate::Arguments),
    /// Check the rules of this house that a program can check
    Tidy,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Compat(arguments) => compat::run(&arguments),
        #[cfg(target_os = "linux")]
        Command::PowerLoss(arguments) => power::run(&arguments),
        Command::Kill(arguments) => kill::run(&arguments),
        Command::Groups(arguments) => groups::run(&arguments),
        Command::GroupBench(arguments) => group_bench::run(&arguments),
        #[cfg(target_os = "linux")]
        Command::Full(arguments) => full::run(&arguments),
        #[cfg(target_os = "linux")]
        Command::Retention(arguments) => retention::run(&arguments),
        #[cfg(target_os = "linux")]
        Command::Torture(arguments) => torture::run(&arguments),
        #[cfg(target_os = "linux")]
        Command::Failover(arguments) => failover::run(&arguments),
        #[cfg(unix)]
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Pgo(arguments) => pgo::run(&arguments),
        Command::Measure(arguments) => measure::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Mutants(arguments) => mutants::run(&arguments),
        Command::Gate(arguments) => gate::run(&arguments),
        Command::Tidy => tidy::run(),
    }
}

/// The repository, wherever the command is called from.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}
