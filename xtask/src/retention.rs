//! `cargo xtask retention`: whether topics stay within their budgets while everything around them grows.
//!
//! On a small tmpfs, one topic may take a share of the disk (`ottla.retention.disk.percent`) and one a size
//! (`ottla.retention.topic.bytes`), whatever their partition counts. Under steady load both get more partitions, and
//! another topic with a share appears. Sizes are what DescribeLogDirs says, and the disk's own word is beside them.
//!
//! A budget counts as held if the topic never takes more than the budget, one segment, and what is produced to the
//! topic in two looks of the broker at its sizes: it deletes whole segments, and not at every append.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use crate::broker::{Subject, free_address};
use crate::tmpfs::Tmpfs;
use crate::wire::Connection;

const SEGMENT_BYTES: u64 = 1 << 20;
/// How often the broker is told to look at sizes (`log.retention.check.interval.ms`).
const CHECK: Duration = Duration::from_millis(500);
/// How often sizes are read, and how often they are printed.
const SAMPLE: Duration = Duration::from_millis(100);
const PRINT_EVERY: u32 = 10;
/// One batch, sent to the partitions in turn.
const BATCH_BYTES: usize = 64 << 10;
/// How often a batch is sent to each topic.
const PACE: Duration = Duration::from_millis(16);
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long the load goes on
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Size of the disk in megabytes
    #[arg(long, default_value_t = 256)]
    megabytes: u64,
    /// The share of the disk that two of the topics may take, in percent
    #[arg(long, default_value_t = 10)]
    percent: u64,
    /// The size that one of the topics may take, in bytes
    #[arg(long, default_value_t = 24 << 20)]
    topic_bytes: u64,
    /// A setting of the broker
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    option: Vec<String>,
    #[command(flatten)]
    subject: Subject,
}

/// A topic with a budget, and what has become of it.
struct Budgeted {
    name: &'static str,
    config: (&'static str, String),
    limit: u64,
    partitions: AtomicI32,
    produced: AtomicU64,
    largest: AtomicU64,
}

impl Budgeted {
    fn new(name: &'static str, config: (&'static str, u64), limit: u64) -> Budgeted {
        Budgeted {
            name,
            config: (config.0, config.1.to_string()),
            limit,
            partitions: AtomicI32::new(2),
            produced: AtomicU64::new(0),
            largest: AtomicU64::new(0),
        }
    }

    fn create(&self, admin: &mut Connection) -> Result<()> {
        let configs = [
            (self.config.0, self.config.1.as_str()),
            ("segment.bytes", &SEGMENT_BYTES.to_string()),
            ("file.delete.delay.ms", "0"),
        ];
        admin.create_topic(self.name, self.partitions.load(Ordering::Relaxed), &configs).context(self.name)
    }

    fn grow(&self, admin: &mut Connection, partitions: i32) -> Result<()> {
        admin.add_partitions(self.name, partitions).context(self.name)?;
        self.partitions.store(partitions, Ordering::Relaxed);
        Ok(())
    }

