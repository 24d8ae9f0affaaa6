//! P1 to P6: what a produced gigabyte, request or acknowledgement costs.

use anyhow::{Context, Result};

use super::{BATCH_BYTES, P2, P3};
use crate::contest::Contest;
use crate::load::{Outcome, Report};
use crate::peer::Profile;
use crate::report::{Figure, Goal, OTTLA};
use crate::statistics::median;

const P1: &str = "--connections 2 --depth 5 --record-bytes 1024 --batch-bytes 1000000";
const P5: &str = "--connections 4 --depth 5 --record-bytes 1024 --batch-bytes 100000 --acks all --idempotent";
/// P2 without idempotence: its sequences would tie each partition to one connection, and P6 has one for four.
const P6: &str = "--connections 4 --depth 5 --record-bytes 1024 --batch-bytes 16384 --acks all";
const PARTITIONS: u32 = 16;
/// At full speed a longer window writes more than there is backed memory for; there are more rounds of it instead.
const BULK_SECONDS: u64 = 1;
const BULK_WARM_UP: f64 = 0.3;
const BULK_ROUNDS: usize = 2;
/// P6: in this time every broker has written to each of a thousand partitions.
const FIRST_WRITES: f64 = 2.0;
/// The same for Ottla and the most partitions.
const MANY_FIRST_WRITES: f64 = 4.0;

/// The cell that P2's rates are shares of.
const MAXIMUM: &str = "maximum";
const THROUGHPUT: &str = "throughput per CPU";
const WALL: &str = "throughput";
const MEMORY: &str = "memory";
const REQUESTS: &str = "requests";
const COST: &str = "CPU per request";

pub(super) fn p1(contest: &mut Contest) -> Result<()> {
    contest.start(Profile::Default)?;
    contest.warm_up(PARTITIONS, &format!("{P1} --acks all"));
    contest.will_write(2, 1_000_061);
    for acks in ["1", "all"] {
        let load = format!("{P1} --acks {acks}");
        let figures = vec![
            Figure::higher(THROUGHPUT, "GB/cpu-s")
                .times(1.5, 2.0)
                .floor(contest.floor("/receive_write_1m/gb_per_cpu_s")),
            Figure::higher(WALL, "GB/s"),
            Figure::lower(MEMORY, "MB"),
        ];
        contest.cell(contest.pace.rounds * BULK_ROUNDS, &format!("acks={acks}"), &load, figures, |side| {
            bulk(&side.produce_after(BULK_WARM_UP, PARTITIONS, &load, BULK_SECONDS)?)
        });
    }
    Ok(())
}

pub(super) fn p2(contest: &mut Contest) -> Result<()> {
    contest.start(Profile::Default)?;
    contest.warm_up(PARTITIONS, P2);
    p2_maximum(contest, contest.pace.rounds * BULK_ROUNDS);
    let ceiling = ceiling(contest)?;
    for percent in [10, 50, 80] {
        let figures = percentiles().into_iter().chain([Figure::higher(THROUGHPUT, "GB/cpu-s")]).collect();
        at_percent(contest, percent, ceiling, "", P2, figures);
    }
    Ok(())
}

/// A load at a share of what the slower one takes at most: both are asked the same, and latency counts from when a
/// request was due.
fn at_percent(contest: &mut Contest, percent: u32, most: f64, what: &str, load: &str, figures: Vec<Figure>) {
    let load = format!("{load} --rate {:.0}", most * f64::from(percent) / 100.0);
    let name = format!("{what}{percent} % of the slower one's maximum");
    timed(contest, &name, &load, figures);
}

/// A load whose requests are looked at one by one.
fn timed(contest: &mut Contest, name: &str, load: &str, figures: Vec<Figure>) {
    let seconds = contest.pace.seconds;
    contest.cell(contest.pace.rounds, name, load, figures, |side| {
        let report = side.produce(PARTITIONS, load, seconds)?;
        let (cost, throughput) = (report.cpu_s()? * 1e6 / report.requests as f64, report.gb() / report.cpu_s()?);
        let outcome = report.latencies()?.with(COST, cost).with(THROUGHPUT, throughput);
        Ok(outcome.with(REQUESTS, report.requests_per_second()))
    });
}

