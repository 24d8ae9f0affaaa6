//! A coordinator with a clock, a log and somebody who drives it: what the node does, in one thread.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use ottla_group::{
    Command, CommitOffset, CommitOffsets, Context, Coordinator, FetchOffsets, FetchedOffset, GroupConfig, Heartbeat,
    Join, Joined, Leave, LeavingMember, LeftMember, MemberId, Record, Refusal, Reply, Sync, Synced, Ticket,
};
use ottla_metadata::Image;
use ottla_types::{LeaderEpoch, Offset, PartitionIndex, Tick, Timestamp, TopicId};

pub(crate) const GROUP: &str = "g";
/// The wall clock at tick 0.
pub(crate) const START: i64 = 1_700_000_000_000;
pub(crate) const SESSION_MS: i32 = 10_000;
pub(crate) const REBALANCE_MS: i32 = 60_000;

pub(crate) struct World {
    pub(crate) coordinator: Coordinator,
    pub(crate) config: GroupConfig,
    pub(crate) now: Tick,
    /// What was appended, as bytes.
    pub(crate) log: Vec<(Bytes, Option<Bytes>)>,
    /// Whether the log takes nothing.
    pub(crate) is_full: bool,
    drawn: Arc<AtomicU64>,
    image: Image,
    tickets: u64,
    replies: HashMap<Ticket, Reply>,
    /// Whose replies are an error, because the log took nothing.
    failed: HashSet<Ticket>,
}

impl World {
    pub(crate) fn new() -> World {
        let config = GroupConfig { classic_initial_rebalance_delay_ms: 3_000, ..GroupConfig::default() };
        let drawn = Arc::new(AtomicU64::new(0));
        let mut world = World {
            coordinator: coordinator(&drawn),
            drawn,
            config,
            now: Tick(0),
            log: Vec::new(),
            is_full: false,
            image: Image::default(),
            tickets: 0,
            replies: HashMap::new(),
            failed: HashSet::new(),
        };
        world.with_context(|coordinator, ctx| coordinator.loaded(ctx));
        world
    }

