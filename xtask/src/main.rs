//! `cargo xtask`: the proofs and chores of this repository, one subcommand each.
//!
//! Nothing here is part of the product; each command's story is in the file that has its name.

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod broker;
mod history;
mod kill;
mod power;
mod powerfs;
mod powermount;
mod wire;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Cut the power under a broker again and again, and look for acknowledged records that are gone
    PowerLoss(power::Arguments),
    /// Kill a broker again and again under producers of three client libraries, and read everything back
    Kill(kill::Arguments),
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
        Command::PowerLoss(arguments) => power::run(&arguments),
        Command::Kill(arguments) => kill::run(&arguments),
    }
}
