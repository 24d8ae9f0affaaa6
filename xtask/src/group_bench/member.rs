//! A crowd of members that do what a client library does for a group, and nothing else: a thread and a connection each.
//!
//! No record is consumed. Every member keeps in one table what it was told, so that the crowd can say whether the
//! group is stable, and since when.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use kafka_protocol::ResponseError;
use parking_lot::Mutex;

use super::{CALL_TIMEOUT, HEARTBEAT_MS, Protocol, SESSION_MS};
use crate::wire::groups::{Member, Timeouts};
use crate::wire::{CallError, CallResult, Connection};

const REBALANCE_MS: i32 = 60_000;
/// Before a call is made again that was refused for the moment.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// A member needs little: 500 of them must not cost 500 full stacks.
const STACK: usize = 256 << 10;

/// How a member goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// It says so to the coordinator.
    Leave,
    /// Its connection breaks.
    Die,
}

/// What a member was told last.
#[derive(Clone, Debug)]
struct Place {
    /// The generation, or the member epoch.
    generation: i32,
    partitions: Vec<i32>,
    since: Instant,
}

struct Running {
    parting: Sender<Parting>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    started: usize,
    running: BTreeMap<usize, Running>,
    /// Of those that run; `None` until they have been told anything.
    places: BTreeMap<usize, Option<Place>>,
    failure: Option<anyhow::Error>,
}

pub(crate) struct Crowd {
    address: SocketAddr,
    protocol: Protocol,
    group: String,
    topic: String,
    partitions: i32,
    state: Mutex<State>,
}

impl Crowd {
    pub(crate) fn new(
        address: SocketAddr,
        protocol: Protocol,
        group: &str,
        topic: &str,
        partitions: i32,
    ) -> Arc<Crowd> {
        let (group, topic) = (group.to_owned(), topic.to_owned());
        Arc::new(Crowd { address, protocol, group, topic, partitions, state: Mutex::default() })
    }

    /// Has so many more members join.
    pub(crate) fn add(self: &Arc<Crowd>, count: usize) -> Result<()> {
        let mut state = self.state.lock();
        for _ in 0..count {
            let index = state.started;
            state.started += 1;
            let (parting, parted) = channel();
            let crowd = Arc::clone(self);
            let thread = thread::Builder::new().stack_size(STACK).spawn(move || crowd.run(index, &parted))?;
            state.running.insert(index, Running { parting, thread });
            state.places.insert(index, None);
        }
        Ok(())
    }

    /// Has the oldest members go, and waits until they have.
    pub(crate) fn part(&self, count: usize, how: Parting) -> Result<()> {
        let mut gone = Vec::new();
        {
            let mut state = self.state.lock();
            for _ in 0..count {
                if let Some((index, running)) = state.running.pop_first() {
                    state.places.remove(&index);
                    // A member that has failed hears nothing any more; its failure is told elsewhere.
                    let _ = running.parting.send(how);
                    gone.push(running.thread);
                }
            }
        }
        gone.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a member panicked")))
    }

    /// Says what went wrong, if anything did.
    pub(crate) fn finish(&self) -> Result<()> {
        self.state.lock().failure.take().map_or(Ok(()), Err)
    }

    /// Since when all members are in one generation and share the partitions evenly, each with one owner.
    pub(crate) fn stable_since(&self) -> Result<Option<Instant>> {
        let mut state = self.state.lock();
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        let Some(places) = state.places.values().map(Option::as_ref).collect::<Option<Vec<&Place>>>() else {
            return Ok(None);
        };
        let generations: BTreeSet<i32> = places.iter().map(|it| it.generation).collect();
        let shares = places.iter().map(|it| it.partitions.len());
        // Kafka gives the first member everything, and takes a second before it counts the others.
        let uneven = shares.clone().max().unwrap_or(0) > shares.clone().min().unwrap_or(0) + 1;
        let owned: BTreeSet<i32> = places.iter().flat_map(|it| it.partitions.iter().copied()).collect();
        let complete = i32::try_from(owned.len()).is_ok_and(|count| count == self.partitions);
        let is_stable = generations.len() == 1 && !uneven && complete && shares.sum::<usize>() == owned.len();
        Ok(places.iter().map(|it| it.since).max().filter(|_| is_stable))
    }

    /// For a message.
    pub(crate) fn state(&self) -> String {
        let state = self.state.lock();
        let mut generations: BTreeMap<Option<i32>, usize> = BTreeMap::new();
        for place in state.places.values() {
            *generations.entry(place.as_ref().map(|it| it.generation)).or_default() += 1;
        }
        let owned: usize = state.places.values().flatten().map(|it| it.partitions.len()).sum();
        format!("{owned} partitions owned; members by generation: {generations:?}")
    }

    fn told(&self, index: usize, generation: i32, partitions: Vec<i32>) {
        let mut state = self.state.lock();
        let Some(place) = state.places.get_mut(&index) else { return };
        let is_known = place.as_ref().is_some_and(|it| it.generation == generation && it.partitions == partitions);
        if !is_known {
            *place = Some(Place { generation, partitions, since: Instant::now() });
        }
    }

