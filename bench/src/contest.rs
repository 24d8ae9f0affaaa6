//! Two brokers on one machine that take turns: while one is measured, the other is frozen.
//!
//! A workload (`workload`) starts the two, warms them up, and calls [`Contest::cell`] for each load it has; what a turn
//! finds goes straight into the [`Series`], failures too. How a load is made is in `load`.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::load::{Outcome, Side};
use crate::machine::{APPEND_FLOOR, Disturbance, backed_speed};
use crate::peer::{Peer, Profile};
use crate::report::{Cell, Figure, MEMORY_BEFORE, Series, Turn, table};

/// A broker that failed so often in one cell is left alone there.
const FAILURES: usize = 2;
/// A turn is not begun with less room on the disk.
const ROOM: u64 = 8 << 30;
/// How long a broker has for removing the files of deleted topics.
const REMOVAL: Duration = Duration::from_secs(120);

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) rounds: usize,
    pub(crate) seconds: u64,
    /// The peer's warm-up: a JVM compiles what is used often.
    pub(crate) warm_up: u64,
    /// Data that a consumer catches up with.
    pub(crate) backlog_gb: f64,
    pub(crate) recovery_gb: f64,
    pub(crate) partitions: u32,
    pub(crate) connections: u32,
}

pub(crate) struct Contest<'a> {
    pub(crate) pace: Pace,
    pub(crate) series: &'a mut Series,
    peers: [Peer; 2],
    sides: Vec<Side>,
    place: PathBuf,
    workload: &'static str,
}

