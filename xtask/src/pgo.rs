//! `cargo xtask pgo`: the release binary once more, compiled for what a broker does all day.
//!
//! A binary that counts which branches it takes is built and put under the loads of the benchmark; what it counted goes
//! into the second build, `target/pgo/ottla`. What that gains is in `docs/decisions/profile-guided.md`. Not here: the
//! loads themselves (`bench/src/replay.rs`).

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::broker::{Subject, free_address};

/// Everything lies below it, the binary too.
const PLACE: &str = "target/pgo";
/// Where the broker's own share of the work is largest: small requests, batches, catch-up, the tail, compression. Each
/// has its topic, but the third, which reads what the second wrote.
const LOADS: [(&str, &str); 5] = [
    ("produce small", "--connections 16 --depth 1 --record-bytes 100 --batch-bytes 200"),
    ("produce batches", "--connections 4 --depth 5 --record-bytes 1024 --batch-bytes 16384 --idempotent"),
    ("fetch batches", "--connections 1 --max-bytes 1048576 --partition-max-bytes 1048576"),
    ("tail tail", "--rate 20000 --record-bytes 1024"),
    ("produce packed", "--connections 4 --depth 5 --record-bytes 1024 --batch-bytes 100000 --compression zstd"),
];
const PARTITIONS: &str = "16";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long each of the five loads runs
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let place = crate::root().join(PLACE);
    let compiler = Compiler::find()?;
    let counts = place.join("counts");
    if counts.exists() {
        fs::remove_dir_all(&counts)?;
    }
    eprintln!("building a binary that counts");
    let counting = compiler.build(&place, "counting", "-Cprofile-generate=", &counts)?;
    cargo(Command::new(env!("CARGO")).args(["build", "--release", "--package", "ottla-bench"]))?;
    train(&counting, &place, arguments.seconds)?;
    let profile = compiler.merge(&counts, &place)?;
    eprintln!("building with what it counted");
    let built = compiler.build(&place, "optimized", "-Cprofile-use=", &profile)?;
    let binary = place.join("ottla");
    fs::copy(&built, &binary)?;
    println!("{}", binary.display());
    Ok(ExitCode::SUCCESS)
}

/// What is known of the compiler.
struct Compiler {
    host: String,
    llvm_profdata: PathBuf,
}

impl Compiler {
    /// The counts are in a format of the compiler's own LLVM, so no other version's program will do.
    fn find() -> Result<Compiler> {
        let version = output("rustc", &["-vV"])?;
        let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let host = field("host:").context("rustc -vV names no host")?.to_owned();
        let llvm = field("LLVM version:").and_then(|version| version.split('.').next()).unwrap_or_default();
        let sysroot = PathBuf::from(output("rustc", &["--print", "sysroot"])?.trim());
        let own = sysroot.join("lib/rustlib").join(&host).join("bin/llvm-profdata");
        let candidates = [own, PathBuf::from(format!("llvm-profdata-{llvm}"))];
        let runs = |program: &PathBuf| {
            let mut command = Command::new(program);
            command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let Some(llvm_profdata) = candidates.into_iter().find(runs) else {
            bail!("no llvm-profdata of LLVM {llvm}: rustup component add llvm-tools, or a system's llvm-{llvm}");
        };
        Ok(Compiler { host, llvm_profdata })
    }

    /// Builds the broker with a flag that names a path, in a folder of its own. Where the binary is.
    fn build(&self, place: &Path, name: &str, flag: &str, path: &Path) -> Result<PathBuf> {
        let folder = place.join(name);
        let mut flags = OsString::from(flag);
        flags.push(path);
        // With a target named, build scripts and macros go without the flag.
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--release", "--package", "ottla", "--target", &self.host, "--target-dir"]);
        // Unlike RUSTFLAGS, it is not cut at the spaces of a path.
        cargo(command.arg(&folder).env("CARGO_ENCODED_RUSTFLAGS", flags))?;
        Ok(folder.join(&self.host).join("release/ottla"))
    }

    /// Makes one file of what all processes counted.
    fn merge(&self, counts: &Path, place: &Path) -> Result<PathBuf> {
        let merged = place.join("ottla.profdata");
        let status = Command::new(&self.llvm_profdata).arg("merge").arg("-o").arg(&merged).arg(counts).status()?;
        ensure!(status.success(), "llvm-profdata: {status}");
        Ok(merged)
    }
}

/// Runs the loads against the binary, which writes its counts when it ends.
fn train(binary: &Path, place: &Path, seconds: f64) -> Result<()> {
    let (data, log) = (place.join("data"), place.join("broker.log"));
    if data.exists() {
        fs::remove_dir_all(&data)?;
    }
    let address = free_address()?;
    let broker = Subject::of(binary).start(&data, address, &["ottla.durability=replicated".into()], &log)?;
    for (what, load) in LOADS {
        let (kind, topic) = what.split_once(' ').unwrap_or((what, what));
        eprintln!("{kind} {load}");
        if kind != "fetch" {
            replay("create", topic, address, "")?;
        }
        replay(kind, topic, address, &format!("{load} --warmup 0 --seconds {seconds}"))?;
    }
    broker.terminate()?;
    Ok(fs::remove_dir_all(&data)?)
}

fn replay(kind: &str, topic: &str, address: SocketAddr, load: &str) -> Result<()> {
    let mut command = Command::new(crate::root().join("target/release/ottla-bench"));
    command.args(["replay", kind, "--address", &address.to_string(), "--topic", topic, "--partitions", PARTITIONS]);
    let status = command.args(load.split_whitespace()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "ottla-bench replay {kind}: {status}");
    Ok(())
}

fn cargo(command: &mut Command) -> Result<()> {
    let status = command.current_dir(crate::root()).status().context("cargo does not start")?;
    ensure!(status.success(), "cargo build: {status}");
    Ok(())
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("{program} does not start"))?;
    ensure!(output.status.success(), "{program}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
