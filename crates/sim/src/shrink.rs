//! Looking for the smallest form of a failure: kinds of faults, brokers and time are left out, one after the other, as
//! long as the same rule is broken.

use crate::{Fault, Options, Report, run};

/// A smaller run that breaks the same rule as `report`, which came of `options`; the options it took.
pub fn shrink(options: &Options, report: &Report) -> (Options, Report) {
    let (mut smallest, mut broken) = (options.clone(), report.clone());
    let Some(rule) = report.violation.as_ref().map(|violation| violation.rule) else { return (smallest, broken) };
    let mut smaller = |candidate: Options, smallest: &mut Options| {
        let report = run(&candidate);
        let same = report.violation.as_ref().is_some_and(|violation| violation.rule == rule);
        if same {
            (*smallest, broken) = (candidate, report);
        }
        same
    };
    for fault in Fault::ALL {
        let mut candidate = smallest.clone();
        candidate.without.insert(fault);
        smaller(candidate, &mut smallest);
    }
    smaller(Options { brokers_max: 3, ..smallest.clone() }, &mut smallest);
    for _ in 0..6 {
        let duration_ms = smallest.duration_ms / 4 * 3;
        if !smaller(Options { duration_ms, ..smallest.clone() }, &mut smallest) {
            break;
        }
    }
    (smallest, broken)
}
