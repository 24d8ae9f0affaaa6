//! The course of a run: a cluster, clients, faults by plan, and at last quiet, a read of everything, and the judge.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

use super::admin;
use super::checker::history::{History, Process, show};
use super::checker::{self, Limits};
use super::clients::{Client, Load, Role, Story, now};
use super::cluster::Cluster;
use super::inject::{Injector, WHOLE_PATIENCE};
use super::network::Network;
use super::node::Program;
use super::plan::{Kind, Plan};
use super::report::{Course, Report};
use super::watch::{Watch, Watched};
use crate::broker::until;
use crate::history::Sent;
use crate::wire::Connection;

const GROUP: &str = "torture";
const PARTITIONS: i32 = 3;
/// A topic of each durability, and what is special about it.
const TOPICS: [(&str, Option<&str>); 2] = [("fsync", None), ("replicated", Some("replicated"))];
const NAMES: [&str; 2] = [TOPICS[0].0, TOPICS[1].0];
/// How long writes may take to be back in every partition when nothing is wrong any more.
const WRITES_PATIENCE: Duration = Duration::from_secs(90);
/// How long readers may take to come to the end when nothing more is written.
const READ_PATIENCE: Duration = Duration::from_secs(90);
/// With so many failures it is pointless to go on.
const FAILURES_MAX: usize = 10;
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// The final reader's number in the history.
const FINAL: Process = 99;
/// Groups that form soon, and few partitions of offsets.
const SETTINGS: [&str; 2] = ["group.initial.rebalance.delay.ms=500", "offsets.topic.num.partitions=3"];

/// What is asked for.
pub(crate) struct Asked {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) lasts: Duration,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) binary: PathBuf,
    /// Then there are no settings of Ottla's own.
    pub(crate) is_kafka: bool,
    pub(crate) settings: Vec<String>,
    pub(crate) faketime: Option<PathBuf>,
    /// Where everything is kept.
    pub(crate) place: PathBuf,
    /// Programs that are built, and the libraries that are there, by their places.
    pub(crate) cache: PathBuf,
    pub(crate) libraries: Vec<usize>,
    /// Kinds of faults that this machine cannot do, and why.
    pub(crate) skipped: Vec<String>,
}

impl Asked {
    fn history(&self) -> PathBuf {
        self.place.join("history")
    }
}

/// Does it all; an error is one of the harness or of a cluster that never came to be.
pub(crate) fn run(asked: &Asked) -> Result<Report> {
    fs::create_dir_all(&asked.place)?;
    let program = Program {
        binary: asked.binary.clone(),
        is_kafka: asked.is_kafka,
        settings: SETTINGS.iter().map(|it| (*it).to_owned()).chain(asked.settings.iter().cloned()).collect(),
        faketime: asked.faketime.clone().filter(|_| asked.kinds.contains(&Kind::Clock)),
    };
    let own_disks = asked.kinds.iter().any(|kind| matches!(kind, Kind::DiskFull | Kind::DiskSlow));
    let mut cluster = Cluster::start(Network::new()?, asked.nodes, program, &asked.place, own_disks)?;
    eprintln!("{} nodes are a cluster", asked.nodes);
    create_topics(&cluster)?;

    let story = Arc::new(Mutex::new(Story::create(&asked.history())?));
    let addresses: Vec<_> = (0..asked.nodes).map(|node| cluster.network.address(node)).collect();
    let load = Load {
        cache: &asked.cache,
        place: &asked.place,
        bootstrap: addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        topics: NAMES.join(","),
        partitions: PARTITIONS,
        group: GROUP,
        story: Arc::clone(&story),
    };
    let mut clients = Vec::new();
    for role in [Role::Assign, Role::Group, Role::Produce] {
        for library in &asked.libraries {
            clients.push(Client::start(&load, *library, role)?);
        }
    }
    let watch = Watch::start(&Watched {
        addresses,
        topics: NAMES.map(str::to_owned).to_vec(),
        partitions: PARTITIONS,
        group: GROUP.to_owned(),
        story: Arc::clone(&story),
    });
    let mut injector = Injector::new(asked.seed, &NAMES, GROUP, asked.nodes);
    let began = Instant::now();
    let mut faults = Faults { asked, cluster: &mut cluster, clients: &mut clients, story: &story, began };
    faults.all(&mut injector)?;
    injector.heal_all(&mut cluster)?;
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    eprintln!("after {minutes:.1} minutes all is healed");
    if let Err(error) = cluster.await_whole(WHOLE_PATIENCE) {
        injector.failures.push(format!("at last: {error:#}"));
    }

    let (producers, readers): (Vec<Client>, Vec<Client>) =
        clients.into_iter().partition(|client| client.role == Role::Produce);
    finish(producers, &mut injector.failures);
    if let Err(error) = await_readers(&cluster, &story) {
        injector.failures.push(format!("at last: {error:#}"));
    }
    finish(readers, &mut injector.failures);
    watch.finish()?;
    if let Err(error) = read_everything(&cluster, &NAMES, &mut story.lock()) {
        injector.failures.push(format!("the final read: {error:#}"));
    }
    story.lock().flush()?;
    drop(cluster);

    let history = read(&asked.history())?;
    let verdict = checker::check(&history, Limits::default());
    let Injector { done, failures, .. } = injector;
    let course =
        Course { seed: asked.seed, nodes: asked.nodes, minutes, done, failures, skipped: asked.skipped.clone() };
    Ok(Report::of(&history, &verdict, course))
}

