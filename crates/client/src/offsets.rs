//! Offsets by name and by time (ListOffsets).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ottla_protocol::messages::{
    ListOffsetsRequest,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
};
use ottla_types::{LeaderEpoch, Offset, Timestamp};

use crate::{Client, Error, Target, TopicPartition, error::check};

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The first record that is still there.
    Earliest,
    /// Behind the last record.
    Latest,
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// The first record of that time or later.
    Time(Timestamp),
}

/// An answer for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The offset; `None` where no record is that late.
    pub offset: Option<Offset>,
    /// The timestamp of the record there; `None` where nobody asked for a time.
    pub timestamp: Option<Timestamp>,
    /// The leader epoch of the record there; [`LeaderEpoch::NONE`] if unknown.
    pub leader_epoch: LeaderEpoch,
}

impl Client {
    /// Looks up a place in each of the partitions, and gives the answers in the same order.
    ///
    /// # Errors
    /// A partition does not exist or has no leader within the call timeout.
    pub async fn list_offsets(&self, wanted: &[(TopicPartition, Position)]) -> Result<Vec<Found>, Error> {
        let mut found: Vec<Option<Found>> = vec![None; wanted.len()];
        // A request may name a partition once only.
        let mut rounds: Vec<(HashSet<&TopicPartition>, Vec<usize>)> = Vec::new();
        for (index, (at, _)) in wanted.iter().enumerate() {
            match rounds.iter_mut().find(|(seen, _)| !seen.contains(at)) {
                Some((seen, indexes)) => {
                    seen.insert(at);
                    indexes.push(index);
                }
                None => rounds.push((HashSet::from([at]), vec![index])),
            }
        }
        let topics: BTreeSet<&str> = wanted.iter().map(|(at, _)| &*at.topic).collect();
        for (_, indexes) in &rounds {
            for (index, answer) in self.led(&topics, || self.list_offsets_once(wanted, indexes)).await? {
                found[index] = Some(answer);
            }
        }
        let missing = |index: usize| Error::Invalid(format!("the broker did not answer for {}", wanted[index].0));
        found.into_iter().enumerate().map(|(index, found)| found.ok_or_else(|| missing(index))).collect()
    }

    async fn list_offsets_once(
        &self,
        wanted: &[(TopicPartition, Position)],
        indexes: &[usize],
    ) -> Result<Vec<(usize, Found)>, Error> {
        let mut by_leader: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for &index in indexes {
            by_leader.entry(self.leader(&wanted[index].0)?.0).or_default().push(index);
        }
        let mut found = Vec::new();
        for (leader, indexes) in by_leader {
            let answer = self.request_once(Target::Broker(leader), &request(wanted, &indexes)).await?;
            for (name, row) in
                answer.topics.iter().flat_map(|topic| topic.partitions.iter().map(|row| (&topic.name, row)))
            {
                let is_it = |at: &TopicPartition| at.topic[..] == name[..] && at.partition.0 == row.partition_index;
                let Some(&index) = indexes.iter().find(|&&index| is_it(&wanted[index].0)) else { continue };
                check(|| format!("partition {}", wanted[index].0), row.error_code, None)?;
                let answer = Found {
                    offset: (row.offset >= 0).then_some(Offset(row.offset)),
                    timestamp: (row.timestamp >= 0).then_some(Timestamp(row.timestamp)),
                    leader_epoch: LeaderEpoch(row.leader_epoch),
                };
                found.push((index, answer));
            }
        }
        Ok(found)
    }
}

fn request(wanted: &[(TopicPartition, Position)], indexes: &[usize]) -> ListOffsetsRequest {
    let mut topics: Vec<ListOffsetsTopic> = Vec::new();
    for (at, position) in indexes.iter().filter_map(|&index| wanted.get(index)) {
        let timestamp = match position {
            Position::Latest => -1,
            Position::Earliest => -2,
            Position::MaxTimestamp => -3,
            Position::Time(time) => time.0.max(0),
        };
        let row = ListOffsetsPartition { partition_index: at.partition.0, timestamp, ..Default::default() };
        match topics.last_mut().filter(|topic| topic.name[..] == at.topic[..]) {
            Some(topic) => topic.partitions.push(row),
            None => topics.push(ListOffsetsTopic { name: (*at.topic).into(), partitions: vec![row] }),
        }
    }
    ListOffsetsRequest { replica_id: -1, topics, ..Default::default() }
}
