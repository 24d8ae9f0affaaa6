//! What can go wrong, one narrow type per operation.

use ottla_types::BrokerId;

/// Why the metadata can't be opened. Nothing is ever started from less than what was agreed on.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file can't be read or written.
    #[error("cannot read the metadata: {0}")]
    Io(#[from] std::io::Error),
    /// The log can't be opened.
    #[error("cannot open the metadata log: {0}")]
    Log(#[from] ottla_log::OpenError),
    /// The log can't be read.
    #[error("cannot read the metadata log: {0}")]
    Read(#[from] ottla_log::ReadError),
    /// What is there makes no sense.
    #[error("the metadata is damaged ({0}); restore the directory `metadata` from a backup, or join as a new node")]
    Damaged(String),
    /// The metadata is that of another disk (rule M2).
    #[error("the metadata knows node {id} with another directory id; this disk is not the one it was written on")]
    OtherDirectory {
        /// This node.
        id: BrokerId,
    },
    /// The settings contradict each other.
    #[error("the quorum's settings: {0}")]
    Config(String),
    /// The thread can't be started, or ended before it began.
    #[error("cannot start the consensus thread: {0}")]
    Thread(String),
}

/// Why a proposal is not known to be agreed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead in that term, or not any more; nothing was proposed, or everybody skips it.
    #[error("this node does not lead the quorum in that term")]
    NotLeader {
        /// Who leads, if this node knows.
        leader: Option<BrokerId>,
    },
    /// Leadership was lost after it was proposed: it may still come to be agreed on.
    #[error("leadership was lost before it was agreed on")]
    Unknown,
    /// It is larger than a proposal may be.
    #[error("a proposal of {size} bytes is larger than {limit}")]
    TooLarge {
        /// Bytes of the proposal.
        size: usize,
        /// The most there may be.
        limit: usize,
    },
    /// Too many bytes wait to be agreed on; to be tried again.
    #[error("too much waits to be agreed on")]
    Busy,
    /// There is no room on the disk; to be tried again once there is.
    #[error("no space on the disk for the metadata log")]
    NoSpace,
    /// It was shut down, or its disk failed.
    #[error("the quorum's node has stopped")]
    Stopped,
}

/// Why a peer's request got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Its bytes are not those of a request.
    #[error("it is no request of a peer: {0}")]
    Malformed(&'static str),
    /// It is meant for another node, or for this one with a disk it does not have any more (rule M2).
    #[error("it is meant for node {id} with another directory id")]
    NotForThisNode {
        /// The node it names.
        id: BrokerId,
    },
    /// There is no room on the disk; the peer tries again by itself.
    #[error("no space on the disk for the metadata log")]
    NoSpace,
    /// It was shut down, or its disk failed.
    #[error("the quorum's node has stopped")]
    Stopped,
}

/// Why the cluster's members are as they were, or leadership is where it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This node does not lead.
    #[error("this node does not lead the quorum")]
    NotLeader {
        /// Who leads, if this node knows.
        leader: Option<BrokerId>,
    },
    /// Leadership was lost on the way: it may have happened.
    #[error("leadership was lost before it was agreed on")]
    Unknown,
    /// Another change is under way; to be tried again.
    #[error("another change of the members is under way")]
    InProgress,
    /// The node is a member with another directory: it is to be removed first.
    #[error("node {id} is a member with another directory id; remove it first")]
    OtherDirectory {
        /// The node.
        id: BrokerId,
    },
    /// The node is no member, or no voter.
    #[error("node {id} is not in the quorum")]
    NotMember {
        /// The node.
        id: BrokerId,
    },
    /// There would be no voter.
    #[error("a quorum needs a voter")]
    NoVoter,
    /// The node is too far behind, or was not heard of lately.
    #[error("node {id} is not caught up with the leader")]
    NotCaughtUp {
        /// The node.
        id: BrokerId,
    },
    /// It was shut down, or its disk failed.
    #[error("the quorum's node has stopped")]
    Stopped,
}
