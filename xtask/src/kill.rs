//! `cargo xtask kill`: acknowledged records against `kill -9`, with the producers people use.
//!
//! Idempotent producers of three client libraries (`compat/kill`) send with `acks=all` and never give up, while the
//! broker is killed and started again and again. In the end everything is read back: what was acknowledged is there
//! once and in order, and nothing is there twice. The data stays in the page cache across a kill, so this proves the
//! protocol side of durability; `power` proves the disk side.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

use crate::broker::{Process, Subject, free_address, until};
use crate::history::{Anomaly, History, Partition, Sent, Verdict};
use crate::libraries::{Library, command, text};
use crate::wire::Connection;

const PARTITIONS: i32 = 3;
/// How long producers may take to get anything acknowledged after a restart, or to finish at the end.
const PATIENCE: Duration = Duration::from_secs(90);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Where programs are built; not part of the repository.
const CACHE: &str = "compat/.cache/kill";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often the broker is killed
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// Start of everything random; by default taken from the clock, and printed
    #[arg(long)]
    seed: Option<u64>,
    /// A setting of the broker
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    option: Vec<String>,
    #[command(flatten)]
    subject: Subject,
}

const LIBRARIES: [Library; 3] = [
    Library {
        name: "go",
        prepare: |cache| vec![(command("go", &["build", "-o", &text(&cache.join("go")), "."]), "compat/kill/go")],
        program: |cache| Command::new(cache.join("go")),
    },
    Library {
        name: "python",
        prepare: |cache| {
            let place = cache.join("python");
            let pip = text(&place.join("bin/pip"));
            vec![
                (command("python3", &["-m", "venv", &text(&place)]), "."),
                (command(&pip, &["install", "--quiet", "-r", "requirements.txt"]), "compat/kill/python"),
            ]
        },
        program: |cache| {
            let mut program = Command::new(cache.join("python/bin/python"));
            program.arg("compat/kill/python/producer.py");
            program
        },
    },
    Library {
        name: "java",
        prepare: |_| vec![(command("mvn", &["-q", "dependency:copy-dependencies"]), "compat/kill/java")],
        program: |cache| {
            let jars = text(&cache.join("java/libs/*"));
            let mut program =
                command("java", &["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &jars]);
            program.arg("compat/kill/java/Producer.java");
            program
        },
    },
];

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    arguments.subject.check()?;
    fs::create_dir_all(CACHE)?;
    let cache = fs::canonicalize(CACHE)?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("{} kills of {}, --seed {seed}", arguments.rounds, arguments.subject.program().display());

    let mut missing = Vec::new();
    let mut programs = Vec::new();
    for library in &LIBRARIES {
        match library.prepare(&cache) {
            Ok(()) => programs.push((library.name, (library.program)(&cache))),
            Err(error) => missing.push((library.name, error)),
        }
    }
    let place = std::env::temp_dir().join(format!("ottla-kill-{}", std::process::id()));
    fs::create_dir_all(&place)?;
    let verdicts = if programs.is_empty() { Vec::new() } else { kill(arguments, seed, &place, programs)? };

    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "client",
        "acknowledged",
        "found",
        "lost",
        "duplicates",
        "reordered",
        "other",
        "failed",
        "result",
    ]);
    for (name, error) in &missing {
        table.add_row([*name, "", "", "", "", "", "", "", "missing"]);
        println!("{name} is missing: {error:#}");
    }
    for (producer, verdict) in &verdicts {
        let other = [Anomaly::Misplaced, Anomaly::Invented, Anomaly::OffsetReused];
        table.add_row([
            producer.version.clone(),
            verdict.acknowledged.to_string(),
            verdict.found.to_string(),
            verdict.count(Anomaly::Lost).to_string(),
            verdict.count(Anomaly::Duplicate).to_string(),
            verdict.count(Anomaly::Reordered).to_string(),
            other.iter().map(|anomaly| verdict.count(*anomaly)).sum::<usize>().to_string(),
            producer.failures.len().to_string(),
            if is_good(producer, verdict) { "passed" } else { "FAILED" }.to_owned(),
        ]);
        verdict.examples().iter().chain(producer.failures.iter().take(5)).for_each(|example| println!("{example}"));
    }
    println!("{table}");
    let good = verdicts.iter().all(|(producer, verdict)| is_good(producer, verdict));
    if !good {
        println!("the broker's data and what it said: {}", place.display());
        return Ok(ExitCode::FAILURE);
    }
    fs::remove_dir_all(&place)?;
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// A producer that was never acknowledged anything proves nothing.
fn is_good(producer: &Seen, verdict: &Verdict) -> bool {
    verdict.is_clean() && producer.failures.is_empty() && verdict.acknowledged > 0
}

