//! A coordinator with its surroundings: topics, time, and the log that it is read from again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ottla_group::*;
use ottla_metadata::{Image, Partition, Record as MetadataRecord};
use ottla_types::{BrokerId, LeaderEpoch, Offset, PartitionIndex, Tick, Timestamp, TopicId};

/// The only group in the tests.
pub(crate) const GROUP: &str = "g";

/// A partition by the name of its topic.
pub(crate) type Named = (String, i32);

pub(crate) struct World {
    pub(crate) coordinator: Coordinator,
    pub(crate) image: Image,
    pub(crate) config: GroupConfig,
    pub(crate) now: u64,
    pub(crate) log: Vec<Record>,
    /// Every reply that nobody has taken yet.
    pub(crate) inbox: Vec<(Ticket, Reply)>,
    drawn: u32,
    tickets: u64,
    reloads: u8,
}

impl World {
    /// A broker with topics of so many partitions, where a target is computed whenever it is due.
    pub(crate) fn new(topics: &[(&str, i32)]) -> World {
        let mut world = World {
            coordinator: coordinator(0),
            image: Image::default(),
            config: GroupConfig { consumer_assignment_interval_ms: 0, ..GroupConfig::default() },
            now: 0,
            log: Vec::new(),
            inbox: Vec::new(),
            drawn: 0,
            tickets: 0,
            reloads: 0,
        };
        for (name, partitions) in topics {
            world.create_topic(name, *partitions);
        }
        world
    }

    pub(crate) fn create_topic(&mut self, name: &str, partitions: i32) {
        self.drawn += 1;
        let id = TopicId::from_bytes(u128::from(self.drawn).to_be_bytes());
        self.image.apply(&MetadataRecord::TopicCreated { id, name: name.into(), created: Timestamp(0) });
        self.grow(name, partitions);
    }

    /// Adds partitions to a topic until it has so many.
    pub(crate) fn grow(&mut self, name: &str, partitions: i32) {
        let topic = Arc::clone(self.image.topic_named(name).unwrap());
        let brokers: Arc<[BrokerId]> = Arc::new([BrokerId(1)]);
        for index in i32::try_from(topic.partitions.len()).unwrap()..partitions {
            self.image.apply(&MetadataRecord::PartitionCreated {
                topic: topic.id,
                index: PartitionIndex(index),
                partition: Partition::on(Arc::clone(&brokers)),
            });
        }
    }

    pub(crate) fn delete_topic(&mut self, name: &str) {
        let id = self.image.topic_named(name).unwrap().id;
        self.image.apply(&MetadataRecord::TopicDeleted { id });
    }

    /// Gives the coordinator a command, and the log what follows; the replies to it and to others.
    pub(crate) fn decide(&mut self, command: Command) -> Vec<(Ticket, Reply)> {
        self.tickets += 1;
        let ctx = Context {
            now: Tick(self.now),
            wall: Timestamp(1_000_000 + i64::try_from(self.now).unwrap()),
            image: &self.image,
            config: &self.config,
        };
        let decision = self.coordinator.decide(&ctx, Ticket(self.tickets), command);
        for record in decision.records {
            let (key, value) = record.encode();
            let record = Record::decode(key, value).unwrap().unwrap();
            self.coordinator.apply(&record);
            self.log.push(record);
        }
        self.inbox.extend(decision.replies.iter().cloned());
        decision.replies
    }

    pub(crate) fn ask(&mut self, command: Command) -> Reply {
        self.decide(command).into_iter().find(|(ticket, _)| *ticket == self.last_ticket()).unwrap().1
    }

    /// The ticket of the last command.
    pub(crate) fn last_ticket(&self) -> Ticket {
        Ticket(self.tickets)
    }

    pub(crate) fn heartbeat(&mut self, heartbeat: ConsumerHeartbeat) -> Result<ConsumerHeartbeatReply, Refusal> {
        match self.ask(Command::ConsumerHeartbeat(heartbeat)) {
            Reply::ConsumerHeartbeat(result) => result,
            other => panic!("{other:?}"),
        }
    }

