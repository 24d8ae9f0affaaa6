//! What a partition becomes when something about it or about its brokers has changed: its ISR, its eligible leaders,
//! its leader, and whether a reassignment is complete.
//!
//! One way for all causes, so that the rules hold whatever the cause. A cause says in a [`Transition`] what it wants
//! and what it knows, and [`Transition::finish`] goes through the steps in one order:
//!
//! ```text
//! ISR      fenced members leave it, and those that shut down unless nobody else is in it       (A1)
//! replicas a reassignment is complete once all it adds are in the ISR                           (KIP-455)
//! ELR      while the ISR is below min.insync.replicas, who leaves it stays eligible             (A3)
//! leader   a live ISR member, a live ELR member, the last leader, at last any live replica      (A4)
//! epochs   rise with what changed
//! ```
//!
//! Kafka's `PartitionChangeBuilder` is the model. What is not here: the causes, one file each beside this one.

use std::sync::Arc;

use ottla_types::{BrokerId, LeaderEpoch, PartitionIndex, TopicId};

use super::configs::deciding_layers;
use crate::{
    Image, Partition, Record, Topic,
    config::{Settings, TopicConfig},
    topic::min_isr,
};

/// The cluster that partitions change in: the brokers as they will be, and what holds for topics.
pub(super) struct Setting<'a> {
    pub(super) image: &'a Image,
    defaults: TopicConfig,
}

