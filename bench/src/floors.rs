//! What the machine can do at best: the primitives that every broker's work is made of, measured before each series.
//!
//! A figure of a broker beside its floor can be compared across days and machines. Where each is measured: `floors/`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::machine::{Steady, backed_speed, cpus, settle};
use crate::process::thread_cpu;

mod cpu;
mod disk;
mod exchange;
mod network;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where files are written; on the disk that a broker's data would lie on
    #[arg(long, value_name = "DIR", default_value = "target")]
    data: PathBuf,
    /// In a few seconds; the figures wander more
    #[arg(long)]
    quick: bool,
    /// Print one JSON object instead of the lines
    #[arg(long)]
    json: bool,
}

/// `ottla-bench floors`.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    crate::namespace::enter()?;
    let _steady = Steady::keep();
    let floors = Floors::measure(&arguments.data, arguments.quick)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&floors)?);
    } else {
        floors.lines().iter().for_each(|line| println!("{line}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Bytes for CPU and for time, of the side named.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Rate {
    pub(crate) gb_per_cpu_s: f64,
    pub(crate) gb_per_s: f64,
}

/// What one wake of a thread by another costs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Wake {
    /// CPU of both sides, for one wake.
    pub(crate) cpu_us: f64,
    pub(crate) round_trip_us: f64,
}

/// A write that is on the disk.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sync {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) cpu_us: f64,
}

/// A small request that is received, appended to a file and answered.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Exchange {
    /// Of the side that answers, for one request.
    pub(crate) cpu_us: f64,
    /// From the request to its answer, with one in flight on each connection.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) per_s: f64,
}

/// All of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Floors {
    /// `getppid` in a loop.
    pub(crate) syscall_ns: f64,
    /// A byte through a pipe and one back, both threads on one CPU.
    pub(crate) wake_same_cpu: Wake,
    /// The same, each thread on its own CPU. None where there is only one.
    pub(crate) wake_other_cpu: Option<Wake>,
    /// CRC32C over the same 16 KiB again and again, as the broker computes it.
    pub(crate) crc32c_16k: Rate,
    /// A copy of 16 KiB that stay in the nearest cache.
    pub(crate) memcpy_16k: Rate,
    /// A copy of 256 KiB.
    pub(crate) memcpy_256k: Rate,
    /// Reading what arrives over the loopback, at most 1 MiB at once, into one buffer; the reader's CPU.
    pub(crate) receive_1m: Rate,
    /// At most 16 KiB at once.
    pub(crate) receive_16k: Rate,
    /// The same, each read written to the end of a file.
    pub(crate) receive_write_1m: Rate,
    pub(crate) receive_write_16k: Rate,
    /// Sending a file that is in the page cache with `sendfile`, 1 MiB at once; the sender's CPU. The reader discards.
    pub(crate) sendfile_1m: Rate,
    /// 16 KiB at once.
    pub(crate) sendfile_16k: Rate,
    /// Writing 16 KiB at once to the end of a file that grows, without any sync.
    pub(crate) append_16k: Rate,
    /// Appending 4 KiB to a file that grows, and `fdatasync`.
    pub(crate) sync_4k: Sync,
    /// 216 bytes there and 52 back, of which 158 are appended, over one connection.
    pub(crate) exchange_1: Exchange,
    /// Over 16 at once.
    pub(crate) exchange_16: Exchange,
    pub(crate) exchange_256: Exchange,
}

/// A primitive that writes, on memory that the host has not taken back: as the loads are measured.
fn backed(
    primitive: fn(&Path, usize, u64) -> Result<Rate>,
    directory: &Path,
    write: usize,
    bytes: u64,
) -> Result<Rate> {
    // What is received comes in pieces of any size: whole pages would come from another list.
    settle(directory, 2 * bytes, write - write / 16 - 1, backed_speed(None))?;
    primitive(directory, write, bytes)
}

