//! The series as pictures: `ratios.svg`, one bar for each figure that has a goal, and `latency-P3.svg` and
//! `latency-C3.svg`, latency by percentile of every broker.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::{Cell, Row, Series, Verdict};

const WIDTH: u32 = 900;
const BAR_HEIGHT: u32 = 20;
const LABELS: u32 = 370;
const MARGIN: u32 = 40;
const FONT: &str = "sans-serif";
/// The workloads whose latency is drawn.
const CURVES: [&str; 2] = ["P3", "C3"];
/// Up to the percentile that one in so many is above.
const RAREST: f64 = 1e5;

const GOOD: RGBColor = RGBColor(46, 125, 50);
const FAIR: RGBColor = RGBColor(129, 173, 96);
const BAD: RGBColor = RGBColor(198, 70, 60);
const LINES: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 96, 34),
    RGBColor(44, 140, 60),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(90, 90, 90),
];

/// A point of a latency curve: one in so many is slower than so many microseconds.
type Point = (f64, f64);

pub(crate) fn draw(series: &Series, directory: &Path) -> Result<()> {
    let rows: Vec<Row> = series.rows().into_iter().filter(|row| row.verdict.is_some()).collect();
    let bars: Vec<(&Row, f64)> = rows.iter().filter_map(|row| Some((row, row.ratio?))).collect();
    if !bars.is_empty() {
        ratios(&bars, &directory.join("ratios.svg")).map_err(|error| anyhow!("ratios.svg: {error}"))?;
    }
    for workload in CURVES {
        let cells = series.cells.iter().filter(|cell| cell.workload == workload);
        let curves: Vec<(String, Vec<Point>)> = cells.flat_map(curves).collect();
        if !curves.is_empty() {
            let name = format!("latency-{workload}.svg");
            percentiles(workload, &curves, &directory.join(&name)).map_err(|error| anyhow!("{name}: {error}"))?;
        }
    }
    Ok(())
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn ratios(bars: &[(&Row, f64)], path: &Path) -> Drawn {
    let height = BAR_HEIGHT * u32::try_from(bars.len())? + 3 * MARGIN;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let most = bars.iter().map(|(_, ratio)| *ratio).fold(10.0, f64::max) * 1.5;
    let least = bars.iter().map(|(_, ratio)| *ratio).fold(0.5, f64::min) / 1.5;
    let count = f64::from(u32::try_from(bars.len())?);
    let mut chart = ChartBuilder::on(&root)
        .caption("How many times better Ottla is (below 1: worse)", (FONT, 16))
        .margin(10)
        .set_label_area_size(LabelAreaPosition::Left, LABELS)
        .set_label_area_size(LabelAreaPosition::Bottom, MARGIN)
        .build_cartesian_2d((least..most).log_scale(), 0.0..count)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .x_label_formatter(&|x| format!("{x}×"))
        .draw()?;
    let mut top = count;
    for (row, ratio) in bars {
        let colour = match row.verdict {
            Some(Verdict::Aim) => GOOD,
            Some(Verdict::Least) => FAIR,
            _ => BAD,
        };
        let middle = top - 0.5;
        chart.draw_series([Rectangle::new([(1.0, top - 0.8), (*ratio, top - 0.2)], colour.filled())])?;
        if let Some((low, high)) = row.interval {
            chart.draw_series([PathElement::new(vec![(low, middle), (high, middle)], BLACK)])?;
        }
        let (_, y) = chart.plotting_area().map_coordinate(&(1.0, middle));
        let label = format!("{} {}, {}", row.workload, row.cell, row.metric);
        root.draw(&Text::new(label, (10, y - 6), (FONT, 12)))?;
        top -= 1.0;
    }
    chart.draw_series([PathElement::new(vec![(1.0, 0.0), (1.0, count)], BLACK)])?;
    Ok(root.present()?)
}

fn percentiles(workload: &str, curves: &[(String, Vec<Point>)], path: &Path) -> Drawn {
    let root = SVGBackend::new(path, (WIDTH, 500)).into_drawing_area();
    root.fill(&WHITE)?;
    let latencies = || curves.iter().flat_map(|(_, points)| points.iter().map(|(_, latency)| *latency));
    let slowest = latencies().fold(1.0, f64::max) * 1.5;
    let fastest = latencies().fold(slowest, f64::min).max(1.0) / 1.5;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{workload}: latency by percentile (lower is better)"), (FONT, 16))
        .margin(10)
        .set_label_area_size(LabelAreaPosition::Left, 70)
        .set_label_area_size(LabelAreaPosition::Bottom, MARGIN)
        .build_cartesian_2d((1.0..RAREST).log_scale(), (fastest..slowest).log_scale())?;
    chart
        .configure_mesh()
        .x_label_formatter(&|rarity| format!("{} %", 100.0 - 100.0 / rarity))
        .y_label_formatter(&|latency| format!("{latency} µs"))
        .draw()?;
    for ((name, points), colour) in curves.iter().zip(LINES.iter().cycle()) {
        let style = colour.stroke_width(2);
        let line = chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        line.label(name.clone()).legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], style));
    }
    let mut legend = chart.configure_series_labels();
    legend.position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    Ok(root.present()?)
}

