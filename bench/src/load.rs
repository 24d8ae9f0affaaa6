//! One broker under load: topics are made, the replayer runs beside it, and what it reports becomes figures.
//!
//! The replayer (`ottla-bench replay`) is a process of its own, so that its CPU is not this program's.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::machine::{backed_speed, settle};
use crate::peer::Running;
use crate::process;
use crate::replay::client::Client;

/// How often memory is looked at while a load runs.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Files of deleted topics go soon, on every broker: pages are used again, and the disk does not fill.
const REMOVE_SOON: (&str, u32) = ("file.delete.delay.ms", 1000);
/// Room for the index entries of what one load can write, all partitions together. Kafka maps an index of ten
/// megabytes for each partition, and where the disk reads far ahead, the first write to it has all of them made.
const INDEX: (&str, u32) = ("segment.index.bytes", 16 << 20);
const INDEX_MIN: u32 = 4096;
const INDEX_MAX: u32 = 10 << 20;
/// Seconds that every load runs before its window opens, where a workload does not need more.
const WARM_UP: f64 = 0.5;
/// Bytes that a broker writes at a time, where a workload does not say: a batch of 16 KB.
const WRITE: usize = 16_440;
/// Memory that is free and backed by the machine when a load begins, where a workload does not ask for more.
const BACKED: u64 = 512 << 20;
/// A broker is quiet when over this long it takes less than this much of one CPU.
const QUIET_SPELL: Duration = Duration::from_millis(200);
const QUIET_SHARE: f64 = 0.05;
/// After that it is measured as it is.
const QUIET_PATIENCE: Duration = Duration::from_secs(60);

/// How long a cluster may take to have a controller again.
const ELECTION_PATIENCE: Duration = Duration::from_secs(30);

/// What a turn found: the figures, and the load's report as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) values: BTreeMap<String, f64>,
    pub(crate) raw: Value,
}

impl Outcome {
    pub(crate) fn with(mut self, name: &str, value: f64) -> Outcome {
        self.values.insert(name.to_owned(), value);
        self
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

/// The replayer's report, and the most memory the broker had meanwhile.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) uncompressed_bytes: u64,
    errors: u64,
    error: Option<String>,
    /// None where nothing has one: a fetch that ends with the data.
    latency_us: Option<Latency>,
    broker_cpu_s: Option<f64>,
    #[serde(skip)]
    pub(crate) peak_memory: u64,
    #[serde(skip)]
    raw: Value,
}

impl Report {
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome { raw: self.raw.clone(), ..Outcome::default() }
    }

    /// With the three percentiles, in microseconds.
    pub(crate) fn latencies(&self) -> Result<Outcome> {
        let Latency { p50, p99, p999 } = self.latency_us.context("there are no latencies")?;
        Ok(self.outcome().with("p50", p50).with("p99", p99).with("p99.9", p999))
    }

    pub(crate) fn cpu_s(&self) -> Result<f64> {
        let cpu = self.broker_cpu_s.context("the broker's CPU time is missing")?;
        ensure!(cpu > 0.0, "the broker used no CPU");
        Ok(cpu)
    }

    pub(crate) fn gb(&self) -> f64 {
        self.bytes as f64 / 1e9
    }

    pub(crate) fn requests_per_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }
}

pub(crate) struct Side {
    pub(crate) name: String,
    pub(crate) broker: Running,
    /// The other nodes of its cluster.
    pub(crate) others: Vec<Running>,
    /// What writing to memory took before the last load, in gigabytes a CPU-second.
    pub(crate) memory: Option<f64>,
    /// How much memory its loads find backed, in bytes.
    pub(crate) backed: u64,
    /// In writes of so many bytes.
    pub(crate) write: usize,
    /// How fast that is written to, in gigabytes a CPU-second.
    pub(crate) enough: f64,
    /// What somebody who reads the figures of the turn should know.
    pub(crate) notes: Vec<String>,
    topics: usize,
}

impl Side {
    pub(crate) fn new(name: &str, broker: Running) -> Side {
        let (name, enough) = (name.to_owned(), backed_speed(None));
        let (others, notes) = (Vec::new(), Vec::new());
        Side { name, broker, others, memory: None, backed: BACKED, write: WRITE, enough, notes, topics: 0 }
    }

