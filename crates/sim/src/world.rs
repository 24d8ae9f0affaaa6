//! The world: the queue of events, the clock that jumps from one to the next, and everything that lives in it.
//!
//! One thread, one dice. An event of a broker comes to nothing if that one is down or another run of it than was meant,
//! and waits while it stands still. After each event what changed is settled: checks (`checks.rs`), answers that were
//! waited for (`serving.rs`). Next: `life.rs` for how a broker lives, `faults.rs` for how it dies.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    fmt,
};

use ottla_metadata::{Image, Record, config::Settings};
use ottla_types::BrokerId;

use crate::{
    broker::Broker,
    clients::{Consumer, Producer},
    controller::Controller,
    event::{Event, Place},
    network::Network,
    plan::{Options, Plan},
    random::Dice,
    report::{Report, Tally, Violation},
    trace::Trace,
    truth::Truth,
};

/// Events of one moment that a simulation may go through: more is a loop that never ends.
const EVENTS_MAX: u64 = 20_000_000;

#[derive(Debug)]
struct Due {
    at: u64,
    sequence: u64,
    /// The broker it belongs to, and which run of it.
    broker: Option<(usize, Option<u32>)>,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) duration_ms: u64,
    pub(crate) dice: Dice,
    /// Milliseconds since the beginning.
    pub(crate) now: u64,
    queue: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    pub(crate) trace: Trace,
    pub(crate) tally: Tally,
    pub(crate) violation: Option<Violation>,
    pub(crate) settings: Settings,
    /// What was agreed on, decision by decision, and the image after each; the first is before all.
    pub(crate) decisions: Vec<Vec<Record>>,
    pub(crate) images: Vec<Image>,
    pub(crate) controller: Controller,
    pub(crate) brokers: Vec<Broker>,
    pub(crate) network: Network,
    pub(crate) truths: BTreeMap<Place, Truth>,
    pub(crate) producers: Vec<Producer>,
    pub(crate) consumers: Vec<Consumer>,
    /// Copies that something happened to.
    pub(crate) dirty: BTreeSet<(usize, Place)>,
    pub(crate) next_id: u64,
    /// When the faults ended.
    pub(crate) healed_at: Option<u64>,
    pub(crate) done: bool,
}

