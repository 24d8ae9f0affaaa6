//! A broker and its clients: Produce, reads from leaders and followers, ListOffsets.
//!
//! As the node does it: an append is acknowledged under `acks=all` when the high watermark passes it and the broker
//! still leads in the epoch it appended in; nobody reads at or past the high watermark. Next: `clients.rs` for who
//! asks.

use bytes::Bytes;
use ottla_log::{AppendError, ReadError};
use ottla_records::{BatchHeader, ProducedBatch};
use ottla_replica::{Outcome, Role, SequenceRefusal};
use ottla_types::Offset;

use crate::{
    broker::{Parked, State},
    event::{Event, Place, ProduceAnswer, ProduceOutcome, ProduceRequest, ReadAnswer, ReadRequest},
    world::World,
};

/// How long a producer's request waits for its batch to be committed.
const REQUEST_TIMEOUT_MS: u64 = 4000;
/// The most bytes of one read.
const READ_BYTES: u64 = 2000;

impl World {
    fn answer_producer(&mut self, at: usize, producer: usize, attempt: u64, outcome: ProduceOutcome) {
        let answer = ProduceAnswer { producer, attempt, outcome };
        self.send(Some(at), None, None, Event::Produced(answer));
    }

    pub(crate) fn on_produce(&mut self, at: usize, request: ProduceRequest) {
        let ProduceRequest { producer, attempt, topic, index, all, batch } = request;
        let outcome = self.append(at, producer, attempt, &topic, index, all, batch);
        if let Some(outcome) = outcome {
            self.answer_producer(at, producer, attempt, outcome);
        }
    }

    /// Appends a batch; the answer, if there is one at once.
    #[allow(clippy::too_many_arguments, reason = "the parts of one request")]
    fn append(
        &mut self,
        at: usize,
        producer: usize,
        attempt: u64,
        topic: &str,
        index: ottla_types::PartitionIndex,
        all: bool,
        batch: Bytes,
    ) -> Option<ProduceOutcome> {
        let retry = Some(ProduceOutcome::Retry);
        let broker = &self.brokers[at];
        let Some(place) = broker.place(topic, index).filter(|_| broker.serves()) else { return retry };
        let (epoch, leads) = broker.copies.get(&place)?.leadership(broker.id);
        if !leads || !self.open(at, place) {
            return retry;
        }
        let now = self.brokers[at].wall_clock(self.now);
        let until = self.now + REQUEST_TIMEOUT_MS;
        let Some(copy) = self.brokers[at].copies.get_mut(&place) else { return retry };
        let fsync = copy.is_fsync();
        let State::Open(replica) = &mut copy.state else { return retry };
        if all && replica.check_min_isr().is_err() {
            self.tally.mark("not enough replicas");
            return retry;
        }
        let Ok(header) = BatchHeader::parse(&batch) else { return retry };
        let mut outcomes = Vec::with_capacity(1);
        replica.append(&[ProducedBatch { header, bytes: batch }], now, &mut outcomes);
        let outcome = outcomes.pop()?;
        self.touch(at, place);
        let (base, end, appended) = match outcome {
            Outcome::Appended { base_offset, required } => (base_offset, required, true),
            Outcome::Duplicate { base_offset, required, .. } => (base_offset, required, false),
            Outcome::Refused(refusal @ SequenceRefusal::OutOfOrder { .. }) => {
                self.tally.mark("out of order");
                let id = self.brokers[at].id;
                self.note(format_args!("{id} refuses in {}-{}: {refusal}", place.0, place.1));
                return Some(ProduceOutcome::OutOfOrder { place, broker: at, epoch });
            }
            Outcome::Failed(AppendError::Failed(_)) => {
                self.disk_fails(at);
                return retry;
            }
            Outcome::Refused(SequenceRefusal::StaleEpoch { .. }) | Outcome::Failed(_) => return retry,
        };
        if !appended {
            self.tally.mark("duplicate answered");
        } else if fsync {
            self.request_sync(at, place);
        }
        let id = self.brokers[at].id;
        self.trace.line(
            self.now,
            format_args!(
                "{id} has {}/{} at {base} of {}-{}, epoch {epoch}{}",
                header.producer_id,
                header.base_sequence,
                place.0,
                place.1,
                if appended { "" } else { ", had it before" }
            ),
        );
        if !all {
            return Some(ProduceOutcome::Done { place, base, end });
        }
        let parked = Parked { producer, attempt, base, end, epoch, until };
        self.brokers[at].copies.get_mut(&place)?.parked.push(parked);
        None
    }

