//! Floors of files: appends to the page cache, and to the disk.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::fs::fdatasync;

use super::{Meter, Rate, Sync, percentile};

/// A file without a name: gone when it is closed, whatever happens.
pub(super) fn nameless(directory: &Path) -> Result<File> {
    let path = directory.join("floor");
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

/// A file with `total` bytes in the page cache.
pub(super) fn filled(directory: &Path, total: u64) -> Result<File> {
    let mut file = nameless(directory)?;
    let piece = vec![0x5a; 1 << 20];
    for _ in 0..total / piece.len() as u64 {
        file.write_all(&piece)?;
    }
    Ok(file)
}

pub(super) fn append(directory: &Path, size: usize, total: u64) -> Result<Rate> {
    let (mut file, piece) = (nameless(directory)?, vec![0x5a; size]);
    let meter = Meter::start();
    for _ in 0..total / size as u64 {
        file.write_all(&piece)?;
    }
    Ok(meter.rate(total))
}

pub(super) fn sync(directory: &Path, size: usize, spell: Duration) -> Result<Sync> {
    let (mut file, piece) = (nameless(directory)?, vec![0x5a; size]);
    let mut took = Vec::new();
    let meter = Meter::start();
    while meter.wall() < spell || took.is_empty() {
        let began = Instant::now();
        file.write_all(&piece)?;
        fdatasync(&file)?;
        took.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let cpu_us = meter.cpu().as_secs_f64() * 1e6 / took.len() as f64;
    took.sort_by(f64::total_cmp);
    Ok(Sync { p50_us: percentile(&took, 50), p99_us: percentile(&took, 99), cpu_us })
}