impl<'a> Setting<'a> {
    pub(super) fn new(image: &'a Image, settings: &Settings) -> Setting<'a> {
        Setting { image, defaults: TopicConfig::resolve(&deciding_layers(image, settings)) }
    }

    pub(super) fn config(&self, topic: &Topic) -> TopicConfig {
        self.defaults.with_overrides(&topic.overrides)
    }

    /// The partition as it is, to be changed.
    pub(super) fn transition(&self, partition: &'a Partition, config: &TopicConfig) -> Transition<'a> {
        Transition {
            image: self.image,
            before: partition,
            min_insync_replicas: config.min_insync_replicas,
            replicas: partition.replicas.to_vec(),
            isr: partition.isr.to_vec(),
            adding: partition.adding.to_vec(),
            removing: partition.removing.to_vec(),
            recovering: partition.recovering,
            unproven: None,
            lost: None,
            to_preferred: false,
            may_lose_records: config.unclean_leader_election,
            renewed: false,
        }
    }

    /// Has every partition that `affected` picks go through a transition that `change` may alter, and returns what
    /// that changes.
    pub(super) fn sweep(
        &self,
        affected: impl Fn(&Partition) -> bool,
        change: impl Fn(TopicId, &TopicConfig, &mut Transition<'_>),
    ) -> Vec<Record> {
        let mut records = Vec::new();
        for topic in self.image.topics() {
            let mut concerned = topic.numbered().filter(|(_, partition)| affected(partition)).peekable();
            if concerned.peek().is_none() {
                continue;
            }
            let config = self.config(topic);
            records.extend(concerned.filter_map(|(index, partition)| {
                let mut transition = self.transition(partition, &config);
                change(topic.id, &config, &mut transition);
                transition.record(topic.id, index)
            }));
        }
        records
    }
}

/// One partition on its way to its next state.
pub(super) struct Transition<'a> {
    image: &'a Image,
    before: &'a Partition,
    min_insync_replicas: u32,
    pub(super) replicas: Vec<BrokerId>,
    pub(super) isr: Vec<BrokerId>,
    pub(super) adding: Vec<BrokerId>,
    pub(super) removing: Vec<BrokerId>,
    pub(super) recovering: bool,
    /// A broker that may lack committed records: it is no longer eligible (rule A2).
    pub(super) unproven: Option<BrokerId>,
    /// A broker whose copy is damaged or gone: not even where it led last may it be believed (rule L5).
    pub(super) lost: Option<BrokerId>,
    /// The preferred replica takes over if it is in sync, whoever leads.
    pub(super) to_preferred: bool,
    /// Any live replica may be elected where nobody eligible is left.
    pub(super) may_lose_records: bool,
    /// The epoch rises even if the state stays: who has not heard of what changed is to propose nothing.
    pub(super) renewed: bool,
}

impl Transition<'_> {
    /// The record of the partition's next state; `None` if that is the one it has.
    pub(super) fn record(self, topic: TopicId, index: PartitionIndex) -> Option<Record> {
        self.finish().map(|partition| Record::PartitionChanged { topic, index, partition })
    }

    /// The partition's next state; `None` if that is the one it has.
    pub(super) fn finish(mut self) -> Option<Partition> {
        self.leave_isr();
        self.maybe_complete_reassignment();
        let mut elr = self.eligible();
        let leader = self.elect(&mut elr);
        let before = self.before;
        let after = Partition {
            last_known_leader: if leader.is_some() { None } else { self.last_known_leader() },
            replicas: shared(self.replicas, &before.replicas),
            isr: shared(self.isr, &before.isr),
            elr: shared(elr, &before.elr),
            leader,
            leader_epoch: before.leader_epoch,
            partition_epoch: before.partition_epoch,
            adding: shared(self.adding, &before.adding),
            removing: shared(self.removing, &before.removing),
            recovering: self.recovering,
        };
        if after == *before && !self.renewed {
            return None;
        }
        // A replica that was taken away must not be taken for one that still follows, so its going begins an epoch too.
        let taken_away = before.replicas.iter().any(|replica| !after.replicas.contains(replica));
        let back = leader.is_some() && leader == before.last_known_leader;
        let begins_epoch = leader != before.leader && !(cfg!(zoo = "B42") && back) || taken_away;
        Some(Partition {
            isr: if after.isr == after.replicas { after.replicas.clone() } else { after.isr },
            leader_epoch: LeaderEpoch(before.leader_epoch.0.saturating_add(begins_epoch.into())),
            partition_epoch: before.partition_epoch.saturating_add(1),
            ..after
        })
    }

    fn leave_isr(&mut self) {
        let (image, unproven, lost) = (self.image, self.unproven, self.lost);
        self.isr.retain(|&member| {
            let fenced = image.broker(member).is_none_or(|broker| broker.fenced);
            (!fenced || cfg!(zoo = "B10")) && Some(member) != unproven && Some(member) != lost
        });
        if self.isr.iter().any(|&member| image.is_live(member)) {
            self.isr.retain(|&member| image.is_live(member));
        }
    }

    /// Beyond what Kafka asks for, what is left must be enough in sync: eligible replicas that go with the reassignment
    /// are replaced before they go.
    fn maybe_complete_reassignment(&mut self) {
        if self.adding.is_empty() && self.removing.is_empty() {
            return;
        }
        let stays = |replica: &BrokerId| !self.removing.contains(replica);
        let replicas: Vec<BrokerId> = self.replicas.iter().copied().filter(stays).collect();
        let isr: Vec<BrokerId> = self.isr.iter().copied().filter(stays).collect();
        let needed = min_isr(replicas.len(), self.min_insync_replicas);
        if self.adding.iter().all(|added| isr.contains(added)) && isr.len() >= needed {
            (self.replicas, self.isr) = (replicas, isr);
            self.adding.clear();
            self.removing.clear();
        }
    }

    /// How large the ISR must be for records to be committed.
    pub(super) fn needed(&self) -> usize {
        self.needed_of(self.min_insync_replicas)
    }

    /// The same, were the minimum another.
    pub(super) fn needed_of(&self, min_insync_replicas: u32) -> usize {
        min_isr(self.replicas.len().saturating_sub(self.adding.len()), min_insync_replicas)
    }

    /// The ELR. Nothing is committed while the ISR is too small, so who was in it then has all there is to have.
    fn eligible(&self) -> Vec<BrokerId> {
        if self.isr.len() >= self.needed() {
            return Vec::new();
        }
        let had_all = |replica: &BrokerId| self.before.isr.contains(replica) || self.before.elr.contains(replica);
        let trusted = |replica: BrokerId| Some(replica) != self.unproven && Some(replica) != self.lost;
        let candidates = self.replicas.iter().copied().filter(had_all);
        candidates.filter(|&replica| trusted(replica) && !self.isr.contains(&replica)).collect()
    }

    fn elect(&mut self, elr: &mut Vec<BrokerId>) -> Option<BrokerId> {
        let image = self.image;
        let mut in_order = self.replicas.iter().copied();
        if let Some(first) = in_order.find(|replica| self.isr.contains(replica)) {
            let moves = self.to_preferred && self.replicas.first() == Some(&first);
            let stays = self.before.leader.filter(|leader| !moves && self.isr.contains(leader));
            return Some(stays.unwrap_or(first));
        }
        let mut live = self.replicas.iter().copied().filter(|&replica| image.is_live(replica));
        if let Some(eligible) = live.clone().find(|replica| elr.contains(replica)) {
            self.isr = vec![eligible];
            elr.retain(|&other| other != eligible);
            if self.isr.len() >= self.needed() {
                elr.clear();
            }
            return Some(eligible);
        }
        let last = self.last_known_leader().filter(|&last| elr.is_empty() && image.is_live(last));
        let any = live.find(|&replica| self.may_lose_records && Some(replica) != self.lost);
        let elected = last.or(any)?;
        // From here on what this one holds is what counts, and who has more will be cut back to it.
        self.isr = vec![elected];
        elr.clear();
        self.recovering = true;
        Some(elected)
    }

    /// Who led last, if it may be believed to have what it led with.
    fn last_known_leader(&self) -> Option<BrokerId> {
        let last = self.before.leader.or(self.before.last_known_leader)?;
        (Some(last) != self.lost && self.replicas.contains(&last)).then_some(last)
    }
}

/// The list that is there already, if it is the same.
fn shared(brokers: Vec<BrokerId>, before: &Arc<[BrokerId]>) -> Arc<[BrokerId]> {
    if brokers.is_empty() {
        // All empty lists are one.
        Arc::default()
    } else if *brokers == **before {
        before.clone()
    } else {
        brokers.into()
    }
}
