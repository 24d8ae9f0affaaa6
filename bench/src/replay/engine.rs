//! The one thread that drives producers and consumers, and opens and closes the window.
//!
//! In a closed loop each answer makes room for the next request; in an open one a schedule says when batches are due,
//! and whoever is late has that counted. Edge-triggered: every handler goes on until its socket has no more.

use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::consumer::Consumer;
use super::producer::Producer;
use super::schedule::{Journal, Schedule};
use super::tally::{Outcome, Tally};

/// How long what was meant for the window may come after it.
const DRAIN: Duration = Duration::from_secs(30);
/// More than anybody sends, and still something can be added.
const UNLIMITED: u64 = u64::MAX / 2;
const BUFFER: usize = 1 << 20;
const EVENTS: usize = 256;

/// When the window opens and closes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) warmup: Duration,
    pub(super) window: Duration,
    /// Closes it earlier once so many bytes were counted.
    pub(super) bytes: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Engine {
    pub(super) producers: Vec<Producer>,
    pub(super) consumers: Vec<Consumer>,
    /// Makes the loop of the producers an open one.
    pub(super) schedule: Option<Schedule>,
    /// Makes latency count from a record's intended send to its delivery.
    pub(super) journal: Option<Journal>,
    pub(super) plan: Plan,
    pub(super) tally: Tally,
}

/// What the loop itself needs.
struct Run {
    epoll: OwnedFd,
    began: Instant,
    buffer: Vec<u8>,
    /// Batches that have become due.
    due: u64,
    /// Producers that need no event to go on.
    eager: Vec<usize>,
}

impl Run {
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}

impl Engine {
    pub(super) fn run(mut self) -> Result<Outcome> {
        if let Err(error) = self.drive() {
            self.tally.failed(|| format!("{error:#}"));
        }
        self.tally.outcome()
    }

    fn drive(&mut self) -> Result<()> {
        // Otherwise the kernel lets a sleep of an open loop run 50 µs long.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        for (index, producer) in self.producers.iter().enumerate() {
            epoll::add(&epoll, producer, EventData::new_u64(index as u64), flags)?;
        }
        for (index, consumer) in (self.producers.len()..).zip(&self.consumers) {
            epoll::add(&epoll, consumer, EventData::new_u64(index as u64), flags)?;
        }
        let mut run = Run { epoll, began: Instant::now(), buffer: vec![0; BUFFER], due: 0, eager: Vec::new() };
        if self.schedule.is_none() {
            for index in 0..self.producers.len() {
                self.producers[index].progress.due = UNLIMITED;
                self.send(&mut run, index)?;
            }
        }
        for consumer in &mut self.consumers {
            consumer.fetch(run.now())?;
        }
        let mut events = Vec::with_capacity(EVENTS);
        while !self.is_over(&run)? {
            self.send_due(&mut run)?;
            for index in std::mem::take(&mut run.eager) {
                self.send(&mut run, index)?;
            }
            self.wait(&run, &mut events)?;
            for event in events.drain(..) {
                self.serve(&mut run, event.data.u64() as usize)?;
            }
        }
        Ok(())
    }

    /// Opens and closes the window when it is time; true when nothing is left to wait for.
    fn is_over(&mut self, run: &Run) -> Result<bool> {
        let now = run.now();
        if self.tally.is_closed() {
            return self.is_drained(now);
        }
        if self.tally.is_open() {
            if now >= self.boundary() || self.plan.bytes.is_some_and(|bytes| self.tally.bytes() >= bytes) {
                self.tally.close(now)?;
                if self.schedule.is_none() {
                    self.producers.iter_mut().for_each(Producer::stop);
                }
            }
        } else if now >= self.boundary() {
            self.tally.open(run.now())?;
        }
        Ok(false)
    }

    /// The next moment at which the window changes.
    fn boundary(&self) -> u64 {
        let span = if self.tally.is_closed() {
            self.plan.warmup + self.plan.window + DRAIN
        } else if self.tally.is_open() {
            self.plan.warmup + self.plan.window
        } else {
            self.plan.warmup
        };
        span.as_nanos() as u64
    }

    fn is_drained(&self, now: u64) -> Result<bool> {
        let unanswered: u64 = self.producers.iter().map(Producer::open).sum();
        let arrived = self.journal.as_ref().is_none_or(|journal| {
            let mut positions = self.consumers.iter().flat_map(|it| &it.positions);
            positions.all(|it| it.offset >= journal.end(it.partition.unsigned_abs() as usize))
        });
        if now >= self.boundary() && !(unanswered == 0 && arrived) {
            bail!("{DRAIN:?} after the window {unanswered} batches were unanswered, all delivered: {arrived}");
        }
        Ok(unanswered == 0 && arrived)
    }

    /// Sends what the schedule says by now.
    fn send_due(&mut self, run: &mut Run) -> Result<()> {
        let Some(schedule) = self.schedule.filter(|_| !self.tally.is_closed()) else { return Ok(()) };
        let (first, now) = (run.due, run.now());
        while schedule.at(run.due) <= now {
            self.producers[(run.due % schedule.producers) as usize].progress.due += 1;
            run.due += 1;
        }
        for number in first..run.due.min(first + schedule.producers) {
            self.send(run, (number % schedule.producers) as usize)?;
        }
        Ok(())
    }

    fn send(&mut self, run: &mut Run, index: usize) -> Result<()> {
        let now = run.now();
        let producer = &mut self.producers[index];
        if producer.send(now, self.schedule.as_ref(), self.journal.as_mut(), &mut self.tally)? {
            run.eager.push(index);
        }
        Ok(())
    }

    /// Waits until a socket can go on, a batch is due or the window changes.
    fn wait(&self, run: &Run, events: &mut Vec<epoll::Event>) -> Result<()> {
        let mut until = self.boundary();
        if let Some(schedule) = self.schedule.filter(|_| !self.tally.is_closed()) {
            until = until.min(schedule.at(run.due));
        }
        if !run.eager.is_empty() {
            until = 0;
        }
        let left = Duration::from_nanos(until.saturating_sub(run.now()));
        let mut timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        if self.schedule.is_some() && !left.is_zero() {
            // epoll's own timeout is in milliseconds.
            let mut poll = [PollFd::new(&run.epoll, PollFlags::IN)];
            match rustix::event::poll(&mut poll, Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
                Ok(_) => timeout = Timespec { tv_sec: 0, tv_nsec: 0 },
                Err(error) => bail!("waiting: {error}"),
            }
        }
        match epoll::wait(&run.epoll, spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => bail!("waiting: {error}"),
        }
    }

    /// A socket has something, or room.
    fn serve(&mut self, run: &mut Run, index: usize) -> Result<()> {
        let now = run.now();
        if let Some(producer) = self.producers.get_mut(index) {
            producer.receive(&mut run.buffer, now, &mut self.tally)?;
            return self.send(run, index);
        }
        let Some(consumer) = self.consumers.get_mut(index - self.producers.len()) else { return Ok(()) };
        while consumer.proceed(&mut run.buffer)? {
            let now = run.now();
            consumer.arrived(now, self.journal.as_ref(), &mut self.tally)?;
            if self.tally.is_closed() && self.journal.is_none() {
                break;
            }
            consumer.fetch(now)?;
            if self.plan.bytes.is_some_and(|bytes| self.tally.bytes() >= bytes) {
                break;
            }
        }
        Ok(())
    }
}
