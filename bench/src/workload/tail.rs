//! C3, C4 and S3: consumers that wait at the end of the log.

use anyhow::{Context, Result};

use super::{BATCH_BYTES, TAIL, fetch::Backlog, produce};
use crate::contest::Contest;
use crate::peer::Profile;
use crate::report::Figure;

const C3_PARTITIONS: u32 = 4;
const C4_PARTITIONS: u32 = 16;
const CONSUMERS: u32 = 5;
/// A rate counts as sustained when so much of it arrived.
const SUSTAINED: f64 = 0.95;

pub(super) fn c3(contest: &mut Contest) -> Result<()> {
    contest.start(Profile::Default)?;
    contest.will_write(1, 10_441);
    let warm_up = contest.pace.warm_up;
    let many = format!("{TAIL} --rate 50000 --batch-records 10");
    contest.prepare(|side| side.tail(C3_PARTITIONS, &many, warm_up).map(drop));
    let few = format!("{TAIL} --rate 1000 --batch-records 1");
    for (name, load) in [("1 k records/s", &few), ("50 k records/s", &many)] {
        let figures = vec![
            Figure::lower("p50", "µs").times(1.5, 2.0),
            Figure::lower("p99", "µs").times(2.0, 5.0),
            Figure::lower("p99.9", "µs").times(3.0, 10.0),
            Figure::lower("CPU per record", "µs"),
        ];
        let seconds = contest.pace.seconds;
        contest.cell(contest.pace.rounds, name, load, figures, |side| {
            let report = side.tail(C3_PARTITIONS, load, seconds)?;
            Ok(report.latencies()?.with("CPU per record", report.cpu_s()? * 1e6 / report.records as f64))
        });
    }
    Ok(())
}

pub(super) fn c4(contest: &mut Contest) -> Result<()> {
    contest.start(Profile::Default)?;
    contest.will_write(2, 16_669);
    let warm_up = contest.pace.warm_up;
    let load = |rate: f64| {
        format!("--record-bytes 1024 --batch-records 16 --acks all --consumers {CONSUMERS} --rate {rate:.0}")
    };
    contest.prepare(|side| side.tail(C4_PARTITIONS, &load(50_000.0), warm_up).map(drop));
    let rate = sustained(contest, load)?;
    let load = load(rate);
    let seconds = contest.pace.seconds;
    let figures = vec![Figure::lower("CPU per delivered GB", "cpu-s").times(1.5, 2.5), Figure::lower("p99", "µs")];
    let name = format!("{:.0} MB/s to {CONSUMERS} consumers", rate * 1024.0 / 1e6);
    contest.cell(contest.pace.rounds, &name, &load, figures, |side| {
        let report = side.tail(C4_PARTITIONS, &load, seconds)?;
        Ok(report.latencies()?.with("CPU per delivered GB", report.cpu_s()? / report.gb()))
    });
    Ok(())
}

/// Records a second that arrive at everybody, on both brokers: 200 MB/s, or half of that, or half again.
fn sustained(contest: &mut Contest, load: impl Fn(f64) -> String) -> Result<f64> {
    let most = produce::ceiling(contest)? * BATCH_BYTES / 1024.0;
    let mut rate = (200e6 / 1024.0_f64).min(most);
    for _ in 0..5 {
        let load = load(rate);
        let mut kept = Vec::new();
        contest.prepare(|side| {
            let report = side.tail(C4_PARTITIONS, &load, 2)?;
            kept.push(report.gb() * 1e9 / report.seconds >= SUSTAINED * rate * 1024.0 * f64::from(CONSUMERS));
            Ok(())
        });
        if kept.iter().all(|kept| *kept) {
            return Ok(rate);
        }
        rate /= 2.0;
    }
    None.context("no rate arrives at all consumers")
}

/// What C3 is with much in the log.
pub(super) fn s3(contest: &mut Contest) -> Result<()> {
    contest.start(Profile::Default)?;
    contest.will_write(1, 10_441);
    let (rounds, seconds, warm_up) = (contest.pace.rounds, contest.pace.seconds, contest.pace.warm_up);
    let load = format!("{TAIL} --rate 50000 --batch-records 10");
    contest.prepare(|side| side.tail(C3_PARTITIONS, &load, warm_up).map(drop));
    let kept = contest.pace.recovery_gb;
    for gb in [0.0, kept] {
        if gb > 0.0 {
            contest.prepare(|side| Backlog::make(side, gb).map(drop));
        }
        let figures = ["p50", "p99", "p99.9"].map(|name| Figure::lower(name, "µs")).into();
        contest.cell(rounds, &format!("{gb} GB in the log"), &load, figures, |side| {
            side.tail(C3_PARTITIONS, &load, seconds)?.latencies()
        });
    }
    Ok(())
}
