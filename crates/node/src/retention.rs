//! Deletes what a topic may no longer keep: by age, by size of a partition, by size of the topic, by share of the disk.
//!
//! The decision is pure ([`plan`]): from the segments of one topic and its limits it names, for each partition, the
//! offset below which everything goes. The two limits that cover a whole topic on this broker, however many partitions
//! it has, always take the oldest data of the topic first, and may close an active segment early where the closed ones
//! do not suffice. The driver that gathers segments and trims is [`enforce`]; `housekeeping.rs` runs it regularly.
//!
//! Where a log begins is its leader's to decide. A budget is each broker's own: what it holds copies of counts whoever
//! leads it, and where something that is followed has to go, the leader is asked to let go of it
//! ([`Partition::want_start`]), so that the tightest budget of all replicas holds.

use std::{cmp::Reverse, sync::Arc};

use ottla_log::SegmentInfo;
use ottla_metadata::config::TopicConfig;
use ottla_types::{Offset, Timestamp};

use crate::{
    partition::{Partition, Unavailable},
    topics::Topic,
};

/// A topic is cut to its budget less this part of it, so that what arrives between two looks still fits.
const HEADROOM: u64 = 16;

/// What a topic may keep. `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Limits {
    /// `retention.ms`.
    age_ms: Option<i64>,
    /// `retention.bytes`: bytes of each partition.
    partition_bytes: Option<u64>,
    /// The tighter of `ottla.retention.topic.bytes` and `ottla.retention.disk.percent`: bytes of the whole topic.
    topic_bytes: Option<u64>,
}

impl Limits {
    fn of(config: &TopicConfig, disk_bytes: u64) -> Limits {
        if !config.cleanup_policy.delete {
            return Limits::default();
        }
        let share = config.retention_disk_percent.map(|percent| (disk_bytes as f64 * percent / 100.0) as u64);
        Limits {
            age_ms: config.retention_ms,
            partition_bytes: config.retention_bytes,
            topic_bytes: [config.retention_topic_bytes, share]
                .into_iter()
                .flatten()
                .min()
                .map(|limit| limit - limit / HEADROOM),
        }
    }
}

/// What to do to one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Drop every segment that ends at or below the offset.
    TrimTo(Offset),
    /// Close the active segment first, then drop it with everything before it.
    RollAndTrimTo(Offset),
}

/// What must go of one partition, and whether it is for the sake of the topic's budget rather than of its own limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    action: Option<Action>,
    for_budget: bool,
}

/// For each partition what must go, given its segments oldest first.
fn plan(partitions: &[Vec<SegmentInfo>], limits: &Limits, now: Timestamp) -> Vec<Plan> {
    // How many of its oldest segments each partition loses.
    let own: Vec<usize> = partitions
        .iter()
        .map(|segments| by_age(segments, limits, now).max(by_partition_size(segments, limits)))
        .collect();
    let mut doomed = own.clone();
    by_topic_size(partitions, limits, &mut doomed);
    let action = |segments: &[SegmentInfo], count: usize| {
        let last = segments.get(count.checked_sub(1)?)?;
        Some(if last.sealed { Action::TrimTo(last.end) } else { Action::RollAndTrimTo(last.end) })
    };
    let counts = doomed.iter().zip(&own);
    let all = partitions.iter().zip(counts);
    all.map(|(segments, (&count, &own))| Plan { action: action(segments, count), for_budget: count > own }).collect()
}

/// Segments whose newest record is older than the limit; the active one too, as Kafka does. Where no record says when
/// it was written, the next segment that has one that does speaks for it: it is older than that.
fn by_age(segments: &[SegmentInfo], limits: &Limits, now: Timestamp) -> usize {
    let Some(age_ms) = limits.age_ms else { return 0 };
    let mut count = 0;
    for (number, segment) in segments.iter().enumerate().take_while(|(_, segment)| segment.size > 0) {
        if segment.largest_timestamp <= Timestamp::NONE {
            continue;
        }
        if now.0.saturating_sub(segment.largest_timestamp.0) <= age_ms {
            break;
        }
        count = number + 1;
    }
    count
}