    /// Lets time go by, and everything happen that is due meanwhile, when it is due.
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        let until = self.now + milliseconds;
        while let Some(Tick(due)) = self.coordinator.next_deadline().filter(|due| due.0 <= until) {
            self.now = self.now.max(due);
            self.decide(Command::TimePassed);
        }
        self.now = until;
    }

    /// The coordinator goes, and another reads the log.
    pub(crate) fn reload(&mut self) {
        self.reloads += 1;
        self.coordinator = self.replayed();
        let ctx = Context {
            now: Tick(self.now),
            wall: Timestamp(1_000_000 + i64::try_from(self.now).unwrap()),
            image: &self.image,
            config: &self.config,
        };
        self.coordinator.loaded(&ctx);
    }

    fn replayed(&self) -> Coordinator {
        let mut replayed = coordinator(self.reloads);
        self.log.iter().for_each(|record| replayed.apply(record));
        replayed
    }

    /// What compaction would leave of the log: the last record of each key, without tombstones.
    pub(crate) fn compacted(&self) -> Vec<Record> {
        let mut last = BTreeMap::new();
        for record in &self.log {
            let (key, value) = record.encode();
            last.insert(key, value);
        }
        let live = last.into_iter().filter(|(_, value)| value.is_some());
        live.map(|(key, value)| Record::decode(key, value).unwrap().unwrap()).collect()
    }

    pub(crate) fn describe(&self) -> ConsumerDescription {
        self.describe_by(&self.coordinator).unwrap()
    }

    /// What the group is, or that it is none.
    pub(crate) fn find(&self) -> Option<ConsumerDescription> {
        self.describe_by(&self.coordinator).ok()
    }

    /// The same from a coordinator that has only read the log.
    pub(crate) fn find_replayed(&self) -> Option<ConsumerDescription> {
        self.describe_by(&self.replayed()).ok()
    }

    fn describe_by(&self, coordinator: &Coordinator) -> Result<ConsumerDescription, Refusal> {
        let wall = Timestamp(0);
        coordinator
            .describe_consumer(&Context { now: Tick(self.now), wall, image: &self.image, config: &self.config }, GROUP)
    }

    pub(crate) fn member(&self, member: &str) -> ConsumerMemberDescription {
        self.describe().members.into_iter().find(|each| &*each.member == member).unwrap()
    }

    /// One partition, by its topic's id.
    pub(crate) fn partitions(&self, topic: &str, partitions: &[i32]) -> Vec<TopicPartitions> {
        let topic = self.image.topic_named(topic).unwrap().id;
        vec![TopicPartitions { topic, partitions: partitions.iter().copied().map(PartitionIndex).collect() }]
    }

    /// What is assigned in a reply, by name; topics that are gone are left out.
    pub(crate) fn named(&self, topics: &[TopicPartitions]) -> BTreeSet<Named> {
        let mut named = BTreeSet::new();
        for each in topics {
            let Some(topic) = self.image.topic(each.topic) else { continue };
            named.extend(each.partitions.iter().map(|partition| (topic.name.to_string(), partition.0)));
        }
        named
    }

    pub(crate) fn commit(&mut self, member: &str, epoch: i32, topic: &str, partition: i32) -> Result<(), Refusal> {
        let topic_id = self.image.topic_named(topic).map(|topic| topic.id).unwrap_or_default();
        let offset = CommitOffset {
            topic: topic.into(),
            topic_id,
            partition: PartitionIndex(partition),
            offset: Offset(1),
            leader_epoch: LeaderEpoch(0),
            metadata: "".into(),
        };
        let commit = CommitOffsets {
            group: GROUP.into(),
            member: member.into(),
            instance: None,
            epoch,
            knows_member_epochs: true,
            retention_ms: None,
            offsets: vec![offset],
        };
        match self.ask(Command::CommitOffsets(commit)) {
            Reply::CommitOffsets(Ok(mut rows)) => rows.remove(0),
            Reply::CommitOffsets(Err(refusal)) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }
}

/// JoinGroup of a cooperative classic consumer.
pub(crate) fn classic_join(member: &str, topics: &[&str], owned: &BTreeSet<Named>) -> Join {
    Join {
        group: GROUP.into(),
        member: member.into(),
        instance: None,
        client_id: "classic".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![("cooperative-sticky".into(), subscription(topics, owned))],
        requires_member_id: false,
        supports_skipping_assignment: true,
        reason: None,
    }
}

