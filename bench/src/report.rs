//! What a series of runs found: every turn of every cell as it was measured, and the rows that people read.
//!
//! A [`Cell`] is one load with one set of settings; its [`Turn`]s are Ottla and the peer, one after the other, round by
//! round. A [`Figure`] is one thing a turn measures. A [`Row`] is made of one figure of one cell: per round the ratio,
//! over all rounds its median and interval. Rows are always computed from the turns, so a table can be made again from
//! the JSON. How it is shown: `table`, `json`, `svg`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::statistics::{interval, median};

pub(crate) mod json;
mod svg;
pub(crate) mod table;

/// The name our own broker has in `bench/peers`.
pub(crate) const OTTLA: &str = "ottla";
/// Among the values of each turn, beside its figures: it tells a turn whose memory was not there.
pub(crate) const MEMORY_BEFORE: &str = "memory before, GB/cpu-s";

/// Everything one command measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) machine: String,
    /// Name and version of each broker.
    pub(crate) brokers: BTreeMap<String, String>,
    pub(crate) rounds: usize,
    pub(crate) seconds: u64,
    pub(crate) floors: serde_json::Value,
    pub(crate) cells: Vec<Cell>,
    /// What a reader of the figures should know: workloads that could not run, foreign load, clients that disagree.
    pub(crate) notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) workload: String,
    pub(crate) name: String,
    pub(crate) peer: String,
    /// How the load was called.
    pub(crate) settings: String,
    pub(crate) figures: Vec<Figure>,
    pub(crate) turns: Vec<Turn>,
}

/// One broker, one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub(crate) round: usize,
    pub(crate) broker: String,
    /// By name of the figure.
    pub(crate) values: BTreeMap<String, f64>,
    pub(crate) error: Option<String>,
    /// What the load reported, word for word.
    pub(crate) raw: serde_json::Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) better: Better,
    pub(crate) least: Option<Goal>,
    pub(crate) aim: Option<Goal>,
    /// What the machine itself takes for it, measured by the primitives at the start of the series.
    pub(crate) floor: Option<f64>,
}

impl Figure {
    pub(crate) fn higher(name: &str, unit: &str) -> Figure {
        let (name, unit) = (name.to_owned(), unit.to_owned());
        Figure { name, unit, better: Better::Higher, least: None, aim: None, floor: None }
    }

    pub(crate) fn lower(name: &str, unit: &str) -> Figure {
        Figure { better: Better::Lower, ..Figure::higher(name, unit) }
    }

    pub(crate) fn goal(self, least: Goal, aim: Goal) -> Figure {
        Figure { least: Some(least), aim: Some(aim), ..self }
    }

    /// So many times better than the peer.
    pub(crate) fn times(self, least: f64, aim: f64) -> Figure {
        self.goal(Goal::Times(least), Goal::Times(aim))
    }

    pub(crate) fn floor(self, floor: Option<f64>) -> Figure {
        Figure { floor, ..self }
    }

    /// How many times better the first is.
    fn ratio(&self, ottla: f64, peer: f64) -> Option<f64> {
        let ratio = match self.better {
            Better::Higher => ottla / peer,
            Better::Lower => peer / ottla,
        };
        ratio.is_finite().then_some(ratio)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// So many times better than the peer.
    Times(f64),
    /// Ottla's own value, in the figure's unit.
    AtMost(f64),
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::Times(times) => write!(f, "{times}×"),
            Goal::AtMost(value) => write!(f, "≤ {value}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Aim,
    Least,
    Missed,
    /// The goal beside the peer, while Ottla's own value is what it was to be.
    MissedBeside,
    /// One of the two brokers gave no figure.
    Failed,
}

impl Verdict {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Verdict::Aim => "met, aim reached",
            Verdict::Least => "met",
            Verdict::Missed => "MISSED",
            Verdict::MissedBeside => "MISSED, aim reached",
            Verdict::Failed => "no figure",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) workload: String,
    pub(crate) cell: String,
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) better: Better,
    pub(crate) peer_name: String,
    /// Medians over the rounds.
    pub(crate) ottla: Option<f64>,
    pub(crate) peer: Option<f64>,
    /// How many times better Ottla is, round by round: the median and where it lies with 95 % confidence.
    pub(crate) ratio: Option<f64>,
    pub(crate) interval: Option<(f64, f64)>,
    pub(crate) floor_percent: Option<f64>,
    pub(crate) least: Option<Goal>,
    pub(crate) aim: Option<Goal>,
    /// None where there is no goal.
    pub(crate) verdict: Option<Verdict>,
    pub(crate) error: Option<String>,
}

impl Series {
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.cells.iter().flat_map(|cell| cell.figures.iter().map(|figure| cell.row(figure))).collect()
    }

    /// Writes `results.json`, `table.md` and the plots.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("results.json"), json::text(self)?)?;
        fs::write(directory.join("table.md"), table::text(self))?;
        svg::draw(self, directory)
    }
}

impl Cell {
    /// The figure's values of one broker, by round.
    pub(crate) fn values(&self, broker: &str, figure: &Figure) -> BTreeMap<usize, f64> {
        let turns = self.turns.iter().filter(|turn| turn.broker == broker && turn.error.is_none());
        turns.filter_map(|turn| Some((turn.round, *turn.values.get(&figure.name)?))).collect()
    }

