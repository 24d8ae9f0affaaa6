//! Groups: records as they may lie in `__consumer_offsets`, and a coordinator that is told anything in any order, whose
//! log now and then takes nothing.

use std::sync::Arc;

use bytes::Bytes;
use ottla_group::{
    ClassicGroupValue, ClassicMemberMetadata, ClassicMemberValue, Command, CommitOffset, CommitOffsets, Committed,
    ConsumerCurrentValue, ConsumerDescription, ConsumerGroupValue, ConsumerHeartbeat, ConsumerMemberValue,
    ConsumerRegexValue, ConsumerTargetValue, Context, Coordinator, Decision, DeleteOffsets, FetchOffsets,
    FetchedOffset, GroupConfig, Heartbeat, HeldPartitions, Join, Leave, LeavingMember, MemberState, Record, Reply,
    Sync, Ticket, TopicPartitions,
};
use ottla_metadata::{Image, Partition, Record as MetadataRecord};
use ottla_types::{BrokerId, LeaderEpoch, Offset, PartitionIndex, Tick, Timestamp, TopicId};

use crate::mutate::{Choices, Random};

/// What decoding may take for each byte: members of a few bytes are large in memory.
const MEMORY_PER_BYTE: u64 = 64;

/// A record: the length of its key, whether it has a value, both.
pub(crate) fn record(data: &[u8]) -> bool {
    let Some((key, value)) = parts(data) else { return false };
    let mut decoded = None;
    let used = allocation_counter::measure(|| decoded = Record::decode(key, value).ok().flatten());
    let allowed = MEMORY_PER_BYTE * data.len() as u64 + (64 << 10);
    assert!(used.bytes_max <= allowed, "{} bytes for {}", used.bytes_max, data.len());
    let Some(record) = decoded else { return false };
    let (key, value) = record.encode();
    assert_eq!(Record::decode(key, value), Ok(Some(record.clone())));
    let mut world = World::new(0);
    world.store(record);
    world.load();
    world.carry_out(&GROUPS[0].into(), Command::TimePassed, false);
    world.check();
    true
}

fn parts(data: &[u8]) -> Option<(Bytes, Option<Bytes>)> {
    let [high, low, has_value, rest @ ..] = data else { return None };
    let (key, value) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    Some((Bytes::copy_from_slice(key), (has_value & 1 == 0).then(|| Bytes::copy_from_slice(value))))
}

pub(crate) fn records() -> Vec<Vec<u8>> {
    let encode = |record: &Record| {
        let (key, value) = record.encode();
        let head = [&(key.len() as u16).to_be_bytes()[..], &[u8::from(value.is_none())]].concat();
        [&head[..], &key, &value.unwrap_or_default()].concat()
    };
    let mut records: Vec<_> = samples().iter().map(encode).collect();
    // Versions of which ours is not the newest, or is: their fields are others.
    for at in 0..records.len() {
        let value = 3 + usize::from(u16::from_be_bytes([records[at][0], records[at][1]]));
        for version in 0..=4 {
            let mut other = records[at].clone();
            if other.len() > value + 1 {
                other[value + 1] = version;
                records.push(other);
            }
        }
    }
    records
}

