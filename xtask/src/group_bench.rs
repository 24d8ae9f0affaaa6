//! `cargo xtask group-bench`: what large groups cost a broker, in time and in CPU, Ottla beside Apache Kafka.
//!
//! 500 members, each with a connection of its own, share 1,000 partitions, and things happen to them: all join, a
//! tenth leaves, a tenth dies without a word, a rolling restart. A group is stable again when all its members are in
//! one generation (under KIP-848: at one epoch) and own every partition once. Both brokers do the same, one after the
//! other on an idle machine, each after a warm-up that is not counted; what a member does is in `member`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::member::{Crowd, Parting};
use crate::broker::{Broker, Subject, free_address, until};
use crate::wire::Connection;

mod member;

const TOPIC: &str = "bench";
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a group may take to become stable.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a stable group is watched.
const STEADY: Duration = Duration::from_secs(10);
/// Members come and go in tenths.
const TENTHS: usize = 10;
/// Of sessions and heartbeats, the same for both protocols; Kafka's own heartbeat, and a session short enough to wait.
const SESSION_MS: i32 = 10_000;
const HEARTBEAT_MS: u64 = 3_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Members of the group
    #[arg(long, default_value_t = 500)]
    members: usize,
    /// Partitions of the topic
    #[arg(long, default_value_t = 1000)]
    partitions: i32,
    /// How often everything is measured; the median counts
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// group.initial.rebalance.delay.ms of both brokers
    #[arg(long, value_name = "MS", default_value_t = 500)]
    delay: u32,
    /// Only this protocol
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<Protocol>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Leave Apache Kafka out
    #[arg(long, conflicts_with = "kafka")]
    alone: bool,
    #[command(flatten)]
    subject: Subject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// JoinGroup and SyncGroup
    Classic,
    /// KIP-848
    Consumer,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Classic => "classic",
            Protocol::Consumer => "consumer",
        }
    }
}

/// One figure of one broker.
#[derive(Debug, serde::Serialize)]
struct Figure {
    broker: &'static str,
    protocol: &'static str,
    what: &'static str,
    seconds: f64,
    /// Of the broker's process, user and system.
    cpu_seconds: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let members = arguments.members;
    if members < TENTHS || arguments.partitions <= 0 || arguments.runs == 0 {
        bail!("at least {TENTHS} members, one partition and one run");
    }
    let mut subjects = vec![(if arguments.subject.is_kafka() { "kafka" } else { "ottla" }, arguments.subject.clone())];
    if !arguments.alone && !arguments.subject.is_kafka() {
        subjects.push(("kafka", Subject::kafka()));
    }
    subjects.iter().try_for_each(|(_, subject)| subject.check())?;
    let protocols = match arguments.protocol {
        Some(protocol) => vec![protocol],
        None => vec![Protocol::Classic, Protocol::Consumer],
    };
    let place = std::env::temp_dir().join(format!("ottla-group-bench-{}", std::process::id()));
    fs::create_dir_all(&place)?;
    let mut figures = Vec::new();
    for (name, subject) in subjects {
        let bench = Bench { arguments, name, subject: subject.with_full_jvm(), place: &place.join(name) };
        figures.extend(bench.run(&protocols)?);
    }
    fs::remove_dir_all(&place)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        println!("{members} members, {} partitions, {} ms initial delay", arguments.partitions, arguments.delay);
        println!("{}", table(&figures));
    }
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a> {
    arguments: &'a Arguments,
    name: &'static str,
    subject: Subject,
    place: &'a Path,
}

