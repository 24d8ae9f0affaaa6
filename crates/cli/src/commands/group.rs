//! `ottla group`: list and describe consumer groups, reset what they have committed, delete them.
//!
//! Not here: what `reset` would do and does (`group/reset.rs`).

mod reset;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use clap::{Args, Subcommand};
use ottla_client::{Client, Error, GroupInfo, Position, TopicPartition};
use ottla_types::{Offset, PartitionIndex};
use serde_json::{Value, json};

use crate::{
    cluster::{self, ClusterArgs, partition},
    failure::{Failure, is},
    output::{self, Table, count},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  ottla group list
  ottla group describe billing                     members, and how far behind they are
  ottla group reset billing --to-earliest          show what that would change
  ottla group reset billing --topic orders:0,2 --shift-by -100 --execute
  ottla group delete billing
  ottla group delete billing --topic orders        only what it has committed of this topic")]
pub(crate) struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Subcommand)]
enum GroupCommand {
    /// List groups
    List {
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Show members, committed offsets and lag of groups
    Describe {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// The groups' names
        #[arg(required = true)]
        groups: Vec<String>,
    },
    /// Move what a group without members has committed; shows it only, unless told --execute
    Reset(reset::ResetArgs),
    /// Delete groups without members, and what they have committed
    Delete {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// The groups' names
        #[arg(required = true)]
        groups: Vec<String>,
        /// Delete only what was committed of this topic, or of some of its partitions, and keep the group; may be
        /// repeated
        #[arg(long, value_name = "TOPIC[:N,...]", value_parser = topic)]
        topic: Vec<Topic>,
    },
}

/// A topic on the command line: all of it, or the partitions behind a colon.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) partitions: Vec<PartitionIndex>,
}

pub(super) fn topic(text: &str) -> Result<Topic, String> {
    let Some((name, partitions)) = text.split_once(':') else {
        return Ok(Topic { name: text.to_owned(), partitions: Vec::new() });
    };
    let partitions = partitions.split(',').map(partition).collect::<Result<_, _>>()?;
    Ok(Topic { name: name.to_owned(), partitions })
}

pub(crate) fn run(args: GroupArgs) -> Result<(), Failure> {
    cluster::run(async {
        match args.command {
            GroupCommand::List { cluster } => list(&cluster).await,
            GroupCommand::Describe { cluster, groups } => {
                let client = cluster.connect().await?;
                for (number, group) in groups.iter().enumerate() {
                    if number > 0 && !cluster.json {
                        output::print("\n")?;
                    }
                    describe(&client, &cluster, group).await?;
                }
                Ok(())
            }
            GroupCommand::Reset(args) => reset::run(args).await,
            GroupCommand::Delete { cluster, groups, topic } => {
                let client = cluster.connect().await?;
                for group in groups {
                    if topic.is_empty() {
                        delete(&client, &cluster, &group).await?;
                    } else {
                        delete_offsets(&client, &cluster, &group, &topic).await?;
                    }
                }
                Ok(())
            }
        }
    })
}

/// What a person can do about it, where there is something.
fn explain(group: &str, error: Error) -> Failure {
    if is(&error, "GROUP_ID_NOT_FOUND") {
        return Failure::failed(format!("{error}; `ottla group list` shows the groups there are"));
    }
    // A commit of a tool is refused as one of an unknown member.
    if is(&error, "NON_EMPTY_GROUP") || is(&error, "UNKNOWN_MEMBER_ID") {
        return occupied(group);
    }
    if is(&error, "GROUP_SUBSCRIBED_TO_TOPIC") {
        return Failure::failed(format!(
            "the members of group {group} read this topic; stop them first, `ottla group describe {group}` shows \
             which they are"
        ));
    }
    error.into()
}

fn occupied(group: &str) -> Failure {
    Failure::failed(format!(
        "group {group} has members; stop them first, `ottla group describe {group}` shows which they are"
    ))
}

