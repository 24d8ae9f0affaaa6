//! `ottla topic replicas`: has topics held on more nodes, or on fewer, by reassignment.
//!
//! The nodes for new copies are chosen here: other racks first, then those that hold least. Not here: moving a
//! partition to given nodes (`ottla cluster reassign`).

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use ottla_client::{Client, Error, PartitionInfo, TopicPartition};
use ottla_types::BrokerId;
use serde_json::json;

use crate::{
    cluster::ClusterArgs,
    commands::cluster::{refused, wait_until_moved},
    failure::Failure,
    output::{self, count},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  ottla topic replicas orders --replication-factor 3
  ottla topic replicas orders payments --replication-factor 3 --wait
  ottla topic replicas orders --replication-factor 3 --dry-run

Existing copies stay where they are. `ottla cluster reassign` shows what is on its way.";

#[derive(Args)]
pub(super) struct ReplicasArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The topics' names
    #[arg(required = true)]
    topics: Vec<String>,
    /// How many nodes shall hold a copy of each partition
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    replication_factor: u16,
    /// Say where copies would be, and change nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Wait until all copies are there
    #[arg(long)]
    wait: bool,
}

/// A node that may take copies.
#[derive(Clone, Debug)]
struct Place {
    id: BrokerId,
    rack: Option<String>,
    /// Copies it holds, and those it is to get.
    copies: usize,
}

pub(super) async fn run(args: ReplicasArgs) -> Result<(), Failure> {
    let ReplicasArgs { cluster, topics, replication_factor, dry_run, wait } = args;
    let factor = usize::from(replication_factor);
    let client = cluster.connect().await?;
    let mut places = places(&client).await?;
    let names: BTreeSet<&str> = topics.iter().map(String::as_str).collect();
    let mut changes = Vec::new();
    for (_, topic) in client.topics(Some(&names.into_iter().collect::<Vec<_>>())).await? {
        let topic = topic?;
        for partition in topic.partitions.iter().filter(|partition| partition.replicas.len() != factor) {
            let replicas = planned(partition, factor, &mut places).map_err(|able| {
                Failure::failed(format!(
                    "{} to hold copies of {}-{}, and {factor} are wanted; `ottla serve --join HOST:PORT` adds one",
                    match able {
                        1 => "there is 1 node".to_owned(),
                        _ => format!("there are {}", count(able, "node")),
                    },
                    topic.name,
                    partition.index
                ))
            })?;
            changes.push((TopicPartition::new(&topic.name, partition.index), Some(replicas)));
        }
    }
    changes.sort_by(|(a, _), (b, _)| a.cmp(b));
    let copies = count(factor, "copy");
    if changes.is_empty() {
        return cluster.say(&json!({ "changed": 0 }), &format!("Every partition has {copies} already."));
    }
    let results = if dry_run { Vec::new() } else { client.reassign(&changes).await? };
    for (at, replicas) in &changes {
        if results.iter().any(|(refused, result)| refused == at && result.is_err()) {
            continue;
        }
        let ids: Vec<_> = replicas.iter().flatten().map(|id| id.0).collect();
        let json = json!({ "topic": &*at.topic, "partition": at.partition.0, "to": ids, "changed": !dry_run });
        let on: Vec<_> = ids.iter().map(ToString::to_string).collect();
        let verb = if dry_run { "would get" } else { "gets" };
        cluster.say(&json, &format!("{at} {verb} {copies}, on {}.", on.join(",")))?;
    }
    refused(&results)?;
    if wait {
        let partitions: Vec<_> = changes.into_iter().map(|(at, _)| at).collect();
        return wait_until_moved(&client, &cluster, &partitions).await;
    }
    if !dry_run && !cluster.json {
        output::print("`ottla cluster reassign` shows what is still on its way.\n")?;
    }
    Ok(())
}

/// The nodes that are up and not about to leave, with what they hold.
async fn places(client: &Client) -> Result<Vec<Place>, Failure> {
    let mut copies: BTreeMap<BrokerId, usize> = BTreeMap::new();
    for (_, topic) in client.topics(None).await? {
        for id in topic?.partitions.iter().flat_map(|partition| &partition.replicas) {
            *copies.entry(*id).or_default() += 1;
        }
    }
    let leaving: BTreeSet<BrokerId> = match client.describe_nodes().await {
        Ok(nodes) => {
            nodes.nodes.iter().filter(|node| node.draining || node.shutting_down).map(|node| node.id).collect()
        }
        // Kafka's brokers have no such state.
        Err(Error::Unsupported { .. }) => BTreeSet::new(),
        Err(error) => return Err(error.into()),
    };
    let brokers = client.brokers().into_iter().filter(|broker| !leaving.contains(&broker.id));
    let place = |broker: ottla_client::BrokerInfo| {
        let copies = copies.get(&broker.id).copied().unwrap_or(0);
        Place { id: broker.id, rack: broker.rack, copies }
    };
    Ok(brokers.map(place).collect())
}

