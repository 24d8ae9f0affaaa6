//! The replica itself: its role, what peers and time bring, and the high watermark.
//!
//! Not here: the append (`append.rs`), what is known of followers (`leader.rs`), what is proposed (`isr.rs`), what a
//! follower does (`follower.rs`).

use ottla_log::{AppendError, Log, LogPosition, SyncError, SyncPlan, Synced};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, Tick};

use crate::{
    Assignment, CommittedIsr, Durability, IsrProposal, IsrRefusal, Settings,
    isr::Facts,
    leader::{Leader, Progress},
};

/// One broker's copy of a partition.
///
/// Invariant: `log start <= high watermark <= log end`, but for the moment in which an unclean election takes back what
/// was committed. The high watermark never goes back otherwise; a leader's never passes what all that may be elected
/// hold, which with [`Durability::Fsync`] means on disk.
#[derive(Debug)]
pub struct Replica {
    pub(crate) log: Log,
    me: BrokerId,
    pub(crate) settings: Settings,
    pub(crate) assignment: Assignment,
    pub(crate) state: State,
    pub(crate) high_watermark: LogPosition,
    /// A proposal was handed out and its answer has not come: no other is until then, whatever became of it (I2).
    asked: bool,
}

#[derive(Debug)]
pub(crate) enum State {
    Idle,
    Leading(Leader),
    Following { leader: BrokerId },
}

/// What a replica is to its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It appends, and serves reads up to its high watermark.
    Leader,
    /// It copies from a leader.
    Follower {
        /// The leader.
        leader: BrokerId,
    },
    /// Nobody leads, or this broker has no copy to keep.
    Idle,
}

/// What happens to a replica beside calls of its owner.
#[derive(Clone, Debug)]
pub enum Event {
    /// A follower fetched: it holds everything below `fetch`, synced below `durable`. Only of a Fetch that the leader
    /// serves: not if [`Replica::divergence`] had something to say, nor outside of the leadership's epoch (E3, E7).
    FollowerFetched {
        /// The follower.
        broker: BrokerId,
        /// The registration it fetched under (KIP-903).
        broker_epoch: BrokerEpoch,
        /// The offset it asks for: the end of its log.
        fetch: Offset,
        /// The end of what is on its disk.
        durable: Offset,
        /// Its broker is unfenced, not shutting down, and registered under just this epoch, as far as is known here
        /// (I4, B9, B10).
        eligible: bool,
    },
    /// The answer to an [`Effect::ProposeIsr`]. Each gets exactly one, if only that there was none.
    IsrAnswered(Result<CommittedIsr, IsrRefusal>),
    /// Time has passed. To come several times within [`Settings::lag_max`].
    Tick,
}

/// What a replica wants of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the controller to commit this ISR; at most one is under way at a time (I2). It is owed an
    /// [`Event::IsrAnswered`]. Comes of events, never of [`Replica::assign`].
    ProposeIsr(IsrProposal),
    /// The ISR fell below `min.insync.replicas` (true), or suffices again: who waits for `acks=all` has to look (I6).
    IsrBelowMinimum(bool),
}

/// Why a request's leader epoch does not fit (KIP-320, rule E7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochRefusal {
    /// The client knows an older leadership.
    #[error("the leader epoch of the request is older than this leadership")]
    Fenced,
    /// The client knows a leadership that this broker has not heard of yet.
    #[error("the leader epoch of the request is newer than this leadership")]
    Unknown,
}

/// Too few replicas are in sync for `acks=all` (I6): NOT_ENOUGH_REPLICAS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{in_sync} replicas are in sync, {required} are required")]
pub struct NotEnoughReplicas {
    /// Members of the ISR.
    pub in_sync: usize,
    /// `min.insync.replicas`, or all replicas where they are fewer; those being added don't count.
    pub required: usize,
}

