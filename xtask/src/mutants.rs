//! `cargo xtask mutants`: break the code here and there, and see whether a test fails.
//!
//! cargo-mutants does it; here are the crates it is asked of, the sample, and what makes a run repeatable. Only a
//! crate's own tests are run. How many were caught, and which are missed for good, is in `docs/mutants.md`.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

/// The crates whose mutants count.
const CRATES: [&str; 4] = ["log", "replica", "metadata", "group"];
/// Of a hundred mutants that compile, so many have to be caught.
const CAUGHT_MIN_PERCENT: usize = 75;
/// What one mutant's tests may take: some run for ever.
const TIMEOUT_S: &str = "60";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// One of log, replica, metadata, group; all in turn if not given
    #[arg(long = "crate", value_name = "X", value_parser = CRATES)]
    name: Option<String>,
    /// About how many of a crate's mutants to try, evenly spread over its source
    #[arg(long, value_name = "N", default_value_t = 80)]
    sample: usize,
    /// Which of them
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let there = Command::new("cargo").args(["mutants", "--version"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        bail!("this needs cargo-mutants: cargo install --locked cargo-mutants");
    }
    let mut enough = true;
    for name in CRATES.iter().filter(|name| arguments.name.as_deref().is_none_or(|wanted| wanted == **name)) {
        enough &= sample(name, arguments)?;
    }
    Ok(if enough { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tries one crate's mutants. Whether enough were caught.
fn sample(name: &str, arguments: &Arguments) -> Result<bool> {
    let list = mutants(name).arg("--list").output().context("cargo mutants")?;
    if !list.status.success() {
        bail!("{}", String::from_utf8_lossy(&list.stderr));
    }
    let all = String::from_utf8_lossy(&list.stdout).lines().count();
    let shards = (all / arguments.sample.max(1)).max(1);
    let shard = arguments.seed % shards;
    let out = super::root().join("target/mutants").join(name);
    fs::create_dir_all(&out).with_context(|| format!("{}", out.display()))?;
    let mut command = mutants(name);
    command.args(["--sharding", "round-robin", "--shard", &format!("{shard}/{shards}"), "--timeout", TIMEOUT_S]);
    // Its exit code only says that something was missed, which the files say as well.
    command.arg("--output").arg(&out).status().context("cargo mutants")?;
    let [caught, missed, late, unviable] =
        ["caught", "missed", "timeout", "unviable"].map(|kind| count(&out.join("mutants.out"), kind));
    let (caught, missed, late, unviable) = (caught?, missed?, late?, unviable?);
    let viable = caught + missed + late;
    if viable == 0 {
        bail!("{name}: no mutant was tried; do its tests pass?");
    }
    println!(
        "{name}: {all} mutants, shard {shard} of {shards}: {unviable} do not compile, {viable} do; \
         caught {caught}, endless {late}, missed {missed}"
    );
    Ok((caught + late) * 100 >= viable * CAUGHT_MIN_PERCENT)
}

fn mutants(name: &str) -> Command {
    let mut command = Command::new("cargo");
    command.args(["mutants", "--package", &format!("ottla-{name}")]).current_dir(super::root());
    // Small changes, built again and again.
    command.env("CARGO_INCREMENTAL", "1").env("CARGO_PROFILE_DEV_DEBUG", "0");
    // The same inputs for every mutant, and nothing that one mutant's failure leaves for the next. The smallest input
    // that fails interests nobody.
    command.env("PROPTEST_RNG_SEED", "1").env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
    command.env("PROPTEST_MAX_SHRINK_ITERS", "0");
    command
}

/// How many mutants a file of results names.
fn count(results: &Path, kind: &str) -> Result<usize> {
    let path = results.join(format!("{kind}.txt"));
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    Ok(text.lines().count())
}
