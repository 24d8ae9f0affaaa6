//! Producers and consumers: what real clients rely on, with everything that makes them retry.
//!
//! A producer is idempotent and keeps up to five batches in flight, with `acks=all` or `acks=1`; what is not answered
//! it sends again, in order, to whoever leads by then. A consumer reads on from where it is, from any replica, and asks
//! now and then where the log ends. What is not here: what is right (`checks.rs`).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ottla_records::{BatchBuilder, BatchHeader, Compression, split};
use ottla_types::{BrokerId, Offset, PartitionIndex, ProducerEpoch, ProducerId, Timestamp, TopicId};

use crate::{
    event::{Event, Place, ProduceAnswer, ProduceOutcome, ProduceRequest, ReadAnswer, ReadRequest},
    truth::Committed,
    world::World,
};

/// How long a producer waits for an answer.
const TIMEOUT_MS: u64 = 5000;
/// Before it tries again.
const RETRY_MS: u64 = 100;

#[derive(Debug)]
struct Pending {
    /// Counts the batches of its producer.
    number: usize,
    sequence: i32,
    records: i32,
    bytes: Bytes,
    crc: u32,
    /// The latest attempt, and when it is given up; none if it is to be sent.
    attempt: Option<(u64, u64)>,
    /// The latest attempt went out when nothing before it was in flight.
    was_oldest: bool,
    not_before: u64,
}

#[derive(Debug)]
pub(crate) struct Producer {
    topic: String,
    index: PartitionIndex,
    all: bool,
    id: ProducerId,
    next_sequence: i32,
    written: usize,
    in_flight: VecDeque<Pending>,
    in_flight_max: usize,
    leader: Option<usize>,
    next_at: u64,
    /// Answered since the faults ended.
    pub(crate) since_healed: u64,
    /// The topic that it last had an answer of.
    topic_id: Option<TopicId>,
    /// Batches below were on their way while the topic was replaced. The new one took any of them for the first, so
    /// that others do not follow.
    mixed_below: usize,
    /// Where the batches are, by their numbers, that are none of these.
    answered: BTreeMap<usize, Offset>,
}

#[derive(Debug)]
pub(crate) struct Consumer {
    topic: String,
    index: PartitionIndex,
    topic_id: Option<TopicId>,
    next: Offset,
}

impl World {
    pub(crate) fn add_clients(&mut self) {
        let topics = self.plan.topics.clone();
        for topic in &topics {
            for index in (0..topic.partitions).map(PartitionIndex) {
                let all = !self.dice.one_in(5);
                let in_flight_max = [1, 3, 5][self.dice.index(3)];
                self.add_producer(&topic.name, index, all, in_flight_max);
                if self.dice.one_in(4) {
                    self.add_producer(&topic.name, index, true, 5);
                }
                let consumer = self.consumers.len();
                let (topic, topic_id) = (topic.name.clone(), None);
                self.consumers.push(Consumer { topic, index, topic_id, next: Offset::ZERO });
                self.after(consumer as u64, None, Event::ConsumerWakes(consumer));
            }
        }
    }

    fn add_producer(&mut self, topic: &str, index: PartitionIndex, all: bool, in_flight_max: usize) {
        let id = ProducerId(i64::try_from(self.id()).unwrap_or(0));
        let producer = self.producers.len();
        self.producers.push(Producer {
            topic: topic.to_owned(),
            index,
            all,
            id,
            next_sequence: 0,
            written: 0,
            in_flight: VecDeque::new(),
            in_flight_max,
            leader: None,
            next_at: 0,
            since_healed: 0,
            topic_id: None,
            mixed_below: 0,
            answered: BTreeMap::new(),
        });
        self.after(producer as u64, None, Event::ProducerWakes(producer));
    }

    /// Whether every producer has written since the faults ended, and waits for nothing.
    pub(crate) fn producers_are_content(&self) -> bool {
        self.producers.iter().all(|producer| producer.since_healed > 0 && producer.in_flight.is_empty())
    }

