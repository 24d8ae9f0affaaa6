//! The regular work of a node, on one thread: retention, checkpoints, expiry, closing idle files, the scrub; and topics
//! that clients had created by asking for them.
//!
//! A round a second (budgets are looked at more often), each a walk over the partitions that costs next to nothing for
//! those nobody opened. What is not here: what retention decides (`retention.rs`), what a checkpoint holds
//! (`checkpoint.rs`).

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ottla_metadata::Command;
use ottla_types::Timestamp;
use parking_lot::{Condvar, Mutex};

use crate::{checkpoint, controller::Controller, retention, scrub::Scrub, storage::Storage, topics::Topic};

/// How often topics with a budget are looked at. Everything else is done once in [`QUICK_ROUNDS`] of these.
const ROUND: Duration = Duration::from_millis(250);
const QUICK_ROUNDS: u64 = 4;
/// Rounds between two checkpoints, if nobody asks for one earlier, and between syncs that nobody waits for.
const CHECKPOINT_ROUNDS: u64 = 5;

/// Commands that may wait. What comes on top is dropped: clients ask again.
const COMMANDS_MAX: usize = 64;

pub(crate) struct Housekeeper {
    shared: Arc<Shared>,
}

struct Shared {
    storage: Arc<Storage>,
    controller: Arc<Controller>,
    inbox: Mutex<Inbox>,
    called: Condvar,
}

#[derive(Default)]
struct Inbox {
    commands: Vec<Command>,
    stopping: bool,
}

impl Housekeeper {
    pub(crate) fn new(storage: Arc<Storage>, controller: Arc<Controller>) -> Housekeeper {
        Housekeeper {
            shared: Arc::new(Shared { storage, controller, inbox: Mutex::default(), called: Condvar::new() }),
        }
    }

    pub(crate) fn start(&self) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        thread::Builder::new().name("housekeeper".into()).spawn(move || shared.run())
    }

    /// Has a command carried out soon; what becomes of it nobody hears.
    pub(crate) fn submit_soon(&self, command: Command) {
        let mut inbox = self.shared.inbox.lock();
        // The same topic is asked for by every client that waits for it.
        if inbox.commands.len() < COMMANDS_MAX && !inbox.commands.contains(&command) {
            inbox.commands.push(command);
            self.shared.called.notify_one();
        }
    }

    pub(crate) fn stop(&self) {
        self.shared.inbox.lock().stopping = true;
        self.shared.called.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        let mut next_round = Instant::now() + ROUND;
        let mut round = 0u64;
        let mut last_retention = Instant::now();
        let mut scrub = Scrub::default();
        let mut checkpointed = None;
        loop {
            let commands = {
                let mut inbox = self.inbox.lock();
                while inbox.commands.is_empty() && !inbox.stopping {
                    if self.called.wait_until(&mut inbox, next_round).timed_out() {
                        break;
                    }
                }
                if inbox.stopping {
                    return;
                }
                std::mem::take(&mut inbox.commands)
            };
            for command in commands {
                if let Err(error) = self.controller.submit(command) {
                    tracing::warn!(%error, "a topic that a client asked for was not created");
                }
            }
            if Instant::now() < next_round {
                continue;
            }
            next_round = Instant::now() + ROUND;
            round += 1;
            if !round.is_multiple_of(QUICK_ROUNDS) {
                self.hold_budgets();
                continue;
            }
            let check_interval = Duration::from_millis(self.controller.broker_config().log_retention_check_interval_ms);
            let full = last_retention.elapsed() >= check_interval;
            if full {
                last_retention = Instant::now();
            }
            self.keep_house(round / QUICK_ROUNDS, full, &mut checkpointed);
            scrub.step(&self.controller.topics());
        }
    }

    /// Between two whole rounds: limits that are a promise about the disk are held more closely than to the second.
    fn hold_budgets(&self) {
        let topics = self.controller.topics();
        let now = self.storage.now();
        for topic in topics.iter().filter(|topic| has_budget(topic)) {
            enforce(topic, self.storage.disk_bytes(), now);
            topic.partitions.iter().for_each(|partition| partition.remove_deleted(now));
        }
    }

    /// One round. `full` also looks at topics whose limits are only checked at `log.retention.check.interval.ms`.
    fn keep_house(&self, round: u64, full: bool, checkpointed: &mut Option<u32>) {
        self.storage.measure_room();
        let now = self.storage.now();
        let topics = self.controller.topics();
        if self.storage.has_failed() {
            // Whoever waited when it failed would wait for nothing.
            topics.partitions().for_each(|partition| partition.wake_all());
        }
        let expiration_ms = self.controller.broker_config().producer_id_expiration_ms;
        let disk_bytes = self.storage.disk_bytes();
        let regular = round.is_multiple_of(CHECKPOINT_ROUNDS);
        let mut unsynced = Vec::new();
        for topic in topics.iter() {
            if full || has_budget(topic) {
                enforce(topic, disk_bytes, now);
            }
            for partition in &topic.partitions {
                if partition.housekeep(now, expiration_ms, regular) {
                    unsynced.push(Arc::clone(partition));
                }
                partition.tick();
            }
        }
        self.storage.flusher().request_regular(unsynced);
        self.storage.remove_discarded(now);
        if self.storage.take_checkpoint_wanted() || regular {
            let (disk, metadata) = (&**self.storage.disk(), self.controller.checkpoint());
            if let Err(error) = checkpoint::store(disk, self.storage.root(), &topics, &metadata, checkpointed) {
                // The old one still holds: recovery reads more than it must, and nothing is lost.
                tracing::warn!(%error, "the checkpoint could not be written");
            }
        }
    }
}

fn enforce(topic: &Topic, disk_bytes: u64, now: Timestamp) {
    if let Err(error) = retention::enforce(topic, disk_bytes, now) {
        tracing::warn!(topic = %topic.name, %error, "retention could not be applied");
    }
}

/// Whether the topic has a limit that is a promise about the disk, and so is held at every round.
fn has_budget(topic: &Topic) -> bool {
    topic.partitions.first().is_some_and(|partition| {
        let config = partition.config();
        config.retention_topic_bytes.is_some() || config.retention_disk_percent.is_some()
    })
}