/// Closed segments whose loss still leaves at least the limit, as `retention.bytes` means it in Kafka.
fn by_partition_size(segments: &[SegmentInfo], limits: &Limits) -> usize {
    let Some(limit) = limits.partition_bytes else { return 0 };
    let mut excess = segments.iter().map(|segment| segment.size).sum::<u64>().saturating_sub(limit);
    let fits = |segment: &&SegmentInfo| {
        let goes = segment.sealed && segment.size <= excess;
        excess = excess.saturating_sub(segment.size);
        goes
    };
    segments.iter().take_while(fits).count()
}

/// The oldest segments of the whole topic until what is left fits. The last segment to go may be an active one.
fn by_topic_size(partitions: &[Vec<SegmentInfo>], limits: &Limits, doomed: &mut [usize]) {
    let Some(limit) = limits.topic_bytes else { return };
    let mut total: u64 = partitions
        .iter()
        .zip(doomed.iter())
        .flat_map(|(segments, &gone)| segments.iter().skip(gone))
        .map(|segment| segment.size)
        .sum();
    while total > limit {
        // The partition whose oldest remaining segment holds the oldest data; of equals the fuller one.
        let oldest = partitions
            .iter()
            .enumerate()
            .filter_map(|(index, segments)| Some((index, segments.get(doomed[index])?)))
            .filter(|(_, segment)| segment.size > 0)
            .min_by_key(|(index, segment)| (segment.largest_timestamp, Reverse(segment.size), *index));
        let Some((index, segment)) = oldest else { return };
        total = total.saturating_sub(segment.size);
        doomed[index] += 1;
    }
}

/// Applies the limits of `topic` to its partitions on this broker; the first failure, if not all could be done.
pub(crate) fn enforce(topic: &Topic, disk_bytes: u64, now: Timestamp) -> Result<(), Unavailable> {
    let Some(first) = topic.partitions.first() else { return Ok(()) };
    let limits = Limits::of(&first.config(), disk_bytes);
    if limits == Limits::default() {
        return Ok(());
    }
    // One that is offline, or finds no room to roll, keeps what it has and keeps nobody else from going on.
    let segments: Vec<_> = topic.partitions.iter().map(|partition| partition.segments().unwrap_or_default()).collect();
    let mut outcome = Ok(());
    for (partition, plan) in topic.partitions.iter().zip(plan(&segments, &limits, now)) {
        outcome = outcome.and(if partition.is_leading() { lead(partition, plan) } else { follow(partition, plan) });
    }
    outcome
}

fn lead(partition: &Arc<Partition>, plan: Plan) -> Result<(), Unavailable> {
    partition.want_start(Offset::ZERO);
    match plan.action {
        None => Ok(()),
        Some(Action::TrimTo(end)) => partition.trim(end),
        Some(Action::RollAndTrimTo(end)) => partition.roll().and_then(|()| partition.trim(end)),
    }
}

/// Limits of single partitions every leader holds by itself; only what is over this broker's budget is asked for.
fn follow(partition: &Arc<Partition>, plan: Plan) -> Result<(), Unavailable> {
    let (start, rolled) = match plan.action.filter(|_| plan.for_budget) {
        None => (Offset::ZERO, Ok(())),
        Some(Action::TrimTo(end)) => (end, Ok(())),
        Some(Action::RollAndTrimTo(end)) => (end, partition.roll()),
    };
    partition.want_start(start);
    rolled
}

