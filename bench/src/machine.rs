//! The machine under the measurement: who else is on it, which files are in its memory, and how its CPUs idle.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rustix::fs::{Advice, fadvise, fdatasync};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

use crate::process::{system_busy, thread_cpu};

/// How long the machine is looked at, once idle and once spinning.
const LOOK: Duration = Duration::from_millis(200);
/// A spinning thread that saw no time for longer was not on the CPU.
const GAP: Duration = Duration::from_micros(20);
/// Memory that is there is written to at this part at least of the speed that the machine's floor has for it, or a
/// usual machine's; memory that the host has to give again is several times slower.
const BACKED_OF_FLOOR: f64 = 0.6;
/// Where a series has that floor.
pub(crate) const APPEND_FLOOR: &str = "/append_16k/gb_per_cpu_s";
const USUAL_GB_PER_CPU_S: f64 = 3.3;
/// So often memory is written over until it is there.
const PASSES: usize = 6;
/// What others may take before a measurement says nothing.
const TOLERATED: f64 = 0.05;
/// What of a virtual machine is set otherwise while something is measured, and what a reader should know of it.
const STEADY: [Setting; 4] = [
    Setting {
        path: "/sys/module/haltpoll/parameters/guest_halt_poll_ns",
        value: "200000",
        note: Some(
            "idle CPUs poll for 200 µs before they halt, as `guest_halt_poll_ns` has it; to wake one takes no \
             hypervisor then",
        ),
    },
    Setting {
        path: "/sys/module/page_reporting/parameters/page_reporting_order",
        value: "10",
        note: Some("the host takes free memory back late, and none but in large pieces (`page_reporting_order`)"),
    },
    Setting { path: "/sys/module/page_reporting/parameters/max_waiting_mib", value: "65536", note: None },
    Setting { path: "/sys/module/page_reporting/parameters/min_free_ms", value: "60000", note: None },
];

struct Setting {
    path: &'static str,
    value: &'static str,
    note: Option<&'static str>,
}

/// What others took of the machine while nothing of ours ran: asked before and after each measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Disturbance {
    /// CPU that other processes used, of all there is.
    pub(crate) foreign: f64,
    /// Time for which a spinning thread stood still, of the whole: other processes, interrupts, and what the host took,
    /// which shows nowhere else.
    pub(crate) stolen: f64,
    /// The longest time for which one stood still.
    pub(crate) longest_gap_us: f64,
}

impl Disturbance {
    /// To be called while every broker is frozen.
    pub(crate) fn probe() -> Result<Disturbance> {
        let cpus = cpus()?;
        let (before, began) = (system_busy()?, Instant::now());
        thread::sleep(LOOK);
        let busy = system_busy()?.saturating_sub(before).as_secs_f64();
        let foreign = busy / (began.elapsed().as_secs_f64() * cpus.len() as f64);

        let spinning: Vec<_> = cpus.iter().map(|&cpu| thread::spawn(move || spin(cpu))).collect();
        let (mut lost, mut longest) = (Duration::ZERO, Duration::ZERO);
        for thread in spinning {
            let (all, one) = thread.join().map_err(|_| anyhow!("a spinning thread died"))??;
            lost += all;
            longest = longest.max(one);
        }
        let stolen = lost.as_secs_f64() / (LOOK.as_secs_f64() * cpus.len() as f64);
        Ok(Disturbance { foreign, stolen, longest_gap_us: longest.as_secs_f64() * 1e6 })
    }

    /// Why what was measured beside it is worth nothing.
    pub(crate) fn complaint(&self) -> Option<String> {
        let Disturbance { foreign, stolen, .. } = self;
        (*foreign > TOLERATED || *stolen > TOLERATED).then(|| {
            format!("others took {:.0} % of the CPUs, and spinning lost {:.0} %", foreign * 100.0, stolen * 100.0)
        })
    }
}

/// The CPUs this process may run on.
pub(crate) fn cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Keeps the thread that calls on one CPU.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// How long a thread that never sleeps did not run: all in all, and at most.
fn spin(cpu: usize) -> Result<(Duration, Duration)> {
    pin(cpu)?;
    let (mut lost, mut longest) = (Duration::ZERO, Duration::ZERO);
    let began = Instant::now();
    let mut last = began;
    while last - began < LOOK {
        let now = Instant::now();
        let gap = now - last;
        if gap > GAP {
            lost += gap;
            longest = longest.max(gap);
        }
        last = now;
    }
    Ok((lost, longest))
}

/// A virtual machine that does not turn to its host in the middle of a measurement, until this is dropped. A CPU that
/// halts is woken by way of the hypervisor, which costs ten times what a wake costs on a machine of its own, and so
/// does memory that the host has taken back: neither is a broker's doing.
#[derive(Debug)]
pub(crate) struct Steady {
    /// The files that could be set, and what was in them, the last first.
    before: Vec<(PathBuf, String)>,
    /// What somebody who reads the figures should know.
    pub(crate) notes: Vec<String>,
}

impl Steady {
    /// Leaves out what the system does not have, or not for us.
    pub(crate) fn keep() -> Steady {
        Steady::with(STEADY.map(|setting| (PathBuf::from(setting.path), setting.value, setting.note)))
    }

