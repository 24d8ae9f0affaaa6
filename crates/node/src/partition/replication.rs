//! A partition among several brokers: who leads it, what a leader does for its followers, and how a follower follows.
//!
//! A leader learns by each Fetch of a follower how far that one has come, which moves the high watermark
//! ([`Partition::fetch`]); a follower appends what its leader's answer brought ([`Partition::append_fetched`]). What a
//! replica wants of the controller, another ISR, is left with the node (`outbox.rs`). What is not here: the rules
//! (`ottla_replica`), and the requests between brokers (`ottla-broker`).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use ottla_log::{AppendError, LogReader};
use ottla_replica::{
    Assignment, CommittedIsr, Durability, Effect, EpochRefusal, Event, FetchError, FetchOutcome, FetchPosition,
    Fetched as FetchedData, IsrRefusal, Replica, Role,
};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};

use super::{
    DAMAGE_REPORTED, DAMAGED, Fetched, FollowerCopy, Partition, ReadRefusal, ReadRequest, State, Unavailable, plan,
    wants_sync,
};
use crate::{outbox::IsrChange, topic_log_config::durability, waiters::Wakes};

/// A leader epoch and whether this broker leads in it, in one number.
#[derive(Default)]
pub(super) struct Leadership(AtomicU64);

impl Leadership {
    fn set(&self, epoch: LeaderEpoch, leading: bool) {
        self.0.store(u64::from(epoch.0.cast_unsigned()) << 1 | u64::from(leading), Ordering::SeqCst);
    }

    fn get(&self) -> (LeaderEpoch, bool) {
        let both = self.0.load(Ordering::SeqCst);
        (LeaderEpoch(((both >> 1) as u32).cast_signed()), both & 1 == 1)
    }
}

/// The broker behind a follower's Fetch.
#[derive(Clone, Copy, Debug)]
pub struct Follower {
    /// Its number.
    pub broker: BrokerId,
    /// The registration it fetches under.
    pub epoch: BrokerEpoch,
    /// What it says of its copy.
    pub copy: FollowerCopy,
    /// Whether the cluster knows it by that registration, unfenced and not about to leave: only then it may join the
    /// ISR (rule I4).
    pub eligible: bool,
}

/// Why a leader's answer was not taken in.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FollowError {
    /// The partition can't take anything now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// What the leader sent can't follow here, or could not be written.
    #[error("{0}")]
    Refused(Arc<str>),
}

