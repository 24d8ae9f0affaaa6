//! The library's types as this crate uses them: a term is a leader epoch, a node is a broker's id with its directory.
//!
//! One leader per term (`leader_id_std`), so that a term says who led. Next: `wire.rs` for how they lie in bytes.

use std::fmt;

use bytes::Bytes;
use ottla_types::{BrokerId, LeaderEpoch};

use crate::runtime::Runtime;

/// A node's directory id: 16 random bytes that are new on a new disk (rule M2).
pub type Directory = [u8; 16];

openraft::declare_raft_types!(
    /// What the library is compiled for.
    pub(crate) Types:
        D = Proposal,
        R = Verdict,
        NodeId = BrokerId,
        Node = Directory,
        Term = i32,
        LeaderId = LeaderId,
        AsyncRuntime = Runtime,
);

/// A leader, or who wants to be one: its term, and its id as `voted_for`.
pub(crate) type LeaderId = openraft::impls::leader_id_std::LeaderId<i32, BrokerId>;
/// A leader that was elected: its term alone.
pub(crate) type CommittedLeaderId = openraft::vote::leader_id_std::CommittedLeaderId<i32>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Payload = openraft::EntryPayload<Proposal, BrokerId, Directory>;
pub(crate) type Entry = openraft::Entry<CommittedLeaderId, Payload>;
pub(crate) type Membership = openraft::Membership<BrokerId, Directory>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, BrokerId, Directory>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, BrokerId, Directory>;
/// A snapshot in memory: what it covers, and the application's bytes.
pub(crate) type Snapshot = openraft::Snapshot<CommittedLeaderId, BrokerId, Directory, Bytes>;

/// A node as the others know it. With another directory it is another node (rule M2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) id: BrokerId,
    pub(crate) directory: Directory,
}

/// What a leader wants agreed on.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proposal {
    /// The term it was decided in. In another term it means nothing.
    pub(crate) term: LeaderEpoch,
    pub(crate) payload: Bytes,
}

/// What became of an entry that was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Applied,
    /// It was decided in another term than it lies in: everybody skips it.
    Skipped,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of term {}", self.payload.len(), self.term)
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(crate) fn log_id(term: i32, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

/// The term of an entry.
pub(crate) fn term_of(id: &LogId) -> i32 {
    id.leader_id.term
}

/// The index after this one; 0 after none.
pub(crate) fn next_index(id: Option<&LogId>) -> u64 {
    id.map_or(0, |id| id.index.saturating_add(1))
}