/// SyncGroup of a member that does not lead.
pub(crate) fn classic_sync(member: &str, generation: i32) -> Sync {
    Sync {
        group: GROUP.into(),
        member: member.into(),
        instance: None,
        generation,
        protocol_type: Some("consumer".into()),
        protocol: Some("cooperative-sticky".into()),
        assignments: Vec::new(),
    }
}

/// Heartbeat of a classic member.
pub(crate) fn classic_alive(member: &str, generation: i32) -> Heartbeat {
    Heartbeat { group: GROUP.into(), member: member.into(), instance: None, generation }
}

/// Draws bits that no coordinator before has drawn.
fn coordinator(life: u8) -> Coordinator {
    let mut drawn = 0u8;
    Coordinator::new(Box::new(move || {
        drawn = drawn.wrapping_add(1);
        let mut bits = [drawn; 16];
        bits[0] = life;
        bits
    }))
}

/// A heartbeat that says nothing but that the member lives.
pub(crate) fn alive(member: &str, epoch: i32) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group: GROUP.into(),
        member: member.into(),
        member_epoch: epoch,
        client_makes_ids: false,
        instance: None,
        rack: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: None,
        topics: None,
        topics_regex: None,
        server_assignor: None,
        owned: None,
    }
}

/// The first heartbeat of a member.
pub(crate) fn joining(member: &str, topics: &[&str]) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        rebalance_timeout_ms: Some(60_000),
        topics: Some(topics.iter().map(|topic| Arc::from(*topic)).collect()),
        owned: Some(Vec::new()),
        ..alive(member, 0)
    }
}

/// The bytes of a classic consumer's subscription, in version 1.
pub(crate) fn subscription(topics: &[&str], owned: &BTreeSet<Named>) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    bytes.put_i32(topics.len() as i32);
    topics.iter().for_each(|topic| put_text(&mut bytes, topic));
    bytes.put_i32(-1);
    put_partitions(&mut bytes, owned);
    bytes.freeze()
}

/// The bytes of a classic consumer's assignment.
pub(crate) fn assignment(partitions: &BTreeSet<Named>) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    put_partitions(&mut bytes, partitions);
    bytes.put_i32(-1);
    bytes.freeze()
}

/// What the bytes of an assignment say.
pub(crate) fn assigned(mut bytes: &[u8]) -> BTreeSet<Named> {
    if bytes.is_empty() {
        return BTreeSet::new();
    }
    assert!(bytes.get_i16() <= 3);
    let partitions = get_partitions(&mut bytes);
    assert_eq!(bytes.get_i32(), -1);
    assert!(bytes.is_empty());
    partitions
}

/// What the bytes of a subscription say: the topics wanted, and the partitions owned.
pub(crate) fn subscribed(mut bytes: &[u8]) -> (BTreeSet<String>, BTreeSet<Named>) {
    assert_eq!(bytes.get_i16(), 1);
    let topics = (0..bytes.get_i32()).map(|_| get_text(&mut bytes)).collect();
    assert_eq!(bytes.get_i32(), -1);
    (topics, get_partitions(&mut bytes))
}

fn get_partitions(bytes: &mut &[u8]) -> BTreeSet<Named> {
    let mut partitions = BTreeSet::new();
    for _ in 0..bytes.get_i32() {
        let name = get_text(bytes);
        for _ in 0..bytes.get_i32() {
            partitions.insert((name.clone(), bytes.get_i32()));
        }
    }
    partitions
}

fn get_text(bytes: &mut &[u8]) -> String {
    let len = usize::try_from(bytes.get_i16()).unwrap();
    String::from_utf8(bytes.copy_to_bytes(len).to_vec()).unwrap()
}

fn put_partitions(bytes: &mut BytesMut, partitions: &BTreeSet<Named>) {
    let topics: BTreeSet<&String> = partitions.iter().map(|(topic, _)| topic).collect();
    bytes.put_i32(topics.len() as i32);
    for topic in topics {
        let of_topic: Vec<i32> = partitions.iter().filter(|(name, _)| name == topic).map(|(_, index)| *index).collect();
        put_text(bytes, topic);
        bytes.put_i32(of_topic.len() as i32);
        of_topic.iter().for_each(|partition| bytes.put_i32(*partition));
    }
}

fn put_text(bytes: &mut BytesMut, text: &str) {
    bytes.put_i16(text.len() as i16);
    bytes.put_slice(text.as_bytes());
}
