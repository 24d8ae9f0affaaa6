//! Floors of the loopback: what it costs to receive, to receive and keep, and to send what is kept.
//!
//! Sender and receiver run where the system puts them, as brokers and clients do.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use anyhow::{Result, anyhow, ensure};
use rustix::net::{RecvFlags, recv};

use super::disk::{filled, nameless};
use super::{Meter, Rate};

/// What the other side sends or asks for at once; large, so that it is the faster one.
const PIECE: usize = 1 << 20;

pub(super) fn receive(size: usize, total: u64) -> Result<Rate> {
    from_a_sender(size, total, |_| Ok(()))
}

pub(super) fn receive_and_write(directory: &Path, size: usize, total: u64) -> Result<Rate> {
    let mut file = nameless(directory)?;
    from_a_sender(size, total, |bytes| Ok(file.write_all(bytes)?))
}

pub(super) fn sendfile(directory: &Path, size: usize, total: u64) -> Result<Rate> {
    let file = filled(directory, total)?;
    let (here, there) = connection()?;
    let reader = thread::spawn(move || discard(&there));
    let meter = Meter::start();
    let mut offset = 0;
    while offset < total {
        let sent = rustix::fs::sendfile(&here, &file, Some(&mut offset), size)?;
        ensure!(sent > 0, "the file is shorter than it was");
    }
    let rate = meter.rate(total);
    drop(here);
    ensure!(reader.join().map_err(|_| anyhow!("a thread died"))?? == total, "bytes are missing");
    Ok(rate)
}

fn from_a_sender(size: usize, total: u64, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<Rate> {
    let (mut here, mut there) = connection()?;
    let sender = thread::spawn(move || -> Result<()> {
        let piece = vec![0x5a; PIECE];
        for _ in 0..total / PIECE as u64 {
            there.write_all(&piece)?;
        }
        Ok(())
    });
    let (meter, mut buffer, mut received) = (Meter::start(), vec![0; size], 0);
    loop {
        let length = here.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        take(&buffer[..length])?;
        received += length as u64;
    }
    let rate = meter.rate(received);
    sender.join().map_err(|_| anyhow!("a thread died"))??;
    ensure!(received == total, "bytes are missing");
    Ok(rate)
}

/// Reads until the end without copying anything.
fn discard(stream: &TcpStream) -> Result<u64> {
    // With TRUNC nothing is written into it, but its length counts.
    let mut buffer = vec![0; PIECE];
    let mut total = 0;
    loop {
        match recv(stream, buffer.as_mut_slice(), RecvFlags::TRUNC)?.1 {
            0 => return Ok(total),
            length => total += length as u64,
        }
    }
}

pub(super) fn connection() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let here = TcpStream::connect(listener.local_addr()?)?;
    let (there, _) = listener.accept()?;
    Ok((here, there))
}
