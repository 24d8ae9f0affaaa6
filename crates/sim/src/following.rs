//! Following: one Fetch at a time to each leader, for all partitions that are followed there, as `ottla_broker` does
//! it.
//!
//! A round names where each copy stands, waits at the leader until there is news or time is up, takes in what comes,
//! and has it synced where the topic counts on the disk before the next round tells the leader. What is not here:
//! sessions, whose partitions without news are left out; here all are named in every round.

use std::collections::BTreeMap;

use bytes::Bytes;
use ottla_log::AppendError;
use ottla_replica::{Event as ReplicaEvent, FetchError, FetchOutcome, Fetched};
use ottla_types::{BrokerId, LeaderEpoch, Offset};

use crate::{
    broker::{Following, State},
    event::{Event, FetchAnswer, FollowerFetch, Place},
    world::World,
};

/// `replica.fetch.wait.max.ms`
const WAIT_MAX_MS: u64 = 500;
/// On top of it, before a follower asks again.
const PATIENCE_MS: u64 = 1000;
/// Pause where a leader would not serve something.
const REFUSED_MS: u64 = 50;

/// What a leader has for one partition of a Fetch.
enum Served {
    News(Fetched),
    Nothing(Fetched),
    Refused,
}

impl World {
    /// Follows whoever the metadata says, anew where that changed.
    pub(crate) fn refresh_following(&mut self, at: usize) {
        let broker = &mut self.brokers[at];
        if !broker.registered {
            return;
        }
        let mut wanted: BTreeMap<BrokerId, Vec<(Place, LeaderEpoch)>> = BTreeMap::new();
        for (place, copy) in &broker.copies {
            if let Some(assignment) = &copy.assignment
                && let Some(leader) = assignment.leader.filter(|leader| *leader != broker.id)
                && assignment.replicas.contains(&broker.id)
            {
                wanted.entry(leader).or_default().push((*place, assignment.leader_epoch));
            }
        }
        broker.following.retain(|leader, _| wanted.contains_key(leader));
        let mut begun = Vec::new();
        for (leader, set) in wanted {
            if broker.following.get(&leader).is_some_and(|following| following.set == set) {
                continue;
            }
            broker.generation += 1;
            let generation = broker.generation;
            let following = Following { generation, set, asked_until: None, told: BTreeMap::new() };
            broker.following.insert(leader, following);
            begun.push((leader, generation));
        }
        for (leader, generation) in begun {
            self.later(at, 0, Event::FetchRound { leader, generation });
        }
    }

    /// Asks again where no answer came.
    pub(crate) fn renew_fetches(&mut self, at: usize) {
        let now = self.now;
        let mut due = Vec::new();
        for (leader, following) in &mut self.brokers[at].following {
            if following.asked_until.is_some_and(|until| until <= now) {
                following.asked_until = None;
                due.push((*leader, following.generation));
            }
        }
        for (leader, generation) in due {
            self.later(at, 0, Event::FetchRound { leader, generation });
        }
    }

    pub(crate) fn on_fetch_round(&mut self, at: usize, leader: BrokerId, generation: u64) {
        let places = match self.brokers[at].following.get(&leader) {
            Some(following) if following.generation == generation && following.asked_until.is_none() => {
                following.set.iter().map(|(place, _)| *place).collect::<Vec<_>>()
            }
            _ => return,
        };
        if self.brokers[at].failed {
            return;
        }
        let Some(epoch) = self.brokers[at].epoch() else {
            // A held up request of an earlier run has registered that one; this one will be again.
            self.later(at, REFUSED_MS, Event::FetchRound { leader, generation });
            return;
        };
        let mut positions = Vec::new();
        let mut waits = false;
        for place in places {
            self.open(at, place);
            let broker = &self.brokers[at];
            let Some(copy) = broker.copies.get(&place).filter(|copy| !copy.checkpoint_owed) else { continue };
            waits |= copy.owes_sync();
            if copy.owes_sync() && !copy.sync_listed {
                self.request_sync(at, place);
            }
            let broker = &self.brokers[at];
            let position = broker.copies.get(&place).and_then(|copy| copy.replica()?.fetch_position());
            let told = broker.following.get(&leader).and_then(|following| following.told.get(&place).copied());
            if let Some(position) = position.filter(|position| position.leader == leader) {
                positions.push((place, position, told.unwrap_or(Offset(-1))));
            }
        }
        if waits || positions.is_empty() {
            let pause = if waits { 2 } else { REFUSED_MS };
            self.later(at, pause, Event::FetchRound { leader, generation });
            return;
        }
        let until = self.now + WAIT_MAX_MS + PATIENCE_MS;
        if let Some(following) = self.brokers[at].following.get_mut(&leader) {
            following.asked_until = Some(until);
        }
        let life = self.brokers[at].life;
        let fetch = FollowerFetch { from: at, life, epoch, generation, positions };
        let to = self.index_of(leader);
        if to.is_some() {
            self.send(Some(at), to, None, Event::FetchArrives(fetch));
        }
    }

