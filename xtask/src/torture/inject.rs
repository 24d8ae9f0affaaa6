//! Faults as they are done: who is met, what is done to them, and how it is undone.
//!
//! A node has at most one fault at a time. What costs a copy of the data, or changes the cluster, comes alone, and
//! waits before and after until all copies are in sync.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::admin::{self, View};
use super::checker::history::Time;
use super::clients::now;
use super::cluster::Cluster;
use super::network::Cut;
use super::plan::{Fault, Kind, Planned, Target, Way};
use crate::broker::until;

/// How long all copies may take to be in sync when nothing is wrong any more.
pub(crate) const WHOLE_PATIENCE: Duration = Duration::from_secs(180);
/// How long a broker that ended by itself stays down before it is started again.
const RESTART_AFTER: Duration = Duration::from_secs(2);
/// How long the cluster may take to see that a node is gone.
const GONE_PATIENCE: Duration = Duration::from_secs(60);
/// How long an added node stays before it is decommissioned.
const STAY: Duration = Duration::from_secs(8);

/// A fault that was done.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) kind: Kind,
    pub(crate) target: Target,
    /// How many nodes were met.
    pub(crate) nodes: usize,
    pub(crate) began: Time,
    /// `None` while it lasts.
    pub(crate) healed: Option<Time>,
    /// The partitions that these nodes led.
    pub(crate) led: Vec<String>,
}

/// A fault that lasts.
struct Active {
    fault: Fault,
    nodes: Vec<usize>,
    until: Instant,
    /// Its place in `done`.
    done: usize,
}

pub(crate) struct Injector<'a> {
    random: fastrand::Rng,
    topics: &'a [&'a str],
    group: &'a str,
    /// The nodes that faults meet: the first so many.
    count: usize,
    active: Vec<Active>,
    pub(crate) done: Vec<Done>,
    /// What a cluster must not do.
    pub(crate) failures: Vec<String>,
    /// The node that comes and goes.
    guest: Option<usize>,
    /// Brokers that ended by themselves, and when they are started again.
    ended: Vec<(usize, Instant)>,
}

impl<'a> Injector<'a> {
    pub(crate) fn new(seed: u64, topics: &'a [&'a str], group: &'a str, count: usize) -> Injector<'a> {
        let random = fastrand::Rng::with_seed(seed);
        Injector {
            random,
            topics,
            group,
            count,
            active: Vec::new(),
            done: Vec::new(),
            failures: Vec::new(),
            guest: None,
            ended: Vec::new(),
        }
    }

    /// Does a fault; says in words what it was, or `None` if there is nobody to meet.
    pub(crate) fn begin(&mut self, cluster: &mut Cluster, planned: Planned) -> Result<Option<String>> {
        let Planned { fault, target, lasts, .. } = planned;
        if fault.comes_alone() {
            self.heal_all(cluster)?;
            if !self.await_whole(cluster, "before a fault that costs a copy") {
                return Ok(None);
            }
        }
        // A cluster in trouble may not say who is who.
        let view = cluster.view().ok();
        let nodes = self.nodes(cluster, view.as_ref(), target);
        if nodes.is_empty() {
            return Ok(None);
        }
        let led = view.as_ref().map_or_else(Vec::new, |view| self.led_by(cluster, view, &nodes));
        let words = match fault {
            // Nobody is met: one more comes and goes.
            Fault::Member => words(fault),
            _ => format!("{} of {} {nodes:?}", words(fault), target_words(target)),
        };
        let done = self.done.len();
        let (kind, met) = (fault.kind(), nodes.len());
        self.done.push(Done { kind, target, nodes: met, began: now(), healed: None, led });
        if fault.comes_alone() {
            let node = nodes.first().copied().unwrap_or_default();
            self.alone(cluster, fault, node, view.as_ref()).with_context(|| words.clone())?;
            self.healed(done);
            self.await_whole(cluster, &format!("after {words}"));
            return Ok(Some(words));
        }
        for node in &nodes {
            self.apply(cluster, fault, *node).with_context(|| words.clone())?;
        }
        self.active.push(Active { fault, nodes, until: Instant::now() + lasts, done });
        Ok(Some(format!("{words} for {:.1} s", lasts.as_secs_f64())))
    }

    /// Ends the faults whose time is over.
    pub(crate) fn heal_due(&mut self, cluster: &mut Cluster) -> Result<()> {
        let now = Instant::now();
        self.heal_if(cluster, |active| active.until <= now)
    }

    /// When the last of the faults is over that are there now.
    pub(crate) fn lasts_until(&self) -> Instant {
        self.active.iter().map(|active| active.until).max().unwrap_or_else(Instant::now)
    }

