//! The record of what requests cost, `bench/gate.json`, and how a run is judged by it.
//!
//! Not here: how anything is counted.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

/// What may change without anybody having to say so.
const TOLERANCE: f64 = 0.03;
/// Changes of less than this much of a call are the edges of a run.
const EDGE: f64 = 0.01;
/// A request larger than the socket's window arrives in pieces, as many as time has it: how often it is read, and how
/// often waited for, is shown and not judged.
const IN_PIECES: &str = "produce 1 MiB";

/// What one request costs, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Costs {
    pub(super) instructions: f64,
    pub(super) allocations: f64,
    pub(super) system_calls: f64,
    pub(super) switches: f64,
}

impl Costs {
    fn named(&self) -> [(&'static str, f64); 4] {
        [
            (INSTRUCTIONS, self.instructions),
            ("allocations", self.allocations),
            (SYSTEM_CALLS, self.system_calls),
            (SWITCHES, self.switches),
        ]
    }
}

const INSTRUCTIONS: &str = "instructions";
const SYSTEM_CALLS: &str = "system calls";
const SWITCHES: &str = "context switches";

/// What the number of instructions depends on besides our code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Build {
    pub(super) rustc: String,
    pub(super) profile: String,
    pub(super) machine: String,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rustc {}, profile {}, {}", self.rustc, self.profile, self.machine)
    }
}

/// The costs of every script, and of which build they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) build: Build,
    pub(super) scripts: BTreeMap<String, Costs>,
}

impl Record {
    pub(super) fn load(path: &Path) -> Result<Record> {
        let text = fs::read_to_string(path).with_context(|| format!("no record at {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    pub(super) fn store(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(fs::write(path, text)?)
    }
}

/// How a figure stands to its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Same,
    Better,
    Worse,
    /// There is nothing to compare it with.
    New,
    /// Of another compiler, profile or machine, or not the same twice: shown and not judged.
    Incomparable,
}

/// One figure beside its record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    script: String,
    measure: &'static str,
    recorded: Option<f64>,
    now: f64,
    pub(super) verdict: Verdict,
}

/// Every figure of `now` beside that of the record.
pub(super) fn compare(recorded: &Record, now: &Record) -> Vec<Row> {
    let mut rows = Vec::new();
    let same_build = recorded.build == now.build;
    for (script, costs) in &now.scripts {
        let before = recorded.scripts.get(script).map(Costs::named);
        for (place, (measure, now)) in costs.named().into_iter().enumerate() {
            let recorded = before.and_then(|before| before.get(place).map(|&(_, value)| value));
            let verdict = match recorded {
                None => Verdict::New,
                Some(_) if measure == INSTRUCTIONS && !same_build => Verdict::Incomparable,
                Some(_) if script == IN_PIECES && [SYSTEM_CALLS, SWITCHES].contains(&measure) => Verdict::Incomparable,
                Some(recorded) => judge(recorded, now),
            };
            rows.push(Row { script: script.clone(), measure, recorded, now, verdict });
        }
    }
    rows
}

fn judge(recorded: f64, now: f64) -> Verdict {
    let free = (recorded * TOLERANCE).max(EDGE);
    if now > recorded + free {
        Verdict::Worse
    } else if now < recorded - free {
        Verdict::Better
    } else {
        Verdict::Same
    }
}

/// The rows for people.
pub(super) fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["script", "per request", "recorded", "now", "change", ""]);
    for column in 2..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for row in rows {
        let change = |recorded: f64| format!("{:+.1} %", (row.now / recorded - 1.0) * 100.0);
        let verdict = match row.verdict {
            Verdict::Same => "",
            Verdict::Better => "better",
            Verdict::Worse => "WORSE",
            Verdict::New => "new",
            Verdict::Incomparable => "not judged",
        };
        table.add_row([
            row.script.clone(),
            row.measure.to_owned(),
            row.recorded.map_or(String::new(), figure),
            figure(row.now),
            row.recorded.filter(|&recorded| recorded > 0.0).map_or(String::new(), change),
            verdict.to_owned(),
        ]);
    }
    table.to_string()
}

fn figure(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::{Build, Costs, Record, Verdict, compare};

    fn record(instructions: f64, system_calls: f64) -> Record {
        let build = Build { rustc: "1.95.0".into(), profile: "fast".into(), machine: "x86_64".into() };
        let costs = Costs { instructions, system_calls, ..Costs::default() };
        Record { build, scripts: [("produce".to_owned(), costs)].into() }
    }

    fn verdicts(recorded: &Record, now: &Record) -> Vec<Verdict> {
        compare(recorded, now).iter().map(|row| row.verdict).collect()
    }

    #[test]
    fn three_per_cent_are_free_and_more_is_not() {
        use Verdict::{Better, Same, Worse};
        let recorded = record(1000.0, 4.0);
        assert_eq!(verdicts(&recorded, &record(1029.0, 4.1)), [Same, Same, Same, Same]);
        assert_eq!(verdicts(&recorded, &record(1031.0, 5.0)), [Worse, Same, Worse, Same]);
        assert_eq!(verdicts(&recorded, &record(969.0, 3.0)), [Better, Same, Better, Same]);
    }

    #[test]
    fn what_cost_nothing_may_not_begin_to() {
        assert_eq!(verdicts(&record(1000.0, 0.0), &record(1000.0, 0.1))[2], Verdict::Worse);
    }

    #[test]
    fn instructions_of_another_compiler_are_not_judged() {
        let mut now = record(2000.0, 5.0);
        now.build.rustc = "1.96.0".into();
        assert_eq!(verdicts(&record(1000.0, 4.0), &now)[..1], [Verdict::Incomparable]);
        assert_eq!(verdicts(&record(1000.0, 4.0), &now)[2], Verdict::Worse);
    }

    #[test]
    fn a_script_without_a_record_is_new() {
        let mut recorded = record(1.0, 1.0);
        recorded.scripts.clear();
        let rows = compare(&recorded, &record(1.0, 1.0));
        assert!(rows.iter().all(|row| row.verdict == Verdict::New));
    }
}
