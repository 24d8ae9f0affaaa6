//! How a broker lives: it starts, registers, reports, hears what was agreed on, ticks, syncs, stops, and dies.
//!
//! What is not here: what it does for followers and clients (`following.rs`, `serving.rs`), and who makes it die
//! (`faults.rs`).

use std::collections::BTreeSet;

use ottla_metadata::{
    BrokerRegistration, CleanEnd, Command, DamagedCopy, Image, Record,
    config::{Durability, TopicConfig},
};
use ottla_replica::{CommittedIsr, Effect, Event as ReplicaEvent, IsrRefusal, Role};
use ottla_types::{Tick, TopicId};

use crate::{
    broker::{Damage, Opened, Proposals, State},
    event::{Answer, Ask, Event, Place, Question},
    world::World,
};

const TICK_MS: u64 = 100;
/// `broker.heartbeat.interval.ms`
const HEARTBEAT_MS: u64 = 500;
/// How long a proposal waits for its answer.
const PROPOSAL_MS: u64 = 1000;

impl World {
    pub(crate) fn on_start(&mut self, at: usize) {
        if self.brokers[at].up {
            if !self.brokers[at].failed {
                return;
            }
            // The disk was looked at, and the machine starts again.
            self.crash(at, true);
        }
        let incarnation = self.dice.bytes();
        let applied = self.brokers[at].applied;
        let snapshot = self.dice.index(applied + 1);
        let image = self.restored(snapshot, applied);
        if image.as_ref() != Some(&self.images[applied]) {
            self.fail("M5", format!("a snapshot at {snapshot} and what follows give another image at {applied}"));
        }
        let broker = &mut self.brokers[at];
        broker.image = image.unwrap_or_default();
        broker.incarnation = incarnation;
        broker.life += 1;
        (broker.up, broker.failed, broker.registered) = (true, false, false);
        broker.ended = std::mem::take(&mut broker.proof);
        broker.last_run = broker.stored.clone();
        broker.heartbeat_at = self.now;
        let id = broker.id;
        let topics: Vec<TopicId> = broker.image.topics().map(|topic| topic.id).collect();
        for topic in topics {
            // Nothing is believed of it before the broker is registered, so nothing comes of it.
            self.brokers[at].take_topic(topic, &self.settings, self.now, &mut Vec::new());
        }
        self.note(format_args!("{id} starts, metadata {applied}"));
        self.later(at, 0, Event::Tick);
    }

    /// The image after so many decisions, from a snapshot and what came after it, by way of their bytes.
    fn restored(&self, snapshot: usize, applied: usize) -> Option<Image> {
        let mut image = Image::default();
        let records = self.images[snapshot].to_records();
        for record in records.iter().chain(self.decisions[snapshot..applied].iter().flatten()) {
            image.apply(&Record::decode(&record.encode()).ok()?);
        }
        Some(image)
    }

    /// A broker ends without a word; `power` takes what its disk had not synced.
    pub(crate) fn crash(&mut self, at: usize, power: bool) {
        let back = if self.dice.one_in(2) { self.dice.index(3) } else { 0 };
        let broker = &mut self.brokers[at];
        broker.disk.fail_syncs(false);
        broker.disk = if power { broker.disk.crash() } else { broker.disk.restart() };
        broker.proof = CleanEnd::default();
        broker.applied = broker.applied.saturating_sub(back);
        let id = broker.id;
        self.go_down(at);
        self.tally.crashes += 1;
        self.note(format_args!("{id} {}", if power { "loses its power" } else { "is killed" }));
        self.count_lossy(at, false);
    }

    fn go_down(&mut self, at: usize) {
        let broker = &mut self.brokers[at];
        (broker.up, broker.registered, broker.failed, broker.paused_until) = (false, false, false, 0);
        broker.life += 1;
        broker.leaving = None;
        broker.copies.clear();
        broker.following.clear();
        broker.fetches.clear();
        broker.proposals = Proposals::default();
        self.dirty.retain(|(broker, _)| *broker != at);
        self.suspect(at);
        self.lose_seat(at);
    }