    /// Sends to the partitions in turn, at a steady pace, until told to stop.
    fn produce(&self, address: SocketAddr, stop: &AtomicBool) -> Result<()> {
        let mut connection = Connection::open(address, CALL_TIMEOUT)?;
        let values = [Bytes::from(vec![b'x'; BATCH_BYTES])];
        let mut due = Instant::now();
        for turn in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due += PACE;
            let partition = turn % self.partitions.load(Ordering::Relaxed);
            match connection.produce(self.name, partition, &values, None) {
                Ok(_) => self.produced.fetch_add(BATCH_BYTES as u64, Ordering::Relaxed),
                // A partition may be so new that nobody leads it yet.
                Err(error) if error.is_retriable_refusal() => continue,
                Err(error) => return Err(error).context(self.name),
            };
        }
        Ok(())
    }

    /// What it may take, with the overshoot that is allowed, when that much was produced in that time.
    fn allowed(&self, spent: Duration) -> u64 {
        let per_second = self.produced.load(Ordering::Relaxed) as f64 / spent.as_secs_f64();
        self.limit + SEGMENT_BYTES + (per_second * 2.0 * CHECK.as_secs_f64()) as u64
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    arguments.subject.check()?;
    let place = std::env::temp_dir().join(format!("ottla-retention-{}", std::process::id()));
    let size = arguments.megabytes << 20;
    let disk = Tmpfs::new(&place.join("disk"), size)?;
    let address = free_address()?;
    let mut options = vec![format!("log.retention.check.interval.ms={}", CHECK.as_millis())];
    options.extend(arguments.option.iter().cloned());
    let log = place.join("broker.log");
    let broker = arguments.subject.start(&place.join("disk/data"), address, &options, &log)?;

    let share = size / 100 * arguments.percent;
    let percent = ("ottla.retention.disk.percent", arguments.percent);
    let topics = [
        Budgeted::new("share", percent, share),
        Budgeted::new("size", ("ottla.retention.topic.bytes", arguments.topic_bytes), arguments.topic_bytes),
        Budgeted::new("late-share", percent, share),
    ];
    println!("a disk of {} MB; sizes in MB, with the number of partitions", arguments.megabytes);
    let [first, second, late] = &topics;
    let mut admin = Connection::open(address, CALL_TIMEOUT)?;
    first.create(&mut admin)?;
    second.create(&mut admin)?;

    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let whole = Duration::from_secs(arguments.seconds);
    let late_began = thread::scope(|scope| -> Result<Duration> {
        let mut producers =
            [first, second].map(|topic| scope.spawn(|| topic.produce(address, &stop))).into_iter().collect::<Vec<_>>();
        let mut scenario = || -> Result<Duration> {
            watch(&mut admin, &disk, &topics, began, whole / 4, &producers)?;
            first.grow(&mut admin, 4)?;
            second.grow(&mut admin, 4)?;
            println!("-- both get 4 partitions");
            watch(&mut admin, &disk, &topics, began, whole / 2, &producers)?;
            late.create(&mut admin)?;
            let late_began = began.elapsed();
            producers.push(scope.spawn(|| late.produce(address, &stop)));
            println!("-- another topic with a share appears");
            watch(&mut admin, &disk, &topics, began, whole / 4 * 3, &producers)?;
            first.grow(&mut admin, 12)?;
            second.grow(&mut admin, 12)?;
            println!("-- both get 12 partitions");
            watch(&mut admin, &disk, &topics, began, whole, &producers)?;
            Ok(late_began)
        };
        let watched = scenario();
        stop.store(true, Ordering::Relaxed);
        for producer in producers {
            match producer.join() {
                Ok(produced) => produced?,
                Err(_) => bail!("a producer panicked"),
            }
        }
        watched
    })?;
    let spent = began.elapsed();
    broker.terminate()?;

    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["topic", "config", "budget MB", "produced MB", "largest MB", "allowed MB", "held"]);
    let mut good = true;
    for topic in &topics {
        let spent = if topic.name == late.name { spent - late_began } else { spent };
        let (largest, allowed) = (topic.largest.load(Ordering::Relaxed), topic.allowed(spent));
        let produced = topic.produced.load(Ordering::Relaxed);
        // A topic that never reached its budget proves nothing.
        let verdict = match (produced > topic.limit, largest <= allowed) {
            (false, _) => "not reached",
            (_, true) => "yes",
            (_, false) => "NO",
        };
        good &= verdict == "yes";
        table.add_row([
            topic.name.to_owned(),
            format!("{}={}", topic.config.0, topic.config.1),
            megabytes(topic.limit),
            megabytes(produced),
            megabytes(largest),
            megabytes(allowed),
            verdict.to_owned(),
        ]);
    }
    println!("{table}");
    println!("allowed: the budget, one segment, and what is produced in two checks of {CHECK:?}");
    if good {
        drop(disk);
        fs::remove_dir_all(&place)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads sizes until it is `until`, and prints some of them.
fn watch(
    admin: &mut Connection,
    disk: &Tmpfs,
    topics: &[Budgeted],
    began: Instant,
    until: Duration,
    producers: &[thread::ScopedJoinHandle<'_, Result<()>>],
) -> Result<()> {
    for sample in 0.. {
        if began.elapsed() >= until {
            break;
        }
        if producers.iter().any(thread::ScopedJoinHandle::is_finished) {
            bail!("a producer ended early");
        }
        let sizes: HashMap<String, u64> = admin.topic_sizes()?;
        let mut line = format!("{:>6.1} s | disk {:>6} |", began.elapsed().as_secs_f64(), megabytes(disk.used()?));
        for topic in topics {
            if let Some(size) = sizes.get(topic.name) {
                topic.largest.fetch_max(*size, Ordering::Relaxed);
                let partitions = topic.partitions.load(Ordering::Relaxed);
                line +=
                    &format!(" {} {:>5} of {} ({partitions}) |", topic.name, megabytes(*size), megabytes(topic.limit));
            }
        }
        if sample % PRINT_EVERY == 0 {
            println!("{line}");
        }
        thread::sleep(SAMPLE);
    }
    Ok(())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}
