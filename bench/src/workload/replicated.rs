//! R1: what a replicated gigabyte costs three nodes, and how long its acknowledgement takes.
//!
//! Both clusters are on this one machine: their CPU is added up, and what a network would take is not in it. Kafka is
//! as it comes, an acknowledged record in three page caches; Ottla in the same way (`ottla.durability=replicated`), and
//! at its own default, on two disks at least.

use anyhow::Result;

use crate::contest::Contest;
use crate::load::{Report, Side};
use crate::peer::Profile;
use crate::report::{Figure, OTTLA};

const NODES: usize = 3;
/// Each node leads four.
const PARTITIONS: u32 = 12;
/// P2's, with two connections to each node.
const LOAD: &str = "--connections 6 --depth 5 --record-bytes 1024 --batch-bytes 16384 --acks all --idempotent";
/// Batches a second where latency is measured: 8 MB/s, a small part of what either can do.
const RATE: u32 = 500;
/// Before each load a few batches are waited for in every partition: by then a cluster that was frozen has found itself
/// again, and followers their leaders.
const FIRST: &str = "--rate 50 --warmup 0 --seconds 3";
const WARM_UP: f64 = 2.0;

pub(super) fn r1(contest: &mut Contest) -> Result<()> {
    contest.start_clusters(Profile::Default, NODES)?;
    let (peer, seconds) = (contest.peer().to_owned(), contest.pace.warm_up);
    contest.prepare(|side| {
        let seconds = if side.name == peer { seconds } else { 1 };
        produce(side, "replicated", LOAD, seconds).map(drop)
    });
    for (durability, what) in [("replicated", "page caches on both"), ("fsync", "Ottla as it comes, on disks")] {
        let seconds = contest.pace.seconds;
        let figures = vec![
            Figure::lower("CPU per GB", "s").times(1.5, 3.0),
            Figure::higher("throughput", "GB/s"),
            Figure::lower("memory", "MB"),
        ];
        contest.will_write(1, 16_440);
        contest.cell(contest.pace.rounds, &format!("maximum, {what}"), LOAD, figures, |side| {
            let report = produce(side, durability, LOAD, seconds)?;
            let outcome = report.outcome().with("CPU per GB", report.cpu_s()? / report.gb());
            let outcome = outcome.with("throughput", report.gb() / report.seconds);
            Ok(outcome.with("memory", report.peak_memory as f64 / 1e6))
        });
        let load = format!("{LOAD} --rate {RATE}");
        let [p50, p99, p999] = ["p50", "p99", "p99.9"].map(|name| Figure::lower(name, "µs"));
        let figures = vec![p50, p99.times(2.0, 5.0), p999, Figure::lower("CPU per GB", "s")];
        contest.cell(contest.pace.rounds, &format!("{RATE} batches a second, {what}"), &load, figures, |side| {
            let report = produce(side, durability, &load, seconds)?;
            Ok(report.latencies()?.with("CPU per GB", report.cpu_s()? / report.gb()))
        });
    }
    Ok(())
}

/// Produces to a topic of its own with a copy on every node.
fn produce(side: &mut Side, durability: &str, load: &str, seconds: u64) -> Result<Report> {
    let mut settings = vec![("min.insync.replicas", "2")];
    if side.name == OTTLA {
        settings.push(("ottla.durability", durability));
    }
    let topic = side.create_with(PARTITIONS, &settings)?;
    let first = format!("{LOAD} --partitions {PARTITIONS} {FIRST}");
    let load = format!("{load} --partitions {PARTITIONS} --warmup {WARM_UP} --seconds {seconds}");
    let report = side.replay("produce", &topic, &first).and_then(|_| side.replay("produce", &topic, &load));
    side.delete(&topic)?;
    report
}
