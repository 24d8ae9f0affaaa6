//! The log as a library: append, read at an offset, by time and to the end while somebody writes, then trim.
//!
//! `cargo run -p ottla-log --example follow`

use std::{error::Error, sync::Arc, thread, time::Duration};

use ottla_log::{Log, LogConfig, OsDisk, StoredBatch};
use ottla_records::{BatchBuilder, BatchHeader, Compression, Decompress, records};
use ottla_types::{LeaderEpoch, Offset, Timestamp};

fn batch(at: Timestamp, values: &[&str]) -> Result<StoredBatch, Box<dyn Error>> {
    let mut builder = BatchBuilder::new(Compression::Lz4, None);
    for value in values {
        builder.push(at, None, Some(value.as_bytes()), &[])?;
    }
    let bytes = builder.build()?;
    Ok(StoredBatch { header: BatchHeader::parse(&bytes)?, bytes, epoch: LeaderEpoch(0) })
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("ottla-follow-{}", std::process::id()));
    let now = Timestamp(1_700_000_000_000);
    let (mut log, _) = Log::open(Arc::new(OsDisk::new()), dir.clone(), LogConfig::default(), None, now)?;

    // A reader in another thread follows the end: no lock is shared with the writer.
    let mut follow = log.reader().follow(Offset::ZERO);
    let follower = thread::spawn(move || {
        let mut seen = 0;
        while let Ok(Some((header, batch))) = follow.next(Duration::from_millis(500)) {
            let Ok(records) = records(&header, &batch, Decompress { max_bytes: 1 << 20 }) else { break };
            for record in records.flatten() {
                println!("followed {}: {:?}", record.offset, record.value);
                seen += 1;
            }
        }
        seen
    });
    for minute in 0..3 {
        log.append(&[batch(Timestamp(now.0 + minute * 60_000), &["one", "two"])?], now)?;
        log.roll(now)?;
    }

    // Durable: the middle part may run on any thread that may wait.
    if let Some(plan) = log.begin_sync() {
        let result = plan.run();
        log.complete_sync(plan, result)?;
    }
    let reader = log.reader();
    let plan = reader.read(Offset(3), log.end(), 1 << 20, true)?;
    println!("offset 3 is in the batch at {}, {} bytes", plan.first_batch_offset, plan.len());
    let found = reader.find_by_timestamp(Timestamp(now.0 + 1), log.end())?;
    println!("the first record a millisecond later is {:?}", found.map(|(offset, ..)| offset.0));

    log.advance_start(Offset(2))?;
    println!("trimmed: {} to {}, {} bytes", log.start(), log.end().offset, log.size_in_bytes());
    println!("followed {} records", follower.join().map_err(|_| "the follower panicked")?);
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
