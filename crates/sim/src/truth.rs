//! What is true of one partition, whatever any broker believes: what was committed, who led, and who may be trusted.
//!
//! A leader's high watermark commits; from then on every copy must agree below, every leader must have it all, and no
//! producer's sequence may be there twice. The truth ends where more copies were lost at a time than any of them is
//! left (rule A5): from there on the partition is excused, and what is missing counts as lost in the open. What is not
//! here: who looks at the copies (`checks.rs`).

use std::collections::{BTreeMap, BTreeSet};

use ottla_records::BatchHeader;
use ottla_types::{BrokerId, LeaderEpoch, Offset, ProducerId};

/// A batch that is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) base: Offset,
    pub(crate) next: Offset,
    pub(crate) crc: u32,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) producer: (ProducerId, i32),
}

#[derive(Debug, Default)]
pub(crate) struct Truth {
    batches: Vec<Committed>,
    /// Where each producer's sequence is.
    sequences: BTreeMap<(ProducerId, i32), Offset>,
    /// More was lost than the cluster promises to bear.
    pub(crate) excused: bool,
    /// The largest log start that anybody was told of.
    pub(crate) start: Offset,
    /// Brokers whose copies may lack something, until they are in sync again.
    pub(crate) lossy: BTreeSet<usize>,
    /// The least that `min.insync.replicas` came to since there is the partition.
    pub(crate) least_min_isr: Option<usize>,
    /// Who led in each epoch.
    pub(crate) leaders: BTreeMap<LeaderEpoch, BrokerId>,
    /// The end of what was acknowledged to producers under `acks=all`.
    pub(crate) acknowledged: Offset,
}

impl Committed {
    pub(crate) fn of(header: &BatchHeader) -> Committed {
        Committed {
            base: header.base_offset,
            next: header.next_offset(),
            crc: header.crc,
            epoch: header.leader_epoch,
            producer: (header.producer_id, header.base_sequence),
        }
    }
}

impl Truth {
    /// Whether a producer's batch was committed and is gone with the beginning of the log.
    pub(crate) fn is_deleted(&self, producer: ProducerId, sequence: i32) -> bool {
        self.sequences.get(&(producer, sequence)).is_some_and(|base| *base < self.start)
    }

    /// The end of what is committed.
    pub(crate) fn end(&self) -> Offset {
        self.batches.last().map_or(Offset::ZERO, |last| last.next)
    }

    pub(crate) fn batches(&self) -> &[Committed] {
        &self.batches
    }

    /// The committed batch that begins there.
    pub(crate) fn at(&self, base: Offset) -> Option<&Committed> {
        let found = self.batches.binary_search_by_key(&base, |batch| batch.base).ok()?;
        self.batches.get(found)
    }

    /// One more batch is committed, at the end.
    pub(crate) fn commit(&mut self, batch: Committed) -> Result<(), String> {
        if batch.base < self.end() || (batch.base > self.end() && self.end() > Offset::ZERO && !self.excused) {
            return Err(format!("{batch:?} is committed where {} is expected", self.end()));
        }
        if batch.producer.0 != ProducerId::NONE {
            let earlier = self.sequences.insert(batch.producer, batch.base);
            if let Some(earlier) =
                earlier.filter(|earlier| *earlier != batch.base && *earlier >= self.start && !self.excused)
            {
                return Err(format!("P1: {:?} is at {earlier} and at {}", batch.producer, batch.base));
            }
        }
        self.batches.push(batch);
        Ok(())
    }
}
