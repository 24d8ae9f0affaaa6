//! What the records add up to: the cluster at one offset of its log.
//!
//! Every part is shared, so a clone costs a few reference counts however many partitions there are; the node applies
//! records to a clone and publishes it whole. What is not here: any decision (`decide.rs`), any byte (`record.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, Timestamp, TopicId};

use crate::{
    ConfigResource, Listener, Record,
    config::{Layers, Overrides, Settings},
    name::metric_name,
};

/// The cluster at one offset of its metadata log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    cluster_id: Option<Arc<str>>,
    features: Arc<BTreeMap<String, i16>>,
    brokers: Arc<BTreeMap<BrokerId, Arc<Broker>>>,
    topics: Arc<BTreeMap<TopicId, Arc<Topic>>>,
    /// Invariant: holds exactly the names of `topics`.
    names: Arc<BTreeMap<Arc<str>, TopicId>>,
    /// Invariant: holds exactly the names of `names` that have a metric name, behind it.
    metric_names: Arc<BTreeSet<(String, Arc<str>)>>,
    broker_configs: Arc<BTreeMap<BrokerId, Overrides>>,
    cluster_configs: Arc<Overrides>,
    group_configs: Arc<BTreeMap<Arc<str>, Overrides>>,
    producer_ids: ProducerIds,
    offset: Offset,
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its number.
    pub id: BrokerId,
    /// Its latest registration.
    pub epoch: BrokerEpoch,
    /// The process that registered.
    pub incarnation: [u8; 16],
    /// Where it stands.
    pub rack: Option<Arc<str>>,
    /// Where it can be reached.
    pub listeners: Arc<[Listener]>,
    /// When it registered, by the controller's wall clock.
    pub registered: Timestamp,
}

/// A topic with its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// When it was created, by the controller's wall clock.
    pub created: Timestamp,
    /// Its partitions by number.
    pub partitions: Vec<Partition>,
    /// The configs set on it.
    pub overrides: Overrides,
}

/// One partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Arc<[BrokerId]>,
    /// Those of them in sync.
    pub isr: Arc<[BrokerId]>,
    /// The one that takes writes.
    pub leader: BrokerId,
    /// Rises with each leadership and each unclean restart of the leader.
    pub leader_epoch: LeaderEpoch,
    /// Rises with each change of the above.
    pub partition_epoch: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProducerIds {
    broker: BrokerId,
    next: ProducerId,
}

impl Default for ProducerIds {
    fn default() -> Self {
        ProducerIds { broker: BrokerId(-1), next: ProducerId(0) }
    }
}

static NO_CONFIGS: Overrides = Overrides::new();

impl Image {
    /// Adds one fact. A record that makes no sense (a partition of a topic that is gone) changes nothing but the
    /// offset: two brokers that read the same log hold the same image whatever it says (rule M5).
    pub fn apply(&mut self, record: &Record) {
        self.offset = Offset(self.offset.0.saturating_add(1));
        match record {
            Record::ClusterRegistered { cluster_id } => self.cluster_id = Some(cluster_id.clone()),
            Record::FeatureLevel { name, level } => {
                let features = Arc::make_mut(&mut self.features);
                match level {
                    0 => features.remove(name),
                    _ => features.insert(name.clone(), *level),
                };
            }
            Record::BrokerRegistered { id, epoch, incarnation, rack, listeners, registered } => {
                let broker = Broker {
                    id: *id,
                    epoch: *epoch,
                    incarnation: *incarnation,
                    rack: rack.clone(),
                    listeners: listeners.clone(),
                    registered: *registered,
                };
                Arc::make_mut(&mut self.brokers).insert(*id, Arc::new(broker));
            }
            Record::BrokerRestartedUncleanly { id } => self.begin_new_epochs(*id),
            Record::TopicCreated { id, name, created } => self.create_topic(*id, name, *created),
            Record::PartitionCreated { topic, index, replicas, isr, leader, leader_epoch, partition_epoch } => {
                let partition = Partition {
                    replicas: replicas.clone(),
                    // Nearly always the same brokers: then they are stored once.
                    isr: if isr == replicas { replicas.clone() } else { isr.clone() },
                    leader: *leader,
                    leader_epoch: *leader_epoch,
                    partition_epoch: *partition_epoch,
                };
                self.create_partition(*topic, *index, partition);
            }
            Record::TopicDeleted { id } => self.delete_topic(*id),
            Record::ConfigSet { resource, key, value } => self.change_config(resource, |configs| {
                configs.insert(key.clone(), value.clone());
            }),
            Record::ConfigRemoved { resource, key } => self.change_config(resource, |configs| {
                configs.remove(key);
            }),
            Record::ProducerIdsAllocated { broker, next } => {
                self.producer_ids = ProducerIds { broker: *broker, next: self.producer_ids.next.max(*next) };
            }
            Record::SnapshotEnd { offset } => self.offset = *offset,
        }
    }

