//! What the records add up to: the cluster at one offset of its log.
//!
//! Every part is shared, so a clone costs a few reference counts however many partitions there are; the node applies
//! records to a clone and publishes it whole. What is not here: any decision (`decide.rs`), any byte
//! (`record/codec.rs`), and what the parts are (`broker.rs`, `topic.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, Timestamp, TopicId};

use crate::{
    Broker, ConfigResource, OTTLA_VERSION, Partition, Record, Topic,
    config::{Layers, Overrides, Settings},
    name::metric_name,
};

/// The cluster at one offset of its metadata log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    cluster_id: Option<Arc<str>>,
    features: Arc<BTreeMap<String, i16>>,
    brokers: Arc<BTreeMap<BrokerId, Arc<Broker>>>,
    /// Numbers that are not given out again. Invariant: none of them is in `brokers`.
    former_brokers: Arc<BTreeSet<BrokerId>>,
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
            Record::BrokerRegistered {
                id,
                epoch,
                incarnation,
                directory,
                rack,
                listeners,
                registered,
                fenced,
                features,
            } => {
                self.register(Broker {
                    id: *id,
                    epoch: *epoch,
                    incarnation: *incarnation,
                    directory: *directory,
                    rack: rack.clone(),
                    listeners: listeners.clone(),
                    registered: *registered,
                    features: features.clone(),
                    fenced: *fenced,
                    shutting_down: false,
                    draining: self.broker(*id).is_some_and(|known| known.draining),
                });
            }
            Record::BrokerChanged { id, fenced, shutting_down, draining } => {
                if let Some(broker) = Arc::make_mut(&mut self.brokers).get_mut(id) {
                    let broker = Arc::make_mut(broker);
                    (broker.fenced, broker.shutting_down, broker.draining) = (*fenced, *shutting_down, *draining);
                }
            }
            Record::BrokerUnregistered { id } => {
                Arc::make_mut(&mut self.brokers).remove(id);
                Arc::make_mut(&mut self.former_brokers).insert(*id);
            }
            Record::BrokerRestartedUncleanly { id } => self.begin_new_epochs(*id),
            Record::TopicCreated { id, name, created } => self.create_topic(*id, name, *created),
            Record::PartitionCreated { topic, index, partition } => self.create_partition(*topic, *index, partition),
            Record::PartitionChanged { topic, index, partition } => self.change_partition(*topic, *index, partition),
            Record::TopicSynced { id, since } => {
                if let Some(topic) = Arc::make_mut(&mut self.topics).get_mut(id) {
                    Arc::make_mut(topic).synced_since = *since;
                }
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
        records.extend(self.brokers.values().flat_map(|broker| broker_records(broker)));
        records.extend(self.former_brokers.iter().map(|id| Record::BrokerUnregistered { id: *id }));
        for topic in self.topics.values() {
            push_topic(topic, &mut records);
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

    /// The level of a feature: 0 if it is not used.
    pub fn level_of(&self, feature: &str) -> i16 {
        let unset = if feature == OTTLA_VERSION.name { 1 } else { 0 };
        self.features.get(feature).copied().unwrap_or(unset)
    }

    /// The level of [`OTTLA_VERSION`], from 1 on: what may be written down.
    pub fn level(&self) -> i16 {
        self.level_of(OTTLA_VERSION.name)
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

    /// The brokers that may lead and be in sync, by number.
    pub fn live_brokers(&self) -> impl Iterator<Item = &Arc<Broker>> {
        self.brokers().filter(|broker| broker.is_live())
    }

    /// Whether the broker is registered and may lead and be in sync.
    pub fn is_live(&self, id: BrokerId) -> bool {
        self.broker(id).is_some_and(|broker| broker.is_live())
    }

    /// The broker whose copies lie in that data directory.
    pub(crate) fn broker_in(&self, directory: [u8; 16]) -> Option<&Arc<Broker>> {
        self.brokers().find(|broker| broker.directory == directory)
    }

    /// The smallest number from 1 on that no broker has or had.
    pub(crate) fn next_broker_id(&self) -> BrokerId {
        let taken = |id: &BrokerId| self.brokers.contains_key(id) || self.former_brokers.contains(id);
        (1..).map(BrokerId).find(|id| !taken(id)).unwrap_or_default()
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

    /// Every partition of every topic, sorted by the topics' names.
    pub fn partitions(&self) -> impl Iterator<Item = (&Arc<Topic>, PartitionIndex, &Partition)> {
        self.topics().flat_map(|topic| topic.numbered().map(move |(index, partition)| (topic, index, partition)))
    }

    /// The partitions a broker holds, or is to hold. Looks at all there are: some 100 µs for 10,000.
    pub fn partitions_of(&self, broker: BrokerId) -> impl Iterator<Item = (&Arc<Topic>, PartitionIndex, &Partition)> {
        self.partitions().filter(move |(.., partition)| partition.replicas.contains(&broker))
    }

    /// The partitions a broker leads; looks at all there are.
    pub fn led_by(&self, broker: BrokerId) -> impl Iterator<Item = (&Arc<Topic>, PartitionIndex, &Partition)> {
        self.partitions().filter(move |(.., partition)| partition.leader == Some(broker))
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

    fn register(&mut self, broker: Broker) {
        if self.former_brokers.contains(&broker.id) {
            Arc::make_mut(&mut self.former_brokers).remove(&broker.id);
        }
        Arc::make_mut(&mut self.brokers).insert(broker.id, Arc::new(broker));
    }

    fn create_topic(&mut self, id: TopicId, name: &Arc<str>, created: Timestamp) {
        if self.topics.contains_key(&id) || self.names.contains_key(name) {
            return;
        }
        let (partitions, overrides, synced_since) = (Vec::new(), Overrides::new(), BrokerEpoch::default());
        let topic = Topic { id, name: name.clone(), created, partitions, overrides, synced_since };
        Arc::make_mut(&mut self.topics).insert(id, Arc::new(topic));
        Arc::make_mut(&mut self.names).insert(name.clone(), id);
        if let Some(metric_name) = metric_name(name) {
            Arc::make_mut(&mut self.metric_names).insert((metric_name, name.clone()));
        }
    }

    fn create_partition(&mut self, topic: TopicId, index: PartitionIndex, partition: &Partition) {
        let Some(topic) = Arc::make_mut(&mut self.topics).get_mut(&topic) else { return };
        if usize::try_from(index.0) == Ok(topic.partitions.len()) {
            Arc::make_mut(topic).partitions.push(partition.clone());
        }
    }

    fn change_partition(&mut self, topic: TopicId, index: PartitionIndex, partition: &Partition) {
        let Some(topic) = Arc::make_mut(&mut self.topics).get_mut(&topic) else { return };
        let Ok(index) = usize::try_from(index.0) else { return };
        if index < topic.partitions.len()
            && let Some(changed) = Arc::make_mut(topic).partitions.get_mut(index)
        {
            changed.clone_from(partition);
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
            if !topic.partitions.iter().any(|partition| partition.leader == Some(leader)) {
                continue;
            }
            for partition in Arc::make_mut(topic).partitions.iter_mut().filter(|led| led.leader == Some(leader)) {
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

/// A broker as it is.
pub(crate) fn broker_records(broker: &Broker) -> impl Iterator<Item = Record> {
    let Broker { id, fenced, shutting_down, draining, .. } = *broker;
    let registered = Record::BrokerRegistered {
        id,
        epoch: broker.epoch,
        incarnation: broker.incarnation,
        directory: broker.directory,
        rack: broker.rack.clone(),
        listeners: broker.listeners.clone(),
        registered: broker.registered,
        fenced,
        features: broker.features.clone(),
    };
    let changed = Record::BrokerChanged { id, fenced, shutting_down, draining };
    [Some(registered), (shutting_down || draining).then_some(changed)].into_iter().flatten()
}

fn push_topic(topic: &Topic, records: &mut Vec<Record>) {
    records.push(Record::TopicCreated { id: topic.id, name: topic.name.clone(), created: topic.created });
    records.extend(topic.numbered().map(|(index, partition)| Record::PartitionCreated {
        topic: topic.id,
        index,
        partition: partition.clone(),
    }));
    push_configs(&ConfigResource::Topic(topic.id), &topic.overrides, records);
    if topic.synced_since != BrokerEpoch::default() {
        records.push(Record::TopicSynced { id: topic.id, since: topic.synced_since });
    }
}

fn push_configs(resource: &ConfigResource, configs: &Overrides, records: &mut Vec<Record>) {
    let set = |(key, value): (&String, &String)| {
        let resource = resource.clone();
        Record::ConfigSet { resource, key: key.clone(), value: value.clone() }
    };
    records.extend(configs.iter().map(set));
}
