//! What the log costs: one append, one read, one open of a clean log. Prints microseconds and bytes per log.
//!
//! `cargo run --profile fast -p ottla-log --example measure [DIR]`

use std::{env, error::Error, path::PathBuf, sync::Arc, time::Instant};

use ottla_log::{Checkpoint, Log, LogConfig, OsDisk, StoredBatch};
use ottla_records::{BatchBuilder, BatchHeader, Compression};
use ottla_types::{LeaderEpoch, Offset, Timestamp};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const LOGS: usize = 10_000;
const APPENDS: u32 = 20_000;

fn batch(size: usize) -> Result<StoredBatch, Box<dyn Error>> {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(NOW, None, Some(&vec![7; size]), &[])?;
    let bytes = builder.build()?;
    Ok(StoredBatch { header: BatchHeader::parse(&bytes)?, bytes, epoch: LeaderEpoch(0) })
}

/// Resident kilobytes of this process, 0 where the system does not say.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = env::args().nth(1).map_or_else(env::temp_dir, PathBuf::from);
    let root = root.join(format!("ottla-measure-{}", std::process::id()));
    let disk: Arc<dyn ottla_log::Disk> = Arc::new(OsDisk::new());
    for size in [80, 1000, 16_000] {
        let dir = root.join(format!("append-{size}"));
        let (mut log, _) = Log::open(Arc::clone(&disk), dir, LogConfig::default(), None, NOW)?;
        let one = [batch(size)?];
        let began = Instant::now();
        for _ in 0..APPENDS {
            log.append(&one, NOW)?;
        }
        let append = began.elapsed();
        let (reader, end) = (log.reader(), log.end());
        let began = Instant::now();
        for number in 0..APPENDS {
            reader.read(Offset(i64::from(end.offset.0 as u32 - 1 - number % 64)), end, 1 << 20, true)?;
        }
        let tail = began.elapsed();
        let began = Instant::now();
        for number in 0..APPENDS {
            reader.read(Offset(i64::from(number.wrapping_mul(7919) % APPENDS)), end, 1 << 20, true)?;
        }
        let anywhere = began.elapsed();
        println!(
            "{size:>6} B: append {:.2} us, plan a read at the tail {:.2} us, anywhere {:.2} us",
            append.as_secs_f64() * 1e6 / f64::from(APPENDS),
            tail.as_secs_f64() * 1e6 / f64::from(APPENDS),
            anywhere.as_secs_f64() * 1e6 / f64::from(APPENDS)
        );
    }
    let mut checkpoints: Vec<Checkpoint> = Vec::with_capacity(LOGS);
    let one = [batch(100)?];
    for number in 0..LOGS {
        let dir = root.join(number.to_string());
        let (mut log, _) = Log::open(Arc::clone(&disk), dir, LogConfig::default(), None, NOW)?;
        log.append(&one, NOW)?;
        log.close_clean()?;
        checkpoints.push(log.checkpoint());
    }
    let before_kb = resident_kb();
    let began = Instant::now();
    let mut logs = Vec::with_capacity(LOGS);
    for (number, checkpoint) in checkpoints.into_iter().enumerate() {
        let dir = root.join(number.to_string());
        logs.push(Log::open(Arc::clone(&disk), dir, LogConfig::default(), Some(checkpoint), NOW)?.0);
    }
    let opened = began.elapsed();
    println!(
        "{LOGS} clean logs: open {:.1} us each, {} B of memory each",
        opened.as_secs_f64() * 1e6 / LOGS as f64,
        resident_kb().saturating_sub(before_kb) * 1024 / LOGS as u64
    );
    drop(logs);
    std::fs::remove_dir_all(root)?;
    Ok(())
}
