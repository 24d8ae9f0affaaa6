//! The series for machines: all turns as they were measured, and the rows computed from them.
//!
//! Reading it back ignores the rows; they follow from the turns.

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Row, Series};

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    series: &'a Series,
    rows: Vec<Row>,
}

pub(crate) fn text(series: &Series) -> Result<String> {
    let mut text = serde_json::to_string(&Document { series, rows: series.rows() })?;
    text.push('\n');
    Ok(text)
}

pub(crate) fn read(text: &str) -> Result<Series> {
    serde_json::from_str(text).context("not the results of a series")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Figure;
    use crate::report::tests::cell;

    #[test]
    fn what_is_written_is_read() {
        let mut series = Series { machine: "two CPUs".to_owned(), rounds: 2, ..Series::default() };
        series.cells.push(cell(Figure::lower("cost", "µs").times(4.0, 8.0), [10.0, 20.0]));
        series.cells[0].turns[0].error = Some("gone".to_owned());
        let written = text(&series).unwrap();
        assert_eq!(read(&written).unwrap(), series);
        let rows = serde_json::from_str::<serde_json::Value>(&written).unwrap();
        assert_eq!(rows["rows"][0]["ratio"], 5.0);
    }
}
