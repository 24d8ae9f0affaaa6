//! A cluster whose log is a `Vec`: what a node does with the machine, without the node.

use ottla_metadata::{
    AlteredConfigs, BrokerRegistration, Command, ConfigAlteration, CreatedTopic, Image, IncrementalAlteration,
    Listener, NewTopic, Record, Refusal, Reply, Topic,
    config::{Operation, Settings, TopicConfig},
    decide,
};
use ottla_types::{BrokerEpoch, BrokerId, Timestamp};

pub(crate) struct Cluster {
    pub(crate) image: Image,
    pub(crate) settings: Settings,
    pub(crate) log: Vec<Record>,
    draws: u64,
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

pub(crate) fn registration(id: i32, incarnation: u8, clean: bool) -> BrokerRegistration {
    let listener =
        Listener { name: "PLAINTEXT".to_owned(), host: "localhost".to_owned(), port: 9092, security_protocol: 0 };
    BrokerRegistration {
        id: BrokerId(id),
        incarnation: [incarnation; 16],
        rack: Some("here".into()),
        listeners: vec![listener].into(),
        clean,
    }
}

impl Cluster {
    /// A bootstrapped cluster of the brokers 1 to `brokers`.
    pub(crate) fn of(brokers: i32) -> Cluster {
        Cluster::with(brokers, &[])
    }

    pub(crate) fn with(brokers: i32, pairs: &[(&str, &str)]) -> Cluster {
        let mut cluster = Cluster { image: Image::default(), settings: settings(pairs), log: Vec::new(), draws: 0 };
        cluster.run(Command::Bootstrap).unwrap();
        for id in 1..=brokers {
            cluster.register(registration(id, 1, true));
        }
        cluster
    }

    /// Decides, and commits what was decided.
    pub(crate) fn run(&mut self, command: Command) -> Result<Reply, Refusal> {
        let draws = &mut self.draws;
        let mut entropy = || {
            *draws += 1;
            u128::from(*draws).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()
        };
        let (records, reply) =
            decide(&self.image, &self.settings, Timestamp(1_700_000_000_000), &mut entropy, command)?;
        for record in records {
            self.image.apply(&record);
            self.log.push(record);
        }
        Ok(reply)
    }

    pub(crate) fn register(&mut self, registration: BrokerRegistration) -> BrokerEpoch {
        match self.run(Command::RegisterBroker(registration)) {
            Ok(Reply::BrokerRegistered(epoch)) => epoch,
            other => panic!("{other:?}"),
        }
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
