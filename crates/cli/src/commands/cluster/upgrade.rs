//! `ottla cluster upgrade`: the end of a rolling upgrade, from which there is no way back.
//!
//! What a level brings and why it is final: `docs/decisions/feature-levels.md`. Not here: whether it may be
//! (`ottla_metadata` decides).

use clap::Args;
use ottla_client::{Error, LEVEL};
use serde_json::json;

use super::explain;
use crate::{
    cluster::ClusterArgs,
    failure::{Failure, is},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  ottla cluster upgrade --dry-run           can the level be raised, and to which?
  ottla cluster upgrade                     raise it to the highest of the new version
  ottla cluster upgrade --level 2

To upgrade a cluster, stop each node in turn, start it with the new binary, and wait until
`ottla cluster status --check` is content. Until the level is raised the cluster writes nothing that the old binary
can't read, and every node can go back to it. Afterwards it can't, and a node that does not support the level is
refused.";

#[derive(Args)]
pub(super) struct UpgradeArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The level to raise it to; without it, the highest of the version that is asked
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i16).range(1..))]
    level: Option<i16>,
    /// Only say whether it could be done
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: UpgradeArgs) -> Result<(), Failure> {
    let UpgradeArgs { cluster, level, dry_run } = args;
    let client = cluster.connect().await?;
    let nodes = client.describe_nodes().await.map_err(explain)?;
    let now = nodes.level.ok_or_else(old_node)?;
    // Whoever answered knows at least its own. Where others support less, the controller says who.
    let highest = nodes.nodes.iter().filter_map(|node| node.levels).map(|(_, max)| max).max();
    let to = level.or(highest).unwrap_or(now);
    if to != now {
        client.raise_feature(LEVEL, to, dry_run).await.map_err(refused)?;
    }
    let json = json!({ "from": now, "level": to, "raised": to != now && !dry_run });
    let text = match (to == now, dry_run) {
        (true, _) => format!("The cluster is at level {now}; there is nothing to raise."),
        (_, true) => format!("The cluster can go from level {now} to level {to}, from which there is no way back."),
        (_, false) => format!("The cluster is at level {to}. Nodes that do not support it are refused from now on."),
    };
    cluster.say(&json, &text)
}

fn old_node() -> Failure {
    Failure::failed(
        "the node that was asked runs an older version of Ottla, which has no feature levels; restart every node with \
         the new version first",
    )
}

/// The reason alone, without what Kafka says before it.
fn refused(error: Error) -> Failure {
    match &error {
        Error::Unsupported { .. } => old_node(),
        Error::Broker { message: Some(message), .. } if is(&error, "INVALID_UPDATE_VERSION") => {
            Failure::failed(message.rsplit("had an error: ").next().unwrap_or(message))
        }
        Error::Deadline { .. } if !error.is_unreachable() => Failure::failed(format!(
            "{error}; an older version of Ottla may still be the controller, restart every node with the new version \
             first"
        )),
        _ => error.into(),
    }
}