    fn run(self: &Arc<Crowd>, index: usize, parted: &Receiver<Parting>) {
        let lived = Connection::open(self.address, CALL_TIMEOUT).map_err(anyhow::Error::from).and_then(|connection| {
            let life = Life { crowd: self, index, connection, parted };
            match self.protocol {
                Protocol::Classic => life.classic(),
                Protocol::Consumer => life.consumer(),
            }
        });
        if let Err(error) = lived {
            let error = error.context(format!("member {index}"));
            self.state.lock().failure.get_or_insert(error);
        }
    }
}

/// One member while it lives.
struct Life<'a> {
    crowd: &'a Crowd,
    index: usize,
    connection: Connection,
    parted: &'a Receiver<Parting>,
}

impl Life<'_> {
    fn classic(mut self) -> Result<()> {
        let mut member = Member::default();
        loop {
            match self.rebalance(&mut member) {
                Ok(partitions) => self.crowd.told(self.index, member.generation, partitions),
                Err(error) => {
                    start_again(error, &mut member)?;
                    continue;
                }
            }
            // Spread out, as those of clients are that did not start together.
            let mut wait = Duration::from_millis(fastrand::u64(0..HEARTBEAT_MS));
            loop {
                match self.parted.recv_timeout(wait) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(Parting::Leave) => return Ok(self.connection.leave(&self.crowd.group, &member)?),
                    Ok(Parting::Die) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
                if let Err(error) = self.connection.heartbeat(&self.crowd.group, &member) {
                    start_again(error, &mut member)?;
                    break;
                }
                wait = Duration::from_millis(HEARTBEAT_MS);
            }
        }
    }

    /// Joins, and has the assignment that the leader made.
    fn rebalance(&mut self, member: &mut Member) -> CallResult<Vec<i32>> {
        let (group, topic) = (&self.crowd.group, &self.crowd.topic);
        let within = Timeouts { session: SESSION_MS, rebalance: REBALANCE_MS };
        match self.connection.join(group, topic, member, within) {
            Err(CallError::Refused(ResponseError::MemberIdRequired)) => {
                self.connection.join(group, topic, member, within)?;
            }
            joined => joined?,
        }
        let assignments = share_out(&member.led, self.crowd.partitions);
        self.connection.sync(group, topic, member, &assignments)
    }

    fn consumer(mut self) -> Result<()> {
        let (group, topic) = (&self.crowd.group, &self.crowd.topic);
        let id = uuid::Uuid::new_v4().to_string();
        let mut epoch = 0;
        let mut owned = Vec::new();
        let mut changed = false;
        loop {
            let says = changed.then_some(owned.as_slice());
            let mut wait = TRY_AGAIN;
            match self.connection.consumer_heartbeat(group, topic, (&id, epoch), says) {
                Ok(told) => {
                    // A client that has let go and taken up says so at once.
                    changed = told.assignment.as_ref().is_some_and(|assignment| *assignment != owned);
                    wait = match (changed, epoch) {
                        (true, _) => Duration::ZERO,
                        (false, 0) => Duration::from_millis(fastrand::u64(0..HEARTBEAT_MS)),
                        (false, _) => Duration::from_millis(u64::try_from(told.heartbeat_ms).unwrap_or(HEARTBEAT_MS)),
                    };
                    owned = told.assignment.unwrap_or(owned);
                    epoch = told.epoch;
                    let partitions = owned.iter().flat_map(|(_, partitions)| partitions.clone()).collect();
                    self.crowd.told(self.index, epoch, partitions);
                }
                Err(CallError::Refused(ResponseError::UnknownMemberId | ResponseError::FencedMemberEpoch)) => {
                    (epoch, changed) = (0, false);
                    owned.clear();
                }
                Err(error) if error.is_retriable_refusal() => {}
                Err(error) => return Err(error.into()),
            }
            match self.parted.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Parting::Leave) => {
                    self.connection.consumer_heartbeat(group, topic, (&id, -1), None).context("the leave")?;
                    return Ok(());
                }
                Ok(Parting::Die) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }
}

/// What a refusal means for the member: it joins again, as itself if the coordinator still knows it.
fn start_again(error: CallError, member: &mut Member) -> Result<()> {
    match error {
        CallError::Refused(ResponseError::RebalanceInProgress | ResponseError::IllegalGeneration) => {}
        CallError::Refused(ResponseError::UnknownMemberId) => member.id.clear(),
        error if error.is_retriable_refusal() => thread::sleep(TRY_AGAIN),
        error => return Err(error.into()),
    }
    Ok(())
}

/// The same number of partitions for each member, or one more.
fn share_out(members: &[String], partitions: i32) -> Vec<(String, Vec<i32>)> {
    let step = members.len().max(1);
    let share =
        |first: usize| i32::try_from(first).map_or(Vec::new(), |first| (first..partitions).step_by(step).collect());
    members.iter().enumerate().map(|(index, member)| (member.clone(), share(index))).collect()
}

#[cfg(test)]
mod tests {
    use super::share_out;

    #[test]
    fn every_partition_goes_to_one_member() {
        let members: Vec<String> = (0..3).map(|index| index.to_string()).collect();
        let shares = share_out(&members, 7);
        let mut all: Vec<i32> = shares.iter().flat_map(|(_, partitions)| partitions.clone()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..7).collect::<Vec<_>>());
        assert!(shares.iter().all(|(_, partitions)| (2..=3).contains(&partitions.len())));
        assert!(share_out(&[], 7).is_empty());
    }
}
