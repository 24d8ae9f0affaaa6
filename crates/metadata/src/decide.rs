//! Who may change what: a command against an image gives the records that make it so, and the reply to send once they
//! are committed.
//!
//! Nothing here changes anything. What is not here: authorisation, waiting, and Kafka's error codes (the broker maps a
//! [`Refusal`]). Next: `decide/topics.rs`, `decide/configs.rs`, `decide/brokers.rs`.

mod brokers;
mod configs;
mod topics;

use std::sync::Arc;

use ottla_types::{BrokerEpoch, BrokerId, PartitionIndex, ProducerId, Timestamp, TopicId};

use crate::{
    Image, Listener, Record, Refusal,
    config::{Operation, Overrides, Settings},
};

/// Something a broker or a client wants to be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Gives a new cluster its id and its feature levels; does nothing to one that has them.
    Bootstrap,
    /// A broker starts. Answered with [`Reply::BrokerRegistered`].
    RegisterBroker(BrokerRegistration),
    /// A broker needs `count` producer ids (at least 1) to hand out. Answered with [`Reply::ProducerIds`].
    AllocateProducerIds {
        /// The broker.
        broker: BrokerId,
        /// Its registration, so that a replaced process is not served.
        epoch: BrokerEpoch,
        /// How many.
        count: u32,
    },
    /// Answered with [`Reply::TopicsCreated`], one row for each distinct name.
    CreateTopics {
        /// What to create.
        topics: Vec<NewTopic>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Groups need the topic of committed offsets: it is made as the group configs say, unless it is there. Answered
    /// with [`Reply::TopicsCreated`].
    CreateOffsetsTopic,
    /// Answered with [`Reply::TopicsDeleted`], one row for each distinct topic asked for.
    DeleteTopics {
        /// What to delete.
        topics: Vec<TopicRef>,
    },
    /// Answered with [`Reply::PartitionsCreated`], one row for each distinct name.
    CreatePartitions {
        /// What to grow.
        topics: Vec<NewPartitions>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Replaces all configs of each resource. Answered with [`Reply::ConfigsAltered`].
    AlterConfigs {
        /// What to change.
        resources: Vec<ConfigAlteration>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Changes some configs of each resource. Answered with [`Reply::ConfigsAltered`].
    IncrementalAlterConfigs {
        /// What to change.
        resources: Vec<IncrementalAlteration>,
        /// Only say what would happen.
        validate_only: bool,
    },
}

/// A broker that starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// Its number.
    pub id: BrokerId,
    /// Drawn at this start of the process.
    pub incarnation: [u8; 16],
    /// Where it stands.
    pub rack: Option<Arc<str>>,
    /// Where it can be reached.
    pub listeners: Arc<[Listener]>,
    /// Whether it has proof that it shut down cleanly last time (rules L6 and A2).
    pub clean: bool,
}

/// A topic to create.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; -1 for `num.partitions`.
    pub partitions: i32,
    /// How many replicas each; -1 for `default.replication.factor`.
    pub replication_factor: i16,
    /// The replicas of each partition by hand; empty to have them placed. With it, the two above must be -1.
    pub assignments: Vec<(PartitionIndex, Vec<BrokerId>)>,
    /// Its configs. A `None`, which the wire allows, is refused.
    pub configs: Vec<(String, Option<String>)>,
}

/// A topic by name or by id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicRef {
    /// By name.
    Name(String),
    /// By id.
    Id(TopicId),
}

/// A topic to grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPartitions {
    /// Its name.
    pub name: String,
    /// How many partitions it should have in all.
    pub count: i32,
    /// The replicas of each new partition by hand; `None` to have them placed.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

/// What configs are to be changed on, as a client names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlteredConfigs {
    /// A topic, by name.
    Topic(String),
    /// A broker, by number; `None` for the default of all brokers.
    Broker(Option<BrokerId>),
    /// A group, by id.
    Group(String),
}

/// All configs of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigAlteration {
    /// What to change.
    pub resource: AlteredConfigs,
    /// All it is to have. A `None`, which the wire allows, is refused.
    pub configs: Vec<(String, Option<String>)>,
}

/// Some configs of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncrementalAlteration {
    /// What to change.
    pub resource: AlteredConfigs,
    /// What to do with each config. A `None`, which the wire allows where a value is missing, is refused.
    pub operations: Vec<(String, Option<Operation>)>,
}

