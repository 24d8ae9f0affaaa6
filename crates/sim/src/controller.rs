//! The controller and the log of what is agreed on, which is an ideal one: one sequence of decisions that nothing takes
//! back, decided on by whichever broker has the seat.
//!
//! What a controller knows besides the image, who was heard of when, goes with the seat. What is not here: agreement
//! itself (`ottla-consensus`, which is not in this simulation yet), and the rules (`ottla_metadata::decide`). Next:
//! `checks.rs` for what every image must show.

use std::collections::BTreeMap;

use ottla_metadata::{BrokerRegistration, Command, IsrChange, Record, Refusal, Reply, decide};
use ottla_replica::{CommittedIsr, IsrProposal, IsrRefusal};
use ottla_types::{BrokerEpoch, BrokerId, Timestamp};

use crate::{
    event::{Answer, Ask, Event, Place, Question},
    world::World,
};

/// `broker.session.timeout.ms`
const SESSION_MS: u64 = 2500;
/// How long a broker whose connections ended may take to come back.
const SUSPECT_MS: u64 = 750;
const ROUND_MS: u64 = 100;
/// How long the others wait for a controller that is silent.
const ELECTION_MS: u64 = 1000;
/// Nobody decides until another has the seat.
const VACANT: u64 = u64::MAX;

#[derive(Debug, Default)]
pub(crate) struct Controller {
    /// The broker that has the seat, and from when on it decides.
    pub(crate) seat: usize,
    pub(crate) from: u64,
    heard: BTreeMap<BrokerId, u64>,
    suspected: BTreeMap<BrokerId, u64>,
    silent_since: Option<u64>,
}

impl World {
    pub(crate) fn bootstrap(&mut self) {
        let decided = self.submit(Command::Bootstrap);
        if let Err(refusal) = decided {
            self.fail("bootstrap", refusal.to_string());
        }
    }

    /// Decides on a command, and has the decision agreed on.
    pub(crate) fn submit(&mut self, command: Command) -> Result<Reply, Refusal> {
        let now = Timestamp(i64::try_from(self.now).unwrap_or(i64::MAX));
        let described = format!("{command:?}");
        let before = self.image().clone();
        let dice = &mut self.dice;
        let (records, reply) = decide(&before, &self.settings, now, &mut || dice.bytes(), command)?;
        if records.is_empty() {
            return Ok(reply);
        }
        let mut after = before.clone();
        records.iter().for_each(|record| after.apply(record));
        self.note(format_args!("decided {described}"));
        for record in &records {
            if let Record::PartitionChanged { topic, index, partition } = record {
                let (leader, epoch) = (partition.leader.map_or(-1, |leader| leader.0), partition.leader_epoch.0);
                let (isr, elr) = (&partition.isr, &partition.elr);
                let (version, replicas) = (partition.partition_epoch, &partition.replicas);
                self.trace.line(
                    self.now,
                    format_args!(
                        "  {topic}-{index} leader {leader} epoch {epoch} version {version} isr {isr:?} elr {elr:?} \
                         replicas {replicas:?} recovering {}",
                        partition.recovering
                    ),
                );
            }
        }
        self.decisions.push(records);
        self.images.push(after);
        self.check_image(&before);
        for broker in 0..self.brokers.len() {
            let late = self.brokers[broker].metadata_late_until > self.now;
            let delay = if late { self.dice.between(200, 3000) } else { self.dice.between(1, 15) };
            self.later(broker, delay, Event::Metadata);
        }
        Ok(reply)
    }

    pub(crate) fn controls(&self, broker: usize) -> bool {
        self.controller.seat == broker && self.now >= self.controller.from
    }

    /// A broker that starts again has lost the seat.
    pub(crate) fn lose_seat(&mut self, broker: usize) {
        if self.controller.seat == broker {
            self.controller.from = VACANT;
        }
    }

    pub(crate) fn move_controller(&mut self, to: usize) {
        let id = self.brokers[to].id;
        self.note(format_args!("controller moves to {id}"));
        let heard = self.image().brokers().map(|broker| (broker.id, self.now)).collect();
        let from = self.now + self.dice.between(5, 300);
        self.controller = Controller { seat: to, from, heard, suspected: BTreeMap::new(), silent_since: None };
    }

    /// A broker's connections have ended.
    pub(crate) fn suspect(&mut self, broker: usize) {
        let id = self.brokers[broker].id;
        self.controller.suspected.entry(id).or_insert(self.now);
    }

