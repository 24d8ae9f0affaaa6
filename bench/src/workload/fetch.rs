//! C1 and C2: a consumer that catches up, alone and beside producers.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{BATCH_BYTES, FETCH, P2, produce};
use crate::contest::Contest;
use crate::load::{Report, Side};
use crate::machine::{Cold, drop_cached, warm};
use crate::peer::Profile;
use crate::report::Figure;

const PARTITIONS: u32 = 16;
/// Batches a second while the backlog is made: slow enough for every broker.
const MAKING: f64 = 12_000.0;

/// Records that are there before a consumer comes, with the files they lie in.
#[derive(Default)]
pub(super) struct Backlog {
    topic: String,
    files: Vec<PathBuf>,
}

impl Backlog {
    pub(super) fn make(side: &mut Side, gb: f64) -> Result<Backlog> {
        let before = side.logs();
        let topic = side.create(PARTITIONS)?;
        let seconds = (gb * 1e9 / BATCH_BYTES / MAKING).ceil();
        let load = format!("{P2} --partitions {PARTITIONS} --rate {MAKING} --warmup 0 --seconds {seconds}");
        side.replay("produce", &topic, &load)?;
        let files = side.logs().into_iter().filter(|file| !before.contains(file)).collect();
        Ok(Backlog { topic, files })
    }

    fn warm(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| warm(file))
    }

    fn chill(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| drop_cached(file))
    }

    fn bytes(&self) -> u64 {
        self.files.iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    }
}

/// One backlog for each broker.
struct Backlogs(Vec<(String, Backlog)>);

impl Backlogs {
    fn make(contest: &mut Contest) -> Backlogs {
        let mut made = Vec::new();
        let gb = contest.pace.backlog_gb;
        contest.prepare(|side| {
            made.push((side.name.clone(), Backlog::make(side, gb)?));
            Ok(())
        });
        Backlogs(made)
    }

    fn of(&self, side: &Side) -> Result<&Backlog> {
        let found = self.0.iter().find(|(name, _)| *name == side.name);
        found.map(|(_, backlog)| backlog).context("there is no backlog to catch up with")
    }
}

pub(super) fn c1(contest: &mut Contest) -> Result<()> {
    contest.start(Profile::Default)?;
    let backlogs = Backlogs::make(contest);
    let warm_up = contest.pace.warm_up;
    contest.prepare(|side| {
        let backlog = backlogs.of(side)?;
        side.load("fetch", &backlog.topic, PARTITIONS, FETCH, warm_up).map(drop)
    });

    let figures = vec![
        Figure::higher("throughput per CPU", "GB/cpu-s")
            .times(1.0, 1.3)
            .floor(contest.floor("/sendfile_1m/gb_per_cpu_s")),
        Figure::higher("throughput", "GB/s"),
    ];
    let seconds = contest.pace.seconds;
    contest.cell(contest.pace.rounds, "warm", FETCH, figures, |side| {
        let backlog = backlogs.of(side)?;
        backlog.warm()?;
        let report = side.load("fetch", &backlog.topic, PARTITIONS, FETCH, seconds)?;
        let outcome = report.outcome().with("throughput per CPU", report.gb() / report.cpu_s()?);
        Ok(outcome.with("throughput", report.gb() / report.seconds))
    });

    // The disk is the limit here: only the wall clock counts, and the data is read once.
    let figures = vec![Figure::higher("throughput", "GB/s")];
    contest.cell(contest.pace.rounds, "cold", FETCH, figures, |side| {
        let report = once(side, backlogs.of(side)?)?;
        Ok(report.outcome().with("throughput", report.gb() / report.seconds))
    });
    Ok(())
}

/// Reads all of a backlog that is not in memory.
fn once(side: &mut Side, backlog: &Backlog) -> Result<Report> {
    backlog.chill()?;
    let load = format!("{FETCH} --partitions {PARTITIONS} --warmup 0 --bytes {}", backlog.bytes() * 9 / 10);
    side.replay("fetch", &backlog.topic, &load)
}

pub(super) fn c2(contest: &mut Contest) -> Result<()> {
    contest.start(Profile::Default)?;
    contest.will_write(2, 16_440);
    contest.warm_up(PARTITIONS, P2);
    let load = format!("{P2} --rate {:.0}", produce::ceiling(contest)? * 0.5);
    let backlogs = Backlogs::make(contest);
    let seconds = contest.pace.seconds;
    let rounds = contest.pace.rounds;
    contest.cell(rounds, "without a reader", &load, vec![Figure::lower("p99.9", "µs")], |side| {
        side.produce(PARTITIONS, &load, seconds)?.latencies()
    });
    let figures = vec![
        Figure::lower("p50", "µs"),
        Figure::lower("p99", "µs"),
        Figure::lower("p99.9", "µs").times(5.0, 10.0),
        Figure::higher("read meanwhile", "GB/s"),
    ];
    contest.cell(rounds, "with a cold reader", &load, figures, |side| {
        let topic = side.create(PARTITIONS)?;
        let backlog = backlogs.of(side)?;
        side.settle()?;
        let window = format!("--partitions {PARTITIONS} --warmup 1 --seconds {seconds}");
        let both = Cold::new(&backlog.files)?.keep(|| -> Result<_> {
            let reader = side.spawn("fetch", &backlog.topic, &format!("{FETCH} {window}"))?;
            let producer = side.spawn("produce", &topic, &format!("{load} {window}"))?;
            let produced = side.report(producer);
            Ok((produced?, side.report(reader)?))
        })?;
        side.delete(&topic)?;
        let (produced, read) = both?;
        // At most what the disk gives: more would mean that the page cache helped.
        Ok(produced.latencies()?.with("read meanwhile", read.gb() / read.seconds))
    });
    Ok(())
}
