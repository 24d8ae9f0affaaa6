//! One node of the quorum, polled by hand: what [`crate::Consensus`] runs on a thread, and a simulator on its own.
//!
//! [`Core::poll`] does what can be done now: messages, timers, and at last one sync for all that was appended
//! meanwhile, after which it goes on with what the sync made possible. Requests to peers leave before that sync. No
//! call waits for anything but the disk, and every `done` is called from within `poll` (or at once, with a refusal).

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::Future,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt;
use openraft::{
    ChangeMembers, Raft,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
    impls::ProgressResponder,
    raft::ClientWriteResponse,
    type_config::alias::WatchReceiverOf,
};
use openraft_rt::WatchReceiver;
use ottla_log::Checkpoint;
use ottla_types::{BrokerId, LeaderEpoch, Tick};
use parking_lot::Mutex;

use crate::{
    Application, Config, Transport,
    error::{ChangeError, OpenError, ProposeError, RequestError},
    log_store::LogStore,
    machine::{Machine, SharedApplication},
    message::{self, Request},
    network::Network,
    runtime::{Executor, Instant, Signal, spawn},
    status::{Status, View},
    store::{PROPOSAL_BYTES_MAX, Store},
    types::{CommittedLeaderId, Directory, Peer, Proposal, Types, Verdict},
};

/// Bytes of proposals that may wait to be agreed on.
const WAITING_BYTES_MAX: usize = 128 << 20;

type Metrics = openraft::RaftMetrics<Types>;
type Changed = Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>;

/// See the module.
pub struct Core {
    me: Peer,
    executor: Executor,
    /// None once it has stopped.
    raft: Option<Raft<Types, Machine>>,
    metrics: WatchReceiverOf<Types, Metrics>,
    store: Rc<RefCell<Store>>,
    application: SharedApplication,
    halt: Arc<dyn Fn(&str) + Send + Sync>,
    view: View,
    status: Arc<Status>,
    published: Arc<Published>,
    /// Bytes of proposals that wait to be agreed on.
    waiting: Rc<Cell<usize>>,
    /// A change of the members is under way.
    changing: Rc<Cell<bool>>,
    /// A snapshot was asked for and is not made yet.
    snapshotting: bool,
}

/// What other threads see.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) status: ArcSwap<Status>,
    pub(crate) checkpoint: Mutex<Checkpoint>,
}

impl Core {
    /// Opens what is on the disk, or begins there, and applies what is known to be agreed on.
    pub fn open(
        config: Config,
        now: Tick,
        application: Box<dyn Application>,
        transport: Transport,
    ) -> Result<Core, OpenError> {
        let quorum = config.quorum()?;
        let lease = Duration::from_millis(quorum.election_timeout_max);
        let me = Peer { id: config.id, directory: config.directory };
        let (store, snapshot) = Store::open(config.disk, config.dir, config.checkpoint)?;
        let store = Rc::new(RefCell::new(store));
        let application = Rc::new(RefCell::new(application));
        let machine = Machine::new(Rc::clone(&store), Rc::clone(&application), snapshot).map_err(OpenError::Damaged)?;
        let network = Network { me, transport: Rc::new(transport), patience: lease };
        let mut executor = Executor::new(config.seed);
        executor.advance(Instant::from_tick(now));
        let entered = executor.enter();
        let log = LogStore(Rc::clone(&store));
        let started = Raft::new(config.id, Arc::new(quorum), network, log, machine).now_or_never();
        drop(entered);
        let raft = match started {
            Some(Ok(raft)) => raft,
            Some(Err(fatal)) => return Err(OpenError::Damaged(fatal.to_string())),
            None => return Err(OpenError::Damaged("it does not open".to_owned())),
        };
        let mut core = Core {
            me,
            metrics: raft.metrics(),
            executor,
            raft: Some(raft),
            store,
            application,
            halt: config.halt,
            view: View { id: me.id, lease, barrier: None, leaving: None },
            status: Arc::default(),
            published: Arc::default(),
            waiting: Rc::default(),
            changing: Rc::default(),
            snapshotting: false,
        };
        core.executor.run();
        if core.member(me.id).is_some_and(|directory| directory != me.directory) {
            return Err(OpenError::OtherDirectory { id: me.id });
        }
        core.watch();
        if core.status.voters == [me.id]
            && let Some(raft) = core.raft.clone()
        {
            // Nobody else could be elected.
            core.spawn(async move {
                let _ = raft.trigger().elect(false).await;
            });
        }
        Ok(core)
    }