    pub(crate) fn on_fetch_arrives(&mut self, at: usize, fetch: FollowerFetch) {
        let id = self.id();
        if self.answer_fetch(at, &fetch, false) {
            return;
        }
        self.brokers[at].fetches.push((id, fetch));
        self.later(at, WAIT_MAX_MS, Event::FetchExpires(id));
    }

    pub(crate) fn on_fetch_expires(&mut self, at: usize, id: u64) {
        let fetches = &mut self.brokers[at].fetches;
        if let Some(found) = fetches.iter().position(|(waiting, _)| *waiting == id) {
            let (_, fetch) = fetches.remove(found);
            self.answer_fetch(at, &fetch, true);
        }
    }

    /// Something happened to a copy: who waits for it looks again.
    pub(crate) fn answer_fetches(&mut self, at: usize, place: Place) {
        let broker = &mut self.brokers[at];
        let concerned = |fetch: &FollowerFetch| fetch.positions.iter().any(|(waiting, ..)| *waiting == place);
        let waiting: Vec<(u64, FollowerFetch)> = broker.fetches.extract_if(.., |(_, fetch)| concerned(fetch)).collect();
        for (id, fetch) in waiting {
            if !self.answer_fetch(at, &fetch, false) {
                self.brokers[at].fetches.push((id, fetch));
            }
        }
    }

    /// Answers a Fetch if there is news, or at once if it has `expired`.
    fn answer_fetch(&mut self, at: usize, fetch: &FollowerFetch, expired: bool) -> bool {
        let (mut rows, mut news, mut refused) = (Vec::new(), false, false);
        for row in &fetch.positions {
            match self.serve_follower(at, fetch, row) {
                Served::News(fetched) => {
                    news = true;
                    rows.push((row.0, fetched));
                }
                Served::Nothing(fetched) => rows.push((row.0, fetched)),
                Served::Refused => refused = true,
            }
        }
        if !news && !refused && !expired {
            return false;
        }
        let leader = self.brokers[at].id;
        let answer = FetchAnswer { leader, generation: fetch.generation, rows, refused };
        self.send(Some(at), Some(fetch.from), Some(fetch.life), Event::FetchAnswered(answer));
        true
    }

    /// What `Partition::fetch` of the node does.
    fn serve_follower(
        &mut self,
        at: usize,
        fetch: &FollowerFetch,
        (place, position, told): &(Place, ottla_replica::FetchPosition, Offset),
    ) -> Served {
        let from = self.brokers[fetch.from].id;
        let broker = &self.brokers[at];
        let Some(copy) = broker.copies.get(place) else { return Served::Refused };
        if !broker.serves() || !copy.leads_in(broker.id, position.leader_epoch) {
            return Served::Refused;
        }
        let known = broker.image.broker(from);
        let eligible = known.is_some_and(|known| known.epoch == fetch.epoch && known.is_live());
        if !self.open(at, *place) {
            return Served::Refused;
        }
        let Some(replica) = self.brokers[at].copies.get(place).and_then(|copy| copy.replica()) else {
            return Served::Refused;
        };
        let log = replica.log();
        let (start, end) = (log.start(), log.end());
        let mut fetched = Fetched {
            leader_epoch: position.leader_epoch,
            from: position.offset,
            last_epoch: position.last_epoch,
            records: Bytes::new(),
            high_watermark: replica.high_watermark().offset,
            log_start: start,
            diverging: replica.divergence(position.offset, position.last_epoch, position.log_start),
        };
        if fetched.diverging.is_some() || position.offset < start || position.offset > end.offset {
            return Served::News(fetched);
        }
        let before = replica.high_watermark();
        let mut effects = Vec::new();
        let now = ottla_types::Tick(self.now);
        let event = ReplicaEvent::FollowerFetched {
            broker: from,
            broker_epoch: fetch.epoch,
            fetch: position.offset,
            durable: position.durable.min(position.offset),
            eligible,
        };
        let Some(replica) = self.brokers[at].copies.get_mut(place).and_then(|copy| copy.replica_mut()) else {
            return Served::Refused;
        };
        replica.step(now, event, &mut effects);
        fetched.high_watermark = replica.high_watermark().offset;
        let moved = replica.high_watermark() != before;
        let read = replica.log().reader().read(position.offset, end, self.plan.fetch_bytes, true);
        if moved {
            self.touch(at, *place);
        }
        self.carry_out(at, effects.into_iter().map(|effect| (*place, effect)).collect());
        match read.map(|plan| plan.read()) {
            Ok(Ok(records)) => fetched.records = records,
            _ => return Served::Refused,
        }
        let news =
            !fetched.records.is_empty() || fetched.high_watermark > *told || fetched.log_start > position.log_start;
        if news { Served::News(fetched) } else { Served::Nothing(fetched) }
    }