/// The replicas of a partition with `factor` copies. An error is how many nodes there are for it.
fn planned(partition: &PartitionInfo, factor: usize, places: &mut [Place]) -> Result<Vec<BrokerId>, usize> {
    let mut replicas = partition.replicas.clone();
    while replicas.len() > factor {
        // The last that is out of sync goes first, then the last that does not lead.
        let out = replicas.iter().rposition(|id| !partition.isr.contains(id) && partition.leader != Some(*id));
        let out = out.or_else(|| replicas.iter().rposition(|id| partition.leader != Some(*id)));
        let Some(place) = out else { break };
        replicas.remove(place);
    }
    while replicas.len() < factor {
        let rack = |id: &BrokerId| places.iter().find(|place| place.id == *id).and_then(|place| place.rack.clone());
        let racks: BTreeSet<String> = replicas.iter().filter_map(rack).collect();
        let able = places.iter_mut().filter(|place| !replicas.contains(&place.id));
        let shares_rack = |place: &Place| place.rack.as_ref().is_some_and(|rack| racks.contains(rack));
        let Some(place) = able.min_by_key(|place| (shares_rack(place), place.copies, place.id)) else {
            return Err(replicas.len());
        };
        place.copies += 1;
        replicas.push(place.id);
    }
    Ok(replicas)
}

#[cfg(test)]
mod tests {
    use ottla_types::{LeaderEpoch, PartitionIndex};

    use super::*;

    fn places(racks: &[(i32, &str, usize)]) -> Vec<Place> {
        let place = |&(id, rack, copies): &(i32, &str, usize)| {
            let rack = (!rack.is_empty()).then(|| rack.to_owned());
            Place { id: BrokerId(id), rack, copies }
        };
        racks.iter().map(place).collect()
    }

    fn partition(leader: i32, replicas: &[i32], isr: &[i32]) -> PartitionInfo {
        let brokers = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect();
        PartitionInfo {
            index: PartitionIndex(0),
            leader: Some(BrokerId(leader)),
            leader_epoch: LeaderEpoch(0),
            replicas: brokers(replicas),
            isr: brokers(isr),
            offline: Vec::new(),
        }
    }

    fn ids(replicas: &[i32]) -> Result<Vec<BrokerId>, usize> {
        Ok(replicas.iter().copied().map(BrokerId).collect())
    }

    #[test]
    fn new_copies_go_where_least_is_held_and_the_old_ones_stay() {
        let mut places = places(&[(1, "", 4), (2, "", 3), (3, "", 2), (4, "", 2)]);
        assert_eq!(planned(&partition(1, &[1], &[1]), 3, &mut places), ids(&[1, 3, 4]));
        // What was planned counts, so that the next one goes elsewhere.
        assert_eq!(planned(&partition(1, &[1], &[1]), 2, &mut places), ids(&[1, 2]));
    }

    #[test]
    fn new_copies_go_to_other_racks_first() {
        let mut places = places(&[(1, "a", 0), (2, "a", 0), (3, "b", 9), (4, "c", 5)]);
        assert_eq!(planned(&partition(1, &[1], &[1]), 3, &mut places), ids(&[1, 4, 3]));
        assert_eq!(planned(&partition(1, &[1], &[1]), 4, &mut places), ids(&[1, 4, 3, 2]));
    }

    #[test]
    fn copies_that_are_given_up_are_those_out_of_sync_and_never_the_leader() {
        assert_eq!(planned(&partition(3, &[1, 2, 3], &[1, 3]), 2, &mut []), ids(&[1, 3]));
        assert_eq!(planned(&partition(3, &[1, 2, 3], &[1, 2, 3]), 1, &mut []), ids(&[3]));
    }

    #[test]
    fn too_few_nodes_are_counted() {
        let mut places = places(&[(1, "", 0), (2, "", 0)]);
        assert_eq!(planned(&partition(1, &[1], &[1]), 3, &mut places), Err(2));
    }
}
