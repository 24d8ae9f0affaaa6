//! What people and machines read: aligned tables, JSON lines, numbers with units.

use std::{fmt::Write as _, io, io::Write};

use serde_json::Value;

use crate::failure::Failure;

/// Rows under a header, each column as wide as its widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Table {
        Table { rows: vec![header.iter().map(ToString::to_string).collect()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Writes the table to standard output.
    pub(crate) fn print(&self) -> Result<(), Failure> {
        print(&self.text())
    }

    /// The table, a line for each row. Numbers are aligned to the right.
    pub(crate) fn text(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let body = self.rows.get(1..).unwrap_or_default();
        let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
        let shapes: Vec<(usize, bool)> = (0..columns)
            .map(|column| {
                let width = self.rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
                let is_number = |text: String| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
                (width, !body.is_empty() && body.iter().all(|row| is_number(cell(row, column))))
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, &(width, right)) in shapes.iter().enumerate() {
                let cell = cell(row, column);
                let _ = if right { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Writes text to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

/// Writes one JSON value, on one line.
pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value}\n"))
}

/// A number with its noun, in the plural where it is one.
pub(crate) fn count(number: impl ToString, noun: &str) -> String {
    let number = number.to_string();
    match (number.as_str(), noun) {
        ("1", _) => format!("1 {noun}"),
        (_, "copy") => format!("{number} copies"),
        _ => format!("{number} {noun}s"),
    }
}

/// Bytes in the largest binary unit that keeps the number above one: `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {name}") }
}

/// Milliseconds since the epoch as RFC 3339, or the plain number where that has no date.
pub(crate) fn time(millis: i64) -> String {
    let time = u64::try_from(millis)
        .ok()
        .and_then(|millis| std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(millis)));
    // Beyond the year 9999 there is no such text.
    match time {
        Some(time) if millis < 253_402_300_800_000 => humantime::format_rfc3339_millis(time).to_string(),
        _ => millis.to_string(),
    }
}