/// One of each kind, full.
fn samples() -> Vec<Record> {
    let id = TopicId::from_bytes([1; 16]);
    let (group, member): (Arc<str>, Arc<str>) = ("g0".into(), "m".into());
    let (at, topics) = (Timestamp(7), vec![Arc::from("t0"), Arc::from("t1")]);
    let committed = Committed {
        offset: Offset(5),
        leader_epoch: LeaderEpoch(2),
        metadata: "meta".into(),
        committed_at: at,
        expires_at: None,
        topic_id: id,
    };
    let old = Committed {
        leader_epoch: LeaderEpoch::NONE,
        expires_at: Some(Timestamp(9)),
        topic_id: TopicId::ZERO,
        ..committed.clone()
    };
    let classic_member = ClassicMemberValue {
        member: Arc::clone(&member),
        instance: Some("i".into()),
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout_ms: 6_000,
        session_timeout_ms: 6_000,
        subscription: subscription(&["t0", "t1"]),
        assignment: assignment(),
    };
    let classic = ClassicGroupValue {
        protocol_type: "consumer".into(),
        generation: 3,
        protocol: Some("range".into()),
        leader: Some(Arc::clone(&member)),
        state_since: at,
        members: vec![classic_member.clone(), ClassicMemberValue { member: "n".into(), ..classic_member }],
    };
    let said = ConsumerMemberValue {
        instance: Some("i".into()),
        rack: Some("r".into()),
        client_id: "c".into(),
        client_host: "/h".into(),
        topics: topics.clone(),
        topics_regex: Some("t.*".into()),
        rebalance_timeout_ms: 6_000,
        server_assignor: Some("uniform".into()),
        classic: Some(ClassicMemberMetadata {
            session_timeout_ms: 6_000,
            protocols: vec![("range".into(), subscription(&["t0"]))],
        }),
    };
    let held = vec![HeldPartitions { topic: id, partitions: vec![(PartitionIndex(0), 3), (PartitionIndex(1), 4)] }];
    let current = ConsumerCurrentValue {
        member_epoch: 4,
        previous_member_epoch: 3,
        state: MemberState::UnrevokedPartitions,
        assigned: held.clone(),
        pending_revocation: vec![HeldPartitions { topic: id, partitions: vec![(PartitionIndex(2), 3)] }],
    };
    let target = vec![TopicPartitions { topic: id, partitions: vec![PartitionIndex(0), PartitionIndex(1)] }];
    let (g, m) = (|| Arc::clone(&group), || Arc::clone(&member));
    vec![
        Record::OffsetCommit(g(), "t0".into(), PartitionIndex(0), Some(committed)),
        Record::OffsetCommit(g(), "t0".into(), PartitionIndex(1), Some(old)),
        Record::OffsetCommit(g(), "t0".into(), PartitionIndex(0), None),
        Record::ClassicGroup(g(), Some(classic)),
        Record::ClassicGroup(g(), None),
        Record::ConsumerGroup(g(), Some(ConsumerGroupValue { epoch: 4, metadata_hash: 99 })),
        Record::ConsumerMember(g(), m(), Some(said)),
        Record::ConsumerTarget(g(), Some(ConsumerTargetValue { assignment_epoch: 4, computed_at: at })),
        Record::ConsumerTargetMember(g(), m(), Some(target)),
        Record::ConsumerCurrent(g(), m(), Some(current)),
        Record::ConsumerRegex(g(), "t.*".into(), Some(ConsumerRegexValue { topics, version: 1, matched_at: at })),
    ]
}

/// What a consumer tells the others in the classic protocol, in its newest version.
fn subscription(topics: &[&str]) -> Bytes {
    let mut out = vec![0, 3];
    out.extend_from_slice(&(topics.len() as u32).to_be_bytes());
    for topic in topics {
        out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
        out.extend_from_slice(topic.as_bytes());
    }
    out.extend_from_slice(&[0xff; 4]);
    // One topic with two partitions it has, its generation, its rack.
    out.extend_from_slice(&[0, 0, 0, 1, 0, 2, b't', b'0', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]);
    out.extend_from_slice(&[0, 0, 0, 1, 0, 1, b'r']);
    out.into()
}

fn assignment() -> Bytes {
    Bytes::from_static(&[
        0, 3, 0, 0, 0, 1, 0, 2, b't', b'0', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff,
    ])
}

/// Commands to a coordinator, one after the other, as long as there are bytes to choose them by.
pub(crate) fn coordinator(data: &[u8]) -> bool {
    let Some((&mode, bytes)) = data.split_first() else { return false };
    let mut world = World::new(mode);
    let mut input = Choices(bytes);
    let mut accepted = false;
    for _ in 0..COMMANDS_MAX {
        if input.0.is_empty() {
            break;
        }
        let before = world.log.len();
        world.step(&mut input);
        accepted |= world.log.len() > before;
    }
    world.check();
    accepted
}

/// Anything may be chosen by any bytes.
pub(crate) fn choices() -> Vec<Vec<u8>> {
    let mut random = Random::new(11);
    (0..64).map(|number| (0..60 + number * 12).map(|_| random.number() as u8).collect()).collect()
}

const COMMANDS_MAX: usize = 200;
const GROUPS: [&str; 3] = ["g0", "g1", ""];
const TOPICS: [&str; 3] = ["t0", "t1", "t2"];
const NAMES: [&str; 4] = ["range", "roundrobin", "uniform", ""];
const PATTERNS: [&str; 6] = ["t.*", "t[01]", "", "(", "(?i)T0|x", "a{1000}{1000}"];
const NUMBERS: [i32; 8] = [0, -1, -2, 1, 2, i32::MAX, i32::MIN, 6_000];