/// One answer for each distinct thing a command names, in the order of first mention.
pub type Rows<K, T> = Vec<(K, Result<T, Refusal>)>;

/// What to answer once the records are committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The cluster's id.
    Bootstrapped(Arc<str>),
    /// The broker's epoch.
    BrokerRegistered(BrokerEpoch),
    /// The ids from the first on, as many as were asked for.
    ProducerIds(ProducerId),
    /// A row for each distinct name.
    TopicsCreated(Rows<String, CreatedTopic>),
    /// A row for each distinct name or id.
    TopicsDeleted(Rows<TopicRef, DeletedTopic>),
    /// A row for each distinct name.
    PartitionsCreated(Rows<String, ()>),
    /// A row for each distinct resource.
    ConfigsAltered(Rows<AlteredConfigs, ()>),
}

/// A topic as CreateTopics v5+ reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id; zero if it was only validated.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: i32,
    /// How many replicas each has.
    pub replication_factor: i16,
    /// The configs set on it; [`crate::config::Layers::topic_entries`] makes the full list.
    pub overrides: Overrides,
}

/// A topic that is gone, by both its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its name.
    pub name: Arc<str>,
    /// Its id.
    pub id: TopicId,
}

/// Decides on one command.
///
/// `settings` are the static configs of the broker that decides (`num.partitions` and its like), `now` its wall clock,
/// and `entropy` draws 16 random bytes. Applying the records in order to `image` makes the reply true; a command that
/// was only validated, or changes nothing, gives none.
///
/// # Errors
/// A refusal of the whole command. Where Kafka answers by row, refusals are in the rows.
pub fn decide(
    image: &Image,
    settings: &Settings,
    now: Timestamp,
    entropy: &mut dyn FnMut() -> [u8; 16],
    command: Command,
) -> Result<(Vec<Record>, Reply), Refusal> {
    match command {
        Command::Bootstrap => Ok(brokers::bootstrap(image, entropy)),
        Command::RegisterBroker(registration) => brokers::register(image, now, registration),
        Command::AllocateProducerIds { broker, epoch, count } => brokers::allocate(image, broker, epoch, count),
        Command::CreateTopics { topics, validate_only } => {
            let (records, rows) = topics::create(image, settings, now, entropy, topics);
            Ok((unless(validate_only, records), Reply::TopicsCreated(topics::hide_ids(validate_only, rows))))
        }
        Command::CreateOffsetsTopic => {
            let (records, rows) = topics::create_offsets_topic(image, settings, now, entropy);
            Ok((records, Reply::TopicsCreated(rows)))
        }
        Command::DeleteTopics { topics } => {
            let (records, rows) = topics::delete(image, settings, topics);
            Ok((records, Reply::TopicsDeleted(rows)))
        }
        Command::CreatePartitions { topics, validate_only } => {
            let (records, rows) = topics::grow(image, entropy, topics);
            Ok((unless(validate_only, records), Reply::PartitionsCreated(rows)))
        }
        Command::AlterConfigs { resources, validate_only } => {
            let (records, rows) = configs::replace(image, settings, resources);
            Ok((unless(validate_only, records), Reply::ConfigsAltered(rows)))
        }
        Command::IncrementalAlterConfigs { resources, validate_only } => {
            let (records, rows) = configs::increment(image, settings, resources);
            Ok((unless(validate_only, records), Reply::ConfigsAltered(rows)))
        }
    }
}

fn unless(validate_only: bool, records: Vec<Record>) -> Vec<Record> {
    if validate_only { Vec::new() } else { records }
}

/// Groups rows by what they name: the order of first mention, and whether a name comes twice.
fn distinct<T, K: Ord + Clone>(rows: Vec<T>, key: impl Fn(&T) -> K) -> Vec<(K, Option<T>)> {
    let mut seen = std::collections::BTreeMap::new();
    let mut grouped: Vec<(K, Option<T>)> = Vec::with_capacity(rows.len());
    for row in rows {
        let key = key(&row);
        match seen.get(&key).and_then(|&index: &usize| grouped.get_mut(index)) {
            Some(first) => first.1 = None,
            None => {
                seen.insert(key.clone(), grouped.len());
                grouped.push((key, Some(row)));
            }
        }
    }
    grouped
}