    pub(crate) fn heal_all(&mut self, cluster: &mut Cluster) -> Result<()> {
        self.heal_if(cluster, |_| true)
    }

    fn heal_if(&mut self, cluster: &mut Cluster, over: impl Fn(&Active) -> bool) -> Result<()> {
        let (ended, lasting) = std::mem::take(&mut self.active).into_iter().partition(over);
        self.active = lasting;
        for active in ended {
            for node in &active.nodes {
                undo(cluster, active.fault, *node).with_context(|| format!("healing node {node}"))?;
            }
            self.healed(active.done);
        }
        Ok(())
    }

    fn healed(&mut self, done: usize) {
        if let Some(done) = self.done.get_mut(done) {
            done.healed = Some(now());
        }
    }

    /// Restarts brokers that ended by themselves, which none may do.
    pub(crate) fn look_after(&mut self, cluster: &mut Cluster) -> Result<()> {
        let now = Instant::now();
        for index in 0..cluster.nodes.len() {
            if let Some(ended) = cluster.node(index)?.ended_by_itself()? {
                self.failures.push(ended);
                self.ended.push((index, now + RESTART_AFTER));
            }
        }
        let (due, later) = std::mem::take(&mut self.ended).into_iter().partition(|(_, at)| *at <= now);
        self.ended = later;
        due.into_iter().try_for_each(|(index, _)| cluster.start_node(index))
    }

    fn await_whole(&mut self, cluster: &Cluster, when: &str) -> bool {
        match cluster.await_whole(WHOLE_PATIENCE) {
            Ok(_) => true,
            Err(error) => {
                self.failures.push(format!("{when}: {error:#}"));
                false
            }
        }
    }

    fn is_free(&self, cluster: &Cluster, node: usize) -> bool {
        cluster.nodes.get(node).is_some_and(super::node::Node::is_running)
            && !self.active.iter().any(|active| active.nodes.contains(&node))
    }

    /// The nodes to meet, none of which has another fault.
    fn nodes(&mut self, cluster: &Cluster, view: Option<&View>, target: Target) -> Vec<usize> {
        let free: Vec<usize> = (0..self.count).filter(|node| self.is_free(cluster, *node)).collect();
        match target {
            Target::All => {
                if free.len() == self.count {
                    free
                } else {
                    Vec::new()
                }
            }
            Target::Several => {
                let most = free.len().min(self.count.saturating_sub(1));
                if most < 2 {
                    return Vec::new();
                }
                let how_many = self.random.usize(2..=most);
                let mut chosen = free;
                self.random.shuffle(&mut chosen);
                chosen.truncate(how_many);
                chosen
            }
            _ => {
                let named = view.and_then(|view| self.named(cluster, view, target));
                let node = named.filter(|node| free.contains(node)).or_else(|| self.random.choice(free));
                node.into_iter().collect()
            }
        }
    }

    /// The one who has this role now.
    fn named(&mut self, cluster: &Cluster, view: &View, target: Target) -> Option<usize> {
        let ours: Vec<_> = view.partitions.iter().filter(|it| self.topics.contains(&it.topic.as_str())).collect();
        match target {
            Target::Leader => cluster.node_of(view, self.random.choice(ours)?.leader?),
            Target::Follower => {
                let partition = self.random.choice(ours)?;
                let followers: Vec<i32> =
                    partition.isr.iter().copied().filter(|id| Some(*id) != partition.leader).collect();
                cluster.node_of(view, self.random.choice(followers)?)
            }
            Target::Controller => cluster.controller().ok(),
            Target::Coordinator => cluster.at(cluster.ask(|address| admin::coordinator(address, self.group)).ok()?),
            Target::Random | Target::Several | Target::All => None,
        }
    }

    fn led_by(&self, cluster: &Cluster, view: &View, nodes: &[usize]) -> Vec<String> {
        let ours = view.partitions.iter().filter(|it| self.topics.contains(&it.topic.as_str()));
        let led = |leader| cluster.node_of(view, leader).is_some_and(|node| nodes.contains(&node));
        ours.filter(|it| it.leader.is_some_and(led)).map(admin::PartitionView::name).collect()
    }

