//! What the tests of the replica share: three brokers with a copy each on simulated disks, a controller that is the
//! test itself, and a relay that carries a follower's Fetch to its leader and the answer back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use ottla_log::{Checkpoint, Disk, Log, LogConfig, SimDisk};
use ottla_records::{BatchBuilder, BatchHeader, Compression, Decompress, ProducedBatch, records};
use ottla_replica::{
    Assignment, CommittedIsr, Durability, Effect, Event, FetchOutcome, FetchPosition, Fetched, IsrProposal, IsrRefusal,
    Outcome, Replica, Role, Settings,
};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Tick, Timestamp};

pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);
pub(crate) const LAG_MAX: u64 = 100;

/// Segments of some batches: everything happens soon.
pub(crate) fn config() -> LogConfig {
    LogConfig { segment_bytes: 2 << 10, index_interval_bytes: 256, checkpoint_bytes: 1 << 10, ..LogConfig::default() }
}

pub(crate) fn settings(durability: Durability, min_insync_replicas: usize) -> Settings {
    Settings { durability, min_insync_replicas, lag_max: Tick(LAG_MAX) }
}

/// One broker with its copy, and what its node has stored of it.
pub(crate) struct Broker {
    pub(crate) id: BrokerId,
    pub(crate) epoch: BrokerEpoch,
    pub(crate) sim: SimDisk,
    pub(crate) replica: Replica,
    pub(crate) stored: Option<Checkpoint>,
    pub(crate) stored_high_watermark: Offset,
}

/// Brokers 1, 2 and 3, and the partition as the controller has committed it.
pub(crate) struct Cluster {
    pub(crate) brokers: Vec<Broker>,
    pub(crate) committed: Assignment,
    pub(crate) now: Tick,
    pub(crate) settings: Settings,
    pub(crate) effects: Vec<(i32, Effect)>,
}

pub(crate) fn ids(numbers: &[i32]) -> Arc<[BrokerId]> {
    numbers.iter().copied().map(BrokerId).collect()
}

impl Broker {
    fn new(id: i32, settings: Settings, seed: u64) -> Broker {
        let sim = SimDisk::new(seed.wrapping_add(id as u64));
        sim.create_dir_all("data".as_ref()).unwrap();
        sim.sync_dir("".as_ref()).unwrap();
        let log = open(&sim, None);
        let id = BrokerId(id);
        let replica = Replica::new(log, id, Offset::ZERO, settings);
        Broker { id, epoch: BrokerEpoch(1), sim, replica, stored: None, stored_high_watermark: Offset::ZERO }
    }

    /// Stores what a node's checkpoint file would hold.
    pub(crate) fn store_checkpoint(&mut self) {
        self.stored = Some(self.replica.log().checkpoint());
        self.stored_high_watermark = self.replica.high_watermark().offset;
    }

    /// Starts on `sim` with what was stored, as another registration.
    pub(crate) fn restart(&mut self, sim: SimDisk, settings: Settings) {
        let log = open(&sim, self.stored.clone());
        self.sim = sim;
        self.epoch = BrokerEpoch(self.epoch.0 + 1);
        self.replica = Replica::new(log, self.id, self.stored_high_watermark, settings);
    }
}

fn open(sim: &SimDisk, checkpoint: Option<Checkpoint>) -> Log {
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (log, recovered) = Log::open(disk, PathBuf::from("data/partition"), config(), checkpoint, NOW).unwrap();
    assert_eq!(recovered.damaged, None, "damage reported where there is none");
    log
}

/// A batch of one record for each value.
pub(crate) fn batch(values: &[&str]) -> ProducedBatch {
    produced(BatchBuilder::new(Compression::None, None), values)
}

/// The same, of an idempotent producer.
pub(crate) fn idempotent(id: i64, sequence: i32, values: &[&str]) -> ProducedBatch {
    let builder = BatchBuilder::new(Compression::None, None);
    produced(builder.producer(ProducerId(id), ProducerEpoch(0), sequence), values)
}

fn produced(mut builder: BatchBuilder, values: &[&str]) -> ProducedBatch {
    for value in values {
        builder.push(NOW, None, Some(value.as_bytes()), &[]).unwrap();
    }
    let bytes = builder.build().unwrap();
    ProducedBatch { header: BatchHeader::parse(&bytes).unwrap(), bytes }
}

