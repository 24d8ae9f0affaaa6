//! What a process costs, out of `/proc`: CPU to the nanosecond, memory, and what the whole machine did meanwhile.
//!
//! Nothing is started here (that is `peer`), and nothing judged.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// CPU time of a process since it began, all threads together.
///
/// The scheduler's own nanoseconds of the threads that live, or the clock ticks of the process where they are more:
/// only those include threads that have ended.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let mut living = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("no process {pid}"))? {
        // A thread may end between its name and its file.
        if let Ok(line) = fs::read_to_string(thread?.path().join("schedstat")) {
            living += on_cpu(&line)?;
        }
    }
    Ok(living.max(ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?)?))
}

/// The same of several together.
pub(crate) fn cpu_of(pids: &[u32]) -> Result<Duration> {
    pids.iter().map(|pid| cpu(*pid)).sum()
}

/// CPU time of the thread that calls.
pub(crate) fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// How long all CPUs together were busy since the machine started; what others took from it is not counted.
pub(crate) fn system_busy() -> Result<Duration> {
    busy_ticks(&fs::read_to_string("/proc/stat")?)
}

/// Memory that is the process's own, in bytes: not the file pages it maps, which are page cache.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(kilobytes(&status, "RssAnon:")? + kilobytes(&status, "RssShmem:")?)
}

/// The most that was resident since [`forget_peak`], in bytes. The kernel keeps this one with file pages only.
pub(crate) fn peak_resident(pid: u32) -> Result<u64> {
    kilobytes(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmHWM:")
}

/// Begins the search for the peak of resident memory anew.
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the peak of resident memory cannot be reset")
}

/// What a broker and the machine did between two moments.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Usage {
    pub(crate) seconds: f64,
    pub(crate) broker_cpu_s: f64,
    pub(crate) system_busy_s: f64,
    /// As [`peak_resident`] has it.
    pub(crate) peak_rss_bytes: u64,
}

/// A stretch of time over which a process is watched.
#[derive(Debug)]
pub(crate) struct Window {
    pid: u32,
    began: Instant,
    broker: Duration,
    system: Duration,
}

impl Window {
    pub(crate) fn open(pid: u32) -> Result<Window> {
        forget_peak(pid)?;
        Ok(Window { pid, broker: cpu(pid)?, system: system_busy()?, began: Instant::now() })
    }

    pub(crate) fn close(self) -> Result<Usage> {
        let seconds = self.began.elapsed().as_secs_f64();
        Ok(Usage {
            seconds,
            broker_cpu_s: cpu(self.pid)?.saturating_sub(self.broker).as_secs_f64(),
            system_busy_s: system_busy()?.saturating_sub(self.system).as_secs_f64(),
            peak_rss_bytes: peak_resident(self.pid)?,
        })
    }
}

/// The first number of a `schedstat` file.
fn on_cpu(line: &str) -> Result<Duration> {
    let first = line.split_whitespace().next().context("an empty schedstat")?;
    Ok(Duration::from_nanos(first.parse()?))
}

/// User and system time in a `stat` file of a process.
fn ticks(stat: &str) -> Result<Duration> {
    in_ticks(after_name(stat)?.skip(11).take(2))
}

/// The fields after the program's name, which comes in parentheses and may have spaces and parentheses in it.
fn after_name(stat: &str) -> Result<impl Iterator<Item = &str>> {
    let (_, fields) = stat.rsplit_once(')').context("no program in stat")?;
    Ok(fields.split_whitespace())
}

/// The line of all CPUs in `/proc/stat`, without the columns `idle`, `iowait` and those from `steal` on.
fn busy_ticks(stat: &str) -> Result<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).context("no line of all CPUs")?;
    let columns = line.split_whitespace().enumerate().filter(|(column, _)| [0, 1, 2, 5, 6].contains(column));
    in_ticks(columns.map(|(_, field)| field))
}

fn in_ticks<'a>(fields: impl Iterator<Item = &'a str>) -> Result<Duration> {
    let mut ticks: u64 = 0;
    for field in fields {
        ticks += field.parse::<u64>()?;
    }
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

fn kilobytes(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "31864 (a (b) c) S 1 31864 16109 0 -1 4194304 103 0 0 0 150 50 7 3 20 0 1 0 2230072 3133440 418";

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let tick = Duration::from_millis(1000 / rustix::param::clock_ticks_per_second());
        assert_eq!(ticks(STAT).unwrap(), tick * 200);
    }

    #[test]
    fn idle_and_waiting_are_not_busy() {
        let tick = Duration::from_millis(1000 / rustix::param::clock_ticks_per_second());
        let stat = "cpu  1 10 100 99999 99999 1000 10000 7 7 7\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_ticks(stat).unwrap(), tick * 11_111);
    }

    #[test]
    fn memory_is_read_by_its_name() {
        let status = "VmHWM:\t   20480 kB\nRssAnon:\t    1024 kB\nRssFile:\t  2048 kB\nRssShmem:\t       0 kB\n";
        assert_eq!(kilobytes(status, "VmHWM:").unwrap(), 20 << 20);
        assert_eq!(kilobytes(status, "RssAnon:").unwrap(), 1 << 20);
        assert!(kilobytes(status, "VmSwap:").is_err());
    }

    #[test]
    fn cpu_of_threads_that_ended_stays_counted() {
        let me = std::process::id();
        let before = cpu(me).unwrap();
        std::thread::spawn(|| {
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(200) {}
        })
        .join()
        .unwrap();
        assert!(cpu(me).unwrap() > before);
    }

    #[test]
    fn a_window_sees_what_the_process_did() {
        let window = Window::open(std::process::id()).unwrap();
        let mut memory = vec![0_u8; 32 << 20];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        drop(std::hint::black_box(memory));
        let usage = window.close().unwrap();
        assert!(usage.broker_cpu_s > 0.0, "{usage:?}");
        assert!(usage.peak_rss_bytes > 32 << 20, "{usage:?}");
        assert!(usage.peak_rss_bytes > resident(std::process::id()).unwrap(), "{usage:?}");
    }
}
