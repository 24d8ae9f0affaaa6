//! `cargo xtask bench`: builds the release binaries of the broker and of `ottla-bench`, and runs the series.
//!
//! Everything else is in `bench/`; its README says what is measured and how.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// As `ottla-bench run` takes them; `cargo xtask bench --help` shows them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = crate::root();
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--package", "ottla", "--package", "ottla-bench"]).current_dir(&root);
    let status = build.status().context("cargo does not start")?;
    ensure!(status.success(), "cargo build: {status}");
    let program = root.join("target/release/ottla-bench");
    let failed = Command::new(&program).arg("run").args(&arguments.arguments).current_dir(&root).exec();
    bail!("{} does not start: {failed}", program.display())
}
