//! `cargo xtask groups`: consumer groups under torture, with the consumers people use.
//!
//! Members of three client libraries (`compat/groups`) share one group; at random they are killed, stopped for longer
//! than their session, stalled, asked to leave, and started again, a quarter of them as static members, while records
//! flow and the broker is killed again and again. After each kill everything acknowledged before has to be handled in
//! time. In the end `history` judges what all of them said, and then judges it again with each kind of anomaly put
//! into it, to prove that it would have been seen. `--offsets` is another proof, and in `offsets`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

use self::flow::Seen;
use self::history::{Anomaly, History, Verdict, What};
use self::members::{Faults, Group, LIBRARIES, Members};
use crate::broker::{Subject, free_address, until};
use crate::wire::Connection;

mod flow;
mod history;
mod members;
mod offsets;
mod spoil;

const TOPIC: &str = "groups";
/// How long a group may take to handle all that was acknowledged, with everybody alive or not.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long records flow after a start of the broker, at least: the group has to handle some of these too.
const FLOW: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Where programs are built; not part of the repository.
const CACHE: &str = "compat/.cache/groups";
/// Sessions as short as classic members have them, and offsets that are compacted while all this goes on.
const SETTINGS: [&str; 7] = [
    "group.initial.rebalance.delay.ms=500",
    "group.consumer.min.session.timeout.ms=6000",
    "group.consumer.session.timeout.ms=6000",
    "group.consumer.min.heartbeat.interval.ms=500",
    "group.consumer.heartbeat.interval.ms=1000",
    "offsets.topic.num.partitions=1",
    "offsets.topic.segment.bytes=1048576",
];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this kind of group; may be given more than once
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<Kind>,
    /// How often the broker is killed under each group
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// For how long the broker is killed under each group, instead of --rounds
    #[arg(long, conflicts_with = "rounds")]
    minutes: Option<u64>,
    /// Members of each group
    #[arg(long, default_value_t = 50)]
    consumers: usize,
    /// Partitions of the topic
    #[arg(long, default_value_t = 200)]
    partitions: i32,
    /// One group of each kind, small and for a short time
    #[arg(long, conflicts_with_all = ["rounds", "minutes", "consumers", "partitions"])]
    short: bool,
    /// Commit a day's worth of offsets instead, and watch the offsets topic become small
    #[arg(long)]
    offsets: bool,
    /// Start of everything random; by default taken from the clock, and printed
    #[arg(long)]
    seed: Option<u64>,
    /// A setting of the broker
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    option: Vec<String>,
    #[command(flatten)]
    subject: Subject,
}