/// The batches of a copy from `from` up to its end, byte for byte.
pub(crate) fn batches(replica: &Replica, from: Offset) -> Vec<(Offset, Bytes)> {
    let reader = replica.log().reader();
    let found = reader.batches(from.max(reader.start_offset()), reader.end());
    found.map(|batch| batch.unwrap()).map(|(header, bytes)| (header.base_offset, bytes)).collect()
}

/// The values of all records below `upto`.
pub(crate) fn values_below(replica: &Replica, upto: Offset) -> Vec<String> {
    let mut values = Vec::new();
    for (_, bytes) in batches(replica, Offset::ZERO) {
        let header = BatchHeader::parse(&bytes).unwrap();
        for record in records(&header, &bytes, Decompress { max_bytes: 1 << 20 }).unwrap() {
            let record = record.unwrap();
            if record.offset < upto {
                values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
            }
        }
    }
    values
}

impl Cluster {
    pub(crate) fn new(durability: Durability, min_insync_replicas: usize) -> Cluster {
        Cluster::seeded(durability, min_insync_replicas, 0)
    }

    /// The seed decides what a power cut keeps.
    pub(crate) fn seeded(durability: Durability, min_insync_replicas: usize, seed: u64) -> Cluster {
        let settings = settings(durability, min_insync_replicas);
        Cluster {
            brokers: (1..=3).map(|id| Broker::new(id, settings, seed << 8)).collect(),
            committed: Assignment {
                leader: None,
                leader_epoch: LeaderEpoch(0),
                partition_epoch: 0,
                replicas: ids(&[1, 2, 3]),
                adding: ids(&[]),
                isr: ids(&[1, 2, 3]),
                recovering: false,
            },
            now: Tick(1000),
            settings,
            effects: Vec::new(),
        }
    }

    pub(crate) fn broker(&mut self, id: i32) -> &mut Broker {
        self.brokers.iter_mut().find(|broker| broker.id.0 == id).unwrap()
    }

    pub(crate) fn replica(&mut self, id: i32) -> &mut Replica {
        &mut self.broker(id).replica
    }

    pub(crate) fn high_watermark(&mut self, id: i32) -> i64 {
        self.replica(id).high_watermark().offset.0
    }

    pub(crate) fn end(&mut self, id: i32) -> i64 {
        self.replica(id).log().end().offset.0
    }

    pub(crate) fn values(&mut self, id: i32) -> Vec<String> {
        values_below(self.replica(id), Offset(i64::MAX))
    }

    /// The controller elects a leader and commits an ISR. Nobody has heard of it yet.
    pub(crate) fn elect(&mut self, leader: i32, isr: &[i32]) {
        self.committed.leader = Some(BrokerId(leader));
        self.committed.leader_epoch.0 += 1;
        self.commit_isr(isr);
    }

    /// The controller commits an ISR. Nobody has heard of it yet.
    pub(crate) fn commit_isr(&mut self, isr: &[i32]) {
        self.committed.isr = ids(isr);
        self.committed.partition_epoch += 1;
    }

    /// A broker hears of what is committed.
    pub(crate) fn tell(&mut self, id: i32) {
        let (now, committed, mut effects) = (self.now, self.committed.clone(), Vec::new());
        self.replica(id).assign(now, &committed, &mut effects).unwrap();
        self.note(id, effects);
    }

    /// The controller elects a leader, and everybody hears of it.
    pub(crate) fn lead(&mut self, leader: i32, isr: &[i32]) {
        self.elect(leader, isr);
        (1..=3).for_each(|id| self.tell(id));
    }

    fn note(&mut self, id: i32, effects: Vec<Effect>) {
        self.effects.extend(effects.into_iter().map(|effect| (id, effect)));
    }

    pub(crate) fn step(&mut self, id: i32, event: Event) {
        let (now, mut effects) = (self.now, Vec::new());
        self.replica(id).step(now, event, &mut effects);
        self.note(id, effects);
    }

