//! Many connections that have said hello and then nothing more.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;

use super::client::Client;

/// Descriptors that the process needs beside the connections.
const SPARE: u64 = 64;

/// Opens `count` connections, prints a line when all are there, and holds them for `hold`.
pub(super) fn hold(address: &str, count: u64, hold: Duration) -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < count + SPARE) {
        bail!("{count} connections, but this process may only open {:?} files", limit.maximum);
    }
    limit.current = Some(count + SPARE).max(limit.current);
    setrlimit(Resource::Nofile, limit).context("raising the limit of open files")?;

    let began = Instant::now();
    let mut open = Vec::new();
    for number in 0..count {
        let client = Client::open(address).with_context(|| format!("connection {number}"))?;
        open.push(client.into_stream());
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}", json!({ "connections": open.len(), "seconds": began.elapsed().as_secs_f64() }))?;
    out.flush()?;
    thread::sleep(hold);
    Ok(())
}