    pub(crate) fn on_producer_wakes(&mut self, which: usize) {
        let now = self.now;
        let gap = self.dice.between(1, 2 * self.plan.produce_gap_ms);
        // At the end nobody writes, so that everything can come to rest.
        let writes = self.healed_at.is_none_or(|healed| now < healed + 4000 || self.producers[which].since_healed == 0);
        let producer = &self.producers[which];
        // Where nothing is known of a producer any sequence may be its first, so it begins with one alone.
        let most = if producer.answered.is_empty() { 1 } else { producer.in_flight_max };
        // No more than a broker remembers are behind one that has no answer, whatever became of those after it.
        let behind = producer.in_flight.front().map_or(0, |oldest| producer.written - oldest.number);
        if writes && producer.next_at <= now && behind < most {
            self.write(which);
            self.producers[which].next_at = now + gap;
        }
        let expired = |pending: &Pending| pending.attempt.is_some_and(|(_, until)| until <= now);
        let producer = &mut self.producers[which];
        if producer.in_flight.iter().any(expired) {
            producer.leader = None;
            producer.in_flight.iter_mut().filter(|pending| expired(pending)).for_each(|pending| pending.attempt = None);
        }
        self.send_pending(which);
        let pause = self.dice.between(20, 60);
        self.after(pause, None, Event::ProducerWakes(which));
    }

    /// Makes one more batch.
    fn write(&mut self, which: usize) {
        let records = self.dice.between(1, 3);
        let size = self.dice.index(300);
        let now = Timestamp(i64::try_from(self.now).unwrap_or(0) + 1_700_000_000_000);
        let producer = &mut self.producers[which];
        let sequence = producer.next_sequence;
        let mut builder = BatchBuilder::new(Compression::None, None).producer(producer.id, ProducerEpoch(0), sequence);
        for number in 0..records {
            let value = format!("{}/{}/{number}/{}", producer.id, sequence, "v".repeat(size));
            // A few hundred bytes always fit.
            let _ = builder.push(now, None, Some(value.as_bytes()), &[]);
        }
        let Ok(bytes) = builder.build() else { return };
        let Ok(header) = BatchHeader::parse(&bytes) else { return };
        producer.next_sequence += header.record_count;
        producer.written += 1;
        producer.in_flight.push_back(Pending {
            number: producer.written - 1,
            sequence,
            records: header.record_count,
            bytes,
            crc: header.crc,
            attempt: None,
            was_oldest: false,
            not_before: 0,
        });
    }

    fn send_pending(&mut self, which: usize) {
        let now = self.now;
        let waiting = |pending: &Pending| pending.attempt.is_none() && pending.not_before <= now;
        if !self.producers[which].in_flight.iter().any(waiting) {
            return;
        }
        if self.producers[which].leader.is_none() {
            let (topic, index) = (self.producers[which].topic.clone(), self.producers[which].index);
            self.producers[which].leader = self.ask_for_leader(&topic, index);
        }
        let Some(leader) = self.producers[which].leader else { return };
        for number in 0..self.producers[which].in_flight.len() {
            let attempt = self.id();
            let producer = &mut self.producers[which];
            let Some(pending) = producer.in_flight.get_mut(number) else { return };
            if !waiting(pending) {
                // Nothing overtakes what waits for its next try.
                if pending.attempt.is_none() {
                    return;
                }
                continue;
            }
            pending.attempt = Some((attempt, now + TIMEOUT_MS));
            pending.was_oldest = number == 0;
            let request = ProduceRequest {
                producer: which,
                attempt,
                topic: producer.topic.clone(),
                index: producer.index,
                all: producer.all,
                batch: pending.bytes.clone(),
            };
            self.send(None, Some(leader), None, Event::Produce(request));
        }
    }

    /// Who leads, as some broker knows it.
    fn ask_for_leader(&mut self, topic: &str, index: PartitionIndex) -> Option<usize> {
        let asked = self.dice.index(self.brokers.len());
        let broker = &self.brokers[asked];
        if !broker.up || broker.paused_until > self.now {
            return None;
        }
        let leader: BrokerId = broker.image.topic_named(topic)?.partition(index)?.leader?;
        self.index_of(leader)
    }

