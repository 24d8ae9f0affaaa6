//! Random lives of a partition: appends, fetches, syncs, power cuts, elections and ISR changes in any order, with
//! answers and metadata that come late. Whatever any replica ever called committed stays, byte for byte, on every
//! replica that may lead; no high watermark goes back while its broker runs; and in the end all hold the same (rules
//! E9, I5, I7, A5, the bug classes B1 to B9, B12, B13).
//!
//! The controller is the test: it commits an ISR change only under the rules of AlterPartition, elects from the ISR,
//! and takes a broker that lost its power out of it where the power took what the topic counts on (A2).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::*;
use ottla_log::SyncPlan;
use ottla_replica::{CommittedIsr, Durability, Event, FetchOutcome, Fetched, IsrProposal, IsrRefusal, Role};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};
use proptest::prelude::*;

const STEPS: usize = 400;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn broker(&mut self) -> i32 {
        1 + self.roll(3) as i32
    }
}

/// How often what this is about has happened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Seen {
    committed: usize,
    crashes: usize,
    elections: usize,
    truncations: usize,
    resets: usize,
    isr_changes: usize,
    stale: usize,
}

struct World {
    cluster: Cluster,
    dice: Dice,
    /// Base offset to bytes of every batch that anybody ever called committed.
    committed: BTreeMap<Offset, Bytes>,
    committed_to: Offset,
    /// By broker: the high watermark it was last seen with, in its present life.
    seen_high_watermark: [Offset; 3],
    syncing: [Option<SyncPlan>; 3],
    /// By follower: an answer that is on its way.
    answers: [Option<Fetched>; 3],
    proposals: Vec<(i32, BrokerEpoch, IsrProposal)>,
    /// Answers of the controller that are on their way.
    decided: Vec<(i32, BrokerEpoch, Result<CommittedIsr, IsrRefusal>)>,
    trimmed: bool,
    written: u64,
    seen: Seen,
}

fn at(id: i32) -> usize {
    id as usize - 1
}

impl World {
    fn new(seed: u64, durability: Durability) -> World {
        let mut world = World {
            cluster: Cluster::seeded(durability, 2, seed),
            dice: Dice(seed),
            committed: BTreeMap::new(),
            committed_to: Offset::ZERO,
            seen_high_watermark: [Offset::ZERO; 3],
            syncing: [None, None, None],
            answers: [None, None, None],
            proposals: Vec::new(),
            decided: Vec::new(),
            trimmed: false,
            written: 0,
            seen: Seen::default(),
        };
        world.cluster.lead(1, &[1, 2, 3]);
        world
    }

    fn fsync(&self) -> bool {
        self.cluster.settings.durability == Durability::Fsync
    }

    fn step(&mut self) {
        let id = self.dice.broker();
        match self.dice.roll(86) {
            0..=14 => self.append(id),
            15..=39 => self.fetch(id),
            40..=49 => self.deliver(id),
            50..=63 => self.sync(id),
            64 | 65 => self.cluster.broker(id).store_checkpoint(),
            66 => self.tick(),
            67..=73 => self.cluster.tell(id),
            74..=77 => self.decide(),
            78..=80 => self.answer_proposal(),
            81 => self.crash(id),
            82 => self.elect(),
            _ => self.trim(id),
        }
        self.take_proposals();
        for id in 1..=3 {
            self.check(id);
        }
    }

    fn append(&mut self, id: i32) {
        if self.cluster.replica(id).role() != Role::Leader {
            return;
        }
        self.written += 1;
        let value = format!("{}-{}", self.written, "v".repeat(self.dice.roll(300) as usize));
        let batch = match self.dice.roll(3) {
            0 => idempotent(self.written as i64, 0, &[&value]),
            1 => batch(&[&value, "second"]),
            _ => batch(&[&value]),
        };
        self.cluster.try_append(id, batch);
    }