impl World {
    pub(crate) fn new(options: &Options) -> World {
        let mut dice = Dice::new(options.seed);
        let plan = Plan::draw(options, &mut dice);
        let brokers = (1..).take(plan.brokers).map(|id| Broker::new(BrokerId(id), dice.draw(), dice.bytes())).collect();
        let network = Network::new(plan.has(crate::Fault::Hold));
        let mut world = World {
            plan,
            duration_ms: options.duration_ms,
            dice,
            now: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            trace: Trace::new(options.trace),
            tally: Tally::default(),
            violation: None,
            settings: Settings::default(),
            decisions: Vec::new(),
            images: vec![Image::default()],
            controller: Controller::default(),
            brokers,
            network,
            truths: BTreeMap::new(),
            producers: Vec::new(),
            consumers: Vec::new(),
            dirty: BTreeSet::new(),
            next_id: 0,
            healed_at: None,
            done: false,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let plan = self.plan.clone();
        self.note(format_args!("plan {plan:?}"));
        self.bootstrap();
        for broker in 0..self.brokers.len() {
            self.at(0, None, Event::Start(broker));
        }
        self.at(100, None, Event::Caretake);
        self.at(500, None, Event::CreateTopics);
        self.at(self.duration_ms, None, Event::Heal);
        if !self.plan.faults.is_empty() {
            self.at(3000, None, Event::Fault);
        }
    }

    /// Lives until it is done, or something is wrong.
    pub(crate) fn run(&mut self) {
        while !self.done && self.violation.is_none() {
            let Some(Reverse(due)) = self.queue.pop() else {
                self.fail("liveness", "nothing happens any more".to_owned());
                return;
            };
            self.now = due.at;
            self.handle(due);
            self.settle();
            self.tally.events += 1;
            if self.tally.events > EVENTS_MAX {
                self.fail("liveness", "too much happens".to_owned());
            }
        }
    }

    fn handle(&mut self, due: Due) {
        if let Some((broker, life)) = due.broker {
            let broker = &self.brokers[broker];
            if !broker.up || life.is_some_and(|life| life != broker.life) {
                return;
            }
            if broker.paused_until > self.now {
                let at = broker.paused_until;
                self.push(at, due.broker, due.event);
                return;
            }
        }
        self.trace.fold(due.at << 16 | due.event.kind() << 8 | due.broker.map_or(255, |(broker, _)| broker as u64));
        let at = due.broker.map_or(0, |(broker, _)| broker);
        match due.event {
            Event::Fault => self.on_fault(),
            Event::Caretake => self.on_caretake(),
            Event::Heal => self.on_heal(),
            Event::Look => self.on_look(),
            Event::CreateTopics => self.on_create_topics(),
            Event::Start(broker) => self.on_start(broker),
            Event::Tick => self.on_tick(at),
            Event::Metadata => self.on_metadata(at),
            Event::SyncBegins(place) => self.on_sync_begins(at, place),
            Event::SyncRuns(place) => self.on_sync_runs(at, place),
            Event::SyncEnds(place) => self.on_sync_ends(at, place),
            Event::FetchRound { leader, generation } => self.on_fetch_round(at, leader, generation),
            Event::FetchArrives(fetch) => self.on_fetch_arrives(at, fetch),
            Event::FetchExpires(id) => self.on_fetch_expires(at, id),
            Event::FetchAnswered(answer) => self.on_fetch_answered(at, answer),
            Event::Ask(question) => self.on_ask(at, question),
            Event::Told(answer) => self.on_told(at, answer),
            Event::ProducerWakes(producer) => self.on_producer_wakes(producer),
            Event::Produce(request) => self.on_produce(at, request),
            Event::Produced(answer) => self.on_produced(answer),
            Event::ConsumerWakes(consumer) => self.on_consumer_wakes(consumer),
            Event::Read(request) => self.on_read(at, request),
            Event::ReadAnswered(answer) => self.on_read_answered(answer),
        }
    }

    /// Looks at every copy that something happened to, until nothing more follows.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let Some((broker, place)) = self.dirty.pop_first() else { return };
            if self.violation.is_some() {
                return;
            }
            self.check_copy(broker, place);
            self.answer_parked(broker, place);
            self.answer_fetches(broker, place);
        }
        self.fail("liveness", "settling never ends".to_owned());
    }

    fn push(&mut self, at: u64, broker: Option<(usize, Option<u32>)>, event: Event) {
        self.sequence += 1;
        let due = Due { at: at.max(self.now), sequence: self.sequence, broker, event };
        self.queue.push(Reverse(due));
    }

    /// Something will happen in so many milliseconds.
    pub(crate) fn after(&mut self, delay: u64, broker: Option<(usize, Option<u32>)>, event: Event) {
        self.push(self.now + delay, broker, event);
    }

    /// Something will happen then.
    fn at(&mut self, at: u64, broker: Option<(usize, Option<u32>)>, event: Event) {
        self.push(at, broker, event);
    }

    /// Something will happen to this run of a broker in so many milliseconds.
    pub(crate) fn later(&mut self, broker: usize, delay: u64, event: Event) {
        let life = self.brokers[broker].life;
        self.after(delay, Some((broker, Some(life))), event);
    }

    /// Sends a message; `life` if only that run of the receiver can make anything of it.
    pub(crate) fn send(&mut self, from: Option<usize>, to: Option<usize>, life: Option<u32>, event: Event) {
        let delay = self.network.delay(from, to, self.now, &mut self.dice);
        if let Some(delay) = delay {
            self.after(delay, to.map(|to| (to, life)), event);
        }
    }

    pub(crate) fn touch(&mut self, broker: usize, place: Place) {
        self.dirty.insert((broker, place));
    }

    pub(crate) fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.line(self.now, what);
    }

    /// Something that must never be.
    pub(crate) fn fail(&mut self, rule: &'static str, what: String) {
        if self.violation.is_none() {
            self.note(format_args!("VIOLATION {rule}: {what}"));
            self.violation = Some(Violation { rule, what });
        }
    }

    /// What the cluster has agreed on.
    pub(crate) fn image(&self) -> &Image {
        // There is one before all decisions.
        &self.images[self.images.len() - 1]
    }

    pub(crate) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn index_of(&self, id: BrokerId) -> Option<usize> {
        self.brokers.iter().position(|broker| broker.id == id)
    }

    pub(crate) fn into_report(self, seed: u64) -> Report {
        Report {
            seed,
            hash: self.trace.hash(),
            virtual_ms: self.now,
            tally: self.tally,
            violation: self.violation,
            lines: self.trace.into_lines(),
        }
    }
}