    /// Does all that can be done at `now`, which never goes back. When it wants to be polled again, if nothing comes
    /// in before; `None` once it has stopped.
    pub fn poll(&mut self, now: Tick) -> Option<Tick> {
        self.executor.advance(Instant::from_tick(now));
        let next_tick = Instant::from_tick(Tick(now.0.saturating_add(1)));
        loop {
            self.executor.run();
            if self.raft.is_some() && self.store.borrow_mut().flush() {
                continue;
            }
            self.watch();
            if !self.executor.is_idle() {
                continue;
            }
            // The library waits for microseconds where it gathers; they pass within the tick.
            match self.executor.deadline().filter(|deadline| *deadline < next_tick) {
                Some(deadline) => self.executor.advance(deadline),
                None => break,
            }
        }
        self.publish_checkpoint();
        self.raft.as_ref()?;
        Some(self.executor.deadline().map_or(Tick(u64::MAX), Instant::to_tick))
    }

    /// Has `payload` agreed on, while this node leads in `term`. `done` is called once it is applied here, or will not
    /// be. Proposals are agreed on in the order of the calls; one that lies in another term than `term` is skipped by
    /// everybody.
    pub fn propose(
        &mut self,
        term: LeaderEpoch,
        payload: Bytes,
        done: impl FnOnce(Result<(), ProposeError>) + 'static,
    ) {
        let size = payload.len();
        let raft = match self.may_propose(term, size) {
            Ok(raft) => raft,
            Err(refusal) => return done(Err(refusal)),
        };
        let waiting = Rc::clone(&self.waiting);
        waiting.set(waiting.get() + size);
        self.spawn(async move {
            let outcome = propose(&raft, Proposal { term, payload }).await;
            waiting.set(waiting.get() - size);
            done(outcome);
        });
    }

    fn may_propose(&self, term: LeaderEpoch, size: usize) -> Result<Raft<Types, Machine>, ProposeError> {
        let raft = self.raft.clone().ok_or(ProposeError::Stopped)?;
        if !self.status.leading || self.status.term != term {
            return Err(ProposeError::NotLeader { leader: self.status.leader });
        }
        if size > PROPOSAL_BYTES_MAX {
            return Err(ProposeError::TooLarge { size, limit: PROPOSAL_BYTES_MAX });
        }
        if self.waiting.get() + size > WAITING_BYTES_MAX {
            return Err(ProposeError::Busy);
        }
        if !self.store.borrow().has_room(self.waiting.get() + size) {
            return Err(ProposeError::NoSpace);
        }
        Ok(raft)
    }

    /// Makes a new cluster of this node alone, if it has no log yet.
    pub fn bootstrap(&mut self) {
        let Some(raft) = self.raft.clone() else { return };
        let members = BTreeMap::from([(self.me.id, self.me.directory)]);
        self.spawn(async move {
            // Refused where there is a log.
            let _ = raft.initialize(members).await;
        });
    }

    /// Takes a peer's request. `done` gets the bytes to answer with, or why there are none.
    pub fn handle(&mut self, request: Bytes, done: impl FnOnce(Result<Bytes, RequestError>) + 'static) {
        let size = request.len();
        let Some(raft) = self.raft.clone() else { return done(Err(RequestError::Stopped)) };
        let request = match message::decode(&request, &self.me) {
            Ok(request) => request,
            Err(refusal) => return done(Err(refusal)),
        };
        let grows = match &request {
            Request::Append(append) => !append.entries.is_empty(),
            Request::Snapshot { .. } => true,
            Request::Vote(_) | Request::PreVote(_) | Request::Transfer(_) => false,
        };
        if grows && !self.store.borrow().has_room(size) {
            return done(Err(RequestError::NoSpace));
        }
        self.spawn(async move { done(answer(&raft, request).await.ok_or(RequestError::Stopped)) });
    }

    /// Makes a node an observer, if it is no member. `done` is called once that is agreed on.
    pub fn add_observer(
        &mut self,
        id: BrokerId,
        directory: Directory,
        done: impl FnOnce(Result<(), ChangeError>) + 'static,
    ) {
        match self.member(id) {
            Some(known) if known != directory => done(Err(ChangeError::OtherDirectory { id })),
            Some(_) => done(Ok(())),
            None => self.change(done, move |raft| async move { raft.add_learner(id, directory, false).await }),
        }
    }