    /// A follower asks. The answer comes at once, or later.
    fn fetch(&mut self, id: i32) {
        let Some(position) = self.cluster.replica(id).fetch_position() else { return };
        let outstanding = self.answers[at(id)].as_ref();
        if outstanding.is_some_and(|answer| answer.leader_epoch == position.leader_epoch) {
            return;
        }
        let eligible = self.dice.roll(8) > 0;
        let Some(answer) = self.cluster.answer(&position, id, eligible) else { return };
        if self.dice.roll(4) == 0 {
            self.answers[at(id)] = Some(answer);
        } else {
            self.apply(id, &answer);
        }
    }

    fn deliver(&mut self, id: i32) {
        if let Some(answer) = self.answers[at(id)].take() {
            self.apply(id, &answer);
        }
    }

    fn apply(&mut self, id: i32, answer: &Fetched) {
        match self.cluster.replica(id).append_fetched(answer, NOW).unwrap() {
            FetchOutcome::Taken | FetchOutcome::Busy => {}
            FetchOutcome::Stale => self.seen.stale += 1,
            FetchOutcome::Truncated(_) => self.seen.truncations += 1,
            FetchOutcome::Reset(_) => self.seen.resets += 1,
            lost @ FetchOutcome::HighWatermarkLost { .. } => {
                assert_eq!(lost, FetchOutcome::Taken, "E9: broker {id} was to cut what is committed");
            }
        }
    }

    /// Begins a sync, or completes the one that was begun.
    fn sync(&mut self, id: i32) {
        match self.syncing[at(id)].take() {
            Some(plan) => {
                let result = plan.run();
                self.cluster.replica(id).complete_sync(plan, result).unwrap();
            }
            None => self.syncing[at(id)] = self.cluster.replica(id).begin_sync(),
        }
    }

    fn tick(&mut self) {
        let ms = 1 + self.dice.roll(LAG_MAX);
        self.cluster.pass(ms);
    }

    fn take_proposals(&mut self) {
        while let Some((id, proposal)) = self.cluster.proposal() {
            let epoch = self.cluster.broker(id).epoch;
            self.proposals.push((id, epoch, proposal));
        }
        self.cluster.effects.clear();
    }

    /// The controller takes a proposal (I1).
    fn decide(&mut self) {
        if self.proposals.is_empty() {
            return;
        }
        let (id, epoch, proposal) = self.proposals.remove(0);
        let committed = &self.cluster.committed;
        let known = |broker: &(BrokerId, BrokerEpoch)| {
            let now = self.cluster.brokers.iter().find(|other| other.id == broker.0).unwrap().epoch;
            broker.1 == now || broker.1 == BrokerEpoch(-1) && committed.isr.contains(&broker.0)
        };
        let answer = if epoch != self.cluster.brokers[at(id)].epoch
            || committed.leader != Some(BrokerId(id))
            || proposal.leader_epoch != committed.leader_epoch
            || proposal.partition_epoch != committed.partition_epoch
        {
            Err(IsrRefusal::Superseded)
        } else if !proposal.isr.iter().all(known) || proposal.isr.is_empty() {
            Err(IsrRefusal::NotAttempted)
        } else {
            let isr: Vec<i32> = proposal.isr.iter().map(|(broker, _)| broker.0).collect();
            self.cluster.commit_isr(&isr);
            self.seen.isr_changes += 1;
            Ok(self.cluster.committed_isr())
        };
        // Some answers are lost: the metadata tells.
        let answer = if self.dice.roll(4) == 0 { Err(IsrRefusal::Unanswered) } else { answer };
        self.decided.push((id, epoch, answer));
    }

    fn answer_proposal(&mut self) {
        if self.decided.is_empty() {
            return;
        }
        let (id, epoch, answer) = self.decided.remove(0);
        // One that started anew since asks nobody any more.
        if self.cluster.broker(id).epoch == epoch {
            self.cluster.step(id, Event::IsrAnswered(answer));
        }
    }

