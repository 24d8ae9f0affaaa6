//! `ottla cluster elect`: has leaders elected, and says what an unclean election loses before it does it.

use std::{collections::BTreeSet, sync::Arc};

use clap::{Args, ValueEnum};
use ottla_client::{Client, Election, Error, PartitionInfo, TopicPartition};
use serde_json::json;

use super::{chosen, refused, show};
use crate::{
    cluster::ClusterArgs,
    commands::group::{Topic, topic},
    failure::{Failure, is},
    output::{self, count},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  ottla cluster elect preferred             give leadership back to the first replica of each partition
  ottla cluster elect preferred orders:0,2
  ottla cluster elect unclean               show which partitions have no leader, and what they would lose
  ottla cluster elect unclean orders:3 --accept-data-loss

A partition has no leader when every copy that is sure to have all acknowledged records is down. Bring one of those
nodes back, and it leads again and nothing is lost. If they are gone for good, an unclean election makes a copy the
leader that may lack records: what it lacks is lost, and where others have it, deleted there.";

#[derive(Args)]
pub(super) struct ElectArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Which leader is wanted
    kind: Kind,
    /// A topic, or some of its partitions [default: all that need it]
    #[arg(value_name = "TOPIC[:N,...]", value_parser = topic)]
    topics: Vec<Topic>,
    /// Do an unclean election, and lose what the new leader lacks
    #[arg(long)]
    accept_data_loss: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The first of the replicas, where it is in sync
    Preferred,
    /// Any replica that is up, where no leader can be had otherwise
    Unclean,
}

pub(super) async fn run(args: ElectArgs) -> Result<(), Failure> {
    let ElectArgs { cluster, kind, topics, accept_data_loss } = args;
    if accept_data_loss && kind == Kind::Preferred {
        return Err(Failure::usage("an election of preferred leaders loses nothing; leave --accept-data-loss out"));
    }
    let client = cluster.connect().await?;
    match kind {
        Kind::Preferred => {
            let partitions: Vec<_> = chosen(&client, &topics).await?.into_iter().map(|(at, _)| at).collect();
            let partitions = (!topics.is_empty()).then_some(partitions);
            elect(&client, &cluster, Election::Preferred, partitions.as_deref(), &[]).await
        }
        Kind::Unclean => {
            let mut offline = if topics.is_empty() { all(&client).await? } else { chosen(&client, &topics).await? };
            offline.retain(|(_, partition)| partition.leader.is_none());
            if offline.is_empty() {
                let which = if topics.is_empty() { "Every partition" } else { "Each of them" };
                return cluster.say(&json!({ "elected": 0 }), &format!("{which} has a leader."));
            }
            add_eligible(&client, &mut offline).await?;
            if !accept_data_loss {
                return Err(Failure::usage(loss(&offline)));
            }
            let partitions: Vec<_> = offline.iter().map(|(at, _)| at.clone()).collect();
            elect(&client, &cluster, Election::Unclean, Some(&partitions), &offline).await
        }
    }
}

/// Has leaders elected, and tells what came of it; `losing` are the partitions that lose what their new leader lacks.
async fn elect(
    client: &Client,
    cluster: &ClusterArgs,
    kind: Election,
    partitions: Option<&[TopicPartition]>,
    losing: &[(TopicPartition, PartitionInfo)],
) -> Result<(), Failure> {
    let mut results = client.elect_leaders(kind, partitions).await?;
    results.retain(|(_, result)| !result.as_ref().is_err_and(|error| is(error, "ELECTION_NOT_NEEDED")));
    for (at, _) in results.iter().filter(|(_, result)| result.is_ok()) {
        let lost = losing.iter().find(|(partition, _)| partition == at).map(|(_, partition)| lost(partition));
        let json = json!({ "topic": &*at.topic, "partition": at.partition.0, "elected": true, "lost": lost });
        let lost = lost.map_or(String::new(), |lost| format!(" ({lost})"));
        cluster.say(&json, &format!("Elected a leader of {at}{lost}."))?;
    }
    if results.is_empty() && !cluster.json {
        return output::print("No partition needs an election.\n");
    }
    refused(&results)
}

/// Counts among those in sync the replicas that are known to be complete, though they were not in sync at last.
async fn add_eligible(client: &Client, offline: &mut [(TopicPartition, PartitionInfo)]) -> Result<(), Failure> {
    let topics: BTreeSet<_> = offline.iter().map(|(at, _)| Arc::clone(&at.topic)).collect();
    for topic in topics {
        let eligible = match client.eligible_leaders(&topic).await {
            Err(Error::Unsupported { .. }) => return Ok(()),
            eligible => eligible?,
        };
        for (at, partition) in offline.iter_mut().filter(|(at, _)| at.topic == topic) {
            partition.isr.extend(eligible.get(&at.partition).into_iter().flatten());
        }
    }
    Ok(())
}

async fn all(client: &Client) -> Result<Vec<(TopicPartition, PartitionInfo)>, Failure> {
    let mut all = Vec::new();
    for (_, topic) in client.topics(None).await? {
        let topic = topic?;
        all.extend(topic.partitions.iter().map(|row| (TopicPartition::new(&topic.name, row.index), row.clone())));
    }
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(all)
}

/// What an unclean election of these partitions loses.
fn loss(offline: &[(TopicPartition, PartitionInfo)]) -> String {
    let partitions = offline
        .iter()
        .map(|(at, partition)| format!("  {at}, on {}: {}\n", show::ids(&partition.replicas), lost(partition)));
    format!(
        "an unclean election makes a copy the leader that may lack acknowledged records of {}:\n{}Bring those nodes \
         back instead, if that can be done. If not, --accept-data-loss does it",
        count(offline.len(), "partition"),
        partitions.collect::<String>()
    )
}

fn lost(partition: &PartitionInfo) -> String {
    match &partition.isr[..] {
        [] => "no copy is known to be complete".to_owned(),
        isr => format!("what only {} has is lost", show::ids(isr)),
    }
}

#[cfg(test)]
mod tests {
    use ottla_types::{BrokerId, LeaderEpoch, PartitionIndex};

    use super::*;

    #[test]
    fn a_loss_is_told_partition_by_partition() {
        let offline = |index, isr: &[i32]| {
            let brokers = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect();
            let info = PartitionInfo {
                index: PartitionIndex(index),
                leader: None,
                leader_epoch: LeaderEpoch(5),
                replicas: brokers(&[1, 2, 3]),
                isr: brokers(isr),
                offline: brokers(&[2]),
            };
            (TopicPartition::new("orders", info.index), info)
        };
        let told = loss(&[offline(3, &[2]), offline(4, &[])]);
        assert!(told.contains("records of 2 partitions:\n"), "{told}");
        assert!(told.contains("  orders-3, on 1,2,3: what only 2 has is lost\n"), "{told}");
        assert!(told.contains("  orders-4, on 1,2,3: no copy is known to be complete\n"), "{told}");
        assert!(told.ends_with("--accept-data-loss does it"), "{told}");
    }
}
