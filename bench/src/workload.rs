//! The workloads: what is asked of both brokers, and which figures come of it. One file for each family.
//!
//! Loads are the replayer's own arguments, so that anybody can repeat one by hand. Goals and floors stand with the
//! figures; the meaning of each workload is in this folder's README.

use anyhow::Result;

use crate::contest::{Contest, Pace};

mod fetch;
mod idle;
mod neutral;
mod produce;
mod recovery;
mod replicated;
mod start;
mod tail;

/// 1 KB records in 16 KB batches, as common clients send them.
pub(crate) const P2: &str = "--connections 4 --depth 5 --record-bytes 1024 --batch-bytes 16384 --acks all --idempotent";
/// One small record a request.
pub(crate) const P3: &str = "--depth 1 --record-bytes 100 --batch-bytes 200 --acks all";
/// One consumer that catches up asks for a megabyte at a time.
pub(crate) const FETCH: &str = "--connections 1 --max-bytes 1048576 --partition-max-bytes 1048576";
/// One consumer at the end of the log.
pub(crate) const TAIL: &str = "--record-bytes 1024 --acks all --consumers 1";
const BATCH_BYTES: f64 = 16_384.0;

pub(crate) struct Workload {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) run: fn(&mut Contest) -> Result<()>,
    /// Loads in a round, those at full speed with their short windows, and seconds beside the rounds: for the estimate
    /// of what remains.
    turns: u64,
    bulk: u64,
    beside: u64,
}

impl Workload {
    /// About how many seconds it takes.
    pub(crate) fn estimate(&self, pace: Pace) -> u64 {
        // Each also makes and deletes a topic, settles and warms up.
        let (turn, bulk) = (pace.seconds + 4, 6);
        self.beside + pace.warm_up + 6 + pace.rounds as u64 * 2 * (self.turns * turn + self.bulk * bulk)
    }
}

pub(crate) const ALL: &[Workload] = &[
    Workload { id: "P1", what: "bulk produce, 1 MB batches", run: produce::p1, turns: 0, bulk: 4, beside: 0 },
    Workload { id: "P2", what: "produce, 16 KB batches", run: produce::p2, turns: 3, bulk: 2, beside: 0 },
    Workload { id: "P3", what: "one record a request", run: produce::p3, turns: 5, bulk: 0, beside: 0 },
    Workload { id: "P4", what: "durable produce", run: produce::p4, turns: 2, bulk: 0, beside: 0 },
    Workload { id: "P5", what: "compressed batches", run: produce::p5, turns: 0, bulk: 4, beside: 0 },
    Workload { id: "P6", what: "many partitions", run: produce::p6, turns: 0, bulk: 4, beside: 20 },
    Workload { id: "C1", what: "catch-up", run: fetch::c1, turns: 2, bulk: 0, beside: 40 },
    Workload { id: "C2", what: "produce beside a cold catch-up", run: fetch::c2, turns: 2, bulk: 0, beside: 80 },
    Workload { id: "C3", what: "tail reads", run: tail::c3, turns: 2, bulk: 0, beside: 0 },
    Workload { id: "C4", what: "five consumers", run: tail::c4, turns: 1, bulk: 0, beside: 20 },
    Workload { id: "I1", what: "memory", run: idle::i1, turns: 0, bulk: 0, beside: 120 },
    // Four loads; a cluster that was frozen needs about a minute for each to find itself.
    Workload { id: "R1", what: "three nodes, acks=all", run: replicated::r1, turns: 32, bulk: 0, beside: 60 },
    Workload { id: "S1", what: "start", run: start::s1, turns: 1, bulk: 0, beside: 90 },
    Workload { id: "S2", what: "recovery after kill -9", run: recovery::s2, turns: 2, bulk: 0, beside: 30 },
    Workload { id: "S3", what: "tail reads, much in the log", run: tail::s3, turns: 2, bulk: 0, beside: 60 },
    Workload { id: "N1", what: "the clients of others", run: neutral::n1, turns: 6, bulk: 0, beside: 20 },
];
