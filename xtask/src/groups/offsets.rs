//! `cargo xtask groups --offsets`: a day's worth of commits, and what the offsets topic takes afterwards.
//!
//! One group commits 200 partitions every five seconds of a day, all of it as fast as the broker answers. What is left
//! of the topic has to be the last commit of each partition and the segment that is still being written; and the
//! broker has to know them all when it comes back from `kill -9`.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::broker::{Subject, free_address, until};
use crate::wire::{CallError, Connection};

const TOPIC: &str = "day";
const GROUP: &str = "day";
const OFFSETS_TOPIC: &str = "__consumer_offsets";
const PARTITIONS: i32 = 200;
/// A commit every five seconds for a day.
const COMMITS: i64 = 24 * 60 * 60 / 5;
/// The smallest that Kafka allows.
const SEGMENT: u64 = 1 << 20;
/// A committed offset in a batch of its own is smaller than this, key and value.
const LIVE_RECORD: u64 = 256;
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the cleaner may take after the last commit.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at the size, in commits and in time.
const LOOK_EVERY: i64 = 500;
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub(super) fn run(subject: &Subject, options: &[String]) -> Result<ExitCode> {
    let place = std::env::temp_dir().join(format!("ottla-offsets-{}", std::process::id()));
    fs::create_dir_all(&place)?;
    let mut settings =
        vec!["offsets.topic.num.partitions=1".to_owned(), format!("offsets.topic.segment.bytes={SEGMENT}")];
    settings.extend_from_slice(options);
    let (data, log, address) = (place.join("data"), place.join("broker.log"), free_address()?);
    let broker = subject.start(&data, address, &settings, &log)?;
    let mut connection = Connection::open(address, CALL_TIMEOUT)?;
    connection.create_topic(TOPIC, PARTITIONS, &[])?;
    ready(&mut connection)?;

    let began = Instant::now();
    let mut largest = 0;
    for commit in 1..=COMMITS {
        connection.commit(GROUP, TOPIC, &all_at(commit))?;
        if commit % LOOK_EVERY == 0 {
            largest = size(&mut connection)?.max(largest);
        }
    }
    let spent = began.elapsed();
    let (count, seconds) = (COMMITS * i64::from(PARTITIONS), spent.as_secs_f64());
    println!("{count} offsets in {COMMITS} commits: {seconds:.0} s, {:.0} offsets/s", count as f64 / seconds);
    println!("largest size of the offsets topic meanwhile: {largest} bytes");

    let live = u64::from(PARTITIONS.unsigned_abs()) * LIVE_RECORD;
    let limit = SEGMENT + live;
    let began = Instant::now();
    let mut left = size(&mut connection)?;
    let small = until(PATIENCE, || {
        std::thread::sleep(LOOK_AGAIN);
        left = size(&mut connection)?;
        Ok(left <= limit)
    })?;
    println!(
        "{left} bytes {:.1} s after the last commit, at most {limit} expected: {PARTITIONS} live keys and one segment",
        began.elapsed().as_secs_f64()
    );
    println!("broker: {:.1} s of CPU in all", broker.cpu()?.as_secs_f64());

    broker.kill()?;
    let began = Instant::now();
    let broker = subject.start(&data, address, &settings, &log)?;
    let mut connection = Connection::open(address, CALL_TIMEOUT)?;
    ready(&mut connection)?;
    let known = connection.committed(GROUP, TOPIC)?;
    println!("after kill -9: all committed offsets read {:.2} s after the start", began.elapsed().as_secs_f64());
    broker.terminate()?;
    let all_known = known.into_iter().eq(all_at(COMMITS));
    if !all_known {
        println!("and they are not those of the last commit");
    }
    if !small || !all_known {
        println!("the broker's data: {}", place.display());
        return Ok(ExitCode::FAILURE);
    }
    fs::remove_dir_all(&place)?;
    Ok(ExitCode::SUCCESS)
}

fn all_at(offset: i64) -> Vec<(i32, i64)> {
    (0..PARTITIONS).map(|partition| (partition, offset)).collect()
}

/// Waits for a coordinator that has loaded.
fn ready(connection: &mut Connection) -> Result<()> {
    let mut last = None;
    let is_ready = until(PATIENCE, || {
        let answer = connection.find_coordinator(GROUP).and_then(|()| connection.committed(GROUP, TOPIC));
        match answer {
            Ok(_) => return Ok(true),
            Err(CallError::Refused(error)) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
        Ok(false)
    })?;
    if !is_ready {
        bail!("no coordinator within {PATIENCE:?}: {last:?}");
    }
    Ok(())
}

/// What the broker says the offsets topic takes, in bytes.
fn size(connection: &mut Connection) -> Result<u64> {
    Ok(connection.topic_sizes()?.get(OFFSETS_TOPIC).copied().unwrap_or(0))
}