async fn list(cluster: &ClusterArgs) -> Result<(), Failure> {
    let client = cluster.connect().await?;
    let groups = client.list_groups().await?;
    let described: HashMap<String, GroupInfo> =
        client.describe_groups(&groups).await?.into_iter().map(|group| (group.id.clone(), group)).collect();
    let mut table = Table::new(&["GROUP", "TYPE", "STATE", "MEMBERS"]);
    for group in &groups {
        let described = described.get(&group.id);
        // Of a group that this client cannot describe, the list has the state.
        let state = described.map_or(&group.state, |described| &described.state);
        let members = described.map(|described| described.members.len());
        if cluster.json {
            output::print_json(&json!({
                "group": group.id,
                "type": group.kind.name(),
                "state": state,
                "members": members,
                "coordinator": group.coordinator.0,
            }))?;
        }
        table.row([group.id.clone(), group.kind.name().to_owned(), state.clone(), or_dash(members)]);
    }
    if cluster.json { Ok(()) } else { table.print() }
}

/// How far a group is in one partition.
struct Progress {
    at: TopicPartition,
    committed: Option<Offset>,
    /// Unknown of a partition that is gone or has no leader.
    end: Option<Offset>,
    owner: Option<String>,
}

impl Progress {
    fn lag(&self) -> Option<i64> {
        // What was committed can lie beyond the end: of a topic that was created anew.
        Some(self.end?.0.saturating_sub(self.committed?.0).max(0))
    }
}

async fn describe(client: &Client, cluster: &ClusterArgs, name: &str) -> Result<(), Failure> {
    let group = client.describe_group(name).await.map_err(|error| explain(name, error))?;
    let progress = progress(client, &group).await?;
    if cluster.json {
        return output::print_json(&as_json(&group, &progress));
    }
    let assignor = if group.assignor.is_empty() { "none" } else { &group.assignor };
    let (kind, state, coordinator) = (group.kind.name(), &group.state, group.coordinator);
    output::print(&format!("Group {name}: {kind}, {state}, assignor {assignor}, coordinator {coordinator}\n\n"))?;
    print_members(&group)?;
    output::print("\n")?;
    print_progress(&progress)
}

/// The partitions that the group has committed or its members own.
async fn progress(client: &Client, group: &GroupInfo) -> Result<Vec<Progress>, Failure> {
    let committed: BTreeMap<_, _> = client.committed(&group.id).await?.into_iter().collect();
    let owners: BTreeMap<_, _> =
        group.members.iter().flat_map(|member| member.assignment.iter().map(|at| (at, &member.id))).collect();
    let partitions: BTreeSet<_> = committed.keys().chain(owners.keys().copied()).cloned().collect();
    let logs = logs(client, &partitions).await?;
    let progress = partitions.into_iter().map(|at| Progress {
        committed: committed.get(&at).copied(),
        end: logs.get(&at).map(|log| log.end),
        owner: owners.get(&at).map(ToString::to_string),
        at,
    });
    Ok(progress.collect())
}

