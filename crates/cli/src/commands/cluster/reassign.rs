//! `ottla cluster reassign`: moves partitions to given nodes, and shows what is on its way.

use std::{collections::BTreeSet, time::Duration};

use clap::Args;
use ottla_client::{Client, TopicPartition};
use ottla_types::BrokerId;
use serde_json::json;

use super::{chosen, node, refused, show};
use crate::{
    cluster::ClusterArgs,
    commands::group::{Topic, topic},
    failure::{Failure, is},
    output::{self, Table, count},
};

/// How often partitions on their way are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) const EXAMPLES: &str = "\
Examples:
  ottla cluster reassign                            show what is on its way
  ottla cluster reassign orders:0 --to 1,2,3        node 1 is to lead it, if it is in sync
  ottla cluster reassign orders --to 4 --wait       all partitions of the topic, and wait until they are there
  ottla cluster reassign orders:0 --cancel          stay where it was
  ottla cluster reassign --cancel                   all that is on its way

A partition is served all the while. It leaves its old nodes when the new ones have all of it.";

#[derive(Args)]
pub(super) struct ReassignArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// A topic, or some of its partitions
    #[arg(value_name = "TOPIC[:N,...]", value_parser = topic)]
    topics: Vec<Topic>,
    /// The nodes that shall hold them, the preferred leader first
    #[arg(long, value_name = "NODE,...", value_delimiter = ',', value_parser = node, requires = "topics")]
    to: Vec<BrokerId>,
    /// End moves that are under way, and go back
    #[arg(long, conflicts_with_all = ["to", "wait"])]
    cancel: bool,
    /// Wait until they are there
    #[arg(long, requires = "to")]
    wait: bool,
}

pub(super) async fn run(args: ReassignArgs) -> Result<(), Failure> {
    let ReassignArgs { cluster, topics, to, cancel, wait } = args;
    if to.iter().collect::<BTreeSet<_>>().len() < to.len() {
        return Err(Failure::usage(format!("a node can hold one copy of a partition: --to {}", show::ids(&to))));
    }
    if !topics.is_empty() && to.is_empty() && !cancel {
        return Err(Failure::usage("say where to: --to NODE,NODE,..., or --cancel"));
    }
    let client = cluster.connect().await?;
    if cancel {
        return end(&client, &cluster, &topics).await;
    }
    if topics.is_empty() {
        return list(&client, &cluster).await;
    }
    let partitions: Vec<_> = chosen(&client, &topics).await?.into_iter().map(|(at, _)| at).collect();
    let changes: Vec<_> = partitions.iter().map(|at| (at.clone(), Some(to.clone()))).collect();
    let results = client.reassign(&changes).await?;
    for (at, _) in results.iter().filter(|(_, result)| result.is_ok()) {
        let json = json!({ "topic": &*at.topic, "partition": at.partition.0, "to": show::numbers(&to) });
        cluster.say(&json, &format!("{at} is on its way to {}.", show::ids(&to)))?;
    }
    refused(&results)?;
    if wait { wait_until_moved(&client, &cluster, &partitions).await } else { Ok(()) }
}

async fn list(client: &Client, cluster: &ClusterArgs) -> Result<(), Failure> {
    let moving = client.reassignments().await?;
    if cluster.json {
        return moving.iter().try_for_each(|each| {
            output::print_json(&json!({
                "topic": &*each.at.topic,
                "partition": each.at.partition.0,
                "replicas": show::numbers(&each.replicas),
                "adding": show::numbers(&each.adding),
                "removing": show::numbers(&each.removing),
            }))
        });
    }
    if moving.is_empty() {
        return output::print("Nothing is on its way.\n");
    }
    let mut table = Table::new(&["PARTITION", "REPLICAS", "ADDING", "REMOVING"]);
    for each in &moving {
        table.row([each.at.to_string(), show::ids(&each.replicas), show::ids(&each.adding), show::ids(&each.removing)]);
    }
    table.print()
}

/// Ends the moves of these topics, or all there are.
async fn end(client: &Client, cluster: &ClusterArgs, topics: &[Topic]) -> Result<(), Failure> {
    let partitions: Vec<_> = if topics.is_empty() {
        client.reassignments().await?.into_iter().map(|moving| moving.at).collect()
    } else {
        chosen(client, topics).await?.into_iter().map(|(at, _)| at).collect()
    };
    let changes: Vec<_> = partitions.into_iter().map(|at| (at, None)).collect();
    let mut results = if changes.is_empty() { Vec::new() } else { client.reassign(&changes).await? };
    results.retain(|(_, result)| !result.as_ref().is_err_and(|error| is(error, "NO_REASSIGNMENT_IN_PROGRESS")));
    if results.is_empty() {
        return cluster.say(&json!({ "cancelled": 0 }), "Nothing was on its way.");
    }
    for (at, _) in results.iter().filter(|(_, result)| result.is_ok()) {
        let json = json!({ "topic": &*at.topic, "partition": at.partition.0, "cancelled": true });
        cluster.say(&json, &format!("{at} stays where it was."))?;
    }
    refused(&results)
}

/// Waits until none of the partitions is on its way any more, and tells of the progress.
pub(crate) async fn wait_until_moved(
    client: &Client,
    cluster: &ClusterArgs,
    partitions: &[TopicPartition],
) -> Result<(), Failure> {
    let mut last = None;
    loop {
        let moving = client.reassignments().await?;
        let remaining = moving.iter().filter(|moving| partitions.contains(&moving.at)).count();
        if last != Some(remaining) {
            let text = match remaining {
                0 => "All of them are where they shall be.".to_owned(),
                _ => format!("{} still on the way.", count(remaining, "partition")),
            };
            cluster.say(&json!({ "remaining": remaining }), &text)?;
        }
        if remaining == 0 {
            return Ok(());
        }
        last = Some(remaining);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
