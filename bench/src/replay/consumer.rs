//! One fetching connection: always one fetch in flight, and of what comes only the headers are looked at.
//!
//! It asks without a session (epoch -1), for all of its partitions each time: both brokers then do the same work, and a
//! reader of one or a few partitions gains nothing by a session. All batches of a topic must be of one size, as the
//! replay writes them; that tells how many lie behind the first without looking at them, and each next fetch proves it.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};

use super::answer::{Answer, Part};
use super::client;
use super::frame::FetchFrame;
use super::schedule::Journal;
use super::socket::Socket;
use super::tally::Tally;

/// Bytes to receive where something has to be looked at: the fields in front of a partition's records and a little.
const LOOK: usize = 512;

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) socket: Socket,
    pub(super) frame: FetchFrame,
    pub(super) positions: Vec<Position>,
    /// Whether to begin again at the end.
    pub(super) again: bool,
    pub(super) answer: Answer,
    pub(super) correlation: i32,
    /// Bytes of the request that are in the kernel.
    pub(super) sent: usize,
    pub(super) sent_at: u64,
    /// Size and records of the topic's batches, once one was seen.
    pub(super) batch: Option<(usize, i64)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) partition: i32,
    pub(super) offset: i64,
}

impl Consumer {
    /// Begins the next fetch. Who is first in it moves on each time: the first are served before the limit is reached.
    pub(super) fn fetch(&mut self, now: u64) -> Result<()> {
        self.answer.clear();
        self.correlation = self.correlation.wrapping_add(1);
        self.frame.set_correlation(self.correlation);
        if self.correlation > 1 {
            self.positions.rotate_left(1);
        }
        for (slot, position) in self.positions.iter().enumerate() {
            self.frame.set_slot(slot, position.partition, position.offset);
        }
        (self.sent, self.sent_at) = (0, now);
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        while self.sent < self.frame.bytes().len() {
            match self.socket.send(&[IoSlice::new(&self.frame.bytes()[self.sent..])])? {
                0 => break,
                sent => self.sent += sent,
            }
        }
        Ok(())
    }

    /// Goes on with the fetch; true if its answer is complete.
    pub(super) fn proceed(&mut self, buffer: &mut [u8]) -> Result<bool> {
        self.flush()?;
        loop {
            let received = match self.answer.droppable() {
                0 => {
                    let received = self.socket.receive(&mut buffer[..LOOK])?;
                    self.answer.take(&buffer[..received])?;
                    received
                }
                most => {
                    let most = most.min(buffer.len());
                    let received = self.socket.discard(&mut buffer[..most])?;
                    self.answer.dropped(received);
                    received
                }
            };
            if self.answer.is_complete() {
                return Ok(true);
            }
            if received == 0 {
                return Ok(false);
            }
        }
    }

    /// Counts a complete answer and moves on by it.
    pub(super) fn arrived(&mut self, now: u64, journal: Option<&Journal>, tally: &mut Tally) -> Result<()> {
        if self.answer.correlation != self.correlation {
            bail!("answer {} came for {}", self.answer.correlation, self.correlation);
        }
        if self.answer.error != 0 {
            bail!("Fetch: {}", client::name(self.answer.error));
        }
        let (mut records, mut bytes) = (0, 0);
        for at in 0..self.answer.parts.len() {
            let part = self.answer.parts[at].clone();
            if part.error != 0 {
                bail!("Fetch of partition {}: {}", part.partition, client::name(part.error));
            }
            records += self.moved(at, &part, now, journal, tally)?;
            bytes += part.bytes as u64;
        }
        if journal.is_none() {
            tally.latency(self.sent_at, now, 1);
        }
        tally.count(1, records, bytes, bytes);
        Ok(())
    }

    /// Moves the position of a partition; returns how many records that were.
    fn moved(&mut self, at: usize, part: &Part, now: u64, journal: Option<&Journal>, tally: &mut Tally) -> Result<u64> {
        // Brokers answer in the order of the request.
        let position = self.positions.get_mut(at).filter(|it| it.partition == part.partition);
        let position = position.with_context(|| format!("partition {} was not asked for here", part.partition))?;
        let from = position.offset;
        if let Some(first) = &part.first {
            let seen = (first.size(), i64::from(first.last_offset_delta) + 1);
            let (size, records) = *self.batch.get_or_insert(seen);
            if first.base_offset.0 != from || seen != (size, records) {
                bail!("at offset {from} of partition {} there is not a batch as before: {first:?}", part.partition);
            }
            let batches = (part.bytes / size) as i64;
            if batches == 0 {
                bail!("a batch of {size} bytes doesn't fit into a fetch");
            }
            position.offset += batches * records;
            if let Some(journal) = journal {
                for offset in (from..position.offset).step_by(records as usize) {
                    let intended = journal.intended(part.partition.unsigned_abs() as usize, offset);
                    let intended = intended.with_context(|| format!("offset {offset} is not of this replay"))?;
                    tally.latency(intended, now, records as u64);
                }
            }
        }
        let moved = (position.offset - from) as u64;
        if self.again && position.offset >= part.high_watermark {
            position.offset = part.log_start;
        }
        Ok(moved)
    }
}

impl AsFd for Consumer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