impl Bench<'_> {
    fn run(&self, protocols: &[Protocol]) -> Result<Vec<Figure>> {
        fs::create_dir_all(self.place)?;
        let address = free_address()?;
        let settings = [
            format!("group.initial.rebalance.delay.ms={}", self.arguments.delay),
            format!("group.consumer.min.session.timeout.ms={SESSION_MS}"),
            format!("group.consumer.session.timeout.ms={SESSION_MS}"),
            format!("group.consumer.min.heartbeat.interval.ms={HEARTBEAT_MS}"),
            format!("group.consumer.heartbeat.interval.ms={HEARTBEAT_MS}"),
        ];
        let log = self.place.join("broker.log");
        let broker = self.subject.start(&self.place.join("data"), address, &settings, &log)?;
        let mut connection = Connection::open(address, CALL_TIMEOUT)?;
        connection.create_topic(TOPIC, self.arguments.partitions, &[])?;
        let mut figures = Vec::new();
        for protocol in protocols {
            let mut runs = Vec::new();
            for run in 0..=self.arguments.runs {
                let group = format!("{}-{run}", protocol.name());
                until(PATIENCE, || Ok(connection.find_coordinator(&group).is_ok()))?;
                let measured = self.scenario(&broker, address, *protocol, &group)?;
                // The first one warms up.
                if run > 0 {
                    runs.push(measured);
                }
            }
            figures.extend(self.medians(*protocol, &runs));
        }
        broker.terminate()?;
        Ok(figures)
    }

    fn medians(&self, protocol: Protocol, runs: &[Vec<(&'static str, f64, f64)>]) -> Vec<Figure> {
        let steps = runs.first().map_or(0, Vec::len);
        let of_step = |step: usize| {
            let of_runs: Vec<_> = runs.iter().filter_map(|run| run.get(step)).collect();
            Some(Figure {
                broker: self.name,
                protocol: protocol.name(),
                what: of_runs.first()?.0,
                seconds: median(of_runs.iter().map(|it| it.1).collect()),
                cpu_seconds: median(of_runs.iter().map(|it| it.2).collect()),
            })
        };
        (0..steps).filter_map(of_step).collect()
    }

    /// All that happens to one group; each step with its seconds until it was stable, and those of CPU.
    fn scenario(
        &self,
        broker: &Broker,
        address: SocketAddr,
        protocol: Protocol,
        group: &str,
    ) -> Result<Vec<(&'static str, f64, f64)>> {
        let (members, tenth) = (self.arguments.members, self.arguments.members / TENTHS);
        let crowd = Crowd::new(address, protocol, group, TOPIC, self.arguments.partitions);
        let mut measured = Vec::new();
        let mut step = |what: &'static str, act: &mut dyn FnMut(&Arc<Crowd>) -> Result<()>| -> Result<()> {
            let (began, cpu) = (Instant::now(), broker.cpu()?);
            act(&crowd)?;
            let stable = self.stable(&crowd).with_context(|| format!("{} {group}: {what}", self.name))?;
            let (spent, cpu) = (stable.saturating_duration_since(began), broker.cpu()?.saturating_sub(cpu));
            eprintln!("{} {group}: {what} {:.2} s, {:.2} s of CPU", self.name, spent.as_secs_f64(), cpu.as_secs_f64());
            measured.push((what, spent.as_secs_f64(), cpu.as_secs_f64()));
            Ok(())
        };
        step("all join", &mut |crowd| crowd.add(members))?;
        step("a tenth leaves", &mut |crowd| crowd.part(tenth, Parting::Leave))?;
        step("a tenth joins", &mut |crowd| crowd.add(tenth))?;
        step("a tenth dies", &mut |crowd| crowd.part(tenth, Parting::Die))?;
        step("a tenth joins again", &mut |crowd| crowd.add(tenth))?;
        step("rolling restart", &mut |crowd| {
            for _ in 0..TENTHS {
                crowd.part(tenth, Parting::Leave)?;
                crowd.add(tenth)?;
                self.stable(crowd)?;
            }
            Ok(())
        })?;
        let cpu = broker.cpu()?;
        std::thread::sleep(STEADY);
        measured.push(("heartbeats", STEADY.as_secs_f64(), broker.cpu()?.saturating_sub(cpu).as_secs_f64()));
        crowd.part(members, Parting::Leave)?;
        crowd.finish()?;
        Ok(measured)
    }

    /// When the last member came to know what made the group stable.
    fn stable(&self, crowd: &Crowd) -> Result<Instant> {
        let mut since = None;
        let is_stable = until(PATIENCE, || {
            since = crowd.stable_since()?;
            Ok(since.is_some())
        })?;
        match since {
            Some(since) if is_stable => Ok(since),
            _ => bail!("not stable within {PATIENCE:?}: {}", crowd.state()),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn table(figures: &[Figure]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["protocol", "what", "ottla", "kafka", "ottla CPU", "kafka CPU", "kafka/ottla CPU"]);
    let (first, others): (Vec<_>, Vec<_>) =
        figures.iter().partition(|it| Some(it.broker) == figures.first().map(|first| first.broker));
    for figure in first {
        let other = others.iter().find(|it| (it.protocol, it.what) == (figure.protocol, figure.what)).copied();
        let of = |broker| [Some(figure), other].into_iter().flatten().find(|it| it.broker == broker);
        let (ottla, kafka) = (of("ottla"), of("kafka"));
        let ratio = ottla.zip(kafka).map(|(ottla, kafka)| kafka.cpu_seconds / ottla.cpu_seconds);
        let seconds = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2} s"));
        table.add_row([
            figure.protocol.to_owned(),
            figure.what.to_owned(),
            seconds(ottla.map(|it| it.seconds)),
            seconds(kafka.map(|it| it.seconds)),
            seconds(ottla.map(|it| it.cpu_seconds)),
            seconds(kafka.map(|it| it.cpu_seconds)),
            ratio.map_or(String::new(), |ratio| format!("{ratio:.1}")),
        ]);
    }
    table
}
