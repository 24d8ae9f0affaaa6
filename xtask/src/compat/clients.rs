//! The clients of `cargo xtask compat`: what each needs, how it is installed, and how its program is started.
//!
//! Versions are not here: they are pinned in each client's own manifest under `compat/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;
use serde_json::Value;

use super::Line;

/// One client of the table.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: &'static str,
    /// Programs that must be there, and how to get them.
    needs: &'static [(&'static str, &'static str)],
    /// Installs and builds; each step only when it is needed.
    steps: fn(cache: &Path) -> Result<()>,
    /// The program, with the broker's address.
    pub(super) program: fn(cache: &Path, address: &str) -> Command,
    /// Settings of the broker, `KEY=VALUE`, that its program takes for granted.
    pub(super) settings: &'static [&'static str],
    /// Those of its own tests that are left out, and why.
    pub(super) skips: &'static [(&'static str, &'static str)],
    /// Its version, where its program does not print it.
    pub(super) version: fn(cache: &Path) -> String,
    /// What one line of its standard output means.
    pub(super) read: fn(line: &str) -> Option<Line>,
    /// It runs the tests that its library ships, not the named checks.
    pub(super) own_tests: bool,
    /// It is one of the short form.
    pub(super) short: bool,
    /// How long it may be silent, at the least.
    pub(super) patience: Duration,
}

const PYTHON: (&str, &str) = ("python3", "install Python 3.11 or newer, with venv");
const GO: (&str, &str) = ("go", "install Go 1.26 or newer");

const RSASL: &str = "2.3.1";

/// rskafka's tests that would prove nothing here; a part of their names, and why.
const RSKAFKA_SKIPS: [(&str, &str); 3] = [
    ("_java_", "passes without doing anything unless a JVM is linked into it; the java column is the Java client"),
    ("test_sasl", "passes without doing anything unless there is a broker with SASL"),
    ("test_client_backoff_terminates", "needs no broker"),
];

/// What makes the checks of groups quick; in the new protocol it is the broker that says when a member is gone.
const GROUP_SETTINGS: [&str; 5] = [
    "group.initial.rebalance.delay.ms=0",
    "group.consumer.session.timeout.ms=6000",
    "group.consumer.min.session.timeout.ms=6000",
    "group.consumer.heartbeat.interval.ms=500",
    "group.consumer.min.heartbeat.interval.ms=500",
];

/// Every client, in the order of the table.
pub(super) const CLIENTS: [Client; 10] = [
    Client {
        name: "java",
        needs: &[("java", "install a JDK, 17 or newer"), ("mvn", "install Maven: apt-get install maven")],
        steps: java,
        program: |cache, address| {
            let classes = cache.join("java/classes");
            let class_path = format!("{}:{}", classes.display(), cache.join("java/libs/*").display());
            let logging = "-Dlog4j2.configurationFile=compat/kafka/log4j2.properties";
            let mut command = Command::new("java");
            command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", logging, "-cp", &class_path]);
            command.args(["ottla.compat.Main", address]);
            command
        },
        patience: Duration::from_secs(180),
        ..CHECKS
    },
    Client {
        name: "kcat",
        needs: &[("kcat", "install kcat: apt-get install kcat"), PYTHON],
        steps: |_| Ok(()),
        program: |_, address| script("python3", "compat/python/check_kcat.py", address),
        ..CHECKS
    },
    Client {
        name: "confluent-kafka",
        needs: &[PYTHON],
        steps: python,
        program: |cache, address| script(&python_in(cache), "compat/python/check_confluent_kafka.py", address),
        ..CHECKS
    },
    Client {
        name: "franz-go",
        needs: &[GO],
        steps: |cache| go(cache, "franz-go"),
        program: |cache, address| go_program(cache, "franz-go", address),
        short: true,
        ..CHECKS
    },
    Client {
        name: "sarama",
        needs: &[GO],
        steps: |cache| go(cache, "sarama"),
        program: |cache, address| go_program(cache, "sarama", address),
        ..CHECKS
    },
    Client {
        name: "kafka-go",
        needs: &[GO],
        steps: |cache| go(cache, "kafka-go"),
        program: |cache, address| go_program(cache, "kafka-go", address),
        ..CHECKS
    },
    Client {
        name: "kafka-python",
        needs: &[PYTHON],
        steps: python,
        program: |cache, address| script(&python_in(cache), "compat/python/check_kafka_python.py", address),
        short: true,
        ..CHECKS
    },
    Client {
        name: "aiokafka",
        needs: &[PYTHON],
        steps: python,
        program: |cache, address| script(&python_in(cache), "compat/python/check_aiokafka.py", address),
        ..CHECKS
    },
    Client {
        name: "kafkajs",
        needs: &[("node", "install Node.js 20 or newer"), ("npm", "install npm")],
        steps: kafkajs,
        program: |cache, address| {
            let mut command = script("node", "compat/kafkajs/check.js", address);
            command.env("COMPAT_MODULES", cache.join("kafkajs/node_modules"));
            command
        },
        short: true,
        ..CHECKS
    },
    Client {
        name: "rskafka",
        needs: &[("cargo", "install Rust")],
        steps: rskafka,
        program: |cache, address| {
            let mut command = cargo_test(cache);
            command.args(["--", "--test-threads=1"]);
            command.args(RSKAFKA_SKIPS.iter().flat_map(|(test, _)| ["--skip", test]));
            command.envs([("TEST_INTEGRATION", "1"), ("TEST_BROKER_IMPL", "kafka"), ("KAFKA_CONNECT", address)]);
            command
        },
        settings: &["auto.create.topics.enable=false"],
        skips: &RSKAFKA_SKIPS,
        read: rskafka_line,
        own_tests: true,
        version: |cache| manifest_version(&cache.join("rskafka/source/Cargo.toml")),
        patience: Duration::from_secs(120),
        ..CHECKS
    },
];

