//! Ottla's own client as one of those that write while leaders go: paced and told like the programs in
//! `compat/torture`, with the client's own settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ottla_client::{Client, Error, NewRecord, Producer, ProducerConfig};
use ottla_types::PartitionIndex;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::history::Sent;
use crate::torture::checker::history::Process;
use crate::torture::clients::{Story, now};

/// One record in each partition.
const PACE: Duration = Duration::from_millis(20);
const VALUE_LENGTH: usize = 120;

/// What it writes, and as whom.
pub(super) struct Load {
    /// `host:port` of all nodes.
    pub(super) bootstrap: Vec<String>,
    pub(super) topic: &'static str,
    pub(super) partitions: u32,
    /// Its number in the history, and that of its producer for partition 0.
    pub(super) process: Process,
    pub(super) first: u32,
    pub(super) story: Arc<Mutex<Story>>,
}

/// The client in a thread of its own.
pub(super) struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Writer {
    pub(super) fn start(load: Load) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(load.write(&stopped))
        });
        Writer { stop, thread }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until all it has sent is answered.
    pub(super) fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("it panicked")?
    }
}

impl Load {
    async fn write(self, stop: &AtomicBool) -> Result<()> {
        self.say(&format!("version ottla-client {}", env!("CARGO_PKG_VERSION")))?;
        let client = Client::connect(&self.bootstrap, "failover").await?;
        let producer = Producer::new(&client, ProducerConfig::default()).await?;
        let load = Arc::new(self);
        let mut answers: JoinSet<Result<()>> = JoinSet::new();
        let mut due = Instant::now();
        for number in 0.. {
            tokio::time::sleep_until(due.into()).await;
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let late = u64::try_from(due.elapsed().as_micros())?;
            for partition in 0..load.partitions {
                load.send(&producer, partition, number, late, &mut answers).await?;
            }
            while let Some(answer) = answers.try_join_next() {
                answer??;
            }
            due += PACE;
        }
        producer.flush().await;
        while let Some(answer) = answers.join_next().await {
            answer??;
        }
        Ok(())
    }

    async fn send(
        self: &Arc<Self>,
        producer: &Producer,
        partition: u32,
        number: u64,
        late: u64,
        answers: &mut JoinSet<Result<()>>,
    ) -> Result<()> {
        let sent = Sent { producer: self.first + partition, number };
        let place = format!("{}-{partition}", self.topic);
        let value = format!("={}.{number}", sent.producer);
        let began = now();
        self.say(&format!("send {} {began} {place}{value}", began.saturating_sub(late)))?;
        let record = NewRecord {
            value: Some(sent.value(VALUE_LENGTH).into()),
            partition: Some(PartitionIndex(i32::try_from(partition)?)),
            ..NewRecord::default()
        };
        let delivery = match producer.send(self.topic, record).await {
            Ok(delivery) => delivery,
            Err(error) => return self.failed(&error, &place, &value),
        };
        let load = Arc::clone(self);
        answers.spawn(async move {
            match delivery.done().await {
                Ok(delivered) => {
                    let offset = delivered.offset.map_or(-1, |offset| offset.0);
                    load.say(&format!("ack {} {place}@{offset}{value}", now()))
                }
                Err(error) => load.failed(&error, &place, &value),
            }
        });
        Ok(())
    }

    fn failed(&self, error: &Error, place: &str, value: &str) -> Result<()> {
        self.say(&format!("error {} {place}{value}: {error}", now()))?;
        self.say(&format!("fail {} UNKNOWN {place}{value}", now()))
    }

    fn say(&self, line: &str) -> Result<()> {
        self.story.lock().say(self.process, line)
    }
}