    fn elect(&mut self) {
        let isr: Vec<i32> = self.cluster.committed.isr.iter().map(|broker| broker.0).collect();
        let leader = isr[self.dice.roll(isr.len() as u64) as usize];
        self.cluster.elect(leader, &isr);
        self.seen.elections += 1;
    }

    /// The power of a broker fails. It registers again when it starts, under another leader epoch if it led.
    fn crash(&mut self, id: i32) {
        let mut isr: Vec<i32> = self.cluster.committed.isr.iter().map(|broker| broker.0).collect();
        let member = isr.contains(&id);
        // Without syncs that count, the last that has everything must not lose it (A5).
        if !self.fsync() && member && isr.len() < 2 {
            return;
        }
        self.seen.crashes += 1;
        if let Some(plan) = self.syncing[at(id)].take()
            && self.dice.roll(2) == 0
        {
            let sim = self.cluster.broker(id).sim.clone();
            sim.fail_after(self.dice.roll(8));
            let _ = plan.run();
        }
        if member && isr.len() > 1 && (!self.fsync() || self.dice.roll(2) == 0) {
            isr.retain(|broker| *broker != id);
        }
        let led = self.cluster.committed.leader == Some(BrokerId(id));
        let leader = isr[self.dice.roll(isr.len() as u64) as usize];
        self.cluster.crash(id);
        if led {
            self.cluster.elect(leader, &isr);
        } else if isr.len() != self.cluster.committed.isr.len() {
            self.cluster.commit_isr(&isr);
        }
        self.answers[at(id)] = None;
        self.seen_high_watermark[at(id)] = Offset::ZERO;
    }

    /// The leader lets go of some of what is committed.
    fn trim(&mut self, id: i32) {
        let replica = self.cluster.replica(id);
        if replica.role() == Role::Leader {
            let to = Offset(replica.high_watermark().offset.0 * (2 + self.dice.roll(3) as i64) / 4);
            replica.log_mut().advance_start(to).unwrap();
            self.trimmed = true;
        }
    }

    /// What a broker calls committed is what it was for everybody before, and it never takes it back.
    fn check(&mut self, id: i32) {
        let replica = &self.cluster.brokers[at(id)].replica;
        let high_watermark = replica.high_watermark();
        let before = std::mem::replace(&mut self.seen_high_watermark[at(id)], high_watermark.offset);
        assert!(high_watermark.offset >= before, "I7: broker {id} went back from {before} to {high_watermark:?}");
        if high_watermark.offset == before {
            return;
        }
        let reader = replica.log().reader();
        for batch in reader.batches(before.max(reader.start_offset()), high_watermark) {
            let (header, bytes) = batch.unwrap();
            match self.committed.get(&header.base_offset) {
                Some(known) => assert_eq!(known, &bytes, "broker {id} has another batch at {}", header.base_offset),
                None => {
                    assert!(
                        header.base_offset >= self.committed_to,
                        "B42: {} was of another batch",
                        header.base_offset
                    );
                    self.committed.insert(header.base_offset, bytes);
                    self.committed_to = self.committed_to.max(header.next_offset());
                    self.seen.committed += 1;
                }
            }
        }
        self.committed_to = self.committed_to.max(high_watermark.offset);
    }

    /// Everything that is committed and that this broker's log has not let go of is in it.
    fn check_complete(&self, id: i32, what: &str) {
        let replica = &self.cluster.brokers[at(id)].replica;
        let start = replica.log().start();
        let found: BTreeMap<Offset, Bytes> = batches(replica, Offset::ZERO).into_iter().collect();
        for (base, bytes) in &self.committed {
            let header = ottla_records::BatchHeader::parse(bytes).unwrap();
            if header.next_offset() > start {
                assert_eq!(found.get(base), Some(bytes), "{what}: broker {id} lacks what was committed at {base}");
            }
        }
    }