impl Replica {
    /// A copy over a log that was just opened, without a role yet. `high_watermark` is what was last stored of it; the
    /// log bounds it.
    pub fn new(log: Log, me: BrokerId, high_watermark: Offset, settings: Settings) -> Replica {
        let (start, end) = (log.start(), log.end());
        let wanted = high_watermark.max(start).min(end.offset);
        // Where its place can't be told, nothing is known to be committed.
        let place = log.position_of(wanted).unwrap_or_default();
        // The log may start inside a batch, of which nothing is to be read then.
        let high_watermark = LogPosition { offset: place.offset.max(start), ..place };
        let assignment = Assignment::none();
        let mut replica = Replica { log, me, settings, assignment, state: State::Idle, high_watermark, asked: false };
        replica.tell_committed();
        replica
    }

    /// The only copy of a partition, which leads in `leader_epoch` over a log that was just opened.
    pub fn lead(log: Log, leader_epoch: LeaderEpoch, durability: Durability) -> Result<Replica, AppendError> {
        let me = BrokerId(0);
        let end = log.end().offset;
        let mut replica = Replica::new(log, me, end, Settings { durability, min_insync_replicas: 1, lag_max: Tick(0) });
        let (replicas, isr) = ([me].into(), [me].into());
        let assignment =
            Assignment { leader: Some(me), leader_epoch, partition_epoch: 0, replicas, isr, ..Assignment::none() };
        replica.assign(Tick(0), &assignment, &mut Vec::new())?;
        Ok(replica)
    }

    /// The log below, for everything that does not depend on replication.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The log below, for retention and its like.
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// The end of what is acknowledged and may be read, with its place in the log. A follower's lags behind its
    /// leader's.
    pub fn high_watermark(&self) -> LogPosition {
        if cfg!(zoo = "B15") { self.log.end() } else { self.high_watermark }
    }

    /// What it is to its partition.
    pub fn role(&self) -> Role {
        match self.state {
            State::Idle => Role::Idle,
            State::Leading(_) => Role::Leader,
            State::Following { leader } => Role::Follower { leader },
        }
    }