/// Reads a stored history.
pub(crate) fn read(file: &Path) -> Result<History> {
    let open = || anyhow::Ok(BufReader::new(fs::File::open(file)?));
    History::read(open().with_context(|| file.display().to_string())?)
}

fn create_topics(cluster: &Cluster) -> Result<()> {
    let copies = i16::try_from(cluster.nodes.len().min(3))?;
    let at_least = (copies - 1).max(1).to_string();
    for (name, durability) in TOPICS {
        let mut configs = vec![
            ("min.insync.replicas", at_least.as_str()),
            ("segment.bytes", "16777216"),
            ("retention.ms", "-1"),
            // A broker whose clock is behind would refuse all that comes.
            ("message.timestamp.after.max.ms", "9223372036854775807"),
        ];
        configs.extend(
            durability.filter(|_| !cluster.program.is_kafka).map(|durability| ("ottla.durability", durability)),
        );
        cluster.ask(|at| admin::create_topic(at, name, (PARTITIONS, copies), &configs))?;
    }
    // The first question for a coordinator creates the topic of offsets.
    let has_coordinator =
        until(WRITES_PATIENCE, || Ok(cluster.ask(|address| admin::coordinator(address, GROUP)).is_ok()))?;
    if !has_coordinator {
        bail!("the group has no coordinator within {WRITES_PATIENCE:?}");
    }
    cluster.await_whole(WHOLE_PATIENCE)?;
    Ok(())
}

/// The part of a run in which things are broken.
struct Faults<'a> {
    asked: &'a Asked,
    cluster: &'a mut Cluster,
    clients: &'a mut [Client],
    story: &'a Mutex<Story>,
    began: Instant,
}

