//! How to sync N files that were all just written: one after the other, side by side, or with one `syncfs`.
//!
//! The measurement behind `docs/decisions/group-commit.md`. Run it on the disk in question:
//! `cargo run --release -p ottla-log --example sync_many -- DIR`. Not a benchmark of the log; see `measure.rs` for
//! that.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

const ROUNDS: u64 = 200;
const BYTES: usize = 16 << 10;

fn main() -> io::Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    println!("median milliseconds to write {BYTES} bytes to each of N files and sync them all, {ROUNDS} rounds");
    println!("{:>6} {:>10} {:>10} {:>10} {:>10} {:>10}", "N", "1 thread", "2", "4", "8", "syncfs");
    for count in [1, 4, 16, 64] {
        let mut row = format!("{count:>6}");
        for threads in [1, 2, 4, 8] {
            let median = median(Path::new(&dir), count, |files| sync_on(threads, files))?;
            row += &format!(" {:>10.2}", median.as_secs_f64() * 1e3);
        }
        let syncfs = |files: &[File]| files.first().map_or(Ok(()), |file| Ok(rustix::fs::syncfs(file)?));
        let median = median(Path::new(&dir), count, syncfs)?;
        println!("{row} {:>10.2}", median.as_secs_f64() * 1e3);
    }
    Ok(())
}

fn sync_on(threads: usize, files: &[File]) -> io::Result<()> {
    if threads == 1 {
        return files.iter().try_for_each(File::sync_data);
    }
    thread::scope(|scope| {
        let share = files.len().div_ceil(threads);
        let workers: Vec<_> =
            files.chunks(share).map(|files| scope.spawn(|| files.iter().try_for_each(File::sync_data))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())))
    })
}

/// Every strategy gets files of its own: a write that grows a file costs the journal more than one that does not.
fn median(dir: &Path, count: usize, sync: impl Fn(&[File]) -> io::Result<()>) -> io::Result<Duration> {
    let paths: Vec<_> = (0..count).map(|number| dir.join(format!("sync_many.{number}"))).collect();
    let files = paths.iter().map(File::create).collect::<io::Result<Vec<_>>>()?;
    let data = vec![7u8; BYTES];
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let start = Instant::now();
        for file in &files {
            file.write_all_at(&data, round * BYTES as u64)?;
        }
        sync(&files)?;
        times.push(start.elapsed());
    }
    paths.iter().try_for_each(std::fs::remove_file)?;
    times.sort();
    Ok(times[times.len() / 2])
}
