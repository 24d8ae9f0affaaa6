//! `cargo xtask sim`: many seeds of the simulated cluster, and the bug zoo.
//!
//! The simulation is a program of its own (`crates/sim`), built at release speed; whatever is said here is passed on to
//! it. With `--zoo` each bug of the list is brought back by a compile-time switch, `cfg!(zoo = "...")` in the crates
//! that are simulated, and seeds are run until one catches it: a check that catches nothing is none.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

/// Bugs that other systems had, by their number in the rules of correctness.
const ZOO: [(&str, &str); 19] = [
    ("B1", "a follower cuts at its high watermark"),
    ("B2", "a follower cuts where the leader says, whatever its own epochs say"),
    ("B3", "a leader that is elected again does not begin anew"),
    ("B4", "a leader that writes nothing leaves no epoch"),
    ("B5", "a high watermark is taken from an answer that says where logs differ"),
    ("B6", "a log is cut where another leadership said"),
    ("B8", "the high watermark does not wait for who is about to be in sync"),
    ("B9", "a follower joins before it has what the leader began with"),
    ("B10", "a fenced broker stays in the ISR"),
    ("B12", "a broker that may have lost records stays eligible"),
    ("B13", "what is in memory alone counts as synced"),
    ("B14", "a new leader says where the log ends before it knows"),
    ("B15", "what is not committed is told as committed"),
    ("B17", "damage is cut off like a torn write"),
    ("B24", "a retry is appended once more"),
    ("B25", "a producer's batch counts as appended where it failed"),
    ("B27", "a restart remembers one batch of a producer"),
    ("B42", "a leader that comes back goes on in its old epoch"),
    ("B43", "an ISR is taken that was proposed before the partition changed"),
];

/// Bugs that the simulated cluster can't show, as it is without what they are in or they do no harm there alone, and
/// the crate whose tests do.
const ZOO_OF_TESTS: [(&str, &str, &str); 5] = [
    ("B11", "replica", "a proposal that was not answered counts as refused"),
    ("B16", "log", "the end of a log is read in two steps"),
    ("B19", "consensus", "a small file is renamed before it is synced"),
    ("B26", "log", "a clock that steps makes producers expire"),
    ("B35", "node", "a coordinator answers before it has read its log"),
];

/// Each bug is looked for from so many seeds on.
const STARTS: u64 = 5;
/// Seeds that are tried from each.
const SEEDS_MAX: u64 = 300;

#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// Bring back known bugs, one after the other, and see after how many seeds each is caught; only these, if any
    /// are named
    #[arg(long, num_args = 0.., value_name = "BUG")]
    zoo: Option<Vec<String>>,
    /// What the simulation is told: `--help` says what it takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(bugs) = &arguments.zoo {
        return zoo(bugs);
    }
    let status = simulation(None).args(&arguments.arguments).status().context("cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The program, to be run; with a wrapper of the compiler that brings back a bug.
fn simulation(wrapper: Option<&Path>) -> Command {
    let mut command = Command::new("cargo");
    command.args(["run", "--quiet", "--profile", "fast", "--package", "ottla-sim", "--"]);
    command.current_dir(super::root());
    if let Some(wrapper) = wrapper {
        // For crates of this workspace alone, so that nothing else is built again.
        command.env("RUSTC_WORKSPACE_WRAPPER", wrapper);
    }
    command
}

fn zoo(bugs: &[String]) -> Result<ExitCode> {
    let known = || ZOO.iter().map(|(name, _)| *name).chain(ZOO_OF_TESTS.iter().map(|(name, ..)| *name));
    if let Some(unknown) = bugs.iter().find(|bug| !known().any(|name| name == *bug)) {
        let known: Vec<&str> = known().collect();
        bail!("the zoo has no {unknown}; it has {}", known.join(", "));
    }
    let mut all_caught = true;
    let wanted = |name: &str| bugs.is_empty() || bugs.iter().any(|bug| bug == name);
    for (bug, crate_name, what) in ZOO_OF_TESTS.iter().filter(|(name, ..)| wanted(name)) {
        let caught = fails(crate_name, &wrapper(bug)?)?;
        all_caught &= caught;
        println!("{bug:4} {} by the tests of {crate_name}: {what}", if caught { "caught" } else { "MISSED" });
    }
    for (bug, what) in ZOO.iter().filter(|(name, _)| wanted(name)) {
        let wrapper = wrapper(bug)?;
        let mut seeds = Vec::new();
        let mut rules = Vec::new();
        for start in 0..STARTS {
            let (caught, rule) = hunt(&wrapper, 1 + start * 100_000)?;
            seeds.push(caught.unwrap_or(u64::MAX));
            rules.extend(rule);
        }
        seeds.sort_unstable();
        rules.sort_unstable();
        rules.dedup();
        let missed = seeds.iter().filter(|seeds| **seeds == u64::MAX).count();
        all_caught &= missed == 0;
        match seeds[seeds.len() / 2] {
            u64::MAX => println!("{bug:4} MISSED by {SEEDS_MAX} seeds from most starts: {what}"),
            median => {
                println!("{bug:4} median {median:>4} seeds, missed {missed} of {STARTS}, {}: {what}", rules.join(" "))
            }
        }
    }
    Ok(if all_caught { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether a test of the crate fails.
fn fails(crate_name: &str, wrapper: &Path) -> Result<bool> {
    let test = |more: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(["test", "--quiet", "--profile", "fast", "--package", &format!("ottla-{crate_name}")]).args(more);
        command.current_dir(super::root()).env("RUSTC_WORKSPACE_WRAPPER", wrapper);
        command.output().context("cargo").map(|output| output.status.success())
    };
    if !test(&["--no-run"])? {
        bail!("the tests of {crate_name} can't be built with {}", wrapper.display());
    }
    test(&[]).map(|passed| !passed)
}

/// After how many seeds the bug is caught, and by which rule.
fn hunt(wrapper: &Path, from: u64) -> Result<(Option<u64>, Option<String>)> {
    let mut command = simulation(Some(wrapper));
    command.args(["--catch", "--from", &from.to_string(), "--seeds", &SEEDS_MAX.to_string()]);
    let output = command.stderr(std::process::Stdio::null()).output().context("cargo")?;
    if !output.status.success() {
        bail!("the simulation can't be built or run with {}", wrapper.display());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let caught = text.lines().find_map(|line| line.strip_prefix("caught ")?.trim().parse().ok());
    let rule = text.lines().find_map(|line| line.split_once(" breaks ").map(|(_, rule)| rule.to_owned()));
    Ok((caught, rule))
}

/// A program that calls the compiler with the bug's switch.
fn wrapper(bug: &str) -> Result<PathBuf> {
    let dir = super::root().join("target/zoo");
    fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
    let path = dir.join(bug);
    let script = format!("#!/bin/sh\nexec \"$@\" --cfg 'zoo=\"{bug}\"'\n");
    fs::write(&path, script).with_context(|| format!("{}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).with_context(|| format!("{}", path.display()))?;
    Ok(path)
}
