//! Who may change what: a command against an image gives the records that make it so, and the reply to send once they
//! are committed.
//!
//! Nothing here changes anything. What is not here: authorisation, waiting, sessions, and Kafka's error codes (the
//! broker maps a [`Refusal`]). Next: `command.rs` for what can be asked; `decide/transition.rs` for the heart of it,
//! what a partition becomes when anything about it or its brokers changes; then the files named after what they decide.

mod brokers;
mod cluster;
mod configs;
mod drain;
mod election;
mod features;
mod isr;
mod placement;
mod reassignment;
mod rebalance;
mod topics;
mod transition;

use ottla_types::Timestamp;

use crate::{Command, Image, Record, Refusal, Reply, config::Settings};

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
        Command::Bootstrap => Ok(cluster::bootstrap(image, settings, entropy)),
        Command::RegisterBroker(registration) => brokers::register(image, settings, now, registration),
        Command::FenceBroker { id, epoch } => brokers::fence(image, settings, id, epoch),
        Command::UnfenceBroker { id, epoch } => brokers::unfence(image, settings, id, epoch),
        Command::BeginShutdown { id, epoch } => brokers::begin_shutdown(image, settings, id, epoch),
        Command::ReportDamage { broker, epoch, partitions } => {
            brokers::report_damage(image, settings, broker, epoch, partitions)
        }
        Command::UnregisterBroker { id } => brokers::unregister(image, settings, id),
        Command::DrainBroker { id, drain } => drain::drain(image, settings, id, drain),
        Command::UpdateFeatures { updates, validate_only, reported } => {
            let records = features::update(image, settings, &updates, &reported)?;
            Ok((unless(validate_only, records), Reply::Done))
        }
        Command::AllocateProducerIds { broker, epoch, count } => cluster::allocate(image, broker, epoch, count),
        Command::AlterPartitions { broker, epoch, changes } => isr::alter(image, settings, broker, epoch, changes),
        Command::ElectLeaders { kind, partitions } => {
            let (records, rows) = election::elect(image, settings, kind, partitions);
            Ok((records, Reply::LeadersElected(rows)))
        }
        Command::BalanceLeaders { threshold_percent } => {
            let records = election::balance(image, settings, threshold_percent);
            let elected = records.len();
            Ok((records, Reply::LeadersBalanced { elected }))
        }
        Command::AlterReassignments { partitions, allow_factor_change } => {
            let (records, rows) = reassignment::alter(image, settings, partitions, allow_factor_change);
            Ok((records, Reply::ReassignmentsAltered(rows)))
        }
        Command::RaiseInternalTopics => Ok((drain::raise_internal_topics(image, settings), Reply::Done)),
        Command::Rebalance { dry_run } => {
            let (records, moves) = rebalance::rebalance(image, settings);
            Ok((unless(dry_run, records), Reply::Rebalanced(moves)))
        }
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
            let (mut records, rows) = configs::replace(image, settings, resources);
            records.extend(configs::follow_up(image, settings, &records));
            Ok((unless(validate_only, records), Reply::ConfigsAltered(rows)))
        }
        Command::IncrementalAlterConfigs { resources, validate_only } => {
            let (mut records, rows) = configs::increment(image, settings, resources);
            records.extend(configs::follow_up(image, settings, &records));
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