    /// A broker ends in good order, as far as it can.
    pub(crate) fn stop(&mut self, at: usize) {
        let places: Vec<Place> = self.brokers[at].copies.keys().copied().collect();
        let mut clean = !self.brokers[at].failed;
        for place in places {
            let Some(copy) = self.brokers[at].copies.get_mut(&place) else { continue };
            let (plan, synced) = (copy.plan.take(), copy.synced.take());
            match &mut copy.state {
                State::Open(replica) => {
                    if let Some(plan) = plan {
                        let result = synced.unwrap_or_else(|| plan.run());
                        clean &= replica.complete_sync(plan, result).is_ok();
                    }
                    clean &= replica.close_clean().is_ok();
                }
                State::Closed(_) => {}
                State::Offline(_) => clean = false,
            }
            self.check_copy(at, place);
        }
        let broker = &mut self.brokers[at];
        broker.store_checkpoint();
        if clean {
            broker.proof = broker.ended.after(broker.incarnation, broker.epoch());
        }
        let id = broker.id;
        self.note(format_args!("{id} stops, clean {clean}"));
        if !clean {
            let broker = &mut self.brokers[at];
            broker.disk.fail_syncs(false);
            broker.disk = broker.disk.crash();
        }
        self.go_down(at);
        if !clean {
            self.count_lossy(at, false);
        }
        let away = self.dice.between(50, 2500);
        self.after(away, None, Event::Start(at));
    }

    pub(crate) fn on_tick(&mut self, at: usize) {
        self.later(at, TICK_MS, Event::Tick);
        self.brokers[at].ticks += 1;
        if self.brokers[at].full_until <= self.now {
            self.brokers[at].disk.set_capacity(None);
        }
        let ticks = self.brokers[at].ticks;
        if ticks.is_multiple_of(5) {
            self.on_metadata(at);
        }
        if self.brokers[at].failed {
            return;
        }
        if self.brokers[at].leaving.is_some_and(|until| until <= self.now) {
            self.stop(at);
            return;
        }
        if self.brokers[at].heartbeat_at <= self.now {
            self.report(at);
        }
        self.send_proposals(at);
        self.renew_fetches(at);
        if ticks.is_multiple_of(5) {
            self.report_damage(at);
            let leads =
                |copy: &crate::broker::Copy| copy.replica().is_some_and(|replica| replica.role() == Role::Leader);
            let broker = &self.brokers[at];
            let led: Vec<Place> =
                broker.copies.iter().filter(|(_, copy)| leads(copy)).map(|(place, _)| *place).collect();
            led.into_iter().for_each(|place| self.step(at, place, ReplicaEvent::Tick));
        }
        let broker = &mut self.brokers[at];
        let owed = broker.copies.values().any(|copy| copy.checkpoint_owed);
        if broker.registered && (owed || ticks.is_multiple_of(30)) {
            broker.store_checkpoint();
        }
        if ticks.is_multiple_of(30) {
            let now = broker.wall_clock(self.now);
            let mut dirty = Vec::new();
            for (place, copy) in &mut broker.copies {
                if let Some(replica) = copy.replica_mut() {
                    replica.log_mut().remove_deleted(now);
                    if replica.log().needs_sync() {
                        dirty.push(*place);
                    }
                }
            }
            dirty.into_iter().for_each(|place| self.request_sync(at, place));
        }
    }

    /// Registers, or reports.
    fn report(&mut self, at: usize) {
        let broker = &mut self.brokers[at];
        let fenced = broker.image.broker(broker.id).is_none_or(|own| own.fenced);
        let soon = fenced || broker.leaving.is_some();
        broker.heartbeat_at = self.now + if soon { TICK_MS } else { HEARTBEAT_MS };
        let ask = match broker.epoch() {
            None => Ask::Register(BrokerRegistration {
                id: Some(broker.id),
                directory: broker.directory,
                incarnation: broker.incarnation,
                rack: None,
                listeners: [].into(),
                ended: broker.ended.clone(),
                alone: false,
                features: self.settings.supported_features().map(Into::into).collect(),
            }),
            Some(epoch) => Ask::Heartbeat { epoch, offset: broker.image.offset(), leave: broker.leaving.is_some() },
        };
        self.ask(at, ask);
    }

    fn ask(&mut self, at: usize, ask: Ask) {
        let life = self.brokers[at].life;
        let question = Question { from: at, life, ask };
        self.send(Some(at), Some(self.controller.seat), None, Event::Ask(question));
    }

    fn report_damage(&mut self, at: usize) {
        let broker = &self.brokers[at];
        let Some(epoch) = broker.epoch() else { return };
        let damaged = broker.copies.iter().filter(|(_, copy)| copy.damage == Damage::Found);
        let copies = damaged.map(|(&(topic, index), copy)| DamagedCopy {
            topic,
            index,
            partition_epoch: copy.assignment.as_ref().map_or(-1, |assignment| assignment.partition_epoch),
        });
        let copies: Vec<DamagedCopy> = copies.collect();
        if !copies.is_empty() {
            self.ask(at, Ask::Damage { epoch, copies });
        }
    }

