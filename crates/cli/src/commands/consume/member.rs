//! `ottla consume --group`: read as a member of a group, and commit what was written out.

use std::collections::HashMap;

use ottla_client::{Client, Error, GroupConsumer, Position, Start, TopicPartition};
use ottla_types::Offset;

use super::{ConsumeArgs, write};
use crate::{
    commands::format::Format,
    failure::{Failure, is},
};

pub(super) async fn consume(args: &ConsumeArgs, group: &str) -> Result<(), Failure> {
    if let Start::Offset(_) = args.from {
        return Err(Failure::usage(
            "with --group, --from is start or end, for where the group has not been yet; `ottla group reset` moves it",
        ));
    }
    let client = args.cluster.connect().await?;
    // Without --follow the end is where it was when the command began, or a busy topic would have none.
    let ends = ends(&client, &args.topic).await?;
    let config = args.consumer_config();
    let topics = [args.topic.clone()];
    let joined = GroupConsumer::join(&client, group, &topics, args.from, config).await;
    let mut consumer = joined.map_err(|error| explain(group, error))?;
    let read = read(args, group, &mut consumer, &ends).await;
    // Also after a failure, or others would wait for what we hold.
    consumer.leave().await?;
    read
}

async fn read(
    args: &ConsumeArgs,
    group: &str,
    consumer: &mut GroupConsumer,
    ends: &HashMap<TopicPartition, Offset>,
) -> Result<(), Failure> {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let format = if args.cluster.json { Format::Json } else { args.format.clone() };
    let mut left = args.max.unwrap_or(u64::MAX);
    while left > 0 && (args.follow || !is_at_end(consumer, ends)) {
        let arrived = tokio::select! {
            arrived = consumer.poll() => arrived.map_err(|error| explain(group, error))?,
            _ = &mut interrupted => break,
        };
        for fetched in arrived {
            let end = ends.get(&fetched.at).copied().filter(|_| !args.follow);
            let next = write(&format, &fetched, end, &mut left)?;
            consumer.done(&fetched.at, next);
        }
    }
    Ok(())
}

async fn ends(client: &Client, topic: &str) -> Result<HashMap<TopicPartition, Offset>, Failure> {
    let partitions = client.partitions_of(topic, &[]).await?;
    let wanted: Vec<_> = partitions.iter().map(|at| (at.clone(), Position::Latest)).collect();
    let found = client.list_offsets(&wanted).await?;
    Ok(partitions.into_iter().zip(found.into_iter().map(|found| found.offset.unwrap_or(Offset::ZERO))).collect())
}

/// Whether there are partitions, and nothing is left in them. Until there are some, others may have to give them up.
fn is_at_end(consumer: &GroupConsumer, ends: &HashMap<TopicPartition, Offset>) -> bool {
    let positions = consumer.positions();
    !positions.is_empty() && positions.iter().all(|(at, next)| ends.get(at).is_none_or(|end| next >= end))
}

fn explain(group: &str, error: Error) -> Failure {
    match error {
        Error::Unsupported { .. } => Failure::failed(format!("{error}; reading as a group needs Kafka 4.0 or like it")),
        error if is(&error, "GROUP_MAX_SIZE_REACHED") || is(&error, "INCONSISTENT_GROUP_PROTOCOL") => {
            Failure::failed(format!("{error}; `ottla group describe {group}` shows its members"))
        }
        error => error.into(),
    }
}