fn as_json(group: &GroupInfo, progress: &[Progress]) -> Value {
    let members = group.members.iter().map(|member| {
        json!({
            "member": member.id,
            "instance": member.instance_id,
            "client": member.client_id,
            "host": member.host,
            "partitions": by_topic(&member.assignment),
        })
    });
    let partitions = progress.iter().map(|row| {
        json!({
            "topic": &*row.at.topic,
            "partition": row.at.partition.0,
            "committed": row.committed.map(|offset| offset.0),
            "end": row.end.map(|offset| offset.0),
            "lag": row.lag(),
            "owner": row.owner,
        })
    });
    json!({
        "group": group.id,
        "type": group.kind.name(),
        "state": group.state,
        "assignor": group.assignor,
        "coordinator": group.coordinator.0,
        "members": members.collect::<Vec<_>>(),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

fn print_members(group: &GroupInfo) -> Result<(), Failure> {
    if group.members.is_empty() {
        return output::print("It has no members.\n");
    }
    let mut table = Table::new(&["MEMBER", "INSTANCE", "CLIENT", "HOST", "PARTITIONS"]);
    for member in &group.members {
        let partitions = by_topic(&member.assignment).into_iter().map(|(topic, partitions)| {
            let partitions: Vec<_> = partitions.iter().map(ToString::to_string).collect();
            format!("{topic}:{}", partitions.join(","))
        });
        let partitions = partitions.collect::<Vec<_>>().join(" ");
        table.row([
            member.id.clone(),
            or_dash(member.instance_id.as_ref()),
            member.client_id.clone(),
            member.host.clone(),
            or_dash(Some(partitions).filter(|text| !text.is_empty())),
        ]);
    }
    table.print()
}

fn print_progress(progress: &[Progress]) -> Result<(), Failure> {
    if progress.is_empty() {
        return output::print("It has committed nothing.\n");
    }
    let mut table = Table::new(&["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "OWNER"]);
    for row in progress {
        table.row([
            row.at.topic.to_string(),
            row.at.partition.to_string(),
            or_dash(row.committed),
            or_dash(row.end),
            or_dash(row.lag()),
            or_dash(row.owner.as_ref()),
        ]);
    }
    table.print()
}

fn by_topic(partitions: &[TopicPartition]) -> BTreeMap<String, Vec<i32>> {
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for at in partitions {
        topics.entry(at.topic.to_string()).or_default().push(at.partition.0);
    }
    topics
}

async fn delete(client: &Client, cluster: &ClusterArgs, group: &str) -> Result<(), Failure> {
    let committed = client.committed(group).await?.len();
    client.delete_group(group).await.map_err(|error| explain(group, error))?;
    cluster.say(
        &json!({ "group": group, "deleted": true, "partitions": committed }),
        &format!("Deleted group {group}, which had committed {}.", count(committed, "partition")),
    )
}

async fn delete_offsets(client: &Client, cluster: &ClusterArgs, group: &str, topics: &[Topic]) -> Result<(), Failure> {
    let mut partitions = client.committed(group).await?;
    partitions.retain(|(at, _)| {
        let all_or_listed = |topic: &Topic| topic.partitions.is_empty() || topic.partitions.contains(&at.partition);
        topics.iter().any(|topic| *topic.name == *at.topic && all_or_listed(topic))
    });
    if partitions.is_empty() {
        return Err(Failure::failed(format!(
            "group {group} has committed nothing there; `ottla group describe {group}` shows what it has committed"
        )));
    }
    let wanted: Vec<_> = partitions.iter().map(|(at, _)| at.clone()).collect();
    client.delete_committed(group, &wanted).await.map_err(|error| explain(group, error))?;
    for (at, offset) in partitions {
        let json = json!({ "group": group, "topic": &*at.topic, "partition": at.partition.0, "offset": offset.0 });
        cluster.say(&json, &format!("Deleted offset {offset} of group {group} in {at}."))?;
    }
    Ok(())
}

/// Where a log begins and ends.
#[derive(Clone, Copy, Debug)]
struct Log {
    start: Offset,
    end: Offset,
}

/// The logs of those partitions that exist and have a leader.
async fn logs(client: &Client, partitions: &BTreeSet<TopicPartition>) -> Result<HashMap<TopicPartition, Log>, Failure> {
    let names: BTreeSet<&str> = partitions.iter().map(|at| &*at.topic).collect();
    let topics = client.topics(Some(&names.into_iter().collect::<Vec<_>>())).await?;
    let led: BTreeSet<_> = topics
        .into_iter()
        .filter_map(|(_, topic)| topic.ok())
        .flat_map(|topic| {
            let led = topic.partitions.iter().filter(|partition| partition.leader.is_some());
            led.map(|partition| TopicPartition::new(&topic.name, partition.index)).collect::<Vec<_>>()
        })
        .collect();
    let readable: Vec<_> = partitions.intersection(&led).collect();
    let wanted: Vec<_> = readable
        .iter()
        .flat_map(|at| [Position::Earliest, Position::Latest].map(|place| ((*at).clone(), place)))
        .collect();
    let found = client.list_offsets(&wanted).await?;
    let offset = |found: &ottla_client::Found| found.offset.unwrap_or(Offset::ZERO);
    let logs = readable.into_iter().zip(found.chunks_exact(2)).filter_map(|(at, found)| match found {
        [start, end] => Some((at.clone(), Log { start: offset(start), end: offset(end) })),
        _ => None,
    });
    Ok(logs.collect())
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