    pub(crate) fn of_cluster(name: &str, mut nodes: Vec<Running>) -> Result<Side> {
        ensure!(!nodes.is_empty(), "a cluster of no nodes");
        let others = nodes.split_off(1);
        let broker = nodes.pop().context("a cluster of no nodes")?;
        Ok(Side { others, ..Side::new(name, broker) })
    }

    fn nodes(&self) -> impl Iterator<Item = &Running> {
        [&self.broker].into_iter().chain(&self.others)
    }

    /// Takes all of it off the CPU.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.nodes().try_for_each(Running::freeze)
    }

    /// Gives all of it the CPU back, and waits until it answers.
    pub(crate) fn thaw(&mut self) -> Result<()> {
        // All at once: what waits for another node must find it there.
        self.nodes().try_for_each(Running::wake)?;
        [&mut self.broker].into_iter().chain(&mut self.others).try_for_each(Running::thaw)
    }

    fn pids(&self) -> Result<Vec<u32>> {
        self.nodes().map(Running::pid).collect()
    }

    /// Where its nodes listen, as the replayer takes them.
    fn addresses(&self) -> String {
        self.nodes().map(|node| node.address().to_string()).collect::<Vec<_>>().join(",")
    }

    /// Makes memory and disk what they are for every load (`machine::settle`).
    pub(crate) fn settle(&mut self) -> Result<()> {
        let place = self.broker.data().parent().context("the data lies nowhere")?;
        self.memory = Some(settle(place, self.backed, self.write, self.enough)?);
        Ok(())
    }

    /// Waits until the broker does nothing any more that nobody waits for.
    fn quieten(&mut self) -> Result<()> {
        let pids = self.pids()?;
        let began = Instant::now();
        loop {
            let (before, looked) = (process::cpu_of(&pids)?, Instant::now());
            thread::sleep(QUIET_SPELL);
            let share = (process::cpu_of(&pids)? - before).as_secs_f64() / looked.elapsed().as_secs_f64();
            if share < QUIET_SHARE * pids.len() as f64 {
                return Ok(());
            }
            if began.elapsed() > QUIET_PATIENCE {
                let percent = share * 100.0;
                self.notes.push(format!("{} was still busy with {percent:.0} % of a CPU by itself", self.name));
                return Ok(());
            }
        }
    }

    /// A new topic's name, once the broker is through with making it: Kafka answers before it has made the files. The
    /// topic is gone with the next call of [`Side::delete`], or with the workload.
    pub(crate) fn create(&mut self, partitions: u32) -> Result<String> {
        self.create_with(partitions, &[])
    }

    /// The same with more settings.
    pub(crate) fn create_with(&mut self, partitions: u32, more: &[(&str, &str)]) -> Result<String> {
        self.topics += 1;
        let topic = format!("bench-{}", self.topics);
        let index = (INDEX.1 / partitions.max(1)).clamp(INDEX_MIN, INDEX_MAX);
        let settings = [REMOVE_SOON, (INDEX.0, index)].map(|(name, value)| (name.to_owned(), value.to_string()));
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings: Vec<_> = settings.into_iter().chain(more).collect();
        let (partitions, nodes) = (i32::try_from(partitions)?, i32::try_from(1 + self.others.len())?);
        let began = Instant::now();
        let create = || self.client()?.create_topic(&topic, partitions, nodes, &settings);
        let mut created = create();
        // A cluster may have to elect a controller first, after it was frozen, and close connections until it has one.
        while nodes > 1 && created.is_err() && began.elapsed() < ELECTION_PATIENCE {
            thread::sleep(QUIET_SPELL);
            created = create();
        }
        created?;
        self.quieten()?;
        Ok(topic)
    }

    /// So many in topics of a thousand each, which is what Kafka's controller takes in one request; one topic's name.
    pub(crate) fn create_many(&mut self, partitions: u32) -> Result<String> {
        let mut topic = self.create(partitions.min(1000))?;
        for _ in 1..partitions / 1000 {
            topic = self.create(1000)?;
        }
        Ok(topic)
    }

    pub(crate) fn delete(&self, topic: &str) -> Result<()> {
        self.client()?.delete_topic(topic)
    }

    fn client(&self) -> Result<Client> {
        Client::open(&self.broker.address().to_string())
    }

    /// Produces to a topic of its own, which is deleted afterwards.
    pub(crate) fn produce(&mut self, partitions: u32, load: &str, seconds: u64) -> Result<Report> {
        self.produce_after(WARM_UP, partitions, load, seconds)
    }

    /// The same with a warm-up of so many seconds.
    pub(crate) fn produce_after(&mut self, warm_up: f64, partitions: u32, load: &str, seconds: u64) -> Result<Report> {
        let topic = self.create(partitions)?;
        let load = format!("{load} --partitions {partitions} --warmup {warm_up} --seconds {seconds}");
        let report = self.replay("produce", &topic, &load);
        self.delete(&topic)?;
        report
    }

    /// Produces and consumes to the end, on a topic of its own.
    pub(crate) fn tail(&mut self, partitions: u32, load: &str, seconds: u64) -> Result<Report> {
        let topic = self.create(partitions)?;
        let report = self.load("tail", &topic, partitions, load, seconds);
        self.delete(&topic)?;
        report
    }

    /// Runs the replayer on a topic that is there; its window opens a moment later.
    pub(crate) fn load(
        &mut self,
        kind: &str,
        topic: &str,
        partitions: u32,
        load: &str,
        seconds: u64,
    ) -> Result<Report> {
        let load = format!("{load} --partitions {partitions} --warmup {WARM_UP} --seconds {seconds}");
        self.replay(kind, topic, &load)
    }

    /// Runs the replayer to its end, on a machine that has settled.
    pub(crate) fn replay(&mut self, kind: &str, topic: &str, load: &str) -> Result<Report> {
        self.settle()?;
        let child = self.spawn(kind, topic, load)?;
        self.report(child).with_context(|| format!("replay {kind} {load}"))
    }

    pub(crate) fn spawn(&self, kind: &str, topic: &str, load: &str) -> Result<Child> {
        let pids = self.pids()?.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut command = self.replayer(kind)?;
        command.args(["--topic", topic, "--broker-pid", &pids]).args(load.split_whitespace());
        Ok(command.spawn()?)
    }

    /// Watches the broker's memory until the replayer ends, and reads its report.
    pub(crate) fn report(&self, mut child: Child) -> Result<Report> {
        let pids = self.pids()?;
        let mut stdout = child.stdout.take().context("the replayer has no output")?;
        let reader = thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        let mut peak_memory = 0;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            let resident = pids.iter().map(|pid| process::resident(*pid)).sum::<Result<u64>>()?;
            peak_memory = peak_memory.max(resident);
            thread::sleep(LOOK_AGAIN);
        };
        let Ok(text) = reader.join() else { bail!("the replayer's output cannot be read") };
        ensure!(status.success(), "{status}");
        let raw: Value = serde_json::from_str(&text?).context("the replayer's report cannot be read")?;
        let report = Report::deserialize(&raw)?;
        let first = report.error.as_deref().unwrap_or("of an unknown kind");
        ensure!(report.errors == 0, "{} errors, the first: {first}", report.errors);
        ensure!(report.bytes > 0, "nothing was produced or read");
        Ok(Report { peak_memory, raw, ..report })
    }

    /// Its complaints go where ours go.
    pub(crate) fn replayer(&self, kind: &str) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["replay", kind, "--address", &self.addresses()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(command)
    }

    /// The files of all logs as they are now, on the disk, so that their pages can be dropped or read again.
    pub(crate) fn logs(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        collect(self.broker.data(), &mut files);
        // What is gone meanwhile was a deleted topic's.
        files.retain(|file| File::open(file).is_ok_and(|file| file.sync_all().is_ok()));
        files
    }

    /// How much the logs hold.
    pub(crate) fn stored(&self) -> u64 {
        let mut files = Vec::new();
        collect(self.broker.data(), &mut files);
        files.iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    }

    /// Memory once it has stopped changing, in bytes.
    pub(crate) fn settled_memory(&self) -> Result<u64> {
        let pid = self.broker.pid()?;
        let began = Instant::now();
        let mut last = process::resident(pid)?;
        loop {
            thread::sleep(Duration::from_secs(1));
            let now = process::resident(pid)?;
            if now.abs_diff(last) < last / 100 + 65_536 || began.elapsed() > Duration::from_secs(20) {
                return Ok(now);
            }
            last = now;
        }
    }
}

/// The logs below a directory; one that vanishes meanwhile was a deleted topic's.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            files.push(path);
        }
    }
}
