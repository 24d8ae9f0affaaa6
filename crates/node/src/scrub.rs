//! The slow background check of data at rest: a little of one partition at each round, forever around.
//!
//! What it finds it reports, as an error in the log with the place, and where other replicas are in sync to the
//! controller, so that one of them leads and the copy is made anew (rule L5). With a single copy there is nothing to
//! repair from, and taking readable data away would make the loss larger. It visits only partitions that are open.
//! Next: `ottla_log::LogReader::scrub_step` for the check itself.

use ottla_log::ScrubCursor;
use ottla_types::{PartitionIndex, TopicId};

use crate::topics::Topics;

/// Bytes checked in one round of housekeeping: 4 MiB a second reads 10 GiB in three quarters of an hour.
const STEP_BYTES: u64 = 4 << 20;

/// Where the check has come to.
#[derive(Default)]
pub(crate) struct Scrub {
    at: Option<(TopicId, PartitionIndex)>,
    cursor: ScrubCursor,
}

impl Scrub {
    /// Checks the next few bytes.
    pub(crate) fn step(&mut self, topics: &Topics) {
        let open = || topics.partitions().filter(|partition| partition.is_open());
        let place = |at: Option<(TopicId, PartitionIndex)>| {
            open().filter(|p| at.is_none_or(|at| (p.topic(), p.index()) >= at)).min_by_key(|p| (p.topic(), p.index()))
        };
        let Some(partition) = place(self.at).or_else(|| place(None)) else { return };
        let here = (partition.topic(), partition.index());
        if self.at != Some(here) {
            self.cursor = ScrubCursor::default();
        }
        self.at = Some(here);
        match partition.scrub(self.cursor, STEP_BYTES) {
            Some(step) if !step.finished => self.cursor = step.next,
            // Done, or not readable now: on to the next partition.
            _ => {
                self.cursor = ScrubCursor::default();
                self.at = Some((here.0, PartitionIndex(here.1.0.saturating_add(1))));
            }
        }
    }
}
