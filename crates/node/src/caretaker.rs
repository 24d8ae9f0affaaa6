//! What a controller does unasked: it fences brokers that have gone quiet, lets in those that are back, gives the
//! metadata log its voters, and keeps copies and leaders where they belong.
//!
//! One thread, which does nothing while another node leads the metadata log. What it knows besides the image, when each
//! broker was last heard of, is nowhere written down: a new controller begins by hearing everybody out. What is not
//! here: what follows from a broker's coming and going (`ottla_metadata::decide`).

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use ottla_consensus::{ChangeError, Status};
use ottla_metadata::{Broker, Command, Image, Refusal, Reported};
use ottla_types::{BrokerId, LeaderEpoch, Tick};
use parking_lot::{Condvar, Mutex};

use crate::{
    controller::{Controller, SubmitError},
    node::Heartbeat,
    storage::Storage,
};

/// How often sessions, and the members of the metadata log, are looked at.
const ROUND: Duration = Duration::from_millis(100);
/// Everything else is looked at once in so many rounds.
const SLOW_ROUNDS: u64 = 10;
/// How long a broker whose connection ended may take to come back, in milliseconds: a process that was killed loses its
/// connections at once, and its partitions need not wait for its session to end.
const SUSPECT_MS: u64 = 400;
/// A new controller takes over suspicions that are no older than this, in milliseconds: whoever is dead was found dead
/// again when it asked for votes.
const RECENT_MS: u64 = 1000;
/// So long it waits for what these have to say, in milliseconds: a live broker reports to a new controller at once.
const GRACE_MS: u64 = 200;
/// The most nodes that vote on the metadata log.
const VOTERS_MAX: usize = 5;
/// How far from even leaders may be spread before they are moved back, in per cent of a broker's own partitions, as in
/// Kafka.
const IMBALANCE_PERCENT: u32 = 10;

pub(crate) struct Caretaker {
    id: BrokerId,
    storage: Arc<Storage>,
    controller: Arc<Controller>,
    watch: Mutex<Watch>,
    called: Condvar,
    members: Arc<Mutex<Members>>,
}

/// The members of the metadata log, as far as this node has seen to them.
#[derive(Default)]
struct Members {
    /// A change is under way; there is one at a time.
    changing: bool,
    /// Nodes, with their directories, that are members.
    settled: BTreeSet<(BrokerId, [u8; 16])>,
    /// A node that has come back with another directory: what it was as a member is gone (rule M2).
    replaced: Option<BrokerId>,
}

impl Members {
    fn added(&mut self, place: (BrokerId, [u8; 16]), result: Result<(), ChangeError>) {
        match &result {
            Ok(()) => _ = self.settled.insert(place),
            Err(ChangeError::OtherDirectory { id }) => self.replaced = Some(*id),
            Err(_) => {}
        }
        self.changed(result);
    }

    fn changed(&mut self, result: Result<(), ChangeError>) {
        if let Err(error) = result {
            tracing::debug!(%error, "the members of the metadata log are not changed");
        }
        self.changing = false;
    }
}

#[derive(Default)]
struct Watch {
    /// The term that `heard` is of.
    term: Option<LeaderEpoch>,
    heard: HashMap<BrokerId, Heard>,
    /// What each said last that it serves. It holds for that registration, whatever the term.
    reported: Reported,
    /// While another node is the controller: when a broker could last not be reached, or a connection to it ended.
    suspects: HashMap<BrokerId, Tick>,
    stopping: bool,
}

/// When a broker was last heard of.
#[derive(Clone, Copy)]
struct Heard {
    at: Tick,
    /// Its connection has ended since.
    suspected: Option<Tick>,
}

impl Heard {
    /// At the beginning of a term.
    fn at(now: Tick, unreachable: Option<&Tick>) -> Heard {
        let recent = unreachable.filter(|tick| now.0.saturating_sub(tick.0) <= RECENT_MS);
        Heard { at: now, suspected: recent.map(|_| Tick(now.0.saturating_sub(SUSPECT_MS - GRACE_MS))) }
    }
}

/// What a broker is told in answer to its heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// It has applied its own registration.
    pub caught_up: bool,
    /// It leads nothing and is in no ISR for now.
    pub fenced: bool,
    /// It leads nothing any more that another could, and may go.
    pub may_shut_down: bool,
}

impl Caretaker {
    pub(crate) fn new(id: BrokerId, storage: Arc<Storage>, controller: Arc<Controller>) -> Arc<Caretaker> {
        Arc::new(Caretaker {
            id,
            storage,
            controller,
            watch: Mutex::default(),
            called: Condvar::new(),
            members: Arc::default(),
        })
    }

