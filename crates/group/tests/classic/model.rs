//! Random histories against a simple reference of the rules.
//!
//! Six clients of two groups do whatever comes to them, often the wrong thing: with ids and generations of long ago,
//! twice, or not at all, while time passes, the log takes nothing, and the coordinator is lost and loaded again. The
//! reference knows no states. It remembers what clients were told and holds every further answer against it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use ottla_group::{
    ClassicDescription, Command, CommitOffsets, Coordinator, DeleteOffsets, GroupState, Heartbeat, Join, Joined, Leave,
    LeavingMember, MemberId, Record, Refusal, Reply, Sync, Synced, Ticket,
};
use ottla_types::{Offset, PartitionIndex, Tick, TopicId};
use proptest::{collection::vec, prelude::*};

use crate::world::{SESSION_MS, World, commit, commit_offset, coordinator, fetch_all, subscription};

const GROUPS: [&str; 2] = ["g", "h"];
const TOPICS: [&str; 2] = ["orders", "payments"];
/// The only one that is subscribed to.
const READ: &str = TOPICS[0];
const WEEK_MS: i64 = 7 * 24 * 3_600_000;
/// By when whoever waits is answered: what a new member waits for the longest.
const PATIENCE_MS: u64 = 301_000;

#[derive(Clone, Copy, Debug)]
enum Step {
    Join { client: usize, with_id: bool, new_metadata: bool },
    Sync { client: usize, back: usize },
    Heartbeat { client: usize, back: usize },
    Leave { client: usize, by_instance: bool },
    Commit { client: usize, back: usize, topic: usize, offset: i64 },
    CommitAsNobody { group: usize, topic: usize, offset: i64 },
    DeleteOffsets { group: usize, topic: usize },
    DeleteGroup { group: usize },
    DeleteTopic { topic: usize },
    Pass { milliseconds: u64 },
    Reload,
    Full(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..6usize;
    // Mostly what the client heard last.
    let back = || prop_oneof![6 => Just(0usize), 1 => 1..4usize];
    let (group, topic, offset) = (|| 0..2usize, || 0..2usize, || 0..100i64);
    prop_oneof![
        24 => (client(), prop::bool::weighted(0.8), prop::bool::weighted(0.2))
            .prop_map(|(client, with_id, new_metadata)| Step::Join { client, with_id, new_metadata }),
        24 => (client(), back()).prop_map(|(client, back)| Step::Sync { client, back }),
        10 => (client(), back()).prop_map(|(client, back)| Step::Heartbeat { client, back }),
        4 => (client(), any::<bool>()).prop_map(|(client, by_instance)| Step::Leave { client, by_instance }),
        10 => (client(), back(), topic(), offset())
            .prop_map(|(client, back, topic, offset)| Step::Commit { client, back, topic, offset }),
        3 => (group(), topic(), offset())
            .prop_map(|(group, topic, offset)| Step::CommitAsNobody { group, topic, offset }),
        1 => (group(), topic()).prop_map(|(group, topic)| Step::DeleteOffsets { group, topic }),
        1 => group().prop_map(|group| Step::DeleteGroup { group }),
        1 => topic().prop_map(|topic| Step::DeleteTopic { topic }),
        20 => prop::sample::select(vec![1, 100, 1_000, 3_000, 6_000, 9_999, 60_000])
            .prop_map(|milliseconds| Step::Pass { milliseconds }),
        1 => prop::sample::select(vec![24 * 3_600_000, 4 * 24 * 3_600_000])
            .prop_map(|milliseconds| Step::Pass { milliseconds }),
        2 => Just(Step::Reload),
        1 => any::<bool>().prop_map(Step::Full),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn g3_g4_g5_b37_random_histories_keep_the_rules(steps in vec(step(), 1..80)) {
        let mut history = History::new();
        for step in steps {
            history.take(step);
        }
        history.end();
    }
}

/// What a client remembers.
#[derive(Default)]
struct Client {
    member: MemberId,
    /// The generations it was told of, the latest first.
    joined: Vec<Joined>,
    protocols: Vec<(Arc<str>, Bytes)>,
}

/// What was asked with a ticket that is not answered yet.
struct Asked {
    at: Tick,
    client: usize,
    what: What,
}

enum What {
    Join(Join),
    Sync(Sync),
}

/// A generation, from what its members were told.
#[derive(Clone, Debug, Default)]
struct Generation {
    number: i32,
    protocol: Option<Arc<str>>,
    leader: Name,
    /// Those who were told of it.
    told: BTreeSet<Name>,
    /// Those its leader was told of.
    members: Option<BTreeSet<Name>>,
    assigned: Option<BTreeMap<Name, Bytes>>,
}

/// Who somebody is, whatever its member id: a static member's instance.
type Name = Arc<str>;

#[derive(Default)]
struct Reference {
    generation: Generation,
    /// The last generation that was assigned, which a load brings back.
    written: Generation,
    offsets: BTreeMap<(Arc<str>, i32), (Offset, i64)>,
    /// Since when it has been empty, by the wall clock.
    empty_since: Option<i64>,
}

struct History {
    world: World,
    clients: Vec<Client>,
    asked: HashMap<Ticket, Asked>,
    groups: [Reference; 2],
    /// Instances by member id.
    instances: HashMap<MemberId, Name>,
    /// What members joined with last.
    offered: HashMap<MemberId, Vec<(Arc<str>, Bytes)>>,
    /// When somebody last spoke, or was spoken to.
    heard: HashMap<MemberId, Tick>,
    /// Knows what the log says and nothing else.
    shadow: Coordinator,
    shadow_knows: usize,
    /// Whether something was not written down, so that the log need not tell what is so.
    is_behind: bool,
}

impl History {
    fn new() -> History {
        let mut world = World::new();
        // Few of the checks find something, and each is looked at from all sides.
        world.config.offsets_retention_check_interval_ms = 12 * 3_600_000;
        History {
            world,
            clients: (0..6).map(|_| Client::default()).collect(),
            asked: HashMap::new(),
            groups: Default::default(),
            instances: HashMap::new(),
            offered: HashMap::new(),
            heard: HashMap::new(),
            shadow: coordinator(&Arc::default()),
            shadow_knows: 0,
            is_behind: false,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Join { client, with_id, new_metadata } => self.join(client, with_id, new_metadata),
            Step::Sync { client, back } => self.sync(client, back),
            Step::Heartbeat { client, back } => self.heartbeat(client, back),
            Step::Leave { client, by_instance } => self.leave(client, by_instance),
            Step::Commit { client, back, topic, offset } => self.commit(client, back, topic, offset),
            Step::CommitAsNobody { group, topic, offset } => self.commit_as_nobody(group, topic, offset),
            Step::DeleteOffsets { group, topic } => self.delete_offsets(group, topic),
            Step::DeleteGroup { group } => self.delete_group(group),
            Step::DeleteTopic { topic } => self.delete_topic(topic),
            Step::Pass { milliseconds } => self.pass(milliseconds),
            Step::Reload => self.reload(),
            Step::Full(is_full) => {
                self.world.is_full = is_full;
                self.is_behind |= is_full;
            }
        }
        self.check();
    }

    /// Everybody falls silent: all are answered, and in the end nothing is left.
    fn end(&mut self) {
        self.world.is_full = false;
        self.pass(PATIENCE_MS);
        assert!(self.asked.is_empty(), "somebody waits for ever");
        // The last session may have begun just now.
        self.pass(2 * SESSION_MS as u64);
        for group in 0..2 {
            assert!(self.describe(group).is_none_or(|group| group.state == GroupState::Empty));
        }
        self.pass(2 * WEEK_MS as u64);
        assert_eq!(self.world.coordinator.list(), []);
        assert!(self.groups.iter().all(|group| group.offsets.is_empty()), "something never expires");
    }

    fn join(&mut self, client: usize, with_id: bool, new_metadata: bool) {
        let me = &mut self.clients[client];
        if me.protocols.is_empty() || new_metadata {
            // Only ever one topic, with something behind it that nobody else understands.
            let mut metadata = subscription(&[READ]).to_vec();
            metadata.extend([client as u8, self.world.now.0 as u8]);
            let (range, sticky) = (("range".into(), metadata.clone().into()), ("sticky".into(), metadata.into()));
            me.protocols = if client < 2 { vec![range, sticky] } else { vec![sticky, range] };
        }
        let member = if with_id { Arc::clone(&me.member) } else { "".into() };
        let request = Join {
            group: group_of(client),
            instance: instance_of(client),
            protocols: me.protocols.clone(),
            requires_member_id: client % 2 == 1,
            supports_skipping_assignment: client != 0,
            ..crate::world::again(&format!("c{client}"), &member)
        };
        self.hear(&member);
        self.send(client, Command::Join(request.clone()), What::Join(request));
    }

    fn sync(&mut self, client: usize, back: usize) {
        let Some(joined) = self.clients[client].joined.get(back) else { return };
        let everybody = joined.members.iter();
        let assignment = |member: &MemberId| Bytes::from(format!("{} of {member}", joined.generation));
        let request = Sync {
            group: group_of(client),
            member: Arc::clone(&joined.member),
            instance: instance_of(client),
            generation: joined.generation,
            protocol_type: joined.protocol_type.clone(),
            protocol: joined.protocol.clone(),
            assignments: everybody.map(|each| (Arc::clone(&each.member), assignment(&each.member))).collect(),
        };
        self.hear(&request.member);
        self.send(client, Command::Sync(request.clone()), What::Sync(request));
    }

    fn heartbeat(&mut self, client: usize, back: usize) {
        let Some(Joined { member, generation, .. }) = self.clients[client].joined.get(back).cloned() else { return };
        let group = GROUPS.iter().position(|id| **id == *group_of(client)).unwrap();
        let before = self.describe(group);
        let request = Heartbeat {
            group: group_of(client),
            member: Arc::clone(&member),
            instance: instance_of(client),
            generation,
        };
        self.hear(&member);
        let result = self.world.heartbeat_of(request);
        let is_in = |group: &ClassicDescription| group.members.iter().any(|each| each.member == member);
        match before.filter(is_in) {
            None => assert!(matches!(result, Err(Refusal::UnknownMemberId | Refusal::FencedInstanceId)), "{result:?}"),
            Some(before) if before.state == GroupState::Stable => {
                // Rule G5.
                let current = self.groups[group].generation.number;
                let expected = if generation == current { Ok(()) } else { Err(Refusal::IllegalGeneration) };
                assert_eq!(result, expected, "{generation} of {current}");
            }
            Some(_) => {}
        }
    }

    fn leave(&mut self, client: usize, by_instance: bool) {
        let me = &self.clients[client];
        let instance = instance_of(client);
        let member = if by_instance && instance.is_some() { "".into() } else { Arc::clone(&me.member) };
        let members = vec![LeavingMember { member, instance, reason: None }];
        self.world.send(Command::Leave(Leave { group: group_of(client), members }));
    }

    fn commit(&mut self, client: usize, back: usize, topic: usize, offset: i64) {
        let Some(Joined { member, generation, .. }) = self.clients[client].joined.get(back).cloned() else { return };
        let group = GROUPS.iter().position(|id| **id == *group_of(client)).unwrap();
        let before = self.describe(group);
        self.hear(&member);
        let request = CommitOffsets {
            group: group_of(client),
            member: Arc::clone(&member),
            instance: instance_of(client),
            epoch: generation,
            offsets: vec![commit_offset(TOPICS[topic], offset)],
            ..commit(0)
        };
        let result = self.try_commit(request);
        let current = &self.groups[group].generation;
        if result == Some(Ok(vec![Ok(())])) {
            // Rule G5.
            assert_eq!(generation, current.number, "a commit of another generation");
            assert!(current.told.contains(&self.name(&member)), "a commit of somebody else");
            self.committed(group, topic, offset);
        } else if let (Some(before), Some(_)) = (before, result) {
            let is_in = before.members.iter().any(|each| each.member == member);
            let must_not_fail = before.state == GroupState::Stable && is_in && generation == current.number;
            assert!(!must_not_fail, "a commit of a member was refused");
        }
    }

    fn commit_as_nobody(&mut self, group: usize, topic: usize, offset: i64) {
        let is_empty = self.describe(group).is_none_or(|group| group.state == GroupState::Empty);
        let offsets = vec![commit_offset(TOPICS[topic], offset)];
        match self.try_commit(CommitOffsets { group: GROUPS[group].into(), offsets, ..commit(0) }) {
            Some(Ok(_)) => {
                assert!(is_empty, "who is no member wrote into a group with members");
                self.committed(group, topic, offset);
            }
            Some(Err(refusal)) => assert_eq!((is_empty, refusal), (false, Refusal::UnknownMemberId)),
            None => {}
        }
    }

    fn committed(&mut self, group: usize, topic: usize, offset: i64) {
        let value = (Offset(offset), self.world.wall().0);
        self.groups[group].offsets.insert((TOPICS[topic].into(), 0), value);
    }

    /// `None` where it could not be written down.
    fn try_commit(&mut self, request: CommitOffsets) -> Option<Result<Vec<Result<(), Refusal>>, Refusal>> {
        let ticket = self.world.send(Command::CommitOffsets(request));
        match self.world.reply(ticket) {
            Some(Reply::CommitOffsets(result)) => Some(result),
            None if self.world.failed(ticket) => None,
            other => panic!("{other:?}"),
        }
    }

    fn delete_offsets(&mut self, group: usize, topic: usize) {
        let partitions = vec![(TOPICS[topic].into(), PartitionIndex(0))];
        let ticket = self.world.send(Command::DeleteOffsets(DeleteOffsets { group: GROUPS[group].into(), partitions }));
        if let Some(Reply::DeleteOffsets(Ok(rows))) = self.world.reply(ticket)
            && rows == [Ok(())]
        {
            self.groups[group].offsets.remove(&(TOPICS[topic].into(), 0));
        }
    }

    fn delete_group(&mut self, group: usize) {
        let is_empty = self.describe(group).is_some_and(|group| group.state == GroupState::Empty);
        let ticket = self.world.send(Command::DeleteGroup(GROUPS[group].into()));
        match self.world.reply(ticket) {
            Some(Reply::DeleteGroup(Ok(()))) => {
                assert!(is_empty, "a group was deleted that is not empty, or not there");
                self.groups[group] = Reference::default();
            }
            Some(Reply::DeleteGroup(Err(_))) => assert!(!is_empty, "an empty group is not deleted"),
            None if self.world.failed(ticket) => {}
            other => panic!("{other:?}"),
        }
    }

    fn delete_topic(&mut self, topic: usize) {
        self.world.send(Command::TopicsDeleted(vec![(TopicId::from_bytes([7; 16]), TOPICS[topic].into())]));
        if !self.world.is_full {
            for group in &mut self.groups {
                group.offsets.remove(&(TOPICS[topic].into(), 0));
            }
        }
    }

    fn pass(&mut self, milliseconds: u64) {
        let end = Tick(self.world.now.0 + milliseconds);
        while let Some(due) = self.world.coordinator.next_deadline().filter(|due| *due <= end) {
            let before = [0, 1].map(|group| self.describe(group));
            self.world.pass(due.0.saturating_sub(self.world.now.0));
            self.expire(&before);
            self.check();
        }
        self.world.pass(end.0 - self.world.now.0);
    }

    fn reload(&mut self) {
        self.world.reload();
        self.asked.clear();
        self.is_behind = self.world.is_full;
        for group in &mut self.groups {
            group.generation = group.written.clone();
        }
        let now = self.world.now;
        self.heard.values_mut().for_each(|heard| *heard = now);
    }

    fn send(&mut self, client: usize, command: Command, what: What) {
        let ticket = self.world.send(command);
        self.asked.insert(ticket, Asked { at: self.world.now, client, what });
    }

    fn hear(&mut self, member: &MemberId) {
        self.heard.insert(Arc::clone(member), self.world.now);
    }

    /// Takes out of the reference what has expired since, if it may have (rule G4, bug class B37).
    fn expire(&mut self, before: &[Option<ClassicDescription>; 2]) {
        let now = self.world.wall().0;
        for (group, before) in before.iter().enumerate() {
            let kept: BTreeSet<_> = self.fetched(group).into_keys().collect();
            let reference = &mut self.groups[group];
            let gone: Vec<_> = reference.offsets.keys().filter(|key| !kept.contains(key)).cloned().collect();
            for key in gone {
                let (_, committed_at) = reference.offsets.remove(&key).unwrap();
                assert!(now - committed_at >= WEEK_MS, "{key:?} expired early");
                let before = before.as_ref().unwrap();
                match before.state {
                    GroupState::Empty if before.protocol_type.is_empty() => {}
                    GroupState::Empty => {
                        let since = reference.empty_since.unwrap();
                        assert!(now - since >= WEEK_MS, "{key:?} expired early for a group that was in use");
                    }
                    GroupState::Stable => assert_ne!(&*key.0, READ, "expired while somebody reads it"),
                    state => panic!("{key:?} expired while the group is {state:?}"),
                }
            }
        }
    }

    /// Looks at everything that can be seen.
    fn check(&mut self) {
        self.read_answers();
        let now = self.world.now;
        for asked in self.asked.values() {
            assert!(now.0 - asked.at.0 <= PATIENCE_MS, "somebody waits since {}", asked.at);
        }
        while self.shadow_knows < self.world.log.len() {
            let (key, value) = self.world.log[self.shadow_knows].clone();
            self.shadow.apply(&Record::decode(key, value).unwrap().unwrap());
            self.shadow_knows += 1;
        }
        for group in 0..2 {
            self.check_group(group);
        }
    }

    fn check_group(&mut self, group: usize) {
        // Rule G4.
        let fetched = self.fetched(group);
        assert_eq!(fetched, self.groups[group].offsets, "offsets");
        let all = fetch_all(GROUPS[group]);
        let replayed = {
            let shadow = &self.shadow;
            self.world.with_context(|_, ctx| shadow.fetch_offsets(ctx, &all)).unwrap()
        };
        assert_eq!(replayed, self.world.fetch_all(GROUPS[group]), "offsets in the log");

        let described = self.describe(group);
        if described.is_none() {
            // Whoever comes next begins a new one, which counts from the start.
            (self.groups[group].generation, self.groups[group].written) = Default::default();
        }
        let wall = self.world.wall().0;
        let since = &mut self.groups[group].empty_since;
        match described.as_ref().map(|group| group.state) {
            None | Some(GroupState::Stable) => *since = None,
            Some(GroupState::Empty) => *since = Some(since.unwrap_or(wall)),
            // Whether somebody comes is not certain yet.
            Some(_) => {}
        }

        let durable = |group: &ClassicDescription| matches!(group.state, GroupState::Empty | GroupState::Stable);
        if described.as_ref().is_none_or(durable) && !self.is_behind {
            assert_eq!(self.shadow.describe_classic(GROUPS[group]).ok(), described, "the log says something else");
        }
        for each in described.iter().flat_map(|group| &group.members) {
            self.know(&each.member, each.instance.as_ref());
        }
        if let Some(stable) = described.filter(|group| group.state == GroupState::Stable) {
            self.check_stable(group, &stable);
        }
    }

    fn check_stable(&mut self, group: usize, stable: &ClassicDescription) {
        let generation = self.groups[group].generation.clone();
        let assigned = generation.assigned.as_ref().unwrap();
        if let Some(members) = &generation.members {
            let described: BTreeSet<_> = stable.members.iter().map(|each| self.name(&each.member)).collect();
            assert_eq!(described, *members, "the members of a generation change within it");
        }
        for each in &stable.members {
            let name = self.name(&each.member);
            assert_eq!(assigned.get(&name), Some(&each.assignment), "{name}");
            let heard = self.heard.entry(Arc::clone(&each.member)).or_insert(self.world.now);
            let quiet_ms = self.world.now.0 - heard.0;
            assert!(quiet_ms <= SESSION_MS as u64, "{name} has been quiet for {quiet_ms} ms");
        }
    }

    /// Takes the answers in, what they tell about generations first.
    fn read_answers(&mut self) {
        let mut joined = Vec::new();
        let mut synced = Vec::new();
        self.asked.retain(|ticket, _| !self.world.failed(*ticket));
        let mut tickets: Vec<_> = self.asked.keys().copied().collect();
        tickets.sort_unstable();
        for ticket in tickets {
            let Some(reply) = self.world.reply(ticket) else { continue };
            let Asked { client, what, .. } = self.asked.remove(&ticket).unwrap();
            match (what, reply) {
                (What::Join(request), Reply::Join(Ok(answer))) => joined.push((client, request, answer)),
                (What::Join(_), Reply::Join(Err(refused))) => self.refused(client, &refused.refusal, refused.member),
                (What::Sync(request), Reply::Sync(Ok(answer))) => synced.push((client, request, answer)),
                (What::Sync(_), Reply::Sync(Err(_))) => {}
                (_, other) => panic!("{other:?}"),
            }
        }
        for (client, request, answer) in &joined {
            self.know(&answer.member, instance_of(*client).as_ref());
            for each in &answer.members {
                self.know(&each.member, each.instance.as_ref());
            }
            self.offered.insert(Arc::clone(&answer.member), request.protocols.clone());
        }
        for (client, _, answer) in joined {
            self.check_joined(client, answer);
        }
        synced.sort_by_key(|(_, request, _)| request.assignments.is_empty());
        for (client, request, answer) in synced {
            self.check_synced(client, &request, &answer);
        }
    }

    fn refused(&mut self, client: usize, refusal: &Refusal, member: MemberId) {
        match refusal {
            Refusal::MemberIdRequired => self.clients[client].member = member,
            Refusal::RebalanceInProgress => {}
            _ => self.clients[client].member = "".into(),
        }
    }

    /// At most one generation lives, and all who are told of it are told the same.
    fn check_joined(&mut self, client: usize, answer: Joined) {
        let group = GROUPS.iter().position(|id| **id == *group_of(client)).unwrap();
        let (name, leader) = (self.name(&answer.member), self.name(&answer.leader));
        let current = &mut self.groups[group].generation;
        assert!(answer.generation >= current.number, "generation {} after {}", answer.generation, current.number);
        if answer.generation > current.number {
            let (number, protocol) = (answer.generation, answer.protocol.clone());
            *current = Generation { number, protocol, leader: leader.clone(), ..Generation::default() };
        }
        assert_eq!((&answer.protocol, &leader), (&current.protocol, &current.leader), "two truths");
        current.told.insert(name);
        if !answer.members.is_empty() {
            let members: BTreeSet<_> = answer.members.iter().map(|each| self.name(&each.member)).collect();
            let known = self.groups[group].generation.members.get_or_insert_with(|| members.clone());
            assert_eq!(*known, members);
            let chosen = answer.protocol.as_ref().unwrap();
            for each in &answer.members {
                // Unless its own answer never came, because the log took nothing.
                let Some(offered) = self.offered.get(&each.member) else { continue };
                let (_, metadata) = offered.iter().find(|(protocol, _)| protocol == chosen).unwrap();
                assert_eq!(each.metadata, metadata, "metadata is passed on as it is");
            }
        }
        self.hear(&answer.member);
        let me = &mut self.clients[client];
        me.member = Arc::clone(&answer.member);
        me.joined.insert(0, answer);
        me.joined.truncate(4);
    }

    /// Everybody gets what the leader of this very generation has assigned, and nobody what another has.
    fn check_synced(&mut self, client: usize, request: &Sync, answer: &Synced) {
        let group = GROUPS.iter().position(|id| **id == *group_of(client)).unwrap();
        let name = self.name(&request.member);
        let from_leader = request.assignments.iter().map(|(id, bytes)| (self.name(id), bytes.clone())).collect();
        let current = &mut self.groups[group].generation;
        assert_eq!(request.generation, current.number, "an assignment of another generation");
        if name == current.leader && current.assigned.is_none() {
            current.assigned = Some(from_leader);
            self.groups[group].written = self.groups[group].generation.clone();
        }
        let assigned = self.groups[group].generation.assigned.as_ref().unwrap();
        assert_eq!(assigned.get(&name).cloned().unwrap_or_default(), answer.assignment);
        self.hear(&request.member);
    }

    fn describe(&self, group: usize) -> Option<ClassicDescription> {
        self.world.coordinator.describe_classic(GROUPS[group]).ok()
    }

    fn fetched(&mut self, group: usize) -> BTreeMap<(Arc<str>, i32), (Offset, i64)> {
        let rows = self.world.fetch_all(GROUPS[group]).into_iter();
        let row = |row: ottla_group::FetchedOffset| {
            let committed = row.committed.unwrap();
            ((row.topic, row.partition.0), (committed.offset, committed.committed_at.0))
        };
        rows.map(row).collect()
    }

    fn know(&mut self, member: &MemberId, instance: Option<&Arc<str>>) {
        if let Some(instance) = instance {
            self.instances.insert(Arc::clone(member), Arc::clone(instance));
        }
    }

    fn name(&self, member: &MemberId) -> Name {
        self.instances.get(member).unwrap_or(member).clone()
    }
}

fn group_of(client: usize) -> Arc<str> {
    GROUPS[usize::from(client >= 4)].into()
}

fn instance_of(client: usize) -> Option<Arc<str>> {
    (client == 0 || client == 3).then(|| format!("i{client}").into())
}
