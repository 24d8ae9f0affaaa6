//! Fetch sessions (KIP-227): what a consumer asked for once, so that it need only say what changed.
//!
//! A session remembers its partitions in the order they are to be served and what was last told of each, so that an
//! answer holds only partitions with news. Those of which there is nothing to tell are left alone until their [`Bell`]
//! rings: a request costs what has changed, however many partitions the session has.
//!
//! The cache is bounded (`max.incremental.fetch.session.cache.slots`): when it is full, an opening request takes the
//! slot of the session unused for longest, if that was idle for two minutes, and is answered without a session
//! otherwise, which is legal; the same where all sessions together would hold too much. Rules F1 to F3. Next:
//! `api/fetch.rs`, the only user.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use ottla_node::{FollowerCopy, Partition};
use ottla_protocol::ErrorCode;
use ottla_types::{LeaderEpoch, Offset, PartitionIndex, TopicId};
use parking_lot::Mutex;
use tokio::time::Instant;

/// `session_epoch` of a request that opens a session, or asks without one if its id is 0 too.
pub(crate) const INITIAL_EPOCH: i32 = 0;
/// `session_epoch` of a request without a session; with an id it closes that session.
pub(crate) const FINAL_EPOCH: i32 = -1;
/// Sessions unused for this long may lose their slot.
const IDLE_BEFORE_EVICTION: Duration = Duration::from_secs(120);

/// How a request names a topic: by id from version 13 on, by name before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TopicKey {
    Id(TopicId),
    Name(Arc<str>),
}

/// One partition as a client wants it, and what it was last told.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) topic: TopicKey,
    pub(crate) index: PartitionIndex,
    pub(crate) from: Offset,
    pub(crate) current_epoch: LeaderEpoch,
    pub(crate) last_fetched_epoch: LeaderEpoch,
    pub(crate) max_bytes: u64,
    /// Of a follower: what it says of its copy.
    pub(crate) copy: Option<FollowerCopy>,
    /// Looked up once; `None` while the topic or partition is not there.
    pub(crate) partition: Option<Arc<Partition>>,
    pub(crate) told: Told,
    /// What the last look found.
    pub(crate) found: Told,
    /// The end of what the last look could have had. A waiting fetch wants to see it passed.
    pub(crate) end: Offset,
    /// Not a replica that is out of sync.
    pub(crate) in_sync: bool,
    /// Whether the answer at hand mentions the partition, and with records.
    pub(crate) answered: bool,
    pub(crate) served: bool,
}

impl Wanted {
    /// Whether a look found nothing to tell, now or once there is room in an answer.
    fn is_quiet(&self) -> bool {
        // A follower is also to hear how far the log is committed, and nothing rings for that.
        let told_all = self.copy.is_none() || self.found.high_watermark >= self.end;
        // And one that is not in sync is looked at until its broker is fit to join.
        !self.answered && self.from >= self.end && told_all && self.in_sync
    }

    /// Wakes `waker` when the partition is past what the last look found; `false` if it is already.
    pub(crate) fn wait(&self, waker: &Waker) -> bool {
        let next = Offset(self.end.0.saturating_add(1));
        self.partition.as_ref().is_none_or(|partition| {
            let waits = match self.copy {
                None => partition.wait_for(next, waker),
                // A follower is told of what is appended, long before it is committed.
                Some(_) => partition.wait_for_progress(next, waker),
            };
            waits && partition.log_start() == self.found.log_start
        })
    }

    /// Whether there is more than the last look found.
    fn has_moved(&self) -> bool {
        self.partition.as_ref().is_some_and(|partition| {
            let end = if self.copy.is_some() { partition.progress() } else { partition.high_watermark() };
            end > self.end || partition.log_start() != self.found.log_start
        })
    }

    /// Takes back a [`Wanted::wait`].
    pub(crate) fn forget(&self, waker: &Waker) {
        match (&self.partition, self.copy) {
            (Some(partition), None) => partition.forget(waker),
            (Some(partition), Some(_)) => partition.forget_progress(waker),
            (None, _) => {}
        }
    }
}