    /// Makes these members the voters, and the others observers. `done` is called once that is agreed on by the old
    /// voters and the new.
    pub fn set_voters(&mut self, ids: &[BrokerId], done: impl FnOnce(Result<(), ChangeError>) + 'static) {
        let ids: BTreeSet<BrokerId> = ids.iter().copied().collect();
        if ids.is_empty() {
            return done(Err(ChangeError::NoVoter));
        }
        if let Some(id) = ids.iter().copied().find(|id| self.member(*id).is_none()) {
            return done(Err(ChangeError::NotMember { id }));
        }
        self.change(done, move |raft| async move { raft.change_membership(ids, true).await });
    }

    /// Removes a node, voter or not, if it is a member; a leader removes itself and hands over. `done` is called once
    /// that is agreed on.
    pub fn remove(&mut self, id: BrokerId, done: impl FnOnce(Result<(), ChangeError>) + 'static) {
        if self.member(id).is_none() {
            return done(Ok(()));
        }
        let ids = BTreeSet::from([id]);
        let change = match self.status.voters.contains(&id) {
            true => ChangeMembers::RemoveVoters(ids),
            false => ChangeMembers::RemoveNodes(ids),
        };
        self.change(done, move |raft| async move { raft.change_membership(change, false).await });
    }

    fn change<F>(
        &mut self,
        done: impl FnOnce(Result<(), ChangeError>) + 'static,
        change: impl FnOnce(Raft<Types, Machine>) -> F + 'static,
    ) where
        F: Future<Output = Changed> + 'static,
    {
        let Some(raft) = self.raft.clone() else { return done(Err(ChangeError::Stopped)) };
        if !self.status.leading {
            return done(Err(ChangeError::NotLeader { leader: self.status.leader }));
        }
        if self.changing.replace(true) {
            return done(Err(ChangeError::InProgress));
        }
        let changing = Rc::clone(&self.changing);
        self.spawn(async move {
            let outcome = change(raft).await;
            changing.set(false);
            done(outcome.map(drop).map_err(change_error));
        });
    }

    /// Asks a voter to take over. `done` says whether it was asked; from then on this node does not lead in this term,
    /// and the outcome shows in the status.
    pub fn transfer_leadership(&mut self, to: BrokerId, done: impl FnOnce(Result<(), ChangeError>) + 'static) {
        let Some(raft) = self.raft.clone() else { return done(Err(ChangeError::Stopped)) };
        if !self.status.leading {
            return done(Err(ChangeError::NotLeader { leader: self.status.leader }));
        }
        if to == self.me.id {
            return done(Ok(()));
        }
        if !self.status.voters.contains(&to) {
            return done(Err(ChangeError::NotMember { id: to }));
        }
        let oldest = (self.executor.now() - self.view.lease).to_tick();
        let mut progress = self.status.progress.iter().filter(|progress| progress.id == to);
        if !progress.any(|progress| progress.last >= self.status.committed && progress.heard >= Some(oldest)) {
            return done(Err(ChangeError::NotCaughtUp { id: to }));
        }
        self.view.leaving = Some(self.status.term.0);
        self.spawn(async move {
            let asked = raft.trigger().transfer_leader(to).await;
            done(asked.map_err(|_| ChangeError::Stopped));
        });
    }

    /// The quorum as it was after the last poll.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Of its log, for the node's checkpoint file.
    pub fn checkpoint(&self) -> Checkpoint {
        self.store.borrow().checkpoint()
    }

    /// Ends it: syncs and closes the log. False if that is not proved; the next start reads more, and loses nothing.
    pub fn shut_down(&mut self) -> bool {
        let Some(raft) = self.raft.take() else { return false };
        self.spawn(async move {
            // It says nothing that the metrics do not.
            let _ = raft.shutdown().await;
        });
        self.executor.run();
        while self.store.borrow_mut().flush() {
            self.executor.run();
        }
        self.resign();
        let closed = self.store.borrow_mut().close().is_ok();
        self.publish_checkpoint();
        closed
    }

    /// What wakes the thread that polls it.
    pub(crate) fn signal(&self) -> Arc<Signal> {
        self.executor.signal()
    }

