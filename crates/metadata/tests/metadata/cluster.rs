//! A cluster whose log is a `Vec`: what a node does with the machine, without the node. After every command the
//! invariants of the cluster are checked.

use std::sync::Arc;

use ottla_metadata::{
    AlteredConfigs, Broker, BrokerFeature, BrokerRegistration, CleanEnd, Command, ConfigAlteration, CreatedTopic,
    FeatureChange, FeatureUpdate, Image, IncrementalAlteration, IsrChange, Listener, NewTopic, OTTLA_VERSION,
    Partition, Record, Refusal, Reply, Topic,
    config::{Operation, Settings, TopicConfig},
    decide,
};
use ottla_types::{BrokerEpoch, BrokerId, PartitionIndex, Timestamp};

use crate::invariants;

pub(crate) struct Cluster {
    pub(crate) image: Image,
    pub(crate) settings: Settings,
    pub(crate) log: Vec<Record>,
    draws: u64,
    incarnations: u8,
}

/// Static settings from pairs that must be right.
pub(crate) fn settings(pairs: &[(&str, &str)]) -> Settings {
    let pairs = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    let (settings, warnings) = Settings::check(pairs).unwrap();
    assert_eq!(warnings, []);
    settings
}

pub(crate) fn topic(name: &str) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions: -1, replication_factor: -1, ..NewTopic::default() }
}

/// A topic of that shape.
pub(crate) fn sized(name: &str, partitions: i32, replication_factor: i16) -> NewTopic {
    NewTopic { partitions, replication_factor, ..topic(name) }
}

/// A topic whose partitions lie on these brokers.
pub(crate) fn by_hand(name: &str, assignments: &[(i32, &[i32])]) -> NewTopic {
    let one = |(index, brokers): &(i32, &[i32])| (PartitionIndex(*index), ids(brokers));
    NewTopic { assignments: assignments.iter().map(one).collect(), ..topic(name) }
}

pub(crate) fn ids(brokers: &[i32]) -> Vec<BrokerId> {
    brokers.iter().copied().map(BrokerId).collect()
}

/// The directory that a broker has unless a test says otherwise.
pub(crate) fn directory(id: i32) -> [u8; 16] {
    [(100 + id) as u8; 16]
}

/// A start without proof of a clean end.
pub(crate) fn registration(id: i32, incarnation: u8) -> BrokerRegistration {
    let listener =
        Listener { name: "PLAINTEXT".to_owned(), host: "localhost".to_owned(), port: 9092, security_protocol: 0 };
    BrokerRegistration {
        id: Some(BrokerId(id)),
        directory: directory(id),
        incarnation: [incarnation; 16],
        rack: Some("here".into()),
        listeners: vec![listener].into(),
        ended: CleanEnd::default(),
        alone: false,
        features: features(OTTLA_VERSION.max),
    }
}

/// The proof that the run of that registration ended cleanly.
pub(crate) fn ended_as(epoch: Option<BrokerEpoch>) -> CleanEnd {
    CleanEnd { epoch, ..CleanEnd::default() }
}

/// What a broker serves whose version goes up to that level of Ottla's own forms.
pub(crate) fn features(highest: i16) -> Arc<[BrokerFeature]> {
    Settings::default().with_highest_level(highest).supported_features().map(BrokerFeature::from).collect()
}

impl Cluster {
    /// A bootstrapped cluster of the brokers 1 to `brokers`, all of them live.
    pub(crate) fn of(brokers: i32) -> Cluster {
        Cluster::with(brokers, &[])
    }

    pub(crate) fn with(brokers: i32, pairs: &[(&str, &str)]) -> Cluster {
        let (settings, log) = (settings(pairs), Vec::new());
        let mut cluster = Cluster { image: Image::default(), settings, log, draws: 0, incarnations: 0 };
        cluster.run(Command::Bootstrap).unwrap();
        (1..=brokers).for_each(|id| cluster.start(id, false));
        cluster
    }

