//! What a node brings: its settings, its application, its way to its peers.
//!
//! Next: `node.rs`.

use std::{ops::Range, path::PathBuf, sync::Arc};

use bytes::Bytes;
use openraft::StepDownPolicy;
use ottla_log::{Checkpoint, Disk};
use ottla_types::BrokerId;

use crate::{error::OpenError, status::Status, types::Directory};

/// Entries that stay in the log behind a snapshot, for followers that are not far behind.
const ENTRIES_KEPT: u64 = 256;
/// How many of the largest election timeouts a snapshot may take on its way.
const SNAPSHOT_TIMEOUTS: u64 = 10;

/// How a node takes part in the quorum.
pub struct Config {
    /// The node's id, 0 or more.
    pub id: BrokerId,
    /// The id of its data directory, which a new disk changes (rule M2).
    pub directory: Directory,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The directory of the metadata, its own.
    pub dir: PathBuf,
    /// What `checkpoint` said last, if the node has stored it.
    pub checkpoint: Option<Checkpoint>,
    /// Milliseconds between two heartbeats to a follower. One that takes longer to be answered does not count: more
    /// than the time there and back.
    pub heartbeat_ms: u64,
    /// Milliseconds without a leader after which a follower asks for votes, drawn anew each time. A leader that a
    /// quorum has not answered for the largest stops leading, and a follower refuses its vote to others that long. So
    /// a dead leader is replaced after once to twice the largest. More than three heartbeats.
    pub election_timeout_ms: Range<u64>,
    /// Where chance begins: another number for every node and start.
    pub seed: u64,
    /// Ends the process: the disk failed and nothing that this node says can be believed (rule L10). Called once, on
    /// the consensus thread; if it returns, the node takes no part any more.
    pub halt: Arc<dyn Fn(&str) + Send + Sync>,
}

/// What the log decides about. Called on the consensus thread alone, and never from within a call to it.
pub trait Application {
    /// A committed proposal, in log order. Every node gets the same ones.
    fn apply(&mut self, proposal: &Bytes);
    /// All that was applied, as bytes that [`Application::restore`] takes; some megabytes, 255 MiB at most.
    fn snapshot(&self) -> Bytes;
    /// Replaces all that was applied.
    ///
    /// # Errors
    /// What is wrong with the bytes; the node does not go on.
    fn restore(&mut self, snapshot: &Bytes) -> Result<(), String>;
    /// Roles or members changed. Where it says that this node is leading, all that was agreed on before is applied
    /// (M1).
    fn status(&mut self, status: &Status);
}

/// Takes a peer's answer, or that there was none. May be called from any thread, at any time, or never.
pub type Reply = Box<dyn FnOnce(Option<Bytes>) + Send>;

/// Sends a request to a peer, to be given to `handle` there; must not block.
pub type Transport = Box<dyn Fn(BrokerId, Bytes, Reply)>;

impl Config {
    /// The library's settings.
    pub(crate) fn quorum(&self) -> Result<openraft::Config, OpenError> {
        let Range { start, end } = self.election_timeout_ms;
        let config = openraft::Config {
            cluster_name: "metadata".to_owned(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: start,
            election_timeout_max: end,
            install_snapshot_timeout: end.saturating_mul(SNAPSHOT_TIMEOUTS),
            // Snapshots are asked for by the bytes of the log.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: ENTRIES_KEPT,
            enable_pre_vote: Some(true),
            // A term is one leadership, and it ends with the process.
            enable_leader_restore: Some(false),
            // A leader whose heartbeats arrive but whose answers do not would keep others from electing one.
            quorum_loss_probe_interval: Some(end.saturating_mul(2)),
            removed_leader_step_down: StepDownPolicy::After(start),
            // A peer that is back is found within a heartbeat.
            backoff: format!("{0}ms {0}ms {0}ms", self.heartbeat_ms.max(1)),
            ..openraft::Config::default()
        };
        if start.checked_div(self.heartbeat_ms).is_none_or(|beats| beats < 3) {
            return Err(OpenError::Config("an election timeout is to be three heartbeats or more".to_owned()));
        }
        config.validate().map_err(|error| OpenError::Config(error.to_string()))
    }
}
