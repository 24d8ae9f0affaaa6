//! Everything that can happen in the simulated cluster, and what messages carry.
//!
//! An event may belong to a broker; then it comes to nothing if that one is down, and waits if it stands still. What is
//! not here: what becomes of an event (the file named after who it is for).

use bytes::Bytes;
use ottla_metadata::{BrokerRegistration, DamagedCopy};
use ottla_replica::{CommittedIsr, FetchPosition, Fetched, IsrProposal, IsrRefusal};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId};

/// A partition of a topic.
pub(crate) type Place = (TopicId, PartitionIndex);

#[derive(Debug)]
pub(crate) enum Event {
    /// Time for the next fault.
    Fault,
    /// The controller looks who has gone quiet.
    Caretake,
    /// The faults are over: everything is mended.
    Heal,
    /// Is everything as it should be again?
    Look,
    /// The topics are created, once there are brokers.
    CreateTopics,
    /// A broker starts.
    Start(usize),
    /// A broker does what it does regularly.
    Tick,
    /// What was agreed on reaches a broker.
    Metadata,
    SyncBegins(Place),
    /// The disk does it.
    SyncRuns(Place),
    /// The broker hears of it.
    SyncEnds(Place),
    FetchRound {
        leader: BrokerId,
        generation: u64,
    },
    FetchArrives(FollowerFetch),
    FetchExpires(u64),
    FetchAnswered(FetchAnswer),
    /// A broker asks the controller.
    Ask(Question),
    Told(Answer),
    ProducerWakes(usize),
    Produce(ProduceRequest),
    Produced(ProduceAnswer),
    ConsumerWakes(usize),
    Read(ReadRequest),
    ReadAnswered(ReadAnswer),
}

impl Event {
    /// A number for its kind.
    pub(crate) fn kind(&self) -> u64 {
        match self {
            Event::Fault => 1,
            Event::Caretake => 2,
            Event::Heal => 3,
            Event::Look => 4,
            Event::CreateTopics => 5,
            Event::Start(_) => 6,
            Event::Tick => 7,
            Event::Metadata => 8,
            Event::SyncBegins(_) => 9,
            Event::SyncRuns(_) => 10,
            Event::SyncEnds(_) => 11,
            Event::FetchRound { .. } => 12,
            Event::FetchArrives(_) => 13,
            Event::FetchExpires(_) => 14,
            Event::FetchAnswered(_) => 15,
            Event::Ask(_) => 16,
            Event::Told(_) => 17,
            Event::ProducerWakes(_) => 18,
            Event::Produce(_) => 19,
            Event::Produced(_) => 20,
            Event::ConsumerWakes(_) => 21,
            Event::Read(_) => 22,
            Event::ReadAnswered(_) => 23,
        }
    }
}

/// A follower's Fetch for all partitions that it follows one leader in.
#[derive(Clone, Debug)]
pub(crate) struct FollowerFetch {
    pub(crate) from: usize,
    pub(crate) life: u32,
    pub(crate) epoch: BrokerEpoch,
    pub(crate) generation: u64,
    /// With what the leader last told of its high watermark.
    pub(crate) positions: Vec<(Place, FetchPosition, Offset)>,
}

#[derive(Debug)]
pub(crate) struct FetchAnswer {
    pub(crate) leader: BrokerId,
    pub(crate) generation: u64,
    pub(crate) rows: Vec<(Place, Fetched)>,
    /// Some partitions were refused.
    pub(crate) refused: bool,
}

#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) from: usize,
    pub(crate) life: u32,
    pub(crate) ask: Ask,
}

#[derive(Debug)]
pub(crate) enum Ask {
    Register(BrokerRegistration),
    Heartbeat { epoch: BrokerEpoch, offset: Offset, leave: bool },
    Isr { id: u64, epoch: BrokerEpoch, changes: Vec<(Place, IsrProposal)> },
    Damage { epoch: BrokerEpoch, copies: Vec<DamagedCopy> },
}

#[derive(Debug)]
pub(crate) enum Answer {
    MayLeave,
    /// An answer for each change; none if the request as a whole was refused.
    Isr {
        id: u64,
        rows: Option<Vec<(Place, Result<CommittedIsr, IsrRefusal>)>>,
    },
    Damage {
        places: Vec<Place>,
    },
}

#[derive(Debug)]
pub(crate) struct ProduceRequest {
    pub(crate) producer: usize,
    pub(crate) attempt: u64,
    pub(crate) topic: String,
    pub(crate) index: PartitionIndex,
    pub(crate) all: bool,
    pub(crate) batch: Bytes,
}

#[derive(Debug)]
pub(crate) struct ProduceAnswer {
    pub(crate) producer: usize,
    pub(crate) attempt: u64,
    pub(crate) outcome: ProduceOutcome,
}

#[derive(Clone, Debug)]
pub(crate) enum ProduceOutcome {
    /// Acknowledged.
    Done { place: Place, base: Offset, end: Offset },
    /// Worth another try, elsewhere perhaps.
    Retry,
    /// The sequence does not follow.
    OutOfOrder { place: Place, broker: usize, epoch: LeaderEpoch },
}

#[derive(Debug)]
pub(crate) struct ReadRequest {
    pub(crate) consumer: usize,
    pub(crate) topic: String,
    pub(crate) index: PartitionIndex,
    pub(crate) from: Offset,
    /// Where the log ends is what is asked for, and no records.
    pub(crate) latest: bool,
    /// The end of what was acknowledged when it was asked, by topic.
    pub(crate) acknowledged: Option<(TopicId, Offset)>,
}

#[derive(Debug)]
pub(crate) struct ReadAnswer {
    pub(crate) consumer: usize,
    pub(crate) place: Option<Place>,
    pub(crate) from: Offset,
    pub(crate) records: Bytes,
    /// The reader is to begin elsewhere.
    pub(crate) restart: Option<Offset>,
}