    fn with<'a>(settings: impl IntoIterator<Item = (PathBuf, &'a str, Option<&'a str>)>) -> Steady {
        let mut steady = Steady { before: Vec::new(), notes: Vec::new() };
        for (path, value, note) in settings {
            let Ok(before) = fs::read_to_string(&path) else { continue };
            if fs::write(&path, value).is_ok() {
                steady.before.insert(0, (path, before));
                steady.notes.extend(note.map(str::to_owned));
            }
        }
        steady
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        for (path, before) in &self.before {
            if let Err(error) = fs::write(path, before.trim()) {
                eprintln!("{} stays as it is: {error}", path.display());
            }
        }
    }
}

/// Leaves the memory and the disk as every load finds them: nothing waits to be written, and `bytes` of free memory are
/// memory of this machine. A host takes back what its guest has freed, and to be given it again costs ten times what
/// writing to it does: a broker that meets such pages is measured with its host. What is written and removed over and
/// over stays, and the next to write gets it, if it writes alike: pages for large and for small writes, and for writes
/// that end within a page, come from different lists of the kernel's. Hence `write`, the bytes of one write. It is done
/// once that goes at `enough` gigabytes a CPU-second; returns what it went at in the end.
pub(crate) fn settle(place: &Path, bytes: u64, write: usize, enough: f64) -> Result<f64> {
    rustix::fs::sync();
    let scratch = place.join("scratch");
    let chunk = vec![1; write];
    let mut speed = 0.0;
    for _ in 0..PASSES {
        let before = thread_cpu();
        let mut file = File::create(&scratch)?;
        for _ in 0..bytes / chunk.len() as u64 {
            file.write_all(&chunk)?;
        }
        speed = bytes as f64 / 1e9 / thread_cpu().saturating_sub(before).as_secs_f64();
        // Before it is written to the disk.
        fs::remove_file(&scratch)?;
        if speed >= enough {
            break;
        }
    }
    Ok(speed)
}

/// Gigabytes a CPU-second at which memory that is there is written to, by the floor of appending.
pub(crate) fn backed_speed(append_floor: Option<f64>) -> f64 {
    BACKED_OF_FLOOR * append_floor.unwrap_or(USUAL_GB_PER_CPU_S)
}

/// Takes a file, or every file below a directory, out of the page cache; for a read that is cold.
pub(crate) fn drop_cached(path: &Path) -> Result<()> {
    each_file(path, &mut |file| {
        // What is dirty stays.
        fdatasync(&file)?;
        Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
    })
}

/// Files that lie on the disk whole, held open so that they are out of the page cache with little effort.
pub(crate) struct Cold(Vec<File>);

impl Cold {
    /// How often files are dropped that are read meanwhile: a reader that begins again finds nothing of its last pass.
    const AGAIN: Duration = Duration::from_millis(100);

    pub(crate) fn new(files: &[PathBuf]) -> Result<Cold> {
        let files: Vec<_> = files.iter().map(File::open).collect::<Result<_, _>>()?;
        files.iter().try_for_each(fdatasync)?;
        Ok(Cold(files))
    }

    /// Drops them over and over while `what` goes on.
    pub(crate) fn keep<T>(&self, what: impl FnOnce() -> T) -> Result<T> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let dropper = scope.spawn(|| -> Result<()> {
                while !over.load(Ordering::Relaxed) {
                    self.0.iter().try_for_each(|file| fadvise(file, 0, None, Advice::DontNeed))?;
                    thread::sleep(Self::AGAIN);
                }
                Ok(())
            });
            let done = what();
            over.store(true, Ordering::Relaxed);
            dropper.join().map_err(|_| anyhow!("a thread died"))??;
            Ok(done)
        })
    }
}

/// Reads them all, for a read that is warm: idle page cache does not stay by itself on machines that give it back.
pub(crate) fn warm(path: &Path) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    each_file(path, &mut |mut file| {
        while file.read(&mut buffer)? > 0 {}
        Ok(())
    })
}

fn each_file(path: &Path, visit: &mut impl FnMut(File) -> Result<()>) -> Result<()> {
    if !path.is_dir() {
        return visit(File::open(path)?);
    }
    for entry in fs::read_dir(path)? {
        each_file(&entry?.path(), visit)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_sees_a_machine_that_is_taken() {
        let cpu = cpus().unwrap()[0];
        let (lost, longest) = spin(cpu).unwrap();
        assert!(longest <= lost && lost <= Duration::from_secs(60));
        let disturbed = Disturbance { foreign: 0.06, stolen: 0.0, longest_gap_us: 0.0 };
        assert!(disturbed.complaint().is_some());
        let quiet = Disturbance { foreign: 0.04, stolen: 0.04, longest_gap_us: 900.0 };
        assert!(quiet.complaint().is_none());
    }

    #[test]
    fn settings_are_afterwards_what_they_were_before() {
        let place = tempfile::tempdir().unwrap();
        let (there, missing) = (place.path().join("there"), place.path().join("missing"));
        fs::write(&there, "7\n").unwrap();
        let settings = [(there.clone(), "9", Some("nine")), (missing.clone(), "9", Some("not said"))];
        let steady = Steady::with(settings);
        assert_eq!(fs::read_to_string(&there).unwrap(), "9");
        assert_eq!(steady.notes, ["nine"]);
        drop(steady);
        assert_eq!(fs::read_to_string(&there).unwrap(), "7");
        assert!(!missing.exists());
    }

    #[test]
    fn a_tree_of_files_is_dropped_and_warmed() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("below")).unwrap();
        fs::write(place.path().join("below/file"), vec![7; 3 << 20]).unwrap();
        drop_cached(place.path()).unwrap();
        warm(place.path()).unwrap();
        assert!(warm(&place.path().join("none")).is_err());
    }
}
