//! What `cargo xtask compat` shows: one row per check, one column per client; then why something is not as it should.

use std::collections::BTreeMap;

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use serde_json::{Value, json};

use super::{Outcome, Report, expected};

/// Rows of one client alone are gathered under what stands before the dot: `tools`, `tests`.
fn is_own(check: &str, common: &[String]) -> bool {
    !common.iter().any(|name| name == check)
}

/// `34 ok, 3 n/a, 1 FAIL in 12 s`
pub(super) fn summary(report: &Report) -> String {
    if let Some(reason) = &report.missing {
        return format!("missing ({reason})");
    }
    let count = |wanted: fn(&Outcome) -> bool| report.outcomes.iter().filter(|(_, outcome)| wanted(outcome)).count();
    format!(
        "{}: {} ok, {} n/a, {} FAIL in {} s",
        report.version,
        count(|outcome| matches!(outcome, Outcome::Ok(_))),
        count(|outcome| matches!(outcome, Outcome::NotAvailable(_))),
        count(|outcome| matches!(outcome, Outcome::Failed(_))),
        report.took.as_secs(),
    )
}

pub(super) fn print(subject: &str, reports: &[Report]) {
    let common = expected();
    let mut notes: Vec<String> = Vec::new();
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(std::iter::once("check").chain(reports.iter().map(|report| report.client)));
    let shown = |check: &&String| reports.iter().any(|report| outcome_of(report, check).is_some());
    for check in common.iter().filter(shown) {
        let cells = reports.iter().map(|report| cell(report, check, &mut notes)).collect::<Vec<_>>();
        table.add_row(std::iter::once(check.clone()).chain(cells));
    }
    for kind in own_kinds(reports, &common) {
        let cells = reports.iter().map(|report| own_cell(report, &kind, &common)).collect::<Vec<_>>();
        table.add_row(std::iter::once(format!("{kind}.*")).chain(cells));
    }
    println!("\nbroker: {subject}\n\n{table}\n");
    for report in reports {
        println!("{}: {}", report.client, summary(report));
    }
    println!();
    for (number, note) in notes.iter().enumerate() {
        println!("n/a {}: {note}", number + 1);
    }
    for report in reports {
        for (check, outcome) in &report.outcomes {
            match outcome {
                Outcome::Failed(detail) => println!("FAIL {} {check}: {detail}", report.client),
                Outcome::NotAvailable(reason) if is_own(check, &common) => {
                    println!("n/a {} {check}: {reason}", report.client);
                }
                _ => {}
            }
        }
    }
}

fn outcome_of<'a>(report: &'a Report, check: &str) -> Option<&'a Outcome> {
    report.outcomes.iter().find(|(name, _)| name == check).map(|(_, outcome)| outcome)
}

fn cell(report: &Report, check: &str, notes: &mut Vec<String>) -> String {
    if report.missing.is_some() {
        return "missing".to_owned();
    }
    match outcome_of(report, check) {
        None => "-".to_owned(),
        Some(Outcome::Ok(_)) => "ok".to_owned(),
        Some(Outcome::Failed(_)) => "FAIL".to_owned(),
        Some(Outcome::NotAvailable(reason)) => {
            let number = notes.iter().position(|note| note == reason).unwrap_or_else(|| {
                notes.push(reason.clone());
                notes.len() - 1
            });
            format!("n/a {}", number + 1)
        }
    }
}

fn own_kinds(reports: &[Report], common: &[String]) -> Vec<String> {
    let mut kinds = Vec::new();
    for (check, _) in reports.iter().flat_map(|report| &report.outcomes) {
        let kind = check.split('.').next().unwrap_or_default().to_owned();
        if is_own(check, common) && !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// How many of one client's own checks of a kind went well: `19 ok` or `FAIL 2/19`.
fn own_cell(report: &Report, kind: &str, common: &[String]) -> String {
    let own = report
        .outcomes
        .iter()
        .filter(|(check, _)| is_own(check, common) && check.split('.').next().is_some_and(|first| first == kind));
    let (mut total, mut failed) = (0, 0);
    for (_, outcome) in own.filter(|(_, outcome)| !matches!(outcome, Outcome::NotAvailable(_))) {
        total += 1;
        failed += u32::from(matches!(outcome, Outcome::Failed(_)));
    }
    match (total, failed) {
        (0, _) => String::new(),
        (_, 0) => format!("{total} ok"),
        _ => format!("FAIL {failed}/{total}"),
    }
}

pub(super) fn json(subject: &str, reports: &[Report]) -> Value {
    let clients = reports.iter().map(|report| {
        let checks = report.outcomes.iter().map(|(check, outcome)| {
            let (result, detail) = match outcome {
                Outcome::Ok(detail) => ("ok", detail),
                Outcome::Failed(detail) => ("fail", detail),
                Outcome::NotAvailable(reason) => ("n/a", reason),
            };
            (check, json!({ "result": result, "detail": detail }))
        });
        json!({
            "client": report.client,
            "version": report.version,
            "missing": report.missing,
            "seconds": report.took.as_secs_f64(),
            "checks": checks.collect::<BTreeMap<_, _>>(),
        })
    });
    json!({ "broker": subject, "clients": clients.collect::<Vec<_>>() })
}
