//! The batches of one partition on their way to the broker: filled, sent, sent again, in order.
//!
//! No I/O. A batch is sealed, and given its sequence number, when it is first taken to be sent. After a failure that
//! may pass, nothing more is sent until all that is under way has come back, so that what is put back goes out in its
//! old order. Not here: who sends (`producer.rs`).

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use ottla_protocol::ErrorCode;
use ottla_records::{BatchBuilder, BatchError, BatchHeader, Decompress, records};
use ottla_types::{Offset, ProducerEpoch, ProducerId, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::{Error, NewRecord, ProducerConfig};

/// What a batch of our own may have when it is decompressed to be sealed anew, in bytes.
const REOPENED_MAX: usize = 1 << 30;

/// An idempotent producer's id, as it was at the first batch of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
}

/// Where a batch was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: Option<Offset>,
    pub(crate) append_time: Option<Timestamp>,
}

/// How it ended for a batch.
pub(crate) type Outcome = Result<Appended, Error>;

/// Records that travel together.
#[derive(Debug)]
pub(crate) struct Batch {
    content: Content,
    records: i64,
    begun: Instant,
    /// Orders the batches of a partition.
    number: u64,
    outcome: watch::Sender<Option<Outcome>>,
    /// The buffer's bytes that the records take.
    room: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Content {
    Open(Box<BatchBuilder>),
    /// With the identity it is sealed under, if the producer is idempotent.
    Sealed {
        bytes: Bytes,
        identity: Option<Identity>,
    },
}

impl Batch {
    /// The sealed bytes; none while records can still be added.
    pub(crate) fn bytes(&self) -> Bytes {
        match &self.content {
            Content::Open(_) => Bytes::new(),
            Content::Sealed { bytes, .. } => bytes.clone(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.content {
            Content::Open(builder) => builder.size(),
            Content::Sealed { bytes, .. } => bytes.len(),
        }
    }

    pub(crate) fn finish(self, outcome: Outcome) {
        self.outcome.send_replace(Some(outcome));
    }
}

/// What came of taking a record in.
pub(crate) struct Taken {
    /// The record's place in its batch.
    pub(crate) index: i64,
    pub(crate) outcome: watch::Receiver<Option<Outcome>>,
    /// A batch began with it.
    pub(crate) begun: bool,
    /// A batch is full.
    pub(crate) filled: bool,
}

/// What to do with a batch that came back.
pub(crate) enum Verdict {
    /// It is over for the batch.
    Finished(Batch, Outcome),
    /// It was put back.
    Again,
}

/// The batches of one partition that are not under way.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// By ascending number; the last may be open.
    waiting: VecDeque<Batch>,
    /// The numbers of the batches under way, ascending.
    in_flight: Vec<u64>,
    next_number: u64,
    /// The identity the partition's sequence belongs to, and the next number of the sequence.
    sequence: Option<(Identity, i32)>,
    /// A batch of this sequence is known to be stored. Until then one is under way at a time: a broker that knows
    /// nothing of a producer takes any sequence number for its first, and would refuse the ones before it for ever.
    begun: bool,
    /// The sequence has a gap: start over under another identity.
    broken: bool,
    /// A batch was put back: send nothing until what is under way has come back.
    draining: bool,
    paused_until: Option<Instant>,
}

impl Queue {
    /// Adds a record to the open batch or a new one.
    pub(crate) fn push(
        &mut self,
        config: &ProducerConfig,
        record: NewRecord,
        room: OwnedSemaphorePermit,
    ) -> Result<Taken, BatchError> {
        let timestamp = record.timestamp.unwrap_or_else(now);
        let headers: Vec<_> = record.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let size = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        let mut filled = false;
        if let Some(batch) = self.waiting.back_mut()
            && let Content::Open(builder) = &mut batch.content
        {
            if builder.size() + size <= config.batch_bytes && builder.push(timestamp, key, value, &headers).is_ok() {
                batch.records += 1;
                batch.room.merge(room);
                let filled = builder.size() >= config.batch_bytes;
                let (index, outcome) = (batch.records - 1, batch.outcome.subscribe());
                return Ok(Taken { index, outcome, begun: false, filled });
            }
            filled = true;
        }
        let mut builder = BatchBuilder::new(config.compression, config.compression_level);
        builder.push(timestamp, key, value, &headers)?;
        filled |= builder.size() >= config.batch_bytes;
        let (outcome, receiver) = watch::channel(None);
        let (number, begun) = (self.next_number, Instant::now());
        self.next_number += 1;
        self.waiting.push_back(Batch {
            content: Content::Open(Box::new(builder)),
            records: 1,
            begun,
            number,
            outcome,
            room,
        });
        Ok(Taken { index: 0, outcome: receiver, begun: true, filled })
    }

    /// When the first waiting batch may be sent; `None` if that depends on something else than time.
    pub(crate) fn ready_at(
        &self,
        config: &ProducerConfig,
        now: Instant,
        flushing: bool,
        in_flight_max: usize,
    ) -> Option<Instant> {
        let first = self.waiting.front()?;
        let drain = self.draining || self.broken || (self.sequence.is_some() && !self.begun);
        if self.in_flight.len() >= in_flight_max || (drain && !self.in_flight.is_empty()) {
            return None;
        }
        let full = match &first.content {
            Content::Open(builder) => self.waiting.len() > 1 || builder.size() >= config.batch_bytes,
            Content::Sealed { .. } => true,
        };
        let ready = if full || flushing { now } else { first.begun + config.linger };
        Some(self.paused_until.map_or(ready, |until| until.max(ready)))
    }

