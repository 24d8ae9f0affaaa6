//! Observers: what the cluster says is committed for the group, and where partitions end, every second.
//!
//! They go into the history like everybody else, so that the checker sees offsets that go back and ends that do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;

use super::admin;
use super::checker::history::Process;
use super::clients::{Story, now};
use crate::wire::Connection;

const EVERY: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Their numbers in the history.
const OFFSETS: Process = 90;
const ENDS: Process = 91;

/// What is watched.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) topics: Vec<String>,
    pub(crate) partitions: i32,
    pub(crate) group: String,
    pub(crate) story: Arc<Mutex<Story>>,
}

/// Both observers.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Watch {
    pub(crate) fn start(watched: &Watched) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let turn = |look: fn(&Watched, SocketAddr) -> Result<()>| {
            let (watched, stop) = (watched.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    // Each time by another node. Most errors are what faults are for.
                    let asked = watched.addresses.get(turn % watched.addresses.len().max(1));
                    let _ = look(&watched, *asked.context("there are no nodes")?);
                    turn += 1;
                    thread::sleep(EVERY);
                }
                Ok(())
            })
        };
        let threads = vec![turn(Watched::look_at_offsets), turn(Watched::look_at_ends)];
        Watch { stop, threads }
    }

    pub(crate) fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(|thread| thread.join().ok().context("an observer panicked")?)
    }
}

impl Watched {
    fn look_at_offsets(&self, by: SocketAddr) -> Result<()> {
        let mut connection = Connection::open(admin::coordinator(by, &self.group)?, CALL_TIMEOUT)?;
        for topic in &self.topics {
            let began = now();
            let committed = connection.committed(&self.group, topic)?;
            // Left out is as good as none: nobody would go on from there.
            let place = |index| format!("{topic}-{index}@{}", committed.get(&index).copied().unwrap_or(-1));
            let places: Vec<String> = (0..self.partitions).map(place).collect();
            self.story.lock().say(OFFSETS, &format!("committed {began} {} {}", now(), places.join(" ")))?;
        }
        Ok(())
    }

    fn look_at_ends(&self, by: SocketAddr) -> Result<()> {
        let view = admin::view(by)?;
        for partition in view.partitions.iter().filter(|it| self.topics.contains(&it.topic)) {
            let Some(leader) = partition.leader.and_then(|id| view.brokers.get(&id)) else { continue };
            let began = now();
            // One leader may be gone, and the others not.
            if let Ok((stable, high)) = admin::ends(*leader, &partition.topic, partition.index) {
                let line = format!("ends {began} {} {}@{stable}/{high}", now(), partition.name());
                self.story.lock().say(ENDS, &line)?;
            }
        }
        Ok(())
    }
}