    pub(crate) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }

    /// Looks what has changed, and acts on it.
    fn watch(&mut self) {
        if self.raft.is_none() {
            return;
        }
        let metrics = self.metrics.borrow_watched();
        if let Err(fatal) = &metrics.running_state {
            let why = fatal.to_string();
            drop(metrics);
            return self.fail(&why);
        }
        let status = self.view.status(&metrics, self.executor.now());
        let joint = metrics.membership_config.get_joint_config().len() > 1;
        drop(metrics);
        self.set_status(status);
        if joint && self.status.leading && !self.changing.get() {
            // An earlier leader did not get to the end of its change.
            let none = ChangeMembers::AddVoterIds(BTreeSet::new());
            self.change(|_| {}, move |raft| async move { raft.change_membership(none, true).await });
        }
        let wants_snapshot = self.store.borrow().wants_snapshot();
        if wants_snapshot
            && !self.snapshotting
            && let Some(raft) = self.raft.clone()
        {
            self.spawn(async move {
                let _ = raft.trigger().snapshot().await;
            });
        }
        self.snapshotting = wants_snapshot;
    }

    fn set_status(&mut self, status: Status) {
        if *self.status == status {
            return;
        }
        let roles_changed = !self.status.same_roles(&status);
        self.status = Arc::new(status);
        self.published.status.store(Arc::clone(&self.status));
        if roles_changed {
            self.application.borrow_mut().status(&self.status);
            self.set_ticking();
        }
    }

    /// A leader without anybody else needs no clock: nobody waits for its heartbeats, and nobody else could be elected.
    fn set_ticking(&self) {
        let alone = self.status.leading && self.status.voters == [self.me.id] && self.status.observers.is_empty();
        if let Some(raft) = self.raft.clone() {
            self.spawn(async move { raft.runtime_config().tick(!alone) });
        }
    }

    /// The disk failed, or the library did: this node takes no part any more (L10).
    fn fail(&mut self, why: &str) {
        let entered = self.executor.enter();
        self.raft = None;
        drop(entered);
        self.resign();
        (self.halt)(why);
    }

    fn resign(&mut self) {
        let leader = self.status.leader.filter(|leader| *leader != self.me.id);
        self.set_status(Status { leader, leading: false, ..Status::clone(&self.status) });
    }

    fn publish_checkpoint(&self) {
        let checkpoint = self.checkpoint();
        let mut published = self.published.checkpoint.lock();
        if *published != checkpoint {
            *published = checkpoint;
        }
    }

    /// The directory of a member.
    fn member(&self, id: BrokerId) -> Option<Directory> {
        self.metrics.borrow_watched().membership_config.get_node(&id).copied()
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let _entered = self.executor.enter();
        spawn(task);
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let _entered = self.executor.enter();
        self.raft = None;
    }
}

async fn propose(raft: &Raft<Types, Machine>, proposal: Proposal) -> Result<(), ProposeError> {
    let leader = CommittedLeaderId::new(proposal.term.0);
    let (responder, outcome) = ProgressResponder::complete_only();
    let sent = raft.write(proposal).with_leader(leader).responder(responder).await;
    sent.map_err(|_| ProposeError::Stopped)?;
    match outcome.await {
        Ok(Ok(applied)) => match applied.data {
            Verdict::Applied => Ok(()),
            Verdict::Skipped => Err(ProposeError::NotLeader { leader: None }),
        },
        Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
            Err(ProposeError::NotLeader { leader: forward.leader_id })
        }
        Ok(Err(_)) => Err(ProposeError::Unknown),
        Err(_) => Err(ProposeError::Stopped),
    }
}

/// The answer to a peer; `None` if the library has stopped.
async fn answer(raft: &Raft<Types, Machine>, request: Request) -> Option<Bytes> {
    Some(match request {
        Request::Append(request) => message::encode_appended(&raft.append_entries(request).await.ok()?),
        Request::Vote(request) => message::encode_voted(&raft.vote(request).await.ok()?),
        Request::PreVote(request) => message::encode_voted(&raft.pre_vote(request).await.ok()?),
        Request::Snapshot { vote, snapshot } => {
            message::encode_installed(&raft.install_full_snapshot(vote, snapshot).await.ok()?)
        }
        Request::Transfer(request) => message::encode_transferred(&raft.handle_transfer_leader(request).await.ok()?),
    })
}

fn change_error(error: RaftError<Types, ClientWriteError<Types>>) -> ChangeError {
    let error = match error {
        RaftError::APIError(error) => error,
        RaftError::Fatal(_) => return ChangeError::Stopped,
    };
    match error {
        ClientWriteError::ForwardToLeader(forward) => ChangeError::NotLeader { leader: forward.leader_id },
        ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
        ) => ChangeError::InProgress,
        ClientWriteError::ChangeMembershipError(ChangeMembershipError::EmptyMembership(_)) => ChangeError::NoVoter,
        ClientWriteError::ChangeMembershipError(ChangeMembershipError::LearnerNotFound(missing)) => {
            ChangeError::NotMember { id: missing.node_id }
        }
        _ => ChangeError::Unknown,
    }
}