impl Partition {
    /// The epoch of the present leadership, this broker's or another's.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leadership.get().0
    }

    /// The epoch of the partition as the cluster has it, as far as this broker has heard; -1 before it has.
    pub fn partition_epoch(&self) -> i32 {
        self.assignment.load().as_ref().map_or(-1, |assignment| assignment.partition_epoch)
    }

    /// Whether this broker leads the partition.
    pub fn is_leading(&self) -> bool {
        self.leadership.get().1
    }

    /// Whether this broker leads the partition in just this epoch: what was promised in another is not ours to keep.
    pub fn leads_in(&self, epoch: LeaderEpoch) -> bool {
        self.leadership.get() == (epoch, true)
    }

    /// The broker that this one follows here; none where it leads, or where nobody does.
    pub(crate) fn followed_leader(&self) -> Option<BrokerId> {
        self.assignment.load().as_ref()?.leader.filter(|leader| *leader != self.broker)
    }

    /// Whether this copy is in the ISR, as far as this broker has heard.
    pub(super) fn is_in_sync(&self) -> bool {
        self.assignment.load().as_ref().is_some_and(|assignment| assignment.isr.contains(&self.broker))
    }

    pub(super) fn check_leading(&self) -> Result<(), Unavailable> {
        if self.is_leading() { Ok(()) } else { Err(Unavailable::NotLeader) }
    }

    /// Whether a request that names `current` fits what this broker knows of the leadership (rule E7).
    pub fn check_epoch(&self, current: LeaderEpoch) -> Result<(), EpochRefusal> {
        let ours = self.leader_epoch();
        match current {
            LeaderEpoch::NONE => Ok(()),
            epoch if epoch < ours => Err(EpochRefusal::Fenced),
            epoch if epoch > ours => Err(EpochRefusal::Unknown),
            _ => Ok(()),
        }
    }

    /// Whether as many replicas are in sync as an append with `acks=all` asks for (rule I6).
    pub fn has_enough_in_sync(&self) -> bool {
        let minimum = self.config.load().min_insync_replicas as usize;
        if minimum <= 1 && self.is_leading() {
            // A leader is in sync itself.
            return true;
        }
        let assignment = self.assignment.load();
        assignment.as_ref().is_some_and(|assignment| assignment.check_min_isr(minimum).is_ok())
    }

    /// Runs `work` on the replica if it leads.
    pub(super) fn lead<R>(&self, work: impl FnOnce(&mut Replica) -> R) -> Result<R, Unavailable> {
        self.with(|replica| match replica.role() {
            Role::Leader => Ok(work(replica)),
            Role::Follower { .. } | Role::Idle => Err(Unavailable::NotLeader),
        })?
    }

    /// Takes what the cluster says about the partition from now on. Says whether somebody has left the ISR: a follower
    /// that is no longer in sync is to be looked at until it is, also where nobody writes, but not before the image
    /// tells whether its broker is fit to join.
    pub(crate) fn assign(self: &Arc<Self>, assignment: Assignment) -> bool {
        let leading = assignment.leader == Some(self.broker);
        let before = (self.leadership.get(), self.is_in_sync());
        let mut effects = Vec::new();
        let (assigned, left) = {
            let mut state = self.state.lock();
            let known = self.assignment.swap(Some(Arc::new(assignment.clone())));
            let left = known.is_some_and(|known| known.isr.iter().any(|member| !assignment.isr.contains(member)));
            self.begin_anew_if_damaged(&mut state, &assignment);
            let assigned = match &mut *state {
                State::Open(replica) => {
                    let now = self.storage.tick();
                    let assigned = catch_unwind(AssertUnwindSafe(|| replica.assign(now, &assignment, &mut effects)));
                    self.publish(replica.high_watermark());
                    self.publish_progress(replica);
                    assigned.map_err(|_| "a bug".to_owned()).and_then(|done| done.map_err(|error| error.to_string()))
                }
                State::Closed(_) | State::Offline(..) | State::Deleted => Ok(()),
            };
            if let Err(why) = &assigned {
                let why: Arc<str> = format!("it could not take its new role: {why}").into();
                tracing::error!(topic = %self.topic_name, partition = %self.index, %why, "partition is offline");
                *state = State::Offline(why, state.known());
                self.gone.store(true, Ordering::Release);
            }
            self.leadership.set(assignment.leader_epoch, leading && assigned.is_ok());
            (assigned, left)
        };
        self.carry_out(effects);
        if assigned.is_err() || before != (self.leadership.get(), self.is_in_sync()) {
            // What they wait for was promised by another leadership, or they have to go elsewhere for it.
            self.wake_all();
        } else {
            let mut wakes = Wakes::default();
            self.waiters.take_reached(self.high_watermark(), &mut wakes);
            wakes.wake();
        }
        left
    }

    /// Has the Fetch of each follower that waits here look again.
    pub(crate) fn look_at_followers(&self) {
        let mut wakes = Wakes::default();
        self.progress_waiters.take_all(&mut wakes);
        wakes.wake();
    }

    /// The controller knows that this copy is damaged. It is copied anew as soon as another broker leads, and kept as
    /// it is where this is the only one: an operator decides then.
    pub fn damage_reported(&self) {
        let mut state = self.state.lock();
        // A copy that was made anew meanwhile is not the one that was meant.
        if self.damage.compare_exchange(DAMAGED, DAMAGE_REPORTED, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        if let Some(assignment) = &*self.assignment.load() {
            self.begin_anew_if_damaged(&mut state, assignment);
        }
    }

    /// Something that is read from here is damaged. Where others are in sync the controller is to hear of it, and until
    /// it has acted on that this copy goes on.
    pub(crate) fn report_rot(&self) {
        let new = || self.damage.compare_exchange(0, DAMAGED, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if self.has_others_in_sync() && new() {
            self.storage.damaged().push((self.topic, self.index));
        }
    }

    /// Whether the controller still has to hear of damage here. Of a copy that can be read it does not if it is the
    /// only one in sync by now: most of it is better than nothing.
    pub fn owes_damage_report(&self) -> bool {
        if self.damage.load(Ordering::Acquire) != DAMAGED {
            return false;
        }
        let spared = self.is_open() && !self.has_others_in_sync();
        if spared {
            self.damage.store(0, Ordering::Release);
        }
        !spared
    }

    fn has_others_in_sync(&self) -> bool {
        let assignment = self.assignment.load();
        assignment.as_ref().is_some_and(|assignment| assignment.isr.iter().any(|member| *member != self.broker))
    }

    /// Whether this copy can be read, is damaged, and is not counted on any more, as another broker leads.
    pub(crate) fn is_given_up(&self, next: &Assignment) -> bool {
        let led_by_other = next.leader.is_some_and(|leader| leader != self.broker);
        let damaged = self.damage.load(Ordering::Acquire) != 0;
        damaged && led_by_other && !next.isr.contains(&self.broker) && self.is_open()
    }

    /// Ends this copy and puts its files aside; another takes its place.
    pub(crate) fn set_aside(&self) {
        let (topic, partition) = (&self.topic_name, self.index);
        tracing::warn!(%topic, %partition, "the damaged copy is set aside, and made anew from the leader's");
        self.delete();
        self.storage.set_damaged_aside(&self.dir());
    }

    /// What is stored speaks of a copy that is gone: a start would take this one for damaged.
    pub(crate) fn owe_checkpoint(&self) {
        self.checkpoint_owed.store(true, Ordering::Release);
        self.storage.checkpoint_wanted();
    }

    fn begin_anew_if_damaged(&self, state: &mut State, assignment: &Assignment) {
        let led_by_other = assignment.leader.is_some_and(|leader| leader != self.broker);
        let given_up = led_by_other && !assignment.isr.contains(&self.broker);
        if given_up && self.damage.load(Ordering::Acquire) == DAMAGE_REPORTED && matches!(state, State::Offline(..)) {
            let (topic, partition) = (&self.topic_name, self.index);
            tracing::warn!(%topic, %partition, "the damaged copy is set aside, and made anew from the leader's");
            self.storage.set_damaged_aside(&self.dir());
            *state = State::Closed(None);
            self.owe_checkpoint();
            self.damage.store(0, Ordering::Release);
            self.gone.store(false, Ordering::Release);
        }
    }

    /// What a follower's Fetch gets: everything up to the end of the log. That it asks says how far it has come.
    pub fn fetch(self: &Arc<Self>, follower: &Follower, request: &ReadRequest) -> Result<Fetched, ReadRefusal> {
        self.check_epoch(request.current_epoch)?;
        self.check_leading()?;
        let reader = self.reader()?;
        let mut effects = Vec::new();
        let (end, high_watermark, in_sync, trimmed) = self.lead(|replica| {
            // A follower whose history differs is told so and nothing else: where it stands is no news (rule E3).
            let (from, last_epoch) = (request.from, request.last_fetched_epoch);
            if let Some((epoch, end)) = replica.divergence(from, last_epoch, follower.copy.log_start) {
                return Err(ReadRefusal::Diverging { epoch, end });
            }
            let end = replica.log().end();
            if request.from < replica.log().start() || request.from > end.offset {
                return Err(ReadRefusal::OutOfRange);
            }
            let event = Event::FollowerFetched {
                broker: follower.broker,
                broker_epoch: follower.epoch,
                fetch: request.from,
                durable: follower.copy.durable.min(request.from),
                eligible: follower.eligible,
            };
            replica.step(self.storage.tick(), event, &mut effects);
            self.copies.told(replica.leader_epoch(), follower.broker, follower.copy.log_start, request.from);
            let high_watermark = replica.high_watermark();
            if high_watermark.offset.0 != self.visible_offset.load(Ordering::Relaxed) {
                self.publish(high_watermark);
            }
            let trimmed = self.trim_for(follower, replica)?;
            Ok((end, high_watermark.offset, replica.assignment().isr.contains(&follower.broker), trimmed))
        })??;
        self.carry_out(effects);
        if trimmed {
            self.started_anew();
        }
        let mut wakes = Wakes::default();
        self.waiters.take_reached(high_watermark, &mut wakes);
        wakes.wake();
        let records = plan(reader, request, end)?;
        Ok(Fetched { records, high_watermark, end: end.offset, log_start: reader.start_offset(), in_sync })
    }

    /// Lets go what a follower's broker has no room for under its retention budgets: the tightest of all replicas'
    /// holds. Whether there was anything.
    fn trim_for(&self, follower: &Follower, replica: &mut Replica) -> Result<bool, ReadRefusal> {
        let wanted = follower.copy.start_wanted.min(replica.high_watermark().offset);
        let is_replica = replica.assignment().replicas.contains(&follower.broker);
        if wanted <= replica.log().start() || !is_replica || !self.config.load().cleanup_policy.delete {
            return Ok(false);
        }
        replica.log_mut().advance_start(wanted).map_err(|error| Unavailable::Offline(error.to_string().into()))?;
        Ok(true)
    }

    /// Where this broker's retention budgets want the partition to begin, which is its leader's to decide;
    /// [`Offset::ZERO`] where they want nothing.
    pub fn start_wanted(&self) -> Offset {
        Offset(self.start_wanted.load(Ordering::Acquire))
    }

    /// Has the leader asked to let go what is before `start`.
    pub(crate) fn want_start(&self, start: Offset) {
        if self.start_wanted.swap(start.0, Ordering::AcqRel) != start.0 {
            self.storage.start_wanted();
        }
    }

    /// Which of `brokers` a consumer that reads from `from` on can be sent to: a follower in sync whose copy holds what
    /// comes there, and of several the one that goes furthest. None where this broker does not lead (KIP-392).
    pub fn nearest_copy(&self, brokers: &[BrokerId], from: Offset) -> Option<BrokerId> {
        let (epoch, leading) = self.leadership.get();
        let assignment = self.assignment.load();
        let isr = &assignment.as_ref().filter(|_| leading)?.isr;
        self.copies.furthest(epoch, from, |broker| brokers.contains(&broker) && isr.contains(&broker))
    }

    /// Where this copy goes on from, if it follows another broker. Opens the log.
    pub fn fetch_position(&self) -> Result<Option<FetchPosition>, Unavailable> {
        if self.checkpoint_owed.load(Ordering::Acquire) {
            return Err(Unavailable::Offline("its checkpoint has to be stored first".into()));
        }
        self.with(|replica| replica.fetch_position())
    }

    /// Whether what is stored about the partition has to be replaced before it may follow.
    pub(crate) fn owes_checkpoint(&self) -> bool {
        self.checkpoint_owed.load(Ordering::Acquire)
    }

    /// The checkpoint is stored as it is now.
    pub(crate) fn checkpoint_stored(&self) {
        self.checkpoint_owed.store(false, Ordering::Release);
    }

    /// Appends what the leader's answer brought, cuts the log where it says so, and learns what is committed. Where the
    /// topic counts on the disk, a sync is asked for at once: the leader waits for it.
    ///
    /// Says whether the copy is, now or since it asked, another, so that the leader does not know where it stands.
    pub fn append_fetched(self: &Arc<Self>, fetched: &FetchedData) -> Result<bool, FollowError> {
        if !fetched.records.is_empty() {
            self.storage.check_room(fetched.records.len() as u64)?;
        }
        let now = self.storage.now();
        let config = self.config.load();
        let (outcome, started, sync) = self.with(|replica| {
            let start = replica.log().start();
            let outcome = replica.append_fetched(fetched, now);
            self.publish(replica.high_watermark());
            self.publish_progress(replica);
            let log = replica.log();
            (outcome, log.start() != start, wants_sync(log, &config))
        })?;
        let outcome = outcome.map_err(|error| {
            // A log that an error of the disk took out of service stays so, whoever would be told to follow (rule L10).
            if matches!(error, FetchError::Append(AppendError::Failed(_))) && self.damage.load(Ordering::Acquire) == 0 {
                self.storage.fail(&error);
            }
            FollowError::Refused(error.to_string().into())
        })?;
        let (topic, partition) = (&self.topic_name, self.index);
        let moved = match outcome {
            FetchOutcome::Taken => !fetched.records.is_empty(),
            // It answers what was asked under another leadership, or another answer came before it: a task that was to
            // end took one in after its successor had asked. The leader would send the same again and again.
            FetchOutcome::Stale => true,
            FetchOutcome::Truncated(end) => {
                tracing::info!(%topic, %partition, %end, "cut what the leader does not have and was never committed");
                true
            }
            FetchOutcome::Reset(start) => {
                tracing::info!(%topic, %partition, %start, "begun anew where the leader's log begins");
                true
            }
            FetchOutcome::Busy => return Err(FollowError::Refused("the log is being synced or compacted".into())),
            FetchOutcome::HighWatermarkLost { from, to } => {
                tracing::error!(
                    %topic, %partition, %from, %to,
                    "records are lost: the leader was elected although it lacks some that were committed"
                );
                self.checkpoint_owed.store(true, Ordering::Release);
                self.storage.checkpoint_wanted();
                true
            }
        };
        if started {
            self.started_anew();
        }
        if sync || matches!(outcome, FetchOutcome::Truncated(_) | FetchOutcome::Reset(_)) {
            self.request_sync(durability(&config) == Durability::Fsync);
        }
        let mut wakes = Wakes::default();
        self.waiters.take_reached(self.high_watermark(), &mut wakes);
        wakes.wake();
        Ok(moved)
    }

    /// Lets time pass for a leader: followers that lag behind for too long leave the ISR.
    pub(crate) fn tick(self: &Arc<Self>) {
        // One without followers has nothing to decide, and one that nobody opened has none that lag.
        let alone = self.assignment.load().as_ref().is_none_or(|assignment| assignment.replicas.len() < 2);
        if alone || !self.is_leading() || !self.is_open() {
            return;
        }
        self.step(Event::Tick);
    }

    /// Takes the controller's answer to an ISR that this replica proposed: what it committed, or why it did not. Each
    /// proposal is owed one.
    pub fn isr_answered(self: &Arc<Self>, answer: Result<CommittedIsr, IsrRefusal>) {
        self.step(Event::IsrAnswered(answer));
    }

    fn step(self: &Arc<Self>, event: Event) {
        let mut effects = Vec::new();
        let now = self.storage.tick();
        // A partition that can't be had has nothing to decide.
        let _ = self.with(|replica| {
            replica.step(now, event, &mut effects);
            self.publish(replica.high_watermark());
        });
        self.carry_out(effects);
        let mut wakes = Wakes::default();
        self.waiters.take_reached(self.high_watermark(), &mut wakes);
        wakes.wake();
    }

    fn carry_out(self: &Arc<Self>, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::ProposeIsr(proposal) => {
                    self.storage.isr_changes().push(IsrChange { partition: Arc::clone(self), proposal });
                }
                // Who waits for more copies than there are is told when its time is up: the ISR may be back before.
                Effect::IsrBelowMinimum(below) => {
                    let (topic, partition) = (&self.topic_name, self.index);
                    tracing::debug!(%topic, %partition, below, "in-sync replicas against min.insync.replicas");
                }
            }
        }
    }

    pub(super) fn publish_progress(&self, replica: &Replica) {
        let reached = match replica.role() {
            Role::Leader => replica.log().end(),
            Role::Follower { .. } | Role::Idle => replica.log().durable_end(),
        };
        // Before anyone looks for waiters: see `Waiters::earliest`.
        self.progress.store(reached.offset.0, Ordering::SeqCst);
    }

    /// Where a leader's log ends, and up to where a follower's is durable.
    pub fn progress(&self) -> Offset {
        Offset(self.progress.load(Ordering::SeqCst))
    }

    /// Whether a copy counts as far as it is on the disk.
    pub fn counts_what_is_synced(&self) -> bool {
        durability(&self.config.load()) == Durability::Fsync
    }

    /// Whether a follower's next Fetch has to wait: its leader counts what is on the disk, and not all is.
    pub fn owes_sync(&self) -> Option<Offset> {
        let end = self.reader.get().map_or(Offset::ZERO, LogReader::end_offset);
        let owes = self.counts_what_is_synced() && !self.is_leading() && self.progress() < end;
        owes.then_some(end)
    }

    /// Wakes `waker` when a leader's log ends at `target` or later, and a follower's is durable that far; also when the
    /// partition changes hands or goes away. `false` if it is so already: then nothing was registered.
    pub fn wait_for_progress(&self, target: Offset, waker: &Waker) -> bool {
        if self.progress() >= target || self.unavailable().is_some() {
            return false;
        }
        self.progress_waiters.register(waker, target);
        if self.progress() >= target || self.unavailable().is_some() {
            self.progress_waiters.forget(waker);
            return false;
        }
        true
    }

    /// Takes back a [`Partition::wait_for_progress`].
    pub fn forget_progress(&self, waker: &Waker) {
        self.progress_waiters.forget(waker);
    }
}