impl Floors {
    /// Measures them with files in `directory`. `quick` takes a few seconds, and its figures wander more.
    pub(crate) fn measure(directory: &Path, quick: bool) -> Result<Floors> {
        let (spell, bytes) =
            if quick { (Duration::from_millis(200), 256 << 20) } else { (Duration::from_secs(1), 2 << 30) };
        let cpus = cpus()?;
        let first = cpus.first().copied().unwrap_or_default();
        Ok(Floors {
            syscall_ns: cpu::syscall(spell),
            wake_same_cpu: cpu::wake(first, first, spell)?,
            wake_other_cpu: cpus.get(1).map(|&second| cpu::wake(first, second, spell)).transpose()?,
            crc32c_16k: cpu::crc32c(16 << 10, spell),
            memcpy_16k: cpu::memcpy(16 << 10, spell),
            memcpy_256k: cpu::memcpy(256 << 10, spell),
            receive_1m: network::receive(1 << 20, bytes)?,
            receive_16k: network::receive(16 << 10, bytes)?,
            receive_write_1m: backed(network::receive_and_write, directory, 1 << 20, bytes)?,
            receive_write_16k: backed(network::receive_and_write, directory, 16 << 10, bytes)?,
            sendfile_1m: network::sendfile(directory, 1 << 20, bytes)?,
            sendfile_16k: network::sendfile(directory, 16 << 10, bytes)?,
            append_16k: backed(disk::append, directory, 16 << 10, bytes)?,
            sync_4k: disk::sync(directory, 4 << 10, spell * 2)?,
            exchange_1: exchange::exchange(directory, 1, spell)?,
            exchange_16: exchange::exchange(directory, 16, spell)?,
            exchange_256: exchange::exchange(directory, 256, spell)?,
        })
    }

    /// One line for each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let rate = |name: &str, Rate { gb_per_cpu_s, gb_per_s }: Rate| {
            format!("{name:<40} {gb_per_cpu_s:>8.2} GB/cpu-s {gb_per_s:>8.2} GB/s")
        };
        let wake = |name: &str, Wake { cpu_us, round_trip_us }: Wake| {
            format!("{name:<40} {cpu_us:>8.2} us CPU   {round_trip_us:>8.2} us round trip")
        };
        let exchange = |name: &str, Exchange { cpu_us, p50_us, p99_us, per_s }: Exchange| {
            format!("{name:<40} {cpu_us:>8.2} us CPU   {p50_us:>8.1} us p50 {p99_us:>8.1} us p99 {per_s:>8.0} /s")
        };
        let mut lines = vec![
            format!("{:<40} {:>8.0} ns", "system call", self.syscall_ns),
            wake("wake, same CPU", self.wake_same_cpu),
        ];
        lines.extend(self.wake_other_cpu.map(|other| wake("wake, other CPU", other)));
        lines.extend([
            rate("CRC32C, 16 KiB", self.crc32c_16k),
            rate("copy in memory, 16 KiB", self.memcpy_16k),
            rate("copy in memory, 256 KiB", self.memcpy_256k),
            rate("receive, 1 MiB", self.receive_1m),
            rate("receive, 16 KiB", self.receive_16k),
            rate("receive and append, 1 MiB", self.receive_write_1m),
            rate("receive and append, 16 KiB", self.receive_write_16k),
            rate("sendfile, 1 MiB", self.sendfile_1m),
            rate("sendfile, 16 KiB", self.sendfile_16k),
            rate("append, 16 KiB", self.append_16k),
            format!(
                "{:<40} {:>8.0} us p50   {:>8.0} us p99 {:>8.1} us CPU",
                "append 4 KiB and sync", self.sync_4k.p50_us, self.sync_4k.p99_us, self.sync_4k.cpu_us
            ),
            exchange("small requests, 1 connection", self.exchange_1),
            exchange("small requests, 16 connections", self.exchange_16),
            exchange("small requests, 256 connections", self.exchange_256),
        ]);
        lines
    }
}

/// Time, and CPU of the thread that looks.
#[derive(Clone, Copy, Debug)]
struct Meter {
    began: Instant,
    cpu: Duration,
}

impl Meter {
    fn start() -> Meter {
        Meter { cpu: thread_cpu(), began: Instant::now() }
    }

    fn wall(&self) -> Duration {
        self.began.elapsed()
    }

    fn cpu(&self) -> Duration {
        thread_cpu().saturating_sub(self.cpu)
    }

    fn rate(&self, bytes: u64) -> Rate {
        let gigabytes = bytes as f64 / 1e9;
        Rate { gb_per_s: gigabytes / self.wall().as_secs_f64(), gb_per_cpu_s: gigabytes / self.cpu().as_secs_f64() }
    }
}

/// Of values in order, of which there is at least one.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[sorted.len() * percent / 100]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_floor_is_a_number_above_nothing() {
        let place = tempfile::tempdir().unwrap();
        let floors = Floors::measure(place.path(), true).unwrap();
        let json = serde_json::to_value(&floors).unwrap();
        let mut open = vec![&json];
        while let Some(value) = open.pop() {
            match value {
                serde_json::Value::Object(fields) => open.extend(fields.values()),
                serde_json::Value::Number(number) => assert!(number.as_f64().unwrap() > 0.0, "{json}"),
                other => assert!(other.is_null(), "{json}"),
            }
        }
        assert!(floors.lines().len() >= 16);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "files are left");
    }
}