    /// A cluster that a version founded which knew no levels, of brokers of the newest version.
    pub(crate) fn at_level_1(brokers: i32) -> Cluster {
        let mut cluster = Cluster::of(0);
        cluster.log.retain(|record| !matches!(record, Record::FeatureLevel { name, .. } if name == OTTLA_VERSION.name));
        cluster.image = Image::default();
        cluster.log.iter().for_each(|record| cluster.image.apply(record));
        (1..=brokers).for_each(|id| cluster.start(id, false));
        cluster
    }

    /// Brokers that stand in these racks; the first is number 1.
    pub(crate) fn in_racks(racks: &[&str]) -> Cluster {
        let mut cluster = Cluster::of(0);
        for (id, rack) in (1..).zip(racks) {
            let incarnation = cluster.incarnation();
            let rack = Some((*rack).into());
            cluster.register(BrokerRegistration { rack, ..registration(id, incarnation) }).unwrap();
            cluster.unfence(id);
        }
        cluster
    }

    pub(crate) fn incarnation(&mut self) -> u8 {
        self.incarnations += 1;
        self.incarnations
    }

    /// Decides, and commits what was decided.
    pub(crate) fn run(&mut self, command: Command) -> Result<Reply, Refusal> {
        let draws = &mut self.draws;
        let mut entropy = || {
            *draws += 1;
            u128::from(*draws).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()
        };
        let (records, reply) =
            decide(&self.image, &self.settings, Timestamp(1_700_000_000_000), &mut entropy, command.clone())?;
        let before = self.image.clone();
        for record in records {
            self.image.apply(&record);
            assert!(record.level() <= self.image.level(), "{record:?} at level {}", self.image.level());
            self.log.push(record);
        }
        invariants::check(&before, &self.image, &self.settings, &command);
        Ok(reply)
    }

    pub(crate) fn register(&mut self, registration: BrokerRegistration) -> Result<(BrokerId, BrokerEpoch), Refusal> {
        match self.run(Command::RegisterBroker(registration))? {
            Reply::BrokerRegistered { id, epoch } => Ok((id, epoch)),
            other => panic!("{other:?}"),
        }
    }

    /// A broker's process starts, after its last one ended, and catches up.
    pub(crate) fn start(&mut self, id: i32, clean: bool) {
        self.begin_start(id, clean);
        self.unfence(id);
    }

    /// The same, without catching up.
    pub(crate) fn begin_start(&mut self, id: i32, clean: bool) {
        let known = self.image.broker(BrokerId(id)).cloned();
        if known.is_some() && !clean {
            self.fence(id);
        }
        let ended = ended_as(known.filter(|_| clean).map(|known| known.epoch));
        let registration = BrokerRegistration { ended, ..registration(id, self.incarnation()) };
        self.register(registration).unwrap();
    }

    pub(crate) fn epoch(&self, id: i32) -> BrokerEpoch {
        self.image.broker(BrokerId(id)).unwrap().epoch
    }

    pub(crate) fn fence(&mut self, id: i32) {
        let epoch = self.epoch(id);
        self.run(Command::FenceBroker { id: BrokerId(id), epoch }).unwrap();
    }

    pub(crate) fn unfence(&mut self, id: i32) {
        let epoch = self.epoch(id);
        self.run(Command::UnfenceBroker { id: BrokerId(id), epoch }).unwrap();
    }

    /// How many leaderships the broker has left.
    pub(crate) fn shut_down(&mut self, id: i32) -> usize {
        let epoch = self.epoch(id);
        match self.run(Command::BeginShutdown { id: BrokerId(id), epoch }) {
            Ok(Reply::ShuttingDown { leaderships }) => leaderships,
            other => panic!("{other:?}"),
        }
    }