/// The bytes at which a partition of the topic should close its active segment so that the topic's limit can be held
/// with whole segments: an eighth of its share, so that no more than that is ever kept or lost in excess.
pub(crate) fn early_roll_bytes(config: &TopicConfig, disk_bytes: u64, partitions: usize) -> Option<u64> {
    const SEGMENTS_PER_SHARE: u64 = 8;
    const SMALLEST: u64 = 64 << 10;
    let share = Limits::of(config, disk_bytes).topic_bytes? / (partitions.max(1) as u64);
    Some((share / SEGMENTS_PER_SHARE).max(SMALLEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    /// Segments of ten records each from `(size, age in ms)`, the last one active.
    fn segments(of: &[(u64, i64)]) -> Vec<SegmentInfo> {
        let last = of.len() - 1;
        of.iter()
            .enumerate()
            .map(|(index, &(size, age))| SegmentInfo {
                base: Offset(index as i64 * 10),
                end: Offset(index as i64 * 10 + 10),
                size,
                largest_timestamp: Timestamp(NOW.0 - age),
                sealed: index != last,
            })
            .collect()
    }

    fn actions(partitions: &[Vec<SegmentInfo>], limits: &Limits, now: Timestamp) -> Vec<Option<Action>> {
        plan(partitions, limits, now).into_iter().map(|plan| plan.action).collect()
    }

    #[test]
    fn retention_ms_drops_what_is_older_and_stops_at_the_first_that_is_not() {
        let limits = Limits { age_ms: Some(100), ..Limits::default() };
        let kept = segments(&[(5, 300), (5, 101), (5, 100), (5, 200), (5, 0)]);
        assert_eq!(actions(&[kept], &limits, NOW), [Some(Action::TrimTo(Offset(20)))]);
    }

    #[test]
    fn retention_ms_takes_the_active_segment_when_all_of_it_is_old() {
        let limits = Limits { age_ms: Some(100), ..Limits::default() };
        assert_eq!(actions(&[segments(&[(5, 500)])], &limits, NOW), [Some(Action::RollAndTrimTo(Offset(10)))]);
        assert_eq!(actions(&[segments(&[(0, 500)])], &limits, NOW), [None], "an empty segment is not data");
    }

    #[test]
    fn retention_ms_takes_segments_without_timestamps_for_older_than_the_next() {
        let limits = Limits { age_ms: Some(100), ..Limits::default() };
        let undated = NOW.0 - Timestamp::NONE.0;
        assert_eq!(actions(&[segments(&[(5, undated), (5, 0)])], &limits, NOW), [None]);
        let expired = segments(&[(5, undated), (5, 300), (5, undated)]);
        assert_eq!(actions(&[expired], &limits, NOW), [Some(Action::TrimTo(Offset(20)))]);
    }

    #[test]
    fn retention_bytes_keeps_at_least_the_limit_in_each_partition() {
        let limits = Limits { partition_bytes: Some(25), ..Limits::default() };
        let full = segments(&[(10, 0), (10, 0), (10, 0), (10, 0)]);
        assert_eq!(actions(&[full, segments(&[(90, 0)])], &limits, NOW), [Some(Action::TrimTo(Offset(10))), None]);
    }

    #[test]
    fn topic_bytes_takes_the_oldest_data_of_the_topic_whatever_its_partition() {
        let limits = Limits { topic_bytes: Some(40), ..Limits::default() };
        let old = segments(&[(10, 900), (10, 800), (10, 700)]);
        let young = segments(&[(10, 850), (10, 50), (10, 40)]);
        // 60 bytes: the two oldest of the topic go, one from each partition.
        assert_eq!(
            actions(&[old, young], &limits, NOW),
            [Some(Action::TrimTo(Offset(10))), Some(Action::TrimTo(Offset(10)))]
        );
    }

    #[test]
    fn topic_bytes_closes_active_segments_where_the_closed_ones_do_not_suffice() {
        let limits = Limits { topic_bytes: Some(15), ..Limits::default() };
        let partitions = [segments(&[(10, 30)]), segments(&[(10, 20)]), segments(&[(10, 10)])];
        assert_eq!(
            actions(&partitions, &limits, NOW),
            [Some(Action::RollAndTrimTo(Offset(10))), Some(Action::RollAndTrimTo(Offset(10))), None]
        );
    }

    #[test]
    fn only_what_is_over_the_budget_is_the_budgets() {
        let limits = Limits { age_ms: Some(500), topic_bytes: Some(40), ..Limits::default() };
        let old = segments(&[(10, 900), (10, 100)]);
        let young = segments(&[(20, 300), (20, 10)]);
        assert_eq!(
            plan(&[old, young], &limits, NOW),
            [
                Plan { action: Some(Action::TrimTo(Offset(10))), for_budget: false },
                Plan { action: Some(Action::TrimTo(Offset(10))), for_budget: true },
            ]
        );
    }

    #[test]
    fn topic_bytes_follow_the_number_of_partitions() {
        let limits = Limits { topic_bytes: Some(100), ..Limits::default() };
        let one = vec![segments(&[(50, 9), (50, 8)])];
        assert_eq!(actions(&one, &limits, NOW), [None]);
        let two = [one, vec![segments(&[(20, 1)])]].concat();
        assert_eq!(actions(&two, &limits, NOW), [Some(Action::TrimTo(Offset(10))), None]);
    }
}
