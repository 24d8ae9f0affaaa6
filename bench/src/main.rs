//! `ottla-bench`: measures Ottla beside other brokers on one machine; `cargo xtask bench` builds and runs it.
//!
//! Start with `README.md` in this folder: what is measured, against whom, and how a run is kept honest.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "ottla-bench", about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {}

fn main() -> ExitCode {
    match Arguments::parse().command {}
}