/// P2 as fast as it goes.
fn p2_maximum(contest: &mut Contest, rounds: usize) {
    let figures = vec![
        Figure::higher(THROUGHPUT, "GB/cpu-s").times(2.5, 4.0).floor(contest.floor("/receive_write_16k/gb_per_cpu_s")),
        Figure::higher(WALL, "GB/s"),
        Figure::lower(MEMORY, "MB").goal(Goal::Times(5.0), Goal::AtMost(80.0)),
        Figure::higher(REQUESTS, "1/s"),
    ];
    contest.will_write(2, 16_440);
    contest.cell(rounds, MAXIMUM, P2, figures, |side| {
        bulk(&side.produce_after(BULK_WARM_UP, PARTITIONS, P2, BULK_SECONDS)?)
    });
}

/// Batches a second that the slower of the two takes at most; measured if P2 was not among the workloads.
pub(super) fn ceiling(contest: &mut Contest) -> Result<f64> {
    if slower(contest, MAXIMUM).is_err() {
        p2_maximum(contest, BULK_ROUNDS);
    }
    slower(contest, MAXIMUM)
}

/// Requests a second of the slower of the two in a cell.
fn slower(contest: &Contest, cell: &str) -> Result<f64> {
    let figure = Figure::higher(REQUESTS, "");
    let cells = contest.series.cells.iter().filter(|it| it.peer == contest.peer() && it.name == cell);
    let of = |broker: &str| -> Option<f64> {
        let values = cells.clone().flat_map(|cell| cell.values(broker, &figure).into_values());
        median(&values.collect::<Vec<_>>())
    };
    let maxima = [of(OTTLA), of(contest.peer())];
    maxima.into_iter().flatten().reduce(f64::min).context("no broker's maximum is known")
}

pub(super) fn p3(contest: &mut Contest) -> Result<()> {
    contest.start(Profile::Default)?;
    contest.warm_up(PARTITIONS, &format!("{P3} --connections 16"));
    for connections in [1, 16, 256] {
        let load = format!("{P3} --connections {connections}");
        let floor = |what: &str| contest.floor(&format!("/exchange_{connections}/{what}"));
        let cost = Figure::lower(COST, "µs").times(4.0, 8.0).floor(floor("cpu_us"));
        let [p50, p99, p999] = percentiles();
        let latencies = p3_goals([p50.floor(floor("p50_us")), p99, p999]);
        let figures = [cost].into_iter().chain(latencies).chain([Figure::higher(REQUESTS, "1/s")]).collect();
        let name = if connections == 1 { "1 connection".to_owned() } else { format!("{connections} connections") };
        timed(contest, &name, &load, figures);
        if connections > 1 {
            // With so many in flight the machine is full, and latency is throughput said again. Here both are asked for
            // less than either can do.
            let most = slower(contest, &name)?;
            at_percent(contest, 50, most, &format!("{name}, "), &load, p3_goals(percentiles()).into());
        }
    }
    Ok(())
}

fn percentiles() -> [Figure; 3] {
    ["p50", "p99", "p99.9"].map(|name| Figure::lower(name, "µs"))
}

fn p3_goals([p50, p99, p999]: [Figure; 3]) -> [Figure; 3] {
    [p50.times(2.0, 5.0), p99.times(3.0, 8.0), p999.times(3.0, 8.0)]
}