    pub(crate) fn on_fetch_answered(&mut self, at: usize, answer: FetchAnswer) {
        let FetchAnswer { leader, generation, rows, refused } = answer;
        let current = match self.brokers[at].following.get_mut(&leader) {
            Some(following) if following.generation == generation => {
                following.asked_until = None;
                for (place, fetched) in &rows {
                    following.told.insert(*place, fetched.high_watermark);
                }
                true
            }
            // It answers what another task asked. The replica has to see that for itself (E5).
            _ => false,
        };
        let mut taken = !refused;
        for (place, fetched) in rows {
            taken &= self.take_fetched(at, place, &fetched);
        }
        if current {
            let pause = if taken { 0 } else { REFUSED_MS };
            self.later(at, pause, Event::FetchRound { leader, generation });
        }
    }

    fn take_fetched(&mut self, at: usize, place: Place, fetched: &Fetched) -> bool {
        if !self.open(at, place) {
            return false;
        }
        let wall_clock = self.brokers[at].wall_clock(self.now);
        let id = self.brokers[at].id;
        let Some(copy) = self.brokers[at].copies.get_mut(&place) else { return false };
        let fsync = copy.is_fsync();
        let State::Open(replica) = &mut copy.state else { return false };
        let latest = replica.log().epochs().latest();
        let outcome = replica.append_fetched(fetched, wall_clock);
        let more = !fetched.records.is_empty() && fsync;
        let start = replica.log().start();
        let dirty = replica.log().needs_sync();
        self.touch(at, place);
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                // A log that is out of service stays so (L10).
                if matches!(error, FetchError::Append(AppendError::Failed(_))) {
                    self.disk_fails(at);
                }
                return false;
            }
        };
        match outcome {
            FetchOutcome::Taken => {
                if more || (fsync && dirty) {
                    self.request_sync(at, place);
                }
            }
            FetchOutcome::Stale => {}
            FetchOutcome::Busy => return false,
            FetchOutcome::Truncated(end) => {
                self.tally.mark("truncated");
                if fetched.diverging.is_some_and(|(epoch, _)| latest.is_some_and(|latest| epoch < latest)) {
                    self.tally.mark("truncated to a lower epoch");
                }
                self.note(format_args!("{id} cuts {}-{} at {end}, {:?}", place.0, place.1, fetched.diverging));
                self.request_sync(at, place);
            }
            FetchOutcome::Reset(to) => {
                self.tally.mark("begun anew");
                self.note(format_args!("{id} begins {}-{} anew at {to}, start {start}", place.0, place.1));
                self.request_sync(at, place);
            }
            FetchOutcome::HighWatermarkLost { from, to } => {
                self.tally.mark("high watermark lost");
                self.note(format_args!("{id} takes back {}-{} from {from} to {to}", place.0, place.1));
                if let Some(copy) = self.brokers[at].copies.get_mut(&place) {
                    copy.checkpoint_owed = true;
                }
                let excused = self.truths.get(&place).is_some_and(|truth| truth.excused);
                if !excused {
                    self.fail("E9", format!("{id} is to cut {}-{} below {from}", place.0, place.1));
                }
            }
        }
        true
    }
}
