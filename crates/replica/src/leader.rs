//! What a leader knows of its followers: how far each has come under this leadership, and whether it keeps up.
//!
//! Nothing here is remembered from an earlier leadership (B9): a follower counts from its first Fetch on. Not here:
//! what the ISR becomes because of it (`isr.rs`) and the high watermark itself (`replica.rs`).

use ottla_types::{BrokerEpoch, BrokerId, Offset, Tick};

use crate::{Assignment, Durability, Settings, isr::Pending};

/// A leadership.
#[derive(Debug)]
pub(crate) struct Leader {
    /// The end of the log when it began; below it the log may hold what no follower has (I4, B14).
    pub(crate) epoch_start: Offset,
    /// One for each replica but this.
    pub(crate) followers: Vec<Follower>,
    /// The ISR that was proposed and may be committed any time.
    pub(crate) pending: Option<Pending>,
    /// The controller refused a proposal since the last tick: the same would be refused again.
    pub(crate) refused: bool,
    /// Whether the owner was told that the ISR is below the minimum.
    pub(crate) below_minimum: bool,
}

/// A follower, as its Fetches show it.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) broker: BrokerId,
    /// The registration it fetched with; -1 before it did.
    pub(crate) broker_epoch: BrokerEpoch,
    /// How far it has come; `None` until it fetched under this leadership.
    held: Option<Held>,
    /// Whether its broker may be in an ISR.
    pub(crate) eligible: bool,
    /// When it was last known to have all there was. A member of the ISR begins with the leadership.
    caught_up_at: Option<Tick>,
    /// Once it holds what is below, it was caught up at that time.
    goal: Option<(Offset, Tick)>,
    /// As of its last Fetch or the last tick.
    pub(crate) in_sync: bool,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    fetch: Offset,
    durable: Offset,
}

/// What a Fetch says of the follower that sent it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) broker: BrokerId,
    pub(crate) broker_epoch: BrokerEpoch,
    pub(crate) fetch: Offset,
    pub(crate) durable: Offset,
    pub(crate) eligible: bool,
}

impl Leader {
    pub(crate) fn new(me: BrokerId, assignment: &Assignment, epoch_start: Offset, now: Tick) -> Leader {
        let mut leader =
            Leader { epoch_start, followers: Vec::new(), pending: None, refused: false, below_minimum: false };
        leader.update(me, &[], assignment, now);
        leader
    }

    /// The controller committed something else about the partition: what was proposed is decided by it, one way or the
    /// other. A replica that is new, or new again, has fetched nothing yet (B9). One that was taken out of the ISR is
    /// gone, or lags: until it fetches again nobody waits for it, however much it held.
    pub(crate) fn update(&mut self, me: BrokerId, before: &[BrokerId], assignment: &Assignment, now: Tick) {
        self.pending = None;
        let left = |broker: &BrokerId| before.contains(broker) && !assignment.isr.contains(broker);
        self.followers.iter_mut().filter(|follower| left(&follower.broker)).for_each(|gone| gone.eligible = false);
        self.followers.retain(|follower| assignment.replicas.contains(&follower.broker));
        for broker in assignment.replicas.iter().copied().filter(|broker| *broker != me) {
            if self.followers.iter().all(|follower| follower.broker != broker) {
                let in_isr = assignment.isr.contains(&broker);
                self.followers.push(Follower::new(broker, in_isr.then_some(now)));
            }
        }
    }

    /// Whether there is no other replica.
    pub(crate) fn is_alone(&self) -> bool {
        self.followers.is_empty()
    }

    /// Takes in a Fetch at a leader that ends at `end`. False if it does not count: its broker has no copy, or has
    /// registered again since it was sent.
    pub(crate) fn on_fetch(&mut self, now: Tick, end: Offset, progress: &Progress, settings: &Settings) -> bool {
        let Some(follower) = self.followers.iter_mut().find(|follower| follower.broker == progress.broker) else {
            return false;
        };
        if progress.broker_epoch < follower.broker_epoch {
            return false;
        }
        if progress.broker_epoch > follower.broker_epoch && follower.held.is_some() {
            // It has started anew since, and may have lost what it had.
            (follower.caught_up_at, follower.goal) = (None, None);
        }
        follower.broker_epoch = progress.broker_epoch;
        follower.eligible = progress.eligible;
        follower.held = Some(Held { fetch: progress.fetch, durable: progress.durable });
        follower.mark(now, end, settings.durability);
        follower.look(now, end, settings);
        true
    }

    /// Time passes.
    pub(crate) fn on_tick(&mut self, now: Tick, end: Offset, settings: &Settings) {
        self.refused = false;
        for follower in &mut self.followers {
            follower.look(now, end, settings);
        }
    }

    /// The end of what all hold that may be elected now or soon (I5, B8): the maximal ISR, and those about to join it.
    /// `None` while one of them has not fetched.
    pub(crate) fn held_by_all(&self, assignment: &Assignment, durability: Durability, own: Offset) -> Option<Offset> {
        let mut least = own;
        for follower in &self.followers {
            let about_to_join = follower.eligible && follower.in_sync && follower.held.is_some();
            let may_be_elected = self.is_in_maximal_isr(assignment, follower.broker) || about_to_join;
            if assignment.isr.contains(&follower.broker) || may_be_elected && !cfg!(zoo = "B8") {
                least = least.min(follower.counted(durability)?);
            }
        }
        Some(least)
    }
}

impl Follower {
    fn new(broker: BrokerId, caught_up_at: Option<Tick>) -> Follower {
        Follower {
            broker,
            broker_epoch: BrokerEpoch(-1),
            held: None,
            eligible: false,
            caught_up_at,
            goal: None,
            in_sync: caught_up_at.is_some(),
        }
    }

    /// What of it counts (L13).
    pub(crate) fn counted(&self, durability: Durability) -> Option<Offset> {
        self.held.map(|held| match durability {
            Durability::Fsync if !cfg!(zoo = "B13") => held.fetch.min(held.durable),
            Durability::Fsync | Durability::Replicated => held.fetch,
        })
    }

    /// Notes when it had everything. Under a steady stream of appends it never does at the moment it asks; so a goal is
    /// set where the log ends, and once it is reached the follower was caught up when it was set.
    fn mark(&mut self, now: Tick, end: Offset, durability: Durability) {
        let Some(counted) = self.counted(durability) else { return };
        if counted >= end {
            self.caught_up_at = Some(now);
            self.goal = Some((end, now));
            return;
        }
        match self.goal {
            Some((goal, at)) if counted >= goal => {
                self.caught_up_at = self.caught_up_at.max(Some(at));
                self.goal = Some((end, now));
            }
            Some(_) => {}
            None => self.goal = Some((end, now)),
        }
    }

    /// Whether it keeps up: it has all, or had not long ago.
    fn look(&mut self, now: Tick, end: Offset, settings: &Settings) {
        let has_all = self.counted(settings.durability).is_some_and(|counted| counted >= end);
        let lag = self.caught_up_at.map(|at| now.0.saturating_sub(at.0));
        self.in_sync = has_all || lag.is_some_and(|lag| lag <= settings.lag_max.0);
    }
}
