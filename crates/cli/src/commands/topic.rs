//! `ottla topic`: create, list, describe, alter and delete topics.
//!
//! Not here: how many copies a topic has and where new ones go (`topic/replicas.rs`).

mod replicas;

use std::collections::HashMap;

use clap::{Args, Subcommand};
use ottla_client::{
    Client, ConfigChange, ConfigResource, ConfigSource, Found, NewTopic, Position, TopicInfo, TopicPartition,
};
use ottla_types::{BrokerId, PartitionIndex};
use serde_json::json;

use crate::{
    cluster::{self, ClusterArgs, key_value},
    failure::{Failure, is},
    output::{self, Table, count},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  ottla topic create orders --partitions 3 -o retention.ms=86400000
  ottla topic list
  ottla topic describe orders
  ottla topic alter orders --partitions 6 --set retention.bytes=1073741824 --unset retention.ms
  ottla topic replicas orders --replication-factor 3   hold it on three nodes from now on
  ottla topic delete orders")]
pub(crate) struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Subcommand)]
enum TopicCommand {
    /// Create topics
    Create {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// The topics' names
        #[arg(required = true)]
        topics: Vec<String>,
        /// How many partitions each has [default: the broker's num.partitions]
        #[arg(long, short, value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// How many brokers hold a copy of each partition [default: the broker's default.replication.factor]
        #[arg(long, short, value_parser = clap::value_parser!(i16).range(1..))]
        replication: Option<i16>,
        /// A topic config, such as -o retention.ms=3600000; may be repeated
        #[arg(short = 'o', long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
        option: Vec<(String, String)>,
        /// Say whether it could be done, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not fail for a topic that exists
        #[arg(long)]
        if_not_exists: bool,
    },
    /// List topics
    List {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Also those that belong to the brokers
        #[arg(long)]
        internal: bool,
    },
    /// Show partitions, offsets and configs of topics
    Describe {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// The topics' names
        #[arg(required = true)]
        topics: Vec<String>,
    },
    /// Add partitions, or change configs
    Alter {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// The topic's name
        topic: String,
        /// How many partitions it shall have; never fewer than now
        #[arg(long, short, value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// A config to set; may be repeated
        #[arg(long, short = 'o', value_name = "KEY=VALUE", value_parser = key_value)]
        set: Vec<(String, String)>,
        /// A config to set back to its default; may be repeated
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
        /// Say whether it could be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Have topics held on more nodes, or on fewer
    #[command(after_help = replicas::EXAMPLES)]
    Replicas(replicas::ReplicasArgs),
    /// Delete topics and all their records
    Delete {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// The topics' names
        #[arg(required = true)]
        topics: Vec<String>,
        /// Do not fail for a topic that does not exist
        #[arg(long)]
        if_exists: bool,
    },
}

pub(crate) fn run(args: TopicArgs) -> Result<(), Failure> {
    cluster::run(async {
        match args.command {
            TopicCommand::Create { cluster, topics, partitions, replication, option, dry_run, if_not_exists } => {
                let client = cluster.connect().await?;
                for name in topics {
                    let topic = NewTopic { name, partitions, replication_factor: replication, configs: option.clone() };
                    create(&client, &cluster, &topic, dry_run, if_not_exists).await?;
                }
                Ok(())
            }
            TopicCommand::List { cluster, internal } => list(&cluster, internal).await,
            TopicCommand::Describe { cluster, topics } => {
                let client = cluster.connect().await?;
                for (number, name) in topics.iter().enumerate() {
                    if number > 0 && !cluster.json {
                        output::print("\n")?;
                    }
                    describe(&client, &cluster, name).await?;
                }
                Ok(())
            }
            TopicCommand::Alter { cluster, topic, partitions, set, unset, dry_run } => {
                let changes: Vec<_> = set
                    .into_iter()
                    .map(|(key, value)| (key, ConfigChange::Set(value)))
                    .chain(unset.into_iter().map(|key| (key, ConfigChange::Unset)))
                    .collect();
                if partitions.is_none() && changes.is_empty() {
                    return Err(Failure::usage("nothing to alter, give --partitions, --set or --unset"));
                }
                let client = cluster.connect().await?;
                if let Some(total) = partitions {
                    client.create_partitions(&topic, total, dry_run).await?;
                }
                if !changes.is_empty() {
                    client.alter_configs(&ConfigResource::Topic(topic.clone()), &changes, dry_run).await?;
                }
                cluster.say(
                    &json!({ "topic": topic, "altered": !dry_run }),
                    &match dry_run {
                        true => format!("Topic {topic} could be altered."),
                        false => format!("Altered topic {topic}."),
                    },
                )
            }
            TopicCommand::Replicas(args) => replicas::run(args).await,
            TopicCommand::Delete { cluster, topics, if_exists } => {
                let client = cluster.connect().await?;
                for name in topics {
                    match client.delete_topic(&name).await {
                        Ok(()) => {}
                        Err(error) if if_exists && is(&error, "UNKNOWN_TOPIC_OR_PARTITION") => continue,
                        Err(error) => return Err(error.into()),
                    }
                    cluster.say(&json!({ "topic": name, "deleted": true }), &format!("Deleted topic {name}."))?;
                }
                Ok(())
            }
        }
    })
}

async fn create(
    client: &Client,
    cluster: &ClusterArgs,
    topic: &NewTopic,
    dry_run: bool,
    if_not_exists: bool,
) -> Result<(), Failure> {
    let name = &topic.name;
    let created = match client.create_topic(topic, dry_run).await {
        Ok(created) => created,
        Err(error) if if_not_exists && is(&error, "TOPIC_ALREADY_EXISTS") => {
            return cluster.say(&json!({ "topic": name, "created": false }), &format!("Topic {name} exists."));
        }
        Err(error) => return Err(error.into()),
    };
    let json = json!({
        "topic": name,
        "created": !dry_run,
        "id": created.id.to_string(),
        "partitions": created.partitions,
        "replication": created.replication_factor,
    });
    let verb = if dry_run { "Could create" } else { "Created" };
    let counts = match (created.partitions, created.replication_factor) {
        (Some(partitions), Some(copies)) => {
            format!(" with {} of {}", count(partitions, "partition"), count(copies, "copy"))
        }
        _ => String::new(),
    };
    cluster.say(&json, &format!("{verb} topic {name}{counts}."))
}

async fn list(cluster: &ClusterArgs, internal: bool) -> Result<(), Failure> {
    let client = cluster.connect().await?;
    let mut topics = Vec::new();
    for (_, topic) in client.topics(None).await? {
        let topic = topic?;
        if internal || !topic.internal {
            topics.push(topic);
        }
    }
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    if cluster.json {
        return topics.iter().try_for_each(|topic| {
            output::print_json(&json!({
                "topic": &*topic.name,
                "id": topic.id.to_string(),
                "internal": topic.internal,
                "partitions": topic.partitions.len(),
                "replication": copies(topic),
            }))
        });
    }
    let mut table = Table::new(&["TOPIC", "PARTITIONS", "COPIES"]);
    for topic in &topics {
        table.row([topic.name.to_string(), topic.partitions.len().to_string(), copies(topic).to_string()]);
    }
    table.print()
}

fn copies(topic: &TopicInfo) -> usize {
    topic.partitions.iter().map(|partition| partition.replicas.len()).max().unwrap_or(0)
}

async fn describe(client: &Client, cluster: &ClusterArgs, name: &str) -> Result<(), Failure> {
    let described = client.topics(Some(&[name])).await?.pop();
    let (_, topic) =
        described.ok_or_else(|| Failure::failed(format!("the cluster did not answer for topic {name}")))?;
    let topic = topic?;
    let offsets = offsets(client, &topic).await?;
    let configs = client.describe_configs(&ConfigResource::Topic(name.to_owned()), None).await?;
    let configs: Vec<_> = configs.iter().filter(|config| config.source == ConfigSource::Topic).collect();
    let ids = |brokers: &[BrokerId]| brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    if cluster.json {
        let rows = topic.partitions.iter().map(|partition| {
            let offsets = offsets.get(&partition.index);
            json!({
                "partition": partition.index.0,
                "leader": partition.leader.map(|id| id.0),
                "leader_epoch": partition.leader_epoch.0,
                "replicas": partition.replicas.iter().map(|id| id.0).collect::<Vec<_>>(),
                "isr": partition.isr.iter().map(|id| id.0).collect::<Vec<_>>(),
                "offline": partition.offline.iter().map(|id| id.0).collect::<Vec<_>>(),
                "start": offsets.map(|(start, _)| start),
                "end": offsets.map(|(_, end)| end),
            })
        });
        let configs: serde_json::Map<_, _> =
            configs.iter().map(|config| (config.name.clone(), json!(config.value))).collect();
        return output::print_json(&json!({
            "topic": name,
            "id": topic.id.to_string(),
            "internal": topic.internal,
            "partitions": rows.collect::<Vec<_>>(),
            "configs": configs,
        }));
    }
    let mut head = format!("Topic {name}, id {}\n", topic.id);
    for config in &configs {
        head += &format!("  {}={}\n", config.name, config.value.as_deref().unwrap_or_default());
    }
    output::print(&head)?;
    let mut table = Table::new(&["PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN SYNC", "START", "END"]);
    for partition in &topic.partitions {
        let offsets = offsets.get(&partition.index);
        let or_dash = |offset: Option<&i64>| offset.map_or_else(|| "-".to_owned(), ToString::to_string);
        table.row([
            partition.index.to_string(),
            partition.leader.map_or("none".to_owned(), |id| id.to_string()),
            partition.leader_epoch.to_string(),
            ids(&partition.replicas),
            ids(&partition.isr),
            or_dash(offsets.map(|(start, _)| start)),
            or_dash(offsets.map(|(_, end)| end)),
        ]);
    }
    table.print()
}

/// Where the partitions that have a leader begin and end.
async fn offsets(client: &Client, topic: &TopicInfo) -> Result<HashMap<PartitionIndex, (i64, i64)>, Failure> {
    let led = topic.partitions.iter().filter(|partition| partition.leader.is_some());
    let led: Vec<_> = led.map(|partition| TopicPartition::new(&topic.name, partition.index)).collect();
    let wanted: Vec<_> =
        led.iter().flat_map(|at| [(at.clone(), Position::Earliest), (at.clone(), Position::Latest)]).collect();
    let found = client.list_offsets(&wanted).await?;
    let offset = |found: &Found| found.offset.map_or(0, |offset| offset.0);
    let offsets = led.iter().zip(found.chunks_exact(2)).filter_map(|(at, found)| match found {
        [start, end] => Some((at.partition, (offset(start), offset(end)))),
        _ => None,
    });
    Ok(offsets.collect())
}