    pub(crate) fn on_told(&mut self, at: usize, answer: Answer) {
        match answer {
            Answer::MayLeave => {
                if self.brokers[at].leaving.is_some() {
                    self.stop(at);
                }
            }
            Answer::Damage { places } => {
                for place in places {
                    let broker = &mut self.brokers[at];
                    if let Some(copy) = broker.copies.get_mut(&place).filter(|copy| copy.damage == Damage::Found) {
                        copy.damage = Damage::Reported;
                    }
                    if broker.begin_anew_if_damaged(place) {
                        self.tally.mark("damaged copy made anew");
                    }
                }
            }
            Answer::Isr { id, rows } => self.on_isr_answer(at, id, rows),
        }
    }

    fn on_isr_answer(&mut self, at: usize, id: u64, rows: Option<Vec<(Place, Result<CommittedIsr, IsrRefusal>)>>) {
        let proposals = &mut self.brokers[at].proposals;
        if proposals.id != id || proposals.asked.is_empty() {
            return;
        }
        let asked = std::mem::take(&mut proposals.asked);
        let Some(rows) = rows else {
            proposals.waiting.extend(asked);
            return;
        };
        for (place, proposal) in asked {
            match rows.iter().find(|(answered, _)| *answered == place) {
                None => self.brokers[at].proposals.waiting.push((place, proposal)),
                Some((_, answer)) => {
                    self.step(at, place, ReplicaEvent::IsrAnswered(answer.clone()));
                }
            }
        }
        self.send_proposals(at);
    }

    pub(crate) fn send_proposals(&mut self, at: usize) {
        let broker = &mut self.brokers[at];
        let id = broker.id;
        if !broker.proposals.asked.is_empty() {
            if broker.proposals.until > self.now {
                return;
            }
            let asked = std::mem::take(&mut broker.proposals.asked);
            broker.proposals.waiting.extend(asked);
        }
        let waiting = std::mem::take(&mut broker.proposals.waiting);
        let leads = |(place, proposal): &(Place, ottla_replica::IsrProposal)| {
            broker.copies.get(place).is_some_and(|copy| copy.leads_in(id, proposal.leader_epoch))
        };
        let (current, stale): (Vec<_>, Vec<_>) = waiting.into_iter().partition(leads);
        let Some(epoch) = broker.epoch().filter(|_| !current.is_empty()) else {
            broker.proposals.waiting = current;
            self.give_up(at, stale);
            return;
        };
        let request = self.id();
        let proposals = &mut self.brokers[at].proposals;
        (proposals.id, proposals.until) = (request, self.now + PROPOSAL_MS);
        proposals.asked.clone_from(&current);
        self.ask(at, Ask::Isr { id: request, epoch, changes: current });
        self.give_up(at, stale);
    }

    /// What another leadership wanted is no matter any more, but is owed an answer.
    fn give_up(&mut self, at: usize, stale: Vec<(Place, ottla_replica::IsrProposal)>) {
        for (place, _) in stale {
            self.step(at, place, ReplicaEvent::IsrAnswered(Err(IsrRefusal::Unanswered)));
        }
    }

    pub(crate) fn on_metadata(&mut self, at: usize) {
        if self.network.is_cut(self.controller.seat, at, self.now) {
            return;
        }
        let (known, late) = (self.brokers[at].applied, self.brokers[at].metadata_late_until > self.now);
        let behind = self.decisions.len() - known;
        let upto = if late { known + self.dice.index(behind + 1) } else { self.decisions.len() };
        for number in known..upto {
            let records = self.decisions[number].clone();
            let broker = &mut self.brokers[at];
            records.iter().for_each(|record| broker.image.apply(record));
            broker.applied = number + 1;
            self.publish(at, &records);
        }
        if upto > known && self.brokers[at].image != self.images[upto] {
            self.fail("M4", format!("{} has another image after {upto} decisions", self.brokers[at].id));
        }
    }

