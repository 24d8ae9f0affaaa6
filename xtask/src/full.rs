//! `cargo xtask full`: what a full disk does to producers, readers and acknowledged records.
//!
//! A broker on a small tmpfs is filled by producers with `acks=all` until it takes nothing more. Refusals have to be
//! errors that clients retry, reads have to go on, and once there is room (records deleted on request, then a larger
//! disk) the same producers have to get on without a restart. At last the broker is killed on the full disk, started
//! there again, and everything acknowledged is read back (rule L11).

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::broker::{Subject, free_address, until};
use crate::history::{Anomaly, History, Partition, Sent, Verdict};
use crate::tmpfs::Tmpfs;
use crate::wire::{CallError, Connection, Producer};

const TOPIC: &str = "fill";
const PARTITIONS: i32 = 2;
/// Records of one batch, and bytes of one record.
const BATCH: (usize, usize) = (16, 8_000);
/// A producer that was refused this often in a row has met a full disk.
const FULL: u32 = 10;
/// How long filling up, or getting on again, may take.
const PATIENCE: Duration = Duration::from_secs(60);
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a refused producer waits before it tries again, as client libraries do by default.
const RETRY_BACKOFF: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Size of the disk in megabytes
    #[arg(long, default_value_t = 64)]
    megabytes: u64,
    /// A setting of the broker
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    option: Vec<String>,
    #[command(flatten)]
    subject: Subject,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    arguments.subject.check()?;
    let place = std::env::temp_dir().join(format!("ottla-full-{}", std::process::id()));
    println!("a disk of {} MB under {}", arguments.megabytes, arguments.subject.program().display());
    let disk = Tmpfs::new(&place.join("disk"), arguments.megabytes << 20)?;
    let run =
        Run { arguments, disk, place, address: free_address()?, shared: Shared::default(), began: Instant::now() };
    let ended = run.all();
    let good = run.print(&ended);
    if good {
        drop(run.disk);
        fs::remove_dir_all(&run.place)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("what the broker said: {}", run.place.join("broker.log").display());
    Ok(ExitCode::FAILURE)
}

struct Run<'a> {
    arguments: &'a Arguments,
    disk: Tmpfs,
    place: PathBuf,
    address: SocketAddr,
    shared: Shared,
    began: Instant,
}

/// What the producers have seen.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    history: History,
    acknowledged_bytes: u64,
    /// Refusals in a row, by producer.
    refused: HashMap<i32, u32>,
    /// Errors by name: how often, and whether clients retry them.
    errors: BTreeMap<String, (u64, bool)>,
}

impl Run<'_> {
    fn all(&self) -> Result<Verdict> {
        let (data, log) = (self.place.join("disk/data"), self.place.join("broker.log"));
        let subject = &self.arguments.subject;
        let mut broker = subject.start(&data, self.address, &self.arguments.option, &log)?;
        self.say("started");
        let mut admin = Connection::open(self.address, CALL_TIMEOUT)?;
        // Segments small enough to be deleted one by one, and files that go soon after they are let go.
        let configs = [("segment.bytes", "1048576"), ("file.delete.delay.ms", "500")];
        admin.create_topic(TOPIC, PARTITIONS, &configs)?;

        thread::scope(|scope| {
            for partition in 0..PARTITIONS {
                scope.spawn(move || FillProducer::new(partition).run(self.address, &self.shared));
            }
            let filled = self.fill_and_make_room(&mut admin);
            self.shared.stop.store(true, Ordering::Relaxed);
            filled
        })?;
        if broker.has_ended()? {
            bail!("the broker ended by itself");
        }

        broker.kill()?;
        let broker = subject.start(&data, self.address, &self.arguments.option, &log)?;
        self.say("killed and started again on the full disk");
        let mut admin = Connection::open(self.address, CALL_TIMEOUT)?;
        let verdict = self.read_everything(&mut admin)?;
        broker.terminate()?;
        Ok(verdict)
    }

    fn fill_and_make_room(&self, admin: &mut Connection) -> Result<()> {
        self.wait_full(admin)?;
        for partition in 0..PARTITIONS {
            let (start, end) = admin.offsets(TOPIC, partition)?;
            let before = start + (end - start) / 2;
            self.shared.tally.lock().history.deleted_before(&(TOPIC.to_owned(), partition), before);
            admin.delete_records(TOPIC, partition, before)?;
            self.say(&format!("{TOPIC}-{partition}: records {start} to {} deleted on request", before - 1));
        }
        self.wait_progress()?;
        self.wait_full(admin)?;
        self.disk.resize(2 * (self.arguments.megabytes << 20))?;
        self.say(&format!("the disk grows to {} MB", 2 * self.arguments.megabytes));
        self.wait_progress()?;
        self.wait_full(admin)
    }

    /// Until every producer is refused again and again; then reads have to work.
    fn wait_full(&self, admin: &mut Connection) -> Result<()> {
        let full = until(PATIENCE, || {
            let tally = self.shared.tally.lock();
            Ok((0..PARTITIONS).all(|partition| tally.refused.get(&partition).is_some_and(|times| *times >= FULL)))
        })?;
        if !full {
            bail!("the disk does not get full within {PATIENCE:?}: {} MB used", self.disk.used()? >> 20);
        }
        self.say("full: every producer is refused");
        let verdict = self.read_everything(admin).context("reading on a full disk")?;
        self.say(&format!("reads go on: {} of {} acknowledged records found", verdict.found, verdict.acknowledged));
        if !verdict.is_clean() {
            bail!("on the full disk: {}", verdict.examples().join("; "));
        }
        Ok(())
    }

    /// Until every producer has got something acknowledged again.
    fn wait_progress(&self) -> Result<()> {
        let resumed = until(PATIENCE, || {
            let tally = self.shared.tally.lock();
            Ok((0..PARTITIONS).all(|partition| tally.refused.get(&partition) == Some(&0)))
        })?;
        if !resumed {
            bail!("producers are still refused {PATIENCE:?} after there was room");
        }
        self.say("writes go on, without a restart");
        Ok(())
    }

    fn read_everything(&self, admin: &mut Connection) -> Result<Verdict> {
        // Judged as it is before reading, since producers may get on meanwhile: what they send then is not asked for.
        let history = self.shared.tally.lock().history.clone();
        let mut read: HashMap<Partition, Vec<(i64, Bytes)>> = HashMap::new();
        for partition in history.partitions() {
            let records = admin.read_all(&partition.0, partition.1)?;
            let known = records
                .into_iter()
                .filter(|(_, value)| Sent::parse(value).is_none_or(|sent| history.has_sent(partition, sent)));
            read.insert(partition.clone(), known.collect());
        }
        Ok(history.judge(&read))
    }

    fn say(&self, what: &str) {
        let tally = self.shared.tally.lock();
        let used = self.disk.used().unwrap_or(0);
        let acknowledged = tally.acknowledged_bytes;
        let refused: u64 = tally.errors.values().map(|(times, _)| times).sum();
        println!(
            "{:>7.2} s | disk {:>3} MB | acknowledged {:>3} MB | errors {refused:>4} | {what}",
            self.began.elapsed().as_secs_f64(),
            used >> 20,
            acknowledged >> 20,
        );
    }

    /// Whether all was as it has to be.
    fn print(&self, ended: &Result<Verdict>) -> bool {
        let tally = self.shared.tally.lock();
        let mut good = true;
        for (name, (times, retriable)) in &tally.errors {
            let kind = if *retriable { "clients retry it" } else { "NOT RETRIABLE" };
            println!("error {name}: {times} times, {kind}");
            good &= retriable;
        }
        match ended {
            Ok(verdict) => {
                println!(
                    "acknowledged {}, deleted on request {}, found {}, lost {}, duplicates {}, other {}",
                    verdict.acknowledged,
                    verdict.deleted,
                    verdict.found,
                    verdict.count(Anomaly::Lost),
                    verdict.count(Anomaly::Duplicate),
                    [Anomaly::Misplaced, Anomaly::Reordered, Anomaly::Invented, Anomaly::OffsetReused]
                        .iter()
                        .map(|anomaly| verdict.count(*anomaly))
                        .sum::<usize>(),
                );
                verdict.examples().iter().for_each(|example| println!("{example}"));
                good &= verdict.is_clean();
            }
            Err(error) => {
                println!("FAILED: {error:#}");
                good = false;
            }
        }
        println!("{}", if good { "passed" } else { "FAILED" });
        good
    }
}

