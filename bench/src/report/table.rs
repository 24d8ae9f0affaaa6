//! The series for people: a table that is Markdown too.

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

use super::{Better, Cell, Goal, OTTLA, Row, Series, Verdict};
use crate::machine::{APPEND_FLOOR, backed_speed};

const HEADER: [&str; 10] =
    ["workload", "metric", "better", "ottla", "peer", "ratio [95 %]", "of floor", "at least", "aim", "result"];

pub(crate) fn text(series: &Series) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(HEADER);
    let rows = series.rows();
    for row in &rows {
        table.add_row(line(row));
    }
    let mut text = format!("{}\n\n", series.machine);
    for (name, version) in &series.brokers {
        text += &format!("- {name}: {version}\n");
    }
    text += &format!("\n{table}\n\n");
    text += &format!("Medians of {} rounds of {} s. ", series.rounds, series.seconds);
    text += "At full speed windows are shorter, and rounds more.\n";
    text += "Ratio: how many times better Ottla is, whichever way better is; below 1 the peer wins.\n";
    let errors = rows.iter().filter_map(|row| Some(format!("{} {}: {}", row.workload, row.cell, row.error.as_ref()?)));
    let made = errors.chain(agreement(&rows)).chain(short_of_memory(series));
    let mut notes: Vec<String> = made.chain(series.notes.iter().cloned()).collect();
    notes.dedup();
    for note in notes {
        text += &format!("\n- {note}");
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// Whether the clients of others find the same broker better as the replayer does where it asks the same.
fn agreement(rows: &[Row]) -> Vec<String> {
    let same = [
        ("produce per CPU", "P2", "maximum", "throughput per CPU"),
        ("consume per CPU", "C1", "warm", "throughput per CPU"),
        ("mean", "C3", "1 k records/s", "p50"),
    ];
    let mut lines = Vec::new();
    for neutral in rows.iter().filter(|row| row.workload == "N1") {
        let Some((_, workload, cell, metric)) = same.iter().find(|same| same.0 == neutral.metric) else { continue };
        let replayed = rows.iter().filter(|row| row.peer_name == neutral.peer_name);
        let replayed = replayed.filter(|row| (&*row.workload, &*row.cell, &*row.metric) == (workload, cell, metric));
        for (ours, theirs) in replayed.filter_map(|row| Some((row.ratio?, neutral.ratio?))) {
            let agree = if (ours >= 1.0) == (theirs >= 1.0) { "agrees" } else { "DISAGREES" };
            let (ours, theirs) = (number(ours), number(theirs));
            let who = format!("{}, {} ({theirs}×)", neutral.cell, neutral.metric);
            lines.push(format!("{who} {agree} with {workload} {cell} ({ours}×) about who is better"));
        }
    }
    lines
}

/// Cells whose turns began with memory that the host had still to give: they are measured with their host.
fn short_of_memory(series: &Series) -> Vec<String> {
    let enough = backed_speed(series.floors.pointer(APPEND_FLOOR).and_then(serde_json::Value::as_f64));
    let short = |cell: &Cell, broker: &str| {
        let before = cell.memory_before(broker).filter(|before| *before < enough)?;
        let (name, before) = (format!("{} {}", cell.workload, cell.name), number(before));
        Some(format!("{name}: memory was not there before the turns of {broker} ({before} GB/cpu-s)"))
    };
    series.cells.iter().flat_map(|cell| [OTTLA, &cell.peer].map(|broker| short(cell, broker))).flatten().collect()
}

fn line(row: &Row) -> [String; 10] {
    let goal = |goal: Option<Goal>| goal.map_or(String::new(), |goal| goal.to_string());
    let better = match row.better {
        Better::Higher => "higher",
        Better::Lower => "lower",
    };
    let ratio = row.ratio.map_or("–".to_owned(), |ratio| format!("{}×", number(ratio)));
    let interval = row.interval.map_or(String::new(), |(low, high)| format!(" [{}–{}]", number(low), number(high)));
    [
        format!("{} {}", row.workload, row.cell),
        format!("{}, {}", row.metric, row.unit),
        better.to_owned(),
        row.ottla.map_or("failed".to_owned(), number),
        match row.peer {
            Some(value) => format!("{} ({})", number(value), row.peer_name),
            None if row.error.is_some() => format!("failed ({})", row.peer_name),
            None => "–".to_owned(),
        },
        ratio + &interval,
        row.floor_percent.map_or(String::new(), |percent| format!("{percent:.0} %")),
        goal(row.least),
        goal(row.aim),
        result(row),
    ]
}

/// Where a goal was missed, what the machine itself would be, if that is known: nobody is better.
fn result(row: &Row) -> String {
    let words = row.verdict.map_or("", Verdict::words);
    match (row.verdict, row.ratio, row.floor_percent) {
        (Some(Verdict::Missed), Some(ratio), Some(percent)) => {
            format!("{words}; the floor: {}×", number(ratio * 100.0 / percent))
        }
        _ => words.to_owned(),
    }
}

/// Three digits that count.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::cell;
    use crate::report::{Figure, MEMORY_BEFORE};

    #[test]
    fn a_line_says_who_is_better_and_by_how_much() {
        let series = Series {
            cells: vec![cell(Figure::lower("cost", "µs").times(4.0, 8.0).floor(Some(1.5)), [10.0, 20.0])],
            notes: vec!["a note".to_owned()],
            ..Series::default()
        };
        let shown = line(&series.rows()[0]);
        assert_eq!(
            shown,
            [
                "P3 1 connection",
                "cost, µs",
                "lower",
                "3.00",
                "15.0 (kafka)",
                "5.00× [5.00–5.00]",
                "50 %",
                "4×",
                "8×",
                "met"
            ]
        );
        assert!(text(&series).ends_with("- a note\n"));
    }

    #[test]
    fn a_goal_that_is_missed_stands_beside_what_the_machine_could() {
        let missed = |figure: Figure| {
            let series = Series { cells: vec![cell(figure, [10.0, 20.0])], ..Series::default() };
            line(&series.rows()[0])[9].clone()
        };
        let figure = Figure::lower("cost", "µs").times(6.0, 8.0);
        assert_eq!(missed(figure.clone()), "MISSED");
        assert_eq!(missed(figure.floor(Some(1.5))), "MISSED; the floor: 10.0×");
        let own = Figure::lower("cost", "KB").goal(Goal::Times(6.0), Goal::AtMost(3.0));
        assert_eq!(missed(own), "MISSED, aim reached");
    }

    #[test]
    fn a_failure_is_shown_and_explained() {
        let mut failed = cell(Figure::lower("cost", "µs").times(4.0, 8.0), [10.0, 20.0]);
        failed.turns.iter_mut().for_each(|turn| turn.error = Some("no room".to_owned()));
        let series = Series { cells: vec![failed], ..Series::default() };
        let shown = line(&series.rows()[0]);
        assert_eq!((&*shown[3], &*shown[4], &*shown[9]), ("failed", "failed (kafka)", "no figure"));
        assert!(text(&series).contains("P3 1 connection: ottla: no room"));
    }

    #[test]
    fn clients_that_disagree_are_named() {
        let replayed = |values| {
            let mut cell = cell(Figure::higher("cost", "GB"), values);
            (cell.workload, cell.name) = ("P2".to_owned(), "maximum".to_owned());
            cell
        };
        let mut rows = Series { cells: vec![replayed([1.0, 2.0]), replayed([4.0, 8.0])], ..Series::default() }.rows();
        rows[0].metric = "throughput per CPU".to_owned();
        (rows[1].workload, rows[1].metric) = ("N1".to_owned(), "produce per CPU".to_owned());
        let said = agreement(&rows);
        assert_eq!(said, ["maximum, produce per CPU (0.50×) DISAGREES with P2 maximum (2.00×) about who is better"]);
    }

    #[test]
    fn a_cell_without_its_memory_is_named() {
        let mut cell = cell(Figure::lower("cost", "µs"), [10.0, 20.0]);
        for turn in &mut cell.turns {
            let before = if turn.broker == OTTLA { backed_speed(Some(3.0)) } else { 1.5 };
            turn.values.insert(MEMORY_BEFORE.to_owned(), before);
        }
        let floors = serde_json::json!({"append_16k": {"gb_per_cpu_s": 3.0}});
        let said = short_of_memory(&Series { cells: vec![cell], floors, ..Series::default() });
        assert_eq!(said, ["P3 1 connection: memory was not there before the turns of kafka (1.50 GB/cpu-s)"]);
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!([1234.5, 12.345, 1.2345, 0.12, 0.00123].map(number), ["1234", "12.3", "1.23", "0.12", "0.0012"]);
    }
}