    pub(crate) fn on_produced(&mut self, answer: ProduceAnswer) {
        let ProduceAnswer { producer: which, attempt, outcome } = answer;
        let now = self.now;
        let producer = &mut self.producers[which];
        let current = |pending: &Pending| pending.attempt.is_some_and(|(latest, _)| latest == attempt);
        let Some(found) = producer.in_flight.iter().position(current) else { return };
        match outcome {
            ProduceOutcome::Done { place, base, end } => {
                let Some(pending) = producer.in_flight.remove(found) else { return };
                if producer.topic_id.replace(place.0).is_some_and(|before| before != place.0) {
                    producer.mixed_below = producer.written;
                    producer.answered.clear();
                }
                if pending.number >= producer.mixed_below {
                    producer.answered.insert(pending.number, base);
                }
                if self.healed_at.is_some() {
                    producer.since_healed += 1;
                }
                let (all, id) = (producer.all, producer.id);
                if i64::from(pending.records) != end.0 - base.0 {
                    self.fail("P1", format!("{id} {} is said to be at {base} to {end}", pending.sequence));
                }
                if all {
                    self.tally.acknowledged += 1;
                    self.check_answered(place, base, pending.crc, (id, pending.sequence));
                }
            }
            ProduceOutcome::Retry => {
                producer.leader = None;
                if let Some(pending) = producer.in_flight.get_mut(found) {
                    pending.attempt = None;
                    pending.not_before = now + RETRY_MS;
                }
            }
            ProduceOutcome::OutOfOrder { place, broker, epoch } => {
                let mixed_below = producer.mixed_below;
                let (oldest, mixed) = producer
                    .in_flight
                    .get(found)
                    .map_or((false, true), |pending| (found == 0 && pending.was_oldest, pending.number < mixed_below));
                producer.leader = None;
                if !oldest {
                    if let Some(pending) = producer.in_flight.get_mut(found) {
                        pending.attempt = None;
                        pending.not_before = now + RETRY_MS;
                    }
                    return;
                }
                let same = producer.all && producer.topic_id == Some(place.0) && !mixed;
                if let Some(pending) = producer.in_flight.get(found).filter(|_| same)
                    && let Some((_, &before)) = producer.answered.range(..pending.number).next_back()
                {
                    let refused = (producer.id, pending.sequence);
                    self.check_out_of_order(place, broker, epoch, before, refused);
                }
                self.begin_anew(which);
            }
        }
    }

    /// What is in flight is given up, and another producer goes on.
    fn begin_anew(&mut self, which: usize) {
        let id = ProducerId(i64::try_from(self.id()).unwrap_or(0));
        let producer = &mut self.producers[which];
        producer.id = id;
        producer.next_sequence = 0;
        producer.answered.clear();
        producer.mixed_below = 0;
        producer.topic_id = None;
        producer.in_flight.clear();
    }

    pub(crate) fn on_consumer_wakes(&mut self, which: usize) {
        let latest = self.dice.one_in(5);
        let (topic, index) = (self.consumers[which].topic.clone(), self.consumers[which].index);
        let to = if latest || self.dice.one_in(2) {
            self.ask_for_leader(&topic, index)
        } else {
            Some(self.dice.index(self.brokers.len()))
        };
        let id = self.image().topic_named(&topic).map(|topic| topic.id);
        let acknowledged = id.map(|id| {
            let truth = self.truths.get(&(id, index));
            (id, truth.map_or(Offset::ZERO, |truth| truth.acknowledged))
        });
        if let Some(to) = to {
            let from = self.consumers[which].next;
            let request = ReadRequest { consumer: which, topic, index, from, latest, acknowledged };
            self.send(None, Some(to), None, Event::Read(request));
        }
        let pause = self.dice.between(50, 300);
        self.after(pause, None, Event::ConsumerWakes(which));
    }

    pub(crate) fn on_read_answered(&mut self, answer: ReadAnswer) {
        let ReadAnswer { consumer: which, place, from, records, restart } = answer;
        let Some(place): Option<Place> = place else { return };
        let consumer = &mut self.consumers[which];
        if consumer.topic_id != Some(place.0) {
            // Another topic of the name.
            consumer.topic_id = Some(place.0);
            consumer.next = Offset::ZERO;
            if from > Offset::ZERO {
                return;
            }
        }
        for batch in split(&records) {
            // The end of an answer may hold the beginning of one more batch.
            let Ok((header, bytes)) = batch else { break };
            self.tally.read += 1;
            self.check_read(place, &Committed::of(&header), &bytes);
            let consumer = &mut self.consumers[which];
            if consumer.next >= header.base_offset && consumer.next < header.next_offset() {
                consumer.next = header.next_offset();
            }
        }
        if let Some(restart) = restart
            && (restart < from || self.dice.one_in(4))
        {
            self.consumers[which].next = restart;
        }
    }
}
