//! `cargo xtask`: the proofs and chores of this repository, one subcommand each.
//!
//! Nothing here is part of the product; each command's story is in the file that has its name.

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod broker;
mod compat;
mod full;
mod history;
mod kill;
mod measure;
mod power;
mod powerfs;
mod powermount;
mod retention;
mod tmpfs;
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
    PowerLoss(power::Arguments),
    /// Kill a broker again and again under producers of three client libraries, and read everything back
    Kill(kill::Arguments),
    /// Fill a small disk under load: errors, reads, losses, and getting on when there is room again
    Full(full::Arguments),
    /// Watch the sizes of topics with a budget while partitions and topics are added under load
    Retention(retention::Arguments),
    /// Measure start-up, memory and the size of the binary
    Measure(measure::Arguments),
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
        Command::PowerLoss(arguments) => power::run(&arguments),
        Command::Kill(arguments) => kill::run(&arguments),
        Command::Full(arguments) => full::run(&arguments),
        Command::Retention(arguments) => retention::run(&arguments),
        Command::Measure(arguments) => measure::run(&arguments),
    }
}