    fn publish(&mut self, at: usize, records: &[Record]) {
        let broker = &mut self.brokers[at];
        let registered = broker.epoch().is_some();
        let newly = registered && !broker.registered;
        broker.registered |= registered;
        let topics: BTreeSet<TopicId> = if newly {
            let known = broker.copies.keys().map(|place| place.0);
            broker.image.topics().map(|topic| topic.id).chain(known).collect()
        } else {
            records.iter().filter_map(touched).collect()
        };
        let mut effects = Vec::new();
        for topic in topics {
            let broker = &mut self.brokers[at];
            broker.take_topic(topic, &self.settings, self.now, &mut effects);
            let places: Vec<Place> = broker.copies.keys().copied().filter(|place| place.0 == topic).collect();
            for place in places {
                // At once: the next decision may end what this one lets a leader commit.
                self.check_copy(at, place);
                self.touch(at, place);
            }
        }
        if newly {
            let broker = &mut self.brokers[at];
            broker.last_run.clear();
            broker.quarantine_unknown();
            if broker.ended == CleanEnd::default() {
                let places: Vec<Place> = broker.copies.keys().copied().collect();
                for place in places {
                    self.open(at, place);
                }
            }
        }
        self.carry_out(at, effects);
        self.refresh_following(at);
    }

    /// Opens a copy if nobody has; whether it is open.
    pub(crate) fn open(&mut self, at: usize, place: Place) -> bool {
        let broker = &mut self.brokers[at];
        if broker.failed || !broker.up {
            return false;
        }
        let was_open = broker.copies.get(&place).is_some_and(|copy| copy.replica().is_some());
        if was_open {
            return true;
        }
        let mut effects = Vec::new();
        let opened = broker.open(place, self.now, &self.plan, &mut effects);
        let id = broker.id;
        let open = opened == Opened::Open;
        match opened {
            Opened::Open => self.touch(at, place),
            Opened::Damaged(damage) => {
                self.note(format_args!("{id} finds {}-{} damaged: {damage}", place.0, place.1));
                self.tally.mark("damage found");
            }
            Opened::Failed => self.disk_fails(at),
            Opened::Unavailable => {}
        }
        self.carry_out(at, effects.into_iter().map(|effect| (place, effect)).collect());
        open
    }

    pub(crate) fn step(&mut self, at: usize, place: Place, event: ReplicaEvent) {
        if !self.open(at, place) {
            return;
        }
        let mut effects = Vec::new();
        let now = Tick(self.now);
        if let Some(replica) = self.brokers[at].copies.get_mut(&place).and_then(|copy| copy.replica_mut()) {
            replica.step(now, event, &mut effects);
        }
        self.touch(at, place);
        self.carry_out(at, effects.into_iter().map(|effect| (place, effect)).collect());
    }

    pub(crate) fn carry_out(&mut self, at: usize, effects: Vec<(Place, Effect)>) {
        let mut proposed = false;
        for (place, effect) in effects {
            match effect {
                Effect::ProposeIsr(proposal) => {
                    self.brokers[at].proposals.waiting.push((place, proposal));
                    proposed = true;
                }
                Effect::IsrBelowMinimum(_) => {}
            }
        }
        if proposed {
            self.send_proposals(at);
        }
    }

    pub(crate) fn request_sync(&mut self, at: usize, place: Place) {
        let delay = self.dice.between(0, 5);
        let listed = self.brokers[at].copies.get_mut(&place).map(|copy| std::mem::replace(&mut copy.sync_listed, true));
        if listed == Some(false) {
            self.later(at, delay, Event::SyncBegins(place));
        }
    }

    pub(crate) fn on_sync_begins(&mut self, at: usize, place: Place) {
        if self.brokers[at].failed {
            return;
        }
        let slow = self.brokers[at].syncs_slow_until > self.now;
        let delay = if slow { self.dice.between(50, 2500) } else { self.dice.between(1, 8) };
        let Some(copy) = self.brokers[at].copies.get_mut(&place) else { return };
        copy.plan = copy.replica_mut().and_then(|replica| replica.begin_sync());
        if copy.plan.is_some() {
            self.later(at, delay, Event::SyncRuns(place));
        } else {
            copy.sync_listed = false;
        }
    }

    pub(crate) fn on_sync_runs(&mut self, at: usize, place: Place) {
        let delay = self.dice.between(0, 3);
        let Some(copy) = self.brokers[at].copies.get_mut(&place) else { return };
        if let Some(plan) = &copy.plan {
            copy.synced = Some(plan.run());
            self.later(at, delay, Event::SyncEnds(place));
        }
    }

    pub(crate) fn on_sync_ends(&mut self, at: usize, place: Place) {
        let Some(copy) = self.brokers[at].copies.get_mut(&place) else { return };
        let (Some(plan), Some(result)) = (copy.plan.take(), copy.synced.take()) else { return };
        copy.sync_listed = false;
        let fsync = copy.is_fsync();
        let State::Open(replica) = &mut copy.state else { return };
        let completed = replica.complete_sync(plan, result);
        let more = fsync && replica.log().needs_sync();
        self.touch(at, place);
        match completed {
            Err(_) => self.disk_fails(at),
            Ok(()) if more => self.request_sync(at, place),
            Ok(()) => {}
        }
    }

