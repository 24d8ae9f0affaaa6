//! The handle: the same node on its own thread, a real disk and a real clock.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ottla_consensus::{Application, Config, Consensus, ProposeError, Reply, RequestError, Status};
use ottla_log::{Checkpoint, OsDisk};
use ottla_types::{BrokerId, LeaderEpoch, Tick};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct App {
    applied: Arc<Mutex<Vec<Bytes>>>,
    statuses: mpsc::Sender<Status>,
}

impl Application for App {
    fn apply(&mut self, proposal: &Bytes) {
        self.applied.lock().unwrap().push(proposal.clone());
    }

    fn snapshot(&self) -> Bytes {
        Bytes::new()
    }

    fn restore(&mut self, _: &Bytes) -> Result<(), String> {
        Ok(())
    }

    fn status(&mut self, status: &Status) {
        let _ = self.statuses.send(status.clone());
    }
}

struct Running {
    consensus: Consensus,
    applied: Arc<Mutex<Vec<Bytes>>>,
    statuses: mpsc::Receiver<Status>,
}

fn start(dir: &Path, checkpoint: Option<Checkpoint>) -> Running {
    let (sender, statuses) = mpsc::channel();
    let app = App { applied: Arc::default(), statuses: sender };
    let config = Config {
        id: BrokerId(3),
        directory: [3; 16],
        disk: Arc::new(OsDisk::new()),
        dir: dir.join("metadata"),
        checkpoint,
        heartbeat_ms: 100,
        election_timeout_ms: 500..1000,
        seed: 1,
        halt: Arc::new(|why: &str| panic!("{why}")),
    };
    let began = Instant::now();
    let clock = move || Tick(began.elapsed().as_millis() as u64);
    let nobody = |_: BrokerId, _: Bytes, reply: Reply| reply(None);
    let applied = Arc::clone(&app.applied);
    let consensus = Consensus::start(config, clock, Box::new(app), nobody).unwrap();
    Running { consensus, applied, statuses }
}

impl Running {
    fn leading(&self) -> LeaderEpoch {
        loop {
            let status = self.statuses.recv_timeout(PATIENCE).unwrap();
            if status.leading {
                return status.term;
            }
        }
    }

    fn propose(&self, term: LeaderEpoch, payload: &'static [u8]) -> Result<(), ProposeError> {
        let (sender, outcome) = mpsc::channel();
        self.consensus.propose(term, Bytes::from_static(payload), move |result| sender.send(result).unwrap());
        outcome.recv_timeout(PATIENCE).unwrap()
    }
}

#[test]
fn a_node_on_its_thread_agrees_ends_cleanly_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path(), None);
    first.consensus.bootstrap();
    let term = first.leading();
    for _ in 0..100 {
        first.propose(term, b"one of many").unwrap();
    }
    assert_eq!(first.applied.lock().unwrap().len(), 100);
    assert!(first.consensus.status().leading);
    let clone = first.consensus.clone();
    assert!(first.consensus.shut_down());
    assert!(!clone.shut_down(), "twice");
    assert_eq!(first.propose(term, b"late"), Err(ProposeError::Stopped));
    let (sender, refused) = mpsc::channel();
    clone.handle(Bytes::new(), move |answer| sender.send(answer).unwrap());
    assert_eq!(refused.recv_timeout(PATIENCE).unwrap(), Err(RequestError::Stopped));

    let second = start(dir.path(), Some(clone.checkpoint()));
    let later = second.leading();
    assert!(later > term);
    assert_eq!(second.propose(term, b"of the term before"), Err(ProposeError::NotLeader { leader: Some(BrokerId(3)) }));
    second.propose(later, b"of this one").unwrap();
    assert_eq!(second.applied.lock().unwrap().len(), 101);
    // Without an end: the thread goes with the last handle.
    drop(second.consensus);
    assert!(second.statuses.recv_timeout(PATIENCE).is_err());
}