/// A kind of group; its members take the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Classic, everybody gives up everything in a rebalance
    Range,
    /// Classic, only what moves is given up
    Cooperative,
    /// KIP-848
    Consumer,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Range, Kind::Cooperative, Kind::Consumer];

    fn name(self) -> &'static str {
        match self {
            Kind::Range => "range",
            Kind::Cooperative => "cooperative",
            Kind::Consumer => "consumer",
        }
    }
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Size {
    consumers: usize,
    partitions: i32,
    rounds: u32,
    minutes: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    arguments.subject.check()?;
    if arguments.offsets {
        return offsets::run(&arguments.subject, &arguments.option);
    }
    fs::create_dir_all(CACHE)?;
    let cache = fs::canonicalize(CACHE)?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let size = match arguments.short {
        true => Size { consumers: 9, partitions: 30, rounds: 1, minutes: None },
        false => Size {
            consumers: arguments.consumers,
            partitions: arguments.partitions,
            rounds: arguments.rounds,
            minutes: arguments.minutes,
        },
    };
    if size.consumers == 0 || size.partitions <= 0 {
        bail!("a group needs --consumers and --partitions");
    }
    println!("groups of {} on {}, --seed {seed}", size.consumers, arguments.subject.program().display());

    let mut libraries = Vec::new();
    for (index, library) in LIBRARIES.iter().enumerate() {
        match library.prepare(&cache) {
            Ok(()) => libraries.push(index),
            Err(error) => println!("{} is missing: {error:#}", library.name),
        }
    }
    if libraries.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    let place = std::env::temp_dir().join(format!("ottla-groups-{}", std::process::id()));
    let kinds = if arguments.kinds.is_empty() { &Kind::ALL[..] } else { &arguments.kinds };
    let mut reports = Vec::new();
    for kind in kinds {
        let torture = Torture { arguments, size, seed, kind: *kind, place: &place.join(kind.name()) };
        reports.push(torture.run(&libraries, &cache)?);
    }
    for report in &reports {
        report.print();
    }
    println!("{}", table(&reports));
    if !reports.iter().all(Report::is_good) {
        println!("the broker's data and what everybody said: {}", place.display());
        return Ok(ExitCode::FAILURE);
    }
    fs::remove_dir_all(&place)?;
    Ok(if libraries.len() == LIBRARIES.len() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// The torture of one group.
struct Torture<'a> {
    arguments: &'a Arguments,
    size: Size,
    seed: u64,
    kind: Kind,
    place: &'a Path,
}

impl Torture<'_> {
    fn run(&self, libraries: &[usize], cache: &Path) -> Result<Report> {
        fs::create_dir_all(self.place)?;
        let mut random = fastrand::Rng::with_seed(self.seed);
        let address = free_address()?;
        let (data, log) = (self.place.join("data"), self.place.join("broker.log"));
        let options: Vec<String> =
            SETTINGS.iter().map(|it| (*it).to_owned()).chain(self.arguments.option.iter().cloned()).collect();
        let start = || self.arguments.subject.start(&data, address, &options, &log);
        let mut broker = start()?;
        let mut connection = Connection::open(address, CALL_TIMEOUT)?;
        connection.create_topic(TOPIC, self.size.partitions, &[])?;
        let has_coordinator = until(PATIENCE, || Ok(connection.find_coordinator(self.kind.name()).is_ok()))?;
        if !has_coordinator {
            bail!("no coordinator within {PATIENCE:?}");
        }
        drop(connection);

        let seen = Arc::new(Mutex::new(Seen::default()));
        let (kind, topic) = (self.kind, TOPIC);
        let producer =
            flow::producer(address, topic.to_owned(), self.size.partitions, random.u64(..), Arc::clone(&seen));
        let reader = flow::reader(address, topic.to_owned(), kind.name().to_owned(), Arc::clone(&seen));
        let group = Group { libraries, cache, place: self.place, address, topic, kind, seen: Arc::clone(&seen) };
        let mut members = Members::start(group, self.size.consumers)?;

        let began = Instant::now();
        let mut rounds = 0;
        until(PATIENCE, || Ok(!seen.lock().ends().is_empty()))?;
        let mut stuck = self.catch_up("at first", &mut members, &seen)?;
        while stuck.is_none() && self.goes_on(rounds, began) {
            rounds += 1;
            self.disturb(&mut members, &mut random)?;
            broker.kill()?;
            broker = start().with_context(|| format!("round {rounds}"))?;
            stuck = self.catch_up(&format!("round {rounds}"), &mut members, &seen)?;
        }
        producer.stop()?;
        if stuck.is_none() {
            stuck = self.settle(&mut members, &seen)?;
        }
        let spent = began.elapsed();
        members.finish()?;
        reader.stop()?;
        broker.terminate()?;
        let Members { faults, mut failures, .. } = members;
        failures.extend(stuck);
        let Seen { history, refused, .. } = std::mem::take(&mut *seen.lock());
        let done = Done { rounds, faults, failures, spent };
        Ok(Report::of(kind, history, refused, done, &mut random))
    }

    fn goes_on(&self, rounds: u32, began: Instant) -> bool {
        match self.size.minutes {
            Some(minutes) => began.elapsed() < Duration::from_secs(minutes * 60),
            None => rounds < self.size.rounds,
        }
    }

    /// A burst of faults. Half of the time the group is given a moment to begin to rebalance.
    fn disturb(&self, members: &mut Members<'_>, random: &mut fastrand::Rng) -> Result<()> {
        let most = self.size.consumers.div_ceil(4);
        for _ in 0..random.usize(most.div_ceil(2)..=most) {
            members.disturb(random)?;
            wait(members, Duration::from_millis(random.u64(0..400)))?;
        }
        if random.bool() {
            wait(members, Duration::from_millis(random.u64(0..8_000)))?;
        }
        Ok(())
    }

    /// Waits until all that is acknowledged by now, or a moment from now, is handled; says what is wrong if it is not.
    fn catch_up(&self, when: &str, members: &mut Members<'_>, seen: &Mutex<Seen>) -> Result<Option<String>> {
        let began = Instant::now();
        wait(members, FLOW)?;
        let ends = seen.lock().ends();
        let caught_up = until(PATIENCE, || {
            members.tick()?;
            Ok(seen.lock().behind(&ends).is_none())
        })?;
        let seen = seen.lock();
        println!(
            "{} {when}: {} acknowledged, those before handled after {:.1?}",
            self.kind.name(),
            seen.history.produced.len(),
            began.elapsed()
        );
        Ok(seen.behind(&ends).filter(|_| !caught_up).map(|(partition, handled)| {
            format!("{when}: partition {partition} is handled up to {handled} only, after {PATIENCE:?}")
        }))
    }

    /// Waits until everything is handled, and committed.
    fn settle(&self, members: &mut Members<'_>, seen: &Mutex<Seen>) -> Result<Option<String>> {
        let stuck = self.catch_up("at last", members, seen)?;
        let ends = seen.lock().ends();
        until(PATIENCE, || {
            members.tick()?;
            Ok(seen.lock().uncommitted(&ends).is_none())
        })?;
        let uncommitted = seen.lock().uncommitted(&ends).map(|(partition, committed)| {
            format!("at last: partition {partition} is committed up to {committed} only, after {PATIENCE:?}")
        });
        Ok(stuck.or(uncommitted))
    }
}