impl<'a> Contest<'a> {
    pub(crate) fn new(
        workload: &'static str,
        pace: Pace,
        peers: [Peer; 2],
        place: PathBuf,
        series: &'a mut Series,
    ) -> Contest<'a> {
        Contest { pace, series, peers, sides: Vec::new(), place, workload }
    }

    /// Starts both on fresh data, and freezes them.
    pub(crate) fn start(&mut self, profile: Profile) -> Result<()> {
        for peer in &self.peers {
            let data = self.place.join(peer.name());
            let broker = peer.start(&data, profile).with_context(|| format!("{} does not start", peer.name()))?;
            broker.freeze()?;
            let mut side = Side::new(peer.name(), broker);
            side.enough = self.enough();
            self.sides.push(side);
        }
        Ok(())
    }

    /// The same with clusters of so many nodes, all on this machine.
    pub(crate) fn start_clusters(&mut self, profile: Profile, count: usize) -> Result<()> {
        for peer in &self.peers {
            let data = self.place.join(peer.name());
            let nodes = peer.start_cluster(&data, profile, count);
            let mut side =
                Side::of_cluster(peer.name(), nodes.with_context(|| format!("{} does not start", peer.name()))?)?;
            side.freeze()?;
            side.enough = self.enough();
            self.sides.push(side);
        }
        Ok(())
    }

    /// What the loads from here on write at most, and how much at a time, so that they find memory for it.
    pub(crate) fn will_write(&mut self, gigabytes: u64, write: usize) {
        self.sides.iter_mut().for_each(|side| (side.backed, side.write) = (gigabytes << 30, write));
    }

    /// The peer's name.
    pub(crate) fn peer(&self) -> &str {
        self.peers[1].name()
    }

    /// What a primitive of the machine takes, by its place in the floors, if it was measured.
    pub(crate) fn floor(&self, name: &str) -> Option<f64> {
        self.series.floors.pointer(name)?.as_f64()
    }

    fn enough(&self) -> f64 {
        backed_speed(self.floor(APPEND_FLOOR))
    }

    pub(crate) fn note(&mut self, note: String) {
        eprintln!("  note: {note}");
        self.series.notes.push(note);
    }

    /// Each in its turn, nothing of it counted. Whoever fails here will fail again where it is counted.
    pub(crate) fn prepare(&mut self, mut what: impl FnMut(&mut Side) -> Result<()>) {
        for index in 0..self.sides.len() {
            let name = self.peers[index].name().to_owned();
            if let Err(error) = self.turn(index, &mut what) {
                self.note(format!("{} preparing {name}: {error:#}", self.workload));
            }
        }
    }

    /// The workload's own load for a while; the peer gets more of it, because a JVM needs it.
    pub(crate) fn warm_up(&mut self, partitions: u32, load: &str) {
        let peer = self.peer().to_owned();
        let seconds = self.pace.warm_up;
        self.prepare(|side| {
            let seconds = if side.name == peer { seconds } else { 1 };
            side.produce(partitions, load, seconds).map(drop)
        });
    }

    /// Round by round the one and the other; every turn becomes one of the series.
    pub(crate) fn cell(
        &mut self,
        rounds: usize,
        name: &str,
        settings: &str,
        figures: Vec<Figure>,
        mut measure: impl FnMut(&mut Side) -> Result<Outcome>,
    ) {
        self.look_for_others(name);
        let mut turns = Vec::new();
        let mut failures = vec![0; self.sides.len()];
        for round in 0..rounds {
            for (index, failed) in failures.iter_mut().enumerate() {
                if *failed >= FAILURES {
                    continue;
                }
                let turn = self.measured(round, index, &mut measure);
                *failed += usize::from(turn.error.is_some());
                eprintln!("  {} {name}, round {} of {rounds}, {}", self.workload, round + 1, summary(&turn, &figures));
                turns.push(turn);
            }
        }
        self.look_for_others(name);
        self.series.cells.push(Cell {
            workload: self.workload.to_owned(),
            name: name.to_owned(),
            peer: self.peer().to_owned(),
            settings: settings.to_owned(),
            figures,
            turns,
        });
    }

    /// While both are frozen, nobody else should be on the machine.
    fn look_for_others(&mut self, cell: &str) {
        let complaint = Disturbance::probe().map_or_else(|error| Some(format!("{error:#}")), |seen| seen.complaint());
        if let Some(complaint) = complaint {
            self.note(format!("{} {cell}: {complaint}", self.workload));
        }
    }

    fn measured(&mut self, round: usize, index: usize, measure: impl FnMut(&mut Side) -> Result<Outcome>) -> Turn {
        let broker = self.peers[index].name().to_owned();
        match self.turn(index, measure) {
            Ok(outcome) => {
                let Outcome { mut values, raw } = outcome;
                values.extend(self.sides[index].memory.map(|memory| (MEMORY_BEFORE.to_owned(), memory)));
                Turn { round, broker, values, error: None, raw }
            }
            Err(error) => {
                let (values, raw) = Default::default();
                Turn { round, broker, values, error: Some(format!("{error:#}")), raw }
            }
        }
    }

    /// Thaws one, and freezes it again.
    fn turn<T>(&mut self, index: usize, mut what: impl FnMut(&mut Side) -> Result<T>) -> Result<T> {
        let side = self.sides.get_mut(index).context("it was not started")?;
        side.thaw()?;
        let done = room(&self.place).and_then(|()| {
            side.memory = None;
            what(side)
        });
        side.freeze()?;
        let notes = std::mem::take(&mut side.notes);
        notes.into_iter().for_each(|note| self.note(format!("{}: {note}", self.workload)));
        done
    }
}

/// Waits until deleted topics have left enough room.
fn room(place: &Path) -> Result<()> {
    let deadline = Instant::now() + REMOVAL;
    loop {
        let disk = rustix::fs::statvfs(place)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free >= ROOM {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "only {} GB are free on the disk", free >> 30);
        thread::sleep(Duration::from_secs(1));
    }
}

fn summary(turn: &Turn, figures: &[Figure]) -> String {
    if let Some(error) = &turn.error {
        return format!("{}: FAILED: {error}", turn.broker);
    }
    let shown = figures.iter().filter_map(|figure| {
        let value = turn.values.get(&figure.name)?;
        Some(format!("{} {} {}", figure.name, table::number(*value), figure.unit))
    });
    format!("{}: {}", turn.broker, shown.collect::<Vec<_>>().join(", "))
}