    pub(crate) fn on_caretake(&mut self) {
        self.after(ROUND_MS, None, Event::Caretake);
        let seat = &self.brokers[self.controller.seat];
        let silent = !seat.up || seat.failed || seat.paused_until > self.now || self.controller.from == VACANT;
        if silent {
            let since = *self.controller.silent_since.get_or_insert(self.now);
            if self.now - since >= ELECTION_MS {
                let able = |broker: &usize| {
                    let broker = &self.brokers[*broker];
                    broker.up && !broker.failed && broker.paused_until <= self.now
                };
                let able: Vec<usize> = (0..self.brokers.len()).filter(able).collect();
                if let Some(next) = self.dice.pick(&able) {
                    self.move_controller(next);
                }
            }
            return;
        }
        self.controller.silent_since = None;
        if !self.controls(self.controller.seat) {
            return;
        }
        let (own, now) = (self.brokers[self.controller.seat].incarnation, self.now);
        let quiet = |broker: &&std::sync::Arc<ottla_metadata::Broker>| {
            let id = broker.id;
            let heard = self.controller.heard.get(&id).copied().unwrap_or(0);
            let suspected = self.controller.suspected.get(&id).is_some_and(|since| now - since > SUSPECT_MS);
            // It hears itself, but not what it was before it started again.
            broker.incarnation != own && !broker.fenced && (now - heard > SESSION_MS || suspected)
        };
        let quiet: Vec<(BrokerId, BrokerEpoch)> =
            self.image().brokers().filter(quiet).map(|broker| (broker.id, broker.epoch)).collect();
        for (id, epoch) in quiet {
            // Refused if it has registered again, which is as good.
            let _ = self.submit(Command::FenceBroker { id, epoch });
        }
    }

    pub(crate) fn on_ask(&mut self, broker: usize, question: Question) {
        let Question { from, life, ask } = question;
        let told = match ask {
            // Whoever is no controller answers so, which is as good as no answer.
            _ if !self.controls(broker) => match ask {
                Ask::Isr { id, .. } => Some(Answer::Isr { id, rows: None }),
                _ => None,
            },
            Ask::Register(registration) => {
                self.register(registration);
                None
            }
            Ask::Heartbeat { epoch, offset, leave } => self.heartbeat(from, epoch, offset, leave),
            Ask::Isr { id, epoch, changes } => {
                let rows = self.alter_partitions(from, epoch, changes);
                Some(Answer::Isr { id, rows })
            }
            Ask::Damage { epoch, copies } => {
                let broker = self.brokers[from].id;
                let places = copies.iter().map(|copy| (copy.topic, copy.index)).collect();
                let command = Command::ReportDamage { broker, epoch, partitions: copies };
                self.submit(command).ok().map(|_| Answer::Damage { places })
            }
        };
        if let Some(told) = told {
            self.send(Some(broker), Some(from), Some(life), Event::Told(told));
        }
    }

    /// Whether it did shows in the metadata.
    fn register(&mut self, registration: BrokerRegistration) {
        // Refused while its last run has not gone quiet; it asks again.
        let Ok(Reply::BrokerRegistered { id, .. }) = self.submit(Command::RegisterBroker(registration)) else { return };
        self.controller.heard.insert(id, self.now);
        self.controller.suspected.remove(&id);
    }

    fn heartbeat(
        &mut self,
        from: usize,
        epoch: BrokerEpoch,
        offset: ottla_types::Offset,
        leave: bool,
    ) -> Option<Answer> {
        let id = self.brokers[from].id;
        let broker = self.image().broker(id).filter(|broker| broker.epoch == epoch).cloned()?;
        self.controller.heard.insert(id, self.now);
        self.controller.suspected.remove(&id);
        let caught_up = offset.0 > epoch.0;
        if leave {
            if !broker.shutting_down {
                self.submit(Command::BeginShutdown { id, epoch }).ok()?;
            }
        } else if broker.fenced && caught_up {
            self.submit(Command::UnfenceBroker { id, epoch }).ok()?;
        }
        let broker = self.image().broker(id)?;
        let may_leave = broker.shutting_down && self.image().led_by(id).next().is_none();
        may_leave.then_some(Answer::MayLeave)
    }

    fn alter_partitions(
        &mut self,
        from: usize,
        epoch: BrokerEpoch,
        changes: Vec<(Place, IsrProposal)>,
    ) -> Option<Vec<(Place, Result<CommittedIsr, IsrRefusal>)>> {
        let broker = self.brokers[from].id;
        let changes = changes.into_iter().map(|((topic, index), proposal)| IsrChange {
            topic,
            index,
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            isr: proposal.isr.iter().map(|&(id, known)| (id, if id == broker { epoch } else { known })).collect(),
            recovering: proposal.recovering,
        });
        let changes = changes.collect();
        let Ok(Reply::PartitionsAltered(rows)) = self.submit(Command::AlterPartitions { broker, epoch, changes })
        else {
            return None;
        };
        let row = |(place, row): (Place, Result<ottla_metadata::Partition, Refusal>)| {
            let answer = row.map(committed).map_err(|refusal| match refusal {
                Refusal::IneligibleReplica(..) => IsrRefusal::NotAttempted,
                Refusal::NotController => IsrRefusal::Unanswered,
                _ => IsrRefusal::Superseded,
            });
            (place, answer)
        };
        let rows: Vec<_> = rows.into_iter().map(row).collect();
        if rows.iter().any(|(_, row)| row.is_err()) {
            self.tally.mark("isr refused");
        }
        Some(rows)
    }
}

fn committed(partition: ottla_metadata::Partition) -> CommittedIsr {
    let ottla_metadata::Partition { leader, leader_epoch, partition_epoch, isr, recovering, .. } = partition;
    CommittedIsr { leader, leader_epoch, partition_epoch, isr, recovering }
}
