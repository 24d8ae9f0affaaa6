//! What happens around the members: records that flow to the topic, and a reader of the committed offsets.
//!
//! Both go on through every death of the broker, and leave what they saw in the history.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bytes::Bytes;
use parking_lot::Mutex;

use super::history::{Handled, History, Reading, Time, What, Who};
use crate::wire::{CallError, CallResult, Connection};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// After an error; the broker may be dead.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// Between two batches, each of up to `BATCH` records.
const PACE: Duration = Duration::from_millis(10);
const BATCH: i64 = 20;
/// Between two readings of the committed offsets.
const READ_EVERY: Duration = Duration::from_millis(200);

/// The clock of every event.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::try_from(since.as_micros()).unwrap_or(Time::MAX)
}

/// What is known while the torture goes on.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) history: History,
    handled: HashMap<i32, Handled>,
    /// The offset after the last acknowledged record of each partition.
    ends: BTreeMap<i32, i64>,
    /// The last reading.
    pub(crate) committed: BTreeMap<i32, i64>,
    /// How often which commit or call was refused, by what was said.
    pub(crate) refused: BTreeMap<String, usize>,
}

impl Seen {
    pub(crate) fn event(&mut self, who: Who, event: super::history::Event) {
        match &event.what {
            What::Handled { records } => {
                for (partition, offset, _) in records {
                    self.handled.entry(*partition).or_default().add(*offset);
                }
            }
            What::Refused { error } | What::Error { error } => {
                *self.refused.entry(error.clone()).or_default() += 1;
            }
            _ => {}
        }
        self.history.events.push((who, event));
    }

    /// What was acknowledged until now.
    pub(crate) fn ends(&self) -> BTreeMap<i32, i64> {
        self.ends.clone()
    }

    /// The first partition that is not handled up to there, and how far it is.
    pub(crate) fn behind(&self, ends: &BTreeMap<i32, i64>) -> Option<(i32, i64)> {
        let handled = |partition| self.handled.get(partition).map_or(0, Handled::end);
        ends.iter().find_map(|(partition, end)| (handled(partition) < *end).then(|| (*partition, handled(partition))))
    }

    /// The first partition that is not committed up to there, and how far it is.
    pub(crate) fn uncommitted(&self, ends: &BTreeMap<i32, i64>) -> Option<(i32, i64)> {
        let committed = |partition| self.committed.get(partition).copied().unwrap_or(-1);
        ends.iter()
            .find_map(|(partition, end)| (committed(partition) < *end).then(|| (*partition, committed(partition))))
    }
}

/// A thread that is asked to stop and waited for.
#[derive(Debug)]
pub(crate) struct Task {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Task {
    /// Calls `turn` with a connection again and again; without one after an error that was no answer.
    fn start(
        address: SocketAddr,
        pace: Duration,
        mut turn: impl FnMut(&mut Connection) -> CallResult<()> + Send + 'static,
    ) -> Task {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut connection = None;
            while !stopped.load(Ordering::Relaxed) {
                let turned = match &mut connection {
                    Some(connection) => turn(connection),
                    None => Connection::open(address, CALL_TIMEOUT)
                        .map(|opened| connection = Some(opened))
                        .map_err(|error| CallError::NoAnswer(error.into())),
                };
                match turned {
                    Ok(()) => thread::sleep(pace),
                    Err(CallError::Refused(_)) => thread::sleep(TRY_AGAIN),
                    Err(CallError::NoAnswer(_)) => {
                        connection = None;
                        thread::sleep(TRY_AGAIN);
                    }
                }
            }
        });
        Task { stop, thread }
    }

    pub(crate) fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("a thread of the proof panicked")
    }
}

/// Sends records, numbered through the whole topic, to partitions at random.
pub(crate) fn producer(address: SocketAddr, topic: String, partitions: i32, seed: u64, seen: Arc<Mutex<Seen>>) -> Task {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut next = 0;
    Task::start(address, PACE, move |connection| {
        let (partition, count) = (random.i32(0..partitions), random.i64(1..=BATCH));
        // A number is never used again: a batch that was not answered may be there.
        let numbers = next..next + count;
        next = numbers.end;
        let values: Vec<Bytes> = numbers.clone().map(|number| number.to_string().into()).collect();
        let base = connection.produce(&topic, partition, &values, None)?;
        let mut seen = seen.lock();
        seen.history
            .produced
            .extend(numbers.enumerate().map(|(index, number)| ((partition, base + index as i64), number)));
        let end = seen.ends.entry(partition).or_default();
        *end = (*end).max(base + count);
        Ok(())
    })
}

/// Reads the committed offsets of the group, as somebody who is no member.
pub(crate) fn reader(address: SocketAddr, topic: String, group: String, seen: Arc<Mutex<Seen>>) -> Task {
    Task::start(address, READ_EVERY, move |connection| {
        let began = now();
        let offsets = connection.committed(&group, &topic)?;
        let mut seen = seen.lock();
        seen.committed.clone_from(&offsets);
        seen.history.readings.push(Reading { began, at: now(), offsets });
        Ok(())
    })
}