impl Choices<'_> {
    fn text(&mut self, choice: &[&str]) -> Arc<str> {
        self.of(choice).into()
    }

    /// Mostly what it should be.
    fn number(&mut self, right: i32) -> i32 {
        if self.rarely(6) { self.of(&NUMBERS) } else { right }
    }

    /// Bytes between members: mostly right.
    fn metadata(&mut self) -> Bytes {
        match self.below(5) {
            0 => Bytes::copy_from_slice(self.bytes()),
            1 => {
                let whole = subscription(&TOPICS);
                let end = self.below(whole.len());
                whole.slice(..end)
            }
            count => subscription(&TOPICS[..count - 2]),
        }
    }

    fn partitions(&mut self) -> Vec<TopicPartitions> {
        let one = |input: &mut Self| TopicPartitions {
            topic: topic_id(input.below(3) as u8),
            partitions: (0..input.below(4)).map(|index| PartitionIndex(input.number(index as i32))).collect(),
        };
        (0..self.below(3)).map(|_| one(self)).collect()
    }
}

fn topic_id(number: u8) -> TopicId {
    TopicId::from_bytes([number + 1; 16])
}

/// A member that was heard of, with its generation or epoch.
#[derive(Clone)]
struct Known {
    group: Arc<str>,
    member: Arc<str>,
    epoch: i32,
}

/// A coordinator with its log and its surroundings.
struct World {
    coordinator: Coordinator,
    image: Image,
    config: GroupConfig,
    now: u64,
    log: Vec<Record>,
    known: Vec<Known>,
    /// The group that each ticket is about.
    tickets: Vec<Arc<str>>,
    reloads: u8,
}

impl World {
    fn new(mode: u8) -> World {
        let mut config = GroupConfig { consumer_assignment_interval_ms: 0, ..GroupConfig::default() };
        config.classic_initial_rebalance_delay_ms = i32::from(mode & 1) * 3_000;
        if mode & 2 != 0 {
            (config.classic_max_size, config.consumer_max_size) = (2, 2);
        }
        let mut world = World {
            coordinator: new_coordinator(0),
            image: Image::default(),
            config,
            now: 0,
            log: Vec::new(),
            known: Vec::new(),
            tickets: Vec::new(),
            reloads: 0,
        };
        (0..2).for_each(|number| world.create_topic(number));
        world.load();
        world
    }

    fn create_topic(&mut self, number: u8) {
        let topic = topic_id(number);
        if self.image.topic(topic).is_some() {
            return self.image.apply(&MetadataRecord::TopicDeleted { id: topic });
        }
        let name = TOPICS[usize::from(number)].into();
        self.image.apply(&MetadataRecord::TopicCreated { id: topic, name, created: Timestamp(0) });
        let brokers: Arc<[BrokerId]> = Arc::new([BrokerId(1)]);
        for index in 0..4 {
            self.image.apply(&MetadataRecord::PartitionCreated {
                topic,
                index: PartitionIndex(index),
                partition: Partition::on(Arc::clone(&brokers)),
            });
        }
    }

