//! Fetch sessions (KIP-227): what a consumer asked for once, so that it need only say what changed.
//!
//! A session remembers its partitions in the order they are to be served and what was last told of each, so that an
//! answer holds only partitions with news. The cache is bounded (`max.incremental.fetch.session.cache.slots`): when it
//! is full, an opening request takes the slot of the session unused for longest, if that was idle for two minutes, and
//! is answered without a session otherwise, which is legal; the same where all sessions together would hold too much.
//! Rules F1 to F3. Next: `api/fetch.rs`, the only user.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ottla_node::Partition;
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
    /// Looked up once; `None` while the topic or partition is not there.
    pub(crate) partition: Option<Arc<Partition>>,
    pub(crate) told: Told,
    /// The high watermark at the last look, which a waiting fetch wants to see passed.
    pub(crate) seen: Offset,
    /// Whether the answer at hand mentions the partition.
    pub(crate) answered: bool,
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
    /// In the order of service: what was just served goes to the back, so that nobody starves (client rule 43).
    pub(crate) wanted: Vec<Wanted>,
    held: Held,
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
        let mut held = Held { total: Arc::clone(&self.held), max: self.bytes_max, bytes: 0 };
        if !held.set(bytes_of(&wanted)) {
            return None;
        }
        let mut slots = self.slots.lock();
        if slots.len() >= self.slots_max {
            let (&oldest, slot) = slots.iter().min_by_key(|(_, slot)| slot.used)?;
            if now.duration_since(slot.used) < IDLE_BEFORE_EVICTION {
                return None;
            }
            slots.remove(&oldest);
        }
        let id = loop {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed) & i32::MAX;
            if id != 0 && !slots.contains_key(&id) {
                break id;
            }
        };
        let session = Arc::new(Mutex::new(Session { id, next_epoch: 1, by_id, wanted, held }));
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
        self.slots.lock().remove(&id);
    }
}

/// About what partitions take in memory, the name of the topic counted with each.
fn bytes_of(wanted: &[Wanted]) -> usize {
    let name = |wanted: &Wanted| match &wanted.topic {
        TopicKey::Id(_) => 0,
        TopicKey::Name(name) => name.len(),
    };
    wanted.iter().map(|wanted| size_of::<Wanted>() + name(wanted)).sum()
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
    /// Adds partitions or takes their new positions; keeps the order of service. False if there is no memory for them:
    /// then the session is of no use any more.
    pub(crate) fn update(&mut self, wanted: Vec<Wanted>) -> bool {
        if wanted.is_empty() {
            return true;
        }
        let places: HashMap<(TopicKey, PartitionIndex), usize> =
            self.wanted.iter().enumerate().map(|(place, w)| ((w.topic.clone(), w.index), place)).collect();
        for new in wanted {
            match places.get(&(new.topic.clone(), new.index)) {
                Some(&place) => {
                    let told = self.wanted[place].told;
                    self.wanted[place] = Wanted { told, ..new };
                }
                None => self.wanted.push(new),
            }
        }
        self.held.set(bytes_of(&self.wanted))
    }

    /// Drops partitions the client no longer wants.
    pub(crate) fn forget(&mut self, unwanted: &HashSet<(TopicKey, PartitionIndex)>) {
        if unwanted.is_empty() {
            return;
        }
        self.wanted.retain(|w| !unwanted.contains(&(w.topic.clone(), w.index)));
        self.held.set(bytes_of(&self.wanted));
    }

    /// Puts the partitions that were just served behind those that were not.
    pub(crate) fn rotate(&mut self, served: &[bool]) {
        let mut flags = served.iter().copied();
        let (back, front): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.wanted).into_iter().partition(|_| flags.next().unwrap_or(false));
        self.wanted = front;
        self.wanted.extend(back);
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
            partition: None,
            told: Told::NOTHING,
            seen: Offset::ZERO,
            answered: false,
        };
        (from..from + count).map(one).collect()
    }

    #[tokio::test]
    async fn sessions_hold_no_more_than_they_may_together() {
        let now = Instant::now();
        let sessions = FetchSessions::new(100, bytes_of(&wanted(0, 10)));
        let first = sessions.open(wanted(0, 6), false, now).expect("room for ten");
        assert!(sessions.open(wanted(0, 5), false, now).is_none());
        assert!(first.lock().update(wanted(0, 10)), "six of them are there already");
        assert!(!first.lock().update(wanted(10, 1)));
        sessions.close(first.lock().id);
        drop(first);
        assert!(sessions.open(wanted(0, 10), false, now).is_some(), "what went is given back");
    }
}