    /// The partition as the controller committed it, as far as it was told; its partition epoch is -1 before it was.
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// The epoch of the present leadership, this broker's or another's.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.assignment.leader_epoch
    }

    /// Takes the topic's new settings; what is already acknowledged stays so.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
        self.advance_high_watermark();
    }

    /// Takes the topic's new durability; what is already acknowledged stays so.
    pub fn set_durability(&mut self, durability: Durability) {
        self.set_settings(Settings { durability, ..self.settings });
    }

    /// Takes what the controller committed, if it is newer than what is known (I3). Becoming leader records the epoch
    /// and where it begins before anything is served in it (E1). Any higher epoch begins anew, even with the same
    /// leader (E6, B3).
    ///
    /// # Errors
    /// The log is out of service; the replica has no role then.
    pub fn assign(&mut self, now: Tick, assignment: &Assignment, effects: &mut Vec<Effect>) -> Result<(), AppendError> {
        if assignment.partition_epoch <= self.assignment.partition_epoch {
            return Ok(());
        }
        let same = self.assignment.is_led_as(assignment);
        let before = std::mem::replace(&mut self.assignment, assignment.clone());
        match assignment.leader {
            Some(leader) if leader == self.me => match &mut self.state {
                State::Leading(leader) if same => leader.update(self.me, &before.isr, assignment, now),
                _ => self.become_leader(now)?,
            },
            Some(leader) if assignment.replicas.contains(&self.me) => self.state = State::Following { leader },
            _ => self.state = State::Idle,
        }
        if cfg!(zoo = "B1") && !same && matches!(self.state, State::Following { .. }) {
            let _ = self.log.truncate(self.high_watermark.offset);
        }
        self.tell_committed();
        self.advance_high_watermark();
        self.check_minimum(effects);
        Ok(())
    }

    fn become_leader(&mut self, now: Tick) -> Result<(), AppendError> {
        self.state = State::Idle;
        let epoch = self.assignment.leader_epoch;
        // After a clean restart the epoch may be there already.
        if self.log.epochs().latest().is_none_or(|latest| latest < epoch) && !cfg!(zoo = "B4") {
            self.log.assign_epoch(epoch)?;
        }
        let epoch_start = self.log.end().offset;
        self.state = State::Leading(Leader::new(self.me, &self.assignment, epoch_start, now));
        Ok(())
    }

    /// Something happened; what it makes the replica want is added to `effects`.
    pub fn step(&mut self, now: Tick, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::FollowerFetched { broker, broker_epoch, fetch, durable, eligible } => {
                let progress = Progress { broker, broker_epoch, fetch, durable, eligible };
                self.on_follower_fetched(now, &progress, effects);
            }
            Event::IsrAnswered(answer) => self.on_isr_answered(now, answer, effects),
            Event::Tick => self.on_tick(now, effects),
        }
    }

    fn on_follower_fetched(&mut self, now: Tick, progress: &Progress, effects: &mut Vec<Effect>) {
        let end = self.log.end().offset;
        let State::Leading(leader) = &mut self.state else { return };
        // Nobody holds more of a leader's log than it has itself.
        if progress.fetch > end || !leader.on_fetch(now, end, progress, &self.settings) {
            return;
        }
        self.advance_high_watermark();
        self.maybe_propose(false, effects);
    }

    fn on_isr_answered(&mut self, now: Tick, answer: Result<CommittedIsr, IsrRefusal>, effects: &mut Vec<Effect>) {
        self.asked = false;
        let State::Leading(leader) = &mut self.state else { return };
        match answer {
            Ok(committed) => {
                let committed = self.assignment.with(committed);
                // Of another leadership the metadata will speak.
                if !self.assignment.is_led_as(&committed)
                    || committed.partition_epoch <= self.assignment.partition_epoch
                {
                    return;
                }
                leader.update(self.me, &self.assignment.isr, &committed, now);
                self.assignment = committed;
                self.tell_committed();
            }
            Err(refusal) => leader.on_refused(refusal),
        }
        self.advance_high_watermark();
        self.check_minimum(effects);
    }

    fn on_tick(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let end = self.log.end().offset;
        let State::Leading(leader) = &mut self.state else { return };
        leader.on_tick(now, end, &self.settings);
        self.advance_high_watermark();
        self.maybe_propose(true, effects);
        self.check_minimum(effects);
    }

    fn maybe_propose(&mut self, ticked: bool, effects: &mut Vec<Effect>) {
        let State::Leading(leader) = &mut self.state else { return };
        if self.asked || leader.is_alone() && !self.assignment.recovering {
            return;
        }
        let high_watermark = self.high_watermark.offset;
        let facts = Facts { me: self.me, assignment: &self.assignment, settings: &self.settings, high_watermark };
        if let Some(proposal) = leader.propose(&facts, ticked) {
            self.asked = true;
            effects.push(Effect::ProposeIsr(proposal));
        }
    }

    fn check_minimum(&mut self, effects: &mut Vec<Effect>) {
        let below = self.check_min_isr().is_err();
        let State::Leading(leader) = &mut self.state else { return };
        if std::mem::replace(&mut leader.below_minimum, below) != below {
            effects.push(Effect::IsrBelowMinimum(below));
        }
    }

    /// Whether an append with `acks=all` may go in ([`Assignment::check_min_isr`]). An ISR that is only proposed does
    /// not count.
    pub fn check_min_isr(&self) -> Result<(), NotEnoughReplicas> {
        self.assignment.check_min_isr(self.settings.min_insync_replicas)
    }

    /// Whether this leader's high watermark is the partition's: a new leader's may lag behind what was acknowledged
    /// before it, until all hold what it began with. Before that it does not say where the log ends:
    /// OFFSET_NOT_AVAILABLE (I7, B14).
    pub fn latest_known(&self) -> bool {
        match &self.state {
            State::Leading(leader) => self.high_watermark.offset >= leader.epoch_start || cfg!(zoo = "B14"),
            State::Following { .. } | State::Idle => false,
        }
    }

    /// Where the log of whoever fetches from `from` on, after a batch of `last_epoch`, leaves this one (E3): the
    /// largest epoch here that is not above, and its end. It gets that and no records, and its place is not recorded.
    /// `None` where all it has is here too, as far as its last epoch tells. `log_start` is where its own log begins,
    /// `from` if it has none.
    ///
    /// No epoch ([`LeaderEpoch::NONE`]) with `from`: all it has lies below the start of this log, in epochs of which
    /// nothing is left. Whether it was ever the same nobody can tell, so it is not to be kept, or could come back as
    /// what it is not if its broker led before it heard of the start.
    pub fn divergence(
        &self,
        from: Offset,
        last_epoch: LeaderEpoch,
        log_start: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        let end = self.log.end().offset;
        if last_epoch == LeaderEpoch::NONE {
            // It has no batch to compare; it may still have begun behind our end, when another led.
            return (from > end).then(|| (self.leader_epoch(), end));
        }
        let forgotten = self.log.epochs().entries().first().is_some_and(|first| last_epoch < first.epoch);
        if forgotten && log_start < from && from == self.log.start() {
            return Some((LeaderEpoch::NONE, from));
        }
        // One that is above all ours was never part of this log.
        let (epoch, end) = self.log.epoch_end(last_epoch).unwrap_or((self.leader_epoch(), end));
        (epoch < last_epoch || end < from).then_some((epoch, end))
    }

    /// Whether a request that names `current` fits the leadership that is known here; -1 skips the check.
    pub fn check_epoch(&self, current: LeaderEpoch) -> Result<(), EpochRefusal> {
        let ours = self.leader_epoch();
        match current {
            LeaderEpoch::NONE => Ok(()),
            epoch if epoch < ours => Err(EpochRefusal::Fenced),
            epoch if epoch > ours => Err(EpochRefusal::Unknown),
            _ => Ok(()),
        }
    }

    /// What a sync would make durable now; `None` when nothing is unsynced.
    pub fn begin_sync(&mut self) -> Option<SyncPlan> {
        self.log.begin_sync()
    }

    /// Takes the outcome of a sync. With [`Durability::Fsync`] the leader's own share follows what is synced (L13).
    pub fn complete_sync(&mut self, plan: SyncPlan, result: Result<Synced, SyncError>) -> Result<(), SyncError> {
        self.log.complete_sync(plan, result)?;
        self.advance_high_watermark();
        Ok(())
    }

    /// Syncs everything for a clean shutdown ([`Log::close_clean`]). Waits for the disk.
    pub fn close_clean(&mut self) -> Result<(), SyncError> {
        self.log.close_clean()?;
        self.advance_high_watermark();
        Ok(())
    }

    /// Moves a leader's high watermark as far as everybody holds the log who may be elected, and only while enough are
    /// in sync (I5, strict min ISR of KIP-966).
    pub(crate) fn advance_high_watermark(&mut self) {
        let State::Leading(leader) = &self.state else { return };
        let durability = self.settings.durability;
        let own = match durability {
            Durability::Fsync => self.log.durable_end(),
            Durability::Replicated => self.log.end(),
        };
        if leader.is_alone() {
            if own.offset > self.high_watermark.offset {
                self.high_watermark = own;
            }
            return;
        }
        if own.offset <= self.high_watermark.offset || self.check_min_isr().is_err() {
            return;
        }
        match leader.held_by_all(&self.assignment, durability, own.offset) {
            Some(held) if held >= own.offset => self.raise_high_watermark(own),
            Some(held) if held > self.high_watermark.offset => {
                // If its place can't be read it stays where it is, and whoever reads there reports why.
                if let Ok(place) = self.log.position_of(held) {
                    self.raise_high_watermark(place);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn raise_high_watermark(&mut self, to: LogPosition) {
        if to.offset > self.high_watermark.offset {
            self.high_watermark = to;
            self.log.set_committed(to.offset);
        }
    }

    /// The log is never cut below the high watermark, and that of an only copy not at all.
    pub(crate) fn tell_committed(&mut self) {
        let alone = matches!(&self.state, State::Leading(leader) if leader.is_alone());
        self.log.set_committed(if alone { Offset(i64::MAX) } else { self.high_watermark.offset });
    }
}
