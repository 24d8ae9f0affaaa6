//! Several nodes of a quorum on one thread: virtual time, a network that loses, delays and is cut, disks that forget.
//!
//! After every poll of a node the world holds what the rules say of it ([`World::check`]); a test that breaks one ends
//! there. Everything follows from the seed.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Buf, Bytes};
use ottla_consensus::{Application, ChangeError, Config, Core, Directory, ProposeError, Reply, Status};
use ottla_log::{Checkpoint, SimDisk};
use ottla_types::{BrokerId, LeaderEpoch, Tick};

pub const HEARTBEAT_MS: u64 = 50;
pub const ELECTION_MS: Range<u64> = 200..400;

/// What an application saw.
#[derive(Default)]
pub struct Seen {
    pub applied: Vec<Bytes>,
    pub statuses: Vec<Status>,
}

pub struct App(pub Rc<RefCell<Seen>>);

impl Application for App {
    fn apply(&mut self, proposal: &Bytes) {
        self.0.borrow_mut().applied.push(proposal.clone());
    }

    fn snapshot(&self) -> Bytes {
        let mut out = Vec::new();
        for each in &self.0.borrow().applied {
            out.extend_from_slice(&u32::try_from(each.len()).unwrap().to_be_bytes());
            out.extend_from_slice(each);
        }
        out.into()
    }

    fn restore(&mut self, snapshot: &Bytes) -> Result<(), String> {
        let mut rest = snapshot.clone();
        let mut applied = Vec::new();
        while let Ok(len) = rest.try_get_u32() {
            let len = len as usize;
            if len > rest.len() {
                return Err("it ends early".to_owned());
            }
            // A copy, so that the snapshot's memory goes.
            applied.push(Bytes::copy_from_slice(&rest.split_to(len)));
        }
        self.0.borrow_mut().applied = applied;
        Ok(())
    }

    fn status(&mut self, status: &Status) {
        self.0.borrow_mut().statuses.push(status.clone());
    }
}

pub struct Node {
    pub id: BrokerId,
    pub directory: Directory,
    pub disk: SimDisk,
    pub core: Option<Core>,
    pub seen: Rc<RefCell<Seen>>,
    pub halted: Arc<AtomicBool>,
    pub checkpoint: Option<Checkpoint>,
    /// Requests that it refused, as the errors say it.
    pub refused: Vec<String>,
    wake: Option<Tick>,
    starts: u64,
    /// How much of what it applied was compared.
    compared: usize,
    committed: u64,
}

impl Node {
    fn new(index: usize, seed: u64) -> Node {
        Node {
            id: BrokerId(index as i32),
            directory: directory_of(index, 0),
            disk: SimDisk::new(seed.wrapping_mul(31).wrapping_add(index as u64)),
            core: None,
            seen: Rc::default(),
            halted: Arc::default(),
            checkpoint: None,
            refused: Vec::new(),
            wake: None,
            starts: 0,
            compared: 0,
            committed: 0,
        }
    }
}

struct Outgoing {
    from: usize,
    to: BrokerId,
    request: Bytes,
    reply: Reply,
}

struct Answered {
    from: usize,
    to: usize,
    answer: Result<Bytes, String>,
    reply: Reply,
}

enum Event {
    Request(Outgoing, usize),
    Answer { from: usize, to: usize, bytes: Option<Bytes>, reply: Reply },
}

pub struct World {
    pub now: Tick,
    pub nodes: Vec<Node>,
    /// One in so many messages is lost; 0 loses none.
    pub loss: u64,
    pub delay_ms: Range<u64>,
    /// Requests that were sent, for who wants to look at them.
    pub recorded: Option<Vec<Bytes>>,
    cuts: BTreeSet<(usize, usize)>,
    random: u64,
    sequence: u64,
    events: BTreeMap<(Tick, u64), Event>,
    outbox: Rc<RefCell<Vec<Outgoing>>>,
    answered: Rc<RefCell<Vec<Answered>>>,
    leaders: BTreeMap<LeaderEpoch, BrokerId>,
    /// What was agreed on, in its order, as the first node applied it.
    pub agreed: Vec<Bytes>,
    pub acknowledged: Rc<RefCell<Vec<Bytes>>>,
    /// Changes with every event.
    pub trace: u64,
}

pub fn directory_of(index: usize, generation: u8) -> Directory {
    let mut directory = [generation; 16];
    directory[0] = index as u8 + 1;
    directory
}