    pub(crate) fn start(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let caretaker = Arc::clone(self);
        thread::Builder::new().name("caretaker".into()).spawn(move || caretaker.run())
    }

    pub(crate) fn stop(&self) {
        self.watch.lock().stopping = true;
        self.called.notify_all();
    }

    /// Takes a broker's heartbeat. Waits for what follows from it.
    pub(crate) fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatReply, SubmitError> {
        let status = self.controller.log_status().unwrap_or_default();
        if !status.leading {
            return Err(SubmitError::NotController(status.leader));
        }
        let (id, epoch) = (heartbeat.broker, heartbeat.epoch);
        let registered = || {
            let image = self.controller.image();
            let broker = image.broker(id).filter(|broker| broker.epoch == epoch).cloned();
            broker.map(|broker| (image, broker)).ok_or(Refusal::StaleBrokerEpoch(id))
        };
        let (_, broker) = registered()?;
        let now = self.storage.tick();
        {
            let mut watch = self.watch.lock();
            watch.heard.insert(id, Heard { at: now, suspected: None });
            watch.reported.insert(id, (epoch, Arc::clone(&heartbeat.features)));
        }
        let caught_up = heartbeat.offset.0 > epoch.0;
        if heartbeat.want_shut_down {
            if !broker.shutting_down {
                self.controller.submit(Command::BeginShutdown { id, epoch })?;
            }
        } else if broker.fenced && caught_up && !heartbeat.want_fence {
            tracing::info!(broker = %id, "the broker is back");
            self.controller.submit(Command::UnfenceBroker { id, epoch })?;
        }
        let (image, broker) = registered()?;
        let may_shut_down = broker.shutting_down && !may_hand_over_more(&image, id);
        Ok(HeartbeatReply { caught_up, fenced: broker.fenced, may_shut_down })
    }

    /// What brokers have said they serve.
    pub(crate) fn reported(&self) -> Reported {
        self.watch.lock().reported.clone()
    }

    /// A broker's connection has ended.
    pub(crate) fn suspect(&self, broker: BrokerId) {
        let now = self.storage.tick();
        let mut watch = self.watch.lock();
        if watch.term.is_none() {
            watch.suspects.insert(broker, now);
        } else if let Some(heard) = watch.heard.get_mut(&broker) {
            heard.suspected.get_or_insert(now);
        }
    }

    fn run(&self) {
        let mut round = 0u64;
        let mut balanced = self.storage.tick();
        loop {
            // Alone there is nobody to watch.
            let pause = if self.controller.image().brokers().len() > 1 { ROUND } else { ROUND * SLOW_ROUNDS as u32 };
            let mut watch = self.watch.lock();
            if !watch.stopping {
                self.called.wait_for(&mut watch, pause);
            }
            if watch.stopping {
                return;
            }
            let status = self.controller.log_status().unwrap_or_default();
            if !status.leading {
                watch.term = None;
                continue;
            }
            let (image, now) = (self.controller.image(), self.storage.tick());
            if self.storage.has_failed() {
                // The log lies on the same disk: another has to lead it, and will fence us, who report no more (L10).
                self.controller.hand_over_log(&image);
                continue;
            }
            if watch.term != Some(status.term) {
                // Nobody reported to us before: each gets a whole session to do so, except who could not be reached
                // just now. Most likely it was the controller, and is why we are.
                watch.term = Some(status.term);
                self.members.lock().settled.clear();
                let suspects = std::mem::take(&mut watch.suspects);
                watch.heard =
                    image.brokers().map(|broker| (broker.id, Heard::at(now, suspects.get(&broker.id)))).collect();
            }
            let quiet = self.quiet(&watch, &image, now);
            drop(watch);
            for broker in quiet {
                tracing::warn!(broker = %broker.id, "the broker has gone quiet and is fenced");
                self.submit(Command::FenceBroker { id: broker.id, epoch: broker.epoch });
            }
            round += 1;
            if image.brokers().len() < 2 && status.voters.len() < 2 {
                continue;
            }
            self.tend_members(&status, &image);
            if round.is_multiple_of(SLOW_ROUNDS) {
                self.tend_copies(&image);
                let config = self.controller.broker_config();
                let interval_ms = config.leader_imbalance_check_interval_s.saturating_mul(1000);
                if config.auto_leader_rebalance && now.0.saturating_sub(balanced.0) >= interval_ms {
                    balanced = now;
                    self.submit(Command::BalanceLeaders { threshold_percent: IMBALANCE_PERCENT });
                }
            }
        }
    }