    /// Time passes, and everybody notices.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now.0 += ms;
        (1..=3).for_each(|id| self.step(id, Event::Tick));
    }

    /// What is to be proposed to the controller, taken.
    pub(crate) fn proposal(&mut self) -> Option<(i32, IsrProposal)> {
        let at = self.effects.iter().position(|(_, effect)| matches!(effect, Effect::ProposeIsr(_)))?;
        match self.effects.remove(at) {
            (id, Effect::ProposeIsr(proposal)) => Some((id, proposal)),
            _ => None,
        }
    }

    /// Whether the minimum was reported as missed or met, in order.
    pub(crate) fn minimum_reports(&self) -> Vec<bool> {
        let reports = self.effects.iter().filter_map(|(_, effect)| match effect {
            Effect::IsrBelowMinimum(below) => Some(*below),
            Effect::ProposeIsr(_) => None,
        });
        reports.collect()
    }

    /// The controller commits what a leader proposes, and answers.
    pub(crate) fn grant(&mut self, (id, proposal): (i32, IsrProposal)) {
        assert_eq!(proposal.leader_epoch, self.committed.leader_epoch);
        assert_eq!(proposal.partition_epoch, self.committed.partition_epoch);
        self.committed.isr = proposal.isr.iter().map(|(broker, _)| *broker).collect();
        self.committed.recovering = proposal.recovering;
        self.committed.partition_epoch += 1;
        let answer = Ok(self.committed_isr());
        self.step(id, Event::IsrAnswered(answer));
    }

    /// What the controller answers to who proposed what is committed.
    pub(crate) fn committed_isr(&self) -> CommittedIsr {
        let Assignment { leader, leader_epoch, partition_epoch, isr, recovering, .. } = self.committed.clone();
        CommittedIsr { leader, leader_epoch, partition_epoch, isr, recovering }
    }

    pub(crate) fn refuse(&mut self, id: i32, refusal: IsrRefusal) {
        self.step(id, Event::IsrAnswered(Err(refusal)));
    }

    pub(crate) fn try_append(&mut self, id: i32, batch: ProducedBatch) -> Outcome {
        let mut outcomes = Vec::new();
        self.replica(id).append(&[batch], NOW, &mut outcomes);
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0)
    }

    /// Appends a batch at a leader; where it begins.
    pub(crate) fn append(&mut self, id: i32, values: &[&str]) -> i64 {
        let outcome = self.try_append(id, batch(values));
        match outcome {
            Outcome::Appended { base_offset, .. } => base_offset.0,
            other => panic!("not appended: {other:?}"),
        }
    }

    pub(crate) fn sync(&mut self, id: i32) {
        if let Some(plan) = self.replica(id).begin_sync() {
            let result = plan.run();
            self.replica(id).complete_sync(plan, result).unwrap();
        }
    }

    /// What a leader answers to a Fetch; `None` where it refuses it for its epoch or role, or offset above the end.
    pub(crate) fn answer(&mut self, position: &FetchPosition, from: i32, eligible: bool) -> Option<Fetched> {
        let broker_epoch = self.broker(from).epoch;
        let leader = position.leader.0;
        let replica = self.replica(leader);
        if replica.role() != Role::Leader || replica.check_epoch(position.leader_epoch).is_err() {
            return None;
        }
        let log_start = replica.log().start();
        let mut answer = Fetched {
            leader_epoch: position.leader_epoch,
            from: position.offset,
            last_epoch: position.last_epoch,
            records: Bytes::new(),
            high_watermark: replica.high_watermark().offset,
            log_start,
            diverging: replica.divergence(position.offset, position.last_epoch, position.log_start),
        };
        if answer.diverging.is_some() || position.offset < log_start {
            return Some(answer);
        }
        if position.offset > replica.log().end().offset {
            return None;
        }
        let (broker, fetch, durable) = (BrokerId(from), position.offset, position.durable);
        self.step(leader, Event::FollowerFetched { broker, broker_epoch, fetch, durable, eligible });
        let replica = self.replica(leader);
        let reader = replica.log().reader();
        answer.high_watermark = replica.high_watermark().offset;
        answer.records = reader.read(position.offset, reader.end(), 700, true).unwrap().read().unwrap();
        Some(answer)
    }

    /// One Fetch of a follower, there and back.
    pub(crate) fn fetch(&mut self, id: i32) -> FetchOutcome {
        let position = self.replica(id).fetch_position().unwrap();
        let answer = self.answer(&position, id, true).unwrap();
        self.replica(id).append_fetched(&answer, NOW).unwrap()
    }

    /// Fetches until there is nothing new, and once more, which tells the leader.
    pub(crate) fn catch_up(&mut self, id: i32) {
        for _ in 0..100 {
            let before = (self.end(id), self.replica(id).log().start());
            let outcome = self.fetch(id);
            self.sync(id);
            if outcome == FetchOutcome::Taken && before == (self.end(id), self.replica(id).log().start()) {
                return;
            }
        }
        panic!("broker {id} never caught up");
    }

    /// The power of a broker fails; it starts again with what its disk kept.
    pub(crate) fn crash(&mut self, id: i32) {
        let settings = self.settings;
        let broker = self.broker(id);
        let sim = broker.sim.crash();
        broker.restart(sim, settings);
    }
}
