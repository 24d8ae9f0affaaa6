//! `ottla-bench`: measures Ottla beside other brokers on one machine; `cargo xtask bench` builds and runs it.
//!
//! Start with `README.md` in this folder: what is measured, against whom, and how a run is kept honest.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod process;
mod replay;

#[derive(Debug, Parser)]
#[command(name = "ottla-bench", about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load a broker without being the limit
    Replay(replay::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Replay(arguments) => replay::run(&arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