    /// This image as records: applied to an empty image they give an equal one, its offset included (rule M5). The last
    /// is [`Record::SnapshotEnd`]; a snapshot without it is not whole.
    pub fn to_records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        if let Some(cluster_id) = &self.cluster_id {
            records.push(Record::ClusterRegistered { cluster_id: cluster_id.clone() });
        }
        let features = self.features.iter();
        records.extend(features.map(|(name, level)| Record::FeatureLevel { name: name.clone(), level: *level }));
        records.extend(self.brokers.values().map(|broker| Record::BrokerRegistered {
            id: broker.id,
            epoch: broker.epoch,
            incarnation: broker.incarnation,
            rack: broker.rack.clone(),
            listeners: broker.listeners.clone(),
            registered: broker.registered,
        }));
        for topic in self.topics.values() {
            topic.push_records(&mut records);
        }
        for (id, configs) in self.broker_configs.iter() {
            push_configs(&ConfigResource::Broker(*id), configs, &mut records);
        }
        push_configs(&ConfigResource::DefaultBroker, &self.cluster_configs, &mut records);
        for (id, configs) in self.group_configs.iter() {
            push_configs(&ConfigResource::Group(id.clone()), configs, &mut records);
        }
        if self.producer_ids != ProducerIds::default() {
            let ProducerIds { broker, next } = self.producer_ids;
            records.push(Record::ProducerIdsAllocated { broker, next });
        }
        records.push(Record::SnapshotEnd { offset: self.offset });
        records
    }

    /// The cluster's id; `None` before the cluster is bootstrapped.
    pub fn cluster_id(&self) -> Option<&Arc<str>> {
        self.cluster_id.as_ref()
    }

    /// The finalised feature levels by name.
    pub fn features(&self) -> &BTreeMap<String, i16> {
        &self.features
    }

    /// The epoch that goes with [`Image::features`] in ApiVersions: it never falls, which is all clients ask of it.
    pub fn features_epoch(&self) -> i64 {
        self.offset.0
    }

    /// The broker of that number.
    pub fn broker(&self, id: BrokerId) -> Option<&Arc<Broker>> {
        self.brokers.get(&id)
    }

    /// Every registered broker, by number.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &Arc<Broker>> {
        self.brokers.values()
    }

    /// The topic of that id.
    pub fn topic(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// The topic of that name.
    pub fn topic_named(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(name)?)
    }

    /// Every topic, sorted by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// A topic that Kafka's metrics call that (`name.rs`).
    pub(crate) fn topic_with_metric_name(&self, metric_name: &str) -> Option<&Arc<str>> {
        let from = (metric_name.to_owned(), Arc::from(""));
        self.metric_names.range(from..).next().filter(|(found, _)| found == metric_name).map(|(_, name)| name)
    }

    /// What is set at run time on one broker.
    pub fn broker_configs(&self, id: BrokerId) -> &Overrides {
        self.broker_configs.get(&id).unwrap_or(&NO_CONFIGS)
    }

    /// What is set at run time for all brokers.
    pub fn cluster_configs(&self) -> &Overrides {
        &self.cluster_configs
    }

    /// What is set on a group, by its id.
    pub fn group_configs(&self, id: &str) -> &Overrides {
        self.group_configs.get(id).unwrap_or(&NO_CONFIGS)
    }

    /// The groups something is set on, sorted by id.
    pub fn configured_groups(&self) -> impl Iterator<Item = &str> {
        self.group_configs.keys().map(|id| &**id)
    }

    /// The broker-level config layers as `broker` sees them, with its static settings below.
    pub fn layers<'a>(&'a self, broker: BrokerId, settings: &'a Settings) -> Layers<'a> {
        Layers { broker: self.broker_configs(broker), cluster: &self.cluster_configs, settings }
    }

    /// The newest broker epoch given; 0 before there is a broker.
    pub fn last_broker_epoch(&self) -> BrokerEpoch {
        self.brokers.values().map(|broker| broker.epoch).max().unwrap_or_default()
    }

    /// The first producer id nobody owns.
    pub fn next_producer_id(&self) -> ProducerId {
        self.producer_ids.next
    }

    /// The offset of the first record this image does not hold.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    fn create_topic(&mut self, id: TopicId, name: &Arc<str>, created: Timestamp) {
        if self.topics.contains_key(&id) || self.names.contains_key(name) {
            return;
        }
        let topic = Topic { id, name: name.clone(), created, partitions: Vec::new(), overrides: Overrides::new() };
        Arc::make_mut(&mut self.topics).insert(id, Arc::new(topic));
        Arc::make_mut(&mut self.names).insert(name.clone(), id);
        if let Some(metric_name) = metric_name(name) {
            Arc::make_mut(&mut self.metric_names).insert((metric_name, name.clone()));
        }
    }

    fn create_partition(&mut self, topic: TopicId, index: PartitionIndex, partition: Partition) {
        let Some(topic) = Arc::make_mut(&mut self.topics).get_mut(&topic) else { return };
        if usize::try_from(index.0) == Ok(topic.partitions.len()) {
            Arc::make_mut(topic).partitions.push(partition);
        }
    }

    fn delete_topic(&mut self, id: TopicId) {
        if let Some(topic) = Arc::make_mut(&mut self.topics).remove(&id) {
            Arc::make_mut(&mut self.names).remove(&topic.name);
            if let Some(metric_name) = metric_name(&topic.name) {
                Arc::make_mut(&mut self.metric_names).remove(&(metric_name, topic.name.clone()));
            }
        }
    }

    fn begin_new_epochs(&mut self, leader: BrokerId) {
        for topic in Arc::make_mut(&mut self.topics).values_mut() {
            if !topic.partitions.iter().any(|partition| partition.leader == leader) {
                continue;
            }
            for partition in Arc::make_mut(topic).partitions.iter_mut().filter(|led| led.leader == leader) {
                partition.leader_epoch = LeaderEpoch(partition.leader_epoch.0.saturating_add(1));
                partition.partition_epoch = partition.partition_epoch.saturating_add(1);
            }
        }
    }

    fn change_config(&mut self, resource: &ConfigResource, change: impl FnOnce(&mut Overrides)) {
        match resource {
            ConfigResource::Topic(id) => {
                if let Some(topic) = Arc::make_mut(&mut self.topics).get_mut(id) {
                    change(&mut Arc::make_mut(topic).overrides);
                }
            }
            ConfigResource::Broker(id) => change_entry(&mut self.broker_configs, id, change),
            ConfigResource::DefaultBroker => change(Arc::make_mut(&mut self.cluster_configs)),
            ConfigResource::Group(id) => change_entry(&mut self.group_configs, id, change),
        }
    }
}

