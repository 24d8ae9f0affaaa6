//! When each batch of an open loop is meant to be sent, and when those that carry an offset were.
//!
//! Nothing here waits (`engine.rs` does) or sends (`producer.rs`).

/// Batches at a steady rate, dealt out to the producers in turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Nanoseconds from one batch to the next.
    pub(super) period: f64,
    pub(super) producers: u64,
}

impl Schedule {
    /// The time of the batch with this number, all producers together.
    pub(super) fn at(&self, number: u64) -> u64 {
        (number as f64 * self.period) as u64
    }

    /// The time of a producer's own batch.
    pub(super) fn of(&self, producer: u64, own: u64) -> u64 {
        self.at(own * self.producers + producer)
    }
}

/// The intended times of all batches, by partition and offset. Each partition must have one producer.
#[derive(Debug)]
pub(super) struct Journal {
    batch_records: i64,
    /// The partition's end at the start, and what was sent since.
    partitions: Vec<(i64, Vec<u64>)>,
}

impl Journal {
    pub(super) fn new(ends: &[i64], batch_records: i64) -> Journal {
        Journal { batch_records, partitions: ends.iter().map(|end| (*end, Vec::new())).collect() }
    }

    pub(super) fn sent(&mut self, partition: usize, intended: u64) {
        self.partitions[partition].1.push(intended);
    }

    /// When the batch that begins at `offset` was meant to be sent; `None` if it was none of ours.
    pub(super) fn intended(&self, partition: usize, offset: i64) -> Option<u64> {
        let (start, times) = self.partitions.get(partition)?;
        let since = offset.checked_sub(*start)?;
        if since % self.batch_records != 0 {
            return None;
        }
        times.get(usize::try_from(since / self.batch_records).ok()?).copied()
    }

    /// The end that a partition has when everything has arrived.
    pub(super) fn end(&self, partition: usize) -> i64 {
        let (start, times) = &self.partitions[partition];
        start + self.batch_records * times.len() as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_producers_share_one_steady_rate() {
        let schedule = Schedule { period: 1e9 / 3.0, producers: 2 };
        let own: Vec<_> = [(0, 0), (1, 0), (0, 1), (1, 1)].iter().map(|(who, own)| schedule.of(*who, *own)).collect();
        assert_eq!(own, [0, 333_333_333, 666_666_666, 1_000_000_000]);
    }

    #[test]
    fn an_offset_leads_to_the_time_of_its_batch() {
        let mut journal = Journal::new(&[0, 100], 10);
        journal.sent(1, 5);
        journal.sent(1, 6);
        let found = [100, 110, 120, 105, 90].map(|offset| journal.intended(1, offset));
        assert_eq!(found, [Some(5), Some(6), None, None, None]);
        assert_eq!((journal.end(0), journal.end(1)), (0, 120));
    }
}
