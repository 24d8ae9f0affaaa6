//! I1 and idle memory: what a broker holds that has nothing to do.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};

use crate::contest::Contest;
use crate::load::{Outcome, Side};
use crate::peer::Profile;
use crate::report::{Figure, Goal};

pub(super) fn i1(contest: &mut Contest) -> Result<()> {
    contest.start(Profile::Default)?;
    let memory = || Figure::lower("memory", "MB");
    let figures = vec![memory().goal(Goal::Times(20.0), Goal::AtMost(10.0))];
    contest.cell(1, "idle", "just started", figures, |side| megabytes(side));

    let connections = contest.pace.connections;
    let figures = vec![
        memory().goal(Goal::Times(8.0), Goal::AtMost(50.0)),
        Figure::lower("memory per idle connection", "KB").goal(Goal::Times(8.0), Goal::AtMost(4.0)),
    ];
    let name = format!("{connections} connections");
    contest.cell(1, &name, "each has asked for the versions", figures, |side| {
        let before = side.settled_memory()?;
        let mut held = hold(side, connections)?;
        let during = side.settled_memory();
        held.kill()?;
        held.wait()?;
        let during = during? as f64;
        let each = (during - before as f64).max(0.0) / f64::from(connections);
        Ok(Outcome::default().with("memory", during / 1e6).with("memory per idle connection", each / 1e3))
    });

    let partitions = contest.pace.partitions;
    let figures = vec![memory().goal(Goal::Times(8.0), Goal::AtMost(50.0))];
    contest.cell(1, &format!("{partitions} partitions"), "created, nothing written", figures, |side| {
        side.create_many(partitions)?;
        megabytes(side)
    });
    Ok(())
}

fn megabytes(side: &Side) -> Result<Outcome> {
    Ok(Outcome::default().with("memory", side.settled_memory()? as f64 / 1e6))
}

/// Connections that stay open until the child is killed; it says in one line that all are there.
fn hold(side: &Side, connections: u32) -> Result<Child> {
    let count = connections.to_string();
    let mut command: Command = side.replayer("connections")?;
    let mut child = command.args(["--count", &count, "--seconds", "60"]).spawn()?;
    let stdout = child.stdout.as_mut().context("the replayer has no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(!line.is_empty(), "the connections could not be opened");
    Ok(child)
}
