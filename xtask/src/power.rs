//! `cargo xtask power-loss`: acknowledged records against power cuts.
//!
//! The broker keeps its data on a volume that forgets, or tears, what was not synced (`powerfs`). Under load from
//! producers with `acks=all`, plain ones that send everything once and idempotent ones that repeat what was not
//! answered, the power fails at some write, sync or creation of a name, now and then during the recovery from the cut
//! before, and now and then after a sync that failed alone (rule L10). The broker is killed, restarted on what is
//! left, and everything is read back and judged (`history`), and topics whose creation was acknowledged have to be
//! there. `--lie-about-sync` takes syncs away from the broker, which is the same as a broker that lacks them, and has
//! to be found out.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::broker::{Broker, Subject, free_address, until};
use crate::history::{Anomaly, History, Partition, Sent, Verdict};
use crate::powerfs::{Fuse, Lie, Loss, Names, Volume};
use crate::powermount::Mounted;
use crate::wire::{CallError, Connection, Producer};

/// The longest time under load before a cut comes anyway.
const LOAD: Duration = Duration::from_millis(700);
/// What one producer sends between two cuts, in bytes, so that the volume fits in memory.
const LOAD_BYTES: usize = 600_000;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often the power fails
    #[arg(long, default_value_t = 50)]
    cuts: u32,
    /// Start of everything random; by default taken from the clock, and printed
    #[arg(long)]
    seed: Option<u64>,
    /// Answer syncs without doing them: the loss has to be detected
    #[arg(long, value_name = "WHICH", num_args = 0..=1, default_missing_value = "logs")]
    lie_about_sync: Option<Lie>,
    /// Let any sync save all names, as ext4's journal does, and not only the sync of their directory
    #[arg(long)]
    journal: bool,
    /// A config of every topic, such as `ottla.durability=replicated`
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    topic_config: Vec<(String, String)>,
    /// A setting of the broker
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    option: Vec<String>,
    #[command(flatten)]
    subject: Subject,
}

fn key_value(argument: &str) -> Result<(String, String), String> {
    let (key, value) = argument.split_once('=').ok_or("KEY=VALUE is expected")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    arguments.subject.check()?;
    if !rustix::process::geteuid().is_root() || !fs::exists("/dev/fuse")? {
        bail!("a file system in user space needs root and /dev/fuse");
    }
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("{} cuts of {}, --seed {seed}", arguments.cuts, arguments.subject.program().display());
    let mut run = Run::new(arguments, seed)?;
    let ended = run.all_cuts();
    run.print(&ended);
    let deliberate = arguments.lie_about_sync.is_some();
    Ok(match ended {
        Ok(verdict) if verdict.is_clean() && deliberate => {
            println!("NOT DETECTED: syncs were left out and nobody noticed");
            ExitCode::from(2)
        }
        Ok(verdict) if verdict.is_clean() => ExitCode::SUCCESS,
        _ => {
            if deliberate {
                println!("DETECTED: the syncs that were left out are missed, as they have to be");
            }
            println!("what the broker said and what was left on its disk: {}", run.place.display());
            ExitCode::FAILURE
        }
    })
}

struct Run<'a> {
    arguments: &'a Arguments,
    random: fastrand::Rng,
    volume: Arc<Mutex<Volume>>,
    place: PathBuf,
    address: SocketAddr,
    history: Mutex<History>,
    /// Topics whose creation was acknowledged, with their partitions.
    topics: Mutex<Vec<(String, usize)>>,
    producers: Vec<LoadProducer>,
    cuts: u32,
    cuts_in_recovery: u32,
    began: Instant,
}