    fn context(&self) -> Context<'_> {
        let wall = Timestamp(1_700_000_000_000 + self.now as i64);
        Context { now: Tick(self.now), wall, image: &self.image, config: &self.config }
    }

    fn load(&mut self) {
        self.reloads = self.reloads.wrapping_add(1);
        let mut coordinator = self.replayed();
        coordinator.loaded(&self.context());
        self.coordinator = coordinator;
    }

    fn replayed(&self) -> Coordinator {
        let mut coordinator = new_coordinator(self.reloads);
        self.log.iter().for_each(|record| coordinator.apply(record));
        coordinator
    }

    /// A record is in the log as what can be read of its bytes.
    fn store(&mut self, record: Record) {
        let (key, value) = record.encode();
        assert_eq!(Record::decode(key, value).as_ref(), Ok(&Some(record.clone())));
        self.coordinator.apply(&record);
        self.log.push(record);
    }

    /// What the driver does with a command; whether anything came of it.
    fn carry_out(&mut self, group: &Arc<str>, command: Command, log_is_full: bool) -> bool {
        self.tickets.push(Arc::clone(group));
        let ticket = Ticket(self.tickets.len() as u64);
        let ctx = Context {
            now: Tick(self.now),
            wall: Timestamp(1_700_000_000_000 + self.now as i64),
            image: &self.image,
            config: &self.config,
        };
        let Decision { records, replies, changes_kind } = self.coordinator.decide(&ctx, ticket, command);
        if log_is_full && !records.is_empty() {
            if changes_kind {
                self.load();
            }
            return false;
        }
        let has_consequences = !records.is_empty() || !replies.is_empty();
        records.into_iter().for_each(|record| self.store(record));
        replies.into_iter().for_each(|(ticket, reply)| self.hear(ticket, reply));
        has_consequences
    }

    /// Remembers who is who, for what comes next.
    fn hear(&mut self, ticket: Ticket, reply: Reply) {
        let (member, epoch) = match reply {
            Reply::Join(Ok(joined)) => (joined.member, joined.generation),
            Reply::Join(Err(refused)) => (refused.member, 0),
            Reply::ConsumerHeartbeat(Ok(heard)) => match heard.member {
                Some(member) => (member, heard.member_epoch),
                None => return,
            },
            _ => return,
        };
        match self.known.iter_mut().find(|known| known.member == member) {
            Some(known) => known.epoch = epoch,
            None => {
                let group = Arc::clone(&self.tickets[ticket.0 as usize - 1]);
                self.known.push(Known { group, member, epoch });
            }
        }
    }

    fn step(&mut self, input: &mut Choices<'_>) {
        let full = input.rarely(16);
        let known = match self.known.len() {
            count if count > 0 && !input.rarely(5) => self.known[input.below(count)].clone(),
            _ => Known { group: input.text(&GROUPS), member: input.text(&["", "m", "n"]), epoch: 0 },
        };
        let instance = if input.rarely(4) { Some(input.text(&["i", "j"])) } else { None };
        let group = Arc::clone(&known.group);
        let command = match input.below(14) {
            0 | 1 => self.join(input, &known, instance),
            2 => sync(input, &known, instance),
            3 => {
                let generation = input.number(known.epoch);
                Command::Heartbeat(Heartbeat { group: known.group, member: known.member, instance, generation })
            }
            4 => Command::Leave(Leave {
                group: known.group,
                members: (0..=input.below(3))
                    .map(|_| {
                        let member = if input.rarely(3) { "".into() } else { Arc::clone(&known.member) };
                        LeavingMember { member, instance: instance.clone(), reason: None }
                    })
                    .collect(),
            }),
            5..=7 => consumer_heartbeat(input, known, instance),
            8 => commit(input, known, instance),
            9 => {
                let partitions = (0..input.below(4)).map(|index| (input.text(&TOPICS), PartitionIndex(index as i32)));
                Command::DeleteOffsets(DeleteOffsets { group: known.group, partitions: partitions.collect() })
            }
            10 => Command::DeleteGroup(known.group),
            11 => {
                let number = input.below(3) as u8;
                self.create_topic(number);
                Command::TopicsDeleted(vec![(topic_id(number), TOPICS[usize::from(number)].into())])
            }
            12 => return self.pass(input, full),
            _ => {
                // Somebody has stored what nobody decided, or only a restart.
                if let Some(record) = parts(input.bytes()).and_then(|(k, v)| Record::decode(k, v).ok().flatten()) {
                    self.store(record);
                }
                let samples = samples();
                if input.rarely(2) {
                    self.store(samples[input.below(samples.len())].clone());
                }
                self.check();
                return self.load();
            }
        };
        self.carry_out(&group, command, full);
    }

    fn join(&self, input: &mut Choices<'_>, known: &Known, instance: Option<Arc<str>>) -> Command {
        let is_new = input.rarely(3);
        let protocols = (0..=input.below(2)).map(|_| (input.text(&NAMES), input.metadata()));
        Command::Join(Join {
            group: Arc::clone(&known.group),
            member: if is_new { "".into() } else { Arc::clone(&known.member) },
            instance,
            client_id: "c".into(),
            client_host: "/h".into(),
            protocols: protocols.collect(),
            session_timeout_ms: input.number(6_000),
            rebalance_timeout_ms: input.number(6_000),
            protocol_type: if input.rarely(8) { "connect".into() } else { "consumer".into() },
            requires_member_id: input.rarely(2),
            supports_skipping_assignment: input.rarely(2),
            reason: None,
        })
    }

    /// Lets time go to the next deadline, or far beyond.
    fn pass(&mut self, input: &mut Choices<'_>, full: bool) {
        let next = self.coordinator.next_deadline().unwrap_or(Tick(0)).0;
        let far = [0, 1, 10_000, 700_000_000][input.below(4)];
        self.now = self.now.max(next.min(self.now + 1_000_000_000)) + far;
        // It goes on until nothing comes of it; something may be put off, but not without end.
        for round in 0.. {
            assert!(round < 1_000, "there is always something due");
            if !self.carry_out(&GROUPS[0].into(), Command::TimePassed, full && round == 0) {
                break;
            }
        }
        let next = self.coordinator.next_deadline();
        assert!(full || next.is_none_or(|next| next > Tick(self.now)), "{next:?} is past at {}", self.now);
    }

    /// Who reads the log knows what the coordinator knows, but for what is not written down.
    fn check(&self) {
        let replayed = self.replayed();
        for group in GROUPS {
            assert_eq!(self.known_of(&self.coordinator, group), self.known_of(&replayed, group), "group {group:?}");
        }
    }

    /// All that is durable and can be asked for.
    fn known_of(&self, coordinator: &Coordinator, group: &str) -> (Vec<FetchedOffset>, Option<ConsumerDescription>) {
        let all = FetchOffsets {
            group: group.into(),
            member: None,
            member_epoch: -1,
            partitions: None,
            require_stable: false,
        };
        let offsets = coordinator.fetch_offsets(&self.context(), &all).unwrap();
        let _ = coordinator.describe_classic(group);
        assert!(coordinator.list().len() <= GROUPS.len() + self.log.len());
        (offsets, coordinator.describe_consumer(&self.context(), group).ok())
    }
}