    fn apply(&mut self, cluster: &mut Cluster, fault: Fault, node: usize) -> Result<()> {
        match fault {
            Fault::Kill => cluster.node(node)?.kill(),
            Fault::Stop => cluster.node(node)?.stop(),
            Fault::Cut(way) => {
                let others: Vec<usize> = (0..self.count).filter(|other| *other != node).collect();
                let peer = self.random.choice(others).unwrap_or(node);
                cluster.network.cut(
                    node,
                    match way {
                        Way::Full => Cut::Everything,
                        Way::Incoming => Cut::Incoming,
                        Way::Outgoing => Cut::Outgoing,
                        Way::OnePeer => Cut::Peer(peer),
                        Way::Clients => Cut::Clients,
                    },
                )
            }
            Fault::DiskFull => cluster.node(node)?.disk.fill(),
            Fault::DiskSlow => {
                let node = cluster.node(node)?;
                let process = node.pid().context("the node does not run")?;
                node.disk.slow_down(process, &format!("ottla-{process}"))
            }
            Fault::Clock(seconds) => cluster.node(node)?.set_clock(seconds),
            Fault::Flip | Fault::Member | Fault::Wipe => Ok(()),
        }
    }

    /// What comes alone is done and undone at once; that the cluster gets over it is seen afterwards.
    fn alone(&mut self, cluster: &mut Cluster, fault: Fault, node: usize, view: Option<&View>) -> Result<()> {
        match fault {
            Fault::Flip => {
                cluster.node(node)?.kill()?;
                let damaged = cluster.node(node)?.flip_bits(&mut self.random)?;
                eprintln!("  bits flipped in {damaged} files");
                cluster.start_node(node)
            }
            Fault::Wipe => {
                let id = view.and_then(|view| cluster.id_of(view, node)).context("the node has no number")?;
                let other = (0..self.count).find(|other| *other != node).context("there is no other node")?;
                let join = cluster.network.address(other);
                cluster.node(node)?.kill()?;
                let gone =
                    until(GONE_PATIENCE, || Ok(cluster.view().is_ok_and(|view| !view.brokers.contains_key(&id))))?;
                if !gone {
                    self.failures.push(format!("node {node} was killed, and is there after {GONE_PATIENCE:?}"));
                }
                cluster.node(node)?.replace_disk(join)?;
                cluster.start_node(node)?;
                cluster.await_brokers(self.count)?;
                // Whose disk is lost comes as another, and takes over what the old one had once it is caught up.
                let mut last = Ok(String::new());
                let moved = until(GONE_PATIENCE, || {
                    last = cluster.command(&["cluster", "decommission", &id.to_string(), "--wait"]);
                    Ok(last.is_ok())
                })?;
                if let (false, Err(error)) = (moved, last) {
                    self.failures.push(format!("a node whose disk was replaced: {error:#}"));
                }
                Ok(())
            }
            Fault::Member => {
                // What our own commands say goes into the report; the run goes on.
                if let Err(error) = self.come_and_go(cluster) {
                    self.failures.push(format!("a node that comes and goes: {error:#}"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn come_and_go(&mut self, cluster: &mut Cluster) -> Result<()> {
        let guest = match self.guest {
            Some(guest) => guest,
            None => *self.guest.insert(cluster.add_node()?),
        };
        let visited = self.visit(cluster, guest);
        // Whatever became of it, the next time it comes as a new one.
        cluster.node(guest)?.terminate()?;
        cluster.node(guest)?.forget()?;
        visited
    }

    fn visit(&self, cluster: &mut Cluster, guest: usize) -> Result<()> {
        cluster.start_node(guest)?;
        cluster.await_brokers(self.count + 1)?;
        cluster.command(&["cluster", "rebalance"])?;
        std::thread::sleep(STAY);
        let id = cluster.id_of(&cluster.view()?, guest).context("the new node is gone")?;
        cluster.command(&["cluster", "decommission", &id.to_string(), "--wait"]).map(drop)
    }
}

fn undo(cluster: &mut Cluster, fault: Fault, node: usize) -> Result<()> {
    match fault {
        Fault::Kill => cluster.start_node(node),
        Fault::Stop => cluster.node(node)?.resume(),
        Fault::Cut(_) => cluster.network.heal(node),
        Fault::DiskFull => cluster.node(node)?.disk.make_room(),
        Fault::DiskSlow => cluster.node(node)?.disk.hurry(),
        Fault::Clock(_) => cluster.node(node)?.set_clock(0),
        Fault::Flip | Fault::Member | Fault::Wipe => Ok(()),
    }
}

fn words(fault: Fault) -> String {
    match fault {
        Fault::Cut(way) => format!("cut ({way:?})"),
        Fault::Clock(seconds) => format!("clock {seconds:+} s"),
        other => other.kind().name().to_owned(),
    }
}

fn target_words(target: Target) -> String {
    format!("{target:?}").to_lowercase()
}