    /// Answers the producers whose batches are committed, and those that wait in vain.
    pub(crate) fn answer_parked(&mut self, at: usize, place: Place) {
        let (now, id) = (self.now, self.brokers[at].id);
        let Some(copy) = self.brokers[at].copies.get_mut(&place).filter(|copy| !copy.parked.is_empty()) else {
            return;
        };
        let high_watermark = copy.replica().map_or(Offset(-1), |replica| replica.high_watermark().offset);
        let leadership = copy.leadership(id);
        let ready = |parked: &mut Parked| {
            leadership != (parked.epoch, true) || high_watermark >= parked.end || parked.until <= now
        };
        let answered: Vec<Parked> = copy.parked.extract_if(.., ready).collect();
        for Parked { producer, attempt, base, end, epoch, .. } in answered {
            let done = leadership == (epoch, true) && high_watermark >= end;
            let outcome = match done {
                true => ProduceOutcome::Done { place, base, end },
                false => ProduceOutcome::Retry,
            };
            if done {
                self.check_acknowledged(at, place, base, end);
            }
            self.answer_producer(at, producer, attempt, outcome);
        }
    }

    pub(crate) fn on_read(&mut self, at: usize, request: ReadRequest) {
        let (consumer, from) = (request.consumer, request.from);
        let (place, records, restart) = match self.read(at, &request) {
            Some((place, Ok(records))) => (Some(place), records, None),
            Some((place, Err(restart))) => (Some(place), Bytes::new(), Some(restart)),
            None => (None, Bytes::new(), None),
        };
        let answer = ReadAnswer { consumer, place, from, records, restart };
        self.send(Some(at), None, None, Event::ReadAnswered(answer));
    }

    /// The records from an offset on, or where else to begin.
    fn read(&mut self, at: usize, request: &ReadRequest) -> Option<(Place, Result<Bytes, Offset>)> {
        let broker = &self.brokers[at];
        let place = broker.place(&request.topic, request.index).filter(|_| broker.serves())?;
        if !self.open(at, place) {
            return None;
        }
        let copy = self.brokers[at].copies.get(&place)?;
        copy.assignment.as_ref()?;
        let replica = copy.replica()?;
        if request.latest {
            let leads = copy.leadership(self.brokers[at].id).1 && replica.role() == Role::Leader;
            let (known, latest) = (replica.latest_known(), replica.high_watermark().offset);
            if leads && !known {
                self.tally.mark("latest not yet known");
            }
            if leads && known {
                self.check_latest(at, place, latest, request.acknowledged);
                return Some((place, Err(latest)));
            }
            return None;
        }
        let visible = replica.high_watermark();
        let reader = replica.log().reader();
        let (start, end) = (reader.start_offset(), reader.end_offset());
        if request.from < start {
            return Some((place, Err(start)));
        }
        if request.from > visible.offset {
            // A follower may lag; past the end there is nothing at all.
            return (request.from > end).then_some((place, Err(visible.offset)));
        }
        match reader.read(request.from, visible, READ_BYTES, true).map(|plan| plan.read()) {
            Ok(Ok(records)) => Some((place, Ok(records))),
            Err(ReadError::OutOfRange { start, .. }) => Some((place, Err(start))),
            Ok(Err(_)) | Err(ReadError::Io(_) | ReadError::Damaged { .. }) => None,
        }
    }
}