impl<'a> Run<'a> {
    fn new(arguments: &'a Arguments, seed: u64) -> Result<Run<'a>> {
        let place = std::env::temp_dir().join(format!("ottla-power-loss-{}", std::process::id()));
        fs::create_dir_all(place.join("volume"))?;
        let names = if arguments.journal { Names::WithAnySync } else { Names::WithTheirDirectory };
        let mut producers = Vec::new();
        for (topic, partitions, large) in [("small", 3, false), ("large", 2, true)] {
            for partition in 0..partitions {
                for idempotent in [false, true] {
                    let id = u32::try_from(producers.len())?;
                    producers.push(LoadProducer::new(id, (topic.to_owned(), partition), large, idempotent));
                }
            }
        }
        Ok(Run {
            arguments,
            random: fastrand::Rng::with_seed(seed),
            volume: Arc::new(Mutex::new(Volume::new(seed, names, arguments.lie_about_sync))),
            place,
            address: free_address()?,
            history: Mutex::new(History::default()),
            topics: Mutex::new(Vec::new()),
            producers,
            cuts: 0,
            cuts_in_recovery: 0,
            began: Instant::now(),
        })
    }

    /// Cuts the power as often as asked, or until something is wrong.
    fn all_cuts(&mut self) -> Result<Verdict> {
        loop {
            let mounted =
                Mounted::new(&self.volume, &self.place.join("volume")).context("the volume cannot be mounted")?;
            let verdict = self.one_life();
            if verdict.as_ref().is_ok_and(|verdict| !verdict.as_ref().is_none_or(Verdict::is_clean)) || verdict.is_err()
            {
                self.keep_evidence();
            }
            mounted.unmount().context("the volume cannot be unmounted")?;
            match verdict? {
                Some(verdict) if !verdict.is_clean() || self.cuts == self.arguments.cuts => return Ok(verdict),
                _ => {}
            }
            self.cuts += 1;
            let loss = if self.random.u8(0..3) == 0 { Loss::Everything } else { Loss::Torn };
            self.volume.lock().cut(loss);
        }
    }

    /// From a start on what is left to the next failure of power; nothing is judged if it fails during recovery.
    fn one_life(&mut self) -> Result<Option<Verdict>> {
        let last = self.cuts == self.arguments.cuts;
        let data = self.place.join("volume/data");
        let log = self.place.join("broker.log");
        let subject = &self.arguments.subject;
        if !last && self.cuts > 0 && self.random.u8(0..5) == 0 {
            let fuse = self.fuse(12);
            self.volume.lock().light(fuse);
            let mut broker = subject.spawn(&data, self.address, &self.arguments.option, &log)?;
            until(LOAD, || Ok(self.volume.lock().is_dark() || broker.has_ended()?))?;
            self.volume.lock().go_dark();
            self.cuts_in_recovery += 1;
            return broker.kill().map(|()| None);
        }
        let broker = subject
            .start(&data, self.address, &self.arguments.option, &log)
            .with_context(|| format!("after {} cuts the broker does not start", self.cuts))?;
        if self.cuts == 0 && subject.is_kafka() {
            // Its configuration and what its format step wrote are not what is on trial.
            self.volume.lock().sync_everything();
        }
        let verdict = self.read_everything()?;
        if !last && verdict.is_clean() {
            self.create_topics()?;
            self.load(broker)?;
        }
        Ok(Some(verdict))
    }

    /// A power failure that comes after at most `within` syncs, or a like time of other operations.
    fn fuse(&mut self, within: u32) -> Fuse {
        match self.random.u8(0..10) {
            0..4 => Fuse::Sync(self.random.u32(1..=within)),
            4..6 => Fuse::Write(self.random.u32(1..=3 * within)),
            6..8 => Fuse::FailingSync(self.random.u32(1..=within)),
            _ => Fuse::Name(self.random.u32(1..=within.div_ceil(10))),
        }
    }

    fn create_topics(&self) -> Result<()> {
        if !self.topics.lock().is_empty() {
            return Ok(());
        }
        for (name, partitions) in [("small", 3), ("large", 2)] {
            self.create_topic(&mut Connection::open(self.address, CALL_TIMEOUT)?, name, partitions)?;
        }
        Ok(())
    }

    fn create_topic(&self, connection: &mut Connection, name: &str, partitions: u8) -> Result<(), CallError> {
        // Small segments, so that rolls are frequent, and one of them is hit.
        let mut configs = vec![("segment.bytes", "1048576")];
        configs.extend(self.arguments.topic_config.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        connection.create_topic(name, i32::from(partitions), &configs)?;
        self.topics.lock().push((name.to_owned(), usize::from(partitions)));
        Ok(())
    }

    /// Produces and creates topics until the power is gone.
    fn load(&mut self, broker: Broker) -> Result<()> {
        let fuse = self.fuse(60);
        let stop = AtomicBool::new(false);
        let mut producers = std::mem::take(&mut self.producers);
        let mut random = self.random.fork();
        let this = &*self;
        let result = thread::scope(|scope| {
            for producer in &mut producers {
                let seed = random.u64(..);
                let stop = &stop;
                scope.spawn(move || producer.run(this.address, &this.history, stop, fastrand::Rng::with_seed(seed)));
            }
            scope.spawn(|| this.keep_creating_topics(&stop));
            // Lit when there is load: the cut is to hit that, not the first connection.
            let acknowledged = this.history.lock().acknowledgements();
            let loaded = until(CALL_TIMEOUT, || Ok(this.history.lock().acknowledgements() > acknowledged + 20));
            this.volume.lock().light(fuse);
            let dark = until(LOAD, || Ok(this.volume.lock().is_dark()));
            this.volume.lock().go_dark();
            stop.store(true, Ordering::Relaxed);
            let killed = broker.kill();
            if !loaded? {
                bail!("no progress within {CALL_TIMEOUT:?} of a start");
            }
            dark.and(killed)
        });
        self.producers = producers;
        result
    }

    /// Topics created under load are as durable as records, and so is the first record of each.
    fn keep_creating_topics(&self, stop: &AtomicBool) {
        let Ok(mut connection) = Connection::open(self.address, CALL_TIMEOUT) else { return };
        for index in 0..2 {
            let name = format!("born-{}-{index}", self.cuts);
            if stop.load(Ordering::Relaxed) || self.create_topic(&mut connection, &name, 1).is_err() {
                return;
            }
            let partition = (name, 0);
            let sent = Sent { producer: 1_000_000 + self.cuts * 10 + index, number: 0 };
            self.history.lock().sent(&partition, sent);
            match connection.produce(&partition.0, 0, &[sent.value(100).into()], None) {
                Ok(offset) => self.history.lock().acknowledged(&partition, sent, offset),
                Err(_) => return,
            }
        }
    }

    /// Everything acknowledged so far against everything that is there.
    fn read_everything(&self) -> Result<Verdict> {
        let mut connection = Connection::open(self.address, CALL_TIMEOUT)?;
        let there: HashMap<String, usize> = connection.topics()?.into_iter().collect();
        for (name, partitions) in &*self.topics.lock() {
            if there.get(name) != Some(partitions) {
                bail!("topic {name} of {partitions} partitions was acknowledged, and there is {:?}", there.get(name));
            }
        }
        let history = self.history.lock();
        let mut read: HashMap<Partition, Vec<(i64, Bytes)>> = HashMap::new();
        for (topic, index) in history.partitions() {
            let records = connection.read_all(topic, *index).with_context(|| format!("reading {topic}-{index}"))?;
            read.insert((topic.clone(), *index), records);
        }
        Ok(history.judge(&read))
    }

    /// Copies what the broker had on its disk, before the mount is gone.
    fn keep_evidence(&self) {
        let copied =
            Command::new("cp").arg("-r").arg(self.place.join("volume")).arg(self.place.join("evidence")).status();
        if !copied.is_ok_and(|status| status.success()) {
            eprintln!("the data could not be kept");
        }
    }

    fn print(&self, ended: &Result<Verdict>) {
        let volume = self.volume.lock().counters();
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header(["what", "count"]);
        let mut row = |what: &str, count: u64| {
            table.add_row([what.to_owned(), count.to_string()]);
        };
        row("cuts of power", self.cuts.into());
        row("  during recovery", self.cuts_in_recovery.into());
        row("syncs of files", volume.file_syncs);
        row("syncs of directories", volume.directory_syncs);
        row("syncs that failed", volume.failed_syncs);
        if self.arguments.lie_about_sync.is_some() {
            row("syncs left out", volume.lies);
        }
        row("unsynced bytes taken", volume.bytes_lost);
        row("unsynced names taken", volume.names_lost);
        row("topics created", self.topics.lock().len() as u64);
        row("acknowledged records", self.history.lock().acknowledgements() as u64);
        if let Ok(verdict) = ended {
            row("found", verdict.found as u64);
            row("found, not acknowledged", verdict.read.saturating_sub(verdict.found) as u64);
            row("lost", verdict.count(Anomaly::Lost) as u64);
            row("at another offset", verdict.count(Anomaly::Misplaced) as u64);
            row("duplicates", verdict.count(Anomaly::Duplicate) as u64);
            row("reordered", verdict.count(Anomaly::Reordered) as u64);
            row("invented", verdict.count(Anomaly::Invented) as u64);
            row("offsets given twice", verdict.count(Anomaly::OffsetReused) as u64);
        }
        println!("{table}\n{:.0?}", self.began.elapsed());
        match ended {
            Ok(verdict) => verdict.examples().iter().for_each(|example| println!("{example}")),
            Err(error) => println!("LOST: {error:#}"),
        }
    }
}

/// A producer of one partition that lives through all cuts.
struct LoadProducer {
    id: u32,
    partition: Partition,
    large: bool,
    idempotent: bool,
    identity: Option<Producer>,
    next: u64,
    /// An idempotent producer's batch that was sent and not answered.
    unanswered: Option<Vec<(Sent, Bytes)>>,
}

impl LoadProducer {
    fn new(id: u32, partition: Partition, large: bool, idempotent: bool) -> LoadProducer {
        LoadProducer { id, partition, large, idempotent, identity: None, next: 0, unanswered: None }
    }

    /// Sends until there is no answer. What a plain producer had under way is then forgotten, and never sent again.
    fn run(&mut self, address: SocketAddr, history: &Mutex<History>, stop: &AtomicBool, mut random: fastrand::Rng) {
        let Ok(mut connection) = Connection::open(address, CALL_TIMEOUT) else { return };
        let mut sent_bytes = 0;
        while !stop.load(Ordering::Relaxed) && sent_bytes < LOAD_BYTES {
            if self.idempotent && self.identity.is_none() {
                match connection.producer() {
                    Ok(identity) => self.identity = Some(identity),
                    Err(_) => return,
                }
            }
            let batch = self.unanswered.take().unwrap_or_else(|| self.batch(&mut random));
            let values: Vec<Bytes> = batch.iter().map(|(_, value)| value.clone()).collect();
            sent_bytes += values.iter().map(Bytes::len).sum::<usize>();
            {
                let mut history = history.lock();
                batch.iter().for_each(|(sent, _)| history.sent(&self.partition, *sent));
            }
            match connection.produce(&self.partition.0, self.partition.1, &values, self.identity) {
                Ok(base) => {
                    let mut history = history.lock();
                    for (offset, (sent, _)) in (base..).zip(&batch) {
                        history.acknowledged(&self.partition, *sent, offset);
                    }
                    if let Some(identity) = &mut self.identity {
                        identity.sequence = identity.sequence.wrapping_add(batch.len() as i32);
                    }
                }
                Err(_) => {
                    if self.idempotent {
                        self.unanswered = Some(batch);
                    }
                    return;
                }
            }
        }
    }

    fn batch(&mut self, random: &mut fastrand::Rng) -> Vec<(Sent, Bytes)> {
        let (count, sizes) =
            if self.large { (random.usize(1..=6), 2_000..40_000) } else { (random.usize(1..=30), 30..600) };
        (0..count)
            .map(|_| {
                let sent = Sent { producer: self.id, number: self.next };
                self.next += 1;
                (sent, sent.value(random.usize(sizes.clone())).into())
            })
            .collect()
    }
}
