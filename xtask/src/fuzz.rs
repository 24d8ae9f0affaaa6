//! `cargo xtask fuzz`: the long form of what `cargo test` fuzzes for a second.
//!
//! Without `--engine` inputs are valid ones spoilt at random, on any toolchain. With it libFuzzer leads by coverage,
//! which needs a nightly toolchain and cargo-fuzz. The targets are in `fuzz/src`.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A target, or `all` in turn; a name that does not exist prints those that do
    #[arg(default_value = "all")]
    target: String,
    /// How long, for all targets together
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Where the random inputs begin; another each time if not given
    #[arg(long, value_name = "N", conflicts_with = "engine")]
    seed: Option<u64>,
    /// Let libFuzzer lead by coverage: one target, a nightly toolchain, `cargo install cargo-fuzz`
    #[arg(long)]
    engine: bool,
}

/// What one input may take, in MiB, before libFuzzer calls it a find.
const RSS_LIMIT_MB: u32 = 512;

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut command = if arguments.engine { engine(arguments)? } else { plain(arguments) };
    let status = command.current_dir(super::root()).status().context("cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn plain(arguments: &Arguments) -> Command {
    let mut command = Command::new("cargo");
    command.args(["run", "--quiet", "--profile", "fast", "--package", "ottla-fuzz", "--"]);
    command.arg(&arguments.target).arg(arguments.seconds.to_string());
    command.args(arguments.seed.map(|seed| seed.to_string()));
    command
}

fn engine(arguments: &Arguments) -> Result<Command> {
    if arguments.target == "all" {
        bail!("--engine runs one target: name it");
    }
    // Not the toolchain that runs this, which the environment names.
    let there = Command::new("cargo")
        .args(["+nightly", "fuzz", "--version"])
        .env_remove("RUSTUP_TOOLCHAIN")
        .output()
        .is_ok_and(|output| output.status.success());
    if !there {
        bail!(
            "--engine needs a nightly toolchain and cargo-fuzz: \
               rustup toolchain install nightly && cargo install --locked cargo-fuzz"
        );
    }
    let mut command = Command::new("cargo");
    command.args(["+nightly", "fuzz", "run", "--fuzz-dir", "fuzz/engine", "target", "--"]);
    command.arg(format!("-max_total_time={}", arguments.seconds));
    command.arg(format!("-rss_limit_mb={RSS_LIMIT_MB}"));
    command.env("OTTLA_FUZZ_TARGET", &arguments.target).env_remove("RUSTUP_TOOLCHAIN");
    Ok(command)
}