fn new_coordinator(reloads: u8) -> Coordinator {
    let mut drawn = 0u64;
    Coordinator::new(Box::new(move || {
        drawn += 1;
        let mut bytes = [reloads; 16];
        bytes[..8].copy_from_slice(&drawn.to_be_bytes());
        bytes
    }))
}

fn sync(input: &mut Choices<'_>, known: &Known, instance: Option<Arc<str>>) -> Command {
    let named = input.rarely(2);
    let assignment = match input.below(3) {
        0 => assignment(),
        1 => Bytes::new(),
        _ => input.metadata(),
    };
    Command::Sync(Sync {
        group: Arc::clone(&known.group),
        member: Arc::clone(&known.member),
        instance,
        generation: input.number(known.epoch),
        protocol_type: named.then(|| "consumer".into()),
        protocol: named.then(|| input.text(&NAMES)),
        assignments: vec![(Arc::clone(&known.member), assignment)],
    })
}

fn consumer_heartbeat(input: &mut Choices<'_>, known: Known, instance: Option<Arc<str>>) -> Command {
    let joins = known.epoch == 0 || input.rarely(4);
    let says_all = joins || input.rarely(3);
    let topics = (0..input.below(4)).map(|_| input.text(&TOPICS)).collect();
    let owned = if joins { Vec::new() } else { input.partitions() };
    Command::ConsumerHeartbeat(ConsumerHeartbeat {
        group: known.group,
        member: if input.rarely(3) && joins { input.text(&["x", "y", ""]) } else { known.member },
        member_epoch: if joins { 0 } else { input.number(known.epoch) },
        instance,
        rack: None,
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout_ms: says_all.then(|| input.number(6_000)),
        topics: (says_all && !input.rarely(6)).then_some(topics),
        topics_regex: input.rarely(3).then(|| input.text(&PATTERNS)),
        server_assignor: input.rarely(4).then(|| input.text(&NAMES)),
        owned: (says_all || input.rarely(2)).then_some(owned),
        client_makes_ids: input.rarely(2),
    })
}

fn commit(input: &mut Choices<'_>, known: Known, instance: Option<Arc<str>>) -> Command {
    let retention_ms = input.rarely(4).then(|| input.of(&[0, 1, i64::MAX, 100_000]));
    let offset = |input: &mut Choices<'_>| {
        let number = input.below(3);
        // The versions that know of a retention know no epochs, and their records have no room for ids.
        let is_old = retention_ms.is_some();
        CommitOffset {
            topic: TOPICS[number].into(),
            topic_id: if is_old || input.rarely(3) { TopicId::ZERO } else { topic_id(number as u8) },
            partition: PartitionIndex(input.number(1)),
            offset: Offset(input.of(&[0, 5, -1, i64::MIN, i64::MAX])),
            leader_epoch: if is_old { LeaderEpoch::NONE } else { LeaderEpoch(input.number(0)) },
            metadata: if input.rarely(8) { "m".repeat(40_000).into() } else { "m".into() },
        }
    };
    Command::CommitOffsets(CommitOffsets {
        group: known.group,
        member: if input.rarely(3) { "".into() } else { known.member },
        instance,
        epoch: if input.rarely(3) { -1 } else { input.number(known.epoch) },
        knows_member_epochs: input.rarely(2),
        retention_ms,
        offsets: (0..input.below(4)).map(|_| offset(input)).collect(),
    })
}
