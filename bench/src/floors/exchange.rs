//! The floor of small requests: what is left of a broker that receives one, appends it and answers, and knows nothing
//! else. Requests and answers are as large as P3's.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::disk::nameless;
use super::network::connection;
use super::{Exchange, Meter, percentile};

const REQUEST: usize = 216;
/// Of which are a record batch.
const BATCH: usize = 158;
const ANSWER: usize = 52;

/// One request in flight on each connection; either side is one thread.
pub(super) fn exchange(directory: &Path, connections: usize, spell: Duration) -> Result<Exchange> {
    let file = nameless(directory)?;
    let pairs: Vec<_> = (0..connections).map(|_| connection()).collect::<Result<_>>()?;
    let (asking, answering): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let server = thread::spawn(move || answer(Ready::new(answering)?, &file));
    let meter = Meter::start();
    let mut took = ask(Ready::new(asking)?, spell)?;
    let per_s = took.len() as f64 / meter.wall().as_secs_f64();
    let cpu = server.join().map_err(|_| anyhow!("a thread died"))??;
    took.sort_by(f64::total_cmp);
    let cpu_us = cpu.as_secs_f64() * 1e6 / took.len() as f64;
    Ok(Exchange { cpu_us, p50_us: percentile(&took, 50), p99_us: percentile(&took, 99), per_s })
}

/// Until all have hung up; the CPU it took.
fn answer(mut ready: Ready, file: &File) -> Result<Duration> {
    let (meter, mut open, mut end) = (Meter::start(), ready.connections.len(), 0);
    let mut request = [0; REQUEST];
    while open > 0 {
        ready.each(|_, mut connection| {
            let length = connection.read(&mut request)?;
            if length == 0 {
                open -= 1;
                return Ok(false);
            }
            connection.read_exact(&mut request[length..])?;
            file.write_all_at(&request[REQUEST - BATCH..], end)?;
            end += BATCH as u64;
            connection.write_all(&request[..ANSWER])?;
            Ok(true)
        })?;
    }
    Ok(meter.cpu())
}

/// How long each answer took, in microseconds.
fn ask(mut ready: Ready, spell: Duration) -> Result<Vec<f64>> {
    let request = [0x5a; REQUEST];
    let began = Instant::now();
    let mut sent = Vec::new();
    for mut connection in &ready.connections {
        sent.push(Instant::now());
        connection.write_all(&request)?;
    }
    let (mut took, mut waiting, mut buffer) = (Vec::new(), sent.len(), [0; ANSWER]);
    while waiting > 0 {
        ready.each(|index, mut connection| {
            connection.read_exact(&mut buffer)?;
            let now = Instant::now();
            took.push((now - sent[index]).as_secs_f64() * 1e6);
            if now - began > spell {
                waiting -= 1;
                return Ok(true);
            }
            sent[index] = now;
            Ok(connection.write_all(&request).map(|()| true)?)
        })?;
    }
    ensure!(took.len() > sent.len(), "nothing was answered in {spell:?}");
    Ok(took)
}

/// Connections, and which of them have something to be read.
struct Ready {
    epoll: OwnedFd,
    connections: Vec<TcpStream>,
    events: Vec<Event>,
}

impl Ready {
    fn new(connections: Vec<TcpStream>) -> Result<Ready> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        for (index, connection) in connections.iter().enumerate() {
            connection.set_nodelay(true)?;
            epoll::add(&epoll, connection, EventData::new_u64(index as u64), EventFlags::IN)?;
        }
        let events = Vec::with_capacity(connections.len());
        Ok(Ready { epoll, connections, events })
    }

    /// Waits for some, and serves those; whichever returns false is not looked at again.
    fn each(&mut self, mut serve: impl FnMut(usize, &TcpStream) -> Result<bool>) -> Result<()> {
        epoll::wait(&self.epoll, spare_capacity(&mut self.events), None)?;
        for event in self.events.drain(..) {
            let index = event.data.u64() as usize;
            let connection = &self.connections[index];
            if !serve(index, connection)? {
                epoll::delete(&self.epoll, connection)?;
            }
        }
        Ok(())
    }
}