pub(super) fn p4(contest: &mut Contest) -> Result<()> {
    contest.start(Profile::Durable)?;
    let tiny = format!("{P3} --connections 16");
    contest.warm_up(PARTITIONS, &tiny);
    // Nobody acknowledges more than all waiting producers with one sync.
    let sync = contest.floor("/sync_4k/p50_us");
    for (name, load, waiting) in [("16 producers", &*tiny, 16.0), ("16 KB batches", P2, 20.0)] {
        let figures = vec![
            Figure::higher("acknowledgements", "1/s").times(3.0, 6.0).floor(sync.map(|micros| waiting * 1e6 / micros)),
            Figure::lower("p50", "µs"),
            Figure::lower("p99.9", "µs"),
        ];
        let seconds = contest.pace.seconds;
        contest.cell(contest.pace.rounds, name, load, figures, |side| {
            let report = side.produce(PARTITIONS, load, seconds)?;
            Ok(report.latencies()?.with("acknowledgements", report.requests_per_second()))
        });
    }
    Ok(())
}

pub(super) fn p5(contest: &mut Contest) -> Result<()> {
    contest.start(Profile::Default)?;
    contest.warm_up(PARTITIONS, &format!("{P5} --compression zstd"));
    contest.will_write(2, 50_061);
    for codec in ["lz4", "zstd"] {
        let load = format!("{P5} --compression {codec}");
        let figures = vec![
            Figure::higher("uncompressed throughput per CPU", "GB/cpu-s").times(3.0, 5.0),
            Figure::higher("uncompressed throughput", "GB/s"),
        ];
        contest.cell(contest.pace.rounds * BULK_ROUNDS, codec, &load, figures, |side| {
            let report = side.produce_after(BULK_WARM_UP, PARTITIONS, &load, BULK_SECONDS)?;
            let gb = report.uncompressed_bytes as f64 / 1e9;
            let outcome = report.outcome().with("uncompressed throughput per CPU", gb / report.cpu_s()?);
            Ok(outcome.with("uncompressed throughput", gb / report.seconds))
        });
    }
    Ok(())
}

/// The cost of a batch over more and more partitions, against the same broker's cost over one.
pub(super) fn p6(contest: &mut Contest) -> Result<()> {
    contest.start(Profile::Default)?;
    contest.warm_up(100, P6);
    let most = contest.pace.partitions;
    let figures = vec![
        Figure::lower("CPU per batch, 1 partition", "µs"),
        Figure::lower(&against_one(100), "×"),
        Figure::lower(&against_one(1000), "×"),
        Figure::lower(&against_one(most), "×").goal(Goal::AtMost(1.5), Goal::AtMost(1.2)),
    ];
    contest.will_write(2, 16_440);
    contest.cell(contest.pace.rounds, "many partitions", P6, figures, |side| {
        let one = side.produce_after(FIRST_WRITES, 1, P6, BULK_SECONDS)?;
        let cost_of_one = cost(&one)?;
        let mut outcome = one.outcome().with("CPU per batch, 1 partition", cost_of_one);
        // The goal is about Ottla's own slope; peers would need minutes in each round to make the most partitions.
        let all = [(100, FIRST_WRITES), (1000, FIRST_WRITES), (most, MANY_FIRST_WRITES)];
        let sizes = if side.name == OTTLA { &all[..] } else { &all[..2] };
        for &(partitions, first_writes) in sizes {
            let many = cost(&side.produce_after(first_writes, partitions, P6, BULK_SECONDS)?)?;
            outcome = outcome.with(&against_one(partitions), many / cost_of_one);
        }
        Ok(outcome)
    });
    Ok(())
}

/// CPU of a batch in microseconds.
fn cost(report: &Report) -> Result<f64> {
    Ok(report.cpu_s()? * 1e6 / (report.bytes as f64 / BATCH_BYTES))
}

fn against_one(partitions: u32) -> String {
    format!("cost of {partitions} partitions against one")
}

fn bulk(report: &Report) -> Result<Outcome> {
    let outcome = report.outcome().with(THROUGHPUT, report.gb() / report.cpu_s()?);
    let outcome = outcome.with(WALL, report.gb() / report.seconds).with(MEMORY, report.peak_memory as f64 / 1e6);
    Ok(outcome.with(REQUESTS, report.requests_per_second()))
}