fn kill(
    arguments: &Arguments,
    seed: u64,
    place: &Path,
    programs: Vec<(&'static str, Command)>,
) -> Result<Vec<(Seen, Verdict)>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let address = free_address()?;
    let (data, log) = (place.join("data"), place.join("broker.log"));
    let start = || arguments.subject.start(&data, address, &arguments.option, &log);
    let mut broker = start()?;
    let mut connection = Connection::open(address, CALL_TIMEOUT)?;
    let mut producers = Vec::new();
    for (index, (name, program)) in programs.into_iter().enumerate() {
        let topic = format!("kill-{name}");
        connection.create_topic(&topic, PARTITIONS, &[("segment.bytes", "1048576")])?;
        producers.push(Producer::start(program, address, topic, u32::try_from(index)? * 100, place.join(name))?);
    }
    drop(connection);

    let began = Instant::now();
    for round in 1..=arguments.rounds {
        // Killed when one of them has got a random number of answers, so that the moment is random and there is load.
        let chosen = &producers[random.usize(..producers.len())];
        let before: Vec<usize> = producers.iter().map(Producer::acknowledged).collect();
        let goal = chosen.acknowledged() + random.usize(1..400);
        let got_there = until(PATIENCE, || {
            let all_moved = producers.iter().zip(&before).all(|(producer, before)| producer.acknowledged() > *before);
            Ok(all_moved && chosen.acknowledged() >= goal)
        })?;
        if !got_there {
            let counts: Vec<_> = producers
                .iter()
                .zip(&before)
                .map(|(producer, before)| format!("{} {}", producer.topic, producer.acknowledged() - before))
                .collect();
            bail!("round {round}: after {PATIENCE:?} only these were acknowledged: {}", counts.join(", "));
        }
        broker.kill()?;
        broker = start().with_context(|| format!("round {round}"))?;
    }
    let spent = began.elapsed();
    println!("{} kills in {spent:.0?}", arguments.rounds);

    let seen = producers.into_iter().map(Producer::finish).collect::<Result<Vec<Seen>>>()?;
    let mut connection = Connection::open(address, CALL_TIMEOUT)?;
    let mut verdicts = Vec::new();
    for seen in seen {
        let mut read = HashMap::new();
        for partition in seen.history.partitions() {
            read.insert(partition.clone(), connection.read_all(&partition.0, partition.1)?);
        }
        let verdict = seen.history.judge(&read);
        verdicts.push((seen, verdict));
    }
    broker.terminate()?;
    Ok(verdicts)
}

/// What a producer's program has said so far.
#[derive(Debug, Default)]
struct Seen {
    version: String,
    history: History,
    acknowledged: usize,
    /// Records the library gave up, which it was told never to do.
    failures: Vec<String>,
}

impl Seen {
    fn line(&mut self, line: &str, topic: &str, first_producer: u32) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        if kind == "V" {
            self.version = rest.to_owned();
            return Some(());
        }
        let mut words = rest.split(' ');
        let index: i32 = words.next()?.parse().ok()?;
        let number: u64 = words.next()?.parse().ok()?;
        let partition: Partition = (topic.to_owned(), index);
        let sent = Sent { producer: first_producer.checked_add_signed(index)?, number };
        match kind {
            "S" => self.history.sent(&partition, sent),
            "A" => {
                self.history.acknowledged(&partition, sent, words.next()?.parse().ok()?);
                self.acknowledged += 1;
            }
            "F" => self.failures.push(format!("{topic}: {line}")),
            _ => return None,
        }
        Some(())
    }
}

/// A running producer's program.
struct Producer {
    topic: String,
    process: Process,
    input: Option<ChildStdin>,
    seen: Arc<Mutex<Seen>>,
    reader: JoinHandle<Result<()>>,
}

impl Producer {
    fn start(mut program: Command, address: SocketAddr, topic: String, first: u32, log: PathBuf) -> Result<Producer> {
        program.arg(address.to_string()).arg(&topic).arg(PARTITIONS.to_string()).arg(first.to_string());
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(log)?);
        let mut process = Process(program.spawn()?);
        let input = process.0.stdin.take();
        let output = BufReader::new(process.0.stdout.take().context("no output")?);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let reader = {
            let (seen, topic) = (Arc::clone(&seen), topic.clone());
            thread::spawn(move || {
                for line in output.lines() {
                    let line = line?;
                    if seen.lock().line(&line, &topic, first).is_none() {
                        bail!("{topic}: its producer said {line:?}");
                    }
                }
                Ok(())
            })
        };
        Ok(Producer { topic, process, input, seen, reader })
    }

    fn acknowledged(&self) -> usize {
        self.seen.lock().acknowledged
    }

    /// Tells the program to stop, and waits until all it had under way is answered.
    fn finish(mut self) -> Result<Seen> {
        self.input = None;
        if !until(PATIENCE, || Ok(self.process.0.try_wait()?.is_some()))? {
            bail!("{}: the producer does not finish within {PATIENCE:?}", self.topic);
        }
        let status = self.process.0.wait()?;
        match self.reader.join() {
            Ok(read) => read?,
            Err(_) => bail!("{}: what the producer said could not be read", self.topic),
        }
        if !status.success() {
            bail!("{}: the producer ended: {status}", self.topic);
        }
        Ok(std::mem::take(&mut *self.seen.lock()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_producer_become_its_history() {
        let mut seen = Seen::default();
        for line in ["V some client 1.0", "S 2 0", "S 2 1", "A 2 0 17", "F 2 1 gave up"] {
            assert_eq!(seen.line(line, "t", 100), Some(()), "{line}");
        }
        for line in ["", "nonsense", "A 2 0", "A 2 0 x", "S -1 0", "X 2 0"] {
            assert_eq!(Seen::default().line(line, "t", 0), None, "{line}");
        }
        assert_eq!((seen.version.as_str(), seen.acknowledged), ("some client 1.0", 1));
        assert_eq!(seen.failures, ["t: F 2 1 gave up"]);
        let value = Sent { producer: 102, number: 0 }.value(50);
        let read = HashMap::from([(("t".to_owned(), 2), vec![(17, value.into())])]);
        let verdict = seen.history.judge(&read);
        assert!(verdict.is_clean() && verdict.found == 1, "{verdict:?}");
    }
}
