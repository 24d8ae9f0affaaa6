//! One producing connection: keeps up to a depth of batches in flight.
//!
//! Not here: when a batch is due, and when to listen (`engine.rs`).

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};

use super::client;
use super::frame::{Batch, ProduceFrame, ProducedAt};
use super::schedule::{Journal, Schedule};
use super::socket::Socket;
use super::tally::Tally;

/// Most frames in one write.
const SLICES_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Producer {
    pub(super) socket: Socket,
    /// Its place among the producers.
    pub(super) index: u64,
    pub(super) partitions: Vec<Own>,
    /// Id and epoch, where it is idempotent.
    pub(super) id: Option<(i64, i16)>,
    /// With `acks=0` a batch is over once the kernel has it.
    pub(super) answered_by_broker: bool,
    pub(super) batch: Batch,
    pub(super) produced_at: ProducedAt,
    /// One for each batch in flight, used in turn.
    pub(super) frames: Vec<ProduceFrame>,
    pub(super) progress: Progress,
    /// An answer of which only a part has arrived.
    pub(super) partial: Vec<u8>,
}

/// A partition that the producer writes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) partition: i32,
    pub(super) sequence: i32,
}

/// How many batches have come how far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// May be sent by now.
    pub(super) due: u64,
    /// Have a frame.
    sent: u64,
    /// Are in the kernel.
    written: u64,
    /// Bytes of the frame behind those.
    part: usize,
    over: u64,
    /// When the batch of each frame was meant to be sent.
    intended: Vec<u64>,
}

impl Producer {
    /// Nothing more is due than what has been sent.
    pub(super) fn stop(&mut self) {
        self.progress.due = self.progress.sent;
    }

    /// Batches that are due and not over.
    pub(super) fn open(&self) -> u64 {
        self.progress.due - self.progress.over
    }

    /// Sends what is due and fits the depth. True if more could be sent at once, which only `acks=0` allows.
    pub(super) fn send(
        &mut self,
        now: u64,
        schedule: Option<&Schedule>,
        mut journal: Option<&mut Journal>,
        tally: &mut Tally,
    ) -> Result<bool> {
        let depth = self.frames.len() as u64;
        while self.progress.sent < self.progress.due && self.progress.sent - self.progress.over < depth {
            let intended = schedule.map_or(now, |it| it.of(self.index, self.progress.sent));
            let partition = self.prepare(intended);
            if let Some(journal) = journal.as_deref_mut() {
                journal.sent(partition, intended);
            }
        }
        self.flush()?;
        if self.answered_by_broker {
            return Ok(false);
        }
        let over = self.progress.over;
        while self.progress.over < self.progress.written {
            self.over(now, tally);
        }
        Ok(self.progress.over > over && self.progress.sent < self.progress.due)
    }

    /// Patches the next frame; returns its partition.
    fn prepare(&mut self, intended: u64) -> usize {
        let number = self.progress.sent;
        let slot = self.slot(number);
        let turn = (number % self.partitions.len() as u64) as usize;
        let own = &mut self.partitions[turn];
        let frame = &mut self.frames[slot];
        frame.address(correlation(number), own.partition);
        if let Some(id) = self.id {
            frame.number(id, own.sequence);
            own.sequence = own.sequence.wrapping_add(self.batch.records.cast_signed()) & i32::MAX;
        }
        self.progress.intended.resize(self.frames.len(), 0);
        self.progress.intended[slot] = intended;
        self.progress.sent += 1;
        own.partition.unsigned_abs() as usize
    }

    fn slot(&self, number: u64) -> usize {
        (number % self.frames.len() as u64) as usize
    }

    /// Writes until all frames are in the kernel or it has no room.
    fn flush(&mut self) -> Result<()> {
        while self.progress.written < self.progress.sent {
            let waiting = self.progress.written..self.progress.sent;
            let mut slices = Vec::with_capacity(SLICES_MAX.min(self.frames.len()));
            for number in waiting.take(SLICES_MAX) {
                let skip = if slices.is_empty() { self.progress.part } else { 0 };
                slices.push(IoSlice::new(&self.frames[self.slot(number)].bytes()[skip..]));
            }
            let mut sent = self.socket.send(&slices)?;
            if sent == 0 {
                break;
            }
            sent += self.progress.part;
            let frame = self.frames[0].bytes().len();
            self.progress.written += (sent / frame) as u64;
            self.progress.part = sent % frame;
        }
        Ok(())
    }

    /// Reads the answers that have arrived.
    pub(super) fn receive(&mut self, buffer: &mut [u8], now: u64, tally: &mut Tally) -> Result<()> {
        loop {
            let received = self.socket.receive(buffer)?;
            let rest = if self.partial.is_empty() {
                self.answers(&buffer[..received], now, tally)?.to_vec()
            } else {
                let mut all = std::mem::take(&mut self.partial);
                all.extend_from_slice(&buffer[..received]);
                self.answers(&all, now, tally)?.to_vec()
            };
            self.partial = rest;
            if received < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Reads whole answers; returns what lies behind them.
    fn answers<'a>(&mut self, mut bytes: &'a [u8], now: u64, tally: &mut Tally) -> Result<&'a [u8]> {
        while let Some((length, rest)) = bytes.split_first_chunk() {
            let length = usize::try_from(i32::from_be_bytes(*length))?;
            let Some((answer, rest)) = rest.split_at_checked(length) else { break };
            let produced = self.produced_at.read(answer).context("a Produce was answered in too few bytes")?;
            if produced.correlation != correlation(self.progress.over) {
                bail!("answer {} came for {}", produced.correlation, correlation(self.progress.over));
            }
            if produced.error == 0 {
                self.over(now, tally);
            } else {
                tally.failed(|| format!("Produce: {}", client::name(produced.error)));
                self.progress.over += 1;
            }
            bytes = rest;
        }
        Ok(bytes)
    }

    fn over(&mut self, now: u64, tally: &mut Tally) {
        let intended = self.progress.intended[self.slot(self.progress.over)];
        self.progress.over += 1;
        tally.produced(intended, now, &self.batch);
    }
}

impl AsFd for Producer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn correlation(number: u64) -> i32 {
    (number & 0x7fff_ffff) as i32
}