/// An idempotent producer of one partition that repeats what was refused, so that nothing may be there twice.
struct FillProducer {
    partition: Partition,
    next: u64,
    identity: Option<Producer>,
}

impl FillProducer {
    fn new(partition: i32) -> FillProducer {
        FillProducer { partition: (TOPIC.to_owned(), partition), next: 0, identity: None }
    }

    fn run(mut self, address: SocketAddr, shared: &Shared) {
        while !shared.stop.load(Ordering::Relaxed) {
            let error = match Connection::open(address, CALL_TIMEOUT) {
                Ok(mut connection) => self.send(&mut connection, shared),
                Err(error) => Some(CallError::NoAnswer(error.into())),
            };
            if let Some(error) = error {
                let (name, retriable) = (error.to_string(), error.is_retriable_refusal());
                let mut tally = shared.tally.lock();
                tally.errors.entry(name).or_insert((0, retriable)).0 += 1;
                *tally.refused.entry(self.partition.1).or_default() += 1;
                drop(tally);
                thread::sleep(RETRY_BACKOFF);
            }
        }
    }

    /// Sends until there is an error; the batch it met stays the next one to send.
    fn send(&mut self, connection: &mut Connection, shared: &Shared) -> Option<CallError> {
        while !shared.stop.load(Ordering::Relaxed) {
            let identity = match self.identity {
                Some(identity) => identity,
                None => match connection.producer() {
                    Ok(identity) => *self.identity.insert(identity),
                    Err(error) => return Some(error),
                },
            };
            let (count, len) = BATCH;
            let producer = self.partition.1.unsigned_abs();
            let batch: Vec<Sent> = (self.next..).take(count).map(|number| Sent { producer, number }).collect();
            let values: Vec<Bytes> = batch.iter().map(|sent| sent.value(len).into()).collect();
            {
                let mut tally = shared.tally.lock();
                batch.iter().for_each(|sent| tally.history.sent(&self.partition, *sent));
            }
            let base = match connection.produce(&self.partition.0, self.partition.1, &values, Some(identity)) {
                Ok(base) => base,
                Err(error) => return Some(error),
            };
            let mut tally = shared.tally.lock();
            for (offset, sent) in (base..).zip(&batch) {
                tally.history.acknowledged(&self.partition, *sent, offset);
            }
            tally.acknowledged_bytes += (count * len) as u64;
            tally.refused.insert(self.partition.1, 0);
            self.next += count as u64;
            self.identity = Some(Producer { sequence: identity.sequence.wrapping_add(count as i32), ..identity });
        }
        None
    }
}
