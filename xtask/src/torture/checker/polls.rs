//! What a reader is shown of a partition, one poll after the other: nothing left out, nothing again.
//!
//! A reader that chose its partitions itself never skips or goes back. A member of a group goes on where it was until
//! the partition is taken from it; where it begins after a rebalance is no matter of polls.

use std::collections::HashMap;

use super::history::{History, Key, Polled, Process, What, show};
use super::versions::Versions;
use super::{Anomaly, Verdict};

/// The offset behind which a reader goes on, and the operation that put it there.
type Position = (i64, u32);

pub(super) fn check(history: &History, versions: &Versions, verdict: &mut Verdict) {
    let mut positions: HashMap<(Process, Key), Position> = HashMap::new();
    for (index, op) in history.all() {
        let process = op.process;
        match &op.what {
            What::Assign { from } => {
                positions.retain(|(of, _), _| *of != process);
                positions.extend(from.iter().map(|(key, offset)| ((process, *key), (offset.saturating_sub(1), index))));
            }
            What::Assigned { keys, .. } | What::Revoked { keys } => {
                for key in keys {
                    positions.remove(&(process, *key));
                }
            }
            What::Ended => positions.retain(|(of, _), _| *of != process),
            What::Records { polls, .. } => {
                for polled in polls {
                    let before = positions.insert((process, polled.key), (polled.offset, index));
                    if let Some((after, by)) = before {
                        let step = Step { history, versions, polled, after, inside: by == index, by, index };
                        step.check(verdict);
                    }
                }
            }
            _ => {}
        }
    }
}

/// From one record, or from where reading begins, to the next.
struct Step<'a> {
    history: &'a History,
    versions: &'a Versions,
    polled: &'a Polled,
    after: i64,
    /// Whether both are of one poll.
    inside: bool,
    by: u32,
    index: u32,
}

impl Step<'_> {
    fn check(&self, verdict: &mut Verdict) {
        let Polled { key, offset, value } = *self.polled;
        let name = self.history.name(key);
        let (who, before) = (|| self.history.who(self.index), || self.history.who(self.by));
        if offset <= self.after {
            let anomaly = if self.inside { Anomaly::IntNonmonotonicPoll } else { Anomaly::NonmonotonicPoll };
            verdict.report(anomaly, || {
                let value = show(value);
                format!("{name}@{offset}: {} read {value}, and was behind {} since {}", who(), self.after, before())
            });
        } else if offset != self.after + 1
            && let Some(skipped) = self.versions.between(key, self.after, offset)
        {
            let anomaly = if self.inside { Anomaly::IntPollSkip } else { Anomaly::PollSkip };
            verdict.report(anomaly, || {
                let value = show(value);
                format!(
                    "{name}@{offset}: {} read {value} after {} ({}), and {skipped} has a value",
                    who(),
                    self.after,
                    before()
                )
            });
        }
    }
}