impl World {
    /// Nodes 0 to `count`, none of them started.
    pub fn new(count: usize, seed: u64) -> World {
        World {
            now: Tick(0),
            nodes: (0..count).map(|index| Node::new(index, seed)).collect(),
            loss: 0,
            delay_ms: 1..4,
            recorded: None,
            cuts: BTreeSet::new(),
            random: seed,
            sequence: 0,
            events: BTreeMap::new(),
            outbox: Rc::default(),
            answered: Rc::default(),
            leaders: BTreeMap::new(),
            agreed: Vec::new(),
            acknowledged: Rc::default(),
            trace: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Node 0 as a new cluster, then all others as voters.
    pub fn formed(count: usize, seed: u64) -> World {
        let mut world = World::new(count, seed);
        (0..count).for_each(|index| world.start(index));
        world.core(0).bootstrap();
        world.settle(0);
        for index in 1..count {
            world.add(0, index).unwrap();
        }
        world.set_voters(0, &(0..count).collect::<Vec<_>>()).unwrap();
        world
    }

    pub fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }

    fn mark(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn core(&mut self, index: usize) -> &mut Core {
        self.nodes[index].core.as_mut().unwrap()
    }

    pub fn status(&self, index: usize) -> Arc<Status> {
        self.nodes[index].core.as_ref().unwrap().status()
    }

    pub fn config(&mut self, index: usize) -> Config {
        let seed = self.draw(u64::MAX);
        let node = &self.nodes[index];
        let halted = Arc::clone(&node.halted);
        Config {
            id: node.id,
            directory: node.directory,
            disk: Arc::new(node.disk.clone()),
            dir: PathBuf::from("/metadata"),
            checkpoint: node.checkpoint.clone(),
            heartbeat_ms: HEARTBEAT_MS,
            election_timeout_ms: ELECTION_MS,
            seed,
            halt: Arc::new(move |_: &str| halted.store(true, Ordering::SeqCst)),
        }
    }

    pub fn start(&mut self, index: usize) {
        self.try_start(index).unwrap();
    }

    pub fn try_start(&mut self, index: usize) -> Result<(), String> {
        let config = self.config(index);
        let outbox = Rc::clone(&self.outbox);
        let transport = move |to: BrokerId, request: Bytes, reply: Reply| {
            outbox.borrow_mut().push(Outgoing { from: index, to, request, reply });
        };
        let node = &mut self.nodes[index];
        node.seen = Rc::default();
        (node.compared, node.committed, node.starts) = (0, 0, node.starts + 1);
        let app = Box::new(App(Rc::clone(&node.seen)));
        let core = Core::open(config, self.now, app, Box::new(transport)).map_err(|error| error.to_string())?;
        node.core = Some(core);
        node.wake = Some(self.now);
        self.check(index);
        Ok(())
    }

    /// Starts one more node, which nobody knows.
    pub fn start_another(&mut self) {
        let (index, seed) = (self.nodes.len(), self.draw(u64::MAX));
        self.nodes.push(Node::new(index, seed));
        self.start(index);
    }

    /// Cuts the power of a node.
    pub fn crash(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.core = None;
        node.wake = None;
        node.disk = node.disk.crash();
    }

    /// Kills a node's process.
    pub fn kill(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.core = None;
        node.wake = None;
        node.disk = node.disk.restart();
    }

    /// Gives a node that is down an empty disk, with another directory id.
    pub fn wipe(&mut self, index: usize) {
        let seed = self.draw(u64::MAX);
        let node = &mut self.nodes[index];
        node.disk = SimDisk::new(seed);
        node.directory[15] += 1;
        node.checkpoint = None;
    }

    pub fn is_up(&self, index: usize) -> bool {
        self.nodes[index].core.is_some()
    }

    pub fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Cuts a node off from all others, both ways.
    pub fn isolate(&mut self, index: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != index) {
            self.cut(index, other);
            self.cut(other, index);
        }
    }

    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// The node that says it leads, in the highest term if several do.
    pub fn leader(&self) -> Option<usize> {
        let leading = |index: &usize| self.is_up(*index) && self.status(*index).leading;
        (0..self.nodes.len()).filter(leading).max_by_key(|index| self.status(*index).term)
    }

    /// Runs until a node leads; which.
    pub fn elect(&mut self) -> usize {
        assert!(self.run_until(30_000, |world| world.leader().is_some()), "nobody is elected");
        self.leader().unwrap()
    }

    /// Has a node propose `payload`; what comes of it shows in `acknowledged`, and in the cell.
    pub fn propose(&mut self, index: usize, payload: &[u8]) -> Rc<RefCell<Option<Result<(), ProposeError>>>> {
        let outcome = Rc::new(RefCell::new(None));
        let payload = Bytes::copy_from_slice(payload);
        let done = {
            let (outcome, acknowledged) = (Rc::clone(&outcome), Rc::clone(&self.acknowledged));
            let (payload, seen) = (payload.clone(), Rc::clone(&self.nodes[index].seen));
            move |result: Result<(), ProposeError>| {
                if result.is_ok() {
                    assert!(seen.borrow().applied.contains(&payload), "acknowledged before it was applied");
                    acknowledged.borrow_mut().push(payload);
                }
                *outcome.borrow_mut() = Some(result);
            }
        };
        let term = self.status(index).term;
        self.core(index).propose(term, payload, done);
        self.touch(index);
        outcome
    }

    /// Has `leader` propose, and runs until that is acknowledged.
    pub fn agree(&mut self, leader: usize, payload: &[u8]) {
        let outcome = self.propose(leader, payload);
        assert!(self.run_until(10_000, |_| outcome.borrow().is_some()), "no answer to a proposal");
        assert_eq!(*outcome.borrow(), Some(Ok(())));
    }

    pub fn add(&mut self, leader: usize, index: usize) -> Result<(), ChangeError> {
        let (id, directory) = (self.nodes[index].id, self.nodes[index].directory);
        self.change(leader, |core, done| core.add_observer(id, directory, done))
    }

    pub fn set_voters(&mut self, leader: usize, indexes: &[usize]) -> Result<(), ChangeError> {
        let ids: Vec<BrokerId> = indexes.iter().map(|index| self.nodes[*index].id).collect();
        self.change(leader, |core, done| core.set_voters(&ids, done))
    }

    pub fn remove(&mut self, leader: usize, index: usize) -> Result<(), ChangeError> {
        let id = self.nodes[index].id;
        self.change(leader, |core, done| core.remove(id, done))
    }

    pub fn transfer(&mut self, leader: usize, to: usize) -> Result<(), ChangeError> {
        let id = self.nodes[to].id;
        self.change(leader, |core, done| core.transfer_leadership(id, done))
    }

    /// Has the members changed, and runs until it is known what came of it.
    pub fn change(
        &mut self,
        leader: usize,
        change: impl FnOnce(&mut Core, Box<dyn FnOnce(Result<(), ChangeError>)>),
    ) -> Result<(), ChangeError> {
        let outcome = Rc::new(RefCell::new(None));
        let told = Rc::clone(&outcome);
        change(self.core(leader), Box::new(move |result| *told.borrow_mut() = Some(result)));
        self.touch(leader);
        assert!(self.run_until(20_000, |_| outcome.borrow().is_some()), "a change of the members does not end");
        outcome.take().unwrap()
    }

    /// Something was asked of the node: it is polled next.
    pub fn touch(&mut self, index: usize) {
        self.nodes[index].wake = Some(self.now);
    }

    pub fn run_for(&mut self, ms: u64) {
        let end = self.now.0 + ms;
        self.run_until(ms, |_| false);
        self.now = Tick(end);
    }

    /// Runs until the condition holds, at most this long; whether it does.
    pub fn run_until(&mut self, ms: u64, holds: impl Fn(&World) -> bool) -> bool {
        let end = Tick(self.now.0 + ms);
        loop {
            if holds(self) {
                return true;
            }
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let wake = self.nodes.iter().filter_map(|node| node.wake).min();
            let Some(next) = event.into_iter().chain(wake).min().filter(|next| *next <= end) else { return false };
            self.now = self.now.max(next);
            self.step();
        }
    }

    fn step(&mut self) {
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now) {
            match entry.remove() {
                Event::Request(outgoing, to) => self.deliver(outgoing, to),
                Event::Answer { from, to, bytes, reply } => {
                    self.mark(&[2, from as u8, to as u8]);
                    self.mark(bytes.as_deref().unwrap_or_default());
                    reply(bytes);
                    if self.is_up(to) {
                        self.touch(to);
                    }
                }
            }
        }
        for index in 0..self.nodes.len() {
            if self.nodes[index].wake.is_some_and(|wake| wake <= self.now) {
                self.settle(index);
            }
        }
    }