/// What a session's client knows of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) high_watermark: Offset,
    pub(crate) log_start: Offset,
    /// An error is told again until it clears (rule F2).
    pub(crate) error: bool,
}

impl Told {
    /// Nothing yet: whatever is found is news.
    pub(crate) const NOTHING: Told = Told { high_watermark: Offset(-1), log_start: Offset(-1), error: false };
}

/// A session's state; one request at a time works on it.
pub(crate) struct Session {
    pub(crate) id: i32,
    /// The epoch that the next request must carry.
    next_epoch: i32,
    by_id: bool,
    places: Vec<Place>,
    numbers: HashMap<(TopicKey, PartitionIndex), usize>,
    /// Numbers of the places to look at: all but those that wait for their bell.
    due: Vec<usize>,
    /// The turn of who is served next: behind everybody, so that nobody starves (client rule 43).
    next_turn: u64,
    rung: Arc<Mutex<Rung>>,
    held: Held,
}

/// A partition's place in its session.
struct Place {
    wanted: Wanted,
    /// Places are served in the order of their turns.
    turn: u64,
    due: bool,
    bell: Waker,
    /// Whether the partition has the bell.
    hung: bool,
}

/// What a session leaves with a partition, to hear when it moves. Between requests too: it rings once and is gone.
struct Bell {
    number: usize,
    rung: Arc<Mutex<Rung>>,
}

/// The bells that rang since the session was last looked at, and whom to wake for the next, if a request waits.
#[derive(Default)]
struct Rung {
    numbers: Vec<usize>,
    waker: Option<Waker>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut rung = self.rung.lock();
        rung.numbers.push(self.number);
        // Taken: however many bells ring before the request looks, it is woken once.
        let waker = rung.waker.take();
        drop(rung);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// What one session holds of the memory for all of them; given back when dropped.
struct Held {
    total: Arc<AtomicUsize>,
    max: usize,
    bytes: usize,
}

/// All sessions of the broker.
pub(crate) struct FetchSessions {
    slots_max: usize,
    bytes_max: usize,
    held: Arc<AtomicUsize>,
    next_id: AtomicI32,
    slots: Mutex<HashMap<i32, Slot>>,
}

struct Slot {
    session: Arc<Mutex<Session>>,
    used: Instant,
}

impl FetchSessions {
    /// At most so many sessions, that hold so many bytes together.
    pub(crate) fn new(slots_max: usize, bytes_max: usize) -> FetchSessions {
        let held = Arc::default();
        FetchSessions { slots_max, bytes_max, held, next_id: AtomicI32::new(1), slots: Mutex::default() }
    }

    /// Opens a session over `wanted`, or `None` if every slot is in use or there is no memory for it.
    pub(crate) fn open(&self, wanted: Vec<Wanted>, by_id: bool, now: Instant) -> Option<Arc<Mutex<Session>>> {
        if wanted.is_empty() {
            return None;
        }
        let mut session = Session::new(by_id, Held { total: Arc::clone(&self.held), max: self.bytes_max, bytes: 0 });
        if !session.update(wanted) {
            return None;
        }
        // Outlives the lock: it takes its bells back.
        let _evicted;
        let mut slots = self.slots.lock();
        if slots.len() >= self.slots_max {
            let (&oldest, slot) = slots.iter().min_by_key(|(_, slot)| slot.used)?;
            if now.duration_since(slot.used) < IDLE_BEFORE_EVICTION {
                return None;
            }
            _evicted = slots.remove(&oldest);
        }
        let id = loop {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed) & i32::MAX;
            if id != 0 && !slots.contains_key(&id) {
                break id;
            }
        };
        session.id = id;
        let session = Arc::new(Mutex::new(session));
        slots.insert(id, Slot { session: Arc::clone(&session), used: now });
        Some(session)
    }