/// Lets time pass in which members come and go.
fn wait(members: &mut Members<'_>, time: Duration) -> Result<()> {
    let deadline = Instant::now() + time;
    until(time, || {
        members.tick()?;
        Ok(Instant::now() >= deadline)
    })?;
    Ok(())
}

/// What was done to a group.
#[derive(Debug)]
struct Done {
    rounds: u32,
    faults: Faults,
    failures: Vec<String>,
    spent: Duration,
}

/// What became of one group.
struct Report {
    kind: Kind,
    done: Done,
    /// How many libraries had members.
    clients: usize,
    acknowledged: usize,
    /// Of each library, how many records its members handled.
    handled: BTreeMap<String, usize>,
    commits: usize,
    readings: usize,
    generations: i32,
    refused: BTreeMap<String, usize>,
    verdict: Verdict,
    /// Anomalies that were put into the history, and were seen, were not, or could not be put.
    unseen: Vec<Anomaly>,
}

impl Report {
    fn of(
        kind: Kind,
        history: History,
        refused: BTreeMap<String, usize>,
        done: Done,
        random: &mut fastrand::Rng,
    ) -> Report {
        let spoilt_is_seen = |anomaly: &Anomaly, random: &mut fastrand::Rng| {
            spoil::spoil(&history, *anomaly, random).is_some_and(|spoilt| spoilt.judge().count(*anomaly) > 0)
        };
        let unseen = Anomaly::ALL.into_iter().filter(|anomaly| !spoilt_is_seen(anomaly, random)).collect();
        let mut clients = BTreeMap::new();
        let mut report = Report {
            kind,
            done,
            clients: 0,
            acknowledged: history.produced.len(),
            handled: BTreeMap::new(),
            commits: 0,
            readings: history.readings.len(),
            generations: 0,
            refused,
            verdict: history.judge(),
            unseen,
        };
        for (who, event) in &history.events {
            match &event.what {
                What::Start { client } => drop(clients.insert(*who, client.as_str())),
                What::Assigned { generation, .. } => report.generations = report.generations.max(*generation),
                What::Committed { .. } => report.commits += 1,
                What::Handled { records } => {
                    let client = clients.get(who).copied().unwrap_or_default();
                    *report.handled.entry(client.to_owned()).or_default() += records.len();
                }
                _ => {}
            }
        }
        report.clients = clients.values().collect::<BTreeSet<_>>().len();
        report
    }

    /// A library that handled nothing proves nothing.
    fn is_good(&self) -> bool {
        let all_took_part = self.handled.len() == self.clients;
        self.verdict.is_clean() && self.done.failures.is_empty() && self.unseen.is_empty() && all_took_part
    }

    fn print(&self) {
        let kind = self.kind.name();
        for (client, handled) in &self.handled {
            println!("{kind}: {handled} records handled by {client}");
        }
        let mut refused: Vec<_> = self.refused.iter().collect();
        refused.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        refused.iter().take(8).for_each(|(error, count)| println!("{kind}: {count} times refused: {error}"));
        self.verdict.examples().iter().chain(&self.done.failures).for_each(|line| println!("{kind}: {line}"));
        self.unseen.iter().for_each(|anomaly| println!("{kind}: {anomaly:?} was put in, and not seen"));
    }
}

fn table(reports: &[Report]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(
        ["group", "broker kills", "killed", "left", "stopped", "stalled", "generations", "acknowledged", "handled"]
            .into_iter()
            .chain(["commits", "readings", "anomalies", "failed", "seconds", "result"]),
    );
    for report in reports {
        let Done { rounds, faults, failures, spent } = &report.done;
        let anomalies: usize = Anomaly::ALL.iter().map(|anomaly| report.verdict.count(*anomaly)).sum();
        table.add_row([
            report.kind.name().to_owned(),
            rounds.to_string(),
            faults.killed.to_string(),
            faults.left.to_string(),
            faults.stopped.to_string(),
            faults.stalled.to_string(),
            report.generations.to_string(),
            report.acknowledged.to_string(),
            report.handled.values().sum::<usize>().to_string(),
            report.commits.to_string(),
            report.readings.to_string(),
            anomalies.to_string(),
            failures.len().to_string(),
            format!("{:.0}", spent.as_secs_f64()),
            if report.is_good() { "passed" } else { "FAILED" }.to_owned(),
        ]);
    }
    table
}