    fn deliver(&mut self, outgoing: Outgoing, to: usize) {
        let Outgoing { from, request, reply, .. } = outgoing;
        self.mark(&[1, from as u8, to as u8]);
        self.mark(&request);
        let answered = Rc::clone(&self.answered);
        let Some(core) = self.nodes[to].core.as_mut() else { return reply(None) };
        core.handle(request, move |answer| {
            let answer = answer.map_err(|error| error.to_string());
            answered.borrow_mut().push(Answered { from: to, to: from, answer, reply });
        });
        self.touch(to);
    }

    /// Polls a node, takes what it sends, and holds the rules.
    pub fn settle(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        if let Some(core) = node.core.as_mut() {
            node.wake = core.poll(now);
            // Nothing is due before it said so.
            assert!(node.wake.is_none_or(|wake| wake > now), "a node that was polled wants to be polled at once");
        }
        self.check(index);
        let sent = self.outbox.take();
        for outgoing in sent {
            if let Some(recorded) = &mut self.recorded {
                recorded.push(outgoing.request.clone());
            }
            let to = outgoing.to.0 as usize;
            match self.arrival(outgoing.from, to) {
                Some(at) => self.schedule(at, Event::Request(outgoing, to)),
                None => self.lose(outgoing.from, outgoing.reply),
            }
        }
        let answered = self.answered.take();
        for Answered { from, to, answer, reply } in answered {
            match (answer, self.arrival(from, to)) {
                (Ok(bytes), Some(at)) => {
                    self.schedule(at, Event::Answer { from, to, bytes: Some(bytes), reply });
                }
                (Err(refusal), _) => {
                    self.nodes[from].refused.push(refusal);
                    self.schedule(self.now, Event::Answer { from, to, bytes: None, reply });
                }
                (Ok(_), None) => self.lose(to, reply),
            }
        }
    }