impl Faults<'_> {
    /// Until the time is over, or a failure makes it pointless to go on.
    fn all(&mut self, injector: &mut Injector<'_>) -> Result<()> {
        let mut plan = Plan::new(self.asked.seed, &self.asked.kinds);
        if !self.await_writes(injector, "at first")? {
            return Ok(());
        }
        let mut last = Instant::now();
        while self.began.elapsed() < self.asked.lasts {
            let Some(planned) = plan.next() else {
                // What lasts longest lasts to the end of the period.
                let end = injector.lasts_until();
                if !self.wait(injector, end)? {
                    return Ok(());
                }
                injector.heal_all(self.cluster)?;
                if !self.await_writes(injector, "after a period")? {
                    return Ok(());
                }
                last = Instant::now();
                continue;
            };
            let due = last + planned.gap;
            if !self.wait(injector, due)? || self.began.elapsed() >= self.asked.lasts {
                return Ok(());
            }
            last = Instant::now();
            let words = injector.begin(self.cluster, planned)?;
            self.tell(&words.unwrap_or_else(|| format!("nobody to meet for {planned:?}")))?;
            if planned.fault.comes_alone() {
                last = Instant::now();
            }
        }
        Ok(())
    }

    fn tell(&self, words: &str) -> Result<()> {
        let seconds = self.began.elapsed().as_secs_f64();
        let acknowledged: u64 = self.story.lock().acknowledged().values().sum();
        let line = format!("{seconds:.1} s, {acknowledged} acknowledged: {words}");
        eprintln!("{line}");
        self.story.lock().note(&format!("{} {line}", now()))
    }

    /// Heals what is due until then; says whether the run is still worth going on with.
    fn wait(&mut self, injector: &mut Injector<'_>, due: Instant) -> Result<bool> {
        let mut goes_on = true;
        let patience = due.saturating_duration_since(Instant::now());
        until(patience, || {
            injector.heal_due(self.cluster)?;
            injector.look_after(self.cluster)?;
            for client in self.clients.iter_mut() {
                if let Some(ended) = client.ended_by_itself()? {
                    injector.failures.push(ended);
                    goes_on = false;
                }
            }
            goes_on &= injector.failures.len() < FAILURES_MAX;
            Ok(!goes_on || Instant::now() >= due)
        })?;
        Ok(goes_on)
    }

    /// Waits until every partition takes writes again; says whether they all did.
    fn await_writes(&mut self, injector: &mut Injector<'_>, when: &str) -> Result<bool> {
        let before = self.story.lock().acknowledged();
        let all = TOPICS.len() * usize::try_from(PARTITIONS)?;
        let (cluster, story) = (&mut *self.cluster, self.story);
        let is_back = until(WRITES_PATIENCE, || {
            injector.look_after(cluster)?;
            let after = story.lock().acknowledged();
            let moved = after.iter().filter(|(key, count)| before.get(*key).is_none_or(|before| *count > before));
            Ok(moved.count() == all)
        })?;
        if !is_back {
            injector.failures.push(format!("{when}: no writes in some partition for {WRITES_PATIENCE:?}"));
        }
        Ok(is_back)
    }
}

/// Has all of them end.
pub(crate) fn finish(mut clients: Vec<Client>, failures: &mut Vec<String>) {
    clients.iter_mut().for_each(Client::ask_to_end);
    for client in clients {
        if let Err(error) = client.finish() {
            failures.push(format!("{error:#}"));
        }
    }
}

/// Waits until the readers that chose their partitions have all there is.
fn await_readers(cluster: &Cluster, story: &Mutex<Story>) -> Result<()> {
    let ends: BTreeMap<String, i64> = cluster.ends(&NAMES)?.into_iter().map(|(name, (_, end))| (name, end)).collect();
    let mut last = None;
    until(READ_PATIENCE, || {
        last = story.lock().behind(&ends);
        Ok(last.is_none())
    })?;
    match last {
        None => Ok(()),
        Some(behind) => bail!("{behind}, after {READ_PATIENCE:?}"),
    }
}

/// Every partition from its start to its end, by a client that knows nothing of before.
pub(crate) fn read_everything(cluster: &Cluster, topics: &[&str], story: &mut Story) -> Result<()> {
    for (name, (leader, _)) in cluster.ends(topics)? {
        let (topic, index) = name.rsplit_once('-').context("a partition without a number")?;
        let index: i32 = index.parse()?;
        let mut connection = Connection::open(leader, CALL_TIMEOUT)?;
        let (mut next, end) = connection.offsets(topic, index)?;
        let mut is_first = true;
        while next < end || is_first {
            is_first = false;
            let began = now();
            let records = if next < end { connection.fetch(topic, index, next)? } else { Vec::new() };
            let to = match records.last() {
                Some((last, _)) => last + 1,
                None if next == end => end,
                None => bail!("{name}: nothing at offset {next}, although the end is {end}"),
            };
            let words: Vec<String> =
                records.iter().map(|(offset, value)| format!(" {offset}={}", show(Sent::parse(value)))).collect();
            story.say(FINAL, &format!("final {began} {} {name} {next} {to}{}", now(), words.concat()))?;
            next = to;
        }
    }
    Ok(())
}