    pub(crate) fn pause_until(&mut self, until: Instant) {
        self.paused_until = Some(until);
    }

    /// Takes out the first batch if it is too old to be tried again.
    pub(crate) fn expire(&mut self, config: &ProducerConfig, now: Instant) -> Option<Batch> {
        let late = self.waiting.front().is_some_and(|batch| now >= batch.begun + config.delivery_timeout);
        if !late || !self.in_flight.is_empty() {
            return None;
        }
        let batch = self.waiting.pop_front()?;
        // Whether it arrived is unknown, so its sequence numbers cannot be used again.
        self.broken |= matches!(batch.content, Content::Sealed { identity: Some(_), .. });
        Some(batch)
    }

    /// Seals the first batch, if that is not done yet, and takes it out to be sent. `None` if there is nothing to
    /// send, or the partition waits for a new identity.
    pub(crate) fn take(&mut self, identity: Option<Identity>) -> Option<Result<Batch, (Batch, BatchError)>> {
        if self.broken {
            if identity == self.sequence.map(|(identity, _)| identity) {
                return None;
            }
            (self.broken, self.begun, self.sequence) = (false, false, None);
        }
        let mut batch = self.waiting.pop_front()?;
        let (identity, sequence) = match (self.sequence, identity) {
            (Some((identity, sequence)), _) => (Some(identity), sequence),
            (None, identity) => (identity, 0),
        };
        let unsealed = match &mut batch.content {
            Content::Sealed { identity: sealed, .. } if *sealed == identity => None,
            Content::Sealed { bytes, .. } => match reopen(bytes) {
                Ok(builder) => Some(builder),
                Err(error) => return Some(Err((batch, error))),
            },
            Content::Open(builder) => {
                Some(std::mem::replace(&mut **builder, BatchBuilder::new(Default::default(), None)))
            }
        };
        if let Some(mut builder) = unsealed {
            if let Some(Identity { id, epoch }) = identity {
                builder = builder.producer(id, epoch, sequence);
            }
            match builder.build() {
                Ok(bytes) => batch.content = Content::Sealed { bytes, identity },
                Err(error) => return Some(Err((batch, error))),
            }
            // Wraps from 2^31 - 1 to 0.
            let next = (i64::from(sequence) + batch.records) & i64::from(i32::MAX);
            self.sequence = identity.map(|identity| (identity, i32::try_from(next).unwrap_or(0)));
        }
        self.in_flight.push(batch.number);
        Some(Ok(batch))
    }

    /// Puts back a batch that was taken and not sent.
    pub(crate) fn put_back(&mut self, batch: Batch) {
        self.in_flight.retain(|&number| number != batch.number);
        let place = self.waiting.partition_point(|waiting| waiting.number < batch.number);
        self.waiting.insert(place, batch);
    }

    /// Judges a batch that came back.
    pub(crate) fn settle(
        &mut self,
        config: &ProducerConfig,
        batch: Batch,
        outcome: Outcome,
        now: Instant,
        pause: Duration,
    ) -> Verdict {
        self.in_flight.retain(|&number| number != batch.number);
        let first = self.in_flight.first().is_none_or(|&number| number > batch.number)
            && self.waiting.front().is_none_or(|waiting| waiting.number > batch.number);
        let idempotent = matches!(batch.content, Content::Sealed { identity: Some(_), .. });
        let verdict = match outcome {
            Ok(appended) => {
                self.begun = true;
                Verdict::Finished(batch, Ok(appended))
            }
            // It was stored before, and the broker no longer knows where.
            Err(error) if error.code() == Some(ErrorCode::DuplicateSequenceNumber) => {
                Verdict::Finished(batch, Ok(Appended::default()))
            }
            Err(error) => {
                // A batch behind one that failed is out of order for that reason alone.
                let followed_failure =
                    idempotent && error.code() == Some(ErrorCode::OutOfOrderSequenceNumber) && (self.broken || !first);
                let late = now + pause >= batch.begun + config.delivery_timeout;
                if (followed_failure || error.is_retriable()) && !late {
                    self.put_back(batch);
                    self.draining = true;
                    self.paused_until = Some(now + pause);
                    Verdict::Again
                } else {
                    // The sequence numbers after it have no predecessor.
                    self.broken |= idempotent;
                    Verdict::Finished(batch, Err(error))
                }
            }
        };
        self.draining &= !self.in_flight.is_empty();
        verdict
    }
}

/// The records of a sealed batch in a builder again, to be sent under another identity.
fn reopen(batch: &Bytes) -> Result<BatchBuilder, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let mut builder = BatchBuilder::new(header.compression()?, None);
    for record in records(&header, batch, Decompress { max_bytes: REOPENED_MAX })? {
        let record = record?;
        let headers: Vec<_> = record.headers.iter().map(|pair| (&pair.key[..], pair.value.as_deref())).collect();
        builder.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers)?;
    }
    Ok(builder)
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