    /// The command that raises a feature, where every broker has said in its heartbeats that it serves all there is.
    pub(crate) fn raise(&self, feature: &str, level: i16) -> Command {
        let update = FeatureUpdate { name: feature.to_owned(), level, change: FeatureChange::Upgrade };
        let said = |broker: &Arc<Broker>| (broker.id, (broker.epoch, features(OTTLA_VERSION.max)));
        let reported = self.image.brokers().map(said).collect();
        Command::UpdateFeatures { updates: vec![update], validate_only: false, reported }
    }

    pub(crate) fn partition(&self, topic: &str, index: i32) -> &Partition {
        self.topic(topic).partition(PartitionIndex(index)).unwrap()
    }

    /// What the leader of a partition would send to have this ISR.
    pub(crate) fn isr_change(&self, topic: &str, index: i32, isr: &[i32]) -> IsrChange {
        let partition = self.partition(topic, index);
        IsrChange {
            topic: self.topic(topic).id,
            index: PartitionIndex(index),
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: isr.iter().map(|&id| (BrokerId(id), self.epoch(id))).collect(),
            recovering: false,
        }
    }

    pub(crate) fn send(&mut self, from: i32, change: IsrChange) -> Result<Partition, Refusal> {
        let epoch = self.epoch(from);
        match self.run(Command::AlterPartitions { broker: BrokerId(from), epoch, changes: vec![change] })? {
            Reply::PartitionsAltered(rows) => rows.into_iter().next().unwrap().1,
            other => panic!("{other:?}"),
        }
    }

    /// The leader of a partition has its ISR changed.
    pub(crate) fn set_isr(&mut self, topic: &str, index: i32, isr: &[i32]) -> Result<Partition, Refusal> {
        let leader = self.partition(topic, index).leader.unwrap().0;
        self.send(leader, self.isr_change(topic, index, isr))
    }

    pub(crate) fn create(&mut self, topics: Vec<NewTopic>, validate_only: bool) -> Vec<Result<CreatedTopic, Refusal>> {
        match self.run(Command::CreateTopics { topics, validate_only }) {
            Ok(Reply::TopicsCreated(rows)) => rows.into_iter().map(|(_, result)| result).collect(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn create_one(&mut self, topic: NewTopic) -> Result<CreatedTopic, Refusal> {
        let [result] = self.create(vec![topic], false).try_into().unwrap();
        result
    }

    pub(crate) fn topic(&self, name: &str) -> &Topic {
        self.image.topic_named(name).unwrap()
    }

    pub(crate) fn topic_config(&self, name: &str) -> TopicConfig {
        let layers = self.image.layers(BrokerId(1), &self.settings);
        TopicConfig::resolve(&layers).with_overrides(&self.topic(name).overrides)
    }

    /// IncrementalAlterConfigs on one resource.
    pub(crate) fn alter(&mut self, resource: AlteredConfigs, operations: &[(&str, Operation)]) -> Result<(), Refusal> {
        let operations = operations.iter().map(|(key, operation)| (key.to_string(), Some(operation.clone()))).collect();
        let resources = vec![IncrementalAlteration { resource, operations }];
        match self.run(Command::IncrementalAlterConfigs { resources, validate_only: false }) {
            Ok(Reply::ConfigsAltered(rows)) => rows.into_iter().next().unwrap().1,
            other => panic!("{other:?}"),
        }
    }

    /// AlterConfigs on one resource.
    pub(crate) fn replace(&mut self, resource: AlteredConfigs, configs: &[(&str, &str)]) -> Result<(), Refusal> {
        let configs = configs.iter().map(|(key, value)| (key.to_string(), Some(value.to_string()))).collect();
        let resources = vec![ConfigAlteration { resource, configs }];
        match self.run(Command::AlterConfigs { resources, validate_only: false }) {
            Ok(Reply::ConfigsAltered(rows)) => rows.into_iter().next().unwrap().1,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn set(value: &str) -> Operation {
    Operation::Set(value.to_owned())
}

pub(crate) fn on_topic(name: &str) -> AlteredConfigs {
    AlteredConfigs::Topic(name.to_owned())
}

pub(crate) const ALL_BROKERS: AlteredConfigs = AlteredConfigs::Broker(None);