    /// Sends a command, whose reply comes now or later.
    pub(crate) fn send(&mut self, command: Command) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.decide(ticket, command);
        ticket
    }

    fn decide(&mut self, ticket: Ticket, command: Command) {
        let decision = self.with_context(|coordinator, ctx| coordinator.decide(ctx, ticket, command));
        if self.is_full && !decision.records.is_empty() {
            self.failed.extend(decision.replies.iter().map(|(ticket, _)| *ticket));
            return;
        }
        self.write(&decision.records);
        for (ticket, reply) in decision.replies {
            assert!(self.replies.insert(ticket, reply).is_none(), "{ticket:?} was answered twice");
        }
    }

    /// Appends and applies.
    pub(crate) fn write(&mut self, records: &[Record]) {
        for record in records {
            let (key, value) = record.encode();
            // What a reload would read, not what was meant.
            self.coordinator.apply(&Record::decode(key.clone(), value.clone()).unwrap().unwrap());
            self.log.push((key, value));
        }
    }

    /// Lets time pass, from deadline to deadline.
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        let end = Tick(self.now.0 + milliseconds);
        while let Some(due) = self.coordinator.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.decide(Ticket(0), Command::TimePassed);
        }
        self.now = end;
    }

    /// Forgets everything but the log, and reads that.
    pub(crate) fn reload(&mut self) {
        self.coordinator = self.replayed();
        self.replies.clear();
        self.with_context(|coordinator, ctx| coordinator.loaded(ctx));
    }

    /// A coordinator that knows what the log says.
    pub(crate) fn replayed(&self) -> Coordinator {
        let mut coordinator = coordinator(&self.drawn);
        for (key, value) in &self.log {
            coordinator.apply(&Record::decode(key.clone(), value.clone()).unwrap().unwrap());
        }
        coordinator
    }

    pub(crate) fn with_context<T>(&mut self, work: impl FnOnce(&mut Coordinator, &Context<'_>) -> T) -> T {
        let wall = self.wall();
        let ctx = Context { now: self.now, wall, image: &self.image, config: &self.config };
        work(&mut self.coordinator, &ctx)
    }

    pub(crate) fn wall(&self) -> Timestamp {
        Timestamp(START + i64::try_from(self.now.0).unwrap())
    }

    /// The reply, if it has come.
    pub(crate) fn reply(&mut self, ticket: Ticket) -> Option<Reply> {
        self.replies.remove(&ticket)
    }

    pub(crate) fn failed(&self, ticket: Ticket) -> bool {
        self.failed.contains(&ticket)
    }

    pub(crate) fn waits(&self, ticket: Ticket) -> bool {
        !self.replies.contains_key(&ticket) && !self.failed(ticket)
    }

    pub(crate) fn joined(&mut self, ticket: Ticket) -> Joined {
        self.join_result(ticket).unwrap()
    }

    pub(crate) fn join_refusal(&mut self, ticket: Ticket) -> Refusal {
        self.join_result(ticket).unwrap_err()
    }

    fn join_result(&mut self, ticket: Ticket) -> Result<Joined, Refusal> {
        match self.reply(ticket) {
            Some(Reply::Join(result)) => result.map_err(|refused| refused.refusal),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn synced(&mut self, ticket: Ticket) -> Result<Synced, Refusal> {
        match self.reply(ticket) {
            Some(Reply::Sync(result)) => result,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn heartbeat(&mut self, member: &MemberId, generation: i32) -> Result<(), Refusal> {
        let heartbeat = Heartbeat { group: GROUP.into(), member: Arc::clone(member), instance: None, generation };
        self.heartbeat_of(heartbeat)
    }

    pub(crate) fn heartbeat_of(&mut self, heartbeat: Heartbeat) -> Result<(), Refusal> {
        let ticket = self.send(Command::Heartbeat(heartbeat));
        match self.reply(ticket) {
            Some(Reply::Heartbeat(result)) => result,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<LeftMember> {
        let members = members.iter().map(|(member, instance)| LeavingMember {
            member: (*member).into(),
            instance: instance.map(Into::into),
            reason: None,
        });
        let leave = Leave { group: GROUP.into(), members: members.collect() };
        let ticket = self.send(Command::Leave(leave));
        match self.reply(ticket) {
            Some(Reply::Leave(Ok(rows))) => rows,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn commit(&mut self, commit: CommitOffsets) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        let ticket = self.send(Command::CommitOffsets(commit));
        match self.reply(ticket) {
            Some(Reply::CommitOffsets(result)) => result,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn fetch_all(&mut self, group: &str) -> Vec<FetchedOffset> {
        let fetch = fetch_all(group);
        self.with_context(|coordinator, ctx| coordinator.fetch_offsets(ctx, &fetch)).unwrap()
    }

    /// Members of a stable group, the leader first. Everybody's assignment is its own id.
    pub(crate) fn stable_group(&mut self, joins: Vec<Join>) -> Vec<Joined> {
        let tickets: Vec<_> = joins.into_iter().map(|join| self.send(Command::Join(join))).collect();
        for _ in 0..60 {
            if tickets.iter().any(|ticket| self.waits(*ticket)) {
                self.pass(1_000);
            }
        }
        let mut members: Vec<_> = tickets.into_iter().map(|ticket| self.joined(ticket)).collect();
        members.sort_by_key(|joined| joined.member != joined.leader);
        for joined in &members {
            let ticket = self.send(Command::Sync(sync(joined, &members)));
            assert_eq!(&*self.synced(ticket).unwrap().assignment, joined.member.as_bytes());
        }
        members
    }
}

/// A coordinator that draws from `drawn`, so that no two of them give the same id.
pub(crate) fn coordinator(drawn: &Arc<AtomicU64>) -> Coordinator {
    let drawn = Arc::clone(drawn);
    Coordinator::new(Box::new(move || u128::from(drawn.fetch_add(1, Ordering::Relaxed)).to_be_bytes()))
}

pub(crate) fn fetch_all(group: &str) -> FetchOffsets {
    FetchOffsets { group: group.into(), member: None, member_epoch: -1, partitions: None, require_stable: false }
}

/// A consumer of the topic `orders` that knows `range`.
pub(crate) fn join(client: &str) -> Join {
    Join {
        group: GROUP.into(),
        member: "".into(),
        instance: None,
        client_id: client.into(),
        client_host: "/10.0.0.1".into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription(&["orders"]))],
        requires_member_id: false,
        supports_skipping_assignment: true,
        reason: None,
    }
}

/// The same member once more, with the id it got.
pub(crate) fn again(client: &str, member: &MemberId) -> Join {
    Join { member: Arc::clone(member), ..join(client) }
}

pub(crate) fn static_join(instance: &str) -> Join {
    Join { instance: Some(instance.into()), ..join("c") }
}

/// SyncGroup of a member, which brings everybody's own id as the assignment if it leads.
pub(crate) fn sync(joined: &Joined, members: &[Joined]) -> Sync {
    let assignments = members.iter().map(|each| (Arc::clone(&each.member), Bytes::from(each.member.to_string())));
    let leads = joined.leader == joined.member;
    Sync {
        group: GROUP.into(),
        member: Arc::clone(&joined.member),
        instance: None,
        generation: joined.generation,
        protocol_type: joined.protocol_type.clone(),
        protocol: joined.protocol.clone(),
        assignments: if leads { assignments.collect() } else { Vec::new() },
    }
}

/// What consumers send as metadata: version 1, topics, no user data, nothing owned.
pub(crate) fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 1];
    bytes.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
    for topic in topics {
        bytes.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend([0xff; 4]);
    bytes.extend([0; 4]);
    bytes.into()
}

/// A commit of one partition of `orders` by somebody who is no member.
pub(crate) fn commit(offset: i64) -> CommitOffsets {
    CommitOffsets {
        group: GROUP.into(),
        member: "".into(),
        instance: None,
        epoch: -1,
        knows_member_epochs: true,
        retention_ms: None,
        offsets: vec![commit_offset("orders", offset)],
    }
}

pub(crate) fn commit_as(member: &MemberId, generation: i32, offset: i64) -> CommitOffsets {
    CommitOffsets { member: Arc::clone(member), epoch: generation, ..commit(offset) }
}

pub(crate) fn commit_offset(topic: &str, offset: i64) -> CommitOffset {
    CommitOffset {
        topic: topic.into(),
        topic_id: TopicId::from_bytes([7; 16]),
        partition: PartitionIndex(0),
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(5),
        metadata: "m".into(),
    }
}
