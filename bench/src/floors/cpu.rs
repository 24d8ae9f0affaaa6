//! Floors without files and sockets: system calls, wakes, checksums, copies.

use std::hint::black_box;
use std::io::{Read, Write, pipe};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::{Meter, Rate, Wake};
use crate::machine::pin;

/// Nanoseconds of a system call that does nothing.
pub(super) fn syscall(spell: Duration) -> f64 {
    let (meter, mut calls) = (Meter::start(), 0_u32);
    while meter.wall() < spell {
        for _ in 0..1000 {
            black_box(rustix::process::getppid());
        }
        calls += 1000;
    }
    meter.cpu().as_nanos() as f64 / f64::from(calls)
}

/// A byte to and fro between two threads that sleep meanwhile.
pub(super) fn wake(here: usize, there: usize, spell: Duration) -> Result<Wake> {
    let (mut to_read, mut to_write) = pipe()?;
    let (mut back_read, mut back_write) = pipe()?;
    let echo = thread::spawn(move || -> Result<Duration> {
        pin(there)?;
        let (meter, mut byte) = (Meter::start(), [0]);
        while to_read.read(&mut byte)? == 1 {
            back_write.write_all(&byte)?;
        }
        Ok(meter.cpu())
    });
    // A thread of its own, so that the caller stays unpinned.
    let ask = thread::spawn(move || -> Result<(Duration, Duration, u32)> {
        pin(here)?;
        let (meter, mut rounds) = (Meter::start(), 0);
        while meter.wall() < spell {
            to_write.write_all(&[1])?;
            back_read.read_exact(&mut [0])?;
            rounds += 1;
        }
        Ok((meter.wall(), meter.cpu(), rounds))
    });
    let (wall, cpu, rounds) = ask.join().map_err(|_| anyhow!("a thread died"))??;
    let other = echo.join().map_err(|_| anyhow!("a thread died"))??;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(rounds);
    Ok(Wake { cpu_us: micros(cpu + other) / 2.0, round_trip_us: micros(wall) })
}

pub(super) fn crc32c(size: usize, spell: Duration) -> Rate {
    let bytes = noise(size);
    repeat(size, spell, || {
        black_box(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, black_box(&bytes)));
    })
}

pub(super) fn memcpy(size: usize, spell: Duration) -> Rate {
    let from = noise(size);
    let mut to = vec![0; size];
    repeat(size, spell, || black_box(&mut to).copy_from_slice(black_box(&from)))
}

fn repeat(size: usize, spell: Duration, mut once: impl FnMut()) -> Rate {
    let (meter, mut bytes) = (Meter::start(), 0);
    while meter.wall() < spell {
        for _ in 0..100 {
            once();
        }
        bytes += 100 * size as u64;
    }
    meter.rate(bytes)
}

fn noise(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..size).map(|_| random.u8(..)).collect()
}