    /// A sync failed: nothing on the disk is served any more, and in a while somebody starts the broker again (L10).
    pub(crate) fn disk_fails(&mut self, at: usize) {
        let broker = &mut self.brokers[at];
        if broker.failed {
            return;
        }
        broker.failed = true;
        let id = broker.id;
        self.note(format_args!("{id}: its disk has failed"));
        let away = self.dice.between(500, 4000);
        self.after(away, None, Event::Start(at));
    }

    /// What the cluster has agreed on for a topic.
    pub(crate) fn config_of(&self, topic: &ottla_metadata::Topic) -> TopicConfig {
        let defaults = TopicConfig::resolve(&self.image().layers(self.brokers[0].id, &self.settings));
        defaults.with_overrides(&topic.overrides)
    }

    /// Whether a topic counts records that are in memory only.
    pub(crate) fn is_replicated(&self, topic: &ottla_metadata::Topic) -> bool {
        self.config_of(topic).durability == Durability::Replicated
    }

    /// Counts the copies of a broker that may lack something now: of topics that count memory, or all (A5).
    pub(crate) fn count_lossy(&mut self, at: usize, all: bool) {
        for place in self.places_at_risk(at, all) {
            self.count_lossy_copy(at, place);
        }
    }

    fn places_at_risk(&self, at: usize, all: bool) -> Vec<Place> {
        let id = self.brokers[at].id;
        let held = self.image().partitions_of(id).filter(|(topic, ..)| all || self.is_replicated(topic));
        held.map(|(topic, index, _)| (topic.id, index)).collect()
    }

    pub(crate) fn count_lossy_copy(&mut self, at: usize, place: Place) {
        // A topic that is gone has no truth any more.
        if let Some(truth) = self.truths.get_mut(&place) {
            truth.lossy.insert(at);
        }
        self.maybe_excuse(place);
    }

    /// Excuses a partition that nobody holds all of any more, if that took as many losses as the cluster does not
    /// promise to bear: `min.insync.replicas`, at its least.
    pub(crate) fn maybe_excuse(&mut self, place: Place) {
        let held = self.is_held(place, None);
        let Some(truth) = self.truths.get_mut(&place) else { return };
        if !held && !truth.excused && truth.lossy.len() >= truth.least_min_isr.unwrap_or(1) {
            truth.excused = true;
            self.tally.mark("excused");
            self.note(format_args!("{}-{}: too many copies are lost at a time", place.0, place.1));
        }
    }

    /// Whether somebody is left who holds all that is committed; `without` one more broker.
    fn is_held(&self, place: Place, without: Option<usize>) -> bool {
        let partition = self.image().topic(place.0).and_then(|topic| topic.partition(place.1));
        let Some(partition) = partition else { return true };
        let lossy = self.truths.get(&place).map(|truth| &truth.lossy);
        partition.isr.iter().chain(partition.elr.iter()).any(|id| {
            let index = self.index_of(*id);
            let lost = lossy.is_some_and(|lossy| index.is_some_and(|index| lossy.contains(&index)));
            !lost && index != without
        })
    }

    /// Whether a loss of a broker's copies is within what the cluster promises to bear: somebody else holds all of
    /// each.
    pub(crate) fn bears(&self, at: usize, all: bool) -> bool {
        let excused = |place: &Place| self.truths.get(place).is_some_and(|truth| truth.excused);
        self.places_at_risk(at, all).into_iter().all(|place| excused(&place) || self.is_held(place, Some(at)))
    }

    /// Whether that holds for one partition.
    pub(crate) fn bears_copy(&self, at: usize, place: Place) -> bool {
        self.is_held(place, Some(at))
    }

    /// Something that an operator wants; refusals are answers too.
    pub(crate) fn operate(&mut self, command: Command) -> bool {
        let seat = self.controller.seat;
        self.controls(seat) && self.brokers[seat].up && self.submit(command).is_ok()
    }
}

/// The topic that a record changes.
fn touched(record: &Record) -> Option<TopicId> {
    match record {
        Record::TopicCreated { id, .. } | Record::TopicDeleted { id } => Some(*id),
        Record::PartitionCreated { topic, .. } | Record::PartitionChanged { topic, .. } => Some(*topic),
        Record::ConfigSet { resource, .. } | Record::ConfigRemoved { resource, .. } => match resource {
            ottla_metadata::ConfigResource::Topic(id) => Some(*id),
            _ => None,
        },
        _ => None,
    }
}
