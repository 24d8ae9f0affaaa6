//! How many syncs a second a disk takes, by the number of files that are written and of threads that ask.
//!
//! The measurement behind `docs/decisions/several-by-one-sync.md`. Run it on the disk in question:
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

use rustix::fs::FallocateFlags;

const TIME: Duration = Duration::from_secs(1);
const FILES: [usize; 4] = [1, 4, 16, 64];
const THREADS: [usize; 6] = [1, 2, 4, 8, 12, 16];
/// A batch of one record of 100 bytes.
const BYTES: usize = 158;
const RESERVED: u64 = 16 << 20;

fn main() -> io::Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    println!("files synced a second, each after a write of {BYTES} bytes; `syncfs` after one to each");
    let threads: String = THREADS.iter().map(|threads| format!(" {threads:>10}")).collect();
    println!("{:>6}{threads} {:>10}", "files", "syncfs");
    for count in FILES {
        let mut row = format!("{count:>6}");
        for threads in THREADS {
            let rate = if threads <= count { Some(side_by_side(Path::new(&dir), count, threads)?) } else { None };
            row += &format!(" {:>10}", rate.map_or_else(|| "-".into(), |rate| format!("{rate:.0}")));
        }
        println!("{row} {:>10.0}", all_at_once(Path::new(&dir), count)?);
    }
    Ok(())
}

/// Each thread writes to its share of the files in turn and syncs what it wrote.
fn side_by_side(dir: &Path, count: usize, threads: usize) -> io::Result<f64> {
    measure(dir, count, |files| {
        thread::scope(|scope| {
            let shares = files.chunks(count.div_ceil(threads));
            let workers: Vec<_> = shares
                .map(|share| {
                    scope.spawn(|| {
                        repeat(|round| {
                            share.iter().try_for_each(|file| write(file, round).and_then(|()| file.sync_data()))?;
                            Ok(share.len())
                        })
                    })
                })
                .collect();
            let ended = workers.into_iter().map(|worker| worker.join().unwrap_or(Err(io::ErrorKind::Other.into())));
            ended.sum()
        })
    })
}

fn all_at_once(dir: &Path, count: usize) -> io::Result<f64> {
    measure(dir, count, |files| {
        repeat(|round| {
            files.iter().try_for_each(|file| write(file, round))?;
            if let Some(file) = files.first() {
                rustix::fs::syncfs(file)?;
            }
            Ok(count)
        })
    })
}

fn write(file: &File, round: u64) -> io::Result<()> {
    file.write_all_at(&[7; BYTES], round * BYTES as u64)
}

/// How many were synced until the time was over.
fn repeat(mut sync: impl FnMut(u64) -> io::Result<usize>) -> io::Result<usize> {
    let (start, mut synced) = (Instant::now(), 0);
    for round in 0.. {
        if start.elapsed() >= TIME {
            break;
        }
        synced += sync(round)?;
    }
    Ok(synced)
}

/// Files of its own for each strategy, with room reserved as the log has it.
fn measure(dir: &Path, count: usize, run: impl Fn(&[File]) -> io::Result<usize>) -> io::Result<f64> {
    let paths: Vec<_> = (0..count).map(|number| dir.join(format!("sync_many.{number}"))).collect();
    let files = paths.iter().map(File::create).collect::<io::Result<Vec<_>>>()?;
    for file in &files {
        rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, RESERVED)?;
        file.sync_all()?;
    }
    let start = Instant::now();
    let synced = run(&files)?;
    let rate = synced as f64 / start.elapsed().as_secs_f64();
    paths.iter().try_for_each(std::fs::remove_file)?;
    Ok(rate)
}
