//! What a log says of its epochs agrees with what was written in them, whatever is cut, deleted and opened again
//! (rules E1 and E2).

use ottla_log::{Log, SimDisk, StoredBatch};
use ottla_types::{LeaderEpoch, Offset};
use proptest::{collection::vec, prelude::*};

use crate::common::{append, batch, open, small, sync};

#[derive(Clone, Debug)]
enum Step {
    Lead(i32),
    Append(usize),
    Cut(usize),
    Delete(usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1i32..3).prop_map(Step::Lead),
        4 => (1usize..4).prop_map(Step::Append),
        1 => (0usize..100).prop_map(Step::Cut),
        3 => (0usize..100).prop_map(Step::Delete),
        1 => Just(Step::Reopen),
    ]
}

/// All that ever happened: in which epoch each offset was written, and where each epoch began.
#[derive(Default)]
struct Model {
    written: Vec<i32>,
    began: Vec<(i32, usize)>,
    start: usize,
}

impl Model {
    /// The epoch at or below, and where the next one begins.
    fn end_of(&self, epoch: i32) -> Option<(i32, usize)> {
        let above = self.began.iter().position(|(began, _)| *began > epoch)?;
        let (floor, _) = *self.began.get(above.checked_sub(1)?)?;
        Some((floor, self.began[above].1))
    }

    fn check(&self, log: &Log) {
        let epochs = log.epochs();
        let (start, end) = (Offset(self.start as i64), Offset(self.written.len() as i64));
        assert_eq!((log.start(), log.end().offset), (start, end));
        let latest = self.began.last().map_or(-1, |(epoch, _)| *epoch);
        assert_eq!(epochs.latest().map_or(-1, |epoch| epoch.0), latest);
        // Also of the last offset that is gone.
        for offset in self.start.saturating_sub(1)..self.written.len() {
            let epoch = epochs.epoch_at(Offset(offset as i64)).map(|epoch| epoch.0);
            assert_eq!(epoch, Some(self.written[offset]), "at {offset}");
        }
        for epoch in 0..latest {
            let (floor, told) = log.epoch_end(LeaderEpoch(epoch)).unwrap();
            match self.end_of(epoch) {
                Some((known, begins)) if begins >= self.start => {
                    assert_eq!((floor.0, told.0), (known, begins as i64), "epoch {epoch}");
                }
                // Nothing of it is left, so that nobody is told to keep what may be another's.
                _ => assert_eq!((floor.0, told), (epoch, start)),
            }
        }
        if latest >= 0 {
            assert_eq!(log.epoch_end(LeaderEpoch(latest)), Some((LeaderEpoch(latest), end)));
        }
        assert_eq!(log.epoch_end(LeaderEpoch(latest + 1)), None);
    }
}

proptest! {
    #[test]
    fn e1_e2_a_log_tells_of_its_epochs_what_was_written_in_them(steps in vec(step(), 1..40)) {
        let sim = SimDisk::new(1);
        let (mut log, _) = open(&sim, small(), None);
        let mut model = Model::default();
        let mut current = 0;
        for step in steps {
            match step {
                Step::Lead(by) => {
                    current += by;
                    log.assign_epoch(LeaderEpoch(current)).unwrap();
                    let end = model.written.len();
                    model.began.retain(|(_, began)| *began < end);
                    model.began.push((current, end));
                }
                Step::Append(_) if current == 0 => {}
                Step::Append(count) => {
                    // Whoever was cut back appends in an epoch of its own.
                    if model.began.last().is_none_or(|(epoch, _)| *epoch < current) {
                        model.began.push((current, model.written.len()));
                    }
                    for _ in 0..count {
                        append(&mut log, StoredBatch { epoch: LeaderEpoch(current), ..batch(1, 10) });
                    }
                    model.written.extend(vec![current; count]);
                }
                Step::Cut(_) if model.start == model.written.len() => {}
                Step::Cut(percent) => {
                    let to = model.start + 1 + (model.written.len() - model.start - 1) * percent / 100;
                    sync(&mut log);
                    log.truncate(Offset(to as i64)).unwrap();
                    model.written.truncate(to);
                    model.began.retain(|(_, began)| *began < to);
                }
                Step::Delete(percent) => {
                    model.start += (model.written.len() - model.start) * percent / 90;
                    model.start = model.start.min(model.written.len());
                    log.advance_start(Offset(model.start as i64)).unwrap();
                }
                Step::Reopen => {
                    log.close_clean().unwrap();
                    let checkpoint = log.checkpoint();
                    log = open(&sim, small(), Some(checkpoint)).0;
                }
            }
            model.check(&log);
        }
    }
}
