//! Random histories: members of every sort come, go, fall silent, miss answers and change their minds, while topics
//! come, grow and go, and the coordinator is read from its log again.
//!
//! After every step no partition is in the hands of two members (rule G5): a member has what it was told last, and has
//! it until it has said that it gave it up. Nobody commits for a partition that another has. Epochs do not fall. The
//! log gives the same group again. In the end, when everybody is heard again, everybody has what the target says, and
//! all of it is there.

use std::collections::{BTreeMap, BTreeSet};

use ottla_group::*;
use ottla_metadata::config::MigrationPolicy;
use proptest::{prelude::*, sample::Index};

use crate::world::*;

const TOPICS: [&str; 4] = ["t0", "t1", "t2", "u0"];
/// What a member may want: topics by name, and a pattern.
const WANTS: [(&[&str], &str); 6] = [
    (&["t0", "t1"], ""),
    (&["t0", "t1"], ""),
    (&["t0"], ""),
    (&["t1", "t2", "u0"], ""),
    (&[], "t.*"),
    (&["u0"], "t[01]"),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sort {
    Dynamic,
    Static,
    /// Speaks the classic protocol and keeps what it has while it joins.
    Cooperative,
    /// Speaks the classic protocol and gives everything up before it joins.
    Eager,
}

const SORTS: [Sort; 6] = [Sort::Dynamic, Sort::Dynamic, Sort::Dynamic, Sort::Static, Sort::Cooperative, Sort::Eager];

/// A consumer, as far as it knows.
#[derive(Debug)]
struct Client {
    sort: Sort,
    instance: String,
    /// Counts its processes.
    life: u32,
    id: String,
    /// 0 for one that is to join.
    epoch: i32,
    wants: usize,
    /// For a classic member: what it wanted when it joined.
    joined_for: usize,
    /// Whether it has said what it wants, and what it has, since that changed.
    has_said: bool,
    /// It does not know what became of its last request.
    is_unsure: bool,
    /// What it was told to have.
    told: BTreeSet<Named>,
    /// What it has: what it was told, and what it has not given up yet.
    owned: BTreeSet<Named>,
    /// For a classic member: it has joined, and not got its assignment yet.
    must_sync: bool,
    /// For a classic member: what it waits for.
    waits: Option<Ticket>,
    /// For a classic member that leads: whom it assigns to.
    led: Vec<JoinedMember>,
    is_quiet: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Beat { client: Index, is_lost: bool, is_slow: bool },
    GiveUp(Index),
    Leave(Index),
    Restart { client: Index, says_so: bool },
    Quiet(Index),
    Want(Index, usize),
    Commit(Index, Index, i32),
    Topic(usize, i32),
    Pass(u64),
    Reload,
}

fn any_step() -> impl Strategy<Value = Step> {
    let client = any::<Index>;
    prop_oneof![
        30 => (client(), prop::bool::weighted(0.1), prop::bool::weighted(0.3))
            .prop_map(|(client, is_lost, is_slow)| Step::Beat { client, is_lost, is_slow }),
        6 => client().prop_map(Step::GiveUp),
        2 => client().prop_map(Step::Leave),
        2 => (client(), any::<bool>()).prop_map(|(client, says_so)| Step::Restart { client, says_so }),
        1 => client().prop_map(Step::Quiet),
        2 => (client(), 0..WANTS.len()).prop_map(|(client, wants)| Step::Want(client, wants)),
        6 => (client(), any::<Index>(), 0..4i32).prop_map(|(client, at, age)| Step::Commit(client, at, age)),
        2 => (0..TOPICS.len(), 0..5i32).prop_map(|(topic, size)| Step::Topic(topic, size)),
        4 => prop::sample::select(vec![100, 600, 1_000, 5_000, 16_000, 46_000]).prop_map(Step::Pass),
        1 => Just(Step::Reload),
    ]
}

struct Model {
    world: World,
    clients: Vec<Client>,
    /// The largest group epoch seen, and of each member that is there the largest epoch.
    group_epoch: i32,
    member_epochs: BTreeMap<String, i32>,
}

impl Model {
    fn new(sorts: &[Sort], interval_ms: i32, policy: MigrationPolicy) -> Model {
        let mut world = World::new(&[("t0", 3), ("t1", 4)]);
        world.config.consumer_assignment_interval_ms = interval_ms;
        world.config.classic_initial_rebalance_delay_ms = 0;
        world.config.consumer_migration_policy = policy;
        let client = |(at, sort): (usize, &Sort)| Client {
            sort: *sort,
            instance: format!("i{at}"),
            life: 0,
            id: if sort.is_classic() { String::new() } else { format!("m{at}-0") },
            epoch: 0,
            wants: 0,
            joined_for: 0,
            has_said: false,
            is_unsure: false,
            told: BTreeSet::new(),
            owned: BTreeSet::new(),
            must_sync: false,
            waits: None,
            led: Vec::new(),
            is_quiet: false,
        };
        let clients = sorts.iter().enumerate().map(client).collect();
        Model { world, clients, group_epoch: 0, member_epochs: BTreeMap::new() }
    }

    fn step(&mut self, step: Step) {
        let clients = self.clients.len();
        match step {
            Step::Beat { client, is_lost, is_slow } => {
                let at = client.index(clients);
                if !self.clients[at].is_quiet {
                    self.beat(at, is_lost, is_slow);
                }
            }
            Step::GiveUp(client) => self.clients[client.index(clients)].give_up(),
            Step::Leave(client) => self.leave(client.index(clients)),
            Step::Restart { client, says_so } => self.restart(client.index(clients), says_so),
            Step::Quiet(client) => self.clients[client.index(clients)].is_quiet = true,
            Step::Want(client, wants) => {
                let client = &mut self.clients[client.index(clients)];
                (client.wants, client.has_said) = (wants, false);
            }
            Step::Commit(client, place, age) => self.commit(client.index(clients), place, age),
            Step::Topic(topic, size) => self.change_topic(TOPICS[topic], size),
            Step::Pass(milliseconds) => self.world.pass(milliseconds),
            Step::Reload => self.reload(),
        }
        self.deliver();
        self.check();
    }

    fn beat(&mut self, at: usize, is_lost: bool, is_slow: bool) {
        if self.clients[at].sort.is_classic() {
            return self.beat_classic(at, is_lost);
        }
        let heartbeat = self.heartbeat_of(at);
        let result = self.world.heartbeat(heartbeat);
        let client = &mut self.clients[at];
        if is_lost {
            client.is_unsure = true;
            return;
        }
        match result {
            Ok(reply) => {
                (client.is_unsure, client.has_said) = (false, true);
                client.epoch = reply.member_epoch;
                if let Some(assignment) = reply.assignment {
                    client.told = self.world.named(&assignment);
                    client.owned.extend(client.told.iter().cloned());
                    client.has_said = client.owned == client.told;
                    if !is_slow {
                        client.give_up();
                    }
                }
            }
            Err(Refusal::FencedMemberEpoch(_) | Refusal::UnknownMemberId) => client.forget(),
            Err(Refusal::GroupIdNotFound(_)) if client.epoch != 0 => client.forget(),
            Err(Refusal::UnreleasedInstanceId) if client.sort == Sort::Static => {}
            Err(refusal) => panic!("{client:?}: {refusal:?}"),
        }
    }

    fn heartbeat_of(&self, at: usize) -> ConsumerHeartbeat {
        let client = &self.clients[at];
        let (topics, pattern) = WANTS[client.wants];
        let instance = (client.sort == Sort::Static).then(|| client.instance.as_str().into());
        let alive = ConsumerHeartbeat { instance, ..alive(&client.id, client.epoch) };
        if client.epoch != 0 && client.has_said && !client.is_unsure {
            return alive;
        }
        let mut owned: Vec<TopicPartitions> = Vec::new();
        for (topic, partition) in &client.owned {
            if self.world.image.topic_named(topic).is_some() {
                owned.extend(self.world.partitions(topic, &[*partition]));
            }
        }
        ConsumerHeartbeat {
            rebalance_timeout_ms: Some(20_000),
            topics: Some(topics.iter().map(|topic| (*topic).into()).collect()),
            topics_regex: Some(pattern.into()),
            owned: Some(owned),
            ..alive
        }
    }

    fn beat_classic(&mut self, at: usize, is_lost: bool) {
        let client = &mut self.clients[at];
        if client.waits.is_some() {
            // It may lose its patience, or its connection.
            if is_lost {
                client.waits = None;
            }
            return;
        }
        let command = if client.must_sync {
            Command::Sync(self.sync_of(at))
        } else if client.epoch != 0 && client.has_said {
            Command::Heartbeat(classic_alive(&client.id, client.epoch))
        } else {
            if client.sort == Sort::Eager {
                client.owned.clear();
            }
            client.joined_for = client.wants;
            Command::Join(classic_join(&client.id, WANTS[client.wants].0, &client.owned))
        };
        self.world.decide(command);
        self.clients[at].waits = Some(self.world.last_ticket()).filter(|_| !is_lost);
        self.deliver();
    }

    fn sync_of(&self, at: usize) -> Sync {
        let client = &self.clients[at];
        let all = self.all_partitions();
        let assignments = assign(&client.led, &all).into_iter().map(|(member, to)| (member, assignment(&to))).collect();
        Sync { assignments, ..classic_sync(&client.id, client.epoch) }
    }

    /// Gives classic members the answers they wait for; the others nobody hears.
    fn deliver(&mut self) {
        for (ticket, reply) in std::mem::take(&mut self.world.inbox) {
            if let Some(client) = self.clients.iter_mut().find(|client| client.waits == Some(ticket)) {
                client.waits = None;
                client.hear(reply);
            }
        }
    }

    fn leave(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.sort.is_classic() {
            let members = vec![LeavingMember { member: client.id.as_str().into(), instance: None, reason: None }];
            self.world.decide(Command::Leave(Leave { group: GROUP.into(), members }));
        } else {
            let instance = (client.sort == Sort::Static).then(|| client.instance.as_str().into());
            let heartbeat = ConsumerHeartbeat { instance, ..alive(&client.id, -1) };
            let _left_or_unknown = self.world.heartbeat(heartbeat);
        }
        self.clients[at].forget();
    }

    /// Another process comes in the place of this one, which may have said that it goes.
    fn restart(&mut self, at: usize, says_so: bool) {
        let client = &mut self.clients[at];
        if client.sort == Sort::Static && says_so {
            let instance = Some(client.instance.as_str().into());
            let heartbeat = ConsumerHeartbeat { instance, ..alive(&client.id, -2) };
            let _left_or_unknown = self.world.heartbeat(heartbeat);
        }
        let client = &mut self.clients[at];
        client.life += 1;
        client.id = if client.sort.is_classic() { String::new() } else { format!("m{at}-{}", client.life) };
        client.is_quiet = false;
        client.forget_all_but_id();
    }

    fn commit(&mut self, at: usize, place: Index, age: i32) {
        let client = &self.clients[at];
        let all: Vec<Named> = self.all_partitions();
        if client.epoch <= age || all.is_empty() {
            return;
        }
        let (topic, partition) = place.get(&all).clone();
        let (id, epoch) = (client.id.clone(), client.epoch - age);
        let has_it = client.owned.contains(&(topic.clone(), partition));
        let result = self.world.commit(&id, epoch, &topic, partition);
        let server = self.world.find().and_then(|group| group.members.into_iter().find(|each| *each.member == *id));
        let Some(server) = server else {
            return assert!(result.is_err() || self.world.find().is_none(), "{id} is no member");
        };
        if epoch == server.member_epoch && has_it {
            assert_eq!(result, Ok(()), "{id} at {epoch}, {topic}-{partition}");
        }
        // A member in its epoch may write down what it likes; one that is behind, only what nobody else can have had.
        let other = self
            .clients
            .iter()
            .find(|other| other.id != id && other.owned.contains(&(topic.clone(), partition)) && self.is_member(other));
        if epoch != server.member_epoch && result.is_ok() {
            assert!(other.is_none(), "{id} at {epoch} commits {topic}-{partition} of {other:?}");
        }
    }

    /// Deletes a topic for a size of 0; otherwise creates it, or makes it larger.
    fn change_topic(&mut self, topic: &str, size: i32) {
        let exists = self.world.image.topic_named(topic).is_some();
        match size {
            0 if exists => {
                self.world.delete_topic(topic);
                for client in &mut self.clients {
                    client.owned.retain(|(name, _)| name != topic);
                    client.told.retain(|(name, _)| name != topic);
                }
            }
            0 => {}
            _ if exists => self.world.grow(topic, size),
            _ => self.world.create_topic(topic, size),
        }
    }

    fn all_partitions(&self) -> Vec<Named> {
        let topics = self.world.image.topics();
        topics.flat_map(|t| (0..).zip(&t.partitions).map(|(at, _)| (t.name.to_string(), at))).collect()
    }

    fn is_member(&self, client: &Client) -> bool {
        self.members().contains(&*client.id)
    }

    /// Who is in the group, of whichever kind it is.
    fn members(&self) -> BTreeSet<MemberId> {
        match (self.world.find(), self.world.coordinator.describe_classic(GROUP)) {
            (Some(group), _) => group.members.into_iter().map(|member| member.member).collect(),
            (None, Ok(group)) => group.members.into_iter().map(|member| member.member).collect(),
            (None, Err(_)) => BTreeSet::new(),
        }
    }

    /// What holds at any time.
    fn check(&mut self) {
        let members = self.members();
        let mut owners: BTreeMap<&Named, &str> = BTreeMap::new();
        for client in self.clients.iter().filter(|client| members.contains(&*client.id)) {
            for place in &client.owned {
                let other = owners.insert(place, &client.id);
                assert!(other.is_none(), "{place:?} is {}'s and {other:?}'s", client.id);
            }
        }
        let Some(group) = self.world.find() else {
            (self.group_epoch, self.member_epochs) = (0, BTreeMap::new());
            return;
        };
        assert!(group.group_epoch >= self.group_epoch && group.group_epoch >= group.assignment_epoch);
        self.group_epoch = group.group_epoch;
        let mut assigned = BTreeSet::new();
        let mut epochs = BTreeMap::new();
        for member in &group.members {
            let before = self.member_epochs.get(&*member.member).copied().unwrap_or_default();
            assert!(member.member_epoch >= before || member.member_epoch == -2, "{member:?} was at {before}");
            assert!(member.member_epoch <= group.assignment_epoch);
            epochs.insert(member.member.to_string(), member.member_epoch);
            for topic in &member.assignment {
                for partition in &topic.partitions {
                    assert!(assigned.insert((topic.topic, *partition)), "{partition:?} is assigned twice");
                }
            }
        }
        self.member_epochs = epochs;
    }

    /// Everybody is heard, again and again, until there is no more to do. That may take a while: the place of a static
    /// member that went without a word is not free before its session ends.
    fn settle(&mut self) {
        for client in &mut self.clients {
            client.is_quiet = false;
            // A classic leader looks for new topics by itself.
            client.has_said &= !client.sort.is_classic();
        }
        let mut rounds = 0;
        while let Err(why) = self.is_settled() {
            rounds += 1;
            assert!(rounds < 60, "{why}");
            for at in 0..self.clients.len() {
                self.beat(at, false, false);
                self.clients[at].give_up();
                self.check();
            }
            self.world.pass(1_500);
            self.deliver();
        }
        self.reload();
        assert_eq!(self.is_settled(), Ok(()));
    }

    /// Whether everybody is there and has its target, which is all there is.
    fn is_settled(&self) -> Result<(), String> {
        let targets: BTreeMap<MemberId, BTreeSet<Named>> = match self.world.find() {
            Some(group) if group.state == GroupState::Stable => {
                let target = |member: ConsumerMemberDescription| (member.member, self.world.named(&member.target));
                group.members.into_iter().map(target).collect()
            }
            Some(group) => return Err(format!("{group:?}")),
            None => match self.world.coordinator.describe_classic(GROUP) {
                Ok(group) if group.state == GroupState::Stable => {
                    group.members.into_iter().map(|member| (member.member, assigned(&member.assignment))).collect()
                }
                group => return Err(format!("{group:?}")),
            },
        };
        let (mut owned, mut wanted) = (BTreeSet::new(), BTreeSet::new());
        for client in &self.clients {
            if targets.get(&*client.id) != Some(&client.owned) || !client.has_said {
                return Err(format!("{client:?} has not what it should: {targets:?}"));
            }
            owned.extend(client.owned.iter().cloned());
            wanted.extend(self.all_partitions().into_iter().filter(|(topic, _)| client.wants_topic(topic)));
        }
        if owned == wanted { Ok(()) } else { Err(format!("{owned:?} of {wanted:?}")) }
    }

    /// The coordinator goes, and another reads the same from the log.
    fn reload(&mut self) {
        let before = self.world.find();
        self.clients.iter_mut().for_each(|client| client.waits = None);
        self.world.reload();
        assert_eq!(self.world.find(), before);
    }
}

impl Sort {
    fn is_classic(self) -> bool {
        matches!(self, Sort::Cooperative | Sort::Eager)
    }
}

/// What a cooperative leader assigns: everybody keeps what it has and still wants, and what nobody has goes to the one
/// with least of those that want it.
fn assign(members: &[JoinedMember], all: &[Named]) -> BTreeMap<MemberId, BTreeSet<Named>> {
    let mut targets = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let said: Vec<_> = members.iter().map(|member| (&member.member, subscribed(&member.metadata))).collect();
    for (member, (topics, owned)) in &said {
        let kept = owned.iter().filter(|place| topics.contains(&place.0) && all.contains(place));
        targets.insert(MemberId::clone(member), kept.cloned().collect::<BTreeSet<_>>());
        taken.extend(owned.iter().cloned());
    }
    for place in all.iter().filter(|place| !taken.contains(place)) {
        let wants = said.iter().filter(|(_, (topics, _))| topics.contains(&place.0)).map(|(member, _)| *member);
        if let Some(member) = wants.min_by_key(|member| targets[*member].len()) {
            targets.entry(MemberId::clone(member)).or_default().insert(place.clone());
        }
    }
    targets
}

impl Client {
    /// A classic member hears an answer.
    fn hear(&mut self, reply: Reply) {
        match reply {
            Reply::Join(Ok(joined)) => {
                (self.id, self.epoch) = (joined.member.to_string(), joined.generation);
                (self.must_sync, self.led) = (true, joined.members);
            }
            Reply::Sync(Ok(synced)) => {
                self.told = assigned(&synced.assignment);
                // It has to join again to say what it gave up, or if it wants something else by now.
                self.has_said = self.owned.is_subset(&self.told) && self.wants == self.joined_for;
                self.owned.clone_from(&self.told);
                self.must_sync = false;
            }
            Reply::Heartbeat(Ok(())) => {}
            Reply::Heartbeat(Err(Refusal::RebalanceInProgress)) | Reply::Sync(Err(Refusal::RebalanceInProgress)) => {
                (self.must_sync, self.has_said) = (false, false);
            }
            Reply::Join(Err(JoinRefusal { refusal: Refusal::RebalanceInProgress, .. })) => {}
            Reply::Join(Err(JoinRefusal { refusal: Refusal::UnknownMemberId, .. }))
            | Reply::Heartbeat(Err(Refusal::UnknownMemberId | Refusal::IllegalGeneration))
            | Reply::Sync(Err(Refusal::UnknownMemberId | Refusal::IllegalGeneration)) => self.forget(),
            other => panic!("{self:?}: {other:?}"),
        }
    }

    /// Gives up what it was not told to have.
    fn give_up(&mut self) {
        if !self.sort.is_classic() && self.owned != self.told {
            self.owned.clone_from(&self.told);
            self.has_said = false;
        }
    }

    /// It has nothing any more, and joins next.
    fn forget(&mut self) {
        if self.sort.is_classic() {
            self.id.clear();
        }
        self.forget_all_but_id();
    }

    fn forget_all_but_id(&mut self) {
        self.epoch = 0;
        (self.has_said, self.is_unsure, self.must_sync) = (false, false, false);
        (self.waits, self.led) = (None, Vec::new());
        self.told.clear();
        self.owned.clear();
    }

    fn wants_topic(&self, topic: &str) -> bool {
        let (topics, pattern) = WANTS[self.wants];
        let matches = match pattern {
            "t.*" => topic.starts_with('t'),
            "t[01]" => ["t0", "t1"].contains(&topic),
            _ => false,
        };
        topics.contains(&topic) || matches && !self.sort.is_classic()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn g5_no_history_gives_a_partition_to_two(
        sorts in prop::collection::vec(prop::sample::select(&SORTS[..]), 2..6),
        interval_ms in prop::sample::select(vec![0, 1_000]),
        policy in prop::sample::select(vec![MigrationPolicy::Upgrade, MigrationPolicy::Bidirectional]),
        steps in prop::collection::vec(any_step(), 1..80),
    ) {
        let mut model = Model::new(&sorts, interval_ms, policy);
        for step in steps {
            model.step(step);
        }
        model.settle();
    }
}