    /// The session of a request that continues one, its epoch advanced.
    pub(crate) fn resume(
        &self,
        id: i32,
        epoch: i32,
        by_id: bool,
        now: Instant,
    ) -> Result<Arc<Mutex<Session>>, ErrorCode> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        slot.used = now;
        let session = Arc::clone(&slot.session);
        drop(slots);
        let mut state = session.lock();
        if state.next_epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if state.by_id != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        state.next_epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        drop(state);
        Ok(session)
    }

    /// Ends a session, if it is there.
    pub(crate) fn close(&self, id: i32) {
        let closed = self.slots.lock().remove(&id);
        // Takes its bells back, without the lock.
        drop(closed);
    }
}

/// About what a partition takes in memory, the name of its topic counted with each.
fn bytes_of(wanted: &Wanted) -> usize {
    let name = match &wanted.topic {
        TopicKey::Id(_) => 0,
        TopicKey::Name(name) => name.len(),
    };
    let number = size_of::<(TopicKey, PartitionIndex, usize)>() + size_of::<usize>();
    size_of::<Place>() + size_of::<Bell>() + size_of::<Waker>() + number + name
}

impl Held {
    /// Makes it `bytes`; false if that is more than there is room for.
    fn set(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes {
            let before = self.total.fetch_add(bytes - self.bytes, Ordering::Relaxed);
            if before + (bytes - self.bytes) > self.max {
                self.total.fetch_sub(bytes - self.bytes, Ordering::Relaxed);
                return false;
            }
        } else {
            self.total.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Session {
    fn new(by_id: bool, held: Held) -> Session {
        let (places, numbers, due, rung) = Default::default();
        Session { id: 0, next_epoch: 1, by_id, places, numbers, due, next_turn: 0, rung, held }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Adds partitions or takes their new positions; keeps the order of service. False if there is no memory for them:
    /// then the session is of no use any more.
    pub(crate) fn update(&mut self, wanted: Vec<Wanted>) -> bool {
        let mut bytes = self.held.bytes;
        for new in wanted {
            match self.numbers.get(&(new.topic.clone(), new.index)) {
                Some(&number) => self.replace(number, new),
                None => {
                    bytes += bytes_of(&new);
                    self.add(new);
                }
            }
        }
        self.held.set(bytes)
    }

    fn add(&mut self, wanted: Wanted) {
        let number = self.places.len();
        self.numbers.insert((wanted.topic.clone(), wanted.index), number);
        self.due.push(number);
        let bell = Waker::from(Arc::new(Bell { number, rung: Arc::clone(&self.rung) }));
        self.places.push(Place { wanted, turn: self.next_turn, due: true, bell, hung: false });
        self.next_turn += 1;
    }

    fn replace(&mut self, number: usize, new: Wanted) {
        let place = &mut self.places[number];
        let same = match (&place.wanted.partition, &new.partition) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (old, new) => old.is_none() && new.is_none(),
        };
        if !same {
            place.take_bell();
        }
        place.wanted = Wanted { told: place.wanted.told, ..new };
        if !place.due {
            place.due = true;
            self.due.push(number);
        }
    }

    /// Drops partitions the client no longer wants.
    pub(crate) fn forget(&mut self, unwanted: &HashSet<(TopicKey, PartitionIndex)>) {
        if unwanted.is_empty() {
            return;
        }
        // Rare: those that stay are numbered anew.
        let mut places = std::mem::take(&mut self.places);
        places.sort_unstable_by_key(|place| place.turn);
        self.numbers.clear();
        self.due.clear();
        for mut place in places {
            place.take_bell();
            if !unwanted.contains(&(place.wanted.topic.clone(), place.wanted.index)) {
                self.add(place.wanted);
            }
        }
        self.held.set(self.places.iter().map(|place| bytes_of(&place.wanted)).sum());
    }

    /// Shows the partitions of which there may be something to tell, in the order of service.
    pub(crate) fn look(&mut self, mut look: impl FnMut(&mut Wanted)) {
        for number in self.rung.lock().numbers.drain(..) {
            // One that was forgotten may have rung too late.
            let Some(place) = self.places.get_mut(number) else { continue };
            place.hung = false;
            if !place.due {
                place.due = true;
                self.due.push(number);
            }
        }
        self.due.sort_unstable_by_key(|&number| self.places[number].turn);
        for &number in &self.due {
            look(&mut self.places[number].wanted);
        }
    }

    /// Goes over all partitions for what has moved although its bell has not rung yet, and says whether there is
    /// something: a producer may hear of its records a moment before, and what it has heard of can be read.
    pub(crate) fn overlooked(&mut self) -> bool {
        let before = self.due.len();
        for (number, place) in self.places.iter_mut().enumerate() {
            if !place.due && place.wanted.has_moved() {
                place.due = true;
                self.due.push(number);
            }
        }
        self.due.len() > before
    }

    /// Has `waker` woken when a partition is past what the last look found; `false` if one is already.
    pub(crate) fn wait(&mut self, waker: &Waker) -> bool {
        let mut unmoved = true;
        for &number in &self.due {
            unmoved &= self.places[number].hang_bell();
        }
        self.rest();
        let mut rung = self.rung.lock();
        rung.waker = Some(waker.clone());
        unmoved && rung.numbers.is_empty()
    }

    /// Takes back a [`Session::wait`].
    pub(crate) fn stop_waiting(&self, waker: &Waker) {
        let mut rung = self.rung.lock();
        rung.waker.take_if(|waiting| waiting.will_wake(waker));
    }

    /// Remembers what the client is told by the answer at hand, and whose turn is next.
    pub(crate) fn settle(&mut self) {
        for &number in &self.due {
            let place = &mut self.places[number];
            if place.wanted.answered {
                place.wanted.told = place.wanted.found;
            } else if place.wanted.is_quiet() {
                place.hang_bell();
            }
            if place.wanted.served {
                place.turn = self.next_turn;
                self.next_turn += 1;
            }
        }
        self.rest();
    }

    /// Leaves those alone of which there is nothing to tell until they ring.
    fn rest(&mut self) {
        let places = &mut self.places;
        self.due.retain(|&number| {
            let place = &mut places[number];
            place.due = !(place.hung && place.wanted.is_quiet());
            place.due
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.places.iter_mut().for_each(Place::take_bell);
    }
}

impl Place {
    /// Whether the partition has the bell and has not moved since the last look.
    fn hang_bell(&mut self) -> bool {
        if !self.hung {
            self.hung = self.wanted.wait(&self.bell);
        }
        self.hung
    }

    fn take_bell(&mut self) {
        if std::mem::take(&mut self.hung) {
            self.wanted.forget(&self.bell);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(from: i32, count: i32) -> Vec<Wanted> {
        let one = |index| Wanted {
            topic: TopicKey::Name("t".into()),
            index: PartitionIndex(index),
            from: Offset::ZERO,
            current_epoch: LeaderEpoch::NONE,
            last_fetched_epoch: LeaderEpoch::NONE,
            max_bytes: 0,
            copy: None,
            partition: None,
            told: Told::NOTHING,
            found: Told::NOTHING,
            end: Offset(-1),
            in_sync: true,
            answered: false,
            served: false,
        };
        (from..from + count).map(one).collect()
    }

    #[tokio::test]
    async fn sessions_hold_no_more_than_they_may_together() {
        let now = Instant::now();
        let sessions = FetchSessions::new(100, wanted(0, 10).iter().map(bytes_of).sum());
        let first = sessions.open(wanted(0, 6), false, now).expect("room for ten");
        assert!(sessions.open(wanted(0, 5), false, now).is_none());
        assert!(first.lock().update(wanted(0, 10)), "six of them are there already");
        assert!(!first.lock().update(wanted(10, 1)));
        sessions.close(first.lock().id);
        drop(first);
        assert!(sessions.open(wanted(0, 10), false, now).is_some(), "what went is given back");
    }
}