    /// Brokers whose session has ended.
    fn quiet(&self, watch: &Watch, image: &Image, now: Tick) -> Vec<Arc<Broker>> {
        let session_ms = u64::from(self.controller.broker_config().broker_session_timeout_ms);
        let since = |tick: Tick| now.0.saturating_sub(tick.0);
        let is_quiet = |broker: &&Arc<Broker>| {
            if broker.id == self.id {
                // We hear ourselves, but an earlier run of ours no more.
                return broker.incarnation != self.controller.incarnation();
            }
            let heard = watch.heard.get(&broker.id);
            heard.is_some_and(|heard| {
                since(heard.at) > session_ms || heard.suspected.is_some_and(|tick| since(tick) > SUSPECT_MS)
            })
        };
        image.brokers().filter(|broker| !broker.fenced).filter(is_quiet).cloned().collect()
    }

    /// Gives the metadata log the members that the cluster has: every broker hears it, an odd number of them votes.
    fn tend_members(&self, status: &Status, image: &Image) {
        let Some(consensus) = self.controller.consensus() else { return };
        let mut members = self.members.lock();
        if std::mem::replace(&mut members.changing, true) {
            return;
        }
        let known = || status.voters.iter().chain(&status.observers);
        let place = |broker: &Arc<Broker>| (broker.id, broker.directory);
        let unsettled = image.brokers().find(|broker| !members.settled.contains(&place(broker))).cloned();
        let replaced = members.replaced.take();
        drop(members);
        let gone = replaced.or_else(|| known().find(|member| image.broker(**member).is_none()).copied());
        let voters = wanted_voters(self.id, status, image);
        let members = Arc::clone(&self.members);
        if let Some(broker) = unsettled.filter(|_| replaced.is_none()) {
            let place = place(&broker);
            consensus.add_observer(broker.id, broker.directory, move |result| members.lock().added(place, result));
        } else if let Some(gone) = gone {
            tracing::info!(node = %gone, "taken out of the metadata log");
            consensus.remove(gone, move |result| members.lock().changed(result));
        } else if voters != status.voters.iter().copied().collect() {
            tracing::info!(?voters, "the metadata log gets other voters");
            let voters = voters.into_iter().collect();
            consensus.set_voters(voters, move |result| members.lock().changed(result));
        } else {
            members.lock().changing = false;
        }
    }

    fn tend_copies(&self, image: &Image) {
        self.submit(Command::RaiseInternalTopics);
        for broker in image.brokers().filter(|broker| broker.draining) {
            self.submit(Command::DrainBroker { id: broker.id, drain: true });
        }
    }

    fn submit(&self, command: Command) {
        // Tried again in the next round, by whoever is the controller then.
        if let Err(error) = self.controller.submit(command) {
            tracing::debug!(%error, "a controller's own command did nothing");
        }
    }
}

/// Whether a broker on its way out leads something that another live one has a copy of, and will take over if it comes
/// into the ISR in time. What has no such copy is not to be had without this broker, however long it waits.
fn may_hand_over_more(image: &Image, id: BrokerId) -> bool {
    let is_live = |replica: &BrokerId| *replica != id && image.broker(*replica).is_some_and(|broker| broker.is_live());
    image.led_by(id).any(|(.., partition)| partition.replicas.iter().any(is_live))
}

/// Who should vote: those who do, as long as they belong to the cluster and are to stay, and as many live ones more as
/// make the largest odd number of them, up to five.
fn wanted_voters(own: BrokerId, status: &Status, image: &Image) -> BTreeSet<BrokerId> {
    let stays = |id: &BrokerId| image.broker(*id).is_some_and(|broker| !broker.draining);
    let mut voters: BTreeSet<BrokerId> = status.voters.iter().copied().filter(stays).collect();
    let live: Vec<BrokerId> =
        image.live_brokers().map(|broker| broker.id).filter(|id| stays(id) && status.observers.contains(id)).collect();
    let candidates = voters.len() + live.len();
    let largest = candidates.min(VOTERS_MAX);
    let target = if largest.is_multiple_of(2) { largest.saturating_sub(1) } else { largest };
    let mut live = live.into_iter();
    while voters.len() < target
        && let Some(next) = live.next()
    {
        voters.insert(next);
    }
    // An even number survives no more failures than the odd one below it. Those that are gone go first.
    while voters.len() > target.max(1) {
        let is_live = |id: &&BrokerId| image.broker(**id).is_some_and(|broker| !broker.fenced);
        let Some(last) = voters.iter().rev().filter(|id| **id != own).min_by_key(|id| is_live(id)).copied() else {
            break;
        };
        voters.remove(&last);
    }
    if voters.is_empty() { status.voters.iter().copied().collect() } else { voters }
}