fn change_entry<K: Ord + Clone>(all: &mut Arc<BTreeMap<K, Overrides>>, id: &K, change: impl FnOnce(&mut Overrides)) {
    let all = Arc::make_mut(all);
    let configs = all.entry(id.clone()).or_default();
    change(configs);
    // An empty entry would not survive a snapshot.
    if configs.is_empty() {
        all.remove(id);
    }
}

impl Topic {
    /// The partition of that number.
    pub fn partition(&self, index: PartitionIndex) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }

    fn push_records(&self, records: &mut Vec<Record>) {
        records.push(Record::TopicCreated { id: self.id, name: self.name.clone(), created: self.created });
        records.extend((0..).zip(&self.partitions).map(|(index, partition)| Record::PartitionCreated {
            topic: self.id,
            index: PartitionIndex(index),
            replicas: partition.replicas.clone(),
            isr: partition.isr.clone(),
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
        }));
        push_configs(&ConfigResource::Topic(self.id), &self.overrides, records);
    }
}

fn push_configs(resource: &ConfigResource, configs: &Overrides, records: &mut Vec<Record>) {
    let set = |(key, value): (&String, &String)| {
        let resource = resource.clone();
        Record::ConfigSet { resource, key: key.clone(), value: value.clone() }
    };
    records.extend(configs.iter().map(set));
}