/// What the clients have in common that do the named checks.
const CHECKS: Client = Client {
    name: "",
    needs: &[],
    steps: |_| Ok(()),
    program: |_, _| Command::new("false"),
    settings: &GROUP_SETTINGS,
    skips: &[],
    version: |_| String::new(),
    read: |line| serde_json::from_str(line).ok(),
    own_tests: false,
    short: false,
    patience: Duration::from_secs(60),
};

impl Client {
    /// The first thing that is not installed, and how to install it.
    pub(super) fn missing(&self) -> Option<String> {
        let absent = self.needs.iter().find(|(program, _)| !installed(program))?;
        Some(format!("no {}: {}", absent.0, absent.1))
    }

    pub(super) fn prepare(&self, cache: &Path) -> Result<()> {
        (self.steps)(cache)
    }
}

/// The names that `--client` takes.
pub(super) fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(CLIENTS.map(|client| client.name))
}

fn installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|paths| std::env::split_paths(&paths).any(|path| path.join(program).is_file()))
}

fn script(interpreter: &str, file: &str, address: &str) -> Command {
    let mut command = Command::new(interpreter);
    command.args([file, address]);
    command
}

fn run(place: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    let output =
        command.args(arguments).current_dir(place).output().with_context(|| format!("{program} cannot run"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let end: Vec<_> = said.lines().rev().take(5).collect();
        bail!("{program} {}: {}: {}", arguments.join(" "), output.status, end.join(" / "));
    }
    Ok(())
}

/// Runs `step` unless it has succeeded before with the same content of `files`.
fn once(stamp: &Path, files: &[PathBuf], step: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut content = Vec::new();
    for file in files {
        content.extend(fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?);
    }
    if fs::read(stamp).is_ok_and(|before| before == content) {
        return Ok(());
    }
    step()?;
    Ok(fs::write(stamp, content)?)
}

/// Collects Kafka's jars and compiles our program beside them.
fn java(cache: &Path) -> Result<()> {
    let place = Path::new("compat/java");
    let mut files = vec![place.join("pom.xml")];
    for entry in fs::read_dir(place.join("src/main/java/ottla/compat"))? {
        files.push(entry?.path());
    }
    files.sort();
    fs::create_dir_all(cache.join("java"))?;
    once(&cache.join("java/stamp"), &files, || run(place, "mvn", &["--quiet", "--batch-mode", "compile"]))
}

fn python_in(cache: &Path) -> String {
    cache.join("python/bin/python").display().to_string()
}

fn python(cache: &Path) -> Result<()> {
    let place = cache.join("python");
    let text = place.display().to_string();
    once(&cache.join("python.stamp"), &["compat/python/requirements.txt".into()], || {
        run(Path::new("."), "python3", &["-m", "venv", &text])?;
        let arguments = ["-m", "pip", "install", "--quiet", "-r", "compat/python/requirements.txt"];
        run(Path::new("."), &python_in(cache), &arguments)
    })
}

fn go(cache: &Path, name: &str) -> Result<()> {
    let out = cache.join("go").join(name).display().to_string();
    run(Path::new("compat/go"), "go", &["build", "-o", &out, &format!("./{name}")])
}

fn go_program(cache: &Path, name: &str, address: &str) -> Command {
    // Go's flags end at the first argument that is none, so the address goes into the environment.
    let mut command = Command::new(cache.join("go").join(name));
    command.env("COMPAT_BOOTSTRAP", address);
    command
}

fn kafkajs(cache: &Path) -> Result<()> {
    let place = cache.join("kafkajs");
    fs::create_dir_all(&place)?;
    let files = ["package.json", "package-lock.json", ".npmrc"];
    once(&cache.join("kafkajs.stamp"), &files.map(|file| Path::new("compat/kafkajs").join(file)), || {
        for file in files {
            fs::copy(Path::new("compat/kafkajs").join(file), place.join(file))?;
        }
        run(&place, "npm", &["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"])
    })
}

/// Copies the crate as published, its tests and its lock file with it, and builds the tests.
fn rskafka(cache: &Path) -> Result<()> {
    let place = cache.join("rskafka");
    fs::create_dir_all(&place)?;
    let pinned = Path::new("compat/rskafka");
    once(&place.join("stamp"), &[pinned.join("Cargo.toml"), pinned.join("Cargo.lock")], || {
        let mut command = Command::new("cargo");
        command.args(["metadata", "--locked", "--format-version=1"]).current_dir(pinned);
        let output = command.output().context("cargo cannot run")?;
        if !output.status.success() {
            bail!("cargo metadata: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let published = metadata["packages"]
            .as_array()
            .and_then(|packages| packages.iter().find(|package| package["name"] == "rskafka"))
            .and_then(|package| package["manifest_path"].as_str())
            .and_then(|manifest| Path::new(manifest).parent())
            .context("cargo metadata does not name rskafka's manifest")?;
        let source = place.join("source");
        if source.exists() {
            fs::remove_dir_all(&source)?;
        }
        copy(published, &source)?;
        // Its own toolchain is not needed, and its own workspace keeps it out of ours.
        fs::remove_file(source.join("rust-toolchain.toml")).or_else(absent_is_fine)?;
        let mut manifest = fs::read_to_string(source.join("Cargo.toml"))?;
        manifest.push_str("\n[workspace]\n");
        fs::write(source.join("Cargo.toml"), manifest)?;
        // The lock file that it ships names an rsasl that today's compiler refuses; nothing else is moved.
        run(&source, "cargo", &["update", "--quiet", "--package", "rsasl", "--precise", RSASL])?;
        let mut command = cargo_test(cache);
        let output = command.arg("--no-run").output().context("cargo cannot run")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let end: Vec<_> = said.lines().rev().take(5).collect();
            bail!("building rskafka's tests: {}: {}", output.status, end.join(" / "));
        }
        Ok(())
    })
}

fn manifest_version(manifest: &Path) -> String {
    let text = fs::read_to_string(manifest).unwrap_or_default();
    let version = text.lines().find_map(|line| line.strip_prefix("version = "));
    version.map(|version| version.trim_matches('"').to_owned()).unwrap_or_default()
}

fn absent_is_fine(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Those of its tests that talk to a broker.
fn cargo_test(cache: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.args(["test", "--locked", "--no-fail-fast"]);
    command.args(["client", "consumer", "produce_consume", "producer"].iter().flat_map(|test| ["--test", test]));
    command.current_dir(cache.join("rskafka/source")).env("CARGO_TARGET_DIR", cache.join("rskafka/target"));
    command
}

/// Makes a line of `cargo test` one of ours.
fn rskafka_line(line: &str) -> Option<Line> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let check = Some(format!("tests.{name}"));
    match result.trim() {
        "ok" => Some(Line { check, ok: Some(true), ..Line::default() }),
        "ignored" => None,
        other => Some(Line { check, ok: Some(false), detail: Some(other.to_owned()), ..Line::default() }),
    }
}
