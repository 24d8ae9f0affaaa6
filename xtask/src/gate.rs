//! `cargo xtask gate`: builds the broker and `ottla-bench gate`, and runs it: what requests cost, counted and compared.
//!
//! Not here: what is counted and how (`bench/src/gate.rs`).

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What `ottla-bench gate` is given, such as --record; with --binary PATH no broker is built
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = crate::root();
    if !arguments.rest.iter().any(|argument| argument.starts_with("--binary")) {
        cargo(&root, &["build", "--profile", "fast", "--package", "ottla"])?;
    }
    let status = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--package", "ottla-bench", "--", "gate"])
        .args(&arguments.rest)
        .current_dir(&root)
        .status()
        .context("cargo does not start")?;
    // Its exit code says whether it failed or could not run here.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    let status = Command::new(env!("CARGO")).args(arguments).current_dir(root).status()?;
    if !status.success() {
        bail!("cargo {}: {status}", arguments.join(" "));
    }
    Ok(())
}