    /// When a message sent now arrives, if it does.
    fn arrival(&mut self, from: usize, to: usize) -> Option<Tick> {
        let delay = self.delay_ms.start + self.draw(self.delay_ms.end - self.delay_ms.start);
        let lost = self.loss > 0 && self.draw(self.loss) == 0;
        (!lost && !self.cuts.contains(&(from, to))).then(|| Tick(self.now.0 + delay))
    }

    /// Of a message that was lost one half is never heard of, the other found lost in the end.
    fn lose(&mut self, sender: usize, reply: Reply) {
        if self.draw(2) == 0 {
            let at = Tick(self.now.0 + 100);
            self.schedule(at, Event::Answer { from: sender, to: sender, bytes: None, reply });
        }
    }

    fn schedule(&mut self, at: Tick, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    /// The rules, of one node.
    pub fn check(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(core) = node.core.as_ref() else { return };
        let status = core.status();
        let seen = node.seen.borrow();
        // B23: what was agreed on is the same everywhere, and stays.
        for (at, applied) in seen.applied.iter().enumerate().skip(node.compared) {
            match self.agreed.get(at) {
                Some(agreed) => assert_eq!(agreed, applied, "node {index} applied something else at {at}"),
                None => self.agreed.push(applied.clone()),
            }
        }
        node.compared = seen.applied.len();
        assert!(status.committed >= node.committed, "node {index}: what is committed went back");
        assert!(status.applied <= status.committed && status.committed <= status.last);
        node.committed = status.committed;
        if status.leading {
            // B23: one leader of a term.
            let leader = *self.leaders.entry(status.term).or_insert(node.id);
            assert_eq!(leader, node.id, "two leaders in term {}", status.term);
            assert_eq!(status.leader, Some(node.id));
            // M1: who leads has all that was acknowledged.
            let acknowledged = self.acknowledged.borrow();
            let held = acknowledged.iter().rev().take(20).all(|payload| seen.applied.contains(payload));
            let newest = self.leaders.keys().next_back() == Some(&status.term);
            assert!(held || !newest, "node {index} leads without all that was acknowledged");
        }
        let line = format!("{} {index} {status:?}", self.now);
        drop(seen);
        self.mark(line.as_bytes());
    }

    /// At the end: all nodes that are up agree, and all that was acknowledged is there.
    pub fn check_converged(&mut self, members: &[usize]) {
        let leader = self.elect();
        self.agree(leader, format!("last words at {}", self.now).as_bytes());
        let members = members.to_vec();
        let equal = |world: &World| {
            members.iter().all(|index| world.nodes[*index].seen.borrow().applied.len() == world.agreed.len())
        };
        assert!(self.run_until(60_000, equal), "the nodes do not come to agree");
        for payload in self.acknowledged.borrow().iter() {
            assert!(self.agreed.contains(payload), "an acknowledged proposal is lost");
        }
    }
}