    /// The median of what writing to memory took before the turns of one broker.
    fn memory_before(&self, broker: &str) -> Option<f64> {
        let values = self.values(broker, &Figure::higher(MEMORY_BEFORE, ""));
        median(&values.into_values().collect::<Vec<_>>())
    }

    fn row(&self, figure: &Figure) -> Row {
        let (ottla, peer) = (self.values(OTTLA, figure), self.values(&self.peer, figure));
        let both = ottla.iter().filter_map(|(round, ottla)| Some((*ottla, *peer.get(round)?)));
        let ratios: Vec<f64> = both.filter_map(|(ottla, peer)| figure.ratio(ottla, peer)).collect();
        let middle = |values: &BTreeMap<usize, f64>| median(&values.values().copied().collect::<Vec<_>>());
        let (ottla, ratio) = (middle(&ottla), median(&ratios));
        let holds = |goal: Goal| match goal {
            Goal::Times(times) => ratio.map(|ratio| ratio >= times),
            Goal::AtMost(most) => ottla.map(|ottla| ottla <= most),
        };
        Row {
            workload: self.workload.clone(),
            cell: self.name.clone(),
            metric: figure.name.clone(),
            unit: figure.unit.clone(),
            better: figure.better,
            peer_name: self.peer.clone(),
            ottla,
            peer: middle(&peer),
            ratio,
            interval: interval(&ratios),
            floor_percent: figure.floor.zip(ottla).map(|(floor, ottla)| match figure.better {
                Better::Higher => 100.0 * ottla / floor,
                Better::Lower => 100.0 * floor / ottla,
            }),
            least: figure.least,
            aim: figure.aim,
            verdict: figure.least.map(|least| verdict(holds(least), figure.aim.and_then(holds))),
            error: self.turns.iter().find_map(|turn| Some(format!("{}: {}", turn.broker, turn.error.as_ref()?))),
        }
    }
}

fn verdict(least: Option<bool>, aim: Option<bool>) -> Verdict {
    match (least, aim) {
        (None, _) => Verdict::Failed,
        (Some(true), Some(true)) => Verdict::Aim,
        (Some(true), _) => Verdict::Least,
        (Some(false), Some(true)) => Verdict::MissedBeside,
        (Some(false), _) => Verdict::Missed,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn turn(round: usize, broker: &str, value: f64) -> Turn {
        let values = BTreeMap::from([("cost".to_owned(), value)]);
        Turn { round, broker: broker.to_owned(), values, error: None, raw: serde_json::Value::Null }
    }

    /// Two rounds; the peer's values are given, Ottla's are 2 and 4.
    pub(crate) fn cell(figure: Figure, peer: [f64; 2]) -> Cell {
        let turns =
            vec![turn(0, OTTLA, 2.0), turn(0, "kafka", peer[0]), turn(1, "kafka", peer[1]), turn(1, OTTLA, 4.0)];
        Cell {
            workload: "P3".to_owned(),
            name: "1 connection".to_owned(),
            peer: "kafka".to_owned(),
            settings: "--depth 1".to_owned(),
            figures: vec![figure],
            turns,
        }
    }

    fn row(figure: Figure, peer: [f64; 2]) -> Row {
        let cell = cell(figure, peer);
        cell.row(&cell.figures[0])
    }

    #[test]
    fn a_ratio_says_how_many_times_better_whichever_way_better_is() {
        let lower = row(Figure::lower("cost", "µs").times(4.0, 8.0), [10.0, 20.0]);
        assert_eq!((lower.ottla, lower.peer, lower.ratio), (Some(3.0), Some(15.0), Some(5.0)));
        assert_eq!((lower.interval, lower.verdict), (Some((5.0, 5.0)), Some(Verdict::Least)));
        let higher = row(Figure::higher("cost", "GB").times(4.0, 8.0), [10.0, 20.0]);
        assert_eq!((higher.ratio, higher.verdict), (Some(0.2), Some(Verdict::Missed)));
    }

    #[test]
    fn an_aim_may_be_a_value_of_our_own() {
        let figure = Figure::lower("cost", "MB").goal(Goal::Times(2.0), Goal::AtMost(3.0)).floor(Some(1.5));
        let row = row(figure, [10.0, 20.0]);
        assert_eq!((row.verdict, row.floor_percent), (Some(Verdict::Aim), Some(50.0)));
    }

    #[test]
    fn a_broker_that_failed_leaves_its_error_and_no_verdict() {
        let figure = Figure::lower("cost", "µs").times(4.0, 8.0);
        let mut cell = cell(figure.clone(), [10.0, 20.0]);
        for turn in cell.turns.iter_mut().filter(|turn| turn.broker == "kafka") {
            turn.error = Some("no such topic".to_owned());
        }
        let row = cell.row(&figure);
        assert_eq!((row.peer, row.ratio, row.verdict), (None, None, Some(Verdict::Failed)));
        assert_eq!(row.error.as_deref(), Some("kafka: no such topic"));
    }

    #[test]
    fn a_round_that_one_broker_lacks_counts_for_neither_ratio() {
        let mut cell = cell(Figure::lower("cost", "µs"), [10.0, 40.0]);
        cell.turns.remove(1);
        assert_eq!(cell.row(&cell.figures[0]).ratio, Some(10.0));
    }
}
