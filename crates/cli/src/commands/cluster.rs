//! `ottla cluster`: how a cluster is, and moving what it holds.
//!
//! `status`, `nodes`, `decommission` and `rebalance` ask what only Ottla answers. Not here: how the answers are shown
//! (`cluster/show.rs`), upgrades (`cluster/upgrade.rs`), elections (`cluster/elect.rs`) and moving single partitions
//! (`cluster/reassign.rs`).

mod elect;
mod reassign;
mod show;
mod upgrade;

use std::time::Duration;

use clap::{Args, Subcommand};
use ottla_client::{Client, Error, PartitionInfo, PartitionResult, TopicPartition};
use ottla_types::BrokerId;
use serde_json::json;

pub(super) use self::reassign::wait_until_moved;
use super::group::Topic;
use crate::{
    cluster::{self, ClusterArgs},
    failure::{Failure, is},
    output::{self, Table, count},
};

/// How often a node that is being emptied is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Args)]
#[command(after_help = "\
Examples:
  ottla cluster status                      is all well?
  ottla cluster status --check              and fail if it is not, for scripts
  ottla cluster nodes
  ottla cluster decommission 3 --wait       move everything off node 3, so that it can leave
  ottla cluster rebalance --dry-run         show what would be moved to spread it evenly
  ottla cluster upgrade --dry-run           after new binaries: can the cluster use what they brought?
  ottla cluster elect preferred             give leadership back to the first of the replicas
  ottla cluster reassign orders:0 --to 1,2,3
  ottla cluster reassign                    show what is on its way

status, nodes, decommission, rebalance and upgrade need an Ottla cluster, the others work against any Kafka-compatible
one.")]
pub(crate) struct ClusterCommandArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Show on one page whether all is well
    #[command(after_help = "\
Examples:
  ottla cluster status
  ottla cluster status --json --check       exit code 1 unless every node is up and every copy in sync