/// The latency of each broker in a cell, all its rounds together.
fn curves(cell: &Cell) -> Vec<(String, Vec<Point>)> {
    let mut brokers: BTreeMap<&str, BTreeMap<u64, u64>> = BTreeMap::new();
    for turn in &cell.turns {
        let buckets = turn.raw.get("histogram").and_then(serde_json::Value::as_array);
        for bucket in buckets.into_iter().flatten() {
            let upper = bucket.get(0).and_then(serde_json::Value::as_f64);
            let count = bucket.get(1).and_then(serde_json::Value::as_u64);
            if let (Some(upper), Some(count)) = (upper, count) {
                // Bounds have fractions; buckets of several rounds meet at whole microseconds.
                *brokers.entry(&turn.broker).or_default().entry(upper.ceil() as u64).or_default() += count;
            }
        }
    }
    let named = |(broker, buckets): (&str, BTreeMap<u64, u64>)| (format!("{broker}, {}", cell.name), curve(&buckets));
    brokers.into_iter().map(named).filter(|(_, points)| !points.is_empty()).collect()
}

/// From counts by upper bound to points.
fn curve(buckets: &BTreeMap<u64, u64>) -> Vec<Point> {
    let total: u64 = buckets.values().sum();
    let mut above = total;
    let mut points = Vec::new();
    for (upper, count) in buckets {
        let rarity = total as f64 / above as f64;
        if rarity <= RAREST {
            points.push((rarity, (*upper as f64).max(1.0)));
        }
        above -= count;
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Figure;
    use crate::report::tests::cell;

    #[test]
    fn a_curve_says_how_many_are_slower() {
        let buckets = BTreeMap::from([(10, 90), (20, 9), (500, 1)]);
        assert_eq!(curve(&buckets), [(1.0, 10.0), (10.0, 20.0), (100.0, 500.0)]);
    }

    #[test]
    fn a_series_is_drawn() {
        let mut drawn = cell(Figure::lower("cost", "µs").times(4.0, 8.0), [10.0, 20.0]);
        drawn.turns[0].raw = serde_json::json!({ "histogram": [[9.6, 90], [20, 9], [500.0, 1]] });
        let series = Series { cells: vec![drawn], ..Series::default() };
        let place = tempfile::tempdir().unwrap();
        draw(&series, place.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(place.path().join(name)).unwrap();
        assert!(read("ratios.svg").contains("P3 1 connection, cost"));
        assert!(read("latency-P3.svg").contains("ottla, 1 connection"));
        assert!(!place.path().join("latency-C3.svg").exists());
    }
}