    /// Nothing is lost or late any more: everybody comes to hold the same, all of it committed.
    fn heal(&mut self) {
        // Who is in the ISR holds everything, whether it knows or not.
        let isr: Vec<i32> = self.cluster.committed.isr.iter().map(|broker| broker.0).collect();
        for id in &isr {
            self.check_complete(*id, "before healing");
        }
        self.answers = [None, None, None];
        let mut settled = false;
        for _ in 0..200 {
            self.cluster.pass(LAG_MAX / 4);
            for id in 1..=3 {
                for _ in 0..2 {
                    self.sync(id);
                }
                self.cluster.tell(id);
                if let Some(position) = self.cluster.replica(id).fetch_position()
                    && let Some(answer) = self.cluster.answer(&position, id, true)
                {
                    self.apply(id, &answer);
                }
                self.check(id);
            }
            self.take_proposals();
            self.decide();
            self.answer_proposal();
            let ends: Vec<_> = (1..=3).map(|id| (self.cluster.end(id), self.cluster.high_watermark(id))).collect();
            settled = ends.iter().all(|(end, high_watermark)| end == high_watermark && *end == ends[0].0);
            settled &= self.cluster.committed.isr.len() == 3 && self.syncing.iter().all(Option::is_none);
            if settled {
                break;
            }
        }
        assert!(settled, "the replicas never came together");
        for id in 1..=3 {
            self.check_complete(id, "in the end");
        }
        if !self.trimmed {
            let first = &self.cluster.brokers[0].replica;
            for other in &self.cluster.brokers[1..] {
                assert!(batches(&other.replica, Offset::ZERO) == batches(first, Offset::ZERO), "the logs differ");
                assert!(other.replica.log().producers().same_state(first.log().producers()), "P3: producers differ");
            }
        }
    }
}

fn live(seed: u64, durability: Durability) -> Seen {
    let mut world = World::new(seed, durability);
    for _ in 0..STEPS {
        world.step();
    }
    world.heal();
    assert!(world.cluster.committed.leader_epoch >= LeaderEpoch(1));
    world.seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a5_b12_b13_what_was_committed_stays_with_syncs_that_count(seed: u64) {
        live(seed, Durability::Fsync);
    }

    #[test]
    fn a5_b9_what_was_committed_stays_while_fewer_than_min_isr_lose_their_memory(seed: u64) {
        live(seed, Durability::Replicated);
    }
}

#[test]
fn the_lives_see_what_they_are_about() {
    let mut total = Seen::default();
    for seed in 0..60 {
        let seen = live(seed, if seed % 2 == 0 { Durability::Fsync } else { Durability::Replicated });
        total.committed += seen.committed;
        total.crashes += seen.crashes;
        total.elections += seen.elections;
        total.truncations += seen.truncations;
        total.resets += seen.resets;
        total.isr_changes += seen.isr_changes;
        total.stale += seen.stale;
    }
    let Seen { committed, crashes, elections, truncations, resets, isr_changes, stale } = total;
    for (what, times) in [("committed", committed), ("crashes", crashes), ("elections", elections)] {
        assert!(times >= 100, "{what}: {times}");
    }
    for (what, times) in [("cuts", truncations), ("resets", resets), ("ISRs", isr_changes), ("stale", stale)] {
        assert!(times >= 5, "{what}: {times}");
    }
}

#[test]
fn a_life_lived_twice_is_the_same() {
    for seed in 0..4 {
        assert_eq!(live(seed, Durability::Fsync), live(seed, Durability::Fsync));
    }
}

#[test]
fn lives_in_which_something_was_lost_once() {
    // Epochs of a stale file believed over the batches; an index from before a power cut kept by a cut; a log that
    // began a little before, without a durable start.
    live(72_626_238_715_482_700, Durability::Fsync);
    live(11_370_470_258_808_246_935, Durability::Fsync);
    live(10_775_384_256_001_509_313, Durability::Replicated);
    live(17_142_109_937_691_829_027, Durability::Replicated);
    // A member of the ISR whose log was another's below a start that the leader forgot.
    live(535_837_258_589_277_115, Durability::Fsync);
}