A copy is in sync if it may become leader without losing an acknowledged record. Below min.insync.replicas a partition
takes no records with acks=all; without a leader it takes and gives none.")]
    Status {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Fail unless every node is up and every copy in sync
        #[arg(long)]
        check: bool,
    },
    /// List the nodes, with what each holds
    Nodes {
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Move everything off a node, so that it can leave; afterwards take it out of the cluster
    #[command(after_help = "\
Examples:
  ottla cluster decommission 3 --wait       until node 3 holds nothing; then stop it
  ottla cluster decommission 3              say how far that is; takes it out of the cluster once it has stopped
  ottla cluster decommission 3 --cancel     it stays after all

A node that is lost for good is taken out the same way: its copies are made anew on the others. The moves go on whether
or not somebody waits for them.")]
    Decommission {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// The node's id
        #[arg(value_parser = node)]
        node: BrokerId,
        /// Let it stay after all
        #[arg(long, conflicts_with = "wait")]
        cancel: bool,
        /// Wait until it holds nothing any more
        #[arg(long)]
        wait: bool,
    },
    /// Spread replicas and leaders evenly over the nodes
    #[command(after_help = "\
Examples:
  ottla cluster rebalance --dry-run         show what would be moved
  ottla cluster rebalance
  ottla cluster reassign                    show what is still on its way")]
    Rebalance {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Say what would be moved, and move nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Raise the cluster's feature level, once every node runs the new version
    #[command(after_help = upgrade::EXAMPLES)]
    Upgrade(upgrade::UpgradeArgs),
    /// Have leaders elected
    #[command(after_help = elect::EXAMPLES)]
    Elect(elect::ElectArgs),
    /// Move partitions to given nodes, or show what is on its way
    #[command(after_help = reassign::EXAMPLES)]
    Reassign(reassign::ReassignArgs),
}

pub(crate) fn run(args: ClusterCommandArgs) -> Result<(), Failure> {
    cluster::run(async {
        match args.command {
            ClusterCommand::Status { cluster, check } => status(&cluster, check).await,
            ClusterCommand::Nodes { cluster } => nodes(&cluster).await,
            ClusterCommand::Decommission { cluster, node, cancel, wait } => {
                let client = cluster.connect().await?;
                if cancel { stay(&client, &cluster, node).await } else { leave(&client, &cluster, node, wait).await }
            }
            ClusterCommand::Rebalance { cluster, dry_run } => rebalance(&cluster, dry_run).await,
            ClusterCommand::Upgrade(args) => upgrade::run(args).await,
            ClusterCommand::Elect(args) => elect::run(args).await,
            ClusterCommand::Reassign(args) => reassign::run(args).await,
        }
    })
}

/// A node's id on a command line.
fn node(text: &str) -> Result<BrokerId, String> {
    match text.parse() {
        Ok(id) if id >= 0 => Ok(BrokerId(id)),
        _ => Err("a node's id is a whole number from 0".to_owned()),
    }
}

/// What a person can do about it, where there is something.
fn explain(error: Error) -> Failure {
    if let Error::Unsupported { address, .. } = &error {
        return Failure::failed(format!(
            "{address} is no Ottla broker, and what `ottla cluster` asks here is no request of Kafka's; `ottla topic \
             describe`, `ottla cluster elect` and `ottla cluster reassign` work with any broker"
        ));
    }
    if is(&error, "BROKER_ID_NOT_REGISTERED") {
        return Failure::failed(format!("{error}; `ottla cluster nodes` shows the nodes there are"));
    }
    error.into()
}

async fn status(cluster: &ClusterArgs, check: bool) -> Result<(), Failure> {
    let client = cluster.connect().await?;
    let nodes = client.describe_nodes().await.map_err(explain)?;
    if cluster.json {
        output::print_json(&show::as_json(&nodes))?;
    } else {
        output::print(&show::page(&nodes))?;
    }
    let troubles = show::troubles(&nodes);
    if check && !troubles.is_empty() {
        return Err(Failure::failed(troubles.join(", ")));
    }
    Ok(())
}

async fn nodes(cluster: &ClusterArgs) -> Result<(), Failure> {
    let client = cluster.connect().await?;
    let nodes = client.describe_nodes().await.map_err(explain)?;
    if cluster.json {
        return nodes.nodes.iter().try_for_each(|node| output::print_json(&show::node_as_json(node)));
    }
    show::table(&nodes.nodes).print()
}

async fn stay(client: &Client, cluster: &ClusterArgs, node: BrokerId) -> Result<(), Failure> {
    client.decommission(node, true).await.map_err(explain)?;
    let text = format!("Node {node} stays. What was moved off it comes back with `ottla cluster rebalance`.");
    cluster.say(&json!({ "node": node.0, "draining": false }), &text)
}

async fn leave(client: &Client, cluster: &ClusterArgs, node: BrokerId, wait: bool) -> Result<(), Failure> {
    let mut last = None;
    loop {
        let remaining = client.decommission(node, false).await.map_err(explain)?;
        if remaining == 0 {
            break;
        }
        if last != Some(remaining) {
            let text = format!("Node {node} still holds {}.", count(remaining, "partition"));
            cluster.say(&json!({ "node": node.0, "remaining": remaining }), &text)?;
        }
        last = Some(remaining);
        if !wait {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let nodes = client.describe_nodes().await.map_err(explain)?;
    let stopped = nodes.nodes.iter().find(|known| known.id == node).is_some_and(|known| known.fenced);
    if stopped {
        client.unregister_broker(node).await.map_err(explain)?;
    }
    let text = if stopped {
        format!("Node {node} is out of the cluster.")
    } else {
        format!("Node {node} holds nothing any more. Stop it, and run this again to take it out of the cluster.")
    };
    cluster.say(&json!({ "node": node.0, "remaining": 0, "unregistered": stopped }), &text)
}

async fn rebalance(cluster: &ClusterArgs, dry_run: bool) -> Result<(), Failure> {
    let client = cluster.connect().await?;
    let moves = client.rebalance(dry_run).await.map_err(explain)?;
    if cluster.json {
        return moves.iter().try_for_each(|each| {
            output::print_json(&json!({
                "topic": &*each.at.topic,
                "partition": each.at.partition.0,
                "from": show::numbers(&each.from),
                "to": show::numbers(&each.to),
                "moved": !dry_run,
            }))
        });
    }
    if moves.is_empty() {
        return output::print("Replicas and leaders are spread evenly; there is nothing to move.\n");
    }
    let mut table = Table::new(&["PARTITION", "FROM", "TO"]);
    for each in &moves {
        table.row([each.at.to_string(), show::ids(&each.from), show::ids(&each.to)]);
    }
    table.print()?;
    let count = count(moves.len(), "partition");
    output::print(&match dry_run {
        true => format!("{count} would be moved.\n"),
        false => format!("{count} on the way; `ottla cluster reassign` shows what is left.\n"),
    })
}

/// The partitions that are meant by topics on the command line, each with what is known of it.
async fn chosen(client: &Client, topics: &[Topic]) -> Result<Vec<(TopicPartition, PartitionInfo)>, Failure> {
    let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    let described = client.topics(Some(&names)).await?;
    let mut chosen = Vec::new();
    for topic in topics {
        let known = described.iter().find(|(name, _)| *name == topic.name);
        let (_, known) =
            known.ok_or_else(|| Failure::failed(format!("the cluster did not answer for topic {}", topic.name)))?;
        let known = known.as_ref().map_err(|error| Failure::from(error.clone()))?;
        if let Some(missing) = topic.partitions.iter().find(|index| known.partition(**index).is_none()) {
            let last = known.partitions.len().saturating_sub(1);
            return Err(Failure::failed(format!(
                "topic {} has no partition {missing}, its partitions are 0 to {last}",
                topic.name
            )));
        }
        let all_or_listed = |index| topic.partitions.is_empty() || topic.partitions.contains(index);
        for partition in known.partitions.iter().filter(|partition| all_or_listed(&partition.index)) {
            chosen.push((TopicPartition::new(&topic.name, partition.index), partition.clone()));
        }
    }
    Ok(chosen)
}

/// Fails with the first refusal and how many more there are.
pub(super) fn refused(results: &[PartitionResult]) -> Result<(), Failure> {
    let mut refused = results.iter().filter_map(|(_, result)| result.as_ref().err());
    let Some(first) = refused.next() else { return Ok(()) };
    Err(Failure::failed(match refused.count() {
        0 => first.to_string(),
        more => format!("{first}; and {more} more"),
    }))
}
