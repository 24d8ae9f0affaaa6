//! `ottla group reset`: where a group shall go on, partition by partition. It shows the plan, and carries it out if it
//! is told to.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use ottla_client::{Client, Position, TopicPartition};
use ottla_types::{Offset, Timestamp};
use serde_json::json;

use super::{Topic, explain, logs, occupied, or_dash, topic};
use crate::{
    cluster::ClusterArgs,
    commands::consume::since,
    failure::{Failure, is},
    output::{self, Table, count},
};

#[derive(Args)]
pub(super) struct ResetArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The group's name
    group: String,
    /// A topic, or some of its partitions; may be repeated [default: all that the group has committed]
    #[arg(long, value_name = "TOPIC[:N,...]", value_parser = topic)]
    topic: Vec<Topic>,
    #[command(flatten)]
    to: ResetTo,
    /// Do it, instead of showing what would be done
    #[arg(long)]
    execute: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct ResetTo {
    /// To the first record there is
    #[arg(long)]
    to_earliest: bool,
    /// Behind the last record there is now
    #[arg(long)]
    to_latest: bool,
    /// To this offset
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// This many records on, or back if it is negative
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// To the first record of this time or later: 2026-01-31T12:00:00Z, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = since)]
    to_datetime: Option<Timestamp>,
    /// To the first record that is at most this old, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    by_duration: Option<Duration>,
}

impl ResetTo {
    fn goal(&self) -> Result<Goal, Failure> {
        let ago = |ago: Duration| {
            let time = SystemTime::now().checked_sub(ago)?.duration_since(UNIX_EPOCH).ok()?;
            Some(Timestamp(i64::try_from(time.as_millis()).ok()?))
        };
        Ok(match *self {
            ResetTo { to_offset: Some(offset), .. } => Goal::Offset(Offset(offset)),
            ResetTo { shift_by: Some(by), .. } => Goal::Shift(by),
            ResetTo { to_datetime: Some(time), .. } => Goal::Time(time),
            ResetTo { by_duration: Some(duration), .. } => {
                Goal::Time(ago(duration).ok_or_else(|| Failure::usage("--by-duration reaches back beyond 1970"))?)
            }
            ResetTo { to_latest: true, .. } => Goal::End,
            ResetTo { .. } => Goal::Start,
        })
    }
}

/// Where the partitions shall go.
enum Goal {
    Start,
    End,
    Offset(Offset),
    Shift(i64),
    Time(Timestamp),
}

/// What shall happen to one partition.
struct Step {
    at: TopicPartition,
    old: Option<Offset>,
    /// What was asked for, which may lie outside the log.
    wanted: Offset,
    new: Offset,
}

pub(super) async fn run(args: ResetArgs) -> Result<(), Failure> {
    let (group, client) = (&args.group, args.cluster.connect().await?);
    let members = match client.describe_group(group).await {
        Ok(described) => described.members.len(),
        // A group comes to be with its first offset.
        Err(error) if is(&error, "GROUP_ID_NOT_FOUND") => 0,
        Err(error) => return Err(error.into()),
    };
    if args.execute && members > 0 {
        return Err(occupied(group));
    }
    let steps = plan(&client, &args).await?;
    if args.execute {
        let offsets: Vec<_> = steps.iter().map(|step| (step.at.clone(), step.new)).collect();
        client.set_committed(group, &offsets).await.map_err(|error| explain(group, error))?;
    }
    show(&args, &steps)?;
    if args.cluster.json {
        return Ok(());
    }
    let partitions = count(steps.len(), "partition");
    match (args.execute, members) {
        (true, _) => output::print(&format!("Reset {partitions} of group {group}.\n")),
        (false, 0) => output::print("Nothing is changed yet: do it with --execute.\n"),
        (false, _) => output::print(&format!(
            "Nothing is changed yet: stop the group's {}, then do it with --execute.\n",
            count(members, "member")
        )),
    }
}

async fn plan(client: &Client, args: &ResetArgs) -> Result<Vec<Step>, Failure> {
    let committed: BTreeMap<_, _> = client.committed(&args.group).await?.into_iter().collect();
    let mut partitions = BTreeSet::new();
    for topic in &args.topic {
        partitions.extend(client.partitions_of(&topic.name, &topic.partitions).await?);
    }
    if args.topic.is_empty() {
        partitions.extend(committed.keys().cloned());
    }
    if partitions.is_empty() {
        let group = &args.group;
        return Err(Failure::failed(format!("group {group} has committed nothing; name a topic with --topic")));
    }
    let logs = logs(client, &partitions).await?;
    let goal = args.to.goal()?;
    let times = times(client, &goal, &partitions).await?;
    let step = |at: TopicPartition| {
        let Some(log) = logs.get(&at).copied() else {
            return Err(Failure::failed(format!(
                "partition {at} is gone or has no leader; name the topics that shall be reset with --topic"
            )));
        };
        let old = committed.get(&at).copied();
        let wanted = match goal {
            Goal::Start => log.start,
            Goal::End => log.end,
            Goal::Offset(offset) => offset,
            Goal::Shift(by) => Offset(shifted(&at, old)?.0.saturating_add(by)),
            Goal::Time(_) => times.get(&at).copied().unwrap_or(log.end),
        };
        Ok(Step { at, old, wanted, new: wanted.clamp(log.start, log.end) })
    };
    partitions.into_iter().map(step).collect()
}

fn shifted(at: &TopicPartition, old: Option<Offset>) -> Result<Offset, Failure> {
    old.ok_or_else(|| {
        Failure::failed(format!(
            "the group has committed nothing in {at} that could be shifted; use --to-earliest, --to-latest or \
             --to-offset there"
        ))
    })
}

/// The first offsets from a time on, of those partitions that have a record as late.
async fn times(
    client: &Client,
    goal: &Goal,
    partitions: &BTreeSet<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, Offset>, Failure> {
    let Goal::Time(time) = *goal else { return Ok(BTreeMap::new()) };
    let wanted: Vec<_> = partitions.iter().map(|at| (at.clone(), Position::Time(time))).collect();
    let found = client.list_offsets(&wanted).await?;
    let with_offset = wanted.into_iter().zip(found).filter_map(|((at, _), found)| Some((at, found.offset?)));
    Ok(with_offset.collect())
}

fn show(args: &ResetArgs, steps: &[Step]) -> Result<(), Failure> {
    let mut table = Table::new(&["TOPIC", "PARTITION", "OLD", "NEW", "NOTE"]);
    for Step { at, old, wanted, new } in steps {
        if args.cluster.json {
            output::print_json(&json!({
                "group": args.group,
                "topic": &*at.topic,
                "partition": at.partition.0,
                "old": old.map(|offset| offset.0),
                "wanted": wanted.0,
                "new": new.0,
                "executed": args.execute,
            }))?;
        }
        let note = match wanted.cmp(new) {
            Ordering::Less => format!("{wanted} is before the first record"),
            Ordering::Equal => String::new(),
            Ordering::Greater => format!("{wanted} is beyond the end"),
        };
        table.row([at.topic.to_string(), at.partition.to_string(), or_dash(*old), new.to_string(), note]);
    }
    if args.cluster.json { Ok(()) } else { table.print() }
}
